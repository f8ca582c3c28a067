//! How a read or a write goes through one replica: past what overlaps it, into a hot extent, to the disk, to the peers, to its answer.

use crate::activity::Next;
use crate::disk::Work;
use crate::event::{Content, DiskError};
use crate::metadata::Metadata;
use crate::names::{Link, Node, Payload, Span};
use crate::table::{Kind, Place, Stage};
use crate::{Answer, Cx, Effect, Failure, Message, Note, Replica};

impl Replica {
    /// Begins what may begin.
    pub(crate) fn submit_waiting(&mut self, cx: &mut Cx<'_>) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            index += 1;
            match self.table.get(place).stage {
                Stage::Waiting => self.submit(place, cx),
                Stage::Full(until) if until <= cx.now => self.store_entry(place, cx),
                _ => {}
            }
        }
    }

    pub(crate) fn submit(&mut self, place: Place, cx: &mut Cx<'_>) {
        if self.table.is_blocked(place) {
            return;
        }
        let entry = self.table.get(place);
        let (kind, span, content) = (entry.kind, entry.span, entry.content);
        match kind {
            Kind::Read { .. } | Kind::Resync { .. } | Kind::Equalise => self.load_entry(place, cx),
            Kind::Repair { .. } | Kind::Mend if content.is_none() => self.fetch(place, cx),
            Kind::Write { .. } if self.table.get(place).part => self.merge_entry(place, cx),
            Kind::Write { .. } | Kind::Received { .. } | Kind::Repair { .. } | Kind::Mend => {
                if !self.activity.is_hot(span) {
                    self.activity.want(span);
                    return self.pump_activity(cx);
                }
                self.activity.mark(span);
                self.table.get_mut(place).marked = true;
                self.mark_for_the_absent(span);
                match kind {
                    Kind::Write { .. } => self.begin_write(place, cx),
                    _ => self.store_entry(place, cx),
                }
            }
            Kind::Orphan => {}
        }
    }

    /// Every in-sync replica, Secondaries too, keeps the bitmap of every absent member: any of them may be the next Primary (rule 10).
    fn mark_for_the_absent(&mut self, span: Span) {
        let me = self.me();
        for node in Node::all().filter(|node| *node != me) {
            if let Some(bits) = &mut self.bitmaps[node.index()] {
                bits.set(span);
            }
        }
    }

    fn merge_entry(&mut self, place: Place, cx: &mut Cx<'_>) {
        let job = self.disk.job(Work::Entry(place));
        let entry = self.table.get_mut(place);
        entry.stage = Stage::Merging(job);
        entry.part = false;
        let span = entry.span;
        let payload = entry.payload().expect("a part has bytes");
        entry.content = None;
        cx.out.push(Effect::Merge { job, span, payload });
    }

    pub(crate) fn entry_merged(&mut self, place: Place, payload: Payload, cx: &mut Cx<'_>) {
        let entry = self.table.get_mut(place);
        entry.content = Some(Content::Data(payload));
        entry.stage = Stage::Waiting;
        if entry.kind == Kind::Orphan {
            return self.entry_over(place, cx);
        }
        self.submit(place, cx);
    }

    /// The rest of the blocks cannot be read, here or it would have been fetched.
    pub(crate) fn entry_unmerged(&mut self, place: Place, cx: &mut Cx<'_>) {
        if let Some((request, _)) = self.table.get(place).kind.request() {
            cx.out.push(Effect::Answer { request, answer: Answer::Failed(Failure::Io) });
        }
        self.entry_over(place, cx);
    }

    /// What wants a cold extent waits for the activity log, what the log wants out waits for the bitmaps.
    pub(crate) fn pump_activity(&mut self, cx: &mut Cx<'_>) {
        if !self.bitmaps_under_way.is_empty() || self.is_ending() {
            return;
        }
        let first = self.table.wanted_first();
        match self.activity.next(|extent| first.is_some_and(|span| span.extents().any(|it| it == extent))) {
            Next::Nothing => {}
            Next::Barrier => match self.primary() {
                Some(_) => self.start_barrier(cx),
                None => self.want_barrier(cx),
            },
            Next::Keep => {
                self.keep_bitmaps_of_what_leaves(cx);
                self.keep_activity_when_ready(cx);
            }
        }
    }

    fn keep_bitmaps_of_what_leaves(&mut self, cx: &mut Cx<'_>) {
        let extents = self.activity.leaving();
        if extents.is_empty() {
            return;
        }
        for node in Node::all() {
            let Some(all) = &self.bitmaps[node.index()] else { continue };
            let mut bits = crate::Bits::default();
            extents.iter().for_each(|extent| bits.set_words(*extent, &all.words(*extent)));
            self.activity.bitmap_goes_out();
            self.keep(Work::Activity { set: false }, Metadata::Bitmap { node, bits, extents: extents.clone() }, cx);
        }
    }

    /// A barrier begins: it covers what is answered, and what is still under way is marked anew.
    pub(crate) fn turn_activity_over(&mut self) {
        self.activity.turn_over();
        for (_, entry) in self.table.entries() {
            if entry.marked && entry.stage != Stage::Trailing {
                self.activity.mark(entry.span);
            }
        }
    }

    fn keep_activity_when_ready(&mut self, cx: &mut Cx<'_>) {
        if let Some(set) = self.activity.set_when_bitmaps_are_out() {
            self.keep(Work::Activity { set: true }, Metadata::Activity(set), cx);
        }
    }

    pub(crate) fn activity_kept(&mut self, set: bool, cx: &mut Cx<'_>) {
        if set {
            self.activity.kept();
            self.keep_bitmaps(cx);
            self.submit_waiting(cx);
            self.pump_activity(cx);
        } else {
            self.activity.bitmap_is_out();
            self.keep_activity_when_ready(cx);
        }
    }

    pub(crate) fn entry_stored(&mut self, place: Place, cx: &mut Cx<'_>) {
        let entry = self.table.get_mut(place);
        entry.stage = Stage::Stored;
        let (kind, seq) = (entry.kind, entry.seq);
        match kind {
            Kind::Received { link } => {
                self.send(link, Message::Written { seq }, None, cx);
                self.entry_over(place, cx);
            }
            Kind::Write { .. } => {
                self.complete(place, cx);
            }
            Kind::Repair { request, client } => {
                cx.say(Note::ReadRepaired);
                let entry = self.table.get_mut(place);
                entry.kind = Kind::Read { request, client }; // it is answered like any other, under the lease
                entry.loaded = Some(cx.now);
                self.complete(place, cx);
            }
            Kind::Mend => {
                cx.say(Note::ReadRepaired);
                self.entry_over(place, cx);
            }
            Kind::Orphan => self.entry_over(place, cx),
            Kind::Read { .. } | Kind::Resync { .. } | Kind::Equalise => unreachable!("{kind:?} stores nothing here"),
        }
    }

    pub(crate) fn entry_loaded(&mut self, place: Place, result: Result<Payload, DiskError>, cx: &mut Cx<'_>) {
        let entry = self.table.get_mut(place);
        entry.stage = Stage::Stored;
        entry.content = result.ok().map(Content::Data);
        let (kind, span, at) = (entry.kind, entry.span, entry.at);
        match (kind, result) {
            (Kind::Orphan, _) => self.entry_over(place, cx),
            (Kind::Read { .. }, Ok(_)) => {
                self.table.get_mut(place).loaded = Some(cx.now);
                self.complete(place, cx);
            }
            (Kind::Read { request, client }, Err(_)) => {
                self.entry_over(place, cx);
                let repair = self.table.insert(at, span, Kind::Repair { request, client }, None, false);
                self.submit(repair, cx);
            }
            (Kind::Resync { target }, result) => self.resync_loaded(place, target, result.is_ok(), cx),
            (Kind::Equalise, result) => self.equalise_loaded(place, result.is_ok(), cx),
            (Kind::Write { .. } | Kind::Repair { .. } | Kind::Mend | Kind::Received { .. }, _) => {
                unreachable!("{kind:?} loads nothing")
            }
        }
    }

    /// It is done with, whatever came of it; what waited for its blocks may go on.
    pub(crate) fn entry_over(&mut self, place: Place, cx: &mut Cx<'_>) {
        let entry = self.table.remove(place);
        Self::release(entry.content, cx);
        if entry.kind == Kind::Orphan {
            self.greet_when_clear(cx);
        }
        self.submit_waiting(cx);
    }

    /// A peer is asked for blocks that cannot be read here.
    fn fetch(&mut self, place: Place, cx: &mut Cx<'_>) {
        let number = self.draw_number();
        let span = self.table.get(place).span;
        match self.any_link_in_view() {
            Some(link) => {
                self.table.get_mut(place).stage = Stage::Fetching(number);
                self.send(link, Message::Fetch { number, span }, None, cx);
            }
            // One that is not connected now is back soon, or is dropped.
            None if self.primary().is_some_and(|primary| !primary.view.is_empty()) => {}
            None => self.entry_unmerged(place, cx),
        }
    }

    pub(crate) fn fetched(&mut self, number: u64, payload: Option<Payload>, cx: &mut Cx<'_>) {
        let Some(place) = self.table.find(|entry| entry.stage == Stage::Fetching(number)) else {
            return Self::release_payload(payload, cx);
        };
        let Some(payload) = payload else { return self.entry_unmerged(place, cx) };
        let entry = self.table.get_mut(place);
        entry.content = Some(Content::Data(payload));
        entry.stage = Stage::Waiting;
        self.submit(place, cx);
    }

    fn any_link_in_view(&self) -> Option<Link> {
        let view = self.primary()?.view;
        view.iter().find_map(|node| self.peers[node.index()].along())
    }

    /// Reads that waited for a peer which is gone ask another one.
    pub(crate) fn fetch_elsewhere(&mut self) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            index += 1;
            let entry = self.table.get_mut(place);
            if matches!(entry.stage, Stage::Fetching(_)) {
                entry.stage = Stage::Waiting;
            }
        }
    }
}
