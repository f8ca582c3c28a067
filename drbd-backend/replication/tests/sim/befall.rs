//! What a misfortune does to the world, if it can happen at all.

use replication::{Data, DiskId, Node, Nodes, Order, Superblock};

use super::disk::{Disk, MOST};
use super::history::GARBAGE;
use super::misfortune::{What, Who};
use super::operator::About;
use super::world::{Due, MS, World};

impl World {
    fn whom(&self, who: Who, there: usize) -> usize {
        let count = self.nodes.len();
        let primary = self.judge.record.primary.map_or(0, Node::index);
        match who {
            Who::Node(node) => node % count,
            Who::Primary => primary,
            Who::Other(which) => (primary + 1 + which % (count - 1)) % count,
            Who::There => there,
        }
    }

    /// Beyond this node there is an in-sync replica, alive and whole: what is lost here is the failure of one.
    fn can_spare(&self, node: usize) -> bool {
        let others = self.judge.record.in_sync().without(self.place(node));
        others.iter().any(|other| {
            let it = &self.nodes[other.index()];
            it.replica.is_some() && it.disk.is_whole() && it.disk.ills == Default::default() && it.disk.unreadable == 0
        })
    }

    pub fn strike(&mut self, number: usize, there: usize) {
        let what = self.misfortunes[number].what;
        if self.is_healing || !self.befall(what, there) {
            return;
        }
        let counted = self.counts.misfortunes.iter_mut().find(|(name, _)| *name == what.name());
        match counted {
            Some((_, count)) => *count += 1,
            None => self.counts.misfortunes.push((what.name(), 1)),
        }
    }

    /// Whether it could happen at all.
    pub fn befall(&mut self, what: What, there: usize) -> bool {
        let name = what.name();
        let (node, down) = match what {
            What::Kill { who, down }
            | What::CutPower { who, down }
            | What::ShutDown { who, down }
            | What::Fence { who, down }
            | What::RolledBack { who, down }
            | What::Exchanged { who, down } => (self.whom(who, there), down),
            What::CutPowerOfAll { down } => {
                self.say(None, || "! all lose power".into());
                for node in 0..self.nodes.len() {
                    self.cut_power(node);
                    let late = self.chance.u64(0..500 * MS);
                    self.restart_at(node, self.now + down * MS + late);
                }
                return true;
            }
            What::CutPowerInTurn { first, second, down } => {
                let (first, second) = (self.whom(first, there), self.whom(second, there));
                for node in [first, second] {
                    self.say(Some(node), || "! loses power".into());
                    self.cut_power(node);
                    let late = self.chance.u64(0..500 * MS);
                    self.restart_at(node, self.now + down * MS + late);
                }
                return first != second;
            }
            _ => return self.befall_the_living(what, there),
        };
        if self.nodes[node].replica.is_none() {
            return false;
        }
        self.say(Some(node), || format!("! {name}"));
        match what {
            What::Kill { .. } => self.kill(node),
            What::CutPower { .. } => self.cut_power(node),
            What::Fence { .. } => self.fence(node),
            What::ShutDown { .. } => {
                if !self.order(node, Order::ShutDown, About::ShutDown) {
                    return false;
                }
                let process = self.nodes[node].process;
                self.at(self.now + (down + 1_500) * MS, Due::Overdue { node, process });
                return true;
            }
            What::RolledBack { .. } => {
                if !self.can_spare(node) {
                    return false;
                }
                let copy = self.copies[node].clone();
                self.cut_power(node);
                self.exchange_disk(node, copy);
            }
            What::Exchanged { .. } => {
                if !self.can_spare(node) {
                    return false;
                }
                self.cut_power(node);
                let disk = self.empty_disk(node);
                self.exchange_disk(node, disk);
            }
            _ => {}
        }
        self.restart_at(node, self.now + down * MS);
        true
    }

    /// No operator would take that for the truth.
    fn is_blank(&self, node: usize) -> bool {
        let disk = &self.nodes[node].disk;
        disk.is_broken || disk.meta.superblock.data != Data::Consistent
    }

    fn empty_disk(&mut self, node: usize) -> Disk {
        self.new_disks += 1;
        let old = &self.nodes[node].disk.meta.superblock;
        let superblock = Superblock {
            disk: DiskId(0xd15c_0000 + self.new_disks),
            data: Data::Blank,
            clean: true,
            suspect: false,
            barrier: replication::Barrier(0),
            confirmed: replication::Barrier(0),
            absent: [None; replication::MAX_NODES],
            ..old.clone()
        };
        Disk::new([[GARBAGE; 2]; MOST], superblock)
    }

