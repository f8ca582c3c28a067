//! What the disk holds, and what it forgets when the power goes: every write lies in a volatile cache until a flush
//! covers it.
//!
//! ```text
//!  write ──▶ cache ── flush, or the cache is full ──▶ image (what a power cut leaves)
//!              └───── power cut: lost, kept or torn, as the seed says
//! ```
//!
//! A read sees the cache over the image. The rules are those of a SATA or NVMe disk whose write cache is on: a flush
//! covers what was written before it was sent, and says nothing of later writes (Linux, Documentation/block/
//! writeback_cache_control.rst). A sector of 512 bytes is written whole or not at all.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use fastrand::Rng;

use super::orders::{Counts, Fault, FlushLoses, Op, Survives};

/// The unit that no disk tears.
pub(super) const SECTOR: usize = 512;
const SECTOR_BYTES: u64 = SECTOR as u64;
/// What the cache of a disk holds; when it is full the oldest writes go to the medium unasked.
const CACHE_BYTES: usize = 64 << 20;

/// The place of a write in the order in which writes arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Mark(u64);

#[derive(Debug)]
pub(super) struct Media {
    image: File,
    /// Not on the image yet, oldest first.
    cache: VecDeque<Write>,
    cached_bytes: usize,
    /// What a read of each sector shows, where that is not what the image holds.
    newest: BTreeMap<u64, Sector>,
    arrived: Mark,
    faults: Vec<Fault>,
    counts: Counts,
    rng: Rng,
}

#[derive(Debug)]
struct Write {
    at: Mark,
    offset: u64,
    data: Arc<[u8]>,
}

#[derive(Debug)]
struct Sector {
    at: Mark,
    data: Arc<[u8]>,
    start: usize,
}

impl Media {
    /// Over an image as the last power cut left it.
    pub(super) fn new(image: File, seed: u64) -> Self {
        Self {
            image,
            cache: VecDeque::new(),
            cached_bytes: 0,
            newest: BTreeMap::new(),
            arrived: Mark(0),
            faults: Vec::new(),
            counts: Counts::default(),
            rng: Rng::with_seed(seed),
        }
    }

    pub(super) fn read(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        self.counts.reads += 1;
        self.fails(Op::Read, &(offset..offset + length as u64))?;
        let mut data = vec![0; length];
        self.image.read_exact_at(&mut data, offset)?;
        for (sector, newest) in self.newest.range(sectors(offset, length)) {
            let start = as_index(sector * SECTOR_BYTES - offset);
            data[start..start + SECTOR].copy_from_slice(newest.bytes());
        }
        Ok(data)
    }

