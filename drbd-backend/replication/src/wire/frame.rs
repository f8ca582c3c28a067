//! One message: head, body, payload.
//!
//! | at | bytes | head |
//! |---|---|---|
//! | 0 | 2 | `Td` |
//! | 2 | 1 | type |
//! | 3 | 1 | flags, by type |
//! | 4 | 4 | bytes of the body, whose last 4 are its CRC32C; 0 if there is none |
//! | 8 | 4 | bytes of the payload |
//! | 12 | 4 | CRC32C of the payload, 0 if there is none |
//! | 16 | 8 | generation |
//! | 24 | 8 | committed up to this write |
//! | 32 | 8 | barrier that every in-sync replica has stored |
//! | 40 | 8 | first field, by type |
//! | 48 | 8 | second |
//! | 56 | 4 | third |
//! | 60 | 4 | CRC32C of the 60 bytes before |

use core::fmt;

use super::body;
use super::kind::{COMPLETE, CRC, DURABLE, GOOD, Kind, MAX_PAYLOAD_BYTES, PUNCH, ZEROES};
use crate::checksum::crc32c;
use crate::codec::Reader;
use crate::message::{Envelope, Message};
use crate::names::{Barrier, Generation, Seq, Span};

/// Every frame begins with as many.
pub const HEAD_BYTES: usize = 64;

const MAGIC: &[u8; 2] = b"Td";

/// How long a payload is, and its CRC32C, which whoever has the bytes computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sum {
    pub bytes: u32,
    pub crc32c: u32,
}

/// What a message says without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fields {
    pub(super) flags: u8,
    pub(super) first: u64,
    pub(super) second: u64,
    pub(super) third: u32,
}

/// The head of a frame that was received: what follows, and how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    pub envelope: Envelope,
    kind: Kind,
    fields: Fields,
    body_bytes: usize,
    payload: Option<Sum>,
}

/// Why bytes are no frame. The connection is of no use any more: where the next frame begins is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Malformed {
    NotAFrame,
    TornHead,
    TornBody,
    TornPayload,
    /// Of a later version, though another one was agreed.
    UnknownType(u8),
    /// No body or payload of this type is so long.
    Length {
        kind: u8,
        body: u32,
        payload: u32,
    },
    /// Whole, and yet it says what cannot be.
    Nonsense {
        kind: u8,
    },
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAFrame => f.write_str("the peer sent something that is no frame"),
            Self::TornHead => f.write_str("the head of a frame arrived damaged"),
            Self::TornBody => f.write_str("the body of a frame arrived damaged"),
            Self::TornPayload => f.write_str("the blocks of a frame arrived damaged"),
            Self::UnknownType(kind) => {
                write!(f, "the peer sent a frame of type {kind}, which the agreed version does not have")
            }
            Self::Length { kind, body, payload } => {
                write!(
                    f,
                    "the peer announced a frame of type {kind} with a body of {body} and a payload of {payload} bytes, which cannot be"
                )
            }
            Self::Nonsense { kind } => write!(f, "the peer sent a frame of type {kind} that makes no sense"),
        }
    }
}

impl core::error::Error for Malformed {}

/// Why a message cannot be sent. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsendable {
    /// It has more marks, spans or attachments than a body has room for.
    TooLong { kind: u8 },
    /// A payload is missing, or has another length than the message says, or more than 1 MiB; or there is one where none belongs.
    Payload { kind: u8, bytes: Option<u32> },
}

impl fmt::Display for Unsendable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { kind } => write!(f, "a message of type {kind} has more to say than a frame has room for"),
            Self::Payload { kind, bytes: None } => write!(f, "a message of type {kind} lacks its blocks"),
            Self::Payload { kind, bytes: Some(bytes) } => {
                write!(
                    f,
                    "a message of type {kind} cannot go with {bytes} bytes of blocks; {MAX_PAYLOAD_BYTES} are the most"
                )
            }
        }
    }
}

impl core::error::Error for Unsendable {}

/// Appends head and body. The payload is to be sent right behind them. Takes no memory for what has no body, if `out` has room.
///
/// # Errors
/// The message is too long, or does not go with this payload.
pub fn encode(
    envelope: &Envelope,
    message: &Message,
    payload: Option<Sum>,
    out: &mut Vec<u8>,
) -> Result<(), Unsendable> {
    let (kind, fields) = (Kind::of(message), fields_of(message));
    if !kind.takes(&fields, payload) {
        return Err(Unsendable::Payload { kind: kind as u8, bytes: payload.map(|sum| sum.bytes) });
    }
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_BYTES]);
    let Some(body_bytes) = append_body(kind, message, out) else {
        out.truncate(start);
        return Err(Unsendable::TooLong { kind: kind as u8 });
    };
    let head = Head { envelope: *envelope, kind, fields, body_bytes, payload };
    out[start..start + HEAD_BYTES].copy_from_slice(&head.encode());
    Ok(())
}

/// How many bytes it has with its checksum.
fn append_body(kind: Kind, message: &Message, out: &mut Vec<u8>) -> Option<usize> {
    let start = out.len();
    body::encode(message, out)?;
    if out.len() > start {
        let crc = crc32c(&out[start..]);
        out.extend_from_slice(&crc.to_be_bytes());
    }
    Some(out.len() - start).filter(|bytes| kind.bodies().contains(bytes))
}

