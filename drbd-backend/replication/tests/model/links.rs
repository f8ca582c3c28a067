//! How replicas start, meet, and keep a lease (rules 7, 8, 11 and 13, and the paragraph on connections).

use crate::dropped::Dropped;
use crate::state::{Bitmap, Change, Part, Record, Set, State};
use crate::volume::Volume;

impl Volume {
    /// A process starts, and asks the arbiter before it answers anything (rule 7). Whether its host has lost its memory, the boot id
    /// says (rule 11). It may have written what others lack, and does not know what (rule 10).
    pub(crate) fn start(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &mut s.nodes[node];
        if replica.is_up() {
            return None;
        }
        if self.keeps(Dropped::Rule11Marked) {
            let mark_stays = self.keeps(Dropped::Rule11MarkIsDurable);
            replica.suspect = replica.suspect && mark_stays || replica.rebooted;
        }
        replica.rebooted = false;
        replica.part = Part::Secondary;
        replica.generation = replica.stored;
        replica.forgetful = !replica.log.is_empty();
        if !self.keeps(Dropped::Rule5GraceFromStart) {
            replica.forgot = Set::first(self.nodes);
        }
        if self.keeps(Dropped::Rule5FenceNamesBoot) {
            s.fenced.remove(node);
        }
        if self.keeps(Dropped::Rule7LearnFirst) || s.nodes[node].record.is_none() {
            self.take_in(s, node, s.register);
        }
        if !self.keeps(Dropped::Rule5RestartedNeverResumes) && s.nodes[node].record.primary as usize == node {
            let replica = &mut s.nodes[node];
            replica.part = Part::Primary;
            replica.view = replica.record.members_in_sync().without(node);
        }
        Some(())
    }

    /// Stores a record, and begins a bitmap for each member that has just left (rule 10). A replica that is not in sync itself keeps
    /// none: it would have holes.
    pub(crate) fn take_in(&self, s: &mut State, node: usize, record: Record) {
        let replica = &mut s.nodes[node];
        let (old, was_in_sync) = (replica.record, replica.is_in_sync(node));
        replica.record = record;
        if record.generation != old.generation && self.keeps(Dropped::HandOverOfThisGeneration) {
            replica.told = Set::NONE;
        }
        replica.generation = replica.generation.max(record.generation);
        if self.keeps(Dropped::Rule7StoreBeforeAnswer) {
            replica.stored = replica.stored.max(replica.generation);
        }
        let owed = if self.keeps(Dropped::Rule4OwedSinceBarrier) { replica.log } else { Set::NONE };
        for member in self.others(node) {
            let bitmap = &mut replica.bitmaps[member];
            if record.in_sync[node] != replica.disk || record.in_sync[member] != 0 {
                *bitmap = Bitmap::default();
            } else if was_in_sync && old.in_sync[member] != 0 {
                *bitmap = Bitmap { since: record.left[member], disk: old.in_sync[member], blocks: owed };
            }
        }
    }

    pub(crate) fn connect(&self, s: &mut State, a: usize, b: usize) -> Option<()> {
        let both = s.nodes[a].is_up() && s.nodes[b].is_up();
        s.links.insert(a + b - 1);
        both.then_some(())
    }

    /// A Primary that hears of a newer record is deposed; only its own swap settles what it has proposed (rule 2).
    pub(crate) fn learn(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &s.nodes[node];
        if s.register == replica.record || replica.change != Change::None {
            return None;
        }
        match replica.part {
            Part::Secondary if self.keeps(Dropped::Rule7LooksAgain) => self.take_in(s, node, s.register),
            Part::TakingOver | Part::Primary => self.depose(s, node),
            Part::Down | Part::Secondary | Part::Candidate => return None,
        }
        Some(())
    }

    /// It acknowledges and reads nothing more; what it had in flight may be anywhere, and here still lands.
    pub(crate) fn depose(&self, s: &mut State, node: usize) {
        self.others(node).for_each(|peer| Self::part_from(s, node, peer));
        let replica = &mut s.nodes[node];
        replica.recent = replica.recent.union(replica.unacknowledged());
        replica.orphans = replica.submitted();
        Self::lead_no_more(s, node);
        s.nodes[node].part = Part::Secondary;
        self.take_in(s, node, s.register);
    }

