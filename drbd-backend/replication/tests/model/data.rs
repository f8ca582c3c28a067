//! How clients are served: writes, reads, flushes, barriers and the resync (rules 4, 6, 8 and 9).

use crate::dropped::Dropped;
use crate::state::{Change, Part, Set, State, small};
use crate::volume::{Durability, Volume};

impl Volume {
    /// Peers whose answer a write needs (rule 6).
    fn needed(&self, s: &State, primary: usize) -> Set {
        let leader = &s.nodes[primary];
        match leader.change {
            Change::Add(peer) if !self.keeps(Dropped::Rule4CountInAcknowledgements) => leader.view.without(peer.into()),
            Change::Drop(peer) if !self.keeps(Dropped::Rule6NoUnsettledDrop) => leader.view.without(peer.into()),
            _ => leader.view,
        }
    }

    fn is_leased(&self, s: &State, primary: usize) -> bool {
        let leader = &s.nodes[primary];
        let view = match leader.change {
            Change::Add(peer) if !self.keeps(Dropped::Rule4CountInLeases) => leader.view.without(peer.into()),
            Change::Drop(peer) if !self.keeps(Dropped::Rule6NoUnsettledDrop) => leader.view.without(peer.into()),
            _ => leader.view,
        };
        let one_is_enough = !self.keeps(Dropped::Rule8EveryPeer) && leader.lease.meets(view);
        view.is_within(leader.lease) || one_is_enough
    }

    /// While a drop, or its own return, is unsettled, a Primary holds its answers; an add counts its target already.
    fn is_settled(&self, s: &State, primary: usize) -> bool {
        let leader = &s.nodes[primary];
        match leader.change {
            Change::None | Change::Add(_) => !leader.stopped,
            Change::Drop(_) => {
                let is_back = leader.view.is_within(leader.along) && !self.keeps(Dropped::Rule3FrozenUntilSettled);
                is_back || !self.keeps(Dropped::Rule6NoUnsettledDrop)
            }
            Change::Promote | Change::Reclaim => false,
        }
    }

    fn is_open(&self, s: &State, primary: usize) -> bool {
        let leader = &s.nodes[primary];
        let missing = self.needed(s, primary).minus(leader.along);
        leader.part == Part::Primary && self.is_settled(s, primary) && missing.is_empty()
    }

    /// Marks a block in the activity log, and in the bitmap of every absent member (rule 10).
    pub(crate) fn mark(&self, s: &mut State, node: usize, block: usize) {
        let replica = &mut s.nodes[node];
        let leads = replica.leads();
        if leads || self.keeps(Dropped::Rule10SecondaryKeepsLog) {
            replica.log.insert(block);
        }
        if leads || self.keeps(Dropped::Rule10SecondaryKeepsBitmaps) {
            for bitmap in replica.bitmaps.iter_mut().filter(|bitmap| bitmap.since != 0) {
                bitmap.blocks.insert(block);
            }
        }
    }

    /// The disk has it; with durability write, on the medium.
    pub(crate) fn store(&self, s: &mut State, node: usize, block: usize, version: u8) {
        let replica = &mut s.nodes[node];
        replica.visible[block] = version;
        if self.durability == Durability::Write && self.keeps(Dropped::Rule6Durable) {
            replica.durable[block] = version;
        }
    }

    /// A client's write begins: on the own disk, and on its way to every peer that is along. Overlapping ones go one at a time, and
    /// wait for reads.
    pub(crate) fn write(&self, s: &mut State, primary: usize, block: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let is_free = leader.write[block] == 0 && leader.pending[block] == 0 && leader.read.0 as usize != block + 1;
        if !self.is_open(s, primary) || !is_free || s.clients.issued[block] >= self.writes {
            return None;
        }
        self.mark(s, primary, block);
        let version = Self::is_issued(s, block);
        let leader = &mut s.nodes[primary];
        leader.write[block] = version;
        leader.pending[block] = version + 1;
        leader.waiting[block] = leader.view.union(leader.along);
        leader.sent[block] = leader.along;
        Some(())
    }

