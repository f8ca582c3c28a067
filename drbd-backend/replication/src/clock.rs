//! When something is due, and the questions to the arbiter.

use crate::disk::Then;
use crate::disk::Work;
use crate::event::Told;
use crate::metadata::Data;
use crate::names::{Link, Question, Time};
use crate::primary::Quiet;
use crate::record::Record;
use crate::table::{Kind, Stage};
use crate::{Cx, Effect, Incarnation, Message, Metadata, Node, Note, Order, OrderId, Part, Refusal, Replica};

/// The end of this life, step by step.
#[derive(Debug)]
pub(crate) struct Ending {
    order: OrderId,
    stage: EndingStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndingStage {
    Resting,
    Flushing,
    /// What the activity log marked must be in the bitmaps before the log forgets it.
    Bitmaps(usize),
    Activity,
    Superblock,
}

impl Replica {
    /// When it wants [`Event::Woken`](crate::Event::Woken), if nothing happens before.
    #[must_use]
    pub fn wake_at(&self) -> Option<Time> {
        if self.ended {
            return None;
        }
        let full = self.table.entries().filter_map(|(_, entry)| match entry.stage {
            Stage::Full(until) => Some(until),
            _ => None,
        });
        let asks = self.ask_at.filter(|_| self.asked.is_none() && !self.is_ending());
        full.chain(asks).chain(self.part_wakes_at()).min()
    }

    fn part_wakes_at(&self) -> Option<Time> {
        match &self.part {
            Part::Learning => None,
            Part::Failed => self.failed_wakes_at(),
            Part::Secondary(_) => self.may_serve_last().filter(|_| self.would_stand()),
            Part::Candidate(_, candidacy) => candidacy.again_at(),
            Part::Primary(primary) => {
                let missing = self.missing().iter().map(|node| self.missing_until(node));
                let missing = missing.min().filter(|_| primary.change.is_none() && !primary.stopped);
                let barrier = primary.barrier_at + self.settings.barrier_every;
                let barrier = Some(barrier)
                    .filter(|_| primary.is_serving() && primary.barrier.is_none() && self.activity.is_dirty());
                let again = primary.change.as_ref().and_then(crate::membership::ChangeRun::again_at);
                [Some(primary.heartbeat_at), missing, barrier, again, primary.reclaim_at, self.resync_wakes_at()]
                    .into_iter()
                    .flatten()
                    .min()
            }
        }
    }

    /// A Secondary that hears of no Primary looks now and then whether the record has changed: it may have been added by one that died before it could say
    /// so. Where there is none, a promotion of a process that died may have been executed late: that is rare, and so is the question.
    fn wonder(&mut self, cx: &mut Cx<'_>) {
        let alone = matches!(&self.part, Part::Secondary(secondary) if secondary.link().is_none());
        if alone && self.asked.is_none() {
            let leases = if self.record().primary.is_some() { 1 } else { 10 };
            let due = cx.now + leases * self.settings.lease;
            self.ask_at = Some(self.ask_at.map_or(due, |at| at.min(due)));
        }
    }

    pub(crate) fn ask_when_due(&mut self, cx: &mut Cx<'_>) {
        self.wonder(cx);
        if self.asked.is_none() && !self.is_ending() && self.ask_at.is_some_and(|at| at <= cx.now) {
            let question = self.draw_question();
            self.asked = Some(question);
            self.ask_at = None;
            cx.out.push(Effect::Ask { question });
        }
    }

    pub(crate) fn told(&mut self, question: Question, told: Told, cx: &mut Cx<'_>) {
        if self.asked != Some(question) {
            return;
        }
        self.asked = None;
        if self.is_ending() {
            return; // what is written last must not be followed by anything
        }
        match told {
            Told::Record { incarnation, record } => match self.why_doubted(incarnation, &record) {
                None => self.learned(incarnation, *record, cx),
                Some(note) => self.held_by(note, cx),
            },
            Told::Missing => self.held_by(Note::ArbiterHasNoRecord, cx),
            Told::Unreachable => self.ask_at = Some(cx.now + self.settings.ask_again),
        }
    }

