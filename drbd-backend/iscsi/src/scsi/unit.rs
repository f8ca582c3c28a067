//! One logical unit as one node serves it: what it is, who has attentions to hear, and what is to be done with a command.

use std::fmt;

use crate::bytes::{u16_at, u24_at, u32_at, u64_at};
use crate::scsi::copy::{self, Copied};
use crate::scsi::mode::Mode;
use crate::scsi::operation::{Name, Operation, Touch, Where};
use crate::scsi::reservation::{Change, Nexus as Ports, No, PARAMETER_BYTES, Reservations};
use crate::scsi::sense::{Key, Sense, code};

/// Bytes of a logical block.
pub const BLOCK: u32 = 512;

/// What a command may ask for (SBC-3, 6.6.4), in logical blocks where nothing else is said.
#[derive(Debug, Clone, Copy)]
pub struct Limits;

impl Limits {
    /// 4 MiB.
    pub const TRANSFER: u32 = 8192;
    /// 512 KiB: what is written in one piece.
    pub const OPTIMAL_TRANSFER: u32 = 1024;
    /// 4 KiB: what is stored, locked and shipped whole.
    pub const GRANULARITY: u16 = 8;
    /// One 4 KiB block.
    pub const COMPARE_AND_WRITE: u8 = 8;
    /// 512 MiB.
    pub const UNMAP: u32 = 1 << 20;
    /// In one list.
    pub const UNMAP_DESCRIPTORS: u32 = 64;
    /// 16 MiB.
    pub const WRITE_SAME: u32 = 32_768;
}

/// More of EXTENDED COPY's list is not even received.
const MAX_COPY_LIST_BYTES: u32 = 65_536;

/// Whose unit it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub uuid: u128,
    /// The iSCSI name of its target.
    pub target: String,
    /// Four characters.
    pub revision: String,
}

impl Identity {
    /// The uuid as it is written.
    pub(crate) fn serial(&self) -> String {
        let hex = format!("{:032x}", self.uuid);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }
}

/// Asymmetric access states (SPC-4, table 304).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Access {
    /// Active/optimized.
    Active = 0x0,
    Standby = 0x2,
    Unavailable = 0x3,
    Transitioning = 0xf,
}

/// A node's portal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortGroup {
    /// Target port group, portal group tag and relative port identifier in one: not zero.
    pub port: u16,
    pub access: Access,
}

/// What a unit begins with.
#[derive(Debug, Clone)]
pub struct UnitSettings {
    pub identity: Identity,
    /// Of this node.
    pub port: u16,
    pub size_bytes: u64,
    /// What is answered may be in a volatile cache until it is flushed.
    pub has_cache: bool,
    /// What is unmapped takes no room.
    pub is_thin: bool,
    pub groups: Vec<PortGroup>,
}

/// An I_T nexus of a unit: one session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Nexus(pub(crate) usize);

#[derive(Debug)]
struct NexusState {
    ports: Ports,
    is_read_only: bool,
    /// Its last EXTENDED COPY.
    copied: Option<Copied>,
    /// Attentions that it has not heard, first the one that comes next.
    attentions: Vec<u16>,
}

/// See [`UnitSettings`].
#[derive(Debug)]
pub struct Unit {
    pub(super) identity: Identity,
    pub(super) port: u16,
    pub(super) blocks: u64,
    pub(super) has_cache: bool,
    pub(super) is_thin: bool,
    pub(super) groups: Vec<PortGroup>,
    pub(super) mode: Mode,
    reservations: Reservations,
    /// RESERVE(6) of SPC-2: gone with the process, as after a reset.
    reserved: Option<Nexus>,
    /// A change of the reservations that is being stored.
    changing: Option<(Nexus, Change)>,
    /// As the control document has them.
    stored: Vec<u8>,
    nexuses: Vec<Option<NexusState>>,
}

