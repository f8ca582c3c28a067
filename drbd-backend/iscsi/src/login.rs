//! The login of one connection: who the initiator is, whether it may, and on what terms (RFC 7143, section 6).
//!
//! ```text
//!              InitiatorName, TargetName               CHAP                        keys
//!  ── Login ──▶ WhoIs ── admit() ──▶ SecurityNegotiation ──▶ LoginOperationalNegotiation ──▶ Done: full feature phase
//!                  └── refused                └── refused               └── refused
//! ```

mod chap;
mod keys;

use crate::bytes::{put_u32, u16_at};
use crate::pdu::{CONTINUE, Digests, FINAL, HEADER_BYTES, Header, Reply, padding, put as put_pdu, request, response};
use crate::text::{self, Malformed, put};

pub use chap::{CHALLENGE_BYTES, Chap, MIN_SECRET_BYTES, Mutual};
pub use keys::{BadKey, Terms};

use chap::{Algorithm, MAX_BINARY_BYTES, is_equal};
use keys::{DEFAULT_SEGMENT_BYTES, Negotiation};

/// All text of one login, over all its PDUs.
const MAX_TEXT_BYTES: usize = 16_384;

/// Nobody needs as many PDUs; whoever sends them would do so for ever.
const MAX_REQUESTS: u32 = 32;

/// How many commands an initiator may have open before the first is answered; the session says later what it is.
pub(crate) const WINDOW: u32 = 128;

/// The first status number.
const FIRST_STAT_SN: u32 = 1;

/// Names have at most so many bytes (RFC 3722; RFC 7143, section 4.2.7.2).
pub const MAX_NAME_BYTES: usize = 223;

/// Whom the initiator says that it is, and what it wants. Its proof comes later.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub initiator: String,
    pub isid: [u8; 6],
    /// None for a discovery session.
    pub target: Option<String>,
}

/// What the initiator has to prove, and what it then gets.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// None: nothing has to be proved.
    pub chap: Option<Chap>,
    pub alias: Option<String>,
    /// The tag of our portals through which the target is served (section 4.4.1).
    pub portal_group: u16,
}

/// Why an initiator does not come in: status class and detail (section 11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Status {
    InitiatorError = 0x0200,
    AuthenticationFailed = 0x0201,
    Forbidden = 0x0202,
    NotFound = 0x0203,
    Removed = 0x0204,
    UnsupportedVersion = 0x0205,
    TooManyConnections = 0x0206,
    MissingParameter = 0x0207,
    SessionTypeNotSupported = 0x0209,
    NoSuchSession = 0x020a,
    InvalidDuringLogin = 0x020b,
    TargetError = 0x0300,
    ServiceUnavailable = 0x0301,
    OutOfResources = 0x0302,
}

/// Why a login came to its end. What stands in `out` is to be sent first, then the connection closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error("it sent opcode {0:#04x} instead of a login")]
    Opcode(u8),
    #[error("its login has {0} bytes of data, more than anybody may before other lengths are agreed on")]
    TooLong(u32),
    #[error("its login takes more than {MAX_REQUESTS} requests, or {MAX_TEXT_BYTES} bytes of text")]
    Endless,
    #[error("its login breaks the protocol: {0}")]
    Protocol(&'static str),
    #[error("its login text is malformed: {0}")]
    Text(#[from] Malformed),
    #[error("its login cannot be agreed on: {0}")]
    Key(#[from] BadKey),
    #[error("{0}")]
    Refused(String),
}

/// What came of the bytes received. Whatever it is: what is in `out` is to be sent first.
#[derive(Debug)]
pub enum Progress {
    More,
    /// To be looked up, and [`Login::admit`] to be called.
    WhoIs(Claim),
    /// The full feature phase begins.
    Done(Box<LoggedIn>),
}

/// The end of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    pub claim: Claim,
    pub tsih: u16,
    pub connection: u16,
    pub terms: Terms,
    /// Of the first command.
    pub cmd_sn: u32,
    /// Of our next status.
    pub stat_sn: u32,
}

/// What is drawn by lot for one login.
#[derive(Clone, Copy)]
pub struct Entropy {
    pub challenge: [u8; CHALLENGE_BYTES],
    pub identifier: u8,
}

/// A connection until its full feature phase.
#[derive(Debug)]
pub struct Login {
    /// Of the session, if one comes of it: not zero.
    tsih: u16,
    entropy: Entropy,
    /// What has come of a PDU.
    have: Vec<u8>,
    /// Text of requests that were to be continued.
    text: Vec<u8>,
    requests: u32,
    stage: Stage,
    first: Option<First>,
    admission: Option<Admission>,
    proof: Proof,
    negotiation: Negotiation,
    stat_sn: u32,
}

/// What the first request said for good.
#[derive(Debug, Clone)]
struct First {
    claim: Claim,
    connection: u16,
    task: u32,
}

/// CSG and NSG (section 11.12.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Security = 0,
    Operational = 1,
    FullFeature = 3,
}

