//! What follows the head, for messages that have more to say than its fields hold.

use super::frame::Fields;
use super::kind::{COMPLETE, DURABLE, GOOD, Kind, MAX_BODY_BYTES, PUNCH, READY, ZEROES};
use crate::bits::{Bits, Words};
use crate::codec::{
    MAX_BLOCKS, RECORD_BYTES, Reader, decode_control, decode_record, encode_control, encode_record, span,
};
use crate::message::{Hello, Message, Ready, Welcome};
use crate::names::{Barrier, BootId, DiskId, EXTENT_BLOCKS, Extent, Generation, Process, Seq, Span, Time, VolumeId};
use crate::record::Record;

const SUSPECT: u8 = 1;
const BLANK: u8 = 2;
const PRIMARY: u8 = 4;

const GO_ON: u8 = 1;
const EQUALISE: u8 = 2;
const RESYNC: u8 = 3;
const RESYNC_FRESH: u8 = 4;

const SPAN: usize = 8 + 4;
const MARKS: usize = 4 + 128;

/// Appends it. `None` if it is too long.
pub(super) fn encode(message: &Message, out: &mut Vec<u8>) -> Option<()> {
    match message {
        Message::Hello(hello) => encode_hello(hello, out),
        Message::Welcome { record, welcome } => encode_welcome(record, welcome, out),
        Message::Ready(ready) => return encode_ready(ready, out),
        Message::Changed(record) => out.extend_from_slice(&encode_record(record)),
        Message::Barrier { complete, .. } => out.extend(complete.iter().flat_map(|disk| disk.0.to_be_bytes())),
        Message::Control(control) => return encode_control(control, out),
        Message::Stale { .. }
        | Message::Heartbeat { .. }
        | Message::HeartbeatAnswer { .. }
        | Message::Write { .. }
        | Message::Written { .. }
        | Message::Flush { .. }
        | Message::Flushed { .. }
        | Message::BarrierStored { .. }
        | Message::BarrierWanted
        | Message::Failed
        | Message::Fetch { .. }
        | Message::Fetched { .. }
        | Message::ControlStored { .. }
        | Message::TakeOver => {}
    }
    Some(())
}

/// `None` if it makes no sense.
pub(super) fn decode(kind: Kind, fields: &Fields, body: &[u8]) -> Option<Message> {
    let mut reader = Reader::new(body);
    let Fields { flags, first, second, third } = *fields;
    let message = match kind {
        Kind::Hello => Message::Hello(Box::new(decode_hello(&mut reader)?)),
        Kind::Welcome => decode_welcome(&mut reader)?,
        Kind::Ready => Message::Ready(Box::new(decode_ready(&mut reader)?)),
        Kind::Stale => Message::Stale { known: Generation(first) },
        Kind::Changed => Message::Changed(Box::new(record(&mut reader)?)),
        Kind::Heartbeat => Message::Heartbeat { sent: Time(first), fences: second },
        Kind::HeartbeatAnswer => Message::HeartbeatAnswer { sent: Time(first), fences: second },
        Kind::Write => {
            let zeroes = (flags & ZEROES != 0).then_some(flags & PUNCH != 0);
            Message::Write { seq: Seq(first), span: span(second, third)?, zeroes, durable: flags & DURABLE != 0 }
        }
        Kind::Written => Message::Written { seq: Seq(first) },
        Kind::Flush => Message::Flush { number: first },
        Kind::Flushed => Message::Flushed { number: first },
        Kind::Barrier => {
            let complete = if flags & COMPLETE == 0 { None } else { Some(DiskId(reader.u128()?)) };
            Message::Barrier { barrier: Barrier(first), complete }
        }
        Kind::BarrierStored => Message::BarrierStored { barrier: Barrier(first) },
        Kind::BarrierWanted => Message::BarrierWanted,
        Kind::Failed => Message::Failed,
        Kind::Fetch => Message::Fetch { number: first, span: span(second, third)? },
        Kind::Fetched => Message::Fetched { number: first, good: flags & GOOD != 0 },
        Kind::Control => return decode_control(body).map(|control| Message::Control(Box::new(control))),
        Kind::ControlStored => Message::ControlStored { version: first },
        Kind::TakeOver => Message::TakeOver,
    };
    reader.end()?;
    Some(message)
}

fn record(reader: &mut Reader<'_>) -> Option<Record> {
    decode_record(reader.bytes(RECORD_BYTES)?).ok()
}

