//! How often memory is allocated for one write, in the steady state: two nodes in one process whose allocator counts.
//!
//! The whole process is counted, so that nothing escapes; what it allocates in the same time without writes (timers, the runtime) is taken off.
//! The client is in it too, and allocates nothing.

use std::alloc::System;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;
use uuid::Uuid;

use super::load::{self, Pattern, Span, Workload};
use super::nbd::NbdLane;
use super::payload::Ledger;
use super::processes::{free_address, pause, until};
use super::stand_in::{Answer, Command, Replica, Running};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: Duration = Duration::from_secs(3);
const TIME: Duration = Duration::from_secs(2);

fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.allocations + stats.reallocations
}

/// Allocations per write of 4 KiB, on both nodes together.
pub(crate) fn count(runtime: &Runtime, arbiter: &str, folder: &Path, size_bytes: u64) -> Result<f64> {
    let pair = Pair::begin(runtime, arbiter, folder, size_bytes)?;
    let ledger = Ledger::new(size_bytes);
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
    _nodes: Vec<Running>,
    nbd: SocketAddr,
    volume: Uuid,
}

impl Pair {
    fn begin(runtime: &Runtime, arbiter: &str, folder: &Path, size_bytes: u64) -> Result<Self> {
        let (addresses, clients) = ([free_address()?, free_address()?], [free_address()?, free_address()?]);
        let (volume, disks, mut nodes) = (Uuid::new_v4(), vec![Uuid::new_v4(), Uuid::new_v4()], Vec::new());
        for (me, (peers, nbd)) in (0..).zip(addresses.into_iter().zip(clients)) {
            let pool = folder.join(format!("counted-{me}"));
            std::fs::create_dir_all(&pool)?;
            let (disks, all) = (disks.clone(), addresses.to_vec());
            let replica = Replica { volume, me, size_bytes, pool, durable_writes: false, disks, peers: all };
            let node = runtime.block_on(Running::begin(peers, nbd, arbiter, Uuid::new_v4()))?;
            runtime.block_on(node.obey(Command::Create(replica)))?;
            nodes.push(node);
        }
        runtime.block_on(nodes[0].obey(Command::Promote(volume)))?;
        until("both nodes are in sync", || {
            let answer = runtime.block_on(nodes[0].obey(Command::Look(volume)))?;
            Ok(matches!(answer, Answer::Seen(Some(seen)) if seen.is_primary && seen.in_sync == 2).then_some(()))
        })?;
        Ok(Self { _nodes: nodes, nbd: clients[0], volume })
    }

    fn connect(&self, depth: usize, bytes: usize) -> Result<NbdLane> {
        NbdLane::connect(self.nbd, &self.volume.to_string(), depth, bytes)
    }
}
