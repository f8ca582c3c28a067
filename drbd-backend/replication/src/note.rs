//! What the core decided, a line each: the same sentence in the log, in the API and in a story.

use core::fmt;

use crate::names::{Barrier, DiskId, Generation, Incarnation, Node, Nodes};
use crate::record::Record;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// The host lost its memory while this disk was in use.
    Suspected,
    Learned(Record),
    /// The arbiter's store is not the one that this replica knows.
    OtherArbiter {
        known: Incarnation,
        found: Incarnation,
    },
    /// The arbiter is behind this replica.
    ArbiterBehind {
        known: Generation,
        found: Generation,
    },
    ArbiterHasNoRecord,
    Promoting {
        why: Promotion,
    },
    Promoted(Record),
    PromotionLost(Record),
    /// Promoted, and it has heard that its disk was rolled back.
    StandsBack(Record),
    Serving {
        equalised: u64,
    },
    Deposed(Record),
    Frozen {
        missing: Nodes,
    },
    Dropped {
        nodes: Nodes,
        record: Record,
    },
    Added {
        node: Node,
        record: Record,
    },
    Resyncing {
        node: Node,
        blocks: u64,
        why: Resync,
    },
    ResyncCut {
        node: Node,
        blocks_left: u64,
    },
    HandingOver {
        to: Node,
    },
    HandedOver {
        to: Node,
    },
    Reclaimed(Record),
    Demoted(Record),
    BarrierStored(Barrier),
    /// By order.
    Invalidated,
    /// The peer says that its disk needs everything.
    PeerBlank(Node),
    DiskFailed,
    DiskFull,
    DiskNoLongerFull,
    PeerFailed(Node),
    PeerStalled(Node),
    /// The peer's disk is not the one that stands in the record.
    StrangeDisk {
        node: Node,
        disk: DiskId,
    },
    PeerSuspect(Node),
    /// Its process is another one than that which was in sync.
    Restarted(Node),
    RolledBack {
        node: Node,
        stored: Barrier,
        known: Barrier,
    },
    ReadRepaired,
    ShutDown,
}

/// Why a node becomes Primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promotion {
    Ordered,
    HandedOver,
    /// The Primary of the record has been silent for the grace.
    PrimarySilent,
    /// Every in-sync disk may have lost its cache, and all are here.
    TotalOutage,
    Forced,
}

/// Why a resync copies what it copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resync {
    /// What the bitmap and the peer's activity log mark.
    Marked,
    /// Everything: the bitmap does not reach back to when it left.
    NoBitmap,
    OtherDisk,
    RolledBack,
    /// It knows of barriers that this disk never stored, or lost.
    OtherHistory,
    Blank,
}

pub(crate) struct Places(pub(crate) Nodes);

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.0.iter().map(|node| node.to_string()).collect();
        f.write_str(&names.join(", "))
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Suspected => {
                write!(f, "suspect: the host lost power or was reset, and with it what the disk's cache held")
            }
            Self::Learned(record) => write!(f, "the arbiter says: {record}"),
            Self::OtherArbiter { known, found } => {
                write!(
                    f,
                    "held: the arbiter's store is {found}, this replica knows {known}; see `tandem arbiter rebuild`"
                )
            }
            Self::ArbiterBehind { known, found } => {
                write!(
                    f,
                    "held: the arbiter is at generation {found}, this replica at {known}; see `tandem arbiter rebuild`"
                )
            }
            Self::ArbiterHasNoRecord => {
                write!(f, "held: the arbiter has no record of this volume; see `tandem arbiter rebuild`")
            }
            Self::Promoting { why } => write!(f, "promoting: {why}"),
            Self::Promoted(record) => write!(f, "promoted: {record}"),
            Self::PromotionLost(record) => write!(f, "not promoted, another change came first: {record}"),
            Self::StandsBack(record) => write!(f, "does not serve, since its disk was rolled back: {record}"),
            Self::Serving { equalised } => write!(f, "Primary; {equalised} blocks were made equal first"),
            Self::Deposed(record) => write!(f, "deposed: {record}"),
            Self::Frozen { missing } => write!(f, "frozen: {} missing", Places(*missing)),
            Self::Dropped { nodes, record } => write!(f, "dropped {}: {record}", Places(*nodes)),
            Self::Added { node, record } => write!(f, "{node} is UpToDate: {record}"),
            Self::Resyncing { node, blocks, why } => write!(f, "resync of {node}: {blocks} blocks, {why}"),
            Self::ResyncCut { node, blocks_left } => write!(f, "resync of {node} cut off, {blocks_left} blocks left"),
            Self::HandingOver { to } => write!(f, "handing over to {to}"),
            Self::HandedOver { to } => write!(f, "handed over to {to}"),
            Self::Reclaimed(record) => write!(f, "not handed over, Primary again: {record}"),
            Self::Demoted(record) => write!(f, "demoted: {record}"),
            Self::BarrierStored(barrier) => write!(f, "barrier {barrier} stored"),
            Self::Invalidated => write!(f, "invalidated: this replica's data is thrown away, and copied anew"),
            Self::PeerBlank(node) => write!(f, "the disk of {node} needs everything anew"),
            Self::DiskFailed => write!(f, "Failed: the disk did not do what it was asked"),
            Self::DiskFull => write!(f, "the pool is full: writes wait; free or add space"),
            Self::DiskNoLongerFull => write!(f, "the pool has space again"),
            Self::PeerFailed(node) => write!(f, "the disk of {node} failed"),
            Self::PeerStalled(node) => write!(f, "{node} answers heartbeats, but no writes"),
            Self::StrangeDisk { node, disk } => write!(f, "{node} has disk {disk}, which is not the one of the record"),
            Self::PeerSuspect(node) => write!(f, "{node} may have lost its cache"),
            Self::Restarted(node) => write!(f, "{node} was started anew: it gets what no barrier covers once more"),
            Self::RolledBack { node, stored, known } => {
                write!(f, "the disk of {node} was rolled back: it has barrier {stored}, it had {known}")
            }
            Self::ReadRepaired => write!(f, "blocks that could not be read were fetched from a peer and written anew"),
            Self::ShutDown => write!(f, "shut down, clean"),
        }
    }
}

impl fmt::Display for Promotion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ordered => "it was ordered",
            Self::HandedOver => "the Primary hands over",
            Self::PrimarySilent => "the Primary is silent",
            Self::TotalOutage => "all in-sync disks lost power together, and all are here",
            Self::Forced => "it was forced",
        })
    }
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Marked => "what it missed",
            Self::NoBitmap => "all, since no bitmap reaches back to when it left",
            Self::OtherDisk => "all, since its disk is another one",
            Self::RolledBack => "all, since its disk was rolled back",
            Self::OtherHistory => "all, since it has lived through another history than this disk",
            Self::Blank => "all, since its disk failed or is new",
        })
    }
}
