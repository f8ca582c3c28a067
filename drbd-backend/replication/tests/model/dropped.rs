//! The parts of the rules that a search can leave out, and where that shows.

use crate::settings::{
    CALM, CRASH, CRASH_POWER_LOSS, CUT, DISKS, FENCE_HAND_OVER, FLUSH, HAND_OVER, ONE_FAULT, POWER_LOSS, REPLACED,
    ROLLED_BACK, SERVES_AGAIN, SLOW_READS, Setting, THREE_CALM, THREE_CRASH, THREE_FENCE, THREE_ONE, TIME_OUT,
    TWO_FAULTS, WRITE,
};

macro_rules! parts {
    ($( $(#[$about:meta])* $part:ident, )*) => {
        /// A part of a rule of docs/replication.md, named for it, that one search leaves out.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Dropped {
            $( $(#[$about])* $part, )*
        }

        impl Dropped {
            pub(crate) const ALL: &[Self] = &[$( Self::$part, )*];
        }
    };
}

parts! {
    /// A swap compares nothing: whatever is late executes.
    Rule1CompareWholeRecord,
    /// An add keeps the generation.
    Rule1RaiseGenerationOnAdd,
    /// Members outside `in_sync` are promoted, too.
    Rule1OnlyInSyncPromotes,
    /// A strange disk under a name in `in_sync` is promoted.
    Rule1DiskIdToPromote,
    /// A strange disk under a name in `in_sync` goes on acknowledging.
    Rule1DiskIdToGoOn,

    /// A swap that timed out is given up when the register shows the old record.
    Rule2NeverAbandon,
    /// A Primary whose swap was refused goes on.
    Rule2RefusalDeposes,
    /// A swap without an answer is not repeated.
    Rule2Repeats,
    /// A refusal that shows the asker as Primary in the next generation is taken for success, whatever else the record says.
    Rule2AdoptOnlyOwn,

    /// A peer that is back ends the freeze before the drop is settled.
    Rule3FrozenUntilSettled,
    /// A drop is proposed without a flush of the own disk.
    Rule3FlushFirst,

    /// What no barrier covered when a member left is not owed to it.
    Rule4OwedSinceBarrier,
    /// A block is read for a resync while a write of it is in flight.
    Rule4NothingPasses,
    /// An add is proposed while older writes are unanswered by the target.
    Rule4Drain,
    /// An add is proposed without a barrier on the target.
    Rule4Barrier,
    /// Writes count the target only once it is added.
    Rule4CountInAcknowledgements,
    /// A FLUSH counts the target only once it is added.
    Rule4CountInFlushes,
    /// The lease counts the target only once it is added.
    Rule4CountInLeases,

    /// A suspect is promoted.
    Rule5NotSuspect,
    /// A node is promoted while older I/O of its own is under way.
    Rule5OwnIoEnds,
    /// A node is promoted without waiting for the lease that it gave.
    Rule5Grace,
    /// A new process does not wait for leases that the old one gave.
    Rule5GraceFromStart,
    /// A fence counts against the next boot, too.
    Rule5FenceNamesBoot,
    /// Any fence ends the wait for every node.
    Rule5FenceOfThatNodeOnly,
    /// A promotion is proposed without a flush.
    Rule5FlushFirst,
    /// The promise is kept in memory only.
    Rule5PromiseIsStored,
    /// The former Primary stays in `in_sync`, though it has handed nothing over.
    Rule5FormerPrimaryLeaves,
    /// A restarted process whom the record names goes on as Primary.
    Rule5RestartedNeverResumes,

    /// A write is acknowledged before the peers have it.
    Rule6EveryNode,
    /// A write is acknowledged before the own disk has it.
    Rule6OwnDisk,
    /// With durability write, a write is acknowledged from the disk's cache.
    Rule6Durable,
    /// The dropped peer is counted no more as soon as its drop is proposed.
    Rule6NoUnsettledDrop,
    /// A write is acknowledged without a lease.
    Rule6Lease,

    /// A generation is answered, and kept in memory only.
    Rule7StoreBeforeAnswer,
    /// Messages of lower generations are answered.
    Rule7RefuseLower,
    /// A started replica goes by the record it had stored.
    Rule7LearnFirst,
    /// Neither is done.
    Rule7StoreBeforeAnswerAndLearnFirst,
    /// A Secondary without a Primary does not look at the record any more.
    Rule7LooksAgain,

    /// A read is answered without a lease.
    Rule8LeaseToRead,
    /// A heartbeat counts from the arrival of its answer.
    Rule8SentNotArrived,
    /// A read looks at the clock before the disk answers, not after.
    Rule8AfterTheDisk,
    /// The grace may end before the lease.
    Rule8GraceIsLonger,
    /// A new Primary takes its peers' leases for granted.
    Rule8StartsExpired,
    /// The lease of one peer is enough.
    Rule8EveryPeer,

    /// A read does not wait for a write of the same block.
    Rule9ReadWaits,

    /// A new Primary serves without making its peers equal.
    Rule10Equalise,
    /// A peer that was started anew, and does not remember, is taken for equal.
    Rule10ForgetfulPeerLeaves,
    /// A new Primary that does not remember keeps its peers.
    Rule10ForgetfulDropsAll,
    /// Secondaries keep no activity log.
    Rule10SecondaryKeepsLog,
    /// Secondaries do not mark what absent members miss.
    Rule10SecondaryKeepsBitmaps,
    /// After a crash the activity log is not marked in the bitmaps.
    Rule10CrashMarksLog,
    /// A bitmap that does not reach back is taken for empty.
    Rule10BitmapReachesBack,
    /// A barrier clears the marks of writes that are under way, too.
    BarrierMarksAnew,
    /// A barrier clears marks without a flush.
    BarrierFlushes,
    /// A barrier overtakes writes on its way to a peer.
    BarrierBehindWrites,

    /// A host that lost its memory is not suspect.
    Rule11Marked,
    /// The mark is gone after another restart.
    Rule11MarkIsDurable,
    /// A suspect that was back before it was missed goes on.
    Rule11SuspectLeaves,

    /// A suspect is promoted without the members that are away.
    Rule12AllPresent,
    /// A suspect is promoted though a member is not suspect.
    Rule12AllSuspect,
    /// A suspect is promoted with strange disks among the members.
    Rule12DiskIds,
    /// After a total outage all stay in `in_sync`.
    Rule12SoleMember,
    /// A resync leaves out what the target's own log names.
    Rule12TargetsLog,

    /// A disk that was rolled back is taken for what it was.
    Rule13BarrierNumber,
    /// The same, where it is the candidate's own.
    Rule13TheCandidateAsWell,

    /// A new connection is greeted while submissions of the old one are under way.
    ConnectionAfterTheOld,

    /// A Primary serves on after it has handed over.
    HandOverStops,
    /// A Primary hands over with writes under way, and without a barrier.
    HandOverRests,
    /// A Primary that handed over in vain serves no more.
    HandOverReclaims,
    /// A Primary that handed over in vain goes on in the same generation.
    HandOverRaisesGeneration,
    /// The word to take over counts in later generations, too.
    HandOverOfThisGeneration,
}

/// What leaving a part out does.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shows {
    /// A promise is broken in this setting, after few states.
    Caught(&'static Setting),
    /// Nothing is broken, since other rules imply it: these are the largest settings that were searched to their end without it.
    Implied(&'static [Setting]),
}

impl Dropped {
    /// Whether a search without this leaves that part out.
    pub(crate) fn leaves_out(self, part: Self) -> bool {
        let both = [Self::Rule7StoreBeforeAnswer, Self::Rule7LearnFirst];
        self == part || self == Self::Rule7StoreBeforeAnswerAndLearnFirst && both.contains(&part)
    }

    pub(crate) fn shows(self) -> Shows {
        match self {
            Self::Rule1CompareWholeRecord
            | Self::Rule1OnlyInSyncPromotes
            | Self::Rule4OwedSinceBarrier
            | Self::Rule4NothingPasses
            | Self::Rule4CountInAcknowledgements
            | Self::Rule4CountInLeases
            | Self::Rule5OwnIoEnds
            | Self::Rule5Grace
            | Self::Rule6EveryNode
            | Self::Rule6OwnDisk
            | Self::Rule6NoUnsettledDrop
            | Self::Rule6Lease
            | Self::Rule7RefuseLower
            | Self::Rule8LeaseToRead
            | Self::Rule8SentNotArrived
            | Self::Rule8GraceIsLonger
            | Self::Rule9ReadWaits => Shows::Caught(&CALM),
            Self::Rule8AfterTheDisk => Shows::Caught(&SLOW_READS),
            Self::Rule2NeverAbandon | Self::Rule2RefusalDeposes => Shows::Caught(&TIME_OUT),
            Self::ConnectionAfterTheOld => Shows::Caught(&CUT),
            Self::Rule2AdoptOnlyOwn
            | Self::Rule4Drain
            | Self::Rule5GraceFromStart
            | Self::Rule5PromiseIsStored
            | Self::Rule5RestartedNeverResumes
            | Self::Rule10ForgetfulDropsAll
            | Self::Rule10CrashMarksLog
            | Self::BarrierMarksAnew => Shows::Caught(&CRASH),
            Self::Rule3FlushFirst
            | Self::Rule5NotSuspect
            | Self::Rule5FlushFirst
            | Self::Rule11Marked
            | Self::Rule12AllPresent
            | Self::Rule12AllSuspect
            | Self::Rule12TargetsLog
            | Self::BarrierFlushes => Shows::Caught(&POWER_LOSS),
            Self::Rule1DiskIdToPromote | Self::Rule10BitmapReachesBack => Shows::Caught(&REPLACED),
            Self::Rule13BarrierNumber | Self::Rule13TheCandidateAsWell => Shows::Caught(&ROLLED_BACK),
            Self::HandOverStops
            | Self::Rule8StartsExpired
            | Self::HandOverRaisesGeneration
            | Self::HandOverOfThisGeneration => Shows::Caught(&HAND_OVER),
            Self::Rule4CountInFlushes | Self::Rule11SuspectLeaves => Shows::Caught(&FLUSH),
            Self::Rule6Durable => Shows::Caught(&WRITE),
            Self::Rule11MarkIsDurable => Shows::Caught(&CRASH_POWER_LOSS),
            Self::Rule2Repeats | Self::Rule7LooksAgain | Self::HandOverReclaims => Shows::Caught(&SERVES_AGAIN),
            Self::Rule3FrozenUntilSettled | Self::Rule4Barrier | Self::Rule5FenceNamesBoot => {
                Shows::Caught(&FENCE_HAND_OVER)
            }
            Self::Rule10SecondaryKeepsBitmaps | Self::Rule8EveryPeer => Shows::Caught(&THREE_CALM),
            Self::Rule5FenceOfThatNodeOnly | Self::Rule10Equalise => Shows::Caught(&THREE_FENCE),
            Self::Rule7StoreBeforeAnswerAndLearnFirst
            | Self::Rule10ForgetfulPeerLeaves
            | Self::Rule10SecondaryKeepsLog
            | Self::BarrierBehindWrites => Shows::Caught(&THREE_CRASH),
            Self::Rule1RaiseGenerationOnAdd => Shows::Implied(&[TWO_FAULTS, THREE_ONE]),
            Self::Rule5FormerPrimaryLeaves
            | Self::Rule7StoreBeforeAnswer
            | Self::Rule7LearnFirst
            | Self::Rule12SoleMember => Shows::Implied(&[TWO_FAULTS, THREE_CRASH]),
            Self::Rule1DiskIdToGoOn | Self::Rule12DiskIds => Shows::Implied(&[DISKS]),
            Self::HandOverRests => Shows::Implied(&[ONE_FAULT]),
        }
    }
}
