//! The load: one thread per connection keeps so many requests in flight, and nothing is allocated for any of them.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use hdrhistogram::Histogram;

use super::payload::{BLOCK, Ledger};

/// A way to a store of blocks: a connection, or a queue of the kernel. Requests are named by their slot.
pub(crate) trait Lane {
    /// Begins a write of what `fill` puts into the slot's memory.
    fn write(&mut self, slot: usize, offset: u64, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<()>;

    fn read(&mut self, slot: usize, offset: u64, bytes: usize) -> Result<()>;

    fn flush(&mut self, slot: usize) -> Result<()>;

    /// Hands over what was begun, waits until something has ended, and tells of each that has, with what was read.
    fn wait(&mut self, ended: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pattern {
    Write,
    Read,
    /// So many of a hundred are reads.
    Mix(u32),
    /// Each write is followed by a flush; the two are one operation.
    WriteFlush,
    SequentialWrite,
    SequentialRead,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) pattern: Pattern,
    pub(crate) lanes: usize,
    pub(crate) depth: usize,
    pub(crate) bytes: usize,
}

impl Workload {
    pub(crate) const fn new(name: &'static str, pattern: Pattern, lanes: usize, depth: usize, bytes: usize) -> Self {
        Self { name, pattern, lanes, depth, bytes }
    }

    fn blocks(&self) -> u64 {
        (self.bytes / BLOCK) as u64
    }
}

/// When a load is counted and when it ends.
#[derive(Debug)]
pub(crate) struct Span {
    pub(crate) warm_up: Duration,
    pub(crate) measure: Duration,
    /// Ends it before.
    pub(crate) stop: AtomicBool,
    /// Operations that have ended, also those of the warm-up.
    pub(crate) done: AtomicU64,
}

impl Span {
    pub(crate) fn new(warm_up: Duration, measure: Duration) -> Self {
        Self { warm_up, measure, stop: AtomicBool::new(false), done: AtomicU64::new(0) }
    }
}

/// What a load met with.
#[derive(Debug)]
pub(crate) struct Met {
    pub(crate) operations: u64,
    pub(crate) seconds: f64,
    pub(crate) latency_ns: Histogram<u64>,
}

/// Runs the load to its end; `watch` runs beside it, from when all lanes are open.
pub(crate) fn run<L: Lane>(
    work: &Workload,
    ledger: &Ledger,
    span: &Span,
    open: impl Fn(&Workload) -> Result<L> + Sync,
    watch: impl FnOnce() -> Result<()>,
) -> Result<Met> {
    let ready = Barrier::new(work.lanes + 1);
    std::thread::scope(|scope| {
        let lane = |number: usize| {
            let (ready, open) = (&ready, &open);
            move || {
                let lane = open(work);
                ready.wait();
                one(lane?, work, ledger, number, span)
            }
        };
        let threads: Vec<_> = (0..work.lanes).map(|number| scope.spawn(lane(number))).collect();
        ready.wait();
        let watched = watch();
        let mut all = Met { operations: 0, seconds: 0.0, latency_ns: histogram() };
        for thread in threads {
            let met = thread.join().ok().context("a thread of the load panicked")??;
            all.operations += met.operations;
            all.seconds = all.seconds.max(met.seconds);
            all.latency_ns.add(&met.latency_ns)?;
        }
        watched.map(|()| all)
    })
}

/// One lane of the load, of this number, to its end.
pub(crate) fn one<L: Lane>(lane: L, work: &Workload, ledger: &Ledger, number: usize, span: &Span) -> Result<Met> {
    Driver::new(lane, work, ledger, number).run(span)
}

/// Reads the whole volume and checks it.
pub(crate) fn verify<L: Lane>(ledger: &Ledger, mut lane: L, bytes: usize) -> Result<()> {
    let step = (bytes / BLOCK) as u64;
    for first in (0..ledger.blocks()).step_by(bytes / BLOCK) {
        let since = ledger.acknowledged(first);
        lane.read(0, first * BLOCK as u64, usize::try_from(step.min(ledger.blocks() - first))? * BLOCK)?;
        lane.wait(|_, data| ledger.check(first, since, data))?;
    }
    Ok(())
}

/// Writes the whole volume once, from the first block to the last, and flushes it.
pub(crate) fn fill<L: Lane>(ledger: &Ledger, mut lane: L, bytes: usize, depth: usize) -> Result<()> {
    let step = (bytes / BLOCK) as u64;
    let (mut next, mut firsts, mut free) = (0, vec![0; depth], (0..depth).collect::<Vec<_>>());
    while next < ledger.blocks() || free.len() < depth {
        while let Some(slot) = free.pop_if(|_| next < ledger.blocks()) {
            firsts[slot] = next;
            lane.write(slot, next * BLOCK as u64, bytes, |data| ledger.stamp(next, data))?;
            next += step;
        }
        lane.wait(|slot, _| {
            ledger.written(firsts[slot], step);
            free.push(slot);
            Ok(())
        })?;
    }
    lane.flush(0)?;
    lane.wait(|_, _| Ok(()))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000_000, 3).expect("the bounds are sound")
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    doing: Doing,
    block: u64,
    /// What was acknowledged of the block when it began.
    since: u32,
    begun: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Nothing,
    Write,
    Read,
    Flush,
}

/// One lane, its requests, and where it writes next. The blocks are dealt out to the lanes, so that none knows of another.
struct Driver<'a, L> {
    lane: L,
    work: &'a Workload,
    ledger: &'a Ledger,
    random: Rng,
    number: u64,
    next: u64,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Written, and to be flushed.
    written: Vec<usize>,
}

