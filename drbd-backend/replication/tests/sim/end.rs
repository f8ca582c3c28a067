//! The end of a day: everything is repaired, an operator does what the design leaves to people, and then the volume must serve, all
//! replicas must become UpToDate, and nothing may be left over.

use replication::{Data, Node, Nodes, Order, Span};

use super::client::What;
use super::judge::Promise;
use super::node::NodeWorld;
use super::operator::{About, OpenOrder};
use super::world::{Due, MS, World};

/// So long it may take from when all is repaired.
const PATIENCE: u64 = 20_000 * MS;
const EVERY: u64 = 100 * MS;

#[derive(Debug, Default)]
pub struct End {
    since: u64,
    /// Nobody has served since then.
    idle_since: u64,
    stage: Stage,
    pub is_over: bool,
    pub took_ms: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Stage {
    #[default]
    Day,
    /// Until the volume serves and all are UpToDate.
    Recovering,
    /// Clients stop; until everything is answered.
    Emptying,
    /// Every block is read once more.
    Reading(usize),
}

impl World {
    pub fn heal(&mut self) {
        self.say(None, || "everything is repaired".into());
        self.is_healing = true;
        self.armed.clear();
        self.heal_network();
        self.arbiter.heal();
        for node in 0..self.nodes.len() {
            self.end_pause(node);
            self.disk_is_well(node);
            let ills = &mut self.nodes[node].disk.ills;
            *ills = Default::default();
            if self.nodes[node].replica.is_none() {
                self.nodes[node].restarts = false;
                let at = self.now + self.chance.u64(0..300 * MS);
                self.restart_at(node, at);
            }
        }
        self.end = End { since: self.now, idle_since: self.now, stage: Stage::Recovering, ..End::default() };
        self.at(self.now + EVERY, Due::EndCheck);
    }

    /// A block that cannot be read on the only disk in sync is lost, or its medium answers again: here it does, or no resync would ever end.
    fn read_what_nobody_else_has(&mut self) {
        let in_sync = self.judge.record.in_sync();
        if let (1, Some(node)) = (in_sync.len(), in_sync.iter().next()) {
            self.nodes[node.index()].disk.unreadable = 0;
        }
    }

    pub fn end_check(&mut self) {
        self.read_what_nobody_else_has();
        match self.end.stage {
            Stage::Day => {}
            Stage::Recovering => self.recover(),
            Stage::Emptying => self.empty(),
            Stage::Reading(block) => self.read_all(block),
        }
        if self.now - self.end.since > PATIENCE && !self.end.is_over {
            let what = format!("repaired for {} s, and still: {}", PATIENCE / MS / 1000, self.what_is_missing());
            self.judge.broken(self.now, Promise::Serves, what);
        }
        if !self.end.is_over {
            let every = if matches!(self.end.stage, Stage::Reading(_)) { 2 * MS } else { EVERY };
            self.at(self.now + every, Due::EndCheck);
        }
    }

    fn recover(&mut self) {
        self.restart_failed();
        if self.arbiter_is_wrong() && !self.orders.iter().any(OpenOrder::is_about_trust) {
            return self.rebuild_arbiter();
        }
        if self.is_recovered() {
            self.end.stage = Stage::Emptying;
            self.clients.iter_mut().for_each(|client| client.is_at_rest = true);
            return;
        }
        if self.somebody_serves() {
            self.end.idle_since = self.now;
        }
        let idle = self.now - self.end.idle_since;
        let nobody_asked = !self.orders.iter().any(OpenOrder::about_role);
        if idle > 1_500 * MS && nobody_asked {
            if idle > 4_000 * MS && self.no_whole_replica() {
                self.force_best();
            } else if self.judge.record.primary.is_none() || !self.takes_over {
                self.promote_somebody();
            }
        }
    }

    fn promote_somebody(&mut self) {
        let in_sync = self.judge.record.in_sync();
        let fit: Vec<Node> = in_sync.iter().filter(|node| self.nodes[node.index()].disk.is_whole()).collect();
        let fit = if fit.is_empty() { in_sync.iter().take(1).collect() } else { fit };
        if let Some(node) = self.chance.choice(fit) {
            self.order(node.index(), Order::Promote, About::Role);
        }
    }

