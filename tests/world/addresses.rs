//! Addresses that stay free until somebody listens there: below the ports that the kernel gives to whoever asks for any.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

const FIRST: u16 = 10_000;
/// Up to where Linux begins to give ports by itself.
const COUNT: u32 = 22_000;
/// So many are a process's own, before it comes to those of the next.
const OF_A_PROCESS: u32 = 64;
static TAKEN: AtomicU32 = AtomicU32::new(0);

/// One that no other process picks at the same time.
pub fn free_address(host: &str) -> Result<SocketAddr> {
    let first = std::process::id().wrapping_mul(OF_A_PROCESS);
    let mut ports = (0..COUNT).map(|_| {
        let port = first.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        FIRST + u16::try_from(port).expect("it is below 22,000")
    });
    ports.find_map(|port| TcpListener::bind((host, port)).ok()?.local_addr().ok()).context("no port is free")
}

pub fn free_addresses(host: &str, count: usize) -> Result<Vec<SocketAddr>> {
    (0..count).map(|_| free_address(host)).collect()
}
