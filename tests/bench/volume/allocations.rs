//! How often memory is allocated for one write, in the steady state: two nodes in one process whose allocator counts.
//!
//! The whole process is counted, so that nothing escapes; what it allocates in the same time without writes (timers, the runtime) is taken off.
//! The client is in it too, and allocates nothing.

use std::alloc::System;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Result, anyhow, ensure};
use replication::{BootId, DiskId, Node as Place, Order, Record, Role, Settings, VolumeId};
use serde::{Deserialize, Serialize};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use system_tests::addresses::free_address;
use tandem_node::arbiter::{Embedded, Limits, Outcome, Register};
use tandem_node::disk::Options;
use tandem_node::node::{Node, NodeConfig, Peer, VolumeConfig};
use uuid::Uuid;

use super::load::{self, Pattern, Span, Workload};
use super::nbd::NbdLane;
use super::payload::{BLOCK, Ledger};
use super::processes::{pause, until};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(2);

/// What the process that counts is told.
pub(crate) const COUNT: &str = "TANDEM_BENCH_COUNT";

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// Where an arbiter is.
    pub(crate) arbiter: String,
    pub(crate) folder: PathBuf,
    pub(crate) size_bytes: u64,
}

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// This program, when it is started by itself with that: says how many it counts.
pub(crate) fn serve(task: &str) -> Result<()> {
    println!("{}", count(&serde_json::from_str(task)?)?);
    Ok(())
}

/// Allocations per write of 4 KiB, on both nodes together.
fn count(task: &Task) -> Result<f64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pair = runtime.block_on(Pair::begin(task))?;
    until("both nodes are in sync", || Ok(runtime.block_on(pair.is_whole()).then_some(())))?;
    let ledger = Ledger::new(task.size_bytes);
    load::fill(&ledger, pair.connect(8, 1 << 20)?, 1 << 20, 8)?;
    let before = allocated();
    pause(TIME);
    let idle = allocated() - before;
    let work = Workload::new("write_qd32", Pattern::Write, 1, 32, 4096);
    let span = Span::new(WARM_UP, TIME);
    let mut counted = (0, 0);
    load::run(
        &work,
        &ledger,
        &span,
        |work| pair.connect(work.depth, work.bytes),
        || {
            pause(WARM_UP);
            let (before, begun) = (allocated(), span.done.load(Ordering::Relaxed));
            pause(TIME - Duration::from_millis(100)); // it ends while all is still under way
            counted = (allocated() - before, span.done.load(Ordering::Relaxed) - begun);
            Ok(())
        },
    )?;
    let (during, writes) = counted;
    eprintln!("  {during} during {writes} writes, {idle} in the same time without");
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    Ok(during.saturating_sub(idle) as f64 / writes.max(1) as f64)
}

/// Two nodes, here, with a volume whose Primary is the first.
struct Pair {
    nodes: Vec<Node>,
    nbd: SocketAddr,
    volume: VolumeId,
}

impl Pair {
    async fn begin(task: &Task) -> Result<Self> {
        let volume = VolumeId(Uuid::new_v4().as_u128());
        let disks: Vec<_> = places().map(|place| (place, DiskId(Uuid::new_v4().as_u128()))).collect();
        let addresses = [free_address("127.0.0.1")?, free_address("127.0.0.1")?];
        let register: Arc<dyn Register> = Arc::new(Embedded::new(&task.arbiter, None, Limits::default())?);
        let record = Record::of_new_volume(disks.clone());
        let outcome = register.create(volume, &record).await;
        ensure!(matches!(outcome, Outcome::Done), "the arbiter does not take the volume: {outcome:?}");
        let mut nodes = Vec::new();
        for (me, disk) in disks {
            let node = Node::begin(config(addresses[usize::from(me.place())])?, register.clone()).await?;
            node.let_in();
            let replica = replica(task, volume, me, &addresses)?;
            node.create(&replica, disk, &record)?;
            node.open(replica).await?;
            nodes.push(node);
        }
        let promoted = nodes[0].order(volume, Order::Promote).await;
        promoted.map_err(|refusal| anyhow!("the first node refuses: {refusal:?}"))?;
        Ok(Self { nbd: nodes[0].nbd_address(), nodes, volume })
    }

    async fn is_whole(&self) -> bool {
        let seen = self.nodes[0].look(self.volume).await;
        let status = seen.map(|seen| seen.status);
        status.is_some_and(|it| it.role == Role::Primary && it.serving && it.record.in_sync().len() == 2)
    }

    fn connect(&self, depth: usize, bytes: usize) -> Result<NbdLane> {
        NbdLane::connect(self.nbd, &self.volume.to_string(), depth, bytes)
    }
}

fn places() -> impl Iterator<Item = Place> {
    (0..2).filter_map(Place::new)
}

fn config(peers: SocketAddr) -> Result<NodeConfig> {
    let (nbd, engine, boot) = ("127.0.0.1:0".parse()?, Options::default(), BootId(Uuid::new_v4().as_u128()));
    Ok(NodeConfig { peers, nbd, iscsi: None, engine, credentials: None, boot })
}

/// Of the node at `me`.
fn replica(task: &Task, volume: VolumeId, me: Place, addresses: &[SocketAddr]) -> Result<VolumeConfig> {
    let pool = task.folder.join(format!("counted-{}", me.place()));
    std::fs::create_dir_all(&pool)?;
    let mut peers = HashMap::new();
    for (place, address) in places().zip(addresses).filter(|(place, _)| *place != me) {
        peers.insert(place, Peer { name: format!("node-{}", place.place()).parse()?, address: *address, iscsi: None });
    }
    let size_blocks = task.size_bytes / BLOCK as u64;
    Ok(VolumeConfig { volume, me, size_blocks, pool, settings: Settings::of(volume, me), peers })
}
