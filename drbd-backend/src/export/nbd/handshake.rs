//! The handshake of one connection: flags, options, and the export that the client chooses.
//!
//! ```text
//!  Flags ──▶ Head ──▶ Data ──▶ Head …      each option is answered, until
//!             │  │             NBD_OPT_GO, NBD_OPT_EXPORT_NAME  ──▶ Over: Opened
//!             │  └─▶ PassOver  NBD_OPT_ABORT                    ──▶ Over: Aborted
//!             │      too long  NBD_OPT_STARTTLS                 ──▶ Tls: StartTls ── secured() ──▶ Head
//! ```

use super::numbers::{
    FLAG_CAN_MULTI_CONN, FLAG_FIXED_NEWSTYLE, FLAG_HAS_FLAGS, FLAG_NO_ZEROES, FLAG_READ_ONLY, FLAG_SEND_CACHE,
    FLAG_SEND_DF, FLAG_SEND_FAST_ZERO, FLAG_SEND_FLUSH, FLAG_SEND_FUA, FLAG_SEND_TRIM, FLAG_SEND_WRITE_ZEROES,
    OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_LIST_META_CONTEXT, OPT_SET_META_CONTEXT, OPT_STARTTLS,
    OPT_STRUCTURED_REPLY, OPTION_MAGIC, REP_ERR_INVALID, REP_ERR_POLICY, REP_ERR_SHUTDOWN, REP_ERR_TLS_REQD,
    REP_ERR_TOO_BIG, REP_ERR_UNKNOWN, REP_ERR_UNSUP, RESERVED_ZEROES,
};
use super::option::{self, ContextQuery, Inquiry, Invalid};
use super::reader::Reader;
use super::session::{Session, Terms};
use super::{Ended, Export, Exports, Refusal, Tls};

/// The client's flags ("Newstyle negotiation"), and an option without its data.
const FLAGS_BYTES: usize = 4;
const HEAD_BYTES: usize = 16;

/// Data of this length is kept until it is whole: a name, and 4 KiB of queries. Up to a point more is passed over and refused.
const MAX_DATA_BYTES: u32 = 8192;
const MAX_PASSED_OVER_BYTES: u32 = 1 << 20;

/// Nobody needs as many; whoever sends them would do so for ever.
const MAX_OPTIONS: u32 = 1024;

/// A connection until its client has chosen an export. The first thing to send on it is [`GREETING`](super::GREETING).
#[derive(Debug)]
pub struct Handshake {
    tls: Tls,
    is_secured: bool,
    is_fixed: bool,
    no_zeroes: bool,
    structured: bool,
    /// For which export `base:allocation` was selected last; only with `structured`.
    allocation_of: Option<String>,
    options: u32,
    stage: Stage,
    /// What has come of the flags, the head or the data.
    have: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Flags,
    Head,
    Data { option: u32, length: u32 },
    PassOver { option: u32, left: u32 },
    Tls,
    Over,
}

/// What came of the bytes received. Whatever it is: what is in `out` is to be sent first.
#[derive(Debug)]
pub enum Progress {
    /// On with the rest of the bytes; when there is none, more are to be received.
    More,
    /// When `out` is sent, TLS begins; when that stands, [`Handshake::secured`], and on with what comes through it. Does it fail, the connection is
    /// closed.
    StartTls,
    /// What follows is for the session.
    Opened(Box<Opened>),
    /// The client goes without an export: the connection is to be closed.
    Aborted,
    /// [`Exports`] said [`Refusal::NotYet`], and nothing was answered. To be called again, with the rest of the bytes or with none, when they may say
    /// something else; until then nothing is taken.
    Waiting,
}

/// Why an option is not answered.
#[derive(Debug)]
enum Halt {
    Ended(Ended),
    NotYet,
}

impl From<Ended> for Halt {
    fn from(ended: Ended) -> Self {
        Self::Ended(ended)
    }
}

/// The end of a handshake.
#[derive(Debug)]
pub struct Opened {
    pub export: Export,
    pub session: Session,
}

impl Handshake {
    #[must_use]
    pub fn new(tls: Tls) -> Self {
        Self {
            tls,
            is_secured: false,
            is_fixed: false,
            no_zeroes: false,
            structured: false,
            allocation_of: None,
            options: 0,
            stage: Stage::Flags,
            have: Vec::new(),
        }
    }

    /// How many bytes are missing until the next message is whole, or a part of it to be passed over; zero when no more are wanted, or not yet.
    #[must_use]
    pub fn wants(&self) -> usize {
        match self.stage {
            Stage::Flags => FLAGS_BYTES - self.have.len(),
            Stage::Head => HEAD_BYTES - self.have.len(),
            Stage::Data { length, .. } => length as usize - self.have.len(),
            Stage::PassOver { left, .. } => left as usize,
            Stage::Tls | Stage::Over => 0,
        }
    }