    /// An arbiter that was wiped, replaced or restored from an old copy holds the volume until somebody has confirmed it.
    fn why_doubted(&self, found: Incarnation, record: &Record) -> Option<Note> {
        let superblock = &self.disk.superblock;
        if let Some(known) = superblock.incarnation.filter(|known| *known != found) {
            return Some(Note::OtherArbiter { known, found });
        }
        let (known, found) = (superblock.record.generation, record.generation);
        (found < known).then_some(Note::ArbiterBehind { known, found })
    }

    pub(crate) fn held_by(&mut self, note: Note, cx: &mut Cx<'_>) {
        self.ask_at = Some(cx.now + self.settings.ask_again);
        if self.held_by.as_ref() != Some(&note) {
            cx.say(note.clone());
            self.held_by = Some(note);
        }
    }

    /// The arbiter has not told the record yet, or is not believed.
    fn is_without_record(&self) -> bool {
        matches!(self.part, Part::Learning) || self.held_by.is_some()
    }

    fn learned(&mut self, incarnation: Incarnation, record: Record, cx: &mut Cx<'_>) {
        self.held_by = None;
        self.disk.superblock.incarnation = Some(incarnation);
        let is_news = record.generation > self.record().generation;
        match &self.part {
            Part::Learning => {
                cx.say(Note::Learned(record.clone()));
                self.apply_record(record, cx);
                self.keep_quietly(cx);
                self.part = Part::Secondary(self.secondary_of_start());
                for peer in self.peers.iter_mut().filter(|peer| peer.link.is_some()) {
                    peer.down_since = Some(cx.now); // from now on it may greet
                }
                self.compare_barriers(cx);
                self.greet_when_clear(cx);
            }
            Part::Secondary(_) if is_news => {
                self.apply_record(record, cx);
                self.keep_quietly(cx);
                self.compare_barriers(cx);
            }
            Part::Primary(primary) if is_news && primary.change.is_none() => self.deposed(record, None, cx),
            // Only its own compare-and-swap settles what it has proposed (rule 2).
            Part::Secondary(_) | Part::Candidate(..) | Part::Primary(_) | Part::Failed => {}
        }
    }

    pub(crate) fn ordered(&mut self, order: OrderId, what: Order, cx: &mut Cx<'_>) {
        let refuse = |refusal, cx: &mut Cx<'_>| cx.out.push(Effect::Report { order, outcome: Err(refusal) });
        if self.ended || self.ending.is_some() {
            return refuse(Refusal::ShuttingDown, cx);
        }
        match what {
            Order::ShutDown => {
                self.ending = Some(Ending { order, stage: EndingStage::Resting });
                if let Some(primary) = self.primary_mut() {
                    primary.quiet = primary.quiet.or(Some(Quiet::ShutDown));
                }
            }
            Order::TrustArbiter => {
                self.disk.superblock.incarnation = None;
                self.keep_quietly(cx);
                self.asked = None; // an answer that is under way is of the store before
                self.ask_at = Some(cx.now);
                cx.out.push(Effect::Report { order, outcome: Ok(()) });
            }
            Order::Invalidate => self.invalidate(order, cx),
            Order::Control(change) => self.order_change(order, change, cx),
            Order::Promote | Order::ForcePrimary { .. } => match &self.part {
                Part::Failed => refuse(Refusal::DiskFailed, cx),
                _ if self.disk.superblock.data == Data::Blank => refuse(Refusal::DiskFailed, cx),
                // Who is destroyed is true of the moment: it is not taken up later, over a record that may have changed meanwhile.
                Part::Learning | Part::Secondary(_) if what != Order::Promote && self.is_without_record() => {
                    refuse(Refusal::MayServe(self.record().in_sync().without(self.me()).iter().collect()), cx);
                }
                Part::Primary(primary) if primary.is_serving() => {
                    cx.out.push(Effect::Report { order, outcome: Ok(()) })
                }
                Part::Secondary(secondary) if what == Order::Promote && secondary.link().is_some() => {
                    refuse(Refusal::MayServe(self.record().primary.into_iter().collect()), cx);
                }
                _ => self.orders.push((order, what)),
            },
            Order::HandOver(_) | Order::Demote => {
                let refusal = self.not_primary();
                let fit = match what {
                    Order::HandOver(to) => self.peers[to.index()].along().is_some() && self.peers[to.index()].kin,
                    _ => true,
                };
                let Some(primary) = self.primary_mut().filter(|primary| primary.is_serving()) else {
                    return refuse(refusal, cx);
                };
                match what {
                    _ if primary.quiet.is_some() => refuse(Refusal::Busy, cx),
                    Order::HandOver(to) if !fit || !primary.view.contains(to) => refuse(Refusal::Unfit(to), cx),
                    Order::HandOver(to) => primary.quiet = Some(Quiet::HandOver { to, order: Some(order) }),
                    _ => primary.quiet = Some(Quiet::Demote { order }),
                }
            }
        }
    }

