//! The kernel's side: memory that disks and sockets read and write, and the io_uring that tells them to. The one file with `unsafe`.
//!
//! Two promises carry it. A [`Buffer`] is alone in its memory, and nobody writes to the memory of a [`Slice`]. And what the kernel was told of,
//! buffers and the job's own bytes, stays where it is, owned by a [`Slot`], until the kernel has said that it is done; if it never does, for ever.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut, Range};
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use rustix::io::Errno;

use super::busy_poll::BusyPoll;
use super::job::{Finished, Job, Key, MAX_PIECES, Which, Work};
use super::{boottime_ns, entry};

/// Memory for payloads, taken once and used again and again. Clones are the same memory.
///
/// What a buffer holds when it is taken is what its last user left there: write before you send.
#[derive(Debug, Clone)]
pub struct Buffers(Arc<Pool>);

struct Pool {
    classes: Vec<Class>,
    chunks: Vec<Chunk>,
}

/// Chunks of one size, side by side.
struct Class {
    chunk_bytes: usize,
    memory: NonNull<u8>,
    bytes: usize,
    /// The last one back is the next one out: the processor's cache knows it, and memory that was never needed is never touched.
    free: Mutex<Vec<u32>>,
}

struct Chunk {
    memory: NonNull<u8>,
    class: usize,
    /// How many slices, or one for a buffer.
    users: AtomicU32,
}

// SAFETY: the memory belongs to the pool alone until it is unmapped; who may read and write it is settled by Buffer and Slice, whose counts are
// atomic and whose free lists are locked.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    Small,
    Huge,
}

impl Buffers {
    /// Of each size in bytes, multiples of 4096 and ascending, so many. The kernel gives the memory when it is first used.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(sizes: &[(usize, u32)]) -> Result<Self, io::Error> {
        Self::in_pages(sizes, Pages::Small)
    }

    /// As [`Buffers::new`], but in huge pages where the kernel has any (MADV_HUGEPAGE): a long transfer then pins a few pages instead of hundreds, and
    /// the disk is told of a few pieces. Memory is touched two megabytes at a time.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn in_huge_pages(sizes: &[(usize, u32)]) -> Result<Self, io::Error> {
        Self::in_pages(sizes, Pages::Huge)
    }

    fn in_pages(sizes: &[(usize, u32)], pages: Pages) -> Result<Self, io::Error> {
        assert!(sizes.is_sorted_by_key(|(bytes, _)| *bytes), "sizes ascend");
        let mut pool = Pool { classes: Vec::with_capacity(sizes.len()), chunks: Vec::new() };
        for &(chunk_bytes, count) in sizes {
            assert!(chunk_bytes > 0 && chunk_bytes.is_multiple_of(4096) && count > 0, "a size is a multiple of 4096");
            pool.add(chunk_bytes, count, pages)?;
        }
        Ok(Self(Arc::new(pool)))
    }

    /// A buffer of exactly `len` bytes, aligned to 4096, or `None` when as large a one is not free: wait until others come back.
    #[must_use]
    pub fn take(&self, len: usize) -> Option<Buffer> {
        let classes = self.0.classes.iter().filter(|class| class.chunk_bytes >= len);
        let chunk =
            classes.filter_map(|class| class.free.lock().unwrap_or_else(PoisonError::into_inner).pop()).next()?;
        self.0.chunks[chunk as usize].users.store(1, Ordering::Relaxed);
        Some(Buffer(Slice { pool: self.0.clone(), chunk, range: 0..len }))
    }

    /// How many buffers of `len` bytes could be taken now.
    #[must_use]
    pub fn free(&self, len: usize) -> usize {
        let classes = self.0.classes.iter().filter(|class| class.chunk_bytes >= len);
        classes.map(|class| class.free.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}

impl Pool {
    fn add(&mut self, chunk_bytes: usize, count: u32, pages: Pages) -> io::Result<()> {
        let bytes = chunk_bytes * count as usize;
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, wherever the kernel likes; it is zeroed, and aligned to a page.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        if pages == Pages::Huge {
            // SAFETY: the mapping just made. Advice: where the kernel has none to give, memory serves all the same.
            unsafe { libc::madvise(memory, bytes, libc::MADV_HUGEPAGE) };
        }
        let memory = NonNull::new(memory.cast::<u8>()).expect("mmap without MAP_FIXED never gives address zero");
        let first = u32::try_from(self.chunks.len()).expect("fewer than 2^32 buffers");
        for index in 0..count as usize {
            // SAFETY: within the mapping, which is `count` chunks long.
            let memory = unsafe { memory.add(index * chunk_bytes) };
            self.chunks.push(Chunk { memory, class: self.classes.len(), users: AtomicU32::new(0) });
        }
        let free = Mutex::new((first..first + count).rev().collect());
        self.classes.push(Class { chunk_bytes, memory, bytes, free });
        Ok(())
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for class in &self.classes {
            // SAFETY: the mapping of `add`. Each buffer and slice holds the pool, so nobody looks at it any more.
            unsafe { libc::munmap(class.memory.as_ptr().cast(), class.bytes) };
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.classes.iter().map(|class| (class.chunk_bytes, class.bytes / class.chunk_bytes)))
            .finish()
    }
}

/// Memory that one holder reads and writes. Goes back to where it came from when it is dropped.
#[derive(Debug)]
pub struct Buffer(Slice);

/// Memory that is only read, by everybody who has a clone; also a part of it. It goes back when the last one is dropped.
pub struct Slice {
    pool: Arc<Pool>,
    chunk: u32,
    range: Range<usize>,
}

impl Buffer {
    /// To be read by several from now on: the disk and two peers, say.
    #[must_use]
    pub fn share(self) -> Slice {
        self.0
    }
}

impl Slice {
    /// # Panics
    /// If the range reaches beyond this slice.
    #[must_use]
    pub fn part(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.len(), "{range:?} of a slice of {} bytes", self.len());
        let mut part = self.clone();
        part.range = self.range.start + range.start..self.range.start + range.end;
        part
    }

    /// To be written again, if nobody else holds any part of it.
    ///
    /// # Errors
    /// The slice, if somebody does.
    pub fn into_buffer(self) -> Result<Buffer, Self> {
        // Acquire: what the others read of it, they have read before we write.
        if self.chunk().users.load(Ordering::Acquire) == 1 { Ok(Buffer(self)) } else { Err(self) }
    }

    fn chunk(&self) -> &Chunk {
        &self.pool.chunks[self.chunk as usize]
    }

    fn start(&self) -> NonNull<u8> {
        // SAFETY: the range lies within the chunk: `take` and `part` see to that.
        unsafe { self.chunk().memory.add(self.range.start) }
    }
}

