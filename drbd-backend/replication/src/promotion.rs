//! How a Secondary becomes Primary (rules 5, 10 and 12).
//!
//! ```text
//! Draining ──▶ Flushing ──▶ Promising ──▶ Asked ──▶ TakingOver: greet, equalise, barrier ──▶ serving
//!  own older     own disk    generation + 1  │ ▲
//!  I/O ends                   is stored      ▼ │
//!                                          Unknown
//! ```

use crate::disk::{Then, Work};
use crate::event::Settled;
use crate::message::{Message, Ready};
use crate::metadata::Data;
use crate::names::{Link, Node, Nodes, OrderId, Question, Span, Time};
use crate::note::Promotion as Why;
use crate::peer::Stage as PeerStage;
use crate::primary::Primary;
use crate::record::Record;
use crate::secondary::Secondary;
use crate::table::{Kind, Place};
use crate::{Content, Cx, Durability, Effect, Note, Order, Part, Refusal, Replica};

/// The longest piece that is made equal at a time, in blocks.
const PIECE: u32 = 64;

/// A promotion that is not settled.
#[derive(Debug)]
pub(crate) struct Candidacy {
    expected: Record,
    proposed: Record,
    question: Question,
    stage: CandidacyStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CandidacyStage {
    Draining,
    Flushing,
    Promising,
    Asked,
    Unknown { again_at: Time },
}

/// What a new Primary still owes before it serves.
#[derive(Debug)]
pub(crate) struct TakingOver {
    /// What may not be equal.
    spans: Vec<Span>,
    /// Peers that have not said what they may hold.
    waiting: Nodes,
    equalising: bool,
    equalised: u64,
    /// The superblock that says that this disk is the truth is under way.
    storing: bool,
    barrier: bool,
}

impl Candidacy {
    pub(crate) fn asks(&self, question: Question) -> bool {
        self.question == question
    }

    /// This record came into being instead of the proposed one: the proposal can never execute.
    pub(crate) fn is_overtaken_by(&self, record: &Record) -> bool {
        record.generation > self.expected.generation || !self.is_proposed()
    }

    fn is_proposed(&self) -> bool {
        matches!(self.stage, CandidacyStage::Asked | CandidacyStage::Unknown { .. })
    }

    pub(crate) fn again_at(&self) -> Option<Time> {
        match self.stage {
            CandidacyStage::Unknown { again_at } => Some(again_at),
            CandidacyStage::Draining | CandidacyStage::Flushing | CandidacyStage::Promising | CandidacyStage::Asked => {
                None
            }
        }
    }
}

impl Replica {
    /// Becomes a candidate when there is reason to, and nothing against it.
    pub(crate) fn stand_when_due(&mut self, cx: &mut Cx<'_>) {
        match &self.part {
            Part::Secondary(_) => {
                if let Some(why) = self.why_stand(cx) {
                    self.stand(why, cx);
                }
            }
            Part::Candidate(_, candidacy) => match candidacy.stage {
                CandidacyStage::Draining => self.flush_when_drained(cx),
                CandidacyStage::Unknown { again_at } if again_at <= cx.now => self.propose_candidacy(cx),
                _ => {}
            },
            Part::Learning | Part::Primary(_) | Part::Failed => {}
        }
    }

    fn why_stand(&mut self, cx: &mut Cx<'_>) -> Option<Why> {
        if self.ending.is_some() || self.held_by.is_some() {
            return None;
        }
        if let Some(index) = self.orders.iter().position(|(_, what)| matches!(what, Order::ForcePrimary { .. })) {
            return self.why_force(index, cx);
        }
        let ordered = self.orders.iter().any(|(_, what)| *what == Order::Promote);
        if ordered && let Some(refusal) = self.why_not_promote() {
            self.report_promotions(&Err(refusal), cx);
            return None;
        }
        let wanted = self.record().primary.is_some() && self.settings.takes_over;
        let waits = self.is_behind_a_peer() || self.others_may_serve(cx.now);
        if !ordered && !wanted || self.why_not_promote().is_some() || waits {
            return None;
        }
        let handed_over = self.record().primary.is_some_and(|node| self.peers[node.index()].stopped);
        Some(match () {
            () if self.disk.superblock.suspect => Why::TotalOutage,
            () if handed_over => Why::HandedOver,
            () if ordered => Why::Ordered,
            () => Why::PrimarySilent,
        })
    }

