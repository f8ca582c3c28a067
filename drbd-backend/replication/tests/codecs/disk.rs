//! A file with a volatile cache: what is written is there for good only after a flush; a power cut spares some sectors of what was under way.

use std::collections::BTreeMap;
use std::ops::Range;

use fastrand::Rng;
use replication::Found;
use replication::layout::{HEAD_BYTES, Layout, Loading, PAGE_BYTES, Pages, Unusable, Writes};

pub(crate) const SECTOR: usize = 512;

/// Sparse, by page.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pages: BTreeMap<u64, [u8; PAGE_BYTES]>,
    /// Bytes read since the start.
    pub(crate) read: u64,
}

impl Disk {
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (at, page) in (offset..).step_by(PAGE_BYTES).zip(bytes.chunks_exact(PAGE_BYTES)) {
            self.pages.insert(at, page.try_into().expect("it is a whole page"));
        }
    }

    pub(crate) fn page(&self, offset: u64) -> [u8; PAGE_BYTES] {
        self.pages.get(&offset).copied().unwrap_or([0; PAGE_BYTES])
    }

    pub(crate) fn range(&mut self, range: Range<u64>) -> Vec<u8> {
        let at = |offset: u64| usize::try_from(offset - range.start).expect("a range is short");
        let mut bytes = vec![0; at(range.end)];
        for (offset, page) in self.pages.range(range.clone()) {
            bytes[at(*offset)..at(*offset) + PAGE_BYTES].copy_from_slice(page);
        }
        self.read += range.end - range.start;
        bytes
    }

    pub(crate) fn head(&mut self) -> Vec<u8> {
        self.range(0..HEAD_BYTES as u64)
    }

    pub(crate) fn carry_out(&mut self, writes: &Writes) {
        writes.first().chain(writes.then()).for_each(|(offset, bytes)| self.write(offset, bytes));
    }

    /// Some of these sectors reach the medium.
    pub(crate) fn spare(&mut self, offset: u64, bytes: &[u8], spared: impl Fn(usize) -> bool) {
        for (index, sector) in bytes.chunks_exact(SECTOR).enumerate().filter(|(index, _)| spared(*index)) {
            let at = offset + (index * SECTOR) as u64;
            let (start, within) = (at - at % PAGE_BYTES as u64, (index * SECTOR) % PAGE_BYTES);
            let mut page = self.page(start);
            page[within..within + SECTOR].copy_from_slice(sector);
            self.pages.insert(start, page);
        }
    }

    /// The power is cut in the first step, or in the second.
    pub(crate) fn cut(&mut self, writes: &Writes, rng: &mut Rng) {
        if writes.then().next().is_none() || rng.bool() {
            return writes.first().for_each(|write| self.cut_one(write, rng));
        }
        writes.first().for_each(|(offset, bytes)| self.write(offset, bytes));
        writes.then().for_each(|write| self.cut_one(write, rng));
    }

    fn cut_one(&mut self, (offset, bytes): (u64, &[u8]), rng: &mut Rng) {
        let sectors = bytes.len() / SECTOR;
        let (until, by_chance) = (rng.usize(..=sectors), rng.u64(..));
        match rng.u8(..4) {
            0 => {}
            1 => self.spare(offset, bytes, |_| true),
            2 => self.spare(offset, bytes, |sector| sector < until),
            _ => self.spare(offset, bytes, |sector| by_chance >> (sector % 64) & 1 == 1),
        }
    }

    pub(crate) fn load(&mut self, layout: Layout, salt: u64) -> Result<(Found, Pages), Unusable> {
        let mut loading = Loading::begin(layout, &self.head(), salt)?;
        while let Some(range) = loading.wants() {
            assert!(range.end - range.start <= 1 << 20 && range.end <= layout.file_bytes(), "{range:?}");
            let bytes = self.range(range);
            loading.read(&bytes);
        }
        Ok(loading.finish())
    }
}
