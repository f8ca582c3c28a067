//! What is the same on the wire and on disk, as bytes: the record and the control document.
//!
//! Numbers are big-endian, UUIDs stand in the order in which they are written. There is one form of each thing: whatever is decoded encodes to the
//! same bytes again, and anything else is refused.

mod control;
mod reader;
mod record;

pub use control::{MAX_CONTROL_BYTES, control_bytes};
pub(crate) use control::{decode_control, encode_control};
pub(crate) use reader::{MAX_BLOCKS, Reader, span};
pub use record::{BadRecord, RECORD_BYTES, RECORD_VERSION, decode_record, encode_record};
