//! What came out: a table for people, and target/bench/volume.json.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::arms::{ARMS, CEPH, ONE, QEMU, RAW, TWO, TWO_DURABLE, WORKLOADS};
use super::floor::Floor;
use super::resync;
use super::table::Table;
use super::targets::{self, Target, median, p99, round};

/// All that was measured; what was not is empty.
pub(crate) struct Results {
    pub(crate) table: Table,
    /// One for each round.
    pub(crate) floors: Vec<Floor>,
    pub(crate) allocations_per_write: Option<f64>,
    pub(crate) takeovers_s: Vec<f64>,
    pub(crate) known_takeovers_s: Vec<f64>,
    pub(crate) resyncs: Vec<resync::Round>,
}

/// Ceph's writes are on both disks for good when they are acknowledged.
const NOT_DURABLE: &str = "not durable here, durable there";

impl Default for Results {
    fn default() -> Self {
        Self {
            table: Table::new(&WORKLOADS, &ARMS),
            floors: Vec::new(),
            allocations_per_write: None,
            takeovers_s: Vec::new(),
            known_takeovers_s: Vec::new(),
            resyncs: Vec::new(),
        }
    }
}

impl Results {
    fn targets(&self) -> Vec<Target> {
        let (lower, higher) = (Target::lower, Target::higher);
        vec![
            lower("write_qd1_p50_vs_floor", 1.4, self.write_vs_floor()),
            higher("write_qd32_vs_qemu_nbd", 1.0, self.table.rate((TWO, QEMU), "write_qd32")),
            higher("write_qd1_vs_qemu_nbd", 0.7, self.table.rate((TWO, QEMU), "write_qd1")),
            higher("read_qd1_vs_best", 1.0, self.read_vs_best("read_qd1")),
            higher("read_qd32_vs_best", 1.0, self.read_vs_best("read_qd32")),
            higher("write_qd1_vs_ceph", 8.0, self.table.rate((TWO, CEPH), "write_qd1")).noted(NOT_DURABLE),
            higher("write_qd32_vs_ceph", 8.0, self.table.rate((TWO, CEPH), "write_qd32")).noted(NOT_DURABLE),
            higher("durable_write_qd1_vs_ceph", 3.0, self.table.rate((TWO_DURABLE, CEPH), "write_qd1"))
                .noted("durable on both sides"),
            higher("seq_write_vs_raw", 0.40, self.table.rate((TWO, RAW), "sequential_write_1m")),
            lower("allocations_per_write", 0.0, self.allocations_per_write.map(|value| round(value, 2)))
                .noted("both nodes; less than one in 200 writes counts as none"),
            lower("node_rss_mib", 48.0, self.node_memory_mib()),
            lower("failover_p99_s", 3.0, p99(&self.takeovers_s)),
            lower("failover_known_fence_p99_s", 0.5, p99(&self.known_takeovers_s)),
            higher("resync_vs_min_disk_link", 0.7, self.of_resyncs(resync::Round::vs_min_disk_link)),
            higher("guest_iops_during_resync", 0.7, self.of_resyncs(resync::Round::guest_during_vs_before)),
        ]
    }

    fn read_vs_best(&self, work: &'static str) -> Option<f64> {
        let best = self.table.of(QEMU, work).iter().zip(self.table.of(RAW, work));
        let best = best.map(|(qemu, raw)| (1.2 * qemu.per_second).min(0.9 * raw.per_second));
        median(self.table.of(TWO, work).iter().zip(best).map(|(ours, best)| ours.per_second / best))
    }

    fn write_vs_floor(&self) -> Option<f64> {
        let rounds = self.table.of(TWO, "write_qd1").iter().zip(&self.floors);
        median(rounds.map(|(ours, floor)| ours.p50_us / floor.write_us()))
    }

    /// The most that a node ever held while it was measured. The arbiter is smaller.
    fn node_memory_mib(&self) -> Option<f64> {
        let cells = self
            .table
            .cells
            .iter()
            .filter(|((arm, _), _)| [ONE, TWO, TWO_DURABLE].contains(arm))
            .flat_map(|(_, cells)| cells);
        cells.map(|cell| cell.memory_mib).max_by(f64::total_cmp)
    }

    fn of_resyncs(&self, what: impl Fn(&resync::Round) -> f64) -> Option<f64> {
        median(self.resyncs.iter().map(what))
    }