/// What whoever holds the data is to do. Offsets and lengths in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    Read {
        offset: u64,
        bytes: u32,
    },
    /// The data comes from the initiator while the work is under way.
    Write {
        offset: u64,
        bytes: u32,
        durable: bool,
    },
    Flush,
    /// The stretches read as zeroes afterwards; with `punch` they take no room any more.
    Zeroes {
        stretches: Vec<(u64, u64)>,
        punch: bool,
    },
    /// The pattern over and over.
    Fill {
        offset: u64,
        bytes: u64,
        pattern: Vec<u8>,
    },
    /// Writes and then reads what it has written.
    WriteAndVerify {
        offset: u64,
        data: Vec<u8>,
    },
    /// Reads, and compares with the data if there is any.
    Verify {
        offset: u64,
        bytes: u32,
        against: Option<Vec<u8>>,
    },
    /// Reads, judges or changes what is there, and writes, with nothing in between.
    Modify {
        offset: u64,
        how: Modify,
        data: Vec<u8>,
        durable: bool,
    },
    /// Each of so many bytes, from here to there, one after the other.
    Copy {
        segments: Vec<(u64, u64, u32)>,
    },
    /// Whether blocks from here on are mapped: one answer for each stretch.
    LbaStatus {
        offset: u64,
    },
    /// The reservations of the control document: these, if it still has those that they were judged by.
    Reserve {
        was: Vec<u8>,
        next: Vec<u8>,
    },
}

/// How blocks change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modify {
    /// The first half of the data must be there; the second half is then written.
    CompareAndWrite,
    /// Bits are added.
    Or,
}

/// How a command goes on.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    Answer(Answer),
    /// So many bytes of parameters are needed first, or as many as come.
    Collect(u32),
    /// As above, where an initiator that means to send another number has made a mistake: that is this.
    CollectExactly(u32, Sense),
    Work(Work),
}

/// How a command ends at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Good,
    Data(Vec<u8>),
    Sense(Sense),
    Busy,
    Conflict,
}

impl From<Sense> for Verdict {
    fn from(sense: Sense) -> Self {
        Self::Answer(Answer::Sense(sense))
    }
}

/// A stretch of blocks that a command names.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    lba: u64,
    blocks: u32,
}

impl Stretch {
    fn offset(self) -> u64 {
        self.lba * u64::from(BLOCK)
    }

    fn bytes(self) -> u32 {
        self.blocks * BLOCK
    }
}

impl Unit {
    /// # Panics
    /// If the size is not a positive number of blocks.
    #[must_use]
    pub fn new(settings: UnitSettings, reservations: &[u8]) -> Self {
        let blocks = settings.size_bytes / u64::from(BLOCK);
        assert!(blocks > 0, "a volume has blocks");
        let mut unit = Self {
            identity: settings.identity,
            port: settings.port,
            blocks,
            has_cache: settings.has_cache,
            is_thin: settings.is_thin,
            groups: settings.groups,
            mode: Mode::default(),
            reservations: Reservations::default(),
            reserved: None,
            changing: None,
            stored: Vec::new(),
            nexuses: Vec::new(),
        };
        unit.reservations_are(reservations);
        unit
    }

    /// A session begins.
    pub(crate) fn join(&mut self, initiator: &str, isid: [u8; 6], is_read_only: bool) -> Nexus {
        let isid: String = isid.iter().map(|byte| format!("{byte:02x}")).collect();
        let ports = Ports { initiator: format!("{initiator},i,0x{isid}"), port: self.port };
        let state = NexusState { ports, is_read_only, copied: None, attentions: vec![code::RESET] };
        let place = self.nexuses.iter().position(Option::is_none).unwrap_or_else(|| {
            self.nexuses.push(None);
            self.nexuses.len() - 1
        });
        self.nexuses[place] = Some(state);
        Nexus(place)
    }

