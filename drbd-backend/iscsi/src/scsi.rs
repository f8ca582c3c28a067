//! SCSI: what a logical unit answers to a command (SPC-4, SBC-3, SAM-5).

mod copy;
mod inquiry;
mod mode;
mod operation;
mod report;
mod reservation;
mod sense;
mod unit;

pub use inquiry::{PRODUCT, VENDOR, naa};
pub use sense::{Key, Sense};
pub use unit::{
    Access, BLOCK, Identity, Limits, Modify, Nexus as NexusId, PortGroup, Unit, UnitSettings, Verdict, Work,
};

pub(crate) use sense::code;
pub(crate) use unit::Answer;
