//! What a test tells the disk's server: one order and one answer, each a line of JSON.

use std::ops::Range;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What the disk is asked to do. A FUA write arrives as a write and a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    Read,
    Write,
    Flush,
}

/// An error (EIO) to come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub op: Op,
    /// Bytes of the disk. A read or write fails if it touches them; a flush always fails, and loses only writes there.
    pub range: Range<u64>,
    /// How often; `None` is until the disk is healed or loses power.
    pub times: Option<u32>,
    pub flush_loses: FlushLoses,
}

/// What becomes of the writes that a failed flush should have covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FlushLoses {
    /// They stay in the cache: the next flush covers them.
    Nothing,
    /// They are gone at once: a read shows what was there before, and the next flush succeeds.
    Data,
    /// They are read as written until the power goes, and the next flush succeeds: as Linux' page cache does, which marks
    /// a page clean whose write-back failed (fsync(2), EIO).
    DataUnseen,
}

/// Which writes of the cache outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Survives {
    Nothing,
    /// Each with this chance; half of these in pieces of `tear_bytes` (512 or 4096), each of which is there or not.
    Some {
        per_mille: u16,
        tear_bytes: Option<u32>,
    },
    Everything,
}

/// What the disk was asked since the power came on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub reads: u64,
    pub writes: u64,
    pub flushes: u64,
    /// Reads, writes and flushes that were answered with EIO.
    pub failed: u64,
    /// Written, and not on the medium yet.
    pub cached_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    Fail(Fault),
    /// Every such operation is answered this much later; each by a time of its own between the two.
    Delay {
        op: Op,
        least_us: u64,
        most_us: u64,
    },
    /// No faults and no delays any more.
    Heal,
    Count,
    /// The server ends with it.
    Cut(Survives),
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The loop device is there.
    Ready {
        device: PathBuf,
    },
    Done,
    Counted(Counts),
    Refused(String),
}
