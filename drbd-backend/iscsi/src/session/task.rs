//! One command of an initiator, from its PDU to its response.

use crate::pdu::Header;
use crate::scsi::BLOCK;

/// The command PDU's flags (RFC 7143, section 11.3.1).
const READ: u8 = 0x40;
const WRITE: u8 = 0x20;

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its parameters are coming in.
    Collecting,
    /// Whoever holds the data has it, and will say when it is done.
    Begun,
}

#[derive(Debug)]
pub(super) struct Task {
    pub(super) tag: u32,
    pub(super) lun: u64,
    pub(super) cdb: [u8; 16],
    pub(super) is_immediate: bool,
    /// What the initiator means to transfer, in either direction, in bytes.
    pub(super) expected_in: u32,
    pub(super) expected_out: u32,
    /// What the command transfers by its CDB, in the direction that it has.
    pub(super) asked: u32,
    pub(super) stage: Stage,
    pub(super) out: DataOut,
    pub(super) inwards: DataIn,
    /// Parameters that came.
    pub(super) parameters: Vec<u8>,
    /// Nobody waits for its response any more.
    pub(super) is_aborted: bool,
}

/// Data from the initiator. It comes in order: within a sequence of PDUs, and one sequence after the other.
#[derive(Debug, Default)]
pub(super) struct DataOut {
    /// What is taken of it.
    pub(super) wanted: u32,
    pub(super) got: u32,
    /// More comes unasked.
    pub(super) is_unasked: bool,
    /// Asked for up to here.
    pub(super) asked_to: u32,
    /// Sequences asked for that are not here yet: the transfer tag and the end of each, first the one that comes next.
    pub(super) sequences: std::collections::VecDeque<Sequence>,
    pub(super) r2t_sn: u32,
    /// Of the next PDU in this sequence.
    pub(super) data_sn: u32,
    /// It may be asked for.
    pub(super) is_ready: bool,
    /// Something of it was lost: the rest is passed over.
    pub(super) is_spoilt: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sequence {
    pub(super) tag: u32,
    pub(super) end: u32,
}

/// Data to the initiator.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct DataIn {
    pub(super) bytes: u32,
    pub(super) sent: u32,
    pub(super) data_sn: u32,
    /// Of this sequence.
    pub(super) burst: u32,
}

impl Task {
    pub(super) fn new(header: &Header) -> Self {
        let expected = |flag: u8| if header.flags() & flag != 0 { header.word20() } else { 0 };
        Self {
            tag: header.task(),
            lun: header.lun(),
            cdb: *header.cdb(),
            is_immediate: header.is_immediate(),
            expected_in: expected(READ),
            expected_out: expected(WRITE),
            asked: 0,
            stage: Stage::Collecting,
            out: DataOut::default(),
            inwards: DataIn::default(),
            parameters: Vec::new(),
            is_aborted: false,
        }
    }

    /// Of so many bytes of blocks as many as the initiator sends, in whole blocks.
    pub(super) fn takes_blocks(&self, bytes: u32) -> u32 {
        bytes.min(self.expected_out) / BLOCK * BLOCK
    }

    pub(super) fn takes(&self, bytes: u32) -> u32 {
        bytes.min(self.expected_out)
    }

    /// Flags and count of the residual (section 11.4.5): the CDB asked for more than the initiator expects, or for less.
    pub(super) fn residual(&self, asked: u32) -> (u8, u32) {
        const OVERFLOW: u8 = 0x04;
        const UNDERFLOW: u8 = 0x02;
        let expected = self.expected_in.max(self.expected_out);
        match asked.cmp(&expected) {
            std::cmp::Ordering::Greater => (OVERFLOW, asked - expected),
            std::cmp::Ordering::Less => (UNDERFLOW, expected - asked),
            std::cmp::Ordering::Equal => (0, 0),
        }
    }
}

impl DataOut {
    pub(super) fn is_whole(&self) -> bool {
        self.got >= self.wanted
    }
}
