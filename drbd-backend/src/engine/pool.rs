//! The memory of the engine: payloads from buffers that are used again and again, and, for what is rare and large, memory of its own.

use std::io;

use crate::disk::{Buffer, Buffers};

/// The longest payload between replicas, and the longest piece of a client's request.
pub(crate) const MAX_PIECE_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub struct Pool {
    buffers: Buffers,
}

impl Pool {
    /// # Errors
    /// What mmap(2) says.
    pub fn new() -> io::Result<Self> {
        Ok(Self { buffers: Buffers::new(&[(4096, 4096), (65_536, 256), (MAX_PIECE_BYTES, 32)])? })
    }

    /// For what can wait until other memory is free.
    pub(crate) fn take(&self, bytes: usize) -> Option<Buffer> {
        self.buffers.take(bytes)
    }

    /// For what cannot: metadata, messages, what a peer sends.
    pub(crate) fn take_or_grow(&self, bytes: usize) -> Buffer {
        if let Some(buffer) = self.buffers.take(bytes) {
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
