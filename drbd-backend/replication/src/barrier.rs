//! Flushes that clients ask for, and barriers: flushes whose number every in-sync replica stores.
//!
//! A barrier covers every write that each replica has answered before it. Once all have stored it, extents may leave the activity log, and a peer that
//! is lost is owed only what came after. A client's FLUSH stores nothing, so that it costs one flush and no more.

use crate::disk::{Then, Work};
use crate::message::Message;
use crate::names::{Barrier, DiskId, Link, Node, Nodes, Request};
use crate::{Answer, Cx, Durability, Effect, Note, Part, Replica};

/// A client's FLUSH, and those that joined it.
#[derive(Debug)]
pub(crate) struct FlushRun {
    number: u64,
    own: bool,
    waiting: Nodes,
    /// With their clients.
    pub(crate) requests: Vec<(Request, u32)>,
}

#[derive(Debug)]
pub(crate) struct BarrierRun {
    barrier: Barrier,
    stored_here: bool,
    waiting: Nodes,
    /// The peer whose resync it ends.
    complete: Option<(Node, DiskId)>,
}

impl BarrierRun {
    /// Whether it ends the resync of this peer.
    pub(crate) fn completes(&self, node: Node) -> bool {
        self.complete.is_some_and(|(target, _)| target == node)
    }
}

impl Replica {
    pub(crate) fn begin_flush(&mut self, request: Request, client: u32, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary_mut() else { return };
        primary.flush_next.push((request, client));
        self.start_flush(cx);
    }

    fn start_flush(&mut self, cx: &mut Cx<'_>) {
        let number = self.draw_number();
        let nothing_to_do = self.settings.durability == Durability::Write;
        let Part::Primary(primary) = &mut self.part else { return };
        if primary.flush.is_some() || primary.flush_next.is_empty() {
            return;
        }
        let waiting = if nothing_to_do { Nodes::NONE } else { primary.view };
        let requests = std::mem::take(&mut primary.flush_next);
        primary.flush = Some(FlushRun { number, own: nothing_to_do, waiting, requests });
        if nothing_to_do {
            return self.complete_flush(cx);
        }
        self.flush(Work::FlushRun { number }, cx);
        for link in waiting.iter().filter_map(|node| self.peers[node.index()].along()) {
            self.send(link, Message::Flush { number }, None, cx);
        }
    }

    pub(crate) fn own_flush_done(&mut self, number: u64, cx: &mut Cx<'_>) {
        if let Some(run) = self.primary_mut().and_then(|primary| primary.flush.as_mut())
            && run.number == number
        {
            run.own = true;
            self.complete_flush(cx);
        }
    }

    pub(crate) fn peer_flushed(&mut self, node: Node, number: u64, cx: &mut Cx<'_>) {
        if let Some(run) = self.primary_mut().and_then(|primary| primary.flush.as_mut())
            && run.number == number
        {
            run.waiting.remove(node);
            self.complete_flush(cx);
        }
    }

    pub(crate) fn complete_flush(&mut self, cx: &mut Cx<'_>) {
        let may_answer = self.may_answer(cx.now);
        let Part::Primary(primary) = &mut self.part else { return };
        let view = primary.view;
        let Some(run) = primary.flush.take_if(|run| run.own && run.waiting.bits() & view.bits() == 0 && may_answer)
        else {
            return;
        };
        for (request, _) in run.requests {
            cx.out.push(Effect::Answer { request, answer: Answer::Done });
        }
        self.start_flush(cx);
    }

    pub(crate) fn barrier_when_due(&mut self, cx: &mut Cx<'_>) {
        let every = self.settings.barrier_every;
        let Some(primary) = self.primary() else { return };
        let wanted = self.activity.is_dirty()
            || self.peers.iter().any(|peer| peer.resync.as_ref().is_some_and(|it| it.wants_barrier()));
        if primary.is_serving() && wanted && cx.now.since(primary.barrier_at) >= every {
            self.start_barrier(cx);
        }
    }

    pub(crate) fn want_another_barrier(&mut self, cx: &mut Cx<'_>) {
        if let Some(primary) = self.primary_mut() {
            primary.barrier_wanted = true;
            self.start_barrier(cx);
        }
    }

    pub(crate) fn start_barrier(&mut self, cx: &mut Cx<'_>) {
        self.start_barrier_for(None, cx);
    }

