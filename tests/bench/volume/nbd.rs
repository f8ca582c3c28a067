//! A connection to an NBD export, for load: requests that are begun together leave in one writev(2), replies come as many as there are.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail, ensure};
use system_tests::nbd::dial;

use super::load::Lane;

/// With each answer of the server.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);

const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const REQUEST: usize = 28;
const REPLY: usize = 16;
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
/// Pieces of one writev: a head and data for so many requests.
const PIECES: usize = 64;

#[derive(Debug)]
pub(crate) struct NbdLane {
    stream: TcpStream,
    slots: Vec<Slot>,
    /// Begun and not sent.
    queue: Vec<usize>,
    inbox: Vec<u8>,
    /// What of it is received and not told.
    from: usize,
    to: usize,
}

#[derive(Debug)]
struct Slot {
    head: [u8; REQUEST],
    data: Vec<u8>,
    /// What goes out behind the head, and what comes back behind the reply.
    out: usize,
    back: usize,
}

impl NbdLane {
    pub(crate) fn connect(address: SocketAddr, export: &str, depth: usize, bytes: usize) -> Result<Self> {
        let (stream, _) =
            dial(address, export, PATIENCE).with_context(|| format!("no export {export} at {address}"))?;
        let slot = || Slot { head: [0; REQUEST], data: noise(bytes), out: 0, back: 0 };
        Ok(Self {
            stream,
            slots: (0..depth).map(|_| slot()).collect(),
            queue: Vec::with_capacity(depth),
            inbox: vec![0; 2 * depth * (REPLY + bytes)],
            from: 0,
            to: 0,
        })
    }

    fn begin(&mut self, slot: usize, command: u16, offset: u64, bytes: usize) -> Result<()> {
        let head = &mut self.slots[slot].head;
        head[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
        head[6..8].copy_from_slice(&command.to_be_bytes());
        head[8..16].copy_from_slice(&(slot as u64).to_be_bytes());
        head[16..24].copy_from_slice(&offset.to_be_bytes());
        head[24..28].copy_from_slice(&u32::try_from(bytes)?.to_be_bytes());
        self.slots[slot].out = if command == WRITE { bytes } else { 0 };
        self.slots[slot].back = if command == READ { bytes } else { 0 };
        self.queue.push(slot);
        Ok(())
    }

    fn send(&mut self) -> Result<()> {
        for slots in self.queue.chunks(PIECES / 2) {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            for (pair, slot) in pieces.chunks_exact_mut(2).zip(slots) {
                let slot = &self.slots[*slot];
                pair[0] = IoSlice::new(&slot.head);
                pair[1] = IoSlice::new(&slot.data[..slot.out]);
            }
            write_all_vectored(&mut self.stream, &mut pieces[..slots.len() * 2])?;
        }
        self.queue.clear();
        Ok(())
    }

    /// The next reply that is here as a whole: its slot, and where its data lies.
    fn next(&mut self) -> Result<Option<(usize, std::ops::Range<usize>)>> {
        let Some(reply) = self.inbox[self.from..self.to].first_chunk::<REPLY>() else { return Ok(None) };
        ensure!(reply.starts_with(&REPLY_MAGIC.to_be_bytes()), "not a simple reply: {reply:02x?}");
        let error = u32::from_be_bytes(reply[4..8].try_into()?);
        let slot = usize::try_from(u64::from_be_bytes(reply[8..].try_into()?))?;
        ensure!(error == 0, "the server answers with error {error}");
        let data = self.from + REPLY..self.from + REPLY + self.slots.get(slot).context("an unknown cookie")?.back;
        if data.end > self.to {
            return Ok(None);
        }
        self.from = data.end;
        Ok(Some((slot, data)))
    }

    fn receive(&mut self) -> Result<()> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to > self.inbox.len() / 2 {
            self.inbox.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        match self.stream.read(&mut self.inbox[self.to..]) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(bytes) => self.to += bytes,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("no reply came"),
        }
        Ok(())
    }
}

impl Lane for NbdLane {
    fn write(&mut self, slot: usize, offset: u64, bytes: usize, fill: impl FnOnce(&mut [u8])) -> Result<()> {
        fill(&mut self.slots[slot].data[..bytes]);
        self.begin(slot, WRITE, offset, bytes)
    }

    fn read(&mut self, slot: usize, offset: u64, bytes: usize) -> Result<()> {
        self.begin(slot, READ, offset, bytes)
    }

    fn flush(&mut self, slot: usize) -> Result<()> {
        self.begin(slot, FLUSH, 0, 0)
    }

    fn wait(&mut self, mut ended: impl FnMut(usize, &[u8]) -> Result<()>) -> Result<()> {
        self.send()?;
        let mut told = false;
        loop {
            while let Some((slot, data)) = self.next()? {
                ended(slot, &self.inbox[data])?;
                told = true;
            }
            if told {
                return Ok(());
            }
            self.receive()?;
        }
    }
}

/// Bytes that no compression makes smaller.
fn noise(bytes: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(bytes).collect()
}

fn write_all_vectored(stream: &mut TcpStream, mut pieces: &mut [IoSlice<'_>]) -> Result<()> {
    IoSlice::advance_slices(&mut pieces, 0); // those at the front that are empty
    while !pieces.is_empty() {
        match stream.write_vectored(pieces) {
            Ok(0) => bail!("the connection takes nothing"),
            Ok(bytes) => IoSlice::advance_slices(&mut pieces, bytes),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("the request could not be sent"),
        }
    }
    Ok(())
}