    fn befall_the_living(&mut self, what: What, there: usize) -> bool {
        let now = self.now;
        let until = |length: u64| now + length * MS;
        let count = self.nodes.len();
        match what {
            What::Pause { who, length } | What::HiddenPause { who, length } => {
                let node = self.whom(who, there);
                if self.nodes[node].replica.is_none() {
                    return false;
                }
                let hides = matches!(what, What::HiddenPause { .. });
                self.judge.clocks_lie |= hides;
                self.judge.excuses_reads |= hides && !self.confirms_reads;
                self.say(Some(node), || format!("! stands still for {length} ms"));
                self.pause(node, length * MS, hides);
            }
            What::Cut { one, other, both_ways, length } => {
                let (one, other) = (self.whom(one, there), self.whom(other, there));
                if one == other {
                    return false;
                }
                let until = until(length);
                let to = self.name(other);
                self.say(Some(one), || {
                    format!("! {} {to} for {length} ms", if both_ways { "cut off from" } else { "not heard by" })
                });
                self.cut(one, other, until);
                if both_ways {
                    self.cut(other, one, until);
                }
                if self.chance.bool() {
                    self.reset_connection(one.min(other), one.max(other));
                }
            }
            What::Isolate { who, length } => {
                let (node, until) = (self.whom(who, there), until(length));
                self.say(Some(node), || format!("! cut off from all peers for {length} ms"));
                for other in (0..count).filter(|other| *other != node) {
                    self.cut(node, other, until);
                    self.cut(other, node, until);
                }
            }
            What::Reset { one, other } => {
                let (one, other) = (self.whom(one, there), self.whom(other, there));
                self.say(Some(one), || "! a connection is reset".into());
                self.reset_connection(one.min(other), one.max(other));
            }
            What::SlowNetwork { length } => {
                self.say(None, || format!("! the network is slow for {length} ms"));
                self.network.slow_until = until(length);
            }
            What::ReadError { who, .. }
            | What::WriteError { who }
            | What::FlushError { who }
            | What::MetadataError { who }
            | What::Full { who, .. }
            | What::SlowDisk { who, .. } => return self.befall_the_disk(what, self.whom(who, there)),
            What::ArbiterAway { .. }
            | What::ArbiterAwayFrom { .. }
            | What::ArbiterLosesAnswers { .. }
            | What::ArbiterLate { .. }
            | What::ArbiterRestored { .. }
            | What::ArbiterWiped => self.befall_the_arbiter(what, there),
            What::Kill { .. }
            | What::CutPower { .. }
            | What::CutPowerInTurn { .. }
            | What::CutPowerOfAll { .. }
            | What::ShutDown { .. }
            | What::RolledBack { .. }
            | What::Exchanged { .. }
            | What::Fence { .. } => {}
            _ => return self.befall_by_order(what, there),
        }
        true
    }

    fn befall_the_arbiter(&mut self, what: What, there: usize) {
        let now = self.now;
        let until = |length: u64| now + length * MS;
        let name = what.name();
        self.say(None, || format!("! {name}"));
        match what {
            What::ArbiterAway { length } => {
                let until = until(length);
                (0..self.nodes.len()).for_each(|node| self.arbiter.is_away_from(node, until));
            }
            What::ArbiterAwayFrom { who, length } => {
                let (node, until) = (self.whom(who, there), until(length));
                self.arbiter.is_away_from(node, until);
            }
            What::ArbiterLosesAnswers { length } => {
                let until = until(length);
                self.arbiter.loses_answers(until);
            }
            What::ArbiterLate { length } => {
                let until = until(length);
                self.arbiter.is_late(until);
            }
            What::ArbiterRestored { back, is_known } => self.restore_arbiter(back, is_known),
            What::ArbiterWiped => self.wipe_arbiter(),
            _ => {}
        }
    }

    fn befall_the_disk(&mut self, what: What, node: usize) -> bool {
        let harmless = matches!(what, What::SlowDisk { .. } | What::Full { .. });
        if !harmless && !self.can_spare(node) {
            return false;
        }
        let name = what.name();
        self.say(Some(node), || format!("! {name}"));
        let ills = &mut self.nodes[node].disk.ills;
        let length = match what {
            What::ReadError { block, .. } => {
                let block = block % self.blocks.numbers.len();
                self.nodes[node].disk.unreadable |= 1 << block;
                return true;
            }
            What::WriteError { .. } => return !std::mem::replace(&mut ills.store, true),
            What::FlushError { .. } => return !std::mem::replace(&mut ills.flush, true),
            What::MetadataError { .. } => return !std::mem::replace(&mut ills.keep, true),
            What::Full { length, .. } => {
                ills.is_full = true;
                length
            }
            What::SlowDisk { length, times, .. } => {
                ills.slower = times;
                length
            }
            _ => return false,
        };
        self.at(self.now + length * MS, Due::DiskIsWell { node });
        true
    }

    fn befall_by_order(&mut self, what: What, there: usize) -> bool {
        match what {
            What::Promote { who } => self.order(self.whom(who, there), Order::Promote, About::Role),
            What::Demote => self.order(self.whom(Who::Primary, there), Order::Demote, About::Role),
            What::Invalidate { who } => {
                let node = self.whom(who, there);
                self.can_spare(node) && self.order(node, Order::Invalidate, About::Invalidate)
            }
            What::HandOver { to } => {
                let to = self.place(self.whom(to, there));
                self.order(self.whom(Who::Primary, there), Order::HandOver(to), About::Role)
            }
            What::ForceAfterFence { who, down } => {
                let node = self.whom(who, there);
                let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != node).collect();
                if self.nodes[node].replica.is_none() || self.nodes[node].is_paused(self.now) || self.is_blank(node) {
                    return false;
                }
                for other in &others {
                    if self.nodes[*other].replica.is_some() {
                        self.say(Some(*other), || "! is fenced".into());
                        self.fence(*other);
                    }
                    self.restart_at(*other, self.now + down * MS);
                }
                let claims: Nodes = others.iter().map(|other| self.place(*other)).collect();
                self.force(node, claims);
                true
            }
            What::ForceWithoutFence { who } => {
                let node = self.whom(who, there);
                if self.is_blank(node) {
                    return false;
                }
                let claims: Nodes =
                    (0..self.nodes.len()).filter(|other| *other != node).map(|other| self.place(other)).collect();
                self.force(node, claims);
                true
            }
            What::Revoke { client } => {
                let count = self.clients.len();
                self.revoke(client % count);
                true
            }
            What::FenceHost { client } => {
                let count = self.clients.len();
                self.fence_host(client % count);
                true
            }
            _ => false,
        }
    }
}
