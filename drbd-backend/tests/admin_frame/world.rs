//! Nodes with their REST, an arbiter that can be lost, and clients: all in this process, over real sockets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::Utc;
use replication::{BLOCK_BYTES, BootId, DiskId, Durability, Node as Place, Order, Record, Role, Settings, VolumeId};
use reqwest::{Client, Method, StatusCode};
use serde_json::Value;
use tandem_node::admin::dead::Book;
use tandem_node::admin::state::{Definition, Parts, Phase, ReplicaDefinition, State};
use tandem_node::admin::{self, Listeners};
use tandem_node::arbiter::{Arbiter, ArbiterConfig, Embedded, Limits, Register};
use tandem_node::catalog::{Catalog, now};
use tandem_node::cluster::{Cluster, OtherConfig};
use tandem_node::disk::Options;
use tandem_node::engine::Seen;
use tandem_node::fences::Watcher;
use tandem_node::identity::{Address, Authority, Credentials, Door, Identity, Paths, Request, client_config};
use tandem_node::node::{Node, NodeConfig, Peer, VolumeConfig};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// As long as anything here may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

const VOLUME_BLOCKS: u64 = 256;

pub(crate) struct Judge {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

impl Judge {
    /// An arbiter with a store of its own, at this address.
    async fn start(directory: PathBuf, listen: SocketAddr) -> Result<Self> {
        std::fs::create_dir_all(&directory)?;
        let arbiter = Arbiter::bind(ArbiterConfig { directory, listen, tls: None }).await?;
        let address = arbiter.address();
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(async move {
            arbiter.serve(async { drop(stopped.await) }).await.expect("the store holds");
        });
        Ok(Self { address, stop, served })
    }

    async fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        Ok(tokio::time::timeout(PATIENCE, self.served).await??)
    }
}

/// A node, and what serves its REST.
pub(crate) struct Machine {
    pub(crate) name: String,
    pub(crate) boot: Uuid,
    pub(crate) rest: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) node: Arc<Node>,
    pub(crate) client: Client,
    scheme: &'static str,
    catalog: Arc<Catalog>,
    pool: PathBuf,
    stop: oneshot::Sender<()>,
    served: JoinHandle<()>,
}

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) judge: Judge,
    pub(crate) machines: Vec<Machine>,
    pub(crate) authority: Option<Authority>,
    sites: Vec<Site>,
}

/// Where a node is, whether it runs or not.
#[derive(Clone)]
struct Site {
    name: String,
    rest: SocketAddr,
    peers: SocketAddr,
    boot: Uuid,
}

/// Where no other process will listen: below the ports that the kernel gives to whoever asks for any.
fn free_address() -> Result<SocketAddr> {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let first = std::process::id().wrapping_mul(64);
    let mut ports = (0..22_000).map(|_| 10_000 + first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % 22_000);
    let free = |port| std::net::TcpListener::bind(("127.0.0.1", u16::try_from(port).ok()?)).ok()?.local_addr().ok();
    ports.find_map(free).context("no port is free")
}

impl World {
    /// So many nodes, cmp0 and so on, on plain loopback.
    pub(crate) async fn new(count: usize) -> Result<Self> {
        Self::begin(count, None).await
    }

    /// The same, behind mutual TLS.
    pub(crate) async fn with_certificates(count: usize) -> Result<Self> {
        Self::begin(count, Some(Authority::generate(30, Utc::now())?.0)).await
    }

    async fn begin(count: usize, authority: Option<Authority>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let judge = Judge::start(folder.path().join("judge"), "127.0.0.1:0".parse()?).await?;
        let mut bound = Vec::new();
        for number in 0..count {
            let name = format!("cmp{number}");
            let home = folder.path().join(&name);
            std::fs::create_dir(&home)?;
            let ours =
                authority.as_ref().map(|it| credentials(it, &home, &format!("tandem://node/{name}"))).transpose()?;
            let listeners = Listeners::bind("127.0.0.1:0".parse()?, ours.as_ref(), &home.join("node.sock")).await?;
            bound.push((name, home, ours, listeners));
        }
        let mut sites = Vec::new();
        for (name, _, _, listeners) in &bound {
            let boot = Uuid::new_v4();
            sites.push(Site { name: name.clone(), rest: listeners.address(), peers: free_address()?, boot });
        }
        let mut machines = Vec::new();
        for (number, (_, home, ours, listeners)) in bound.into_iter().enumerate() {
            machines.push(Machine::begin(&sites[number], home, ours, listeners, &sites, judge.address).await?);
        }
        Ok(Self { folder, judge, machines, authority, sites })
    }

