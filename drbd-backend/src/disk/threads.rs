//! The engine without io_uring: worker threads wait for the disk, the ring's own thread for sockets, with poll(2).
//!
//! The same operations with the same meaning; slower, because each I/O of the disk costs two changes of thread.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{FallocateFlags, fallocate, fdatasync};
use rustix::io::{Errno, ReadWriteFlags, preadv2, pwritev2};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

use super::Operation;
use super::job::{Finished, Job, Which, Work};

/// How long the end of a ring waits for a disk that does not answer.
const DRAIN: Duration = Duration::from_secs(30);

/// The engine of plain threads.
#[derive(Debug)]
pub(super) struct Threads {
    desk: Arc<Desk>,
    /// Rung by other threads for the ring's owner.
    bell: Arc<OwnedFd>,
    timer: OwnedFd,
    /// When the timer rings, in nanoseconds of CLOCK_BOOTTIME.
    timer_ns: Option<u64>,
    /// Receives, sends, and waits for connections.
    sockets: Vec<Job>,
}

/// Where workers find jobs and leave them.
#[derive(Debug)]
struct Desk {
    trays: Mutex<Trays>,
    changed: Condvar,
    /// Rung when something is done.
    bell: OwnedFd,
}

#[derive(Debug, Default)]
struct Trays {
    todo: VecDeque<Job>,
    done: Vec<Finished>,
    busy: usize,
    is_closed: bool,
}

impl Threads {
    pub(super) fn new(bell: Arc<OwnedFd>, workers: usize) -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let desk = Desk { trays: Mutex::default(), changed: Condvar::new(), bell: eventfd(0, flags)? };
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let threads = Self { desk: Arc::new(desk), bell, timer, timer_ns: None, sockets: Vec::new() };
        for _ in 0..workers.max(1) {
            let desk = threads.desk.clone();
            // They end when the desk closes, with `threads`, also if one of them cannot be started.
            thread::Builder::new().name("disk".into()).spawn(move || desk.work())?;
        }
        Ok(threads)
    }

    pub(super) fn start(&mut self, job: Job) {
        if job.is_for_the_disk() {
            self.desk.lock().todo.push_back(job);
            self.desk.changed.notify_one();
        } else {
            self.sockets.push(job);
        }
    }

    pub(super) fn cancel(&mut self, which: Which) {
        let mut trays = self.desk.lock();
        let mut i = 0;
        while i < trays.todo.len() {
            if trays.todo[i].key().is_meant(which) {
                let job = trays.todo.remove(i).expect("it is one of them");
                trays.done.push((job, Err(Errno::CANCELED)));
            } else {
                i += 1;
            }
        }
        trays.done.extend(self.sockets.extract_if(.., |job| job.key().is_meant(which)).map(cancelled));
    }

    /// Waits, with `block`, until something is done, the bell rings, or it is `until` (nanoseconds of CLOCK_BOOTTIME). True if the bell rang.
    pub(super) fn wait(&mut self, until: Option<u64>, block: bool, done: &mut Vec<Finished>) -> io::Result<bool> {
        self.try_sockets(done);
        self.desk.collect(done);
        let may_block = block && done.is_empty();
        if may_block {
            self.set_timer(until)?;
        }
        let (rang, is_due) = self.sleep(may_block)?;
        if is_due {
            self.timer_ns = None;
        }
        self.try_sockets(done);
        self.desk.collect(done);
        Ok(rang && rustix::io::read(&self.bell, &mut [0; 8]).is_ok())
    }

    /// Until there is something to look at. Whether the bell rang, and whether the timer did.
    fn sleep(&mut self, block: bool) -> io::Result<(bool, bool)> {
        let fixed = [self.bell.as_fd(), self.desk.bell.as_fd(), self.timer.as_fd()];
        let fixed = fixed.map(|descriptor| PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
        let mut watched: Vec<_> = fixed.into_iter().chain(self.sockets.iter().filter_map(Job::watched)).collect();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut watched, if block { None } else { Some(&at_once) }) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let rang = |place: usize| watched[place].revents().contains(PollFlags::IN);
        if rang(1) {
            // It is only to be silent again: the tray is looked at anyway.
            let _ = rustix::io::read(&self.desk.bell, &mut [0; 8]);
        }
        Ok((rang(0), rang(2)))
    }

    /// Sets the timer to `until`, unless it rings earlier already.
    fn set_timer(&mut self, until: Option<u64>) -> io::Result<()> {
        let Some(at_ns) = until.filter(|until| self.timer_ns.is_none_or(|set| *until < set)) else { return Ok(()) };
        // Zero would disarm it.
        let at = Duration::from_nanos(at_ns.max(1));
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let seconds = i64::try_from(at.as_secs()).expect("nanoseconds in a u64 are fewer than 2^63 seconds");
        let time = Itimerspec {
            it_interval: never,
            it_value: Timespec { tv_sec: seconds, tv_nsec: at.subsec_nanos().into() },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &time)?;
        self.timer_ns = Some(at_ns);
        Ok(())
    }

    fn try_sockets(&mut self, done: &mut Vec<Finished>) {
        let mut i = 0;
        while i < self.sockets.len() {
            match try_socket(&mut self.sockets[i]) {
                Err(Errno::AGAIN) => i += 1,
                result => done.push((self.sockets.remove(i), result)),
            }
        }
    }
}

