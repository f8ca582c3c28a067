//! The private CA: made once, kept on one machine, asked for every certificate.
//!
//! Keys are ECDSA on P-256. rustls, OpenSSL, GnuTLS (qemu-nbd) and Python's ssl all take it, also where OpenSSL runs in a FIPS mode that does not take Ed25519.

use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, DnsName};
use sha2::{Digest, Sha256};

use super::files::{self, Existing, PUBLIC, Readers, SECRET};
use super::{Error, Facts, Identity, Name, facts};

/// A certificate begins this long before it is made: the clock of the host that is shown it may be behind ours.
const BACKDATED: TimeDelta = TimeDelta::hours(1);

/// An IP address or DNS name that a certificate is good for besides its identity: clients that are not ours look for one (Python, qemu, curl).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Ip(IpAddr),
    Dns(String),
}

impl FromStr for Address {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        let name = DnsName::try_from(text.to_owned()).map_err(|_| Error::Address { text: text.into() })?;
        Ok(Self::Dns(name.as_ref().into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => write!(f, "{ip}"),
            Self::Dns(name) => f.write_str(name),
        }
    }
}

/// What is asked of the CA.
#[derive(Debug, Clone)]
pub struct Request {
    pub identity: Identity,
    pub addresses: Vec<Address>,
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
}

impl Request {
    /// A certificate for `days` days from `now`.
    pub fn for_days(identity: Identity, addresses: Vec<Address>, days: u32, now: DateTime<Utc>) -> Self {
        Self { identity, addresses, begins: now - BACKDATED, ends: now + TimeDelta::days(days.into()) }
    }
}

/// A certificate and its key, in PEM. Shown, it hides the key.
pub struct Issued {
    pub cert: String,
    pub key: String,
}

impl fmt::Debug for Issued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("cert", &self.cert).finish_non_exhaustive()
    }
}

/// Where an issued certificate was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// The CA's certificate, beside them.
    pub ca: PathBuf,
}

/// The CA with its key.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pem: String,
    ends: DateTime<Utc>,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA in memory, for `days` days from `now`.
    ///
    /// # Errors
    /// [`Error::Make`] if the system gives no random numbers.
    pub fn generate(days: u32, now: DateTime<Utc>) -> Result<(Self, Issued), Error> {
        let ends = now + TimeDelta::days(days.into());
        let key = new_key()?;
        let params = authority_params(&key, now - BACKDATED, ends);
        let pem = params.self_signed(&key).map_err(make)?.pem();
        let issued = Issued { cert: pem.clone(), key: key.serialize_pem() };
        Ok((Self { issuer: Issuer::new(params, key), pem, ends }, issued))
    }

    /// Makes a CA and keeps it in `dir`: `ca.crt`, and `ca.key` with mode 0600, in a folder of mode 0700. Answers with where the two are.
    ///
    /// # Errors
    /// `dir` has a CA, is open to others and not empty, or cannot be written.
    pub fn create(dir: &Path, days: u32, now: DateTime<Utc>) -> Result<(PathBuf, PathBuf), Error> {
        let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        files::private_folder(dir)?;
        if cert.exists() || key.exists() {
            return Err(Error::CaExists { dir: dir.into() });
        }
        let (_, made) = Self::generate(days, now)?;
        files::place(&key, &made.key, SECRET, Existing::Refuse)?;
        files::place(&cert, &made.cert, PUBLIC, Existing::Refuse)?;
        Ok((cert, key))
    }

    /// The CA of `dir`.
    ///
    /// # Errors
    /// There is none, its key can be read by others, or its two files do not belong together.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let (cert, key) = (dir.join("ca.crt"), dir.join("ca.key"));
        let pem = fs::read_to_string(&cert).map_err(|source| match source.kind() {
            ErrorKind::NotFound => Error::NoCa { dir: dir.into(), source },
            _ => Error::Read { path: cert.clone(), source },
        })?;
        let of_key = |_| Error::NotPem { path: key.clone(), what: "private key of a CA" };
        let pair = KeyPair::from_pem(&files::read_secret(&key, Readers::Owner)?).map_err(of_key)?;
        // The file on hosts may hold several CAs; here the first is the one whose key lies beside it.
        let der = files::certificates(&cert)?.swap_remove(0);
        if facts::public_key(&der)? != pair.subject_public_key_info() {
            let source = rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch);
            return Err(Error::Mismatch { cert, key, source });
        }
        let ends = Facts::read(&der)?.ends;
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der, pair).map_err(make)?, pem, ends })
    }

    /// When no certificate of it is good any more.
    pub fn ends(&self) -> DateTime<Utc> {
        self.ends
    }

    /// Its certificate, in PEM: what hosts trust.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A new key, and a certificate for it.
    ///
    /// # Errors
    /// It would end after the CA, or could not be made.
    pub fn issue(&self, request: &Request) -> Result<Issued, Error> {
        if request.ends > self.ends {
            return Err(self.outlived(request));
        }
        let key = new_key()?;
        let cert = party_params(request)?.signed_by(&key, &self.issuer).map_err(make)?;
        Ok(Issued { cert: cert.pem(), key: key.serialize_pem() })
    }

    fn outlived(&self, request: &Request) -> Error {
        let days = (self.ends - (request.begins + BACKDATED)).num_days();
        if days < 1 { Error::CaEnded { ends: self.ends } } else { Error::OutlivesCa { ends: self.ends, days } }
    }

    /// Issues a certificate and writes `NAME.crt` and `NAME.key` (mode 0600) to `out`, `ca.crt` beside them. `replace` replaces the same identity's.
    ///
    /// # Errors
    /// The files are there (with `replace`: are another's), `ca.crt` is another CA's, or as [`Self::issue`].
    pub fn write(&self, request: &Request, out: &Path, replace: bool) -> Result<Written, Error> {
        let written = paths(out, request.identity.name());
        self.may_write(request, &written, replace)?;
        let issued = self.issue(request)?;
        if !out.exists() {
            files::private_folder(out)?;
        }
        let existing = if replace { Existing::Replace } else { Existing::Refuse };
        if !written.ca.exists() {
            files::place(&written.ca, &self.pem, PUBLIC, Existing::Refuse)?;
        }
        files::place(&written.key, &issued.key, SECRET, existing)?;
        files::place(&written.cert, &issued.cert, PUBLIC, existing)?;
        Ok(written)
    }

    fn may_write(&self, request: &Request, to: &Written, replace: bool) -> Result<(), Error> {
        if to.cert == to.ca {
            return Err(Error::NamedLikeTheCa);
        }
        if to.ca.exists() && !files::certificates(&to.ca)?.contains(&self.certificate()?) {
            return Err(Error::AnotherCa { path: to.ca.clone() });
        }
        if let Some(there) = [&to.cert, &to.key].into_iter().find(|path| !replace && path.exists()) {
            return Err(Error::Exists { path: there.clone() });
        }
        match holder_of(&to.cert) {
            Some(holder) if holder != request.identity => Err(Error::AnothersFile { path: to.cert.clone(), holder }),
            Some(_) | None => Ok(()),
        }
    }

    fn certificate(&self) -> Result<CertificateDer<'static>, Error> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).map_err(|why| Error::Unreadable { why: why.to_string() })
    }
}

