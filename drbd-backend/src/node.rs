//! What stands around the engine: it finds peers, asks the arbiter, and lets clients in.

mod clients;
mod initiators;
mod peers;
mod questions;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, Utc};
use replication::{
    BootId, Data, DiskId, Node as Place, Order, Process, Record, Refusal, Settings, Start, Superblock, VolumeId,
};
use tokio::net::TcpListener;
use tokio::sync::{Mutex as AsyncMutex, Notify, broadcast, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::arbiter::Register;
use crate::disk::Options;
use crate::engine::{self, Command, Files, Handle, LOG_OUT_WITHIN_S, Seen, VolumeError};
use crate::export::door::Door;
use crate::export::iscsi::portal;
use crate::identity::{Credentials, Name};

/// How long a replica may take to answer everything, to flush and to mark its metadata clean before it is closed as it is.
const FAREWELL: Duration = Duration::from_secs(10);

/// How often it is looked whether initiators have logged out.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What replicas have said that nobody has read yet: a reader that is slower misses some.
const UNREAD: usize = 1024;

/// A node that holds another replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Whose certificate it shows.
    pub name: Name,
    pub address: SocketAddr,
    /// Where initiators reach it, as far as is known here.
    pub iscsi: Option<SocketAddr>,
}

/// One volume, as this node has a part in it.
#[derive(Debug, Clone)]
pub struct VolumeConfig {
    pub volume: VolumeId,
    pub me: Place,
    pub size_blocks: u64,
    /// Where this replica's files are.
    pub pool: PathBuf,
    pub settings: Settings,
    /// Where the other replicas are.
    pub peers: HashMap<Place, Peer>,
}

#[derive(Debug, Clone)]
pub struct NodeConfig {
    pub peers: SocketAddr,
    pub nbd: SocketAddr,
    /// None: no iSCSI.
    pub iscsi: Option<SocketAddr>,
    pub engine: Options,
    /// With them all connections are TLS; without them they are plain, which is for loopback only.
    pub credentials: Option<Arc<Credentials>>,
    /// Which boot of the kernel this is: caches are lost with it.
    pub boot: BootId,
}

/// The kernel's boot id, which changes with every boot (random(4)).
///
/// # Errors
/// The file cannot be read, or holds no UUID.
pub fn boot_id(file: &Path) -> std::io::Result<BootId> {
    let text = std::fs::read_to_string(file)?;
    let id = Uuid::parse_str(text.trim()).map_err(std::io::Error::other)?;
    Ok(BootId(id.as_u128()))
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
}

/// What a replica said of itself, for people.
#[derive(Debug, Clone)]
pub struct Said {
    pub volume: VolumeId,
    pub at: DateTime<Utc>,
    pub text: String,
}

/// An initiator at this node, which stands by, changes its reservations: the Primary is to do it.
#[derive(Debug)]
pub struct Wish {
    pub volume: VolumeId,
    pub primary: Place,
    /// By what it was judged.
    pub was: Vec<u8>,
    pub next: Vec<u8>,
    /// Whether every replica in sync has it.
    pub done: oneshot::Sender<bool>,
}

/// A running tandem-node. It ends when it is dropped, without handing anything over.
#[derive(Debug)]
pub struct Node {
    handle: Handle,
    boot: BootId,
    credentials: Option<Arc<Credentials>>,
    volumes: Volumes,
    said: broadcast::Sender<Said>,
    wishes: AsyncMutex<mpsc::UnboundedReceiver<Wish>>,
    doors: watch::Sender<bool>,
    _tasks: JoinSet<()>,
    peers: SocketAddr,
    nbd: SocketAddr,
    iscsi: Option<SocketAddr>,
}

/// The volumes that are open, for whoever comes in.
#[derive(Debug, Clone, Default)]
struct Volumes(Arc<Mutex<HashMap<VolumeId, Arc<Known>>>>);

#[derive(Debug)]
struct Known {
    config: VolumeConfig,
    /// Told when the connection to a peer is gone.
    parted: HashMap<Place, Notify>,
    dialing: Mutex<Vec<AbortHandle>>,
}

impl Volumes {
    fn lock(&self) -> MutexGuard<'_, HashMap<VolumeId, Arc<Known>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, volume: VolumeId) -> Option<Arc<Known>> {
        self.lock().get(&volume).cloned()
    }
}

impl Known {
    fn dial_no_more(&self) {
        self.dialing.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|dialing| dialing.abort());
    }
}

