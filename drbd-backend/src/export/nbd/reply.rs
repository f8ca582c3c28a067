//! Heads of replies: what stands before the data that was read, or all of an answer that has none.

use std::fmt;
use std::ops::Deref;

use super::clipped;
use super::numbers::{
    BASE_ALLOCATION_ID, REPLY_FLAG_DONE, REPLY_TYPE_BLOCK_STATUS, REPLY_TYPE_ERROR, REPLY_TYPE_NONE,
    REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE, SIMPLE_REPLY_MAGIC, STATE_HOLE, STATE_ZERO, STRUCTURED_REPLY_MAGIC,
};

/// The longest [`Reply`], an error with its text.
pub const REPLY_BYTES: usize = 128;

/// A chunk's own head ("Structured reply chunk message"), and what an error has before its text (`NBD_REPLY_TYPE_ERROR`).
const CHUNK_HEAD_BYTES: usize = 20;
const ERROR_HEAD_BYTES: usize = 6;
const MAX_TEXT_BYTES: usize = REPLY_BYTES - CHUNK_HEAD_BYTES - ERROR_HEAD_BYTES;

/// How many extents one answer has at most: the client asks on from where it ends.
const MAX_EXTENTS: u32 = 4096;

/// The errors that the protocol has ("Error values").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// EPERM: a write to what is read-only.
    NotPermitted = 1,
    /// EIO.
    Io = 5,
    /// EINVAL.
    Invalid = 22,
    /// ENOSPC; also for EDQUOT, EFBIG and a write beyond the end.
    NoSpace = 28,
    /// EOVERFLOW: only for a read that is too long to be sent in one piece, and has to be.
    Overflow = 75,
    /// ENOTSUP: only for write-zeroes that must be fast and would not be.
    NotSupported = 95,
    /// ESHUTDOWN: the server is about to end; the client must go.
    ShuttingDown = 108,
}

/// The bytes before a reply's data, or all of it. Held in place.
#[derive(Clone, Copy)]
pub struct Reply {
    bytes: [u8; REPLY_BYTES],
    length: usize,
}

impl Reply {
    const EMPTY: Self = Self { bytes: [0; REPLY_BYTES], length: 0 };

    fn with(mut self, bytes: &[u8]) -> Self {
        self.bytes[self.length..][..bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
        self
    }

    /// "Simple reply message"; `error` is zero for success.
    pub(super) fn simple(cookie: u64, error: u32) -> Self {
        Self::EMPTY.with(&SIMPLE_REPLY_MAGIC.to_be_bytes()).with(&error.to_be_bytes()).with(&cookie.to_be_bytes())
    }

    /// "Structured reply chunk message": the head of a chunk, of whose payload so many bytes follow.
    fn chunk(cookie: u64, kind: u16, is_last: bool, payload_bytes: u32) -> Self {
        let flags = if is_last { REPLY_FLAG_DONE } else { 0 };
        Self::EMPTY
            .with(&STRUCTURED_REPLY_MAGIC.to_be_bytes())
            .with(&flags.to_be_bytes())
            .with(&kind.to_be_bytes())
            .with(&cookie.to_be_bytes())
            .with(&payload_bytes.to_be_bytes())
    }

    /// `NBD_REPLY_TYPE_NONE`: success, where a simple reply is not allowed.
    pub(super) fn none(cookie: u64) -> Self {
        Self::chunk(cookie, REPLY_TYPE_NONE, true, 0)
    }

    /// `NBD_REPLY_TYPE_OFFSET_DATA`, up to the data.
    pub(super) fn data(cookie: u64, offset: u64, length: u32, is_last: bool) -> Self {
        Self::chunk(cookie, REPLY_TYPE_OFFSET_DATA, is_last, 8 + length).with(&offset.to_be_bytes())
    }

    /// `NBD_REPLY_TYPE_OFFSET_HOLE`.
    pub(super) fn hole(cookie: u64, offset: u64, length: u32, is_last: bool) -> Self {
        Self::chunk(cookie, REPLY_TYPE_OFFSET_HOLE, is_last, 12).with(&offset.to_be_bytes()).with(&length.to_be_bytes())
    }

    /// `NBD_REPLY_TYPE_ERROR`, with as much of the text as fits.
    pub(super) fn error(cookie: u64, errno: Errno, text: &str) -> Self {
        let text = clipped(text, MAX_TEXT_BYTES);
        let length = u16::try_from(text.len()).expect("it was clipped to less");
        Self::chunk(cookie, REPLY_TYPE_ERROR, true, 6 + u32::from(length))
            .with(&(errno as u32).to_be_bytes())
            .with(&length.to_be_bytes())
            .with(text.as_bytes())
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl PartialEq for Reply {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Reply {}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

/// A stretch of an export in one state ("`base:allocation` metadata context").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub length: u64,
    /// It takes no room on the disk: a write to it may fail with ENOSPC.
    pub is_hole: bool,
    /// It reads as zeroes.
    pub is_zero: bool,
}

impl Extent {
    fn flags(self) -> u32 {
        (if self.is_hole { STATE_HOLE } else { 0 }) | (if self.is_zero { STATE_ZERO } else { 0 })
    }
}

/// `NBD_REPLY_TYPE_BLOCK_STATUS`, whole: of `length` bytes the state, neighbours of one state joined, none beyond `length`, behind what is in
/// `out`. What the extents leave open at the start counts as data, which is always safe; what they leave open at the end the client asks for again.
pub(super) fn block_status(
    cookie: u64,
    length: u32,
    one: bool,
    extents: impl IntoIterator<Item = Extent>,
    out: &mut Vec<u8>,
) {
    let at = out.len();
    out.extend_from_slice(&Reply::chunk(cookie, REPLY_TYPE_BLOCK_STATUS, true, 0));
    out.extend_from_slice(&BASE_ALLOCATION_ID.to_be_bytes());
    let (mut count, mut left) = (0, length);
    let mut joined: Option<(u32, u32)> = None;
    let mut put = |(length, flags): (u32, u32)| {
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&flags.to_be_bytes());
    };
    for extent in extents {
        let taken = u32::try_from(extent.length).map_or(left, |length| length.min(left));
        left -= taken;
        joined = match joined {
            _ if taken == 0 => joined,
            None => Some((taken, extent.flags())),
            Some((length, flags)) if flags == extent.flags() => Some((length + taken, flags)),
            Some(_) if one || count + 1 == MAX_EXTENTS => break,
            Some(whole) => {
                put(whole);
                count += 1;
                Some((taken, extent.flags()))
            }
        };
        if left == 0 {
            break;
        }
    }
    put(joined.unwrap_or((length, 0)));
    let payload_bytes = 4 + 8 * (count + 1);
    out[at..][CHUNK_HEAD_BYTES - 4..CHUNK_HEAD_BYTES].copy_from_slice(&payload_bytes.to_be_bytes());
}
