//! A Primary serves clients: it writes here and on every in-sync peer, answers when all have it and its lease holds, and waits otherwise.

use crate::agreement::{ControlRun, Queue, Wanted};
use crate::barrier::{BarrierRun, FlushRun};
use crate::event::{Ask, Content};
use crate::membership::ChangeRun;
use crate::message::{Envelope, Message};
use crate::names::{Barrier, Generation, Link, Node, Nodes, OrderId, Payload, Request, Seq, Span, Time};
use crate::peer::Stage as PeerStage;
use crate::promotion::TakingOver;
use crate::table::{Kind, Place, Stage};
use crate::{Answer, Cx, Effect, Failure, Held, Note, Order, Part, Refusal, Replica};

#[derive(Debug)]
pub(crate) struct Primary {
    /// Peers whose answer each write needs: those in sync, and one that is being added (rule 6).
    pub(crate) view: Nodes,
    /// Until all peers are made equal.
    pub(crate) taking_over: Option<TakingOver>,
    pub(crate) next: Seq,
    /// Every write up to this one is on every in-sync replica.
    pub(crate) committed: Seq,
    /// The last barrier that all have stored.
    pub(crate) confirmed: Barrier,
    pub(crate) barrier: Option<BarrierRun>,
    /// A peer needs one that begins after the one under way.
    pub(crate) barrier_wanted: bool,
    pub(crate) barrier_at: Time,
    pub(crate) flush: Option<FlushRun>,
    pub(crate) flush_next: Vec<(Request, u32)>,
    pub(crate) change: Option<ChangeRun>,
    /// Counted in the view before the arbiter knows it (rule 4).
    pub(crate) adding: Option<Node>,
    pub(crate) control: Option<ControlRun>,
    pub(crate) control_next: Queue,
    /// Orders whose changes hold; they are told so once the lease allows it.
    pub(crate) control_owed: Vec<OrderId>,
    /// In which generation, and when, it became Primary; and the last barrier that this disk had stored by then.
    pub(crate) first: Generation,
    pub(crate) since: Time,
    pub(crate) floor: Barrier,
    /// Whom it has made equal or added since.
    pub(crate) led: Nodes,
    pub(crate) heartbeat_at: Time,
    /// Nothing new is begun, because of this.
    pub(crate) quiet: Option<Quiet>,
    /// It has told a successor to take over, and serves no more in this generation.
    pub(crate) stopped: bool,
    pub(crate) reclaim_at: Option<Time>,
    pub(crate) said_frozen: Nodes,
    /// When a client last wanted something.
    pub(crate) asked_at: Option<Time>,
}

/// Why a Primary comes to rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quiet {
    HandOver { to: Node, order: Option<OrderId> },
    Demote { order: OrderId },
    ShutDown,
}

impl Primary {
    pub(crate) fn new(view: Nodes, taking_over: TakingOver, first: Generation, floor: Barrier, now: Time) -> Self {
        Self {
            view,
            taking_over: Some(taking_over),
            next: Seq(1),
            committed: Seq(0),
            confirmed: Barrier(0),
            barrier: None,
            barrier_wanted: false,
            barrier_at: now,
            flush: None,
            flush_next: Vec::new(),
            change: None,
            adding: None,
            control: None,
            control_next: Queue::new(),
            control_owed: Vec::new(),
            first,
            since: now,
            floor,
            led: Nodes::NONE,
            heartbeat_at: now,
            quiet: None,
            stopped: false,
            reclaim_at: None,
            said_frozen: Nodes::NONE,
            asked_at: None,
        }
    }

    /// This node, which left `in_sync` then, cannot have heard of a later barrier, unless it lived through another history of this volume: this disk was
    /// rolled back or its node was promoted by force, and nobody knows what differs.
    pub(crate) fn known_by(&self, node: Node, since: Generation) -> Barrier {
        let was_led = since > self.first && self.led.contains(node);
        if was_led { self.floor.max(self.confirmed) } else { self.floor }
    }

    pub(crate) fn is_serving(&self) -> bool {
        self.taking_over.is_none()
    }

    pub(crate) fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// An addition that is not settled counts its node already; every other change stops the answers until it is.
    pub(crate) fn is_unsettled(&self) -> bool {
        self.change.as_ref().is_some_and(|change| !change.adds())
    }
}