    /// A node of a plain world begins a new life, over what its last one has left; volumes that are ready are opened.
    pub(crate) async fn start_again(&self, number: usize) -> Result<Machine> {
        let site = &self.sites[number];
        let home = self.folder.path().join(&site.name);
        let listeners = Listeners::bind(site.rest, None, &home.join("node.sock")).await?;
        Machine::begin(site, home, None, listeners, &self.sites, self.judge.address).await
    }

    pub(crate) fn pool(&self, number: usize) -> PathBuf {
        self.folder.path().join(&self.sites[number].name).join("pool")
    }

    pub(crate) fn register(&self) -> Result<Embedded> {
        register(self.judge.address)
    }

    /// A new volume on the first nodes, `count` of them; the first is Primary.
    pub(crate) async fn volume(&self, name: &str, count: usize) -> Result<VolumeId> {
        let volume = VolumeId(Uuid::new_v4().as_u128());
        let disks: Vec<(Place, DiskId)> = (0..count).map(|it| (place(it), DiskId(Uuid::new_v4().as_u128()))).collect();
        let record = Record::of_new_volume(disks.clone());
        self.register()?.create(volume, &record).await;
        for (number, machine) in self.machines.iter().take(count).enumerate() {
            let peers = self.machines.iter().take(count).enumerate().filter(|(other, _)| *other != number);
            let peers = peers.map(|(other, peer)| {
                (
                    place(other),
                    Peer { name: peer.name.parse().expect("a name"), address: peer.node.peers_address(), iscsi: None },
                )
            });
            let config = VolumeConfig {
                volume,
                me: place(number),
                size_blocks: VOLUME_BLOCKS,
                pool: machine.pool.clone(),
                settings: Settings::of(volume, place(number)),
                peers: peers.collect(),
            };
            machine.node.create(&config, disks[number].1, &record)?;
            machine.define(volume, name, self.machines.iter().take(count).map(|it| it.name.clone()))?;
            machine.node.open(config).await?;
        }
        let promoted = tokio::time::timeout(PATIENCE, self.machines[0].node.order(volume, Order::Promote)).await?;
        ensure!(promoted.is_ok(), "{promoted:?}");
        Ok(volume)
    }

    /// The arbiter is replaced by an empty one at the same address.
    pub(crate) async fn lose_the_arbiter(&mut self) -> Result<()> {
        self.stop_the_arbiter().await?;
        let next = self.folder.path().join(format!("judge-{}", Uuid::new_v4()));
        self.judge = Judge::start(next, self.judge.address).await?;
        Ok(())
    }

    /// The arbiter that was stopped goes on, at the same address.
    pub(crate) async fn resume_the_arbiter(&mut self) -> Result<()> {
        self.judge = Judge::start(self.folder.path().join("judge"), self.judge.address).await?;
        Ok(())
    }

    pub(crate) async fn stop_the_arbiter(&mut self) -> Result<()> {
        let nobody = Judge { address: self.judge.address, stop: oneshot::channel().0, served: tokio::spawn(async {}) };
        std::mem::replace(&mut self.judge, nobody).end().await
    }

    /// A client with this identity's certificate.
    pub(crate) fn client(&self, identity: &str, machine: &Machine) -> Result<Client> {
        let authority = self.authority.as_ref().context("a world of certificates")?;
        let home = self.folder.path().join(Uuid::new_v4().to_string());
        std::fs::create_dir(&home)?;
        let ours = credentials(authority, &home, identity)?;
        client_of(&ours, &machine.name)
    }
}

pub(crate) fn register(address: SocketAddr) -> Result<Embedded> {
    let limits = Limits { connect: Duration::from_secs(2), answer: Duration::from_secs(10) };
    Ok(Embedded::new(&format!("http://{address}"), None, limits)?)
}

pub(crate) fn credentials(authority: &Authority, folder: &std::path::Path, identity: &str) -> Result<Arc<Credentials>> {
    let identity: Identity = identity.parse()?;
    let addresses = vec!["127.0.0.1".parse::<Address>()?];
    let written =
        authority.write(&Request::for_days(identity, addresses, 1, Utc::now()), &folder.join("tls"), false)?;
    Ok(Credentials::load(Paths { ca: written.ca, cert: written.cert, key: written.key })?)
}

pub(crate) fn client_of(ours: &Arc<Credentials>, wanted: &str) -> Result<Client> {
    let tls = client_config(ours, format!("tandem://node/{wanted}").parse()?, Door::Rest);
    Ok(Client::builder().no_proxy().use_preconfigured_tls(rustls::ClientConfig::clone(&tls)).build()?)
}

