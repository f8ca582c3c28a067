//! What stands around the engine: it finds peers, asks the arbiter, and lets clients in.
//!
//! Of two nodes the one with the lower place dials, and dials again whenever the connection is gone.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use replication::wire::{PREAMBLE_BYTES, Preamble, VERSIONS, Verdict};
use replication::{
    BootId, DiskId, Durability, Generation, Node as Place, Order, Process, Record, Refusal, Settings, Settled, Start,
    Status, Superblock, Told, VolumeId,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::arbiter::{Outcome, Register};
use crate::disk::Options;
use crate::engine::{self, Command, Files, Handle, Notice, VolumeError};

/// How long a peer may take for a connection and its first words.
const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// How long after a connection broke, or was refused, it is tried again.
const DIAL_AGAIN: Duration = Duration::from_millis(100);

/// One volume, as this node has a part in it.
#[derive(Debug, Clone)]
pub struct VolumeConfig {
    pub volume: VolumeId,
    pub me: Place,
    pub size_blocks: u64,
    pub durability: Durability,
    /// Where the peers of the other replicas listen.
    pub peers: HashMap<Place, SocketAddr>,
}

#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where the replicas' files are.
    pub pool: PathBuf,
    pub peers: SocketAddr,
    pub nbd: SocketAddr,
    pub engine: Options,
}

