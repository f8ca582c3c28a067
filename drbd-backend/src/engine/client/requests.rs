//! What clients ask for becomes what a volume's replica is asked, in pieces of whole blocks, and the answers go back.

use std::collections::VecDeque;

use replication::{Answer, Ask, BLOCK_BYTES, Content, Failure as Refused, Request as Number, Span};

use super::super::pool::MAX_PIECE_BYTES;
use super::super::volume::{Held, bytes_of, offset_of};
use super::{Client, Engine, Payload, Talk};
use crate::disk::{Buffer, Slice};
use crate::export::nbd::{Errno, Extent, Request, Session, Step};

/// One request of a client. Its place and its list are used again.
pub(super) struct Deed {
    /// NBD's cookie, or iSCSI's task.
    pub(super) cookie: u64,
    pub(super) read: Option<(u64, u32)>,
    /// Its payload is not whole.
    pub(super) write: Option<Writing>,
    /// What it needs of the memory that clients may use.
    bytes: usize,
    /// Pieces that are not answered.
    left: usize,
    /// No further piece will come.
    pub(super) whole: bool,
    pub(super) failure: Option<Refused>,
    pub(super) pieces: Vec<(u32, Slice)>,
    /// What iSCSI wants done with it when all pieces are answered.
    pub(super) then: Then,
    /// What was there is not what was to be there, from this byte on.
    pub(super) differs: Option<u64>,
    /// So long it has been open.
    pub(super) seconds: u8,
}

/// What becomes of a deed whose pieces are answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Then {
    /// Its client hears of it.
    #[default]
    Answer,
    /// What was read is compared with this first; with nothing, it is enough that it could be read.
    Compare(Option<Vec<u8>>),
    /// What was written from here on is read, and compared.
    Verify(u64, Vec<u8>),
    /// What was read is written there, then the other segments are copied: from, to, bytes.
    Copy(u64, VecDeque<(u64, u64, u32)>),
    /// What was read is written: on with these.
    Copied(VecDeque<(u64, u64, u32)>),
    /// It was dropped while it was under way.
    Drop,
}

/// A write whose payload is not whole: piece after piece goes to the volume.
pub(super) struct Writing {
    offset: u64,
    pub(super) left: usize,
    fua: bool,
    pub(super) buffer: Option<Buffer>,
    pub(super) have: usize,
}

/// The cookie of a deed that is over, as far as iSCSI's tasks go.
pub(super) const NOBODYS: u64 = u64::MAX;

/// Whose piece it is.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Owner {
    client: usize,
    serial: u32,
    deed: usize,
}

/// One piece, as the volume's replica was asked for it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Asked {
    pub(in super::super) client: usize,
    pub(super) serial: u32,
    pub(super) deed: usize,
    piece: u32,
    /// Of what is read, the bytes that the client wants.
    skip: usize,
    bytes: usize,
}

impl Engine {
    pub(super) fn take_request(&mut self, place: usize) -> bool {
        let Some(Client { talk: Talk::Nbd(session), inbox, .. }) = &mut self.clients[place] else { return false };
        let (taken, step) = match session.received(inbox.bytes()) {
            Ok(received) => received,
            Err(error) => {
                tracing::info!("an NBD client is gone: {error}");
                self.close_client(place);
                return false;
            }
        };
        inbox.take(taken);
        match step {
            Step::More => {}
            Step::Payload(_) => unreachable!("a payload is taken by its write"),
            Step::Answer(reply) => self.send_to_client(place, &reply, None),
            Step::Request(request) => self.request(place, request),
        }
        true
    }

