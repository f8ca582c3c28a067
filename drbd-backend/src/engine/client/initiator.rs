//! iSCSI initiators: what their sessions want done becomes requests to the volume, and what came of them goes back to the session.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use iscsi::{BLOCK, Event, LoggedIn, Modify, Outcome, SessionId, Step, TaskId, Work};
use replication::{Ask, Change, Content, Failure as Refused, Order, VolumeId};

use super::super::pool::MAX_PIECE_BYTES;
use super::super::volume::{Held, Lay, bytes_of};
use super::super::{Engine, Notice, Waits};
use super::requests::{Then, piece_from, within};
use super::{MOST_BYTES, Payload, Talk};
use crate::disk::Slice;

/// Whose command waits until reservations are stored.
#[derive(Debug, Clone, Copy)]
pub struct Reserving {
    session: SessionId,
    task: TaskId,
}

impl Engine {
    /// An initiator whose login is over. If its volume is gone meanwhile, or its right to it, so is the initiator.
    pub(in super::super) fn initiator_connected(
        &mut self,
        volume: VolumeId,
        attachment: u32,
        is_read_only: bool,
        logged_in: LoggedIn,
        stream: OwnedFd,
    ) {
        let Some(index) = self.by_id.get(&volume).copied().filter(|index| self.volumes[*index].admits(attachment))
        else {
            return;
        };
        let id = self.volumes[index].target().joined(logged_in, is_read_only);
        self.initiators += 1;
        self.let_in(index, attachment, Talk::Iscsi(id), stream);
        self.target_events(index);
    }

    /// What the session made of what it was told is sent.
    pub(super) fn with_target<T>(
        &mut self,
        place: usize,
        tell: impl FnOnce(&mut iscsi::Target, &mut Vec<u8>) -> T,
    ) -> Option<T> {
        let volume = self.clients[place].as_ref()?.volume;
        let mut said = std::mem::take(&mut self.said);
        said.clear();
        let told = tell(self.volumes[volume].target(), &mut said);
        if !said.is_empty() {
            self.send_to_client(place, &said, None);
        }
        self.said = said;
        self.target_events(volume);
        Some(told)
    }

    /// What concerns other sessions.
    pub(super) fn target_events(&mut self, index: usize) {
        while let Some(event) = self.volumes[index].target().event() {
            let (Event::Send { session, .. } | Event::Drop { session, .. } | Event::Close { session }) = &event;
            let is_its = |client: &super::Client| {
                client.volume == index && matches!(client.talk, Talk::Iscsi(id) if id == *session)
            };
            let Some(place) = self.clients.iter().position(|it| it.as_ref().is_some_and(is_its)) else { continue };
            match event {
                Event::Send { bytes, .. } => self.send_to_client(place, &bytes, None),
                Event::Drop { task, .. } => self.drop_deed(place, task),
                Event::Close { .. } => {
                    if let Some(client) = &mut self.clients[place] {
                        client.talk = Talk::Iscsi(NOBODY);
                    }
                    self.close_client(place);
                }
            }
        }
    }

    /// Takes one thing from what has come; whether there was one.
    pub(super) fn take_from_initiator(&mut self, place: usize, id: SessionId) -> bool {
        let Some(client) = &mut self.clients[place] else { return false };
        let volume = client.volume;
        let mut said = std::mem::take(&mut self.said);
        said.clear();
        let received = self.volumes[volume].target().received(id, client.inbox.bytes(), &mut said);
        if let Ok((taken, _)) = &received {
            client.inbox.take(*taken);
        }
        if !said.is_empty() {
            self.send_to_client(place, &said, None);
        }
        self.said = said;
        self.target_events(volume);
        let (taken, step) = match received {
            Ok(received) => received,
            Err(why) => {
                self.send_away(place, &why.to_string());
                return false;
            }
        };
        match step {
            Step::More => return taken > 0,
            Step::Begin { task, work } => self.begin_work(place, id, task, work),
            Step::Payload { task, bytes } => return self.payload_is_due(place, task, bytes as usize),
            Step::Held { task } => {
                let held = self.volumes[volume].target().held(id).to_vec();
                if let Some(deed) = self.deed_of(place, task) {
                    self.put_payload(place, deed, &held);
                }
            }
            Step::Drop { task } => self.drop_deed(place, task),
            Step::Close => self.leave(place),
            Step::Manage(_) => unreachable!("the target deals with it"),
        }
        true
    }

