//! Why a replica does not serve, for people: nothing is decided by it.

use core::fmt;
use core::time::Duration;

use crate::metadata::Data;
use crate::names::{Node, Nodes, Time};
use crate::note::{Note, Places};
use crate::primary::Primary;
use crate::{Part, Replica};

/// What stands in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// It knows the volume only from its own disk, which may be behind.
    WaitsForTheArbiter,
    /// The arbiter's record is missing, older than this replica's, or another store's: [`Note`] says which.
    Held(Box<Note>),
    DiskFailed,
    /// It needs a full resync.
    Blank,
    /// It stands in the record, and may have lost its cache.
    Suspect,
    /// It lacks acknowledged writes.
    NotInSync,
    /// It was demoted, or never promoted: nobody is Primary.
    NobodyIsPrimary,
    /// The Primary does not speak to this replica, and nobody takes over unasked.
    PrimaryAway(Node),
    /// Until then another node may be serving.
    Grace(Duration),
    /// A promotion waits for its disk, or for the arbiter.
    Promoting,
    /// A new Primary makes its peers equal first, and stores a barrier.
    TakingOver,
    /// Peers that it needs are missing: they come back, or are dropped.
    Frozen(Nodes),
    /// A change of the record is not settled: the arbiter has not answered.
    Unsettled,
    HandingOver,
    /// These peers have not answered a heartbeat for a lease.
    NoLease(Nodes),
    /// Writes wait: the pool is full.
    Full,
    ShuttingDown,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WaitsForTheArbiter => write!(f, "waits for the arbiter"),
            Self::Held(note) => write!(f, "{note}"),
            Self::DiskFailed => write!(f, "the disk failed: replace it and start this replica anew"),
            Self::Blank => write!(f, "needs a full resync from the Primary"),
            Self::Suspect => write!(f, "suspect: it may have lost its cache, and needs a resync"),
            Self::NotInSync => write!(f, "not in sync: it lacks writes that the Primary has"),
            Self::NobodyIsPrimary => write!(f, "nobody is Primary; see `tandem volume promote`"),
            Self::PrimaryAway(node) => {
                write!(f, "{node} is Primary and away, and nobody takes over unasked; see `tandem volume promote`")
            }
            Self::Grace(left) => {
                write!(f, "waits out the grace of {:.1} s: another node may be serving", left.as_secs_f64())
            }
            Self::Promoting => write!(f, "promoting: waits for the disk and the arbiter"),
            Self::TakingOver => write!(f, "taking over: makes its peers equal first"),
            Self::Frozen(missing) => write!(f, "frozen: {} missing", Places(*missing)),
            Self::Unsettled => write!(f, "waits for the arbiter to settle a change of the record"),
            Self::HandingOver => write!(f, "hands over"),
            Self::NoLease(silent) => write!(f, "waits for {} to answer a heartbeat", Places(*silent)),
            Self::Full => write!(f, "the pool is full: writes wait; free or add space"),
            Self::ShuttingDown => write!(f, "shutting down"),
        }
    }
}

impl Replica {
    /// `None` where it serves, or is led by a Primary.
    pub(crate) fn why(&self, now: Time) -> Option<Why> {
        if self.ended || self.ending.is_some() {
            return Some(Why::ShuttingDown);
        }
        if let Some(note) = &self.held_by {
            return Some(Why::Held(Box::new(note.clone())));
        }
        match &self.part {
            Part::Failed => Some(Why::DiskFailed),
            Part::Learning => Some(Why::WaitsForTheArbiter),
            Part::Candidate(..) => Some(Why::Promoting),
            Part::Primary(primary) => self.why_not_answered(primary, now),
            Part::Secondary(secondary) if secondary.link().is_some() => None,
            Part::Secondary(_) => Some(self.why_not_promoted(now)),
        }
    }

    fn why_not_answered(&self, primary: &Primary, now: Time) -> Option<Why> {
        let missing = self.missing();
        match () {
            () if primary.stopped => Some(Why::HandingOver),
            () if !missing.is_empty() && !primary.is_changing() => Some(Why::Frozen(missing)),
            () if primary.is_unsettled() => Some(Why::Unsettled),
            () if !primary.is_serving() => Some(Why::TakingOver),
            () if !missing.is_empty() => Some(Why::Frozen(missing)),
            () if !self.is_leased(now) => Some(Why::NoLease(self.silent(now))),
            () => self.disk.full.then_some(Why::Full),
        }
    }

    fn why_not_promoted(&self, now: Time) -> Why {
        let left = self.may_serve_last().map(|until| until.since(now)).filter(|left| !left.is_zero());
        match (self.record().primary, left) {
            _ if self.disk.superblock.data == Data::Blank => Why::Blank,
            _ if !self.is_in_sync() || self.disk.superblock.data != Data::Consistent => Why::NotInSync,
            _ if self.disk.superblock.suspect => Why::Suspect,
            (None, _) => Why::NobodyIsPrimary,
            (Some(_), Some(left)) => Why::Grace(left),
            (Some(node), None) => Why::PrimaryAway(node),
        }
    }
}
