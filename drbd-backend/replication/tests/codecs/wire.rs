//! The peer protocol: what is sent arrives, what is not of it is refused.

use fastrand::Rng;
use replication::checksum::{crc32c, crc32c_more};
use replication::codec::{BadRecord, decode_record, encode_record};
use replication::wire::{
    HEAD_BYTES, Head, MAX_BODY_BYTES, MAX_PAYLOAD_BYTES, Malformed, NotAPeer, Preamble, Refused, Sum, Unsendable,
    VERSIONS, Verdict, Versions, encode,
};
use replication::{Bits, Extent, Message, Node, Ready, Seq, Span, Time, VolumeId};

use crate::random;

/// The payload that goes with it, if any.
pub(crate) fn payload_of(rng: &mut Rng, message: &Message) -> Option<Sum> {
    let bytes = match message {
        Message::Write { span, zeroes: None, .. } => span.count * 4096,
        Message::Fetched { good: true, .. } => 4096 * rng.u32(1..=256),
        _ => return None,
    };
    Some(Sum { bytes, crc32c: rng.u32(..) })
}

fn head_of(frame: &[u8]) -> Head {
    Head::decode(frame.first_chunk().expect("a frame has a head")).expect("it is one of ours")
}

#[test]
fn what_is_sent_arrives() {
    for seed in 0..3000 {
        let mut rng = Rng::with_seed(seed);
        for code in 1..=random::TYPES {
            let (envelope, message) = (random::envelope(&mut rng), random::message(&mut rng, code));
            let payload = payload_of(&mut rng, &message);
            let mut frame = Vec::new();
            encode(&envelope, &message, payload, &mut frame).expect("it can be sent");
            let head = head_of(&frame);
            assert_eq!((head.envelope, head.payload()), (envelope, payload), "seed {seed}: {message:?}");
            assert_eq!(HEAD_BYTES + head.body_bytes(), frame.len());
            assert_eq!(head.message(&frame[HEAD_BYTES..]), Ok(message), "seed {seed}");
        }
    }
}

#[test]
fn what_is_sent_for_each_write_has_no_body_and_takes_no_memory() {
    let rng = &mut Rng::with_seed(1);
    let envelope = random::envelope(rng);
    let often = [
        Message::Write { seq: Seq(1), span: Span::new(8, 2), zeroes: None, durable: true },
        Message::Written { seq: Seq(1) },
        Message::Heartbeat { sent: Time(5), fences: 1 },
        Message::HeartbeatAnswer { sent: Time(5), fences: 1 },
        Message::Flush { number: 1 },
        Message::Flushed { number: 1 },
    ];
    let mut out = Vec::with_capacity(often.len() * HEAD_BYTES);
    let before = (out.as_ptr(), out.capacity());
    for message in &often {
        let payload = payload_of(rng, message);
        encode(&envelope, message, payload, &mut out).expect("it can be sent");
    }
    assert_eq!((out.as_ptr(), out.capacity(), out.len()), (before.0, before.1, before.1), "several in one buffer");
    for (frame, message) in out.chunks(HEAD_BYTES).zip(&often) {
        assert_eq!(head_of(frame).message(&[]).as_ref(), Ok(message));
    }
}

#[test]
fn payloads_are_whole_blocks_as_many_as_the_message_says() {
    let envelope = random::envelope(&mut Rng::with_seed(1));
    let write = |count, zeroes| Message::Write { seq: Seq(1), span: Span::new(0, count), zeroes, durable: false };
    let send = |message: &Message, bytes: Option<u32>| {
        let mut out = vec![1, 2, 3];
        let sum = bytes.map(|bytes| Sum { bytes, crc32c: 9 });
        let result = encode(&envelope, message, sum, &mut out);
        assert!(result.is_ok() || out == [1, 2, 3], "what is refused leaves nothing behind");
        result
    };
    let refused = |kind, bytes| Err(Unsendable::Payload { kind, bytes });
    assert_eq!(send(&write(256, None), Some(MAX_PAYLOAD_BYTES)), Ok(()));
    assert_eq!(send(&write(257, None), Some(257 * 4096)), refused(8, Some(257 * 4096)));
    assert_eq!(send(&write(2, None), Some(4096)), refused(8, Some(4096)));
    assert_eq!(send(&write(2, None), None), refused(8, None));
    assert_eq!(send(&write(2, Some(true)), Some(8192)), refused(8, Some(8192)));
    assert_eq!(send(&write(1 << 20, Some(true)), None), Ok(()), "zeroes have no payload, so they may be many");
    assert_eq!(send(&Message::Fetched { number: 1, good: true }, Some(512)), refused(17, Some(512)));
    assert_eq!(send(&Message::Fetched { number: 1, good: false }, Some(4096)), refused(17, Some(4096)));
    assert_eq!(send(&Message::TakeOver, Some(4096)), refused(20, Some(4096)));
}

