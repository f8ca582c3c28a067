//! What the model knows of the world: the arbiter's register, every replica's disk, memory and process, and what clients were told.
//!
//! Everything is a few bits wide, so that millions of states fit: versions instead of bytes, sets as bit masks, at most three nodes
//! and two blocks. Version 0 of a block is what the new volume holds; each write of a client is the next version.

pub(crate) const NODES: usize = 3;
pub(crate) const BLOCKS: usize = 2;

/// A node or a block, as it is kept.
pub(crate) fn small(index: usize) -> u8 {
    u8::try_from(index).expect("there are three nodes at most")
}

/// Nodes or blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Set(pub(crate) u8);

impl Set {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) const fn one(index: usize) -> Self {
        Self(1 << index)
    }

    pub(crate) const fn first(count: usize) -> Self {
        Self((1 << count) - 1)
    }

    pub(crate) fn has(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(crate) fn remove(&mut self, index: usize) {
        self.0 &= !(1 << index);
    }

    pub(crate) fn without(self, index: usize) -> Self {
        Self(self.0 & !(1 << index))
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        (0..NODES).filter(move |index| self.has(*index))
    }
}

impl FromIterator<usize> for Set {
    fn from_iter<I: IntoIterator<Item = usize>>(indices: I) -> Self {
        Self(indices.into_iter().fold(0, |bits, index| bits | 1 << index))
    }
}

/// What the arbiter holds. All nodes of the setting are members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Record {
    /// 0: there is none here.
    pub(crate) generation: u8,
    pub(crate) primary: u8,
    /// The disk id of each member that is in sync, or 0.
    pub(crate) in_sync: [u8; NODES],
    /// In which generation a member left, or 0.
    pub(crate) left: [u8; NODES],
}

impl Record {
    pub(crate) fn is_none(&self) -> bool {
        self.generation == 0
    }

    pub(crate) fn members_in_sync(&self) -> Set {
        (0..NODES).filter(|node| self.in_sync[*node] != 0).collect()
    }

    pub(crate) fn next(&self) -> Self {
        Self { generation: self.generation + 1, ..*self }
    }

    pub(crate) fn remove(&mut self, node: usize) {
        if std::mem::take(&mut self.in_sync[node]) != 0 {
            self.left[node] = self.generation;
        }
    }

    pub(crate) fn add(&mut self, node: usize, disk: u8) {
        self.in_sync[node] = disk;
        self.left[node] = 0;
    }
}

/// What an absent member lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Bitmap {
    /// The generation in which it left; 0: there is no bitmap.
    pub(crate) since: u8,
    /// The disk that it had then.
    pub(crate) disk: u8,
    pub(crate) blocks: Set,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Part {
    /// No process runs.
    #[default]
    Down,
    Secondary,
    Candidate,
    /// Promoted; peers are not equal yet, nobody is served.
    TakingOver,
    Primary,
}

