//! Requests: what their 28 bytes say, and whether it can be done at all.

use super::numbers::{
    CMD_BLOCK_STATUS, CMD_CACHE, CMD_DISC, CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE,
    CMD_FLAG_REQ_ONE, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES, REQUEST_MAGIC,
};
use super::reader::Reader;
use super::reply::Errno;
use super::session::Terms;
use super::{Ended, MAXIMUM_BLOCK_BYTES};

/// A request without its payload ("Request message").
pub const REQUEST_BYTES: usize = 28;

/// What a client wants, checked: every range lies within the export and is not empty, nothing is to be written to what is read-only.
///
/// The cookie goes back with the reply. Requests may be carried out and answered in any order ("Ordering of messages and writes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// At most [`MAXIMUM_BLOCK_BYTES`]. `df`: in one piece.
    Read { cookie: u64, offset: u64, length: u32, df: bool },
    /// At most [`MAXIMUM_BLOCK_BYTES`], which follow now: [`Session::wants`](super::Session::wants). `fua`: answered when it is on the medium.
    Write { cookie: u64, offset: u64, length: u32, fua: bool },
    /// The range reads as zeroes afterwards. Without `may_trim` it takes its room on the disk. `fast`: at once, or [`Errno::NotSupported`] at once
    /// with nothing changed; without it never that error.
    Zeroes { cookie: u64, offset: u64, length: u32, may_trim: bool, fua: bool, fast: bool },
    /// The range is not needed any more: a hint.
    Trim { cookie: u64, offset: u64, length: u32, fua: bool },
    /// Whatever was answered before this arrived, on any connection, is on the medium when this is answered.
    Flush { cookie: u64 },
    /// The state of the range, from its start on; `one`: of its first extent. Answered by [`Session::block_status`](super::Session::block_status).
    BlockStatus { cookie: u64, offset: u64, length: u32, one: bool },
    /// The range will be read soon: a hint.
    Cache { cookie: u64, offset: u64, length: u32 },
    /// No more requests come: what is in hand is answered, then the connection is closed. Has no answer.
    Disconnect,
}

impl Request {
    /// What goes back with the reply; a [`Request::Disconnect`] has none.
    #[must_use]
    pub fn cookie(&self) -> Option<u64> {
        match *self {
            Self::Read { cookie, .. }
            | Self::Write { cookie, .. }
            | Self::Zeroes { cookie, .. }
            | Self::Trim { cookie, .. }
            | Self::Flush { cookie }
            | Self::BlockStatus { cookie, .. }
            | Self::Cache { cookie, .. } => Some(cookie),
            Self::Disconnect => None,
        }
    }
}

/// Why a request is answered without being done: `NBD_EINVAL` and its kin with a text, or that there is nothing to do.
pub(super) type Refused = (Errno, &'static str);

/// The 28 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    flags: u16,
    command: u16,
    pub(super) cookie: u64,
    offset: u64,
    length: u32,
}

impl Header {
    /// "Request message".
    pub(super) fn parse(bytes: &[u8; REQUEST_BYTES]) -> Result<Self, Ended> {
        let mut reader = Reader(bytes);
        let mut parse = || {
            let magic = reader.u32()?;
            let (flags, command) = (reader.u16()?, reader.u16()?);
            let (cookie, offset, length) = (reader.u64()?, reader.u64()?, reader.u32()?);
            Some((magic, Self { flags, command, cookie, offset, length }))
        };
        let (magic, header) = parse().expect("they are REQUEST_BYTES");
        if magic == REQUEST_MAGIC { Ok(header) } else { Err(Ended::RequestMagic(magic)) }
    }

    /// How many bytes follow it before the next one: only a write has any.
    pub(super) fn payload_bytes(&self) -> u32 {
        if self.command == CMD_WRITE { self.length } else { 0 }
    }

    pub(super) fn is_read(&self) -> bool {
        self.command == CMD_READ
    }

    /// What is to be done; `None` where a range is empty, so that there is nothing to do.
    pub(super) fn judged(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        match self.command {
            CMD_READ => self.read(terms),
            CMD_WRITE => self.write(terms),
            CMD_DISC => Ok(Some(Request::Disconnect)),
            CMD_FLUSH => self.flush(),
            CMD_TRIM => self.trim(terms),
            CMD_CACHE => self.cache(terms),
            CMD_WRITE_ZEROES => self.zeroes(terms),
            CMD_BLOCK_STATUS => self.block_status(terms),
            _ => Err((Errno::Invalid, "this server does not know that command")),
        }
    }

