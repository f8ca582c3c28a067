//! How a Primary changes the arbiter's record, and how every replica takes a changed one in (rules 1 to 4).
//!
//! ```text
//!  drop: Flushing ──▶ Asked ──▶ swapped: adopted
//!                      │  ▲      refused, but mine: adopted; refused otherwise: deposed
//!                      ▼  │
//!                    Unknown     the same again: reading the register would not settle it, the old request may still execute
//! ```

use crate::disk::{Then, Work};
use crate::event::Settled;
use crate::metadata::{Absent, Metadata};
use crate::names::{DiskId, Link, Node, Nodes, Question, Time};
use crate::peer::Stage as PeerStage;
use crate::record::Record;
use crate::secondary::Secondary;
use crate::table::Stage;
use crate::{Bits, Cx, Effect, Message, Note, Part, Refusal, Replica};

/// A change of the record that is not settled.
#[derive(Debug)]
pub(crate) struct ChangeRun {
    what: What,
    expected: Record,
    proposed: Record,
    question: Question,
    stage: ChangeStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    Drop(Nodes),
    Add(Node, DiskId),
    /// Nobody is Primary.
    Demote,
    /// The successor has not taken over: this node goes on, in a new generation.
    Reclaim,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeStage {
    /// Its own disk first: what the dropped one had in its cache must not be the only copy.
    Flushing,
    Asked,
    Unknown {
        again_at: Time,
    },
}

impl ChangeRun {
    pub(crate) fn adds(&self) -> bool {
        matches!(self.what, What::Add(..))
    }

    pub(crate) fn again_at(&self) -> Option<Time> {
        match self.stage {
            ChangeStage::Unknown { again_at } => Some(again_at),
            ChangeStage::Flushing | ChangeStage::Asked => None,
        }
    }
}

impl Replica {
    pub(crate) fn draw_question(&mut self) -> Question {
        self.questions += 1;
        Question(self.questions)
    }

    /// Peers of the view that do not come back in time, or cannot stay, are dropped.
    pub(crate) fn drop_when_due(&mut self, cx: &mut Cx<'_>) {
        self.hang_up_the_silent(cx);
        let missing = self.missing();
        let Some(primary) = self.primary_mut() else { return };
        if missing != primary.said_frozen {
            primary.said_frozen = missing;
            if !missing.is_empty() && !primary.stopped {
                cx.say(Note::Frozen { missing });
            }
        }
        if primary.stopped || primary.change.is_some() {
            return;
        }
        let due: Nodes = missing.iter().filter(|node| self.missing_until(*node) <= cx.now).collect();
        if !due.is_empty() {
            self.start_change(What::Drop(due), cx);
        }
    }

    /// When a missing peer is given up.
    pub(crate) fn missing_until(&self, node: Node) -> Time {
        let peer = &self.peers[node.index()];
        if peer.unfit {
            return Time(0);
        }
        let since = peer.missing_since.unwrap_or_default();
        let since = since.max(self.primary().map(|primary| primary.since).unwrap_or_default());
        since + if peer.link.is_some() { self.settings.lease } else { self.settings.reconnect }
    }

    /// A peer whose lease has run out is met anew; one that answers heartbeats but no writes is unfit.
    fn hang_up_the_silent(&mut self, cx: &mut Cx<'_>) {
        for node in Node::all() {
            let peer = &self.peers[node.index()];
            let Some(link) = peer.along() else {
                let since = peer.down_since.unwrap_or(self.started);
                if let Some(link) = peer.link.filter(|_| peer.greeted && peer.stage != PeerStage::Along)
                    && (peer.hello.is_none() || peer.stage == PeerStage::Welcomed)
                    && cx.now.since(since) >= self.settings.lease
                {
                    self.hang_up(link, cx);
                }
                continue;
            };
            let last = peer.answered.max(peer.down_since).unwrap_or(self.started);
            if cx.now.since(last) >= self.settings.lease + self.settings.heartbeat_every {
                self.hang_up(link, cx);
                continue;
            }
            let oldest =
                self.table.entries().filter(|(_, entry)| entry.waiting.contains(node)).map(|(_, entry)| entry.at);
            if oldest.min().is_some_and(|at| cx.now.since(at) >= self.settings.stalled) {
                cx.say(Note::PeerStalled(node));
                self.peers[node.index()].unfit = true;
                self.hang_up(link, cx);
            }
        }
    }

