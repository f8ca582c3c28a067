//! The judge: knows what no node can know, and holds it against what is promised, after every event.

use replication::{Data, Durability, Node, Nodes, Record, Role};

use super::arbiter::By;
use super::client::Attempt;
use super::disk::MOST;
use super::history::{History, Wrong};
use super::misfortune::Moment;
use super::world::World;

/// What is promised: `docs/replication.md`, "What is promised". `promises.rs` has a test for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// An acknowledged write is on every in-sync replica, and none is ever lost.
    NothingLost,
    /// What a FLUSH or FUA covered, and with durability `write` everything, survives the power loss of all.
    Durable,
    /// Only the record's Primary gets a write acknowledged.
    OnePrimary,
    /// UpToDate replicas are equal.
    Equal,
    /// Reads are never old, and never go backwards.
    NothingOld,
    /// A revoked client changes nothing any more, nor does one of an epoch before the last lost cache.
    Revoked,
    /// The core can be carried out: payloads, jobs and answers come out even.
    Shell,
    /// When everything is repaired, the volume serves and all replicas become UpToDate.
    Serves,
}

#[derive(Debug, Clone)]
pub struct Violation {
    /// Nanoseconds.
    pub at: u64,
    pub promise: Promise,
    pub what: String,
}

#[derive(Debug)]
pub struct Judge {
    pub violations: Vec<Violation>,
    /// The record as it came about by compare-and-swap, whatever copy the arbiter was restored from.
    pub record: Record,
    histories: Vec<History>,
    /// Reads are not judged: a clock is out of its bound.
    pub excuses_reads: bool,
    /// A clock is out of its bound, or a pause was hidden from one.
    pub clocks_lie: bool,
    /// Somebody was declared destroyed who lives: until it has found out, only that is judged which does not depend on it.
    pub excused: Nodes,
    pub acknowledged: u64,
    pub checked_reads: u64,
    pub lost_caches: u64,
    /// Requests of clients whose attachment was revoked, or is of an older epoch.
    pub refused_revoked: u64,
}

impl Judge {
    pub fn new(record: Record, initial: &[u32]) -> Self {
        Self {
            violations: Vec::new(),
            record,
            histories: initial.iter().flat_map(|value| [History::new(*value), History::new(*value)]).collect(),
            excuses_reads: false,
            clocks_lie: false,
            excused: Nodes::NONE,
            acknowledged: 0,
            checked_reads: 0,
            lost_caches: 0,
            refused_revoked: 0,
        }
    }

    pub fn broken(&mut self, at: u64, promise: Promise, what: String) {
        if self.violations.len() < 8 {
            self.violations.push(Violation { at, promise, what });
        }
    }

    /// One broken promise is enough to end a day.
    pub fn is_lost(&self) -> bool {
        !self.violations.is_empty()
    }

    fn is_excused(&self) -> bool {
        !self.excused.is_empty()
    }

    pub fn asked(&mut self, attempt: &Attempt, range: std::ops::Range<usize>, now: u64) {
        for index in range {
            for half in attempt.halves() {
                self.histories[2 * index + half].asked(attempt.value, attempt.client, now);
            }
        }
    }

    pub fn closed_for(&mut self, client: usize, now: u64) {
        self.histories.iter_mut().for_each(|history| history.closed_for(client, now));
    }
}

fn because(wrong: &Wrong) -> String {
    match wrong {
        Wrong::Unknown => "which nobody wrote, or which was lost".into(),
        Wrong::Overwritten(by) => format!("which was overwritten, {by} stands against it"),
        Wrong::Superseded => "which its own client has overwritten".into(),
    }
}

impl World {
    /// The core says that a write is done. It answers for that from now on.
    pub fn judge_written(&mut self, attempt: &Attempt, is_durable: bool) {
        self.judge.acknowledged += 1;
        self.judge_primary(attempt);
        if self.judge.is_excused() {
            return;
        }
        let range = self.blocks.within(attempt.span);
        let every_write = self.durability == Durability::Write;
        for index in range.clone() {
            for half in attempt.halves() {
                let history = &mut self.judge.histories[2 * index + half];
                let _ = history.acknowledged(attempt.value, is_durable || every_write, self.now).map_err(|wrong| {
                    let what = format!("write {} is answered, {}", attempt.value, because(&wrong));
                    self.judge.broken(self.now, Promise::NothingLost, what);
                });
                if !self.is_excused_by_clock(attempt.node) {
                    self.judge_copies(attempt, index, half, is_durable || every_write);
                }
            }
        }
    }