    /// Into the cache. Offset and length are multiples of a sector.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.counts.writes += 1;
        self.fails(Op::Write, &(offset..offset + data.len() as u64))?;
        self.arrived = Mark(self.arrived.0 + 1);
        let (at, data): (_, Arc<[u8]>) = (self.arrived, data.into());
        for (sector, start) in sectors(offset, data.len()).zip((0..).step_by(SECTOR)) {
            self.newest.insert(sector, Sector { at, data: Arc::clone(&data), start });
        }
        self.cached_bytes += data.len();
        self.cache.push_back(Write { at, offset, data });
        while self.cached_bytes > CACHE_BYTES {
            self.write_back_oldest()?;
        }
        Ok(())
    }

    /// What a flush that is sent now will cover.
    pub(super) fn mark(&self) -> Mark {
        self.arrived
    }

    /// Puts everything up to the mark on the image, unless it is to fail.
    pub(super) fn flush(&mut self, up_to: Mark) -> io::Result<()> {
        self.counts.flushes += 1;
        if let Some(fault) = self.fault(Op::Flush, &(0..u64::MAX)) {
            self.lose(&fault.range, fault.flush_loses, up_to);
            return Err(eio());
        }
        while self.cache.front().is_some_and(|write| write.at <= up_to) {
            self.write_back_oldest()?;
        }
        Ok(())
    }

    pub(super) fn fail(&mut self, fault: Fault) {
        self.faults.push(fault);
    }

    pub(super) fn heal(&mut self) {
        self.faults.clear();
    }

    pub(super) fn counts(&self) -> Counts {
        Counts { cached_bytes: self.cached_bytes as u64, ..self.counts }
    }

    /// The power goes: of the cache the image gets only what the seed spares. Nothing may be asked of it afterwards.
    pub(super) fn cut(&mut self, survives: Survives) -> io::Result<()> {
        for write in std::mem::take(&mut self.cache) {
            match survives {
                Survives::Nothing => {}
                Survives::Everything => self.image.write_all_at(&write.data, write.offset)?,
                Survives::Some { per_mille, tear_bytes } => {
                    if self.rng.u16(0..1000) < per_mille {
                        self.write_torn(&write, tear_bytes)?;
                    }
                }
            }
        }
        self.newest.clear();
        self.cached_bytes = 0;
        Ok(())
    }

    /// Every second write that outlives a power cut is torn: a disk writes the pieces in the order that suits it.
    fn write_torn(&mut self, write: &Write, tear_bytes: Option<u32>) -> io::Result<()> {
        let Some(piece) = tear_bytes.filter(|_| self.rng.bool()) else {
            return self.image.write_all_at(&write.data, write.offset);
        };
        for (piece, offset) in write.data.chunks(piece as usize).zip((write.offset..).step_by(piece as usize)) {
            if self.rng.bool() {
                self.image.write_all_at(piece, offset)?;
            }
        }
        Ok(())
    }

    fn write_back_oldest(&mut self) -> io::Result<()> {
        let Some(write) = self.cache.pop_front() else { return Ok(()) };
        self.image.write_all_at(&write.data, write.offset)?;
        self.cached_bytes -= write.data.len();
        self.forget(&write);
        Ok(())
    }

    /// A failed flush loses what it should have covered of this range, as the fault says.
    fn lose(&mut self, range: &Range<u64>, how: FlushLoses, up_to: Mark) {
        if how == FlushLoses::Nothing {
            return;
        }
        let is_lost = |write: &Write| write.at <= up_to && overlap(range, &write.range());
        let (lost, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.cache).into_iter().partition(is_lost);
        self.cache = kept.into();
        self.cached_bytes -= lost.iter().map(|write| write.data.len()).sum::<usize>();
        if how == FlushLoses::Data {
            lost.iter().for_each(|write| self.forget(write));
            self.show_what_is_left_under(&lost);
        }
    }

    /// Where a lost write hid an older one that is still cached, a read shows that one again.
    fn show_what_is_left_under(&mut self, lost: &[Write]) {
        for write in self.cache.iter().filter(|left| lost.iter().any(|lost| overlap(&lost.range(), &left.range()))) {
            for (sector, start) in sectors(write.offset, write.data.len()).zip((0..).step_by(SECTOR)) {
                let sector = self.newest.entry(sector);
                let seen = Sector { at: write.at, data: Arc::clone(&write.data), start };
                sector
                    .and_modify(|newest| {
                        if newest.at < seen.at {
                            *newest = seen.copy()
                        }
                    })
                    .or_insert(seen);
            }
        }
    }

    /// Reads show the image again where nothing newer hides it.
    fn forget(&mut self, write: &Write) {
        for sector in sectors(write.offset, write.data.len()) {
            if self.newest.get(&sector).is_some_and(|newest| newest.at == write.at) {
                self.newest.remove(&sector);
            }
        }
    }

    fn fails(&mut self, op: Op, range: &Range<u64>) -> io::Result<()> {
        self.fault(op, range).map_or(Ok(()), |_| Err(eio()))
    }

    /// The first fault that is meant for this; one of its times is used up.
    fn fault(&mut self, op: Op, range: &Range<u64>) -> Option<Fault> {
        let meant = self.faults.iter().position(|fault| fault.op == op && overlap(&fault.range, range))?;
        let fault = self.faults[meant].clone();
        self.counts.failed += 1;
        match &mut self.faults[meant].times {
            None => {}
            Some(1) => drop(self.faults.remove(meant)),
            Some(times) => *times -= 1,
        }
        Some(fault)
    }
}

impl Write {
    fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.data.len() as u64
    }
}

impl Sector {
    fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.start + SECTOR]
    }

    fn copy(&self) -> Self {
        Self { at: self.at, data: Arc::clone(&self.data), start: self.start }
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

fn sectors(offset: u64, length: usize) -> Range<u64> {
    offset / SECTOR_BYTES..(offset + length as u64) / SECTOR_BYTES
}

fn as_index(bytes: u64) -> usize {
    usize::try_from(bytes).expect("it lies within one request")
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

#[cfg(test)]
mod tests;
