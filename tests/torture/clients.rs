//! Clients of a volume: each on its own thread writes, reads, flushes, and goes to whoever serves when an answer stays out.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use fastrand::Rng;
use system_tests::history::payload::BLOCK;
use system_tests::history::{Flushing, History, Reading, Writing};
use system_tests::nbd::{Command, Nbd};
use uuid::Uuid;

use crate::gap::Gap;
use crate::network::Port;

pub(crate) const NBD_PORT: u16 = 10809;
/// For an answer, by client: one leaves soon, one is still there when a node wakes from its pause.
const PATIENCE: [Duration; 4] =
    [Duration::from_millis(700), Duration::from_millis(2500), Duration::from_secs(6), Duration::from_secs(6)];
/// The last only reads: on a Primary that is cut off a write waits, and who waits for one would not see that reads are answered.
const READER: u32 = 4;
const GREETING: Duration = Duration::from_millis(1500);
const AGAIN_AFTER: Duration = Duration::from_millis(50);
const BETWEEN: Duration = Duration::from_millis(2);
/// Extents of 4 MiB, and the blocks of each that are used.
const EXTENTS: u64 = 16;
const EXTENT_BLOCKS: u64 = 1024;
const USED: u64 = 16;
pub(crate) const SIZE_BYTES: u64 = EXTENTS * EXTENT_BLOCKS * BLOCK as u64;
const LONGEST: u64 = 4;
const MOST_AT_ONCE: usize = 4;

/// A volume with its clients' account of it.
#[derive(Debug)]
pub(crate) struct Volume {
    pub(crate) name: &'static str,
    pub(crate) uuid: Uuid,
    pub(crate) hosts: Vec<Port>,
    /// Its promise after all replicas have lost power: everything, or what was flushed.
    pub(crate) is_durable: bool,
    pub(crate) history: History,
    pub(crate) gap: Mutex<Gap>,
    pub(crate) requests: AtomicU64,
    /// Answered with an error.
    pub(crate) errors: AtomicU64,
    gate: Gate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Go,
    Rest,
    End,
}

#[derive(Debug)]
struct Gate {
    inside: Mutex<(Mode, usize)>,
    changed: Condvar,
}

impl Gate {
    fn lock(&self) -> MutexGuard<'_, (Mode, usize)> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether to go on.
    fn enter(&self) -> bool {
        let mut inside = self.lock();
        while inside.0 == Mode::Rest {
            inside = self.changed.wait(inside).unwrap_or_else(PoisonError::into_inner);
        }
        inside.1 += 1;
        if inside.0 == Mode::End {
            inside.1 -= 1;
            return false;
        }
        true
    }

    fn leave(&self) {
        self.lock().1 -= 1;
        self.changed.notify_all();
    }

    fn turn(&self, mode: Mode) {
        self.lock().0 = mode;
        self.changed.notify_all();
    }

