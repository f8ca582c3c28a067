//! Measures replicated volumes against the disk, against qemu-nbd, which does not replicate, and against the floor of protocol C, and writes
//! target/bench/volume.json.
//!
//! Everything is measured in one run, in turn, in several rounds; a ratio is the median of the rounds' ratios. All volumes are files on one file
//! system, written once before anything is measured; the two replicas share the disk. Every block that is read is checked.
//!
//! Tandem is the program as it is installed (`target/release/tandem-node`, which `make bench-volume` builds): two daemons and an arbiter on loopback.
//! What they log stays in target/bench/volume-logs/ until the next run.
//!
//! `PEERS=ceph` measures a Ceph of two OSDs too, whose writes are durable when they are acknowledged: `write_*_vs_ceph` compares our `durability = flush`,
//! which is not, with it, `durable_write_qd1_vs_ceph` our `durability = write`. Without it those targets have no value, and do not hold.
//!
//! `--iscsi` measures the way through iSCSI instead, against tgtd, and writes target/bench/iscsi.json.
//!
//! `--quick` is three short rounds. `ONLY=write,read,allocations,failover,resync` measures some parts only, `ONLY=write_qd1` one workload.

mod allocations;
mod arms;
mod ceph;
mod cluster;
mod failover;
mod floor;
mod iscsi;
mod load;
mod nbd;
mod payload;
mod processes;
mod raw;
mod report;
mod resync;
mod table;
mod targets;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fastrand::Rng;
use serde_json::json;

use allocations::{COUNT, Task};
use arms::{Arms, WORKLOADS};
use cluster::{Arbiter, Cluster};
use failover::Stage;
use load::Pattern;
use nbd::NbdLane;
use payload::Ledger;
use report::Results;

const PARTS: [&str; 5] = ["write", "read", "allocations", "failover", "resync"];

/// From here on, other work shows in what is measured.
const BUSY: f64 = 0.5;

/// How much is measured.
struct Plan {
    parts: Vec<String>,
    /// Where Ceph's packages are, if it is measured.
    ceph: Option<PathBuf>,
    rounds: usize,
    size_bytes: u64,
    warm_up: Duration,
    time: Duration,
    takeovers: usize,
    resyncs: usize,
}

fn main() -> Result<()> {
    if let Some(task) = std::env::var_os(COUNT) {
        return allocations::serve(task.to_str().context("the task is JSON")?);
    }
    if std::env::args().any(|word| word == "--iscsi") {
        return iscsi::main();
    }
    let plan = Plan::parse()?;
    let (begun, load) = (Instant::now(), load_average()?);
    let folder = report::folder()?;
    let path = folder.join("volume.json");
    drop(std::fs::remove_file(&path)); // an earlier run's must not stand for this one
    let run = Run::begin(folder.join("volume"))?;
    let mut results = Results::default();
    plan.loads(&run.folder, &mut results)?;
    plan.allocations(&run.folder, &mut results)?;
    plan.takeovers(&run.folder, &mut results)?;
    plan.resyncs(&run.folder, &mut results)?;
    results.show();
    let about = json!({
        "rounds": plan.rounds, "seconds_each": plan.time.as_secs_f64(), "volume_mib": plan.size_bytes >> 20,
        "load_average_before": load, "took_s": begun.elapsed().as_secs(), "peers": if plan.ceph.is_some() { "ceph" } else { "" },
    });
    results.write(&path, about)
}

/// Before anything is measured; it warns if that is too much.
fn load_average() -> Result<f64> {
    let load = processes::load_average()?;
    if load > BUSY {
        eprintln!(
            "bench: this machine is busy (load average {load}): what waits for a processor is measured with the rest"
        );
    }
    Ok(load)
}

/// Where the volumes lie while they are measured: gigabytes, so that what an interrupted run has left goes first.
struct Run {
    folder: PathBuf,
    _lock: File,
}

impl Run {
    fn begin(folder: PathBuf) -> Result<Self> {
        let lock = File::create(folder.with_extension("lock"))?;
        lock.try_lock().context("another benchmark of volumes runs here")?;
        if folder.exists() {
            std::fs::remove_dir_all(&folder)?;
        }
        std::fs::create_dir(&folder)?;
        std::fs::remove_dir_all(report::logs()?)?;
        Ok(Self { folder, _lock: lock })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder); // else the next run does it
    }
}