    /// What forbids a promotion for as long as nothing else changes.
    fn why_not_promote(&self) -> Option<Refusal> {
        if !self.is_in_sync() || self.disk.superblock.data != Data::Consistent {
            return Some(Refusal::NotInSync);
        }
        if self.disk.superblock.suspect && !self.is_total_outage() {
            return Some(Refusal::Suspect);
        }
        None
    }

    /// Whether only time stands in the way.
    pub(crate) fn would_stand(&self) -> bool {
        let ordered = self.orders.iter().any(|(_, what)| *what == Order::Promote);
        let wanted = self.record().primary.is_some() && self.settings.takes_over;
        let may = self.ending.is_none() && self.held_by.is_none() && !self.is_behind_a_peer();
        (ordered || wanted) && may && self.why_not_promote().is_none()
    }

    /// A peer knows of a later record: the arbiter's is asked for again, and if it stays behind, it was restored from an old copy.
    fn is_behind_a_peer(&self) -> bool {
        let later = |hello: &crate::Hello| hello.record > self.record().generation;
        self.peers.iter().any(|peer| peer.hello.as_deref().is_some_and(later))
    }

    /// Every in-sync disk is here, the one of the record, and may have lost its cache; and this node is the first of them (rule 12).
    fn is_total_outage(&self) -> bool {
        let in_sync = self.record().in_sync();
        let others = in_sync.without(self.me());
        others.iter().all(|node| {
            let hello = self.peers[node.index()].hello.as_ref();
            hello.is_some_and(|hello| hello.suspect && Some(hello.disk) == self.record().disk(node) && !hello.primary)
        }) && in_sync.iter().next() == Some(self.me())
    }

    /// For the grace after the last heartbeat answered, whoever sent it may be serving. Alone in sync, nobody else can be.
    pub(crate) fn others_may_serve(&self, now: Time) -> bool {
        self.may_serve_last().is_some_and(|until| until > now)
    }

    pub(crate) fn may_serve_last(&self) -> Option<Time> {
        if self.record().in_sync() == Nodes::NONE.with(self.me()) {
            return None;
        }
        let others = self.record().members.without(self.me());
        others.iter().flat_map(|node| [self.may_serve_until(node), self.may_greet_until(node)]).flatten().max()
    }

    /// An in-sync peer that has just connected may be about to say that this disk was rolled back. A Primary that hands over has no time to wait for it.
    fn may_greet_until(&self, node: Node) -> Option<Time> {
        let peer = &self.peers[node.index()];
        let handed_over = self.record().primary.is_some_and(|node| self.peers[node.index()].stopped);
        let is_awaited = peer.link.is_some() && peer.hello.is_none() && self.record().disk(node).is_some();
        (is_awaited && !handed_over).then(|| peer.down_since.unwrap_or(self.started) + self.settings.lease)
    }

    /// This disk lacks acknowledged writes, and has just heard so. What the arbiter was asked is waited for, and not made use of.
    pub(crate) fn give_up_if_blank(&mut self, cx: &mut Cx<'_>) {
        if self.disk.superblock.data != Data::Blank {
            return;
        }
        match &self.part {
            Part::Candidate(_, candidacy) if !candidacy.is_proposed() => {
                self.report_promotions(&Err(Refusal::NotInSync), cx);
                self.back_to_secondary();
            }
            Part::Primary(primary) if !primary.is_serving() && primary.change.is_none() => {
                cx.say(Note::StandsBack(self.record().clone()));
                self.report_promotions(&Err(Refusal::NotInSync), cx);
                self.stand_down(Secondary::default(), None, cx);
            }
            Part::Learning | Part::Secondary(_) | Part::Candidate(..) | Part::Primary(_) | Part::Failed => {}
        }
    }

    fn why_force(&mut self, index: usize, cx: &mut Cx<'_>) -> Option<Why> {
        let Order::ForcePrimary { destroyed } = self.orders[index].1.clone() else { return None };
        let others = self.record().in_sync().without(self.me());
        let open: Vec<Node> =
            others.iter().filter(|node| !destroyed.contains(node) && !self.is_no_primary(*node)).collect();
        if open.is_empty() {
            return Some(Why::Forced);
        }
        let (order, _) = self.orders.remove(index);
        cx.out.push(Effect::Report { order, outcome: Err(Refusal::MayServe(open)) });
        None
    }

