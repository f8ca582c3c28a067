//! Bytes that must not change without a new version. `UPDATE=1` writes down what they are now.

use std::fmt::Write as _;
use std::path::Path;

use replication::codec::encode_record;
use replication::layout::{Layout, Writes};
use replication::wire::{Preamble, Sum, VERSIONS, Verdict, encode};
use replication::{
    Absent, Attachment, Barrier, Bits, BootId, Control, Data, DiskId, EXTENT_BLOCKS, Envelope, Extent, Generation,
    Hello, Incarnation, Message, Metadata, Node, Process, Ready, Record, Seq, Span, Superblock, Time, VolumeId,
    Welcome,
};

fn node(place: u8) -> Node {
    Node::new(place).expect("it is one of eight")
}

/// A number that tells where it stands.
fn id(first: u8) -> u128 {
    u128::from_be_bytes(core::array::from_fn(|index| first + u8::try_from(index).expect("it is below 16")))
}

fn record() -> Record {
    let mut record = Record::of_new_volume([(node(0), DiskId(id(0xa0))), (node(1), DiskId(id(0xb0)))]);
    record.primary = Some(node(0));
    record = record.next();
    record.remove(node(1));
    record
}

fn control() -> Control {
    let attachment = Attachment {
        client: 1,
        id: id(0xc0),
        host: "cmp1".into(),
        initiator: "iqn.x".into(),
        read_only: true,
        chap: None,
        epoch: 1,
        revoked: true,
    };
    Control { version: 3, fences: 2, attachments: vec![attachment], reservations: vec![0xee; 3] }
}

fn marks() -> Bits {
    let mut marks = Bits::default();
    marks.set(Span::new(1024, 9));
    marks
}

fn hello() -> Hello {
    Hello {
        volume: VolumeId(id(0x10)),
        node: node(1),
        disk: DiskId(id(0xb0)),
        boot: BootId(id(0x20)),
        process: Process(id(0x30)),
        size_blocks: 2560,
        suspect: true,
        blank: false,
        primary: true,
        record: Generation(3),
        barrier: Barrier(7),
        confirmed: Barrier(6),
    }
}

fn messages() -> Vec<Message> {
    let (next, span) = (Seq(9), Span::new(0x1234, 2));
    let welcome = |welcome| Message::Welcome { record: Box::new(record()), welcome };
    vec![
        Message::Hello(Box::new(hello())),
        welcome(Welcome::GoOn { next }),
        welcome(Welcome::Equalise { next }),
        welcome(Welcome::Resync { next, fresh: None }),
        welcome(Welcome::Resync { next, fresh: Some(DiskId(id(0xd0))) }),
        Message::Ready(Box::new(Ready { uncommitted: None, unconfirmed: Bits::default() })),
        Message::Ready(Box::new(Ready { uncommitted: Some(vec![span]), unconfirmed: marks() })),
        Message::Stale { known: Generation(6) },
        Message::Changed(Box::new(record())),
        Message::Heartbeat { sent: Time(0x1122_3344_5566), fences: 2 },
        Message::HeartbeatAnswer { sent: Time(0x1122_3344_5566), fences: 2 },
        Message::Write { seq: Seq(8), span, zeroes: None, durable: false },
        Message::Write { seq: Seq(8), span, zeroes: Some(true), durable: true },
        Message::Written { seq: Seq(8) },
        Message::Flush { number: 4 },
        Message::Flushed { number: 4 },
        Message::Barrier { barrier: Barrier(7), complete: None },
        Message::Barrier { barrier: Barrier(7), complete: Some(DiskId(id(0xd0))) },
        Message::BarrierStored { barrier: Barrier(7) },
        Message::BarrierWanted,
        Message::Failed,
        Message::Fetch { number: 5, span },
        Message::Fetched { number: 5, good: true },
        Message::Fetched { number: 5, good: false },
        Message::Control(Box::new(control())),
        Message::ControlStored { version: 3 },
        Message::TakeOver,
    ]
}