    pub(crate) fn start_change(&mut self, what: What, cx: &mut Cx<'_>) {
        let expected = self.record().clone();
        let mut proposed = expected.next();
        match what {
            What::Drop(nodes) => nodes.iter().for_each(|node| proposed.remove(node)),
            What::Add(node, disk) => proposed.add(node, disk),
            What::Demote => proposed.primary = None,
            What::Reclaim => {}
        }
        let question = self.draw_question();
        let Some(primary) = self.primary_mut() else { return };
        assert!(primary.change.is_none(), "one change at a time");
        primary.change = Some(ChangeRun { what, expected, proposed, question, stage: ChangeStage::Flushing });
        match what {
            What::Drop(_) => self.flush(Work::Proposal(question), cx),
            What::Add(..) | What::Demote | What::Reclaim => self.propose(question, cx),
        }
    }

    /// The disk was flushed for a change of the record, a Primary's or a candidate's.
    pub(crate) fn flushed_for(&mut self, question: Question, cx: &mut Cx<'_>) {
        match &self.part {
            Part::Primary(_) => self.propose(question, cx),
            Part::Candidate(..) => self.promise(question, cx),
            Part::Learning | Part::Secondary(_) | Part::Failed => {}
        }
    }

    fn propose(&mut self, question: Question, cx: &mut Cx<'_>) {
        let Some(change) = self.primary_mut().and_then(|primary| primary.change.as_mut()) else { return };
        if change.question == question {
            change.stage = ChangeStage::Asked;
            let (expected, proposed) = (Box::new(change.expected.clone()), Box::new(change.proposed.clone()));
            let incarnation = self.disk.superblock.incarnation;
            cx.out.push(Effect::Propose { question, incarnation, expected, proposed });
        }
    }

    pub(crate) fn propose_again_when_due(&mut self, cx: &mut Cx<'_>) {
        let question = self.draw_question();
        let Some(change) = self.primary_mut().and_then(|primary| primary.change.as_mut()) else { return };
        if change.again_at().is_some_and(|at| at <= cx.now) {
            change.question = question;
            self.propose(question, cx);
        }
    }

    pub(crate) fn settled(&mut self, question: Question, settled: Settled, cx: &mut Cx<'_>) {
        let again_at = cx.now + self.settings.ask_again;
        match &mut self.part {
            Part::Candidate(_, candidacy) if candidacy.asks(question) => self.candidacy_settled(settled, cx),
            Part::Primary(primary) => {
                let Some(change) = primary.change.as_mut().filter(|change| change.question == question) else { return };
                match settled {
                    Settled::Unknown => change.stage = ChangeStage::Unknown { again_at },
                    Settled::Swapped => self.adopt(cx),
                    Settled::Refused(record) if *record == change.proposed => self.adopt(cx),
                    Settled::Refused(record) => self.refused(*record, cx),
                }
            }
            Part::Learning | Part::Secondary(_) | Part::Candidate(..) | Part::Failed => {}
        }
    }

    /// The change is in the record.
    fn adopt(&mut self, cx: &mut Cx<'_>) {
        let me = self.me();
        let Some(primary) = self.primary_mut() else { return };
        let change = primary.change.take().expect("it was settled");
        let record = change.proposed;
        let adding: Nodes = primary.adding.into_iter().collect();
        primary.view = record.in_sync().union(adding).without(me);
        self.apply_record(record.clone(), cx);
        self.keep_quietly(cx);
        // First of all: a peer that heard of a barrier before it heard of a drop would forget what the dropped one is owed.
        let changed = Box::new(record.clone());
        for link in self.peers.iter().filter_map(crate::peer::Peer::along) {
            self.send(link, Message::Changed(changed.clone()), None, cx);
        }
        match change.what {
            What::Drop(nodes) => {
                cx.say(Note::Dropped { nodes, record: record.clone() });
                nodes.iter().for_each(|node| self.is_dropped(node, cx));
            }
            What::Add(node, _) => {
                cx.say(Note::Added { node, record: record.clone() });
                if let Some(primary) = self.primary_mut() {
                    primary.adding = None;
                    primary.led.insert(node);
                }
                self.peers[node.index()].kin = true;
                self.peers[node.index()].resync = None;
            }
            What::Demote => {
                cx.say(Note::Demoted(record.clone()));
                return self.stand_down(Secondary::default(), None, cx);
            }
            What::Reclaim => self.reclaimed(&record, cx),
        }
        Node::all().for_each(|node| self.consider(node, cx));
        self.complete_all(cx);
    }

    fn is_dropped(&mut self, node: Node, cx: &mut Cx<'_>) {
        let peer = &mut self.peers[node.index()];
        peer.kin = false;
        peer.unfit = false;
        if let Some(link) = peer.along() {
            self.hang_up(link, cx);
        }
        if self.primary().is_some_and(|primary| primary.taking_over.is_some()) {
            self.taken_over_without(node);
        }
        self.wait_no_more(node, cx);
    }

    /// It is another record: this node is Primary no more. One of a lower generation is not taken in: the arbiter was restored from an old copy.
    fn refused(&mut self, record: Record, cx: &mut Cx<'_>) {
        let (known, found) = (self.record().generation, record.generation);
        if found >= known {
            return self.deposed(record, None, cx);
        }
        self.held_by(Note::ArbiterBehind { known, found }, cx);
        self.deposed(self.record().clone(), None, cx);
    }

