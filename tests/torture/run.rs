//! The cycles: something breaks, is repaired, and what clients saw is judged.
//!
//! ```text
//!  clients go ──▶ faults begin ──▶ hold ──▶ faults end ──▶ all replicas UpToDate ──▶ clients rest ──▶ judged ─┐
//!      ▲                                                                                                     │
//!      └─────────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```

use std::fs;
use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use fastrand::Rng;
use system_tests::disks::Survives;

use crate::Arguments;
use crate::clients::Volume;
use crate::cluster::{Cluster, HOSTS};
use crate::faults::{Fault, Plan};
use crate::judge::{self, Counts, MayHold};
use crate::network::{ARBITER, Port};
use crate::report::{Report, Row};

const WHOLE_WITHIN: Duration = Duration::from_secs(60);
const SERVES_A_WHILE: Duration = Duration::from_millis(400);

/// As process 1 of the namespaces.
pub(crate) fn inside(arguments: &Arguments) -> Result<ExitCode> {
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(1)
    });
    let run = arguments.folder.canonicalize()?.join("run");
    empty(&run)?;
    let mut report = Report::new(arguments.seed);
    let mut cluster = Cluster::create(&run, arguments.seed)?;
    let ended = cycles(arguments, &mut cluster, &mut report);
    for volume in &cluster.volumes {
        report.requests += volume.requests.load(Ordering::Relaxed);
    }
    if let Err(error) = &ended {
        report.ended_by = Some(format!("{error:#}"));
        fs::write(run.join("violation.txt"), format!("{error:#}\n"))?;
        keep_disks(&mut cluster, &run)?;
    }
    report.write(&arguments.folder.join("volume.json"))?;
    drop(cluster);
    let Err(error) = ended else {
        let (requests, gap) = (report.requests, report.longest_gap_s);
        println!(
            "{} cycles, {requests} requests, longest gap {gap:.1} s: nothing lost, nothing stale, all equal",
            report.cycles
        );
        return Ok(ExitCode::SUCCESS);
    };
    let cycle = arguments.from + report.cycles;
    eprintln!("cycle {cycle} of seed {}: {error:#}", arguments.seed);
    eprintln!("logs and disks: {}", run.display());
    eprintln!("again: make torture-volume SEED={} CYCLES={}", arguments.seed, report.cycles + 1);
    eprintln!("that cycle alone: make torture-volume SEED={} FROM={cycle} CYCLES=1", arguments.seed);
    Ok(ExitCode::FAILURE)
}

/// Disks clear their own folders, with all that a killed run may have left of them.
fn empty(run: &Path) -> Result<()> {
    fs::create_dir_all(run)?;
    for entry in fs::read_dir(run)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with("-disk") {
            continue;
        }
        let is_folder = entry.file_type()?.is_dir();
        if is_folder { fs::remove_dir_all(entry.path()) } else { fs::remove_file(entry.path()) }
            .with_context(|| format!("could not remove {}", entry.path().display()))?;
    }
    Ok(())
}

fn cycles(arguments: &Arguments, cluster: &mut Cluster, report: &mut Report) -> Result<()> {
    cluster.until_whole(WHOLE_WITHIN).context("the volumes are not whole at the start")?;
    for cycle in arguments.from..arguments.from + arguments.cycles {
        let mut rng = Rng::with_seed(arguments.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(cycle));
        let primaries = cluster.volumes.iter().map(|volume| cluster.primary(volume)).collect::<Result<Vec<_>>>()?;
        let plan = if arguments.brief { Plan::brief(cycle, &primaries) } else { Plan::draw(&mut rng, &primaries) };
        println!("{cycle:>5}      {plan}");
        let mut under = Cycle { plan, began: Vec::new(), may_hold: vec![None; cluster.volumes.len()] };
        let mut row = under.run(cluster, &mut rng)?;
        row.cycle = cycle;
        let counts = under.judge(cluster, &mut row)?;
        println!(
            "           {:.1} s, gap {:.1} s, whole after {:.1} s, {} operations{}",
            row.seconds,
            row.gap_s,
            row.whole_after_s,
            row.operations,
            if row.power_lost.is_empty() {
                String::new()
            } else {
                format!(", no power for {}", row.power_lost.join(", "))
            },
        );
        row.errors = cluster.volumes.iter().map(|volume| volume.errors.swap(0, Ordering::Relaxed)).sum();
        report.errors += row.errors;
        report.longest_gap_s = report.longest_gap_s.max(row.gap_s);
        report.rows.push(row);
        report.counts = counts.0;
        if !counts.0.is_clean() {
            bail!("{}", counts.1);
        }
        report.cycles += 1;
        report.write(&arguments.folder.join("volume.json"))?;
    }
    Ok(())
}

