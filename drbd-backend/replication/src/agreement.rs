//! The control document is changed by the Primary, and a change is answered once every in-sync replica has stored it.

use std::collections::VecDeque;

use crate::control::{Change, Control};
use crate::disk::Work;
use crate::metadata::Metadata;
use crate::names::{Link, OrderId, Seq};
use crate::table::{Place, Stage};
use crate::{Answer, Cx, Effect, Failure, Message, Part, Refusal, Replica};

/// The document as it is about to be.
#[derive(Debug)]
pub(crate) struct ControlRun {
    document: Control,
    /// It is durable here once so many have been kept.
    kept_at: u64,
    pub(crate) orders: Vec<OrderId>,
}

/// What is durable of the document here, and who waits for it. Documents are counted as they are kept: two that were never answered can have one version.
#[derive(Debug, Default)]
pub(crate) struct Keeping {
    /// The one that was last to be kept.
    last: Control,
    asked: u64,
    kept: u64,
    under_way: bool,
    /// With the version that they have sent.
    links: Vec<(u64, u64, Link)>,
}

#[derive(Debug)]
pub(crate) enum Wanted {
    Change {
        order: OrderId,
        change: Change,
    },
    /// The hosts of these attachments are fenced.
    Fence {
        version: u64,
        clients: Vec<u32>,
    },
}

pub(crate) type Queue = VecDeque<Wanted>;

impl Replica {
    pub(crate) fn newest_control(&self) -> Control {
        let run = self.primary().and_then(|primary| primary.control.as_ref());
        run.map_or_else(|| self.control.clone(), |run| run.document.clone())
    }

    /// Whether this client may begin something: what is about to be revoked may not any more, what is about to be attached not yet.
    pub(crate) fn admits(&self, client: u32) -> bool {
        let epoch = self.record().epoch;
        let run = self.primary().and_then(|primary| primary.control.as_ref());
        self.control.admits(client, epoch) && run.is_none_or(|run| run.document.admits(client, epoch))
    }

    /// Of one list more clients may come to be known: a Secondary, told of it before it heard of an attachment, is told again.
    pub(crate) fn hosts_fenced(&mut self, version: u64, clients: &[u32], cx: &mut Cx<'_>) {
        let (newest, fenced) = &mut self.fences;
        if version > *newest {
            self.fences = (version, clients.to_vec());
            return self.take_fences_in(cx);
        }
        if version == *newest {
            let more: Vec<u32> = clients.iter().copied().filter(|client| !fenced.contains(client)).collect();
            fenced.extend(more);
        }
    }

    pub(crate) fn take_fences_in(&mut self, cx: &mut Cx<'_>) {
        let (version, clients) = self.fences.clone();
        if version <= self.newest_control().fences {
            return;
        }
        if let Some(primary) = self.primary_mut() {
            primary.control_next.push_back(Wanted::Fence { version, clients });
            self.control_further(cx);
        }
    }

    pub(crate) fn order_change(&mut self, order: OrderId, change: Change, cx: &mut Cx<'_>) {
        let Some(primary) = self.primary_mut() else {
            let outcome = Err(self.not_primary());
            return cx.out.push(Effect::Report { order, outcome });
        };
        primary.control_next.push_back(Wanted::Change { order, change });
        self.control_further(cx);
    }

    pub(crate) fn control_further(&mut self, cx: &mut Cx<'_>) {
        let epoch = self.record().epoch;
        loop {
            let Part::Primary(primary) = &mut self.part else { return };
            if primary.control.is_some() || !primary.is_serving() || primary.stopped {
                return;
            }
            let Some(wanted) = primary.control_next.pop_front() else { return };
            let (orders, document) = match wanted {
                Wanted::Fence { version, clients } => (vec![], Ok(self.control.fenced(version, &clients))),
                Wanted::Change { order, change } => (vec![order], self.control.changed(&change, epoch)),
            };
            match document {
                Ok(document) => self.begin_control(document, orders, cx),
                Err(misfit) => {
                    let refusal = Refusal::Invalid(misfit.to_string());
                    report(orders, &Err(refusal), cx);
                }
            }
        }
    }

    fn begin_control(&mut self, document: Control, orders: Vec<OrderId>, cx: &mut Cx<'_>) {
        let is_new = document.version > self.control.version;
        let kept_at = if is_new { self.keep_control(document.clone(), cx) } else { self.keeping.kept };
        if let Some(primary) = self.primary_mut() {
            primary.control = Some(ControlRun { document: document.clone(), kept_at, orders });
        }
        self.turn_revoked_away(cx);
        if is_new {
            for link in self.peers.iter().filter_map(crate::peer::Peer::along) {
                self.send(link, Message::Control(Box::new(document.clone())), None, cx);
            }
        }
        self.complete_control(cx);
    }

