//! What a replica keeps beside its data, each piece written whole and durably.

use crate::bits::Bits;
use crate::control::Control;
use crate::names::{Barrier, BootId, DiskId, Extent, Generation, Incarnation, MAX_NODES, Node, VolumeId};
use crate::record::Record;

/// Who this disk is, and what it is known to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Superblock {
    pub volume: VolumeId,
    pub node: Node,
    pub size_blocks: u64,
    pub disk: DiskId,
    /// The arbiter's, since the first answer. Another one holds the volume.
    pub incarnation: Option<Incarnation>,
    /// Nothing of a lower generation is answered.
    pub generation: Generation,
    /// The record as last heard of.
    pub record: Record,
    pub data: Data,
    /// Of the kernel under which `data` came about.
    pub boot: BootId,
    /// Shut down with everything flushed, and not started since.
    pub clean: bool,
    /// May have lost its cache: neither a restart nor a shutdown clears it, only a resync.
    pub suspect: bool,
    /// The last barrier that this disk has stored.
    pub barrier: Barrier,
    /// The last that every in-sync replica is known to have stored: a lower one on any of them means that its disk was rolled back.
    pub confirmed: Barrier,
    /// What each absent member had when it left. The bits themselves lie beside.
    pub absent: [Option<Absent>; MAX_NODES],
}

/// What the data is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Needs a full resync: the disk failed, or a full resync has begun and not ended.
    Blank,
    /// Between two states: a resync by bitmap has begun and not ended.
    Inconsistent,
    /// All of one moment. Whether it is UpToDate or Outdated is in the arbiter's record.
    Consistent,
}

/// A member that is not in sync, as a replica that is remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Absent {
    /// The bitmap has every write from here on.
    pub since: Generation,
    pub disk: DiskId,
    /// The last barrier that it was known to have stored. A lower one at its return: its disk was rolled back.
    pub barrier: Barrier,
}

/// One durable write of metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metadata {
    Superblock(Box<Superblock>),
    /// The whole set of extents of the activity log.
    Activity(Vec<Extent>),
    /// The bits of these extents, of the bitmap of `node`; what is not named stays.
    Bitmap {
        node: Node,
        bits: Bits,
        extents: Vec<Extent>,
    },
    /// All bits of the bitmap of `node`, in place of what was there.
    WholeBitmap {
        node: Node,
        bits: Bits,
    },
    Control(Box<Control>),
}
