//! Hears heartbeats on every network, and believes those that are signed, whole and new.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::guard::Guard;
use super::refusals::Refusals;
use super::wire::{self, Key, MOST_BYTES, Refusal};
use super::{Beat, Error};
use crate::config::Heartbeat;

/// What waits in the kernel while we do other things; a thousand hosts send 150 KB a second.
const QUEUE_BYTES: usize = 1 << 20;
const AFTER_ERROR: Duration = Duration::from_secs(1);

/// Hears one network.
#[derive(Debug)]
pub struct Listener {
    network: Arc<str>,
    socket: UdpSocket,
    hearing: Hearing,
    beats: mpsc::Sender<Beat>,
}

/// What makes a beat of bytes.
#[derive(Debug)]
struct Hearing {
    network: Arc<str>,
    key: Key,
    guard: Guard,
    refusals: Refusals,
}

impl Listener {
    /// One for each network that has `listen`. An address that this machine has not got yet (its link is down) is taken, too: it will be
    /// heard once it is there. Within a tokio runtime only, to which the sockets belong.
    pub async fn bind_all(heartbeat: &Heartbeat, beats: mpsc::Sender<Beat>) -> Result<Vec<Self>, Error> {
        let Some(key) = heartbeat.key.as_ref().map(|key| Key::new(key.reveal())) else { return Ok(Vec::new()) };
        let listening = heartbeat.networks.iter().filter_map(|network| Some((network, network.listen?)));
        listening.map(|(network, address)| Self::bind(&network.name, address, &key, &beats)).collect()
    }

    fn bind(network: &str, address: SocketAddr, key: &Key, beats: &mpsc::Sender<Beat>) -> Result<Self, Error> {
        let socket = open(address).map_err(|source| Error::Listen { network: network.to_owned(), address, source })?;
        let ip = address.ip();
        if let Err(why) = std::net::UdpSocket::bind((ip, 0)) {
            tracing::warn!("nothing is heard on network {network} until this machine has the address {ip}: {why}");
        }
        let network: Arc<str> = network.into();
        let (guard, refusals) = (Guard::default(), Refusals::default());
        let hearing = Hearing { network: Arc::clone(&network), key: key.clone(), guard, refusals };
        Ok(Self { network, socket, hearing, beats: beats.clone() })
    }

    pub fn network(&self) -> &str {
        &self.network
    }

    /// Where it listens.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Hands over what it hears, until nobody takes it any more.
    pub async fn run(mut self) {
        let mut bytes = [0; MOST_BYTES + 1];
        loop {
            let Received { length, from, waited } = tokio::select! {
                received = self.receive(&mut bytes) => match received {
                    Ok(received) => received,
                    Err(why) => {
                        tracing::warn!("heartbeats of network {} cannot be received: {why}", self.network);
                        tokio::time::sleep(AFTER_ERROR).await;
                        continue;
                    }
                },
                () = self.beats.closed() => return,
            };
            let now = Instant::now();
            let arrived = now.checked_sub(waited).unwrap_or(now);
            let arrived_ms = unix_ms().saturating_sub(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX));
            if let Some(beat) = self.hearing.hear(&bytes[..length], from, arrived, arrived_ms)
                && self.beats.send(beat).await.is_err()
            {
                return;
            }
        }
    }
}

/// A packet; and how long it waited in the kernel for us to take it. A host that has died meanwhile must not seem to have lived until now.
struct Received {
    length: usize,
    from: IpAddr,
    waited: Duration,
}

impl Listener {
    async fn receive(&self, bytes: &mut [u8]) -> io::Result<Received> {
        let socket = self.socket.as_raw_fd();
        self.socket.async_io(Interest::READABLE, || receive(socket, bytes)).await
    }
}

fn receive(socket: RawFd, bytes: &mut [u8]) -> io::Result<Received> {
    let mut slices = [IoSliceMut::new(bytes)];
    let mut space = nix::cmsg_space!(TimeSpec);
    let message = recvmsg::<SockaddrStorage>(socket, &mut slices, Some(&mut space), MsgFlags::empty())?;
    let arrived = message.cmsgs()?.find_map(|told| match told {
        ControlMessageOwned::ScmTimestampns(at) => Some(UNIX_EPOCH + Duration::from(at)),
        _ => None,
    });
    // None if the machine's clock was set back in between.
    let waited = arrived.and_then(|arrived| SystemTime::now().duration_since(arrived).ok()).unwrap_or_default();
    let from = message.address.as_ref();
    let v4 = from.and_then(SockaddrStorage::as_sockaddr_in).map(|from| IpAddr::V4(from.ip()));
    let v6 = || from.and_then(SockaddrStorage::as_sockaddr_in6).map(|from| IpAddr::V6(from.ip()));
    let from = v4.or_else(v6).unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Ok(Received { length: message.bytes, from, waited })
}

impl Hearing {
    fn hear(&mut self, bytes: &[u8], from: IpAddr, at: Instant, now_ms: u64) -> Option<Beat> {
        match self.believe(bytes, at, now_ms) {
            Ok(beat) => Some(beat),
            Err((why, host)) => {
                self.refuse(why, host.as_deref(), from, at);
                None
            }
        }
    }

    /// The beat, or why not and of which host it claims to be; the claim is known only when it is signed.
    fn believe(&mut self, bytes: &[u8], at: Instant, now_ms: u64) -> Result<Beat, (Refusal, Option<String>)> {
        let packet = wire::decode(bytes, &self.key).map_err(|why| (why, None))?;
        let refused = |why| (why, Some(packet.host.to_owned()));
        if packet.network != &*self.network {
            return Err(refused(Refusal::WrongNetwork));
        }
        self.guard.admit(&packet, now_ms).map_err(refused)?;
        Ok(Beat {
            host: packet.host.to_owned(),
            network: packet.network.to_owned(),
            boot_id: packet.boot_id,
            system_uuid: packet.system_uuid,
            at,
        })
    }

    fn refuse(&mut self, why: Refusal, host: Option<&str>, from: IpAddr, at: Instant) {
        let Some(report) = self.refusals.note(why, from, at) else { return };
        let from = report.from.map_or("many addresses".to_owned(), |from| from.to_string());
        let host = host.map(|host| format!(" as host {host}")).unwrap_or_default();
        let packets = report.packets;
        tracing::warn!(packets, "network {}: what {from} sends{host} {why}; it is not believed", self.network);
    }
}

fn open(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
    }
    socket.set_recv_buffer_size(QUEUE_BYTES)?;
    setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Our clock, as the senders' `sent at` is compared with it.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