#[test]
fn the_marks_of_a_full_activity_log_fit_and_more_than_a_frame_holds_is_refused() {
    let envelope = random::envelope(&mut Rng::with_seed(1));
    let ready = |extents: u32, spans: usize| {
        let mut unconfirmed = Bits::default();
        (0..extents).for_each(|extent| {
            unconfirmed.set_words(Extent(extent * 7), &[extent.into(), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5])
        });
        Message::Ready(Box::new(Ready { uncommitted: Some(vec![Span::new(5, 6); spans]), unconfirmed }))
    };
    let mut frame = Vec::new();
    let full = ready(1000, 4096);
    encode(&envelope, &full, None, &mut frame).expect("it fits");
    assert_eq!(head_of(&frame).message(&frame[HEAD_BYTES..]), Ok(full));
    let mut out = vec![];
    assert_eq!(encode(&envelope, &ready(10, 90_000), None, &mut out), Err(Unsendable::TooLong { kind: 3 }));
    assert!(out.is_empty() && frame.len() < HEAD_BYTES + MAX_BODY_BYTES);
}

/// A head with another field, and the checksum that goes with it.
fn bent(frame: &[u8], at: usize, bytes: &[u8]) -> Result<Head, Malformed> {
    let mut head: [u8; HEAD_BYTES] = *frame.first_chunk().expect("a frame has a head");
    head[at..at + bytes.len()].copy_from_slice(bytes);
    let crc = crc32c(&head[..60]);
    head[60..].copy_from_slice(&crc.to_be_bytes());
    Head::decode(&head)
}

#[test]
fn no_announced_length_is_believed_beyond_what_its_type_can_need() {
    let rng = &mut Rng::with_seed(2);
    for code in 1..=random::TYPES {
        let message = random::message(rng, code);
        let mut frame = Vec::new();
        let payload = payload_of(rng, &message);
        encode(&random::envelope(rng), &message, payload, &mut frame).expect("it can be sent");
        let most = u32::try_from(MAX_BODY_BYTES + 1).expect("it is 2^20 + 1");
        for bytes in [most, u32::MAX, 1 << 31] {
            assert!(matches!(bent(&frame, 4, &bytes.to_be_bytes()), Err(Malformed::Length { .. })), "{message:?}");
            assert!(matches!(bent(&frame, 8, &bytes.to_be_bytes()), Err(Malformed::Length { .. })), "{message:?}");
        }
    }
}

#[test]
fn what_is_no_frame_is_named() {
    let mut frame = Vec::new();
    let heartbeat = Message::Heartbeat { sent: Time(5), fences: 1 };
    encode(&random::envelope(&mut Rng::with_seed(1)), &heartbeat, None, &mut frame).expect("it can be sent");
    assert_eq!(Head::decode(&[0; HEAD_BYTES]), Err(Malformed::NotAFrame));
    assert_eq!(bent(&frame, 2, &[21]), Err(Malformed::UnknownType(21)));
    let nonsense = Malformed::Nonsense { kind: 6 };
    assert_eq!(bent(&frame, 3, &[1]).and_then(|head| head.message(&[])), Err(nonsense), "heartbeats have no flags");
    assert_eq!(bent(&frame, 56, &[1]).and_then(|head| head.message(&[])), Err(nonsense), "nor a third field");
    frame[17] ^= 1;
    assert_eq!(Head::decode(frame.first_chunk().expect("it has 64")), Err(Malformed::TornHead));
}

#[test]
fn damage_to_body_or_payload_is_seen() {
    let mut frame = Vec::new();
    let rng = &mut Rng::with_seed(1);
    let changed = random::message(rng, 5);
    encode(&random::envelope(rng), &changed, None, &mut frame).expect("it can be sent");
    let head = head_of(&frame);
    frame[HEAD_BYTES + 20] ^= 4;
    assert_eq!(head.message(&frame[HEAD_BYTES..]), Err(Malformed::TornBody));
    assert_eq!(head.message(&[]), Err(Malformed::TornBody));
    let sum = Sum { bytes: 4096, crc32c: crc32c(&[7; 4096]) };
    let mut frame = Vec::new();
    encode(&random::envelope(rng), &Message::Fetched { number: 1, good: true }, Some(sum), &mut frame)
        .expect("it can be sent");
    assert_eq!(head_of(&frame).check_payload(crc32c(&[7; 4096])), Ok(()));
    assert_eq!(head_of(&frame).check_payload(crc32c(&[8; 4096])), Err(Malformed::TornPayload));
}

