//! What every page begins with, and which of two copies holds.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `TdMeta`, CR, LF |
//! | 8 | 2 | version of the format, 1 |
//! | 10 | 1 | kind |
//! | 11 | 1 | whose bitmap: its node; otherwise 0 |
//! | 12 | 4 | CRC32C of the whole page, with zeros here |
//! | 16 | 16 | volume |
//! | 32 | 8 | sequence, below 2^63 |
//! | 40 | 8 | era, of directories and bitmaps |
//! | 48 | 4 | number of the page, of bitmaps |
//! | 52 | 4 | bytes of the control document, which goes on over as many pages as it needs, all under one CRC32C |
//! | 56 | 8 | 0 |
//!
//! The first 16 bytes are the same in every version, so that each can say of a later one that it is one.

use core::fmt;

use crate::checksum::{crc32c, crc32c_more};
use crate::codec::{MAX_CONTROL_BYTES, Reader};
use crate::names::{Node, VolumeId};

/// What is written at once.
pub const PAGE_BYTES: usize = 4096;

/// Of the metadata that this release writes.
pub const FORMAT_VERSION: u16 = 1;

pub(super) const HEAD: usize = 64;

const MAGIC: &[u8; 8] = b"TdMeta\r\n";

/// Nobody counts so far by one at a time; from what was found below it, a life of the process can count on without a look.
const MAX_SEQUENCE: u64 = (1 << 63) - 1;

/// Something that lies on disk in two copies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Piece {
    Superblock,
    Activity,
    Control,
    /// Of the bitmap of this node.
    Directory(Node),
    /// This page of it.
    Bitmap(Node, u32),
}

impl Piece {
    fn code(self) -> u8 {
        match self {
            Self::Superblock => 1,
            Self::Activity => 2,
            Self::Control => 3,
            Self::Directory(_) => 4,
            Self::Bitmap(..) => 5,
        }
    }

    fn node(self) -> u8 {
        match self {
            Self::Superblock | Self::Activity | Self::Control => 0,
            Self::Directory(node) | Self::Bitmap(node, _) => node.place(),
        }
    }

    fn number(self) -> u32 {
        match self {
            Self::Superblock | Self::Activity | Self::Control | Self::Directory(_) => 0,
            Self::Bitmap(_, page) => page,
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("the superblock"),
            Self::Activity => f.write_str("the activity log"),
            Self::Control => f.write_str("the control document"),
            Self::Directory(node) => write!(f, "the directory of the bitmap of {node}"),
            Self::Bitmap(node, page) => write!(f, "page {page} of the bitmap of {node}"),
        }
    }
}

/// What a page says of itself besides what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sequence: u64,
    pub(super) era: u64,
}

/// Appends a piece: its head, the body that `fill` appends, zeros to the end of the page, and the checksum over all.
pub(super) fn seal(volume: VolumeId, piece: Piece, stamp: Stamp, out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(MAGIC);
    out.extend(FORMAT_VERSION.to_be_bytes());
    out.extend([piece.code(), piece.node(), 0, 0, 0, 0]);
    out.extend(volume.0.to_be_bytes());
    out.extend(stamp.sequence.to_be_bytes());
    out.extend(stamp.era.to_be_bytes());
    out.extend(piece.number().to_be_bytes());
    out.extend([0; 12]);
    fill(out);
    let bytes = out.len() - start - HEAD;
    if piece == Piece::Control {
        let bytes = u32::try_from(bytes).expect("the document has less than 256 KiB");
        out[start + 52..start + 56].copy_from_slice(&bytes.to_be_bytes());
    }
    out.resize(start + (HEAD + bytes).next_multiple_of(PAGE_BYTES), 0);
    let crc = crc32c(&out[start..]);
    out[start + 12..start + 16].copy_from_slice(&crc.to_be_bytes());
}

/// A copy that is whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Whole<'a> {
    pub(super) volume: VolumeId,
    pub(super) stamp: Stamp,
    /// Of a control document: just that. Otherwise all that follows the head.
    pub(super) body: &'a [u8],
}

/// What lies where a copy should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found<'a> {
    Whole(Whole<'a>),
    /// Whole, and of a later format.
    Later(u16),
    /// It begins like a page of ours.
    Torn,
    Foreign,
}

/// Looks at copy 0 or 1 of a piece. `bytes` is the whole room that the copy has.
pub(super) fn inspect(piece: Piece, copy: u64, bytes: &[u8]) -> Found<'_> {
    if !bytes.starts_with(MAGIC) {
        return Found::Foreign;
    }
    match parse(piece, copy, bytes) {
        Some(found) => found,
        None => Found::Torn,
    }
}

/// `None`: torn, or something that belongs elsewhere.
fn parse(piece: Piece, copy: u64, bytes: &[u8]) -> Option<Found<'_>> {
    let mut reader = Reader::new(bytes.get(MAGIC.len()..HEAD)?);
    let version = reader.u16()?;
    let (code, node, crc) = (reader.u8()?, reader.u8()?, reader.u32()?);
    let volume = VolumeId(reader.u128()?);
    let stamp = Stamp { sequence: reader.u64()?, era: reader.u64()? };
    let (number, document) = (reader.u32()?, usize::try_from(reader.u32()?).ok()?);
    let is_control = piece == Piece::Control;
    let used = if is_control && version == FORMAT_VERSION { HEAD + document.min(MAX_CONTROL_BYTES) } else { HEAD };
    let whole = bytes.get(..used.next_multiple_of(PAGE_BYTES))?;
    if crc != crc32c_more(crc32c_more(crc32c(&whole[..12]), &[0; 4]), &whole[16..]) {
        return None;
    }
    if version > FORMAT_VERSION {
        return Some(Found::Later(version));
    }
    reader.zeros(8)?;
    let is_it = code == piece.code() && node == piece.node() && number == piece.number() && stamp.sequence % 2 == copy;
    let can_count_on = stamp.sequence <= MAX_SEQUENCE;
    let fits = if is_control { document <= MAX_CONTROL_BYTES } else { document == 0 };
    let body = if is_control { &whole[HEAD..used] } else { &whole[HEAD..] };
    (version == FORMAT_VERSION && is_it && fits && can_count_on).then_some(Found::Whole(Whole { volume, stamp, body }))
}
