//! The floor of a replicated write: protocol C with nothing around it, by two threads that block.
//!
//! ```text
//!  local:  send 4 KiB ─▶ pwrite(O_DIRECT) ─▶ wait for the answer
//!  peer:          receive ─▶ pwrite(O_DIRECT) ─▶ answer
//! ```
//! and then what a client adds: one round trip over loopback with 4 KiB one way.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use rustix::io::pwrite;
use tandem_node::disk::{Buffers, DiskFile};

use super::payload::BLOCK;

const REQUEST: usize = 28 + BLOCK;
const REPLY: usize = 16;

#[derive(Debug, Clone, Copy)]
pub(crate) struct Floor {
    pub(crate) replicate_us: f64,
    pub(crate) round_trip_us: f64,
}

impl Floor {
    /// p50 of a client's write.
    pub(crate) fn write_us(&self) -> f64 {
        self.replicate_us + self.round_trip_us
    }
}

pub(crate) fn measure(files: &[DiskFile; 2], each: Duration) -> Result<Floor> {
    let [local, peer] = files;
    let buffers = Buffers::new(&[(BLOCK, 2)])?;
    let (ours, theirs) = (buffers.take(BLOCK).context("one of two")?, buffers.take(BLOCK).context("one of two")?);
    let replicate_us = ping_pong(
        BLOCK,
        each,
        {
            let mut random = fastrand::Rng::with_seed(1);
            move || write(local, &ours, &mut random)
        },
        {
            let mut random = fastrand::Rng::with_seed(2);
            move || write(peer, &theirs, &mut random)
        },
    )?;
    let round_trip_us = ping_pong(REQUEST, each, || Ok(()), || Ok(()))?;
    Ok(Floor { replicate_us, round_trip_us })
}

fn write(file: &DiskFile, block: &[u8], random: &mut fastrand::Rng) -> Result<()> {
    let offset = random.u64(0..file.size() / BLOCK as u64) * BLOCK as u64;
    ensure!(pwrite(file, block, offset)? == BLOCK, "a block was written only in part");
    Ok(())
}

/// p50 of: send so many bytes, do `meanwhile`, and receive the answer that the other thread sends once it has all of them and has done `there`.
fn ping_pong(
    bytes: usize,
    time: Duration,
    mut meanwhile: impl FnMut() -> Result<()>,
    mut there: impl FnMut() -> Result<()> + Send,
) -> Result<f64> {
    let (mut near, mut far) = pair()?;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || -> Result<()> {
            let mut message = vec![0; bytes];
            while far.read_exact(&mut message).is_ok() {
                there()?;
                far.write_all(&[0; REPLY])?;
            }
            Ok(())
        });
        let (message, mut reply) = (vec![1; bytes], [0; REPLY]);
        let mut latency = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
        let end = Instant::now() + time;
        while Instant::now() < end {
            let begun = Instant::now();
            near.write_all(&message)?;
            meanwhile()?;
            near.read_exact(&mut reply)?;
            latency.saturating_record(u64::try_from(begun.elapsed().as_nanos())?);
        }
        drop(near);
        other.join().ok().context("the peer of the model panicked")??;
        Ok(micros(latency.value_at_quantile(0.5)))
    })
}

/// What one connection over loopback carries, in MiB/s.
pub(crate) fn link_mib_s(time: Duration) -> Result<f64> {
    let (mut near, mut far) = pair()?;
    std::thread::scope(|scope| {
        let other = scope.spawn(move || {
            let (mut buffer, mut total) = (vec![0; 1 << 20], 0_u64);
            while let Ok(bytes @ 1..) = far.read(&mut buffer) {
                total += bytes as u64;
            }
            total
        });
        let (message, begun) = (vec![1; 1 << 20], Instant::now());
        while begun.elapsed() < time {
            near.write_all(&message)?;
        }
        drop(near);
        let total = other.join().ok().context("the receiver panicked")?;
        Ok(mib(total) / begun.elapsed().as_secs_f64())
    })
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn micros(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
pub(crate) fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn pair() -> Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}