impl Clone for Slice {
    fn clone(&self) -> Self {
        self.chunk().users.fetch_add(1, Ordering::Relaxed);
        Self { pool: self.pool.clone(), chunk: self.chunk, range: self.range.clone() }
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        // Both orders, as with Arc: the last one sees all that the others did before the memory has a new holder.
        if self.chunk().users.fetch_sub(1, Ordering::AcqRel) == 1 {
            let free = &self.pool.classes[self.chunk().class].free;
            free.lock().unwrap_or_else(PoisonError::into_inner).push(self.chunk);
        }
    }
}

impl Deref for Slice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped as long as the pool is; nobody writes, because a Buffer exists only while its chunk has this one user.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.range.len()) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and this is the chunk's only user, borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.0.start().as_ptr(), self.0.range.len()) }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.range.len())
    }
}

/// The engine that the kernel drives.
///
/// Left out, because measured without gain at 4 KiB: registered buffers; registered files, whose locks moreover outlive the ring for a while; a poll
/// before the first attempt to receive (POLL_FIRST). A kernel thread that polls for submissions (SQPOLL) does harm where cores are few.
pub(super) struct Uring {
    ring: IoUring,
    slots: Slots,
    /// Rung by other threads.
    bell: Arc<OwnedFd>,
    timer: Option<Timer>,
    busy_poll: BusyPoll,
    /// What the kernel could not take yet.
    overflow: VecDeque<squeue::Entry>,
}

/// The one timeout in flight, and when it fires. Deadlines mostly move away: the old one then fires in vain once, which costs less than to set
/// the kernel's timer anew at every wait.
#[derive(Clone, Copy)]
struct Timer {
    slot: u32,
    at_ns: u64,
}

struct Slots {
    /// Each from `Box::leak`: the kernel has addresses in them.
    all: Vec<NonNull<Slot>>,
    free: Vec<u32>,
    in_flight: usize,
}

/// What the kernel was told of, while it works on it.
struct Slot {
    /// Tells a late cancellation from one for whoever has the slot now.
    generation: u32,
    role: Role,
    /// To find whom a cancellation means without looking at the job, whose head the kernel may be writing to.
    key: Key,
    is_cancelled: bool,
    job: Option<Job>,
    message: libc::msghdr,
    pieces: [libc::iovec; MAX_PIECES],
    time: types::Timespec,
    rings: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Free,
    Job,
    Bell,
    Timer,
}

