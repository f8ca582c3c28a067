//! The packet, as bytes.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 4 | `TdHB` |
//! | 4 | 1 | version, 1 |
//! | 5 | 1 | n, the length of the network's name, at least 1 |
//! | 6 | 1 | h, the length of the host's name, at least 1 |
//! | 7 | 1 | 0 |
//! | 8 | 16 | boot id |
//! | 24 | 16 | system UUID; all zero: not known |
//! | 40 | 8 | sequence, which rises within a boot: nanoseconds since the boot |
//! | 48 | 8 | sent at, milliseconds since the Unix epoch on the host's clock |
//! | 56 | n | name of the network, UTF-8 |
//! | 56 + n | h | name of the host, UTF-8 |
//! | 56 + n + h | 32 | HMAC-SHA256 of all bytes before, under the shared key |
//!
//! Numbers are big-endian. A packet is exactly so long; nothing of it is looked at before its signature but magic, version and lengths.

use std::fmt;

use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::config::is_name;

const MAGIC: &[u8; 4] = b"TdHB";
const VERSION: u8 = 1;
const NAMES: usize = 56;
const SIGNATURE: usize = 32;
/// The longest packet.
pub const MOST_BYTES: usize = NAMES + 2 * 255 + SIGNATURE;

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'a> {
    pub network: &'a str,
    pub host: &'a str,
    pub boot_id: Uuid,
    pub system_uuid: Option<Uuid>,
    pub sequence: u64,
    pub sent_at_ms: u64,
}

/// Why a packet is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Not a heartbeat at all.
    Foreign,
    /// A heartbeat of another version of Tandem.
    Version(u8),
    /// Too short or too long for what it says of itself.
    Torn,
    WrongKey,
    /// Signed, but with names that no host or network can have.
    BadName,
    WrongNetwork,
    /// Its sequence has been there, or an older boot sent it.
    Replayed,
    /// The first of a boot, and not sent within a minute of our clock.
    WrongTime,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("is no heartbeat; something else sends to this port"),
            Self::Version(version) => {
                write!(f, "has version {version}, and we know {VERSION}; use one release of Tandem everywhere")
            }
            Self::Torn => f.write_str("is torn"),
            Self::WrongKey => f.write_str("is signed with another key; copy heartbeat.key_file to this host again"),
            Self::BadName => f.write_str("names no host or network"),
            Self::WrongNetwork => {
                f.write_str("is meant for another network; compare `name` and `to` of [[heartbeat.networks]] there and here")
            }
            Self::Replayed => f.write_str(
                "has been there already, or belongs to an earlier boot: somebody repeats packets, or two machines use one heartbeat.host",
            ),
            Self::WrongTime => {
                f.write_str("is the first of its boot and more than 60 s away from our clock: set the clocks, or somebody repeats it")
            }
        }
    }
}

/// The shared key, ready for use.
#[derive(Clone)]
pub struct Key(Hmac<Sha256>);

impl Key {
    pub fn new(secret: &[u8]) -> Self {
        Self(Hmac::new_from_slice(secret).expect("HMAC takes keys of any length"))
    }

    fn signed(&self, bytes: &[u8]) -> Hmac<Sha256> {
        self.0.clone().chain_update(bytes)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// The bytes of a packet. Names are at most 255 bytes long ([`is_name`]).
pub fn encode(packet: &Packet<'_>, key: &Key) -> Vec<u8> {
    let length = |name: &str| u8::try_from(name.len()).expect("a name has at most 255 bytes");
    let mut bytes = Vec::with_capacity(NAMES + packet.network.len() + packet.host.len() + SIGNATURE);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[VERSION, length(packet.network), length(packet.host), 0]);
    bytes.extend_from_slice(packet.boot_id.as_bytes());
    bytes.extend_from_slice(packet.system_uuid.unwrap_or_default().as_bytes());
    bytes.extend_from_slice(&packet.sequence.to_be_bytes());
    bytes.extend_from_slice(&packet.sent_at_ms.to_be_bytes());
    bytes.extend_from_slice(packet.network.as_bytes());
    bytes.extend_from_slice(packet.host.as_bytes());
    let signature = key.signed(&bytes).finalize().into_bytes();
    bytes.extend_from_slice(&signature);
    bytes
}

/// What the bytes say, if somebody with our key wrote them.
pub fn decode<'a>(bytes: &'a [u8], key: &Key) -> Result<Packet<'a>, Refusal> {
    let (network_bytes, host_bytes) = lengths(bytes)?;
    let (said, signature) = bytes.split_at(bytes.len() - SIGNATURE);
    key.signed(said).verify_slice(signature).map_err(|_| Refusal::WrongKey)?;
    let (network, host) = said[NAMES..].split_at(network_bytes);
    debug_assert_eq!(host.len(), host_bytes, "the lengths have been checked");
    let system = Uuid::from_bytes(array(said, 24));
    Ok(Packet {
        network: name(network)?,
        host: name(host)?,
        boot_id: Uuid::from_bytes(array(said, 8)),
        system_uuid: (!system.is_nil()).then_some(system),
        sequence: u64::from_be_bytes(array(said, 40)),
        sent_at_ms: u64::from_be_bytes(array(said, 48)),
    })
}

/// Those of the names, if the packet is as long as they say.
fn lengths(bytes: &[u8]) -> Result<(usize, usize), Refusal> {
    let Some(rest) = bytes.strip_prefix(MAGIC) else { return Err(Refusal::Foreign) };
    let &[version, network, host, ..] = rest else { return Err(Refusal::Torn) };
    if version != VERSION {
        return Err(Refusal::Version(version));
    }
    let (network, host) = (usize::from(network), usize::from(host));
    let whole = bytes.len() == NAMES + network + host + SIGNATURE;
    if whole { Ok((network, host)) } else { Err(Refusal::Torn) }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the length has been checked")
}

fn name(bytes: &[u8]) -> Result<&str, Refusal> {
    std::str::from_utf8(bytes).ok().filter(|name| is_name(name)).ok_or(Refusal::BadName)
}
