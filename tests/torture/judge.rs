//! What is found at the end of a cycle: whether clients were told the truth, and whether replicas are equal.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use system_tests::history::{Kind, Value};

use crate::clients::{self, SIZE_BYTES, Volume};
use crate::cluster::Cluster;

const SERVES_WITHIN: Duration = Duration::from_secs(20);

/// What broke a promise, as the report counts it.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Counts {
    pub(crate) lost_acknowledged_writes: usize,
    pub(crate) stale_reads: usize,
    /// Torn, damaged, never written by anybody, or more at once than can be judged.
    pub(crate) damaged_blocks: usize,
    pub(crate) diverged_replicas: usize,
}

impl Counts {
    pub(crate) fn is_clean(self) -> bool {
        let Self { lost_acknowledged_writes, stale_reads, damaged_blocks, diverged_replicas } = self;
        lost_acknowledged_writes + stale_reads + damaged_blocks + diverged_replicas == 0
    }

    fn count(&mut self, kind: Kind) {
        match kind {
            Kind::LostWrite => self.lost_acknowledged_writes += 1,
            Kind::StaleRead => self.stale_reads += 1,
            Kind::NeverWritten | Kind::Damaged | Kind::Undecided => self.damaged_blocks += 1,
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.lost_acknowledged_writes += other.lost_acknowledged_writes;
        self.stale_reads += other.stale_reads;
        self.damaged_blocks += other.damaged_blocks;
        self.diverged_replicas += other.diverged_replicas;
    }
}

/// What the volume may have lost, if it was without power altogether.
pub(crate) type MayHold = Option<BTreeMap<u64, BTreeSet<Value>>>;

#[derive(Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) counts: Counts,
    /// In words, for a person.
    pub(crate) told: String,
    pub(crate) operations: usize,
}

/// Judges one volume whose clients rest and whose replicas are all UpToDate.
pub(crate) fn judge(cluster: &Cluster, volume: &Volume, may_hold: &MayHold) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    let shown = read_all(volume, may_hold.is_none())?;
    match volume.history.check() {
        Ok(checked) => verdict.operations = checked.operations,
        Err(violations) => {
            violations.0.iter().for_each(|violation| verdict.counts.count(violation.kind));
            verdict.told += &violations.to_string();
        }
    }
    if let Some(may_hold) = may_hold {
        verdict.after_power_loss(may_hold, &shown);
    }
    verdict.compare(cluster, volume)?;
    let held = shown.into_iter().filter_map(|(block, value)| Some((block, value.ok()?))).collect();
    volume.history.settled(&held);
    Ok(verdict)
}

type Shown = BTreeMap<u64, Result<Value, String>>;

/// In a thread of its own, for it enters the networks of hosts.
fn read_all(volume: &Volume, is_of_history: bool) -> Result<Shown> {
    let read = || {
        let mut shown = Shown::new();
        clients::read_all(volume, SERVES_WITHIN, |block, bytes| {
            let value = match is_of_history {
                true => volume.history.read(0, block).showed(bytes),
                false => volume.history.decode(block, bytes),
            };
            shown.insert(block, value.map_err(|damage| damage.to_string()));
        })?;
        Ok(shown)
    };
    thread::scope(|scope| scope.spawn(read).join().expect("it does not panic"))
}

impl Verdict {
    fn after_power_loss(&mut self, may_hold: &BTreeMap<u64, BTreeSet<Value>>, shown: &Shown) {
        for (block, value) in shown {
            let possible = may_hold.get(block).cloned().unwrap_or_else(|| BTreeSet::from([Value::Zeroes]));
            let what = match value {
                Ok(value) if possible.contains(value) => continue,
                Ok(value) => {
                    self.counts.lost_acknowledged_writes += 1;
                    value.to_string()
                }
                Err(damage) => {
                    self.counts.damaged_blocks += 1;
                    damage.clone()
                }
            };
            let possible: Vec<String> = possible.iter().map(ToString::to_string).collect();
            self.told += &format!("block {block} after a power loss: {what}; flushes leave {}\n", possible.join(", "));
        }
    }

    /// Byte for byte, past the page cache.
    fn compare(&mut self, cluster: &Cluster, volume: &Volume) -> Result<()> {
        let mut first: Option<Vec<u8>> = None;
        for port in &volume.hosts {
            let path = cluster.data_file(*port, volume.uuid);
            let data = read_past_cache(&path).with_context(|| format!("could not read {}", path.display()))?;
            ensure!(data.len() as u64 == SIZE_BYTES, "{} has {} bytes", path.display(), data.len());
            let Some(first) = &first else {
                first = Some(data);
                continue;
            };
            let blocks = || first.as_chunks::<4096>().0.iter().zip(data.as_chunks::<4096>().0);
            let differ: Vec<usize> =
                blocks().enumerate().filter(|(_, (one, other))| one != other).map(|(at, _)| at).collect();
            if !differ.is_empty() {
                self.counts.diverged_replicas += 1;
                self.told +=
                    &format!("{}: {port} differs from {} in blocks {differ:?}\n", volume.name, volume.hosts[0]);
            }
        }
        Ok(())
    }
}

fn read_past_cache(path: &Path) -> Result<Vec<u8>> {
    // Dropping what the kernel has cached of a file needs no aligned memory, which direct reads would.
    rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(fs::read(path)?)
}