    pub(crate) fn leave(&mut self, nexus: Nexus) {
        self.nexuses[nexus.0] = None;
        if self.reserved == Some(nexus) {
            self.reserved = None;
        }
    }

    fn nexus(&self, nexus: Nexus) -> &NexusState {
        self.nexuses[nexus.0].as_ref().expect("it joined")
    }

    /// Everybody hears of it once, but the one who did it.
    pub(crate) fn attention(&mut self, code: u16, but: Option<Nexus>) {
        for (place, state) in self.nexuses.iter_mut().enumerate() {
            if let Some(state) = state.as_mut().filter(|_| but != Some(Nexus(place))) {
                raise(state, code);
            }
        }
    }

    /// What this node's access, and that of the others, is from now on.
    pub fn groups_are(&mut self, groups: &[PortGroup]) {
        if self.groups != groups {
            self.groups = groups.to_vec();
            self.attention(code::ACCESS_CHANGED, None);
        }
    }

    pub fn size_is(&mut self, size_bytes: u64) {
        let blocks = size_bytes / u64::from(BLOCK);
        if self.blocks != blocks {
            self.blocks = blocks;
            self.attention(code::CAPACITY_CHANGED, None);
        }
    }

    /// The control document has these. Nothing is believed of bytes that are malformed but that somebody holds something: then nobody may write.
    pub fn reservations_are(&mut self, bytes: &[u8]) {
        let Some(next) = Reservations::decoded(bytes) else { return };
        self.stored = bytes.to_vec();
        // What was asked for here is told once it is answered.
        let is_ours = self.changing.as_ref().is_some_and(|(_, change)| change.next == next);
        if !is_ours && next != self.reservations {
            for state in self.nexuses.iter_mut().flatten() {
                if let Some(code) = next.attention_after(&self.reservations, &state.ports) {
                    raise(state, code);
                }
            }
        }
        self.reservations = next;
    }

    pub(crate) fn with_descriptors(&self) -> bool {
        self.mode.descriptors
    }

    fn access(&self) -> Access {
        self.groups.iter().find(|group| group.port == self.port).map_or(Access::Unavailable, |group| group.access)
    }

    pub(super) fn knows(&self, operation: &Operation) -> bool {
        self.is_thin || !matches!(operation.name, Name::Unmap | Name::GetLbaStatus)
    }

    /// Logical unit reset (SAM-5, 6.3.3): everybody hears of it, who did it too.
    pub(crate) fn reset(&mut self) {
        self.reserved = None;
        self.mode = Mode::default();
        self.attention(code::RESET, None);
    }

    /// A command, from its arrival: attentions and reservations are judged before its fields (SAM-5, 5.3.1 and 5.14).
    pub(crate) fn judge(&mut self, nexus: Nexus, lun: u64, cdb: &[u8; 16]) -> Verdict {
        if lun != 0 {
            return self.elsewhere(cdb);
        }
        let operation = Operation::of(cdb).and_then(|it| {
            let known = self.knows(it).then_some(it);
            known.ok_or(Sense::illegal(code::INVALID_OPCODE))
        });
        let name = operation.as_ref().ok().map(|it| it.name);
        let is_silent = matches!(name, Some(Name::Inquiry | Name::ReportLuns | Name::RequestSense));
        if !is_silent && let Some(attention) = self.next_attention(nexus) {
            return attention.into();
        }
        let operation = match operation {
            Ok(operation) => operation,
            Err(sense) => return sense.into(),
        };
        if let Some(sense) = self.out_of_reach(operation) {
            return sense.into();
        }
        if self.is_in_conflict(nexus, operation) {
            return Verdict::Answer(Answer::Conflict);
        }
        let is_protected = self.mode.write_protect || self.nexus(nexus).is_read_only;
        if is_protected && operation.touch == Touch::Writes && is_of_medium(operation.name) {
            return Sense::new(Key::DataProtect, code::WRITE_PROTECTED).into();
        }
        self.command(nexus, operation.name, cdb).unwrap_or_else(Verdict::from)
    }