    fn payload_is_due(&mut self, place: usize, task: TaskId, left: usize) -> bool {
        let deed = self.deed_of(place, task);
        let Some(client) = &mut self.clients[place] else { return false };
        let deed = deed.expect("a payload is of a write that has begun");
        client.payload = Some(Payload { deed, left, is_direct: false });
        true
    }

    /// So many bytes of a payload were taken.
    pub(super) fn initiator_payload_came(&mut self, place: usize, id: SessionId, count: usize) {
        if let Some(Err(why)) = self.with_target(place, |target, out| target.payload(id, count, out)) {
            self.send_away(place, &why.to_string());
        }
    }

    fn deed_of(&self, place: usize, task: TaskId) -> Option<usize> {
        let client = self.clients[place].as_ref()?;
        client.deeds.iter().position(|deed| deed.cookie == u64::from(task.0))
    }

    /// No more of a write's data comes. What has begun of it comes to its end, and what has not never will.
    fn drop_deed(&mut self, place: usize, task: TaskId) {
        let Some(number) = self.deed_of(place, task) else { return };
        let Some(client) = &mut self.clients[place] else { return };
        let deed = &mut client.deeds[number];
        if deed.write.take().is_some() {
            client.writes -= 1;
            // What is being received into it comes to its end first.
            client.payload = client.payload.filter(|payload| payload.deed != number || payload.is_direct);
        }
        deed.then = Then::Drop;
        self.withdraw(place, number);
        self.deed_is_whole(place, number);
    }

    fn begin_work(&mut self, place: usize, id: SessionId, task: TaskId, work: Work) {
        let cookie = u64::from(task.0);
        let needs = match &work {
            Work::Read { bytes, .. } | Work::Write { bytes, .. } | Work::Verify { bytes, .. } => *bytes as usize,
            Work::WriteAndVerify { data, .. } | Work::Modify { data, .. } => data.len(),
            Work::Fill { .. } => MAX_PIECE_BYTES,
            Work::Copy { segments } => segments.iter().map(|(_, _, bytes)| *bytes as usize).max().unwrap_or_default(),
            Work::Flush | Work::Zeroes { .. } | Work::LbaStatus { .. } | Work::Reserve { .. } => 0,
        };
        if needs > 0 && self.client_bytes >= MOST_BYTES {
            self.with_target(place, |target, out| target.done(id, task, &Outcome::Full, out));
            return;
        }
        match work {
            Work::Read { offset, bytes } => {
                let deed = self.deed(place, cookie, Some((offset, bytes)), needs);
                self.read(place, deed, offset, offset + u64::from(bytes));
                self.deed_is_whole(place, deed);
            }
            Work::Write { offset, durable, .. } => {
                let deed = self.deed(place, cookie, None, needs);
                self.write_begins(place, deed, offset, needs, durable);
                self.with_target(place, |target, out| target.ready(id, task, out));
            }
            Work::Flush => {
                let deed = self.deed(place, cookie, None, 0);
                self.piece(place, deed, (0, 0, 0), Ask::Flush);
                self.deed_is_whole(place, deed);
            }
            Work::Zeroes { stretches, punch } => {
                let deed = self.deed(place, cookie, None, 0);
                for stretch in stretches {
                    self.zeroes(place, deed, stretch, punch, false);
                }
                self.deed_is_whole(place, deed);
            }
            Work::Fill { offset, bytes, pattern } => {
                let deed = self.deed(place, cookie, None, needs);
                self.fill(place, deed, offset, offset + bytes, &pattern);
                self.deed_is_whole(place, deed);
            }
            Work::WriteAndVerify { offset, data } => {
                let deed = self.deed(place, cookie, None, needs);
                self.write_begins(place, deed, offset, data.len(), true);
                self.then(place, deed, Then::Verify(offset, data.clone()));
                self.put_payload(place, deed, &data);
            }
            Work::Verify { offset, bytes, against } => {
                let deed = self.deed(place, cookie, None, needs);
                self.then(place, deed, Then::Compare(against));
                self.read(place, deed, offset, offset + u64::from(bytes));
                self.deed_is_whole(place, deed);
            }
            Work::Modify { offset, how, data, durable } => {
                let deed = self.deed(place, cookie, None, needs);
                self.modify(place, deed, offset, how, &data, durable);
                self.deed_is_whole(place, deed);
            }
            Work::Copy { segments } => {
                let deed = self.deed(place, cookie, None, needs);
                self.copy_next(place, deed, segments.into());
            }
            Work::LbaStatus { offset } => self.lba_status(place, id, task, offset),
            Work::Reserve { was, next } => self.reserve(place, Reserving { session: id, task }, was, next),
        }
    }

