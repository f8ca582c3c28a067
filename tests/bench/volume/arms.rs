//! What is measured against each other: the file itself, qemu-nbd, Tandem; every workload on each of them in turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use system_tests::initiators::Login;
use tandem_node::disk::DiskFile;

use super::ceph::Ceph;
use super::cluster::Cluster;
use super::floor::{self, Floor, micros};
use super::iscsi::IscsiLane;
use super::load::{self, Met, Pattern, Span, Workload};
use super::nbd::NbdLane;
use super::payload::Ledger;
use super::processes::{self, Process, pause};
use super::raw::{self, RawLane};

const LARGE: usize = 1 << 20;

pub(crate) const WORKLOADS: [Workload; 10] = [
    Workload::new("write_qd1", Pattern::Write, 1, 1, 4096),
    Workload::new("write_qd32", Pattern::Write, 1, 32, 4096),
    Workload::new("write_4x32", Pattern::Write, 4, 32, 4096),
    Workload::new("write_flush_qd1", Pattern::WriteFlush, 1, 1, 4096),
    Workload::new("sequential_write_1m", Pattern::SequentialWrite, 1, 8, LARGE),
    Workload::new("read_qd1", Pattern::Read, 1, 1, 4096),
    Workload::new("read_qd32", Pattern::Read, 1, 32, 4096),
    Workload::new("read_4x32", Pattern::Read, 4, 32, 4096),
    Workload::new("sequential_read_1m", Pattern::SequentialRead, 1, 8, LARGE),
    Workload::new("mix_60_40_qd32", Pattern::Mix(60), 1, 32, 4096),
];

pub(crate) const RAW: &str = "raw";
pub(crate) const QEMU: &str = "qemu-nbd";
pub(crate) const ONE: &str = "tandem-1";
pub(crate) const TWO: &str = "tandem-2-flush";
pub(crate) const TWO_DURABLE: &str = "tandem-2-write";
pub(crate) const CEPH: &str = "ceph-2";
pub(crate) const ARMS: [&str; 6] = [RAW, QEMU, ONE, TWO, TWO_DURABLE, CEPH];

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    pub(crate) per_second: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Of the servers, for each operation: what they computed, and how long their threads waited for a processor. The file itself has no server:
    /// there it is what this program computed.
    pub(crate) cpu_us: f64,
    pub(crate) waited_us: Option<f64>,
    pub(crate) memory_mib: f64,
}

/// What servers have used up so far.
#[derive(Debug, Clone, Copy, Default)]
struct Used {
    cpu: Duration,
    waited: Duration,
    memory_mib: f64,
}

impl Used {
    fn by(pids: &[u32]) -> Result<Self> {
        let (cpu, waited) = (processes::cpu_time(pids)?, processes::waiting_time(pids)?);
        Ok(Self { cpu, waited, memory_mib: memory_mib(pids)? })
    }
}

/// By arm and workload, one cell for each round.
pub(crate) type Cells = BTreeMap<(&'static str, &'static str), Vec<Cell>>;

/// All that is measured, running.
pub(crate) struct Arms {
    pub(crate) arms: Vec<Arm>,
    floor_files: [DiskFile; 2],
    _qemu: Process,
    _cluster: Cluster,
    _ceph: Option<Ceph>,
}

pub(crate) struct Arm {
    name: &'static str,
    pub(crate) way: Way,
    /// What its CPU time is made of, and of which the largest counts as its memory.
    pids: Vec<u32>,
    pub(crate) ledger: Ledger,
}

pub(crate) enum Way {
    File(DiskFile),
    Nbd { address: SocketAddr, export: String },
    Iscsi { login: Login, lun: u8 },
}

impl Arms {
    /// Starts everything and writes every volume once, so that no file grows later.
    ///
    /// `ceph`: where its packages are, if it is wanted.
    pub(crate) fn start(folder: &Path, size_bytes: u64, ceph: Option<&Path>) -> Result<Self> {
        let cluster = Cluster::start(&folder.join("cluster"))?;
        let raw = raw::create(&folder.join("raw.data"), size_bytes)?;
        let under_qemu = folder.join("qemu.data");
        drop(raw::create(&under_qemu, size_bytes)?);
        let (qemu, address) = processes::qemu_nbd(&under_qemu)?;
        let mut arms = vec![
            Arm::new(RAW, Way::File(raw), vec![std::process::id()], size_bytes),
            Arm::new(QEMU, Way::Nbd { address, export: "bench".to_owned() }, vec![qemu.pid()], size_bytes),
        ];
        for (name, replicas, durable_writes) in [(ONE, 1, false), (TWO, 2, false), (TWO_DURABLE, 2, true)] {
            let volume = cluster.create(replicas, size_bytes, durable_writes)?;
            let way = Way::Nbd { address: cluster.nbd(0), export: volume.export() };
            let mut pids = cluster.node_pids();
            pids.push(cluster.arbiter_pid());
            arms.push(Arm::new(name, way, pids, size_bytes));
        }
        let ceph = ceph.map(|packages| Ceph::start(packages, &folder.join("ceph"), size_bytes)).transpose()?;
        if let Some(ceph) = &ceph {
            let way = Way::Nbd { address: ceph.address, export: Ceph::EXPORT.to_owned() };
            arms.push(Arm::new(CEPH, way, ceph.pids(), size_bytes));
        }
        let floor_file = |name: &str| raw::create(&folder.join(name), size_bytes.min(256 << 20));
        let floor_files = [floor_file("floor-local.data")?, floor_file("floor-peer.data")?];
        arms.iter().try_for_each(Arm::fill)?;
        for file in &floor_files {
            load::fill(&Ledger::new(file.size()), RawLane::open(file, 8, LARGE)?, LARGE, 8)?;
        }
        Ok(Self { arms, floor_files, _qemu: qemu, _cluster: cluster, _ceph: ceph })
    }

