//! What has come in on a connection and is not looked at yet: one buffer, used again for each receive, so that many small messages are one call of the
//! kernel.

use crate::disk::Buffer;

/// How much is received in one go: some requests or frames of a block each.
pub(super) const INBOX_BYTES: usize = 65_536;

/// As much of a payload, or more, is received to where it shall stay; less comes with what is behind it.
pub(super) const DIRECT_BYTES: usize = 32_768;

/// So often what is there already is received before others have their turn.
pub(super) const ROUNDS: usize = 8;

#[derive(Debug)]
pub(super) struct Inbox {
    /// Away while a receive is under way.
    buffer: Option<Buffer>,
    start: usize,
    end: usize,
}

impl Inbox {
    pub(super) fn new(buffer: Buffer) -> Self {
        Self { buffer: Some(buffer), start: 0, end: 0 }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// So many from the front are dealt with.
    pub(super) fn take(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more is taken than is there");
    }

    /// As many from the front as fit there; how many.
    pub(super) fn move_to(&mut self, there: &mut [u8]) -> usize {
        let bytes = self.bytes();
        let count = bytes.len().min(there.len());
        there[..count].copy_from_slice(&bytes[..count]);
        self.take(count);
        count
    }

    /// From the front, until they are so many there.
    pub(super) fn append_to(&mut self, there: &mut Vec<u8>, until: usize) {
        let bytes = self.bytes();
        let count = bytes.len().min(until.saturating_sub(there.len()));
        there.extend_from_slice(&bytes[..count]);
        self.take(count);
    }

    /// To be received into, all of it, once it is empty.
    pub(super) fn lend(&mut self) -> Option<Buffer> {
        if self.is_empty() { self.buffer.take() } else { None }
    }

    /// It is back, with so many new bytes.
    pub(super) fn filled(&mut self, buffer: Buffer, count: usize) {
        self.buffer = Some(buffer);
        (self.start, self.end) = (0, count);
    }
}
