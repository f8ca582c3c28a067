//! Takes bytes apart from the front; `None` wherever they do not suffice or are not what they should be.

use crate::names::{BLOCK_BYTES, Node, Span};

/// Blocks of the largest volume: 64 TiB.
pub(crate) const MAX_BLOCKS: u64 = (64 << 40) / BLOCK_BYTES as u64;

#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*taken)
    }

    pub(crate) fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    pub(crate) fn u128(&mut self) -> Option<u128> {
        self.take().map(u128::from_be_bytes)
    }

    pub(crate) fn node(&mut self) -> Option<Node> {
        Node::new(self.u8()?)
    }

    pub(crate) fn span(&mut self) -> Option<Span> {
        span(self.u64()?, self.u32()?)
    }

    /// Bits of which only these are known.
    pub(crate) fn flags(&mut self, known: u8) -> Option<u8> {
        self.u8().filter(|flags| flags & !known == 0)
    }

    /// Room that is not used yet.
    pub(crate) fn zeros(&mut self, length: usize) -> Option<()> {
        self.bytes(length)?.iter().all(|byte| *byte == 0).then_some(())
    }

    /// A count of things that take at least `each` bytes: no more than the rest can hold, so that room for them may be taken at once.
    pub(crate) fn count(&mut self, each: usize) -> Option<usize> {
        let count = usize::try_from(self.u32()?).ok()?;
        (count <= self.rest.len() / each).then_some(count)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Option<()> {
        self.rest.is_empty().then_some(())
    }
}

/// Blocks that a volume can have.
pub(crate) fn span(start: u64, count: u32) -> Option<Span> {
    let fits = count > 0 && start < MAX_BLOCKS && u64::from(count) <= MAX_BLOCKS - start;
    fits.then(|| Span::new(start, count))
}
