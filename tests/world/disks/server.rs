//! The processes behind a disk: one serves it as the only file of a FUSE mount, one cleans up when the test is gone.

use std::collections::BinaryHeap;
use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, Write as _};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context, Result};
use fastrand::Rng;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    Session, WriteFlags,
};

use super::attached;
use super::media::{Media, SECTOR};
use super::orders::{Answer, Op, Order};

const FILE_INODE: INodeNo = INodeNo(2);
/// Nothing but us changes what is there.
const FOR_EVER: Duration = Duration::from_secs(86_400);
const LARGEST_WRITE_BYTES: u32 = 1 << 20;
/// Requests that the kernel may have on their way at once; more wait in the kernel.
const QUEUE: u16 = 256;

/// The body of the process, which is the one of the two that its first argument names.
pub fn run(arguments: &[String]) -> Result<()> {
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["keep", state] => keep(Path::new(state)),
        ["serve", image, mount_point, file, seed] => serve(image, Path::new(mount_point), file, seed.parse()?),
        _ => anyhow::bail!("usage: keep STATE_FOLDER | serve IMAGE MOUNT_POINT FILE SEED"),
    }
}

/// Waits for the end of stdin, and so for the end of the test, however it ends; then nothing of the disk remains.
fn keep(state: &Path) -> Result<()> {
    io::copy(&mut io::stdin().lock(), &mut io::sink())?;
    attached::clean_up(state)
}

/// Serves one life: orders come on stdin, answers go to stdout. The end of stdin is a power cut.
///
/// It must be started in a mount namespace of its own. If it were the last process in the one that XFS is mounted in,
/// then its end would unmount XFS before it closes /dev/fuse, and the kernel would wait for ever for an answer of its own.
fn serve(image: &str, mount_point: &Path, file: &str, seed: u64) -> Result<()> {
    end_rather_than_hang();
    attached::unmount_copies_of_disks()?;
    let image = File::options().read(true).write(true).open(image).with_context(|| format!("cannot open {image}"))?;
    let size_bytes = image.metadata()?.len();
    let (later, waiting) = mpsc::channel();
    thread::spawn(move || answer_in_time(&waiting));
    let disk = Disk { media: Mutex::new(Media::new(image, seed)), delays: Mutex::new(Delays::new(seed)) };
    let disk = Arc::new(disk);
    let mut options = fuser::Config::default();
    options.mount_options = vec![MountOption::FSName(env!("CARGO_PKG_NAME").to_owned()), MountOption::NoDev];
    let served = OneFile { disk: Arc::clone(&disk), name: file.to_owned(), size_bytes, later };
    let session = Session::new(served, mount_point, &options)
        .with_context(|| format!("cannot mount a FUSE file system on {}", mount_point.display()))?;
    let serving = session.spawn()?;
    tell(&Answer::Ready { device: attached::attach(&mount_point.join(file))? })?;
    let obeyed = obey(&disk);
    // Not dropped: that would unmount FUSE while its file is in use. The end of the process is the end of it.
    std::mem::forget(serving);
    obeyed
}

/// After a panic of one thread the kernel would wait for its answers for ever; after the end of the process it does not.
fn end_rather_than_hang() {
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panicked| {
        tell(panicked);
        std::process::abort();
    }));
}

fn obey(disk: &Disk) -> Result<()> {
    for line in io::stdin().lock().lines() {
        let order = serde_json::from_str(&line?)?;
        if let Order::Cut(survives) = order {
            let mut media = lock(&disk.media);
            let cut = media.cut(survives).map_or_else(|failed| Answer::Refused(failed.to_string()), |()| Answer::Done);
            tell(&cut)?;
            // With the lock held: whatever is on its way finds no disk any more, and the kernel answers it with an error.
            std::process::exit(0);
        }
        tell(&disk.carry_out(order))?;
    }
    Ok(())
}

fn tell(answer: &Answer) -> Result<()> {
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, answer)?;
    stdout.write_all(b"\n")?;
    Ok(stdout.flush()?)
}

#[derive(Debug)]
struct Disk {
    media: Mutex<Media>,
    delays: Mutex<Delays>,
}

impl Disk {
    fn carry_out(&self, order: Order) -> Answer {
        match order {
            Order::Fail(fault) => lock(&self.media).fail(fault),
            Order::Delay { op, least_us, most_us } => lock(&self.delays).set(op, least_us, most_us),
            Order::Heal => {
                lock(&self.media).heal();
                lock(&self.delays).of = [None; 3];
            }
            Order::Count => return Answer::Counted(lock(&self.media).counts()),
            Order::Cut(_) => return Answer::Refused("a power cut ends the server, it is no order among others".into()),
        }
        Answer::Done
    }
}

#[derive(Debug)]
struct Delays {
    /// Least and most, in microseconds, by operation.
    of: [Option<(u64, u64)>; 3],
    rng: Rng,
}

impl Delays {
    fn new(seed: u64) -> Self {
        Self { of: [None; 3], rng: Rng::with_seed(seed) }
    }

