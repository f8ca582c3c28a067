//! Connections to peers: frames in, frames out.
//!
//! As many frames as have come are received and taken in one go, and their writes then go to the disk together. A large payload is received to where it
//! shall stay; a small one is copied there.

use std::os::fd::OwnedFd;

use replication::wire::{HEAD_BYTES, Head as Frame, Sum, encode};
use replication::{Envelope, Event, Link, Message, Node, Payload, VolumeId};

use super::inbox::{DIRECT_BYTES, INBOX_BYTES, Inbox, ROUNDS};
use super::volume::Held;
use super::{Engine, Notice, Token};
use crate::disk::{Buffer, Completion, Failure, HEAD_BYTES as INLINE_BYTES, Head, Operation, Slice, Socket};

pub(super) struct LinkState {
    pub(super) volume: usize,
    pub(super) node: Node,
    pub(super) link: Link,
    socket: Socket,
    /// No two links have the same within 2^32: what is under way for a predecessor in its place is not its own.
    serial: u32,
    stage: Stage,
    /// Of the frame that is coming in: its head, then its body, as far as they are there. Memory of theirs is used again for the next one.
    head: Vec<u8>,
    body: Vec<u8>,
    inbox: Inbox,
    receiving: bool,
    closed: bool,
}

enum Stage {
    Head,
    Body {
        frame: Frame,
    },
    /// Without its buffer while that is received into.
    Payload {
        frame: Frame,
        buffer: Option<Buffer>,
        have: usize,
    },
}

/// A frame that is all there; its body is the link's.
struct Whole {
    frame: Frame,
    payload: Option<Slice>,
}

