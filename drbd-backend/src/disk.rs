//! Disk, sockets, timers and calls from other threads, in one thread and one queue: what is ready comes back in batches.
//!
//! ```text
//!                submit(Operation, token)                    wait(completions, until)
//!  volumes ───────────────────────────────▶ Ring ──────────────────────────────────────▶ Completion {token, result, buffer}
//!                                            │ lanes: the sends of one socket, in order, several in one sendmsg
//!                              Uring ◀───────┴──────▶ Threads
//!                       one io_uring_enter            worker threads for the disk, poll(2) for sockets
//! ```
//!
//! An operation owns what it works on: file, socket, buffers. So nothing is freed, closed or unlocked under an operation in flight, whatever the
//! caller drops meanwhile, the [`Ring`] included. [`Threads`](EngineKind::Threads) serves where the kernel refuses io_uring (containers often do),
//! with the same meaning and less speed.
//!
//! In the steady state nothing is allocated: buffers come from [`Buffers`], and the queues keep the room that they once had. (The threads
//! allocate one list per wait.)

mod busy_poll;
mod device;
mod entry;
mod file;
mod job;
mod ring;
mod socket;
mod threads;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;
use std::ops::{Deref, Range};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

pub use device::{Buffer, Buffers, Slice};
pub use file::{DiskFile, FileError};
pub use ring::{Backlog, Engine, EngineKind, Options, Ring, Waker};
pub use socket::Socket;

/// The longest head of a message: it lies in the operation itself.
pub const HEAD_BYTES: usize = 128;

/// What the ring is to do. Lengths, offsets and memory on the disk are multiples of [`DiskFile::block_bytes`].
#[derive(Debug)]
pub enum Operation {
    /// Fills that part of the buffer. Fewer bytes only at the end of the file.
    Read {
        file: DiskFile,
        offset: u64,
        buffer: Buffer,
        into: Range<usize>,
    },
    /// All of it, or a failure. `durable`: it is on the medium when it completes (RWF_DSYNC of pwritev2(2)).
    Write {
        file: DiskFile,
        offset: u64,
        data: Slice,
        durable: bool,
    },
    /// Whatever completed before this was submitted is on the medium when it completes (fdatasync(2)).
    Flush {
        file: DiskFile,
    },
    /// The range reads as zeroes and takes no room (FALLOC_FL_PUNCH_HOLE of fallocate(2)); not durable by itself.
    PunchHole {
        file: DiskFile,
        offset: u64,
        length: u64,
    },
    /// The range reads as zeroes and keeps its room (FALLOC_FL_ZERO_RANGE); [`Failure::Unsupported`] where the file system has no such thing.
    ZeroRange {
        file: DiskFile,
        offset: u64,
        length: u64,
    },
    /// Receives `head` bytes into the completion's head, then into that part of the buffer; done as soon as `at_least` bytes are there (1 for
    /// whatever comes, all of them for an exact length, `head` for a message whose payload may be there already). One at a time per socket.
    Recv {
        socket: Socket,
        head: usize,
        buffer: Option<Buffer>,
        into: Range<usize>,
        at_least: usize,
    },
    /// Sends the head, then the body: all of it, or a failure. Sends on one socket go out in the order of their submission; after a failure those
    /// that wait behind it fail too. `quiet`: there is no completion if it works, so nobody wakes for it.
    Send {
        socket: Socket,
        head: Head,
        body: Option<Slice>,
        quiet: bool,
    },
    /// The next connection, in [`Completion::socket`].
    Accept {
        listener: Socket,
    },
    Connect {
        socket: Socket,
        address: SocketAddr,
    },
}

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    pub token: u64,
    /// How many bytes were moved; zero where none are.
    pub result: Result<usize, Failure>,
    /// The first bytes of what was received, as many as there were up to what was asked for.
    pub head: Head,
    /// The buffer of a read or receive, whether it worked or not.
    pub buffer: Option<Buffer>,
    /// The connection that was accepted.
    pub socket: Option<Socket>,
    /// After a receive: more has probably come already, so that [`Ring::submit_or_complete`] pays.
    pub is_more_there: bool,
}

/// Why an operation failed, as far as a volume acts differently on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// ENOSPC, EDQUOT: the file system is full, the data that is there is sound.
    #[error("no space left on the file system")]
    NoSpace,
    /// EROFS: file systems turn read-only after an error of their own.
    #[error("the file system is read-only")]
    ReadOnly,
    /// EIO and its kin: the medium or the road to it.
    #[error("input/output error of the disk")]
    Io,
    /// The other end closed the connection or reset it; on this end it was shut down.
    #[error("the connection is closed")]
    Closed,
    #[error("cancelled")]
    Cancelled,
    /// EOPNOTSUPP: this file system cannot do that.
    #[error("the file system cannot do that")]
    Unsupported,
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Other(i32),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::ROFS => Self::ReadOnly,
            // NODATA: what block devices say of a sector that cannot be read. ILSEQ: of one whose integrity data does not match.
            Errno::IO | Errno::NODATA | Errno::REMOTEIO | Errno::NXIO | Errno::NODEV | Errno::ILSEQ => Self::Io,
            Errno::PIPE | Errno::CONNRESET | Errno::CONNABORTED | Errno::NOTCONN | Errno::SHUTDOWN => Self::Closed,
            Errno::CANCELED => Self::Cancelled,
            Errno::OPNOTSUPP | Errno::NOSYS => Self::Unsupported,
            other => Self::Other(other.raw_os_error()),
        }
    }
}

/// Up to [`HEAD_BYTES`] bytes, held in place.
#[derive(Clone, Copy)]
pub struct Head {
    bytes: [u8; HEAD_BYTES],
    len: u8,
}

impl Head {
    pub const EMPTY: Self = Self { bytes: [0; HEAD_BYTES], len: 0 };

    /// # Panics
    /// If there are more than [`HEAD_BYTES`].
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        let mut head = Self::zeroed(bytes.len());
        head.bytes[..bytes.len()].copy_from_slice(bytes);
        head
    }

    fn zeroed(len: usize) -> Self {
        assert!(len <= HEAD_BYTES, "a head of {len} bytes is too long");
        Self { bytes: [0; HEAD_BYTES], len: u8::try_from(len).expect("it is at most HEAD_BYTES") }
    }

    fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u8::try_from(len).unwrap_or(u8::MAX));
    }

    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..usize::from(self.len)]
    }
}

impl Deref for Head {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({} bytes)", self.len)
    }
}

/// Nanoseconds of CLOCK_BOOTTIME: the clock of leases, which runs on while the machine sleeps.
#[must_use]
pub fn boottime_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let (seconds, nanoseconds) = (u64::try_from(now.tv_sec), u64::try_from(now.tv_nsec));
    seconds.expect("the machine started in the past") * 1_000_000_000 + nanoseconds.expect("it is below 10^9")
}