    /// The core says that a write was never begun: from now on nobody may see it.
    pub fn judge_withdrawn(&mut self, attempt: &Attempt) {
        for index in self.blocks.within(attempt.span) {
            for half in attempt.halves() {
                if self.judge.histories[2 * index + half].withdrawn(attempt.value).is_err() {
                    let what = format!("write {} is withdrawn, which was seen", attempt.value);
                    self.judge.broken(self.now, Promise::NothingLost, what);
                }
            }
        }
    }

    /// Every in-sync replica has it, and durably where that is asked.
    fn judge_copies(&mut self, attempt: &Attempt, index: usize, half: usize, is_durable: bool) {
        for node in self.judge.record.in_sync().iter().map(Node::index) {
            let disk = &self.nodes[node].disk;
            if !disk.is_whole() {
                continue;
            }
            let (has, keeps) = (disk.cell(index)[half], disk.durable_cell(index)[half]);
            let block = self.blocks.numbers[index];
            if has != attempt.value {
                let what =
                    format!("write {} of block {block} is answered, and {} has {has}", attempt.value, self.name(node));
                self.judge.broken(self.now, Promise::NothingLost, what);
            } else if is_durable && keeps != attempt.value {
                let what = format!(
                    "write {} of block {block} is answered, and not durable on {}",
                    attempt.value,
                    self.name(node)
                );
                self.judge.broken(self.now, Promise::Durable, what);
            }
        }
    }

    /// Where a clock lies, a deposed Primary may still answer a write that all have had since before it was deposed.
    fn is_excused_by_clock(&self, node: usize) -> bool {
        self.judge.clocks_lie && self.judge.record.primary != Some(self.place(node))
    }

    fn judge_primary(&mut self, attempt: &Attempt) {
        let primary = self.judge.record.primary;
        let is_excused = self.judge.is_excused() || self.is_excused_by_clock(attempt.node);
        if primary != Some(self.place(attempt.node)) && !is_excused {
            let what =
                format!("{} answers {attempt}, and the record is: {}", self.name(attempt.node), self.judge.record);
            self.judge.broken(self.now, Promise::OnePrimary, what);
        }
        // A flush changes nothing, whoever asks for it.
        if attempt.what.writes() {
            self.judge_session(attempt);
        }
    }

    fn judge_session(&mut self, attempt: &Attempt) {
        let client = &self.clients[attempt.client];
        if attempt.number != 0 && client.is_revoked(attempt.number) {
            let what = format!("{} answers {attempt}, whose attachment was revoked", self.name(attempt.node));
            self.judge.broken(self.now, Promise::Revoked, what);
        }
        if attempt.number != 0 && attempt.epoch < self.judge.record.epoch && !self.judge.is_excused() {
            let what = format!("{} answers {attempt}, of an epoch before the last lost cache", self.name(attempt.node));
            self.judge.broken(self.now, Promise::Revoked, what);
        }
    }

    /// A revoke is answered: nothing of that client is under way any more.
    pub fn judge_revoked(&mut self, node: usize, client: usize) {
        let is_under_way = |it: &&Attempt| {
            let is_its = it.node == node && it.client == client && it.what.writes();
            is_its && it.number != 0 && self.clients[client].is_revoked(it.number)
        };
        if let Some(attempt) = self.open.iter().find(is_under_way) {
            let what = format!("{attempt} is under way on {}, whose attachment was revoked", self.name(node));
            self.judge.broken(self.now, Promise::Revoked, what);
        }
    }

    pub fn judge_read(&mut self, attempt: &Attempt, cells: &[[u32; 2]; MOST]) {
        if self.judge.excuses_reads || self.judge.is_excused() {
            return;
        }
        self.judge.checked_reads += 1;
        for index in self.blocks.within(attempt.span) {
            for (half, value) in cells[index].iter().enumerate() {
                let _ = self.judge.histories[2 * index + half].read(*value, attempt.asked, self.now).map_err(|wrong| {
                    let block = self.blocks.numbers[index];
                    let what =
                        format!("{} reads {value} from block {block}, {}", self.name(attempt.node), because(&wrong));
                    self.judge.broken(self.now, Promise::NothingOld, what);
                });
            }
        }
    }

