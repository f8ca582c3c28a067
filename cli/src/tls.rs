//! TLS with tandem-node: our certificate to it, and from it one of our own CA that names a node.
//!
//! As between Tandem's daemons no DNS name and no address takes part (docs/certificates.md): the CA issues for Tandem alone, and
//! `tandem://node/NAME` in the certificate says who answers.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore, SignatureScheme,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::Config;
use crate::failure::Failure;

/// The keys of the file, and the variables that override them, in the order of [`Files`].
const KEYS: [&str; 3] = ["tls_ca", "tls_cert", "tls_key"];
const VARIABLES: [&str; 3] = ["TANDEM_TLS_CA", "TANDEM_TLS_CERT", "TANDEM_TLS_KEY"];
const NODE: &str = "tandem://node/";

/// The three files that TLS needs: whom we trust, who we are, and the proof.
#[derive(Debug)]
struct Files {
    ca: PathBuf,
    cert: PathBuf,
    key: PathBuf,
}

/// What the client below speaks TLS with.
pub(crate) fn client_config(named: Option<&Path>) -> Result<ClientConfig, Failure> {
    let files = Files::find(named)?;
    let provider = Arc::new(ring::default_provider());
    let node = Arc::new(AnyNode { roots: roots(&files.ca)?, provider: provider.clone() });
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(node)
        .with_client_auth_cert(certificates(&files.cert)?, key(&files.key)?);
    let mut config = config.map_err(|cause| Failure::Certificates {
        what: format!("{} does not go with {}: {cause}", files.cert.display(), files.key.display()),
    })?;
    config.enable_sni = false;
    Ok(config)
}

impl Files {
    /// Each of its variable, else of the first file that names one of the three.
    fn find(named: Option<&Path>) -> Result<Self, Failure> {
        let variables = VARIABLES.map(|name| std::env::var_os(name).filter(|path| !path.is_empty()).map(PathBuf::from));
        let config = match variables.iter().all(Option::is_some) {
            true => None,
            false => Config::first_with(&KEYS, named)?,
        };
        let [mut ca, mut cert, mut key] = variables;
        for (found, name) in [(&mut ca, KEYS[0]), (&mut cert, KEYS[1]), (&mut key, KEYS[2])] {
            if let (None, Some(config)) = (&found, &config) {
                *found = of_config(config, name)?;
            }
        }
        match (ca, cert, key) {
            (Some(ca), Some(cert), Some(key)) => Ok(Self { ca, cert, key }),
            (ca, cert, key) => {
                let missing =
                    KEYS.iter().zip([ca, cert, key]).filter(|(_, path)| path.is_none()).map(|(name, _)| *name);
                let missing: Vec<_> = missing.collect();
                Err(Failure::Certificates {
                    what: format!("https needs a certificate: {} not given", missing.join(", ")),
                })
            }
        }
    }
}

/// Relative to the file that says so.
fn of_config(config: &Config, name: &str) -> Result<Option<PathBuf>, Failure> {
    match config.table.get(name) {
        None => Ok(None),
        Some(toml::Value::String(path)) if !path.is_empty() => {
            Ok(Some(config.file.parent().unwrap_or(Path::new("")).join(path)))
        }
        Some(other) => {
            Err(config.wrong(format!("key `{name}`: must be a file's path, is {}: {other}", other.type_str())))
        }
    }
}

fn roots(file: &Path) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        let added = roots.add(certificate);
        added.map_err(|cause| Failure::Certificates { what: format!("{} is no CA: {cause}", file.display()) })?;
    }
    Ok(roots)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let text = read(file)?;
    let all = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        _ => Err(Failure::Certificates { what: format!("{} holds no certificate in PEM", file.display()) }),
    }
}

fn key(file: &Path) -> Result<PrivateKeyDer<'static>, Failure> {
    PrivateKeyDer::from_pem_slice(&read(file)?)
        .map_err(|_| Failure::Certificates { what: format!("{} holds no private key in PEM", file.display()) })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    std::fs::read(file).map_err(|cause| Failure::Certificates { what: format!("{}: {cause}", file.display()) })
}

/// Whether it is a node that answers; which one does not matter, for any answers for all.
#[derive(Debug)]
struct AnyNode {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyNode {
    /// Chain, dates and purpose as for any server, then the identity instead of the DNS name.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)?;
        match is_node(end_entity) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NoNode))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it names no tandem-node")]
struct NoNode;

/// Whether one URI of the subjectAltName (RFC 5280, section 4.2.1.6) is a node's.
fn is_node(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return false };
    names.value.general_names.iter().any(|name| matches!(name, GeneralName::URI(uri) if uri.starts_with(NODE)))
}

/// Why TLS failed, if that is what failed: who refused whom.
pub(crate) fn refusal(error: &(dyn Error + 'static)) -> Option<String> {
    Some(match of_rustls(error)? {
        rustls::Error::AlertReceived(alert) => format!("it refused our certificate ({alert:?}; its log says why)"),
        // Two CAs of the same name are told apart by their signatures.
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            "its certificate is of a CA that is not in tls_ca".to_owned()
        }
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => format!("its certificate is refused: {why}"),
        other => format!("TLS failed: {other}"),
    })
}

/// It stands inside io's errors, whose `source` passes it over.
fn of_rustls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        let inside = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(inside) = inside {
            let found = inside.downcast_ref::<rustls::Error>().or_else(|| of_rustls(inside));
            if found.is_some() {
                return found;
            }
        }
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
}
