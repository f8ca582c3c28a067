//! The queue that volumes see: it keeps sends in order, goes on after short transfers, and tells what came of each operation.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use super::device::Uring;
use super::job::{Finished, Job, Parcel, Train, Which, Work};
use super::threads::Threads;
use super::{Completion, Failure, Head, Operation, Socket};

/// How often a job that the kernel could not take right now (EAGAIN, EINTR) is handed to it again.
const MOST_RETRIES: u8 = 100;

/// What carries out the operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// io_uring, or threads where the kernel refuses it.
    #[default]
    Auto,
    Uring,
    Threads,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    pub engine: Engine,
    /// How many threads work on the disk where there is no io_uring.
    pub disk_threads: usize,
    /// So long io_uring's completions are looked for, under a load whose waits are that short, before the thread sleeps; zero for never.
    pub busy_poll: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { engine: Engine::Auto, disk_threads: 8, busy_poll: Duration::from_micros(100) }
    }
}

/// Which engine it is.
#[derive(Debug)]
pub enum EngineKind<'a> {
    Uring,
    /// And what the kernel said to io_uring, if it was asked.
    Threads {
        refused: Option<&'a io::Error>,
    },
}

/// One thread's queue of I/O. It stays with the thread that made it.
///
/// When it is dropped, whatever can be cancelled is, and the rest is waited for, 30 s at most; after that it is never freed.
#[derive(Debug)]
pub struct Ring {
    driver: Driver,
    refused: Option<io::Error>,
    waker: Waker,
    /// What begins with the next wait, in the order of submission.
    ready: VecDeque<Ready>,
    /// By descriptor, which stays that socket's as long as something is in its lane.
    lanes: Vec<Lane>,
    spare_trains: Vec<VecDeque<Parcel>>,
    finished: Vec<Finished>,
    completed: Vec<Completion>,
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
enum Driver {
    Uring(Uring),
    Threads(Threads),
}

#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a box for each job would be an allocation for each operation")]
enum Ready {
    Job(Job),
    /// The train that waits there.
    Lane(usize),
}

/// The sends of one socket: one train under way, and one that fills meanwhile.
#[derive(Debug, Default)]
struct Lane {
    is_under_way: bool,
    waiting: Option<Train>,
    backlog: Backlog,
}

/// What is not out yet of what a socket is to send, and how many bytes ever were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Those that have begun included.
    pub sends: usize,
    pub bytes: usize,
    pub sent: u64,
}

/// Ends the wait of a [`Ring`] from another thread. Clones wake the same one.
#[derive(Debug, Clone)]
pub struct Waker(Arc<Bell>);

#[derive(Debug)]
struct Bell {
    descriptor: Arc<OwnedFd>,
    is_rung: AtomicBool,
}

impl Waker {
    /// The ring's next wait, or the one under way, ends. What was written to memory before is seen by whoever waited.
    pub fn wake(&self) {
        if !self.0.is_rung.swap(true, Ordering::AcqRel) {
            // It fails only when 2^64 - 1 calls wait to be heard.
            let _ = rustix::io::write(&self.0.descriptor, &1_u64.to_ne_bytes());
        }
    }
}

impl Ring {
    /// # Errors
    /// The engine that was asked for by name is refused, or there are no descriptors or threads left.
    pub fn new(options: Options) -> Result<Self, io::Error> {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let threads = || Threads::new(bell.clone(), options.disk_threads).map(Driver::Threads);
        let (driver, refused) = match options.engine {
            Engine::Threads => (threads()?, None),
            Engine::Uring => (Driver::Uring(Uring::new(bell.clone(), options.busy_poll)?), None),
            Engine::Auto => match Uring::new(bell.clone(), options.busy_poll) {
                Ok(uring) => (Driver::Uring(uring), None),
                Err(error) => (threads()?, Some(error)),
            },
        };
        let waker = Waker(Arc::new(Bell { descriptor: bell, is_rung: AtomicBool::new(false) }));
        Ok(Self {
            driver,
            refused,
            waker,
            ready: VecDeque::new(),
            lanes: Vec::new(),
            spare_trains: Vec::new(),
            finished: Vec::new(),
            completed: Vec::new(),
        })
    }