    /// Each of those that had every write has lost something, or may have: an operator decides what is the truth now.
    fn no_whole_replica(&self) -> bool {
        self.judge.record.in_sync().iter().all(|node| {
            let disk = &self.nodes[node.index()].disk;
            let superblock = &disk.meta.superblock;
            !disk.is_whole() || superblock.suspect || superblock.data != Data::Consistent
        })
    }

    fn force_best(&mut self) {
        let in_sync = self.judge.record.in_sync();
        let is_good = |node: &Node| {
            let superblock = &self.nodes[node.index()].disk.meta.superblock;
            superblock.data == Data::Consistent && !self.nodes[node.index()].disk.is_broken
        };
        let has_something = |node: &Node| {
            let superblock = &self.nodes[node.index()].disk.meta.superblock;
            superblock.data == Data::Inconsistent && !self.nodes[node.index()].disk.is_broken
        };
        let members = || in_sync.iter().chain(self.judge.record.absent().iter());
        let Some(best) = members().find(is_good).or(members().find(has_something)) else {
            // More disks failed than a volume has to spare. It comes back from a backup.
            self.say(None, || "operator: no disk is left that holds anything of the volume".into());
            self.counts.volumes_lost += 1;
            self.end.is_over = true;
            return;
        };
        let claims: Nodes = in_sync.without(best).iter().collect();
        self.force(best.index(), claims);
    }

    fn is_recovered(&self) -> bool {
        let Some(primary) = self.judge.record.primary else { return false };
        let all = self.judge.record.in_sync() == self.judge.record.members;
        all && self.is_serving(primary.index()) && self.open.iter().all(|attempt| attempt.node == primary.index())
    }

    fn what_is_missing(&self) -> String {
        let mut missing = vec![format!("{}", self.judge.record)];
        for node in 0..self.nodes.len() {
            let it = &self.nodes[node];
            let status = it.replica.as_ref().map(|replica| replica.status(it.clock.read(self.now)));
            missing.push(match status {
                None => format!("node {node} is down"),
                Some(it) => {
                    format!("node {node} is {:?} {:?} at generation {}", it.role, it.disk, it.record.generation)
                }
            });
        }
        missing.extend(self.open.iter().map(|attempt| format!("{attempt} is not answered by node {}", attempt.node)));
        missing.extend(self.orders.iter().map(|it| format!("{:?} is not reported by node {}", it.order, it.node)));
        missing.join("; ")
    }

    fn empty(&mut self) {
        let is_busy = !self.open.is_empty() || !self.orders.is_empty() || self.nodes.iter().any(NodeWorld::has_work);
        if !self.is_recovered() {
            self.end.stage = Stage::Recovering;
        }
        if is_busy || !self.is_recovered() {
            return;
        }
        self.judge_replicas();
        self.judge_disks();
        for node in 0..self.nodes.len() {
            let held = self.nodes[node].payloads.count();
            if held > 0 {
                let what = format!("{} has not released {held} payloads", self.name(node));
                self.judge.broken(self.now, Promise::Shell, what);
            }
        }
        // What was excused by the day is judged now.
        self.judge.excuses_reads = false;
        self.end.stage = Stage::Reading(0);
    }

    fn read_all(&mut self, block: usize) {
        if !self.open.is_empty() {
            return;
        }
        let Some(number) = self.blocks.numbers.get(block) else {
            self.end.is_over = true;
            self.end.took_ms = (self.now - self.end.since) / MS;
            return;
        };
        let (Some(primary), span) = (self.judge.record.primary, Span::new(*number, 1)) else { return };
        // The last client comes by no attachment.
        let reader = self.clients.len() - 1;
        if self.ask(reader, primary.index(), (0, 0), What::Read, span, None, false).is_some() {
            self.end.stage = Stage::Reading(block + 1);
        }
    }
}
