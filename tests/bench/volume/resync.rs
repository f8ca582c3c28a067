//! How fast a node that was away gets a whole volume, and what its clients notice of it.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tandem_node::disk::{Buffers, DiskFile, Engine, Operation, Options, Ring};

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
    pub(crate) copy_mib_s: f64,
    pub(crate) link_mib_s: f64,
    pub(crate) resync_mib_s: f64,
    pub(crate) guest_before: f64,
    pub(crate) guest_during: f64,
    pub(crate) resync_under_load_mib_s: f64,
}

pub(crate) fn round(folder: &Path, cluster: &mut Cluster, volume: &Volume, time: Duration) -> Result<Round> {
    let ledger = Ledger::new(volume.size_bytes());
    let (copy_mib_s, link_mib_s) = (copying(folder, volume.size_bytes(), time)?, link_mib_s(time)?);
    let resync_mib_s = idle(cluster, volume, &ledger)?;
    let (guest_before, guest_during, resync_under_load_mib_s) = under_load(cluster, volume, &ledger, time)?;
    let lane = NbdLane::connect(cluster.nbd(0), &volume.export(), 1, LARGE)?;
    load::verify(&ledger, lane, LARGE)?;
    Ok(Round { copy_mib_s, link_mib_s, resync_mib_s, guest_before, guest_during, resync_under_load_mib_s })
}

/// What the disk gives to somebody who only copies, in pieces of 1 MiB, `DEPTH` at once. Both replicas lie on it, so a resync reads it, too.
fn copying(folder: &Path, size_bytes: u64, time: Duration) -> Result<f64> {
    let paths = ["from.data", "to.data"].map(|name| folder.join(name));
    let [from, to] = [raw::create(&paths[0], size_bytes)?, raw::create(&paths[1], size_bytes)?];
    for file in [&from, &to] {
        load::fill(&Ledger::new(size_bytes), RawLane::open(file, DEPTH, LARGE)?, LARGE, DEPTH)?;
    }
    let mib_s = copy(&from, &to, time)?;
    paths.iter().try_for_each(std::fs::remove_file)?;
    Ok(mib_s)
}

fn copy(from: &DiskFile, to: &DiskFile, time: Duration) -> Result<f64> {
    let mut ring = Ring::new(Options { engine: Engine::Uring, ..Options::default() })?;
    let buffers = Buffers::new(&[(LARGE, u32::try_from(DEPTH)?)])?;
    let pieces = from.size() / LARGE as u64;
    let read = |piece: u64| -> Result<Operation> {
        let buffer = buffers.take(LARGE).context("there is a buffer for each piece under way")?;
        Ok(Operation::Read { file: from.clone(), offset: piece % pieces * LARGE as u64, buffer, into: 0..LARGE })
    };
    for piece in 0..DEPTH as u64 {
        ring.submit(read(piece)?, piece);
    }
    let (mut next, mut copied, mut completions) = (DEPTH as u64, 0, Vec::new());
    let begun = Instant::now();
    while begun.elapsed() < time {
        ring.wait(&mut completions, None)?;
        for completion in completions.drain(..) {
            completion.result?;
            match completion.buffer {
                Some(buffer) => {
                    let offset = completion.token % pieces * LARGE as u64;
                    let write = Operation::Write { file: to.clone(), offset, data: buffer.share(), durable: false };
                    ring.submit(write, completion.token);
                }
                None => {
                    copied += LARGE as u64;
                    ring.submit(read(next)?, next);
                    next += 1;
                }
            }
        }
    }
    Ok(mib(copied) / begun.elapsed().as_secs_f64())
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
