//! Values of every kind, the odd ones more often than chance has them.

use fastrand::Rng;
use replication::{
    Absent, Attachment, Barrier, Bits, BootId, Chap, Control, Data, DiskId, Envelope, Extent, Generation, Hello,
    Incarnation, MAX_NODES, Message, Node, Nodes, Process, Ready, Record, Secret, Seq, Span, Superblock, Time,
    VolumeId, Welcome,
};

/// Blocks of the largest volume.
pub(crate) const MAX_BLOCKS: u64 = 1 << 34;

pub(crate) fn number(rng: &mut Rng) -> u64 {
    match rng.u8(..4) {
        0 => 0,
        1 => u64::MAX,
        2 => rng.u64(..1000),
        _ => rng.u64(..),
    }
}

fn id(rng: &mut Rng) -> u128 {
    if rng.u8(..8) == 0 { 0 } else { rng.u128(..) }
}

pub(crate) fn node(rng: &mut Rng) -> Node {
    Node::new(rng.u8(..8)).expect("it is one of eight")
}

fn maybe<T>(rng: &mut Rng, make: impl FnOnce(&mut Rng) -> T) -> Option<T> {
    rng.bool().then(|| make(rng))
}

pub(crate) fn span(rng: &mut Rng, size_blocks: u64) -> Span {
    let start = rng.u64(..size_blocks);
    let longest = u32::try_from((size_blocks - start).min(5000)).expect("it is at most 5000");
    Span::new(start, rng.u32(1..=longest))
}

pub(crate) fn bits(rng: &mut Rng, size_blocks: u64) -> Bits {
    let mut bits = Bits::default();
    (0..rng.u8(..12)).for_each(|_| bits.set(span(rng, size_blocks)));
    bits
}

pub(crate) fn record(rng: &mut Rng) -> Record {
    let disks = [(); MAX_NODES].map(|()| maybe(rng, |rng| DiskId(id(rng))));
    let left = [(); MAX_NODES].map(|()| maybe(rng, |rng| Generation(number(rng))));
    let (primary, members) = (maybe(rng, node), Nodes::from_bits(rng.u8(..)));
    Record::of_parts(Generation(number(rng)), primary, members, disks, left, number(rng))
}

fn text(rng: &mut Rng) -> String {
    (0..rng.u8(..40)).map(|_| rng.char(..)).collect()
}

fn chap(rng: &mut Rng) -> Option<Chap> {
    let mut pair = || (text(rng), Secret(text(rng)));
    let ((user, secret), target) = (pair(), pair());
    let target = rng.bool().then_some(target);
    rng.bool().then_some(Chap { user, secret, target })
}

pub(crate) fn control(rng: &mut Rng) -> Control {
    let attachment = |rng: &mut Rng| Attachment {
        client: rng.u32(..),
        id: id(rng),
        host: text(rng),
        initiator: text(rng),
        read_only: rng.bool(),
        chap: chap(rng),
        epoch: number(rng),
        revoked: rng.bool(),
    };
    let attachments = (0..rng.u8(..20)).map(|_| attachment(rng)).collect();
    let reservations = (0..rng.u16(..6000)).map(|_| rng.u8(..)).collect();
    Control { version: number(rng), fences: number(rng), attachments, reservations }
}

pub(crate) fn absent(rng: &mut Rng) -> Absent {
    Absent { since: Generation(number(rng)), disk: DiskId(id(rng)), barrier: Barrier(number(rng)) }
}

pub(crate) fn superblock(rng: &mut Rng, volume: VolumeId, size_blocks: u64) -> Superblock {
    Superblock {
        volume,
        node: node(rng),
        size_blocks,
        disk: DiskId(id(rng)),
        incarnation: maybe(rng, |rng| Incarnation(id(rng))),
        generation: Generation(number(rng)),
        record: record(rng),
        data: [Data::Blank, Data::Inconsistent, Data::Consistent][rng.usize(..3)],
        boot: BootId(id(rng)),
        clean: rng.bool(),
        suspect: rng.bool(),
        barrier: Barrier(number(rng)),
        confirmed: Barrier(number(rng)),
        absent: [(); MAX_NODES].map(|()| maybe(rng, absent)),
    }
}

