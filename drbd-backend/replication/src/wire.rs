//! The peer protocol as bytes: what two replicas of one volume say to each other on one connection.
//!
//! ```text
//!   who connects                          who accepts
//!        │ ───────────── Preamble ────────────▶ │   volume, nodes, versions that it speaks
//!        │ ◀──────────── Preamble ───────────── │   the same, and whether it may come
//!        │ ◀─────────────  frames ────────────▶ │   of the highest version that both speak
//!
//!   frame:  head, 64 bytes │ body, 0 to 1 MiB │ payload, 0 to 1 MiB of whole blocks
//! ```
//! Whoever receives reads [`HEAD_BYTES`], asks [`Head::decode`] how long body and payload are, reads the body into a buffer that it keeps, the
//! payload to where it shall stay, and then asks for the [`Head::message`]. What is sent for every write has no body: it is encoded and decoded
//! without taking memory. No length that a peer names is believed beyond what its type of message can need.
//!
//! Numbers are big-endian. `docs/wire-protocol.md` has every byte.

mod body;
mod frame;
mod kind;
mod preamble;

pub use frame::{HEAD_BYTES, Head, Malformed, Sum, Unsendable, encode};
pub use kind::{MAX_BODY_BYTES, MAX_PAYLOAD_BYTES};
pub use preamble::{NotAPeer, PREAMBLE_BYTES, Preamble, Refused, VERSIONS, Verdict, Versions};
