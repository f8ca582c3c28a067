//! The way that stock initiators go: libiscsi at Tandem's target and at tgtd's, which does not replicate; the result is target/bench/iscsi.json.
//!
//! All volumes are files on one file system, written once before anything is measured. tgtd opens its file past the page cache, as Tandem does; what it does
//! through the cache is a row, and no yardstick.

mod libiscsi;
mod sessions;
mod tgtd;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::json;

use super::arms::{Arm, ONE, RAW, TWO, Way, round};
use super::cluster::Cluster;
use super::load::{Pattern, Workload};
use super::table::Table;
use super::targets::{self, Target, median};
use super::{Run, raw, report};
pub(crate) use libiscsi::IscsiLane;
use sessions::Idle;
use tgtd::Tgtd;

const LARGE: usize = 1 << 20;
static WORKLOADS: [Workload; 6] = [
    Workload::new("write_qd1", Pattern::Write, 1, 1, 4096),
    Workload::new("write_qd32", Pattern::Write, 1, 32, 4096),
    Workload::new("read_qd1", Pattern::Read, 1, 1, 4096),
    Workload::new("read_qd32", Pattern::Read, 1, 32, 4096),
    Workload::new("sequential_write_1m", Pattern::SequentialWrite, 1, 8, LARGE),
    Workload::new("sequential_read_1m", Pattern::SequentialRead, 1, 8, LARGE),
];

const TGTD: &str = "tgtd";
const TGTD_BUFFERED: &str = "tgtd-buffered";
static ARMS: [&str; 5] = [RAW, TGTD, TGTD_BUFFERED, ONE, TWO];
const PARTS: [&str; 4] = ["loads", "idle", "fairness", "failover"];

struct Plan {
    parts: Vec<String>,
    rounds: usize,
    size_bytes: u64,
    warm_up: Duration,
    time: Duration,
    kills: usize,
}

struct Results {
    table: Table,
    idle: Option<Idle>,
    /// Writes a second of each session.
    busy: Vec<f64>,
    /// How tgtd's file is opened.
    tgtd_flags: &'static str,
    /// Under a machine's writer, whose Primary is killed: the longest write.
    failovers_s: Vec<f64>,
}

pub(crate) fn main() -> Result<()> {
    let plan = Plan::parse()?;
    let (begun, load) = (Instant::now(), super::load_average()?);
    let folder = report::folder()?;
    let path = folder.join("iscsi.json");
    drop(std::fs::remove_file(&path)); // an earlier run's must not stand for this one
    let run = Run::begin(folder.join("volume"))?;
    let table = Table::new(&WORKLOADS, &ARMS);
    let mut results = Results { table, idle: None, busy: Vec::new(), tgtd_flags: "", failovers_s: Vec::new() };
    plan.measure(&run.folder, &mut results)?;
    plan.failovers(&mut results)?;
    results.show();
    let about = json!({
        "rounds": plan.rounds, "seconds_each": plan.time.as_secs_f64(), "volume_mib": plan.size_bytes >> 20,
        "load_average_before": load, "took_s": begun.elapsed().as_secs(), "tgtd_bsoflags": results.tgtd_flags,
    });
    report::write(&path, about, &results.rows(), &results.targets())
}

/// Everything that is measured, running.
struct Stage {
    arms: Vec<Arm>,
    tgtd_flags: &'static str,
    cluster: Cluster,
    _tgtd: Tgtd,
}

impl Stage {
    fn start(folder: &Path, size_bytes: u64) -> Result<Self> {
        let cluster = Cluster::start(&folder.join("cluster"))?;
        let tgtd = Tgtd::start(&folder.join("tgtd"))?;
        let raw = raw::create(&folder.join("raw.data"), size_bytes)?;
        let mut arms = vec![Arm::new(RAW, Way::File(raw), vec![std::process::id()], size_bytes)];
        let (login, tgtd_flags) = match tgtd.serve(1, size_bytes, "direct") {
            Ok(login) => (login, "direct"),
            Err(error) => {
                eprintln!("tgtd refuses O_DIRECT ({error:#}): it writes by O_SYNC");
                (tgtd.serve(1, size_bytes, "sync")?, "sync")
            }
        };
        arms.push(Arm::new(TGTD, Way::Iscsi { login, lun: tgtd::LUN }, vec![tgtd.pid()], size_bytes));
        let login = tgtd.serve(2, size_bytes, "")?;
        arms.push(Arm::new(TGTD_BUFFERED, Way::Iscsi { login, lun: tgtd::LUN }, vec![tgtd.pid()], size_bytes));
        let mut pids = cluster.node_pids();
        pids.push(cluster.arbiter_pid());
        for (name, replicas) in [(ONE, 1), (TWO, 2)] {
            let login = cluster.attach(&cluster.create(replicas, size_bytes, false)?)?;
            arms.push(Arm::new(name, Way::Iscsi { login, lun: 0 }, pids.clone(), size_bytes));
        }
        arms.iter().try_for_each(Arm::fill)?;
        Ok(Self { arms, tgtd_flags, cluster, _tgtd: tgtd })
    }
}