    /// The Primary changes the control document; a node that stands by has it done there (SPC-4, 5.15.2.4.4).
    fn reserve(&mut self, place: usize, whose: Reserving, was: Vec<u8>, next: Vec<u8>) {
        let Some(index) = self.clients[place].as_ref().map(|client| client.volume) else { return };
        let served = &self.volumes[index];
        let (volume, life, me) = (served.id, served.life, served.replica.me());
        match served.replica.record().primary.filter(|primary| *primary != me) {
            None => self.give_order(index, Order::Control(Change::Reserve { was, next }), Waits::Initiator(whose)),
            Some(primary) => self.notify(Notice::Reserve { volume, life, whose, primary, was, next }),
        }
    }

    fn then(&mut self, place: usize, deed: usize, then: Then) {
        if let Some(client) = &mut self.clients[place] {
            client.deeds[deed].then = then;
        }
    }

    /// The pattern over and over: one buffer serves for all pieces.
    fn fill(&mut self, place: usize, deed: usize, start: u64, end: u64, pattern: &[u8]) {
        let mut buffer = self.pool.take_or_grow(MAX_PIECE_BYTES);
        buffer.chunks_mut(pattern.len()).for_each(|chunk| chunk.copy_from_slice(pattern));
        let slice = buffer.share();
        let mut at = start;
        while at < end {
            let span = piece_from(at, end);
            let (skip, bytes) = within(span, at, end);
            let part = slice.part(0..bytes);
            let Some(client) = &self.clients[place] else { return };
            let volume = &mut self.volumes[client.volume];
            let ask = if skip == 0 && bytes as u64 == bytes_of(span) {
                Ask::Write { span, content: Content::Data(volume.hold(Held::whole(part))), durable: false }
            } else {
                Ask::WritePart { span, payload: volume.hold(Held::part(part, skip)), durable: false }
            };
            self.piece(place, deed, (0, 0, 0), ask);
            at += bytes as u64;
        }
    }