    pub(crate) fn receive(&self, s: &mut State, primary: usize, peer: usize, block: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let version = leader.write[block];
        let is_busy = s.nodes[peer].pending[block] != 0;
        if !self.hears(s, primary, peer) || is_busy && self.keeps(Dropped::ConnectionAfterTheOld) {
            return None;
        }
        self.mark(s, peer, block);
        s.nodes[peer].recent.insert(block);
        s.nodes[primary].sent[block].remove(peer);
        if is_busy {
            self.store(s, peer, block, version); // it does not wait for what the old connection left behind
            Self::is_written(s, primary, peer, block);
        } else {
            s.nodes[peer].pending[block] = version + 1;
        }
        Some(())
    }

    pub(crate) fn complete(&self, s: &mut State, node: usize, block: usize) -> Option<()> {
        let version = s.nodes[node].pending[block] - 1;
        self.store(s, node, block, version);
        let replica = &mut s.nodes[node];
        replica.pending[block] = 0;
        let is_orphan = replica.orphans.has(block);
        replica.orphans.remove(block);
        if !is_orphan {
            let asked = |it: &usize| s.nodes[*it].along.has(node) && s.nodes[*it].write[block] == version;
            let asker = self.others(node).find(asked).filter(|primary| !s.nodes[*primary].sent[block].has(node));
            match asker {
                Some(primary) if self.hears(s, primary, node) => Self::is_written(s, primary, node, block),
                Some(primary) => Self::part_from(s, primary, node), // it says that its generation is higher
                None => {}
            }
        }
        Some(())
    }

    /// The peer's answer. That it may be lost with the connection is the same as a Primary that does nothing with it.
    fn is_written(s: &mut State, primary: usize, peer: usize, block: usize) {
        let leader = &mut s.nodes[primary];
        leader.waiting[block].remove(peer);
        if leader.trailing.has(block) && leader.waiting[block].is_empty() {
            leader.trailing.remove(block);
            leader.write[block] = 0;
        }
    }

    /// Every node of the view has it, no drop is unsettled, the lease holds now (rule 6).
    pub(crate) fn acknowledge(&self, s: &mut State, primary: usize, block: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let version = leader.write[block];
        let unanswered = leader.waiting[block].meets(self.needed(s, primary)) && self.keeps(Dropped::Rule6EveryNode);
        let unwritten = leader.pending[block] != 0 && self.keeps(Dropped::Rule6OwnDisk);
        let leased = self.is_leased(s, primary) || !self.keeps(Dropped::Rule6Lease);
        let waits = unanswered || unwritten || !leased || !self.is_settled(s, primary);
        if version == 0 || leader.trailing.has(block) || leader.part != Part::Primary || waits {
            return None;
        }
        self.is_acknowledged(s, primary, block, version);
        let leader = &mut s.nodes[primary];
        leader.trailing.insert(block);
        if leader.waiting[block].is_empty() {
            leader.trailing.remove(block);
            leader.write[block] = 0;
        }
        // Peers hear that it is everywhere. One that does not makes a block equal that is equal.
        let along = leader.along;
        along.iter().for_each(|peer| s.nodes[peer].recent.remove(block));
        Some(())
    }

    /// Reads wait for writes of their block (rule 9), and look at the clock when the disk has answered (rule 8).
    pub(crate) fn read(&self, s: &mut State, primary: usize, block: usize) -> Option<()> {
        let leased = self.is_leased(s, primary) || !self.keeps(Dropped::Rule8LeaseToRead);
        if !self.may_load(s, primary, block) || !leased {
            return None;
        }
        let version = s.nodes[primary].visible[block];
        self.is_shown(s, primary, block, version);
        Some(())
    }

    fn may_load(&self, s: &State, primary: usize, block: usize) -> bool {
        let leader = &s.nodes[primary];
        let in_flight = leader.write[block] != 0 && !leader.trailing.has(block) && self.keeps(Dropped::Rule9ReadWaits);
        self.is_open(s, primary) && !in_flight && leader.read.0 == 0
    }

    pub(crate) fn load(&self, s: &mut State, primary: usize, block: usize) -> Option<()> {
        let leased = self.is_leased(s, primary) || self.keeps(Dropped::Rule8AfterTheDisk);
        if !self.may_load(s, primary, block) || !leased {
            return None;
        }
        let leader = &mut s.nodes[primary];
        leader.read = (small(block) + 1, leader.visible[block]);
        Some(())
    }

