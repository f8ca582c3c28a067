//! What an iSCSI target answers (RFC 7143), and what its logical unit does (SPC-4, SBC-3): bytes in, requests and bytes out.
//!
//! ```text
//!  bytes ──▶ login ─── who it is, on what terms ───▶ target ──▶ session ──▶ scsi: the unit
//!               └── discovery                          ▲            │
//!                                     done(), data_in()│            ▼ Step: send, begin work, take a payload
//!                                                      └──── whoever holds the data and the sockets
//! ```
//! Pure: no I/O, no clock, no randomness. It is told what happened, and answers with values.

#![forbid(unsafe_code)]

mod bytes;
mod discovery;
mod login;
mod pdu;
mod scsi;
mod session;
mod target;
mod text;

pub use discovery::{Broken as DiscoveryBroken, Discovery, Portal, Said};
pub use login::{
    Admission, BadKey, CHALLENGE_BYTES, Chap, Claim, Ended, Entropy, LoggedIn, Login, MAX_NAME_BYTES, MIN_SECRET_BYTES,
    Mutual, Progress, Status, Terms,
};
pub use pdu::{Digests, HEADER_BYTES, MAX_HEADER_BYTES};
pub use scsi::{
    Access, BLOCK, Identity, Key, Limits, Modify, NexusId, PRODUCT, PortGroup, Sense, Unit, UnitSettings, VENDOR,
    Verdict, Work, naa,
};
pub use session::{Broken, Head, Outcome, Step, TaskId};
pub use target::{Event, SessionId, Target};
pub use text::Malformed;
