//! What clients may be shown: the judge of the model, which knows more than any node does.
//!
//! A client that was told "done", or was shown something, may rely on it for as long as one node has it of those that were counted
//! then. With durability flush a loss of power takes from a node what its cache held, and from all of them at once what no FLUSH covered.

use crate::state::{Part, Replica, Set, State};
use crate::volume::{Durability, Volume};

impl Volume {
    pub(crate) fn is_issued(s: &mut State, block: usize) -> u8 {
        let clients = &mut s.clients;
        clients.issued[block] += 1;
        clients.possible[block] |= 1 << clients.issued[block];
        clients.issued[block]
    }

    /// A client was told that this version is written. What was in flight before can only be older.
    pub(crate) fn is_acknowledged(&self, s: &mut State, primary: usize, block: usize, version: u8) {
        s.clients.broken.two_primaries |= self.is_out_of_turn(s, primary, block, version);
        if s.clients.possible[block] >> version & 1 == 0 && s.clients.acknowledged[block] > version {
            return;
        }
        s.clients.acknowledged[block] = s.clients.acknowledged[block].max(version);
        s.clients.possible[block] = 1 << version;
        Self::is_told(s, primary, block);
    }

    /// Somebody else serves by a newer record. Where clocks are out of their bound that may be told late, if all who count have it.
    fn is_out_of_turn(&self, s: &State, primary: usize, block: usize, version: u8) -> bool {
        let generation = s.nodes[primary].record.generation;
        let is_newer = |it: &Replica| it.part == Part::Primary && it.record.generation > generation;
        let lacks_it = |node: usize| {
            let it = &s.nodes[node];
            it.disk == s.register.in_sync[node] && !it.lost && !it.behind && it.visible[block] < version
        };
        s.nodes.iter().any(is_newer) && (self.clocks_hold || s.register.members_in_sync().iter().any(lacks_it))
    }

    /// A client was shown this version. Other writes that were in flight on a node that has gone can never show up any more.
    pub(crate) fn is_shown(&self, s: &mut State, primary: usize, block: usize, version: u8) {
        let is_deposed = s.register != s.nodes[primary].record;
        if is_deposed && !self.clocks_hold {
            return;
        }
        let clients = &mut s.clients;
        if clients.possible[block] >> version & 1 == 0 {
            match () {
                () if is_deposed => clients.broken.stale = true,
                () if version < clients.acknowledged[block] => clients.broken.lost = true,
                () => clients.broken.backwards = true,
            }
            return;
        }
        let own = s.nodes[primary].write[block];
        let in_flight = if own == 0 || own == version { 0 } else { 1 << own };
        if clients.possible[block] != 1 << version | in_flight {
            clients.possible[block] = 1 << version | in_flight;
            Self::is_told(s, primary, block);
        }
    }

    /// A peer that is being added has it, too, but nobody counts on that before the register does.
    fn is_told(s: &mut State, primary: usize, block: usize) {
        let replica = &s.nodes[primary];
        let in_sync = replica.record.members_in_sync().union(s.register.members_in_sync());
        s.clients.holders[block] = Set(replica.view.0 & in_sync.0).union(Set::one(primary));
    }

    /// What a read could have shown at the latest before the FLUSH survives from now on.
    pub(crate) fn is_flushed(&self, s: &mut State) {
        for block in 0..self.blocks {
            let oldest = s.clients.possible[block].trailing_zeros();
            s.clients.flushed[block] = u8::try_from(oldest).expect("some version is possible");
        }
    }

    /// The register counts this node from now on: what it was given is as good as the others' copies.
    pub(crate) fn is_counted(s: &mut State, node: usize) {
        s.clients.holders.iter_mut().for_each(|holders| holders.insert(node));
    }

    /// This node's cache is gone; of these blocks the medium had what was visible.
    pub(crate) fn has_lost_cache(&self, s: &mut State, node: usize, was_durable: Set) {
        if self.durability == Durability::Write {
            return; // nothing that was told may have been in a cache only
        }
        for block in 0..self.blocks {
            if !was_durable.has(block) {
                s.clients.holders[block].remove(node);
            }
            if s.clients.holders[block].is_empty() {
                self.excuse(s, block, s.clients.flushed[block]);
            }
        }
    }

    /// Somebody is promoted. If all who count have lost their caches, what no FLUSH covered may be lost with them.
    pub(crate) fn is_promoted(&self, s: &mut State) {
        let in_sync = s.register.members_in_sync();
        let is_total = in_sync.0.count_ones() > 1 && in_sync.iter().all(|member| s.nodes[member].lost);
        if is_total && self.durability == Durability::Flush {
            (0..self.blocks).for_each(|block| self.excuse(s, block, s.clients.flushed[block]));
        }
    }

    /// This node's disk is not what it was.
    pub(crate) fn has_lost_disk(&self, s: &mut State, node: usize) {
        for block in 0..self.blocks {
            s.clients.holders[block].remove(node);
            if s.clients.holders[block].is_empty() {
                self.excuse(s, block, 0);
            }
        }
    }

    /// Whatever was written since that version may be found now.
    pub(crate) fn excuse(&self, s: &mut State, block: usize, oldest: u8) {
        (oldest..=s.clients.issued[block]).for_each(|version| s.clients.possible[block] |= 1 << version);
    }

    /// Wherever a Primary serves by the record in force, every disk that counts is equal to its own, but for writes in flight.
    pub(crate) fn are_equal(&self, s: &State) -> bool {
        let serves = |node: &usize| s.nodes[*node].part == Part::Primary && s.nodes[*node].record == s.register;
        let Some(primary) = (0..self.nodes).find(serves) else { return true };
        let here = &s.nodes[primary];
        s.register.members_in_sync().without(primary).iter().all(|node| {
            let there = &s.nodes[node];
            let counts = there.disk == s.register.in_sync[node] && !there.lost && !there.behind;
            !counts
                || (0..self.blocks).all(|block| here.write[block] != 0 || here.visible[block] == there.visible[block])
        })
    }
}
