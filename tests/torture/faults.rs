//! What breaks in a cycle, drawn from its seed; how it begins and how it ends.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use fastrand::Rng;
use rustix::process::Signal;
use system_tests::disks::{FlushLoses, Op, Survives};

use crate::clients::Volume;
use crate::cluster::{Cluster, HOSTS};
use crate::network::{ARBITER, Bend, How, Port};

/// From this on a pause is longer than a lease of 2 s and the grace after it.
const PAUSE: Duration = Duration::from_millis(3200);
const RESYNC_BEGINS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    In,
    Out,
    Both,
}

#[derive(Debug, Clone)]
pub(crate) enum Fault {
    Kill(Port),
    PowerCut(Port, Survives),
    PowerCutOfAll(Survives),
    Pause(Port),
    CutOff(Port, Way),
    /// Nothing passes from the first to the second; or nothing between the two.
    CutBetween(Port, Port, Way),
    SlowLink(Port),
    DiskErrors(Port, Op),
    /// It fails once, and what it should have covered is gone, unseen until the power goes.
    FlushLoses(Port),
    DiskFull(Port),
    SlowDisk(Port),
    ArbiterKilled,
    ArbiterPaused,
    ArbiterSlow,
    HandOver,
    Restart(Port),
    ResyncCut(Port),
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(port) => write!(to, "kill -9 of {port}"),
            Self::PowerCut(port, _) => write!(to, "power cut of {port}"),
            Self::PowerCutOfAll(_) => write!(to, "power cut of all"),
            Self::Pause(port) => write!(to, "pause of {port}"),
            Self::CutOff(port, Way::In) => write!(to, "nothing reaches {port}"),
            Self::CutOff(port, Way::Out) => write!(to, "nothing comes from {port}"),
            Self::CutOff(port, Way::Both) => write!(to, "{port} cut off"),
            Self::CutBetween(one, other, Way::Both) => write!(to, "cut between {one} and {other}"),
            Self::CutBetween(one, other, Way::In | Way::Out) => write!(to, "cut from {one} to {other}"),
            Self::SlowLink(port) => write!(to, "slow link of {port}"),
            Self::DiskErrors(port, op) => write!(to, "{op:?} errors of the disk of {port}"),
            Self::FlushLoses(port) => write!(to, "a flush of the disk of {port} fails and loses"),
            Self::DiskFull(port) => write!(to, "full disk of {port}"),
            Self::SlowDisk(port) => write!(to, "slow disk of {port}"),
            Self::ArbiterKilled => write!(to, "arbiter killed"),
            Self::ArbiterPaused => write!(to, "arbiter paused"),
            Self::ArbiterSlow => write!(to, "arbiter slow"),
            Self::HandOver => write!(to, "hand-over"),
            Self::Restart(port) => write!(to, "restart of {port}"),
            Self::ResyncCut(port) => write!(to, "resync of {port} cut"),
        }
    }
}

/// One cycle.
#[derive(Debug)]
pub(crate) struct Plan {
    /// With the time from the one before, or from the beginning.
    pub(crate) faults: Vec<(Duration, Fault)>,
    /// How long it stays so.
    pub(crate) hold: Duration,
}

impl Plan {
    /// `primaries`: of each volume, as half of the faults hit one of them.
    pub(crate) fn draw(rng: &mut Rng, primaries: &[Port]) -> Self {
        let pair = rng.u8(0..100) < 35;
        let mut faults = vec![(millis(rng, 200..900), draw(rng, primaries, pair))];
        if pair {
            let mut second = draw(rng, primaries, pair);
            while !faults[0].1.goes_with(&second) {
                second = draw(rng, primaries, pair);
            }
            faults.push((millis(rng, 0..1500), second));
        }
        let hold = if faults.iter().any(|(_, fault)| fault.needs_a_pause()) {
            PAUSE + millis(rng, 0..1500)
        } else {
            millis(rng, 400..3500)
        };
        Self { faults, hold }
    }

