//! Real nodes over real files, sockets and an arbiter: what is written through NBD lies on every node, and outlives any one.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use replication::{
    Attachment, Change, DiskId, DiskState, Durability, Node as Place, Order, Record, Role, Settings, Status, VolumeId,
};
use system_tests::addresses::free_addresses;
use system_tests::nbd::Nbd;
use tandem_node::arbiter::{Arbiter, ArbiterConfig, Embedded, Limits, Outcome, Register};
use tandem_node::disk::{Engine, Options};
use tandem_node::engine::VolumeError;
use tandem_node::identity::{Authority, Credentials, Identity, Kind, Paths, Request};
use tandem_node::node::{Node, NodeConfig, Peer, VolumeConfig, boot_id};
use tempfile::TempDir;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::sleep;
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(20);
const SIZE_BLOCKS: u64 = 16 * 1024;

/// A volume, its nodes, and its arbiter.
struct Cluster {
    folder: TempDir,
    volume: VolumeId,
    addresses: Vec<SocketAddr>,
    nodes: Vec<Option<Node>>,
    register: Arc<dyn Register>,
    arbiter: JoinHandle<()>,
    engine: Engine,
    /// With them the peers speak TLS.
    credentials: Vec<Arc<Credentials>>,
}

fn name(number: usize) -> tandem_node::identity::Name {
    format!("node-{number}").parse().expect("it is a name")
}

fn place(number: usize) -> Place {
    Place::new(u8::try_from(number).expect("few")).expect("fewer than eight")
}

impl Cluster {
    async fn of(count: usize) -> Result<Self> {
        Self::with(count, Engine::Auto).await
    }

    async fn with(count: usize, engine: Engine) -> Result<Self> {
        Self::begun(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?, count, engine, Vec::new()).await
    }

    /// The folder is on a file system that has direct I/O.
    async fn begun(folder: TempDir, count: usize, engine: Engine, credentials: Vec<Arc<Credentials>>) -> Result<Self> {
        let store = folder.path().join("arbiter");
        std::fs::create_dir(&store)?;
        let listen = "127.0.0.1:0".parse()?;
        let arbiter = Arbiter::bind(ArbiterConfig { directory: store, listen, tls: None }).await?;
        let url = format!("http://{}", arbiter.address());
        let register: Arc<dyn Register> = Arc::new(Embedded::new(&url, None, Limits::default())?);
        let arbiter = tokio::spawn(async move { drop(arbiter.serve(std::future::pending()).await) });
        let volume = VolumeId(Uuid::new_v4().as_u128());
        let disks: Vec<(Place, DiskId)> =
            (0..count).map(|number| (place(number), DiskId(Uuid::new_v4().as_u128()))).collect();
        let record = Record::of_new_volume(disks.iter().copied());
        ensure!(matches!(register.create(volume, &record).await, Outcome::Done), "the arbiter takes the volume");
        let addresses = free_addresses("127.0.0.1", count)?;
        let nodes = (0..count).map(|_| None).collect();
        let mut cluster = Self { folder, volume, addresses, nodes, register, arbiter, engine, credentials };
        for (number, (_, disk)) in disks.iter().enumerate() {
            std::fs::create_dir(cluster.pool(number))?;
            cluster.begin(number).await?;
            let config = cluster.config(number);
            let node = cluster.nodes[number].as_ref().context("it has just begun")?;
            node.create(&config, *disk, &record)?;
            node.open(config).await?;
        }
        Ok(cluster)
    }

    fn pool(&self, number: usize) -> std::path::PathBuf {
        self.folder.path().join(format!("node-{number}"))
    }

    fn config(&self, number: usize) -> VolumeConfig {
        let others = (0..self.addresses.len()).filter(|other| *other != number);
        let peer = |other: usize| Peer { name: name(other), address: self.addresses[other], iscsi: None };
        let peers: HashMap<Place, Peer> = others.map(|other| (place(other), peer(other))).collect();
        VolumeConfig {
            volume: self.volume,
            me: place(number),
            size_blocks: SIZE_BLOCKS,
            pool: self.pool(number),
            settings: Settings { durability: Durability::Flush, ..Settings::of(self.volume, place(number)) },
            peers,
        }
    }