    pub fn judge_flushed(&mut self, attempt: &Attempt) {
        self.judge_primary(attempt);
        if self.judge.is_excused() || self.is_excused_by_clock(attempt.node) {
            return;
        }
        for node in self.judge.record.in_sync().iter().map(Node::index) {
            let disk = &self.nodes[node].disk;
            for index in (0..self.blocks.numbers.len()).filter(|_| disk.is_whole()) {
                for (half, value) in disk.durable_cell(index).iter().enumerate() {
                    if !self.judge.histories[2 * index + half].covers(*value, attempt.asked) {
                        let block = self.blocks.numbers[index];
                        let what = format!(
                            "a flush is answered, and {} would come back with {value} in block {block}",
                            self.name(node)
                        );
                        self.judge.broken(self.now, Promise::Durable, what);
                    }
                }
            }
        }
        self.judge.histories.iter_mut().for_each(|history| history.flushed(attempt.asked));
    }

    /// The register was changed by this node.
    pub fn judge_swap(&mut self, by: By, expected: &Record, proposed: &Record) {
        let By { node, process, leads, forced, connected } = by;
        if *expected != self.judge.record && !self.judge.is_excused() {
            let what = format!("{} changes a record that is not the last one: {expected}", self.name(node));
            self.judge.broken(self.now, Promise::OnePrimary, what);
        }
        if proposed.generation != expected.generation.next() {
            self.judge.broken(
                self.now,
                Promise::OnePrimary,
                format!("the generation is not raised by one: {proposed}"),
            );
        }
        self.judge.record = proposed.clone();
        let me = self.place(node);
        // A request that comes late may find another disk there: whoever starts from that one is judged then.
        let is_late = self.nodes[node].process != process && self.nodes[node].disk.is_broken;
        let is_forced = forced.is_some() && proposed.epoch != expected.epoch;
        if let Some(claims) = forced.filter(|_| is_forced) {
            self.forces[node] = None;
            self.judge.excused = self.judge.excused.union(claims);
        }
        match () {
            () if is_late => {}
            () if !leads => self.judge_promotion(node, connected, expected, proposed, is_forced),
            // Before it drops somebody it has flushed. What it adds counts already, so it may be lost itself.
            () if expected.primary == Some(me) => {
                if proposed.in_sync().len() <= expected.in_sync().len() {
                    self.judge_holds_all(node);
                }
            }
            () => {
                let what = format!("{} changes the record, and is not its Primary: {expected}", self.name(node));
                self.judge.broken(self.now, Promise::OnePrimary, what);
            }
        }
        for added in proposed.in_sync().difference(expected.in_sync()).iter().map(Node::index) {
            self.came_to(Moment::Added, added);
            if added != node && self.is_serving(node) {
                self.judge_equal(node, added);
            }
        }
    }

    fn judge_promotion(
        &mut self,
        node: usize,
        connected: Nodes,
        expected: &Record,
        proposed: &Record,
        is_forced: bool,
    ) {
        let was_in_sync = expected.in_sync().contains(self.place(node));
        let disk = &self.nodes[node].disk;
        let is_whole = |other: &Node| {
            let disk = &self.nodes[other.index()].disk;
            let has_failed = disk.has_failed && disk.meta.superblock.data == Data::Blank;
            disk.is_whole() && !disk.meta.superblock.suspect && !has_failed
        };
        let whole = expected.in_sync().iter().find(is_whole);
        let hears = |other: Node| self.are_connected(node, other.index());
        if disk.was_exchanged && whole.is_some_and(|other| hears(other) && !connected.contains(other)) {
            return; // it is told in time, by somebody who was not there yet when it asked: it must not serve
        }
        // A disk that was rolled back, and nobody there who could tell it so: that is more than one failure.
        let is_beyond = disk.was_exchanged && whole.is_none_or(|other| !self.are_connected(node, other.index()));
        let gives_up = is_beyond || proposed.epoch != expected.epoch && !(is_forced && was_in_sync && disk.is_whole());
        if gives_up {
            let anything = is_beyond || is_forced && (!was_in_sync || disk.is_broken);
            if let Some(whole) = whole.filter(|_| !is_forced && !is_beyond) {
                let what = format!("{} gives up caches, and {whole} has lost nothing", self.name(node));
                self.judge.broken(self.now, Promise::NothingLost, what);
            }
            self.judge.histories.iter_mut().for_each(|history| history.cut(anything, self.now));
            self.judge.lost_caches += 1;
        } else if !was_in_sync && !is_forced {
            let what = format!("{} is promoted, and is not in sync: {expected}", self.name(node));
            self.judge.broken(self.now, Promise::NothingLost, what);
        }
        self.judge_holds_all(node);
        // What the only disk has, and what was just held against everything acknowledged, is the truth from here on.
        let is_truth = proposed.in_sync().len() == 1;
        if gives_up || is_truth || self.nodes[node].disk.was_exchanged {
            self.nodes[node].disk.is_made_whole();
        }
    }