    /// A kill, a power cut of a Primary, and a pause past the lease; three cycles, then again.
    pub(crate) fn brief(cycle: u32, primaries: &[Port]) -> Self {
        let begin = Duration::from_millis(300);
        let fault = match cycle % 3 {
            1 => Fault::Kill(primaries[0]),
            2 => Fault::PowerCut(primaries[0], Survives::Nothing),
            _ => Fault::Pause(primaries[0]),
        };
        Self { hold: if fault.needs_a_pause() { PAUSE } else { begin }, faults: vec![(begin, fault)] }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults: Vec<String> = self.faults.iter().map(|(_, fault)| fault.to_string()).collect();
        to.write_str(&faults.join(", then "))
    }
}

fn millis(rng: &mut Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_millis(rng.u64(range))
}

fn draw(rng: &mut Rng, primaries: &[Port], pair: bool) -> Fault {
    let port = if rng.bool() { primaries[rng.usize(0..primaries.len())] } else { HOSTS[rng.usize(0..HOSTS.len())] };
    let other =
        HOSTS.into_iter().filter(|other| *other != port).nth(rng.usize(0..HOSTS.len() - 1)).expect("one of two");
    let way = [Way::In, Way::Out, Way::Both][rng.usize(0..3)];
    let survives = survives(rng, pair);
    match rng.u8(0..100) {
        0..12 => Fault::Kill(port),
        12..26 => Fault::PowerCut(port, survives),
        // Their sectors of 512 bytes would be torn for good: no replica is left that has them whole.
        26..32 => Fault::PowerCutOfAll(self::survives(rng, true)),
        32..42 => Fault::Pause(port),
        42..52 => Fault::CutOff(port, way),
        52..58 => Fault::CutBetween(port, other, way),
        58..62 => Fault::SlowLink(port),
        62..67 => Fault::DiskErrors(port, [Op::Read, Op::Write, Op::Flush][rng.usize(0..3)]),
        67..70 => Fault::FlushLoses(port),
        70..74 => Fault::DiskFull(port),
        74..78 => Fault::SlowDisk(port),
        78..81 => Fault::ArbiterKilled,
        81..84 => Fault::ArbiterPaused,
        84..87 => Fault::ArbiterSlow,
        87..91 => Fault::HandOver,
        91..95 => Fault::Restart(port),
        _ => Fault::ResyncCut(port),
    }
}

fn survives(rng: &mut Rng, whole: bool) -> Survives {
    let torn = [None, Some(4096), Some(512)];
    match rng.u8(0..4) {
        0 | 1 => Survives::Nothing,
        2 => Survives::Some { per_mille: 500, tear_bytes: torn[rng.usize(0..if whole { 2 } else { 3 })] },
        _ => Survives::Some { per_mille: 900, tear_bytes: torn[rng.usize(0..if whole { 2 } else { 3 })] },
    }
}

impl Fault {
    /// Whose process, host, disk or whole link it is.
    pub(crate) fn hits(&self) -> Vec<Port> {
        match self {
            Self::Kill(port)
            | Self::PowerCut(port, _)
            | Self::Pause(port)
            | Self::CutOff(port, _)
            | Self::DiskErrors(port, _)
            | Self::FlushLoses(port)
            | Self::DiskFull(port)
            | Self::Restart(port)
            | Self::ResyncCut(port) => vec![*port],
            Self::PowerCutOfAll(_) => HOSTS.to_vec(),
            Self::ArbiterKilled | Self::ArbiterPaused | Self::ArbiterSlow => vec![ARBITER],
            Self::CutBetween(..) | Self::SlowLink(_) | Self::SlowDisk(_) | Self::HandOver => Vec::new(),
        }
    }