    fn request(&mut self, place: usize, request: Request) {
        match request {
            Request::Read { cookie, offset, length, .. } => {
                let deed = self.deed(place, cookie, Some((offset, length)), length as usize);
                self.read(place, deed, offset, offset + u64::from(length));
                self.deed_is_whole(place, deed);
            }
            Request::Write { cookie, offset, length, fua } => {
                let left = length as usize;
                let deed = self.deed(place, cookie, None, left);
                self.write_begins(place, deed, offset, left, fua);
                if let Some(client) = &mut self.clients[place] {
                    client.payload = Some(Payload { deed, left, is_direct: false });
                }
            }
            Request::Zeroes { cookie, fast: true, .. } if self.is_slow_to_zero(place) => {
                let text = "the file system can only write zeroes";
                self.answer_at_once(place, |session| session.failed(cookie, Errno::NotSupported, text));
            }
            Request::Zeroes { cookie, offset, length, may_trim, fua, .. } => {
                let deed = self.deed(place, cookie, None, 0);
                self.zeroes(place, deed, (offset, offset + u64::from(length)), may_trim, fua);
                self.deed_is_whole(place, deed);
            }
            Request::Trim { cookie, offset, length, fua } => {
                let deed = self.deed(place, cookie, None, 0);
                let block = u64::from(BLOCK_BYTES);
                let (start, end) = (offset.next_multiple_of(block), (offset + u64::from(length)) / block * block);
                if start < end {
                    self.zeroes(place, deed, (start, end), true, fua);
                }
                self.deed_is_whole(place, deed);
            }
            Request::Flush { cookie } => {
                let deed = self.deed(place, cookie, None, 0);
                self.piece(place, deed, (0, 0, 0), Ask::Flush);
                self.deed_is_whole(place, deed);
            }
            Request::BlockStatus { cookie, length, one, .. } => self.block_status(place, cookie, length, one),
            Request::Cache { cookie, .. } => self.answer_at_once(place, |session| session.done(cookie)),
            Request::Disconnect => self.leave(place),
        }
    }

    fn answer_at_once(&mut self, place: usize, reply: impl Fn(&Session) -> crate::export::nbd::Reply) {
        let Some(Client { talk: Talk::Nbd(session), .. }) = &self.clients[place] else { return };
        let reply = reply(session);
        self.send_to_client(place, &reply, None);
    }

    /// All of it counts as data, which is always true enough.
    fn block_status(&mut self, place: usize, cookie: u64, length: u32, one: bool) {
        let Some(Client { talk: Talk::Nbd(session), .. }) = &self.clients[place] else { return };
        let mut out = Vec::new();
        let extent = Extent { length: u64::from(length), is_hole: false, is_zero: false };
        session.block_status(cookie, length, one, [extent], &mut out);
        self.send_to_client(place, &out, None);
    }

    fn is_slow_to_zero(&self, place: usize) -> bool {
        self.clients[place].as_ref().is_some_and(|client| self.volumes[client.volume].is_slow_to_zero)
    }

    pub(super) fn leave(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        client.leaving = true;
        if client.open == 0 {
            self.forget_client(place);
        }
    }

    pub(super) fn read(&mut self, place: usize, deed: usize, offset: u64, end: u64) {
        let (mut at, mut piece) = (offset, 0);
        while at < end {
            let span = piece_from(at, end);
            let (skip, bytes) = within(span, at, end);
            self.piece(place, deed, (piece, skip, bytes), Ask::Read(span));
            at += bytes as u64;
            piece += 1;
        }
    }

    /// Whole blocks become zeroes; what does not fill its blocks is written.
    pub(super) fn zeroes(&mut self, place: usize, deed: usize, (start, end): (u64, u64), punch: bool, fua: bool) {
        let mut at = start;
        while at < end {
            let span = piece_from(at, end);
            let (skip, bytes) = within(span, at, end);
            if skip == 0 && bytes as u64 == bytes_of(span) {
                at += bytes as u64;
                self.piece(
                    place,
                    deed,
                    (0, 0, 0),
                    Ask::Write { span, content: Content::Zeroes { punch }, durable: fua },
                );
                continue;
            }
            let first = Span::new(span.start, 1);
            let (skip, bytes) = within(first, at, end);
            at += bytes as u64;
            let mut buffer = self.pool.take_or_grow(bytes);
            buffer.fill(0);
            let Some(client) = &self.clients[place] else { return };
            let payload = self.volumes[client.volume].hold(Held::part(buffer.share(), skip));
            self.piece(place, deed, (0, 0, 0), Ask::WritePart { span: first, payload, durable: fua });
        }
    }

    /// Its payload comes next, or is asked for.
    pub(super) fn write_begins(&mut self, place: usize, deed: usize, offset: u64, left: usize, fua: bool) {
        let Some(client) = &mut self.clients[place] else { return };
        client.writes += 1;
        client.deeds[deed].write = Some(Writing { offset, left, fua, buffer: None, have: 0 });
    }

