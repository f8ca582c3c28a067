//! How the record changes: drops, adds, promotions, and the arbiter that executes them (rules 1 to 5, 10 and 12).

use crate::dropped::Dropped;
use crate::state::{Asked, Change, Part, Record, Set, State, small};
use crate::volume::Volume;

impl Volume {
    fn may_change(&self, s: &State, node: usize) -> bool {
        let replica = &s.nodes[node];
        replica.change == Change::None && replica.record.generation < self.generations
    }

    fn propose(s: &mut State, node: usize, change: Change, proposed: Record) {
        let replica = &mut s.nodes[node];
        (replica.change, replica.asked, replica.proposed) = (change, Asked::Sent, proposed);
    }

    /// A peer of the view is missing, or may not stay. The own disk is flushed first (rule 3): what that peer has must not be the only
    /// durable copy.
    pub(crate) fn drop_peer(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let leader = &mut s.nodes[primary];
        if !leader.view.has(peer) || leader.along.has(peer) || leader.stopped || !self.may_change(s, primary) {
            return None;
        }
        let leader = &mut s.nodes[primary];
        if self.keeps(Dropped::Rule3FlushFirst) {
            leader.flush();
        }
        let mut proposed = leader.record.next();
        proposed.remove(peer);
        Self::propose(s, primary, Change::Drop(small(peer)), proposed);
        Some(())
    }

    /// The target has everything: nothing is unsent, nothing that was sent is unanswered, and a barrier has made it durable. From here
    /// on, before the proposal, it is counted (rule 4).
    pub(crate) fn add(&self, s: &mut State, primary: usize, peer: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let is_drained = leader.waiting.iter().all(|waiting| !waiting.has(peer)) && leader.copying.0 == 0;
        let is_ready = leader.unsent[peer].is_empty() && (is_drained || !self.keeps(Dropped::Rule4Drain));
        if leader.part != Part::Primary || !is_ready || leader.stopped || !self.may_change(s, primary) {
            return None;
        }
        let all = leader.view.union(Set::one(peer));
        self.barrier_on(s, primary, all, self.keeps(Dropped::Rule4Barrier))?;
        let target = &mut s.nodes[peer];
        (target.consistent, target.suspect, target.behind, target.lost) = (true, false, false, false);
        let disk = target.disk;
        let leader = &mut s.nodes[primary];
        leader.view.insert(peer);
        let mut proposed = leader.record.next();
        proposed.generation -= u8::from(!self.keeps(Dropped::Rule1RaiseGenerationOnAdd));
        proposed.add(peer, disk);
        Self::propose(s, primary, Change::Add(small(peer)), proposed);
        Some(())
    }

    /// A Secondary becomes a Candidate (rule 5): it flushes, stores the promise to answer nothing lower any more, and proposes. One whose
    /// record is old would be refused; that search would only be longer.
    pub(crate) fn stand(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &s.nodes[node];
        let is_in_sync = match replica.record.in_sync[node] {
            0 => !self.keeps(Dropped::Rule1OnlyInSyncPromotes),
            disk => disk == replica.disk && replica.consistent || !self.keeps(Dropped::Rule1DiskIdToPromote),
        };
        let is_trusted = !replica.suspect || !self.keeps(Dropped::Rule5NotSuspect);
        let is_idle = replica.is_idle() || !self.keeps(Dropped::Rule5OwnIoEnds);
        let is_total_outage = replica.suspect && self.is_total_outage(s, node);
        let is_refused = replica.record != s.register && self.keeps(Dropped::Rule1CompareWholeRecord);
        if !is_in_sync || !(is_trusted || is_total_outage) || !is_idle || is_refused {
            return None;
        }
        if self.waits_for_others(s, node) || !self.may_change(s, node) {
            return None;
        }
        if replica.behind {
            let in_sync = replica.record.members_in_sync().without(node);
            if in_sync.iter().any(|member| s.nodes[member].is_up() && s.linked(node, member)) {
                if self.keeps(Dropped::Rule13TheCandidateAsWell) {
                    return None; // its peer has told it
                }
            } else {
                // An old copy of a disk, and no peer that could tell: that is a second failure.
                (0..self.blocks).for_each(|block| self.excuse(s, block, 0));
            }
        }
        self.is_promoted(s);
        let proposed = self.candidate_record(s, node, is_total_outage);
        let replica = &mut s.nodes[node];
        if self.keeps(Dropped::Rule5FlushFirst) {
            replica.flush();
        }
        replica.part = Part::Candidate;
        replica.orphans = replica.submitted();
        replica.generation = replica.generation.max(proposed.generation);
        if self.keeps(Dropped::Rule5PromiseIsStored) {
            replica.stored = replica.generation;
        }
        Self::propose(s, node, Change::Promote, proposed);
        Some(())
    }