fn paths(out: &Path, name: &Name) -> Written {
    Written { cert: out.join(format!("{name}.crt")), key: out.join(format!("{name}.key")), ca: out.join("ca.crt") }
}

/// Whose certificate a file is, if it is one of ours.
fn holder_of(cert: &Path) -> Option<Identity> {
    Identity::of(files::certificates(cert).ok()?.first()?).ok()
}

fn new_key() -> Result<KeyPair, Error> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(make)
}

/// Its name ends with digits of its key: while hosts trust an old and a new CA, nobody takes one for the other.
fn authority_params(key: &KeyPair, begins: DateTime<Utc>, ends: DateTime<Utc>) -> CertificateParams {
    let digest = format!("{:x}", Sha256::digest(key.subject_public_key_info()));
    let mut params = dated(begins, ends);
    params.distinguished_name.push(DnType::CommonName, format!("Tandem CA {}", &digest[..8]));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn party_params(request: &Request) -> Result<CertificateParams, Error> {
    let identity = &request.identity;
    let mut params = dated(request.begins, request.ends);
    // For people; X.520 allows 64 characters.
    let subject: String = format!("{} {}", identity.kind(), identity.name()).chars().take(64).collect();
    params.distinguished_name.push(DnType::CommonName, subject);
    params.subject_alt_names = vec![SanType::URI(identity.to_string().try_into().map_err(make)?)];
    for address in &request.addresses {
        params.subject_alt_names.push(match address {
            Address::Ip(ip) => SanType::IpAddress(*ip),
            Address::Dns(name) => SanType::DnsName(name.clone().try_into().map_err(make)?),
        });
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    // Nothing is encrypted with the key itself, but QEMU takes no certificate without the second one.
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    if identity.kind().serves() {
        params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
    }
    Ok(params)
}

fn dated(begins: DateTime<Utc>, ends: DateTime<Utc>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since = |time: DateTime<Utc>| Duration::from_secs(u64::try_from(time.timestamp()).unwrap_or(0));
    params.not_before = epoch + since(begins);
    params.not_after = epoch + since(ends);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
}

fn make(source: rcgen::Error) -> Error {
    Error::Make { source }
}