impl Drop for Threads {
    /// What no worker has begun is not begun; what they work on is waited for, and theirs for good if the disk does not answer.
    fn drop(&mut self) {
        let mut trays = self.desk.lock();
        trays.is_closed = true;
        trays.todo.clear();
        self.desk.changed.notify_all();
        let ended = self.desk.changed.wait_timeout_while(trays, DRAIN, |trays| trays.busy > 0);
        let (mut trays, _) = ended.unwrap_or_else(PoisonError::into_inner);
        // Workers may take a moment longer to go; buffers and locks of what is done go now.
        trays.done.clear();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Trays> {
        self.trays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, done: &mut Vec<Finished>) {
        done.append(&mut self.lock().done);
    }

    /// One worker's life.
    fn work(&self) {
        let mut trays = self.lock();
        while !trays.is_closed {
            let Some(mut job) = trays.todo.pop_front() else {
                trays = self.changed.wait(trays).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            trays.busy += 1;
            drop(trays);
            let result = use_disk(&mut job);
            trays = self.lock();
            trays.busy -= 1;
            trays.done.push((job, result));
            if trays.is_closed {
                self.changed.notify_all();
            }
            // It fails only when 2^64 - 1 are waiting to be heard.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }
}

impl Job {
    fn is_for_the_disk(&self) -> bool {
        match &self.work {
            Work::Train(_) => false,
            Work::One(operation) => match operation {
                Operation::Read { .. }
                | Operation::Write { .. }
                | Operation::Flush { .. }
                | Operation::PunchHole { .. }
                | Operation::ZeroRange { .. } => true,
                Operation::Recv { .. }
                | Operation::Send { .. }
                | Operation::Accept { .. }
                | Operation::Connect { .. } => false,
            },
        }
    }

    /// What it waits for, if it is a socket's.
    fn watched(&self) -> Option<PollFd<'_>> {
        let (socket, flags) = match &self.work {
            Work::Train(train) => (&train.socket, PollFlags::OUT),
            Work::One(Operation::Connect { socket, .. }) => (socket, PollFlags::OUT),
            Work::One(Operation::Recv { socket, .. } | Operation::Accept { listener: socket }) => {
                (socket, PollFlags::IN)
            }
            Work::One(_) => return None,
        };
        Some(PollFd::new(socket, flags))
    }
}

fn cancelled(job: Job) -> Finished {
    (job, Err(Errno::CANCELED))
}

fn use_disk(job: &mut Job) -> Result<usize, Errno> {
    let done = job.done;
    let Work::One(operation) = &mut job.work else { unreachable!("trains are for sockets") };
    match operation {
        Operation::Read { file, offset, buffer, into } => {
            let mut rest = [IoSliceMut::new(&mut buffer[into.start + done..into.end])];
            preadv2(file, &mut rest, *offset + done as u64, ReadWriteFlags::empty())
        }
        Operation::Write { file, offset, data, durable } => {
            let flags = if *durable { ReadWriteFlags::DSYNC } else { ReadWriteFlags::empty() };
            pwritev2(file, &[IoSlice::new(&data[done..])], *offset + done as u64, flags)
        }
        Operation::Flush { file } => fdatasync(file).map(|()| 0),
        Operation::PunchHole { file, offset, length } => {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, *offset, *length).map(|()| 0)
        }
        Operation::ZeroRange { file, offset, length } => {
            let flags = FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE;
            fallocate(file, flags, *offset, *length).map(|()| 0)
        }
        Operation::Recv { .. } | Operation::Send { .. } | Operation::Accept { .. } | Operation::Connect { .. } => {
            unreachable!("sockets are not for workers")
        }
    }
}

/// As far as it goes without waiting; AGAIN if it does not.
fn try_socket(job: &mut Job) -> Result<usize, Errno> {
    match &job.work {
        Work::Train(train) => train.send_now(),
        Work::One(Operation::Recv { .. }) => job.recv_now(),
        Work::One(Operation::Accept { listener }) => is_ready(PollFd::new(listener, PollFlags::IN)),
        Work::One(Operation::Connect { socket, .. }) => is_ready(PollFd::new(socket, PollFlags::OUT)),
        Work::One(_) => unreachable!("the disk is for workers"),
    }
}

fn is_ready(socket: PollFd<'_>) -> Result<usize, Errno> {
    let ready = poll(&mut [socket], Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if ready == 0 { Err(Errno::AGAIN) } else { Ok(0) }
}
