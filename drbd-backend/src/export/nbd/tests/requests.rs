//! Requests, one by one: which are done, which are answered here, and where the next one begins.

use super::super::{Errno, MAXIMUM_BLOCK_BYTES, Reply, Request, Session, Step, Terms, Wants};
use super::{DISK_BYTES, wire};

const TERMS: Terms = Terms { size_bytes: DISK_BYTES, is_read_only: false, structured: true, block_status: true };

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISC: u16 = 2;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;

const FUA: u16 = 1;
const NO_HOLE: u16 = 2;
const DF: u16 = 4;
const REQ_ONE: u16 = 8;
const FAST_ZERO: u16 = 16;

/// The cookie of all of them.
const C: u64 = 0x1122_3344_5566_7788;

fn header(flags: u16, command: u16, offset: u64, length: u32) -> Vec<u8> {
    wire(&format!("25609513 {flags:04x} {command:04x} {C:016x} {offset:016x} {length:08x}"))
}

/// What becomes of one request on those terms.
fn step(terms: Terms, flags: u16, command: u16, offset: u64, length: u32) -> Step {
    let mut session = Session::new(terms);
    let (taken, step) = session.received(&header(flags, command, offset, length)).expect("it is a request");
    assert_eq!(taken, 28);
    if step == Step::More {
        assert_eq!(session.wants(), Wants::PassedOver(length));
        let payload = vec![0; length as usize];
        let (taken, step) = session.received(&payload).expect("it means nothing");
        assert_eq!((taken, session.wants()), (payload.len(), Wants::Request(28)));
        return step;
    }
    step
}

/// The number of the error that one is answered with; zero for none.
fn errno(terms: Terms, flags: u16, command: u16, offset: u64, length: u32) -> u32 {
    let Step::Answer(reply) = step(terms, flags, command, offset, length) else { panic!("it was not answered") };
    let number = |at: usize| u32::from_be_bytes(reply[at..at + 4].try_into().expect("four bytes"));
    match reply[..4] {
        [0x67, 0x44, 0x66, 0x98] => number(4),
        _ if reply[6] == 0x80 => number(20),
        _ => 0,
    }
}

#[test]
fn each_command_is_understood_with_its_flags() {
    let (cookie, offset, length) = (C, 4096, 8192);
    let cases = [
        (0, READ, Request::Read { cookie, offset, length, df: false }),
        (FUA | DF, READ, Request::Read { cookie, offset, length, df: true }),
        (0, WRITE, Request::Write { cookie, offset, length, fua: false }),
        (FUA, WRITE, Request::Write { cookie, offset, length, fua: true }),
        (0, ZEROES, Request::Zeroes { cookie, offset, length, may_trim: true, fua: false, fast: false }),
        (NO_HOLE, ZEROES, Request::Zeroes { cookie, offset, length, may_trim: false, fua: false, fast: false }),
        (FAST_ZERO, ZEROES, Request::Zeroes { cookie, offset, length, may_trim: true, fua: false, fast: true }),
        (FUA, ZEROES, Request::Zeroes { cookie, offset, length, may_trim: true, fua: true, fast: false }),
        (0, TRIM, Request::Trim { cookie, offset, length, fua: false }),
        (FUA, TRIM, Request::Trim { cookie, offset, length, fua: true }),
        (FUA, CACHE, Request::Cache { cookie, offset, length }),
        (0, STATUS, Request::BlockStatus { cookie, offset, length, one: false }),
        (FUA | REQ_ONE, STATUS, Request::BlockStatus { cookie, offset, length, one: true }),
    ];
    for (flags, command, request) in cases {
        assert_eq!(step(TERMS, flags, command, offset, length), Step::Request(request));
        assert_eq!(request.cookie(), Some(C));
    }
    assert_eq!(step(TERMS, FUA, FLUSH, 0, 0), Step::Request(Request::Flush { cookie }));
    assert_eq!(step(TERMS, 0, DISC, 0, 0), Step::Request(Request::Disconnect));
}

