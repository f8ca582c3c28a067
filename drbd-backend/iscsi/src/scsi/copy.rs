//! EXTENDED COPY and RECEIVE COPY RESULTS: blocks are copied within the unit, without travelling to the initiator and back (SPC-4, 5.16, 6.4 and 6.18).

use crate::bytes::{put_u16, put_u32, u16_at, u32_at, u64_at};
use crate::scsi::inquiry::naa;
use crate::scsi::sense::{Key, Sense, code};
use crate::scsi::unit::{BLOCK, Unit, Work};

/// Descriptors of one list.
const MAX_TARGETS: usize = 2;
const MAX_SEGMENTS: usize = 64;
const MAX_LIST_BYTES: usize = MAX_TARGETS * TARGET_BYTES + MAX_SEGMENTS * SEGMENT_BYTES;

/// Of one segment: 4 MiB.
const MAX_SEGMENT_BLOCKS: u32 = 8192;

const HEADER_BYTES: usize = 16;
const TARGET_BYTES: usize = 32;
const SEGMENT_BYTES: usize = 28;

/// The descriptors that are known (SPC-4, tables 119 and 125).
const IDENTIFICATION: u8 = 0xe4;
const BLOCK_TO_BLOCK: u8 = 0x02;

/// One copy, as its initiator can ask for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Copied {
    list: u8,
    segments: u16,
    is_good: bool,
}

impl Copied {
    pub(super) fn ended(self, is_good: bool) -> Self {
        Self { is_good, ..self }
    }
}

impl Unit {
    /// EXTENDED COPY (LID1): what is to be copied, and how its initiator names it.
    pub(super) fn extended_copy(&self, list: &[u8]) -> Result<(Option<Work>, Copied), Sense> {
        let too_short = Sense::illegal(code::PARAMETER_LIST_LENGTH);
        if list.len() < HEADER_BYTES {
            return Err(too_short);
        }
        let (targets, segments) = (usize::from(u16_at(list, 2)), u32_at(list, 8) as usize);
        if u32_at(list, 12) > 0 {
            return Err(Sense::illegal(code::UNSUPPORTED_INLINE_DATA));
        }
        if targets + segments > MAX_LIST_BYTES.max(list.len()) || HEADER_BYTES + targets + segments > list.len() {
            return Err(too_short);
        }
        let (targets, segments) = list[HEADER_BYTES..][..targets + segments].split_at(targets);
        match () {
            () if targets.len() + segments.len() > MAX_LIST_BYTES
                && targets.len() > MAX_TARGETS * TARGET_BYTES
                && segments.len() > MAX_SEGMENTS * SEGMENT_BYTES =>
            {
                return Err(too_short);
            }
            () if targets.len() > MAX_TARGETS * TARGET_BYTES => return Err(Sense::illegal(code::TOO_MANY_TARGETS)),
            () if segments.len() > MAX_SEGMENTS * SEGMENT_BYTES => return Err(Sense::illegal(code::TOO_MANY_SEGMENTS)),
            () => {}
        }
        let reachable =
            targets.chunks(TARGET_BYTES).map(|it| self.is_this(it)).collect::<Result<Vec<bool>, Sense>>()?;
        let stretches = self.stretches(segments, &reachable)?;
        let segments = u16::try_from(stretches.len()).expect("there are few");
        let copied = Copied { list: list[0], segments, is_good: true };
        let work = (!stretches.is_empty()).then_some(Work::Copy { segments: stretches });
        Ok((work, copied))
    }

    /// Whether a target descriptor is of this unit. An identification descriptor names it by its designator alone.
    fn is_this(&self, descriptor: &[u8]) -> Result<bool, Sense> {
        if descriptor[0] != IDENTIFICATION {
            return Err(Sense::illegal(code::UNSUPPORTED_TARGET));
        }
        if descriptor.len() < TARGET_BYTES {
            return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
        }
        let is_null = descriptor[1] & 0x20 != 0;
        let length = usize::from(descriptor[7]).min(20);
        let (kind, designator) = (descriptor[5] & 0x0f, &descriptor[8..8 + length]);
        let vendor = format!("{:8}{}", crate::scsi::VENDOR, self.identity.serial());
        Ok(!is_null
            && match kind {
                3 => designator == naa(self.identity.uuid),
                // It does not fit whole.
                1 => vendor.as_bytes().starts_with(designator) && !designator.is_empty(),
                _ => false,
            })
    }

    fn stretches(&self, mut rest: &[u8], reachable: &[bool]) -> Result<Vec<(u64, u64, u32)>, Sense> {
        let aborted = |code: u16| Sense::new(Key::CopyAborted, code);
        let mut stretches = Vec::new();
        while !rest.is_empty() {
            if rest[0] != BLOCK_TO_BLOCK {
                return Err(Sense::illegal(code::UNSUPPORTED_SEGMENT));
            }
            if rest.len() < SEGMENT_BYTES || usize::from(u16_at(rest, 2)) + 4 != SEGMENT_BYTES {
                return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
            }
            let is_reachable = |at: usize| reachable.get(usize::from(u16_at(rest, at))).copied().unwrap_or_default();
            if !is_reachable(4) || !is_reachable(6) {
                return Err(aborted(code::NOT_REACHABLE));
            }
            let (blocks, from, to) = (u32::from(u16_at(rest, 10)), u64_at(rest, 12), u64_at(rest, 20));
            let is_within = |lba: u64| lba.checked_add(u64::from(blocks)).is_some_and(|end| end <= self.blocks);
            if !is_within(from) || !is_within(to) {
                return Err(aborted(code::NOTHING));
            }
            if blocks > MAX_SEGMENT_BLOCKS {
                return Err(aborted(code::NOTHING));
            }
            if blocks > 0 {
                stretches.push((from * u64::from(BLOCK), to * u64::from(BLOCK), blocks * BLOCK));
            }
            rest = &rest[SEGMENT_BYTES..];
        }
        Ok(stretches)
    }
}

/// OPERATING PARAMETERS (SPC-4, 6.18.3).
pub(super) fn parameters() -> Vec<u8> {
    let mut data = vec![0; 46];
    put_u32(&mut data, 0, 42);
    let half = |number: usize| u16::try_from(number).expect("it is small");
    put_u16(&mut data, 8, half(MAX_TARGETS));
    put_u16(&mut data, 10, half(MAX_SEGMENTS));
    put_u32(&mut data, 12, u32::try_from(MAX_LIST_BYTES).expect("it is small"));
    put_u32(&mut data, 16, MAX_SEGMENT_BLOCKS * BLOCK);
    put_u16(&mut data, 34, 128);
    data[36] = 128;
    data[37] = 9; // 512 bytes, as a power of two
    data[43] = 2;
    data[44] = BLOCK_TO_BLOCK;
    data[45] = IDENTIFICATION;
    data
}

/// COPY STATUS (SPC-4, 6.18.2) of the last copy, if the initiator means that one.
pub(super) fn status(last: Option<Copied>, list: u8) -> Result<Vec<u8>, Sense> {
    let Some(copied) = last.filter(|copied| copied.list == list) else { return Err(Sense::in_cdb(2)) };
    let mut data = vec![0; 12];
    put_u32(&mut data, 0, 8);
    data[4] = if copied.is_good { 1 } else { 2 };
    put_u16(&mut data, 5, if copied.is_good { copied.segments } else { 0 });
    Ok(data)
}