    #[must_use]
    pub fn engine(&self) -> EngineKind<'_> {
        match &self.driver {
            Driver::Uring(_) => EngineKind::Uring,
            Driver::Threads(_) => EngineKind::Threads { refused: self.refused.as_ref() },
        }
    }

    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }

    /// To begin with the next [`Ring::wait`], sends before the rest; those on one socket in the order of submission, the others in no certain order.
    /// Ends in exactly one completion with that token, a quiet send only if it fails.
    ///
    /// # Panics
    /// If a range reaches beyond its buffer, or nothing at all is to be moved.
    pub fn submit(&mut self, operation: Operation, token: u64) {
        operation.check();
        let begun = match operation {
            Operation::Send { socket, head, body, quiet } => {
                return self.enqueue(&socket, Parcel::new(token, head, body, quiet));
            }
            Operation::Connect { ref socket, ref address } => socket.begin_connect(address),
            Operation::Accept { ref listener } => listener.prepare_accept().map(|()| false),
            _ => Ok(false),
        };
        let job = Job::one(token, operation);
        match begun {
            Ok(false) => self.ready.push_back(Ready::Job(job)),
            Ok(true) => self.complete(job, Ok(0), None),
            Err(errno) => self.complete(job, Err(errno.into()), None),
        }
    }

    /// As [`Ring::submit`], but a receive whose bytes are there already is complete at once. Where a client or peer has sent many requests, all of
    /// them are then taken before the next [`Ring::wait`], and their writes go to the disk and to the peers together.
    ///
    /// # Panics
    /// As [`Ring::submit`].
    pub fn submit_or_complete(&mut self, operation: Operation, token: u64) -> Option<Completion> {
        if !matches!(operation, Operation::Recv { .. }) {
            self.submit(operation, token);
            return None;
        }
        operation.check();
        let mut job = Job::one(token, operation);
        match job.recv_now() {
            Err(Errno::AGAIN) => {
                self.ready.push_back(Ready::Job(job));
                None
            }
            result => {
                let before = self.completed.len();
                self.settle(job, result);
                if self.completed.len() > before { self.completed.pop() } else { None }
            }
        }
    }

    /// Ends what was submitted with that token: it completes soon, as cancelled, or as done if that came first. A write that has reached the disk
    /// goes on, and so does a send that has begun: messages are not cut short.
    pub fn cancel(&mut self, token: u64) {
        self.cancel_ready(Which::Token(token));
        for lane in 0..self.lanes.len() {
            let train = self.lanes[lane].waiting.as_mut();
            if let Some(parcel) = train.and_then(|train| train.remove(token)) {
                let backlog = &mut self.lanes[lane].backlog;
                backlog.sends -= 1;
                backlog.bytes -= parcel.len();
                self.completed.push(told(parcel.token, Err(Failure::Cancelled)));
            }
        }
        self.driver.cancel(Which::Token(token));
    }

    /// How far the sends on that socket are: those to somebody who does not receive pile up.
    #[must_use]
    pub fn backlog(&self, socket: &Socket) -> Backlog {
        let lane = usize::try_from(socket.raw()).ok().and_then(|number| self.lanes.get(number));
        lane.map(|lane| lane.backlog).unwrap_or_default()
    }

    /// Ends everything on that socket, sends that have begun included: it is of no use any more. Each completes soon.
    pub fn cancel_socket(&mut self, socket: &Socket) {
        self.cancel_ready(Which::Socket(socket.raw()));
        let lane = self.lane_of(socket);
        if let Some(train) = self.lanes[lane].waiting.take() {
            self.end(train, Failure::Cancelled);
        }
        self.driver.cancel(Which::Socket(socket.raw()));
    }

    /// Begins what was submitted, and waits until something has completed, a [`Waker`] was used, or it is `until` (nanoseconds of CLOCK_BOOTTIME,
    /// see [`boottime_ns`](super::boottime_ns)); without `until`, as long as that takes. Completions are added to the list. True if a waker was used.
    ///
    /// It may return early, with nothing.
    ///
    /// # Errors
    /// The engine itself failed: nothing is known of what was in flight.
    pub fn wait(&mut self, completions: &mut Vec<Completion>, until: Option<u64>) -> Result<bool, io::Error> {
        self.begin();
        let is_woken = match &mut self.driver {
            Driver::Uring(uring) => uring.wait(until, self.completed.is_empty(), &mut self.finished)?,
            Driver::Threads(threads) => threads.wait(until, self.completed.is_empty(), &mut self.finished)?,
        };
        if is_woken {
            self.waker.0.is_rung.swap(false, Ordering::AcqRel);
        }
        let mut finished = std::mem::take(&mut self.finished);
        for (job, result) in finished.drain(..) {
            self.settle(job, result);
        }
        self.finished = finished;
        completions.append(&mut self.completed);
        Ok(is_woken)
    }

    fn begin(&mut self) {
        // What is sent only in part comes back, and then either goes on or is the engine's: this ends.
        while let Some(next) = self.ready.pop_front() {
            match next {
                Ready::Job(job) => self.start(job),
                Ready::Lane(lane) => {
                    if let Some(train) = self.lanes[lane].waiting.take() {
                        self.lanes[lane].is_under_way = true;
                        self.start(Job::train(train));
                    }
                }
            }
        }
    }

    /// Sends are tried at once, because mostly the socket takes them: one system call for all that waits there, and no completion to wake for.
    fn start(&mut self, job: Job) {
        match &job.work {
            Work::One(_) => self.driver.start(job),
            Work::Train(train) => match train.send_now() {
                Err(Errno::AGAIN) => self.driver.start(job),
                result => self.settle(job, result),
            },
        }
    }

    fn enqueue(&mut self, socket: &Socket, parcel: Parcel) {
        let number = self.lane_of(socket);
        let lane = &mut self.lanes[number];
        lane.backlog.sends += 1;
        lane.backlog.bytes += parcel.len();
        if lane.waiting.is_none() && !lane.is_under_way {
            self.ready.push_back(Ready::Lane(number));
        }
        let spare = || Train::new(socket.clone(), self.spare_trains.pop().unwrap_or_default());
        lane.waiting.get_or_insert_with(spare).push(parcel);
    }

    fn lane_of(&mut self, socket: &Socket) -> usize {
        let number = usize::try_from(socket.raw()).expect("a descriptor is not negative");
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, Lane::default);
        }
        number
    }

    /// What an engine has carried out has ended, or goes on.
    fn settle(&mut self, mut job: Job, result: Result<usize, Errno>) {
        if matches!(result, Err(Errno::AGAIN | Errno::INTR)) && job.retries < MOST_RETRIES {
            job.retries += 1;
            return self.go_on(job);
        }
        match job.work {
            Work::Train(_) => self.settle_train(job, result),
            Work::One(_) => self.settle_one(job, result),
        }
    }

    fn settle_one(&mut self, mut job: Job, result: Result<usize, Errno>) {
        let moved = match result {
            Ok(moved) => moved,
            Err(errno) => return self.complete(job, Err(errno.into()), None),
        };
        job.done += moved;
        let Work::One(operation) = &job.work else { unreachable!("it was looked at") };
        match operation {
            // A read that stops between two blocks has met the end of the file.
            Operation::Read { into, .. } if moved == 0 || job.done == into.len() || !job.done.is_multiple_of(4096) => {
                self.complete_moved(job);
            }
            Operation::Write { .. } if moved == 0 => self.complete(job, Err(Failure::Io), None),
            Operation::Write { data, .. } if job.done == data.len() => self.complete_moved(job),
            Operation::Recv { .. } if moved == 0 => self.complete(job, Err(Failure::Closed), None),
            Operation::Recv { at_least, .. } if job.done >= *at_least => self.complete_moved(job),
            Operation::Read { .. } | Operation::Write { .. } | Operation::Recv { .. } => self.go_on(job),
            Operation::Flush { .. } | Operation::PunchHole { .. } | Operation::ZeroRange { .. } => {
                self.complete(job, Ok(0), None);
            }
            Operation::Accept { listener } => match listener.accept() {
                Ok(Some(socket)) => self.complete(job, Ok(0), Some(socket)),
                Ok(None) => self.go_on(job),
                Err(errno) => self.complete(job, Err(errno.into()), None),
            },
            Operation::Connect { socket, .. } => {
                let result = socket.end_connect().map(|()| 0).map_err(Failure::from);
                self.complete(job, result, None);
            }
            Operation::Send { .. } => unreachable!("sends go by train"),
        }
    }

    fn settle_train(&mut self, mut job: Job, result: Result<usize, Errno>) {
        let Work::Train(train) = &mut job.work else { unreachable!("it was looked at") };
        let before = train.len();
        let failure = match result {
            Ok(0) => Some(Failure::Closed),
            Ok(sent) => {
                let told = train
                    .advance(sent)
                    .filter(|parcel| !parcel.is_quiet)
                    .map(|parcel| told(parcel.token, Ok(parcel.len())));
                self.completed.extend(told);
                job.is_cancelled.then_some(Failure::Cancelled)
            }
            Err(errno) => Some(errno.into()),
        };
        let (out, socket) = (before - train.len(), train.socket.clone());
        let number = self.lane_of(&socket);
        let backlog = &mut self.lanes[number].backlog;
        backlog.sends -= out;
        if let Ok(sent) = result {
            backlog.bytes -= sent;
            backlog.sent += sent as u64;
        }
        if failure.is_none() && out < before {
            return self.go_on(job);
        }
        let Work::Train(train) = job.work else { unreachable!("it was looked at") };
        self.lanes[number].is_under_way = false;
        self.end(train, failure.unwrap_or(Failure::Closed));
        match (failure, self.lanes[number].waiting.take()) {
            (Some(failure), Some(behind)) => self.end(behind, failure),
            (None, Some(behind)) => {
                self.lanes[number].waiting = Some(behind);
                self.ready.push_back(Ready::Lane(number));
            }
            (_, None) => {}
        }
    }

    /// The train is empty, or what is left in it fails.
    fn end(&mut self, mut train: Train, failure: Failure) {
        let lane = self.lane_of(&train.socket);
        let backlog = &mut self.lanes[lane].backlog;
        backlog.sends -= train.len();
        backlog.bytes -= train.bytes();
        self.completed.extend(train.drain().map(|parcel| told(parcel.token, Err(failure))));
        self.spare_trains.push(train.into_parcels());
    }

    fn go_on(&mut self, job: Job) {
        if !job.is_cancelled {
            return self.ready.push_back(Ready::Job(job));
        }
        match job.work {
            Work::One(_) => self.complete(job, Err(Failure::Cancelled), None),
            Work::Train(_) => self.settle_train(job, Err(Errno::CANCELED)),
        }
    }

    fn cancel_ready(&mut self, which: Which) {
        for _ in 0..self.ready.len() {
            match self.ready.pop_front() {
                Some(Ready::Job(mut job)) if job.key().is_meant(which) => {
                    job.is_cancelled = true;
                    self.go_on(job);
                }
                Some(other) => self.ready.push_back(other),
                None => {}
            }
        }
    }

    fn complete_moved(&mut self, job: Job) {
        let moved = job.done;
        self.complete(job, Ok(moved), None);
    }

    fn complete(&mut self, job: Job, result: Result<usize, Failure>, socket: Option<Socket>) {
        let Job { token, mut head, work, done, is_more_there, .. } = job;
        head.truncate(done);
        let buffer = match work {
            Work::One(Operation::Read { buffer, .. }) => Some(buffer),
            Work::One(Operation::Recv { buffer, .. }) => buffer,
            Work::One(_) | Work::Train(_) => None,
        };
        self.completed.push(Completion { token, result, head, buffer, socket, is_more_there });
    }
}

impl Driver {
    fn start(&mut self, job: Job) {
        match self {
            Self::Uring(uring) => uring.start(job),
            Self::Threads(threads) => threads.start(job),
        }
    }

    fn cancel(&mut self, which: Which) {
        match self {
            Self::Uring(uring) => uring.cancel(which),
            Self::Threads(threads) => threads.cancel(which),
        }
    }
}

/// The end of a send.
fn told(token: u64, result: Result<usize, Failure>) -> Completion {
    Completion { token, result, head: Head::EMPTY, buffer: None, socket: None, is_more_there: false }
}
