//! Types of frames, and how long their bodies and payloads may be.

use core::ops::RangeInclusive;

use super::frame::{Fields, Sum};
use crate::codec::{MAX_CONTROL_BYTES, RECORD_BYTES};
use crate::message::Message;
use crate::names::BLOCK_BYTES;

/// The longest body, in bytes: of Ready.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// The longest payload, in bytes.
pub const MAX_PAYLOAD_BYTES: u32 = 1 << 20;

/// Every body ends with its CRC32C.
pub(super) const CRC: usize = 4;

pub(super) const HELLO: usize = 104;
pub(super) const WELCOME: usize = RECORD_BYTES + 32;
/// A Ready that knows of nothing.
pub(super) const READY: usize = 12;
pub(super) const COMPLETE_ID: usize = 16;
/// A control document without anything.
const CONTROL: usize = 24;

pub(super) const DURABLE: u8 = 1;
pub(super) const ZEROES: u8 = 2;
pub(super) const PUNCH: u8 = 4;
pub(super) const COMPLETE: u8 = 1;
pub(super) const GOOD: u8 = 1;

macro_rules! kinds {
    ($($name:ident = $code:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[repr(u8)]
        pub(super) enum Kind { $($name = $code),+ }

        impl Kind {
            pub(super) fn of_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)+
                    _ => None,
                }
            }
        }

        impl Kind {
            pub(super) fn of(message: &Message) -> Self {
                match message {
                    $(Message::$name { .. } => Self::$name),+
                }
            }
        }
    };
}

kinds! {
    Hello = 1,
    Welcome = 2,
    Ready = 3,
    Stale = 4,
    Changed = 5,
    Heartbeat = 6,
    HeartbeatAnswer = 7,
    Write = 8,
    Written = 9,
    Flush = 10,
    Flushed = 11,
    Barrier = 12,
    BarrierStored = 13,
    BarrierWanted = 14,
    Failed = 15,
    Fetch = 16,
    Fetched = 17,
    Control = 18,
    ControlStored = 19,
    TakeOver = 20,
}

impl Kind {
    /// How long its body may be, in bytes, the checksum included.
    pub(super) fn bodies(self) -> RangeInclusive<usize> {
        let exactly = |bytes: usize| bytes + CRC..=bytes + CRC;
        match self {
            Self::Hello => exactly(HELLO),
            Self::Welcome => exactly(WELCOME),
            Self::Changed => exactly(RECORD_BYTES),
            Self::Ready => READY + CRC..=MAX_BODY_BYTES,
            Self::Control => CONTROL + CRC..=MAX_CONTROL_BYTES + CRC,
            Self::Barrier => 0..=COMPLETE_ID + CRC,
            Self::Stale
            | Self::Heartbeat
            | Self::HeartbeatAnswer
            | Self::Write
            | Self::Written
            | Self::Flush
            | Self::Flushed
            | Self::BarrierStored
            | Self::BarrierWanted
            | Self::Failed
            | Self::Fetch
            | Self::Fetched
            | Self::ControlStored
            | Self::TakeOver => 0..=0,
        }
    }

    /// Whether a frame with these fields comes with such a payload.
    pub(super) fn takes(self, fields: &Fields, payload: Option<Sum>) -> bool {
        match (self, payload) {
            (Self::Write, Some(sum)) if fields.flags & ZEROES == 0 => {
                fields.third.checked_mul(BLOCK_BYTES) == Some(sum.bytes) && is_payload(sum.bytes)
            }
            (Self::Write, None) => fields.flags & ZEROES != 0,
            (Self::Fetched, Some(sum)) if fields.flags & GOOD != 0 => is_payload(sum.bytes),
            (Self::Fetched, None) => fields.flags & GOOD == 0,
            (_, payload) => payload.is_none(),
        }
    }
}

fn is_payload(bytes: u32) -> bool {
    bytes > 0 && bytes.is_multiple_of(BLOCK_BYTES) && bytes <= MAX_PAYLOAD_BYTES
}