fn encode_hello(hello: &Hello, out: &mut Vec<u8>) {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    for id in [hello.volume.0, hello.disk.0, hello.boot.0, hello.process.0] {
        out.extend(id.to_be_bytes());
    }
    for number in [hello.size_blocks, hello.record.0, hello.barrier.0, hello.confirmed.0] {
        out.extend(number.to_be_bytes());
    }
    out.push(hello.node.place());
    out.push(flag(hello.suspect, SUSPECT) | flag(hello.blank, BLANK) | flag(hello.primary, PRIMARY));
    out.extend([0; 6]);
}

fn decode_hello(reader: &mut Reader<'_>) -> Option<Hello> {
    let (volume, disk) = (VolumeId(reader.u128()?), DiskId(reader.u128()?));
    let (boot, process) = (BootId(reader.u128()?), Process(reader.u128()?));
    let size_blocks = reader.u64().filter(|blocks| *blocks <= MAX_BLOCKS)?;
    let (record, barrier) = (Generation(reader.u64()?), Barrier(reader.u64()?));
    let confirmed = Barrier(reader.u64()?);
    let node = reader.node()?;
    let flags = reader.flags(SUSPECT | BLANK | PRIMARY)?;
    reader.zeros(6)?;
    let (suspect, blank, primary) = (flags & SUSPECT != 0, flags & BLANK != 0, flags & PRIMARY != 0);
    Some(Hello { volume, node, disk, boot, process, size_blocks, suspect, blank, primary, record, barrier, confirmed })
}

fn encode_welcome(record: &Record, welcome: &Welcome, out: &mut Vec<u8>) {
    let (what, next, fresh) = match welcome {
        Welcome::GoOn { next } => (GO_ON, next, None),
        Welcome::Equalise { next } => (EQUALISE, next, None),
        Welcome::Resync { next, fresh: None } => (RESYNC, next, None),
        Welcome::Resync { next, fresh } => (RESYNC_FRESH, next, *fresh),
    };
    out.extend_from_slice(&encode_record(record));
    out.push(what);
    out.extend([0; 7]);
    out.extend(next.0.to_be_bytes());
    out.extend(fresh.map_or(0, |disk| disk.0).to_be_bytes());
}

fn decode_welcome(reader: &mut Reader<'_>) -> Option<Message> {
    let record = Box::new(record(reader)?);
    let what = reader.u8()?;
    reader.zeros(7)?;
    let (next, disk) = (Seq(reader.u64()?), DiskId(reader.u128()?));
    let welcome = match what {
        RESYNC_FRESH => Welcome::Resync { next, fresh: Some(disk) },
        _ if disk != DiskId(0) => return None,
        GO_ON => Welcome::GoOn { next },
        EQUALISE => Welcome::Equalise { next },
        RESYNC => Welcome::Resync { next, fresh: None },
        _ => return None,
    };
    Some(Message::Welcome { record, welcome })
}

fn encode_ready(ready: &Ready, out: &mut Vec<u8>) -> Option<()> {
    let spans = ready.uncommitted.as_deref().unwrap_or_default();
    let extents = ready.unconfirmed.extents().count();
    let bytes = READY + SPAN * spans.len() + MARKS * extents;
    if bytes > MAX_BODY_BYTES {
        return None;
    }
    out.reserve(bytes);
    out.extend([u8::from(ready.uncommitted.is_some()), 0, 0, 0]);
    out.extend(u32::try_from(spans.len()).ok()?.to_be_bytes());
    for span in spans {
        out.extend(span.start.to_be_bytes());
        out.extend(span.count.to_be_bytes());
    }
    out.extend(u32::try_from(extents).ok()?.to_be_bytes());
    for (extent, words) in ready.unconfirmed.extents() {
        out.extend(extent.0.to_be_bytes());
        words.iter().for_each(|word| out.extend(word.to_be_bytes()));
    }
    Some(())
}

fn decode_ready(reader: &mut Reader<'_>) -> Option<Ready> {
    let knows = reader.flags(1)? == 1;
    reader.zeros(3)?;
    let count = reader.count(SPAN)?;
    let spans = (0..count).map(|_| reader.span()).collect::<Option<Vec<Span>>>()?;
    let unconfirmed = decode_marks(reader)?;
    (knows || spans.is_empty()).then_some(Ready { uncommitted: knows.then_some(spans), unconfirmed })
}

fn decode_marks(reader: &mut Reader<'_>) -> Option<Bits> {
    let mut bits = Bits::default();
    let mut least = 0;
    for _ in 0..reader.count(MARKS)? {
        let extent =
            reader.u32().filter(|extent| *extent >= least && u64::from(*extent) < MAX_BLOCKS / EXTENT_BLOCKS)?;
        least = extent + 1;
        let mut words: Words = [0; 16];
        for word in &mut words {
            *word = reader.u64()?;
        }
        if words == [0; 16] {
            return None;
        }
        bits.set_words(Extent(extent), &words);
    }
    Some(bits)
}