    fn is_empty_within(&self, limit: Duration) -> bool {
        let inside = self.lock();
        let waited = self.changed.wait_timeout_while(inside, limit, |(_, clients)| *clients > 0);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

impl Volume {
    /// Whose clients rest.
    pub(crate) fn new(name: &'static str, uuid: Uuid, hosts: Vec<Port>, is_durable: bool, seed: u64) -> Arc<Self> {
        Arc::new(Self {
            name,
            uuid,
            hosts,
            is_durable,
            history: History::new(seed),
            gap: Mutex::new(Gap::new()),
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            gate: Gate { inside: Mutex::new((Mode::Rest, 0)), changed: Condvar::new() },
        })
    }

    pub(crate) fn go(&self) {
        self.gate.turn(Mode::Go);
    }

    /// All clients have their answers, or have given up on them, when it returns.
    pub(crate) fn rest(&self) -> Result<()> {
        self.gate.turn(Mode::Rest);
        let longest = PATIENCE[PATIENCE.len() - 1] + 2 * GREETING;
        let rests = self.gate.is_empty_within(longest + Duration::from_secs(5));
        ensure!(rests, "the clients of {} do not come to rest", self.name);
        Ok(())
    }

    pub(crate) fn end(&self) {
        self.gate.turn(Mode::End);
    }

    pub(crate) fn gap(&self) -> MutexGuard<'_, Gap> {
        self.gap.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection to whoever serves, beginning with this host; this thread is in that host's network then.
    pub(crate) fn connect(&self, first: usize, patience: Duration) -> Result<(Nbd, usize)> {
        let mut refused = None;
        for at in (0..self.hosts.len()).map(|step| (first + step) % self.hosts.len()) {
            match self.connect_to(at, patience) {
                Ok(nbd) => return Ok((nbd, at)),
                Err(error) => refused = Some(error),
            }
        }
        Err(refused.context("a volume without hosts")?)
    }

    fn connect_to(&self, at: usize, patience: Duration) -> Result<Nbd> {
        self.hosts[at].enter()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, NBD_PORT));
        let nbd = Nbd::connect_within(address, &self.uuid.to_string(), GREETING)?;
        nbd.set_patience(patience)?;
        ensure!(nbd.size_bytes == SIZE_BYTES, "the volume has {} bytes", nbd.size_bytes);
        Ok(nbd)
    }
}

/// Starts the clients, which rest until they are told to go.
pub(crate) fn start(volume: &Arc<Volume>, seed: u64) -> Vec<JoinHandle<()>> {
    let clients = (1_u32..).zip(PATIENCE).map(|(number, patience)| {
        let rng = Rng::with_seed(seed ^ u64::from(number) << 32);
        Client { volume: volume.clone(), number, patience, rng, connection: None, host: 0 }
    });
    clients.map(|mut client| thread::spawn(move || client.run())).collect()
}

struct Client {
    volume: Arc<Volume>,
    number: u32,
    patience: Duration,
    rng: Rng,
    connection: Option<Nbd>,
    /// Whom it asked last, among the volume's.
    host: usize,
}

