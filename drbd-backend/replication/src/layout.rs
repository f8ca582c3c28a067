//! Metadata on disk, byte for byte: where each piece lies, what is to be written for a change, and what a start makes of what it finds.
//!
//! ```text
//!        0  superblock            A B          8 KiB
//!    8 KiB  activity log          A B          8 KiB
//!   16 KiB  directories           A B  x 8    64 KiB   of a node's bitmap: which of it is in use
//!   80 KiB  (room)                            48 KiB
//!  128 KiB  control document      A B        512 KiB
//!  640 KiB  (room)                           384 KiB
//!    1 MiB  bitmap of node 0      A...A B...B          sparse; one page for 31 extents (124 MiB) in each half
//!           bitmap of node 1 ... 7                     each beginning on a whole MiB
//! ```
//! Every piece lies in two copies, each with its sequence number and checksum. The one with the number n lies in A if n is even and in B if it is
//! odd: a write lands on the older copy, and the newer one that is whole is the piece. So a write that was cut short leaves what was before.
//!
//! Bits of a page count only if the directory names the page's section and the page bears the directory's era. A bitmap that is written as a whole
//! gets a new era: its pages first, then, once they are durable, the directory. Before that all of the old bitmap is there, afterwards all of the
//! new one. Whatever has no marks, or nothing but marks, stands in the directory alone; so neither a volume of 64 TiB with few marks nor one
//! that is to be copied wholly costs more than a few pages.
//!
//! `docs/on-disk.md` has every byte.

mod bitmap;
mod load;
mod page;
mod pages;
mod superblock;
mod writes;

use core::fmt;
use core::ops::Range;

pub use load::{Identity, Loading, Unusable, identify};
pub use page::{FORMAT_VERSION, PAGE_BYTES, Piece};
pub use pages::{Pages, TooLarge};
pub use writes::Writes;

use crate::bits::Words;
use crate::codec::MAX_BLOCKS;
use crate::names::{EXTENT_BLOCKS, Extent, MAX_NODES, Node, VolumeId};

/// What [`Loading::begin`] wants to be given: everything but the bitmaps.
pub const HEAD_BYTES: usize = 640 * 1024;

/// The most extents that an activity log may have.
pub const MAX_ACTIVITY: usize = 1000;

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const PAGE: u64 = PAGE_BYTES as u64;

/// Extents of one page of a bitmap: 31 x 128 bytes and the page's own head.
const PAGE_EXTENTS: u32 = 31;

/// Sections of a directory: two bits each, in one page.
const MAX_SECTIONS: u32 = 16_128;

/// Where the metadata of one volume lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    volume: VolumeId,
    size_blocks: u64,
    extents: u32,
    /// Of one copy of one bitmap.
    pages: u32,
    /// What the directory counts in: one page up to 1.9 TiB, then more.
    section_pages: u32,
}

/// No volume has this size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BadSize {
    pub blocks: u64,
}

impl fmt::Display for BadSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a volume cannot have {} blocks of 4 KiB: it has at least one, and at most 64 TiB", self.blocks)
    }
}

impl core::error::Error for BadSize {}

impl Layout {
    /// # Errors
    /// No volume has this size.
    pub fn new(volume: VolumeId, size_blocks: u64) -> Result<Self, BadSize> {
        if size_blocks == 0 || size_blocks > MAX_BLOCKS {
            return Err(BadSize { blocks: size_blocks });
        }
        let extents = u32::try_from(size_blocks.div_ceil(EXTENT_BLOCKS)).expect("64 TiB have 2^24 extents");
        let pages = extents.div_ceil(PAGE_EXTENTS);
        Ok(Self { volume, size_blocks, extents, pages, section_pages: pages.div_ceil(MAX_SECTIONS) })
    }

    /// How long the file is. It is sparse; see [`reserved`](Self::reserved).
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        MIB + MAX_NODES as u64 * self.bitmap_bytes()
    }

    #[must_use]
    pub fn superblock(&self) -> Range<u64> {
        0..8 * KIB
    }

    #[must_use]
    pub fn activity(&self) -> Range<u64> {
        8 * KIB..16 * KIB
    }

    /// Of the bitmap of this node.
    #[must_use]
    pub fn directory(&self, node: Node) -> Range<u64> {
        let start = 16 * KIB + 8 * KIB * u64::from(node.place());
        start..start + 8 * KIB
    }

    #[must_use]
    pub fn control(&self) -> Range<u64> {
        128 * KIB..640 * KIB
    }

    #[must_use]
    pub fn bitmap(&self, node: Node) -> Range<u64> {
        let start = MIB + u64::from(node.place()) * self.bitmap_bytes();
        start..start + self.bitmap_bytes()
    }

    /// What a replica must have room for on its file system, so that a full one never stands in the way of metadata: all but the bitmaps of nodes that
    /// are no members.
    pub fn reserved(&self, members: impl Iterator<Item = Node>) -> impl Iterator<Item = Range<u64>> {
        core::iter::once(0..MIB).chain(members.map(|node| self.bitmap(node)))
    }

    fn bitmap_bytes(&self) -> u64 {
        (2 * PAGE * u64::from(self.pages)).next_multiple_of(MIB)
    }

    /// Where the piece with this sequence number lies.
    fn place(&self, piece: Piece, sequence: u64) -> u64 {
        let copy = sequence % 2;
        match piece {
            Piece::Superblock => self.superblock().start + copy * PAGE,
            Piece::Activity => self.activity().start + copy * PAGE,
            Piece::Control => self.control().start + copy * 256 * KIB,
            Piece::Directory(node) => self.directory(node).start + copy * PAGE,
            Piece::Bitmap(node, page) => {
                self.bitmap(node).start + PAGE * (copy * u64::from(self.pages) + u64::from(page))
            }
        }
    }

    fn sections(&self) -> u32 {
        self.pages.div_ceil(self.section_pages)
    }

    /// The pages of a section.
    fn pages_of(&self, section: u32) -> Range<u32> {
        let first = section * self.section_pages;
        first..(first + self.section_pages).min(self.pages)
    }

    /// The extents of a page.
    fn extents_of(&self, page: u32) -> Range<u32> {
        let first = page * PAGE_EXTENTS;
        first..(first + PAGE_EXTENTS).min(self.extents)
    }

    /// Every block of the extent that the volume has.
    fn whole(&self, extent: Extent) -> Words {
        let blocks = self.size_blocks.saturating_sub(extent.span().start);
        core::array::from_fn(|word| match blocks.saturating_sub(64 * word as u64) {
            0 => 0,
            some if some < 64 => (1 << some) - 1,
            _ => u64::MAX,
        })
    }
}