fn fields_of(message: &Message) -> Fields {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let first = |first: u64| Fields { first, ..Fields::default() };
    let span = |first: u64, span: Span, flags: u8| Fields { flags, first, second: span.start, third: span.count };
    match message {
        Message::Stale { known } => first(known.0),
        Message::Heartbeat { sent, fences } | Message::HeartbeatAnswer { sent, fences } => {
            Fields { second: *fences, ..first(sent.0) }
        }
        Message::Write { seq, span: blocks, zeroes, durable } => {
            let zeroes = flag(zeroes.is_some(), ZEROES) | flag(*zeroes == Some(true), PUNCH);
            span(seq.0, *blocks, zeroes | flag(*durable, DURABLE))
        }
        Message::Written { seq } => first(seq.0),
        Message::Flush { number } | Message::Flushed { number } => first(*number),
        Message::Barrier { barrier, complete } => {
            Fields { flags: flag(complete.is_some(), COMPLETE), ..first(barrier.0) }
        }
        Message::BarrierStored { barrier } => first(barrier.0),
        Message::Fetch { number, span: blocks } => span(*number, *blocks, 0),
        Message::Fetched { number, good } => Fields { flags: flag(*good, GOOD), ..first(*number) },
        Message::ControlStored { version } => first(*version),
        Message::Hello(_)
        | Message::Welcome { .. }
        | Message::Ready(_)
        | Message::Changed(_)
        | Message::BarrierWanted
        | Message::Failed
        | Message::Control(_)
        | Message::TakeOver => Fields::default(),
    }
}

impl Head {
    fn encode(&self) -> [u8; HEAD_BYTES] {
        let body = u32::try_from(self.body_bytes).expect("a body has at most 1 MiB");
        let sum = self.payload.unwrap_or(Sum { bytes: 0, crc32c: 0 });
        let mut bytes = [0; HEAD_BYTES];
        bytes[..2].copy_from_slice(MAGIC);
        bytes[2] = self.kind as u8;
        bytes[3] = self.fields.flags;
        bytes[4..8].copy_from_slice(&body.to_be_bytes());
        bytes[8..12].copy_from_slice(&sum.bytes.to_be_bytes());
        bytes[12..16].copy_from_slice(&sum.crc32c.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.envelope.generation.0.to_be_bytes());
        bytes[24..32].copy_from_slice(&self.envelope.committed.0.to_be_bytes());
        bytes[32..40].copy_from_slice(&self.envelope.barrier.0.to_be_bytes());
        bytes[40..48].copy_from_slice(&self.fields.first.to_be_bytes());
        bytes[48..56].copy_from_slice(&self.fields.second.to_be_bytes());
        bytes[56..60].copy_from_slice(&self.fields.third.to_be_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// # Errors
    /// The bytes are no head of a frame, or announce what no frame of this type has.
    pub fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Malformed> {
        if !bytes.starts_with(MAGIC) {
            return Err(Malformed::NotAFrame);
        }
        if bytes[60..] != crc32c(&bytes[..60]).to_be_bytes() {
            return Err(Malformed::TornHead);
        }
        Self::parse(&bytes[2..60]).expect("the parts of a head add up to its length")
    }

    fn parse(bytes: &[u8]) -> Option<Result<Self, Malformed>> {
        let mut reader = Reader::new(bytes);
        let (code, flags, body) = (reader.u8()?, reader.u8()?, reader.u32()?);
        let sum = Sum { bytes: reader.u32()?, crc32c: reader.u32()? };
        let generation = Generation(reader.u64()?);
        let envelope = Envelope { generation, committed: Seq(reader.u64()?), barrier: Barrier(reader.u64()?) };
        let fields = Fields { flags, first: reader.u64()?, second: reader.u64()?, third: reader.u32()? };
        let Some(kind) = Kind::of_code(code) else { return Some(Err(Malformed::UnknownType(code))) };
        let payload = (sum != Sum { bytes: 0, crc32c: 0 }).then_some(sum);
        let body_bytes = usize::try_from(body).ok()?;
        let fits = kind.bodies().contains(&body_bytes) && kind.takes(&fields, payload);
        let head = Self { envelope, kind, fields, body_bytes, payload };
        Some(if fits { Ok(head) } else { Err(Malformed::Length { kind: code, body, payload: sum.bytes }) })
    }

    /// How many bytes follow the head before the payload: at most [`MAX_BODY_BYTES`](super::MAX_BODY_BYTES), and 0 for whatever is sent often.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body_bytes
    }

    /// What follows the body: whole blocks, at most [`MAX_PAYLOAD_BYTES`].
    #[must_use]
    pub fn payload(&self) -> Option<Sum> {
        self.payload
    }

    /// # Errors
    /// These are not the bytes that were announced, or they make no sense.
    pub fn message(&self, body: &[u8]) -> Result<Message, Malformed> {
        if body.len() != self.body_bytes {
            return Err(Malformed::TornBody);
        }
        let body = match body.split_last_chunk::<CRC>() {
            // A checksum of nothing is no body: there is one form of each message.
            Some((body, crc)) if !body.is_empty() && *crc == crc32c(body).to_be_bytes() => body,
            None if body.is_empty() => body,
            Some(_) | None => return Err(Malformed::TornBody),
        };
        // Whatever this type does not use must be zero, so that there is one form of each message.
        let message = body::decode(self.kind, &self.fields, body).filter(|message| fields_of(message) == self.fields);
        message.ok_or(Malformed::Nonsense { kind: self.kind as u8 })
    }

    /// Whether the blocks are those that were sent.
    ///
    /// # Errors
    /// Their checksum is another one.
    pub fn check_payload(&self, crc32c: u32) -> Result<(), Malformed> {
        match self.payload {
            Some(sum) if sum.crc32c != crc32c => Err(Malformed::TornPayload),
            Some(_) | None => Ok(()),
        }
    }
}