#[test]
fn the_last_byte_can_be_reached_and_none_behind_it() {
    let last = DISK_BYTES - 1;
    for (command, beyond) in [(READ, 22), (WRITE, 28), (TRIM, 22), (CACHE, 22), (ZEROES, 28), (STATUS, 22)] {
        assert!(matches!(step(TERMS, 0, command, last, 1), Step::Request(_)));
        for (offset, length) in [(last, 2), (DISK_BYTES, 1), (DISK_BYTES + 1, 0), (u64::MAX, 1), (u64::MAX - 3, 8)] {
            assert_eq!(errno(TERMS, 0, command, offset, length), beyond, "command {command} at {offset}");
        }
    }
}

#[test]
fn nothing_is_written_to_what_is_read_only() {
    let terms = Terms { is_read_only: true, ..TERMS };
    for command in [WRITE, TRIM, ZEROES] {
        assert_eq!(errno(terms, 0, command, 0, 4096), 1);
        assert_eq!(errno(terms, 0, command, u64::MAX, 4096), 1);
    }
    for command in [READ, CACHE, STATUS] {
        assert!(matches!(step(terms, 0, command, 0, 4096), Step::Request(_)));
    }
    assert!(matches!(step(terms, 0, FLUSH, 0, 0), Step::Request(_)));
}

#[test]
fn a_flag_that_the_command_does_not_have_is_invalid() {
    let allowed = [
        (READ, DF | FUA),
        (WRITE, FUA),
        (FLUSH, FUA),
        (TRIM, FUA),
        (CACHE, FUA),
        (ZEROES, FUA | NO_HOLE | FAST_ZERO),
        (STATUS, FUA | REQ_ONE),
    ];
    for (command, allowed) in allowed {
        for flag in (0..16).map(|bit| 1 << bit).filter(|flag| flag & allowed == 0) {
            assert_eq!(errno(TERMS, flag, command, 0, 512), 22, "command {command} with {flag:#x}");
        }
    }
    assert_eq!(errno(Terms { structured: false, block_status: false, ..TERMS }, DF, READ, 0, 512), 22);
}

#[test]
fn reads_and_writes_are_of_32_mib_at_most_and_the_others_of_any_length() {
    let terms = Terms { size_bytes: 1 << 40, ..TERMS };
    let (most, more) = (MAXIMUM_BLOCK_BYTES, MAXIMUM_BLOCK_BYTES + 1);
    for command in [READ, WRITE] {
        assert!(matches!(step(terms, 0, command, 0, most), Step::Request(_)));
        assert_eq!(errno(terms, 0, command, 0, more), 22);
    }
    assert_eq!(errno(terms, DF, READ, 0, more), 75);
    for command in [TRIM, CACHE, ZEROES, STATUS] {
        assert!(matches!(step(terms, 0, command, 0, u32::MAX), Step::Request(_)));
    }
}

#[test]
fn a_range_of_nothing_is_done_at_once() {
    for command in [READ, WRITE, TRIM, CACHE, ZEROES] {
        assert_eq!(errno(TERMS, 0, command, DISK_BYTES, 0), 0);
    }
    let Step::Answer(reply) = step(TERMS, 0, READ, 0, 0) else { panic!("it was not answered") };
    assert_eq!(reply[..], wire(&format!("668e33ef 0001 0000 {C:016x} 00000000")), "no chunk of no data");
    assert_eq!(errno(TERMS, 0, STATUS, 0, 0), 22);
}

#[test]
fn what_makes_no_sense_is_invalid() {
    assert_eq!(errno(TERMS, 0, FLUSH, 1, 0), 22);
    assert_eq!(errno(TERMS, 0, FLUSH, 0, 1), 22);
    assert_eq!(errno(Terms { block_status: false, ..TERMS }, 0, STATUS, 0, 512), 22);
    for command in [8, 9, 0xffff] {
        assert_eq!(errno(TERMS, 0, command, 0, 512), 22);
    }
}

