//! Who speaks: the identity that a certificate carries, what it may do, and the TLS that proves it.
//!
//! A certificate's one URI of the scheme `tandem` in its subjectAltName says who holds its key (RFC 5280, section 4.2.1.6):
//! `tandem://node/NAME`, `tandem://ha/NAME`, `tandem://cinder/NAME` or `tandem://admin/NAME`. No DNS name and no address takes part,
//! so nodes need no DNS, and whoever takes over an address takes over nothing else.
//!
//! `docs/certificates.md` is the operator's page.

pub mod authority;
pub mod credentials;
pub mod facts;
mod files;
pub mod may;
pub mod tls;
mod tunnel;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, SecondsFormat, Utc};
use rustls::pki_types::CertificateDer;

pub use authority::{Address, Authority, Request};
pub use credentials::{Credentials, Paths};
pub use facts::Facts;
pub use may::{Action, allows};
pub use tls::{
    Door, client_config, connect, explain, ordinary_client_config, peer_identity, server_config, unused_name,
};
pub use tunnel::tunnel;

/// What all identities begin with.
const SCHEME: &str = "tandem://";

/// What kind of party an identity is. It decides what the party may do (`may`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, clap::ValueEnum)]
pub enum Kind {
    /// A tandem-node, or an arbiter; its name is its host's name in Nova.
    Node,
    /// A tandem-ha.
    Ha,
    /// A cinder-volume that runs the volume driver.
    Cinder,
    /// A person who operates Tandem.
    Admin,
}

impl Kind {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 4] = [Self::Node, Self::Ha, Self::Cinder, Self::Admin];

    /// Whether others connect to it, so that its certificate must also serve as a server's.
    pub fn serves(self) -> bool {
        match self {
            Self::Node | Self::Ha => true,
            Self::Cinder | Self::Admin => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Ha => "ha",
            Self::Cinder => "cinder",
            Self::Admin => "admin",
        })
    }
}

/// A name as Nova allows it for hosts: letters, digits, `-`, `.` and `_` (the `hostname` of Nova's API schemas). It also names files, so it begins with
/// neither `.` nor `-`, and has at most 250 bytes (Nova: 255), for NAME.crt to be a file's name still.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Name {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let of_nova = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        let good = (1..=250).contains(&text.len()) && !text.starts_with(['.', '-']) && text.bytes().all(of_nova);
        if good { Ok(Self(text.into())) } else { Err(Error::Name { name: text.into() }) }
    }
}

/// Who holds a certificate's key. Two identities are the same only byte for byte: nothing folds their case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    Node(Name),
    Ha(Name),
    Cinder(Name),
    Admin(Name),
}

impl Identity {
    pub fn new(kind: Kind, name: Name) -> Self {
        match kind {
            Kind::Node => Self::Node(name),
            Kind::Ha => Self::Ha(name),
            Kind::Cinder => Self::Cinder(name),
            Kind::Admin => Self::Admin(name),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Ha(_) => Kind::Ha,
            Self::Cinder(_) => Kind::Cinder,
            Self::Admin(_) => Kind::Admin,
        }
    }

    pub fn name(&self) -> &Name {
        match self {
            Self::Node(name) | Self::Ha(name) | Self::Cinder(name) | Self::Admin(name) => name,
        }
    }

    /// The identity that a certificate carries. It says nothing of who signed it: that is the handshake's part (`tls`).
    ///
    /// # Errors
    /// It cannot be read, carries no identity, one that is none of ours, or several: whoever holds two could pass for either.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let uris = facts::uris(certificate)?;
        let mut ours = uris.iter().filter(|uri| uri.starts_with(SCHEME));
        match (ours.next(), ours.next()) {
            (Some(uri), None) => uri.parse(),
            (None, _) => Err(Error::NoIdentity),
            (Some(_), Some(_)) => Err(Error::SeveralIdentities),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.kind(), self.name())
    }
}

impl FromStr for Identity {
    type Err = Error;

