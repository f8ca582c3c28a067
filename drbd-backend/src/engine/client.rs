//! NBD clients: their requests become those of a volume, in pieces of whole blocks, and the answers go back.

use std::net::TcpStream;

use replication::{Answer, Ask, BLOCK_BYTES, Content, Failure as Refused, Request as Number, Role, Span, Time, Why};
use uuid::Uuid;

use super::pool::MAX_PIECE_BYTES;
use super::volume::{Held, Volume};
use super::{Engine, Token, Volumes};
use crate::disk::{
    Buffer, Completion, Failure, HEAD_BYTES as INLINE_BYTES, Head, Operation, Slice, Socket, boottime_ns,
};
use crate::export::nbd::{
    Errno, Export, Exports, Extent, GREETING, Handshake, Opened, Progress, REQUEST_BYTES, Refusal, Reply, Request,
    Session, Step, Tls, Wants,
};

/// What is received in one go behind a request: the usual payload.
const USUAL_BYTES: usize = 4096;

/// How long a client waits for a takeover before it is refused: longer than one takes with the default lease.
const TAKEOVER_PATIENCE_NS: u64 = 5_000_000_000;

/// Requests of one client that are not answered: it is not heard further meanwhile.
const MOST_REQUESTS: usize = 256;

pub(super) struct Client {
    socket: Socket,
    /// No two clients have the same.
    serial: u64,
    stage: Stage,
    stash: Vec<u8>,
    /// What it wants done, by number.
    deeds: Vec<Option<Deed>>,
    open: usize,
    receiving: bool,
    thirsty: bool,
    sending: usize,
    closed: bool,
    /// So long, at most, the answer to its choice of an export waits for a takeover.
    waits_until: Option<u64>,
    /// As whom it asks: its attachment's number, or 0 for the node itself.
    pub(super) attachment: u32,
}

enum Stage {
    Handshake(Handshake),
    Session {
        volume: usize,
        session: Session,
    },
    /// The payload of a write is coming in.
    Payload {
        volume: usize,
        session: Session,
        write: Writing,
    },
}

/// A write whose payload is not whole: piece after piece goes to the volume.
struct Writing {
    deed: usize,
    offset: u64,
    left: usize,
    fua: bool,
    buffer: Option<Buffer>,
    have: usize,
}

/// One request of a client.
struct Deed {
    cookie: u64,
    read: Option<(u64, u32)>,
    /// Pieces that are not answered.
    left: usize,
    /// No further piece will come.
    whole: bool,
    failure: Option<Refused>,
    pieces: Vec<(u32, Slice)>,
}

/// One piece, as the volume's replica was asked for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) client: usize,
    serial: u64,
    deed: usize,
    piece: u32,
    /// Of what is read, the bytes that the client wants.
    skip: usize,
    bytes: usize,
}

/// What there is at this moment.
struct Now<'a> {
    volumes: &'a Volumes,
    time: Time,
    /// Whether a client may wait for a takeover that is under way. One that is refused stays away for long: QEMU for seven seconds.
    may_wait: bool,
}

impl Now<'_> {
    fn volume(&self, name: &str) -> Option<(usize, &Volume)> {
        self.volumes.each().find(|(_, volume)| volume.id.to_string() == name)
    }

    /// Whose requests an export's are: the node's own, or an attachment's.
    fn client(volume: &Volume, epoch: u64, attachment: Option<&str>) -> Result<(u32, bool), Refusal> {
        let Some(name) = attachment else { return Ok((0, false)) };
        let found = volume.replica.control().attachments.iter().find(|it| Uuid::from_u128(it.id).to_string() == name);
        match found {
            None => Err(Refusal::Unknown(format!("volume {} has no attachment {name}", volume.id))),
            Some(it) if it.revoked => Err(Refusal::Policy(format!("attachment {name} was revoked"))),
            Some(it) if it.epoch != epoch => Err(Refusal::Policy(format!(
                "attachment {name} is from before the volume lost what was not flushed: attach anew"
            ))),
            Some(it) => Ok((it.client, it.read_only)),
        }
    }
}