    /// It says itself that it is not Primary, or its boot is fenced.
    fn is_no_primary(&self, node: Node) -> bool {
        let peer = &self.peers[node.index()];
        peer.fenced || peer.link.is_some() && peer.hello.as_ref().is_some_and(|hello| !hello.primary)
    }

    fn stand(&mut self, why: Why, cx: &mut Cx<'_>) {
        cx.say(Note::Promoting { why });
        let proposed = self.candidate_record(why);
        let question = self.draw_question();
        let expected = self.record().clone();
        if let Some(link) = self.secondary_mut().and_then(|secondary| secondary.link()) {
            self.hang_up(link, cx);
        }
        let candidacy = Candidacy { expected, proposed, question, stage: CandidacyStage::Draining };
        match std::mem::replace(&mut self.part, Part::Failed) {
            Part::Secondary(secondary) => self.part = Part::Candidate(secondary, candidacy),
            part => self.part = part,
        }
        self.flush_when_drained(cx);
    }

    fn candidate_record(&mut self, why: Why) -> Record {
        let me = self.me();
        let knows_all = self.secondary_mut().is_some_and(|secondary| secondary.uncommitted().is_some());
        let mut record = self.record().next();
        let old = record.primary.replace(me);
        for node in record.in_sync().without(me).iter() {
            let is_old_primary = old == Some(node) && why != Why::HandedOver;
            match why {
                Why::Forced if self.is_in_sync() && !self.is_destroyed(node) => record.remove(node),
                Why::Forced => record.retire(node),
                Why::TotalOutage => record.remove(node),
                _ if is_old_primary || !knows_all => record.remove(node),
                _ => {}
            }
        }
        if why == Why::Forced && !self.is_in_sync() {
            record.members.without(me).iter().for_each(|node| record.retire(node));
            record.add(me, self.disk.superblock.disk);
        }
        let cache_is_lost =
            why == Why::Forced || why == Why::TotalOutage && self.settings.durability == Durability::Flush;
        record.epoch += u64::from(cache_is_lost);
        record
    }

    fn is_destroyed(&self, node: Node) -> bool {
        self.orders
            .iter()
            .any(|(_, what)| matches!(what, Order::ForcePrimary { destroyed } if destroyed.contains(&node)))
    }

    fn flush_when_drained(&mut self, cx: &mut Cx<'_>) {
        if !self.table.is_empty() {
            return;
        }
        let Part::Candidate(_, candidacy) = &mut self.part else { return };
        candidacy.stage = CandidacyStage::Flushing;
        let question = candidacy.question;
        self.flush(Work::Proposal(question), cx);
    }

    /// From here on, across restarts, nothing of the old generation is answered.
    pub(crate) fn promise(&mut self, question: Question, cx: &mut Cx<'_>) {
        let Part::Candidate(_, candidacy) = &mut self.part else { return };
        if candidacy.question != question || candidacy.stage != CandidacyStage::Flushing {
            return;
        }
        candidacy.stage = CandidacyStage::Promising;
        let superblock = &mut self.disk.superblock;
        superblock.generation = superblock.generation.max(candidacy.proposed.generation);
        self.keep_superblock(Then::Propose(question), cx);
    }

    pub(crate) fn promised(&mut self, question: Question, cx: &mut Cx<'_>) {
        if matches!(&self.part, Part::Candidate(_, candidacy) if candidacy.asks(question)) {
            self.propose_candidacy(cx);
        }
    }

    fn propose_candidacy(&mut self, cx: &mut Cx<'_>) {
        let question = self.draw_question();
        let Part::Candidate(_, candidacy) = &mut self.part else { return };
        candidacy.question = question;
        candidacy.stage = CandidacyStage::Asked;
        let (expected, proposed) = (Box::new(candidacy.expected.clone()), Box::new(candidacy.proposed.clone()));
        let incarnation = self.disk.superblock.incarnation;
        cx.out.push(Effect::Propose { question, incarnation, expected, proposed });
    }

    pub(crate) fn candidacy_settled(&mut self, settled: Settled, cx: &mut Cx<'_>) {
        let again_at = cx.now + self.settings.ask_again;
        let Part::Candidate(_, candidacy) = &mut self.part else { return };
        match settled {
            Settled::Unknown => candidacy.stage = CandidacyStage::Unknown { again_at },
            Settled::Swapped => {
                let record = candidacy.proposed.clone();
                self.promoted(record, cx);
            }
            // Done, and the answer was lost. Anything else that names this node is a change of its process before this one: that one is dead (rule 2).
            Settled::Refused(record) if *record == candidacy.proposed => self.promoted(*record, cx),
            Settled::Refused(record) => self.not_promoted(*record, cx),
        }
    }

