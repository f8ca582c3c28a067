//! What happens to a replica: clients ask, disks and peers answer, the arbiter tells, operators order, time passes.

use crate::bits::Bits;
use crate::control::Change;
use crate::message::{Envelope, Message};
use crate::metadata::Superblock;
use crate::names::{BootId, Incarnation, Job, Link, Node, OrderId, Payload, Process, Question, Request, Span};
use crate::record::Record;

/// What a write puts into its blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Content {
    /// Whole blocks.
    Data(Payload),
    /// The blocks read as zeroes afterwards; `punch` frees their space where the store can.
    Zeroes { punch: bool },
}

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ask {
    Read(Span),
    /// `durable` is FUA: answered once it would survive a power loss.
    Write {
        span: Span,
        content: Content,
        durable: bool,
    },
    /// Bytes that do not fill their blocks: the core has them merged ([`Effect::Merge`](crate::Effect::Merge)) under the blocks' lock.
    WritePart {
        span: Span,
        payload: Payload,
        durable: bool,
    },
    /// Every write answered before it was asked survives a power loss once this is answered.
    Flush,
}

/// Why a disk did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskError {
    /// ENOSPC, EDQUOT: nothing was written, and it may be tried again.
    Full,
    /// Anything else. What was to be written may or may not be there; a flush that failed is never tried again as if it were new.
    Failed,
}

/// How a compare-and-swap ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settled {
    /// The record is the proposed one.
    Swapped,
    /// It was another one than expected, namely this.
    Refused(Box<Record>),
    /// No answer: it may have been done, may be done later, or never.
    Unknown,
}

/// What the arbiter says when asked for the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Record {
        incarnation: Incarnation,
        record: Box<Record>,
    },
    /// It answers, and has no record of this volume.
    Missing,
    Unreachable,
}

/// What an operator, or the shell on a client's behalf, wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Become Primary, once that is safe.
    Promote,
    /// Stop serving; nobody is promoted unasked afterwards.
    Demote,
    /// Pass the role to this node, without a gap longer than the writes in flight.
    HandOver(Node),
    /// Become Primary although rules 5 and 12 do not allow it.
    /// `destroyed`: nodes that will never come back with the disk they had. `forced`: nodes whose boot is fenced, or that said they are not Primary.
    ForcePrimary { destroyed: Vec<Node> },
    /// Throw this replica's data away and have it copied anew by the Primary (`drbdadm invalidate`). Carried out once that is durable; the copy takes
    /// its time. Refused unless a serving Primary, which is in sync, leads this replica.
    Invalidate,
    /// Change the control document.
    Control(Change),
    /// The arbiter was replaced or rebuilt, and an operator has made sure that its record is the last one: whatever store answers next is
    /// believed, if its generation is not below this replica's own.
    TrustArbiter,
    /// Answer everything, flush, and mark the metadata clean.
    ShutDown,
}

/// What was found on this node's disk when the process started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub superblock: Superblock,
    /// The extents of the activity log.
    pub activity: Vec<crate::names::Extent>,
    /// The bitmap of each member that was absent. One that is named in the superblock and could not be read is missing here.
    pub bitmaps: Vec<(Node, Bits)>,
    pub control: crate::control::Control,
}

/// What is new with every start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub boot: BootId,
    pub process: Process,
    /// Random: where this replica hands out disk ids, they are drawn from it.
    pub entropy: u128,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A client asks. `client` is its attachment in the control document.
    Asked {
        request: Request,
        client: u32,
        ask: Ask,
    },
    /// Its client waits no longer. What has not begun is answered with [`Failure::Withdrawn`](crate::Failure::Withdrawn), and reads and flushes at any time;
    /// what has begun is answered when it is done, as if nobody had said anything.
    Withdrawn {
        request: Request,
    },
    /// A partial write's blocks with its bytes in them.
    Merged {
        job: Job,
        result: Result<Payload, DiskError>,
    },

    Stored {
        job: Job,
        result: Result<(), DiskError>,
    },
    Loaded {
        job: Job,
        result: Result<Payload, DiskError>,
    },
    Flushed {
        job: Job,
        result: Result<(), DiskError>,
    },
    /// Metadata is durable.
    Kept {
        job: Job,
        result: Result<(), DiskError>,
    },

    Connected {
        link: Link,
        node: Node,
    },
    Disconnected {
        link: Link,
    },
    Received {
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
    },

    Told {
        question: Question,
        told: Told,
    },
    Settled {
        question: Question,
        settled: Settled,
    },

    /// tandem-ha, or an operator, has made sure that this boot of this node writes no more.
    Fenced {
        node: Node,
        boot: BootId,
    },
    /// The arbiter's list of fenced hosts has this version, and these attachments are theirs.
    HostsFenced {
        version: u64,
        clients: Vec<u32>,
    },
    Ordered {
        order: OrderId,
        what: Order,
    },

    /// The time that [`Replica::wake_at`](crate::Replica::wake_at) named has come.
    Woken,
}