    /// What there is of the payload that is due goes to where it shall stay.
    pub(super) fn take_payload(&mut self, place: usize) -> bool {
        let Some(Client { payload: Some(payload), deeds, inbox, .. }) = &mut self.clients[place] else { return false };
        let deed = payload.deed;
        let Some(write) = &mut deeds[deed].write else { return false };
        if write.buffer.is_none() {
            write.buffer = self.pool.take(write.piece_bytes());
        }
        let Some(buffer) = &mut write.buffer else { return false };
        let room = (buffer.len() - write.have).min(payload.left);
        let count = inbox.move_to(&mut buffer[write.have..write.have + room]);
        write.have += count;
        payload.left -= count;
        let is_full = write.have == buffer.len();
        if count > 0 {
            self.payload_came(place, count);
        }
        if is_full {
            self.piece_is_full(place, deed);
        }
        count > 0 || is_full
    }

    /// As much as there is, from memory.
    pub(super) fn put_payload(&mut self, place: usize, deed: usize, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let Some(client) = &mut self.clients[place] else { return };
            let Some(write) = &mut client.deeds[deed].write else { return };
            let piece_bytes = write.piece_bytes();
            let buffer = write.buffer.get_or_insert_with(|| self.pool.take_or_grow(piece_bytes));
            let count = bytes.len().min(buffer.len() - write.have);
            buffer[write.have..write.have + count].copy_from_slice(&bytes[..count]);
            write.have += count;
            bytes = &bytes[count..];
            if write.have == buffer.len() {
                self.piece_is_full(place, deed);
            }
        }
    }

    /// A piece of a write is whole: the volume is asked for it.
    pub(super) fn piece_is_full(&mut self, place: usize, deed: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        let Some(write) = &mut client.deeds[deed].write else { return };
        let slice = write.buffer.take().expect("it is there").share();
        let bytes = slice.len();
        let (offset, durable) = (write.offset, write.fua);
        (write.offset, write.left, write.have) = (offset + bytes as u64, write.left - bytes, 0);
        let is_whole = write.left == 0;
        if is_whole {
            client.deeds[deed].write = None;
            client.writes -= 1;
        }
        let span = piece_from(offset, offset + bytes as u64);
        let (skip, _) = within(span, offset, offset + bytes as u64);
        let volume = &mut self.volumes[client.volume];
        let ask = if skip == 0 && bytes as u64 == bytes_of(span) {
            Ask::Write { span, content: Content::Data(volume.hold(Held::whole(slice))), durable }
        } else {
            Ask::WritePart { span, payload: volume.hold(Held::part(slice, skip)), durable }
        };
        self.piece(place, deed, (0, 0, 0), ask);
        if is_whole {
            self.deed_is_whole(place, deed);
        }
    }

    pub(super) fn deed(&mut self, place: usize, cookie: u64, read: Option<(u64, u32)>, bytes: usize) -> usize {
        let client = self.clients[place].as_mut().expect("it has just asked");
        client.open += 1;
        client.bytes += bytes;
        self.client_bytes += bytes;
        let deed = |pieces: Vec<(u32, Slice)>| Deed {
            cookie,
            read,
            write: None,
            bytes,
            left: 0,
            whole: false,
            failure: None,
            pieces,
            then: Then::Answer,
            differs: None,
            seconds: 0,
        };
        let Some(number) = client.free.pop() else {
            client.deeds.push(deed(Vec::new()));
            return client.deeds.len() - 1;
        };
        let pieces = std::mem::take(&mut client.deeds[number].pieces);
        client.deeds[number] = deed(pieces);
        number
    }

    pub(super) fn piece(&mut self, place: usize, deed: usize, (piece, skip, bytes): (u32, usize, usize), ask: Ask) {
        let Some(client) = &mut self.clients[place] else { return };
        client.deeds[deed].left += 1;
        let asked = Asked { client: place, serial: client.serial, deed, piece, skip, bytes };
        let volume = client.volume;
        self.ask(volume, asked, ask);
    }

    pub(super) fn deed_is_whole(&mut self, place: usize, deed: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        client.deeds[deed].whole = true;
        self.answer_when_done(place, deed);
    }

    /// The replica has answered a piece.
    pub(in super::super) fn answer(&mut self, index: usize, request: Number, answer: Answer) {
        let volume = &mut self.volumes[index];
        let asked = volume.requests.take(request.0).expect("each request is answered once");
        let read = match answer {
            Answer::Data(payload) => Some(volume.let_go(payload).slice),
            Answer::Done | Answer::Failed(_) => None,
        };
        let Some(client) = self.client(asked.client, asked.serial) else { return };
        let deed = &mut client.deeds[asked.deed];
        deed.left -= 1;
        if let Some(slice) = read {
            deed.pieces.push((asked.piece, slice.part(asked.skip..asked.skip + asked.bytes)));
        }
        if let Answer::Failed(failure) = answer {
            deed.failure = deed.failure.or(Some(failure));
        }
        self.answer_when_done(asked.client, asked.deed);
    }

    pub(super) fn answer_when_done(&mut self, place: usize, number: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        let Client { deeds, talk, .. } = client;
        let deed = &mut deeds[number];
        if !deed.whole || deed.left > 0 {
            return;
        }
        let session = match talk {
            Talk::Nbd(session) => session,
            Talk::Iscsi(id) => {
                let id = *id;
                return self.answer_initiator(place, id, number);
            }
        };
        let reply = match (deed.failure, deed.read) {
            // Another node serves now, or soon: the client finds it when it connects anew.
            (Some(Refused::NotPrimary { .. } | Refused::Withdrawn), _) => return self.close_client(place),
            (Some(Refused::Io), _) => session.failed(deed.cookie, Errno::Io, "the only disk that is left failed"),
            // Not ESHUTDOWN, on which clients connect anew and wait: this is final, and their user shall see it at once.
            (Some(Refused::Revoked), _) => {
                session.failed(deed.cookie, Errno::NotPermitted, "this attachment was revoked")
            }
            (Some(Refused::OutOfRange), _) => {
                session.failed(deed.cookie, Errno::Invalid, "beyond the end of the volume")
            }
            (None, Some((offset, length))) => session.read(deed.cookie, offset, length),
            (None, None) => session.done(deed.cookie),
        };
        let has_failed = deed.failure.is_some();
        let (mut pieces, is_last) = self.deed_is_over(place, number);
        let mut bodies = pieces.drain(..).map(|(_, slice)| slice).filter(|_| !has_failed);
        self.send_to_client(place, &reply, bodies.next());
        for body in bodies {
            self.send_to_client(place, &[], Some(body));
        }
        if let Some(client) = &mut self.clients[place] {
            client.deeds[number].pieces = pieces;
        }
        if is_last {
            self.forget_client(place);
        }
    }

    /// Its number is free. What was read for it, in order; and whether its client, which leaves, waits for nothing more.
    pub(super) fn deed_is_over(&mut self, place: usize, number: usize) -> (Vec<(u32, Slice)>, bool) {
        let client = self.clients[place].as_mut().expect("whose deed it is");
        let deed = &mut client.deeds[number];
        let mut pieces = std::mem::take(&mut deed.pieces);
        let bytes = std::mem::take(&mut deed.bytes);
        deed.cookie = NOBODYS;
        client.open -= 1;
        client.bytes -= bytes;
        client.free.push(number);
        self.client_bytes -= bytes;
        pieces.sort_unstable_by_key(|(number, _)| *number);
        (pieces, client.leaving && client.open == 0)
    }

    /// A partial write found something else than it was to find.
    pub(in super::super) fn differs(&mut self, owner: Owner, at: u64) {
        if let Some(client) = self.client(owner.client, owner.serial) {
            client.deeds[owner.deed].differs = Some(at);
        }
    }

    /// Whose a piece of this deed will be.
    pub(super) fn owner(&self, place: usize, deed: usize) -> Owner {
        let serial = self.clients[place].as_ref().map_or(0, |client| client.serial);
        Owner { client: place, serial, deed }
    }
}

impl Writing {
    /// Of the next piece: it ends with a whole block, or with the write.
    fn piece_bytes(&self) -> usize {
        let end = self.offset + self.left as u64;
        let span = piece_from(self.offset, end);
        within(span, self.offset, end).1
    }
}

/// The longest piece from here: the rest of a block that is begun, whole blocks, or the beginning of the last one.
pub(super) fn piece_from(at: u64, end: u64) -> Span {
    let block = u64::from(BLOCK_BYTES);
    let first = at / block;
    let whole_end = end / block;
    if !at.is_multiple_of(block) || whole_end == first {
        return Span::new(first, 1);
    }
    let most = (MAX_PIECE_BYTES as u64) / block;
    Span::new(first, u32::try_from((whole_end - first).min(most)).expect("a piece has few blocks"))
}

/// Where in the span the bytes from `at` to `end` lie: how far in, and how many.
pub(super) fn within(span: Span, at: u64, end: u64) -> (usize, usize) {
    let start = offset_of(span);
    let last = (start + bytes_of(span)).min(end);
    let as_usize = |bytes: u64| usize::try_from(bytes).expect("a piece fits into memory");
    (as_usize(at - start), as_usize(last - at))
}
