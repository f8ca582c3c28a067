//! Clients over NBD and iSCSI: their connections. What they ask for is dealt with in [`requests`], which is the same for both; [`initiator`] has what iSCSI
//! adds to that.
//!
//! As many requests as have come are taken in one go, and their writes then go to the disk and to the peers together. A client is not heard further
//! while it, or all clients together, have as much under way as they may.

mod initiator;
mod patrol;
mod requests;

use std::os::fd::OwnedFd;

use iscsi::SessionId;

use replication::VolumeId;

use super::inbox::{DIRECT_BYTES, INBOX_BYTES, Inbox, ROUNDS};
use super::{Engine, Token};
use crate::disk::{Backlog, Completion, Failure, HEAD_BYTES as INLINE_BYTES, Head, Operation, Slice, Socket};
use crate::export::nbd::Session;
pub use initiator::Reserving;
pub use patrol::LOG_OUT_WITHIN_S;
pub(super) use patrol::Patrol;
use requests::Deed;
pub(super) use requests::{Asked, Owner};

/// Requests of one client that are not answered, or answers that it does not receive.
const MOST_REQUESTS: usize = 256;

/// A client that leaves as much unreceived, in bytes, is not heard: as much as the longest command of iSCSI transfers.
const MOST_UNSENT_BYTES: usize = 4 << 20;

/// What the reads and writes of all clients under way may need together, and one request more.
const MOST_BYTES: usize = 24 << 20;

pub(super) struct Client {
    socket: Socket,
    /// No two clients have the same within 2^32: what is under way for a predecessor in its place is not its own.
    serial: u32,
    pub(super) volume: usize,
    /// As whom it asks: its attachment's number, or 0 for the node itself.
    pub(super) attachment: u32,
    talk: Talk,
    inbox: Inbox,
    /// What comes next is the payload of a write.
    payload: Option<Payload>,
    /// What it wants done, by number; and the numbers that are free.
    deeds: Vec<Deed>,
    free: Vec<usize>,
    open: usize,
    bytes: usize,
    /// Writes whose payload is not whole.
    writes: usize,
    receiving: bool,
    watched: patrol::Watched,
    thirsty: bool,
    /// It asks for nothing more, and goes when it has its answers.
    leaving: bool,
    closed: bool,
}

/// How it speaks.
enum Talk {
    Nbd(Session),
    /// Its session with the volume's target.
    Iscsi(SessionId),
}

/// Bytes of a write that come in a row: all of it over NBD, those of one PDU over iSCSI.
#[derive(Debug, Clone, Copy)]
struct Payload {
    deed: usize,
    left: usize,
    /// They are being received to where they shall stay.
    is_direct: bool,
}

impl Engine {
    /// A client whose handshake is over. If its volume is gone meanwhile, so is the client.
    pub(super) fn client_connected(&mut self, volume: VolumeId, attachment: u32, session: Session, stream: OwnedFd) {
        let Some(volume) = self.by_id.get(&volume).copied() else { return };
        self.let_in(volume, attachment, Talk::Nbd(session), stream);
    }

    /// Its place, unless there are no descriptors left.
    fn let_in(&mut self, volume: usize, attachment: u32, talk: Talk, stream: OwnedFd) {
        let Ok(socket) = Socket::new(stream) else { return };
        self.serials = self.serials.wrapping_add(1);
        let client = Client {
            socket,
            serial: self.serials,
            volume,
            attachment,
            talk,
            inbox: Inbox::new(self.pool.take_or_grow(INBOX_BYTES)),
            payload: None,
            writes: 0,
            deeds: Vec::new(),
            free: Vec::new(),
            open: 0,
            bytes: 0,
            receiving: false,
            watched: patrol::Watched::default(),
            thirsty: false,
            leaving: false,
            closed: false,
        };
        let place = self.clients.iter().position(Option::is_none).unwrap_or_else(|| {
            self.clients.push(None);
            self.clients.len() - 1
        });
        self.clients[place] = Some(client);
        self.hear_client(place);
    }

