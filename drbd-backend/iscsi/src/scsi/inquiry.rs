//! INQUIRY: what the logical unit is (SPC-4, sections 6.6 and 7.8; SBC-3, 6.6).

use sha2::{Digest, Sha256};

use crate::bytes::{padded, put_u16, put_u32, put_u64};
use crate::scsi::sense::Sense;
use crate::scsi::unit::{Limits, Unit};

/// T10 vendor identification and product, as multipath.conf names them.
pub const VENDOR: &str = "TANDEM";
pub const PRODUCT: &str = "VOLUME";

/// Peripheral qualifier 011b and type 1Fh: no such logical unit.
const NO_UNIT: u8 = 0x7f;

/// SAM-5, SPC-4, SBC-3, iSCSI: without a claim to one version of them (SPC-4, table 150).
const VERSIONS: [u16; 4] = [0x00a0, 0x0460, 0x04c0, 0x0960];

/// A company identifier of our own making, with the bit set that says so (IEEE 802, 8.2: locally administered).
const COMPANY: u32 = 0x02_544e;

/// NAA 6 (SPC-4, 7.8.5.7.6): derived from the volume's uuid, so that it is the same on every node.
#[must_use]
pub fn naa(uuid: u128) -> [u8; 16] {
    let hash = Sha256::new().chain_update(b"tandem volume ").chain_update(uuid.to_be_bytes()).finalize();
    let mut naa: [u8; 16] = hash[..16].try_into().expect("a hash has 32 bytes");
    let company = COMPANY.to_be_bytes();
    naa[0] = 0x60 | company[1] >> 4;
    naa[1] = company[1] << 4 | company[2] >> 4;
    naa[2] = company[2] << 4 | company[3] >> 4;
    naa[3] = company[3] << 4 | naa[3] & 0x0f;
    naa
}

impl Unit {
    pub(super) fn inquiry(&self, cdb: &[u8; 16], is_there: bool) -> Result<Vec<u8>, Sense> {
        let page = cdb[2];
        if cdb[1] & 1 == 0 {
            return if page == 0 { Ok(self.standard(is_there)) } else { Err(Sense::in_cdb(2)) };
        }
        let mut data = vec![if is_there { 0 } else { NO_UNIT }, page, 0, 0];
        match page {
            0x00 if self.is_thin => data.extend([0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]),
            0x00 => data.extend([0x00, 0x80, 0x83, 0x86, 0xb0, 0xb1]),
            0x80 => data.extend_from_slice(self.identity.serial().as_bytes()),
            0x83 => self.designators(&mut data),
            0x86 => extended(&mut data),
            0xb0 => self.block_limits(&mut data),
            0xb1 => characteristics(&mut data),
            0xb2 if self.is_thin => data.extend([0, 0xe4, 0x02, 0]),
            _ => return Err(Sense::in_cdb(2)),
        }
        let length = u16::try_from(data.len() - 4).expect("a page is short");
        put_u16(&mut data, 2, length);
        Ok(data)
    }

    fn standard(&self, is_there: bool) -> Vec<u8> {
        // Implicit ALUA and third-party copies; several ports; command queuing.
        let mut data = vec![if is_there { 0 } else { NO_UNIT }, 0, 0x06, 0x12, 0, 0x18, 0x10, 0x02];
        padded(&mut data, VENDOR, 8);
        padded(&mut data, PRODUCT, 16);
        padded(&mut data, &self.identity.revision, 4);
        data.resize(96, 0);
        for (at, version) in (58..).step_by(2).zip(VERSIONS) {
            put_u16(&mut data, at, version);
        }
        data[4] = u8::try_from(data.len() - 5).expect("96 bytes");
        data
    }

    /// Device identification: first what names the logical unit everywhere.
    fn designators(&self, data: &mut Vec<u8>) {
        const BINARY: u8 = 1;
        const ASCII: u8 = 2;
        const UTF8: u8 = 3;
        const UNIT: u8 = 0x00;
        const PORT: u8 = 0x90; // PIV, target port
        const DEVICE: u8 = 0xa0; // PIV, target device
        const ISCSI: u8 = 0x50;
        let mut put = |codes: u8, kind: u8, bytes: &[u8]| {
            let protocol = if kind & 0x80 != 0 { ISCSI } else { 0 };
            data.extend([protocol | codes, kind, 0, u8::try_from(bytes.len()).expect("a name is short")]);
            data.extend_from_slice(bytes);
        };
        put(BINARY, UNIT | 3, &naa(self.identity.uuid));
        let mut vendor = Vec::new();
        padded(&mut vendor, VENDOR, 8);
        vendor.extend_from_slice(self.identity.serial().as_bytes());
        put(ASCII, UNIT | 1, &vendor);
        let [high, low] = self.port.to_be_bytes();
        put(BINARY, PORT | 4, &[0, 0, high, low]);
        put(BINARY, PORT | 5, &[0, 0, high, low]);
        let named = |text: String| {
            let mut bytes = text.into_bytes();
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        put(UTF8, PORT | 8, &named(format!("{},t,0x{:04x}", self.identity.target, self.port)));
        put(UTF8, DEVICE | 8, &named(self.identity.target.clone()));
    }

    fn block_limits(&self, data: &mut Vec<u8>) {
        let start = data.len();
        data.resize(start + 0x3c, 0);
        let page = &mut data[start - 4..];
        page[4] = 0x01; // WSNZ
        page[5] = Limits::COMPARE_AND_WRITE;
        put_u16(page, 6, Limits::GRANULARITY);
        put_u32(page, 8, Limits::TRANSFER);
        put_u32(page, 12, Limits::OPTIMAL_TRANSFER);
        put_u32(page, 16, Limits::TRANSFER);
        if self.is_thin {
            put_u32(page, 20, Limits::UNMAP);
            put_u32(page, 24, Limits::UNMAP_DESCRIPTORS);
            put_u32(page, 28, u32::from(Limits::GRANULARITY));
            put_u32(page, 32, 0x8000_0000); // UGAVALID
        }
        put_u64(page, 36, u64::from(Limits::WRITE_SAME));
    }
}

/// Extended INQUIRY data: task attributes, a volatile cache, unit attentions cleared with their I_T nexus.
fn extended(data: &mut Vec<u8>) {
    const SIMPLE_TASKS: u8 = 0x01;
    let start = data.len();
    data.resize(start + 60, 0);
    data[start + 1] = SIMPLE_TASKS;
    data[start + 2] = 0x01;
    data[start + 3] = 0x01;
}

/// Block device characteristics: nothing rotates.
fn characteristics(data: &mut Vec<u8>) {
    let start = data.len();
    data.resize(start + 0x3c, 0);
    put_u16(data, start, 1);
}
