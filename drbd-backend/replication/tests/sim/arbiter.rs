//! The arbiter: one register with compare-and-swap, asked over a network that loses answers and delays requests.

use replication::{Event, Incarnation, Nodes, Order, Question, Record, Settled, Told};

use super::judge::Promise;
use super::misfortune::Moment;
use super::operator::About;
use super::world::{Due, MS, World};

/// So long a shell waits for an answer.
const PATIENCE: u64 = 120 * MS;
/// So late a late request comes in a story.
const LATE: u64 = 1_500 * MS;

/// Who proposes a change of the record, and as what.
#[derive(Debug, Clone, Copy)]
pub struct By {
    pub node: usize,
    pub process: u64,
    /// It is Primary in its own eyes; otherwise it wants to be.
    pub leads: bool,
    /// By force-primary, with these falsely said to be destroyed.
    pub forced: Option<Nodes>,
    /// Who could tell it something when it asked.
    pub connected: Nodes,
}

#[derive(Debug)]
enum Wish {
    Tell,
    Swap(Box<Swap>),
}

#[derive(Debug, Clone)]
struct Swap {
    /// The store that is meant.
    store: Option<Incarnation>,
    expected: Record,
    proposed: Record,
    by: By,
}

#[derive(Debug)]
pub struct Asked {
    number: u64,
    node: usize,
    process: u64,
    question: Question,
    leaves: u64,
    wish: Wish,
    /// What the register said, if the answer comes through.
    result: Option<Settled>,
    told: Option<Told>,
    is_lost: bool,
}

#[derive(Debug)]
pub struct Arbiter {
    /// None: it was wiped.
    pub record: Option<Record>,
    pub incarnation: u128,
    asked: Vec<Asked>,
    numbers: u64,
    away_until: [u64; 3],
    lossy_until: u64,
    late_until: u64,
    /// Every record there was.
    pub past: Vec<Record>,
}

impl Arbiter {
    pub fn new(record: Record) -> Self {
        Self {
            past: vec![record.clone()],
            record: Some(record),
            incarnation: 1,
            asked: Vec::new(),
            numbers: 0,
            away_until: [0; 3],
            lossy_until: 0,
            late_until: 0,
        }
    }

    pub fn is_away_from(&mut self, node: usize, until: u64) {
        self.away_until[node] = until.max(self.away_until[node]);
    }

    pub fn loses_answers(&mut self, until: u64) {
        self.lossy_until = until;
    }

    pub fn is_late(&mut self, until: u64) {
        self.late_until = until;
    }

    pub fn heal(&mut self) {
        self.away_until = [0; 3];
        (self.lossy_until, self.late_until) = (0, 0);
    }
}

impl World {
    pub fn ask_arbiter(&mut self, node: usize, question: Question) {
        self.question(node, question, Wish::Tell);
    }

    pub fn propose_to_arbiter(
        &mut self,
        node: usize,
        question: Question,
        store: Option<Incarnation>,
        expected: Record,
        proposed: Record,
    ) {
        self.came_to(Moment::Proposed, node);
        let it = &self.nodes[node];
        let others = (0..self.nodes.len()).filter(|other| *other != node);
        let connected = others
            .filter(|other| self.are_connected(node, *other) && !self.is_cut(*other, node))
            .map(|other| self.place(other))
            .collect();
        let by = By { node, process: it.process, leads: it.leads, forced: self.forces[node], connected };
        self.question(node, question, Wish::Swap(Box::new(Swap { store, expected, proposed, by })));
    }

