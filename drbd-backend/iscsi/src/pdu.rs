//! PDUs: the 48 bytes that each begins with (RFC 7143, section 11).
//!
//! ```text
//!  basic header 48 │ additional headers n × 4 │ header digest 0 or 4 │ data, padded to 4 │ data digest 0 or 4
//! ```

use crate::bytes::{put_u16, put_u24, put_u32, put_u64, u16_at, u24_at, u32_at, u64_at};

/// The basic header segment.
pub const HEADER_BYTES: usize = 48;

/// A header with its digest.
pub const MAX_HEADER_BYTES: usize = HEADER_BYTES + DIGEST_BYTES;

pub(crate) const DIGEST_BYTES: usize = 4;

/// The tag that is none (section 11.2.1.8).
pub(crate) const NO_TAG: u32 = 0xffff_ffff;

pub(crate) const IMMEDIATE: u8 = 0x40;
const OPCODE: u8 = 0x3f;
pub(crate) const FINAL: u8 = 0x80;
pub(crate) const CONTINUE: u8 = 0x40;

/// Initiator opcodes (section 11.2.1.2).
pub(crate) mod request {
    pub(crate) const NOP_OUT: u8 = 0x00;
    pub(crate) const COMMAND: u8 = 0x01;
    pub(crate) const TASK_MANAGEMENT: u8 = 0x02;
    pub(crate) const LOGIN: u8 = 0x03;
    pub(crate) const TEXT: u8 = 0x04;
    pub(crate) const DATA_OUT: u8 = 0x05;
    pub(crate) const LOGOUT: u8 = 0x06;
    pub(crate) const SNACK: u8 = 0x10;
}

/// Target opcodes.
pub(crate) mod response {
    pub(crate) const NOP_IN: u8 = 0x20;
    pub(crate) const COMMAND: u8 = 0x21;
    pub(crate) const TASK_MANAGEMENT: u8 = 0x22;
    pub(crate) const LOGIN: u8 = 0x23;
    pub(crate) const TEXT: u8 = 0x24;
    pub(crate) const DATA_IN: u8 = 0x25;
    pub(crate) const LOGOUT: u8 = 0x26;
    pub(crate) const READY_TO_TRANSFER: u8 = 0x31;
    pub(crate) const ASYNC: u8 = 0x32;
    pub(crate) const REJECT: u8 = 0x3f;
}

/// A header as it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Header(pub(crate) [u8; HEADER_BYTES]);

impl Header {
    /// From the first bytes of a PDU, which must be as many.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        Self(bytes[..HEADER_BYTES].try_into().expect("as many were cut off"))
    }

    pub(crate) fn opcode(&self) -> u8 {
        self.0[0] & OPCODE
    }

    pub(crate) fn is_immediate(&self) -> bool {
        self.0[0] & IMMEDIATE != 0
    }

    /// Byte 1, whose meaning depends on the opcode.
    pub(crate) fn flags(&self) -> u8 {
        self.0[1]
    }

    pub(crate) fn is_final(&self) -> bool {
        self.flags() & FINAL != 0
    }

    /// Bytes of the additional headers.
    pub(crate) fn additional_bytes(&self) -> usize {
        usize::from(self.0[4]) * 4
    }

    /// Bytes of data, without its padding.
    pub(crate) fn data_bytes(&self) -> u32 {
        u24_at(&self.0, 5)
    }

    pub(crate) fn lun(&self) -> u64 {
        u64_at(&self.0, 8)
    }

    pub(crate) fn task(&self) -> u32 {
        u32_at(&self.0, 16)
    }

    /// Bytes 20 to 23: target transfer tag, referenced task tag or expected data transfer length.
    pub(crate) fn word20(&self) -> u32 {
        u32_at(&self.0, 20)
    }

    pub(crate) fn cmd_sn(&self) -> u32 {
        u32_at(&self.0, 24)
    }

    pub(crate) fn data_sn(&self) -> u32 {
        u32_at(&self.0, 36)
    }

    pub(crate) fn offset(&self) -> u32 {
        u32_at(&self.0, 40)
    }

    pub(crate) fn connection(&self) -> u16 {
        u16_at(&self.0, 20)
    }

    pub(crate) fn cdb(&self) -> &[u8; 16] {
        self.0[32..48].try_into().expect("16 bytes")
    }
}

/// A header to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reply(pub(crate) [u8; HEADER_BYTES]);

impl Reply {
    pub(crate) fn new(opcode: u8, flags: u8, task: u32) -> Self {
        let mut bytes = [0; HEADER_BYTES];
        bytes[0] = opcode;
        bytes[1] = flags;
        put_u32(&mut bytes, 16, task);
        Self(bytes)
    }

    pub(crate) fn byte(mut self, at: usize, value: u8) -> Self {
        self.0[at] = value;
        self
    }

    pub(crate) fn word(mut self, at: usize, value: u32) -> Self {
        put_u32(&mut self.0, at, value);
        self
    }

    pub(crate) fn half(mut self, at: usize, value: u16) -> Self {
        put_u16(&mut self.0, at, value);
        self
    }

    pub(crate) fn lun(mut self, lun: u64) -> Self {
        put_u64(&mut self.0, 8, lun);
        self
    }

    pub(crate) fn data_bytes(mut self, bytes: usize) -> Self {
        put_u24(&mut self.0, 5, u32::try_from(bytes).expect("a segment is short"));
        self
    }
}

/// How many bytes of padding stand behind so many of data (section 11.2.3).
pub(crate) fn padding(bytes: usize) -> usize {
    bytes.wrapping_neg() & 3
}

/// The digest as it is sent: CRC32C, its lowest byte first (section 13.1 with the bit order of its example).
pub(crate) fn digest(crc: u32) -> [u8; DIGEST_BYTES] {
    crc.to_le_bytes()
}

/// Appends a PDU: the header with the length of its data in it, the data padded, the digests that were agreed on.
pub(crate) fn put(out: &mut Vec<u8>, reply: Reply, data: &[u8], digests: Digests) {
    let header = reply.data_bytes(data.len()).0;
    out.extend_from_slice(&header);
    if digests.header {
        out.extend_from_slice(&digest(crc32c::crc32c(&header)));
    }
    if data.is_empty() {
        return;
    }
    let padding = &[0; 3][..padding(data.len())];
    out.extend_from_slice(data);
    out.extend_from_slice(padding);
    if digests.data {
        out.extend_from_slice(&digest(crc32c::crc32c_append(crc32c::crc32c(data), padding)));
    }
}

/// Which digests were agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digests {
    pub header: bool,
    pub data: bool,
}

impl Digests {
    pub(crate) fn header_bytes(self) -> usize {
        if self.header { DIGEST_BYTES } else { 0 }
    }

    pub(crate) fn data_bytes(self) -> usize {
        if self.data { DIGEST_BYTES } else { 0 }
    }
}
