//! What clients of a volume wrote and read, when, and whether one register per block could have answered so.
//!
//! ```text
//!  History::write ──▶ Writing ── acknowledged ──▶ it took effect between invocation and answer
//!                        └────── dropped ───────▶ outcome unknown: it takes effect at any later time, or never
//!  History::read ───▶ Reading ── showed ────────▶ it shows what the register held between invocation and answer
//!                        └────── dropped ───────▶ says nothing
//! ```
//!
//! A volume promises for each block what a linearizable register does: an acknowledged write is never lost and never
//! read old, and what a read has shown stays shown. Blocks are judged one by one, since a history is linearizable if it
//! is so for each of its objects (Herlihy and Wing, 1990, theorem 1).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

mod check;
mod durable;
pub mod payload;

pub use check::{Checked, Kind, Violation, Violations};
use payload::Damage;

/// One write of one block; no two have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId {
    pub writer: u32,
    pub sequence: u64,
}

impl fmt::Display for WriteId {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "w{}/{}", self.writer, self.sequence)
    }
}

/// What a block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// As a new volume reads, and what was discarded or zeroed.
    Zeroes,
    Write(WriteId),
}

impl fmt::Display for Value {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => to.write_str("zeroes"),
            Self::Write(id) => id.fmt(to),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    Write(Value),
    Read(Result<Value, Damage>),
}

/// One operation on one block. Times are nanoseconds since the history began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    pub client: u32,
    pub act: Act,
    pub invoked_ns: u64,
    /// `None`: no answer, or an error. It may take effect later, or never.
    pub answered_ns: Option<u64>,
}

impl fmt::Display for Operation {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |at_ns: u64| format!("{}.{:03}", at_ns / 1_000_000, at_ns / 1_000 % 1_000);
        let answered = self.answered_ns.map_or_else(|| "?".to_owned(), ms);
        write!(to, "{:>12} ..{answered:>12} ms  client {:<3} ", ms(self.invoked_ns), self.client)?;
        match &self.act {
            Act::Write(value) if self.answered_ns.is_none() => write!(to, "writes {value}, outcome unknown"),
            Act::Write(value) => write!(to, "writes {value}"),
            Act::Read(Ok(value)) => write!(to, "reads {value}"),
            Act::Read(Err(damage)) => write!(to, "reads {damage}"),
        }
    }
}

/// Shared by all clients of one volume. One client may have several operations on their way.
#[derive(Debug)]
pub struct History {
    seed: u64,
    began: Instant,
    recorded: Mutex<Recorded>,
}

#[derive(Debug, Default)]
struct Recorded {
    last_sequence: u64,
    blocks: BTreeMap<u64, Vec<Operation>>,
    durable: durable::Covered,
}

