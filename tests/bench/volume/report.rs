//! What came out: a table for people, and target/bench/volume.json.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::arms::{ARMS, CEPH, Cell, Cells, ONE, QEMU, RAW, TWO, TWO_DURABLE, WORKLOADS};
use super::floor::Floor;
use super::resync;

/// All that was measured; what was not is empty.
#[derive(Default)]
pub(crate) struct Results {
    pub(crate) cells: Cells,
    /// One for each round.
    pub(crate) floors: Vec<Floor>,
    pub(crate) allocations_per_write: Option<f64>,
    pub(crate) takeovers_s: Vec<f64>,
    pub(crate) known_takeovers_s: Vec<f64>,
    pub(crate) resyncs: Vec<resync::Round>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Lower,
    Higher,
}

struct Target {
    name: &'static str,
    value: Option<f64>,
    limit: f64,
    better: Better,
    /// What a reader must know of it.
    note: &'static str,
}

/// Ceph's writes are on both disks for good when they are acknowledged.
const NOT_DURABLE: &str = "not durable here, durable there";

impl Target {
    fn noted(self, note: &'static str) -> Self {
        Self { note, ..self }
    }

    /// What was not measured does not hold.
    fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.better {
            Better::Lower => value <= self.limit,
            Better::Higher => value >= self.limit,
        })
    }

    fn json(&self) -> Value {
        let better = if self.better == Better::Lower { "lower" } else { "higher" };
        let value = self.value.map(|value| round(value, 4));
        json!({"name": self.name, "value": value, "limit": self.limit, "better": better, "holds": self.holds(), "note": self.note})
    }
}

impl Results {
    fn targets(&self) -> Vec<Target> {
        let lower = |name, limit, value| Target { name, value, limit, better: Better::Lower, note: "" };
        let higher = |name, limit, value| Target { name, value, limit, better: Better::Higher, note: "" };
        vec![
            lower("write_qd1_p50_vs_floor", 1.4, self.write_vs_floor()),
            higher("write_qd32_vs_qemu_nbd", 1.0, self.rate((TWO, QEMU), "write_qd32")),
            higher("write_qd1_vs_qemu_nbd", 0.7, self.rate((TWO, QEMU), "write_qd1")),
            higher("read_qd1_vs_best", 1.0, self.read_vs_best("read_qd1")),
            higher("read_qd32_vs_best", 1.0, self.read_vs_best("read_qd32")),
            higher("write_qd1_vs_ceph", 8.0, self.rate((TWO, CEPH), "write_qd1")).noted(NOT_DURABLE),
            higher("write_qd32_vs_ceph", 8.0, self.rate((TWO, CEPH), "write_qd32")).noted(NOT_DURABLE),
            higher("durable_write_qd1_vs_ceph", 3.0, self.rate((TWO_DURABLE, CEPH), "write_qd1"))
                .noted("durable on both sides"),
            higher("seq_write_vs_raw", 0.40, self.rate((TWO, RAW), "sequential_write_1m")),
            lower("allocations_per_write", 0.0, self.allocations_per_write.map(|value| round(value, 2)))
                .noted("both nodes; less than one in 200 writes counts as none"),
            lower("node_rss_mib", 48.0, self.node_memory_mib()),
            lower("failover_p99_s", 3.0, p99(&self.takeovers_s)),
            lower("failover_known_fence_p99_s", 0.5, p99(&self.known_takeovers_s)),
            higher("resync_vs_min_disk_link", 0.7, self.of_resyncs(resync::Round::vs_min_disk_link)),
            higher("guest_iops_during_resync", 0.7, self.of_resyncs(resync::Round::guest_during_vs_before)),
        ]
    }

    fn of(&self, arm: &'static str, work: &'static str) -> &[Cell] {
        self.cells.get(&(arm, work)).map_or(&[], Vec::as_slice)
    }

    /// The median over the rounds of one arm's rate to another's: what is compared was measured within seconds.
    fn rate(&self, (arm, other): (&'static str, &'static str), work: &'static str) -> Option<f64> {
        let rounds = self.of(arm, work).iter().zip(self.of(other, work));
        median(rounds.map(|(ours, theirs)| ours.per_second / theirs.per_second))
    }

    fn read_vs_best(&self, work: &'static str) -> Option<f64> {
        let best = self.of(QEMU, work).iter().zip(self.of(RAW, work));
        let best = best.map(|(qemu, raw)| (1.2 * qemu.per_second).min(0.9 * raw.per_second));
        median(self.of(TWO, work).iter().zip(best).map(|(ours, best)| ours.per_second / best))
    }

    fn write_vs_floor(&self) -> Option<f64> {
        let rounds = self.of(TWO, "write_qd1").iter().zip(&self.floors);
        median(rounds.map(|(ours, floor)| ours.p50_us / floor.write_us()))
    }