    pub(crate) fn show(&self) {
        if let Some(floor) = median(self.floors.iter().map(Floor::write_us)) {
            let model = median(self.floors.iter().map(|floor| floor.replicate_us)).unwrap_or_default();
            println!(
                "floor of a replicated write: {floor:.1} us p50 ({model:.1} us protocol C, the rest a client's round trip)"
            );
        }
        self.table.show(|arm, work| self.vs_floor(arm, work));
        self.show_waits();
        targets::show(&self.targets());
    }

    fn show_waits(&self) {
        for (name, waits) in [("failover", &self.takeovers_s), ("failover, known fence", &self.known_takeovers_s)] {
            if let (Some(p50), Some(p99)) = (median(waits.iter().copied()), p99(waits)) {
                println!("{name}: {} runs, p50 {p50:.3} s, p99 {p99:.3} s", waits.len());
            }
        }
        for it in &self.resyncs {
            println!(
                "resync: {:.0} MiB/s idle (the disk copies {:.0}, link {:.0}); under load {:.0} MiB/s, client {:.0}/s, before {:.0}/s",
                it.resync_mib_s,
                it.copy_mib_s,
                it.link_mib_s,
                it.resync_under_load_mib_s,
                it.guest_during,
                it.guest_before
            );
        }
    }

    /// Of writes one at a time.
    fn vs_floor(&self, arm: &'static str, work: &'static str) -> Option<f64> {
        let cell = self.table.median_cell(arm, work).filter(|_| work == "write_qd1")?;
        Some(cell.p50_us / median(self.floors.iter().map(Floor::write_us))?)
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = self.table.rows(|arm, work| self.vs_floor(arm, work));
        for (name, part) in
            [("floor_replicate", Self::replicate as fn(&Floor) -> f64), ("floor_round_trip", Self::round_trip)]
        {
            let p50_us = median(self.floors.iter().map(part)).map(|value| round(value, 1));
            rows.extend(p50_us.map(|p50_us| json!({"name": name, "p50_us": p50_us, "rounds": self.floors.len()})));
        }
        for (name, waits) in [("failover", &self.takeovers_s), ("failover_known_fence", &self.known_takeovers_s)] {
            if !waits.is_empty() {
                rows.push(json!({"name": name, "waits_s": waits, "p50_s": median(waits.iter().copied()), "p99_s": p99(waits)}));
            }
        }
        rows.extend(self.resyncs.iter().map(resync::Round::json));
        rows
    }

    fn replicate(floor: &Floor) -> f64 {
        floor.replicate_us
    }

    fn round_trip(floor: &Floor) -> f64 {
        floor.round_trip_us
    }

    pub(crate) fn write(&self, path: &Path, about: Value) -> Result<()> {
        write(path, about, &self.rows(), &self.targets())
    }
}

impl resync::Round {
    fn vs_min_disk_link(&self) -> f64 {
        self.resync_mib_s / self.copy_mib_s.min(self.link_mib_s)
    }

    fn guest_during_vs_before(&self) -> f64 {
        self.guest_during / self.guest_before
    }

    fn json(&self) -> Value {
        json!({
            "name": "resync", "copy_mib_s": round(self.copy_mib_s, 1), "link_mib_s": round(self.link_mib_s, 1),
            "resync_mib_s": round(self.resync_mib_s, 1), "guest_before_per_s": round(self.guest_before, 1),
            "guest_during_per_s": round(self.guest_during, 1),
            "resync_under_load_mib_s": round(self.resync_under_load_mib_s, 1),
        })
    }
}

/// For machines: what was measured, and what was aimed at.
pub(crate) fn write(path: &Path, about: Value, rows: &[Value], targets: &[Target]) -> Result<()> {
    let targets: Vec<_> = targets.iter().map(Target::json).collect();
    let result = json!({"about": about, "rows": rows, "targets": targets});
    std::fs::write(path, serde_json::to_vec_pretty(&result)?)
        .with_context(|| format!("{} cannot be written", path.display()))?;
    println!("-> {}", path.display());
    Ok(())
}

/// Where the processes that are measured say what they do.
pub(crate) fn logs() -> Result<PathBuf> {
    let folder = folder()?.join("volume-logs");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Where the results of benchmarks lie.
pub(crate) fn folder() -> Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("tests/ lies in the workspace")?;
    let folder = std::env::var_os("CARGO_TARGET_DIR").map_or(workspace.join("target"), PathBuf::from).join("bench");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
