//! Many sessions at one target: what a thousand idle ones cost, and whether sixty-four busy ones are served alike.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::event::Timespec;
use serde_json::{Value, json};
use system_tests::initiators::Login;

use super::super::floor::mib;
use super::super::load::{self, Pattern, Span, Workload};
use super::super::payload::Ledger;
use super::super::processes::{self, pause};
use super::super::targets::round;
use super::libiscsi::IscsiLane;

pub(crate) const IDLE: usize = 1000;
pub(crate) const BUSY: usize = 64;
/// A session that says nothing is asked after 15 s whether it lives: that belongs to what it costs.
const IDLE_FOR: Duration = Duration::from_secs(32);
const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

/// What idle sessions cost their node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Idle {
    pub(crate) memory_mib: f64,
    /// Of one processor, beyond what the node takes without them.
    pub(crate) cpu_percent: f64,
    without_percent: f64,
}

impl Idle {
    pub(crate) fn json(&self) -> Value {
        let [memory, cpu, without] = [self.memory_mib, self.cpu_percent, self.without_percent];
        json!({
            "name": format!("idle_{IDLE}_sessions"), "memory_mib": round(memory, 2),
            "cpu_percent_more": round(cpu, 3), "cpu_percent_without": round(without, 3),
        })
    }
}

/// `pid`: the Primary's node.
pub(crate) fn idle(login: &Login, pid: u32) -> Result<Idle> {
    let percent = |during: &mut dyn FnMut() -> Result<()>| {
        let (before, begun) = (processes::cpu_time(&[pid])?, Instant::now());
        during()?;
        let used = processes::cpu_time(&[pid])?.saturating_sub(before);
        Ok::<_, anyhow::Error>(100.0 * used.as_secs_f64() / begun.elapsed().as_secs_f64())
    };
    let without_percent = percent(&mut || {
        pause(IDLE_FOR);
        Ok(())
    })?;
    let before = processes::resident_kib(pid)?;
    let lanes = (0..IDLE).map(|_| IscsiLane::connect(login, 0, 0, 0)).collect::<Result<Vec<_>>>()?;
    let cpu_percent = percent(&mut || {
        let end = Instant::now() + IDLE_FOR;
        while Instant::now() < end {
            lanes.iter().try_for_each(|lane| lane.serve(AT_ONCE))?;
            pause(Duration::from_secs(1));
        }
        Ok(())
    })?;
    let memory_mib = mib(processes::resident_kib(pid)?.saturating_sub(before) * 1024);
    Ok(Idle { memory_mib, cpu_percent: cpu_percent - without_percent, without_percent })
}

/// How many writes each of the busy sessions got done in that time, each with 32 in flight.
pub(crate) fn busy(login: &Login, ledger: &Ledger, span: (Duration, Duration)) -> Result<Vec<f64>> {
    const WORK: Workload = Workload::new("write_64x32", Pattern::Write, BUSY, 32, 4096);
    let (span, ready) = (Span::new(span.0, span.1), Barrier::new(BUSY));
    let one = |number: usize| {
        let (span, ready) = (&span, &ready);
        move || {
            let lane = IscsiLane::connect(login, 0, WORK.depth, WORK.bytes);
            ready.wait();
            load::one(lane?, &WORK, ledger, number, span)
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..BUSY).map(|number| scope.spawn(one(number))).collect();
        let met = threads.into_iter().map(|thread| thread.join().ok().context("a thread of the load panicked")?);
        let met = met.collect::<Result<Vec<_>>>()?;
        ensure!(met.iter().all(|met| met.seconds > 0.0), "a session was not measured");
        #[expect(clippy::cast_precision_loss, reason = "counts of seconds")]
        Ok(met.iter().map(|met| met.operations as f64 / met.seconds).collect())
    })
}
