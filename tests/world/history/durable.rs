//! What flushes and FUA have made durable, and so what may be left when the power of all replicas goes at once.
//!
//! A write is durable if it was acknowledged before a flush began that was acknowledged, or if it was acknowledged itself
//! with FUA. Afterwards a block holds nothing that a durable write had replaced: no value whose write was acknowledged before that
//! of a durable one began. Everything newer may be there or not, acknowledged or not, and whatever was read meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use super::{Act, Operation, Value};

#[derive(Debug, Default)]
pub(super) struct Covered {
    /// When the last flush began that was acknowledged.
    flushed_ns: u64,
    /// When the last write with FUA of a block began that was acknowledged.
    forced_ns: BTreeMap<u64, u64>,
}

impl Covered {
    pub(super) fn flushed(&mut self, invoked_ns: u64) {
        self.flushed_ns = self.flushed_ns.max(invoked_ns);
    }

    pub(super) fn forced(&mut self, block: u64, invoked_ns: u64) {
        let forced_ns = self.forced_ns.entry(block).or_default();
        *forced_ns = invoked_ns.max(*forced_ns);
    }

    pub(super) fn may_hold(&self, block: u64, operations: &[Operation]) -> BTreeSet<Value> {
        let writes = || operations.iter().filter(|operation| matches!(operation.act, Act::Write(_)));
        let is_flushed =
            |write: &&Operation| write.answered_ns.is_some_and(|answered_ns| answered_ns < self.flushed_ns);
        let flushed_ns = writes().filter(is_flushed).map(|write| write.invoked_ns).max();
        let durable_ns = flushed_ns.max(self.forced_ns.get(&block).copied());
        let is_replaced =
            |write: &&Operation| write.answered_ns.zip(durable_ns).is_some_and(|(answered, at)| answered < at);
        let begins_with = durable_ns.is_none().then_some(Value::Zeroes);
        let written = writes().filter(|write| !is_replaced(write)).filter_map(|write| match write.act {
            Act::Write(value) => Some(value),
            Act::Read(_) => None,
        });
        begins_with.into_iter().chain(written).collect()
    }
}