impl Replica {
    pub(crate) fn asked_for(&mut self, request: Request, client: u32, ask: Ask, cx: &mut Cx<'_>) {
        let ended = self.ended;
        let Some(primary) = self.primary_mut().filter(|_| !ended) else {
            return self.turn_away(&Held { request, client, ask }, cx);
        };
        primary.asked_at = Some(cx.now);
        if let Some(failure) = self.why_not(client, ask) {
            return Self::refuse(request, ask, failure, cx);
        }
        self.held.push_back(Held { request, client, ask });
        self.take_up_held(cx);
    }

    /// Not here: who asks the Primary again loses nothing.
    pub(crate) fn turn_away(&self, held: &Held, cx: &mut Cx<'_>) {
        Self::release_payload(payload_of(held.ask), cx);
        let primary = self.record().primary.filter(|node| *node != self.me());
        cx.out.push(Effect::Answer { request: held.request, answer: Answer::Failed(Failure::NotPrimary { primary }) });
    }

    /// Begins what clients asked, in its order, while it can be begun.
    pub(crate) fn take_up_held(&mut self, cx: &mut Cx<'_>) {
        while !self.held.is_empty() && self.is_open() && self.table.len() < self.settings.in_flight {
            let held = self.held.pop_front().expect("there is one");
            self.begin(&held, cx);
        }
    }

    fn is_open(&self) -> bool {
        let Some(primary) = self.primary() else { return false };
        primary.is_serving()
            && primary.quiet.is_none()
            && !primary.stopped
            && !primary.is_unsettled()
            && self.missing().is_empty()
    }

    /// Of the view, those that do not get every write now.
    pub(crate) fn missing(&self) -> Nodes {
        let view = self.primary().map(|primary| primary.view).unwrap_or_default();
        view.iter()
            .filter(|node| self.peers[node.index()].along().is_none() || self.peers[node.index()].unfit)
            .collect()
    }

    fn begin(&mut self, held: &Held, cx: &mut Cx<'_>) {
        let Held { request, client, ask } = *held;
        if let Some(failure) = self.why_not(client, ask) {
            return Self::refuse(request, ask, failure, cx);
        }
        match ask {
            Ask::Flush => self.begin_flush(request, client, cx),
            Ask::Read(span) => {
                let place = self.table.insert(cx.now, span, Kind::Read { request, client }, None, false);
                self.submit(place, cx);
            }
            Ask::Write { span, content, durable } => {
                let kind = Kind::Write { request, client };
                let place = self.table.insert(cx.now, span, kind, Some(content), durable);
                self.submit(place, cx);
            }
            Ask::WritePart { span, payload, durable } => {
                let kind = Kind::Write { request, client };
                let place = self.table.insert(cx.now, span, kind, Some(Content::Data(payload)), durable);
                self.table.get_mut(place).part = true;
                self.submit(place, cx);
            }
        }
    }

    fn refuse(request: Request, ask: Ask, failure: Failure, cx: &mut Cx<'_>) {
        Self::release_payload(payload_of(ask), cx);
        cx.out.push(Effect::Answer { request, answer: Answer::Failed(failure) });
    }

    /// What is held of clients that are being revoked.
    pub(crate) fn turn_held_away(&mut self, cx: &mut Cx<'_>) {
        for index in (0..self.held.len()).rev() {
            let Held { request, client, ask } = self.held[index];
            if !self.admits(client) {
                self.held.remove(index);
                Self::refuse(request, ask, Failure::Revoked, cx);
            }
        }
    }

    /// Nobody waits for this request any more: it need not be begun.
    pub(crate) fn withdraw(&mut self, request: Request, cx: &mut Cx<'_>) {
        let failure = Failure::Withdrawn;
        if let Some(index) = self.held.iter().position(|held| held.request == request) {
            let held = self.held.remove(index).expect("it was just found");
            return Self::refuse(request, held.ask, failure, cx);
        }
        let is_its = |kind: Kind| kind.request().is_some_and(|(of, _)| of == request);
        if let Some(place) = self.table.find(|entry| is_its(entry.kind)) {
            let entry = self.table.get(place);
            let has_begun = entry.stage != Stage::Waiting || entry.seq != Seq(0);
            let is_read = matches!(entry.kind, Kind::Read { .. });
            if !has_begun || is_read && entry.stage == Stage::Stored {
                cx.out.push(Effect::Answer { request, answer: Answer::Failed(failure) });
                self.entry_over(place, cx);
            }
            return;
        }
        let Some(primary) = self.primary_mut() else { return };
        let runs = primary.flush.as_mut().map(|run| &mut run.requests).into_iter().chain([&mut primary.flush_next]);
        for requests in runs {
            let before = requests.len();
            requests.retain(|(of, _)| *of != request);
            if requests.len() < before {
                return cx.out.push(Effect::Answer { request, answer: Answer::Failed(failure) });
            }
        }
    }