    /// The most that a node ever held while it was measured. The arbiter is smaller.
    fn node_memory_mib(&self) -> Option<f64> {
        let cells = self
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
        if !self.cells.is_empty() {
            println!(
                "{:<20} {:<15} {:>9} {:>9} {:>9} {:>10} {:>10} {:>7}  vs floor",
                "", "", "per s", "p50 us", "p99 us", "CPU us/op", "wait us/op", "MiB"
            );
        }
        for (work, arm) in WORKLOADS.iter().flat_map(|work| ARMS.map(|arm| (work, arm))) {
            if let Some(cell) = self.median_cell(arm, work.name) {
                let floor = self.vs_floor(arm, work.name).map_or(String::new(), |ratio| format!("{ratio:.2}"));
                let waited = cell.waited_us.map_or("-".to_owned(), |waited| format!("{waited:.1}"));
                let Cell { per_second, p50_us, p99_us, cpu_us, memory_mib, .. } = cell;
                println!(
                    "{:<20} {arm:<15} {per_second:>9.0} {p50_us:>9.1} {p99_us:>9.1} {cpu_us:>10.1} {waited:>10} {memory_mib:>7.0}  {floor}",
                    work.name
                );
            }
        }
        self.show_waits();
        println!("{:<30} {:>9} {:>12}", "target", "value", "limit");
        for target in self.targets() {
            let value = target.value.map_or("-".to_owned(), |value| format!("{value:.3}"));
            let sign = if target.better == Better::Lower { "<=" } else { ">=" };
            let said = match (target.value, target.holds()) {
                (None, _) => "not measured",
                (Some(_), true) => "holds",
                (Some(_), false) => "missed",
            };
            println!("{:<30} {value:>9} {:>12}  {said}", target.name, format!("{sign} {}", target.limit));
        }
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

    fn median_cell(&self, arm: &'static str, work: &'static str) -> Option<Cell> {
        let of = |part: fn(&Cell) -> f64| median(self.of(arm, work).iter().map(part));
        Some(Cell {
            per_second: of(|cell| cell.per_second)?,
            p50_us: of(|cell| cell.p50_us)?,
            p99_us: of(|cell| cell.p99_us)?,
            cpu_us: of(|cell| cell.cpu_us)?,
            waited_us: median(self.of(arm, work).iter().filter_map(|cell| cell.waited_us)),
            memory_mib: of(|cell| cell.memory_mib)?,
        })
    }

    /// Of writes one at a time.
    fn vs_floor(&self, arm: &'static str, work: &'static str) -> Option<f64> {
        let cell = self.median_cell(arm, work).filter(|_| work == "write_qd1")?;
        Some(cell.p50_us / median(self.floors.iter().map(Floor::write_us))?)
    }

    fn rows(&self) -> Vec<Value> {
        let mut rows = Vec::new();
        for (work, arm) in WORKLOADS.iter().flat_map(|work| ARMS.map(|arm| (work, arm))) {
            let Some(cell) = self.median_cell(arm, work.name) else { continue };
            let bytes = u32::try_from(work.bytes).expect("it is at most 1 MiB");
            rows.push(json!({
                "name": format!("{}/{arm}", work.name), "workload": work.name, "arm": arm,
                "rounds": self.of(arm, work.name).len(),
                "per_s": round(cell.per_second, 1), "mib_s": round(cell.per_second * f64::from(bytes) / 1_048_576.0, 1),
                "p50_us": round(cell.p50_us, 1), "p99_us": round(cell.p99_us, 1),
                "cpu_us_per_operation": round(cell.cpu_us, 2),
                "waited_for_cpu_us_per_operation": cell.waited_us.map(|waited| round(waited, 2)), "memory_mib": round(cell.memory_mib, 1),
                "vs_floor": self.vs_floor(arm, work.name).map(|ratio| round(ratio, 3)),
            }));
        }
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
        let targets: Vec<_> = self.targets().iter().map(Target::json).collect();
        let result = json!({"about": about, "rows": self.rows(), "targets": targets});
        std::fs::write(path, serde_json::to_vec_pretty(&result)?)
            .with_context(|| format!("{} cannot be written", path.display()))?;
        println!("-> {}", path.display());
        Ok(())
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

fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
    Some(f64::midpoint(*low, *high))
}

/// The smallest value that 99 of a hundred do not exceed: of fewer than a hundred the worst.
fn p99(values: &[f64]) -> Option<f64> {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get((values.len() * 99).div_ceil(100).checked_sub(1)?).copied()
}

fn round(value: f64, digits: i32) -> f64 {
    let scale = 10_f64.powi(digits);
    (value * scale).round() / scale
}