impl Engine {
    pub(super) fn peer_connected(&mut self, volume: VolumeId, node: Node, stream: OwnedFd) {
        let Some(volume) = self.by_id.get(&volume).copied() else { return };
        let socket = match Socket::new(stream) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, "a peer's connection cannot be used");
                let volume = self.volumes[volume].id;
                return self.notify(Notice::Parted { volume, node });
            }
        };
        self.serials = self.serials.wrapping_add(1);
        let it = &mut self.volumes[volume];
        it.next_link += 1;
        let link = Link(it.next_link);
        let state = LinkState {
            volume,
            node,
            link,
            socket,
            serial: self.serials,
            stage: Stage::Head,
            head: Vec::with_capacity(HEAD_BYTES),
            body: Vec::new(),
            inbox: Inbox::new(self.pool.take_or_grow(INBOX_BYTES)),
            receiving: false,
            closed: false,
        };
        let place = self.links.iter().position(Option::is_none).unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        self.links[place] = Some(state);
        self.volumes[volume].links.push((link, node, place));
        self.receive_from_link(place);
        self.tell(volume, Event::Connected { link, node });
    }

    fn receive_from_link(&mut self, place: usize) {
        if let Some((operation, token)) = self.next_frames(place) {
            self.ring.submit(operation, token);
        }
    }

    /// The receive that is due, if none is under way.
    fn next_frames(&mut self, place: usize) -> Option<(Operation, u64)> {
        let state = self.links[place].as_mut().filter(|state| !state.closed && !state.receiving)?;
        state.receiving = true;
        Some((state.receive(), Token::LinkReceived(place, state.serial).pack()))
    }

    /// The link at this place, if it is the one that is meant and still there.
    fn link(&mut self, place: usize, serial: u32) -> Option<&mut LinkState> {
        self.links.get_mut(place)?.as_mut().filter(|state| state.serial == serial)
    }

    pub(super) fn link_received(&mut self, place: usize, serial: u32, completion: Completion) {
        let mut completion = completion;
        for round in 1..=ROUNDS {
            let is_more_there = completion.is_more_there;
            self.take_in_frames(place, serial, completion);
            if !is_more_there || round == ROUNDS {
                break;
            }
            let Some((operation, token)) = self.next_frames(place) else { return };
            match self.ring.submit_or_complete(operation, token) {
                Some(next) => completion = next,
                None => return,
            }
        }
        self.receive_from_link(place);
    }

    fn take_in_frames(&mut self, place: usize, serial: u32, completion: Completion) {
        let Some(state) = self.link(place, serial) else { return };
        state.receiving = false;
        let count = match completion.result {
            Ok(count) if count > 0 && !state.closed => count,
            _ => return self.close_link(place),
        };
        state.received(completion.buffer.expect("every receive has a buffer"), count);
        if let Err(why) = self.take_frames(place) {
            tracing::warn!(volume = %self.volume_of(place), "a peer's connection is closed: {why}");
            self.close_link(place);
        }
    }

    fn volume_of(&self, place: usize) -> VolumeId {
        self.links[place].as_ref().map(|state| self.volumes[state.volume].id).unwrap_or_default()
    }

    /// Takes whatever is whole.
    fn take_frames(&mut self, place: usize) -> Result<(), String> {
        loop {
            let Some(state) = self.links[place].as_mut().filter(|state| !state.closed) else { return Ok(()) };
            let Some(whole) = state.fill(&self.pool)? else { return Ok(()) };
            let body = std::mem::take(&mut state.body);
            let received = self.frame_received(place, whole, &body);
            if let Some(state) = &mut self.links[place] {
                state.body = body;
            }
            received?;
        }
    }

    fn frame_received(&mut self, place: usize, whole: Whole, body: &[u8]) -> Result<(), String> {
        let Whole { frame, payload } = whole;
        let message = frame.message(body).map_err(|error| error.to_string())?;
        let Some(state) = &self.links[place] else { return Ok(()) };
        let (index, link) = (state.volume, state.link);
        let payload = match payload {
            None => None,
            Some(slice) => {
                let sum = crc32c::crc32c(&slice);
                frame.check_payload(sum).map_err(|error| error.to_string())?;
                Some(self.volumes[index].hold(Held::received(slice, sum)))
            }
        };
        self.tell(index, Event::Received { link, envelope: frame.envelope, message, payload });
        Ok(())
    }

    pub(super) fn send_message(
        &mut self,
        index: usize,
        link: Link,
        envelope: &Envelope,
        message: &Message,
        payload: Option<Payload>,
    ) {
        let volume = &mut self.volumes[index];
        let Some((_, _, place)) = volume.links.iter().find(|(it, ..)| *it == link).copied() else { return };
        let summed = payload.map(|payload| volume.summed(payload));
        let sum = summed.as_ref().map(|(slice, crc32c)| Sum {
            bytes: u32::try_from(slice.len()).expect("a payload has at most 1 MiB"),
            crc32c: *crc32c,
        });
        let mut bytes = std::mem::take(&mut self.scratch);
        bytes.clear();
        if let Err(error) = encode(envelope, message, sum, &mut bytes) {
            tracing::error!(volume = %self.volumes[index].id, %error, "a message cannot be sent");
            self.scratch = bytes;
            return self.hang_up(index, link);
        }
        let (head, body) = if bytes.len() <= INLINE_BYTES {
            (Head::new(&bytes), summed.map(|(slice, _)| slice))
        } else {
            (Head::new(&bytes[..HEAD_BYTES]), Some(self.pool.copy_of(&bytes[HEAD_BYTES..]).share()))
        };
        self.scratch = bytes;
        let Some(state) = self.links[place].as_mut().filter(|state| !state.closed) else { return };
        let (socket, token) = (state.socket.clone(), Token::LinkSent(place, state.serial).pack());
        self.ring.submit(Operation::Send { socket, head, body, quiet: true }, token);
    }

    /// Something could not be sent.
    pub(super) fn link_sent(&mut self, place: usize, serial: u32, result: &Result<usize, Failure>) {
        if result.is_err() && self.link(place, serial).is_some() {
            self.close_link(place);
        }
    }

    /// The replica wants no more of this connection.
    pub(super) fn hang_up(&mut self, index: usize, link: Link) {
        let found = self.volumes[index].links.iter().find(|(it, ..)| *it == link).copied();
        if let Some((_, node, place)) = found {
            self.volumes[index].links.retain(|(it, ..)| *it != link);
            self.notify(Notice::Parted { volume: self.volumes[index].id, node });
            self.close_link(place);
        }
    }

    /// The volume is closed.
    pub(super) fn end_links_of(&mut self, index: usize) {
        for (link, ..) in self.volumes[index].links.clone() {
            self.hang_up(index, link);
        }
    }

    /// Ends a connection, and forgets it once nothing of it is under way.
    fn close_link(&mut self, place: usize) {
        let Some(state) = &mut self.links[place] else { return };
        let (volume, link, node) = (state.volume, state.link, state.node);
        if !std::mem::replace(&mut state.closed, true) {
            state.socket.shutdown();
            let socket = state.socket.clone();
            self.ring.cancel_socket(&socket);
        }
        if self.links[place].as_ref().is_some_and(|state| !state.receiving) {
            self.links[place] = None;
        }
        let is_known = self.volumes[volume].links.iter().any(|(it, ..)| *it == link);
        if is_known {
            self.volumes[volume].links.retain(|(it, ..)| *it != link);
            self.notify(Notice::Parted { volume: self.volumes[volume].id, node });
            self.tell(volume, Event::Disconnected { link });
        }
    }
}

