//! The transmission phase of one connection: requests in their order, and the heads of their replies.
//!
//! ```text
//!            a write, with its length            refused, or nothing to do
//!  Payload ◀────────────────────────── Request ────────────────────────────▶ PassOver
//!     └──────────── its last byte ──────▶ │ ▲ ◀────── the answer ───────────────┘
//!                                         ▼ any other: at once the next
//!                             NBD_CMD_DISC: Over
//! ```

use super::Ended;
use super::reply::{self, Errno, Extent, Reply};
use super::request::{Header, REQUEST_BYTES, Request};

/// What was agreed on in the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub size_bytes: u64,
    pub is_read_only: bool,
    /// `NBD_OPT_STRUCTURED_REPLY`.
    pub structured: bool,
    /// `base:allocation`; only with `structured`.
    pub block_status: bool,
}

/// One client's connection to one export.
#[derive(Debug)]
pub struct Session {
    terms: Terms,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Request { bytes: [u8; REQUEST_BYTES], have: usize },
    Payload { cookie: u64, left: u32 },
    PassOver { left: u32, answer: Reply },
    Over,
}

impl Stage {
    const NEXT: Self = Self::Request { bytes: [0; REQUEST_BYTES], have: 0 };
}

/// What the next bytes of the connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// For [`Session::received`]: so many until the next request is whole. It takes more as well.
    Request(usize),
    /// For the caller's buffer: so many until the payload is whole; then [`Session::payload_received`].
    Payload(u32),
    /// For [`Session::received`], from any memory: so many that mean nothing.
    PassedOver(u32),
    /// No more.
    Nothing,
}

/// What came of the bytes received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All were taken; no request is whole.
    More,
    /// To be done. After a [`Request::Write`] its payload is next.
    Request(Request),
    /// To be sent as it is: a request that could not be, or that asked for nothing.
    Answer(Reply),
    /// None was taken: they are the payload of the last write, for the caller's buffer, at most so many of them.
    Payload(u32),
}

