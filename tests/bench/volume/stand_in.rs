//! A node in a process of its own (this program again), ordered about through its standard input: the engine as the daemon runs it, without
//! the daemon's configuration and REST.

use std::collections::HashMap;
use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use replication::{
    BootId, DiskId, Durability, Node as Place, Order, Record, Role as ReplicaRole, Settings, Status, VolumeId,
};
use serde::{Deserialize, Serialize};
use tandem_node::arbiter::{Arbiter, ArbiterConfig, Embedded, Limits, Outcome, Register};
use tandem_node::disk::Options;
use tandem_node::engine::VolumeError;
use tandem_node::node::{Node, NodeConfig, Peer, VolumeConfig};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use uuid::Uuid;

use super::payload::BLOCK;

const LOCKED: Duration = Duration::from_secs(10);

/// What this program is when it is started by itself.
pub(crate) const ROLE: &str = "TANDEM_BENCH_ROLE";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Role {
    Arbiter {
        directory: PathBuf,
    },
    Node {
        peers: SocketAddr,
        nbd: SocketAddr,
        arbiter: String,
        boot: Uuid,
    },
    /// Counts what two nodes in this process allocate.
    Allocations {
        arbiter: String,
        folder: PathBuf,
        size_bytes: u64,
    },
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Replica {
    pub(crate) volume: Uuid,
    pub(crate) me: u8,
    pub(crate) size_bytes: u64,
    pub(crate) pool: PathBuf,
    pub(crate) durable_writes: bool,
    /// By place.
    pub(crate) disks: Vec<Uuid>,
    pub(crate) peers: Vec<SocketAddr>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Command {
    Create(Replica),
    Open(Replica),
    Promote(Uuid),
    Look(Uuid),
    Fenced { volume: Uuid, place: u8, boot: Uuid },
}

/// How a volume is on one node.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Seen {
    pub(crate) is_primary: bool,
    pub(crate) in_sync: u32,
    pub(crate) left_bytes: Option<u64>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Seen(Option<Seen>),
    Failed(String),
}

pub(crate) fn serve(role: Role) -> Result<()> {
    let runtime = runtime()?;
    match role {
        Role::Arbiter { directory } => runtime.block_on(arbitrate(directory)),
        Role::Node { peers, nbd, arbiter, boot } => {
            let node = runtime.block_on(Running::begin(peers, nbd, &arbiter, boot))?;
            say(&Answer::Done)?;
            for line in std::io::stdin().lock().lines() {
                let command = serde_json::from_str(&line?)?;
                let answer = runtime.block_on(node.obey(command));
                say(&answer.unwrap_or_else(|error| Answer::Failed(format!("{error:#}"))))?;
            }
            Ok(())
        }
        Role::Allocations { arbiter, folder, size_bytes } => {
            let value = super::allocations::count(&runtime, &arbiter, &folder, size_bytes)?;
            println!("{value}");
            Ok(())
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

async fn arbitrate(directory: PathBuf) -> Result<()> {
    let arbiter = Arbiter::bind(ArbiterConfig { directory, listen: "127.0.0.1:0".parse()?, tls: None }).await?;
    println!("http://{}", arbiter.address());
    let end = async {
        let input = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
        drop(input.await); // whatever ends it
    };
    Ok(arbiter.serve(end).await?)
}

fn say(answer: &Answer) -> Result<()> {
    println!("{}", serde_json::to_string(answer)?);
    Ok(std::io::stdout().flush()?)
}

/// A node that does as it is told.
pub(crate) struct Running {
    node: Node,
    register: Arc<dyn Register>,
}

impl Running {
    pub(crate) async fn begin(peers: SocketAddr, nbd: SocketAddr, arbiter: &str, boot: Uuid) -> Result<Self> {
        let engine = Options::default();
        let config = NodeConfig { peers, nbd, engine, credentials: None, boot: BootId(boot.as_u128()) };
        let register: Arc<dyn Register> = Arc::new(Embedded::new(arbiter, None, Limits::default())?);
        Ok(Self { node: Node::begin(config, register.clone()).await?, register })
    }

    pub(crate) async fn obey(&self, command: Command) -> Result<Answer> {
        match command {
            Command::Create(replica) => self.create(&replica).await?,
            Command::Open(replica) => self.open(&replica).await?,
            Command::Promote(volume) => {
                let promoted = self.node.order(VolumeId(volume.as_u128()), Order::Promote).await;
                promoted.map_err(|refusal| anyhow!("the replica refuses: {refusal:?}"))?;
            }
            Command::Look(volume) => {
                let seen = self.node.look(VolumeId(volume.as_u128())).await;
                return Ok(Answer::Seen(seen.map(|seen| Seen::of(&seen.status))));
            }
            Command::Fenced { volume, place: at, boot } => {
                self.node.fenced(VolumeId(volume.as_u128()), place(at)?, BootId(boot.as_u128()));
            }
        }
        Ok(Answer::Done)
    }

    async fn create(&self, replica: &Replica) -> Result<()> {
        let (config, record) = (config(replica)?, record(replica)?);
        if replica.me == 0 {
            let outcome = self.register.create(config.volume, &record).await;
            ensure!(matches!(outcome, Outcome::Done), "the arbiter does not take the volume: {outcome:?}");
        }
        let disk = DiskId(replica.disks[usize::from(replica.me)].as_u128());
        self.node.create(&config, disk, &record)?;
        Ok(self.node.open(config).await?)
    }

    /// What a process that was killed had in flight keeps its files locked for a moment.
    async fn open(&self, replica: &Replica) -> Result<()> {
        let deadline = Instant::now() + LOCKED;
        loop {
            match self.node.open(config(replica)?).await {
                Err(VolumeError::File(_)) if Instant::now() < deadline => sleep(Duration::from_millis(5)).await,
                outcome => return Ok(outcome?),
            }
        }
    }
}

impl Seen {
    fn of(status: &Status) -> Self {
        Self {
            is_primary: status.role == ReplicaRole::Primary && status.serving,
            in_sync: status.record.in_sync().len(),
            left_bytes: status.peers.iter().find_map(|peer| peer.resync).map(|(left, ..)| left * BLOCK as u64),
        }
    }
}

fn place(number: u8) -> Result<Place> {
    Place::new(number).context("fewer than eight")
}

fn record(replica: &Replica) -> Result<Record> {
    let disks = (0..).zip(&replica.disks);
    let disks: Vec<_> = disks.map(|(at, disk)| Ok((place(at)?, DiskId(disk.as_u128())))).collect::<Result<_>>()?;
    Ok(Record::of_new_volume(disks))
}

fn config(replica: &Replica) -> Result<VolumeConfig> {
    let volume = VolumeId(replica.volume.as_u128());
    let me = place(replica.me)?;
    let durability = if replica.durable_writes { Durability::Write } else { Durability::Flush };
    let mut peers = HashMap::new();
    for (number, address) in (0..).zip(&replica.peers).filter(|(at, _)| *at != replica.me) {
        peers.insert(place(number)?, Peer { name: format!("node-{number}").parse()?, address: *address });
    }
    let size_blocks = replica.size_bytes / BLOCK as u64;
    let settings = Settings { durability, ..Settings::of(volume, me) };
    Ok(VolumeConfig { volume, me, size_blocks, pool: replica.pool.clone(), settings, peers })
}
