//! Who gets in at the embedded arbiter, who may do what there, and what strangers get.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, bail, ensure};
use chrono::{DateTime, Utc};
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tandem_node::arbiter::{
    Arbiter, ArbiterConfig, ArbiterError, Embedded, Failure, Fence, FencesOutcome, Outcome, Register,
};
use tandem_node::identity::{
    Address, Authority, Credentials, Door, Identity, Paths, Request, client_config, server_config,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::{LIMITS, PATIENCE, a_record, a_volume, created, promoted, record_of};

/// An arbiter behind mutual TLS, in this process.
struct Guarded {
    authority: Authority,
    folder: TempDir,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<Result<(), ArbiterError>>,
}

impl Guarded {
    async fn start() -> Result<Self> {
        let (authority, _) = Authority::generate(30, Utc::now())?;
        let folder = tempfile::tempdir()?;
        let ours = credentials(&authority, folder.path(), "tandem://node/judge")?;
        let config = ArbiterConfig {
            directory: folder.path().to_owned(),
            listen: "127.0.0.1:0".parse()?,
            tls: Some(server_config(&ours, Door::Rest)),
        };
        let arbiter = Arbiter::bind(config).await?;
        let address = arbiter.address();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(arbiter.serve(async { drop(stopped.await) }));
        Ok(Self { authority, folder, address, stop, served })
    }

    fn as_(&self, identity: &str) -> Result<Embedded> {
        let ours = credentials(&self.authority, self.folder.path(), identity)?;
        self.with(ClientConfig::clone(&client_config(&ours, "tandem://node/judge".parse()?, Door::Rest)))
    }

    fn with(&self, tls: ClientConfig) -> Result<Embedded> {
        Ok(Embedded::new(&format!("https://{}", self.address), Some(tls), LIMITS)?)
    }

    async fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        Ok(tokio::time::timeout(PATIENCE, self.served).await???)
    }
}

fn credentials(authority: &Authority, folder: &Path, identity: &str) -> Result<Arc<Credentials>> {
    let identity: Identity = identity.parse()?;
    let out = folder.join(format!("{}-{}", identity.kind(), identity.name()));
    let addresses = vec!["127.0.0.1".parse::<Address>()?];
    let written = authority.write(&Request::for_days(identity, addresses, 1, Utc::now()), &out, false)?;
    Ok(Credentials::load(Paths { ca: written.ca, cert: written.cert, key: written.key })?)
}

fn a_fence() -> Fence {
    let reason = "it fell silent".to_owned();
    Fence { host: "compute-1".to_owned(), boot: None, by: "tandem-ha a".to_owned(), at: DateTime::UNIX_EPOCH, reason }
}

#[tokio::test]
async fn each_identity_does_its_own_and_nothing_else() -> Result<()> {
    let guarded = Guarded::start().await?;
    let node = guarded.as_("tandem://node/compute-1")?;
    let ha = guarded.as_("tandem://ha/control-1")?;
    let admin = guarded.as_("tandem://admin/root")?;
    let cinder = guarded.as_("tandem://cinder/control-1")?;
    let (volume, record) = created(&node).await?;

    let next = promoted(&record, 0, 1);
    for other in [&ha, &admin, &cinder] {
        declined(other.swap(volume, &record, &next).await)?;
        declined(other.create(a_volume(), &a_record()).await)?;
        declined(other.remove(volume, &record).await)?;
    }
    ensure!(matches!(node.swap(volume, &record, &next).await, Outcome::Done));

    ensure!(matches!(cinder.fence(a_fence()).await, Err(Failure::Declined { .. })));
    let outcome = cinder.change_fences(0, &[a_fence()]).await;
    ensure!(matches!(outcome, FencesOutcome::NotDone(Failure::Declined { .. })), "{outcome:?}");
    assert_eq!(ha.fence(a_fence()).await?, 1);
    assert_eq!(node.lift("compute-1").await?, 2);

    for other in [&ha, &cinder] {
        declined(other.rebuild(volume, Some(&next), &promoted(&next, 1, 2)).await)?;
    }
    let (second, third) = (promoted(&next, 1, 2), promoted(&promoted(&next, 1, 2), 0, 3));
    ensure!(matches!(admin.rebuild(volume, Some(&next), &second).await, Outcome::Done));
    ensure!(matches!(node.rebuild(volume, Some(&second), &third).await, Outcome::Done), "for an administrator");

    for reader in [&node, &ha, &admin] {
        assert_eq!(record_of(reader, volume).await?, third);
        assert_eq!(reader.list().await?.1.len(), 1);
        assert_eq!(reader.fences().await?.version, 2);
    }
    ensure!(matches!(cinder.read(volume).await, Err(Failure::Declined { .. })));
    guarded.end().await
}

