//! An NBD client as small as can be: fixed newstyle, simple replies, blocking. What real clients make of our server is tested with real clients.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_EXPORT_NAME: u32 = 1;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const FLAG_FUA: u16 = 1;

/// A connection to one export.
#[derive(Debug)]
pub struct Nbd {
    stream: TcpStream,
    pub size_bytes: u64,
    cookie: u64,
}

/// What is asked of an export.
#[derive(Debug, Clone, Copy)]
pub enum Command {
    Read,
    Write { fua: bool },
    Disconnect,
    Flush,
    Trim,
    Zeroes,
}

impl Command {
    fn number(self) -> (u16, u16) {
        match self {
            Self::Read => (0, 0),
            Self::Write { fua } => (1, if fua { FLAG_FUA } else { 0 }),
            Self::Disconnect => (2, 0),
            Self::Flush => (3, 0),
            Self::Trim => (4, 0),
            Self::Zeroes => (6, 0),
        }
    }
}

/// A connection that is ready for requests, and the export's size. The server may take so long for each answer, from the first on.
pub fn dial(address: SocketAddr, export: &str, patience: Duration) -> Result<(TcpStream, u64)> {
    let mut stream = TcpStream::connect_timeout(&address, patience.min(Duration::from_secs(2)))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let mut greeting = [0; 18];
    stream.read_exact(&mut greeting)?;
    ensure!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "not an NBD server");
    stream.write_all(&3_u32.to_be_bytes())?; // fixed newstyle, no zeroes
    stream.write_all(&OPTION_MAGIC.to_be_bytes())?;
    stream.write_all(&OPTION_EXPORT_NAME.to_be_bytes())?;
    stream.write_all(&u32::try_from(export.len())?.to_be_bytes())?;
    stream.write_all(export.as_bytes())?;
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).context("the export is not to be had")?;
    Ok((stream, u64::from_be_bytes(answer[..8].try_into()?)))
}

impl Nbd {
    /// By the oldest option, which has no error: a server that does not want us closes the connection.
    pub fn connect(address: SocketAddr, export: &str) -> Result<Self> {
        Self::connect_within(address, export, Duration::from_secs(20))
    }

    /// Of this patience with the server: with each answer, from the first on.
    pub fn connect_within(address: SocketAddr, export: &str, patience: Duration) -> Result<Self> {
        let (stream, size_bytes) = dial(address, export, patience)?;
        Ok(Self { stream, size_bytes, cookie: 0 })
    }

    /// With each answer from now on.
    pub fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// Sends a request and does not wait; its cookie.
    pub fn send(&mut self, command: Command, offset: u64, length: u32, payload: &[u8]) -> io::Result<u64> {
        self.cookie += 1;
        let (number, flags) = command.number();
        let mut request = Vec::with_capacity(28 + payload.len());
        request.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
        request.extend_from_slice(&flags.to_be_bytes());
        request.extend_from_slice(&number.to_be_bytes());
        request.extend_from_slice(&self.cookie.to_be_bytes());
        request.extend_from_slice(&offset.to_be_bytes());
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(payload);
        self.stream.write_all(&request)?;
        Ok(self.cookie)
    }

    /// The next reply: its cookie, and NBD's error.
    pub fn reply(&mut self) -> Result<(u64, u32)> {
        let mut reply = [0; 16];
        self.stream.read_exact(&mut reply)?;
        ensure!(reply.starts_with(&SIMPLE_REPLY_MAGIC.to_be_bytes()), "not a simple reply: {reply:02x?}");
        let error = u32::from_be_bytes(reply[4..8].try_into()?);
        Ok((u64::from_be_bytes(reply[8..].try_into()?), error))
    }

    /// What follows the reply of a read.
    pub fn data(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        self.stream.read_exact(buffer)
    }

    fn do_it(&mut self, command: Command, offset: u64, length: u32, payload: &[u8]) -> Result<()> {
        let cookie = self.send(command, offset, length, payload)?;
        let (answered, error) = self.reply()?;
        ensure!(answered == cookie, "the reply to another request");
        if error != 0 {
            bail!("{command:?} at {offset}: error {error}");
        }
        Ok(())
    }

    pub fn write(&mut self, offset: u64, payload: &[u8]) -> Result<()> {
        self.do_it(Command::Write { fua: false }, offset, u32::try_from(payload.len())?, payload)
    }

    pub fn read(&mut self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.do_it(Command::Read, offset, u32::try_from(length)?, &[])?;
        let mut buffer = vec![0; length];
        self.data(&mut buffer)?;
        Ok(buffer)
    }

    pub fn flush(&mut self) -> Result<()> {
        self.do_it(Command::Flush, 0, 0, &[])
    }

    pub fn zeroes(&mut self, offset: u64, length: u32) -> Result<()> {
        self.do_it(Command::Zeroes, offset, length, &[])
    }

    pub fn trim(&mut self, offset: u64, length: u32) -> Result<()> {
        self.do_it(Command::Trim, offset, length, &[])
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        let _ = self.send(Command::Disconnect, 0, 0, &[]); // whoever is gone needs no goodbye
    }
}
