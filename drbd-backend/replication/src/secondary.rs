//! A Secondary applies what its Primary sends, in order where blocks overlap, and remembers what may not be everywhere yet.

use std::collections::VecDeque;

use crate::disk::{Then, Work};
use crate::event::Content;
use crate::message::{Envelope, Message, Welcome};
use crate::metadata::{Absent, Data, Superblock};
use crate::names::{Barrier, DiskId, Link, Node, OrderId, Payload, Seq, Span, Time};
use crate::record::Record;
use crate::table::Kind;
use crate::{Cx, Effect, Note, Part, Refusal, Replica};

/// Extents whose marks fit into one message, of at most 1 MiB.
const MOST_MARKED_EXTENTS: usize = 7000;

#[derive(Debug, Default)]
pub(crate) struct Secondary {
    session: Option<Session>,
    /// Writes of this session's Primary that are not known to be everywhere.
    recent: VecDeque<(Seq, Span)>,
    /// Those of former Primaries, until a barrier has passed over all replicas made equal.
    former: Vec<Span>,
    memory: Memory,
    /// The barrier that has begun here and is not known to be confirmed.
    turned: Option<Barrier>,
    barrier_wanted: bool,
}

/// Whether `recent` and `former` are all that may not be everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Memory {
    #[default]
    Whole,
    /// As soon as everything before this write is known to be everywhere.
    From(Seq),
    /// The process was started anew, and the activity log says that there was something.
    Lost,
}

/// A Primary that has said Welcome on this link.
#[derive(Debug)]
struct Session {
    link: Link,
    /// What it said must be durable before anything further is taken up.
    storing: bool,
    owes_ready: bool,
    /// The Primary is serving: it has made its peers equal.
    is_served: bool,
    later: VecDeque<(Envelope, Message, Option<Payload>)>,
    barrier: Option<PeerBarrier>,
}

/// A barrier whose flush is under way.
#[derive(Debug)]
struct PeerBarrier {
    barrier: Barrier,
    complete: Option<DiskId>,
}

impl Secondary {
    /// At the start of a process.
    pub(crate) fn of_start(has_active_extents: bool) -> Self {
        let memory = if has_active_extents { Memory::Lost } else { Memory::Whole };
        Self { memory, ..Self::default() }
    }

    /// A Primary that serves no more; `unanswered` are its own writes.
    pub(crate) fn of_former_primary(unanswered: Vec<Span>) -> Self {
        Self { former: unanswered, ..Self::default() }
    }

    /// What may not be on every in-sync replica; `None` if it does not know.
    pub(crate) fn uncommitted(&self) -> Option<Vec<Span>> {
        let known = self.memory == Memory::Whole;
        known.then(|| self.former.iter().copied().chain(self.recent.iter().map(|(_, span)| *span)).collect())
    }

    pub(crate) fn part_from(&mut self, link: Link, cx: &mut Cx<'_>) {
        if let Some(session) = self.session.take_if(|session| session.link == link) {
            session.later.into_iter().for_each(|(_, _, payload)| Replica::release_payload(payload, cx));
        }
    }

    pub(crate) fn link(&self) -> Option<Link> {
        self.session.as_ref().map(|session| session.link)
    }

    fn progress(&mut self, envelope: Envelope) -> bool {
        while self.recent.front().is_some_and(|(seq, _)| *seq <= envelope.committed) {
            self.recent.pop_front();
        }
        if let Memory::From(next) = self.memory
            && envelope.committed.next() >= next
        {
            self.memory = Memory::Whole;
        }
        let confirmed = self.turned.is_some_and(|barrier| envelope.barrier >= barrier);
        if confirmed {
            self.turned = None;
            self.former.clear();
        }
        confirmed
    }
}

impl Replica {
    pub(crate) fn secondary_mut(&mut self) -> Option<&mut Secondary> {
        match &mut self.part {
            Part::Secondary(secondary) | Part::Candidate(secondary, _) => Some(secondary),
            Part::Learning | Part::Primary(_) | Part::Failed => None,
        }
    }

