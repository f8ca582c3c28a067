//! Sense data: why a command ended as it did (SPC-4, section 4.5).

use crate::bytes::{put_u16, put_u32, put_u64};

/// Sense keys (SPC-4, table 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Key {
    NoSense = 0x0,
    NotReady = 0x2,
    MediumError = 0x3,
    HardwareError = 0x4,
    IllegalRequest = 0x5,
    UnitAttention = 0x6,
    DataProtect = 0x7,
    CopyAborted = 0xa,
    AbortedCommand = 0xb,
    Miscompare = 0xe,
}

/// A sense key with its additional code, and what else is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    pub key: Key,
    /// ASC and ASCQ.
    pub code: u16,
    /// What the code says it is: mostly where it happened.
    pub information: Option<u64>,
    /// Which byte, and which bit of it, of the CDB or of the parameters was wrong (SPC-4, 4.5.2.4.2).
    field: Option<Field>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Field {
    is_in_cdb: bool,
    byte: u16,
}

/// Additional sense codes (SPC-4, annex D.2).
pub(crate) mod code {
    pub(crate) const NOTHING: u16 = 0x0000;
    pub(crate) const TRANSITIONING: u16 = 0x040a;
    pub(crate) const STANDBY: u16 = 0x040b;
    pub(crate) const UNAVAILABLE: u16 = 0x040c;
    pub(crate) const WRITE_ERROR: u16 = 0x0c00;
    pub(crate) const UNRECOVERED_READ_ERROR: u16 = 0x1100;
    pub(crate) const UNEXPECTED_DATA: u16 = 0x0c0c;
    pub(crate) const NOT_ENOUGH_DATA: u16 = 0x0c0d;
    pub(crate) const INVALID_OPCODE: u16 = 0x2000;
    pub(crate) const LBA_OUT_OF_RANGE: u16 = 0x2100;
    pub(crate) const INVALID_FIELD_IN_CDB: u16 = 0x2400;
    pub(crate) const NO_SUCH_LUN: u16 = 0x2500;
    pub(crate) const PARAMETER_LIST_LENGTH: u16 = 0x1a00;
    pub(crate) const INVALID_FIELD_IN_PARAMETERS: u16 = 0x2600;
    pub(crate) const INVALID_RELEASE: u16 = 0x2604;
    pub(crate) const NOT_REACHABLE: u16 = 0x0d02;
    pub(crate) const TOO_MANY_TARGETS: u16 = 0x2606;
    pub(crate) const UNSUPPORTED_TARGET: u16 = 0x2607;
    pub(crate) const TOO_MANY_SEGMENTS: u16 = 0x2608;
    pub(crate) const UNSUPPORTED_SEGMENT: u16 = 0x2609;
    pub(crate) const UNSUPPORTED_INLINE_DATA: u16 = 0x260b;
    pub(crate) const WRITE_PROTECTED: u16 = 0x2700;
    pub(crate) const RESET: u16 = 0x2900;
    pub(crate) const MODE_CHANGED: u16 = 0x2a01;
    pub(crate) const RESERVATIONS_PREEMPTED: u16 = 0x2a03;
    pub(crate) const RESERVATIONS_RELEASED: u16 = 0x2a04;
    pub(crate) const REGISTRATIONS_PREEMPTED: u16 = 0x2a05;
    pub(crate) const ACCESS_CHANGED: u16 = 0x2a06;
    pub(crate) const CAPACITY_CHANGED: u16 = 0x2a09;
    pub(crate) const CLEARED_BY_OTHER: u16 = 0x2f00;
    pub(crate) const MISCOMPARE: u16 = 0x1d00;
    pub(crate) const PROTOCOL_CRC: u16 = 0x4705;
    pub(crate) const SAVING_NOT_SUPPORTED: u16 = 0x3900;
    pub(crate) const NO_REGISTRATION_RESOURCES: u16 = 0x5504;
}

/// What follows the header of fixed-format sense data.
const FIXED_BYTES: usize = 18;

impl Sense {
    pub(crate) const fn new(key: Key, code: u16) -> Self {
        Self { key, code, information: None, field: None }
    }

    pub(crate) const fn illegal(code: u16) -> Self {
        Self::new(Key::IllegalRequest, code)
    }

    /// A field in this byte of the CDB.
    pub(crate) const fn in_cdb(byte: u16) -> Self {
        let field = Some(Field { is_in_cdb: true, byte });
        Self { key: Key::IllegalRequest, code: code::INVALID_FIELD_IN_CDB, information: None, field }
    }

    /// A field in this byte of the parameter list.
    pub(crate) const fn in_parameters(byte: u16) -> Self {
        let field = Some(Field { is_in_cdb: false, byte });
        Self { key: Key::IllegalRequest, code: code::INVALID_FIELD_IN_PARAMETERS, information: None, field }
    }

    pub(crate) const fn attention(code: u16) -> Self {
        Self::new(Key::UnitAttention, code)
    }

    pub(crate) const fn with(self, information: u64) -> Self {
        Self { information: Some(information), ..self }
    }

    /// As bytes, with descriptors (SPC-4, 4.5.2) or fixed (4.5.3).
    pub(crate) fn bytes(&self, with_descriptors: bool) -> Vec<u8> {
        if with_descriptors { self.descriptors() } else { self.fixed() }
    }

    fn specific(field: Field) -> [u8; 3] {
        let [high, low] = field.byte.to_be_bytes();
        [0x80 | if field.is_in_cdb { 0x40 } else { 0 }, high, low]
    }

    fn fixed(&self) -> Vec<u8> {
        let mut bytes = vec![0; FIXED_BYTES];
        bytes[0] = 0x70;
        bytes[2] = self.key as u8;
        if let Some(information) = self.information.and_then(|it| u32::try_from(it).ok()) {
            bytes[0] |= 0x80;
            put_u32(&mut bytes, 3, information);
        }
        bytes[7] = 10;
        put_u16(&mut bytes, 12, self.code);
        if let Some(field) = self.field {
            bytes[15..18].copy_from_slice(&Self::specific(field));
        }
        bytes
    }

    fn descriptors(&self) -> Vec<u8> {
        let mut bytes = vec![0; 8];
        bytes[0] = 0x72;
        bytes[1] = self.key as u8;
        put_u16(&mut bytes, 2, self.code);
        if let Some(information) = self.information {
            let at = bytes.len();
            bytes.extend_from_slice(&[0x00, 0x0a, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            put_u64(&mut bytes, at + 4, information);
        }
        if let Some(field) = self.field {
            bytes.extend_from_slice(&[0x02, 0x06, 0, 0]);
            bytes.extend_from_slice(&Self::specific(field));
            bytes.push(0);
        }
        bytes[7] = u8::try_from(bytes.len() - 8).expect("two descriptors");
        bytes
    }
}
