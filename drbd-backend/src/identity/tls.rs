//! TLS 1.3 with certificates on both sides: configurations that let in whom `may` lets in, and reach only whom they were told to reach.
//!
//! Only TLS 1.3 (RFC 8446), AES-128-GCM first. Sessions are never resumed: a resumed one would not look at certificates again, and links here live for days.
//! A client learns of its refusal by its first read, not by the handshake: in TLS 1.3 the server looks at the client's certificate after the client is done.

use std::sync::{Arc, LazyLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, CommonState, DigitallySignedStruct, DistinguishedName,
    OtherError, PeerIncompatible, ServerConfig, SignatureScheme,
};

use super::{Action, Credentials, Error, Identity, allows};

/// What is behind a port: which protocol is spoken there (ALPN, RFC 7301), and what one must be allowed to do at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    /// The link between replicas.
    Peers,
    /// The arbiter.
    Arbiter,
    /// REST. Any HTTP client comes, so ALPN may be missing.
    Rest,
    /// NBD, after its STARTTLS. Its clients know no ALPN.
    Nbd,
}

impl Door {
    /// The name of the protocol in ALPN.
    pub fn protocol(self) -> Option<&'static str> {
        match self {
            Self::Peers => Some("tandem-peer/1"),
            Self::Arbiter => Some("tandem-arbiter/1"),
            Self::Rest => Some("http/1.1"),
            Self::Nbd => None,
        }
    }

    /// What everybody who comes in may do. What else they may do there is asked for each call.
    pub fn action(self) -> Action {
        match self {
            Self::Peers => Action::SpeakAsPeer,
            Self::Arbiter => Action::SwapRecord,
            Self::Rest => Action::Read,
            Self::Nbd => Action::OpenExport,
        }
    }

    /// The protocol that both sides must have agreed on. TLS leaves a peer that offers none alone.
    fn demands(self) -> Option<&'static str> {
        match self {
            Self::Peers | Self::Arbiter => self.protocol(),
            Self::Rest | Self::Nbd => None,
        }
    }

    fn offers(self) -> Vec<Vec<u8>> {
        self.protocol().into_iter().map(|name| name.as_bytes().to_vec()).collect()
    }
}

/// For those who connect to us at `door`. Whoever shows no certificate of our CA, or one whose identity may not enter, fails the handshake.
pub fn server_config(ours: &Arc<Credentials>, door: Door) -> Arc<ServerConfig> {
    let callers = Arc::new(Callers { ours: ours.clone(), door });
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(callers)
        .with_cert_resolver(ours.clone());
    config.alpn_protocols = door.offers();
    // Clients of OpenSSL put AES-256 first.
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Arc::new(config)
}

/// For connecting to `wanted` at its `door`, at whatever address. Nobody else who answers there is spoken to.
pub fn client_config(ours: &Arc<Credentials>, wanted: Identity, door: Door) -> Arc<ClientConfig> {
    let server = Arc::new(Wanted { ours: ours.clone(), identity: wanted });
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(server)
        .with_client_cert_resolver(ours.clone());
    config.alpn_protocols = door.offers();
    config.enable_sni = false;
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// For connecting to a server that is none of ours, such as etcd: its certificate is of our CA, and names its host (RFC 9525). Ours is shown to it.
pub fn ordinary_client_config(ours: &Arc<Credentials>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .with_root_certificates(ours.current().roots.clone())
        .with_client_cert_resolver(ours.clone());
    Arc::new(config)
}

/// A client's side of a connection, not yet begun.
///
/// # Errors
/// [`Error::Tls`] if the system gives no random numbers.
pub fn connect(config: Arc<ClientConfig>) -> Result<ClientConnection, Error> {
    ClientConnection::new(config, unused_name()).map_err(|source| Error::Tls { source })
}

/// The name that rustls asks every client for. Nothing looks at it, and it is not sent: a configuration of ours knows whom it wants.
pub fn unused_name() -> ServerName<'static> {
    ServerName::try_from("tandem.invalid").expect("it is a DNS name (RFC 2606)")
}

/// Who is at the other end of `connection` (of either side, buffered or not), once the handshake is done and the protocol of `door` is agreed on.
///
/// # Errors
/// The handshake is not done, or the peer speaks another protocol, or none where one is needed.
pub fn peer_identity(connection: &CommonState, door: Door) -> Result<Identity, Error> {
    if connection.is_handshaking() {
        return Err(Error::Handshaking);
    }
    if let Some(wanted) = door.demands()
        && connection.alpn_protocol() != Some(wanted.as_bytes())
    {
        let spoken = connection.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned());
        return Err(Error::Protocol { wanted, spoken });
    }
    let certificate = connection.peer_certificates().and_then(<[_]>::first).ok_or(Error::NoIdentity)?;
    Identity::of(certificate)
}

/// Why a handshake failed, in a sentence for the log. rustls itself shows our own reasons only as a programmer would see them.
pub fn explain(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(why)) => why.to_string(),
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the peer's certificate is of a CA that is not trusted here".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("the peer refused: {alert:?}; its log says why"),
        other => other.to_string(),
    }
}

/// ring, and of its suites AES-128-GCM first: the fastest where the CPU has AES, which is everywhere Tandem runs.
pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        Arc::new(CryptoProvider {
            cipher_suites: vec![
                ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
                ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
                ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..ring::default_provider()
        })
    });
    PROVIDER.clone()
}

/// A server's look at who connects.
#[derive(Debug)]
struct Callers {
    ours: Arc<Credentials>,
    door: Door,
}

impl ClientCertVerifier for Callers {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // None: the CAs may change by a reload, and our clients have one certificate.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let verified = self.ours.current().clients.verify_client_cert(end_entity, intermediates, now)?;
        let identity = Identity::of(end_entity).map_err(refuse)?;
        let action = self.door.action();
        if allows(&identity, action) { Ok(verified) } else { Err(refuse(Error::NotAllowed { identity, action })) }
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
        signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A client's look at who answers.
#[derive(Debug)]
struct Wanted {
    ours: Arc<Credentials>,
    identity: Identity,
}

impl ServerCertVerifier for Wanted {
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
        let algorithms = provider().signature_verification_algorithms.all;
        let roots = &self.ours.current().roots;
        verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)?;
        let found = Identity::of(end_entity).map_err(refuse)?;
        if found == self.identity {
            return Ok(ServerCertVerified::assertion());
        }
        Err(refuse(Error::Another { wanted: self.identity.clone(), found }))
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
        signed(message, cert, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

fn signed(
    message: &[u8],
    cert: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, rustls::Error> {
    verify_tls13_signature(message, cert, signature, &provider().signature_verification_algorithms)
}

/// Our reason inside rustls's error, so that it is in the log of whoever refused; the peer gets an alert.
fn refuse(why: Error) -> rustls::Error {
    rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(why))))
}
