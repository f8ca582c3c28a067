//! What may go wrong, and when: at a time, or right after something that it would hurt.

use replication::Note;

use super::world::{Due, World};

/// Something that happens in a day, after which a misfortune may follow at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A compare-and-swap goes out.
    Proposed,
    /// It was done; who asked does not know yet.
    Swapped,
    /// Nobody will ever tell whether it was.
    Unknown,
    Frozen,
    Promoting,
    Promoted,
    Serving,
    Resyncing,
    Added,
    TakeOver,
    Flushing,
    Keeping,
    Barrier,
    Acknowledged,
    Suspected,
}

impl Moment {
    pub const ALL: [Self; 15] = [
        Self::Proposed,
        Self::Swapped,
        Self::Unknown,
        Self::Frozen,
        Self::Promoting,
        Self::Promoted,
        Self::Serving,
        Self::Resyncing,
        Self::Added,
        Self::TakeOver,
        Self::Flushing,
        Self::Keeping,
        Self::Barrier,
        Self::Acknowledged,
        Self::Suspected,
    ];
}

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Node(usize),
    /// The record's, at that time.
    Primary,
    /// The first, or second, of the others.
    Other(usize),
    /// Where the moment came to pass.
    There,
}

/// Milliseconds, where it takes some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    Kill {
        who: Who,
        down: u64,
    },
    CutPower {
        who: Who,
        down: u64,
    },
    CutPowerOfAll {
        down: u64,
    },
    /// Of two, one right after the other.
    CutPowerInTurn {
        first: Who,
        second: Who,
        down: u64,
    },
    ShutDown {
        who: Who,
        down: u64,
    },
    Pause {
        who: Who,
        length: u64,
    },
    /// The clock stands as well.
    HiddenPause {
        who: Who,
        length: u64,
    },
    Cut {
        one: Who,
        other: Who,
        both_ways: bool,
        length: u64,
    },
    Isolate {
        who: Who,
        length: u64,
    },
    Reset {
        one: Who,
        other: Who,
    },
    SlowNetwork {
        length: u64,
    },
    ArbiterAway {
        length: u64,
    },
    ArbiterAwayFrom {
        who: Who,
        length: u64,
    },
    ArbiterLosesAnswers {
        length: u64,
    },
    ArbiterLate {
        length: u64,
    },
    ArbiterRestored {
        back: usize,
        is_known: bool,
    },
    ArbiterWiped,
    ReadError {
        who: Who,
        block: usize,
    },
    WriteError {
        who: Who,
    },
    FlushError {
        who: Who,
    },
    MetadataError {
        who: Who,
    },
    Full {
        who: Who,
        length: u64,
    },
    SlowDisk {
        who: Who,
        length: u64,
        times: u64,
    },
    /// From a copy made at the beginning of the day, or when it was last down.
    RolledBack {
        who: Who,
        down: u64,
    },
    Exchanged {
        who: Who,
        down: u64,
    },
    Promote {
        who: Who,
    },
    Demote,
    Invalidate {
        who: Who,
    },
    HandOver {
        to: Who,
    },
    /// The others are fenced first: the claim is true.
    ForceAfterFence {
        who: Who,
        down: u64,
    },
    ForceWithoutFence {
        who: Who,
    },
    Revoke {
        client: usize,
    },
    FenceHost {
        client: usize,
    },
    Fence {
        who: Who,
        down: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    At(u64),
    /// The first time after the first, so many microseconds later.
    After {
        armed: u64,
        moment: Moment,
        wait: u64,
    },
}

#[derive(Debug, Clone, Copy)]
pub struct Misfortune {
    pub when: When,
    pub what: What,
}

impl What {
    /// Its name in the counts.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kill { .. } => "process killed",
            Self::CutPower { .. } => "power loss of one",
            Self::CutPowerInTurn { .. } => "power loss of two",
            Self::CutPowerOfAll { .. } => "power loss of all",
            Self::ShutDown { .. } => "shut down",
            Self::Pause { .. } => "process paused",
            Self::HiddenPause { .. } => "pause that no clock shows",
            Self::Cut { both_ways: true, .. } => "link cut",
            Self::Cut { .. } => "link cut one way",
            Self::Isolate { .. } => "node isolated",
            Self::Reset { .. } => "connection reset",
            Self::SlowNetwork { .. } => "slow network",
            Self::ArbiterAway { .. } | Self::ArbiterAwayFrom { .. } => "arbiter away",
            Self::ArbiterLosesAnswers { .. } => "answers of the arbiter lost",
            Self::ArbiterLate { .. } => "requests to the arbiter late",
            Self::ArbiterRestored { .. } => "arbiter restored",
            Self::ArbiterWiped => "arbiter wiped",
            Self::ReadError { .. } => "read error",
            Self::WriteError { .. } => "write error",
            Self::FlushError { .. } => "flush error",
            Self::MetadataError { .. } => "metadata error",
            Self::Full { .. } => "disk full",
            Self::SlowDisk { .. } => "slow disk",
            Self::RolledBack { .. } => "disk rolled back",
            Self::Exchanged { .. } => "disk exchanged",
            Self::Promote { .. } => "promote",
            Self::Demote => "demote",
            Self::Invalidate { .. } => "invalidate",
            Self::HandOver { .. } => "hand over",
            Self::ForceAfterFence { .. } => "force-primary after a fence",
            Self::ForceWithoutFence { .. } => "force-primary, wrongly",
            Self::Revoke { .. } => "revoke",
            Self::FenceHost { .. } => "host fenced",
            Self::Fence { .. } => "node fenced",
        }
    }
}

impl World {
    pub fn plan(&mut self, misfortune: Misfortune) {
        let number = self.misfortunes.len();
        self.misfortunes.push(misfortune);
        match misfortune.when {
            When::At(at) => self.at(self.in_the_day(at), Due::Misfortune { number, there: 0 }),
            When::After { armed, .. } => self.at(self.in_the_day(armed), Due::Arm { number }),
        }
    }

    /// Whoever waited for this moment strikes.
    pub fn came_to(&mut self, moment: Moment, node: usize) {
        let mut place = 0;
        while let Some(number) = self.armed.get(place).copied() {
            match self.misfortunes[number].when {
                When::After { moment: wanted, wait, .. } if wanted == moment => {
                    self.armed.swap_remove(place);
                    self.at(self.now + wait * 1_000, Due::Misfortune { number, there: node });
                }
                _ => place += 1,
            }
        }
    }

    pub fn noted(&mut self, node: usize, note: &Note) {
        self.say(Some(node), || note.to_string());
        let moment = match note {
            Note::Frozen { .. } => Moment::Frozen,
            Note::Promoting { .. } => Moment::Promoting,
            Note::Promoted(_) => Moment::Promoted,
            Note::Serving { .. } => Moment::Serving,
            Note::Resyncing { .. } => Moment::Resyncing,
            Note::BarrierStored(_) => Moment::Barrier,
            Note::Suspected => Moment::Suspected,
            Note::DiskFailed => {
                (self.nodes[node].has_failed, self.nodes[node].leads) = (true, false);
                return;
            }
            Note::Deposed(_) | Note::Demoted(_) | Note::StandsBack(_) => {
                self.nodes[node].leads = false;
                return;
            }
            _ => return,
        };
        let counts = &mut self.counts;
        match moment {
            Moment::Frozen => counts.freezes += 1,
            Moment::Promoted => {
                counts.takeovers += 1;
                self.nodes[node].leads = true;
            }
            Moment::Resyncing => counts.resyncs += 1,
            Moment::Suspected => counts.suspects += 1,
            _ => {}
        }
        self.came_to(moment, node);
    }
}
