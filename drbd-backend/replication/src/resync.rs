//! A member that lacks writes gets them, under live writes, and is added (rule 4).
//!
//! ```text
//! Copying ─── nothing unsent ───▶ Counted ─── all before is answered ───▶ Closing ─── barrier stored ───▶ Complete ──▶ added
//!   live writes go to it, too       from here on each answer needs it                                        proposed
//! ```
//! A block is read here under its lock and sent on the same link as live writes, so nothing passes anything. Its bit is cleared only
//! once the target has flushed it.

use crate::event::Content;
use crate::membership::What;
use crate::message::Ready;
use crate::metadata::Absent;
use crate::names::{Barrier, DiskId, Generation, Node, Nodes, Seq, Span, Time};
use crate::note::Resync as Why;
use crate::table::{Kind, Place, Stage};
use crate::{Bits, Cx, Note, Part, Replica};

use core::time::Duration;

/// A step that took very long is no reason to stop for as long.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// Clients that have wanted nothing for so long do not work.
const CLIENTS_REST: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct Resyncing {
    stage: ResyncStage,
    disk: DiskId,
    unsent: Bits,
    /// It has them; no barrier covers them yet.
    arrived: Bits,
    /// The barrier that is under way covers them.
    covered: Bits,
    cursor: u64,
    steps: u32,
    limit: u32,
    /// After blocks could not be read: not before then.
    paused_until: Option<Time>,
    pub(crate) total: u64,
    pub(crate) began: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ResyncStage {
    Copying,
    /// From this write on.
    Counted(Seq),
    /// The barrier after the last write that was not counted is under way.
    Closing,
    Complete,
}

impl Resyncing {
    /// A live write of these blocks is on its way to it.
    pub(crate) fn overwritten(&mut self, span: Span) {
        self.unsent.clear(span);
        self.arrived.clear(span);
        self.covered.clear(span);
    }

    pub(crate) fn arrived(&mut self, span: Span, is_step: bool) {
        self.arrived.set(span);
        if is_step {
            self.steps -= 1;
        }
    }

    pub(crate) fn wants_barrier(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(crate) fn barrier_begins(&mut self) {
        let arrived = std::mem::take(&mut self.arrived);
        self.covered.set_all(&arrived);
    }

    /// Blocks that it does not have yet.
    pub(crate) fn left(&self) -> u64 {
        self.unsent.count()
    }
}

impl Replica {
    /// Decides what an absent member gets: what its bitmap marks, or, under a new disk id, everything.
    pub(crate) fn prepare_resync(&mut self, node: Node, cx: &mut Cx<'_>) -> Option<DiskId> {
        let why = self.resync_reason(node);
        if why == Why::Marked {
            cx.say(Note::Resyncing { node, blocks: self.bitmaps[node.index()].as_ref().map_or(0, Bits::count), why });
            return None;
        }
        let size = self.disk.superblock.size_blocks;
        let disk = self.draw_disk_id();
        let absent = Absent { since: Generation(0), disk, barrier: Barrier(0) };
        cx.say(Note::Resyncing { node, blocks: size, why });
        self.peers[node.index()].barrier = Barrier(0);
        self.track(node, absent, Bits::all(size), cx);
        Some(disk)
    }

    fn resync_reason(&self, node: Node) -> Why {
        let (Some(absent), Some(hello)) = (self.absent[node.index()], &self.peers[node.index()].hello) else {
            return Why::NoBitmap;
        };
        let from_the_beginning = absent.since == Generation(0);
        let reaches_back = from_the_beginning || self.record().left(node).is_some_and(|left| absent.since <= left);
        match () {
            () if hello.blank => Why::Blank,
            () if hello.disk != absent.disk => Why::OtherDisk,
            () if hello.barrier < absent.barrier => Why::RolledBack,
            () if self.primary().is_some_and(|primary| hello.confirmed > primary.known_by(node, absent.since)) => {
                Why::OtherHistory
            }
            () if !reaches_back || self.bitmaps[node.index()].is_none() => Why::NoBitmap,
            () => Why::Marked,
        }
    }

    pub(crate) fn begin_resync(&mut self, node: Node, ready: &Ready, cx: &mut Cx<'_>) {
        let size = self.disk.superblock.size_blocks;
        let Some(disk) = self.absent[node.index()].map(|absent| absent.disk) else { return };
        let Some(bits) = &mut self.bitmaps[node.index()] else { return };
        let mut unconfirmed = ready.unconfirmed.clone();
        unconfirmed.cut(size);
        bits.set_all(&unconfirmed);
        let unsent = bits.clone();
        self.peers[node.index()].resync = Some(Box::new(Resyncing {
            stage: ResyncStage::Copying,
            disk,
            total: unsent.count(),
            unsent,
            arrived: Bits::default(),
            covered: Bits::default(),
            cursor: 0,
            steps: 0,
            limit: self.settings.resync.steps.0,
            paused_until: None,
            began: cx.now,
        }));
    }

    pub(crate) fn resync_further(&mut self, cx: &mut Cx<'_>) {
        for node in Node::all() {
            if self.peers[node.index()].resync.is_some() && self.peers[node.index()].along().is_some() {
                self.copy_further(node, cx);
                self.add_when_complete(node, cx);
            }
        }
    }

    pub(crate) fn add_those_complete(&mut self, cx: &mut Cx<'_>) {
        Node::all().for_each(|node| self.add_when_complete(node, cx));
    }

    fn copy_further(&mut self, node: Node, cx: &mut Cx<'_>) {
        let longest = self.settings.resync.step_blocks;
        let room = 2 * self.settings.in_flight;
        while self.table.len() < room {
            let Some(resync) = &mut self.peers[node.index()].resync else { return };
            resync.paused_until = resync.paused_until.filter(|until| *until > cx.now);
            if resync.steps >= resync.limit || resync.paused_until.is_some() {
                return;
            }
            let next = resync.unsent.run(resync.cursor, longest).or_else(|| resync.unsent.run(0, longest));
            let Some(span) = next else { return };
            resync.unsent.clear(span);
            resync.cursor = span.end();
            resync.steps += 1;
            let place = self.table.insert(cx.now, span, Kind::Resync { target: node }, None, false);
            self.submit(place, cx);
        }
    }

    pub(crate) fn resync_loaded(&mut self, place: Place, target: Node, is_good: bool, cx: &mut Cx<'_>) {
        let entry = self.table.get_mut(place);
        let (span, content) = (entry.span, entry.content);
        let again_at = cx.now + Duration::from_secs(1);
        let Some(resync) = &mut self.peers[target.index()].resync else { return self.entry_over(place, cx) };
        let (Some(content @ Content::Data(_)), true) = (content, is_good) else {
            resync.steps -= 1;
            resync.unsent.set(span);
            resync.paused_until = Some(again_at);
            self.entry_over(place, cx);
            let mend = self.table.insert(cx.now, span, Kind::Mend, None, false);
            return self.submit(mend, cx);
        };
        let Part::Primary(primary) = &mut self.part else { return };
        let seq = primary.next;
        primary.next = seq.next();
        let entry = self.table.get_mut(place);
        entry.seq = seq;
        entry.waiting = Nodes::NONE.with(target);
        entry.stage = Stage::Trailing;
        entry.content = None;
        self.send_write(Nodes::NONE.with(target), seq, span, content, false, cx);
        Self::release(Some(content), cx);
        self.commit(seq);
        self.submit_waiting(cx);
    }

    fn add_when_complete(&mut self, node: Node, cx: &mut Cx<'_>) {
        let version = self.newest_control().version;
        let missing = self.missing();
        let peer = &self.peers[node.index()];
        let Some(resync) = &peer.resync else { return };
        let (stage, disk) = (resync.stage, resync.disk);
        let sent = resync.unsent.is_empty() && resync.steps == 0;
        let heard = peer.answered.is_some_and(|at| cx.now.since(at) < self.settings.lease);
        let ready = sent && heard && peer.control >= version && missing.is_empty();
        let older = |from| self.table.any(|entry| entry.waiting.contains(node) && entry.seq < from);
        let Part::Primary(primary) = &mut self.part else { return };
        // Whoever is added knows of all in-sync disks that they have stored its last barrier.
        let confirmed = primary.barrier.as_ref().is_none_or(|run| !run.completes(node));
        let idle = primary.change.is_none() && primary.is_serving() && !primary.stopped;
        let begins = primary.quiet.is_none() && primary.adding.is_none(); // one that is counted already is added before the role goes
        match stage {
            ResyncStage::Copying if ready && idle && begins => {
                primary.adding = Some(node);
                primary.view.insert(node);
                let from = primary.next;
                self.set_resync_stage(node, ResyncStage::Counted(from));
                self.add_when_complete(node, cx);
            }
            ResyncStage::Counted(from) if !older(from) && idle && primary.barrier.is_none() => {
                self.set_resync_stage(node, ResyncStage::Closing);
                self.start_barrier_for(Some((node, disk)), cx);
            }
            ResyncStage::Complete if confirmed && primary.change.is_none() && missing.is_empty() => {
                self.start_change(What::Add(node, disk), cx);
            }
            ResyncStage::Copying | ResyncStage::Counted(_) | ResyncStage::Closing | ResyncStage::Complete => {}
        }
    }

    fn set_resync_stage(&mut self, node: Node, stage: ResyncStage) {
        if let Some(resync) = &mut self.peers[node.index()].resync {
            resync.stage = stage;
        }
    }

    /// What the target has flushed it is owed no more.
    pub(crate) fn resync_barrier_stored(&mut self, node: Node, barrier: Barrier, completes: bool, cx: &mut Cx<'_>) {
        let Some(resync) = &mut self.peers[node.index()].resync else { return };
        let covered = std::mem::take(&mut resync.covered);
        if let Some(bits) = &mut self.bitmaps[node.index()] {
            bits.clear_all(&covered);
        }
        if let Some(absent) = self.absent[node.index()].as_mut().filter(|_| !covered.is_empty()) {
            absent.barrier = barrier; // an older copy of its disk would lack what is cleared
            if let Some(kept) = &mut self.disk.superblock.absent[node.index()] {
                kept.barrier = barrier;
                self.keep_quietly(cx);
            }
        }
        if completes {
            self.set_resync_stage(node, ResyncStage::Complete);
        }
    }

    pub(crate) fn cut_resync(&mut self, node: Node, cx: &mut Cx<'_>) {
        if let Some(resync) = self.peers[node.index()].resync.take() {
            cx.say(Note::ResyncCut { node, blocks_left: resync.unsent.count() });
        }
    }

    /// A step that began then has arrived. A resync gives way to clients that worked meanwhile: with fewer steps at once, and once there is one, with a
    /// rest as long as their share of the time asks. A disk or link that they slow down is left to them for longer.
    pub(crate) fn pace_resync(&mut self, node: Node, began: Time, cx: &Cx<'_>) {
        let (fewest, _) = self.settings.resync.steps;
        let share = self.settings.resync.share.clamp(1, 100);
        if !self.clients_work(|at| at >= began) {
            return;
        }
        let Some(resync) = &mut self.peers[node.index()].resync else { return };
        if resync.limit > fewest {
            resync.limit = (resync.limit / 2).max(fewest);
            return;
        }
        let rest = cx.now.since(began) * (100 - share) / share;
        resync.paused_until = Some(cx.now + rest.min(LONGEST_REST));
    }

    /// Without clients it goes at full speed.
    pub(crate) fn quicken_resync(&mut self, now: Time) {
        let most = self.settings.resync.steps.1;
        let is_copying = |peer: &crate::peer::Peer| peer.resync.as_ref().is_some_and(|resync| resync.limit < most);
        if !self.peers.iter().any(is_copying) || self.clients_work(|at| now.since(at) < CLIENTS_REST) {
            return;
        }
        for resync in self.peers.iter_mut().filter_map(|peer| peer.resync.as_mut()) {
            resync.limit = (resync.limit + 1).min(most);
        }
    }

    /// They wait for something, or wanted it so recently.
    fn clients_work(&self, is_recent: impl Fn(Time) -> bool) -> bool {
        let asked = self.primary().and_then(|primary| primary.asked_at).is_some_and(is_recent);
        asked || self.table.any(|entry| entry.kind.request().is_some() && entry.stage != Stage::Trailing)
    }

    pub(crate) fn resync_wakes_at(&self) -> Option<Time> {
        self.peers.iter().filter_map(|peer| peer.resync.as_ref()?.paused_until).min()
    }
}