    async fn begin(&mut self, number: usize) -> Result<()> {
        let config = NodeConfig {
            peers: self.addresses[number],
            nbd: "127.0.0.1:0".parse()?,
            iscsi: None,
            engine: Options { engine: self.engine, ..Options::default() },
            credentials: self.credentials.get(number).cloned(),
            boot: boot_id(Path::new("/proc/sys/kernel/random/boot_id"))?,
        };
        let node = Node::begin(config, self.register.clone()).await?;
        node.let_in();
        self.nodes[number] = Some(node);
        Ok(())
    }

    /// As after a crash of the process: the files are as they are.
    fn kill(&mut self, number: usize) {
        self.nodes[number] = None;
    }

    async fn start_again(&mut self, number: usize) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        self.begin(number).await?;
        let config = self.config(number);
        loop {
            let node = self.nodes[number].as_ref().context("it has just begun")?;
            match node.open(config.clone()).await {
                // What the last life had in flight keeps the files locked.
                Err(VolumeError::File(_)) if Instant::now() < deadline => sleep(Duration::from_millis(20)).await,
                outcome => return Ok(outcome?),
            }
        }
    }

    fn node(&self, number: usize) -> &Node {
        self.nodes[number].as_ref().expect("it runs")
    }

    async fn status(&self, number: usize) -> Status {
        self.node(number).look(self.volume).await.expect("it has the volume").status
    }

    async fn promote(&self, number: usize) -> Result<()> {
        self.node(number).order(self.volume, Order::Promote).await.map_err(|refusal| anyhow::anyhow!("{refusal:?}"))
    }

    async fn until(&self, number: usize, what: &str, seen: impl Fn(&Status) -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.status(number).await;
            if seen(&status) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "waited in vain until node {number} {what}: {status:#?}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    async fn client(&self, number: usize) -> Result<Nbd> {
        let (address, export) = (self.node(number).nbd_address(), self.volume.to_string());
        spawn_blocking(move || Nbd::connect(address, &export)).await?
    }

    fn data(&self, number: usize) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.pool(number).join(format!("{}.data", self.volume)))?)
    }

    /// Byte for byte.
    fn are_equal(&self) -> Result<()> {
        let first = self.data(0)?;
        for number in 1..self.nodes.len() {
            ensure!(self.data(number)? == first, "the data of nodes 0 and {number} differ");
        }
        Ok(())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.arbiter.abort();
    }
}

/// Blocks with bytes of their own.
fn pattern(number: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| number ^ u8::try_from(at % 251).expect("it is below 251")).collect()
}

async fn on<T: Send + 'static>(
    mut client: Nbd,
    work: impl FnOnce(&mut Nbd) -> Result<T> + Send + 'static,
) -> Result<(Nbd, T)> {
    spawn_blocking(move || {
        let outcome = work(&mut client)?;
        Ok((client, outcome))
    })
    .await?
}

