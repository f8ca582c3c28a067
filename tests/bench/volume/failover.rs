//! How long a client waits when the Primary is killed: from SIGKILL to the acknowledgement of its next write by the other node.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;

use super::cluster::{Cluster, Volume};
use super::load::{self, Lane};
use super::nbd::NbdLane;
use super::payload::{BLOCK, Ledger};
use super::processes::{pause, until};

const PATIENCE: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_millis(2);

/// A volume that is written to, by one client that wants one write after the other acknowledged.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) volume: &'a Volume,
    pub(crate) ledger: &'a Ledger,
    pub(crate) primary: usize,
    pub(crate) random: Rng,
}

impl Stage<'_> {
    /// The seconds of so many takeovers, each node in turn. `known`: that the node is dead is told to the other one at once.
    pub(crate) fn takeovers(&mut self, runs: usize, known: bool) -> Result<Vec<f64>> {
        (0..runs).map(|run| self.takeover(known).with_context(|| format!("takeover {run}"))).collect()
    }

    fn takeover(&mut self, known: bool) -> Result<f64> {
        let (dies, survivor) = (self.primary, 1 - self.primary);
        let (from, to, export) = (self.cluster.nbd(dies), self.cluster.nbd(survivor), self.volume.export());
        let (ledger, seed, writes) = (self.ledger, self.random.u64(..), AtomicBool::new(false));
        let waited = std::thread::scope(|scope| {
            let client = scope.spawn(|| write_on(ledger, seed, from, to, &export, &writes));
            until("the client writes", || Ok((writes.load(Ordering::Relaxed) || client.is_finished()).then_some(())))?;
            pause(Duration::from_millis(self.random.u64(50..450))); // at any moment between two heartbeats
            let killed = Instant::now();
            self.cluster.kill(dies);
            if known {
                self.cluster.tell_dead(dies)?;
            }
            let acknowledged = client.join().ok().context("the client panicked")??;
            Ok::<_, anyhow::Error>((acknowledged - killed).as_secs_f64())
        })?;
        self.cluster.start_again(dies, known)?;
        self.cluster.until_in_sync(survivor, self.volume, 2)?;
        self.primary = survivor;
        Ok(waited)
    }

    /// Everything that was ever acknowledged is still there.
    pub(crate) fn verify(&self) -> Result<()> {
        let lane = NbdLane::connect(self.cluster.nbd(self.primary), &self.volume.export(), 1, 1 << 20)?;
        load::verify(self.ledger, lane, 1 << 20)
    }
}

/// Writes to one node until it is gone, then to the other; when that acknowledged the first write.
fn write_on(
    ledger: &Ledger,
    seed: u64,
    from: SocketAddr,
    to: SocketAddr,
    export: &str,
    writes: &AtomicBool,
) -> Result<Instant> {
    let mut random = Rng::with_seed(seed);
    let mut block = random.u64(0..ledger.blocks());
    let mut lane = NbdLane::connect(from, export, 1, BLOCK)?;
    while write(ledger, &mut lane, block).is_ok() {
        writes.store(true, Ordering::Relaxed);
        block = random.u64(0..ledger.blocks());
    }
    let lost = Instant::now();
    loop {
        let written = NbdLane::connect(to, export, 1, BLOCK).and_then(|mut lane| write(ledger, &mut lane, block));
        match written {
            Ok(()) => return Ok(Instant::now()),
            Err(error) => {
                ensure!(lost.elapsed() < PATIENCE, "no write in {} s: {error:#}", PATIENCE.as_secs());
                pause(RETRY);
            }
        }
    }
}

fn write(ledger: &Ledger, lane: &mut NbdLane, block: u64) -> Result<()> {
    lane.write(0, block * BLOCK as u64, BLOCK, |data| ledger.stamp(block, data))?;
    lane.wait(|_, _| {
        ledger.written(block, 1);
        Ok(())
    })
}
