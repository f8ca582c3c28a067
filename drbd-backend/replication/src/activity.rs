//! The activity log: the extents that may differ between replicas after a crash.
//!
//! ```text
//!              want              the set is on disk             a barrier covers its writes everywhere
//!   (cold) ──────────▶ Entering ───────────────────▶ hot, dirty ─────────────────────▶ hot, clean ──▶ (cold)
//! ```
//! A write into a cold extent waits until the set that names it is durable. An extent leaves only once a barrier that covers its
//! writes is stored by every in-sync replica; until then it also knows which blocks those were, so that a lost peer is owed
//! exactly them. (DRBD User's Guide, "The activity log".)

use crate::bits::{Bits, Words};
use crate::names::{Extent, Span};

const ALL: Words = [u64::MAX; 16];
const NO: Words = [0; 16];

#[derive(Debug)]
pub(crate) struct Activity {
    /// Sorted by extent.
    slots: Vec<Slot>,
    capacity: usize,
    clock: u64,
    wanted: Vec<Extent>,
    transaction: Option<Transaction>,
}

#[derive(Debug)]
struct Slot {
    extent: Extent,
    /// The durable set names it.
    hot: bool,
    used: u64,
    /// Written since the last barrier began.
    now: Words,
    /// Written before, and not confirmed yet.
    before: Words,
}

/// What is being made durable, one after the other: first the bitmaps of what leaves, then the set.
#[derive(Debug)]
struct Transaction {
    leaving: Vec<Extent>,
    bitmaps: usize,
    set_goes_out: bool,
}

/// What stands in the way of a wanted extent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Nothing,
    /// The bitmaps of what leaves, and then the set, are to be made durable.
    Keep,
    /// Every extent has writes that no barrier covers.
    Barrier,
}

impl Activity {
    /// After a start: whatever the set on disk names may differ, wholly.
    pub(crate) fn found(capacity: usize, extents: &[Extent]) -> Self {
        let mut slots: Vec<Slot> =
            extents.iter().map(|extent| Slot { extent: *extent, hot: true, used: 0, now: NO, before: ALL }).collect();
        slots.sort_unstable_by_key(|slot| slot.extent);
        slots.dedup_by_key(|slot| slot.extent);
        slots.reserve(capacity.saturating_sub(slots.len()));
        Self { slots, capacity, clock: 0, wanted: Vec::new(), transaction: None }
    }

    fn place(&self, extent: Extent) -> Result<usize, usize> {
        self.slots.binary_search_by_key(&extent, |slot| slot.extent)
    }

    pub(crate) fn is_hot(&self, span: Span) -> bool {
        span.extents().all(|extent| self.place(extent).is_ok_and(|place| self.slots[place].hot))
    }

    /// Its blocks are about to be written: the extents are hot.
    pub(crate) fn mark(&mut self, span: Span) {
        self.clock += 1;
        for extent in span.extents() {
            let place = self.place(extent).expect("a write begins only in hot extents");
            let whole = extent.span();
            let slot = &mut self.slots[place];
            slot.used = self.clock;
            for block in span.start.max(whole.start)..span.end().min(whole.end()) {
                let bit = usize::try_from(block - whole.start).expect("below 1024");
                slot.now[bit / 64] |= 1 << (bit % 64);
            }
        }
    }

    pub(crate) fn want(&mut self, span: Span) {
        for extent in span.extents() {
            if self.place(extent).is_err() && !self.wanted.contains(&extent) {
                self.wanted.push(extent);
            }
        }
    }

    /// What must be done before the wanted extents are hot. What is `needed` by a write that waits does not leave.
    pub(crate) fn next(&mut self, needed: impl Fn(Extent) -> bool) -> Next {
        if self.transaction.is_some() || self.wanted.is_empty() {
            return Next::Nothing;
        }
        let mut leaving = Vec::new();
        let mut entered = false;
        while let Some(extent) = self.wanted.first().copied() {
            if self.slots.len() >= self.capacity {
                let Some(oldest) = self.oldest_clean(&needed) else { break };
                leaving.push(self.slots.remove(oldest).extent);
            }
            self.wanted.remove(0);
            if let Err(place) = self.place(extent) {
                self.clock += 1;
                let slot = Slot { extent, hot: false, used: self.clock, now: NO, before: NO };
                self.slots.insert(place, slot);
                entered = true;
            }
        }
        if !entered {
            return if self.wanted.is_empty() { Next::Nothing } else { Next::Barrier };
        }
        self.transaction = Some(Transaction { leaving, bitmaps: 0, set_goes_out: false });
        Next::Keep
    }

    pub(crate) fn is_under_way(&self) -> bool {
        self.transaction.is_some()
    }

    pub(crate) fn leaving(&self) -> Vec<Extent> {
        self.transaction.as_ref().map(|transaction| transaction.leaving.clone()).unwrap_or_default()
    }

    pub(crate) fn bitmap_goes_out(&mut self) {
        self.transaction.as_mut().expect("it is under way").bitmaps += 1;
    }

    pub(crate) fn bitmap_is_out(&mut self) {
        self.transaction.as_mut().expect("it is under way").bitmaps -= 1;
    }

    /// The set, once.
    pub(crate) fn set_when_bitmaps_are_out(&mut self) -> Option<Vec<Extent>> {
        let transaction = self.transaction.as_mut()?;
        let ready =
            transaction.bitmaps == 0 && !std::mem::replace(&mut transaction.set_goes_out, transaction.bitmaps == 0);
        ready.then(|| self.slots.iter().map(|slot| slot.extent).collect())
    }

    fn oldest_clean(&self, needed: impl Fn(Extent) -> bool) -> Option<usize> {
        let may_leave = |slot: &Slot| slot.hot && slot.now == NO && slot.before == NO && !needed(slot.extent);
        let old = self.slots.iter().enumerate().filter(|(_, slot)| may_leave(slot));
        old.min_by_key(|(_, slot)| slot.used).map(|(place, _)| place)
    }

    /// The set is durable.
    pub(crate) fn kept(&mut self) {
        self.transaction = None;
        self.slots.iter_mut().for_each(|slot| slot.hot = true);
    }

    /// A barrier begins: it will cover what was written until now.
    pub(crate) fn turn_over(&mut self) {
        for slot in &mut self.slots {
            for (before, now) in slot.before.iter_mut().zip(&mut slot.now) {
                *before |= *now;
                *now = 0;
            }
        }
    }

    /// The barrier that began last is stored everywhere.
    pub(crate) fn confirm(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.before = NO);
    }

    /// What no confirmed barrier covers.
    pub(crate) fn dirty(&self) -> Bits {
        let mut bits = Bits::default();
        for slot in &self.slots {
            bits.set_words(slot.extent, &slot.now);
            bits.set_words(slot.extent, &slot.before);
        }
        bits
    }

    pub(crate) fn is_dirty(&self) -> bool {
        self.slots.iter().any(|slot| slot.now != NO || slot.before != NO)
    }

    pub(crate) fn extents(&self) -> impl Iterator<Item = Extent> {
        self.slots.iter().map(|slot| slot.extent)
    }

    /// Everything is on every in-sync disk, and the empty set is about to be made durable.
    pub(crate) fn empty(&mut self) {
        self.slots.clear();
    }
}