fn node(place: u8) -> Node {
    Node::new(place).expect("it is one of eight")
}

fn opening() -> Preamble {
    Preamble { versions: VERSIONS, volume: VolumeId(77), from: node(0), to: node(1), verdict: Verdict::Come }
}

#[test]
fn two_releases_agree_on_the_highest_version_that_both_speak() {
    let between = |ours: (u16, u16), theirs: (u16, u16)| {
        let versions = |(lowest, highest)| Versions { lowest, highest };
        let ours = Preamble { versions: versions(ours), ..opening() };
        ours.agree(&ours.answer(versions(theirs), Verdict::Come)).ok()
    };
    assert_eq!(between((1, 1), (1, 1)), Some(1));
    assert_eq!(between((1, 3), (2, 9)), Some(3));
    assert_eq!(between((2, 9), (1, 3)), Some(3));
    assert_eq!(between((1, 1), (2, 3)), None);
    assert_eq!(between((4, 5), (1, 3)), None);
}

#[test]
fn a_refusal_says_what_both_sides_have() {
    let opening = opening();
    let later = opening.answer(Versions { lowest: 2, highest: 3 }, Verdict::Come);
    let refused =
        opening.agree(&Preamble::decode(&later.encode()).expect("it is a preamble")).expect_err("nothing in common");
    assert_eq!(
        refused.to_string(),
        "we speak version 1 of the peer protocol and the peer speaks versions 2 to 3: upgrade the older of the two"
    );
    let said = |verdict| opening.agree(&opening.answer(VERSIONS, verdict));
    assert_eq!(said(Verdict::NoSuchVolume), Err(Refused::NoSuchVolume(VolumeId(77))));
    assert_eq!(said(Verdict::NotThatNode), Err(Refused::NotThatNode(node(1))));
    assert_eq!(said(Verdict::Other(9)), Err(Refused::Other(9)));
    let other = Preamble { volume: VolumeId(78), ..opening.answer(VERSIONS, Verdict::Come) };
    assert_eq!(opening.agree(&other), Err(Refused::OtherVolume { asked: VolumeId(77), answered: VolumeId(78) }));
    let third = Preamble { from: node(2), ..opening.answer(VERSIONS, Verdict::Come) };
    assert_eq!(opening.agree(&third), Err(Refused::NotThatNode(node(1))));
}

#[test]
fn who_does_not_speak_the_protocol_is_told_apart_from_damage() {
    let mut bytes = opening().encode();
    assert_eq!(Preamble::decode(&bytes), Ok(opening()));
    bytes[20] ^= 1;
    assert_eq!(Preamble::decode(&bytes), Err(NotAPeer::Torn));
    assert_eq!(Preamble::decode(b"GET / HTTP/1.1\r\nHost: 198.18.1.2:158"), Err(NotAPeer::Foreign));
}

#[test]
fn a_record_survives_as_bytes_and_damage_to_it_is_seen() {
    for seed in 0..2000 {
        let mut rng = Rng::with_seed(seed);
        let record = random::record(&mut rng);
        let mut bytes = encode_record(&record);
        assert_eq!(decode_record(&bytes), Ok(record), "seed {seed}");
        bytes[rng.usize(..bytes.len())] ^= 1 << rng.u8(..8);
        assert_eq!(decode_record(&bytes), Err(BadRecord::Torn), "seed {seed}");
    }
    assert_eq!(decode_record(&[1, 2, 3]), Err(BadRecord::Length(3)));
    let mut later = encode_record(&random::record(&mut Rng::with_seed(1)));
    later[1] = 2;
    later[4..8].fill(0);
    let crc = crc32c(&later);
    later[4..8].copy_from_slice(&crc.to_be_bytes());
    assert_eq!(decode_record(&later), Err(BadRecord::Version(2)));
}

/// RFC 3720, appendix B.4.
#[test]
fn the_checksum_is_crc32c() {
    let up: Vec<u8> = (0..32).collect();
    let down: Vec<u8> = (0..32).rev().collect();
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    assert_eq!(crc32c(&up), 0x46dd_794e);
    assert_eq!(crc32c(&down), 0x113f_db5c);
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    for length in 0..up.len() {
        assert_eq!(crc32c_more(crc32c(&up[..length]), &up[length..]), crc32c(&up));
    }
}
