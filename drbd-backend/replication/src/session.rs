//! How two replicas meet: Hello, then the Primary's Welcome, then Ready.
//!
//! A new connection is greeted only when everything submitted for an old one has ended, so nothing of the old is applied later.

use crate::message::{Envelope, Hello, Message, Ready, Welcome};
use crate::metadata::{Data, Superblock};
use crate::names::{BootId, Link, Node, Payload, Time};
use crate::peer::Stage;
use crate::table::Kind;
use crate::{Cx, Effect, Note, Part, Replica};

impl Replica {
    pub(crate) fn connected(&mut self, link: Link, node: Node, cx: &mut Cx<'_>) {
        if self.is_ending() {
            return cx.out.push(Effect::HangUp { link });
        }
        if let Some(old) = self.peers[node.index()].link {
            cx.out.push(Effect::HangUp { link: old });
            self.disconnected(old, cx);
        }
        self.peers[node.index()].link = Some(link);
        self.peers[node.index()].down_since = Some(cx.now);
        self.greet_when_clear(cx);
    }

    pub(crate) fn disconnected(&mut self, link: Link, cx: &mut Cx<'_>) {
        let Some(node) = self.node_of(link) else { return };
        self.cut_resync(node, cx);
        self.peers[node.index()].part(cx.now);
        self.orphan_received(link, cx);
        if let Some(secondary) = self.secondary_mut() {
            secondary.part_from(link, cx);
        }
        if self.primary().is_some() {
            self.lost_along(node, cx);
        }
        self.greet_when_clear(cx);
    }

    pub(crate) fn hang_up(&mut self, link: Link, cx: &mut Cx<'_>) {
        cx.out.push(Effect::HangUp { link });
        self.disconnected(link, cx);
    }

