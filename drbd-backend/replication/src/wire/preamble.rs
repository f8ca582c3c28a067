//! What each side says first. This never changes, so that releases of any age can tell each other why they cannot talk.
//!
//! | at | bytes | what |
//! |---|---|---|
//! | 0 | 8 | `TdPeer`, CR, LF |
//! | 8 | 2 | lowest version that the sender speaks |
//! | 10 | 2 | highest |
//! | 12 | 1 | sender's node |
//! | 13 | 1 | receiver's node |
//! | 14 | 1 | verdict: 0 come, 1 there is no such volume here, 2 not that node |
//! | 15 | 1 | 0 |
//! | 16 | 16 | volume |
//! | 32 | 4 | CRC32C of the 32 bytes before |

use core::fmt;

use crate::checksum::crc32c;
use crate::codec::Reader;
use crate::names::{Node, VolumeId};

pub const PREAMBLE_BYTES: usize = 36;

/// What this release speaks.
pub const VERSIONS: Versions = Versions { lowest: 1, highest: 1 };

const MAGIC: &[u8; 8] = b"TdPeer\r\n";

/// Versions of the peer protocol, all from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Versions {
    pub lowest: u16,
    pub highest: u16,
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.lowest == self.highest {
            return write!(f, "version {}", self.highest);
        }
        write!(f, "versions {} to {}", self.lowest, self.highest)
    }
}

/// What who accepts says to who connects. Who connects always says come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    Come,
    NoSuchVolume,
    /// The sender's certificate is another node's, or the receiver is not the node that was meant.
    NotThatNode,
    /// Of a later release.
    Other(u8),
}

impl Verdict {
    fn code(self) -> u8 {
        match self {
            Self::Come => 0,
            Self::NoSuchVolume => 1,
            Self::NotThatNode => 2,
            Self::Other(code) => code,
        }
    }

    fn of_code(code: u8) -> Self {
        match code {
            0 => Self::Come,
            1 => Self::NoSuchVolume,
            2 => Self::NotThatNode,
            other => Self::Other(other),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Preamble {
    pub versions: Versions,
    pub volume: VolumeId,
    pub from: Node,
    pub to: Node,
    pub verdict: Verdict,
}

/// These bytes are no preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotAPeer {
    Foreign,
    Torn,
}

impl fmt::Display for NotAPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "whoever is at the other end does not speak Tandem's peer protocol",
            Self::Torn => "the preamble arrived damaged",
        })
    }
}

impl core::error::Error for NotAPeer {}

/// Why these two cannot talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    Version {
        ours: Versions,
        theirs: Versions,
    },
    NoSuchVolume(VolumeId),
    NotThatNode(Node),
    /// The answer is to another question.
    OtherVolume {
        asked: VolumeId,
        answered: VolumeId,
    },
    Other(u8),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { ours, theirs } => {
                write!(
                    f,
                    "we speak {ours} of the peer protocol and the peer speaks {theirs}: upgrade the older of the two"
                )
            }
            Self::NoSuchVolume(volume) => write!(f, "the peer has no replica of volume {volume}"),
            Self::NotThatNode(node) => {
                write!(
                    f,
                    "who is at the other end is not {node} of this volume: compare the peers' addresses and certificates"
                )
            }
            Self::OtherVolume { asked, answered } => {
                write!(f, "we asked for volume {asked}, and the peer answers for {answered}")
            }
            Self::Other(code) => write!(f, "the peer refuses for a reason ({code}) that this release does not know"),
        }
    }
}

impl core::error::Error for Refused {}

impl Preamble {
    #[must_use]
    pub fn encode(&self) -> [u8; PREAMBLE_BYTES] {
        let mut bytes = [0; PREAMBLE_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&self.versions.lowest.to_be_bytes());
        bytes[10..12].copy_from_slice(&self.versions.highest.to_be_bytes());
        bytes[12] = self.from.place();
        bytes[13] = self.to.place();
        bytes[14] = self.verdict.code();
        bytes[16..32].copy_from_slice(&self.volume.0.to_be_bytes());
        let crc = crc32c(&bytes[..32]);
        bytes[32..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// # Errors
    /// The other end is no replica, or the bytes were damaged.
    pub fn decode(bytes: &[u8; PREAMBLE_BYTES]) -> Result<Self, NotAPeer> {
        if !bytes.starts_with(MAGIC) {
            return Err(NotAPeer::Foreign);
        }
        if bytes[32..] != crc32c(&bytes[..32]).to_be_bytes() {
            return Err(NotAPeer::Torn);
        }
        Self::parse(&bytes[8..32]).ok_or(NotAPeer::Torn)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let versions = Versions { lowest: reader.u16()?, highest: reader.u16()? };
        let (from, to, verdict) = (reader.node()?, reader.node()?, Verdict::of_code(reader.u8()?));
        reader.zeros(1)?;
        let volume = VolumeId(reader.u128()?);
        (versions.lowest <= versions.highest).then_some(Self { versions, volume, from, to, verdict })
    }

    /// What who accepts says to this one.
    #[must_use]
    pub fn answer(&self, versions: Versions, verdict: Verdict) -> Self {
        Self { versions, volume: self.volume, from: self.to, to: self.from, verdict }
    }

    /// The version that these two speak, as who connects (`self`) and who accepts (`answer`) both work it out.
    ///
    /// # Errors
    /// They have none in common, or the answer says no.
    pub fn agree(&self, answer: &Self) -> Result<u16, Refused> {
        match answer.verdict {
            Verdict::NoSuchVolume => return Err(Refused::NoSuchVolume(self.volume)),
            Verdict::NotThatNode => return Err(Refused::NotThatNode(self.to)),
            Verdict::Other(code) => return Err(Refused::Other(code)),
            Verdict::Come => {}
        }
        if answer.volume != self.volume {
            return Err(Refused::OtherVolume { asked: self.volume, answered: answer.volume });
        }
        if answer.from != self.to || answer.to != self.from {
            return Err(Refused::NotThatNode(self.to));
        }
        common_version(self.versions, answer.versions)
    }
}

/// The highest that both speak.
fn common_version(ours: Versions, theirs: Versions) -> Result<u16, Refused> {
    let highest = ours.highest.min(theirs.highest);
    let speak = highest >= ours.lowest && highest >= theirs.lowest;
    if speak { Ok(highest) } else { Err(Refused::Version { ours, theirs }) }
}