    fn session_mut(&mut self, link: Link) -> Option<&mut Session> {
        self.secondary_mut()?.session.as_mut().filter(|session| session.link == link)
    }

    pub(crate) fn heard_as_secondary(
        &mut self,
        node: Node,
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
        cx: &mut Cx<'_>,
    ) {
        match message {
            Message::TakeOver | Message::Failed if self.record().primary == Some(node) => {
                self.peers[node.index()].stopped |= envelope.generation == self.record().generation;
            }
            _ if envelope.generation < self.disk.promised() => {
                Self::release_payload(payload, cx);
                self.send(link, Message::Stale { known: self.disk.promised() }, None, cx);
            }
            Message::Welcome { record, welcome } => self.welcomed(node, link, *record, &welcome, cx),
            message => match self.session_mut(link) {
                Some(session) if session.storing => session.later.push_back((envelope, message, payload)),
                Some(_) => self.heed_message(link, envelope, message, payload, cx),
                None => Self::release_payload(payload, cx),
            },
        }
    }

    fn welcomed(&mut self, node: Node, link: Link, record: Record, welcome: &Welcome, cx: &mut Cx<'_>) {
        if record.primary != Some(node) || record.generation < self.record().generation {
            return;
        }
        if !self.gives_way(&record, cx) {
            return;
        }
        self.report_promotions(&Err(Refusal::MayServe(vec![node])), cx);
        self.apply_record(record, cx);
        let has_active_extents = self.activity.is_dirty();
        let superblock = &mut self.disk.superblock;
        let Part::Secondary(secondary) = &mut self.part else { return };
        let is_served = !matches!(welcome, Welcome::Equalise { .. });
        secondary.session =
            Some(Session { link, storing: true, owes_ready: true, is_served, later: VecDeque::new(), barrier: None });
        secondary.barrier_wanted = false;
        match welcome {
            Welcome::GoOn { next } => {
                if secondary.memory == Memory::Lost {
                    secondary.memory = Memory::From(*next);
                }
            }
            Welcome::Equalise { .. } => {
                secondary.former.extend(secondary.recent.drain(..).map(|(_, span)| span));
                secondary.turned = None;
                if has_active_extents && secondary.memory != Memory::Whole {
                    secondary.memory = Memory::Lost;
                }
            }
            Welcome::Resync { fresh, .. } => {
                secondary.recent.clear();
                secondary.former.clear();
                secondary.memory = Memory::Whole;
                secondary.turned = None;
                superblock.data = Data::Inconsistent;
                superblock.disk = fresh.unwrap_or(superblock.disk);
                if fresh.is_some() {
                    superblock.barrier = Barrier(0);
                    superblock.confirmed = Barrier(0);
                }
                return self.remember_own_marks(fresh.is_some(), link, cx);
            }
        }
        self.keep_superblock(Then::Heed(link), cx);
    }

    /// Its data is worth nothing from now on, and the Primary hears so with the next Hello: it drops this replica and copies everything, under a new disk id. The
    /// connection ends at once, so that no resync under way ends and makes it good.
    pub(crate) fn invalidate(&mut self, order: OrderId, cx: &mut Cx<'_>) {
        let session = match &self.part {
            Part::Failed => return cx.out.push(Effect::Report { order, outcome: Err(Refusal::DiskFailed) }),
            Part::Secondary(secondary) => secondary.session.as_ref().filter(|session| session.is_served),
            Part::Learning | Part::Candidate(..) | Part::Primary(_) => None,
        };
        let Some(link) = session.map(|session| session.link) else {
            return cx.out.push(Effect::Report { order, outcome: Err(Refusal::NoSource) });
        };
        cx.say(Note::Invalidated);
        self.disk.superblock.data = Data::Blank;
        self.keep_superblock(Then::Invalidated(order), cx);
        self.hang_up(link, cx);
    }

