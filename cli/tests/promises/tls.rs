//! TLS with tandem-node: who is believed, and what is said where somebody is not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

use crate::fake::{Ran, tandem};

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 12\r\nconnection: close\r\n\r\n{\"pools\":[]}";

/// A CA, and what it issues.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Result<Self> {
        let (key, mut params) = (KeyPair::generate()?, CertificateParams::default());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// Certificate and key of an identity, which no address stands in.
    fn issue(&self, uri: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok((params.signed_by(&key, &self.issuer)?.pem(), key.serialize_pem()))
    }

    /// A server with `uri` in its certificate that lets in whom this CA has issued for, and no longer asks when it has answered once per connection.
    fn serve(&self, uri: &str, runtime: &Runtime) -> Result<String> {
        let (certificate, key) = self.issue(uri)?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes())?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
                PrivateKeyDer::from_pem_slice(key.as_bytes())?,
            )?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("https://{}", listener.local_addr()?);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(mut stream) = acceptor.accept(stream).await {
                    let mut request = [0; 4096];
                    let _ = stream.read(&mut request).await;
                    let _ = stream.write_all(ANSWER).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        Ok(url)
    }

    /// `tandem.toml` and the three files it names, relative to itself.
    fn home(&self, ca: &str) -> Result<TempDir> {
        let home = tempfile::tempdir()?;
        let (certificate, key) = self.issue("tandem://admin/alice")?;
        let of = |name: &str| home.path().join(name);
        fs::write(of("ca.crt"), ca)?;
        fs::write(of("alice.crt"), certificate)?;
        fs::write(of("alice.key"), key)?;
        fs::write(of("t.toml"), "tls_ca = 'ca.crt'\ntls_cert = 'alice.crt'\ntls_key = 'alice.key'\n")?;
        Ok(home)
    }
}

fn pools(home: &Path, url: &str) -> Command {
    let mut command = tandem(home);
    command.args(["pool", "list", "--node", url, "--config"]).arg(home.join("t.toml"));
    command
}

#[test]
fn any_node_of_our_ca_is_believed_at_whatever_address() -> Result<()> {
    let (ours, runtime) = (Authority::new()?, Runtime::new()?);
    let (home, url) = (ours.home(&ours.pem)?, ours.serve("tandem://node/cmp1", &runtime)?);
    Ran::of(&mut pools(home.path(), &url))?.prints(0, "no pools\n");
    // The variables override the file.
    fs::write(home.path().join("t.toml"), "tls_ca = 'nowhere'\ntls_cert = 'nowhere'\n")?;
    let mut command = pools(home.path(), &url);
    for (name, file) in [("TANDEM_TLS_CA", "ca.crt"), ("TANDEM_TLS_CERT", "alice.crt"), ("TANDEM_TLS_KEY", "alice.key")]
    {
        command.env(name, home.path().join(file));
    }
    Ran::of(&mut command)?.prints(0, "no pools\n");
    Ok(())
}

#[test]
fn who_is_no_node_or_of_another_ca_is_not_spoken_to() -> Result<()> {
    let (ours, others, runtime) = (Authority::new()?, Authority::new()?, Runtime::new()?);
    let home = ours.home(&ours.pem)?;
    for (url, said) in [
        (ours.serve("tandem://ha/controller", &runtime)?, "its certificate is refused: it names no tandem-node"),
        (others.serve("tandem://node/cmp1", &runtime)?, "its certificate is of a CA that is not in tls_ca"),
    ] {
        Ran::of(&mut pools(home.path(), &url))?
            .fails(3, &["cannot speak TLS with tandem-node at", &url, said, "tandem-node cert show"]);
    }
    Ok(())
}

#[test]
fn a_refused_certificate_of_ours_is_said_to_be_refused() -> Result<()> {
    let (ours, others, runtime) = (Authority::new()?, Authority::new()?, Runtime::new()?);
    // It trusts the others' CA, and they do not trust ours.
    let (home, url) = (ours.home(&others.pem)?, others.serve("tandem://node/cmp1", &runtime)?);
    Ran::of(&mut pools(home.path(), &url))?.fails(3, &["it refused our certificate", "its log says why"]);
    // The next node is asked all the same.
    let (home, there) = (ours.home(&(others.pem + &ours.pem))?, ours.serve("tandem://node/cmp2", &runtime)?);
    Ran::of(pools(home.path(), &url).args(["--node", &there]))?.prints(0, "no pools\n");
    Ok(())
}

#[test]
fn https_without_its_files_says_which_are_missing_or_wrong() -> Result<()> {
    let ours = Authority::new()?;
    let home = ours.home(&ours.pem)?;
    for (text, said) in [
        ("", "https needs a certificate: tls_ca, tls_cert, tls_key not given"),
        ("tls_ca = 'ca.crt'", "tls_cert, tls_key not given"),
        ("tls_ca = 'ca.crt'\ntls_cert = 'alice.crt'\ntls_key = 'none'", "none: No such file"),
        ("tls_ca = 't.toml'\ntls_cert = 'alice.crt'\ntls_key = 'alice.key'", "t.toml holds no certificate in PEM"),
        ("tls_ca = 'ca.crt'\ntls_cert = 'alice.crt'\ntls_key = 'ca.crt'", "ca.crt holds no private key in PEM"),
        ("tls_ca = 'ca.crt'\ntls_cert = 'ca.crt'\ntls_key = 'alice.key'", "does not go with"),
        ("tls_ca = 7", "key `tls_ca`: must be a file's path, is integer: 7"),
    ] {
        fs::write(home.path().join("t.toml"), text)?;
        Ran::of(&mut pools(home.path(), "https://127.0.0.1:1"))?.fails(2, &[said]);
    }
    Ok(())
}