    fn why_not(&self, client: u32, ask: Ask) -> Option<Failure> {
        let span = match ask {
            Ask::Flush => None,
            Ask::Read(span) | Ask::Write { span, .. } | Ask::WritePart { span, .. } => Some(span),
        };
        let size = self.disk.superblock.size_blocks;
        if span.is_some_and(|span| span.count == 0 || span.start >= size || span.end() > size) {
            return Some(Failure::OutOfRange);
        }
        (!self.admits(client)).then_some(Failure::Revoked)
    }

    /// Its extents are hot and marked: here and to every peer that is along, at once.
    pub(crate) fn begin_write(&mut self, place: Place, cx: &mut Cx<'_>) {
        let Part::Primary(primary) = &mut self.part else { unreachable!("only a Primary has clients") };
        let seq = primary.next;
        primary.next = seq.next();
        let view = primary.view;
        let (span, content, durable) = {
            let entry = self.table.get_mut(place);
            entry.seq = seq;
            (entry.span, entry.content.expect("a write has a content"), entry.durable)
        };
        let mut waiting = view;
        for node in Node::all() {
            let peer = &mut self.peers[node.index()];
            if let Some(resync) = &mut peer.resync {
                resync.overwritten(span);
            }
            if peer.along().is_some() {
                waiting.insert(node);
            }
        }
        self.table.get_mut(place).waiting = waiting;
        self.send_write(waiting, seq, span, content, durable, cx);
        self.store_entry(place, cx);
    }

    pub(crate) fn send_write(&self, to: Nodes, seq: Seq, span: Span, content: Content, durable: bool, cx: &mut Cx<'_>) {
        let (zeroes, payload) = match content {
            Content::Data(payload) => (None, Some(payload)),
            Content::Zeroes { punch } => (Some(punch), None),
        };
        let durable = durable || self.settings.durability == crate::Durability::Write;
        for link in to.iter().filter_map(|node| self.peers[node.index()].along()) {
            self.send(link, Message::Write { seq, span, zeroes, durable }, payload, cx);
        }
    }

    /// Whether answers to clients may go out at this moment (rules 6 and 8).
    pub(crate) fn may_answer(&self, now: Time) -> bool {
        let Some(primary) = self.primary() else { return false };
        primary.is_serving() && !primary.stopped && !primary.is_unsettled() && self.is_leased(now)
    }

    /// Every peer of the view has answered a heartbeat that was sent less than a lease ago (rule 8).
    pub(crate) fn is_leased(&self, now: Time) -> bool {
        self.silent(now).is_empty()
    }

    /// Of the view, those that have not.
    pub(crate) fn silent(&self, now: Time) -> Nodes {
        let view = self.primary().map(|primary| primary.view).unwrap_or_default();
        let answers = |sent| now.since(sent) < self.settings.lease && now >= sent;
        view.iter().filter(|node| !self.peers[node.index()].answered.is_some_and(answers)).collect()
    }

    /// Answers what can be answered now.
    pub(crate) fn complete(&mut self, place: Place, cx: &mut Cx<'_>) {
        let Some(view) = self.primary().map(|primary| primary.view) else { return };
        let entry = self.table.get(place);
        if entry.stage != Stage::Stored || entry.waiting.bits() & view.bits() != 0 {
            return;
        }
        let (kind, seq, content, waiting) = (entry.kind, entry.seq, entry.content, entry.waiting);
        match kind {
            Kind::Read { request, client } if !self.admits(client) => {
                cx.out.push(Effect::Answer { request, answer: Answer::Failed(Failure::Revoked) });
                self.entry_over(place, cx);
            }
            Kind::Write { request, client } if !self.admits(client) || self.may_answer(cx.now) => {
                let answer = if self.admits(client) { Answer::Done } else { Answer::Failed(Failure::Revoked) };
                cx.out.push(Effect::Answer { request, answer });
                let entry = self.table.get_mut(place);
                entry.stage = Stage::Trailing;
                entry.content = None;
                Self::release(content, cx);
                self.commit(seq);
                if waiting.is_empty() {
                    self.entry_over(place, cx);
                } else {
                    self.submit_waiting(cx);
                }
            }
            Kind::Read { request, .. } if self.may_answer(cx.now) && self.is_confirmed(place) => {
                let Some(Content::Data(payload)) = content else { return };
                self.table.get_mut(place).content = None;
                cx.out.push(Effect::Answer { request, answer: Answer::Data(payload) });
                self.entry_over(place, cx);
            }
            Kind::Equalise => {
                self.table.get_mut(place).stage = Stage::Trailing;
                self.commit(seq);
                self.entry_over(place, cx);
            }
            Kind::Write { .. }
            | Kind::Read { .. }
            | Kind::Repair { .. }
            | Kind::Mend
            | Kind::Received { .. }
            | Kind::Resync { .. }
            | Kind::Orphan => {}
        }
    }