    fn not_promoted(&mut self, record: Record, cx: &mut Cx<'_>) {
        cx.say(Note::PromotionLost(record.clone()));
        self.report_promotions(&Err(Refusal::Overtaken(Box::new(record.clone()))), cx);
        self.back_to_secondary();
        let (known, found) = (self.record().generation, record.generation);
        if found < known {
            return self.held_by(Note::ArbiterBehind { known, found }, cx);
        }
        self.apply_record(record, cx);
        self.keep_quietly(cx);
        self.compare_barriers(cx);
    }

    /// It is the record's Primary, and has learned meanwhile that its disk was rolled back: for the others it is one that is silent.
    fn not_to_serve(&mut self, record: Record, cx: &mut Cx<'_>) {
        cx.say(Note::StandsBack(record.clone()));
        self.report_promotions(&Err(Refusal::NotInSync), cx);
        self.back_to_secondary();
        self.apply_record(record, cx);
        self.keep_quietly(cx);
    }

    fn back_to_secondary(&mut self) {
        match std::mem::replace(&mut self.part, Part::Failed) {
            Part::Candidate(secondary, _) => self.part = Part::Secondary(secondary),
            part => self.part = part,
        }
    }

    fn promoted(&mut self, record: Record, cx: &mut Cx<'_>) {
        if self.disk.superblock.data == Data::Blank {
            return self.not_to_serve(record, cx);
        }
        cx.say(Note::Promoted(record.clone()));
        let spans = self.secondary_mut().and_then(|secondary| secondary.uncommitted()).unwrap_or_default();
        self.apply_record(record, cx);
        let view = self.record().in_sync().without(self.me());
        let confirmed = self.disk.superblock.confirmed;
        for node in Node::all() {
            self.peers[node.index()].forget();
            self.peers[node.index()].barrier = if view.contains(node) { confirmed } else { crate::Barrier(0) };
        }
        let superblock = &mut self.disk.superblock;
        let (first, floor) = (superblock.record.generation, superblock.barrier);
        superblock.suspect = false;
        superblock.data = Data::Consistent;
        superblock.absent[self.settings.me.index()] = None;
        self.absent[self.settings.me.index()] = None;
        self.bitmaps[self.settings.me.index()] = None;
        let taking_over =
            TakingOver { spans, waiting: view, equalising: false, equalised: 0, storing: true, barrier: false };
        self.part = Part::Primary(Box::new(Primary::new(view, taking_over, first, floor, cx.now)));
        self.keep_superblock(Then::Serve, cx);
        self.meet_anew(cx);
    }

    /// This disk is the truth, durably.
    pub(crate) fn cache_is_truth(&mut self, cx: &mut Cx<'_>) {
        if let Some(taking_over) = self.primary_mut().and_then(|primary| primary.taking_over.as_mut()) {
            taking_over.storing = false;
            self.take_over_further(cx);
        }
    }

    pub(crate) fn is_ready(&mut self, node: Node, link: Link, ready: Ready, cx: &mut Cx<'_>) {
        self.peers[node.index()].stage = PeerStage::Along;
        self.peers[node.index()].missing_since = None;
        self.peers[node.index()].answered = None;
        self.peers[node.index()].process =
            self.peers[node.index()].hello.as_ref().map(|hello| hello.process).unwrap_or_default();
        self.peers[node.index()].control = 0;
        let control = Box::new(self.newest_control()); // from here on it gets every change, so this one misses none
        self.send(link, Message::Control(control), None, cx);
        if !self.primary().is_some_and(|primary| primary.view.contains(node)) {
            self.begin_resync(node, &ready, cx);
        } else if self.peers[node.index()].kin {
            self.resend(node, link, cx);
        } else {
            self.equalise(node, ready.uncommitted);
            self.equalise_anew(node, cx);
            self.resend_runs(node, link, cx);
        }
        self.beat_now(cx);
    }

    fn equalise(&mut self, node: Node, uncommitted: Option<Vec<Span>>) {
        let Some(taking_over) = self.primary_mut().and_then(|primary| primary.taking_over.as_mut()) else { return };
        let Some(spans) = uncommitted else {
            self.peers[node.index()].unfit = true;
            return;
        };
        taking_over.spans.extend(spans);
        taking_over.waiting.remove(node);
        // What was sent before it came along does not reach it: all of it is sent anew.
        taking_over.equalising = false;
    }

