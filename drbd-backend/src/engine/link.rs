//! Connections to peers: frames in, frames out.
//!
//! A frame's head is received beside the buffer that its payload goes to, so a write of one block is one receive and no copy. Frames that
//! came along in the same receive are taken from a copy.

use std::os::fd::OwnedFd;

use replication::wire::{HEAD_BYTES, Head as Frame, Sum, encode};
use replication::{Envelope, Event, Link, Message, Node, Payload, VolumeId};

use super::volume::Held;
use super::{Engine, Notice, Token};
use crate::disk::{Buffer, Completion, Failure, HEAD_BYTES as INLINE_BYTES, Head, Operation, Slice, Socket};

/// What is received in one go behind a head: the usual payload.
const USUAL_BYTES: usize = 4096;

pub(super) struct LinkState {
    pub(super) volume: usize,
    pub(super) node: Node,
    pub(super) link: Link,
    socket: Socket,
    stage: Stage,
    /// Of the frame that is coming in: its head, then its body, as far as they are there. Memory of theirs is used again for the next one.
    head: Vec<u8>,
    body: Vec<u8>,
    /// Bytes that came along and are not looked at yet.
    stash: Vec<u8>,
    receiving: bool,
    sending: usize,
    closed: bool,
}

enum Stage {
    Head,
    Body { frame: Frame },
    Payload { frame: Frame, buffer: Buffer, have: usize },
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
        let it = &mut self.volumes[volume];
        it.next_link += 1;
        let link = Link(it.next_link);
        let state = LinkState {
            volume,
            node,
            link,
            socket,
            stage: Stage::Head,
            head: Vec::with_capacity(HEAD_BYTES),
            body: Vec::new(),
            stash: Vec::new(),
            receiving: false,
            sending: 0,
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
        let Some(state) = &mut self.links[place] else { return };
        let socket = state.socket.clone();
        let operation = match &mut state.stage {
            Stage::Head => {
                let head = HEAD_BYTES - state.head.len();
                let buffer = self.pool.take_or_grow(USUAL_BYTES);
                Operation::Recv { socket, head, buffer: Some(buffer), into: 0..USUAL_BYTES, at_least: head }
            }
            Stage::Body { frame } => {
                let left = frame.body_bytes() - state.body.len();
                let buffer = self.pool.take_or_grow(left);
                Operation::Recv { socket, head: 0, buffer: Some(buffer), into: 0..left, at_least: 1 }
            }
            Stage::Payload { buffer, have, .. } => {
                let empty = self.pool.take_or_grow(USUAL_BYTES);
                let buffer = std::mem::replace(buffer, empty);
                let into = *have..buffer.len();
                let at_least = into.len();
                Operation::Recv { socket, head: 0, buffer: Some(buffer), into, at_least }
            }
        };
        state.receiving = true;
        self.ring.submit(operation, Token::LinkReceived(place).pack());
    }

    pub(super) fn link_received(&mut self, place: usize, completion: Completion) {
        let Some(state) = &mut self.links[place] else { return };
        state.receiving = false;
        let count = match completion.result {
            Ok(count) if count > 0 && !state.closed => count,
            _ => return self.close_link(place),
        };
        let buffer = completion.buffer.expect("every receive has a buffer");
        let fits = match &mut state.stage {
            Stage::Head => {
                state.head.extend_from_slice(&completion.head);
                let behind = count - completion.head.len();
                self.head_received(place, buffer, behind)
            }
            Stage::Body { .. } => {
                state.body.extend_from_slice(&buffer[..count]);
                self.take_frames(place)
            }
            Stage::Payload { buffer: kept, have, .. } => {
                *kept = buffer;
                *have += count;
                self.take_frames(place)
            }
        };
        match fits {
            Ok(()) => {
                if self.links[place].as_ref().is_some_and(|state| !state.closed && !state.receiving) {
                    self.receive_from_link(place);
                }
            }
            Err(why) => {
                tracing::warn!(volume = %self.volume_of(place), "a peer's connection is closed: {why}");
                self.close_link(place);
            }
        }
    }