    /// What this disk alone may hold is not forgotten before the resync has ended, though barriers pass meanwhile and Primaries change:
    /// it is kept as a bitmap under this node's own name.
    fn remember_own_marks(&mut self, copies_all: bool, link: Link, cx: &mut Cx<'_>) {
        let me = self.me().index();
        let mut marks = self.bitmaps[me].take().unwrap_or_default();
        marks.set_all(&self.unconfirmed());
        if copies_all || marks.is_empty() {
            self.absent[me] = None;
            self.disk.superblock.absent[me] = None;
            return self.keep_superblock(Then::Heed(link), cx);
        }
        if marks.extents().count() > MOST_MARKED_EXTENTS {
            self.disk.superblock.data = Data::Blank; // more than one message can say: it gets everything
            self.keep_quietly(cx);
            return self.hang_up(link, cx);
        }
        let Superblock { generation: since, disk, barrier, .. } = self.disk.superblock;
        self.track(self.me(), Absent { since, disk, barrier }, marks, cx);
    }

    /// What the link's Primary said last is durable: the rest of what it said may be taken up.
    pub(crate) fn heed(&mut self, link: Link, cx: &mut Cx<'_>) {
        let Some(session) = self.session_mut(link) else { return };
        session.storing = false;
        if std::mem::take(&mut session.owes_ready) {
            let uncommitted = self.secondary_mut().and_then(|secondary| secondary.uncommitted());
            let ready = Box::new(self.ready(uncommitted));
            self.send(link, Message::Ready(ready), None, cx);
        }
        while let Some(session) = self.session_mut(link).filter(|session| !session.storing) {
            let Some((envelope, message, payload)) = session.later.pop_front() else { return };
            self.heed_message(link, envelope, message, payload, cx);
        }
    }

    fn heed_message(
        &mut self,
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
        cx: &mut Cx<'_>,
    ) {
        let Part::Secondary(secondary) = &mut self.part else { return Self::release_payload(payload, cx) };
        if let Some(session) = &mut secondary.session {
            session.is_served |= envelope.barrier > Barrier(0); // it has stored the one that ends its takeover
        }
        if secondary.progress(envelope) {
            self.activity.confirm();
        }
        self.is_confirmed_everywhere(envelope.barrier, cx);
        match message {
            Message::Changed(record) => {
                self.changed(link, *record, cx);
                self.is_confirmed_everywhere(envelope.barrier, cx); // it may stand in sync only now
            }
            Message::Heartbeat { sent, .. } => self.heartbeat(link, sent, cx),
            Message::Write { seq, span, zeroes, durable } => {
                let content = match (zeroes, payload) {
                    (Some(punch), _) => Content::Zeroes { punch },
                    (None, Some(payload)) => Content::Data(payload),
                    (None, None) => return self.hang_up(link, cx),
                };
                self.write_received(link, seq, span, content, durable, cx);
            }
            Message::Flush { number } => self.flush(Work::PeerFlush { link, number }, cx),
            Message::Barrier { barrier, complete } => {
                self.barrier_received(link, PeerBarrier { barrier, complete }, cx);
            }
            Message::Fetch { number, span } => {
                let job = self.disk.job(Work::Fetch { link, number });
                cx.out.push(Effect::Load { job, span });
            }
            Message::Control(control) => self.control_received(link, *control, cx),
            Message::Hello(_)
            | Message::Welcome { .. }
            | Message::Ready(_)
            | Message::Stale { .. }
            | Message::HeartbeatAnswer { .. }
            | Message::Written { .. }
            | Message::Flushed { .. }
            | Message::BarrierStored { .. }
            | Message::BarrierWanted
            | Message::Failed
            | Message::Fetched { .. }
            | Message::ControlStored { .. }
            | Message::TakeOver => Self::release_payload(payload, cx),
        }
    }

    /// Durably, so that it is known after a restart what no in-sync disk may lack. For a disk that is not in sync it says nothing.
    fn is_confirmed_everywhere(&mut self, barrier: Barrier, cx: &mut Cx<'_>) {
        if self.is_in_sync() && barrier > self.disk.superblock.confirmed {
            self.disk.superblock.confirmed = barrier;
            self.keep_quietly(cx);
        }
    }