impl<'a, L: Lane> Driver<'a, L> {
    fn new(lane: L, work: &'a Workload, ledger: &'a Ledger, number: usize) -> Self {
        let idle = Slot { doing: Doing::Nothing, block: 0, since: 0, begun: Instant::now() };
        Self {
            lane,
            work,
            ledger,
            random: Rng::with_seed(number as u64 + 1),
            number: number as u64,
            next: 0,
            slots: vec![idle; work.depth],
            free: (0..work.depth).collect(),
            written: Vec::with_capacity(work.depth),
        }
    }

    fn run(mut self, span: &Span) -> Result<Met> {
        let from = Instant::now() + span.warm_up;
        let until = from + span.measure;
        let mut met = Met { operations: 0, seconds: 0.0, latency_ns: histogram() };
        let mut now = Instant::now();
        while now < until && !span.stop.load(Ordering::Relaxed) {
            self.begin(now)?;
            now = self.wait(span, Some((from, &mut met)))?;
        }
        met.seconds = now.saturating_duration_since(from).as_secs_f64();
        while self.free.len() < self.slots.len() {
            self.flush_written()?;
            self.wait(span, None)?;
        }
        Ok(met)
    }

    fn begin(&mut self, now: Instant) -> Result<()> {
        self.flush_written()?;
        while let Some(slot) = self.free.pop() {
            let block = self.choose();
            let is_read = match self.work.pattern {
                Pattern::Read | Pattern::SequentialRead => true,
                Pattern::Mix(reads) => self.random.u32(0..100) < reads,
                Pattern::Write | Pattern::WriteFlush | Pattern::SequentialWrite => false,
            };
            let doing = if is_read { Doing::Read } else { Doing::Write };
            self.slots[slot] = Slot { doing, block, since: self.ledger.acknowledged(block), begun: now };
            let (offset, bytes, ledger) = (block * BLOCK as u64, self.work.bytes, self.ledger);
            match doing {
                Doing::Read => self.lane.read(slot, offset, bytes)?,
                _ => self.lane.write(slot, offset, bytes, |data| ledger.stamp(block, data))?,
            }
        }
        Ok(())
    }

    fn flush_written(&mut self) -> Result<()> {
        while let Some(slot) = self.written.pop() {
            self.slots[slot].doing = Doing::Flush;
            self.lane.flush(slot)?;
        }
        Ok(())
    }

    /// The first block of the next operation, on which no other is in flight.
    fn choose(&mut self) -> u64 {
        let steps = self.ledger.blocks() / self.work.blocks() / self.work.lanes as u64;
        loop {
            let step = match self.work.pattern {
                Pattern::SequentialWrite | Pattern::SequentialRead => {
                    self.next += 1;
                    self.next % steps
                }
                _ => self.random.u64(0..steps),
            };
            let block = (step * self.work.lanes as u64 + self.number) * self.work.blocks();
            let is_in_use = |slot: &Slot| slot.doing != Doing::Nothing && slot.block == block;
            if !self.slots.iter().any(is_in_use) {
                return block;
            }
        }
    }

    fn wait(&mut self, span: &Span, mut counted: Option<(Instant, &mut Met)>) -> Result<Instant> {
        let Self { lane, work, ledger, slots, free, written, .. } = self;
        let (mut now, mut done) = (None, 0);
        lane.wait(|slot, data| {
            let number = slot;
            let now = *now.get_or_insert_with(Instant::now);
            let slot = &mut slots[number];
            match slot.doing {
                Doing::Read => {
                    ensure!(data.len() == work.bytes, "{} bytes were read instead of {}", data.len(), work.bytes);
                    ledger.check(slot.block, slot.since, data)?;
                }
                Doing::Write => {
                    ledger.written(slot.block, work.blocks());
                    if work.pattern == Pattern::WriteFlush {
                        written.push(number);
                        return Ok(());
                    }
                }
                Doing::Flush | Doing::Nothing => {}
            }
            slot.doing = Doing::Nothing;
            free.push(number);
            done += 1;
            if let Some((_, met)) = counted.as_mut().filter(|(from, _)| now >= *from) {
                met.operations += 1;
                met.latency_ns.saturating_record(u64::try_from((now - slot.begun).as_nanos())?);
            }
            Ok(())
        })?;
        span.done.fetch_add(done, Ordering::Relaxed);
        Ok(now.unwrap_or_else(Instant::now))
    }
}