    /// What no confirmed barrier covers, within the volume.
    pub(crate) fn unconfirmed(&self) -> Bits {
        let mut bits = self.activity.dirty();
        bits.cut(self.disk.superblock.size_blocks);
        bits
    }

    /// Somebody else has changed the record: this node acknowledges and reads nothing more.
    pub(crate) fn deposed(&mut self, record: Record, keep: Option<Link>, cx: &mut Cx<'_>) {
        cx.say(Note::Deposed(record.clone()));
        let unanswered: Vec<crate::Span> = self
            .table
            .entries()
            .filter(|(_, entry)| entry.kind.writes() && entry.stage != Stage::Trailing)
            .map(|(_, entry)| entry.span)
            .collect();
        self.apply_record(record, cx);
        self.keep_quietly(cx);
        self.stand_down(Secondary::of_former_primary(unanswered), keep, cx);
    }

    pub(crate) fn stand_down(&mut self, as_what: Secondary, keep: Option<Link>, cx: &mut Cx<'_>) {
        self.leave_part_but(Part::Secondary(as_what), keep, cx);
        self.greet_when_clear(cx);
    }

    /// Takes a record in: who is in sync, and what those are owed who have just left.
    pub(crate) fn apply_record(&mut self, record: Record, cx: &mut Cx<'_>) {
        let was_in_sync = self.is_in_sync();
        let superblock = &mut self.disk.superblock;
        let old = std::mem::replace(&mut superblock.record, record);
        superblock.generation = superblock.generation.max(superblock.record.generation);
        if superblock.record.generation != old.generation {
            self.peers.iter_mut().for_each(|peer| peer.stopped = false);
        }
        if let Some(primary) = self.record().primary.filter(|primary| old.primary != Some(*primary)) {
            self.peers[primary.index()].heard = Some(cx.now); // it has the grace from now on to be heard
        }
        let is_secondary = self.secondary_mut().is_some();
        let me = self.me();
        for node in Node::all().filter(|node| *node != me) {
            let record = self.record();
            let tracked = self.is_in_sync() && record.members.contains(node) && record.disk(node).is_none();
            if !tracked {
                self.bitmaps[node.index()] = None;
                self.absent[node.index()] = None;
                self.disk.superblock.absent[node.index()] = None;
                continue;
            }
            let (Some(disk), Some(since), true, None) =
                (old.disk(node), record.left(node), was_in_sync, self.absent[node.index()])
            else {
                continue;
            };
            let known = self.disk.superblock.confirmed;
            let barrier = if is_secondary { known } else { known.max(self.peers[node.index()].barrier) };
            self.track(node, Absent { since, disk, barrier }, self.unconfirmed(), cx);
        }
    }

    /// From now on this bitmap has every write that the absent member misses.
    pub(crate) fn track(&mut self, node: Node, absent: Absent, bits: Bits, cx: &mut Cx<'_>) {
        self.absent[node.index()] = Some(absent);
        self.bitmaps[node.index()] = Some(bits);
        self.bitmaps_to_keep.insert(node);
        self.keep_bitmaps(cx);
    }

    /// Whole bitmaps and the activity log's pages of them are never under way together: the older would land over the newer.
    pub(crate) fn keep_bitmaps(&mut self, cx: &mut Cx<'_>) {
        if self.activity.is_under_way() || !self.bitmaps_under_way.is_empty() {
            return;
        }
        for node in std::mem::take(&mut self.bitmaps_to_keep).iter() {
            let Some(bits) = self.bitmaps[node.index()].clone() else { continue };
            self.bitmaps_under_way.insert(node);
            self.keep(Work::Bitmap(node), Metadata::WholeBitmap { node, bits }, cx);
        }
    }

    pub(crate) fn bitmap_kept(&mut self, node: Node, cx: &mut Cx<'_>) {
        self.bitmaps_under_way.remove(node);
        if !self.bitmaps_to_keep.contains(node) {
            self.disk.superblock.absent[node.index()] = self.absent[node.index()];
            match self.secondary_mut().and_then(|secondary| secondary.link()).filter(|_| node == self.me()) {
                Some(link) => self.keep_superblock(Then::Heed(link), cx),
                None => self.keep_quietly(cx),
            }
        }
        self.keep_bitmaps(cx);
        self.pump_activity(cx);
        self.submit_waiting(cx);
    }

    /// Why an order cannot be carried out by anybody but the Primary.
    pub(crate) fn not_primary(&self) -> Refusal {
        Refusal::NotPrimary { primary: self.record().primary.filter(|node| *node != self.me()) }
    }
}