    pub(crate) fn answer(&self, s: &mut State, primary: usize) -> Option<()> {
        let asks_lease = self.keeps(Dropped::Rule8AfterTheDisk) && self.keeps(Dropped::Rule8LeaseToRead);
        if !self.is_settled(s, primary) || asks_lease && !self.is_leased(s, primary) {
            return None;
        }
        let (block, version) = std::mem::take(&mut s.nodes[primary].read);
        self.is_shown(s, primary, block as usize - 1, version);
        Some(())
    }

    /// A client's FLUSH: every disk of the view flushes. One that had done so before is a disk that wrote out its cache unasked.
    pub(crate) fn flush(&self, s: &mut State, primary: usize) -> Option<()> {
        if !self.is_open(s, primary) || !self.is_leased(s, primary) {
            return None;
        }
        let mut peers = s.nodes[primary].view;
        if let (Change::Add(peer), false) = (s.nodes[primary].change, self.keeps(Dropped::Rule4CountInFlushes)) {
            peers.remove(peer.into());
        }
        if !peers.iter().all(|peer| self.hears(s, primary, peer)) {
            return None;
        }
        s.nodes[primary].flush();
        peers.iter().for_each(|peer| s.nodes[peer].flush());
        self.is_flushed(s);
        Some(())
    }

    /// A barrier when nothing else asks for one.
    pub(crate) fn barrier(&self, s: &mut State, primary: usize) -> Option<()> {
        let view = s.nodes[primary].view;
        if s.nodes[primary].part != Part::Primary || s.nodes[primary].change != Change::None {
            return None;
        }
        self.barrier_on(s, primary, view, self.keeps(Dropped::BarrierFlushes))
    }

    /// Every disk flushes what it has answered; marks of what that covers are cleared, what is under way is marked anew. It travels
    /// behind the writes that were sent before it, and is confirmed only once all have stored it.
    pub(crate) fn barrier_on(&self, s: &mut State, primary: usize, peers: Set, flushes: bool) -> Option<()> {
        let leader = &s.nodes[primary];
        let on_its_way = leader.sent.iter().any(|sent| sent.meets(peers)) && self.keeps(Dropped::BarrierBehindWrites);
        if !peers.is_within(leader.along) || !peers.iter().all(|peer| self.hears(s, primary, peer)) || on_its_way {
            return None;
        }
        for node in peers.union(Set::one(primary)).iter() {
            let replica = &mut s.nodes[node];
            if self.faults.rolled_back != 0 {
                replica.copy = replica.durable;
            }
            if flushes {
                replica.flush();
            }
            let under_way = replica.submitted().union(replica.unacknowledged());
            replica.log = if self.keeps(Dropped::BarrierMarksAnew) { under_way } else { Set::NONE };
        }
        Some(())
    }

    /// A block is read under its lock and sent on the connection that live writes take: nothing passes anything, so this is one step.
    pub(crate) fn copy(&self, s: &mut State, primary: usize, peer: usize, block: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let locked = leader.write[block] != 0 || leader.pending[block] != 0;
        let passes = !self.keeps(Dropped::Rule4NothingPasses);
        let target = &s.nodes[peer];
        let clear = target.pending[block] == 0 || !self.keeps(Dropped::ConnectionAfterTheOld) || passes;
        if !leader.unsent[peer].has(block) || locked && !passes || !clear || !self.hears(s, primary, peer) {
            return None;
        }
        let version = leader.visible[block];
        s.nodes[primary].unsent[peer].remove(block);
        if passes {
            s.nodes[primary].copying = (small(peer) + 1, small(block), version);
        } else {
            self.store(s, peer, block, version);
        }
        Some(())
    }

    pub(crate) fn land(&self, s: &mut State, primary: usize) -> Option<()> {
        let (target, block, version) = std::mem::take(&mut s.nodes[primary].copying);
        let peer = target as usize - 1;
        if !self.hears(s, primary, peer) {
            return None;
        }
        self.store(s, peer, block.into(), version);
        Some(())
    }
}