fn superblock() -> Superblock {
    let mut absent = [None; 8];
    absent[1] = Some(Absent { since: Generation(2), disk: DiskId(id(0xb0)), barrier: Barrier(6) });
    Superblock {
        volume: VolumeId(id(0x10)),
        node: node(0),
        size_blocks: 40 * EXTENT_BLOCKS,
        disk: DiskId(id(0xa0)),
        incarnation: Some(Incarnation(id(0x40))),
        generation: Generation(3),
        record: record(),
        data: Data::Consistent,
        boot: BootId(id(0x20)),
        clean: true,
        suspect: false,
        barrier: Barrier(7),
        confirmed: Barrier(6),
        absent,
    }
}

/// 32 bytes a line, a star for lines of zeros.
fn dump(title: &str, bytes: &[u8]) -> String {
    let mut text = format!("{title}\n");
    let mut zeros = false;
    for (index, line) in bytes.chunks(32).enumerate() {
        let is_zero = line.iter().all(|byte| *byte == 0);
        if !is_zero {
            let hex: Vec<String> =
                line.chunks(8).map(|eight| eight.iter().map(|byte| format!("{byte:02x}")).collect()).collect();
            writeln!(text, "{:6} {}", 32 * index, hex.join(" ")).expect("a string takes everything");
        } else if !zeros {
            text.push_str("     *\n");
        }
        zeros = is_zero;
    }
    text
}

fn compare(name: &str, now: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, now).expect("the golden can be written");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden is there");
    let differs = golden.lines().zip(now.lines()).find(|(golden, now)| golden != now);
    assert!(golden == now, "{name}: {differs:#?}; a new form needs a new version. UPDATE=1 writes it down");
}

#[test]
fn messages_are_these_bytes() {
    let envelope = Envelope { generation: Generation(3), committed: Seq(7), barrier: Barrier(6) };
    let preamble =
        Preamble { versions: VERSIONS, volume: VolumeId(id(0x10)), from: node(0), to: node(1), verdict: Verdict::Come };
    let mut text = dump("Preamble", &preamble.encode());
    for message in messages() {
        let has_payload = matches!(message, Message::Write { zeroes: None, .. } | Message::Fetched { good: true, .. });
        let sum = has_payload.then_some(Sum { bytes: 8192, crc32c: 0x5566_7788 });
        let mut frame = Vec::new();
        encode(&envelope, &message, sum, &mut frame).expect("it can be sent");
        let debug = format!("{message:?}");
        let name = debug.split(|c: char| !c.is_alphanumeric()).next().expect("a message has a name");
        text += &dump(name, &frame);
    }
    compare("messages.txt", &text);
}

#[test]
fn metadata_is_these_bytes() {
    let mut writes = Writes::default();
    let mut text = dump("record", &encode_record(&record()));
    let layout = Layout::new(VolumeId(id(0x10)), 40 * EXTENT_BLOCKS).expect("it is a size");
    let mut pages = layout.format(&superblock(), 0x99, &mut writes);
    let changes = [
        ("superblock", Metadata::Superblock(Box::new(superblock()))),
        ("activity", Metadata::Activity(vec![Extent(1), Extent(39)])),
        ("control", Metadata::Control(Box::new(control()))),
        ("whole bitmap", Metadata::WholeBitmap { node: node(1), bits: marks() }),
        ("bitmap", Metadata::Bitmap { node: node(1), bits: marks(), extents: vec![Extent(1), Extent(2)] }),
        ("bitmap", Metadata::Bitmap { node: node(1), bits: Bits::all(1 << 20), extents: vec![Extent(31)] }),
    ];
    let mut add = |name: &str, writes: &Writes| {
        let steps = [("", writes.first().collect::<Vec<_>>()), ("then ", writes.then().collect())];
        for (step, (offset, bytes)) in
            steps.into_iter().flat_map(|(step, all)| all.into_iter().map(move |one| (step, one)))
        {
            text += &dump(&format!("{step}{name}, {} bytes at {offset}", bytes.len()), bytes);
        }
    };
    add("new", &writes);
    for (name, change) in changes {
        pages.write(&change, &mut writes).expect("there is room");
        add(name, &writes);
    }
    compare("metadata.txt", &text);
}