/// What is on its way.
enum Pending<'a> {
    Write(Vec<Writing<'a>>, bool),
    Read(Vec<Reading<'a>>),
    Flush(Flushing<'a>),
}

impl Client {
    fn run(&mut self) {
        let volume = self.volume.clone();
        while volume.gate.enter() {
            let done = self.connected().and_then(|mut nbd| {
                let outcome = self.batch(&volume, &mut nbd);
                outcome.map(|()| self.connection = Some(nbd))
            });
            volume.gate.leave();
            if done.is_err() {
                self.host += 1;
            }
            thread::park_timeout(if done.is_ok() { BETWEEN } else { AGAIN_AFTER });
        }
    }

    fn connected(&mut self) -> Result<Nbd> {
        if let Some(nbd) = self.connection.take() {
            return Ok(nbd);
        }
        let (nbd, host) = self.volume.connect(self.host % self.volume.hosts.len(), self.patience)?;
        self.host = host;
        Ok(nbd)
    }

    /// Some requests at once; whatever is not answered has an outcome that nobody knows.
    fn batch(&mut self, volume: &Volume, nbd: &mut Nbd) -> Result<()> {
        let mut pending = HashMap::new();
        for _ in 0..self.rng.usize(1..=MOST_AT_ONCE) {
            let (cookie, sent) = self.send(volume, nbd)?;
            pending.insert(cookie, sent);
        }
        while !pending.is_empty() {
            let (cookie, error) = nbd.reply()?;
            let sent = pending.remove(&cookie).context("a reply to what was not asked")?;
            if error != 0 {
                volume.errors.fetch_add(1, Ordering::Relaxed);
                anyhow::bail!("error {error}");
            }
            finish(sent, nbd)?;
            volume.requests.fetch_add(1, Ordering::Relaxed);
            volume.gap().served();
        }
        Ok(())
    }

    fn send<'a>(&mut self, volume: &'a Volume, nbd: &mut Nbd) -> Result<(u64, Pending<'a>)> {
        let (first, count) = self.choose();
        let blocks = || first..first + count;
        let (offset, length) = (first * BLOCK as u64, u32::try_from(count * BLOCK as u64)?);
        let draw = if self.number == READER { 0 } else { self.rng.u8(0..100) };
        Ok(match draw {
            0..45 => {
                let reading = blocks().map(|block| volume.history.read(self.number, block)).collect();
                (nbd.send(Command::Read, offset, length, &[])?, Pending::Read(reading))
            }
            draw @ 45..91 => {
                let fua = draw >= 85;
                let writing: Vec<_> = blocks().map(|block| volume.history.write(self.number, block)).collect();
                let mut payload = vec![0; usize::try_from(length)?];
                for (writing, block) in writing.iter().zip(payload.as_chunks_mut::<BLOCK>().0) {
                    writing.fill(block);
                }
                // Made first: a request that was sent in part may have its effect.
                let pending = Pending::Write(writing, fua);
                (nbd.send(Command::Write { fua }, offset, length, &payload)?, pending)
            }
            draw @ 91..95 => {
                let command = if draw == 91 { Command::Trim } else { Command::Zeroes };
                let writing = blocks().map(|block| volume.history.write_zeroes(self.number, block)).collect();
                let pending = Pending::Write(writing, false);
                (nbd.send(command, offset, length, &[])?, pending)
            }
            _ => {
                let flushing = volume.history.flush();
                (nbd.send(Command::Flush, 0, 0, &[])?, Pending::Flush(flushing))
            }
        })
    }

    /// One in three goes to a few blocks that all clients fight for.
    fn choose(&mut self) -> (u64, u64) {
        let (extent, at) = match self.rng.u8(0..3) {
            0 => (0, self.rng.u64(0..LONGEST)),
            _ => (self.rng.u64(0..EXTENTS), self.rng.u64(0..=USED - LONGEST)),
        };
        (extent * EXTENT_BLOCKS + at, self.rng.u64(1..=LONGEST))
    }
}

fn finish(sent: Pending<'_>, nbd: &mut Nbd) -> Result<()> {
    match sent {
        Pending::Write(writing, true) => writing.into_iter().for_each(Writing::made_durable),
        Pending::Write(writing, false) => writing.into_iter().for_each(Writing::acknowledged),
        Pending::Flush(flushing) => flushing.acknowledged(),
        Pending::Read(reading) => {
            let mut data = vec![0; reading.len() * BLOCK];
            nbd.data(&mut data)?;
            for (reading, block) in reading.into_iter().zip(data.as_chunks::<BLOCK>().0) {
                // What it shows is judged with the whole history.
                let _ = reading.showed(block);
            }
        }
    }
    Ok(())
}

/// Reads every block, flushed: what the volume holds while its clients rest.
pub(crate) fn read_all(volume: &Volume, limit: Duration, mut showed: impl FnMut(u64, &[u8; BLOCK])) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        match read_once(volume, &mut showed) {
            Err(error) if Instant::now() > end => return Err(error.context("nobody serves a reader")),
            Err(_) => thread::park_timeout(AGAIN_AFTER),
            Ok(()) => return Ok(()),
        }
    }
}

fn read_once(volume: &Volume, showed: &mut impl FnMut(u64, &[u8; BLOCK])) -> Result<()> {
    let (mut nbd, _) = volume.connect(0, PATIENCE[2])?;
    for extent in 0..EXTENTS {
        let first = extent * EXTENT_BLOCKS;
        let data = nbd.read(first * BLOCK as u64, usize::try_from(USED)? * BLOCK)?;
        (first..).zip(data.as_chunks::<BLOCK>().0).for_each(|(block, bytes)| showed(block, bytes));
    }
    nbd.flush()
}