    /// There is one unit. Of others only these are answered (SAM-5, 5.11).
    fn elsewhere(&self, cdb: &[u8; 16]) -> Verdict {
        let answer = match Operation::of(cdb).map(|it| it.name) {
            Ok(Name::Inquiry) => self.inquiry(cdb, false).map(|data| cut(data, u32::from(u16_at(cdb, 3)))),
            Ok(Name::ReportLuns) => Self::luns(cdb[2]).map(|data| cut(data, u32_at(cdb, 6))),
            Ok(Name::RequestSense) => {
                Ok(cut(Sense::illegal(code::NO_SUCH_LUN).bytes(cdb[1] & 1 != 0), u32::from(cdb[4])))
            }
            _ => Err(Sense::illegal(code::NO_SUCH_LUN)),
        };
        answer.map_or_else(Verdict::from, |data| Verdict::Answer(Answer::Data(data)))
    }

    fn next_attention(&mut self, nexus: Nexus) -> Option<Sense> {
        let attentions = &mut self.nexuses[nexus.0].as_mut().expect("it joined").attentions;
        (!attentions.is_empty()).then(|| Sense::attention(attentions.remove(0)))
    }

    fn out_of_reach(&self, operation: &Operation) -> Option<Sense> {
        let code = match (self.access(), operation.place) {
            (Access::Active, _) | (_, Where::Everywhere) | (Access::Standby, Where::Standby) => return None,
            (Access::Standby, Where::Active) => code::STANDBY,
            (Access::Transitioning, _) => code::TRANSITIONING,
            (Access::Unavailable, _) => code::UNAVAILABLE,
        };
        Some(Sense::new(Key::NotReady, code))
    }

    fn is_in_conflict(&self, nexus: Nexus, operation: &Operation) -> bool {
        let is_foreign = self.reserved.is_some_and(|holder| holder != nexus);
        let is_free = matches!(
            operation.name,
            Name::Inquiry | Name::ReportLuns | Name::RequestSense | Name::Release6 | Name::PreventAllow
        );
        let by_reserve = is_foreign && !is_free;
        by_reserve || self.reservations.conflict(&self.nexus(nexus).ports, operation.touch)
    }

