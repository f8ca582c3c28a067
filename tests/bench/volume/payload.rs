//! What lies in each block, and what must: everything that is read is checked.
//!
//! Each 512 bytes of a block begin with the block's number and the number of the write; the last four bytes are the CRC32C of the rest. So a
//! block that is another's, torn, damaged or older than what was acknowledged is known for what it is.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, ensure};

pub(crate) const BLOCK: usize = 4096;
const SECTOR: usize = 512;
const SUM_AT: usize = BLOCK - 4;

/// Of each block the last write that was acknowledged. Two writes of one block are never in flight together.
#[derive(Debug)]
pub(crate) struct Ledger(Vec<AtomicU32>);

impl Ledger {
    /// Of a volume that nobody has written to.
    pub(crate) fn new(size_bytes: u64) -> Self {
        let blocks = usize::try_from(size_bytes).expect("64 bits") / BLOCK;
        Self((0..blocks).map(|_| AtomicU32::new(0)).collect())
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.0.len() as u64
    }

    fn of(&self, block: u64) -> &AtomicU32 {
        &self.0[usize::try_from(block).expect("64 bits")]
    }

    pub(crate) fn acknowledged(&self, block: u64) -> u32 {
        self.of(block).load(Ordering::Relaxed)
    }

    /// Fills `data` with the next write of these blocks.
    pub(crate) fn stamp(&self, first: u64, data: &mut [u8]) {
        for (block, bytes) in (first..).zip(data.chunks_exact_mut(BLOCK)) {
            stamp(bytes, block, self.acknowledged(block).wrapping_add(1));
        }
    }

    /// Their next write is acknowledged.
    pub(crate) fn written(&self, first: u64, count: u64) {
        for block in first..first + count {
            let next = self.acknowledged(block).wrapping_add(1);
            self.of(block).store(next, Ordering::Relaxed);
        }
    }

    /// Whether this may be read of these blocks: for each the last acknowledged write, or one that is not acknowledged yet. `since` is what was
    /// acknowledged of the first block when the read began.
    pub(crate) fn check(&self, first: u64, since: u32, data: &[u8]) -> Result<()> {
        for (block, bytes) in (first..).zip(data.chunks_exact(BLOCK)) {
            let newest = self.acknowledged(block).wrapping_add(1);
            let oldest = if block == first { since } else { newest.wrapping_sub(1) };
            let found = sequence(bytes, block)?;
            let is_due = found.wrapping_sub(oldest) <= newest.wrapping_sub(oldest);
            ensure!(is_due, "block {block} holds write {found} where {oldest} was acknowledged: a write is lost");
        }
        Ok(())
    }
}

fn stamp(block: &mut [u8], number: u64, sequence: u32) {
    for sector in block.chunks_exact_mut(SECTOR) {
        sector[..8].copy_from_slice(&number.to_le_bytes());
        sector[8..12].copy_from_slice(&sequence.to_le_bytes());
    }
    let sum = crc32c::crc32c(&block[..SUM_AT]);
    block[SUM_AT..].copy_from_slice(&sum.to_le_bytes());
}

fn sequence(block: &[u8], number: u64) -> Result<u32> {
    let sum = u32::from_le_bytes(block[SUM_AT..].try_into()?);
    ensure!(crc32c::crc32c(&block[..SUM_AT]) == sum, "block {number} is torn or damaged: its checksum is wrong");
    let found = u64::from_le_bytes(block[..8].try_into()?);
    ensure!(found == number, "block {number} holds what belongs to block {found}");
    Ok(u32::from_le_bytes(block[8..12].try_into()?))
}
