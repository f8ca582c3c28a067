//! An initiator of few words, which says whatever it is told to, right or wrong.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest, Md5};

use crate::initiators::Login;

const HEADER_BYTES: usize = 48;
/// None (RFC 7143, section 11.2.1.8).
pub const NO_TAG: u32 = u32::MAX;

/// As it goes over the wire, without digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    pub head: [u8; HEADER_BYTES],
    pub data: Vec<u8>,
}

impl Pdu {
    #[must_use]
    pub fn new(opcode: u8, flags: u8, tag: u32) -> Self {
        let mut head = [0; HEADER_BYTES];
        (head[0], head[1]) = (opcode, flags);
        head[16..20].copy_from_slice(&tag.to_be_bytes());
        Self { head, data: Vec::new() }
    }

    #[must_use]
    pub fn word(mut self, at: usize, value: u32) -> Self {
        self.head[at..at + 4].copy_from_slice(&value.to_be_bytes());
        self
    }

    #[must_use]
    pub fn with(mut self, data: &[u8]) -> Self {
        self.data = data.to_vec();
        self
    }

    #[must_use]
    pub fn at(&self, at: usize) -> u32 {
        u32::from_be_bytes(self.head[at..at + 4].try_into().expect("four bytes"))
    }

    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.to_vec();
        let length = u32::try_from(self.data.len()).expect("a segment is short");
        bytes[5..8].copy_from_slice(&length.to_be_bytes()[1..]);
        bytes.extend_from_slice(&self.data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    /// Status, sense key and additional sense code of a SCSI response.
    #[must_use]
    pub fn status(&self) -> (u8, u8, u16) {
        let sense = |at: usize| self.data.get(2 + at).copied().unwrap_or_default();
        (self.head[3], sense(2) & 0x0f, u16::from_be_bytes([sense(12), sense(13)]))
    }
}

/// A session with one connection.
#[derive(Debug)]
pub struct Session {
    pub stream: TcpStream,
    pub cmd_sn: u32,
    tag: u32,
    digests: bool,
}

impl Session {
    /// Logs in by CHAP with MD5, on these terms beside our own.
    ///
    /// # Errors
    /// It is not let in.
    pub fn log_in(login: &Login, isid: u8, terms: &[&str]) -> Result<Self> {
        let stream = TcpStream::connect(login.portal)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let digests = terms.contains(&"HeaderDigest=CRC32C");
        let mut session = Self { stream, cmd_sn: 1, tag: 1, digests: false };
        let (initiator, target) =
            (format!("InitiatorName={}", login.initiator), format!("TargetName={}", login.target));
        let names = [initiator.as_str(), target.as_str(), "SessionType=Normal", "AuthMethod=CHAP"];
        session.says(isid, 0, &names)?;
        let asked = session.says(isid, 0, &["CHAP_A=5"])?;
        let value = |key: &str| {
            let found = asked.split('\0').find_map(|pair| pair.strip_prefix(key)).map(str::to_owned);
            found.with_context(|| format!("no {key} in {asked}"))
        };
        let (identifier, challenge) = (value("CHAP_I=")?.parse::<u8>()?, value("CHAP_C=0x")?);
        let mut sum = Md5::new();
        sum.update([identifier]);
        sum.update(&login.secret);
        for at in (0..challenge.len()).step_by(2) {
            sum.update([u8::from_str_radix(&challenge[at..at + 2], 16)?]);
        }
        let response: String = sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let (user, response) = (format!("CHAP_N={}", login.user), format!("CHAP_R=0x{response}"));
        session.says(isid, 0x81, &[&user, &response])?;
        session.says(isid, 0x87, terms)?;
        session.digests = digests;
        Ok(session)
    }