    /// Clients that are being revoked get no data and no promise any more, with or without a lease: it may be that the lease waits for this very document,
    /// since peers that know of fenced hosts renew none before it holds. Their writes end once every replica has them.
    fn turn_revoked_away(&mut self, cx: &mut Cx<'_>) {
        self.turn_held_away(cx);
        let mut index = 0;
        while let Some(place) = self.table.nth(index) {
            self.turn_entry_away(place, cx);
            index += usize::from(self.table.nth(index) == Some(place));
        }
        let Part::Primary(primary) = &mut self.part else { return };
        let Some(document) = primary.control.as_ref().map(|run| &run.document) else { return };
        let epoch = self.disk.superblock.record.epoch;
        let runs = primary.flush.as_mut().map(|run| &mut run.requests).into_iter().chain([&mut primary.flush_next]);
        for requests in runs {
            requests.retain(|(request, client)| {
                let stays = document.admits(*client, epoch);
                if !stays {
                    let answer = Answer::Failed(Failure::Revoked);
                    cx.out.push(Effect::Answer { request: *request, answer });
                }
                stays
            });
        }
    }

    /// What has not begun never will; what this disk has done its part of needs no lease to be refused.
    fn turn_entry_away(&mut self, place: Place, cx: &mut Cx<'_>) {
        let entry = self.table.get(place);
        let Some((request, client)) = entry.kind.request().filter(|_| entry.stage != Stage::Trailing) else { return };
        if self.admits(client) {
            return;
        }
        if entry.stage == Stage::Waiting && entry.seq == Seq(0) {
            cx.out.push(Effect::Answer { request, answer: Answer::Failed(Failure::Revoked) });
            return self.entry_over(place, cx);
        }
        self.complete(place, cx);
    }

    /// It holds once it is stored everywhere and what revoked clients had begun has ended; it is answered with a lease.
    pub(crate) fn complete_control(&mut self, cx: &mut Cx<'_>) {
        if self.may_answer(cx.now)
            && let Some(primary) = self.primary_mut()
        {
            report(std::mem::take(&mut primary.control_owed), &Ok(()), cx);
        }
        let epoch = self.record().epoch;
        let Some(run) = self.primary().and_then(|primary| primary.control.as_ref()) else { return };
        let version = run.document.version;
        let view = self.primary().map(|primary| primary.view).unwrap_or_default();
        let stored =
            self.keeping.kept >= run.kept_at && view.iter().all(|node| self.peers[node.index()].control >= version);
        let begun = self.table.any(|entry| {
            entry.stage != Stage::Trailing
                && entry.kind.request().is_some_and(|(_, client)| !run.document.admits(client, epoch))
        });
        if !stored || begun {
            return;
        }
        let Some(primary) = self.primary_mut() else { return };
        let Some(run) = primary.control.take() else { return };
        primary.control_owed.extend(run.orders);
        if self.control.version < version {
            self.control = run.document;
        }
        if self.may_answer(cx.now)
            && let Some(primary) = self.primary_mut()
        {
            report(std::mem::take(&mut primary.control_owed), &Ok(()), cx);
        }
        self.control_further(cx);
    }

    /// The Primary's document holds, whatever its version: one that was kept here and never answered may have the same, or a higher one.
    pub(crate) fn control_received(&mut self, link: Link, control: Control, cx: &mut Cx<'_>) {
        let version = control.version;
        if control != self.keeping.last {
            self.keep_control(control.clone(), cx);
        }
        self.control = control;
        if self.keeping.kept == self.keeping.asked {
            return self.send(link, Message::ControlStored { version }, None, cx);
        }
        self.keeping.links.push((self.keeping.asked, version, link));
    }

    /// How many must have been kept until this one is.
    fn keep_control(&mut self, control: Control, cx: &mut Cx<'_>) -> u64 {
        self.keeping.asked += 1;
        self.keeping.last = control;
        self.keep_newest_control(cx);
        self.keeping.asked
    }

    fn keep_newest_control(&mut self, cx: &mut Cx<'_>) {
        if !self.keeping.under_way && self.keeping.kept < self.keeping.asked {
            self.keeping.under_way = true;
            let document = Box::new(self.keeping.last.clone());
            self.keep(Work::Control { count: self.keeping.asked }, Metadata::Control(document), cx);
        }
    }

    pub(crate) fn control_is_kept(&mut self, count: u64, cx: &mut Cx<'_>) {
        self.keeping.kept = count;
        self.keeping.under_way = false;
        self.keep_newest_control(cx);
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.keeping.links).into_iter().partition(|(wanted, ..)| *wanted <= count);
        self.keeping.links = later;
        for (_, version, link) in due {
            self.send(link, Message::ControlStored { version }, None, cx);
        }
        self.complete_control(cx);
    }

    pub(crate) fn control_found(&mut self) {
        self.keeping.last = self.control.clone();
    }
}

fn report(orders: Vec<OrderId>, outcome: &Result<(), Refusal>, cx: &mut Cx<'_>) {
    for order in orders {
        cx.out.push(Effect::Report { order, outcome: outcome.clone() });
    }
}
