//! What replicas say to each other.
//!
//! ```text
//!   peer                            Primary
//!    │ ◀──────────── Hello ───────────▶ │   who am I, what is on my disk
//!    │ ◀──────────── Welcome ────────── │   go on | equalise | resync | stranger; nothing else before
//!    │ ───────────── Ready ───────────▶ │   what my disk may hold that yours does not
//!    │ ◀── Write, Flush, Barrier ... ── │
//!    │ ─── Written, Flushed, ... ─────▶ │
//! ```

use crate::bits::Bits;
use crate::control::Control;
use crate::names::{Barrier, BootId, DiskId, Generation, Node, Process, Seq, Span, Time, VolumeId};
use crate::record::Record;

/// What every message carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Envelope {
    /// The sender's. A lower one than the receiver has stored or promised is refused.
    pub generation: Generation,
    /// Of a Primary: every write up to this one is on every in-sync replica.
    pub committed: Seq,
    /// Of a Primary: every in-sync replica has stored this barrier.
    pub barrier: Barrier,
}

/// What is on the sender's disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub volume: VolumeId,
    pub node: Node,
    pub disk: DiskId,
    pub boot: BootId,
    pub process: Process,
    pub size_blocks: u64,
    pub suspect: bool,
    /// It needs a full resync whatever else holds: its disk failed, or a full resync was cut short.
    pub blank: bool,
    pub primary: bool,
    /// The generation of the record that it knows; what it has promised itself to may be higher.
    pub record: Generation,
    /// The last barrier that it has stored. Lower than one that it confirmed: the disk was rolled back.
    pub barrier: Barrier,
    /// The last that it knows every in-sync replica to have stored.
    pub confirmed: Barrier,
}

/// What a Primary makes of a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Welcome {
    /// In sync, and it was here before: what it has not answered is sent again. `next` is the first new write.
    GoOn { next: Seq },
    /// In sync; it served under the former Primary and is made equal before anybody is served.
    Equalise { next: Seq },
    /// Behind: it gets what it lacks. `fresh`: all of it, under this new disk id.
    Resync { next: Seq, fresh: Option<DiskId> },
}

/// What the receiver's disk may hold that the Primary's does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Writes of the former Primary that were not known to be everywhere. `None`: it does not know them any more.
    pub uncommitted: Option<Vec<Span>>,
    /// What it wrote since the last barrier that it knows to be confirmed.
    pub unconfirmed: Bits,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Hello(Box<Hello>),
    Welcome {
        record: Box<Record>,
        welcome: Welcome,
    },
    Ready(Box<Ready>),
    /// The sender knows of this later generation, or has promised itself to one.
    Stale {
        known: Generation,
    },
    /// The Primary has settled a change.
    Changed(Box<Record>),

    Heartbeat {
        sent: Time,
        /// The version of the list of fenced hosts that the sender has taken in.
        fences: u64,
    },
    HeartbeatAnswer {
        sent: Time,
        fences: u64,
    },

    /// With a payload unless `zeroes` says what to write instead. `durable`: survives a power loss before it is answered.
    Write {
        seq: Seq,
        span: Span,
        zeroes: Option<bool>,
        durable: bool,
    },
    Written {
        seq: Seq,
    },
    Flush {
        number: u64,
    },
    Flushed {
        number: u64,
    },
    /// Flush, and store this number.
    Barrier {
        barrier: Barrier,
        /// The receiver has all the data by then: it stores that its disk is good, under this id.
        complete: Option<DiskId>,
    },
    BarrierStored {
        barrier: Barrier,
    },
    /// The receiver's activity log is full of extents that no barrier covers.
    BarrierWanted,
    /// The sender's disk failed: it needs to be dropped.
    Failed,

    /// Blocks that the Primary cannot read.
    Fetch {
        number: u64,
        span: Span,
    },
    /// With a payload, unless it cannot read them either.
    Fetched {
        number: u64,
        good: bool,
    },

    Control(Box<Control>),
    ControlStored {
        version: u64,
    },

    /// The Primary has stopped for good in this generation: the receiver may be promoted without waiting.
    TakeOver,
}
