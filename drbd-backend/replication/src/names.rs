//! The names of things: nodes, disks, generations, blocks, and the ids by which the shell and the core speak of work in progress.

use core::fmt;
use core::time::Duration;

/// How many nodes may hold a replica of one volume.
pub const MAX_NODES: usize = 8;

/// Bytes of one block: what is locked, marked in bitmaps and shipped.
pub const BLOCK_BYTES: u32 = 4096;

/// Blocks of one extent of the activity log: 4 MiB, as in DRBD.
pub const EXTENT_BLOCKS: u64 = 1024;

/// A node's place among the members of one volume, for good: 0 to 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node(u8);

impl Node {
    /// `None` where there is no such place.
    #[must_use]
    pub fn new(place: u8) -> Option<Self> {
        (usize::from(place) < MAX_NODES).then_some(Self(place))
    }

    #[must_use]
    pub fn place(self) -> u8 {
        self.0
    }

    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    pub fn all() -> impl Iterator<Item = Self> {
        (0..MAX_NODES).map(|place| Self(u8::try_from(place).expect("there are eight")))
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {}", self.0)
    }
}

/// A set of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Nodes(u8);

impl Nodes {
    pub const NONE: Self = Self(0);

    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    #[must_use]
    pub fn contains(self, node: Node) -> bool {
        self.0 & (1 << node.0) != 0
    }

    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    #[must_use]
    pub fn with(self, node: Node) -> Self {
        Self(self.0 | 1 << node.0)
    }

    #[must_use]
    pub fn without(self, node: Node) -> Self {
        Self(self.0 & !(1 << node.0))
    }

    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub fn insert(&mut self, node: Node) {
        *self = self.with(node);
    }

    pub fn remove(&mut self, node: Node) {
        *self = self.without(node);
    }

    pub fn iter(self) -> impl Iterator<Item = Node> {
        Node::all().filter(move |node| self.contains(*node))
    }
}

impl FromIterator<Node> for Nodes {
    fn from_iter<I: IntoIterator<Item = Node>>(nodes: I) -> Self {
        nodes.into_iter().fold(Self::NONE, Self::with)
    }
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let hex = format!("{:032x}", self.0);
                write!(f, "{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
            }
        }
    };
}

identifier!(
    /// A volume's UUID.
    VolumeId
);
identifier!(
    /// Durable, and new at every full resync: a disk that was replaced, or restored from a copy, is a stranger.
    DiskId
);
identifier!(
    /// The kernel's: another one means that the host's memory is gone, and with it whatever no flush covered.
    BootId
);
identifier!(
    /// One life of a process: what it holds in memory alone is gone with it.
    Process
);
identifier!(
    /// Of the arbiter's store: another one means that it was wiped, replaced or restored.
    Incarnation
);

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Counts the changes of the arbiter's record. Every message carries it, and a lower one is refused.
    Generation
);
counter!(
    /// Counts a Primary's writes, in the order in which it sends them.
    Seq
);
counter!(
    /// Counts the barriers of a volume: all in-sync replicas have flushed, and have stored this number.
    Barrier
);

/// Nanoseconds of CLOCK_BOOTTIME on this node: it runs on while the process, or the machine, sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl core::ops::Add<Duration> for Time {
    type Output = Self;

    fn add(self, length: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Blocks in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first, counted from the start of the volume.
    pub start: u64,
    /// How many; at least one.
    pub count: u32,
}

impl Span {
    #[must_use]
    pub fn new(start: u64, count: u32) -> Self {
        Self { start, count }
    }

    /// The block after the last.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start + u64::from(self.count)
    }

    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    pub fn blocks(self) -> impl Iterator<Item = u64> {
        self.start..self.end()
    }

    /// The extents that it touches.
    pub fn extents(self) -> impl Iterator<Item = Extent> {
        let first = self.start / EXTENT_BLOCKS;
        let last = (self.end() - 1) / EXTENT_BLOCKS;
        (first..=last).map(|number| Extent(u32::try_from(number).expect("a volume has fewer than 2^32 extents")))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "blocks {}..{}", self.start, self.end())
    }
}

/// 4 MiB of the volume: what the activity log knows of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Extent(pub u32);

impl Extent {
    #[must_use]
    pub fn span(self) -> Span {
        Span::new(u64::from(self.0) * EXTENT_BLOCKS, u32::try_from(EXTENT_BLOCKS).expect("it is 1024"))
    }
}

/// A client's request; the shell numbers them, and may use a number again once it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request(pub u32);

/// An operator's order; the shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OrderId(pub u32);

/// Something that this replica asked its own disk to do; the core numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job(pub u32);

/// One connection to one peer, for good: the next one is another link. The shell numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub u32);

/// One question to the arbiter; the core numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question(pub u32);

/// Bytes of blocks that the shell holds in memory until the core releases them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Payload(pub u32);
