//! The worlds that are searched, smallest first.

use crate::volume::{Durability, Faults, Volume};

#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) order: Order,
    pub(crate) volume: Volume,
}

/// In which order a search goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Shortest paths first; what was checked when it is given up is a depth.
    Breadth,
    /// With the least memory, for what is to be searched to its end.
    Depth,
}

impl Setting {
    pub(crate) fn is_in_breadth(&self) -> bool {
        self.order == Order::Breadth
    }
}

const NONE: Faults = Faults::NONE;
/// One of whatever is no loss of a disk.
const ONE_OF_ANY: Faults = Faults { all: 1, crashes: 1, power_losses: 1, cuts: 1, time_outs: 1, ..NONE };
const TWO_OF_ANY: Faults = Faults { all: 2, crashes: 2, power_losses: 2, cuts: 2, time_outs: 2, ..NONE };

const PAIR: Volume = Volume::PAIR;
const THREE: Volume = Volume { nodes: 3, writes: 1, generations: 3, ..PAIR };

const fn pair(name: &'static str, about: &'static str, faults: Faults) -> Setting {
    in_breadth(name, about, Volume { faults, ..PAIR })
}

const fn in_breadth(name: &'static str, about: &'static str, volume: Volume) -> Setting {
    Setting { name, about, order: Order::Breadth, volume }
}

const fn in_depth(name: &'static str, about: &'static str, volume: Volume) -> Setting {
    Setting { name, about, order: Order::Depth, volume }
}

pub(crate) const CALM: Setting = pair("calm", "two nodes, no fault", NONE);
pub(crate) const SLOW_READS: Setting =
    in_breadth("slow-reads", "time passes between disk and client", Volume { slow_reads: true, ..PAIR });
pub(crate) const TIME_OUT: Setting =
    pair("time-out", "one answer of the arbiter is lost", Faults { all: 1, time_outs: 1, ..NONE });
pub(crate) const CUT: Setting = pair("cut", "one connection breaks", Faults { all: 1, cuts: 1, ..NONE });
pub(crate) const CRASH: Setting = pair("crash", "one process dies", Faults { all: 1, crashes: 1, ..NONE });
pub(crate) const POWER_LOSS: Setting =
    pair("power-loss", "one host loses power", Faults { all: 1, power_losses: 1, ..NONE });
pub(crate) const FENCE: Setting = pair("fence", "one host is fenced", Faults { all: 1, fences: 1, ..NONE });
pub(crate) const CUT_TIME_OUT: Setting = pair(
    "cut-time-out",
    "a connection breaks, an answer of the arbiter is lost",
    Faults { all: 2, cuts: 1, time_outs: 1, ..NONE },
);
pub(crate) const REPLACED: Setting =
    pair("replaced", "a process dies, a disk is replaced", Faults { all: 2, crashes: 1, replaced: 1, ..NONE });
pub(crate) const ROLLED_BACK: Setting =
    pair("rolled-back", "a process dies, a disk is an old copy", Faults { all: 2, crashes: 1, rolled_back: 1, ..NONE });
pub(crate) const HAND_OVER: Setting =
    in_breadth("hand-over", "a planned hand-over, no fault", Volume { hand_overs: 1, ..PAIR });
pub(crate) const FLUSH: Setting = in_breadth(
    "flush",
    "two losses of power, clients flush",
    Volume { flushes: true, faults: Faults { all: 2, power_losses: 2, ..NONE }, ..PAIR },
);
pub(crate) const WRITE: Setting = in_breadth(
    "write",
    "two losses of power, durability write",
    Volume { durability: Durability::Write, faults: Faults { all: 2, power_losses: 2, ..NONE }, ..PAIR },
);
pub(crate) const CRASH_POWER_LOSS: Setting = in_breadth(
    "crash-power-loss",
    "a process dies, a host loses power, clients flush",
    Volume { flushes: true, faults: Faults { all: 2, crashes: 1, power_losses: 1, ..NONE }, ..PAIR },
);
pub(crate) const ONE_FAULT: Setting = in_breadth(
    "one-fault",
    "any one fault, a planned hand-over, clients flush",
    Volume { flushes: true, hand_overs: 1, faults: ONE_OF_ANY, ..PAIR },
);
pub(crate) const CLOCKS: Setting = in_breadth(
    "clocks",
    "any one fault, clocks out of their bound: reads may be old, but nothing is lost",
    Volume { clocks_hold: false, faults: ONE_OF_ANY, ..PAIR },
);
pub(crate) const SERVES_AGAIN: Setting = in_breadth(
    "serves-again",
    "any one fault, a planned hand-over; from each state the volume serves again",
    Volume { hand_overs: 1, liveness: true, writes: 1, faults: ONE_OF_ANY, ..PAIR },
);
pub(crate) const THREE_CALM: Setting =
    in_breadth("three-calm", "three nodes, four generations, no fault", Volume { generations: 4, ..THREE });
