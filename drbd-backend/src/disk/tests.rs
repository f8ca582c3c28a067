//! The ring's promises, kept by both engines, on a real file system and real sockets.

mod files;
mod sockets;
mod together;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

const ENGINES: [Engine; 2] = [Engine::Uring, Engine::Threads];
const BLOCK: usize = 4096;
const SIZE: u64 = 1 << 20;

/// A ring with all that a test needs.
struct Desk {
    ring: Ring,
    buffers: Buffers,
    directory: tempfile::TempDir,
}

impl Desk {
    fn new(engine: Engine) -> Self {
        let ring = Ring::new(Options { engine, ..Options::default() }).unwrap();
        let buffers = Buffers::new(&[(BLOCK, 64), (1 << 20, 2)]).unwrap();
        Self { ring, buffers, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> DiskFile {
        DiskFile::create(&self.directory.path().join("data"), SIZE).unwrap()
    }

    fn filled(&self, len: usize, seed: usize) -> Slice {
        let mut buffer = self.buffers.take(len).expect("there are enough");
        buffer.copy_from_slice(&pattern(len, seed));
        buffer.share()
    }

    fn run(&mut self, operation: Operation) -> Completion {
        self.ring.submit(operation, 7);
        let completion = self.next();
        assert_eq!(completion.token, 7);
        completion
    }

    fn write(&mut self, file: &DiskFile, offset: u64, data: Slice, durable: bool) -> Result<usize, Failure> {
        self.run(Operation::Write { file: file.clone(), offset, data, durable }).result
    }

    fn read(&mut self, file: &DiskFile, offset: u64, len: usize) -> (Result<usize, Failure>, Buffer) {
        let buffer = self.buffers.take(len).expect("there are enough");
        let done = self.run(Operation::Read { file: file.clone(), offset, buffer, into: 0..len });
        (done.result, done.buffer.expect("it comes back"))
    }

    fn next(&mut self) -> Completion {
        let mut completions = self.at_least(1);
        assert_eq!(completions.len(), 1);
        completions.remove(0)
    }

    /// Waits for so many completions, ten seconds at most.
    fn at_least(&mut self, count: usize) -> Vec<Completion> {
        let (mut completions, deadline) = (Vec::new(), boottime_ns() + 10_000_000_000);
        while completions.len() < count {
            self.ring.wait(&mut completions, Some(deadline)).unwrap();
            assert!(boottime_ns() < deadline, "only {} of {count} completed", completions.len());
        }
        completions
    }

    /// Hands over what was submitted, and looks whether anything is done already.
    fn glance(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.ring.wait(&mut completions, Some(boottime_ns())).unwrap();
        completions
    }
}

/// Opens it once nobody has it any more: a child process of another test, between fork and exec, shares our descriptors and so our locks.
fn open_soon(path: &Path, size: u64) -> Result<DiskFile, FileError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match DiskFile::open(path, size) {
            Err(FileError::InUse { .. }) if Instant::now() < deadline => std::thread::yield_now(),
            result => return result,
        }
    }
}

fn pattern(len: usize, seed: usize) -> Vec<u8> {
    (0..len).map(|i| u8::try_from((i / 7 + i * seed + seed) % 251).unwrap()).collect()
}

fn pair() -> (Socket, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (Socket::new(ours).unwrap(), theirs)
}

fn recv(socket: &Socket, head: usize, buffer: Option<Buffer>, at_least: usize) -> Operation {
    let into = 0..buffer.as_ref().map_or(0, |buffer| buffer.len());
    Operation::Recv { socket: socket.clone(), head, buffer, into, at_least }
}

fn send(socket: &Socket, head: &[u8], body: Option<Slice>) -> Operation {
    Operation::Send { socket: socket.clone(), head: Head::new(head), body, quiet: false }
}