    fn changed(&mut self, link: Link, record: Record, cx: &mut Cx<'_>) {
        if record.generation <= self.record().generation {
            return;
        }
        self.apply_record(record, cx);
        if let Some(session) = self.session_mut(link) {
            session.storing = true;
        }
        self.keep_superblock(Then::Heed(link), cx);
    }

    /// From now on, for the grace, this node is not promoted.
    fn heartbeat(&mut self, link: Link, sent: Time, cx: &mut Cx<'_>) {
        let Some(node) = self.node_of(link) else { return };
        self.peers[node.index()].heard = Some(cx.now);
        self.peers[node.index()].stopped = false;
        let fences = self.fences.0;
        self.send(link, Message::HeartbeatAnswer { sent, fences }, None, cx);
    }

    fn write_received(&mut self, link: Link, seq: Seq, span: Span, content: Content, durable: bool, cx: &mut Cx<'_>) {
        if span.count == 0 || span.end() > self.disk.superblock.size_blocks {
            Self::release(Some(content), cx);
            return self.hang_up(link, cx);
        }
        if let Part::Secondary(secondary) = &mut self.part {
            secondary.recent.push_back((seq, span));
        }
        let place = self.table.insert(cx.now, span, Kind::Received { link }, Some(content), durable);
        self.table.get_mut(place).seq = seq;
        self.submit(place, cx);
    }

    /// It covers what has been answered by now; what is still under way is marked anew, for the next one. So is what is not known to be everywhere: it
    /// may be under way on another peer, which is owed it if it is lost.
    fn barrier_received(&mut self, link: Link, begun: PeerBarrier, cx: &mut Cx<'_>) {
        self.turn_activity_over();
        let Part::Secondary(secondary) = &mut self.part else { return };
        for (_, span) in &secondary.recent {
            if self.activity.is_hot(*span) {
                self.activity.mark(*span);
            }
        }
        let barrier = begun.barrier;
        secondary.turned = Some(barrier);
        secondary.barrier_wanted = false;
        let Some(session) = &mut secondary.session else { return };
        session.barrier = Some(begun);
        self.flush(Work::PeerBarrier { link, barrier }, cx);
    }

    pub(crate) fn peer_barrier_flushed(&mut self, link: Link, barrier: Barrier, cx: &mut Cx<'_>) {
        let pending = self.session_mut(link).and_then(|session| session.barrier.take_if(|it| it.barrier == barrier));
        let Some(pending) = pending else { return };
        let superblock = &mut self.disk.superblock;
        superblock.barrier = superblock.barrier.max(barrier);
        if let Some(disk) = pending.complete {
            superblock.disk = disk;
            superblock.data = Data::Consistent;
            superblock.suspect = false;
            superblock.confirmed = barrier; // it is not added before all have stored it
            superblock.absent[self.settings.me.index()] = None;
            self.absent[self.settings.me.index()] = None;
            self.bitmaps[self.settings.me.index()] = None;
        }
        self.keep_superblock(Then::PeerBarrier { link, barrier }, cx);
    }

    /// Every extent of the activity log has writes that no barrier covers: the Primary is asked for one.
    pub(crate) fn want_barrier(&mut self, cx: &mut Cx<'_>) {
        let Some(secondary) = self.secondary_mut() else { return };
        let Some(link) = secondary.link() else { return };
        if !std::mem::replace(&mut secondary.barrier_wanted, true) {
            self.send(link, Message::BarrierWanted, None, cx);
        }
    }

    /// Whether this node lets that record's Primary lead it. A proposal of its own that can still execute stands against it.
    fn gives_way(&mut self, record: &Record, cx: &mut Cx<'_>) -> bool {
        match std::mem::replace(&mut self.part, Part::Failed) {
            Part::Candidate(secondary, candidacy) if candidacy.is_overtaken_by(record) => {
                self.part = Part::Secondary(secondary);
                self.report_promotions(&Err(Refusal::Overtaken(Box::new(record.clone()))), cx);
                true
            }
            part => {
                self.part = part;
                matches!(self.part, Part::Secondary(_))
            }
        }
    }
}