/// The answer to a cancellation: nobody waits for it.
const IGNORED: u64 = u64::MAX;

const SUBMISSIONS: u32 = 256;
const COMPLETIONS: u32 = 4096;

/// How long the end of a ring waits for a disk that does not answer.
const DRAIN: Duration = Duration::from_secs(30);

impl Uring {
    /// # Errors
    /// What io_uring_setup(2) says, or that this kernel knows too little of it.
    pub(super) fn new(bell: Arc<OwnedFd>, busy_poll: Duration) -> io::Result<Self> {
        let ring = newest_ring()?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        // The newest thing that we need is a timeout by CLOCK_BOOTTIME, which came with Linux 5.15, as this did.
        if !probe.is_supported(opcode::LinkAt::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the kernel's io_uring is older than Linux 5.15"));
        }
        let slots = Slots { all: Vec::new(), free: Vec::new(), in_flight: 0 };
        let busy_poll = BusyPoll::new(busy_poll);
        let mut uring = Self { ring, slots, bell, timer: None, busy_poll, overflow: VecDeque::new() };
        uring.hear_the_bell();
        Ok(uring)
    }

    /// Begins with the next [`Uring::wait`].
    pub(super) fn start(&mut self, job: Job) {
        let (index, slot) = self.slots.take(Role::Job);
        // SAFETY: the slot is ours until `push`; its address holds.
        let entry = unsafe {
            (*slot).key = job.key();
            (*slot).is_cancelled = false;
            (*slot).job = Some(job);
            describe(slot)
        };
        self.push(index, entry);
    }

    /// Those that are meant come back soon, cancelled or done.
    pub(super) fn cancel(&mut self, which: Which) {
        for index in 0..self.slots.all.len() {
            if let Some(user_data) = self.slots.cancel(index, Some(which)) {
                self.push_entry(&opcode::AsyncCancel::new(user_data).build().user_data(IGNORED));
            }
        }
    }

    /// Hands everything to the kernel and, with `block`, waits until something is done, the bell rings, or it is `until` (nanoseconds of
    /// CLOCK_BOOTTIME). True if the bell rang.
    pub(super) fn wait(&mut self, until: Option<u64>, block: bool, done: &mut Vec<Finished>) -> io::Result<bool> {
        if block {
            self.set_timer(until);
        }
        while self.overflow.front().cloned().is_some_and(|entry| self.try_push(&entry)) {
            self.overflow.pop_front();
        }
        if block && self.ring.completion().is_empty() {
            let begun = Instant::now();
            let until = self.busy_poll.until(begun);
            if let Some(until) = until {
                self.enter(0)?;
                self.look(until);
            }
            self.enter(1)?;
            self.busy_poll.waited(begun.elapsed());
        } else {
            self.enter(0)?;
        }
        Ok(self.reap(done))
    }

