use iscsi::{Event, Outcome, Step, Work};

use super::initiator::{Initiator, Pdu, events, logged_in, target};

const WRITE_8: [u8; 10] = [0x2a, 0, 0, 0, 0, 8, 0, 0, 8, 0];

#[test]
fn a_write_begins_when_it_is_asked_and_is_answered_when_it_is_done() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    let data: Vec<u8> = (0..4096_u32).map(|at| u8::try_from(at % 251).unwrap()).collect();
    assert_eq!(it.command(&mut target, &WRITE_8, 0, &data), []);
    assert_eq!(it.begun[0].1, Work::Write { offset: 4096, bytes: 4096, durable: false });
    assert_eq!(it.payload, data);
    let answers = it.done(&mut target, &Outcome::Done);
    answers[0].is_good();
    assert_eq!(answers[0].at(16), it.tag);
}

#[test]
fn data_is_asked_for_burst_after_burst() {
    let mut target = target();
    let mut it = Initiator::with(&mut target, logged_in("iqn.a", &["ImmediateData=No", "MaxBurstLength=1024"]));
    it.command(&mut target, &[0; 6], 0, &[]);
    let mut pdu = it.pdu(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 4, 0], 0, &[]).word(20, 2048);
    pdu.head[1] = 0xa0;
    let asked = it.send(&mut target, &pdu);
    assert_eq!((asked.len(), asked[0].head[0], asked[0].at(40), asked[0].at(44)), (1, 0x31, 0, 1024));
    let data = |asked: &Pdu, offset: u32| {
        Pdu::new(0x05, 0x80, asked.at(16)).word(20, asked.at(20)).word(40, offset).with(&[7; 1024])
    };
    let next = it.send(&mut target, &data(&asked[0], 0));
    assert_eq!((next[0].head[0], next[0].at(36), next[0].at(40), next[0].at(44)), (0x31, 1, 1024, 1024));
    assert_eq!(it.send(&mut target, &data(&next[0], 1024)), []);
    assert_eq!(it.payload, [7; 2048]);
    it.done(&mut target, &Outcome::Done)[0].is_good();
}

#[test]
fn a_write_whose_data_is_out_of_order_is_not_done() {
    let mut target = target();
    let mut it = Initiator::with(&mut target, logged_in("iqn.a", &["InitialR2T=No", "ImmediateData=No"]));
    it.command(&mut target, &[0; 6], 0, &[]);
    let mut pdu = it.pdu(&WRITE_8, 0, &[]).word(20, 4096);
    pdu.head[1] = 0x20;
    it.send(&mut target, &pdu);
    let wrong = Pdu::new(0x05, 0x80, it.tag).word(20, 0xffff_ffff).word(36, 27).with(&[1; 4096]);
    assert_eq!(it.send(&mut target, &wrong), []);
    assert_eq!((it.dropped.len(), it.payload.len()), (1, 0));
    assert_eq!(it.done(&mut target, &Outcome::Dropped)[0].sense(), (0xb, 0x4705));
}

#[test]
fn an_abort_is_answered_when_the_command_has_completed() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    it.command(&mut target, &WRITE_8, 0, &[1; 4096]);
    let abort = |it: &Initiator, tag: u32| Pdu::new(0x42, 0x81, 900).word(20, tag).word(24, it.cmd_sn);
    let tag = it.tag;
    assert_eq!(it.send(&mut target, &abort(&it, tag)), [], "the write is under way");
    assert!(matches!(events(&mut target)[..], [Event::Drop { .. }]));
    let answers = it.done(&mut target, &Outcome::Done);
    assert_eq!(answers.len(), 1, "the command itself is not answered");
    assert_eq!((answers[0].head[0], answers[0].head[2], answers[0].at(16)), (0x22, 0, 900));
    let none = it.send(&mut target, &abort(&it, tag));
    assert_eq!(none[0].head[2], 1, "there is no such task any more");
}

