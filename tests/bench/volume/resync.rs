//! How fast a node that was away gets a whole volume, and what its clients notice of it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::cluster::{Cluster, LOOK_AGAIN, Volume};
use super::floor::{link_mib_s, mib};
use super::load::{self, Pattern, Span, Workload};
use super::nbd::NbdLane;
use super::payload::Ledger;
use super::processes::{pause, until_every};
use super::raw::{self, RawLane};

const LARGE: usize = 1 << 20;
const DEPTH: usize = 8;
const GUEST: Workload = Workload::new("write_qd32", Pattern::Write, 1, 32, 4096);
/// The longest that is waited for a resync under load: it gives way to clients.
const LONGEST: Duration = Duration::from_secs(60);

/// One round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) disk_mib_s: f64,
    pub(crate) link_mib_s: f64,
    pub(crate) resync_mib_s: f64,
    pub(crate) guest_before: f64,
    pub(crate) guest_during: f64,
    pub(crate) resync_under_load_mib_s: f64,
}

pub(crate) fn round(folder: &Path, cluster: &mut Cluster, volume: &Volume, time: Duration) -> Result<Round> {
    let ledger = Ledger::new(volume.size_bytes());
    let (disk_mib_s, link_mib_s) = (disk(folder, volume.size_bytes(), time)?, link_mib_s(time)?);
    let resync_mib_s = idle(cluster, volume, &ledger)?;
    let (guest_before, guest_during, resync_under_load_mib_s) = under_load(cluster, volume, &ledger, time)?;
    let lane = NbdLane::connect(cluster.nbd(0), &volume.export(), 1, LARGE)?;
    load::verify(&ledger, lane, LARGE)?;
    Ok(Round { disk_mib_s, link_mib_s, resync_mib_s, guest_before, guest_during, resync_under_load_mib_s })
}

/// What one writer of 1 MiB pieces gets out of the disk.
fn disk(folder: &Path, size_bytes: u64, time: Duration) -> Result<f64> {
    let path = folder.join("sequential.data");
    let file = raw::create(&path, size_bytes)?;
    let ledger = Ledger::new(size_bytes);
    load::fill(&ledger, RawLane::open(&file, DEPTH, LARGE)?, LARGE, DEPTH)?;
    let work = Workload::new("sequential_write", Pattern::SequentialWrite, 1, DEPTH, LARGE);
    let span = Span::new(time / 4, time);
    let open = |work: &Workload| RawLane::open(&file, work.depth, work.bytes);
    let met = load::run(&work, &ledger, &span, open, || Ok(()))?;
    std::fs::remove_file(&path)?;
    Ok(mib(met.operations * LARGE as u64) / met.seconds)
}

/// The other node misses every block of the volume.
fn miss_everything(cluster: &mut Cluster, volume: &Volume, ledger: &Ledger) -> Result<()> {
    cluster.kill(1);
    until_every(
        LOOK_AGAIN,
        "the dead node is dropped",
        || Ok((cluster.look(0, volume)?.in_sync() == 1).then_some(())),
    )?;
    load::fill(ledger, NbdLane::connect(cluster.nbd(0), &volume.export(), DEPTH, LARGE)?, LARGE, DEPTH)
}

/// When a resync began and ended.
fn watch(cluster: &Cluster, volume: &Volume) -> Result<(Instant, u64)> {
    until_every(LOOK_AGAIN, "the resync begins", || {
        let left = cluster.look(0, volume)?.left_bytes();
        Ok(left.map(|left| (Instant::now(), left)))
    })
}

fn idle(cluster: &mut Cluster, volume: &Volume, ledger: &Ledger) -> Result<f64> {
    miss_everything(cluster, volume, ledger)?;
    cluster.start_again(1, false)?;
    let (begun, bytes) = watch(cluster, volume)?;
    cluster.until_in_sync(0, volume, 2)?;
    Ok(mib(bytes) / begun.elapsed().as_secs_f64())
}

fn under_load(cluster: &mut Cluster, volume: &Volume, ledger: &Ledger, time: Duration) -> Result<(f64, f64, f64)> {
    let (address, export) = (cluster.nbd(0), volume.export());
    let open = |work: &Workload| NbdLane::connect(address, &export, work.depth, work.bytes);
    let before = Span::new(time / 4, time);
    let met = load::run(&GUEST, ledger, &before, open, || Ok(()))?;
    miss_everything(cluster, volume, ledger)?;
    let (span, mut seen) = (Span::new(Duration::ZERO, 3 * LONGEST), None);
    load::run(&GUEST, ledger, &span, open, || {
        seen = Some(guest_during(cluster, volume, &span));
        span.stop.store(true, Ordering::Relaxed);
        Ok(())
    })?;
    let (during, resync) = seen.context("it was watched")??;
    cluster.until_in_sync(0, volume, 2)?;
    Ok((per_second(met.operations, met.seconds), during, resync))
}

/// Writes per second of the client, and MiB per second of the resync, while it lasts.
fn guest_during(cluster: &mut Cluster, volume: &Volume, span: &Span) -> Result<(f64, f64)> {
    cluster.start_again(1, false)?;
    let (begun, bytes) = watch(cluster, volume)?;
    let done = span.done.load(Ordering::Relaxed);
    let mut left = bytes;
    while begun.elapsed() < LONGEST {
        match cluster.look(0, volume)?.left_bytes() {
            Some(now) => left = now,
            None => {
                left = 0;
                break;
            }
        }
        pause(LOOK_AGAIN);
    }
    let seconds = begun.elapsed().as_secs_f64();
    let copied = bytes.saturating_sub(left);
    Ok((per_second(span.done.load(Ordering::Relaxed) - done, seconds), mib(copied) / seconds))
}

#[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
fn per_second(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds
}