    /// What it had not answered when it was lost is sent again with everything else.
    fn equalise_anew(&mut self, node: Node, cx: &mut Cx<'_>) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            let entry = self.table.get_mut(place);
            if entry.kind == Kind::Equalise && entry.waiting.contains(node) {
                entry.waiting.remove(node);
                self.complete(place, cx);
            }
            index += usize::from(self.table.nth(index) == Some(place));
        }
    }

    pub(crate) fn taken_over_without(&mut self, node: Node) {
        if let Some(taking_over) = self.primary_mut().and_then(|primary| primary.taking_over.as_mut()) {
            taking_over.waiting.remove(node);
        }
    }

    /// Greets, equalises, has a barrier stored, serves.
    pub(crate) fn take_over_further(&mut self, cx: &mut Cx<'_>) {
        let missing = self.missing();
        let size = self.disk.superblock.size_blocks;
        let equalising = self.table.any(|entry| entry.kind == Kind::Equalise);
        let Part::Primary(primary) = &mut self.part else { return };
        let view = primary.view;
        let changing = primary.change.is_some();
        let confirmed = primary.barrier.is_none();
        let Some(taking_over) = &mut primary.taking_over else { return };
        if taking_over.storing || !taking_over.waiting.is_empty() || !missing.is_empty() || changing || equalising {
            return;
        }
        if !view.is_empty() && !std::mem::replace(&mut taking_over.equalising, true) {
            taking_over.barrier = false;
            let pieces = pieces(&taking_over.spans, size);
            taking_over.equalised = pieces.iter().map(|span| u64::from(span.count)).sum();
            for span in pieces {
                let place = self.table.insert(cx.now, span, Kind::Equalise, None, false);
                self.submit(place, cx);
            }
            return self.take_over_further(cx);
        }
        if !view.is_empty() && !std::mem::replace(&mut taking_over.barrier, true) {
            return self.start_barrier(cx);
        }
        if confirmed {
            self.serve(cx);
        }
    }

    fn serve(&mut self, cx: &mut Cx<'_>) {
        let Part::Primary(primary) = &mut self.part else { return };
        let Some(taking_over) = primary.taking_over.take() else { return };
        let view = primary.view;
        primary.led = view;
        cx.say(Note::Serving { equalised: taking_over.equalised });
        view.iter().for_each(|node| self.peers[node.index()].kin = true);
        self.report_promotions(&Ok(()), cx);
        self.take_fences_in(cx);
        Node::all().for_each(|node| self.consider(node, cx));
        self.beat_now(cx);
    }

    pub(crate) fn equalise_loaded(&mut self, place: Place, is_good: bool, cx: &mut Cx<'_>) {
        if !is_good {
            return self.fail_disk(cx);
        }
        let Part::Primary(primary) = &mut self.part else { return };
        let (seq, view) = (primary.next, primary.view);
        primary.next = seq.next();
        let entry = self.table.get_mut(place);
        entry.seq = seq;
        entry.waiting = view;
        let (span, content) = (entry.span, entry.content);
        if let Some(content @ Content::Data(_)) = content {
            self.send_write(view, seq, span, content, false, cx);
        }
        self.complete(place, cx);
    }

    pub(crate) fn report_promotions(&mut self, outcome: &Result<(), Refusal>, cx: &mut Cx<'_>) {
        self.orders.retain(|(order, what): &(OrderId, Order)| {
            let is_one = matches!(what, Order::Promote | Order::ForcePrimary { .. });
            if is_one {
                cx.out.push(Effect::Report { order: *order, outcome: outcome.clone() });
            }
            !is_one
        });
    }

    pub(crate) fn secondary_of_start(&self) -> Secondary {
        Secondary::of_start(self.activity.is_dirty())
    }
}

/// The spans without what they have in common, in pieces.
fn pieces(spans: &[Span], size_blocks: u64) -> Vec<Span> {
    let mut sorted: Vec<Span> = spans.to_vec();
    sorted.sort_unstable();
    let mut pieces = Vec::new();
    let mut from = 0;
    for span in sorted {
        let mut start = span.start.max(from);
        let end = span.end().min(size_blocks);
        while start < end {
            let count = u32::try_from(end - start).map_or(PIECE, |left| left.min(PIECE));
            pieces.push(Span::new(start, count));
            start += u64::from(count);
        }
        from = from.max(end);
    }
    pieces
}