    /// All of `in_sync` are here, with the disks of the record, and all have lost their caches (rule 12).
    fn is_total_outage(&self, s: &State, node: usize) -> bool {
        s.nodes[node].record.members_in_sync().without(node).iter().all(|member| {
            let it = &s.nodes[member];
            let is_here = it.part == Part::Secondary && s.linked(node, member);
            let is_the_disk = it.disk == s.nodes[node].record.in_sync[member] || !self.keeps(Dropped::Rule12DiskIds);
            let is_suspect = it.suspect || !self.keeps(Dropped::Rule12AllSuspect);
            is_here && is_the_disk && is_suspect || !is_here && !self.keeps(Dropped::Rule12AllPresent)
        })
    }

    /// The former Primary leaves, unless it has handed over; all leave if this node does not know what they may have (rule 10), or
    /// if all have lost their caches (rule 12).
    fn candidate_record(&self, s: &State, node: usize, is_total_outage: bool) -> Record {
        let replica = &s.nodes[node];
        let mut proposed = replica.record.next();
        let former = std::mem::replace(&mut proposed.primary, small(node)) as usize;
        let is_alone = is_total_outage && self.keeps(Dropped::Rule12SoleMember)
            || replica.forgetful && !is_total_outage && self.keeps(Dropped::Rule10ForgetfulDropsAll);
        for member in proposed.members_in_sync().without(node).iter() {
            let leaves = former == member && !replica.told.has(member) && self.keeps(Dropped::Rule5FormerPrimaryLeaves);
            if is_alone || leaves {
                proposed.remove(member);
            }
        }
        if proposed.in_sync[node] == 0 {
            proposed.add(node, replica.disk);
        }
        proposed
    }

    /// The arbiter compares the whole record and swaps (rule 1). A refusal that shows the very record that was proposed means that an
    /// earlier request was executed; any other deposes the asker (rule 2). That the record names it, one generation on, is not enough: it
    /// may be what this node's former process had asked for.
    pub(crate) fn execute(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &s.nodes[node];
        let is_next = s.register.generation == replica.record.generation + 1 && s.register.primary as usize == node;
        let is_own = s.register == replica.proposed || is_next && !self.keeps(Dropped::Rule2AdoptOnlyOwn);
        if s.register == replica.record || !self.keeps(Dropped::Rule1CompareWholeRecord) {
            let proposed = replica.proposed;
            self.swap(s, proposed);
        } else if is_own {
            s.nodes[node].proposed = s.register;
        } else {
            self.refuse(s, node);
            return Some(());
        }
        s.nodes[node].asked = Asked::Swapped;
        Some(())
    }

    fn swap(&self, s: &mut State, record: Record) {
        let old = std::mem::replace(&mut s.register, record);
        if self.keeps(Dropped::Rule1CompareWholeRecord) {
            s.late = Default::default(); // all of them compare with the old record
        }
        let new = record.members_in_sync().minus(old.members_in_sync());
        new.iter().for_each(|node| Self::is_counted(s, node));
    }

    fn refuse(&self, s: &mut State, node: usize) {
        if s.nodes[node].part == Part::Candidate {
            Self::lead_no_more(s, node);
            s.nodes[node].part = Part::Secondary;
            self.take_in(s, node, s.register);
        } else if self.keeps(Dropped::Rule2RefusalDeposes) {
            self.depose(s, node);
        } else {
            self.withdraw(s, node);
        }
    }

    /// Goes on as if it had never proposed.
    fn withdraw(&self, s: &mut State, node: usize) {
        let replica = &mut s.nodes[node];
        if let Change::Add(peer) = replica.change {
            replica.view.remove(peer.into());
        }
        replica.change = Change::None;
        (replica.asked, replica.proposed) = (Asked::Sent, Record::default());
    }

    pub(crate) fn execute_late(&self, s: &mut State, which: usize) -> Option<()> {
        let record = std::mem::take(&mut s.late[which]);
        self.swap(s, record);
        Some(())
    }

    pub(crate) fn repeat(&self, s: &mut State, node: usize) -> Option<()> {
        s.nodes[node].asked = Asked::Sent;
        self.keeps(Dropped::Rule2Repeats).then_some(())
    }

    /// Without the rule: the register shows the old record, so nothing was done, it seems.
    pub(crate) fn abandon(&self, s: &mut State, node: usize) -> Option<()> {
        if self.keeps(Dropped::Rule2NeverAbandon) || s.register != s.nodes[node].record {
            return None;
        }
        self.withdraw(s, node);
        if s.nodes[node].part == Part::Candidate {
            s.nodes[node].part = Part::Secondary;
        }
        Some(())
    }