    fn read(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(if terms.structured { CMD_FLAG_DF } else { 0 })?;
        let Self { cookie, offset, length, .. } = self;
        let df = self.has(CMD_FLAG_DF);
        self.within(terms, Errno::Invalid)?;
        match length {
            0 => Ok(None),
            _ if length <= MAXIMUM_BLOCK_BYTES => Ok(Some(Request::Read { cookie, offset, length, df })),
            _ if df => Err((Errno::Overflow, "too long to be read in one piece: at most 32 MiB")),
            _ => Err((Errno::Invalid, "too long: at most 32 MiB are read by one request")),
        }
    }

    fn write(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(0)?;
        self.writable(terms)?;
        let Self { cookie, offset, length, .. } = self;
        self.within(terms, Errno::NoSpace)?;
        match length {
            0 => Ok(None),
            _ if length <= MAXIMUM_BLOCK_BYTES => {
                Ok(Some(Request::Write { cookie, offset, length, fua: self.has(CMD_FLAG_FUA) }))
            }
            _ => Err((Errno::Invalid, "too long: at most 32 MiB are written by one request")),
        }
    }

    fn zeroes(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO)?;
        self.writable(terms)?;
        let Self { cookie, offset, length, .. } = self;
        self.within(terms, Errno::NoSpace)?;
        let (may_trim, fua) = (!self.has(CMD_FLAG_NO_HOLE), self.has(CMD_FLAG_FUA));
        let fast = self.has(CMD_FLAG_FAST_ZERO);
        Ok((length > 0).then_some(Request::Zeroes { cookie, offset, length, may_trim, fua, fast }))
    }

    fn trim(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(0)?;
        self.writable(terms)?;
        let Self { cookie, offset, length, .. } = self;
        self.within(terms, Errno::Invalid)?;
        Ok((length > 0).then_some(Request::Trim { cookie, offset, length, fua: self.has(CMD_FLAG_FUA) }))
    }

    fn flush(self) -> Result<Option<Request>, Refused> {
        self.allow(0)?;
        if self.offset != 0 || self.length != 0 {
            return Err((Errno::Invalid, "a flush has neither offset nor length"));
        }
        Ok(Some(Request::Flush { cookie: self.cookie }))
    }

    fn cache(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(0)?;
        let Self { cookie, offset, length, .. } = self;
        self.within(terms, Errno::Invalid)?;
        Ok((length > 0).then_some(Request::Cache { cookie, offset, length }))
    }

    fn block_status(self, terms: &Terms) -> Result<Option<Request>, Refused> {
        self.allow(CMD_FLAG_REQ_ONE)?;
        let Self { cookie, offset, length, .. } = self;
        if !terms.block_status {
            return Err((Errno::Invalid, "the client has selected no metadata context for this export"));
        }
        self.within(terms, Errno::Invalid)?;
        if length == 0 {
            return Err((Errno::Invalid, "nothing has no block status"));
        }
        Ok(Some(Request::BlockStatus { cookie, offset, length, one: self.has(CMD_FLAG_REQ_ONE) }))
    }

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Only those flags; and FUA, which "is valid for all commands" ("Command flags").
    fn allow(self, flags: u16) -> Result<(), Refused> {
        let unknown = self.flags & !(flags | CMD_FLAG_FUA);
        if unknown == 0 { Ok(()) } else { Err((Errno::Invalid, "a flag that this command does not have")) }
    }

    fn writable(self, terms: &Terms) -> Result<(), Refused> {
        if terms.is_read_only { Err((Errno::NotPermitted, "the export is read-only")) } else { Ok(()) }
    }

    /// `beyond`: which error it is differs between commands ("Error values").
    fn within(self, terms: &Terms, beyond: Errno) -> Result<(), Refused> {
        let end = self.offset.checked_add(u64::from(self.length));
        if end.is_some_and(|end| end <= terms.size_bytes) {
            Ok(())
        } else {
            Err((beyond, "beyond the end of the export"))
        }
    }
}