    /// Takes bytes from the front, up to the end of one message at most, and says how many. What is to be sent goes behind what is in `out`, and
    /// should be sent before more is received, so that a client that does not read is not answered for ever.
    ///
    /// # Errors
    /// The connection has to be closed, at once: the client cannot be told ("Termination of the session during option haggling").
    pub fn received(
        &mut self,
        bytes: &[u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<(usize, Progress), Ended> {
        let taken = bytes.len().min(self.wants());
        let (bytes, rest) = bytes.split_at(taken);
        let progress = match self.stage {
            Stage::PassOver { option, left } => {
                let left = left - u32::try_from(taken).expect("no more is taken than is left");
                self.stage = Stage::PassOver { option, left };
                if left == 0 { self.passed_over(option, out)? } else { Progress::More }
            }
            Stage::Tls if !rest.is_empty() => return Err(Ended::EarlyBytes),
            Stage::Tls | Stage::Over => Progress::More,
            Stage::Flags | Stage::Head | Stage::Data { .. } => {
                self.have.extend_from_slice(bytes);
                if self.wants() == 0 { self.message(exports, out)? } else { Progress::More }
            }
        };
        match progress {
            // Bytes from before TLS must not count as sent through it.
            Progress::StartTls if !rest.is_empty() => Err(Ended::EarlyBytes),
            _ if matches!(self.stage, Stage::Over) && taken == 0 => Ok((rest.len(), progress)),
            _ => Ok((taken, progress)),
        }
    }

    /// TLS stands. Nothing that was agreed on before it counts any more (`NBD_OPT_STARTTLS`).
    ///
    /// # Panics
    /// If it was not [`Progress::StartTls`].
    pub fn secured(&mut self) {
        assert!(matches!(self.stage, Stage::Tls), "TLS stands that the client did not ask for");
        self.is_secured = true;
        self.structured = false;
        self.allocation_of = None;
        self.stage = Stage::Head;
    }

    /// `have` is whole.
    fn message(&mut self, exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        match self.stage {
            Stage::Flags => self.flags()?,
            Stage::Head => self.head()?,
            Stage::Data { .. } | Stage::PassOver { .. } | Stage::Tls | Stage::Over => {}
        }
        match self.stage {
            Stage::Data { option, length } if self.wants() == 0 => self.data(option, length, exports, out),
            _ => Ok(Progress::More),
        }
    }

    /// "Client flags".
    fn flags(&mut self) -> Result<(), Ended> {
        let flags = Reader(&self.have).u32().expect("they are FLAGS_BYTES");
        if flags & !u32::from(FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES) != 0 {
            return Err(Ended::ClientFlags(flags));
        }
        self.is_fixed = flags & u32::from(FLAG_FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(FLAG_NO_ZEROES) != 0;
        self.next(Stage::Head);
        Ok(())
    }

    /// "Newstyle negotiation": the generic format of an option, up to its data.
    fn head(&mut self) -> Result<(), Ended> {
        let mut reader = Reader(&self.have);
        let mut parse = || Some((reader.u64()?, reader.u32()?, reader.u32()?));
        let (magic, option, length) = parse().expect("it is HEAD_BYTES");
        self.options += 1;
        match () {
            () if magic != OPTION_MAGIC => return Err(Ended::OptionMagic(magic)),
            () if self.options > MAX_OPTIONS => return Err(Ended::TooManyOptions(MAX_OPTIONS)),
            () if !self.is_fixed && option != OPT_EXPORT_NAME => return Err(Ended::NotFixed(option)),
            () if length > MAX_PASSED_OVER_BYTES => return Err(Ended::OptionTooLong { option, length }),
            () if length > MAX_DATA_BYTES => self.next(Stage::PassOver { option, left: length }),
            () => self.next(Stage::Data { option, length }),
        }
        Ok(())
    }

    fn next(&mut self, stage: Stage) {
        self.stage = stage;
        self.have.clear();
    }

    /// The data of an option is whole, which it stays until it is answered.
    fn data(&mut self, option: u32, length: u32, exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        let data = std::mem::take(&mut self.have);
        self.stage = Stage::Head;
        let answered = self.option(option, &data, exports, out);
        self.have = data;
        match answered {
            Ok(progress) => {
                self.have.clear();
                Ok(progress)
            }
            Err(Halt::Ended(ended)) => Err(ended),
            Err(Halt::NotYet) => {
                self.stage = Stage::Data { option, length };
                Ok(Progress::Waiting)
            }
        }
    }

    fn option(&mut self, option: u32, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Progress, Halt> {
        match option {
            OPT_ABORT => return Ok(self.abort(out)),
            OPT_STARTTLS => return Ok(self.start_tls(data, out)),
            OPT_EXPORT_NAME if self.needs_tls() => return Err(Ended::WithoutTls.into()),
            _ if self.needs_tls() => tls_required(option, out),
            OPT_EXPORT_NAME => return self.export_name(data, exports, out),
            OPT_GO => return self.go(data, exports, out),
            OPT_INFO => drop(self.inquired(option, data, exports, out)?),
            OPT_LIST => list(data, exports, out),
            OPT_STRUCTURED_REPLY => self.structured_reply(data, out),
            OPT_LIST_META_CONTEXT => list_contexts(data, exports, out)?,
            OPT_SET_META_CONTEXT => self.set_contexts(data, exports, out)?,
            _ => unknown(option, out),
        }
        Ok(Progress::More)
    }

    /// All that is known of an option is that its data was too long to be kept.
    fn passed_over(&mut self, option: u32, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        self.stage = Stage::Head;
        match option {
            OPT_ABORT => return Ok(self.abort(out)),
            OPT_EXPORT_NAME if self.needs_tls() => return Err(Ended::WithoutTls),
            OPT_EXPORT_NAME => return Err(Ended::Name("it is longer than 4096 bytes")),
            OPT_STARTTLS => too_big(option, out),
            _ if self.needs_tls() => tls_required(option, out),
            OPT_GO | OPT_INFO | OPT_LIST | OPT_STRUCTURED_REPLY | OPT_LIST_META_CONTEXT => too_big(option, out),
            OPT_SET_META_CONTEXT => {
                self.allocation_of = None;
                too_big(option, out);
            }
            _ => unknown(option, out),
        }
        Ok(Progress::More)
    }

    fn needs_tls(&self) -> bool {
        self.tls == Tls::Required && !self.is_secured
    }

    fn abort(&mut self, out: &mut Vec<u8>) -> Progress {
        option::ack(out, OPT_ABORT);
        self.stage = Stage::Over;
        Progress::Aborted
    }

    /// `NBD_OPT_EXPORT_NAME`: there is no way to say no but to go.
    fn export_name(&mut self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Progress, Halt> {
        let name = option::name(data).map_err(|Invalid(why)| Ended::Name(why))?;
        let export = exports.find(name).map_err(|source| match source {
            Refusal::NotYet => Halt::NotYet,
            Refusal::Unknown(_) | Refusal::Policy(_) | Refusal::ShuttingDown(_) => {
                Ended::Refused { name: name.to_owned(), source }.into()
            }
        })?;
        out.extend_from_slice(&export.size_bytes.to_be_bytes());
        out.extend_from_slice(&self.transmission_flags(&export).to_be_bytes());
        if !self.no_zeroes {
            out.extend_from_slice(&[0; RESERVED_ZEROES]);
        }
        Ok(self.opened(name, export))
    }

    fn go(&mut self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<Progress, Halt> {
        Ok(match self.inquired(OPT_GO, data, exports, out)? {
            Some((inquiry, export)) => self.opened(inquiry.name, export),
            None => Progress::More,
        })
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`, answered; the export that it was about, if the client can have it.
    fn inquired<'a>(
        &self,
        option: u32,
        data: &'a [u8],
        exports: &dyn Exports,
        out: &mut Vec<u8>,
    ) -> Result<Option<(Inquiry<'a>, Export)>, Halt> {
        let Some(inquiry) = valid(Inquiry::parse(data), option, out) else { return Ok(None) };
        let Some(export) = allowed(exports.find(inquiry.name), option, out)? else { return Ok(None) };
        inquiry.answer(option, &export, self.transmission_flags(&export), out);
        Ok(Some((inquiry, export)))
    }

    /// `name`: as the client asked for it, which is what it has selected contexts for.
    fn opened(&mut self, name: &str, export: Export) -> Progress {
        let terms = Terms {
            size_bytes: export.size_bytes,
            is_read_only: export.is_read_only,
            structured: self.structured,
            block_status: self.allocation_of.as_deref() == Some(name),
        };
        self.stage = Stage::Over;
        Progress::Opened(Box::new(Opened { export, session: Session::new(terms) }))
    }

    fn start_tls(&mut self, data: &[u8], out: &mut Vec<u8>) -> Progress {
        if self.tls == Tls::None {
            option::error(out, OPT_STARTTLS, REP_ERR_POLICY, "this server is set up without TLS");
        } else if self.is_secured {
            option::error(out, OPT_STARTTLS, REP_ERR_INVALID, "this is TLS already");
        } else if valid(empty(data), OPT_STARTTLS, out).is_some() {
            option::ack(out, OPT_STARTTLS);
            self.stage = Stage::Tls;
            return Progress::StartTls;
        }
        Progress::More
    }

    fn structured_reply(&mut self, data: &[u8], out: &mut Vec<u8>) {
        if valid(empty(data), OPT_STRUCTURED_REPLY, out).is_some() {
            self.structured = true;
            option::ack(out, OPT_STRUCTURED_REPLY);
        }
    }

    /// `NBD_OPT_SET_META_CONTEXT`: what was selected before is gone, also when this fails.
    fn set_contexts(&mut self, data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<(), Halt> {
        self.allocation_of = None;
        let query = if self.structured {
            ContextQuery::parse(data)
        } else {
            Err(Invalid("metadata contexts need structured replies, which come first"))
        };
        let Some(query) = valid(query, OPT_SET_META_CONTEXT, out) else { return Ok(()) };
        if allowed(exports.find(query.name), OPT_SET_META_CONTEXT, out)?.is_some() {
            if query.selects_allocation() {
                self.allocation_of = Some(query.name.to_owned());
                option::allocation_context(out, OPT_SET_META_CONTEXT, true);
            }
            option::ack(out, OPT_SET_META_CONTEXT);
        }
        Ok(())
    }

    /// "Transmission flags". Several connections are as good as one: a volume has one Primary, and a flush there is of everything that any of them
    /// has been answered. FAST_ZERO promises only that a client learns quickly whether it is fast.
    fn transmission_flags(&self, export: &Export) -> u16 {
        let always = FLAG_HAS_FLAGS | FLAG_SEND_FLUSH | FLAG_SEND_FUA | FLAG_CAN_MULTI_CONN | FLAG_SEND_CACHE;
        let writing = FLAG_SEND_TRIM | FLAG_SEND_WRITE_ZEROES | FLAG_SEND_FAST_ZERO;
        let mode = if export.is_read_only { FLAG_READ_ONLY } else { writing };
        always | mode | if self.structured { FLAG_SEND_DF } else { 0 }
    }
}

fn list(data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) {
    if valid(empty(data), OPT_LIST, out).is_some() {
        exports.each(&mut |name, description| option::server(out, OPT_LIST, name, description));
        option::ack(out, OPT_LIST);
    }
}

fn list_contexts(data: &[u8], exports: &dyn Exports, out: &mut Vec<u8>) -> Result<(), Halt> {
    let Some(query) = valid(ContextQuery::parse(data), OPT_LIST_META_CONTEXT, out) else { return Ok(()) };
    if allowed(exports.find(query.name), OPT_LIST_META_CONTEXT, out)?.is_some() {
        if query.lists_allocation() {
            option::allocation_context(out, OPT_LIST_META_CONTEXT, false);
        }
        option::ack(out, OPT_LIST_META_CONTEXT);
    }
    Ok(())
}

fn tls_required(option: u32, out: &mut Vec<u8>) {
    option::error(out, option, REP_ERR_TLS_REQD, "this server speaks TLS only");
}

fn unknown(option: u32, out: &mut Vec<u8>) {
    option::error(out, option, REP_ERR_UNSUP, "this server does not know that option");
}

fn empty(data: &[u8]) -> Result<(), Invalid> {
    if data.is_empty() { Ok(()) } else { Err(Invalid("this option has no data")) }
}

fn too_big(option: u32, out: &mut Vec<u8>) {
    option::error(out, option, REP_ERR_TOO_BIG, "at most 8192 bytes of data are read");
}

/// What was parsed; else the client is told what is wrong with it.
fn valid<T>(parsed: Result<T, Invalid>, option: u32, out: &mut Vec<u8>) -> Option<T> {
    parsed.map_err(|Invalid(why)| option::error(out, option, REP_ERR_INVALID, why)).ok()
}

/// What was found; else the client is told why it does not get it.
fn allowed(found: Result<Export, Refusal>, option: u32, out: &mut Vec<u8>) -> Result<Option<Export>, Halt> {
    let (kind, text) = match found {
        Ok(export) => return Ok(Some(export)),
        Err(Refusal::NotYet) => return Err(Halt::NotYet),
        Err(Refusal::Unknown(text)) => (REP_ERR_UNKNOWN, text),
        Err(Refusal::Policy(text)) => (REP_ERR_POLICY, text),
        Err(Refusal::ShuttingDown(text)) => (REP_ERR_SHUTDOWN, text),
    };
    option::error(out, option, kind, &text);
    Ok(None)
}
