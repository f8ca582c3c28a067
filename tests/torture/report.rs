//! target/torture/volume.json.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::judge::Counts;

const CYCLES_WANTED: u32 = 200;

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) cycles: u32,
    #[serde(flatten)]
    pub(crate) counts: Counts,
    pub(crate) longest_gap_s: f64,
    gap_is: &'static str,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
    /// What ended the run before its time.
    pub(crate) ended_by: Option<String>,
    pub(crate) rows: Vec<Row>,
    targets: Vec<Target>,
}

#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) cycle: u32,
    pub(crate) fault: String,
    pub(crate) seconds: f64,
    pub(crate) gap_s: f64,
    /// From the end of the faults until all replicas were UpToDate.
    pub(crate) whole_after_s: f64,
    pub(crate) operations: usize,
    /// Requests that were answered with an error.
    pub(crate) errors: u64,
    /// Volumes whose every replica lost its power, or was away when the last one did.
    pub(crate) power_lost: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Target {
    name: &'static str,
    value: f64,
    limit: f64,
    better: &'static str,
    holds: bool,
}

impl Report {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            cycles: 0,
            counts: Counts::default(),
            longest_gap_s: 0.0,
            gap_is: "the longest time in which no request of any client of a volume was answered, while the arbiter and a replica \
                     that was in sync when the cycle began were untouched, or all faults had ended",
            requests: 0,
            errors: 0,
            ended_by: None,
            rows: Vec::new(),
            targets: Vec::new(),
        }
    }

    pub(crate) fn write(&mut self, path: &Path) -> Result<()> {
        let Counts { lost_acknowledged_writes, stale_reads, damaged_blocks: _, diverged_replicas } = self.counts;
        let cycles = f64::from(self.cycles);
        self.targets = vec![Target {
            name: "cycles",
            value: cycles,
            limit: f64::from(CYCLES_WANTED),
            better: "higher",
            holds: self.cycles >= CYCLES_WANTED,
        }];
        let zeroes = [
            ("lost_acknowledged_writes", lost_acknowledged_writes),
            ("stale_reads", stale_reads),
            ("diverged_replicas", diverged_replicas),
        ];
        for (name, found) in zeroes {
            let value = f64::from(u32::try_from(found).unwrap_or(u32::MAX));
            self.targets.push(Target { name, value, limit: 0.0, better: "lower", holds: found == 0 });
        }
        let text = serde_json::to_vec_pretty(self)?;
        std::fs::write(path, text).with_context(|| format!("could not write {}", path.display()))
    }
}
