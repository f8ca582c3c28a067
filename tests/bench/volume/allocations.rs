//! How often memory is allocated for one write, in the steady state: two nodes in one process whose allocator counts.
//!
//! The whole process is counted, so that nothing escapes; what it allocates in the same time without writes (timers, the runtime) is taken off.
//! The client is in it too, and allocates nothing.

use std::alloc::System;
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
    let addresses = [free_address()?, free_address()?];
    let nbd = free_address()?;
    let (volume, disks) = (Uuid::new_v4(), vec![Uuid::new_v4(), Uuid::new_v4()]);
    let mut nodes = Vec::new();
    for (me, peers) in (0..).zip(addresses) {
        let clients = if me == 0 { nbd } else { free_address()? };
        let pool = folder.join(format!("counted-{me}"));
        std::fs::create_dir_all(&pool)?;
        let (disks, peers_of) = (disks.clone(), addresses.to_vec());
        let replica = Replica { volume, me, size_bytes, pool, durable_writes: false, disks, peers: peers_of };
        let node = runtime.block_on(Running::begin(peers, clients, arbiter, Uuid::new_v4()))?;
        runtime.block_on(node.obey(Command::Create(replica)))?;
        nodes.push(node);
    }
    runtime.block_on(nodes[0].obey(Command::Promote(volume)))?;
    until("both nodes are in sync", || {
        let answer = runtime.block_on(nodes[0].obey(Command::Look(volume)))?;
        Ok(matches!(answer, Answer::Seen(Some(seen)) if seen.is_primary && seen.in_sync == 2).then_some(()))
    })?;
    let ledger = Ledger::new(size_bytes);
    load::fill(&ledger, NbdLane::connect(nbd, &volume.to_string(), 8, 1 << 20)?, 1 << 20, 8)?;
    let before = allocated();
    pause(TIME);
    let idle = allocated() - before;
    let work = Workload::new("write_qd32", Pattern::Write, 1, 32, 4096);
    let span = Span::new(WARM_UP, TIME);
    let mut counted = (0, 0);
    let open = |work: &Workload| NbdLane::connect(nbd, &volume.to_string(), work.depth, work.bytes);
    load::run(&work, &ledger, &span, open, || {
        pause(WARM_UP);
        let (before, begun) = (allocated(), span.done.load(Ordering::Relaxed));
        pause(TIME - Duration::from_millis(100)); // it ends while all is still under way
        counted = (allocated() - before, span.done.load(Ordering::Relaxed) - begun);
        Ok(())
    })?;
    let (during, writes) = counted;
    eprintln!("allocations: {during} during {writes} writes, {idle} in the same time without");
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    Ok(during.saturating_sub(idle) as f64 / writes.max(1) as f64)
}