    /// Whatever blocks it touches are locked while it looks and writes (SBC-3, 5.2).
    fn modify(&mut self, place: usize, deed: usize, offset: u64, how: Modify, data: &[u8], durable: bool) {
        let (owner, block) = (self.owner(place, deed), u64::from(replication::BLOCK_BYTES));
        match how {
            Modify::CompareAndWrite => {
                let bytes = (data.len() / 2) as u64;
                let first = offset / block;
                let count = u32::try_from((offset + bytes).div_ceil(block) - first).expect("it is short");
                let span = replication::Span::new(first, count);
                let skip = usize::try_from(offset % block).expect("it is within a block");
                let slice = self.pool.copy_of(data).share();
                self.lay(place, deed, span, Held::laid(slice, skip, Lay::IfEqual(owner)), durable);
            }
            Modify::Or => {
                let (mut at, end) = (offset, offset + data.len() as u64);
                while at < end {
                    let span = piece_from(at, end);
                    let (skip, bytes) = within(span, at, end);
                    let from = usize::try_from(at - offset).expect("it is in memory");
                    let slice = self.pool.copy_of(&data[from..from + bytes]).share();
                    self.lay(place, deed, span, Held::laid(slice, skip, Lay::Or), durable);
                    at += bytes as u64;
                }
            }
        }
    }

    fn lay(&mut self, place: usize, deed: usize, span: replication::Span, held: Held, durable: bool) {
        let Some(client) = &self.clients[place] else { return };
        let payload = self.volumes[client.volume].hold(held);
        self.piece(place, deed, (0, 0, 0), Ask::WritePart { span, payload, durable });
    }

    fn lba_status(&mut self, place: usize, id: SessionId, task: TaskId, offset: u64) {
        let Some(client) = &self.clients[place] else { return };
        let outcome = match self.volumes[client.volume].files.data.extent(offset) {
            Ok((bytes, is_mapped)) => {
                let block = u64::from(BLOCK);
                Outcome::Lba { bytes: (bytes / block * block).max(block), is_mapped }
            }
            Err(_) => Outcome::Failed,
        };
        self.with_target(place, |target, out| target.done(id, task, &outcome, out));
    }

    /// The next segment of a copy is read, or there is none and the deed is whole.
    fn copy_next(&mut self, place: usize, deed: usize, mut segments: VecDeque<(u64, u64, u32)>) {
        let Some((from, to, bytes)) = segments.pop_front() else {
            return self.deed_is_whole(place, deed);
        };
        self.then(place, deed, Then::Copy(to, segments));
        self.read(place, deed, from, from + u64::from(bytes));
        self.deed_is_whole(place, deed);
    }

    /// A segment of a copy was read: it is written.
    fn copy_read(&mut self, place: usize, deed: usize, to: u64, rest: VecDeque<(u64, u64, u32)>) {
        let Some(client) = &mut self.clients[place] else { return };
        let mut pieces = std::mem::take(&mut client.deeds[deed].pieces);
        pieces.sort_unstable_by_key(|(number, _)| *number);
        let data: Vec<u8> = pieces.iter().flat_map(|(_, slice)| slice.iter().copied()).collect();
        self.then(place, deed, Then::Copied(rest));
        self.write_begins(place, deed, to, data.len(), false);
        self.put_payload(place, deed, &data);
    }

    /// All pieces of a deed are answered.
    pub(super) fn answer_initiator(&mut self, place: usize, id: SessionId, number: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        let (is_last, volume) = (client.leaving && client.open == 1, client.volume);
        let deed = &mut client.deeds[number];
        let task = TaskId(u32::try_from(deed.cookie).expect("it was a task"));
        let (failure, differs, read) = (deed.failure, deed.differs, deed.read);
        let mut then = std::mem::take(&mut deed.then);
        if failure.is_none() && id != NOBODY {
            match then {
                Then::Copy(to, rest) => {
                    deed.whole = false;
                    return self.copy_read(place, number, to, rest);
                }
                Then::Copied(rest) if !rest.is_empty() => {
                    deed.whole = false;
                    return self.copy_next(place, number, rest);
                }
                _ => {}
            }
        }
        if failure.is_none()
            && let Then::Verify(offset, data) = then
        {
            let end = offset + data.len() as u64;
            (deed.then, deed.whole) = (Then::Compare(Some(data)), false);
            self.read(place, number, offset, end);
            return self.deed_is_whole(place, number);
        }
        if id == NOBODY {
            drop(self.deed_is_over(place, number));
            return;
        }
        let is_wanted = self.volumes[volume].target().is_wanted(id, task);
        let (mut pieces, _) = self.deed_is_over(place, number);
        let outcome = match (failure, differs, &mut then) {
            (_, _, Then::Drop) => Outcome::Dropped,
            (Some(Refused::NotPrimary { .. } | Refused::Withdrawn), ..) => Outcome::Moving,
            (Some(Refused::Io), ..) => Outcome::Failed,
            (Some(Refused::Revoked | Refused::OutOfRange), ..) => Outcome::Revoked,
            (None, Some(at), _) => Outcome::Differs { at },
            (None, None, Then::Compare(Some(data))) => compared(&pieces, data),
            (None, None, _) => Outcome::Done,
        };
        if read.is_some() && outcome == Outcome::Done && is_wanted {
            for (_, slice) in pieces.drain(..) {
                self.send_data_in(place, id, task, &slice);
            }
        } else {
            pieces.clear();
            self.with_target(place, |target, out| target.done(id, task, &outcome, out));
        }
        if let Some(client) = &mut self.clients[place] {
            client.deeds[number].pieces = pieces;
        }
        if is_last {
            self.forget_client(place);
        }
    }