impl Session {
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, stage: Stage::NEXT }
    }

    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    #[must_use]
    pub fn wants(&self) -> Wants {
        match &self.stage {
            Stage::Request { have, .. } => Wants::Request(REQUEST_BYTES - have),
            Stage::Payload { left, .. } => Wants::Payload(*left),
            Stage::PassOver { left, .. } => Wants::PassedOver(*left),
            Stage::Over => Wants::Nothing,
        }
    }

    /// Takes bytes from the front, up to the end of one request at most, and says how many. To be called again with the rest until it says
    /// [`Step::More`]. What comes after a [`Request::Disconnect`] is taken and ignored.
    ///
    /// # Errors
    /// They are no request: the connection has to be closed.
    pub fn received(&mut self, bytes: &[u8]) -> Result<(usize, Step), Ended> {
        match &mut self.stage {
            Stage::Request { bytes: head, have } => {
                let taken = bytes.len().min(REQUEST_BYTES - *have);
                head[*have..][..taken].copy_from_slice(&bytes[..taken]);
                *have += taken;
                if *have < REQUEST_BYTES {
                    return Ok((taken, Step::More));
                }
                let header = Header::parse(head)?;
                Ok((taken, self.begun(header)))
            }
            Stage::Payload { left, .. } => Ok((0, Step::Payload(*left))),
            Stage::PassOver { left, answer } => {
                let taken = u32::try_from(bytes.len()).map_or(*left, |length| length.min(*left));
                *left -= taken;
                let step = if *left == 0 { Step::Answer(*answer) } else { Step::More };
                if *left == 0 {
                    self.stage = Stage::NEXT;
                }
                Ok((taken as usize, step))
            }
            Stage::Over => Ok((bytes.len(), Step::More)),
        }
    }

    fn begun(&mut self, header: Header) -> Step {
        match header.judged(&self.terms) {
            Ok(Some(request)) => {
                self.stage = match request {
                    Request::Write { cookie, length, .. } => Stage::Payload { cookie, left: length },
                    Request::Disconnect => Stage::Over,
                    _ => Stage::NEXT,
                };
                Step::Request(request)
            }
            Ok(None) if header.is_read() => self.passed_over(0, self.nothing_read(header.cookie)),
            Ok(None) => self.passed_over(0, self.done(header.cookie)),
            Err((errno, text)) => self.passed_over(header.payload_bytes(), self.failed(header.cookie, errno, text)),
        }
    }

    /// The answer goes out when the payload has come in: a client may read no reply before it has sent all of its request.
    fn passed_over(&mut self, left: u32, answer: Reply) -> Step {
        self.stage = if left == 0 { Stage::NEXT } else { Stage::PassOver { left, answer } };
        if left == 0 { Step::Answer(answer) } else { Step::More }
    }

    /// So many more bytes of the payload are in the caller's buffer; true when it is whole and the write can begin.
    ///
    /// # Panics
    /// If they are more than [`Session::wants`] said.
    pub fn payload_received(&mut self, count: u32) -> bool {
        let Stage::Payload { left, .. } = &mut self.stage else { panic!("{count} bytes of payload where none is due") };
        *left = left.checked_sub(count).expect("no more payload is received than is due");
        let is_whole = *left == 0;
        if is_whole {
            self.stage = Stage::NEXT;
        }
        is_whole
    }

    /// The write whose payload is due will not be done: what is left of it is passed over, and then it is answered with that error.
    ///
    /// # Panics
    /// If no payload is due.
    pub fn refuse_payload(&mut self, errno: Errno, text: &str) {
        let Stage::Payload { cookie, left } = self.stage else { panic!("a payload is refused where none is due") };
        self.stage = Stage::PassOver { left, answer: self.failed(cookie, errno, text) };
    }

    /// Anything but a read or a block status has been done.
    #[must_use]
    pub fn done(&self, cookie: u64) -> Reply {
        Reply::simple(cookie, 0)
    }

    /// Whatever it was, it failed. The text is for the client's user, where there is room for one: with structured replies the first 102 bytes.
    #[must_use]
    pub fn failed(&self, cookie: u64, errno: Errno, text: &str) -> Reply {
        if self.terms.structured { Reply::error(cookie, errno, text) } else { Reply::simple(cookie, errno as u32) }
    }

    /// A read has been done: behind this go exactly `length` bytes of data, those of the whole request.
    #[must_use]
    pub fn read(&self, cookie: u64, offset: u64, length: u32) -> Reply {
        if self.terms.structured { Reply::data(cookie, offset, length, true) } else { Reply::simple(cookie, 0) }
    }

    /// A part of a read without `df`; exactly `length` bytes of data go behind it. The parts do not overlap, come in any order, and the last one to
    /// be sent `is_last`. `None` without structured replies: then a read is answered in one piece.
    #[must_use]
    pub fn read_part(&self, cookie: u64, offset: u64, length: u32, is_last: bool) -> Option<Reply> {
        self.terms.structured.then(|| Reply::data(cookie, offset, length, is_last))
    }

    /// As [`Session::read_part`], where all of the part is zeroes: nothing goes behind it. Alone it answers a read with `df` too.
    #[must_use]
    pub fn read_hole(&self, cookie: u64, offset: u64, length: u32, is_last: bool) -> Option<Reply> {
        self.terms.structured.then(|| Reply::hole(cookie, offset, length, is_last))
    }

    /// Appends the whole answer to a [`Request::BlockStatus`] with this `length` and `one`: the extents from its offset on, as many as are known
    /// without effort. They may reach beyond the request, and the answer then does not.
    pub fn block_status(
        &self,
        cookie: u64,
        length: u32,
        one: bool,
        extents: impl IntoIterator<Item = Extent>,
        out: &mut Vec<u8>,
    ) {
        reply::block_status(cookie, length, one, extents, out);
    }

    /// A chunk of data has at least one byte, so a read of nothing is answered without one.
    fn nothing_read(&self, cookie: u64) -> Reply {
        if self.terms.structured { Reply::none(cookie) } else { Reply::simple(cookie, 0) }
    }
}