async fn what_is_written_is_read_and_lies_on_both(engine: Engine) -> Result<()> {
    let cluster = Cluster::with(2, engine).await?;
    cluster.promote(0).await?;
    let client = cluster.client(0).await?;
    let (client, ()) = on(client, |nbd| {
        ensure!(nbd.size_bytes == SIZE_BLOCKS * 4096, "the volume has its size");
        nbd.write(0, &pattern(1, 4096))?;
        nbd.write(4096 * 3 + 100, &pattern(2, 700))?; // within a block
        nbd.write(4096 * 10 - 5, &pattern(3, 3 * 1024 * 1024))?; // across pieces, with both edges
        nbd.write(1 << 25, &pattern(4, 1 << 20))?;
        nbd.zeroes((1 << 25) + 100, 300_000)?;
        nbd.flush()
    })
    .await?;
    let (_, ()) = on(client, |nbd| {
        ensure!(nbd.read(0, 4096)? == pattern(1, 4096), "the first block");
        let mut block = vec![0; 4096];
        block[100..800].copy_from_slice(&pattern(2, 700));
        ensure!(nbd.read(4096 * 3, 4096)? == block, "a part of a block");
        ensure!(nbd.read(4096 * 10 - 5, 3 * 1024 * 1024)? == pattern(3, 3 * 1024 * 1024), "many blocks");
        let mut zeroed = pattern(4, 1 << 20);
        zeroed[100..300_100].fill(0);
        ensure!(nbd.read(1 << 25, 1 << 20)? == zeroed, "zeroes within data");
        Ok(())
    })
    .await?;
    cluster.are_equal()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_is_read_and_lies_on_both_nodes() -> Result<()> {
    what_is_written_is_read_and_lies_on_both(Engine::Auto).await
}

#[tokio::test(flavor = "multi_thread")]
async fn it_works_where_the_kernel_refuses_io_uring() -> Result<()> {
    what_is_written_is_read_and_lies_on_both(Engine::Threads).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secondary_has_no_export() -> Result<()> {
    let cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    ensure!(cluster.client(1).await.is_err(), "only the Primary serves");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_primary_dies_the_other_node_serves_every_acknowledged_write() -> Result<()> {
    let mut cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    let client = cluster.client(0).await?;
    let (client, written) = on(client, |nbd| {
        for number in 0..200_u8 {
            nbd.write(u64::from(number) * 65_536, &pattern(number, 4096))?;
        }
        Ok(200_u8)
    })
    .await?;
    cluster.kill(0);
    drop(client);
    cluster.until(1, "serves", |status| status.serving).await?;
    let client = cluster.client(1).await?;
    let (client, ()) = on(client, move |nbd| {
        for number in 0..written {
            ensure!(nbd.read(u64::from(number) * 65_536, 4096)? == pattern(number, 4096), "write {number} is lost");
        }
        nbd.write(0, &pattern(201, 8192))
    })
    .await?;
    cluster.start_again(0).await?;
    cluster.until(1, "has both in sync", |status| status.record.in_sync().len() == 2).await?;
    cluster.until(0, "is UpToDate", |status| status.disk == DiskState::UpToDate).await?;
    let (_, ()) = on(client, Nbd::flush).await?;
    cluster.are_equal()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_away_gets_what_it_missed_under_writes() -> Result<()> {
    let mut cluster = Cluster::of(3).await?;
    cluster.promote(1).await?;
    let client = cluster.client(1).await?;
    let (client, ()) = on(client, |nbd| nbd.write(0, &pattern(1, 1 << 20))).await?;
    cluster.kill(2);
    let (client, ()) = on(client, |nbd| {
        (0..100_u8).try_for_each(|number| nbd.write(u64::from(number) * 500_000, &pattern(number, 20_000)))
    })
    .await?;
    ensure!(cluster.status(1).await.record.in_sync().len() == 2, "two are left");
    cluster.start_again(2).await?;
    let deadline = Instant::now() + PATIENCE;
    let volume = cluster.volume;
    let register = cluster.register.clone();
    let handle = tokio::runtime::Handle::current();
    let (_, rounds) = on(client, move |nbd| {
        let mut rounds = 0_u32;
        loop {
            nbd.write(u64::from(rounds % 90) * 400_000, &pattern(7, 9000))?;
            rounds += 1;
            let (_, record) = handle.block_on(register.read(volume))?;
            if record.is_some_and(|record| record.in_sync().len() == 3) {
                return Ok(rounds);
            }
            ensure!(Instant::now() < deadline, "it was never added");
        }
    })
    .await?;
    ensure!(rounds > 0, "there were writes meanwhile");
    cluster.until(2, "is UpToDate", |status| status.disk == DiskState::UpToDate).await?;
    cluster.are_equal()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_is_handed_over() -> Result<()> {
    let cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    let client = cluster.client(0).await?;
    let (client, ()) = on(client, |nbd| nbd.write(4096, &pattern(5, 4096))).await?;
    drop(client);
    let handed_over = cluster.node(0).order(cluster.volume, Order::HandOver(place(1))).await;
    ensure!(handed_over.is_ok(), "{handed_over:?}");
    cluster.until(1, "is Primary", |status| status.role == Role::Primary && status.serving).await?;
    let client = cluster.client(1).await?;
    let (_, read) = on(client, |nbd| nbd.read(4096, 4096)).await?;
    ensure!(read == pattern(5, 4096), "what was written before");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_volume_that_was_closed_is_opened_again_by_the_same_node() -> Result<()> {
    let cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    let client = cluster.client(0).await?;
    let (client, ()) = on(client, |nbd| nbd.write(4096, &pattern(5, 4096))).await?;
    cluster.node(0).close(cluster.volume).await;
    ensure!(on(client, |nbd| nbd.read(0, 4096)).await.is_err(), "its clients are gone");
    ensure!(cluster.node(0).look(cluster.volume).await.is_none(), "nobody finds it any more");
    cluster.until(1, "serves", |status| status.serving).await?;
    cluster.node(0).open(cluster.config(0)).await?;
    cluster.until(1, "has both in sync", |status| status.record.in_sync().len() == 2).await?;
    let client = cluster.client(1).await?;
    let (_, read) = on(client, |nbd| nbd.read(4096, 4096)).await?;
    ensure!(read == pattern(5, 4096), "what was written before");
    cluster.are_equal()
}

/// Of one CA, or each of its own.
fn credentials(folder: &Path, numbers: &[usize], authority: &Authority) -> Result<Vec<Arc<Credentials>>> {
    let of = |number: &usize| {
        let folder = folder.join(format!("tls-{number}"));
        std::fs::create_dir_all(&folder)?;
        let identity = Identity::new(Kind::Node, name(*number));
        let written = authority.write(&Request::for_days(identity, Vec::new(), 2, Utc::now()), &folder, false)?;
        Ok(Credentials::load(Paths { ca: folder.join("ca.crt"), cert: written.cert, key: written.key })?)
    };
    numbers.iter().map(of).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_speak_tls_where_there_are_certificates() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (authority, _) = Authority::generate(3, Utc::now())?;
    let credentials = credentials(folder.path(), &[0, 1], &authority)?;
    let cluster = Cluster::begun(folder, 2, Engine::Auto, credentials).await?;
    cluster.promote(0).await?;
    cluster.until(0, "serves", |status| status.serving).await?;
    let client = cluster.client(0).await?;
    let (_, ()) = on(client, |nbd| {
        (0..50_u8).try_for_each(|number| nbd.write(u64::from(number) * 500_000, &pattern(number, 300_000)))?;
        nbd.flush()
    })
    .await?;
    ensure!(cluster.status(0).await.record.in_sync().len() == 2, "nobody was dropped");
    cluster.are_equal()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_the_certificate_of_another_node_is_not_spoken_to() -> Result<()> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let (authority, _) = Authority::generate(3, Utc::now())?;
    let credentials = credentials(folder.path(), &[0, 2], &authority)?; // node 1 shows what names node 2
    let cluster = Cluster::begun(folder, 2, Engine::Auto, credentials).await?;
    sleep(Duration::from_secs(1)).await; // ten attempts
    let status = cluster.status(0).await;
    ensure!(status.peers.iter().all(|peer| !peer.connected), "{status:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_during_a_takeover_is_served_after_it() -> Result<()> {
    let mut cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    cluster.until(1, "hears the Primary", |status| status.peers.iter().all(|peer| peer.connected)).await?;
    cluster.kill(0);
    cluster.until(1, "has lost it", |status| status.peers.iter().all(|peer| !peer.connected)).await?;
    ensure!(!cluster.status(1).await.serving, "it may not serve yet");
    let client = cluster.client(1).await?;
    let (_, ()) = on(client, |nbd| nbd.write(0, &pattern(1, 4096))).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_an_attachment_ends_when_it_is_revoked() -> Result<()> {
    let cluster = Cluster::of(2).await?;
    cluster.promote(0).await?;
    let id = Uuid::new_v4();
    let (address, export) = (cluster.node(0).nbd_address(), format!("{}/{id}", cluster.volume));
    let connect = move || {
        let export = export.clone();
        spawn_blocking(move || Nbd::connect(address, &export))
    };
    ensure!(connect().await?.is_err(), "there is no such attachment");
    let attachment = Attachment {
        client: 0,
        id: id.as_u128(),
        host: "cmp1".to_owned(),
        initiator: String::new(),
        read_only: false,
        chap: None,
        epoch: 0,
        revoked: false,
    };
    let order = |change| cluster.node(0).order(cluster.volume, Order::Control(change));
    ensure!(order(Change::Attach(attachment)).await.is_ok(), "it is attached");
    let (client, ()) = on(connect().await??, |nbd| nbd.write(0, &pattern(1, 4096))).await?;
    ensure!(order(Change::Revoke { id: id.as_u128() }).await.is_ok(), "it is revoked");
    ensure!(on(client, |nbd| nbd.write(0, &pattern(2, 4096))).await.is_err(), "it writes no more");
    ensure!(connect().await?.is_err(), "it does not come back");
    let (_, read) = on(cluster.client(0).await?, |nbd| nbd.read(0, 4096)).await?;
    ensure!(read == pattern(1, 4096), "what was written before");
    Ok(())
}