    /// Who may be dropped for it.
    pub(crate) fn disturbs(&self) -> Vec<Port> {
        match self {
            Self::CutBetween(one, other, _) => vec![*one, *other],
            Self::SlowLink(port) | Self::SlowDisk(port) => vec![*port],
            _ => self.hits(),
        }
    }

    pub(crate) fn cuts_power_of(&self) -> Vec<Port> {
        match self {
            Self::PowerCut(port, _) => vec![*port],
            Self::PowerCutOfAll(_) => HOSTS.to_vec(),
            _ => Vec::new(),
        }
    }

    /// Not the same host again: what is broken does not break. And where the last disk that is in sync fails, its volume waits
    /// for an operator, as it should.
    fn goes_with(&self, other: &Self) -> bool {
        let fails_disk = |fault: &Self| matches!(fault, Self::DiskErrors(..) | Self::FlushLoses(_));
        let is_last =
            |one: &Self, other: &Self| fails_disk(one) && other.disturbs().iter().any(|port| HOSTS.contains(port));
        let is_same = self.hits().iter().any(|port| other.hits().contains(port));
        !is_same && !is_last(self, other) && !is_last(other, self)
    }

    fn needs_a_pause(&self) -> bool {
        matches!(self, Self::Pause(_) | Self::CutOff(..))
    }

    pub(crate) fn begin(&self, cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
        match self {
            Self::Kill(port) => cluster.host(*port).kill(),
            Self::PowerCut(port, survives) => cluster.host(*port).power_off(*survives),
            Self::PowerCutOfAll(survives) => HOSTS.iter().try_for_each(|port| cluster.host(*port).power_off(*survives)),
            Self::Pause(port) => cluster.host(*port).signal(Signal::STOP),
            Self::CutOff(port, way) => cluster.network.bend(&cut_off(*port, *way)),
            Self::CutBetween(one, other, way) => {
                let cut = |from, to| Bend { from: Some(from), to: Some(to), how: How::Cut };
                let both = [cut(*one, *other), cut(*other, *one)];
                cluster.network.bend(if *way == Way::Both { &both } else { &both[..1] })
            }
            Self::SlowLink(port) => {
                let slow = |from, to| Bend { from, to, how: How::Slow };
                cluster.network.bend(&[slow(Some(*port), None), slow(None, Some(*port))])
            }
            Self::DiskErrors(port, op) => fail_disk(cluster, *port, *op, rng),
            Self::FlushLoses(port) => {
                let disk = cluster.host(*port).disk();
                disk.map_or(Ok(()), |disk| disk.lose_at_next_flush(0..u64::MAX, FlushLoses::DataUnseen))
            }
            Self::DiskFull(port) => cluster.host(*port).disk().map_or(Ok(()), |disk| disk.fill()),
            Self::SlowDisk(port) => cluster.host(*port).disk().map_or(Ok(()), |disk| {
                disk.delay(Op::Write, Duration::from_millis(5), Duration::from_millis(60))?;
                disk.delay(Op::Flush, Duration::from_millis(10), Duration::from_millis(200))
            }),
            Self::ArbiterKilled => {
                cluster.kill_arbiter();
                Ok(())
            }
            Self::ArbiterPaused => cluster.signal_arbiter(Signal::STOP),
            Self::ArbiterSlow => {
                let lossy = |from, to| Bend { from, to, how: How::Lossy };
                cluster.network.bend(&[lossy(Some(ARBITER), None), lossy(None, Some(ARBITER))])
            }
            Self::HandOver => hand_over(cluster, rng),
            Self::Restart(port) => cluster.host(*port).terminate(),
            Self::ResyncCut(port) => cut_a_resync(cluster, *port),
        }
    }