impl Node {
    /// Without volumes, and with its doors shut: who connects waits until [`Self::let_in`].
    ///
    /// # Errors
    /// An address is taken, or the kernel refuses what the engine needs.
    pub async fn begin(config: NodeConfig, register: Arc<dyn Register>) -> Result<Self, NodeError> {
        let (peers, peers_address) = listen("peers", config.peers).await?;
        let (nbd, nbd_address) = listen("NBD clients", config.nbd).await?;
        let (handle, notices, _) = engine::begin(config.engine).map_err(NodeError::Engine)?;
        let volumes = Volumes::default();
        let (said, _) = broadcast::channel(UNREAD);
        let (wish, wishes) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(questions::serve(handle.clone(), notices, register, volumes.clone(), said.clone(), wish));
        let (doors, closed) = watch::channel(false);
        tasks.spawn(once(
            closed.clone(),
            peers::accept(handle.clone(), peers, volumes.clone(), config.credentials.clone()),
        ));
        let door = Door::new(config.credentials.as_ref(), nbd_address.ip().is_loopback());
        let clients = clients::Clients { handle: handle.clone(), volumes: volumes.clone() };
        tasks.spawn(once(closed.clone(), door.keep(nbd, Arc::new(clients))));
        let mut iscsi_address = None;
        if let Some(address) = config.iscsi {
            let (iscsi, address) = listen("iSCSI initiators", address).await?;
            iscsi_address = Some(address);
            let initiators = initiators::Initiators { handle: handle.clone(), volumes: volumes.clone() };
            tasks.spawn(once(closed, portal::keep(iscsi, Arc::new(initiators))));
        }
        Ok(Self {
            handle,
            boot: config.boot,
            credentials: config.credentials,
            volumes,
            said,
            wishes: AsyncMutex::new(wishes),
            doors,
            _tasks: tasks,
            peers: peers_address,
            nbd: nbd_address,
            iscsi: iscsi_address,
        })
    }

    /// Peers and clients may come in. Before its volumes are open they would be told that there are none.
    pub fn let_in(&self) {
        self.doors.send_replace(true);
    }

    /// Where peers reach it.
    #[must_use]
    pub fn peers_address(&self) -> SocketAddr {
        self.peers
    }

    /// Where NBD clients reach it; an export is called by the volume's UUID, or UUID/ATTACHMENT.
    #[must_use]
    pub fn nbd_address(&self) -> SocketAddr {
        self.nbd
    }

    /// Where initiators reach it, if they do.
    #[must_use]
    pub fn iscsi_address(&self) -> Option<SocketAddr> {
        self.iscsi
    }

    #[must_use]
    pub fn boot(&self) -> BootId {
        self.boot
    }

    /// What its replicas say from now on. A reader that falls behind misses some.
    #[must_use]
    pub fn said(&self) -> broadcast::Receiver<Said> {
        self.said.subscribe()
    }

    /// The next that an initiator wants of another node; None: there will be no more.
    pub async fn wish(&self) -> Option<Wish> {
        self.wishes.lock().await.recv().await
    }

    /// Something about a volume that did not come from its replica: for the log, and for whoever reads what replicas say.
    pub fn say(&self, volume: VolumeId, text: String) {
        tracing::warn!(%volume, "{text}");
        // It fails only when nobody listens.
        let _ = self.said.send(Said { volume, at: Utc::now(), text });
    }

    /// Makes this node's replica of a new volume: it reads as zeroes.
    ///
    /// # Errors
    /// There is one already, or no room.
    pub fn create(&self, config: &VolumeConfig, disk: DiskId, record: &Record) -> Result<(), VolumeError> {
        self.make(config, disk, record, Data::Consistent)
    }

