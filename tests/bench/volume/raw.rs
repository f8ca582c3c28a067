//! The file itself, by io_uring and O_DIRECT from ordinary memory: what the disk gives to any program.

use std::path::Path;

use anyhow::{Context, Result};
use tandem_node::disk::{Buffers, Completion, DiskFile, Engine, Operation, Options, Ring};

use super::load::Lane;

pub(crate) struct RawLane {
    ring: Ring,
    file: DiskFile,
    buffers: Buffers,
    completions: Vec<Completion>,
}

impl RawLane {
    pub(crate) fn open(file: &DiskFile, depth: usize, bytes: usize) -> Result<Self> {
        Ok(Self {
            ring: Ring::new(Options { engine: Engine::Uring, ..Options::default() }).context("no io_uring here")?,
            file: file.clone(),
            buffers: Buffers::new(&[(bytes, u32::try_from(depth)?)])?,
            completions: Vec::with_capacity(depth),
        })
    }
}

/// A file of that size that has all its room.
pub(crate) fn create(path: &Path, size_bytes: u64) -> Result<DiskFile> {
    let file = DiskFile::create(path, size_bytes)?;
    file.reserve().with_context(|| format!("no room for {}", path.display()))?;
    Ok(file)
}

impl Lane for RawLane {
    fn write(&mut self, slot: usize, offset: u64, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut data = self.buffers.take(bytes).context("there is a buffer for each slot")?;
        fill(&mut data);
        let write = Operation::Write { file: self.file.clone(), offset, data: data.share(), durable: false };
        self.ring.submit(write, slot as u64);
        Ok(())
    }

    fn read(&mut self, slot: usize, offset: u64, bytes: usize) -> Result<()> {
        let buffer = self.buffers.take(bytes).context("there is a buffer for each slot")?;
        let read = Operation::Read { file: self.file.clone(), offset, buffer, into: 0..bytes };
        self.ring.submit(read, slot as u64);
        Ok(())
    }

    fn flush(&mut self, slot: usize) -> Result<()> {
        self.ring.submit(Operation::Flush { file: self.file.clone() }, slot as u64);
        Ok(())
    }

    fn wait(&mut self, mut ended: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        while self.completions.is_empty() {
            self.ring.wait(&mut self.completions, None)?;
        }
        for completion in self.completions.drain(..) {
            completion.result?;
            ended(usize::try_from(completion.token)?, completion.buffer.as_deref().unwrap_or_default())?;
        }
        Ok(())
    }
}