pub(crate) const THREE_FENCE: Setting = in_breadth(
    "three-fence",
    "three nodes, one is fenced",
    Volume { faults: Faults { all: 1, fences: 1, ..NONE }, ..THREE },
);
pub(crate) const THREE_CRASH: Setting = in_breadth(
    "three-crash",
    "three nodes, one process dies",
    Volume { faults: Faults { all: 1, crashes: 1, ..NONE }, ..THREE },
);
pub(crate) const FENCE_HAND_OVER: Setting = in_breadth(
    "fence-hand-over",
    "one host is fenced, a planned hand-over, five generations",
    Volume { hand_overs: 1, writes: 1, generations: 5, faults: Faults { all: 1, fences: 1, ..NONE }, ..PAIR },
);

pub(crate) const TWO_FAULTS: Setting = in_depth(
    "two-faults",
    "any two faults, clients flush, five generations",
    Volume { flushes: true, generations: 5, faults: TWO_OF_ANY, ..PAIR },
);

pub(crate) const DISKS: Setting = in_depth(
    "disks",
    "any two of crash, power loss, fence, disk replaced, disk rolled back",
    Volume {
        flushes: true,
        generations: 5,
        faults: Faults { all: 2, crashes: 1, power_losses: 1, replaced: 1, rolled_back: 1, fences: 1, ..NONE },
        ..PAIR
    },
);

pub(crate) const HAND_OVERS: Setting = in_depth(
    "hand-overs",
    "two planned hand-overs and any two faults",
    Volume { hand_overs: 2, flushes: false, ..TWO_FAULTS.volume },
);

pub(crate) const THREE_ONE: Setting = in_depth(
    "three-one",
    "three nodes, any one fault, a planned hand-over",
    Volume { hand_overs: 1, faults: ONE_OF_ANY, ..THREE },
);

/// What `make check` searches to its end.
pub(crate) const SHORT: &[Setting] = &[
    CALM,
    SLOW_READS,
    TIME_OUT,
    CUT,
    CRASH,
    POWER_LOSS,
    FENCE,
    CUT_TIME_OUT,
    REPLACED,
    ROLLED_BACK,
    HAND_OVER,
    FLUSH,
    WRITE,
    CRASH_POWER_LOSS,
    ONE_FAULT,
    CLOCKS,
    SERVES_AGAIN,
    FENCE_HAND_OVER,
    THREE_CALM,
    THREE_FENCE,
    THREE_CRASH,
];

/// What takes minutes, or hours.
pub(crate) const LONG: &[Setting] = &[
    TWO_FAULTS,
    in_depth(
        "two-faults-write",
        "the same with durability write",
        Volume { durability: Durability::Write, flushes: false, ..TWO_FAULTS.volume },
    ),
    DISKS,
    HAND_OVERS,
    in_depth(
        "serves-long",
        "any two faults, a planned hand-over; from each state the volume serves again",
        Volume { hand_overs: 1, liveness: true, flushes: false, ..TWO_FAULTS.volume },
    ),
    in_depth(
        "two-blocks",
        "two blocks, a write of each in flight, any one fault",
        Volume { blocks: 2, writes: 1, faults: ONE_OF_ANY, ..PAIR },
    ),
    in_depth(
        "two-blocks-two",
        "the same with two writes of each block",
        Volume { blocks: 2, faults: ONE_OF_ANY, ..PAIR },
    ),
    in_depth(
        "three-faults",
        "any three faults, clients flush",
        Volume {
            faults: Faults { all: 3, crashes: 3, power_losses: 3, cuts: 3, time_outs: 3, ..NONE },
            ..TWO_FAULTS.volume
        },
    ),
    THREE_ONE,
    in_depth(
        "three-serves",
        "three nodes, any one fault; from each state the volume serves again",
        Volume { liveness: true, faults: ONE_OF_ANY, ..THREE },
    ),
    in_depth(
        "three-two",
        "three nodes, a process dies and a host loses power",
        Volume { faults: Faults { all: 2, crashes: 1, power_losses: 1, ..NONE }, ..THREE },
    ),
    in_breadth(
        "three-deep",
        "three nodes, two writes, any two faults, a planned hand-over, clients flush",
        Volume { writes: 2, generations: 5, hand_overs: 1, flushes: true, faults: TWO_OF_ANY, ..THREE },
    ),
];