    /// A Primary that is to hand over, be demoted or end finishes what it has begun, has a barrier stored, and then does so.
    pub(crate) fn come_to_rest(&mut self, cx: &mut Cx<'_>) {
        let busy = self.table.any(|entry| {
            entry.stage != Stage::Trailing && (entry.kind.request().is_some() || entry.kind == Kind::Equalise)
        });
        let missing = self.missing();
        let Some(primary) = self.primary() else { return };
        let Some(quiet) = primary.quiet else { return };
        if primary.stopped {
            return self.reclaim_when_due(cx);
        }
        let under_way = primary.flush.is_some()
            || !primary.flush_next.is_empty()
            || primary.control.is_some()
            || !primary.control_next.is_empty()
            || !primary.control_owed.is_empty()
            || primary.change.is_some()
            || primary.barrier.is_some()
            || primary.adding.is_some()
            || !primary.is_serving();
        if busy || under_way || !missing.is_empty() {
            return;
        }
        if self.activity.is_dirty() {
            return self.start_barrier(cx);
        }
        match quiet {
            Quiet::Demote { .. } => self.start_change(crate::membership::What::Demote, cx),
            Quiet::HandOver { to, order } => self.hand_over(to, order, cx),
            Quiet::ShutDown => {}
        }
    }

    fn hand_over(&mut self, to: Node, order: Option<OrderId>, cx: &mut Cx<'_>) {
        let link = self.peers[to.index()].along().filter(|_| self.peers[to.index()].kin);
        let reclaim_at = cx.now + self.settings.lease;
        let Some(primary) = self.primary_mut() else { return };
        let Some(link) = link.filter(|_| primary.view.contains(to)) else {
            primary.quiet = None;
            return cx.out.extend(order.map(|order| Effect::Report { order, outcome: Err(Refusal::Unfit(to)) }));
        };
        primary.stopped = true;
        primary.reclaim_at = Some(reclaim_at);
        cx.say(Note::HandingOver { to });
        self.send(link, Message::TakeOver, None, cx);
    }

    /// Nobody has taken over: only a new generation lets this node serve again, since the successor may still be about to.
    fn reclaim_when_due(&mut self, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary_mut() else { return };
        if primary.change.is_none() && primary.reclaim_at.is_some_and(|at| at <= cx.now) {
            primary.reclaim_at = None;
            self.start_change(crate::membership::What::Reclaim, cx);
        }
    }

    pub(crate) fn reclaimed(&mut self, record: &Record, cx: &mut Cx<'_>) {
        cx.say(Note::Reclaimed(record.clone()));
        let Some(primary) = self.primary_mut() else { return };
        primary.stopped = false;
        if let Some(Quiet::HandOver { to, order }) = primary.quiet.take() {
            cx.out.extend(order.map(|order| Effect::Report { order, outcome: Err(Refusal::Unfit(to)) }));
        }
    }