struct Cycle {
    plan: Plan,
    began: Vec<Fault>,
    /// By volume, if nobody who has power has all of its writes.
    may_hold: Vec<MayHold>,
}

impl Cycle {
    fn run(&mut self, cluster: &mut Cluster, rng: &mut Rng) -> Result<Row> {
        let began = Instant::now();
        cluster.volumes.iter().for_each(|volume| volume.go());
        self.owe(cluster, false);
        for (after, fault) in std::mem::take(&mut self.plan.faults) {
            wait(after);
            self.begin(cluster, fault, rng)?;
        }
        wait(self.plan.hold);
        self.began.iter().try_for_each(|fault| fault.end(cluster))?;
        let repaired = Instant::now();
        cluster.start_all()?;
        self.owe(cluster, true);
        cluster.until_whole(WHOLE_WITHIN)?;
        let whole_after_s = repaired.elapsed().as_secs_f64();
        wait(SERVES_A_WHILE);
        let gaps = cluster.volumes.iter().map(|volume| {
            volume.gap().is_owed(false);
            volume.gap().take().as_secs_f64()
        });
        let gap_s = gaps.fold(0.0, f64::max);
        let faults: Vec<String> = self.began.iter().map(ToString::to_string).collect();
        Ok(Row {
            cycle: 0,
            fault: faults.join(", then "),
            seconds: began.elapsed().as_secs_f64(),
            gap_s,
            whole_after_s,
            operations: 0,
            errors: 0,
            power_lost: Vec::new(),
        })
    }

    fn begin(&mut self, cluster: &mut Cluster, fault: Fault, rng: &mut Rng) -> Result<()> {
        let dark = fault.cuts_power_of();
        let away: Vec<Port> = self.began.iter().flat_map(Fault::disturbs).collect();
        self.began.push(fault.clone());
        self.owe(cluster, false);
        fault.begin(cluster, rng)?;
        for (volume, may_hold) in cluster.volumes.iter().zip(&mut self.may_hold) {
            let is_lost = |port: &Port| dark.contains(port) || away.contains(port);
            let loses = !volume.is_durable && volume.hosts.iter().any(|port| dark.contains(port));
            if loses && may_hold.is_none() && volume.hosts.iter().all(is_lost) {
                volume.gap().is_owed(false);
                volume.rest()?;
                *may_hold = Some(volume.history.after_power_loss());
            }
        }
        Ok(())
    }

    /// See gap.rs.
    fn owe(&self, cluster: &Cluster, ended: bool) {
        let hit: Vec<Port> = self.began.iter().flat_map(Fault::hits).collect();
        for (volume, may_hold) in cluster.volumes.iter().zip(&self.may_hold) {
            let is_up = !hit.contains(&ARBITER) && volume.hosts.iter().any(|port| !hit.contains(port));
            volume.gap().is_owed(may_hold.is_none() && (ended || is_up));
        }
    }

    fn judge(&self, cluster: &mut Cluster, row: &mut Row) -> Result<(Counts, String)> {
        for volume in &cluster.volumes {
            volume.rest()?;
        }
        cluster.until_idle(WHOLE_WITHIN)?;
        let (mut counts, mut told) = (Counts::default(), String::new());
        let volumes: Vec<Arc<Volume>> = cluster.volumes.clone();
        for (volume, may_hold) in volumes.iter().zip(&self.may_hold) {
            let verdict = judge::judge(cluster, volume, may_hold).with_context(|| format!("volume {}", volume.name))?;
            counts += verdict.counts;
            if !verdict.told.is_empty() {
                told += &format!("volume {}: {}", volume.name, verdict.told);
            }
            row.operations += verdict.operations;
            row.power_lost.extend(may_hold.is_some().then_some(volume.name));
        }
        Ok((counts, told))
    }
}

/// With all that their caches hold: `xfs_db`, `mount -o loop`.
fn keep_disks(cluster: &mut Cluster, run: &Path) -> Result<()> {
    let kept = run.join("kept");
    fs::create_dir_all(&kept)?;
    for port in HOSTS {
        cluster.host(port).power_off(Survives::Everything)?;
        let image = run.join(format!("{port}-disk/image"));
        let copied =
            Command::new("cp").arg("--sparse=always").arg(&image).arg(kept.join(format!("{port}.xfs"))).status()?;
        if !copied.success() {
            eprintln!("could not keep {}", image.display());
        }
    }
    Ok(())
}

fn wait(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        thread::park_timeout(left);
    }
}