    /// The client at this place, if it is the one that is meant and still there.
    fn client(&mut self, place: usize, serial: u32) -> Option<&mut Client> {
        self.clients.get_mut(place)?.as_mut().filter(|client| client.serial == serial)
    }

    fn hear_client(&mut self, place: usize) {
        if let Some((operation, token)) = self.next_receive(place) {
            self.ring.submit(operation, token);
        }
    }

    /// The receive that is due, if none is under way. A client that cannot be heard now is looked at again soon.
    fn next_receive(&mut self, place: usize) -> Option<(Operation, u64)> {
        let client = self.clients[place].as_mut()?;
        if client.closed || client.leaving || client.receiving {
            return None;
        }
        let is_heard = client.may_ask(self.client_bytes, self.ring.backlog(&client.socket));
        let operation = if is_heard || client.writes > 0 { client.receive() } else { None };
        let Some(operation) = operation else {
            self.is_thirsty(place);
            return None;
        };
        client.receiving = true;
        Some((operation, Token::ClientReceived(place, client.serial).pack()))
    }

    fn is_thirsty(&mut self, place: usize) {
        if let Some(client) = &mut self.clients[place]
            && !std::mem::replace(&mut client.thirsty, true)
        {
            self.thirsty.push(place);
        }
    }

    pub(super) fn serve_the_thirsty(&mut self) {
        let mut served = std::mem::take(&mut self.served);
        std::mem::swap(&mut served, &mut self.thirsty);
        for place in served.drain(..) {
            let Some(client) = &mut self.clients[place] else { continue };
            client.thirsty = false;
            self.take_requests(place);
            self.hear_client(place);
        }
        self.served = served;
    }

    pub(super) fn client_received(&mut self, place: usize, serial: u32, completion: Completion) {
        let mut completion = completion;
        for round in 1..=ROUNDS {
            let is_more_there = completion.is_more_there;
            self.take_in(place, serial, completion);
            self.take_requests(place);
            if !is_more_there || round == ROUNDS {
                break;
            }
            let Some((operation, token)) = self.next_receive(place) else { return };
            match self.ring.submit_or_complete(operation, token) {
                Some(next) => completion = next,
                None => return,
            }
        }
        self.hear_client(place);
    }

    fn take_in(&mut self, place: usize, serial: u32, completion: Completion) {
        let Some(client) = self.client(place, serial) else { return };
        client.receiving = false;
        let count = match completion.result {
            Ok(count) if count > 0 && !client.closed => count,
            _ => return self.close_client(place),
        };
        client.watched.was_heard();
        let buffer = completion.buffer.expect("every receive has a buffer");
        match client.payload.as_mut().filter(|payload| payload.is_direct) {
            Some(payload) => {
                payload.is_direct = false;
                payload.left -= count;
                let (deed, mut is_full) = (payload.deed, false);
                // It may have been dropped meanwhile; its bytes came all the same.
                if let Some(write) = &mut client.deeds[deed].write {
                    write.have += count;
                    is_full = write.have == buffer.len();
                    write.buffer = Some(buffer);
                }
                self.payload_came(place, count);
                if is_full {
                    self.piece_is_full(place, deed);
                }
            }
            None => client.inbox.filled(buffer, count),
        }
    }

    /// So many bytes of the payload that was due were received.
    fn payload_came(&mut self, place: usize, count: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if client.payload.is_some_and(|payload| payload.left == 0) {
            client.payload = None;
        }
        match &mut client.talk {
            Talk::Nbd(session) => {
                session.payload_received(u32::try_from(count).expect("a payload is shorter than 4 GiB"));
            }
            Talk::Iscsi(id) => {
                let id = *id;
                self.initiator_payload_came(place, id, count);
            }
        }
    }

