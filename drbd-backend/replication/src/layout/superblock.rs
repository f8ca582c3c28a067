//! The superblock and the activity log as bytes; both follow the head of their page.
//!
//! | at | bytes | superblock |
//! |---|---|---|
//! | 64 | 1 | node |
//! | 65 | 1 | data: 0 blank, 1 inconsistent, 2 consistent |
//! | 66 | 1 | 1: clean, 2: suspect, 4: the arbiter's incarnation is known |
//! | 67 | 1 | absent members, bit n is node n |
//! | 68 | 4 | 0 |
//! | 72 | 8 | size of the volume in blocks |
//! | 80 | 8 | generation |
//! | 88 | 8 | barrier |
//! | 96 | 16 | disk id |
//! | 112 | 16 | boot id |
//! | 128 | 16 | incarnation, or 0 |
//! | 144 | 224 | the record as last heard of |
//! | 368 | 8 x 32 | of each absent member: since which generation, its barrier, its disk id; else 0 |
//! | 624 | 8 | the last barrier that every in-sync replica is known to have stored |
//!
//! | at | bytes | activity log |
//! |---|---|---|
//! | 64 | 4 | number of extents, at most 1000 |
//! | 68 | 4 | 0 |
//! | 72 | 4 each | extents |

use super::{Layout, MAX_ACTIVITY};
use crate::codec::{RECORD_BYTES, Reader, decode_record, encode_record};
use crate::metadata::{Absent, Data, Superblock};
use crate::names::{Barrier, BootId, DiskId, Extent, Generation, Incarnation, MAX_NODES, Node, Nodes, VolumeId};

const CLEAN: u8 = 1;
const SUSPECT: u8 = 2;
const INCARNATION: u8 = 4;

pub(super) fn encode(superblock: &Superblock, out: &mut Vec<u8>) {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    let absent: Nodes = Node::all().filter(|node| superblock.absent[node.index()].is_some()).collect();
    let flags = flag(superblock.clean, CLEAN)
        | flag(superblock.suspect, SUSPECT)
        | flag(superblock.incarnation.is_some(), INCARNATION);
    let data = match superblock.data {
        Data::Blank => 0,
        Data::Inconsistent => 1,
        Data::Consistent => 2,
    };
    out.extend([superblock.node.place(), data, flags, absent.bits(), 0, 0, 0, 0]);
    for number in [superblock.size_blocks, superblock.generation.0, superblock.barrier.0] {
        out.extend(number.to_be_bytes());
    }
    for id in [superblock.disk.0, superblock.boot.0, superblock.incarnation.map_or(0, |known| known.0)] {
        out.extend(id.to_be_bytes());
    }
    out.extend_from_slice(&encode_record(&superblock.record));
    for absent in superblock.absent {
        let nothing = Absent { since: Generation(0), disk: DiskId(0), barrier: Barrier(0) };
        let Absent { since, disk, barrier } = absent.unwrap_or(nothing);
        out.extend(since.0.to_be_bytes());
        out.extend(barrier.0.to_be_bytes());
        out.extend(disk.0.to_be_bytes());
    }
    out.extend(superblock.confirmed.0.to_be_bytes());
}

/// `None` if it makes no sense.
pub(super) fn decode(volume: VolumeId, body: &[u8]) -> Option<Superblock> {
    let mut reader = Reader::new(body);
    let node = reader.node()?;
    let data = match reader.u8()? {
        0 => Data::Blank,
        1 => Data::Inconsistent,
        2 => Data::Consistent,
        _ => return None,
    };
    let flags = reader.flags(CLEAN | SUSPECT | INCARNATION)?;
    let is_absent = Nodes::from_bits(reader.u8()?);
    reader.zeros(4)?;
    let (size_blocks, generation, barrier) = (reader.u64()?, Generation(reader.u64()?), Barrier(reader.u64()?));
    let (disk, boot) = (DiskId(reader.u128()?), BootId(reader.u128()?));
    let incarnation = Some(Incarnation(reader.u128()?)).filter(|_| flags & INCARNATION != 0);
    let record = decode_record(reader.bytes(RECORD_BYTES)?).ok()?;
    let mut absent = [None; MAX_NODES];
    for node in Node::all() {
        let (since, barrier) = (Generation(reader.u64()?), Barrier(reader.u64()?));
        let known = Absent { since, barrier, disk: DiskId(reader.u128()?) };
        absent[node.index()] = Some(known).filter(|_| is_absent.contains(node));
    }
    let confirmed = Barrier(reader.u64()?);
    let (clean, suspect) = (flags & CLEAN != 0, flags & SUSPECT != 0);
    Some(Superblock {
        volume,
        node,
        size_blocks,
        disk,
        incarnation,
        generation,
        record,
        data,
        boot,
        clean,
        suspect,
        barrier,
        confirmed,
        absent,
    })
}

/// At most [`MAX_ACTIVITY`] extents.
pub(super) fn encode_activity(extents: &[Extent], out: &mut Vec<u8>) {
    let count = u32::try_from(extents.len()).expect("there are at most 1000");
    out.extend(count.to_be_bytes());
    out.extend([0; 4]);
    extents.iter().for_each(|extent| out.extend(extent.0.to_be_bytes()));
}

pub(super) fn decode_activity(layout: &Layout, body: &[u8]) -> Option<Vec<Extent>> {
    let mut reader = Reader::new(body);
    let count = usize::try_from(reader.u32()?).ok().filter(|count| *count <= MAX_ACTIVITY)?;
    reader.zeros(4)?;
    (0..count).map(|_| reader.u32().filter(|extent| *extent < layout.extents).map(Extent)).collect()
}