    /// What stays of it: processes that do not run are started by whoever ends the cycle.
    pub(crate) fn end(&self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Pause(port) => cluster.host(*port).signal(Signal::CONT),
            Self::ArbiterPaused => cluster.signal_arbiter(Signal::CONT),
            // A disk that failed is believed again after a reboot only; its cache is written back first.
            Self::DiskErrors(port, _) => cluster.host(*port).power_off(Survives::Everything),
            Self::FlushLoses(port) => cluster.host(*port).power_off(Survives::Nothing),
            Self::DiskFull(port) => cluster.host(*port).disk().map_or(Ok(()), |disk| disk.empty()),
            Self::SlowDisk(port) | Self::ResyncCut(port) => {
                cluster.host(*port).disk().map_or(Ok(()), |disk| disk.heal())?;
                cluster.network.heal()
            }
            Self::CutOff(..) | Self::CutBetween(..) | Self::SlowLink(_) | Self::ArbiterSlow => cluster.network.heal(),
            Self::Kill(_)
            | Self::PowerCut(..)
            | Self::PowerCutOfAll(_)
            | Self::ArbiterKilled
            | Self::HandOver
            | Self::Restart(_) => Ok(()),
        }
    }
}

fn cut_off(port: Port, way: Way) -> Vec<Bend> {
    let to = Bend { from: None, to: Some(port), how: How::Cut };
    let from = Bend { from: Some(port), to: None, how: How::Cut };
    match way {
        Way::In => vec![to],
        Way::Out => vec![from],
        Way::Both => vec![to, from],
    }
}

/// Some operations on the data of one volume; every flush.
fn fail_disk(cluster: &mut Cluster, port: Port, op: Op, rng: &mut Rng) -> Result<()> {
    let here: Vec<_> = cluster.volumes.iter().filter(|volume| volume.hosts.contains(&port)).collect();
    let file = cluster.data_file(port, here[rng.usize(0..here.len())].uuid);
    let Some(disk) = cluster.host(port).disk() else { return Ok(()) };
    if op == Op::Flush {
        return disk.fail(op, 0..u64::MAX, Some(1));
    }
    for place in disk.bytes_of(&file)? {
        disk.fail(op, place, Some(rng.u32(1..4)))?;
    }
    Ok(())
}

/// Of one volume, to another of its hosts. With something else broken it may be refused.
fn hand_over(cluster: &Cluster, rng: &mut Rng) -> Result<()> {
    let volume = &cluster.volumes[rng.usize(0..cluster.volumes.len())];
    let Ok(primary) = cluster.primary(volume) else { return Ok(()) };
    let others: Vec<Port> = volume.hosts.iter().copied().filter(|port| *port != primary).collect();
    let to = others[rng.usize(0..others.len())];
    match cluster.rest.promote(primary, volume.uuid, to) {
        Ok(()) => println!("           {} goes from {primary} to {to}", volume.name),
        Err(refused) => println!("           {} stays on {primary}: {refused:#}", volume.name),
    }
    Ok(())
}

/// It misses writes, comes back with a slow disk, and is cut off while it is copied to.
fn cut_a_resync(cluster: &mut Cluster, port: Port) -> Result<()> {
    cluster.host(port).kill()?;
    thread::park_timeout(Duration::from_millis(3500));
    if let Some(disk) = cluster.host(port).disk() {
        disk.delay(Op::Write, Duration::from_millis(10), Duration::from_millis(40))?;
    }
    cluster.start_host(port)?;
    let end = Instant::now() + RESYNC_BEGINS_WITHIN;
    while !is_copied_to(cluster, port) && Instant::now() < end {
        thread::park_timeout(Duration::from_millis(10));
    }
    cluster.network.bend(&cut_off(port, Way::Both))
}

fn is_copied_to(cluster: &Cluster, port: Port) -> bool {
    let name = port.to_string();
    let is = |volume: &Volume| {
        let seen = cluster.look(volume).ok()?;
        let replica = seen.replicas.iter().find(|replica| replica.node == name)?;
        Some(replica.reached && !replica.in_sync && replica.disk == "Inconsistent")
    };
    cluster.volumes.iter().any(|volume| volume.hosts.contains(&port) && is(volume).unwrap_or(false))
}
