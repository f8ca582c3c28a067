//! The memory of the engine: payloads from buffers that are used again and again, and, for what is rare and large, memory of its own.

use std::io;

use crate::disk::{Buffer, Buffers};

/// The longest piece of a client's request, and so of what goes to the disk and to the peers at once. Longer ones leave the processor's cache before they
/// are summed and sent on, shorter ones cost more operations: measured, this is where most goes through.
pub(crate) const MAX_PIECE_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub struct Pool {
    blocks: Buffers,
    pieces: Buffers,
}

impl Pool {
    /// # Errors
    /// What mmap(2) says.
    pub fn new() -> io::Result<Self> {
        let blocks = Buffers::new(&[(4096, 4096), (65_536, 256)])?;
        Ok(Self { blocks, pieces: Buffers::in_huge_pages(&[(MAX_PIECE_BYTES, 64)])? })
    }

    /// For what can wait until other memory is free.
    pub(crate) fn take(&self, bytes: usize) -> Option<Buffer> {
        self.blocks.take(bytes).or_else(|| self.pieces.take(bytes))
    }

    /// For what cannot: metadata, messages, what a peer sends.
    pub(crate) fn take_or_grow(&self, bytes: usize) -> Buffer {
        if let Some(buffer) = self.take(bytes) {
            return buffer;
        }
        let size = bytes.next_multiple_of(4096).max(4096);
        let own = Buffers::new(&[(size, 1)]).expect("there is memory for one buffer");
        own.take(bytes).expect("it was made for this")
    }

    /// These bytes, in a buffer.
    pub(crate) fn copy_of(&self, bytes: &[u8]) -> Buffer {
        let mut buffer = self.take_or_grow(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }
}
