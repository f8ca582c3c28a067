//! What an engine carries out: one operation, or the sends of one socket that go out together.

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags, recvmsg, sendmsg};

use super::{Buffer, Head, Operation, Slice, Socket};

/// How many pieces of memory one sendmsg takes.
pub(super) const MAX_PIECES: usize = 64;

/// Something that an engine carries out once: it may move fewer bytes than are wanted.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) token: u64,
    /// Bytes that were moved already.
    pub(super) done: usize,
    /// Bytes received before any that go into a buffer.
    pub(super) head: Head,
    /// Whoever asked does not want more of it.
    pub(super) is_cancelled: bool,
    /// More can probably be received.
    pub(super) is_more_there: bool,
    /// How often the kernel could not take it.
    pub(super) retries: u8,
    pub(super) work: Work,
}

#[derive(Debug)]
pub(super) enum Work {
    /// Any operation but [`Operation::Send`].
    One(Operation),
    Train(Train),
}

/// What an engine says of a job that it carried out.
pub(super) type Finished = (Job, Result<usize, Errno>);

/// Whom a cancellation means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which {
    Token(u64),
    Socket(RawFd),
}

impl Job {
    pub(super) fn one(token: u64, operation: Operation) -> Self {
        let head = if let Operation::Recv { head, .. } = operation { Head::zeroed(head) } else { Head::EMPTY };
        Self { token, done: 0, head, is_cancelled: false, is_more_there: false, retries: 0, work: Work::One(operation) }
    }

    pub(super) fn train(train: Train) -> Self {
        Self {
            token: 0,
            done: 0,
            head: Head::EMPTY,
            is_cancelled: false,
            is_more_there: false,
            retries: 0,
            work: Work::Train(train),
        }
    }

    /// Receives what is there; AGAIN if nothing is, or if this is no receive.
    pub(super) fn recv_now(&mut self) -> Result<usize, Errno> {
        let Work::One(Operation::Recv { socket, buffer, into, .. }) = &mut self.work else { return Err(Errno::AGAIN) };
        let mut parts = recv_parts(&mut self.head, buffer.as_mut(), into, self.done).map(IoSliceMut::new);
        let wanted: usize = parts.iter().map(|part| part.len()).sum();
        let received = recvmsg(socket, &mut parts, &mut RecvAncillaryBuffer::default(), RecvFlags::DONTWAIT)?.bytes;
        self.is_more_there = received == wanted;
        Ok(received)
    }

    pub(super) fn key(&self) -> Key {
        match &self.work {
            Work::One(operation) => Key { token: Some(self.token), raw: operation.raw() },
            Work::Train(train) => Key { token: None, raw: train.socket.raw() },
        }
    }
}

/// By what a cancellation finds a job.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// Sends that have begun have none, and are cancelled with their socket only: a message cut short would garble those behind it.
    token: Option<u64>,
    raw: RawFd,
}

impl Key {
    pub(super) const NOBODY: Self = Self { token: None, raw: -1 };

    pub(super) fn is_meant(self, which: Which) -> bool {
        match which {
            Which::Token(token) => self.token == Some(token),
            Which::Socket(socket) => self.raw == socket,
        }
    }
}

impl Operation {
    fn raw(&self) -> RawFd {
        match self {
            Self::Read { file, .. }
            | Self::Write { file, .. }
            | Self::Flush { file }
            | Self::PunchHole { file, .. }
            | Self::ZeroRange { file, .. } => file.as_fd().as_raw_fd(),
            Self::Recv { socket, .. } | Self::Send { socket, .. } | Self::Connect { socket, .. } => socket.raw(),
            Self::Accept { listener } => listener.raw(),
        }
    }