    fn from_str(uri: &str) -> Result<Self, Error> {
        let stranger = || Error::Uri { uri: uri.into() };
        let (kind, name) = uri.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')).ok_or_else(stranger)?;
        let kind = Kind::ALL.into_iter().find(|known| known.to_string() == kind).ok_or_else(stranger)?;
        Ok(Self::new(kind, name.parse().map_err(|_| stranger())?))
    }
}

/// A moment of a certificate, as the API writes times: RFC 3339, UTC, microseconds.
pub fn rfc3339(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// Why a certificate or key cannot be used, made or believed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "{name:?} cannot be a name: letters, digits, '-', '.' and '_', at most 250, the first of them neither '-' nor '.'"
    )]
    Name { name: String },
    #[error("{uri:?} is no identity of Tandem: tandem://node/NAME, or ha, cinder or admin instead of node")]
    Uri { uri: String },
    #[error("{text:?} is neither an IP address nor a DNS name")]
    Address { text: String },
    #[error("the certificate names no identity (a URI tandem://... in its subjectAltName)")]
    NoIdentity,
    #[error("the certificate names several identities, so it proves none")]
    SeveralIdentities,
    #[error("the certificate cannot be read: {why}")]
    Unreadable { why: String },

    #[error("{path} cannot be read; certificates come from `tandem-node cert issue`")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} cannot be written")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{path} exists; --force replaces it")]
    Exists { path: PathBuf },
    #[error("{path} is the certificate of {holder}, which --force does not replace; use another folder with --out")]
    AnothersFile { path: PathBuf, holder: Identity },
    #[error("{path} holds no {what} in PEM")]
    NotPem { path: PathBuf, what: &'static str },
    #[error("{path} can be read by {whom} (mode {mode:o}); chmod {remedy} {path}")]
    Open { path: PathBuf, mode: u32, whom: &'static str, remedy: &'static str },
    #[error("{path} cannot be used")]
    Unusable { path: PathBuf, source: Box<Self> },
    #[error("{path} is no CA's certificate that TLS can use")]
    NotTrusted { path: PathBuf, source: rustls::Error },
    #[error("{key} is not the key of {cert}; issue both anew with `tandem-node cert issue --force`")]
    Mismatch { cert: PathBuf, key: PathBuf, source: rustls::Error },
    #[error(
        "{cert} would be refused by everybody who trusts {ca}; look at it with `tandem-node cert show`, issue it anew with `tandem-node cert issue --force`"
    )]
    Refused { cert: PathBuf, ca: PathBuf, source: rustls::Error },
    #[error("{path} is now the certificate of {now}, and this is {was}; a restart is needed to become somebody else")]
    Renamed { path: PathBuf, was: Identity, now: Identity },

    #[error("{dir} has a CA already; another one needs another folder")]
    CaExists { dir: PathBuf },
    #[error("{dir} has no CA; `tandem-node cert init --dir {dir}` makes one")]
    NoCa { dir: PathBuf, source: std::io::Error },
    #[error("{path} holds another CA; use another folder with --out, or append this CA's certificate to it")]
    AnotherCa { path: PathBuf },
    #[error("a file ca.crt is the CA's, so nobody can be named \"ca\" here")]
    NamedLikeTheCa,
    #[error("the CA ends on {}, so a certificate may have at most --days {days}", ends.date_naive())]
    OutlivesCa { ends: DateTime<Utc>, days: i64 },
    #[error("the CA ended on {}; make another in another folder, and add its ca.crt to that of every host first", ends.date_naive())]
    CaEnded { ends: DateTime<Utc> },
    #[error("the certificate could not be made")]
    Make { source: rcgen::Error },

    #[error("{found} answered where {wanted} was expected")]
    Another { wanted: Identity, found: Identity },
    #[error("{identity} may not {action}")]
    NotAllowed { identity: Identity, action: Action },
    #[error("the TLS handshake is not complete")]
    Handshaking,
    #[error("the peer speaks {spoken:?} here, not {wanted:?}")]
    Protocol { wanted: &'static str, spoken: Option<String> },
    #[error("TLS could not be set up")]
    Tls { source: rustls::Error },
}
