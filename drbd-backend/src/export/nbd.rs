//! The NBD protocol as a server speaks it: bytes in, requests out; results in, the heads of replies out. No I/O, no clock.
//!
//! ```text
//!  GREETING ─▶                                                   one request at a time, in the order of their arrival
//!              Handshake ────────── Opened ────────▶ Session ─────────────────────────────────▶ Request
//!  bytes ────▶  │     ▲                               │   ▲                                        │ the caller does it
//!               │     │ secured()                     │   │ payload_received(n)                    ▼
//!               └─ StartTls: the caller's turn        └─ Write: the payload goes where          Reply ─▶ client
//!                                                        the caller wants it
//! ```
//! Both take bytes in pieces of any size and say how many they took, one message at a time. [`Session::wants`] says what comes next, so that a
//! caller can receive a request's 28 bytes beside the caller's own memory, and the payload of a write straight into the buffer that goes to the
//! disk. A [`Reply`] is the head of an answer; what was read is sent behind it from where it lies. A request that cannot be is answered here, and
//! its payload is passed over, so the stream stays in step. In the steady state nothing is allocated.
//!
//! The rules are those of the NBD protocol document (doc/proto.md of the NetworkBlockDevice project), cited by the titles of its sections. Spoken
//! are the fixed newstyle handshake, with TLS, and both kinds of replies, with `base:allocation`; oldstyle and extended headers are not.

mod handshake;
mod numbers;
mod option;
mod reader;
mod reply;
mod request;
mod session;

#[cfg(test)]
mod tests;

use std::fmt;

pub use handshake::{Handshake, Opened, Progress};
pub use reply::{Errno, Extent, REPLY_BYTES, Reply};
pub use request::{REQUEST_BYTES, Request};
pub use session::{Session, Step, Terms, Wants};

/// What the server sends as soon as a client is there ("Newstyle negotiation").
pub const GREETING: [u8; 18] = numbers::greeting();

/// The sizes that clients are told ("Block size constraints"): any offset and length will do, whole blocks of 4 KiB are fast, and no read or write
/// is longer than 32 MiB. Requests that move no data may be as long as their field for it allows.
pub const MINIMUM_BLOCK_BYTES: u32 = 1;
pub const PREFERRED_BLOCK_BYTES: u32 = 4096;
pub const MAXIMUM_BLOCK_BYTES: u32 = 32 << 20;

/// How long a string of the protocol may be ("Conventions").
pub const MAX_STRING_BYTES: usize = 4096;

/// What can be exported, as the caller knows it at the moment.
pub trait Exports {
    /// The export of that name; the empty name asks for the default one, if there is one. Asked anew for each option of a client.
    ///
    /// # Errors
    /// Why this client does not get it, in words that are shown to its user.
    fn find(&self, name: &str) -> Result<Export, Refusal>;

    /// Name and description of each.
    fn each(&self, show: &mut dyn FnMut(&str, &str));
}

/// One volume as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Export {
    /// What it is really called, where it was asked for by another name.
    pub name: String,
    /// For people.
    pub description: String,
    pub size_bytes: u64,
    pub is_read_only: bool,
}

/// Why an export is not to be had, each with the text for the client's user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// `NBD_REP_ERR_UNKNOWN`: there is no such export.
    #[error("{0}")]
    Unknown(String),
    /// `NBD_REP_ERR_POLICY`: it is known and not for this client, or not here, or not now.
    #[error("{0}")]
    Policy(String),
    /// `NBD_REP_ERR_SHUTDOWN`: the server is about to end.
    #[error("{0}")]
    ShuttingDown(String),
    /// It may be there soon, and this client should have it then: the client is told nothing and waits ([`Progress::Waiting`]). A client that comes
    /// back to a volume whose new Primary is just being found loses seconds by any other answer, for clients wait longer after each refusal.
    #[error("it may be there soon")]
    NotYet,
}

/// Whether clients must speak TLS ("Server-side requirements" of "TLS support").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// NOTLS: there is none.
    None,
    /// SELECTIVETLS, with no export for which it is mandatory: as the client likes.
    Allowed,
    /// FORCEDTLS: nothing is said without it.
    Required,
}

/// Why a connection has to end: what the client sent cannot be answered, or means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("the client's handshake flags are {0:#x}: not a client of the newstyle NBD protocol, or a newer one")]
    ClientFlags(u32),
    #[error("an option begins with {0:#018x} instead of IHAVEOPT: the client is out of step, or no NBD client")]
    OptionMagic(u64),
    #[error("option {option} comes with {length} bytes of data, more than any option needs")]
    OptionTooLong { option: u32, length: u32 },
    #[error("more than {0} options, and no export chosen")]
    TooManyOptions(u32),
    #[error("option {0} from a client that does not speak fixed newstyle")]
    NotFixed(u32),
    #[error("the client sent more before it could know that TLS was to begin")]
    EarlyBytes,
    #[error("the client asked for an export without TLS, which is required")]
    WithoutTls,
    #[error("the client asked for an export by a name that is none: {0}")]
    Name(&'static str),
    #[error("the client asked for export {name:?}, and could not be told why it does not get it")]
    Refused { name: String, source: Refusal },
    #[error(
        "a request begins with {0:#010x} instead of NBD_REQUEST_MAGIC: the client is out of step, or no NBD client"
    )]
    RequestMagic(u32),
}

/// The longest beginning of a text that fits: a character is never cut.
fn clipped(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

impl fmt::Display for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Allowed => "allowed",
            Self::Required => "required",
        })
    }
}
