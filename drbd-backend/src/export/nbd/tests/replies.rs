//! Replies, byte for byte.

use super::super::{Errno, Extent, REPLY_BYTES, Session, Terms};
use super::{DISK_BYTES, wire};

const SIMPLE: Terms = Terms { size_bytes: DISK_BYTES, is_read_only: false, structured: false, block_status: false };
const STRUCTURED: Terms = Terms { structured: true, block_status: true, ..SIMPLE };

#[test]
fn simple_replies() {
    let session = Session::new(SIMPLE);
    assert_eq!(session.done(7)[..], wire("67446698 00000000 0000000000000007"));
    assert_eq!(session.read(7, 512, 1024)[..], wire("67446698 00000000 0000000000000007"));
    assert_eq!(session.read_part(7, 512, 1024, true), None);
    assert_eq!(session.read_hole(7, 512, 1024, true), None);
}

#[test]
fn structured_replies() {
    let session = Session::new(STRUCTURED);
    assert_eq!(session.done(7)[..], wire("67446698 00000000 0000000000000007"), "the shorter one, where it may be");
    let data = wire("668e33ef 0001 0001 0000000000000007 00000408 0000000000000200");
    assert_eq!(session.read(7, 512, 1024)[..], data);
    let part = session.read_part(7, 512, 1024, false).expect("there are parts");
    assert_eq!(part[..], wire("668e33ef 0000 0001 0000000000000007 00000408 0000000000000200"));
    let hole = session.read_hole(7, 1536, 512, true).expect("there are holes");
    assert_eq!(hole[..], wire("668e33ef 0001 0002 0000000000000007 0000000c 0000000000000600 00000200"));
    let failed = session.failed(7, Errno::Io, "no disk");
    assert_eq!(failed[..], wire("668e33ef 0001 8001 0000000000000007 0000000d 00000005 0007 'no disk'"));
}

#[test]
fn the_text_of_an_error_is_cut_between_characters() {
    let session = Session::new(STRUCTURED);
    let reply = session.failed(7, Errno::Io, &"ä".repeat(1000));
    assert_eq!(reply.len(), REPLY_BYTES);
    assert_eq!(reply[24..26], wire("0066"));
    let reply = session.failed(7, Errno::Io, &format!("x{}", "ä".repeat(1000)));
    assert_eq!(reply[24..26], wire("0065"));
    assert!(str::from_utf8(&reply[26..]).is_ok());
}

const DATA: Extent = Extent { length: 4096, is_hole: false, is_zero: false };
const HOLE: Extent = Extent { length: 4096, is_hole: true, is_zero: true };
const ZERO: Extent = Extent { length: 4096, is_hole: false, is_zero: true };

/// The descriptors of an answer.
fn status(length: u32, one: bool, extents: &[Extent]) -> Vec<(u32, u32)> {
    let mut out = wire("'before'");
    Session::new(STRUCTURED).block_status(7, length, one, extents.iter().copied(), &mut out);
    let number = |bytes: &[u8]| u32::from_be_bytes(bytes.try_into().expect("four bytes"));
    assert_eq!(out[..6], wire("'before'"));
    assert_eq!(out[6..22], wire("668e33ef 0001 0005 0000000000000007"));
    assert_eq!(number(&out[22..26]) as usize, out.len() - 26);
    assert_eq!(out[26..30], wire("00000001"));
    out[30..].chunks(8).map(|one| (number(&one[..4]), number(&one[4..]))).collect()
}

#[test]
fn block_status_joins_what_is_alike() {
    assert_eq!(status(20480, false, &[DATA, DATA, HOLE, ZERO, ZERO]), [(8192, 0), (4096, 3), (8192, 2)]);
}

#[test]
fn block_status_ends_where_the_request_ends() {
    assert_eq!(status(5000, false, &[DATA, HOLE, DATA]), [(4096, 0), (904, 3)]);
    let endless = Extent { length: u64::MAX, ..HOLE };
    assert_eq!(status(u32::MAX, false, &[DATA, endless]), [(4096, 0), (u32::MAX - 4096, 3)]);
}

#[test]
fn block_status_of_one_extent_is_one() {
    assert_eq!(status(20480, true, &[HOLE, HOLE, DATA]), [(8192, 3)]);
    assert_eq!(status(100, true, &[HOLE, DATA]), [(100, 3)]);
}

#[test]
fn block_status_of_what_nobody_knows_is_data() {
    assert_eq!(status(8192, false, &[]), [(8192, 0)]);
    assert_eq!(status(8192, false, &[Extent { length: 0, ..HOLE }]), [(8192, 0)]);
    assert_eq!(status(8192, false, &[HOLE]), [(4096, 3)], "the client asks for the rest again");
}

#[test]
fn block_status_is_bounded() {
    let shreds: Vec<_> = (0..10_000).map(|index| if index % 2 == 0 { DATA } else { HOLE }).collect();
    let said = status(u32::MAX, false, &shreds);
    assert_eq!(said.len(), 4096);
    assert!(said.iter().all(|(length, _)| *length == 4096));
}