    /// What came by a connection that is gone: what has not begun never will.
    fn orphan_received(&mut self, link: Link, cx: &mut Cx<'_>) {
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            let entry = self.table.get_mut(place);
            index += 1;
            if entry.kind != (Kind::Received { link }) {
                continue;
            }
            if entry.on_disk() {
                entry.kind = Kind::Orphan;
            } else {
                let entry = self.table.remove(place);
                Self::release(entry.content, cx);
                index -= 1;
            }
        }
    }

    pub(crate) fn node_of(&self, link: Link) -> Option<Node> {
        Node::all().find(|node| self.peers[node.index()].link == Some(link))
    }

    pub(crate) fn greet_when_clear(&mut self, cx: &mut Cx<'_>) {
        if matches!(self.part, Part::Learning | Part::Failed) || self.table.any(|entry| entry.kind == Kind::Orphan) {
            return;
        }
        for node in Node::all() {
            let peer = &mut self.peers[node.index()];
            let Some(link) = peer.link.filter(|_| !peer.greeted) else { continue };
            peer.greeted = true;
            let hello = Box::new(self.hello());
            self.send(link, Message::Hello(hello), None, cx);
            self.consider(node, cx);
        }
    }

    /// An in-sync peer knows that every in-sync disk had stored a later barrier than this one has: this one was rolled back, and needs everything (rule 13).
    /// Whoever was added since had that barrier stored before. What a peer of a later record says is looked at once that record is known here: it may
    /// be that this disk was dropped; until then the arbiter would not promote it anyway.
    pub(crate) fn compare_barriers(&mut self, cx: &mut Cx<'_>) {
        let may_serve = self.primary().is_none_or(|primary| !primary.is_serving());
        if matches!(self.part, Part::Learning | Part::Failed) || !may_serve || !self.is_in_sync() {
            return;
        }
        let record = self.record();
        let hellos = record.in_sync().iter().filter_map(|node| self.peers[node.index()].hello.as_ref());
        let hellos = hellos.filter(|hello| {
            hello.record <= record.generation && record.disk(hello.node) == Some(hello.disk) && !hello.blank
        });
        let (stored, known) =
            (self.disk.superblock.barrier, hellos.map(|hello| hello.confirmed).max().unwrap_or_default());
        if stored < known && self.disk.superblock.data != Data::Blank {
            cx.say(Note::RolledBack { node: self.me(), stored, known });
            self.disk.superblock.data = Data::Blank;
            self.keep_quietly(cx);
            self.give_up_if_blank(cx);
        }
    }

    /// A new Primary wants to know what is on this disk now: what the old one has sent comes to its end first.
    fn greet_anew(&mut self, node: Node, cx: &mut Cx<'_>) {
        let old = self.secondary_mut().and_then(|secondary| secondary.link());
        if let Some(old) = old.filter(|old| self.peers[node.index()].link != Some(*old)) {
            self.hang_up(old, cx);
        }
        self.peers[node.index()].greeted = false;
        self.greet_when_clear(cx);
    }

    /// As a new Primary: what the peers have said before may not hold any more.
    pub(crate) fn meet_anew(&mut self, cx: &mut Cx<'_>) {
        for node in Node::all() {
            let peer = &mut self.peers[node.index()];
            peer.hello = None;
            peer.down_since = Some(cx.now);
            if let Some(link) = peer.link.filter(|_| peer.greeted) {
                let hello = Box::new(self.hello());
                self.send(link, Message::Hello(hello), None, cx);
            }
        }
    }

    fn hello(&self) -> Hello {
        let Superblock { volume, node, disk, size_blocks, suspect, barrier, confirmed, .. } = self.disk.superblock;
        Hello {
            volume,
            node,
            disk,
            boot: self.start.boot,
            process: self.start.process,
            size_blocks,
            suspect,
            blank: self.disk.superblock.data == Data::Blank,
            primary: self.primary().is_some(),
            record: self.record().generation,
            barrier,
            confirmed,
        }
    }

    pub(crate) fn envelope(&self) -> Envelope {
        match &self.part {
            Part::Primary(primary) => Envelope {
                generation: self.record().generation,
                committed: primary.committed,
                barrier: primary.confirmed,
            },
            Part::Learning | Part::Secondary(_) | Part::Candidate(..) | Part::Failed => {
                Envelope { generation: self.disk.promised(), committed: crate::Seq(0), barrier: crate::Barrier(0) }
            }
        }
    }

    pub(crate) fn send(&self, link: Link, message: Message, payload: Option<Payload>, cx: &mut Cx<'_>) {
        if self.node_of(link).is_some() {
            cx.out.push(Effect::Send { link, envelope: self.envelope(), message, payload });
        }
    }

    pub(crate) fn received(
        &mut self,
        link: Link,
        envelope: Envelope,
        message: Message,
        payload: Option<Payload>,
        cx: &mut Cx<'_>,
    ) {
        let Some(node) = self.node_of(link) else { return Self::release_payload(payload, cx) };
        if let Message::Hello(hello) = message {
            return self.met(node, envelope, hello, cx);
        }
        if !self.peers[node.index()].greeted || matches!(self.part, Part::Learning | Part::Failed) {
            return Self::release_payload(payload, cx);
        }
        match &self.part {
            Part::Primary(_) => self.heard_as_primary(node, link, envelope, message, payload, cx),
            _ => self.heard_as_secondary(node, link, envelope, message, payload, cx),
        }
    }

    pub(crate) fn release_payload(payload: Option<Payload>, cx: &mut Cx<'_>) {
        if let Some(payload) = payload {
            cx.out.push(Effect::Release(payload));
        }
    }

    fn met(&mut self, node: Node, envelope: Envelope, hello: Box<Hello>, cx: &mut Cx<'_>) {
        if hello.volume != self.settings.volume || hello.node != node {
            let link = self.peers[node.index()].link.expect("it speaks");
            return self.hang_up(link, cx);
        }
        let peer = &mut self.peers[node.index()];
        peer.fenced &= peer.boot == Some(hello.boot);
        peer.boot = Some(hello.boot);
        let greets_anew = hello.primary && envelope.generation >= self.disk.promised() && peer.greeted;
        peer.hello = Some(hello);
        self.compare_barriers(cx);
        if envelope.generation > self.record().generation {
            self.ask_at = self.ask_at.or(Some(cx.now));
        }
        if greets_anew && matches!(self.part, Part::Secondary(_) | Part::Candidate(..)) {
            return self.greet_anew(node, cx);
        }
        self.consider(node, cx);
    }

    /// A Primary tells a peer what it is, as soon as both have greeted and no change of the record is open.
    pub(crate) fn consider(&mut self, node: Node, cx: &mut Cx<'_>) {
        let peer = &self.peers[node.index()];
        let (Some(link), Some(hello), Part::Primary(primary)) = (peer.link, &peer.hello, &self.part) else { return };
        if !peer.greeted || peer.stage != Stage::Apart || primary.is_changing() || primary.stopped {
            return;
        }
        let next = primary.next;
        let welcome = if primary.view.contains(node) {
            if let Some(note) = self.why_unfit(node, hello) {
                cx.say(note);
                self.peers[node.index()].unfit = true;
                return;
            }
            if peer.kin { Welcome::GoOn { next } } else { Welcome::Equalise { next } }
        } else if primary.is_serving() && self.record().members.contains(node) {
            let fresh = self.prepare_resync(node, cx);
            Welcome::Resync { next, fresh }
        } else {
            return;
        };
        let peer = &mut self.peers[node.index()];
        peer.stage = Stage::Welcomed;
        peer.down_since = Some(cx.now);
        peer.answered = None;
        let record = Box::new(self.record().clone());
        self.send(link, Message::Welcome { record, welcome }, None, cx);
    }

    /// Why a peer that stands in `in_sync` cannot stay there.
    fn why_unfit(&self, node: Node, hello: &Hello) -> Option<Note> {
        let known = self.peers[node.index()].barrier;
        if hello.blank {
            return Some(Note::PeerBlank(node));
        }
        if self.record().disk(node) != Some(hello.disk) || hello.size_blocks < self.disk.superblock.size_blocks {
            return Some(Note::StrangeDisk { node, disk: hello.disk });
        }
        if hello.barrier < known {
            return Some(Note::RolledBack { node, stored: hello.barrier, known });
        }
        let peer = &self.peers[node.index()];
        if peer.kin && peer.process != hello.process {
            return Some(Note::Restarted(node));
        }
        hello.suspect.then_some(Note::PeerSuspect(node))
    }

    /// What this disk may hold that the Primary's does not.
    pub(crate) fn ready(&self, uncommitted: Option<Vec<crate::Span>>) -> Ready {
        let mut unconfirmed = self.unconfirmed();
        if let Some(own) = &self.bitmaps[self.me().index()] {
            unconfirmed.set_all(own);
        }
        Ready { uncommitted, unconfirmed }
    }

    pub(crate) fn fenced(&mut self, node: Node, boot: BootId, _cx: &mut Cx<'_>) {
        let peer = &mut self.peers[node.index()];
        peer.fenced = peer.boot == Some(boot);
    }

    /// For the grace after the last heartbeat that was answered, and after this process's own start, any other node may be serving.
    pub(crate) fn may_serve_until(&self, node: Node) -> Option<Time> {
        let peer = &self.peers[node.index()];
        if peer.fenced || peer.stopped {
            return None;
        }
        Some(peer.heard.unwrap_or(self.started).max(self.started) + self.settings.grace)
    }
}