    /// Forgets what only a Candidate or a Primary has.
    pub(crate) fn lead_no_more(s: &mut State, node: usize) {
        let it = s.nodes[node];
        s.nodes[node] = crate::state::Replica {
            disk: it.disk,
            stored: it.stored,
            record: it.record,
            suspect: it.suspect,
            consistent: it.consistent,
            log: it.log,
            bitmaps: it.bitmaps,
            durable: it.durable,
            copy: it.copy,
            behind: it.behind,
            visible: it.visible,
            rebooted: it.rebooted,
            part: it.part,
            generation: it.generation,
            recent: it.recent,
            forgetful: it.forgetful,
            pending: it.pending,
            orphans: it.orphans,
            told: it.told,
            lost: it.lost,
            forgot: it.forgot,
            ..crate::state::Replica::default()
        };
    }

    /// A Primary that a peer knows to be behind is none: its disk was rolled back, and must be resynced (rule 13).
    fn step_back(&self, s: &mut State, primary: usize) {
        s.nodes[primary].suspect = true;
        self.depose(s, primary);
    }

    /// The Primary tells a peer what it is. The peer takes the generation in before it answers, and refuses a lower one (rule 7).
    pub(crate) fn meet(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let (leader, it) = (&s.nodes[primary], &s.nodes[peer]);
        let settles = leader.change == Change::None
            || matches!(leader.change, Change::Drop(_)) && !self.keeps(Dropped::Rule3FrozenUntilSettled);
        let clear = it.is_idle() || !self.keeps(Dropped::ConnectionAfterTheOld);
        let hears = self.hears(s, primary, peer);
        if !s.linked(primary, peer) || leader.along.has(peer) || leader.stopped || !settles || !clear || !hears {
            return None;
        }
        match leader.part {
            Part::Primary if !leader.view.has(peer) => self.begin_resync(s, primary, peer)?,
            Part::Primary if self.is_fit(s, primary, peer) => self.resume(s, primary, peer),
            Part::TakingOver if leader.view.has(peer) && self.is_fit(s, primary, peer) => {
                if it.forgetful && self.keeps(Dropped::Rule10ForgetfulPeerLeaves) {
                    return None;
                }
                s.nodes[primary].recent = leader.recent.union(it.recent);
            }
            Part::Down | Part::Secondary | Part::Candidate | Part::TakingOver | Part::Primary => return None,
        }
        if s.nodes[primary].behind && self.keeps(Dropped::Rule13TheCandidateAsWell) {
            self.step_back(s, primary);
            return Some(());
        }
        s.nodes[primary].along.insert(peer);
        let record = s.nodes[primary].record;
        self.take_in(s, peer, record);
        Some(())
    }

    /// Whether a peer answers this Primary's messages.
    pub(crate) fn hears(&self, s: &State, primary: usize, peer: usize) -> bool {
        let it = &s.nodes[peer];
        let is_lower = s.nodes[primary].record.generation < it.generation;
        match it.part {
            Part::Down => false,
            _ if !self.keeps(Dropped::Rule7RefuseLower) => true,
            Part::Secondary => !is_lower,
            Part::Candidate | Part::TakingOver | Part::Primary => false,
        }
    }

    /// Whether a peer that stands in `in_sync` may stay there: the same disk, not suspect, not rolled back (rules 1, 11 and 13).
    /// One that may not is missed, and dropped.
    fn is_fit(&self, s: &State, primary: usize, peer: usize) -> bool {
        let it = &s.nodes[peer];
        let is_the_disk = s.nodes[primary].record.in_sync[peer] == it.disk || !self.keeps(Dropped::Rule1DiskIdToGoOn);
        let is_trusted = !it.suspect || !self.keeps(Dropped::Rule11SuspectLeaves);
        let is_current = !it.behind || !self.keeps(Dropped::Rule13BarrierNumber);
        is_the_disk && is_trusted && is_current && it.consistent
    }

    /// The same replica goes on: what it has not answered is sent again, and nothing else is in flight.
    fn resume(&self, s: &mut State, primary: usize, peer: usize) {
        let leader = &mut s.nodes[primary];
        for block in 0..self.blocks {
            if leader.waiting[block].has(peer) {
                leader.sent[block].insert(peer);
            }
        }
        s.nodes[peer].recent = s.nodes[primary].unacknowledged();
        s.nodes[peer].forgetful = false;
    }