#[test]
fn a_refusal_has_a_text_where_the_client_can_read_one() {
    let simple = Terms { structured: false, block_status: false, ..TERMS };
    let Step::Answer(reply) = step(simple, 0, READ, DISK_BYTES, 1) else { panic!("it was not answered") };
    assert_eq!(reply[..], wire(&format!("67446698 00000016 {C:016x}")));
    let Step::Answer(reply) = step(TERMS, 0, READ, DISK_BYTES, 1) else { panic!("it was not answered") };
    let expected = format!("668e33ef 0001 8001 {C:016x} 00000022 00000016 001c 'beyond the end of the export'");
    assert_eq!(reply[..], wire(&expected));
}

#[test]
fn a_payload_goes_where_the_caller_wants_it() {
    let mut session = Session::new(TERMS);
    session.received(&header(0, WRITE, 0, 10)).expect("it is a request");
    assert_eq!(session.wants(), Wants::Payload(10));
    assert_eq!(session.received(b"0123456789").expect("none is taken"), (0, Step::Payload(10)));
    assert!(!session.payload_received(4));
    assert_eq!(session.wants(), Wants::Payload(6));
    assert!(session.payload_received(6));
    assert_eq!(
        session.received(&header(0, FLUSH, 0, 0)).expect("it is a request"),
        (28, Step::Request(Request::Flush { cookie: C }))
    );
}

#[test]
fn a_write_that_cannot_be_is_passed_over_and_answered_behind_its_payload() {
    let mut session = Session::new(TERMS);
    let mut bytes = header(0, WRITE, DISK_BYTES, 5);
    bytes.extend_from_slice(b"12345");
    bytes.extend_from_slice(&header(0, FLUSH, 0, 0));
    assert_eq!(session.received(&bytes).expect("it is a request"), (28, Step::More));
    assert_eq!(session.wants(), Wants::PassedOver(5));
    assert_eq!(session.received(&bytes[28..31]).expect("it means nothing"), (3, Step::More));
    let (taken, step) = session.received(&bytes[31..]).expect("it means nothing");
    let text = "beyond the end of the export";
    assert_eq!((taken, step), (2, Step::Answer(session.failed(C, Errno::NoSpace, text))));
    let (_, step) = session.received(&bytes[33..]).expect("it is a request");
    assert_eq!(step, Step::Request(Request::Flush { cookie: C }));
}

#[test]
fn a_write_that_the_caller_does_not_want_is_passed_over_too() {
    let mut session = Session::new(TERMS);
    session.received(&header(0, WRITE, 0, 5)).expect("it is a request");
    assert!(!session.payload_received(2));
    session.refuse_payload(Errno::Io, "the disk has failed");
    assert_eq!(session.wants(), Wants::PassedOver(3));
    let (taken, step) = session.received(b"345 and what comes next").expect("it means nothing");
    assert_eq!((taken, step), (3, Step::Answer(session.failed(C, Errno::Io, "the disk has failed"))));
}

#[test]
fn after_a_disconnect_nothing_is_wanted() {
    let mut session = Session::new(TERMS);
    session.received(&header(0, DISC, 0, 0)).expect("it is a request");
    assert_eq!(session.wants(), Wants::Nothing);
    assert_eq!(session.received(&header(0, READ, 0, 512)).expect("it is ignored"), (28, Step::More));
}

#[test]
fn errors_have_the_numbers_of_the_protocol() {
    let session = Session::new(Terms { structured: false, block_status: false, ..TERMS });
    let numbers = [
        (Errno::NotPermitted, 1),
        (Errno::Io, 5),
        (Errno::Invalid, 22),
        (Errno::NoSpace, 28),
        (Errno::Overflow, 75),
        (Errno::NotSupported, 95),
        (Errno::ShuttingDown, 108),
    ];
    for (errno, number) in numbers {
        let reply: Reply = session.failed(C, errno, "nobody reads this");
        assert_eq!(reply[..], wire(&format!("67446698 {number:08x} {C:016x}")));
    }
}