impl Exports for Now<'_> {
    /// `UUID`, or `UUID/ATTACHMENT`.
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        let (id, attachment) = name.split_once('/').map_or((name, None), |(id, attachment)| (id, Some(attachment)));
        let Some((_, volume)) = self.volume(id) else {
            return Err(Refusal::Unknown(format!("there is no volume {id} on this node")));
        };
        let status = volume.replica.status(self.time);
        match status.why {
            _ if status.role == Role::Primary => {}
            Some(Why::WaitsForTheArbiter | Why::Grace(_) | Why::Promoting | Why::TakingOver) if self.may_wait => {
                return Err(Refusal::NotYet);
            }
            Some(why) => return Err(Refusal::Policy(format!("volume {id} is not served here: {why}"))),
            None => {
                let primary = status.record.primary.map_or_else(|| "none".to_owned(), |node| node.to_string());
                return Err(Refusal::Policy(format!("volume {id} is Secondary here; its Primary is {primary}")));
            }
        }
        let (_, is_read_only) = Self::client(volume, status.record.epoch, attachment)?;
        Ok(Export {
            name: name.to_owned(),
            description: "a replicated volume".to_owned(),
            size_bytes: status.size_blocks * u64::from(BLOCK_BYTES),
            is_read_only,
        })
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        self.volumes.each().for_each(|(_, volume)| show(&volume.id.to_string(), "a replicated volume"));
    }
}

impl Engine {
    pub(super) fn client_connected(&mut self, stream: TcpStream) {
        let Ok(socket) = Socket::new(stream).and_then(|socket| socket.set_nodelay().map(|()| socket)) else { return };
        self.clients_seen += 1;
        let client = Client {
            socket,
            serial: self.clients_seen,
            stage: Stage::Handshake(Handshake::new(Tls::None)),
            stash: Vec::new(),
            deeds: Vec::new(),
            open: 0,
            receiving: false,
            thirsty: false,
            sending: 0,
            closed: false,
            waits_until: None,
            attachment: 0,
        };
        let place = self.clients.iter().position(Option::is_none).unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        self.clients[place] = Some(client);
        self.send_to_client(place, &GREETING, None);
        self.hear_client(place);
    }