fn hello(rng: &mut Rng) -> Hello {
    Hello {
        volume: VolumeId(id(rng)),
        node: node(rng),
        disk: DiskId(id(rng)),
        boot: BootId(id(rng)),
        process: Process(id(rng)),
        size_blocks: rng.u64(..=MAX_BLOCKS),
        suspect: rng.bool(),
        blank: rng.bool(),
        primary: rng.bool(),
        record: Generation(number(rng)),
        barrier: Barrier(number(rng)),
        confirmed: Barrier(number(rng)),
    }
}

fn welcome(rng: &mut Rng) -> Welcome {
    let next = Seq(number(rng));
    match rng.u8(..3) {
        0 => Welcome::GoOn { next },
        1 => Welcome::Equalise { next },
        _ => Welcome::Resync { next, fresh: maybe(rng, |rng| DiskId(id(rng))) },
    }
}

fn ready(rng: &mut Rng) -> Ready {
    let spans = |rng: &mut Rng| (0..rng.u8(..30)).map(|_| span(rng, MAX_BLOCKS)).collect();
    Ready { uncommitted: maybe(rng, spans), unconfirmed: bits(rng, MAX_BLOCKS) }
}

pub(crate) fn envelope(rng: &mut Rng) -> Envelope {
    Envelope { generation: Generation(number(rng)), committed: Seq(number(rng)), barrier: Barrier(number(rng)) }
}

pub(crate) const TYPES: u8 = 20;

/// Of this type.
pub(crate) fn message(rng: &mut Rng, code: u8) -> Message {
    match code {
        1 => Message::Hello(Box::new(hello(rng))),
        2 => Message::Welcome { record: Box::new(record(rng)), welcome: welcome(rng) },
        3 => Message::Ready(Box::new(ready(rng))),
        4 => Message::Stale { known: Generation(number(rng)) },
        5 => Message::Changed(Box::new(record(rng))),
        6 => Message::Heartbeat { sent: Time(number(rng)), fences: number(rng) },
        7 => Message::HeartbeatAnswer { sent: Time(number(rng)), fences: number(rng) },
        8 => write(rng),
        9 => Message::Written { seq: Seq(number(rng)) },
        10 => Message::Flush { number: number(rng) },
        11 => Message::Flushed { number: number(rng) },
        12 => Message::Barrier { barrier: Barrier(number(rng)), complete: maybe(rng, |rng| DiskId(id(rng))) },
        13 => Message::BarrierStored { barrier: Barrier(number(rng)) },
        14 => Message::BarrierWanted,
        15 => Message::Failed,
        16 => Message::Fetch { number: number(rng), span: span(rng, MAX_BLOCKS) },
        17 => Message::Fetched { number: number(rng), good: rng.bool() },
        18 => Message::Control(Box::new(control(rng))),
        19 => Message::ControlStored { version: number(rng) },
        20 => Message::TakeOver,
        other => panic!("there is no type {other}"),
    }
}

fn write(rng: &mut Rng) -> Message {
    let (zeroes, whole) = (maybe(rng, Rng::bool), span(rng, MAX_BLOCKS));
    let longest = if zeroes.is_some() { whole.count } else { whole.count.min(256) };
    let span = Span::new(whole.start, longest);
    Message::Write { seq: Seq(number(rng)), span, zeroes, durable: rng.bool() }
}

/// An activity log.
pub(crate) fn activity(rng: &mut Rng, size_blocks: u64) -> Vec<Extent> {
    let extents = u32::try_from(size_blocks.div_ceil(1024)).expect("there are at most 2^24");
    (0..rng.u16(..=1000)).map(|_| Extent(rng.u32(..extents))).collect()
}
