//! What a unit reports of itself, beyond INQUIRY: its size, its ports and their states, its operations (SPC-4, SBC-3).

use crate::bytes::{put_u16, put_u32, put_u64, u16_at};
use crate::scsi::operation::{OPERATIONS, Operation};
use crate::scsi::sense::Sense;
use crate::scsi::unit::{Access, BLOCK, Unit};

/// Logical blocks of one physical block, as a power of two: 4 KiB.
const PHYSICAL_EXPONENT: u8 = 3;

/// Thin provisioning is enabled, and what is not provisioned reads as zeroes (SBC-3, 5.16.2).
const LBPME: u8 = 0x80;
const LBPRZ: u8 = 0x40;

impl Unit {
    pub(super) fn capacity_10(&self) -> Vec<u8> {
        let last = u32::try_from(self.blocks - 1).unwrap_or(u32::MAX);
        [last.to_be_bytes(), BLOCK.to_be_bytes()].concat()
    }

    pub(super) fn capacity_16(&self) -> Vec<u8> {
        let mut data = vec![0; 32];
        put_u64(&mut data, 0, self.blocks - 1);
        put_u32(&mut data, 8, BLOCK);
        data[13] = PHYSICAL_EXPONENT;
        data[14] = if self.is_thin { LBPME | LBPRZ } else { 0 };
        data
    }

    /// SPC-4, 6.33: one logical unit, and no well-known ones.
    pub(super) fn luns(select: u8) -> Result<Vec<u8>, Sense> {
        let count = match select {
            0 | 2 => 1,
            1 => 0,
            _ => return Err(Sense::in_cdb(2)),
        };
        let mut data = vec![0; 8 + 8 * count];
        put_u32(&mut data, 0, u32::try_from(8 * count).expect("one"));
        Ok(data)
    }

    /// SPC-4, 6.37. Changes of state are implicit; every group has one port, of the same number.
    pub(super) fn port_groups(&self, format: u8) -> Result<Vec<u8>, Sense> {
        const EXTENDED: u8 = 1;
        /// Transitioning, unavailable, standby, active/optimized.
        const SUPPORTED: u8 = 0x80 | 0x08 | 0x04 | 0x01;
        const BY_IMPLICIT_CHANGE: u8 = 2;
        let mut data = match format {
            0 => vec![0; 4],
            EXTENDED => vec![0, 0, 0, 0, EXTENDED << 4, 0, 0, 0],
            _ => return Err(Sense::in_cdb(1)),
        };
        for group in &self.groups {
            let at = data.len();
            data.resize(at + 12, 0);
            data[at] = group.access as u8 | if group.access == Access::Active { 0x80 } else { 0 };
            data[at + 1] = SUPPORTED;
            put_u16(&mut data, at + 2, group.port);
            data[at + 5] = BY_IMPLICIT_CHANGE;
            data[at + 7] = 1;
            put_u16(&mut data, at + 10, group.port);
        }
        let length = u32::try_from(data.len() - 4).expect("there are few groups");
        put_u32(&mut data, 0, length);
        Ok(data)
    }

    /// SPC-4, 6.35.
    pub(super) fn opcodes(&self, cdb: &[u8; 16]) -> Result<Vec<u8>, Sense> {
        let with_times = cdb[2] & 0x80 != 0;
        let (code, action) = (cdb[3], u16_at(cdb, 4));
        let known = || OPERATIONS.iter().filter(|it| self.knows(it));
        let has_actions = known().any(|it| it.code == code && it.action.is_some());
        match cdb[2] & 7 {
            0 => {
                let mut data = vec![0; 4];
                known().for_each(|it| described(it, with_times, &mut data));
                let length = u32::try_from(data.len() - 4).expect("there are few operations");
                put_u32(&mut data, 0, length);
                Ok(data)
            }
            1 if has_actions => Err(Sense::in_cdb(2)),
            2 if !has_actions && known().any(|it| it.code == code) => Err(Sense::in_cdb(2)),
            1 => Ok(one(known().find(|it| it.code == code), with_times)),
            2 | 3 => {
                let found =
                    known().find(|it| it.code == code && it.action.map_or(action == 0, |it| u16::from(it) == action));
                Ok(one(found, with_times))
            }
            _ => Err(Sense::in_cdb(2)),
        }
    }
}

/// A command descriptor of the list of all.
fn described(it: &Operation, with_times: bool, data: &mut Vec<u8>) {
    let at = data.len();
    data.resize(at + 8, 0);
    data[at] = it.code;
    put_u16(data, at + 2, u16::from(it.action.unwrap_or_default()));
    data[at + 5] = if with_times { 2 } else { 0 } | u8::from(it.action.is_some());
    put_u16(data, at + 6, u16::try_from(it.cdb_bytes()).expect("a CDB is short"));
    if with_times {
        no_times(data);
    }
}

/// The answer about one operation.
fn one(found: Option<&Operation>, with_times: bool) -> Vec<u8> {
    const NOT_SUPPORTED: u8 = 1;
    const SUPPORTED: u8 = 3;
    let Some(it) = found else { return vec![0, NOT_SUPPORTED, 0, 0] };
    let mut data = vec![0, SUPPORTED | if with_times { 0x80 } else { 0 }, 0, 0, it.code];
    put_u16(&mut data, 2, u16::try_from(it.cdb_bytes()).expect("a CDB is short"));
    data.extend_from_slice(it.mask);
    if let Some(action) = it.action {
        data[5] = it.mask[0] & 0xe0 | action;
    }
    if with_times {
        no_times(&mut data);
    }
    data
}

/// A timeouts descriptor that names none (SPC-4, 6.35.4).
fn no_times(data: &mut Vec<u8>) {
    let at = data.len();
    data.resize(at + 12, 0);
    put_u16(data, at, 10);
}