    /// Receives more, if there is memory and the client does not ask for too much at once.
    fn hear_client(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if client.closed || client.receiving || client.open >= MOST_REQUESTS {
            return;
        }
        let socket = client.socket.clone();
        let operation = match &mut client.stage {
            Stage::Payload { write, .. } => {
                let Some(buffer) = write.buffer.take().or_else(|| self.pool.take(write.piece_bytes())) else {
                    return self.is_thirsty(place);
                };
                let into = write.have..buffer.len();
                let at_least = into.len();
                Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least }
            }
            Stage::Handshake(_) | Stage::Session { .. } => {
                let Some(buffer) = self.pool.take(USUAL_BYTES) else { return self.is_thirsty(place) };
                let head = match &client.stage {
                    Stage::Session { session, .. } => match session.wants() {
                        Wants::Request(count) => count,
                        _ => 0,
                    },
                    _ => 0,
                };
                Operation::Recv { socket, head, buffer: Some(buffer), into: 0..USUAL_BYTES, at_least: head.max(1) }
            }
        };
        client.receiving = true;
        self.ring.submit(operation, Token::ClientReceived(place).pack());
    }

    fn is_thirsty(&mut self, place: usize) {
        if let Some(client) = &mut self.clients[place]
            && !std::mem::replace(&mut client.thirsty, true)
        {
            self.thirsty.push(place);
        }
    }

    pub(super) fn serve_the_thirsty(&mut self) {
        for place in std::mem::take(&mut self.thirsty) {
            if let Some(client) = &mut self.clients[place] {
                client.thirsty = false;
            }
            self.take_requests(place);
            self.hear_client(place);
        }
    }

    pub(super) fn client_received(&mut self, place: usize, completion: Completion) {
        let Some(client) = &mut self.clients[place] else { return };
        client.receiving = false;
        let count = match completion.result {
            Ok(count) if count > 0 && !client.closed => count,
            _ => return self.close_client(place),
        };
        let buffer = completion.buffer.expect("every receive has a buffer");
        match &mut client.stage {
            Stage::Payload { write, .. } => {
                write.have += count;
                write.buffer = Some(buffer);
            }
            Stage::Handshake(_) => client.stash.extend_from_slice(&buffer[..count]),
            Stage::Session { .. } => {
                let behind = count - completion.head.len();
                self.request_received(place, &completion.head, buffer, behind);
            }
        }
        self.take_requests(place);
        self.hear_client(place);
    }

    /// A request, and what came behind it at the start of this buffer: if that is its payload, it stays there.
    fn request_received(&mut self, place: usize, head: &Head, buffer: Buffer, behind: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if head.len() != REQUEST_BYTES || !client.stash.is_empty() {
            client.stash.extend_from_slice(head);
            client.stash.extend_from_slice(&buffer[..behind]);
            return;
        }
        client.stash.extend_from_slice(head);
        self.take_requests(place);
        let Some(client) = &mut self.clients[place] else { return };
        match &mut client.stage {
            Stage::Payload { write, .. } if write.piece_bytes() == USUAL_BYTES && write.have == 0 => {
                write.have = behind.min(USUAL_BYTES);
                client.stash.extend_from_slice(&buffer[write.have..behind]);
                write.buffer = Some(buffer);
            }
            _ => client.stash.extend_from_slice(&buffer[..behind]),
        }
    }

    /// Takes whatever is whole. A request may be answered at once, and its answer leads here again: nothing is received before the outermost is through, for what comes
    /// next, and into which buffer, only that one knows.
    fn take_requests(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        let receiving = std::mem::replace(&mut client.receiving, true);
        while self.take_one(place) {}
        let Some(client) = &mut self.clients[place] else { return };
        client.receiving = receiving;
        if client.closed {
            self.close_client(place);
        }
    }

    fn take_one(&mut self, place: usize) -> bool {
        let Some(client) = &mut self.clients[place] else { return false };
        if client.closed || client.open >= MOST_REQUESTS {
            return false;
        }
        match &mut client.stage {
            Stage::Handshake(_) => self.shake_hands(place),
            Stage::Session { .. } => self.take_request(place),
            Stage::Payload { .. } => self.take_payload(place),
        }
    }

    fn shake_hands(&mut self, place: usize) -> bool {
        let Some(client) = &mut self.clients[place] else { return false };
        let now = boottime_ns();
        if client.stash.is_empty() && client.waits_until.is_none() {
            return false;
        }
        let may_wait = client.waits_until.is_none_or(|until| now < until);
        let exports = Now { volumes: &self.volumes, time: Time(now), may_wait };
        let Stage::Handshake(handshake) = &mut client.stage else { return false };
        let mut out = Vec::new();
        let stash = std::mem::take(&mut client.stash);
        let received = handshake.received(&stash, &exports, &mut out);
        let Ok((taken, progress)) = received.inspect_err(|error| tracing::info!("an NBD client is gone: {error}"))
        else {
            self.close_client(place);
            return false;
        };
        client.stash = stash[taken..].to_vec();
        let went_on = match progress {
            Progress::Waiting => {
                if client.waits_until.is_none() {
                    client.waits_until = Some(now + TAKEOVER_PATIENCE_NS);
                    self.waiting.push(place);
                }
                false
            }
            Progress::More => {
                client.waits_until = None;
                taken > 0
            }
            Progress::Opened(opened) => {
                let Opened { export, session } = *opened;
                client.waits_until = None;
                let (id, attachment) = match export.name.split_once('/') {
                    Some((id, attachment)) => (id, Some(attachment)),
                    None => (export.name.as_str(), None),
                };
                let (volume, it) = exports.volume(id).expect("it was among the exports");
                let epoch = it.replica.status(exports.time).record.epoch;
                let (attachment, _) = Now::client(it, epoch, attachment).expect("it was found a moment ago");
                client.attachment = attachment;
                client.stage = Stage::Session { volume, session };
                true
            }
            Progress::StartTls | Progress::Aborted => {
                self.send_to_client(place, &out, None);
                self.close_client(place);
                return false;
            }
        };
        if !out.is_empty() {
            self.send_to_client(place, &out, None);
        }
        went_on
    }

    /// Whether somebody waits for a takeover is looked at again now and then.
    pub(super) fn shake_hands_that_wait(&mut self) {
        for place in std::mem::take(&mut self.waiting) {
            let is_waiting = |client: &Client| client.waits_until.is_some() && !client.closed;
            if !self.clients[place].as_ref().is_some_and(is_waiting) {
                continue;
            }
            self.take_requests(place);
            self.hear_client(place);
            if self.clients[place].as_ref().is_some_and(is_waiting) {
                self.waiting.push(place);
            }
        }
    }

    fn take_request(&mut self, place: usize) -> bool {
        let Some(client) = &mut self.clients[place] else { return false };
        if client.stash.is_empty() {
            return false;
        }
        let Stage::Session { volume, session } = &mut client.stage else { return false };
        let volume = *volume;
        match session.received(&client.stash) {
            Err(error) => {
                tracing::info!("an NBD client is gone: {error}");
                self.close_client(place);
                false
            }
            Ok((taken, step)) => {
                client.stash.drain(..taken);
                match step {
                    Step::More | Step::Payload(_) => taken > 0 && !client.stash.is_empty(),
                    Step::Answer(reply) => {
                        self.reply(place, &reply, None);
                        true
                    }
                    Step::Request(request) => {
                        self.request(place, volume, request);
                        true
                    }
                }
            }
        }
    }

    fn request(&mut self, place: usize, volume: usize, request: Request) {
        match request {
            Request::Read { cookie, offset, length, .. } => {
                let deed = self.deed(place, cookie, Some((offset, length)));
                let end = offset + u64::from(length);
                let mut at = offset;
                let mut piece = 0;
                while at < end {
                    let span = piece_from(at, end);
                    let (skip, bytes) = within(span, at, end);
                    self.piece(place, volume, deed, (piece, skip, bytes), Ask::Read(span));
                    at += bytes as u64;
                    piece += 1;
                }
                self.deed_is_whole(place, deed);
            }
            Request::Write { cookie, offset, length, fua } => {
                let deed = self.deed(place, cookie, None);
                let Some(client) = &mut self.clients[place] else { return };
                let write = Writing { deed, offset, left: length as usize, fua, buffer: None, have: 0 };
                client.stage = match std::mem::replace(&mut client.stage, Stage::Handshake(Handshake::new(Tls::None))) {
                    Stage::Session { volume, session } => Stage::Payload { volume, session, write },
                    stage => stage,
                };
            }
            Request::Zeroes { cookie, offset, length, may_trim, fua, .. } => {
                let deed = self.deed(place, cookie, None);
                self.zeroes(place, volume, deed, (offset, offset + u64::from(length)), may_trim, fua);
                self.deed_is_whole(place, deed);
            }
            Request::Trim { cookie, offset, length, fua } => {
                let deed = self.deed(place, cookie, None);
                let block = u64::from(BLOCK_BYTES);
                let (start, end) = (offset.next_multiple_of(block), (offset + u64::from(length)) / block * block);
                if start < end {
                    self.zeroes(place, volume, deed, (start, end), true, fua);
                }
                self.deed_is_whole(place, deed);
            }
            Request::Flush { cookie } => {
                let deed = self.deed(place, cookie, None);
                self.piece(place, volume, deed, (0, 0, 0), Ask::Flush);
                self.deed_is_whole(place, deed);
            }
            Request::BlockStatus { cookie, length, one, .. } => {
                let Some(Client { stage: Stage::Session { session, .. }, .. }) = &self.clients[place] else { return };
                let mut out = Vec::new();
                session.block_status(
                    cookie,
                    length,
                    one,
                    [Extent { length: u64::from(length), is_hole: false, is_zero: false }],
                    &mut out,
                );
                self.send_to_client(place, &out, None);
            }
            Request::Cache { cookie, .. } => {
                let Some(Client { stage: Stage::Session { session, .. }, .. }) = &self.clients[place] else { return };
                let reply = session.done(cookie);
                self.reply(place, &reply, None);
            }
            Request::Disconnect => {
                if self.clients[place].as_ref().is_some_and(|client| client.open == 0) {
                    self.close_client(place);
                }
            }
        }
    }

    /// Whole blocks become zeroes; what does not fill its blocks is written.
    fn zeroes(&mut self, place: usize, volume: usize, deed: usize, (start, end): (u64, u64), punch: bool, fua: bool) {
        let block = u64::from(BLOCK_BYTES);
        let mut at = start;
        while at < end {
            let span = piece_from(at, end);
            let (skip, bytes) = within(span, at, end);
            let is_whole = skip == 0 && bytes as u64 == super::volume::bytes_of(span);
            let ask = if is_whole {
                Ask::Write { span, content: Content::Zeroes { punch }, durable: fua }
            } else {
                let first = Span::new(span.start, 1);
                let (skip, bytes) = within(first, at, end);
                let mut buffer = self.pool.take_or_grow(bytes);
                buffer.fill(0);
                let payload = self.volumes[volume].hold(Held::part(buffer.share(), skip));
                at = (first.end() * block).min(end);
                self.piece(place, volume, deed, (0, 0, 0), Ask::WritePart { span: first, payload, durable: fua });
                continue;
            };
            at += bytes as u64;
            self.piece(place, volume, deed, (0, 0, 0), ask);
        }
    }

    /// The next piece of a write's payload, if it is there.
    fn take_payload(&mut self, place: usize) -> bool {
        let Some(client) = &mut self.clients[place] else { return false };
        let Stage::Payload { volume, session, write } = &mut client.stage else { return false };
        let volume = *volume;
        if write.buffer.is_none() {
            let Some(buffer) = self.pool.take(write.piece_bytes()) else {
                self.is_thirsty(place);
                return false;
            };
            write.buffer = Some(buffer);
        }
        let Some(buffer) = &mut write.buffer else { return false };
        let count = client.stash.len().min(buffer.len() - write.have);
        buffer[write.have..write.have + count].copy_from_slice(&client.stash[..count]);
        client.stash.drain(..count);
        write.have += count;
        if write.have < buffer.len() {
            return false;
        }
        let slice = write.buffer.take().expect("it is there").share();
        let bytes = slice.len();
        let is_whole = session.payload_received(u32::try_from(bytes).expect("at most 1 MiB"));
        let (offset, deed, fua) = (write.offset, write.deed, write.fua);
        write.offset += bytes as u64;
        write.left -= bytes;
        write.have = 0;
        if is_whole {
            client.stage = match std::mem::replace(&mut client.stage, Stage::Handshake(Handshake::new(Tls::None))) {
                Stage::Payload { volume, session, .. } => Stage::Session { volume, session },
                stage => stage,
            };
        }
        let span = piece_from(offset, offset + bytes as u64);
        let (skip, _) = within(span, offset, offset + bytes as u64);
        let ask = if skip == 0 && bytes as u64 == super::volume::bytes_of(span) {
            let payload = self.volumes[volume].hold(Held::whole(slice));
            Ask::Write { span, content: Content::Data(payload), durable: fua }
        } else {
            let payload = self.volumes[volume].hold(Held::part(slice, skip));
            Ask::WritePart { span, payload, durable: fua }
        };
        self.piece(place, volume, deed, (0, 0, 0), ask);
        if is_whole {
            self.deed_is_whole(place, deed);
        }
        true
    }

    fn deed(&mut self, place: usize, cookie: u64, read: Option<(u64, u32)>) -> usize {
        let Some(client) = &mut self.clients[place] else { unreachable!("it has just asked") };
        let deed = Deed { cookie, read, left: 0, whole: false, failure: None, pieces: Vec::new() };
        client.open += 1;
        if let Some(free) = client.deeds.iter().position(Option::is_none) {
            client.deeds[free] = Some(deed);
            return free;
        }
        client.deeds.push(Some(deed));
        client.deeds.len() - 1
    }

    fn piece(&mut self, place: usize, volume: usize, deed: usize, (piece, skip, bytes): (u32, usize, usize), ask: Ask) {
        let Some(client) = &mut self.clients[place] else { return };
        if let Some(deed) = &mut client.deeds[deed] {
            deed.left += 1;
        }
        let asked = Asked { client: place, serial: client.serial, deed, piece, skip, bytes };
        self.ask(volume, asked, ask);
    }

    fn deed_is_whole(&mut self, place: usize, deed: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if let Some(deed) = &mut client.deeds[deed] {
            deed.whole = true;
        }
        self.answer_when_done(place, deed);
    }

    /// The replica has answered a piece.
    pub(super) fn answer(&mut self, index: usize, request: Number, answer: Answer) {
        let volume = &mut self.volumes[index];
        let asked = volume.requests.take(request.0).expect("each request is answered once");
        let read = match answer {
            Answer::Data(payload) => Some(volume.let_go(payload).slice),
            Answer::Done | Answer::Failed(_) => None,
        };
        let Some(client) = self.clients[asked.client].as_mut().filter(|client| client.serial == asked.serial) else {
            return;
        };
        let Some(deed) = &mut client.deeds[asked.deed] else { return };
        deed.left -= 1;
        if let Some(slice) = read {
            deed.pieces.push((asked.piece, slice.part(asked.skip..asked.skip + asked.bytes)));
        }
        if let Answer::Failed(failure) = answer {
            deed.failure = deed.failure.or(Some(failure));
        }
        self.answer_when_done(asked.client, asked.deed);
    }

    fn answer_when_done(&mut self, place: usize, number: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        let is_done = client.deeds[number].as_ref().is_some_and(|deed| deed.whole && deed.left == 0);
        if !is_done {
            return;
        }
        let deed = client.deeds[number].take().expect("it is done");
        client.open -= 1;
        let session = match &client.stage {
            Stage::Session { session, .. } | Stage::Payload { session, .. } => session,
            Stage::Handshake(_) => return,
        };
        let reply = match (deed.failure, deed.read) {
            // Another node serves now, or soon: the client finds it when it connects anew.
            (Some(Refused::NotPrimary { .. }), _) => return self.close_client(place),
            (Some(Refused::Io), _) => session.failed(deed.cookie, Errno::Io, "the only disk that is left failed"),
            (Some(Refused::Revoked), _) => {
                session.failed(deed.cookie, Errno::NotPermitted, "this attachment was revoked")
            }
            (Some(Refused::OutOfRange), _) => {
                session.failed(deed.cookie, Errno::Invalid, "beyond the end of the volume")
            }
            (None, Some((offset, length))) => session.read(deed.cookie, offset, length),
            (None, None) => session.done(deed.cookie),
        };
        let mut pieces = deed.pieces;
        pieces.sort_unstable_by_key(|(number, _)| *number);
        let mut pieces = pieces.into_iter().map(|(_, slice)| slice).filter(|_| deed.failure.is_none());
        self.reply(place, &reply, pieces.next());
        for piece in pieces {
            self.send_to_client(place, &[], Some(piece));
        }
        self.take_requests(place);
        self.hear_client(place);
    }

    fn reply(&mut self, place: usize, reply: &Reply, body: Option<Slice>) {
        self.send_to_client(place, reply, body);
    }

    fn send_to_client(&mut self, place: usize, bytes: &[u8], body: Option<Slice>) {
        let Some(client) = self.clients[place].as_mut().filter(|client| !client.closed) else { return };
        let socket = client.socket.clone();
        let (head, body) = if bytes.len() <= INLINE_BYTES {
            (Head::new(bytes), body)
        } else {
            (Head::EMPTY, Some(self.pool.copy_of(bytes).share()))
        };
        client.sending += 1;
        self.ring.submit(Operation::Send { socket, head, body, quiet: false }, Token::ClientSent(place).pack());
    }

    pub(super) fn client_sent(&mut self, place: usize, result: &Result<usize, Failure>) {
        let Some(client) = &mut self.clients[place] else { return };
        client.sending -= 1;
        if result.is_err() || client.closed {
            self.close_client(place);
        }
    }

    /// The volume is closed.
    pub(super) fn end_clients_of(&mut self, index: usize) {
        for place in 0..self.clients.len() {
            if self.clients[place].as_ref().is_some_and(|client| client.volume() == Some(index)) {
                self.close_client(place);
            }
        }
    }

    fn close_client(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if !std::mem::replace(&mut client.closed, true) {
            client.socket.shutdown();
            let socket = client.socket.clone();
            self.ring.cancel_socket(&socket);
        }
        if let Some(client) = &self.clients[place]
            && !client.receiving
            && client.sending == 0
        {
            self.clients[place] = None;
        }
    }
}

impl Client {
    pub(super) fn volume(&self) -> Option<usize> {
        match &self.stage {
            Stage::Handshake(_) => None,
            Stage::Session { volume, .. } | Stage::Payload { volume, .. } => Some(*volume),
        }
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
fn piece_from(at: u64, end: u64) -> Span {
    let block = u64::from(BLOCK_BYTES);
    let first = at / block;
    let whole_end = end / block;
    if !at.is_multiple_of(block) || whole_end == first {
        return Span::new(first, 1);
    }
    let most = (MAX_PIECE_BYTES as u64) / block;
    Span::new(first, u32::try_from((whole_end - first).min(most)).expect("at most 256"))
}

/// Where in the span the bytes from `at` to `end` lie: how far in, and how many.
fn within(span: Span, at: u64, end: u64) -> (usize, usize) {
    let start = super::volume::offset_of(span);
    let last = (start + super::volume::bytes_of(span)).min(end);
    let as_usize = |bytes: u64| usize::try_from(bytes).expect("a piece fits into memory");
    (as_usize(at - start), as_usize(last - at))
}