impl LinkState {
    fn receive(&mut self) -> Operation {
        let socket = self.socket.clone();
        if let Stage::Payload { buffer, have, .. } = &mut self.stage
            && let Some(buffer) = buffer.take_if(|buffer| buffer.len() - *have >= DIRECT_BYTES)
        {
            let into = *have..buffer.len();
            let at_least = into.len();
            return Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least };
        }
        let buffer = self.inbox.lend().expect("all that came was looked at");
        let into = 0..buffer.len();
        Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least: 1 }
    }

    fn received(&mut self, came: Buffer, count: usize) {
        match &mut self.stage {
            Stage::Payload { buffer: buffer @ None, have, .. } => {
                *buffer = Some(came);
                *have += count;
            }
            _ => self.inbox.filled(came, count),
        }
    }

    /// Fills the frame at hand from what came; the frame, if it is whole.
    fn fill(&mut self, pool: &super::Pool) -> Result<Option<Whole>, String> {
        loop {
            let next = match &mut self.stage {
                Stage::Head => {
                    self.inbox.append_to(&mut self.head, HEAD_BYTES);
                    if self.head.len() < HEAD_BYTES {
                        return Ok(None);
                    }
                    let frame = decode(&self.head)?;
                    self.head.clear();
                    self.body.clear();
                    Stage::Body { frame }
                }
                Stage::Body { frame } => {
                    self.inbox.append_to(&mut self.body, frame.body_bytes());
                    if self.body.len() < frame.body_bytes() {
                        return Ok(None);
                    }
                    let frame = *frame;
                    let Some(sum) = frame.payload() else {
                        self.stage = Stage::Head;
                        return Ok(Some(Whole { frame, payload: None }));
                    };
                    Stage::Payload { frame, buffer: Some(pool.take_or_grow(sum.bytes as usize)), have: 0 }
                }
                Stage::Payload { frame, buffer, have } => {
                    let frame = *frame;
                    let Some(mut filled) = buffer.take() else { return Ok(None) };
                    *have += self.inbox.move_to(&mut filled[*have..]);
                    if *have < filled.len() {
                        *buffer = Some(filled);
                        return Ok(None);
                    }
                    self.stage = Stage::Head;
                    return Ok(Some(Whole { frame, payload: Some(filled.share()) }));
                }
            };
            self.stage = next;
        }
    }
}

fn decode(head: &[u8]) -> Result<Frame, String> {
    let head: &[u8; HEAD_BYTES] = head.try_into().map_err(|_| "a head was cut".to_owned())?;
    Frame::decode(head).map_err(|error| error.to_string())
}