    fn command(&mut self, nexus: Nexus, name: Name, cdb: &[u8; 16]) -> Result<Verdict, Sense> {
        let data = |data: Vec<u8>, limit: u32| Ok(Verdict::Answer(Answer::Data(cut(data, limit))));
        let good = Ok(Verdict::Answer(Answer::Good));
        match name {
            Name::TestUnitReady | Name::PreventAllow => good,
            Name::StartStopUnit if cdb[4] & 0xf7 == 1 => good,
            // Nothing here spins, and a unit that one initiator stopped would be stopped for all.
            Name::StartStopUnit => Err(Sense::in_cdb(4)),
            Name::RequestSense => {
                let sense = self.next_attention(nexus).unwrap_or(Sense::new(Key::NoSense, code::NOTHING));
                data(sense.bytes(cdb[1] & 1 != 0), u32::from(cdb[4]))
            }
            Name::Inquiry => data(self.inquiry(cdb, true)?, u32::from(u16_at(cdb, 3))),
            Name::ReportLuns => data(Self::luns(cdb[2])?, u32_at(cdb, 6)),
            Name::ReportTargetPortGroups => data(self.port_groups(cdb[1] >> 5)?, u32_at(cdb, 6)),
            Name::ReportOpcodes => data(self.opcodes(cdb)?, u32_at(cdb, 6)),
            Name::ReadCapacity10 => data(self.capacity_10(), u32::MAX),
            Name::ReadCapacity16 => data(self.capacity_16(), u32_at(cdb, 10)),
            Name::ModeSense6 => data(self.mode_sense(cdb, self.nexus(nexus).is_read_only)?, u32::from(cdb[4])),
            Name::ModeSense10 => data(self.mode_sense(cdb, self.nexus(nexus).is_read_only)?, u32::from(u16_at(cdb, 7))),
            Name::ModeSelect6 | Name::ModeSelect10 if cdb[1] & 0x11 != 0x10 => Err(Sense::in_cdb(1)),
            Name::ModeSelect6 => Ok(Verdict::Collect(u32::from(cdb[4]))),
            Name::ModeSelect10 => Ok(Verdict::Collect(u32::from(u16_at(cdb, 7)))),
            Name::ReadKeys => data(self.reservations.keys(), u32::from(u16_at(cdb, 7))),
            Name::ReadReservation => data(self.reservations.reservation(), u32::from(u16_at(cdb, 7))),
            Name::ReportCapabilities => data(self.reservations.capabilities(), u32::from(u16_at(cdb, 7))),
            Name::ReadFullStatus => data(self.reservations.full_status(), u32::from(u16_at(cdb, 7))),
            Name::Register
            | Name::RegisterAndIgnore
            | Name::Reserve
            | Name::Release
            | Name::Clear
            | Name::Preempt
            | Name::PreemptAndAbort => {
                let bytes = u32_at(cdb, 5);
                if bytes != PARAMETER_BYTES {
                    return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
                }
                Ok(Verdict::Collect(bytes))
            }
            Name::Reserve6 | Name::Release6 => Ok(Verdict::Answer(self.reserve_6(nexus, name))),
            Name::ExtendedCopy if u32_at(cdb, 10) == 0 => good,
            Name::ExtendedCopy => Ok(Verdict::Collect(u32_at(cdb, 10).min(MAX_COPY_LIST_BYTES))),
            Name::CopyStatus => data(copy::status(self.nexus(nexus).copied, cdb[2])?, u32_at(cdb, 10)),
            Name::CopyParameters => data(copy::parameters(), u32_at(cdb, 10)),
            Name::Unmap if u16_at(cdb, 7) == 0 => good,
            Name::Unmap => Ok(Verdict::Collect(u32::from(u16_at(cdb, 7)))),
            _ => self.on_blocks(name, cdb),
        }
    }

    /// SPC-2, 7.21 and 7.22; among registrants of persistent reservations as SPC-3, 5.6.3 has it.
    fn reserve_6(&mut self, nexus: Nexus, name: Name) -> Answer {
        if !self.reservations.is_empty() {
            let is_known = self.reservations.is_registered(&self.nexus(nexus).ports);
            return if is_known { Answer::Good } else { Answer::Conflict };
        }
        match (name, self.reserved) {
            (Name::Reserve6, _) => self.reserved = Some(nexus),
            (_, Some(holder)) if holder == nexus => self.reserved = None,
            _ => {}
        }
        Answer::Good
    }

