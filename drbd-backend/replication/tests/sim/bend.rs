//! Planted faults: a core that was built wrong in one place, made from the right one by bending what it is told or what it does.

use core::time::Duration;

use replication::{
    Bits, BootId, Change, DiskError, DiskState, Effect, Envelope, Event, Found, Job, Link, Message, Metadata, Order,
    OrderId, Role, Seq, Settings, Settled,
};

use super::disk::Bytes;
use super::world::World;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bend {
    /// The right core.
    None,
    AcknowledgesBeforeThePeer,
    AcknowledgesFromMemory,
    LeaseFromArrival,
    LeaseLongerThanGrace,
    GraceForgotten,
    ActivityLogNotKept,
    BitmapsKeptEmpty,
    BitClearedWithoutData,
    BitClearedBeforeTheFlush,
    OldDiskIdTrusted,
    RolledBackDiskTrusted,
    SuspicionOverlooked,
    SuspectClearedByRestart,
    AddedWithoutBeingCounted,
    UnknownTakenForDone,
    TakeoverWithoutEqualising,
    CommittedTooEarly,
    FailedFlushTriedAgain,
    FailedWriteOverlooked,
    FullDiskTakenForWritten,
    ReadErrorTakenForZeroes,
    FlushThatIsNone,
    FlushOfOneDiskOnly,
    LateFenceBelieved,
    HandsOverWhileServing,
    AttachmentsNotChecked,
    RevokeAnsweredEarly,
    RevokeNotReplicated,
}

impl Bend {
    pub const PLANTED: [Self; 28] = [
        Self::AcknowledgesBeforeThePeer,
        Self::AcknowledgesFromMemory,
        Self::LeaseFromArrival,
        Self::LeaseLongerThanGrace,
        Self::GraceForgotten,
        Self::ActivityLogNotKept,
        Self::BitmapsKeptEmpty,
        Self::BitClearedWithoutData,
        Self::BitClearedBeforeTheFlush,
        Self::OldDiskIdTrusted,
        Self::RolledBackDiskTrusted,
        Self::SuspicionOverlooked,
        Self::SuspectClearedByRestart,
        Self::AddedWithoutBeingCounted,
        Self::UnknownTakenForDone,
        Self::TakeoverWithoutEqualising,
        Self::CommittedTooEarly,
        Self::FailedFlushTriedAgain,
        Self::FailedWriteOverlooked,
        Self::FullDiskTakenForWritten,
        Self::ReadErrorTakenForZeroes,
        Self::FlushThatIsNone,
        Self::FlushOfOneDiskOnly,
        Self::LateFenceBelieved,
        Self::HandsOverWhileServing,
        Self::AttachmentsNotChecked,
        Self::RevokeAnsweredEarly,
        Self::RevokeNotReplicated,
    ];

    pub fn settings(self, settings: &mut Settings) {
        match self {
            Self::LeaseLongerThanGrace => settings.lease = settings.grace * 4,
            Self::GraceForgotten => settings.grace = Duration::ZERO,
            _ => {}
        }
    }

    /// What a new process finds.
    pub fn found(self, found: &mut Found, boot: BootId) {
        match self {
            Self::SuspicionOverlooked => found.superblock.boot = boot,
            Self::SuspectClearedByRestart => found.superblock.suspect = false,
            _ => {}
        }
    }
}

/// Of a job that the core believes to be done.
const SILENT: Job = Job(u32::MAX);

fn written(link: Link, seq: Seq) -> Event {
    said(link, Message::Written { seq })
}

/// As if the peer had said it.
fn said(link: Link, message: Message) -> Event {
    let envelope =
        Envelope { generation: replication::Generation(0), committed: Seq(0), barrier: replication::Barrier(0) };
    Event::Received { link, envelope, message, payload: None }
}

impl World {
    /// What the core is told instead of the truth. None: nothing.
    pub fn bend_event(&mut self, node: usize, mut event: Event) -> Option<Event> {
        if self.bend == Bend::None {
            return Some(event);
        }
        if matches!(event, Event::Stored { job: SILENT, .. }) {
            return None;
        }
        match &mut event {
            Event::Received { envelope, message, .. } => self.bend_message(node, envelope, message),
            Event::Flushed { result, .. } if self.bend == Bend::FailedFlushTriedAgain => *result = Ok(()),
            Event::Stored { result, .. } => match (self.bend, &result) {
                (Bend::FailedWriteOverlooked, Err(DiskError::Failed))
                | (Bend::FullDiskTakenForWritten, Err(DiskError::Full)) => *result = Ok(()),
                _ => {}
            },
            Event::Loaded { result, .. } if self.bend == Bend::ReadErrorTakenForZeroes && result.is_err() => {
                *result = Ok(self.nodes[node].payloads.hold(Bytes::default()));
            }
            Event::Settled { settled, .. }
                if self.bend == Bend::UnknownTakenForDone && *settled == Settled::Unknown =>
            {
                *settled = Settled::Swapped;
            }
            Event::Fenced { node: fenced, boot } if self.bend == Bend::LateFenceBelieved => {
                *boot = BootId(self.nodes[fenced.index()].boot);
            }
            Event::Asked { client, .. } if self.bend == Bend::AttachmentsNotChecked => *client = 0,
            Event::Ordered { order, what } => return self.bend_order(node, *order, what).then_some(event),
            _ => {}
        }
        Some(event)
    }

