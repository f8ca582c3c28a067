//! Bytes of strangers: whatever they are, they are refused or understood, and nothing else happens.

use std::slice;

use fastrand::Rng;
use replication::checksum::crc32c;
use replication::codec::{decode_record, encode_record};
use replication::layout::{Layout, PAGE_BYTES, Writes};
use replication::wire::{HEAD_BYTES, Head, PREAMBLE_BYTES, Preamble, encode};
use replication::{Bits, EXTENT_BLOCKS, Metadata, Node, VolumeId};

use crate::disk::Disk;
use crate::metadata::reseal;
use crate::random;
use crate::wire::payload_of;

/// A few bytes become others; often such as lengths and counts do not like.
fn bend(rng: &mut Rng, bytes: &mut [u8]) {
    for _ in 0..rng.u8(1..4) {
        let at = rng.usize(..bytes.len());
        let end = (at + rng.usize(1..=8)).min(bytes.len());
        match rng.u8(..4) {
            0 => bytes[at..end].fill(0xff),
            1 => bytes[at..end].fill(0),
            2 => bytes[at] ^= 1 << rng.u8(..8),
            _ => bytes[at..end].iter_mut().for_each(|byte| *byte = rng.u8(..)),
        }
    }
}

/// What is understood is what would be sent.
fn take(frame: &[u8]) -> bool {
    let Some((head, body)) = frame.split_first_chunk::<HEAD_BYTES>() else { return false };
    let Ok(head) = Head::decode(head) else { return false };
    let Some(body) = body.get(..head.body_bytes()) else { return false };
    let Ok(message) = head.message(body) else { return false };
    let mut again = Vec::new();
    encode(&head.envelope, &message, head.payload(), &mut again).expect("what was received can be sent");
    assert_eq!(again, &frame[..HEAD_BYTES + body.len()], "{message:?}");
    true
}

#[test]
fn a_frame_that_was_bent_is_refused_or_is_another_whole_message() {
    let (mut understood, mut refused) = (0, 0);
    for seed in 0..30_000 {
        let mut rng = Rng::with_seed(seed);
        let code = rng.u8(1..=random::TYPES);
        let message = random::message(&mut rng, code);
        let payload = payload_of(&mut rng, &message);
        let mut frame = Vec::new();
        encode(&random::envelope(&mut rng), &message, payload, &mut frame).expect("it can be sent");
        bend(&mut rng, &mut frame);
        // As a stranger would who knows the checksums.
        let body = frame.len() - HEAD_BYTES;
        if body >= 4 {
            let (end, crc) = (frame.len() - 4, crc32c(&frame[HEAD_BYTES..frame.len() - 4]));
            frame[end..].copy_from_slice(&crc.to_be_bytes());
        }
        let crc = crc32c(&frame[..60]);
        frame[60..64].copy_from_slice(&crc.to_be_bytes());
        if take(&frame) { understood += 1 } else { refused += 1 }
    }
    assert!(understood > 1000 && refused > 1000, "understood {understood}, refused {refused}");
}

#[test]
fn noise_is_refused() {
    for seed in 0..30_000 {
        let mut rng = Rng::with_seed(seed);
        let mut noise: Vec<u8> = (0..rng.usize(..400)).map(|_| rng.u8(..)).collect();
        assert!(!take(&noise), "seed {seed}");
        if noise.len() >= 64 {
            noise[..2].copy_from_slice(b"Td");
            assert!(!take(&noise), "seed {seed}");
        }
        noise.resize(PREAMBLE_BYTES, 0);
        assert!(Preamble::decode(noise.first_chunk().expect("it is as long")).is_err(), "seed {seed}");
    }
}

#[test]
fn a_record_that_was_bent_is_refused_or_is_another_one() {
    for seed in 0..30_000 {
        let mut rng = Rng::with_seed(seed);
        let mut bytes = encode_record(&random::record(&mut rng));
        bend(&mut rng, &mut bytes);
        bytes[4..8].fill(0);
        let crc = crc32c(&bytes);
        bytes[4..8].copy_from_slice(&crc.to_be_bytes());
        if let Ok(record) = decode_record(&bytes) {
            assert_eq!(encode_record(&record), bytes, "seed {seed}");
        }
    }
}

#[test]
fn metadata_that_was_bent_is_refused_or_loads_and_can_be_written_on() {
    let size = 70 * EXTENT_BLOCKS + 3;
    let layout = Layout::new(VolumeId(1), size).expect("it is a size");
    let node = Node::new(2).expect("it is one of eight");
    let (mut loaded, mut refused) = (0, 0);
    for seed in 0..1500 {
        let mut rng = Rng::with_seed(seed);
        let (mut disk, mut writes) = (Disk::default(), Writes::default());
        let mut superblock = random::superblock(&mut rng, VolumeId(1), size);
        superblock.absent[2] = Some(random::absent(&mut rng));
        let mut pages = layout.format(&superblock, 5, &mut writes);
        disk.carry_out(&writes);
        let bits = random::bits(&mut rng, size);
        let whole = Metadata::WholeBitmap { node, bits };
        let activity = Metadata::Activity(random::activity(&mut rng, size));
        for change in slice::from_ref(&whole).iter().chain([&activity]) {
            pages.write(change, &mut writes).expect("there is room");
            disk.carry_out(&writes);
        }
        for _ in 0..rng.u8(1..5) {
            bend_page(&mut rng, &mut disk, &layout, node);
        }
        match disk.load(layout, 6) {
            Ok((found, mut pages)) => {
                loaded += 1;
                pages
                    .write(&Metadata::Bitmap { node, bits: Bits::all(size), extents: found.activity }, &mut writes)
                    .expect("there is room");
                pages.write(&whole, &mut writes).expect("there is room");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(loaded > 100 && refused > 100, "loaded {loaded}, refused {refused}");
}

/// One of the pages that are in use, with the checksum that goes with it.
fn bend_page(rng: &mut Rng, disk: &mut Disk, layout: &Layout, node: Node) {
    let ranges =
        [layout.superblock(), layout.activity(), layout.directory(node), layout.control(), layout.bitmap(node)];
    let range = &ranges[rng.usize(..ranges.len())];
    let offset = range.start + PAGE_BYTES as u64 * rng.u64(..2);
    let mut page = disk.page(offset);
    let until = [HEAD_BYTES, 200, PAGE_BYTES][rng.usize(..3)];
    bend(rng, &mut page[..until]);
    if rng.u8(..4) > 0 {
        reseal(&mut page);
    }
    disk.write(offset, &page);
}