    /// A question is carried out once or never, and answered once: in time, or with "unknown".
    fn question(&mut self, node: usize, question: Question, wish: Wish) {
        self.arbiter.numbers += 1;
        let number = self.arbiter.numbers;
        let is_late = self.now < self.arbiter.late_until && (self.is_steady || self.chance.u8(0..3) > 0);
        let is_lost = self.now < self.arbiter.lossy_until && (self.is_steady || self.chance.u8(0..4) > 0);
        let leaves = self.now + self.moment_passes();
        let late = match is_late {
            true if self.is_steady => LATE,
            true => PATIENCE + self.chance.u64(0..2_500 * MS),
            false => 0,
        };
        let takes = if self.is_steady { 2 * MS } else { MS / 2 + self.chance.u64(0..8 * MS) };
        let process = self.nodes[node].process;
        let asked = Asked { number, node, process, question, leaves, wish, result: None, told: None, is_lost };
        self.arbiter.asked.push(asked);
        self.at(leaves + takes + late, Due::Decide { number });
        self.at(leaves + PATIENCE, Due::GiveUpOnArbiter { number });
    }

    /// The request has come to the arbiter.
    pub fn decide(&mut self, number: u64) {
        let Some(place) = self.arbiter.asked.iter().position(|it| it.number == number) else { return };
        let node = self.arbiter.asked[place].node;
        let away = self.arbiter.away_until[node];
        if away > self.now {
            // It is lost, or stands in a queue and comes late.
            if self.chance.bool() {
                let at = away + self.chance.u64(0..50 * MS);
                self.at(at, Due::Decide { number });
            }
            return;
        }
        let swap = match &self.arbiter.asked[place].wish {
            Wish::Tell => None,
            Wish::Swap(swap) => Some(swap.clone()),
        };
        match swap {
            None => self.arbiter.asked[place].told = Some(self.arbiter_tells()),
            Some(swap) => self.arbiter.asked[place].result = self.swap(*swap),
        }
        let takes = if self.is_steady { 2 * MS } else { MS / 2 + self.chance.u64(0..8 * MS) };
        if !self.arbiter.asked[place].is_lost {
            self.at(self.now + takes, Due::AnswerOfArbiter { number });
        }
    }

    fn arbiter_tells(&self) -> Told {
        match &self.arbiter.record {
            Some(record) => {
                Told::Record { incarnation: Incarnation(self.arbiter.incarnation), record: Box::new(record.clone()) }
            }
            None => Told::Missing,
        }
    }

    fn swap(&mut self, swap: Swap) -> Option<Settled> {
        let Swap { store, expected, proposed, by } = swap;
        let record = self.arbiter.record.as_ref()?;
        if store.is_some_and(|store| store.0 != self.arbiter.incarnation) {
            return None;
        }
        if *record != expected {
            return Some(Settled::Refused(Box::new(record.clone())));
        }
        self.arbiter.record = Some(proposed.clone());
        self.arbiter.past.push(proposed.clone());
        self.say(None, || format!("arbiter: {proposed}"));
        self.judge_swap(by, &expected, &proposed);
        self.came_to(Moment::Swapped, by.node);
        Some(Settled::Swapped)
    }

    pub fn arbiter_answers(&mut self, number: u64) {
        let Some(place) = self.arbiter.asked.iter().position(|it| it.number == number) else { return };
        let node = self.arbiter.asked[place].node;
        if self.arbiter.asked[place].process == self.nodes[node].process && self.nodes[node].is_paused(self.now) {
            return self.nodes[node].defer(Due::AnswerOfArbiter { number });
        }
        let asked = self.arbiter.asked.swap_remove(place);
        let event = match (asked.wish, asked.told, asked.result) {
            (Wish::Tell, told, _) => Event::Told { question: asked.question, told: told.unwrap_or(Told::Unreachable) },
            (Wish::Swap(_), _, result) => {
                Event::Settled { question: asked.question, settled: result.unwrap_or(Settled::Unknown) }
            }
        };
        if asked.process == self.nodes[node].process {
            self.tell(node, event);
        }
    }

