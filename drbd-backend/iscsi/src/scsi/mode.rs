//! Mode pages: what can be read of the unit's settings, and the few that can be changed (SPC-4, 6.11 and 7.5; SBC-3, 6.5).

use crate::bytes::{put_u16, put_u24, put_u32, put_u64, u16_at};
use crate::scsi::sense::{Sense, code};
use crate::scsi::unit::{BLOCK, Unit};

const RECOVERY: u8 = 0x01;
const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;
const EXCEPTIONS: u8 = 0x1c;
const ALL: u8 = 0x3f;
const ALL_SUBPAGES: u8 = 0xff;

const WRITE_CACHE: u8 = 0x04;
const D_SENSE: u8 = 0x04;
const SWP: u8 = 0x08;

/// Of the device-specific parameter (SBC-3, 6.5.1).
const WRITE_PROTECTED: u8 = 0x80;
const DPO_AND_FUA: u8 = 0x10;

/// What can be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Mode {
    /// Sense data with descriptors.
    pub(crate) descriptors: bool,
    /// SWP.
    pub(crate) write_protect: bool,
}

/// Page control (SPC-4, table 146).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    Current,
    Changeable,
    Default,
}

impl Unit {
    /// MODE SENSE, 6 and 10 bytes long.
    pub(super) fn mode_sense(&self, cdb: &[u8; 16], is_read_only: bool) -> Result<Vec<u8>, Sense> {
        let is_long = cdb[0] == 0x5a;
        let values = match cdb[2] >> 6 {
            0 => Values::Current,
            1 => Values::Changeable,
            2 => Values::Default,
            _ => return Err(Sense::illegal(code::SAVING_NOT_SUPPORTED)),
        };
        let has_descriptor = cdb[1] & 0x08 == 0;
        let has_long_lba = is_long && cdb[1] & 0x10 != 0;
        let header = if is_long { 8 } else { 4 };
        let mut data = vec![0; header];
        let specific = DPO_AND_FUA | if is_read_only || self.mode.write_protect { WRITE_PROTECTED } else { 0 };
        data[if is_long { 3 } else { 2 }] = specific;
        if has_descriptor {
            self.block_descriptor(has_long_lba, &mut data);
        }
        let descriptor = data.len() - header;
        self.pages(cdb[2] & 0x3f, cdb[3], values, &mut data)?;
        if is_long {
            data[4] = u8::from(has_long_lba);
            let length = u16::try_from(data.len() - 2).expect("there are few pages");
            put_u16(&mut data, 0, length);
            put_u16(&mut data, 6, u16::try_from(descriptor).expect("it is short"));
        } else {
            data[0] = u8::try_from(data.len() - 1).expect("there are few pages");
            data[3] = u8::try_from(descriptor).expect("it is short");
        }
        Ok(data)
    }

    fn block_descriptor(&self, is_long: bool, data: &mut Vec<u8>) {
        let at = data.len();
        if is_long {
            data.resize(at + 16, 0);
            put_u64(data, at, self.blocks);
            put_u32(data, at + 12, BLOCK);
        } else {
            data.resize(at + 8, 0);
            put_u32(data, at, u32::try_from(self.blocks).unwrap_or(u32::MAX));
            put_u24(data, at + 5, BLOCK);
        }
    }

    fn pages(&self, page: u8, subpage: u8, values: Values, data: &mut Vec<u8>) -> Result<(), Sense> {
        let all = [RECOVERY, CACHING, CONTROL, EXCEPTIONS];
        match (page, subpage) {
            (ALL, 0 | ALL_SUBPAGES) => all.iter().for_each(|page| self.page(*page, values, data)),
            (page, 0 | ALL_SUBPAGES) if all.contains(&page) => self.page(page, values, data),
            (page, _) if page == ALL || all.contains(&page) => return Err(Sense::in_cdb(3)),
            _ => return Err(Sense::in_cdb(2)),
        }
        Ok(())
    }

    fn page(&self, page: u8, values: Values, data: &mut Vec<u8>) {
        let at = data.len();
        let length = if page == CACHING { 0x12 } else { 0x0a };
        data.extend([page, length]);
        data.resize(at + 2 + usize::from(length), 0);
        let mode = match values {
            Values::Current => self.mode,
            Values::Changeable => Mode { descriptors: true, write_protect: true },
            Values::Default => Mode::default(),
        };
        match page {
            CACHING if self.has_cache && values != Values::Changeable => data[at + 2] = WRITE_CACHE,
            CONTROL => {
                data[at + 2] = if mode.descriptors { D_SENSE } else { 0 };
                data[at + 4] = if mode.write_protect { SWP } else { 0 };
            }
            _ => {}
        }
    }

    /// MODE SELECT, 6 and 10 bytes long: the settings that the list asks for.
    pub(super) fn mode_select(&self, cdb: &[u8; 16], list: &[u8]) -> Result<Mode, Sense> {
        let short = Sense::illegal(code::PARAMETER_LIST_LENGTH);
        let is_long = cdb[0] == 0x55;
        let header = if is_long { 8 } else { 4 };
        if list.is_empty() {
            return Ok(self.mode);
        }
        if list.len() < header {
            return Err(short);
        }
        let descriptor = if is_long { usize::from(u16_at(list, 6)) } else { usize::from(list[3]) };
        let mut mode = self.mode;
        let mut at = header + descriptor;
        if at > list.len() {
            return Err(short);
        }
        while at < list.len() {
            let rest = &list[at..];
            let bytes = rest.get(1).map(|length| 2 + usize::from(*length)).filter(|bytes| *bytes <= rest.len());
            let bytes = bytes.ok_or(short)?;
            mode = self.selected(&rest[..bytes], at, mode)?;
            at += bytes;
        }
        Ok(mode)
    }

    /// One page: whatever differs from what is, and cannot be changed, is refused by its place.
    fn selected(&self, page: &[u8], at: usize, mode: Mode) -> Result<Mode, Sense> {
        let wrong = |byte: usize| Sense::in_parameters(u16::try_from(at + byte).unwrap_or(u16::MAX));
        let known = page[0] & 0x40 == 0 && [RECOVERY, CACHING, CONTROL, EXCEPTIONS].contains(&(page[0] & 0x3f));
        if !known {
            return Err(wrong(0));
        }
        let (mut current, mut changeable) = (Vec::new(), Vec::new());
        self.page(page[0] & 0x3f, Values::Current, &mut current);
        self.page(page[0] & 0x3f, Values::Changeable, &mut changeable);
        if page.len() != current.len() {
            return Err(wrong(1));
        }
        let differs = (2..page.len()).find(|byte| (page[*byte] ^ current[*byte]) & !changeable[*byte] != 0);
        match differs {
            Some(byte) => Err(wrong(byte)),
            None if page[0] & 0x3f == CONTROL => {
                Ok(Mode { descriptors: page[2] & D_SENSE != 0, write_protect: page[4] & SWP != 0 })
            }
            None => Ok(mode),
        }
    }
}
