//! Sends heartbeats, and never stops because a network is down: that is what its silence there is to tell.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::Result;
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tokio::time::{Duration, MissedTickBehavior};

use super::Error;
use super::identity::Identity;
use super::listener::unix_ms;
use super::wire::{self, Key, Packet};
use crate::config::{Config, Network};

/// Sends until `stop` says so.
pub async fn run_sender(config: &Config, mut stop: watch::Receiver<bool>) -> Result<()> {
    let mut sender = Sender::new(config)?;
    tracing::info!(
        "sends heartbeats as host {}, boot {}, every {} s on {}",
        sender.identity.host,
        sender.identity.boot_id,
        config.heartbeat.interval.as_secs_f64(),
        sender.ways.iter().map(|way| format!("{} to {}", way.network, way.to)).collect::<Vec<_>>().join(", ")
    );
    tokio::select! {
        () = sender.run(config.heartbeat.interval) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    Ok(())
}

/// Speaks for this host on every network that has `to`.
#[derive(Debug)]
pub struct Sender {
    identity: Identity,
    key: Key,
    sequence: u64,
    ways: Vec<Way>,
}

/// To one network.
#[derive(Debug)]
struct Way {
    network: String,
    to: SocketAddr,
    source: Option<IpAddr>,
    socket: Option<UdpSocket>,
    /// How the last packet fared: the OS's error, or none.
    last: Option<Option<io::ErrorKind>>,
}

impl Sender {
    pub fn new(config: &Config) -> Result<Self, Error> {
        let file = || config.file.clone();
        let ways: Vec<Way> = config.heartbeat.networks.iter().filter_map(Way::new).collect();
        if ways.is_empty() {
            return Err(Error::NowhereToSend { file: file() });
        }
        let key = config.heartbeat.key.as_ref().ok_or_else(|| Error::NoKey { file: file() })?;
        let identity = Identity::read(&config.heartbeat)?;
        Ok(Self { identity, key: Key::new(key.reveal()), sequence: 0, ways })
    }

    async fn run(&mut self, interval: Duration) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.beat();
        }
    }

    /// One packet on each network. Nothing here waits: a network that takes no packets must not delay the others.
    pub fn beat(&mut self) {
        // time since the boot, not a count: a sender that starts again goes on where it was
        self.sequence = boot_ns().max(self.sequence + 1);
        for way in &mut self.ways {
            let packet = Packet {
                network: &way.network,
                host: &self.identity.host,
                boot_id: self.identity.boot_id,
                system_uuid: self.identity.system_uuid,
                sequence: self.sequence,
                sent_at_ms: unix_ms(),
            };
            let bytes = wire::encode(&packet, &self.key);
            way.send(&bytes);
        }
    }
}

impl Way {
    fn new(network: &Network) -> Option<Self> {
        Some(Self { network: network.name.clone(), to: network.to?, source: network.source, socket: None, last: None })
    }

    fn send(&mut self, bytes: &[u8]) {
        let sent = self.try_send(bytes);
        if sent.is_err() {
            self.socket = None; // bound to an address that may have gone
        }
        self.tell(sent.err());
    }

    fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.socket.is_none() {
            self.socket = Some(self.open()?);
        }
        let socket = self.socket.as_ref().expect("just opened");
        // not connected: a refusal by ICMP, while tandem-ha is down, would come back as the next packet's error
        socket.send_to(bytes, self.to).map(drop)
    }

    fn open(&self) -> io::Result<UdpSocket> {
        let any = if self.to.is_ipv4() { "0.0.0.0" } else { "::" };
        let source = self.source.unwrap_or_else(|| any.parse().expect("an address"));
        let socket = UdpSocket::bind((source, 0))?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    }

    /// One line a change.
    fn tell(&mut self, failed: Option<io::Error>) {
        let kind = failed.as_ref().map(io::Error::kind);
        let before = self.last.replace(kind);
        if before == Some(kind) {
            return;
        }
        match failed {
            Some(why) => {
                let from = self.source.map(|source| format!(" from {source}")).unwrap_or_default();
                tracing::warn!("no heartbeats on {}: cannot send{from} to {}: {why}", self.network, self.to);
            }
            None if before.is_some() => tracing::info!("heartbeats on {} again", self.network),
            None => {}
        }
    }
}

fn boot_ns() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    let whole = u64::try_from(since.tv_sec).unwrap_or(0).saturating_mul(1_000_000_000);
    whole.saturating_add(u64::try_from(since.tv_nsec).unwrap_or(0))
}