    /// One login request, and the text of its response.
    fn says(&mut self, isid: u8, flags: u8, pairs: &[&str]) -> Result<String> {
        let text: Vec<u8> = pairs.iter().flat_map(|pair| pair.bytes().chain([0])).collect();
        let mut pdu = Pdu::new(0x43, flags, 1).word(24, self.cmd_sn).with(&text);
        pdu.head[8..14].copy_from_slice(&[0x80, 0, 0, 0, 0, isid]);
        self.send(&pdu)?;
        let answer = self.receive()?;
        ensure!(answer.head[36] == 0, "login refused: {:#06x}", answer.at(36) >> 16);
        Ok(String::from_utf8_lossy(&answer.data).into_owned())
    }

    /// # Errors
    /// The target has closed the connection.
    pub fn send(&mut self, pdu: &Pdu) -> Result<()> {
        let mut bytes = pdu.bytes();
        if self.digests {
            let sum = crc32c::crc32c(&bytes[..HEADER_BYTES]).to_le_bytes();
            bytes.splice(HEADER_BYTES..HEADER_BYTES, sum);
        }
        Ok(self.stream.write_all(&bytes)?)
    }

    /// # Errors
    /// The target has closed the connection, or says nothing for a minute.
    pub fn receive(&mut self) -> Result<Pdu> {
        let mut head = [0; HEADER_BYTES];
        self.stream.read_exact(&mut head)?;
        if self.digests {
            let mut sum = [0; 4];
            self.stream.read_exact(&mut sum)?;
            ensure!(sum == crc32c::crc32c(&head).to_le_bytes(), "a header's digest is wrong");
        }
        let length = u32::from_be_bytes([0, head[5], head[6], head[7]]) as usize;
        let mut data = vec![0; length.next_multiple_of(4)];
        self.stream.read_exact(&mut data)?;
        data.truncate(length);
        Ok(Pdu { head, data })
    }

    /// A command: its data goes with it, or so many bytes are expected.
    #[must_use]
    pub fn command(&mut self, cdb: &[u8], expected: u32, data: &[u8]) -> Pdu {
        let outgoing = u32::try_from(data.len()).expect("it is short");
        let flags = 0x80 | if outgoing > 0 { 0x20 } else { 0 } | if expected > 0 { 0x40 } else { 0 };
        self.tag += 1;
        let pdu = Pdu::new(0x01, flags, self.tag).word(20, expected.max(outgoing)).word(24, self.cmd_sn);
        self.cmd_sn += 1;
        let mut pdu = pdu.with(data);
        pdu.head[32..32 + cdb.len()].copy_from_slice(cdb);
        pdu
    }

    /// Sends a command, and waits for its response.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn ask(&mut self, cdb: &[u8], expected: u32, data: &[u8]) -> Result<Pdu> {
        let pdu = self.command(cdb, expected, data);
        self.send(&pdu)?;
        self.response()
    }

    /// The next SCSI response, or the last data of a command.
    ///
    /// # Errors
    /// As for [`receive`](Self::receive).
    pub fn response(&mut self) -> Result<Pdu> {
        for _ in 0..10_000 {
            let pdu = self.receive()?;
            if pdu.head[0] == 0x21 || pdu.head[0] == 0x25 && pdu.head[1] & 1 != 0 {
                return Ok(pdu);
            }
        }
        bail!("no response among 10,000 PDUs")
    }

    /// Hears the attentions that wait.
    ///
    /// # Errors
    /// It is not ready after them.
    pub fn is_ready(&mut self) -> Result<()> {
        for _ in 0..8 {
            if self.ask(&[0; 6], 0, &[])?.status().0 == 0 {
                return Ok(());
            }
        }
        bail!("the unit is not ready")
    }

    /// Whether the target closes the connection within a while; whatever it says before is passed over.
    ///
    /// # Errors
    /// The socket does not do as it is told.
    pub fn is_closed_within(&mut self, patience: Duration) -> Result<bool> {
        self.stream.set_read_timeout(Some(patience))?;
        let mut bytes = [0; 4096];
        for _ in 0..100_000 {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(true),
                Ok(_) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// READ(10) or WRITE(10) of so many blocks of 512 bytes.
#[must_use]
pub fn transfer(opcode: u8, lba: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&lba.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

pub const READ: u8 = 0x28;
pub const WRITE: u8 = 0x2a;