/// How far the initiator's proof is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Nothing,
    /// AuthMethod=CHAP was agreed on.
    Method,
    /// It has our challenge.
    Challenged(Algorithm),
    /// It is who it claims to be, as far as is asked.
    Given,
}

impl Stage {
    fn of(bits: u8) -> Option<Self> {
        match bits & 3 {
            0 => Some(Self::Security),
            1 => Some(Self::Operational),
            3 => Some(Self::FullFeature),
            _ => None,
        }
    }
}

impl Login {
    /// `tsih`: the handle of the session that may come of it, not zero.
    #[must_use]
    pub fn new(tsih: u16, entropy: Entropy) -> Self {
        Self {
            tsih,
            entropy,
            have: Vec::new(),
            text: Vec::new(),
            requests: 0,
            stage: Stage::Security,
            first: None,
            admission: None,
            proof: Proof::Nothing,
            negotiation: Negotiation::default(),
            stat_sn: FIRST_STAT_SN,
        }
    }

    /// How many bytes are missing until a request is whole.
    #[must_use]
    pub fn wants(&self) -> usize {
        if self.have.len() < HEADER_BYTES {
            return HEADER_BYTES - self.have.len();
        }
        let header = Header::of(&self.have);
        let data = header.data_bytes() as usize;
        HEADER_BYTES + header.additional_bytes() + data + padding(data) - self.have.len()
    }