    fn volume_of(&self, place: usize) -> VolumeId {
        self.links[place].as_ref().map(|state| self.volumes[state.volume].id).unwrap_or_default()
    }

    /// A head is whole, and so many bytes behind it lie at the start of this buffer: if they are its payload, they stay there.
    fn head_received(&mut self, place: usize, buffer: Buffer, behind: usize) -> Result<(), String> {
        let Some(state) = &mut self.links[place] else { return Ok(()) };
        let frame = decode(&state.head)?;
        let payload = frame.payload().filter(|_| frame.body_bytes() == 0).map_or(0, |sum| sum.bytes as usize);
        state.head.clear();
        state.body.clear();
        if payload == USUAL_BYTES {
            let have = behind.min(payload);
            state.stash.extend_from_slice(&buffer[have..behind]);
            state.stage = Stage::Payload { frame, buffer, have };
        } else {
            state.stash.extend_from_slice(&buffer[..behind]);
            state.stage = Stage::Body { frame };
        }
        self.take_frames(place)
    }

    /// Takes whatever is whole.
    fn take_frames(&mut self, place: usize) -> Result<(), String> {
        loop {
            let Some(state) = &mut self.links[place] else { return Ok(()) };
            if state.closed {
                return Ok(());
            }
            let mut stash = std::mem::take(&mut state.stash);
            let mut taken = 0;
            let whole = state.fill(&stash, &mut taken, &self.pool)?;
            stash.drain(..taken);
            state.stash = stash;
            let Some(whole) = whole else { return Ok(()) };
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
        state.sending += 1;
        let socket = state.socket.clone();
        self.ring.submit(Operation::Send { socket, head, body, quiet: false }, Token::LinkSent(place).pack());
    }

    pub(super) fn link_sent(&mut self, place: usize, result: &Result<usize, Failure>) {
        let Some(state) = &mut self.links[place] else { return };
        state.sending -= 1;
        if result.is_err() || state.closed {
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
        if let Some(state) = &self.links[place]
            && !state.receiving
            && state.sending == 0
        {
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
    /// Fills the frame at hand from these bytes; the frame, if it is whole.
    fn fill(&mut self, stash: &[u8], taken: &mut usize, pool: &super::Pool) -> Result<Option<Whole>, String> {
        loop {
            let rest = &stash[*taken..];
            let next = match &mut self.stage {
                Stage::Head => {
                    let count = rest.len().min(HEAD_BYTES - self.head.len());
                    self.head.extend_from_slice(&rest[..count]);
                    *taken += count;
                    if self.head.len() < HEAD_BYTES {
                        return Ok(None);
                    }
                    let frame = decode(&self.head)?;
                    self.head.clear();
                    self.body.clear();
                    Stage::Body { frame }
                }
                Stage::Body { frame } => {
                    let count = rest.len().min(frame.body_bytes() - self.body.len());
                    self.body.extend_from_slice(&rest[..count]);
                    *taken += count;
                    if self.body.len() < frame.body_bytes() {
                        return Ok(None);
                    }
                    let frame = *frame;
                    let Some(sum) = frame.payload() else {
                        self.stage = Stage::Head;
                        return Ok(Some(Whole { frame, payload: None }));
                    };
                    Stage::Payload { frame, buffer: pool.take_or_grow(sum.bytes as usize), have: 0 }
                }
                Stage::Payload { buffer, have, .. } => {
                    let count = rest.len().min(buffer.len() - *have);
                    buffer[*have..*have + count].copy_from_slice(&rest[..count]);
                    *have += count;
                    *taken += count;
                    if *have < buffer.len() {
                        return Ok(None);
                    }
                    let stage = std::mem::replace(&mut self.stage, Stage::Head);
                    let Stage::Payload { frame, buffer, .. } = stage else { unreachable!("it was looked at") };
                    return Ok(Some(Whole { frame, payload: Some(buffer.share()) }));
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