    pub(crate) fn settle(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &mut s.nodes[node];
        let (change, record) = (replica.change, replica.proposed);
        replica.change = Change::None;
        (replica.asked, replica.proposed) = (Asked::Sent, Record::default());
        match change {
            Change::None => return None,
            Change::Promote => self.promoted(s, node, record),
            Change::Drop(peer) => {
                Self::part_from(s, node, peer.into());
                s.nodes[node].view.remove(peer.into());
                s.nodes[node].lease.remove(peer.into());
                self.take_in(s, node, record);
                Self::wait_no_more(s, node, peer.into());
            }
            Change::Add(_) => self.take_in(s, node, record),
            Change::Reclaim => {
                s.nodes[node].stopped = false;
                self.take_in(s, node, record);
            }
        }
        if change != Change::Promote {
            self.tell(s, node, record);
        }
        Some(())
    }

    /// Before anything else that is sent from now on: a peer must know who left before it forgets what that one is owed.
    fn tell(&self, s: &mut State, primary: usize, record: Record) {
        for peer in s.nodes[primary].along.iter() {
            if self.hears(s, primary, peer) && s.nodes[peer].generation <= record.generation {
                self.take_in(s, peer, record);
            }
        }
    }

    /// This disk is the truth now. Every lease starts expired (rule 8).
    fn promoted(&self, s: &mut State, node: usize, record: Record) {
        self.take_in(s, node, record);
        let replica = &mut s.nodes[node];
        replica.view = record.members_in_sync().without(node);
        (replica.suspect, replica.lost, replica.forgetful) = (false, false, false);
        replica.part = Part::TakingOver;
        if replica.view.is_empty() {
            (replica.part, replica.recent) = (Part::Primary, Set::NONE);
        }
        if !self.keeps(Dropped::Rule8StartsExpired) {
            let peers = replica.view;
            replica.lease = peers;
            peers.iter().for_each(|peer| s.nodes[peer].forgot.insert(node)); // they have given none
        }
    }

    /// All peers are here: each block that any of them may have, and others not, is made equal, before anybody reads it (rule 10).
    pub(crate) fn serve(&self, s: &mut State, primary: usize) -> Option<()> {
        let leader = &s.nodes[primary];
        let hear = leader.view.iter().all(|peer| self.hears(s, primary, peer));
        if !leader.view.is_within(leader.along) || !hear || leader.change != Change::None {
            return None;
        }
        let (view, visible, recent) = (leader.view, leader.visible, leader.recent);
        for block in recent.iter().filter(|_| self.keeps(Dropped::Rule10Equalise)) {
            self.mark(s, primary, block);
            for peer in view.iter() {
                self.mark(s, peer, block);
                self.store(s, peer, block, visible[block]);
            }
        }
        view.iter().for_each(|peer| s.nodes[peer].recent = Set::NONE);
        let leader = &mut s.nodes[primary];
        (leader.part, leader.recent) = (Part::Primary, Set::NONE);
        Some(())
    }

    /// A Primary at rest stops for good in this generation, and tells a peer to take over.
    pub(crate) fn hand_over(&self, s: &mut State, primary: usize, peer: usize, arrives: bool) -> Option<()> {
        let leader = &s.nodes[primary];
        let is_at_rest = leader.write == [0; 2] && leader.read.0 == 0 && leader.log.is_empty();
        let missing = leader.view.minus(leader.along);
        if leader.part != Part::Primary || leader.stopped || leader.change != Change::None || !leader.view.has(peer) {
            return None;
        }
        if !missing.is_empty() || !is_at_rest && self.keeps(Dropped::HandOverRests) {
            return None;
        }
        if arrives && !self.hears(s, primary, peer) {
            return None;
        }
        s.nodes[primary].stopped = self.keeps(Dropped::HandOverStops);
        if arrives {
            s.nodes[peer].told.insert(primary);
        }
        s.spent.hand_overs += 1;
        Some(())
    }

    /// Nobody has taken over: it serves again, in a new generation, since the successor may be about to.
    pub(crate) fn reclaim(&self, s: &mut State, primary: usize) -> Option<()> {
        let returns = s.nodes[primary].stopped && self.keeps(Dropped::HandOverReclaims);
        if !returns || !self.may_change(s, primary) {
            return None;
        }
        let proposed = s.nodes[primary].record.next();
        Self::propose(s, primary, Change::Reclaim, proposed);
        Some(())
    }

    pub(crate) fn go_on(&self, s: &mut State, primary: usize) -> Option<()> {
        if self.keeps(Dropped::HandOverRaisesGeneration) || s.nodes[primary].change != Change::None {
            return None;
        }
        s.nodes[primary].stopped = false;
        Some(())
    }
}