    /// What it has is what a read may show now.
    fn judge_holds_all(&mut self, node: usize) {
        if self.judge.is_excused() {
            return;
        }
        for index in 0..self.blocks.numbers.len() {
            for (half, value) in self.nodes[node].disk.cell(index).iter().enumerate() {
                let _ = self.judge.histories[2 * index + half].could_show(*value, self.now).map_err(|wrong| {
                    let block = self.blocks.numbers[index];
                    let what =
                        format!("{} goes on with {value} in block {block}, {}", self.name(node), because(&wrong));
                    self.judge.broken(self.now, Promise::NothingLost, what);
                });
            }
        }
    }

    /// The blocks that the Primary has nothing under way in are the same on both.
    fn judge_equal(&mut self, primary: usize, other: usize) {
        let is_whole = |node: usize| self.nodes[node].disk.is_whole();
        if self.judge.is_excused() || !is_whole(primary) || !is_whole(other) {
            return;
        }
        for index in 0..self.blocks.numbers.len() {
            let (here, there) = (self.nodes[primary].disk.cell(index), self.nodes[other].disk.cell(index));
            let block = self.blocks.numbers[index];
            if here != there && !self.is_being_written(primary, block) {
                let what = format!(
                    "block {block} is {here:?} on {} and {there:?} on {}, which is UpToDate",
                    self.name(primary),
                    self.name(other)
                );
                self.judge.broken(self.now, Promise::Equal, what);
            }
        }
    }

    fn is_being_written(&self, node: usize, block: u64) -> bool {
        self.open.iter().any(|attempt| {
            attempt.node == node && attempt.what.writes() && attempt.span.start <= block && block < attempt.span.end()
        })
    }

    /// Whatever is UpToDate beside a Primary that serves is equal to it.
    pub fn judge_replicas(&mut self) {
        let Some(primary) = self.judge.record.primary.map(Node::index) else { return };
        if !self.is_serving(primary) {
            return;
        }
        for other in self.judge.record.in_sync().iter().map(Node::index).filter(|other| *other != primary) {
            self.judge_equal(primary, other);
        }
    }

    /// Whoever is UpToDate at the end has made good what its disk lost.
    pub fn judge_disks(&mut self) {
        for node in self.judge.record.in_sync().iter().map(Node::index) {
            let disk = &self.nodes[node].disk;
            let overlooked = disk.is_broken && !disk.was_exchanged;
            let primary = self.judge.record.primary.map_or(node, Node::index);
            let differs =
                (0..self.blocks.numbers.len()).any(|index| disk.cell(index) != self.nodes[primary].disk.cell(index));
            if overlooked || differs {
                let what = format!("{} is UpToDate, and its disk has lost what it answered for", self.name(node));
                self.judge.broken(self.now, Promise::Equal, what);
            }
        }
    }

    /// As Primary, with nothing of a takeover left to do.
    pub fn is_serving(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        it.replica.as_ref().is_some_and(|replica| replica.status(it.clock.read(self.now)).role == Role::Primary)
    }

    /// A claim that somebody is destroyed was wrong. Until that one has found out there are two who may answer.
    pub fn judge_excuses(&mut self) {
        for node in self.judge.excused.iter() {
            let it = &self.nodes[node.index()];
            let role = it.replica.as_ref().map(|replica| replica.status(it.clock.read(self.now)).role);
            let is_primary_of_record = self.judge.record.primary == Some(node);
            if is_primary_of_record || !matches!(role, Some(Role::Primary | Role::Promoting)) {
                self.judge.excused.remove(node);
            }
        }
        if self.judge.excused.is_empty() && std::mem::take(&mut self.was_excused) {
            self.judge.histories.iter_mut().for_each(|history| history.cut(true, self.now));
        }
        self.was_excused |= !self.judge.excused.is_empty();
    }
}