    /// The shell waits no longer. A request that is still on its way is carried out all the same.
    pub fn give_up_on_arbiter(&mut self, number: u64) {
        let Some(place) = self.arbiter.asked.iter().position(|it| it.number == number) else { return };
        let it = &mut self.arbiter.asked[place];
        let (node, question, process) = (it.node, it.question, it.process);
        let is_this_process = process == self.nodes[node].process;
        if is_this_process && self.nodes[node].is_paused(self.now) {
            return self.nodes[node].defer(Due::GiveUpOnArbiter { number });
        }
        let event = match it.wish {
            Wish::Tell => Event::Told { question, told: Told::Unreachable },
            Wish::Swap(_) => Event::Settled { question, settled: Settled::Unknown },
        };
        // Whatever comes of it now, nobody is told.
        it.is_lost = true;
        it.process = 0;
        let is_done = it.result.is_some() || it.told.is_some();
        if is_done {
            self.arbiter.asked.swap_remove(place);
        }
        if is_this_process {
            self.came_to(Moment::Unknown, node);
            self.tell(node, event);
        }
    }

    /// What has not left a process is lost with it.
    pub fn forget_questions(&mut self, node: usize) {
        let now = self.now;
        self.arbiter.asked.retain(|it| it.node != node || it.leaves <= now);
        for it in self.arbiter.asked.iter_mut().filter(|it| it.node == node) {
            it.process = 0;
        }
    }

    /// From an old copy. With `known`, the copy says itself which store it is of: replicas can tell only by its generation.
    pub fn restore_arbiter(&mut self, back: usize, is_known: bool) {
        let Some(now) = &self.arbiter.record else { return };
        let past = &self.arbiter.past;
        let old = past[past.len().saturating_sub(1 + back)].clone();
        let may_serve = old.in_sync();
        let all_know = may_serve
            .iter()
            .all(|node| self.nodes[node.index()].disk.meta.superblock.record.generation > old.generation);
        // Nor does a request reach the store that was asked of the one before.
        let is_awaited =
            |it: &Asked| matches!(&it.wish, Wish::Swap(swap) if it.result.is_none() && swap.expected == old);
        let may_be_swapped = self.arbiter.asked.iter().any(is_awaited);
        if !is_known || *now != old && (!all_know || may_be_swapped) {
            self.arbiter.incarnation += 1;
        }
        self.say(None, || format!("arbiter: restored to {old}"));
        self.arbiter.record = Some(old);
    }

    pub fn wipe_arbiter(&mut self) {
        self.say(None, || "arbiter: wiped".into());
        self.arbiter.record = None;
        self.arbiter.incarnation += 1;
    }

    /// `tandem arbiter rebuild`: all members have reported, and the newest record that any of them or the store knows is put back. Not while a replica waits
    /// for the outcome of a change: where that cannot come any more, its process is started anew.
    pub fn rebuild_arbiter(&mut self) {
        // Nor may a change be under way whose outcome somebody is about to hear.
        let living = |it: &Asked| it.process == self.nodes[it.node].process && matches!(it.wish, Wish::Swap(_));
        if self.arbiter.asked.iter().any(living) {
            return;
        }
        let mut newest = self.arbiter.record.clone();
        let mut changing = None;
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(replica) = node.replica.as_ref().filter(|_| !node.is_paused(self.now) && !node.is_ended) else {
                return;
            };
            let status = replica.status(node.clock.read(self.now));
            changing = changing.or(Some(number).filter(|_| status.changing));
            let record = status.record;
            if newest.as_ref().is_none_or(|newest| record.generation > newest.generation) {
                newest = Some(record);
            }
        }
        if let Some(node) = changing {
            self.say(Some(node), || "operator: is started anew, since its change is not settled".into());
            self.kill(node);
            return self.restart_at(node, self.now + 50 * MS);
        }
        let Some(newest) = newest else { return };
        if self.judge.record != newest && self.judge.record.generation <= newest.generation {
            self.judge.broken(self.now, Promise::OnePrimary, format!("a record that never was: {newest}"));
        }
        self.say(None, || format!("operator: rebuilds the arbiter with {newest}"));
        self.judge.record = newest.clone();
        self.arbiter.record = Some(newest);
        for node in 0..self.nodes.len() {
            self.order(node, Order::TrustArbiter, About::Trust);
        }
    }
}
