//! Our own certificate and key, and the CAs that we trust: read from files, and read again without a restart.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};

use super::files::{self, Readers};
use super::{Error, Facts, Identity, tls};

/// The three files of a party, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    /// The CAs that are trusted: one, or two while one follows the other.
    pub ca: PathBuf,
    /// Our certificate; those between it and the CA may follow it.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What we are, and whom we trust. TLS configurations made of it see every [`Self::reload`] at their next handshake; connections that stand go on as they began.
#[derive(Debug)]
pub struct Credentials {
    paths: Paths,
    identity: Identity,
    current: RwLock<Arc<Loaded>>,
}

/// One reading of the files: all of one time.
#[derive(Debug)]
pub(super) struct Loaded {
    key: Arc<CertifiedKey>,
    pub(super) roots: Arc<RootCertStore>,
    /// Chain, dates and purpose of those who connect to us.
    pub(super) clients: Arc<dyn ClientCertVerifier>,
    ends: DateTime<Utc>,
}

impl Credentials {
    /// Reads the files, and holds them to what everybody else will: a certificate that others would refuse is refused here, with its reason.
    ///
    /// # Errors
    /// A file is missing, is not what it should be, or (a key) can be read by everybody; key and certificate do not belong together; the certificate has
    /// ended, has not begun, is of another CA or carries no identity.
    pub fn load(paths: Paths) -> Result<Arc<Self>, Error> {
        let (identity, loaded) = read(&paths)?;
        Ok(Arc::new(Self { paths, identity, current: RwLock::new(Arc::new(loaded)) }))
    }

    /// Reads the files again, as a daemon does on SIGHUP, and answers with when the certificate now ends.
    ///
    /// # Errors
    /// As [`Self::load`], or the certificate is now another identity's. What was read before stays in use then.
    pub fn reload(&self) -> Result<DateTime<Utc>, Error> {
        let (now, loaded) = read(&self.paths)?;
        if now != self.identity {
            return Err(Error::Renamed { path: self.paths.cert.clone(), was: self.identity.clone(), now });
        }
        let ends = loaded.ends;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(loaded);
        Ok(ends)
    }

    /// Who we are.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// When our certificate ends. From then on no new connection comes about.
    pub fn ends(&self) -> DateTime<Utc> {
        self.current().ends
    }

    pub(super) fn current(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Credentials {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }
}

impl ResolvesClientCert for Credentials {
    /// Always the one that we have: the CAs that a server hints at are a matter of its taste, and its refusal says more than our silence.
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

fn read(paths: &Paths) -> Result<(Identity, Loaded), Error> {
    let roots = Arc::new(roots(paths)?);
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), tls::provider())
        .clear_root_hint_subjects()
        .build()
        .expect("there are CAs, and no revocation lists that could be wrong");
    let chain = files::certificates(&paths.cert)?;
    let unusable = |source| Error::Unusable { path: paths.cert.clone(), source: Box::new(source) };
    let identity = Identity::of(&chain[0]).map_err(unusable)?;
    let ends = Facts::read(&chain[0]).map_err(unusable)?.ends;
    as_others_will(paths, &chain, clients.as_ref())?;
    let key = pair(paths, chain)?;
    Ok((identity, Loaded { key: Arc::new(key), roots, clients, ends }))
}

fn roots(paths: &Paths) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for ca in files::certificates(&paths.ca)? {
        roots.add(ca).map_err(|source| Error::NotTrusted { path: paths.ca.clone(), source })?;
    }
    Ok(roots)
}

/// Every party's certificate is good for a client, so that is what it is held to.
fn as_others_will(
    paths: &Paths,
    chain: &[CertificateDer<'static>],
    others: &dyn ClientCertVerifier,
) -> Result<(), Error> {
    let refused = |source| Error::Refused { cert: paths.cert.clone(), ca: paths.ca.clone(), source };
    others.verify_client_cert(&chain[0], &chain[1..], UnixTime::now()).map_err(refused)?;
    Ok(())
}

fn pair(paths: &Paths, chain: Vec<CertificateDer<'static>>) -> Result<CertifiedKey, Error> {
    let key = files::key(&paths.key, Readers::Group)?;
    CertifiedKey::from_der(chain, key, &tls::provider()).map_err(|source| Error::Mismatch {
        cert: paths.cert.clone(),
        key: paths.key.clone(),
        source,
    })
}