    /// Hands over what was submitted, and waits for that many completions.
    fn enter(&self, completions: usize) -> io::Result<()> {
        match self.ring.submit_and_wait(completions) {
            Ok(_) => Ok(()),
            // BUSY: more has come back than we have looked at. AGAIN: no memory right now.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Until there is a completion, or the kernel has one for whoever asks for it.
    fn look(&mut self, until: Instant) {
        while self.ring.completion().is_empty() && !self.ring.submission().taskrun() && Instant::now() < until {
            std::hint::spin_loop();
        }
    }

    fn reap(&mut self, done: &mut Vec<Finished>) -> bool {
        let mut rang = false;
        for completion in self.ring.completion() {
            match self.slots.finish(completion.user_data()) {
                Some((_, Role::Job, Some(mut job))) => {
                    job.is_more_there = cqueue::sock_nonempty(completion.flags());
                    done.push((job, outcome(completion.result())));
                }
                // Cancelled only at the end.
                Some((_, Role::Bell, _)) => rang = outcome(completion.result()) != Err(Errno::CANCELED),
                Some((slot, Role::Timer, _)) if self.timer.is_some_and(|timer| timer.slot == slot) => self.timer = None,
                Some(_) | None => {}
            }
        }
        if rang {
            self.hear_the_bell();
        }
        rang
    }

    /// Sees to it that we wake at `until` or earlier.
    fn set_timer(&mut self, until: Option<u64>) {
        let Some(at_ns) = until else { return };
        match self.timer {
            Some(timer) if timer.at_ns <= at_ns => return,
            Some(timer) => {
                let user_data = self.slots.user_data(timer.slot);
                self.push_entry(&opcode::TimeoutRemove::new(user_data).build().user_data(IGNORED));
            }
            None => {}
        }
        let (index, slot) = self.slots.take(Role::Timer);
        let nanoseconds = u32::try_from(at_ns % 1_000_000_000).expect("it is below 10^9");
        let time = types::Timespec::new().sec(at_ns / 1_000_000_000).nsec(nanoseconds);
        // SAFETY: the slot is ours until `push`; its address holds.
        let entry = unsafe {
            (*slot).time = time;
            let flags = types::TimeoutFlags::ABS | types::TimeoutFlags::BOOTTIME;
            opcode::Timeout::new(&raw const (*slot).time).flags(flags).build()
        };
        self.timer = Some(Timer { slot: index, at_ns });
        self.push(index, entry);
    }

    fn hear_the_bell(&mut self) {
        let (index, slot) = self.slots.take(Role::Bell);
        // SAFETY: the slot is ours until `push`; its address holds, and eight bytes are what an eventfd gives.
        let into = unsafe { (&raw mut (*slot).rings).cast() };
        let entry = opcode::Read::new(types::Fd(self.bell.as_raw_fd()), into, 8).build();
        self.push(index, entry);
    }

    fn push(&mut self, slot: u32, entry: squeue::Entry) {
        let entry = entry.user_data(self.slots.user_data(slot));
        self.push_entry(&entry);
    }

    fn push_entry(&mut self, entry: &squeue::Entry) {
        if !self.overflow.is_empty() || !self.try_push(entry) {
            self.overflow.push_back(entry.clone());
        }
    }

    fn try_push(&mut self, entry: &squeue::Entry) -> bool {
        if self.ring.submission().is_full() && self.ring.submit().is_err() {
            // It has no memory now, or there is too much that we have not looked at.
            return false;
        }
        // SAFETY: whatever the entry points to lies in a slot, or belongs to the job in it, until the kernel has answered.
        unsafe { self.ring.submission().push(entry) }.is_ok()
    }
}

impl Drop for Uring {
    /// Cancels what is in flight and waits for the rest: a write that began is not to land later. Where the disk does not answer, what the kernel
    /// still works on is never freed, nor its file unlocked.
    fn drop(&mut self) {
        for index in 0..self.slots.all.len() {
            if let Some(user_data) = self.slots.cancel(index, None) {
                self.push_entry(&opcode::AsyncCancel::new(user_data).build().user_data(IGNORED));
            }
        }
        let deadline = boottime_ns() + u64::try_from(DRAIN.as_nanos()).expect("it is thirty seconds");
        let mut done = Vec::new();
        while self.slots.in_flight > usize::from(self.timer.is_some()) && boottime_ns() < deadline {
            if self.wait(Some(deadline), true, &mut done).is_err() {
                break;
            }
            done.clear();
        }
    }
}

impl fmt::Debug for Uring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Uring({} in flight)", self.slots.in_flight)
    }
}

impl Slots {
    /// A slot for the kernel to work on, with a new generation.
    fn take(&mut self, role: Role) -> (u32, *mut Slot) {
        let index = self.free.pop().unwrap_or_else(|| self.grow());
        let slot = self.all[index as usize].as_ptr();
        // SAFETY: it is free, so neither the kernel nor anybody else looks at it.
        unsafe {
            (*slot).generation = (*slot).generation.wrapping_add(1);
            (*slot).role = role;
        }
        self.in_flight += 1;
        (index, slot)
    }

    fn grow(&mut self) -> u32 {
        let index = u32::try_from(self.all.len()).expect("fewer than 2^32 operations in flight");
        let nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        // SAFETY: a msghdr of zeroes is one without address, pieces and control data.
        let message = unsafe { std::mem::zeroed() };
        let slot = Slot {
            generation: 0,
            role: Role::Free,
            key: Key::NOBODY,
            is_cancelled: false,
            job: None,
            message,
            pieces: [nothing; MAX_PIECES],
            time: types::Timespec::new(),
            rings: 0,
        };
        self.all.push(NonNull::from(Box::leak(Box::new(slot))));
        // So that giving all of them back never allocates.
        self.free.reserve(self.all.len());
        index
    }

    fn user_data(&self, index: u32) -> u64 {
        // SAFETY: slots live as long as we do; nobody writes to this part of one in flight.
        let generation = unsafe { (*self.all[index as usize].as_ptr()).generation };
        u64::from(generation) << 32 | u64::from(index)
    }