    /// An absent member gets what its bitmap marks and what its own log names; everything, under a new disk id, where there is no bitmap
    /// that reaches back to when this very disk left (rules 10 and 13).
    fn begin_resync(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let (leader, it) = (&s.nodes[primary], &s.nodes[peer]);
        if leader.record.in_sync[peer] != 0 {
            return None;
        }
        let bitmap = leader.bitmaps[peer];
        let reaches_back = bitmap.since != 0 && bitmap.since == leader.record.left[peer] && bitmap.disk == it.disk;
        let is_current = !it.behind && !leader.behind || !self.keeps(Dropped::Rule13BarrierNumber);
        let is_marked = reaches_back || !self.keeps(Dropped::Rule10BitmapReachesBack);
        let bitmap = if is_marked && is_current {
            let own = if self.keeps(Dropped::Rule12TargetsLog) { it.log } else { Set::NONE };
            Bitmap { since: leader.record.left[peer], disk: it.disk, blocks: bitmap.blocks.union(own) }
        } else {
            Bitmap { since: leader.record.left[peer], disk: it.disk + 1, blocks: self.all_blocks() }
        };
        let target = &mut s.nodes[peer];
        target.disk = bitmap.disk;
        target.consistent = false;
        target.recent = Set::NONE;
        target.forgetful = false;
        let leader = &mut s.nodes[primary];
        leader.bitmaps[peer] = bitmap;
        leader.unsent[peer] = bitmap.blocks;
        Some(())
    }

    /// The peer has turned to somebody else.
    pub(crate) fn hang_up(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let hears = self.hears(s, primary, peer);
        Self::part_from(s, primary, peer);
        (!hears).then_some(())
    }

    /// The session is gone: what was on its way is lost, what the peer's disk has begun it completes unasked.
    pub(crate) fn part_from(s: &mut State, primary: usize, peer: usize) {
        if !s.nodes[primary].along.has(peer) {
            return;
        }
        let written = s.nodes[primary].write;
        let it = &mut s.nodes[peer];
        let is_its = |block: usize| written[block] + 1 == it.pending[block];
        it.orphans = it.orphans.union(it.submitted().iter().filter(|block| is_its(*block)).collect());
        let leader = &mut s.nodes[primary];
        leader.along.remove(peer);
        leader.late.remove(peer);
        leader.sent.iter_mut().for_each(|sent| sent.remove(peer));
        leader.unsent[peer] = Set::NONE;
        if leader.copying.0 as usize == peer + 1 {
            leader.copying = (0, 0, 0);
        }
        if !leader.view.has(peer) {
            Self::wait_no_more(s, primary, peer);
        }
    }

    /// Nothing waits for this peer any more; it is owed what it has not answered.
    pub(crate) fn wait_no_more(s: &mut State, primary: usize, peer: usize) {
        let leader = &mut s.nodes[primary];
        for block in 0..leader.write.len() {
            leader.waiting[block].remove(peer);
            leader.sent[block].remove(peer);
            if leader.trailing.has(block) && leader.waiting[block].is_empty() {
                leader.trailing.remove(block);
                leader.write[block] = 0;
            }
        }
    }

    /// A heartbeat counts from when it was sent, the peer's grace from when it answered, which is later (rule 8). So a lease that holds
    /// is a promise of the peer not to stand, and when the grace has ended, so has the lease.
    pub(crate) fn beat(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        if !self.hears(s, primary, peer) || !s.nodes[primary].view.has(peer) {
            return None;
        }
        let leader = &mut s.nodes[primary];
        leader.lease.insert(peer);
        if !self.keeps(Dropped::Rule8SentNotArrived) {
            leader.late.insert(peer);
        }
        s.nodes[peer].forgot.remove(primary);
        Some(())
    }

    pub(crate) fn grace_ends(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        s.nodes[primary].lease.remove(peer);
        Some(())
    }

    pub(crate) fn grace_ends_early(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let is_longer = self.clocks_hold && self.keeps(Dropped::Rule8GraceIsLonger);
        s.nodes[peer].forgot.insert(primary);
        (!is_longer).then_some(())
    }

    /// Without the rule, an answer from the socket's buffer renews the lease, however old the question.
    pub(crate) fn late_answer(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let leader = &mut s.nodes[primary];
        if !leader.late.has(peer) || leader.lease.has(peer) {
            return None;
        }
        leader.lease.insert(peer);
        s.nodes[peer].forgot.insert(primary);
        Some(())
    }

    /// Whether this node may still be bound by a lease that it gave (rule 5).
    pub(crate) fn waits_for_others(&self, s: &State, node: usize) -> bool {
        if !self.keeps(Dropped::Rule5Grace) || s.nodes[node].record.members_in_sync() == Set::one(node) {
            return false;
        }
        let all_skipped = !self.keeps(Dropped::Rule5FenceOfThatNodeOnly) && !s.fenced.is_empty();
        self.others(node).any(|other| {
            let is_bound = s.nodes[other].lease.has(node) && !s.nodes[node].forgot.has(other);
            is_bound && !all_skipped && !s.fenced.has(other) && !s.nodes[node].told.has(other)
        })
    }
}
