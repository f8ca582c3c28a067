//! What a certificate says, read for people and for checks.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use rustls::pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use super::{Error, Identity};

/// What one certificate says of itself. Nothing of it is proved by reading it.
#[derive(Debug)]
pub struct Facts {
    pub holder: Holder,
    /// Who signed it: the issuer's distinguished name.
    pub issuer: String,
    pub begins: DateTime<Utc>,
    pub ends: DateTime<Utc>,
    /// The IP addresses and DNS names that it is good for besides, as text.
    pub addresses: Vec<String>,
    /// Colon-separated hexadecimal, as OpenSSL prints it.
    pub serial: String,
    /// SHA-256 of the certificate, lower-case hexadecimal.
    pub sha256: String,
}

/// Whose certificate it is.
#[derive(Debug)]
pub enum Holder {
    /// One of ours.
    Party(Identity),
    /// It signs others'; its distinguished name.
    Authority(String),
    /// None that Tandem would talk to, and why; its distinguished name.
    Stranger { subject: String, why: Error },
}

impl Facts {
    /// # Errors
    /// [`Error::Unreadable`] if it is no X.509 certificate.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Self, Error> {
        let parsed = parse(certificate)?;
        Ok(Self {
            holder: holder(certificate, &parsed),
            issuer: parsed.issuer().to_string(),
            begins: moment(parsed.validity().not_before)?,
            ends: moment(parsed.validity().not_after)?,
            addresses: names(&parsed)?.iter().filter_map(address).collect(),
            serial: parsed.raw_serial_as_string(),
            sha256: format!("{:x}", Sha256::digest(certificate)),
        })
    }
}

fn holder(certificate: &CertificateDer<'_>, parsed: &X509Certificate<'_>) -> Holder {
    let subject = parsed.subject().to_string();
    if parsed.is_ca() {
        return Holder::Authority(subject);
    }
    match Identity::of(certificate) {
        Ok(identity) => Holder::Party(identity),
        Err(why) => Holder::Stranger { subject, why },
    }
}

/// The URIs in a certificate's subjectAltName.
pub(super) fn uris(certificate: &CertificateDer<'_>) -> Result<Vec<String>, Error> {
    let parsed = parse(certificate)?;
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    Ok(names(&parsed)?.iter().filter_map(uri).collect())
}

/// The certificate's public key, as DER of its SubjectPublicKeyInfo.
pub(super) fn public_key(certificate: &CertificateDer<'_>) -> Result<Vec<u8>, Error> {
    Ok(parse(certificate)?.public_key().raw.to_vec())
}

fn parse<'a>(certificate: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, Error> {
    let (rest, parsed) = X509Certificate::from_der(certificate).map_err(|why| unreadable(&why))?;
    if rest.is_empty() { Ok(parsed) } else { Err(unreadable(&"bytes follow it")) }
}

/// What stands in its subjectAltName. A name in it that cannot be read makes the certificate unreadable: skipped, it could hide a second identity.
fn names<'a>(parsed: &'a X509Certificate<'_>) -> Result<&'a [GeneralName<'a>], Error> {
    let found = parsed.subject_alternative_name().map_err(|why| unreadable(&why))?;
    let names = found.map_or(&[][..], |extension| &extension.value.general_names);
    match names.iter().find(|name| matches!(name, GeneralName::Invalid(..))) {
        Some(_) => Err(unreadable(&"a name in its subjectAltName is none")),
        None => Ok(names),
    }
}

fn address(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let four = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
            let sixteen = <[u8; 16]>::try_from(*bytes).map(IpAddr::from);
            four.or(sixteen).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

fn moment(time: ASN1Time) -> Result<DateTime<Utc>, Error> {
    DateTime::from_timestamp(time.timestamp(), 0).ok_or_else(|| unreadable(&"a date of it is out of range"))
}

fn unreadable(why: &impl ToString) -> Error {
    Error::Unreadable { why: why.to_string() }
}