    fn set(&mut self, op: Op, least_us: u64, most_us: u64) {
        self.of[op as usize] = Some((least_us, most_us.max(least_us)));
    }

    fn of(&mut self, op: Op) -> Option<Duration> {
        self.of[op as usize].map(|(least_us, most_us)| Duration::from_micros(self.rng.u64(least_us..=most_us)))
    }
}

struct OneFile {
    disk: Arc<Disk>,
    name: String,
    size_bytes: u64,
    later: Sender<Later>,
}

impl OneFile {
    /// Now, or when the delay of this operation is over. Requests do not wait for each other.
    fn after_delay(&self, op: Op, act: impl FnOnce() + Send + 'static) {
        match lock(&self.disk.delays).of(op) {
            None => act(),
            Some(delay) => {
                let later = Later { at: Instant::now() + delay, act: Box::new(act) };
                self.later.send(later).expect("who answers in time lives as long as the process");
            }
        }
    }

    fn attributes(&self, inode: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match inode {
            INodeNo::ROOT => (FileType::Directory, 0o700, 0),
            FILE_INODE => (FileType::RegularFile, 0o600, self.size_bytes),
            _ => return None,
        };
        let (ino, blocks, then, blksize) = (inode, size / SECTOR as u64, UNIX_EPOCH, 4096);
        let (atime, mtime, ctime, crtime) = (then, then, then, then);
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime,
            mtime,
            ctime,
            crtime,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize,
            flags: 0,
        })
    }

    /// The loop device above asks for whole sectors within the file.
    fn holds(&self, offset: u64, length: usize) -> bool {
        let in_sectors = offset.is_multiple_of(SECTOR as u64) && length.is_multiple_of(SECTOR);
        in_sectors && offset + length as u64 <= self.size_bytes
    }
}

impl Filesystem for OneFile {
    fn init(&mut self, _: &Request, kernel: &mut KernelConfig) -> io::Result<()> {
        let refused = |what: &str| io::Error::other(format!("the kernel's FUSE has no {what}"));
        kernel.add_capabilities(InitFlags::FUSE_ASYNC_DIO).map_err(|_| refused("asynchronous direct I/O"))?;
        kernel.set_max_write(LARGEST_WRITE_BYTES).map_err(|_| refused("writes of 1 MiB"))?;
        kernel.set_max_background(QUEUE).map_err(|_| refused("queue as long as ours"))?;
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attributes(FILE_INODE).filter(|_| parent == INodeNo::ROOT && name == self.name.as_str()) {
            Some(attributes) => reply.entry(&FOR_EVER, &attributes, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(inode) {
            Some(attributes) => reply.attr(&FOR_EVER, &attributes),
            None => reply.error(Errno::ENOENT),
        }
    }

    /// Nothing is cached above us but by the file system on the loop device, and writes do not wait for each other.
    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let uncached = FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES;
        reply.opened(FileHandle(0), uncached);
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let size = size as usize;
        if !self.holds(offset, size) {
            return reply.error(Errno::EINVAL);
        }
        let read = lock(&self.disk.media).read(offset, size);
        self.after_delay(Op::Read, move || match read {
            Ok(data) => reply.data(&data),
            Err(failed) => reply.error(failed.into()),
        });
    }

    /// It is in the cache, and seen by reads, before it is answered: an unanswered write may outlive a power cut too.
    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if !self.holds(offset, data.len()) {
            return reply.error(Errno::EINVAL);
        }
        let size = u32::try_from(data.len()).expect("no request is larger than LARGEST_WRITE_BYTES");
        let written = lock(&self.disk.media).write(offset, data);
        self.after_delay(Op::Write, move || match written {
            Ok(()) => reply.written(size),
            Err(failed) => reply.error(failed.into()),
        });
    }

    /// A flush of the loop device: the one thing that makes writes outlive a power cut, and only once it is through.
    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let (disk, mark) = (Arc::clone(&self.disk), lock(&self.disk.media).mark());
        self.after_delay(Op::Flush, move || {
            let flushed = lock(&disk.media).flush(mark);
            match flushed {
                Ok(()) => reply.ok(),
                Err(failed) => reply.error(failed.into()),
            }
        });
    }

    /// Sent at close(2); it makes nothing durable.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}

/// An answer that has its time.
struct Later {
    at: Instant,
    act: Box<dyn FnOnce() + Send>,
}

impl fmt::Debug for Later {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_struct("Later").field("at", &self.at).finish_non_exhaustive()
    }
}

/// The earliest is the greatest, as `BinaryHeap` wants it.
impl Ord for Later {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Later {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Later {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Later {}

fn answer_in_time(coming: &Receiver<Later>) {
    let mut waiting = BinaryHeap::new();
    loop {
        let until_next =
            waiting.peek().map_or(FOR_EVER, |next: &Later| next.at.saturating_duration_since(Instant::now()));
        match coming.recv_timeout(until_next) {
            Ok(later) => waiting.push(later),
            Err(RecvTimeoutError::Timeout) => {
                if let Some(due) = waiting.pop() {
                    (due.act)();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
