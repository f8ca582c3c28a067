//! What a replica says of itself, for people: nothing is decided by it.

use crate::metadata::Data;
use crate::names::{BootId, Generation, Node, Time};
use crate::record::Record;
use crate::{Part, Replica, Why};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Has not heard from the arbiter yet.
    Unknown,
    Secondary,
    /// Becoming Primary.
    Promoting,
    Primary,
}

/// DRBD's words for what a replica's data is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskState {
    Failed,
    Inconsistent,
    Outdated,
    UpToDate,
    /// A peer that is not connected, or a replica that has not heard from the arbiter.
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerStatus {
    pub node: Node,
    /// A connection stands, and its Hello was heard on it.
    pub connected: bool,
    /// The last boot of its host that it told of, also if it is gone since.
    pub boot: Option<BootId>,
    pub disk: DiskState,
    /// Blocks that it lacks, as far as is known here.
    pub missing_blocks: u64,
    /// A resync of it is under way: blocks left, blocks in all, since when.
    pub resync: Option<(u64, u64, Time)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    pub role: Role,
    pub disk: DiskState,
    pub suspect: bool,
    /// Clients are answered at this moment.
    pub serving: bool,
    /// What stands in the way, where this replica neither serves nor is led by a Primary.
    pub why: Option<Why>,
    /// A change of the record is not settled: the arbiter must not be rebuilt now.
    pub changing: bool,
    /// The pool has no space.
    pub full: bool,
    pub record: Record,
    /// Nothing lower is answered.
    pub promised: Generation,
    pub size_blocks: u64,
    pub control: u64,
    pub peers: Vec<PeerStatus>,
    /// Requests that wait or are under way.
    pub requests: usize,
}

impl Replica {
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        let superblock = &self.disk.superblock;
        let role = self.role();
        let disk = match (&self.part, superblock.data) {
            (Part::Failed, _) | (_, Data::Blank) => DiskState::Failed,
            (_, Data::Inconsistent) => DiskState::Inconsistent,
            (Part::Learning, Data::Consistent) => DiskState::Unknown,
            (_, Data::Consistent) if self.is_in_sync() => DiskState::UpToDate,
            (_, Data::Consistent) => DiskState::Outdated,
        };
        Status {
            role,
            disk,
            suspect: superblock.suspect,
            serving: self.may_answer(now),
            why: self.why(now),
            changing: match &self.part {
                Part::Primary(primary) => primary.is_changing(),
                Part::Candidate(..) => true,
                Part::Learning | Part::Secondary(_) | Part::Failed => false,
            },
            full: self.disk.full,
            record: superblock.record.clone(),
            promised: superblock.generation,
            size_blocks: superblock.size_blocks,
            control: self.control.version,
            peers: superblock.record.members.without(self.me()).iter().map(|node| self.peer_status(node)).collect(),
            requests: self.table.len() + self.held.len(),
        }
    }

    #[must_use]
    pub fn role(&self) -> Role {
        match &self.part {
            Part::Learning | Part::Failed => Role::Unknown,
            Part::Secondary(_) => Role::Secondary,
            Part::Candidate(..) => Role::Promoting,
            Part::Primary(primary) if primary.is_serving() => Role::Primary,
            Part::Primary(_) => Role::Promoting,
        }
    }

    fn peer_status(&self, node: Node) -> PeerStatus {
        let peer = &self.peers[node.index()];
        let in_sync = self.record().disk(node).is_some();
        let disk = match &peer.hello {
            None if !in_sync => DiskState::Outdated,
            None => DiskState::Unknown,
            Some(hello) if hello.blank => DiskState::Failed,
            Some(_) if in_sync => DiskState::UpToDate,
            Some(_) if peer.resync.is_some() => DiskState::Inconsistent,
            Some(_) => DiskState::Outdated,
        };
        PeerStatus {
            node,
            connected: peer.link.is_some() && peer.hello.is_some(),
            boot: peer.boot,
            disk,
            missing_blocks: self.bitmaps[node.index()].as_ref().map_or(0, crate::Bits::count),
            resync: peer.resync.as_ref().map(|resync| (resync.left(), resync.total, resync.began)),
        }
    }

    /// The control document as every in-sync replica has stored it.
    #[must_use]
    pub fn control(&self) -> &crate::Control {
        &self.control
    }
}