    fn on_blocks(&self, name: Name, cdb: &[u8; 16]) -> Result<Verdict, Sense> {
        let stretch = self.stretch(name, cdb)?;
        let (offset, bytes) = (stretch.offset(), stretch.bytes());
        let is_durable = cdb[1] & 0x08 != 0;
        let compares = cdb[1] >> 1 & 3;
        if matches!(name, Name::GetLbaStatus) {
            return Ok(Verdict::Work(Work::LbaStatus { offset }));
        }
        if matches!(name, Name::SynchronizeCache10 | Name::SynchronizeCache16) {
            return Ok(Verdict::Work(Work::Flush));
        }
        match name {
            Name::Verify10 | Name::Verify12 | Name::Verify16 if compares == 2 => return Err(Sense::in_cdb(1)),
            Name::WriteAndVerify10 | Name::WriteAndVerify12 | Name::WriteAndVerify16 if compares > 1 => {
                return Err(Sense::in_cdb(1));
            }
            Name::WriteSame10 | Name::WriteSame16 => return self.write_same(name, cdb, stretch),
            Name::CompareAndWrite => return Ok(Verdict::CollectExactly(2 * bytes, Sense::in_cdb(13))),
            _ if stretch.blocks == 0 => return Ok(Verdict::Answer(Answer::Good)),
            _ => {}
        }
        Ok(match name {
            Name::Read6 => Verdict::Work(Work::Read { offset, bytes }),
            Name::Read10 | Name::Read12 | Name::Read16 => Verdict::Work(Work::Read { offset, bytes }),
            Name::Write6 => Verdict::Work(Work::Write { offset, bytes, durable: false }),
            Name::Write10 | Name::Write12 | Name::Write16 => {
                Verdict::Work(Work::Write { offset, bytes, durable: is_durable })
            }
            Name::Prefetch10 | Name::Prefetch16 => Verdict::Answer(Answer::Good),
            Name::Verify10 | Name::Verify12 | Name::Verify16 => match compares {
                0 => Verdict::Work(Work::Verify { offset, bytes, against: None }),
                1 => Verdict::Collect(bytes),
                _ => Verdict::Collect(BLOCK),
            },
            _ => Verdict::Collect(bytes),
        })
    }

    /// SBC-3, 5.42 and 5.43.
    fn write_same(&self, name: Name, cdb: &[u8; 16], stretch: Stretch) -> Result<Verdict, Sense> {
        let field = if name == Name::WriteSame10 { 7 } else { 10 };
        if cdb[1] & 0x08 != 0 && !self.is_thin {
            return Err(Sense::in_cdb(1));
        }
        if stretch.blocks == 0 || stretch.blocks > Limits::WRITE_SAME {
            return Err(Sense::in_cdb(field));
        }
        let has_no_data = name == Name::WriteSame16 && cdb[1] & 1 != 0;
        let wrong = Sense::illegal(code::PARAMETER_LIST_LENGTH);
        Ok(if has_no_data { zeroes(stretch, cdb) } else { Verdict::CollectExactly(BLOCK, wrong) })
    }