    /// `complete`: with it the peer has everything, and its disk gets this id.
    pub(crate) fn start_barrier_for(&mut self, complete: Option<(Node, DiskId)>, cx: &mut Cx<'_>) {
        if self.primary().is_none_or(|primary| primary.barrier.is_some()) {
            return;
        }
        let known = self.peers.iter().map(|peer| peer.barrier).max().unwrap_or_default();
        let hello = self.peers.iter().filter_map(|peer| peer.hello.as_ref()).map(|hello| hello.barrier).max();
        let barrier = self.disk.superblock.barrier.max(known).max(hello.unwrap_or_default()).next();
        self.turn_activity_over();
        let along: Nodes = Node::all().filter(|node| self.peers[node.index()].along().is_some()).collect();
        for node in along.iter() {
            if let Some(resync) = &mut self.peers[node.index()].resync {
                resync.barrier_begins();
            }
        }
        let Part::Primary(primary) = &mut self.part else { return };
        primary.barrier_at = cx.now;
        primary.barrier_wanted = false;
        let waiting = along.union(primary.view);
        primary.barrier = Some(BarrierRun { barrier, stored_here: false, waiting, complete });
        for node in along.iter() {
            let complete = complete.filter(|(target, _)| *target == node).map(|(_, disk)| disk);
            let link = self.peers[node.index()].along().expect("it is along");
            self.send(link, Message::Barrier { barrier, complete }, None, cx);
        }
        self.flush(Work::Barrier(barrier), cx);
    }

    pub(crate) fn own_barrier_flushed(&mut self, barrier: Barrier, cx: &mut Cx<'_>) {
        let is_open =
            self.primary().and_then(|primary| primary.barrier.as_ref()).is_some_and(|run| run.barrier == barrier);
        if is_open {
            self.disk.superblock.barrier = self.disk.superblock.barrier.max(barrier);
            self.keep_superblock(Then::Barrier(barrier), cx);
        }
    }

    pub(crate) fn own_barrier_stored(&mut self, barrier: Barrier, cx: &mut Cx<'_>) {
        if let Some(run) = self.primary_mut().and_then(|primary| primary.barrier.as_mut())
            && run.barrier == barrier
        {
            run.stored_here = true;
            self.confirm_barrier(cx);
        }
    }

    pub(crate) fn peer_stored_barrier(&mut self, node: Node, barrier: Barrier, cx: &mut Cx<'_>) {
        let peer = &mut self.peers[node.index()];
        peer.barrier = peer.barrier.max(barrier);
        let Some(run) = self.primary_mut().and_then(|primary| primary.barrier.as_mut()) else { return };
        if run.barrier != barrier || !run.waiting.contains(node) {
            return;
        }
        run.waiting.remove(node);
        let completes = run.completes(node);
        self.resync_barrier_stored(node, barrier, completes, cx);
        self.confirm_barrier(cx);
    }

    pub(crate) fn confirm_barrier(&mut self, cx: &mut Cx<'_>) {
        let Part::Primary(primary) = &mut self.part else { return };
        let Some(run) = primary.barrier.take_if(|run| run.stored_here && run.waiting.is_empty()) else { return };
        primary.confirmed = run.barrier;
        self.disk.superblock.confirmed = run.barrier.max(self.disk.superblock.confirmed);
        self.keep_quietly(cx);
        self.activity.confirm();
        cx.say(Note::BarrierStored(run.barrier));
        self.beat_now(cx); // so that the peers know it, too
        self.add_those_complete(cx); // before the activity log wants the next barrier
        if self.primary().is_some_and(|primary| primary.barrier_wanted) {
            self.start_barrier(cx);
        }
        self.pump_activity(cx);
        self.submit_waiting(cx);
    }

    /// Runs that wait for this peer go on without it.
    pub(crate) fn run_without(&mut self, node: Node, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary_mut() else { return };
        if let Some(run) = &mut primary.barrier {
            run.waiting.remove(node);
            run.complete = run.complete.filter(|(target, _)| *target != node);
        }
        if let Some(run) = &mut primary.flush {
            run.waiting.remove(node);
        }
        self.confirm_barrier(cx);
    }

    /// The peer is back: what it has not answered is sent again.
    pub(crate) fn resend_runs(&self, node: Node, link: Link, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary() else { return };
        if let Some(run) = primary.flush.as_ref().filter(|run| run.waiting.contains(node)) {
            self.send(link, Message::Flush { number: run.number }, None, cx);
        }
        if let Some(run) = primary.barrier.as_ref().filter(|run| run.waiting.contains(node)) {
            self.send(link, Message::Barrier { barrier: run.barrier, complete: None }, None, cx);
        }
    }
}
