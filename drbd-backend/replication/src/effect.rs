//! What a replica wants done. Effects carry no order: whatever must come after another is asked for once that one is done.

use crate::event::Content;
use crate::message::{Envelope, Message};
use crate::metadata::Metadata;
use crate::names::{Incarnation, Job, Link, Node, OrderId, Payload, Question, Request, Span};
use crate::note::Note;
use crate::record::Record;

/// How a client's request ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Answer {
    Done,
    /// What was read; the shell sends it and frees it.
    Data(Payload),
    Failed(Failure),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// Not this node serves. It may have been written all the same; who asks the Primary again loses nothing.
    NotPrimary { primary: Option<Node> },
    /// The attachment was revoked, or is of an epoch before the last lost cache.
    Revoked,
    /// Beyond the end of the volume.
    OutOfRange,
    /// The only disk that is left failed.
    Io,
    /// It was [withdrawn](crate::Event::Withdrawn) in time: it did nothing, and never will.
    Withdrawn,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// This node is not the Primary, and the order is one for the Primary.
    NotPrimary { primary: Option<Node> },
    /// Its disk does not have every acknowledged write.
    NotInSync,
    /// Its disk may have lost writes with its host's memory.
    Suspect,
    /// The disk failed.
    DiskFailed,
    /// The arbiter has recorded another change meanwhile.
    Overtaken(Box<Record>),
    /// These nodes may serve, or may hold writes that are missing here.
    MayServe(Vec<Node>),
    /// No serving Primary leads this replica: it could be copied anew from nobody.
    NoSource,
    /// That node cannot take the role: it is not connected, or not in sync.
    Unfit(Node),
    /// The change does not fit the control document; why.
    Invalid(String),
    /// Another order of this kind is under way.
    Busy,
    /// The process ends.
    ShuttingDown,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "what is sent is most of what there is")]
pub enum Effect {
    // ---- this replica's disk ----
    /// Writes to the data file. `durable`: it survives a power loss once it is done.
    Store {
        job: Job,
        span: Span,
        content: Content,
        durable: bool,
    },
    Load {
        job: Job,
        span: Span,
    },
    /// Reads the blocks and lays the partial payload over them: a new payload; the partial one is freed.
    Merge {
        job: Job,
        span: Span,
        payload: Payload,
    },
    Flush {
        job: Job,
    },
    /// Writes metadata, durably.
    Keep {
        job: Job,
        what: Metadata,
    },

    // ---- peers ----
    Send {
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
    },
    HangUp {
        link: Link,
    },

    // ---- the arbiter ----
    Ask {
        question: Question,
    },
    Propose {
        question: Question,
        /// The arbiter's store that is meant: another one must not carry it out.
        incarnation: Option<Incarnation>,
        expected: Box<Record>,
        proposed: Box<Record>,
    },

    // ---- clients and operators ----
    Answer {
        request: Request,
        answer: Answer,
    },
    Report {
        order: OrderId,
        outcome: Result<(), Refusal>,
    },
    /// The core needs these bytes no more. The shell frees them once its own sends are through.
    Release(Payload),
    /// One line for the log, the API and the story.
    Say(Note),
}