impl Plan {
    fn parse() -> Result<Self> {
        let only = std::env::var("ONLY").unwrap_or_default();
        let parts: Vec<_> = match only.as_str() {
            "" => PARTS.map(str::to_owned).to_vec(),
            some => some.split(',').map(str::to_owned).collect(),
        };
        let names: Vec<_> = PARTS.into_iter().chain(WORKLOADS.iter().map(|work| work.name)).collect();
        if let Some(unknown) = parts.iter().find(|part| !names.contains(&part.as_str())) {
            bail!("ONLY={unknown}: there are {}", names.join(", "));
        }
        let is_quick = std::env::args().any(|word| word == "--quick");
        let (rounds, size_bytes, warm_up, time, kills) =
            if is_quick { (3, 256 << 20, 0.15, 0.5, 2) } else { (9, 1 << 30, 0.4, 1.1, 10) };
        let [warm_up, time] = [warm_up, time].map(Duration::from_secs_f64);
        Ok(Self { parts, rounds, size_bytes, warm_up, time, kills })
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|it| it == part)
    }

    fn measure(&self, folder: &Path, results: &mut Results) -> Result<()> {
        if self.parts.iter().all(|part| part == "failover") {
            return Ok(());
        }
        eprintln!("bench-iscsi: servers start");
        let stage = Stage::start(folder, self.size_bytes)?;
        results.tgtd_flags = stage.tgtd_flags;
        let wanted: Vec<_> = WORKLOADS.iter().filter(|work| self.has("loads") || self.has(work.name)).collect();
        for number in 0..self.rounds * usize::from(!wanted.is_empty()) {
            eprintln!("round {} of {}", number + 1, self.rounds);
            for work in &wanted {
                round(&stage.arms, number, work, (self.warm_up, self.time), &mut results.table.cells)?;
            }
        }
        let Some(Arm { way: Way::Iscsi { login, .. }, ledger, .. }) = stage.arms.last() else { bail!("no last arm") };
        if self.has("fairness") {
            eprintln!("{} sessions write at once", sessions::BUSY);
            results.busy = sessions::busy(login, ledger, (self.warm_up, 5 * self.time))?;
        }
        stage.arms.iter().try_for_each(Arm::verify)?;
        if self.has("idle") {
            eprintln!("{} sessions do nothing", sessions::IDLE);
            let primary = *stage.cluster.node_pids().first().context("a node runs")?;
            results.idle = Some(sessions::idle(login, primary)?);
        }
        Ok(())
    }
}

/// What `guests` writes.
#[derive(Deserialize)]
struct Guests {
    rows: Vec<Failovers>,
}

#[derive(Deserialize)]
struct Failovers {
    longest_write_s: Vec<f64>,
}

impl Plan {
    fn failovers(&self, results: &mut Results) -> Result<()> {
        if !self.has("failover") {
            return Ok(());
        }
        eprintln!("{} times a Primary is killed under a machine that writes", self.kills);
        let target = report::folder()?;
        let target = target.parent().context("it lies in target/")?;
        let (program, folder) = (target.join("release/guests"), target.join("guests"));
        let mut guests = Command::new(&program);
        guests.args(["--kills", &self.kills.to_string(), "--freeze", "0", "--folder"]).arg(&folder);
        let status =
            guests.status().with_context(|| format!("no {}: `make bench-iscsi` builds it", program.display()))?;
        ensure!(status.success(), "guests says {status}");
        let told: Guests = serde_json::from_slice(&std::fs::read(folder.join("guests.json"))?)?;
        results.failovers_s = told.rows.into_iter().flat_map(|row| row.longest_write_s).collect();
        Ok(())
    }
}

impl Results {
    fn targets(&self) -> Vec<Target> {
        let (lower, higher) = (Target::lower, Target::higher);
        let rate = |arm, work| self.table.rate((arm, TGTD), work);
        vec![
            higher("write_qd32_two_replicas_vs_tgtd", 1.0, rate(TWO, "write_qd32")),
            higher("write_qd1_two_replicas_vs_tgtd", 0.7, rate(TWO, "write_qd1")),
            higher("write_qd32_one_replica_vs_tgtd", 1.3, rate(ONE, "write_qd32")),
            higher("read_qd1_vs_best", 1.0, self.read_vs_best("read_qd1")),
            higher("read_qd32_vs_best", 1.0, self.read_vs_best("read_qd32")),
            lower("idle_1000_sessions_mib", 64.0, self.idle.map(|idle| idle.memory_mib)),
            higher("fairness_64_sessions", 0.5, self.fairness()),
            lower("path_failover_p99_s", 10.0, targets::p99(&self.failovers_s)),
        ]
    }

    fn read_vs_best(&self, work: &'static str) -> Option<f64> {
        let best = self.table.of(TGTD, work).iter().zip(self.table.of(RAW, work));
        let best = best.map(|(tgtd, raw)| (1.3 * tgtd.per_second).min(0.9 * raw.per_second));
        median(self.table.of(TWO, work).iter().zip(best).map(|(ours, best)| ours.per_second / best))
    }

    /// What the slowest session got, of what the one in the middle did.
    fn fairness(&self) -> Option<f64> {
        let slowest = self.busy.iter().copied().min_by(f64::total_cmp)?;
        Some(slowest / median(self.busy.iter().copied())?)
    }

    fn rows(&self) -> Vec<serde_json::Value> {
        let mut rows = self.table.rows(|_, _| None);
        rows.extend(self.idle.as_ref().map(Idle::json));
        if !self.busy.is_empty() {
            rows.push(
                json!({ "name": format!("busy_{}_sessions", sessions::BUSY), "writes_per_s_of_each": self.busy }),
            );
        }
        if !self.failovers_s.is_empty() {
            rows.push(json!({ "name": "path_failover", "longest_write_s": self.failovers_s }));
        }
        rows
    }

    fn show(&self) {
        self.table.show(|_, _| None);
        if let Some(idle) = &self.idle {
            println!(
                "{} idle sessions: {:.1} MiB, {:.2} % of a processor",
                sessions::IDLE,
                idle.memory_mib,
                idle.cpu_percent
            );
        }
        targets::show(&self.targets());
    }
}
