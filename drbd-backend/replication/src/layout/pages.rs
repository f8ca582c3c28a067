//! Which copy of every piece is the older one, and the bytes of the next write to it.

use core::fmt;

use super::bitmap::Bitmap;
use super::page::{Piece, Stamp, seal};
use super::{Layout, MAX_ACTIVITY, Writes, superblock};
use crate::codec::{MAX_CONTROL_BYTES, control_bytes, encode_control};
use crate::control::Control;
use crate::metadata::{Metadata, Superblock};
use crate::names::{Extent, MAX_NODES, Node};

/// The state of the metadata of one replica, for one life of the process.
///
/// Two changes of one piece must not be under way together: each takes the other's older copy for granted. After a write that failed, the next one of
/// the same piece may land on the last copy that is whole; a disk that failed a write of metadata is done with.
#[derive(Debug)]
pub struct Pages {
    layout: Layout,
    superblock: u64,
    activity: u64,
    control: u64,
    bitmaps: [Bitmap; MAX_NODES],
    eras: Eras,
}

/// Eras that were never there before, in this life or another: they count up from a random number.
#[derive(Debug)]
struct Eras(u64);

impl Eras {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        self.0
    }
}

/// A change that no replica has room for. Nothing is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TooLarge {
    Activity {
        extents: usize,
    },
    /// The volume ends before it.
    Extent(Extent),
    /// `None`: a name in it has more than 65535 bytes.
    Control {
        bytes: Option<usize>,
    },
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Activity { extents } => {
                write!(f, "the activity log has room for {MAX_ACTIVITY} extents, and these are {extents}")
            }
            Self::Extent(extent) => write!(f, "extent {} lies beyond the end of the volume", extent.0),
            Self::Control { bytes: Some(bytes) } => {
                write!(f, "the control document has room for {MAX_CONTROL_BYTES} bytes, and these are {bytes}")
            }
            Self::Control { bytes: None } => f.write_str("a name in the control document has more than 65535 bytes"),
        }
    }
}

impl core::error::Error for TooLarge {}

impl Layout {
    /// Makes a new file of zeros, [`file_bytes`](Self::file_bytes) long, the metadata of a replica: this superblock, an empty activity log and
    /// control document, no marks. `salt` is random, and another one at every start.
    ///
    /// # Panics
    /// If the superblock is of another volume, or another size.
    #[must_use]
    pub fn format(&self, new: &Superblock, salt: u64, writes: &mut Writes) -> Pages {
        let bitmaps = Node::all().map(Bitmap::empty).collect::<Vec<_>>().try_into().expect("there are eight");
        let mut pages = Pages { layout: *self, superblock: 0, activity: 0, control: 0, bitmaps, eras: Eras(salt) };
        writes.clear();
        pages.push_superblock(new, 0, writes);
        pages.push_activity(&[], 0, writes);
        for bitmap in &mut pages.bitmaps {
            bitmap.push_directory_as(self, 0, writes);
        }
        pages.push_control(&Control::default(), 0, writes).expect("an empty document fits");
        pages
    }
}

impl Pages {
    /// As found: the sequence number of the newest copy of each.
    pub(super) fn found(layout: Layout, newest: [u64; 3], bitmaps: [Bitmap; MAX_NODES], salt: u64) -> Self {
        let [superblock, activity, control] = newest;
        Self { layout, superblock, activity, control, bitmaps, eras: Eras(salt) }
    }

    /// What the shell has to write so that this is durable; see [`Writes`]. `writes` is emptied before.
    ///
    /// # Errors
    /// There is no room for so much, and nothing is changed.
    ///
    /// # Panics
    /// If the superblock is of another volume, or another size.
    pub fn write(&mut self, what: &Metadata, writes: &mut Writes) -> Result<(), TooLarge> {
        writes.clear();
        let layout = self.layout;
        match what {
            Metadata::Superblock(superblock) => self.push_superblock(superblock, self.superblock + 1, writes),
            Metadata::Activity(extents) => {
                fits(&layout, extents)?;
                self.push_activity(extents, self.activity + 1, writes);
            }
            Metadata::Bitmap { node, bits, extents } => {
                let era = self.eras.next();
                self.bitmaps[node.index()].write(&layout, bits, extents, era, writes);
            }
            Metadata::WholeBitmap { node, bits } => {
                let era = self.eras.next();
                self.bitmaps[node.index()].replace(&layout, bits, era, writes);
            }
            Metadata::Control(control) => self.push_control(control, self.control + 1, writes)?,
        }
        Ok(())
    }

    fn push_superblock(&mut self, superblock: &Superblock, sequence: u64, writes: &mut Writes) {
        assert_eq!(superblock.volume, self.layout.volume, "the superblock of another volume");
        assert_eq!(superblock.size_blocks, self.layout.size_blocks, "the superblock of a volume of another size");
        self.superblock = sequence;
        self.push(Piece::Superblock, sequence, writes, |out| superblock::encode(superblock, out));
    }

    fn push_activity(&mut self, extents: &[Extent], sequence: u64, writes: &mut Writes) {
        self.activity = sequence;
        self.push(Piece::Activity, sequence, writes, |out| superblock::encode_activity(extents, out));
    }

    fn push_control(&mut self, control: &Control, sequence: u64, writes: &mut Writes) -> Result<(), TooLarge> {
        let bytes = control_bytes(control);
        if bytes.is_none_or(|bytes| bytes > MAX_CONTROL_BYTES) {
            return Err(TooLarge::Control { bytes });
        }
        self.control = sequence;
        self.push(Piece::Control, sequence, writes, |out| {
            encode_control(control, out).expect("its length was looked at")
        });
        Ok(())
    }

    fn push(&self, piece: Piece, sequence: u64, writes: &mut Writes, fill: impl FnOnce(&mut Vec<u8>)) {
        let stamp = Stamp { sequence, era: 0 };
        writes.push(self.layout.place(piece, sequence), |out| seal(self.layout.volume, piece, stamp, out, fill));
    }
}

/// What does not fit would make the whole log unusable at the next start.
fn fits(layout: &Layout, extents: &[Extent]) -> Result<(), TooLarge> {
    if extents.len() > MAX_ACTIVITY {
        return Err(TooLarge::Activity { extents: extents.len() });
    }
    let beyond = extents.iter().find(|extent| extent.0 >= layout.extents);
    beyond.map_or(Ok(()), |extent| Err(TooLarge::Extent(*extent)))
}