fn declined(outcome: Outcome) -> Result<()> {
    match outcome {
        Outcome::NotDone(Failure::Declined { .. }) => Ok(()),
        outcome => bail!("{outcome:?}"),
    }
}

#[tokio::test]
async fn without_a_certificate_of_this_ca_nobody_gets_in() -> Result<()> {
    let guarded = Guarded::start().await?;
    let (volume, record) = created(&guarded.as_("tandem://node/compute-1")?).await?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(guarded.authority.pem().as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trusting = || {
        let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        builder.map(|builder| builder.with_root_certificates(roots.clone()))
    };
    let (stranger, _) = Authority::generate(30, Utc::now())?;
    let request = Request::for_days("tandem://node/compute-1".parse()?, Vec::new(), 1, Utc::now());
    let issued = stranger.issue(&request)?;
    let chain = vec![CertificateDer::from_pem_slice(issued.cert.as_bytes())?.into_owned()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?;
    for tls in [trusting()?.with_no_client_auth(), trusting()?.with_client_auth_cert(chain, key)?] {
        let outside = guarded.with(tls)?;
        ensure!(outside.read(volume).await.is_err());
        match outside.swap(volume, &record, &promoted(&record, 0, 1)).await {
            Outcome::NotDone(_) | Outcome::Unknown(_) => {}
            outcome => bail!("{outcome:?}"),
        }
    }
    assert_eq!(record_of(&guarded.as_("tandem://node/compute-2")?, volume).await?, record);
    guarded.end().await
}

#[tokio::test]
async fn garbage_is_turned_away_and_hurts_nobody() -> Result<()> {
    let guarded = Guarded::start().await?;
    let world = super::World::embedded().await?;
    let plain: SocketAddr = world.addresses()[0].parse()?;
    let register = world.register()?;
    let (volume, record) = created(&*register).await?;
    let path = format!("/v1/volumes/{volume}");
    let post = |path: &str, body: &str| {
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
    };
    let garbage = [
        "\0\u{1}\u{2}\r\n\r\n".to_owned(),
        post(&path, "{"),
        post(&path, "{}"),
        post(&path, "{\"swap\":{}}"),
        post(&path, "{\"swap\":{\"expected\":null,\"proposed\":null}}"),
        post("/v1/volumes/none", "{}"),
        post("/v1/fences", "{}"),
        post("/v2", "{}"),
        post(&path, &"[".repeat(100_000)),
        post(&path, &format!("\"{}\"", "x".repeat(3 << 20))),
    ];
    for bytes in garbage {
        for address in [plain, guarded.address] {
            let start: String = bytes.chars().take(40).collect();
            let mut stream = TcpStream::connect(address).await?;
            let mut said = Vec::new();
            // Whoever is turned away in the middle of what he says may find the connection gone.
            let _ = stream.write_all(bytes.as_bytes()).await;
            let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await?;
            ensure!(!said.starts_with(b"HTTP/1.1 2"), "{start:?}: {}", String::from_utf8_lossy(&said));
        }
    }
    assert_eq!(record_of(&*register, volume).await?, record);
    ensure!(guarded.as_("tandem://node/compute-1")?.list().await?.1.is_empty());
    guarded.end().await
}

#[tokio::test]
async fn on_other_addresses_than_loopback_it_does_not_serve_in_the_clear() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let config = ArbiterConfig { directory: folder.path().to_owned(), listen: "0.0.0.0:0".parse()?, tls: None };
    let refused = Arbiter::bind(config).await;
    ensure!(matches!(refused, Err(ArbiterError::InTheClear { .. })), "{refused:?}");
    Ok(())
}