    /// Marks the job in that slot as cancelled, if it is meant. By what name the kernel knows it.
    fn cancel(&mut self, index: usize, which: Option<Which>) -> Option<u64> {
        let slot = self.all[index].as_ptr();
        // SAFETY: as in `user_data`. The job itself is not looked at: the kernel may be writing to its head.
        unsafe {
            let is_meant = match (*slot).role {
                Role::Free => false,
                Role::Job => which.is_none_or(|which| (*slot).key.is_meant(which)),
                Role::Bell | Role::Timer => which.is_none(),
            };
            (*slot).is_cancelled |= is_meant;
            is_meant.then(|| self.user_data(u32::try_from(index).expect("it is one of ours")))
        }
    }

    /// What the kernel is done with; `None` if it was nobody's.
    fn finish(&mut self, user_data: u64) -> Option<(u32, Role, Option<Job>)> {
        let index = u32::try_from(user_data & u64::from(u32::MAX)).expect("it is masked");
        if user_data == IGNORED || self.user_data(index) != user_data {
            return None;
        }
        let slot = self.all[index as usize].as_ptr();
        // SAFETY: the kernel has answered, so the slot is ours again.
        let (role, job) = unsafe {
            let job = (*slot).job.take().map(|job| Job { is_cancelled: (*slot).is_cancelled, ..job });
            (std::mem::replace(&mut (*slot).role, Role::Free), job)
        };
        self.in_flight -= 1;
        self.free.push(index);
        Some((index, role, job))
    }
}

impl Drop for Slots {
    fn drop(&mut self) {
        for slot in &self.all {
            // SAFETY: from Box::leak in `grow`. What is free the kernel has answered; of a timer it has its own copy since it was submitted.
            unsafe {
                if matches!((*slot.as_ptr()).role, Role::Free | Role::Timer) {
                    drop(Box::from_raw(slot.as_ptr()));
                }
            }
        }
    }
}

/// With what this kernel has of: one thread submits (6.0) and does the kernel's deferred work when it asks for completions (6.1), or at least is
/// not interrupted for it (5.19).
fn newest_ring() -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(COMPLETIONS).setup_submit_all();
    builder.setup_taskrun_flag().setup_single_issuer().setup_defer_taskrun();
    let newest = builder.build(SUBMISSIONS);
    let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EINVAL);
    if !newest.as_ref().is_err_and(refused) {
        return newest;
    }
    let mut builder = IoUring::builder();
    builder.setup_clamp().setup_cqsize(COMPLETIONS).setup_submit_all().setup_coop_taskrun().setup_taskrun_flag();
    let newer = builder.build(SUBMISSIONS);
    if !newer.as_ref().is_err_and(refused) {
        return newer;
    }
    IoUring::builder().setup_clamp().setup_cqsize(COMPLETIONS).build(SUBMISSIONS)
}

/// What the kernel said: a count, or an error as a negative number.
fn outcome(result: i32) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno::from_raw_os_error(-result))
}

/// The job of that slot in the kernel's words.
///
/// # Safety
/// The slot is ours, and stays where it is, with its job in it, until the kernel has answered.
unsafe fn describe(slot: *mut Slot) -> squeue::Entry {
    // SAFETY: ours, by the above. The parts are borrowed one by one.
    let (job, message, pieces) = unsafe { (&mut (*slot).job, &mut (*slot).message, &mut (*slot).pieces) };
    let job = job.as_mut().expect("`start` has put it there");
    match &mut job.work {
        Work::Train(train) => entry::of_train(train, message, pieces),
        Work::One(operation) => entry::of_one(operation, &mut job.head, job.done, message, pieces),
    }
}

/// Counts what a thread allocates, for the promise that the steady state allocates nothing.
#[cfg(test)]
pub(crate) mod counting {
    use std::alloc::{GlobalAlloc, Layout, System};
    use std::cell::Cell;

    #[global_allocator]
    static COUNTING: Counting = Counting;

    thread_local! {
        static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    }

    struct Counting;

    /// How often this thread has asked for memory so far.
    pub(crate) fn allocations() -> u64 {
        ALLOCATIONS.get()
    }

    // SAFETY: System does the work; the counter is a plain cell that allocates nothing.
    unsafe impl GlobalAlloc for Counting {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: as the caller promises.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
            // SAFETY: as the caller promises.
            unsafe { System.dealloc(memory, layout) }
        }
    }
}
