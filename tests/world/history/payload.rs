//! Blocks that say which write they are of, in every sector of 512 bytes.
//!
//! ```text
//!  sector: seed 8 | block 8 | writer 4, sector 4 | sequence 8 | 480 bytes that follow from all these
//! ```
//!
//! So a read tells a block of another place, another volume or half another write from what it should show, and a
//! flipped bit from all of them.

use std::fmt;

use super::{Value, WriteId};

/// Bytes of a block.
pub const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const WORDS: usize = SECTOR / 8;

/// What one sector is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sector {
    Zeroes,
    /// Whole, and of this write of this block.
    Of {
        block: u64,
        id: WriteId,
    },
    Garbage,
}

/// Why a block shows no write of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// Its sectors are whole, and not of one write.
    Torn(Vec<Sector>),
    /// A whole block that belongs elsewhere.
    Misplaced { block: u64, id: WriteId },
    /// Some of its sectors nobody wrote so, at least not for this volume and this place in the block.
    Garbage(Vec<Sector>),
}

/// Fills a block with what this write of it holds.
pub fn fill(seed: u64, block: u64, id: WriteId, out: &mut [u8; BLOCK]) {
    for (at, sector) in (0..).zip(out.as_chunks_mut::<SECTOR>().0) {
        fill_sector(seed, block, id, at, sector);
    }
}

/// What a block shows.
pub fn read(seed: u64, block: u64, bytes: &[u8; BLOCK]) -> Result<Value, Damage> {
    let sectors = bytes.as_chunks::<SECTOR>().0;
    let sectors: Vec<Sector> = (0..).zip(sectors).map(|(at, sector)| read_sector(seed, at, sector)).collect();
    if sectors.contains(&Sector::Garbage) {
        return Err(Damage::Garbage(sectors));
    }
    match sectors[0] {
        first if sectors.iter().any(|sector| *sector != first) => Err(Damage::Torn(sectors)),
        Sector::Of { block: there, id } if there != block => Err(Damage::Misplaced { block: there, id }),
        Sector::Of { id, .. } => Ok(Value::Write(id)),
        Sector::Zeroes | Sector::Garbage => Ok(Value::Zeroes),
    }
}

fn fill_sector(seed: u64, block: u64, id: WriteId, at: u32, out: &mut [u8; SECTOR]) {
    let place = u64::from(id.writer) | u64::from(at) << 32;
    let head = [seed, block, place, id.sequence];
    let key = head.iter().fold(0, |key, word| mix(key ^ word));
    let tail = (1..).map(|step: u64| mix(key.wrapping_add(step.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
    for (to, word) in out.as_chunks_mut::<8>().0.iter_mut().zip(head.into_iter().chain(tail).take(WORDS)) {
        *to = word.to_le_bytes();
    }
}

fn read_sector(seed: u64, at: u32, bytes: &[u8; SECTOR]) -> Sector {
    if bytes.iter().all(|byte| *byte == 0) {
        return Sector::Zeroes;
    }
    let words = bytes.as_chunks::<8>().0;
    let [block, place, sequence] = [1, 2, 3].map(|word| u64::from_le_bytes(words[word]));
    let [w0, w1, w2, w3, ..] = place.to_le_bytes();
    let id = WriteId { writer: u32::from_le_bytes([w0, w1, w2, w3]), sequence };
    let mut expected = [0; SECTOR];
    fill_sector(seed, block, id, at, &mut expected);
    if expected == *bytes { Sector::Of { block, id } } else { Sector::Garbage }
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood, 2014): each bit of the answer depends on each of the question.
fn mix(word: u64) -> u64 {
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

impl fmt::Display for Sector {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroes => to.write_str("zeroes"),
            Self::Of { block, id } => write!(to, "{id} of block {block}"),
            Self::Garbage => to.write_str("garbage"),
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, sectors) = match self {
            Self::Misplaced { block, id } => return write!(to, "{id}, which belongs to block {block}"),
            Self::Torn(sectors) => ("a torn block", sectors),
            Self::Garbage(sectors) => ("a damaged block", sectors),
        };
        to.write_str(name)?;
        let mut begin = 0;
        for run in sectors.chunk_by(|one, next| one == next) {
            let last = begin + run.len() - 1;
            write!(to, "{} {begin}-{last} {}", if begin == 0 { ": sectors" } else { "," }, run[0])?;
            begin = last + 1;
        }
        Ok(())
    }
}
