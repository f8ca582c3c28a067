//! A node's disk: blocks behind a volatile cache, metadata beside them, and everything that a disk may do instead of obeying.

use std::ops::Range;

use fastrand::Rng;
use replication::{Bits, Control, Data, Extent, Found, Metadata, Node, Span, Superblock};

/// Blocks of a volume that anybody ever writes, at most. The rest of it is there, and nobody looks.
pub const MOST: usize = 8;

/// What a block holds: two halves, each the number of the write that it is from. A partial write is one half.
pub type Cell = [u32; 2];

/// The blocks that are written, in ascending order.
#[derive(Debug, Clone, Default)]
pub struct Blocks {
    pub numbers: Vec<u64>,
}

impl Blocks {
    /// Which of them lie within a span.
    pub fn within(&self, span: Span) -> Range<usize> {
        let from = self.numbers.iter().position(|number| *number >= span.start).unwrap_or(self.numbers.len());
        let until = self.numbers.iter().position(|number| *number >= span.end()).unwrap_or(self.numbers.len());
        from..until
    }
}

/// Bytes in memory or on the wire.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bytes {
    pub cells: [Cell; MOST],
    /// Of a partial write: which half it brings.
    pub half: Option<usize>,
}

/// What lies beside the data, as it is on the disk.
#[derive(Debug, Clone)]
pub struct Meta {
    pub superblock: Superblock,
    pub activity: Vec<Extent>,
    pub bitmaps: Vec<(Node, Bits)>,
    pub control: Control,
}

impl Meta {
    fn keep(&mut self, what: &Metadata) {
        match what {
            Metadata::Superblock(superblock) => self.superblock = (**superblock).clone(),
            Metadata::Activity(extents) => self.activity.clone_from(extents),
            Metadata::Bitmap { node, bits, extents } => {
                let own = self.bitmap(*node);
                extents.iter().for_each(|extent| own.replace_words(*extent, &bits.words(*extent)));
            }
            Metadata::WholeBitmap { node, bits } => *self.bitmap(*node) = bits.clone(),
            Metadata::Control(control) => self.control = (**control).clone(),
        }
    }

    fn bitmap(&mut self, node: Node) -> &mut Bits {
        let place = self.bitmaps.iter().position(|(other, _)| *other == node).unwrap_or_else(|| {
            self.bitmaps.push((node, Bits::default()));
            self.bitmaps.len() - 1
        });
        &mut self.bitmaps[place].1
    }

    /// What a new process reads: bitmaps that the superblock does not name are nobody's.
    pub fn found(&self) -> Found {
        let named = |node: &Node| self.superblock.absent[node.index()].is_some();
        Found {
            superblock: self.superblock.clone(),
            activity: self.activity.clone(),
            bitmaps: self.bitmaps.iter().filter(|(node, _)| named(node)).cloned().collect(),
            control: self.control.clone(),
        }
    }
}

/// What it does instead of obeying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ills {
    /// The next one fails.
    pub store: bool,
    pub flush: bool,
    pub keep: bool,
    pub is_full: bool,
    /// Everything takes so many times as long.
    pub slower: u64,
}

#[derive(Debug, Clone)]
pub struct Disk {
    durable: [Cell; MOST],
    cache: [Option<Cell>; MOST],
    /// Blocks that cannot be read until they are written, a bit each.
    pub unreadable: u8,
    /// The last flush that was asked for, and the last of those that have ended.
    flushed: (u64, u64),
    pub meta: Meta,
    pub ills: Ills,
    /// Its cache is gone, and with it what it answered for. Until it is added anew.
    pub has_lost: bool,
    /// As above, because a write or a flush failed, or it was exchanged.
    pub is_broken: bool,
    /// It did not do what it was asked, once.
    pub has_failed: bool,
    /// It is another one, or an older copy.
    pub was_exchanged: bool,
}

impl Disk {
    pub fn new(cells: [Cell; MOST], superblock: Superblock) -> Self {
        let meta = Meta { superblock, activity: Vec::new(), bitmaps: Vec::new(), control: Control::default() };
        Self {
            durable: cells,
            cache: [None; MOST],
            unreadable: 0,
            flushed: (0, 0),
            meta,
            ills: Ills::default(),
            has_lost: false,
            is_broken: false,
            has_failed: false,
            was_exchanged: false,
        }
    }

    /// What a read shows.
    pub fn cell(&self, index: usize) -> Cell {
        self.cache[index].unwrap_or(self.durable[index])
    }

    /// What would be left if the power went now, at the worst.
    pub fn durable_cell(&self, index: usize) -> Cell {
        self.durable[index]
    }

    pub fn dirty(&self) -> [Option<Cell>; MOST] {
        self.cache
    }

    pub fn write(&mut self, index: usize, cell: Cell, durable: bool, chance: &mut Rng) {
        self.unreadable &= !(1 << index);
        if durable {
            self.durable[index] = cell;
            self.cache[index] = None;
            return;
        }
        if let Some(older) = self.cache[index].filter(|_| chance.u8(0..4) == 0) {
            self.durable[index] = older; // a cache writes back whenever it likes
        }
        self.cache[index] = Some(cell);
    }

    pub fn can_read(&self, within: Range<usize>) -> bool {
        within.into_iter().all(|index| self.unreadable & (1 << index) == 0)
    }

    /// The number of the next flush.
    pub fn asks_for_flush(&mut self) -> u64 {
        self.flushed.0 += 1;
        self.flushed.0
    }

    /// What was in the cache when the flush was asked for is durable; what came later may be.
    pub fn flush(&mut self, asked: &[Option<Cell>; MOST], number: u64, chance: &mut Rng) {
        let all = chance.bool();
        if number < self.flushed.1 {
            return; // one that was asked for later has ended: what is durable with it is newer
        }
        self.flushed.1 = number;
        for (index, asked) in asked.iter().enumerate() {
            match (self.cache[index], asked) {
                (Some(now), _) if all || Some(now) == *asked => {
                    self.durable[index] = now;
                    self.cache[index] = None;
                }
                (Some(_), Some(older)) => self.durable[index] = *older,
                _ => {}
            }
        }
    }

    /// The kernel reports that it could not write back, once, and forgets what it could not write.
    pub fn fail_flush(&mut self, chance: &mut Rng) {
        (self.is_broken, self.has_failed) = (true, true);
        for index in 0..MOST {
            if chance.bool() {
                self.cache[index] = None;
            } else if let Some(now) = self.cache[index].take_if(|_| chance.bool()) {
                self.durable[index] = now;
            }
        }
    }

    /// Of what no flush covered, some blocks are there and some are not.
    pub fn lose_power(&mut self, chance: &mut Rng) {
        for index in 0..MOST {
            if let Some(now) = self.cache[index].take().filter(|_| chance.bool()) {
                self.durable[index] = now;
            }
        }
    }

    /// At the worst.
    pub fn forget_unflushed(&mut self) {
        self.cache = [None; MOST];
    }

    /// Whether it has what it answered for.
    pub fn is_whole(&self) -> bool {
        !self.has_lost && !self.is_broken
    }

    pub fn is_made_whole(&mut self) {
        (self.has_lost, self.is_broken, self.was_exchanged) = (false, false, false);
        self.has_failed = false;
    }

    /// Metadata lands. A resync that has come to its end makes the disk whole again.
    pub fn keep(&mut self, what: &Metadata) {
        if let Metadata::Superblock(new) = what
            && new.data == Data::Consistent
            && self.meta.superblock.data != Data::Consistent
        {
            self.is_made_whole();
        }
        self.meta.keep(what);
    }
}
