//! States that differ only in what nodes and blocks are called are one.
//!
//! The search tells states apart by their hash alone, so the hash is that of one of the equal states: the names are put in an order
//! that the state itself gives, and where that leaves a choice, the least of them is taken. Paths keep the names that they had.

use std::hash::{Hash, Hasher};

use crate::state::{BLOCKS, Change, Clients, NODES, Part, Record, Replica, Set, Spent, State};

/// Old names by new ones.
const ORDERS: [[usize; NODES]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Bits one after the other, with new names.
struct Bits {
    nodes: [usize; NODES],
    /// New names of nodes by old ones.
    names: [u8; NODES],
    blocks: [usize; BLOCKS],
    words: [u64; 16],
    word: usize,
    used: u32,
}

impl Bits {
    fn new(nodes: [usize; NODES], blocks: [usize; BLOCKS]) -> Self {
        let mut names = [0; NODES];
        (0..).zip(nodes).for_each(|(name, node)| names[node] = name);
        Self { nodes, names, blocks, words: [0; 16], word: 0, used: 0 }
    }

    fn push(&mut self, value: u8, bits: u32) {
        if self.used + bits > 64 {
            (self.word, self.used) = (self.word + 1, 0);
        }
        self.words[self.word] |= u64::from(value) << self.used;
        self.used += bits;
    }

    fn flags<const COUNT: usize>(&mut self, flags: [bool; COUNT]) {
        flags.iter().for_each(|flag| self.push(u8::from(*flag), 1));
    }

    fn node(&mut self, node: u8) {
        self.push(self.names[usize::from(node)], 2);
    }

    fn nodes<const COUNT: usize>(&mut self, sets: [Set; COUNT]) {
        for set in sets {
            let bits = (0..NODES).fold(0, |bits, name| bits | u8::from(set.has(self.nodes[name])) << name);
            self.push(bits, 3);
        }
    }

    fn blocks<const COUNT: usize>(&mut self, sets: [Set; COUNT]) {
        for set in sets {
            self.push(u8::from(set.has(self.blocks[0])) | u8::from(set.has(self.blocks[1])) << 1, 2);
        }
    }

    fn versions<const COUNT: usize>(&mut self, versions: [[u8; BLOCKS]; COUNT]) {
        for versions in versions {
            self.push(versions[self.blocks[0]], 4);
            self.push(versions[self.blocks[1]], 4);
        }
    }

    fn record(&mut self, record: &Record) {
        self.push(record.generation, 4);
        self.push(if record.is_none() { 3 } else { self.names[usize::from(record.primary)] }, 2);
        for node in self.nodes {
            self.push(record.in_sync[node], 3);
            self.push(record.left[node], 4);
        }
    }

    fn replica(&mut self, it: &Replica) {
        self.record(&it.record);
        self.push(it.disk, 3);
        self.push(it.stored, 4);
        for node in self.nodes {
            self.push(it.bitmaps[node].since, 4);
            self.push(it.bitmaps[node].disk, 3);
            self.blocks([it.bitmaps[node].blocks]);
        }
        self.versions([it.durable, it.copy, it.visible, it.pending]);
        self.flags([it.suspect, it.consistent, it.behind, it.rebooted, it.forgetful, it.stopped, it.lost]);
        self.blocks([it.log, it.recent, it.orphans, it.trailing]);
        self.push(it.part as u8, 3);
        self.push(it.generation, 4);
        self.nodes([it.told, it.forgot, it.late]);
        if it.part != Part::Secondary && it.part != Part::Down {
            self.in_office(it);
        }
    }

    /// What only a Candidate or a Primary has.
    fn in_office(&mut self, it: &Replica) {
        self.change(it.change);
        self.push(it.asked as u8, 2);
        self.record(&it.proposed);
        self.nodes([it.view, it.along, it.lease]);
        self.versions([it.write]);
        for block in self.blocks {
            self.nodes([it.waiting[block], it.sent[block]]);
        }
        for node in self.nodes {
            self.blocks([it.unsent[node]]);
        }
        let block = |block: usize| u8::from(self.blocks[1] == block);
        let (read, copying) = (block(usize::from(it.read.0.saturating_sub(1))), block(usize::from(it.copying.1)));
        self.push(u8::from(it.read.0 != 0) << 1 | read, 2);
        self.push(it.read.1, 4);
        if it.copying.0 != 0 {
            self.node(it.copying.0 - 1);
            self.push(copying, 1);
            self.push(it.copying.2, 4);
        }
    }

    fn change(&mut self, change: Change) {
        let (kind, node) = match change {
            Change::None => (0, None),
            Change::Promote => (1, None),
            Change::Reclaim => (2, None),
            Change::Drop(node) => (3, Some(node)),
            Change::Add(node) => (4, Some(node)),
        };
        self.push(kind, 3);
        if let Some(node) = node {
            self.node(node);
        }
    }

    fn clients(&mut self, it: &Clients) {
        self.versions([it.issued, it.acknowledged, it.flushed]);
        for block in self.blocks {
            self.push(it.possible[block], 8);
            self.nodes([it.holders[block]]);
        }
        self.flags([it.broken.lost, it.broken.stale, it.broken.backwards, it.broken.two_primaries]);
    }

    fn spent(&mut self, it: &Spent) {
        let counts = [it.faults, it.crashes, it.power_losses, it.cuts, it.time_outs];
        counts.into_iter().for_each(|count| self.push(count, 3));
        [it.replaced, it.rolled_back, it.fences, it.hand_overs].into_iter().for_each(|count| self.push(count, 2));
    }

    fn links(&mut self, state: &State) {
        let [a, b, c] = self.nodes;
        self.flags([state.linked(a, b), state.linked(a, c), state.linked(b, c)]);
    }

    fn state(mut self, state: &State) -> [u64; 16] {
        self.record(&state.register);
        state.late.iter().for_each(|record| self.record(record));
        self.links(state);
        self.nodes([state.fenced]);
        self.clients(&state.clients);
        self.spent(&state.spent);
        for node in self.nodes {
            if state.nodes[node].disk != 0 {
                self.replica(&state.nodes[node]);
            }
        }
        self.words
    }
}

/// What can be said of a node without the names of others; nodes are put in the order of it.
fn rank_of_node(state: &State, node: usize) -> u64 {
    let it = &state.nodes[node];
    let flags =
        [it.suspect, it.consistent, it.rebooted, it.forgetful, it.lost, state.register.primary as usize == node];
    let fields = [it.disk, it.part as u8, it.generation, it.stored, it.record.generation];
    let flags = flags.iter().fold(0, |bits, flag| bits << 1 | u64::from(*flag));
    let fields = fields.iter().fold(flags, |bits, field| bits << 4 | u64::from(*field));
    fields << 6 | u64::from(state.register.in_sync[node]) << 3 | u64::from(state.register.left[node] & 7)
}

impl State {
    fn least(&self) -> [u64; 16] {
        let ranks: [u64; NODES] = std::array::from_fn(|node| rank_of_node(self, node));
        let is_sorted = |order: &&[usize; NODES]| order.windows(2).all(|pair| ranks[pair[0]] >= ranks[pair[1]]);
        let has_two_blocks = self.clients.issued[0] != 0 || self.clients.issued[1] != 0;
        let blocks: &[[usize; BLOCKS]] = if has_two_blocks { &[[0, 1], [1, 0]] } else { &[[0, 1]] };
        let orders = ORDERS.iter().filter(is_sorted);
        let states = orders.flat_map(|order| blocks.iter().map(|blocks| Bits::new(*order, *blocks).state(self)));
        states.min().expect("some order is sorted")
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.least().iter().for_each(|word| hasher.write_u64(*word));
    }
}
