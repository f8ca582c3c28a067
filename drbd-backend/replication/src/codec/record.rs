//! The arbiter's record as bytes: in a replica's superblock, and between replicas.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 2 | version of this form, 1 |
//! | 2 | 1 | Primary: its node, 255 if there is none |
//! | 3 | 1 | members, bit n is node n |
//! | 4 | 4 | CRC32C of all 224 bytes, with zeros here |
//! | 8 | 8 | generation |
//! | 16 | 8 | epoch |
//! | 24 | 1 | in sync, bit n is node n |
//! | 25 | 1 | of which nodes it is known when they left |
//! | 26 | 6 | 0 |
//! | 32 | 8 x 16 | disk id of each node in sync, else 0 |
//! | 160 | 8 x 8 | generation at which each node left, else 0 |

use core::fmt;

use super::Reader;
use crate::checksum::{crc32c, crc32c_more};
use crate::names::{DiskId, Generation, MAX_NODES, Node, Nodes};
use crate::record::Record;

/// Every record has as many.
pub const RECORD_BYTES: usize = 224;

pub const RECORD_VERSION: u16 = 1;

const NOBODY: u8 = 255;

/// Bytes that are no record that we know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BadRecord {
    Length(usize),
    Torn,
    /// Whole, and of another version.
    Version(u16),
    /// Whole, and of our version, but it says what no record can say.
    Nonsense,
}

impl fmt::Display for BadRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(f, "a record has {RECORD_BYTES} bytes, and these are {bytes}"),
            Self::Torn => f.write_str("the record's checksum does not match"),
            Self::Version(found) => {
                write!(f, "the record has version {found}, and this release knows {RECORD_VERSION}")
            }
            Self::Nonsense => f.write_str("the record makes no sense"),
        }
    }
}

impl core::error::Error for BadRecord {}

#[must_use]
pub fn encode_record(record: &Record) -> [u8; RECORD_BYTES] {
    let left: Nodes = Node::all().filter(|node| record.left(*node).is_some()).collect();
    let mut bytes = [0; RECORD_BYTES];
    bytes[..2].copy_from_slice(&RECORD_VERSION.to_be_bytes());
    bytes[2] = record.primary.map_or(NOBODY, Node::place);
    bytes[3] = record.members.bits();
    bytes[8..16].copy_from_slice(&record.generation.0.to_be_bytes());
    bytes[16..24].copy_from_slice(&record.epoch.to_be_bytes());
    bytes[24] = record.in_sync().bits();
    bytes[25] = left.bits();
    for node in Node::all() {
        let (disk, left) = (32 + 16 * node.index(), 160 + 8 * node.index());
        bytes[disk..disk + 16].copy_from_slice(&record.disk(node).map_or(0, |disk| disk.0).to_be_bytes());
        bytes[left..left + 8].copy_from_slice(&record.left(node).map_or(0, |left| left.0).to_be_bytes());
    }
    let crc = crc32c(&bytes);
    bytes[4..8].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// # Errors
/// The bytes are not exactly one record of a known version.
pub fn decode_record(bytes: &[u8]) -> Result<Record, BadRecord> {
    let whole: &[u8; RECORD_BYTES] = bytes.try_into().map_err(|_| BadRecord::Length(bytes.len()))?;
    let crc = crc32c_more(crc32c_more(crc32c(&whole[..4]), &[0; 4]), &whole[8..]);
    if whole[4..8] != crc.to_be_bytes() {
        return Err(BadRecord::Torn);
    }
    let version = u16::from_be_bytes([whole[0], whole[1]]);
    if version != RECORD_VERSION {
        return Err(BadRecord::Version(version));
    }
    parse(&whole[2..]).ok_or(BadRecord::Nonsense)
}

/// What follows the version.
fn parse(bytes: &[u8]) -> Option<Record> {
    let mut reader = Reader::new(bytes);
    let primary = match reader.u8()? {
        NOBODY => None,
        place => Some(Node::new(place)?),
    };
    let members = Nodes::from_bits(reader.u8()?);
    reader.u32()?;
    let (generation, epoch) = (Generation(reader.u64()?), reader.u64()?);
    let (in_sync, has_left) = (Nodes::from_bits(reader.u8()?), Nodes::from_bits(reader.u8()?));
    reader.zeros(6)?;
    let mut disks = [None; MAX_NODES];
    for node in Node::all() {
        disks[node.index()] = given(in_sync.contains(node), reader.u128()?)?.map(DiskId);
    }
    let mut left = [None; MAX_NODES];
    for node in Node::all() {
        left[node.index()] = given(has_left.contains(node), reader.u64()?)?.map(Generation);
    }
    reader.end()?;
    Some(Record::of_parts(generation, primary, members, disks, left, epoch))
}

/// What is not there is written as zero.
fn given<T: Default + PartialEq>(is_there: bool, value: T) -> Option<Option<T>> {
    if is_there { Some(Some(value)) } else { (value == T::default()).then_some(None) }
}