pub(crate) fn place(number: usize) -> Place {
    Place::new(u8::try_from(number).expect("few")).expect("few")
}

impl Machine {
    async fn begin(
        site: &Site,
        home: PathBuf,
        ours: Option<Arc<Credentials>>,
        listeners: Listeners,
        sites: &[Site],
        judge: SocketAddr,
    ) -> Result<Self> {
        let Site { name, rest, peers, boot } = site.clone();
        let pool = home.join("pool");
        std::fs::create_dir_all(&pool)?;
        let register: Arc<dyn Register> = Arc::new(register(judge)?);
        let config = NodeConfig {
            peers,
            nbd: "127.0.0.1:0".parse()?,
            iscsi: None,
            engine: Options::default(),
            credentials: ours.clone(),
            boot: BootId(boot.as_u128()),
        };
        let node = Arc::new(Node::begin(config, register.clone()).await?);
        node.let_in();
        let scheme = if ours.is_some() { "https" } else { "http" };
        let client = |wanted: &str| match &ours {
            Some(ours) => client_of(ours, wanted),
            None => Ok(Client::builder().no_proxy().build()?),
        };
        let others = sites.iter().filter(|other| other.name != name).map(|other| {
            let config = OtherConfig { peers: other.peers, rest: format!("{scheme}://{}", other.rest), iscsi: None };
            Ok((other.name.parse()?, config))
        });
        let cluster = Cluster::new(others.collect::<Result<Vec<_>>>()?, ours.as_ref())?;
        let catalog = Arc::new(Catalog::load(&name, [("default".to_owned(), pool.clone())].into()));
        let known = catalog.clone();
        let volumes = move || known.volumes();
        let state = State::new(Parts {
            name: name.clone(),
            node: node.clone(),
            rest: rest.to_string(),
            started_at: Utc::now(),
            register: register.clone(),
            arbiter: ("embedded", vec![format!("http://{judge}")]),
            dead: Book::open(&home)?,
            watcher: Watcher::new(node.clone(), register, volumes),
            cluster,
            catalog: catalog.clone(),
            settings: Settings::of(VolumeId(0), place(0)),
        });
        admin::open_all(&state).await;
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(admin::serve_on(listeners, state, async { drop(stopped.await) }));
        let (socket, client) = (home.join("node.sock"), client(&name)?);
        Ok(Self { name, boot, rest, socket, node, client, scheme, catalog, pool, stop, served })
    }

    fn define(&self, volume: VolumeId, name: &str, nodes: impl Iterator<Item = String>) -> Result<()> {
        let replicas = nodes.enumerate().map(|(number, node)| ReplicaDefinition {
            node,
            place: place(number).place(),
            pool: "default".to_owned(),
            disk_id: Uuid::new_v4(),
        });
        Ok(self.catalog.put(&Definition {
            uuid: Uuid::from_u128(volume.0),
            name: name.to_owned(),
            size_bytes: VOLUME_BLOCKS * u64::from(BLOCK_BYTES),
            durability: Durability::Flush,
            created_at: now(),
            state: Phase::Ready,
            replicas: replicas.collect(),
        })?)
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.rest)
    }

    pub(crate) async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value)> {
        self.call_as(&self.client, method, path, body).await
    }

    pub(crate) async fn call_as(
        &self,
        client: &Client,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value)> {
        let mut request = client.request(method, self.url(path)).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let (status, bytes) = (answer.status(), answer.bytes().await?);
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        let (status, body) = self.call(Method::GET, path, None).await?;
        ensure!(status.is_success(), "{path}: {status} {body}");
        Ok(body)
    }

    pub(crate) async fn look(&self, volume: VolumeId) -> Result<Seen> {
        self.node.look(volume).await.context("it is open")
    }

    pub(crate) async fn is_primary(&self, volume: VolumeId) -> bool {
        self.node.look(volume).await.is_some_and(|seen| seen.status.role == Role::Primary && seen.status.serving)
    }

    /// As systemd stops it: nothing of it is left.
    pub(crate) async fn end(self) -> Result<()> {
        let _ = self.stop.send(());
        tokio::time::timeout(PATIENCE, self.served).await??;
        Ok(())
    }
}

/// Until `seen` says yes; it is asked again and again, for a while.
pub(crate) async fn until(what: &str, mut seen: impl AsyncFnMut() -> bool) -> Result<()> {
    let asked = async {
        let mut pause = tokio::time::interval(Duration::from_millis(20));
        while !seen().await {
            pause.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.with_context(|| format!("{what}: not within {PATIENCE:?}"))
}