    pub(crate) fn floor(&self, time: Duration) -> Result<Floor> {
        floor::measure(&self.floor_files, time)
    }

    /// Everything that was acknowledged is there, on every arm.
    pub(crate) fn verify(&self) -> Result<()> {
        self.arms.iter().try_for_each(|arm| arm.verify().with_context(|| format!("the volume of {}", arm.name)))
    }
}

/// One workload on each arm, the first of them another one in each round.
pub(crate) fn round(
    arms: &[Arm],
    number: usize,
    work: &'static Workload,
    span: (Duration, Duration),
    into: &mut Cells,
) -> Result<()> {
    for at in 0..arms.len() {
        let arm = &arms[(number + at) % arms.len()];
        let cell = arm.measure(work, span).with_context(|| format!("{} on {}", work.name, arm.name))?;
        eprintln!("  {:<20} {:<15} {:>9.0}/s  p50 {:>8.1} us", work.name, arm.name, cell.per_second, cell.p50_us);
        into.entry((arm.name, work.name)).or_default().push(cell);
    }
    Ok(())
}

impl Arm {
    pub(crate) fn new(name: &'static str, way: Way, pids: Vec<u32>, size_bytes: u64) -> Self {
        Self { name, way, pids, ledger: Ledger::new(size_bytes) }
    }

    pub(crate) fn fill(&self) -> Result<()> {
        eprintln!("  the volume of {} is written once", self.name);
        match &self.way {
            Way::File(file) => load::fill(&self.ledger, RawLane::open(file, 8, LARGE)?, LARGE, 8),
            Way::Nbd { address, export } => {
                load::fill(&self.ledger, NbdLane::connect(*address, export, 8, LARGE)?, LARGE, 8)
            }
            Way::Iscsi { login, lun } => load::fill(&self.ledger, IscsiLane::connect(login, *lun, 8, LARGE)?, LARGE, 8),
        }
    }

    pub(crate) fn verify(&self) -> Result<()> {
        match &self.way {
            Way::File(file) => load::verify(&self.ledger, RawLane::open(file, 1, LARGE)?, LARGE),
            Way::Nbd { address, export } => {
                load::verify(&self.ledger, NbdLane::connect(*address, export, 1, LARGE)?, LARGE)
            }
            Way::Iscsi { login, lun } => load::verify(&self.ledger, IscsiLane::connect(login, *lun, 1, LARGE)?, LARGE),
        }
    }

    fn measure(&self, work: &Workload, (warm_up, time): (Duration, Duration)) -> Result<Cell> {
        let span = Span::new(warm_up, time);
        let (mut before, mut after) = (Used::default(), Used::default());
        let watch = || {
            pause(warm_up);
            self.pids.iter().for_each(|pid| processes::forget_peak(*pid));
            before = Used::by(&self.pids)?;
            pause(time);
            after = Used::by(&self.pids)?;
            Ok(())
        };
        let met = match &self.way {
            Way::File(file) => {
                let open = |work: &Workload| RawLane::open(file, work.depth, work.bytes);
                load::run(work, &self.ledger, &span, open, watch)?
            }
            Way::Nbd { address, export } => {
                let open = |work: &Workload| NbdLane::connect(*address, export, work.depth, work.bytes);
                load::run(work, &self.ledger, &span, open, watch)?
            }
            Way::Iscsi { login, lun } => {
                let open = |work: &Workload| IscsiLane::connect(login, *lun, work.depth, work.bytes);
                load::run(work, &self.ledger, &span, open, watch)?
            }
        };
        let cell = Cell::of(&met, before, after);
        Ok(match &self.way {
            Way::File(_) => Cell { waited_us: None, ..cell }, // its threads are gone with what they waited
            Way::Nbd { .. } | Way::Iscsi { .. } => cell,
        })
    }
}

impl Cell {
    #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
    fn of(met: &Met, before: Used, after: Used) -> Self {
        let operations = met.operations.max(1) as f64;
        let each_us = |before: Duration, after: Duration| after.saturating_sub(before).as_secs_f64() * 1e6 / operations;
        Self {
            per_second: met.operations as f64 / met.seconds,
            p50_us: micros(met.latency_ns.value_at_quantile(0.5)),
            p99_us: micros(met.latency_ns.value_at_quantile(0.99)),
            cpu_us: each_us(before.cpu, after.cpu),
            waited_us: Some(each_us(before.waited, after.waited)),
            memory_mib: after.memory_mib,
        }
    }
}

fn memory_mib(pids: &[u32]) -> Result<f64> {
    let peaks = pids.iter().map(|pid| processes::peak_kib(*pid)).collect::<Result<Vec<_>>>()?;
    Ok(floor::mib(peaks.into_iter().max().unwrap_or(0) * 1024))
}