#[test]
fn a_reset_waits_for_the_commands_of_everybody() {
    let mut target = target();
    let mut a = Initiator::new(&mut target, "iqn.a");
    let mut b = Initiator::new(&mut target, "iqn.b");
    b.command(&mut target, &WRITE_8, 0, &[1; 4096]);
    let reset = Pdu::new(0x42, 0x85, 900).word(24, a.cmd_sn);
    assert_eq!(a.send(&mut target, &reset), []);
    events(&mut target);
    assert_eq!(b.done(&mut target, &Outcome::Done), []);
    match &events(&mut target)[..] {
        [Event::Send { session, bytes }] => assert_eq!((*session, bytes[0], bytes[2]), (a.id, 0x22, 0)),
        other => panic!("{other:?}"),
    }
    assert_eq!(b.command(&mut target, &[0; 6], 0, &[])[0].sense(), (6, 0x2900));
}

#[test]
fn a_port_that_logs_in_again_takes_the_place_of_its_session() {
    let mut target = target();
    let old = Initiator::new(&mut target, "iqn.a");
    let new = Initiator::new(&mut target, "iqn.a");
    assert_eq!(events(&mut target), [Event::Close { session: old.id }]);
    assert!(!target.is_open(old.id) && target.is_open(new.id));
}

#[test]
fn commands_outside_the_window_are_not_heard_and_gaps_end_the_session() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    let good = it.pdu(&[0; 6], 0, &[]);
    assert_eq!(it.send(&mut target, &good.clone().word(24, it.cmd_sn + 400)), []);
    assert_eq!(it.send(&mut target, &good.clone().word(24, it.cmd_sn - 3)), []);
    it.send(&mut target, &good)[0].is_good();
    let gap = it.pdu(&[0; 6], 0, &[]).word(24, it.cmd_sn + 5);
    assert!(it.try_send(&mut target, &gap.bytes()).is_err());
}

#[test]
fn the_window_is_as_long_as_commands_are_open() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    for _ in 0..128 {
        it.command(&mut target, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, &[]);
    }
    assert_eq!(it.begun.len(), 128);
    it.command(&mut target, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, &[]);
    assert_eq!(it.begun.len(), 128, "one more is not heard");
    it.cmd_sn -= 1;
    let answers = it.done(&mut target, &Outcome::Failed);
    assert_eq!(answers[0].sense(), (3, 0x1100));
    it.command(&mut target, &[0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], 512, &[]);
    assert_eq!(it.begun.len(), 128);
}

#[test]
fn a_ping_is_answered_with_its_data() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    let ping = Pdu::new(0x40, 0x80, 77).word(20, 0xffff_ffff).word(24, it.cmd_sn).with(b"there?");
    let answers = it.send(&mut target, &ping);
    assert_eq!((answers[0].head[0], answers[0].at(16), &answers[0].data[..]), (0x20, 77, &b"there?"[..]));
}

#[test]
fn a_logout_is_answered_and_then_the_connection_closes() {
    let mut target = target();
    let mut it = Initiator::new(&mut target, "iqn.a");
    let answers = it.send(&mut target, &Pdu::new(0x46, 0x80, 5).word(24, it.cmd_sn));
    assert_eq!((answers[0].head[0], answers[0].head[2]), (0x26, 0));
    assert!(it.is_closed);
}

#[test]
fn data_of_a_wrong_digest_is_never_written() {
    let mut target = target();
    let logged_in = logged_in("iqn.a", &["DataDigest=CRC32C", "InitialR2T=No"]);
    assert!(logged_in.terms.digests.data);
    let id = target.joined(logged_in, false);
    let mut out = Vec::new();
    let mut steps = Vec::new();
    let mut receive = |target: &mut iscsi::Target, mut bytes: &[u8]| {
        loop {
            let (taken, step) = target.received(id, bytes, &mut out).unwrap();
            bytes = &bytes[taken..];
            match step {
                Step::More if bytes.is_empty() => break,
                Step::More => {}
                step => {
                    if let Step::Begin { task, .. } = &step {
                        target.ready(id, *task, &mut out);
                    }
                    steps.push(step);
                }
            }
        }
    };
    receive(&mut target, &Pdu::new(0x01, 0x80, 1).word(24, 10).bytes());
    let mut write = Pdu::new(0x01, 0xa0, 2).word(20, 512).word(24, 11).with(&[5; 512]);
    write.head[32..42].copy_from_slice(&[0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
    let mut bytes = write.bytes();
    bytes.extend_from_slice(&(crc32c::crc32c(&[5; 512]) ^ 1).to_le_bytes());
    receive(&mut target, &bytes);
    assert!(matches!(steps[..], [Step::Begin { .. }, Step::Drop { .. }]), "{steps:?}");
}