/// Why a node does not begin.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    #[error("could not listen on {address} for {what}: is another tandem-node running?")]
    Listen {
        what: &'static str,
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("the engine could not begin")]
    Engine(#[source] std::io::Error),
    #[error("could not read the kernel's boot id in /proc/sys/kernel/random/boot_id")]
    Boot(#[source] std::io::Error),
}

/// A running tandem-node: it ends when it is dropped, without handing anything over.
#[derive(Debug)]
pub struct Node {
    handle: Handle,
    config: NodeConfig,
    boot: BootId,
    volumes: Arc<std::sync::Mutex<HashMap<VolumeId, Arc<Known>>>>,
    tasks: JoinSet<()>,
    peers: SocketAddr,
    nbd: SocketAddr,
}

#[derive(Debug)]
struct Known {
    config: VolumeConfig,
    /// Told when the connection to a peer is gone.
    parted: HashMap<Place, Notify>,
}

type Volumes = Arc<std::sync::Mutex<HashMap<VolumeId, Arc<Known>>>>;

impl Node {
    /// # Errors
    /// An address is taken, or the kernel refuses what the engine needs.
    pub async fn begin(config: NodeConfig, register: Arc<dyn Register>) -> Result<Self, NodeError> {
        let (peers, peers_address) = listen("peers", config.peers).await?;
        let (nbd, nbd_address) = listen("NBD clients", config.nbd).await?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_err(NodeError::Boot)?;
        let boot = Uuid::parse_str(boot.trim()).map_or(0, |id| id.as_u128());
        let (handle, notices, _) = engine::begin(config.engine).map_err(NodeError::Engine)?;
        let volumes = Volumes::default();
        let mut tasks = JoinSet::new();
        tasks.spawn(serve_notices(handle.clone(), notices, register, volumes.clone()));
        tasks.spawn(accept_peers(handle.clone(), peers, volumes.clone()));
        tasks.spawn(accept_clients(handle.clone(), nbd));
        Ok(Self { handle, config, boot: BootId(boot), volumes, tasks, peers: peers_address, nbd: nbd_address })
    }

    /// Where peers reach it.
    #[must_use]
    pub fn peers_address(&self) -> SocketAddr {
        self.peers
    }

    /// Where NBD clients reach it; the name of an export is the volume's UUID.
    #[must_use]
    pub fn nbd_address(&self) -> SocketAddr {
        self.nbd
    }

    /// Makes this node's replica of a new volume: it reads as zeroes.
    ///
    /// # Errors
    /// There is one already, or no room.
    pub fn create(&self, config: &VolumeConfig, disk: DiskId, record: &Record) -> Result<(), VolumeError> {
        let superblock = Superblock {
            volume: config.volume,
            node: config.me,
            size_blocks: config.size_blocks,
            disk,
            incarnation: None,
            generation: Generation(record.generation.0),
            record: record.clone(),
            data: replication::Data::Consistent,
            boot: self.boot,
            clean: true,
            suspect: false,
            barrier: replication::Barrier(0),
            confirmed: replication::Barrier(0),
            absent: Default::default(),
        };
        Files::create(&self.config.pool, &superblock, random_u64()).map(drop)
    }

    /// Takes this node's replica of a volume into service.
    ///
    /// # Errors
    /// Its files are missing, in use, damaged or another volume's.
    pub async fn open(&mut self, config: VolumeConfig) -> Result<(), VolumeError> {
        let files = Files::open(&self.config.pool, config.volume, config.size_blocks)?;
        let mut settings = Settings::of(config.volume, config.me);
        settings.durability = config.durability;
        let start =
            Start { boot: self.boot, process: Process(Uuid::new_v4().as_u128()), entropy: Uuid::new_v4().as_u128() };
        let known = Arc::new(Known {
            parted: config.peers.keys().map(|place| (*place, Notify::new())).collect(),
            config: config.clone(),
        });
        self.handle.open(settings, files, start).await?;
        lock(&self.volumes).insert(config.volume, known.clone());
        for (place, address) in config.peers {
            if config.me < place {
                self.tasks.spawn(dial(self.handle.clone(), known.clone(), place, address));
            }
        }
        Ok(())
    }

    /// # Errors
    /// The replica's refusal.
    pub async fn order(&self, volume: VolumeId, what: Order) -> Result<(), Refusal> {
        self.handle.order(volume, what).await
    }

    pub async fn status(&self, volume: VolumeId) -> Option<Status> {
        self.handle.status(volume).await
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.handle.tell(Command::End);
    }
}

fn lock(volumes: &Volumes) -> std::sync::MutexGuard<'_, HashMap<VolumeId, Arc<Known>>> {
    volumes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn random_u64() -> u64 {
    u64::try_from(Uuid::new_v4().as_u128() & u128::from(u64::MAX)).expect("it was cut")
}

async fn listen(what: &'static str, address: SocketAddr) -> Result<(TcpListener, SocketAddr), NodeError> {
    let failed = |source| NodeError::Listen { what, address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

/// What the engine wants of others: questions go to the arbiter, each in a task of its own.
async fn serve_notices(
    handle: Handle,
    mut notices: mpsc::UnboundedReceiver<Notice>,
    register: Arc<dyn Register>,
    volumes: Volumes,
) {
    while let Some(notice) = notices.recv().await {
        match notice {
            Notice::Ask { volume, question } => {
                let (handle, register) = (handle.clone(), register.clone());
                tokio::spawn(async move {
                    let told = match register.read(volume).await {
                        Ok((incarnation, Some(record))) => Told::Record { incarnation, record: Box::new(record) },
                        Ok((_, None)) => Told::Missing,
                        Err(failure) => {
                            tracing::warn!(%volume, error = %failure, "the arbiter was not reached");
                            Told::Unreachable
                        }
                    };
                    handle.tell(Command::Told { volume, question, told });
                });
            }
            Notice::Propose { volume, question, incarnation, expected, proposed } => {
                let (handle, register) = (handle.clone(), register.clone());
                tokio::spawn(async move {
                    let is_meant = register.read(volume).await.is_ok_and(|(found, _)| Some(found) == incarnation);
                    if !is_meant {
                        tracing::warn!(%volume, "the arbiter is away, or is another one: nothing is proposed to it");
                        return handle.tell(Command::Settled { volume, question, settled: Settled::Unknown });
                    }
                    let settled = match register.swap(volume, &expected, &proposed).await {
                        Outcome::Done => Settled::Swapped,
                        Outcome::Refused(record) => Settled::Refused(record),
                        outcome @ (Outcome::Missing | Outcome::NotDone(_) | Outcome::Unknown(_)) => {
                            tracing::warn!(%volume, ?outcome, "a change of the record is not settled");
                            Settled::Unknown
                        }
                    };
                    handle.tell(Command::Settled { volume, question, settled });
                });
            }
            Notice::Parted { volume, node } => {
                let known = lock(&volumes).get(&volume).cloned();
                if let Some(notify) = known.as_ref().and_then(|known| known.parted.get(&node)) {
                    notify.notify_one();
                }
            }
        }
    }
}

/// Keeps the connection to one peer of one volume.
async fn dial(handle: Handle, known: Arc<Known>, peer: Place, address: SocketAddr) {
    let Some(parted) = known.parted.get(&peer) else { return };
    loop {
        match timeout(GREETING_LIMIT, introduce(&known.config, peer, address)).await {
            Ok(Ok(stream)) => {
                let volume = known.config.volume;
                handle.tell(Command::Peer { volume, node: peer, stream });
                parted.notified().await;
            }
            Ok(Err(error)) => {
                tracing::debug!(%peer, %address, error = %format!("{error:#}"), "the peer was not reached")
            }
            Err(_) => tracing::debug!(%peer, %address, "the peer did not answer in time"),
        }
        sleep(DIAL_AGAIN).await;
    }
}

async fn introduce(config: &VolumeConfig, peer: Place, address: SocketAddr) -> anyhow::Result<std::net::TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    let ours =
        Preamble { versions: VERSIONS, volume: config.volume, from: config.me, to: peer, verdict: Verdict::Come };
    stream.write_all(&ours.encode()).await?;
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    ours.agree(&Preamble::decode(&bytes)?)?;
    Ok(stream.into_std()?)
}

async fn accept_peers(handle: Handle, listener: TcpListener, volumes: Volumes) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(DIAL_AGAIN).await; // out of descriptors: others may go
            continue;
        };
        let (handle, volumes) = (handle.clone(), volumes.clone());
        tokio::spawn(async move {
            match timeout(GREETING_LIMIT, receive(&volumes, stream)).await {
                Ok(Ok((volume, node, stream))) => handle.tell(Command::Peer { volume, node, stream }),
                Ok(Err(error)) => tracing::warn!(%from, error = %format!("{error:#}"), "a peer was turned away"),
                Err(_) => tracing::warn!(%from, "somebody connected to the peers' port and said nothing"),
            }
        });
    }
}

async fn receive(volumes: &Volumes, mut stream: TcpStream) -> anyhow::Result<(VolumeId, Place, std::net::TcpStream)> {
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let theirs = Preamble::decode(&bytes)?;
    let known = lock(volumes).get(&theirs.volume).cloned();
    let verdict = match &known {
        None => Verdict::NoSuchVolume,
        Some(known) if known.config.me != theirs.to || !known.parted.contains_key(&theirs.from) => Verdict::NotThatNode,
        Some(_) => Verdict::Come,
    };
    let ours = theirs.answer(VERSIONS, verdict);
    stream.write_all(&ours.encode()).await?;
    theirs.agree(&ours)?;
    Ok((theirs.volume, theirs.from, stream.into_std()?))
}

async fn accept_clients(handle: Handle, listener: TcpListener) {
    loop {
        match listener.accept().await.map(|(stream, _)| stream.into_std()) {
            Ok(Ok(stream)) => handle.tell(Command::Client { stream }),
            Ok(Err(_)) | Err(_) => sleep(DIAL_AGAIN).await,
        }
    }
}