    /// Where a command goes, if that is within the unit and not too much at once.
    fn stretch(&self, name: Name, cdb: &[u8; 16]) -> Result<Stretch, Sense> {
        let (stretch, field) = match (name, cdb[0] >> 5) {
            (Name::Read6 | Name::Write6, _) => {
                let blocks = if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) };
                (Stretch { lba: u64::from(u24_at(cdb, 1) & 0x1f_ffff), blocks }, 4)
            }
            (Name::CompareAndWrite, _) => (Stretch { lba: u64_at(cdb, 2), blocks: u32::from(cdb[13]) }, 13),
            (Name::GetLbaStatus, _) => (Stretch { lba: u64_at(cdb, 2), blocks: 1 }, 2),
            (_, 1 | 2) => (Stretch { lba: u64::from(u32_at(cdb, 2)), blocks: u32::from(u16_at(cdb, 7)) }, 7),
            (_, 5) => (Stretch { lba: u64::from(u32_at(cdb, 2)), blocks: u32_at(cdb, 6) }, 6),
            _ => (Stretch { lba: u64_at(cdb, 2), blocks: u32_at(cdb, 10) }, 10),
        };
        self.is_within(stretch.lba, stretch.blocks)?;
        let most = match name {
            Name::CompareAndWrite => u32::from(Limits::COMPARE_AND_WRITE),
            Name::WriteSame10 | Name::WriteSame16 => u32::MAX,
            Name::SynchronizeCache10 | Name::SynchronizeCache16 => u32::MAX,
            _ => Limits::TRANSFER,
        };
        if stretch.blocks > most { Err(Sense::in_cdb(field)) } else { Ok(stretch) }
    }

    fn is_within(&self, lba: u64, blocks: u32) -> Result<(), Sense> {
        match lba.checked_add(u64::from(blocks)) {
            Some(end) if end <= self.blocks => Ok(()),
            _ => Err(Sense::illegal(code::LBA_OUT_OF_RANGE)),
        }
    }

    /// The parameters that [`Verdict::Collect`] asked for are here, or as many of them as the initiator meant to send.
    pub(crate) fn collected(&mut self, nexus: Nexus, cdb: &[u8; 16], list: Vec<u8>) -> Verdict {
        let operation = Operation::of(cdb).expect("it was judged before");
        self.with_parameters(nexus, operation.name, cdb, list).unwrap_or_else(Verdict::from)
    }

    fn with_parameters(&mut self, nexus: Nexus, name: Name, cdb: &[u8; 16], list: Vec<u8>) -> Result<Verdict, Sense> {
        match name {
            Name::ModeSelect6 | Name::ModeSelect10 => {
                let mode = self.mode_select(cdb, &list)?;
                if mode != self.mode {
                    self.mode = mode;
                    self.attention(code::MODE_CHANGED, Some(nexus));
                }
                return Ok(Verdict::Answer(Answer::Good));
            }
            Name::Unmap => return self.unmap(&list),
            Name::ExtendedCopy => {
                let (work, copied) = self.extended_copy(&list)?;
                self.nexuses[nexus.0].as_mut().expect("it joined").copied = Some(copied);
                return Ok(work.map_or(Verdict::Answer(Answer::Good), Verdict::Work));
            }
            Name::Register
            | Name::RegisterAndIgnore
            | Name::Reserve
            | Name::Release
            | Name::Clear
            | Name::Preempt
            | Name::PreemptAndAbort => return Ok(self.reserve(nexus, name, cdb[2], &list)),
            _ => {}
        }
        let stretch = self.stretch(name, cdb)?;
        let (offset, bytes) = (stretch.offset(), stretch.bytes());
        let durable = cdb[1] & 0x08 != 0;
        let block = BLOCK as usize;
        // Of an initiator that sends less than its command takes: whole blocks of what there is (SPL and iSCSI leave it to us).
        let whole = list.len() / block * block;
        Ok(Verdict::Work(match name {
            Name::Verify10 | Name::Verify12 | Name::Verify16 => {
                let against = if cdb[1] >> 1 & 3 == 3 { list.repeat(stretch.blocks as usize) } else { list };
                if against.len() < bytes as usize {
                    return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
                }
                Work::Verify { offset, bytes, against: Some(against) }
            }
            Name::CompareAndWrite if list.is_empty() => return Ok(Verdict::Answer(Answer::Good)),
            Name::CompareAndWrite => Work::Modify { offset, how: Modify::CompareAndWrite, data: list, durable },
            Name::OrWrite => Work::Modify { offset, how: Modify::Or, data: shortened(list, whole), durable },
            Name::WriteSame10 | Name::WriteSame16 if list.iter().all(|byte| *byte == 0) => {
                return Ok(zeroes(stretch, cdb));
            }
            Name::WriteSame10 | Name::WriteSame16 => {
                Work::Fill { offset, bytes: u64::from(stretch.blocks) * u64::from(BLOCK), pattern: list }
            }
            _ if whole == 0 => return Ok(Verdict::Answer(Answer::Good)),
            _ => Work::WriteAndVerify { offset, data: shortened(list, whole) },
        }))
    }

    /// SBC-3, 5.28.
    fn unmap(&self, list: &[u8]) -> Result<Verdict, Sense> {
        if list.len() < 8 {
            return Err(Sense::illegal(code::PARAMETER_LIST_LENGTH));
        }
        let announced = usize::from(u16_at(list, 2));
        let descriptors = list[8..][..announced.min(list.len() - 8)].chunks_exact(16);
        if descriptors.len() > Limits::UNMAP_DESCRIPTORS as usize {
            return Err(Sense::in_parameters(2));
        }
        let (mut stretches, mut sum) = (Vec::new(), 0_u64);
        for descriptor in descriptors {
            let (lba, blocks) = (u64_at(descriptor, 0), u32_at(descriptor, 8));
            self.is_within(lba, blocks)?;
            sum += u64::from(blocks);
            let start = lba * u64::from(BLOCK);
            if blocks > 0 {
                stretches.push((start, start + u64::from(blocks) * u64::from(BLOCK)));
            }
        }
        match () {
            () if sum > u64::from(Limits::UNMAP) => Err(Sense::in_parameters(8)),
            () if stretches.is_empty() => Ok(Verdict::Answer(Answer::Good)),
            () => Ok(Verdict::Work(Work::Zeroes { stretches, punch: true })),
        }
    }

    /// A copy of this nexus has failed.
    pub(crate) fn copy_failed(&mut self, nexus: Nexus) {
        let state = self.nexuses[nexus.0].as_mut().expect("it joined");
        state.copied = state.copied.map(|copied| copied.ended(false));
    }

    /// PERSISTENT RESERVE OUT: answered when the control document has it. One at a time.
    fn reserve(&mut self, nexus: Nexus, name: Name, byte2: u8, list: &[u8]) -> Verdict {
        if self.changing.is_some() {
            return Verdict::Answer(Answer::Busy);
        }
        if self.reserved.is_some() {
            return Verdict::Answer(Answer::Conflict);
        }
        match self.reservations.out(name, byte2, list, &self.nexus(nexus).ports) {
            Err(No::Conflict) => Verdict::Answer(Answer::Conflict),
            Err(No::Sense(sense)) => sense.into(),
            Ok(change) if change.next == self.reservations => Verdict::Answer(Answer::Good),
            Ok(change) => {
                let (was, next) = (self.stored.clone(), change.next.encoded());
                self.changing = Some((nexus, change));
                Verdict::Work(Work::Reserve { was, next })
            }
        }
    }

    /// The control document has the change, or not. Whose tasks are to be aborted.
    pub(crate) fn reserved(&mut self, is_stored: bool) -> Vec<Nexus> {
        let Some((by, change)) = self.changing.take().filter(|_| is_stored) else { return Vec::new() };
        self.stored = change.next.encoded();
        self.reservations = change.next;
        let mut aborted = Vec::new();
        for (told, code) in &change.attentions {
            for (place, state) in self.nexuses.iter_mut().enumerate() {
                let Some(state) = state.as_mut().filter(|state| told.is(&state.ports) && by != Nexus(place)) else {
                    continue;
                };
                raise(state, *code);
                if change.aborts && *code == code::REGISTRATIONS_PREEMPTED {
                    aborted.push(Nexus(place));
                }
            }
        }
        aborted
    }
}

fn raise(state: &mut NexusState, code: u16) {
    if !state.attentions.contains(&code) {
        state.attentions.push(code);
    }
}

/// What changes the medium, of what writes.
fn is_of_medium(name: Name) -> bool {
    !matches!(
        name,
        Name::ModeSelect6
            | Name::ModeSelect10
            | Name::StartStopUnit
            | Name::SynchronizeCache10
            | Name::SynchronizeCache16
    )
}

fn zeroes(stretch: Stretch, cdb: &[u8; 16]) -> Verdict {
    let start = stretch.offset();
    let stretches = vec![(start, start + u64::from(stretch.blocks) * u64::from(BLOCK))];
    Verdict::Work(Work::Zeroes { stretches, punch: cdb[1] & 0x08 != 0 })
}

/// No more than the allocation length (SPC-4, 4.2.5.6).
fn cut(data: Vec<u8>, limit: u32) -> Vec<u8> {
    shortened(data, usize::try_from(limit).unwrap_or(usize::MAX))
}

fn shortened(mut data: Vec<u8>, bytes: usize) -> Vec<u8> {
    data.truncate(bytes);
    data
}

impl fmt::Display for Nexus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {}", self.0)
    }
}