impl Plan {
    fn parse() -> Result<Self> {
        let is_quick = std::env::args().any(|word| word == "--quick");
        let only = std::env::var("ONLY").unwrap_or_default();
        let parts: Vec<_> = match only.as_str() {
            "" => PARTS.map(str::to_owned).to_vec(),
            some => some.split(',').map(str::to_owned).collect(),
        };
        let names: Vec<_> = PARTS.into_iter().chain(WORKLOADS.iter().map(|work| work.name)).collect();
        if let Some(unknown) = parts.iter().find(|part| !names.contains(&part.as_str())) {
            bail!("ONLY={unknown}: there are {}", names.join(", "));
        }
        let ceph = match std::env::var("PEERS").unwrap_or_default().as_str() {
            "" => None,
            "ceph" => Some(report::folder()?.with_file_name("ceph").join("root")),
            other => bail!("PEERS={other}: there is ceph"),
        };
        let seconds = Duration::from_secs_f64;
        // Many short rounds rather than few long ones: what disturbs one of them, the median leaves out.
        Ok(if is_quick {
            let (warm_up, time) = (seconds(0.15), seconds(0.5));
            Self { parts, ceph, rounds: 3, size_bytes: 256 << 20, warm_up, time, takeovers: 5, resyncs: 1 }
        } else {
            let (warm_up, time) = (seconds(0.4), seconds(1.1));
            Self { parts, ceph, rounds: 9, size_bytes: 1 << 30, warm_up, time, takeovers: 30, resyncs: 3 }
        })
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|it| it == part)
    }

    fn loads(&self, folder: &Path, results: &mut Results) -> Result<()> {
        let part = |pattern| match pattern {
            Pattern::Write | Pattern::WriteFlush | Pattern::SequentialWrite => "write",
            Pattern::Read | Pattern::SequentialRead | Pattern::Mix(_) => "read",
        };
        let wanted: Vec<_> =
            WORKLOADS.iter().filter(|work| self.has(part(work.pattern)) || self.has(work.name)).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let folder = folder.join("loads");
        std::fs::create_dir(&folder)?;
        eprintln!("bench-volume: servers start");
        let arms = Arms::start(&folder, self.size_bytes, self.ceph.as_deref())?;
        for round in 0..self.rounds {
            eprintln!("round {} of {}", round + 1, self.rounds);
            results.floors.push(arms.floor(self.time)?);
            for work in &wanted {
                arms::round(&arms.arms, round, work, (self.warm_up, self.time), &mut results.table.cells)?;
            }
        }
        arms.verify()?;
        drop(arms);
        Ok(std::fs::remove_dir_all(folder)?)
    }

    fn allocations(&self, folder: &Path, results: &mut Results) -> Result<()> {
        if !self.has("allocations") {
            return Ok(());
        }
        eprintln!("allocations per write");
        let folder = folder.join("allocations");
        let arbiter = Arbiter::start(&folder)?;
        let task = Task { arbiter: arbiter.url().to_owned(), folder, size_bytes: 64 << 20 };
        let mut counting = Command::new(std::env::current_exe()?);
        counting.env(COUNT, serde_json::to_string(&task)?).stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = counting.output()?;
        ensure!(output.status.success(), "the process that counts allocations failed");
        results.allocations_per_write = Some(String::from_utf8(output.stdout)?.trim().parse()?);
        Ok(())
    }

    fn takeovers(&self, folder: &Path, results: &mut Results) -> Result<()> {
        if !self.has("failover") {
            return Ok(());
        }
        eprintln!("{} takeovers, and as many with a known fence", self.takeovers);
        let mut cluster = Cluster::start(&folder.join("failover"))?;
        let volume = cluster.create(2, 256 << 20, false)?;
        let ledger = Ledger::new(volume.size_bytes());
        load::fill(&ledger, NbdLane::connect(cluster.nbd(0), &volume.export(), 8, 1 << 20)?, 1 << 20, 8)?;
        let (cluster, volume, ledger) = (&mut cluster, &volume, &ledger);
        let mut stage = Stage { cluster, volume, ledger, primary: 0, random: Rng::with_seed(1) };
        results.takeovers_s = stage.takeovers(self.takeovers, false)?;
        results.known_takeovers_s = stage.takeovers(self.takeovers, true)?;
        stage.verify()
    }

    fn resyncs(&self, folder: &Path, results: &mut Results) -> Result<()> {
        if !self.has("resync") {
            return Ok(());
        }
        let folder = folder.join("resync");
        let mut cluster = Cluster::start(&folder)?;
        let volume = cluster.create(2, self.size_bytes, false)?;
        for round in 0..self.resyncs {
            eprintln!("resync {} of {}", round + 1, self.resyncs);
            results.resyncs.push(resync::round(&folder, &mut cluster, &volume, self.time)?);
        }
        Ok(())
    }
}