    fn bend_message(&mut self, node: usize, envelope: &mut Envelope, message: &mut Message) {
        let superblock = &self.nodes[node].disk.meta.superblock;
        match (self.bend, message) {
            (Bend::LeaseFromArrival, Message::HeartbeatAnswer { sent, .. }) => {
                *sent = self.nodes[node].clock.read(self.now);
            }
            (Bend::OldDiskIdTrusted, Message::Hello(hello)) => {
                if let Some(disk) = superblock.record.disk(hello.node) {
                    hello.disk = disk;
                    hello.blank = false;
                    hello.barrier = hello.barrier.max(superblock.barrier);
                }
            }
            (Bend::RolledBackDiskTrusted, Message::Hello(hello)) => {
                hello.barrier = hello.barrier.max(superblock.barrier);
                hello.confirmed = replication::Barrier(0);
                hello.suspect = false;
            }
            (Bend::CommittedTooEarly, _) => envelope.committed = Seq(u64::MAX / 2),
            (Bend::RevokeNotReplicated, Message::Control(control)) => {
                control.attachments.iter_mut().for_each(|attachment| attachment.revoked = false);
            }
            _ => {}
        }
    }

    /// Whether the core hears of it.
    fn bend_order(&mut self, node: usize, order: OrderId, what: &Order) -> bool {
        match (self.bend, what) {
            (Bend::HandsOverWhileServing, Order::HandOver(to)) if self.is_serving(node) => {
                let generation = self.judge.record.generation;
                let envelope = Envelope { generation, committed: Seq(0), barrier: replication::Barrier(0) };
                for link in self.links_between(node, to.index()) {
                    self.send(node, link, envelope, Message::TakeOver, None);
                }
                self.reported(node, order, &Ok(()));
                return false;
            }
            (Bend::RevokeAnsweredEarly, Order::Control(Change::Revoke { .. })) if self.is_serving(node) => {
                self.reported(node, order, &Ok(()));
                self.answered_early.push(order);
            }
            _ => {}
        }
        true
    }

    fn links_between(&self, node: usize, other: usize) -> Vec<Link> {
        let ends = [node.min(other), node.max(other)];
        self.network.connections.iter().filter(|it| it.ends == ends).map(|it| it.link).collect()
    }

    /// What the core does instead of what it wants.
    pub fn bend_effects(&mut self, node: usize, effects: &mut Vec<Effect>) {
        if self.bend == Bend::None {
            return;
        }
        let mut place = 0;
        while place < effects.len() {
            if self.bend_effect(node, &mut effects[place]) {
                place += 1;
            } else {
                effects.remove(place);
            }
        }
    }

    /// Whether anything is done at all.
    fn bend_effect(&mut self, node: usize, effect: &mut Effect) -> bool {
        match effect {
            Effect::Send { link, message, .. } => {
                let (link, message) = (*link, &*message);
                match message {
                    Message::Write { seq, .. } => self.bend_write(node, link, *seq),
                    Message::Flush { number } if self.bend == Bend::FlushOfOneDiskOnly => {
                        self.bent.push(said(link, Message::Flushed { number: *number }));
                        false
                    }
                    _ => true,
                }
            }
            Effect::Store { job, .. } if self.bend == Bend::AcknowledgesFromMemory => {
                self.bent.push(Event::Stored { job: *job, result: Ok(()) });
                *job = SILENT;
                true
            }
            Effect::Flush { job } if self.bend == Bend::FlushThatIsNone => {
                self.bent.push(Event::Flushed { job: *job, result: Ok(()) });
                false
            }
            // A peer that merely says so too early is found out by its own barrier: it must have stored that, and not what it covers.
            Effect::Flush { job } if self.bend == Bend::BitClearedBeforeTheFlush && self.lacks_writes(node) => {
                self.bent.push(Event::Flushed { job: *job, result: Ok(()) });
                false
            }
            Effect::Keep { job, what } => {
                let is_lost = match (self.bend, &mut *what) {
                    (Bend::ActivityLogNotKept, Metadata::Activity(_)) => true,
                    (Bend::BitmapsKeptEmpty, Metadata::Bitmap { bits, .. } | Metadata::WholeBitmap { bits, .. }) => {
                        *bits = Bits::default();
                        false
                    }
                    _ => false,
                };
                if is_lost {
                    self.bent.push(Event::Kept { job: *job, result: Ok(()) });
                }
                !is_lost
            }
            Effect::Report { order, .. } => !self.answered_early.contains(order),
            _ => true,
        }
    }

    fn lacks_writes(&self, node: usize) -> bool {
        let it = &self.nodes[node];
        let status = it.replica.as_ref().map(|replica| replica.status(it.clock.read(self.now)));
        status.is_some_and(|status| status.disk == DiskState::Inconsistent)
    }

    fn bend_write(&mut self, node: usize, link: Link, seq: Seq) -> bool {
        let it = &self.nodes[node];
        let Some(status) = it.replica.as_ref().map(|replica| replica.status(it.clock.read(self.now))) else {
            return true;
        };
        let ends = self.network.connections.iter().find(|it| it.link == link).map(|it| it.ends);
        let peer = ends.map(|[one, other]| if one == node { other } else { one });
        let is_absent = peer.is_some_and(|peer| !status.record.in_sync().contains(self.place(peer)));
        match self.bend {
            Bend::AcknowledgesBeforeThePeer => {
                self.bent.push(written(link, seq));
                true
            }
            Bend::AddedWithoutBeingCounted if is_absent => {
                self.bent.push(written(link, seq));
                true
            }
            Bend::BitClearedWithoutData if is_absent => {
                self.bent.push(written(link, seq));
                false
            }
            Bend::TakeoverWithoutEqualising if status.role == Role::Promoting => {
                self.bent.push(written(link, seq));
                false
            }
            _ => true,
        }
    }
}