/// A change of the record that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Change {
    #[default]
    None,
    Promote,
    Drop(u8),
    Add(u8),
    Reclaim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Asked {
    #[default]
    Sent,
    /// Swapped; the answer is on its way.
    Swapped,
    /// Timed out: it may execute later, or never.
    Unknown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Replica {
    // ---- on stable storage: survives everything but the loss of the disk ----
    pub(crate) disk: u8,
    /// The highest generation answered or promised, as stored (rule 7).
    pub(crate) stored: u8,
    pub(crate) record: Record,
    pub(crate) suspect: bool,
    /// It was resynced to the end; nothing else makes a disk in sync again.
    pub(crate) consistent: bool,
    /// The activity log: blocks written since the last barrier that all have stored.
    pub(crate) log: Set,
    pub(crate) bitmaps: [Bitmap; NODES],
    pub(crate) durable: [u8; BLOCKS],
    /// What was durable before the last barrier: what an old copy of the disk would hold.
    pub(crate) copy: [u8; BLOCKS],
    /// The number of its last barrier is lower than its peers know.
    pub(crate) behind: bool,

    // ---- in the host's memory: survives the process ----
    /// What a read finds: the disk's cache over the medium.
    pub(crate) visible: [u8; BLOCKS],
    /// The boot id is not the one stored.
    pub(crate) rebooted: bool,

    // ---- in the process ----
    pub(crate) part: Part,
    pub(crate) generation: u8,
    /// Writes that are not known to be on every in-sync replica.
    pub(crate) recent: Set,
    /// It was started anew and does not know what else may not be everywhere.
    pub(crate) forgetful: bool,
    /// Submitted to the disk, not completed: version + 1, or 0.
    pub(crate) pending: [u8; BLOCKS],
    /// Those whose connection, or role, is gone.
    pub(crate) orphans: Set,
    /// Nodes whose word, of this generation, is that they serve no more.
    pub(crate) told: Set,

    // ---- as Candidate or Primary ----
    pub(crate) change: Change,
    pub(crate) asked: Asked,
    pub(crate) proposed: Record,
    /// Peers that each write needs; one that is being added is among them.
    pub(crate) view: Set,
    /// Peers that get every write: those of the view, and targets of a resync.
    pub(crate) along: Set,
    /// Peers whose lease holds.
    pub(crate) lease: Set,
    /// A client's write of each block: its version, or 0.
    pub(crate) write: [u8; BLOCKS],
    /// Who has not answered it.
    pub(crate) waiting: [Set; BLOCKS],
    /// To whom it is on its way.
    pub(crate) sent: [Set; BLOCKS],
    /// Writes that were acknowledged, and that a resync target has not answered.
    pub(crate) trailing: Set,
    /// What each target still has to be sent.
    pub(crate) unsent: [Set; NODES],
    /// A read that the disk has answered and the client has not seen: block + 1 and what was read.
    pub(crate) read: (u8, u8),
    /// It has told a successor to take over.
    pub(crate) stopped: bool,

    // ---- known to the model only ----
    /// Its cache was lost since it was last made equal.
    pub(crate) lost: bool,
    /// It no longer counts the leases that it gave to these (only when that rule is dropped).
    pub(crate) forgot: Set,
    /// Answers to old heartbeats that are still on their way (only when that rule is dropped).
    pub(crate) late: Set,
    /// A block that was read for a resync and is on its way: target + 1, block, version (only when that rule is dropped).
    pub(crate) copying: (u8, u8, u8),
}

impl Replica {
    pub(crate) fn is_up(&self) -> bool {
        self.part != Part::Down
    }

    /// Whether it believes that it leads the volume.
    pub(crate) fn leads(&self) -> bool {
        matches!(self.part, Part::TakingOver | Part::Primary)
    }

    /// Whether the record, as far as it knows, counts this very disk (rule 1).
    pub(crate) fn is_in_sync(&self, me: usize) -> bool {
        self.record.in_sync[me] == self.disk
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.pending == [0; BLOCKS]
    }

    /// Blocks whose I/O is under way.
    pub(crate) fn submitted(&self) -> Set {
        (0..BLOCKS).filter(|block| self.pending[*block] != 0).collect()
    }

    /// Blocks that a client writes, and has no answer for.
    pub(crate) fn unacknowledged(&self) -> Set {
        (0..BLOCKS).filter(|block| self.write[*block] != 0 && !self.trailing.has(*block)).collect()
    }

    pub(crate) fn flush(&mut self) {
        self.durable = self.visible;
    }
}

/// What clients were told, and what may therefore be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Clients {
    /// The last version of each block.
    pub(crate) issued: [u8; BLOCKS],
    pub(crate) acknowledged: [u8; BLOCKS],
    /// What a FLUSH has covered.
    pub(crate) flushed: [u8; BLOCKS],
    /// The versions that a read may show, as bits.
    pub(crate) possible: [u8; BLOCKS],
    /// Nodes that were counted when the last version was told, and have not lost it since.
    pub(crate) holders: [Set; BLOCKS],
    pub(crate) broken: Broken,
}

/// Promises that were broken on the way here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Broken {
    pub(crate) lost: bool,
    pub(crate) stale: bool,
    pub(crate) backwards: bool,
    pub(crate) two_primaries: bool,
}

/// What has happened of each kind, so that the search ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Spent {
    pub(crate) faults: u8,
    pub(crate) crashes: u8,
    pub(crate) power_losses: u8,
    pub(crate) cuts: u8,
    pub(crate) time_outs: u8,
    pub(crate) replaced: u8,
    pub(crate) rolled_back: u8,
    pub(crate) fences: u8,
    pub(crate) hand_overs: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct State {
    pub(crate) register: Record,
    /// Compare-and-swaps that nobody waits for any more, and that may still execute.
    pub(crate) late: [Record; 2],
    pub(crate) nodes: [Replica; NODES],
    /// Connections that are up, by `a + b - 1`.
    pub(crate) links: Set,
    /// Nodes whose boot is known to be fenced.
    pub(crate) fenced: Set,
    pub(crate) clients: Clients,
    pub(crate) spent: Spent,
}

impl State {
    pub(crate) fn linked(&self, a: usize, b: usize) -> bool {
        self.links.has(a + b - 1)
    }
}