    /// Makes this node's replica of a volume that has others: a disk that nobody knows, and that holds nothing. It is good for nothing until all of
    /// the volume has been copied to it.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn create_blank(&self, config: &VolumeConfig, record: &Record) -> Result<(), VolumeError> {
        self.make(config, DiskId(Uuid::new_v4().as_u128()), record, Data::Blank)
    }

    fn make(&self, config: &VolumeConfig, disk: DiskId, record: &Record, data: Data) -> Result<(), VolumeError> {
        let superblock = Superblock {
            volume: config.volume,
            node: config.me,
            size_blocks: config.size_blocks,
            disk,
            incarnation: None,
            generation: record.generation,
            record: record.clone(),
            data,
            boot: self.boot,
            clean: true,
            suspect: false,
            barrier: replication::Barrier(0),
            confirmed: replication::Barrier(0),
            absent: Default::default(),
        };
        Files::create(&config.pool, &superblock, random_u64()).map(drop)
    }

    /// Deletes the files of a replica that is not open. There being none is as good.
    ///
    /// # Errors
    /// They are open, here or elsewhere, or cannot be removed.
    pub fn remove(&self, pool: &Path, volume: VolumeId) -> Result<(), VolumeError> {
        if self.volumes.find(volume).is_some() {
            return Err(VolumeError::Open(volume));
        }
        Files::remove(pool, volume)
    }

    /// Takes this node's replica of a volume into service.
    ///
    /// # Errors
    /// Its files are missing, in use, damaged or another volume's.
    pub async fn open(&self, config: VolumeConfig) -> Result<(), VolumeError> {
        let (pool, volume, size_blocks) = (config.pool.clone(), config.volume, config.size_blocks);
        let entropy = Uuid::new_v4().as_u128();
        let load = move || Files::open(&pool, volume, size_blocks)?.load(volume, random_u64());
        let loaded = spawn_blocking(load).await.map_err(|_| VolumeError::Ended)??;
        let start = Start { boot: self.boot, process: Process(Uuid::new_v4().as_u128()), entropy };
        let known = Arc::new(Known {
            parted: config.peers.keys().map(|place| (*place, Notify::new())).collect(),
            dialing: Mutex::default(),
            config: config.clone(),
        });
        self.handle.open(config.settings, loaded, start).await?;
        self.volumes.lock().insert(config.volume, known.clone());
        // Of two nodes the one with the lower place dials.
        for (place, peer) in config.peers.into_iter().filter(|(place, _)| config.me < *place) {
            let (handle, credentials) = (self.handle.clone(), self.credentials.clone());
            let dialing = tokio::spawn(peers::dial(handle, known.clone(), place, peer, credentials));
            known.dialing.lock().unwrap_or_else(PoisonError::into_inner).push(dialing.abort_handle());
        }
        Ok(())
    }

    /// Asks a volume's initiators to log out, and waits for them as long as they were given.
    pub async fn ask_to_log_out(&self, volume: VolumeId) {
        self.handle.tell(Command::Farewell { volume });
        let until = Instant::now() + Duration::from_secs(u64::from(LOG_OUT_WITHIN_S));
        while self.look(volume).await.is_some_and(|seen| seen.initiators > 0) && Instant::now() < until {
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Shuts a volume's replica down and lets its files go. One that cannot come to an end in 10 s is closed as after a crash.
    /// One that is not open is as good as closed.
    pub async fn close(&self, volume: VolumeId) {
        match timeout(FAREWELL, self.order(volume, Order::ShutDown)).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::warn!(%volume, ?refusal, "a replica was not shut down clean"),
            Err(_) => tracing::warn!(%volume, "a replica did not come to an end in time; it is closed as it is"),
        }
        let known = self.volumes.lock().remove(&volume);
        if let Some(known) = known {
            known.dial_no_more();
        }
        self.handle.close(volume).await;
    }

    /// # Errors
    /// The replica's refusal.
    pub async fn order(&self, volume: VolumeId, what: Order) -> Result<(), Refusal> {
        self.handle.order(volume, what).await
    }

    /// How a volume is; `None` if it is not open here.
    pub async fn look(&self, volume: VolumeId) -> Option<Seen> {
        self.handle.look(volume).await
    }

    /// Somebody has made sure that this boot of this node writes no more: a promotion need not wait for it.
    pub fn fenced(&self, volume: VolumeId, node: Place, boot: BootId) {
        self.handle.tell(Command::Fenced { volume, node, boot });
    }

    /// The list of fenced hosts has this version, and of this volume's attachments these are theirs.
    pub fn hosts_fenced(&self, volume: VolumeId, version: u64, clients: Vec<u32>) {
        self.handle.tell(Command::HostsFenced { volume, version, clients });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.volumes.lock().drain().for_each(|(_, known)| known.dial_no_more());
        self.handle.tell(Command::End);
    }
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

/// Begins when the doors open.
async fn once(mut doors: watch::Receiver<bool>, keep: impl Future<Output = ()>) {
    if doors.wait_for(|are_open| *are_open).await.is_ok() {
        keep.await;
    }
}