impl History {
    /// Of a volume that reads as zeroes, written with the payloads of this seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, began: Instant::now(), recorded: Mutex::default() }
    }

    /// Of a write of a block, that begins now.
    pub fn write(&self, client: u32, block: u64) -> Writing<'_> {
        let mut recorded = self.recorded();
        recorded.last_sequence += 1;
        let id = WriteId { writer: client, sequence: recorded.last_sequence };
        drop(recorded);
        self.begin_write(client, block, Value::Write(id))
    }

    /// Of a discard or write of zeroes, that begins now.
    pub fn write_zeroes(&self, client: u32, block: u64) -> Writing<'_> {
        self.begin_write(client, block, Value::Zeroes)
    }

    /// Of a read of a block, that begins now.
    pub fn read(&self, client: u32, block: u64) -> Reading<'_> {
        Reading { history: self, client, block, invoked_ns: self.now_ns() }
    }

    /// Of a flush, that begins now: once it is acknowledged, it covers all writes that were acknowledged before it began.
    pub fn flush(&self) -> Flushing<'_> {
        Flushing { history: self, invoked_ns: self.now_ns() }
    }

    /// What a block of this history shows, without an entry in it.
    pub fn decode(&self, block: u64, bytes: &[u8; payload::BLOCK]) -> Result<Value, Damage> {
        payload::read(self.seed, block, bytes)
    }

    /// The blocks that somebody wrote or read.
    pub fn blocks(&self) -> Vec<u64> {
        self.recorded().blocks.keys().copied().collect()
    }

    /// What each block may hold once every replica has lost its cache: what no durable write has replaced since.
    pub fn after_power_loss(&self) -> BTreeMap<u64, BTreeSet<Value>> {
        let recorded = self.recorded();
        let may =
            |(block, operations): (&u64, &Vec<Operation>)| (*block, recorded.durable.may_hold(*block, operations));
        recorded.blocks.iter().map(may).collect()
    }

    /// The volume was found to hold this, durably and with no request on its way: what went before is forgotten. A write
    /// of unknown outcome has had its effect by now, or never will.
    pub fn settled(&self, held: &BTreeMap<u64, Value>) {
        let mut recorded = self.recorded();
        let now_ns = self.now_ns();
        let then = |value: &Value| match value {
            Value::Zeroes => Vec::new(),
            Value::Write(id) => {
                let act = Act::Write(*value);
                vec![Operation { client: id.writer, act, invoked_ns: now_ns, answered_ns: Some(now_ns) }]
            }
        };
        recorded.blocks = held.iter().map(|(block, value)| (*block, then(value))).collect();
        recorded.durable = durable::Covered::default();
        for (block, _) in held.iter().filter(|(_, value)| **value != Value::Zeroes) {
            recorded.durable.forced(*block, now_ns);
        }
    }

    /// Judges what was recorded so far. Operations that have begun and not ended are unknown to it, so all must have
    /// ended.
    pub fn check(&self) -> Result<Checked, Violations> {
        check::check(&self.recorded().blocks)
    }

    fn begin_write(&self, client: u32, block: u64, value: Value) -> Writing<'_> {
        let act = Act::Write(value);
        let operation = Operation { client, act, invoked_ns: self.now_ns(), answered_ns: None };
        Writing { history: self, block, value, operation: Some(operation) }
    }

    fn record(&self, block: u64, operation: Operation) {
        self.recorded().blocks.entry(block).or_default().push(operation);
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).expect("no test runs for centuries")
    }
}

/// A write on its way. Dropped without an acknowledgement its outcome is unknown.
#[derive(Debug)]
#[must_use = "dropped, it is a write whose outcome nobody knows"]
pub struct Writing<'a> {
    history: &'a History,
    block: u64,
    value: Value,
    operation: Option<Operation>,
}

impl Writing<'_> {
    /// The 4 KiB to write.
    pub fn fill(&self, out: &mut [u8; payload::BLOCK]) {
        match self.value {
            Value::Zeroes => out.fill(0),
            Value::Write(id) => payload::fill(self.history.seed, self.block, id, out),
        }
    }

    /// The volume has acknowledged it.
    pub fn acknowledged(mut self) {
        let answered_ns = Some(self.history.now_ns());
        if let Some(operation) = self.operation.take() {
            self.history.record(self.block, Operation { answered_ns, ..operation });
        }
    }
}

impl Writing<'_> {
    /// As [`Self::acknowledged`], of a write with FUA: it outlives the caches of all replicas.
    pub fn made_durable(self) {
        if let Some(operation) = &self.operation {
            self.history.recorded().durable.forced(self.block, operation.invoked_ns);
        }
        self.acknowledged();
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        if let Some(unknown) = self.operation.take() {
            self.history.record(self.block, unknown);
        }
    }
}

/// A flush on its way. Dropped without an acknowledgement it covers nothing.
#[derive(Debug)]
#[must_use = "dropped, it covers nothing"]
pub struct Flushing<'a> {
    history: &'a History,
    invoked_ns: u64,
}

impl Flushing<'_> {
    pub fn acknowledged(self) {
        self.history.recorded().durable.flushed(self.invoked_ns);
    }
}

/// A read on its way. Dropped without an answer it says nothing.
#[derive(Debug)]
#[must_use = "dropped, it says nothing"]
pub struct Reading<'a> {
    history: &'a History,
    client: u32,
    block: u64,
    invoked_ns: u64,
}

impl Reading<'_> {
    /// What the volume answered; told back, so that a client can act on it.
    pub fn showed(self, bytes: &[u8; payload::BLOCK]) -> Result<Value, Damage> {
        // The time first: looking at the payload takes some.
        let answered_ns = Some(self.history.now_ns());
        let shown = payload::read(self.history.seed, self.block, bytes);
        let act = Act::Read(shown.clone());
        self.history
            .record(self.block, Operation { client: self.client, act, invoked_ns: self.invoked_ns, answered_ns });
        shown
    }
}

#[cfg(test)]
mod tests;