    /// With `confirm_reads`: every peer of the view has answered a heartbeat that was sent after the disk had answered.
    fn is_confirmed(&self, place: Place) -> bool {
        if !self.settings.confirm_reads {
            return true;
        }
        let loaded = self.table.get(place).loaded;
        let view = self.primary().map(|primary| primary.view).unwrap_or_default();
        view.iter().all(|node| self.peers[node.index()].answered >= loaded)
    }

    /// Everything before the oldest write that is still on its way is everywhere.
    pub(crate) fn commit(&mut self, seq: Seq) {
        let Part::Primary(primary) = &mut self.part else { return };
        if seq != primary.committed.next() {
            return;
        }
        let under_way = |kind| matches!(kind, Kind::Write { .. } | Kind::Equalise);
        let open = self.table.entries().map(|(_, entry)| entry);
        let open = open.filter(|entry| entry.seq > Seq(0) && entry.stage != Stage::Trailing && under_way(entry.kind));
        let oldest = open.map(|entry| entry.seq).min();
        primary.committed = Seq(oldest.unwrap_or(primary.next).0 - 1);
    }

    pub(crate) fn complete_all(&mut self, cx: &mut Cx<'_>) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            let before = self.table.len();
            self.complete(place, cx);
            if self.table.len() >= before && self.table.nth(index) == Some(place) {
                index += 1;
            }
        }
        self.complete_flush(cx);
        self.complete_control(cx);
    }

    pub(crate) fn heard_as_primary(
        &mut self,
        node: Node,
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
        cx: &mut Cx<'_>,
    ) {
        match message {
            Message::Welcome { record, welcome } if record.generation > self.record().generation => {
                self.deposed(*record.clone(), Some(link), cx);
                return self.heard_as_secondary(
                    node,
                    link,
                    envelope,
                    Message::Welcome { record, welcome },
                    payload,
                    cx,
                );
            }
            Message::Stale { known } => {
                if known > self.record().generation {
                    self.ask_at = self.ask_at.or(Some(cx.now));
                }
                self.hang_up(link, cx);
            }
            Message::Ready(ready) if self.peers[node.index()].stage == PeerStage::Welcomed => {
                self.is_ready(node, link, *ready, cx);
            }
            _ if self.peers[node.index()].along().is_none() => {}
            Message::ControlStored { version } => {
                let stored = &mut self.peers[node.index()].control;
                *stored = (*stored).max(version);
                self.complete_control(cx);
            }
            Message::HeartbeatAnswer { sent, fences } => self.heartbeat_answered(node, sent, fences, cx),
            Message::Written { seq } => self.written(node, seq, cx),
            Message::Flushed { number } => self.peer_flushed(node, number, cx),
            Message::BarrierStored { barrier } => self.peer_stored_barrier(node, barrier, cx),
            Message::BarrierWanted => self.want_another_barrier(cx),
            Message::Failed => {
                cx.say(Note::PeerFailed(node));
                self.peers[node.index()].unfit = true;
            }
            Message::Fetched { number, good } => return self.fetched(number, payload.filter(|_| good), cx),
            Message::Hello(_)
            | Message::Welcome { .. }
            | Message::Ready(_)
            | Message::Changed(_)
            | Message::Heartbeat { .. }
            | Message::Write { .. }
            | Message::Flush { .. }
            | Message::Barrier { .. }
            | Message::Fetch { .. }
            | Message::Control(_)
            | Message::TakeOver => {}
        }
        Self::release_payload(payload, cx);
    }

    fn heartbeat_answered(&mut self, node: Node, sent: Time, fences: u64, cx: &mut Cx<'_>) {
        if fences > self.control.fences {
            return; // the lease is renewed only together with the list of fenced hosts
        }
        let answered = &mut self.peers[node.index()].answered;
        *answered = (*answered).max(Some(sent));
        self.complete_all(cx);
    }

    fn written(&mut self, node: Node, seq: Seq, cx: &mut Cx<'_>) {
        let Some(place) = self.table.find(|entry| entry.seq == seq && entry.waiting.contains(node)) else { return };
        let entry = self.table.get_mut(place);
        entry.waiting.remove(node);
        let (kind, stage, span, left, at) = (entry.kind, entry.stage, entry.span, entry.waiting, entry.at);
        let is_step = matches!(kind, Kind::Resync { .. });
        if let Some(resync) = &mut self.peers[node.index()].resync {
            resync.arrived(span, is_step);
        }
        if is_step {
            self.pace_resync(node, at, cx);
        }
        if is_step || stage == Stage::Trailing && left.is_empty() {
            self.entry_over(place, cx);
        } else {
            self.complete(place, cx);
        }
    }

    /// A peer is along no more. One of the view is waited for until it is back or dropped; another one is owed what it has not answered.
    pub(crate) fn lost_along(&mut self, node: Node, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary_mut() else { return };
        if primary.adding == Some(node) && !primary.change.as_ref().is_some_and(ChangeRun::adds) {
            primary.adding = None;
            primary.view.remove(node);
        }
        self.fetch_elsewhere();
        if !self.primary().is_some_and(|primary| primary.view.contains(node)) {
            self.wait_no_more(node, cx);
        }
    }

    /// Nothing waits for this peer any more.
    pub(crate) fn wait_no_more(&mut self, node: Node, cx: &mut Cx<'_>) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            let entry = self.table.get_mut(place);
            if entry.waiting.contains(node)
                && let Some(bits) = &mut self.bitmaps[node.index()]
            {
                bits.set(entry.span);
            }
            entry.waiting.remove(node);
            if entry.kind == (Kind::Resync { target: node }) && entry.on_disk() {
                entry.kind = Kind::Orphan; // of the resync that was cut off: the next one counts its own steps
            }
            let over = entry.stage == Stage::Trailing && entry.waiting.is_empty()
                || entry.kind == Kind::Resync { target: node };
            if over {
                let entry = self.table.remove(place);
                Self::release(entry.content, cx);
            } else {
                index += 1;
            }
        }
        self.run_without(node, cx);
        self.submit_waiting(cx);
        self.complete_all(cx);
    }

    /// What this peer has not answered is sent again, in its order: it is back, and was in sync before.
    pub(crate) fn resend(&mut self, node: Node, link: Link, cx: &mut Cx<'_>) {
        let mut again: Vec<(Seq, Span, Content, bool)> = self
            .table
            .entries()
            .filter(|(_, entry)| entry.waiting.contains(node) && entry.seq > Seq(0))
            .filter_map(|(_, entry)| entry.content.map(|content| (entry.seq, entry.span, content, entry.durable)))
            .collect();
        again.sort_by_key(|(seq, ..)| *seq);
        for (seq, span, content, durable) in again {
            self.send_write(Nodes::NONE.with(node), seq, span, content, durable, cx);
        }
        self.resend_runs(node, link, cx);
    }

    /// Everything that time or a change elsewhere makes due, while this replica is Primary.
    pub(crate) fn lead(&mut self, cx: &mut Cx<'_>) {
        self.beat(cx);
        self.drop_when_due(cx);
        self.propose_again_when_due(cx);
        self.take_over_further(cx);
        self.quicken_resync(cx.now);
        self.resync_further(cx);
        self.barrier_when_due(cx);
        self.control_further(cx);
        self.come_to_rest(cx);
        self.submit_waiting(cx);
        self.take_up_held(cx);
    }

    fn beat(&mut self, cx: &mut Cx<'_>) {
        let every = self.settings.heartbeat_every;
        let Some(primary) = self.primary_mut() else { return };
        if cx.now < primary.heartbeat_at {
            return;
        }
        primary.heartbeat_at = cx.now + every;
        self.beat_now(cx);
    }

    pub(crate) fn beat_now(&self, cx: &mut Cx<'_>) {
        let fences = self.control.fences;
        for link in self.peers.iter().filter_map(crate::peer::Peer::along) {
            self.send(link, Message::Heartbeat { sent: cx.now, fences }, None, cx);
        }
    }

    /// Ends what this replica was; its clients are told, its peers meet it anew. `keep` is a link that stays.
    pub(crate) fn leave_part(&mut self, part: Part, cx: &mut Cx<'_>) {
        self.leave_part_but(part, None, cx);
    }

    pub(crate) fn leave_part_but(&mut self, part: Part, keep: Option<Link>, cx: &mut Cx<'_>) {
        let before = std::mem::replace(&mut self.part, part);
        // Only the last disk's failure is the clients'. While it is not known whether another one was added, that one may serve them.
        let may_be_others = matches!(&before, Part::Primary(primary) if primary.change.is_some())
            || self.record().in_sync().iter().any(|node| node != self.settings.me);
        let failure = match self.part {
            Part::Failed if !may_be_others => Failure::Io,
            _ => Failure::NotPrimary { primary: self.record().primary.filter(|node| *node != self.settings.me) },
        };
        if let Part::Primary(primary) = before {
            self.dismiss(*primary, failure, cx);
        }
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            let entry = self.table.get_mut(place);
            if let Some((request, _)) = entry.kind.request().filter(|_| entry.stage != Stage::Trailing) {
                cx.out.push(Effect::Answer { request, answer: Answer::Failed(failure) });
            }
            if entry.on_disk() {
                entry.kind = Kind::Orphan;
                entry.waiting = Nodes::NONE;
                index += 1;
            } else {
                let entry = self.table.remove(place);
                Self::release(entry.content, cx);
            }
        }
        for held in std::mem::take(&mut self.held) {
            Self::release_payload(payload_of(held.ask), cx);
            cx.out.push(Effect::Answer { request: held.request, answer: Answer::Failed(failure) });
        }
        let failed = matches!(self.part, Part::Failed);
        for node in Node::all() {
            self.peers[node.index()].forget();
            if let Some(link) = self.peers[node.index()].link.filter(|link| Some(*link) != keep && !failed) {
                cx.out.push(Effect::HangUp { link });
                self.peers[node.index()].part(cx.now);
            }
        }
    }

    /// Those who wait for something that only a Primary does hear that it is none.
    fn dismiss(&mut self, primary: Primary, failure: Failure, cx: &mut Cx<'_>) {
        let flushes = primary.flush.into_iter().flat_map(|run| run.requests).chain(primary.flush_next);
        for (request, _) in flushes {
            cx.out.push(Effect::Answer { request, answer: Answer::Failed(failure) });
        }
        let refusal = Refusal::NotPrimary { primary: self.record().primary.filter(|node| *node != self.me()) };
        let changes = primary.control.into_iter().flat_map(|run| run.orders);
        let orders = primary.control_owed.into_iter().chain(changes).chain(
            primary.control_next.into_iter().filter_map(|wanted| match wanted {
                Wanted::Change { order, .. } => Some(order),
                Wanted::Fence { .. } => None,
            }),
        );
        for order in orders {
            cx.out.push(Effect::Report { order, outcome: Err(refusal.clone()) });
        }
        match primary.quiet {
            Some(Quiet::HandOver { to, order }) => {
                let outcome = if self.record().primary == Some(to) { Ok(()) } else { Err(refusal) };
                cx.out.extend(order.map(|order| Effect::Report { order, outcome }));
            }
            Some(Quiet::Demote { order }) => {
                let outcome = if self.record().primary.is_none() { Ok(()) } else { Err(refusal) };
                cx.out.push(Effect::Report { order, outcome });
            }
            Some(Quiet::ShutDown) | None => {}
        }
        self.orders.retain(|(order, what)| match what {
            Order::Promote | Order::ForcePrimary { .. } => {
                cx.out.push(Effect::Report {
                    order: *order,
                    outcome: Err(Refusal::Overtaken(Box::new(self.disk.superblock.record.clone()))),
                });
                false
            }
            _ => true,
        });
    }
}

fn payload_of(ask: Ask) -> Option<Payload> {
    match ask {
        Ask::Write { content: Content::Data(payload), .. } | Ask::WritePart { payload, .. } => Some(payload),
        Ask::Write { content: Content::Zeroes { .. }, .. } | Ask::Read(_) | Ask::Flush => None,
    }
}