    /// Its pool is full and a peer's may not be: the role goes to it at once, with what is under way.
    pub(crate) fn hand_over_if_full(&mut self, cx: &mut Cx<'_>) {
        let fit = |node: &Node| self.peers[node.index()].along().is_some() && self.peers[node.index()].kin;
        let Some(primary) = self.primary() else { return };
        if primary.stopped || primary.quiet.is_some() || primary.change.is_some() || !primary.is_serving() {
            return;
        }
        let Some(to) = primary.view.iter().find(fit) else { return };
        if let Some(primary) = self.primary_mut() {
            primary.quiet = Some(Quiet::HandOver { to, order: None });
        }
        self.hand_over(to, None, cx);
    }

    /// Shuts down once nothing is under way: flush, bitmaps and activity log, then the mark that all is clean.
    pub(crate) fn end_when_done(&mut self, cx: &mut Cx<'_>) {
        let Some(ending) = &self.ending else { return };
        if ending.stage != EndingStage::Resting || !self.is_at_rest() {
            return;
        }
        let links: Vec<Link> = self.peers.iter().filter_map(|peer| peer.link).collect();
        match &self.part {
            Part::Primary(_) => {
                self.leave_part(Part::Learning, cx);
            }
            _ => links.into_iter().for_each(|link| self.hang_up(link, cx)),
        }
        if self.table.is_empty() && !self.disk.is_busy() {
            self.set_ending(EndingStage::Flushing);
            self.flush(Work::Last, cx);
        }
    }

    /// The last things are being written: nothing else is any more.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.stage != EndingStage::Resting)
    }

    fn is_at_rest(&self) -> bool {
        match &self.part {
            Part::Learning | Part::Failed => true,
            Part::Secondary(_) => true,
            Part::Candidate(..) => false,
            Part::Primary(primary) => {
                let clients = self.table.any(|entry| entry.stage != Stage::Trailing && entry.kind.request().is_some());
                let rested = !self.activity.is_dirty() && !clients && primary.barrier.is_none();
                primary.quiet == Some(Quiet::ShutDown) && primary.change.is_none() && rested && primary.is_serving()
            }
        }
    }

    fn set_ending(&mut self, stage: EndingStage) {
        if let Some(ending) = &mut self.ending {
            ending.stage = stage;
        }
    }

    pub(crate) fn last_flush_done(&mut self, cx: &mut Cx<'_>) {
        let bitmaps: Vec<Metadata> = Node::all()
            .filter_map(|node| Some(Metadata::WholeBitmap { node, bits: self.bitmaps[node.index()].clone()? }))
            .collect();
        self.set_ending(EndingStage::Bitmaps(bitmaps.len()));
        if bitmaps.is_empty() {
            self.keep_last_activity(cx);
        }
        bitmaps.into_iter().for_each(|what| self.keep(Work::Last, what, cx));
    }

    fn keep_last_activity(&mut self, cx: &mut Cx<'_>) {
        if !self.activity.is_dirty() {
            self.activity.empty();
        }
        self.set_ending(EndingStage::Activity);
        self.keep(Work::Last, Metadata::Activity(self.activity.extents().collect()), cx);
    }

    pub(crate) fn last_kept(&mut self, cx: &mut Cx<'_>) {
        let Some(ending) = &mut self.ending else { return };
        match &mut ending.stage {
            EndingStage::Bitmaps(left) if *left > 1 => *left -= 1,
            EndingStage::Bitmaps(_) => self.keep_last_activity(cx),
            EndingStage::Activity => {
                self.set_ending(EndingStage::Superblock);
                self.disk.superblock.clean = true;
                self.keep_superblock(Then::Ended, cx);
            }
            EndingStage::Resting | EndingStage::Flushing | EndingStage::Superblock => {}
        }
    }

    pub(crate) fn is_ended(&mut self, cx: &mut Cx<'_>) {
        self.ended = true;
        cx.say(Note::ShutDown);
        if let Some(ending) = self.ending.take() {
            cx.out.push(Effect::Report { order: ending.order, outcome: Ok(()) });
        }
    }
}
