//! What the shell has to write for a change of metadata, in one or two steps.

use core::ops::Range;

use super::page::PAGE_BYTES;

/// Whole pages and where they go. To be used again and again: it keeps its memory.
///
/// All of [`first`](Self::first) is written, in any order, and flushed; then, if there is any, all of [`then`](Self::then), and flushed. With that
/// the change is durable. Nothing at all to write: it is durable already.
#[derive(Debug, Default)]
pub struct Writes {
    bytes: Vec<u8>,
    places: Vec<(u64, Range<usize>)>,
    /// How many of the places belong to the first step, once there is a second.
    first: Option<usize>,
}

impl Writes {
    /// Offsets in the file, and what goes there.
    pub fn first(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces(0..self.first.unwrap_or(self.places.len()))
    }

    /// Likewise.
    pub fn then(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.pieces(self.first.unwrap_or(self.places.len())..self.places.len())
    }

    fn pieces(&self, range: Range<usize>) -> impl Iterator<Item = (u64, &[u8])> {
        self.places[range].iter().map(|(offset, range)| (*offset, &self.bytes[range.clone()]))
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.places.clear();
        self.first = None;
    }

    /// What is pushed from here on must wait for what was pushed before.
    pub(super) fn step(&mut self) {
        self.first = Some(self.places.len()).filter(|first| *first > 0);
    }

    /// Whole pages, as `fill` appends them. What lies behind one another becomes one write.
    pub(super) fn push(&mut self, offset: u64, fill: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        fill(&mut self.bytes);
        let end = self.bytes.len();
        debug_assert_eq!((end - start) % PAGE_BYTES, 0, "only whole pages are written");
        let begins_step = self.first == Some(self.places.len());
        match self.places.last_mut() {
            Some((before, range)) if *before + range.len() as u64 == offset && !begins_step => range.end = end,
            _ => self.places.push((offset, start..end)),
        }
    }
}