    /// A wrong range is the caller's bug, and is told where it is made.
    pub(super) fn check(&self) {
        match self {
            Self::Read { buffer, into, .. } => {
                assert!(!into.is_empty() && into.end <= buffer.len(), "a read into {into:?} of {} bytes", buffer.len());
            }
            Self::Write { data, .. } => assert!(!data.is_empty(), "a write of nothing"),
            Self::Recv { head, buffer, into, at_least, .. } => {
                let room = buffer.as_ref().map_or(0, |buffer| buffer.len());
                assert!(into.start <= into.end && into.end <= room, "a receive into {into:?} of {room} bytes");
                let most = head + into.len();
                assert!((1..=most).contains(at_least), "a receive of at least {at_least} and at most {most} bytes");
            }
            Self::Send { head, body, .. } => {
                assert!(!head.is_empty() || body.as_ref().is_some_and(|body| !body.is_empty()), "a send of nothing");
            }
            Self::Flush { .. }
            | Self::PunchHole { .. }
            | Self::ZeroRange { .. }
            | Self::Accept { .. }
            | Self::Connect { .. } => {}
        }
    }
}

/// The sends of one socket that wait together, in order.
#[derive(Debug)]
pub(super) struct Train {
    pub(super) socket: Socket,
    parcels: VecDeque<Parcel>,
    /// How much of the first parcel is sent.
    sent: usize,
}

/// One send.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) token: u64,
    head: Head,
    body: Option<Slice>,
    /// Only a failure is told.
    pub(super) is_quiet: bool,
}

impl Parcel {
    pub(super) fn new(token: u64, head: Head, body: Option<Slice>, is_quiet: bool) -> Self {
        Self { token, head, body, is_quiet }
    }

    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.as_ref().map_or(0, |body| body.len())
    }
}

impl Train {
    /// With the room of an empty queue.
    pub(super) fn new(socket: Socket, parcels: VecDeque<Parcel>) -> Self {
        Self { socket, parcels, sent: 0 }
    }

    pub(super) fn push(&mut self, parcel: Parcel) {
        self.parcels.push_back(parcel);
    }

    /// Sends what goes out without waiting; AGAIN if nothing does.
    pub(super) fn send_now(&self) -> Result<usize, Errno> {
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        let mut count = 0;
        for (place, piece) in pieces.iter_mut().zip(self.pieces()) {
            *place = IoSlice::new(piece);
            count += 1;
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.socket, &pieces[..count], &mut SendAncillaryBuffer::default(), flags)
    }

    pub(super) fn len(&self) -> usize {
        self.parcels.len()
    }

    /// What is still to be sent, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.parcels.iter().map(Parcel::len).sum::<usize>() - self.sent
    }

    /// What is still to be sent, the first [`MAX_PIECES`] pieces of it.
    pub(super) fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.sent;
        let parts = self.parcels.iter().flat_map(|parcel| [&*parcel.head, parcel.body.as_deref().unwrap_or(&[])]);
        let rest = parts.map(move |part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            &part[skipped..]
        });
        rest.filter(|part| !part.is_empty()).take(MAX_PIECES)
    }

    /// Counts bytes as sent; the parcels that are out entirely come back.
    pub(super) fn advance(&mut self, bytes: usize) -> impl Iterator<Item = Parcel> {
        self.sent += bytes;
        std::iter::from_fn(|| {
            let len = self.parcels.front()?.len();
            if self.sent < len {
                return None;
            }
            self.sent -= len;
            self.parcels.pop_front()
        })
    }

    /// Takes back a send that has not begun.
    pub(super) fn remove(&mut self, token: u64) -> Option<Parcel> {
        let position = self.parcels.iter().position(|parcel| parcel.token == token)?;
        self.parcels.remove(position)
    }

    /// Everything that is not out entirely.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Parcel> {
        self.parcels.drain(..)
    }

    /// The empty queue, to be used again.
    pub(super) fn into_parcels(self) -> VecDeque<Parcel> {
        self.parcels
    }
}

/// Where the rest of a receive goes: the head, then that part of the buffer, without the bytes that are there already.
pub(super) fn recv_parts<'a>(
    head: &'a mut Head,
    buffer: Option<&'a mut Buffer>,
    into: &Range<usize>,
    done: usize,
) -> [&'a mut [u8]; 2] {
    let (in_head, in_buffer) = (done.min(head.len()), done.saturating_sub(head.len()));
    let buffer = buffer.map_or(&mut [][..], |buffer| &mut buffer[into.start + in_buffer..into.end]);
    [&mut head.as_mut()[in_head..], buffer]
}