    /// Takes whatever is whole.
    fn take_requests(&mut self, place: usize) {
        while self.take_one(place) {}
    }

    fn take_one(&mut self, place: usize) -> bool {
        let Some(client) = self.clients[place].as_mut().filter(|client| !client.closed && !client.leaving) else {
            return false;
        };
        let may_ask = client.may_ask(self.client_bytes, self.ring.backlog(&client.socket));
        match client.talk {
            _ if client.payload.is_some() => self.take_payload(place),
            // Data that was asked for comes between its commands.
            Talk::Iscsi(id) if may_ask || client.writes > 0 => self.take_from_initiator(place, id),
            Talk::Nbd(_) if may_ask && !client.inbox.is_empty() => self.take_request(place),
            Talk::Iscsi(_) | Talk::Nbd(_) => false,
        }
    }

    fn send_to_client(&mut self, place: usize, bytes: &[u8], body: Option<Slice>) {
        let Some(client) = self.clients[place].as_ref().filter(|client| !client.closed) else { return };
        let socket = client.socket.clone();
        let token = Token::ClientSent(place, client.serial).pack();
        let (head, body) = if bytes.len() <= INLINE_BYTES {
            (Head::new(bytes), body)
        } else {
            (Head::EMPTY, Some(self.pool.copy_of(bytes).share()))
        };
        self.ring.submit(Operation::Send { socket, head, body, quiet: true }, token);
    }

    /// Something could not be sent.
    pub(super) fn client_sent(&mut self, place: usize, serial: u32, result: &Result<usize, Failure>) {
        if result.is_err() && self.client(place, serial).is_some() {
            self.close_client(place);
        }
    }

    /// The volume is closed.
    pub(super) fn end_clients_of(&mut self, index: usize) {
        for place in 0..self.clients.len() {
            if self.clients[place].as_ref().is_some_and(|client| client.volume == index) {
                self.close_client(place);
            }
        }
    }

    /// At once: whatever it waits for is not answered.
    fn close_client(&mut self, place: usize) {
        let Some(client) = &mut self.clients[place] else { return };
        if !std::mem::replace(&mut client.closed, true) {
            client.socket.shutdown();
            let socket = client.socket.clone();
            self.ring.cancel_socket(&socket);
        }
        if self.clients[place].as_ref().is_some_and(|client| !client.receiving) {
            self.forget_client(place);
        }
    }

    /// Nothing more comes from it. What is on its way to it goes out still, and its socket closes then.
    fn forget_client(&mut self, place: usize) {
        if let Some(client) = self.clients[place].take() {
            self.client_bytes -= client.bytes;
            if let Talk::Iscsi(id) = client.talk {
                self.initiators -= 1;
                self.initiator_left(client.volume, id);
            }
        }
    }
}

impl Client {
    pub(super) fn is_initiator(&self) -> bool {
        matches!(self.talk, Talk::Iscsi(_))
    }

    fn may_ask(&self, bytes_of_all: usize, backlog: Backlog) -> bool {
        let takes_answers = backlog.sends < MOST_REQUESTS && backlog.bytes < MOST_UNSENT_BYTES;
        self.open < MOST_REQUESTS && bytes_of_all < MOST_BYTES && takes_answers
    }

    /// `None` if there is no memory, or what came is not dealt with.
    fn receive(&mut self) -> Option<Operation> {
        let socket = self.socket.clone();
        if let Some(payload) = &mut self.payload {
            let write = self.deeds[payload.deed].write.as_mut()?;
            let buffer = write.buffer.take()?;
            let into = write.have..buffer.len().min(write.have + payload.left);
            if into.len() >= DIRECT_BYTES {
                payload.is_direct = true;
                let at_least = into.len();
                return Some(Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least });
            }
            write.buffer = Some(buffer);
        }
        let buffer = self.inbox.lend()?;
        let into = 0..buffer.len();
        Some(Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least: 1 })
    }
}