    fn send_data_in(&mut self, place: usize, id: SessionId, task: TaskId, slice: &Slice) {
        let Some(client) = &self.clients[place] else { return };
        let volume = client.volume;
        let mut at = 0;
        while at < slice.len() {
            let target = self.volumes[volume].target();
            let (head, count) = target.data_in(id, task, slice.len() - at);
            let has_digest = target.has_data_digest(id);
            let body = slice.part(at..at + count);
            at += count;
            let padding = &[0; 3][..count.wrapping_neg() & 3];
            let mut tail = padding.to_vec();
            if has_digest {
                let crc = crc32c::crc32c_append(crc32c::crc32c(&body), padding);
                tail.extend_from_slice(&crc.to_le_bytes());
            }
            self.send_to_client(place, &head, Some(body));
            if !tail.is_empty() {
                self.send_to_client(place, &tail, None);
            }
        }
    }

    pub(in super::super) fn reservations_stored(&mut self, index: usize, whose: Reserving, is_stored: bool) {
        let Reserving { session, task } = whose;
        let is_its =
            |client: &super::Client| client.volume == index && matches!(client.talk, Talk::Iscsi(id) if id == session);
        let place = self.clients.iter().position(|it| it.as_ref().is_some_and(is_its));
        let outcome = if is_stored { Outcome::Done } else { Outcome::NotStored };
        if let Some(place) = place {
            self.with_target(place, |target, out| target.done(session, task, &outcome, out));
        }
    }

    /// Its connection is gone.
    pub(super) fn initiator_left(&mut self, volume: usize, id: SessionId) {
        if id != NOBODY {
            self.volumes[volume].target().closed(id);
            self.target_events(volume);
        }
    }

    /// Attachments may have been revoked: their sessions end.
    pub(in super::super) fn end_initiators_without_right(&mut self, index: usize) {
        for place in 0..self.clients.len() {
            let Some(client) = &self.clients[place] else { continue };
            let is_initiator = client.volume == index && matches!(client.talk, Talk::Iscsi(_));
            if is_initiator && !self.volumes[index].admits(client.attachment) {
                tracing::info!(volume = %self.volumes[index].id, "an initiator's right to the volume is gone, and so is its session");
                self.close_client(place);
            }
        }
        self.target_events(index);
    }
}

/// The session of a client whose place another has taken.
pub(super) const NOBODY: SessionId = SessionId(u32::MAX);

fn compared(pieces: &[(u32, Slice)], data: &[u8]) -> Outcome {
    let there = pieces.iter().flat_map(|(_, slice)| slice.iter());
    match there.zip(data).position(|(there, expected)| there != expected) {
        Some(at) => Outcome::Differs { at: at as u64 },
        None => Outcome::Done,
    }
}
