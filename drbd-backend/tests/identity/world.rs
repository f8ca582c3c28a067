//! A CA and its certificates in a folder that vanishes, and handshakes over memory.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use rcgen::{CertificateParams, KeyPair, SanType};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};
use tandem_node::identity::{
    Authority, Credentials, Door, Identity, Paths, Request, client_config, connect, explain, server_config,
};
use tempfile::TempDir;

pub(crate) fn id(uri: &str) -> Identity {
    uri.parse().unwrap()
}

/// One CA, its folder, and what it issued.
pub(crate) struct World {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = TempDir::new().unwrap();
        Authority::create(dir.path(), 100, Utc::now()).unwrap();
        let authority = Authority::open(dir.path()).unwrap();
        Self { dir, authority }
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    pub(crate) fn request(uri: &str, addresses: &[&str]) -> Request {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Request::for_days(id(uri), addresses, 50, Utc::now())
    }

    /// The files of an identity, issued anew.
    pub(crate) fn issue(&self, uri: &str, addresses: &[&str]) -> Paths {
        let request = Self::request(uri, addresses);
        let folder = self.path(&format!("{}-{}", request.identity.kind(), request.identity.name()));
        let written = self.authority.write(&request, &folder, true).unwrap();
        Paths { ca: written.ca, cert: written.cert, key: written.key }
    }

    pub(crate) fn credentials(&self, uri: &str) -> Arc<Credentials> {
        Credentials::load(self.issue(uri, &[])).unwrap()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem().as_bytes()).unwrap()).unwrap();
        roots
    }

    /// A pair of this CA that `cert issue` would not make: with these dates, in days from now.
    pub(crate) fn dated(&self, uri: &str, begins: i64, ends: i64) -> Pair {
        let now = Utc::now();
        let request = Request {
            begins: now + TimeDelta::days(begins),
            ends: now + TimeDelta::days(ends),
            ..Self::request(uri, &[NAME])
        };
        let issued = self.authority.issue(&request).unwrap();
        Pair::new(&issued.cert, &issued.key)
    }

    /// A pair of this CA with these URIs, whatever they are.
    pub(crate) fn with_uris(&self, uris: &[&str]) -> Pair {
        let ca = fs::read_to_string(self.path("ca.crt")).unwrap();
        let key = KeyPair::from_pem(&fs::read_to_string(self.path("ca.key")).unwrap()).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&ca, key).unwrap();
        let mut params = CertificateParams::new(vec![NAME.to_owned()]).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        Pair::new(&params.signed_by(&key, &issuer).unwrap().pem(), &key.serialize_pem())
    }
}

/// The name that plain clients below know servers by.
pub(crate) const NAME: &str = "tandem.invalid";

/// A certificate and its key, for configurations that are not ours.
pub(crate) struct Pair {
    pub(crate) cert: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Pair {
    fn new(cert: &str, key: &str) -> Self {
        Self {
            cert: CertificateDer::from_pem_slice(cert.as_bytes()).unwrap(),
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        }
    }

    pub(crate) fn of(paths: &Paths) -> Self {
        Self::new(&fs::read_to_string(&paths.cert).unwrap(), &fs::read_to_string(&paths.key).unwrap())
    }
}

pub(crate) fn plain_provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client as rustls alone makes it, with a certificate or without.
pub(crate) fn plain_client(roots: RootCertStore, pair: Option<Pair>, protocol: Option<&str>) -> ClientConnection {
    let builder = ClientConfig::builder_with_provider(plain_provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match pair {
        Some(pair) => builder.with_client_auth_cert(vec![pair.cert], pair.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocol.into_iter().map(|name| name.as_bytes().to_vec()).collect();
    ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap()
}

/// A server as rustls alone makes it, which asks nobody for a certificate.
pub(crate) fn plain_server(pair: Pair) -> ServerConnection {
    ServerConnection::new(plain_server_config(pair)).unwrap()
}

pub(crate) fn plain_server_config(pair: Pair) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(plain_provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert], pair.key)
        .unwrap();
    Arc::new(config)
}

pub(crate) fn our_client(ours: &Arc<Credentials>, wanted: &str, door: Door) -> ClientConnection {
    connect(client_config(ours, id(wanted), door)).unwrap()
}

pub(crate) fn our_server(ours: &Arc<Credentials>, door: Door) -> ServerConnection {
    ServerConnection::new(server_config(ours, door)).unwrap()
}

/// What became of a handshake: each side's error, if it had one.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) client: Result<(), rustls::Error>,
    pub(crate) server: Result<(), rustls::Error>,
}

impl Outcome {
    pub(crate) fn is_well(&self) -> bool {
        self.client.is_ok() && self.server.is_ok()
    }

    /// What the client says of the server.
    pub(crate) fn clients_refusal(&self) -> String {
        explain(self.client.as_ref().expect_err("the client refuses"))
    }

    /// What the server says of the client.
    pub(crate) fn servers_refusal(&self) -> String {
        explain(self.server.as_ref().expect_err("the server refuses"))
    }
}

/// Carries bytes to and fro until neither has more to say: also the alert of the one that refuses.
pub(crate) fn shake(client: &mut ClientConnection, server: &mut ServerConnection) -> Outcome {
    let mut outcome = Outcome { client: Ok(()), server: Ok(()) };
    for _ in 0..10 {
        let to_server = drain(|bytes| client.write_tls(bytes));
        let to_client = drain(|bytes| server.write_tls(bytes));
        if to_server.is_empty() && to_client.is_empty() {
            let stuck = outcome.is_well() && (client.is_handshaking() || server.is_handshaking());
            assert!(!stuck, "both wait for each other");
            return outcome;
        }
        feed(&to_server, &mut outcome.server, |mut bytes| {
            server.read_tls(&mut bytes).unwrap();
            server.process_new_packets().map(drop)
        });
        feed(&to_client, &mut outcome.client, |mut bytes| {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().map(drop)
        });
    }
    panic!("a handshake without end");
}

fn drain(mut write: impl FnMut(&mut Vec<u8>) -> std::io::Result<usize>) -> Vec<u8> {
    let mut bytes = Vec::new();
    while write(&mut bytes).unwrap() > 0 {}
    bytes
}

/// The first error counts; what arrives after it is not looked at.
fn feed(bytes: &[u8], so_far: &mut Result<(), rustls::Error>, read: impl FnOnce(&[u8]) -> Result<(), rustls::Error>) {
    if so_far.is_ok() && !bytes.is_empty() {
        *so_far = read(bytes);
    }
}

/// A file with this mode from its first byte.
pub(crate) fn file(path: &Path, mode: u32, content: &[u8]) {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).unwrap();
    file.write_all(content).unwrap();
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