    /// Takes bytes from the front, up to the end of one request at most, and says how many.
    ///
    /// # Errors
    /// The connection is to be closed, when what is in `out` was sent.
    pub fn received(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(usize, Progress), Ended> {
        let taken = bytes.len().min(self.wants());
        self.have.extend_from_slice(&bytes[..taken]);
        if self.have.len() == HEADER_BYTES {
            self.header()?;
        }
        let progress = if self.wants() == 0 { self.request(out)? } else { Progress::More };
        Ok((taken, progress))
    }

    /// Before anything is received that a stranger could make as long as it likes.
    fn header(&mut self) -> Result<(), Ended> {
        let header = Header::of(&self.have);
        self.requests += 1;
        match () {
            () if header.opcode() != request::LOGIN => Err(Ended::Opcode(header.opcode())),
            () if header.data_bytes() > DEFAULT_SEGMENT_BYTES => Err(Ended::TooLong(header.data_bytes())),
            () if self.requests > MAX_REQUESTS => Err(Ended::Endless),
            () => Ok(()),
        }
    }

    /// A request is whole.
    fn request(&mut self, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        let header = Header::of(&self.have);
        let start = HEADER_BYTES + header.additional_bytes();
        let data = start..start + header.data_bytes() as usize;
        if self.text.len() + data.len() > MAX_TEXT_BYTES {
            return Err(Ended::Endless);
        }
        self.text.extend_from_slice(&self.have[data]);
        if header.flags() & CONTINUE != 0 {
            self.have.clear();
            if header.is_final() {
                return self.refuse(&header, Status::InitiatorError, "it is continued and final at once", out);
            }
            self.respond(&header, header.flags() & 0x0c, &[], out);
            return Ok(Progress::More);
        }
        self.in_order(&header, out)?;
        match &self.first {
            None => self.first_request(&header, out),
            Some(_) => self.further(out),
        }
    }

    /// What every request has to keep to.
    fn in_order(&mut self, header: &Header, out: &mut Vec<u8>) -> Result<(), Ended> {
        let (current, next) = (Stage::of(header.flags() >> 2), Stage::of(header.flags()));
        let is_first = self.first.is_none();
        let (status, why) = match () {
            () if header.0[3] > 0 => (Status::UnsupportedVersion, "it asks for a version after 0"),
            () if current.is_none() || current == Some(Stage::FullFeature) => {
                (Status::InitiatorError, "there is no such stage")
            }
            () if header.is_final() && next.is_none_or(|next| Some(next as u8) <= current.map(|it| it as u8)) => {
                (Status::InitiatorError, "a login goes from stage to stage forwards")
            }
            () if !is_first && current != Some(self.stage) => (Status::InvalidDuringLogin, "it is in another stage"),
            () if is_first && u16_at(&header.0, 14) != 0 => {
                (Status::NoSuchSession, "it wants to add a connection to a session, which has one only")
            }
            () if self.first.as_ref().is_some_and(|first| first.task != header.task()) => {
                (Status::InvalidDuringLogin, "its task tag changed")
            }
            () => {
                self.stage = current.expect("it was looked at");
                return Ok(());
            }
        };
        self.refuse(header, status, why, out)
    }

    /// Names, before anything else is looked at.
    fn first_request(&mut self, header: &Header, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        let (mut initiator, mut target, mut is_discovery) = (None, None, false);
        let mut is_known_type = true;
        let pairs = text::pairs(&self.text);
        let pairs = match pairs {
            Ok(pairs) => pairs,
            Err(why) => {
                self.answer_refused(&header.clone(), Status::InitiatorError, out);
                return Err(why.into());
            }
        };
        for (key, value) in pairs {
            match key {
                "InitiatorName" => initiator = Some(value.to_owned()),
                "TargetName" => target = Some(value.to_owned()),
                "SessionType" => {
                    (is_discovery, is_known_type) = (value == "Discovery", matches!(value, "Discovery" | "Normal"))
                }
                _ => {}
            }
        }
        let is_name = |name: &String| !name.is_empty() && name.len() <= MAX_NAME_BYTES;
        let isid = header.0[8..14].try_into().expect("six bytes");
        let claim = match (initiator.filter(is_name), target.filter(is_name)) {
            _ if !is_known_type => {
                return self.refuse(header, Status::SessionTypeNotSupported, "SessionType is unknown", out);
            }
            (None, _) => return self.refuse(header, Status::MissingParameter, "it gives no InitiatorName", out),
            (Some(initiator), _) if is_discovery => Claim { initiator, isid, target: None },
            (Some(_), None) => return self.refuse(header, Status::MissingParameter, "it gives no TargetName", out),
            (Some(initiator), target) => Claim { initiator, isid, target },
        };
        self.first = Some(First { claim: claim.clone(), connection: header.connection(), task: header.task() });
        Ok(Progress::WhoIs(claim))
    }

    /// What was found about the claim; on with the request that made it.
    ///
    /// # Errors
    /// As [`received`](Self::received).
    ///
    /// # Panics
    /// If nobody asked who it is.
    pub fn admit(
        &mut self,
        admission: Result<Admission, (Status, String)>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, Ended> {
        assert!(
            self.first.is_some() && self.admission.is_none(),
            "an initiator is admitted once, when it has said who it is"
        );
        match admission {
            Ok(admission) => {
                self.admission = Some(admission);
                self.further(out)
            }
            Err((status, why)) => {
                self.answer_refused(&Header::of(&self.have), status, out);
                Err(Ended::Refused(why))
            }
        }
    }

    /// The pairs of a request whose text is whole, and the answer.
    fn further(&mut self, out: &mut Vec<u8>) -> Result<Progress, Ended> {
        let header = Header::of(&self.have);
        self.have.clear();
        let text = std::mem::take(&mut self.text);
        let mut answer = Vec::new();
        match self.pairs(&text, &mut answer) {
            Ok(()) => {}
            Err((status, why)) => {
                self.answer_refused(&header, status, out);
                return Err(why);
            }
        }
        let wants = header.is_final().then(|| Stage::of(header.flags())).flatten();
        let Some(next) = wants.filter(|_| self.proof == Proof::Given || self.stage == Stage::Operational) else {
            self.respond(&header, header.flags() & 0x0c, &answer, out);
            return Ok(Progress::More);
        };
        if next == Stage::FullFeature {
            self.negotiation.declare(&mut answer);
        }
        let tsih = if next == Stage::FullFeature { self.tsih } else { 0 };
        self.respond_with(&header, header.flags() & 0x0f | FINAL, tsih, &answer, out);
        self.stage = next;
        Ok(if next == Stage::FullFeature { self.done(&header) } else { Progress::More })
    }

    fn done(&self, header: &Header) -> Progress {
        let first = self.first.clone().expect("it came before all others");
        Progress::Done(Box::new(LoggedIn {
            claim: first.claim,
            tsih: self.tsih,
            connection: first.connection,
            terms: self.negotiation.settled(),
            cmd_sn: header.cmd_sn(),
            stat_sn: self.stat_sn,
        }))
    }

    fn pairs(&mut self, text: &[u8], answer: &mut Vec<u8>) -> Result<(), (Status, Ended)> {
        let pairs = text::pairs(text).map_err(|why| (Status::InitiatorError, why.into()))?;
        let (first, admission) = (self.first.as_ref(), self.admission.as_ref());
        let is_discovery = first.is_some_and(|first| first.claim.target.is_none());
        let is_leading = pairs.iter().any(|(key, _)| *key == "InitiatorName");
        if is_leading && !is_discovery {
            put(answer, "TargetPortalGroupTag", admission.map_or(0, |admission| admission.portal_group));
            if let Some(alias) = admission.and_then(|admission| admission.alias.as_ref()) {
                put(answer, "TargetAlias", alias);
            }
        }
        let value = |key: &str| pairs.iter().find(|pair| pair.0 == key).map(|pair| pair.1);
        match self.stage {
            Stage::Security => self.security(&value, answer)?,
            // Who has to prove itself cannot pass that by.
            _ if self.proof != Proof::Given && admission.is_some_and(|admission| admission.chap.is_some()) => {
                return Err((Status::AuthenticationFailed, Ended::Refused("it would come in without CHAP".to_owned())));
            }
            _ => self.proof = Proof::Given,
        }
        for (key, value) in &pairs {
            match *key {
                "InitiatorName" | "TargetName" | "SessionType" | "InitiatorAlias" | "AuthMethod" => {}
                key if key.starts_with("CHAP_") => {}
                _ => {
                    let offered = self.negotiation.offered(key, value, is_discovery, answer);
                    offered.map_err(|why| (Status::InitiatorError, why.into()))?;
                }
            }
        }
        if self.stage == Stage::Operational {
            self.negotiation.declare(answer);
        }
        Ok(())
    }

    /// Section 12: AuthMethod, then CHAP where that is asked for.
    fn security<'a>(
        &mut self,
        value: &dyn Fn(&str) -> Option<&'a str>,
        answer: &mut Vec<u8>,
    ) -> Result<(), (Status, Ended)> {
        let failed = |why: &str| (Status::AuthenticationFailed, Ended::Refused(why.to_owned()));
        let chap = self.admission.as_ref().and_then(|admission| admission.chap.as_ref());
        match (self.proof, chap) {
            (Proof::Given, _) => {}
            (Proof::Nothing, None) => {
                if let Some(methods) = value("AuthMethod") {
                    if !methods.split(',').any(|method| method == "None") {
                        return Err(failed("it insists on CHAP, for which nothing is set up here"));
                    }
                    put(answer, "AuthMethod", "None");
                }
                self.proof = Proof::Given;
            }
            (Proof::Nothing, Some(_)) => {
                let methods = value("AuthMethod").unwrap_or_default();
                if !methods.split(',').any(|method| method == "CHAP") {
                    return Err(failed("it does not offer CHAP, which it needs here"));
                }
                put(answer, "AuthMethod", "CHAP");
                self.proof = Proof::Method;
            }
            (Proof::Method, Some(_)) => {
                let list = value("CHAP_A").ok_or_else(|| failed("it names no algorithm for CHAP"))?;
                let algorithm = Algorithm::best_of(list).ok_or_else(|| failed("it knows neither SHA-256 nor MD5"))?;
                put(answer, "CHAP_A", algorithm.number());
                put(answer, "CHAP_I", self.entropy.identifier);
                put(answer, "CHAP_C", text::hex(&self.entropy.challenge));
                self.proof = Proof::Challenged(algorithm);
            }
            (Proof::Challenged(algorithm), Some(chap)) => {
                let name = value("CHAP_N").unwrap_or_default();
                let response = value("CHAP_R").and_then(text::binary).unwrap_or_default();
                let right = algorithm.response(self.entropy.identifier, &chap.secret, &self.entropy.challenge);
                if name != chap.name || !is_equal(&response, &right) {
                    return Err(failed("its name or secret is wrong"));
                }
                if let Some(challenge) = value("CHAP_C") {
                    let identifier = value("CHAP_I").and_then(text::number).and_then(|it| u8::try_from(it).ok());
                    let challenge = text::binary(challenge).filter(|it| (1..=MAX_BINARY_BYTES).contains(&it.len()));
                    let (Some(identifier), Some(challenge)) = (identifier, challenge) else {
                        return Err(failed("its own challenge is malformed"));
                    };
                    // Section 9.2.1: whoever sends our challenge back wants us to answer it.
                    if is_equal(&challenge, &self.entropy.challenge) {
                        return Err(failed("its challenge is ours"));
                    }
                    let Some(mutual) = &chap.mutual else {
                        return Err(failed("it asks for a proof of the target, for which nothing is set up here"));
                    };
                    put(answer, "CHAP_N", &mutual.name);
                    put(answer, "CHAP_R", text::hex(&algorithm.response(identifier, &mutual.secret, &challenge)));
                }
                self.proof = Proof::Given;
            }
            (Proof::Method | Proof::Challenged(_), None) => unreachable!("CHAP goes on only where it is set up"),
        }
        Ok(())
    }

    fn refuse<T>(&mut self, header: &Header, status: Status, why: &'static str, out: &mut Vec<u8>) -> Result<T, Ended> {
        self.answer_refused(header, status, out);
        Err(Ended::Protocol(why))
    }

    /// A login response with the status, and without anything else (section 11.13.5).
    fn answer_refused(&mut self, header: &Header, status: Status, out: &mut Vec<u8>) {
        let reply = self.reply(header, 0, 0).half(36, status as u16);
        put_pdu(out, reply, &[], Digests::default());
    }

    fn respond(&mut self, header: &Header, flags: u8, answer: &[u8], out: &mut Vec<u8>) {
        self.respond_with(header, flags, 0, answer, out);
    }

    fn respond_with(&mut self, header: &Header, flags: u8, tsih: u16, answer: &[u8], out: &mut Vec<u8>) {
        let reply = self.reply(header, flags, tsih);
        self.stat_sn = self.stat_sn.wrapping_add(1);
        put_pdu(out, reply, answer, Digests::default());
    }

    fn reply(&self, header: &Header, flags: u8, tsih: u16) -> Reply {
        let mut reply = Reply::new(response::LOGIN, flags, header.task());
        reply.0[8..14].copy_from_slice(&header.0[8..14]);
        put_u32(&mut reply.0, 24, self.stat_sn);
        let cmd_sn = header.cmd_sn();
        reply.half(14, tsih).word(28, cmd_sn).word(32, cmd_sn.wrapping_add(WINDOW - 1))
    }
}

impl std::fmt::Debug for Entropy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Entropy(***)")
    }
}
