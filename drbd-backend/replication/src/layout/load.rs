//! What a start makes of the metadata that it finds.
//!
//! ```text
//! (the first 640 KiB) ── begin ──▶ Loading ◀─┐ wants a range of a bitmap
//!                                     │  └───┘ read
//!                                     └─ finish ──▶ Found, Pages
//! ```

use core::fmt;
use core::ops::Range;
use std::collections::BTreeMap;
use std::collections::VecDeque;

use super::bitmap::{Bitmap, Entry, Page, Section, decode_directory, decode_page};
use super::page::{FORMAT_VERSION, Found as Copy, PAGE_BYTES, Piece, Stamp, Whole, inspect};
use super::{HEAD_BYTES, Layout, MIB, PAGE, Pages, superblock};
use crate::codec::decode_control;
use crate::event::Found;
use crate::names::{MAX_NODES, Node, VolumeId};

/// Why this metadata cannot be used. The replica is not started, and nothing of it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unusable {
    NotOurs,
    AnotherVolume {
        wanted: VolumeId,
        found: VolumeId,
    },
    /// Written by a later release.
    Newer {
        found: u16,
    },
    /// Neither copy is whole.
    Torn(Piece),
    /// Whole, and yet it says what cannot be.
    Nonsense(Piece),
    /// In blocks. The data file is not the one that this metadata belongs to, or was cut.
    Size {
        wanted: u64,
        found: u64,
    },
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let anew = "`tandem volume resync VOLUME --node NODE` makes the replica anew from its peers";
        match self {
            Self::NotOurs => write!(f, "the file holds no metadata of Tandem: {anew}"),
            Self::AnotherVolume { wanted, found } => {
                write!(f, "the metadata is that of volume {found} and not of {wanted}: files were swapped; {anew}")
            }
            Self::Newer { found } => {
                write!(
                    f,
                    "the metadata has format {found}, and this release knows {FORMAT_VERSION}: run the release that wrote it, or a later one"
                )
            }
            Self::Torn(piece) => write!(f, "neither copy of {piece} is whole: {anew}"),
            Self::Nonsense(piece) => write!(f, "{piece} says what cannot be: {anew}"),
            Self::Size { wanted, found } => {
                write!(
                    f,
                    "the metadata is of a volume of {found} blocks, and the data file has {wanted}: it was cut or is another's; {anew}"
                )
            }
        }
    }
}

impl core::error::Error for Unusable {}

/// Whose metadata a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identity {
    pub volume: VolumeId,
    pub node: Node,
    pub size_blocks: u64,
}

/// Tells from the first 8 KiB of a file whose metadata it is.
///
/// # Errors
/// Nobody's that we know.
pub fn identify(start: &[u8; 2 * PAGE_BYTES]) -> Result<Identity, Unusable> {
    let whole = newest(Piece::Superblock, [&start[..PAGE_BYTES], &start[PAGE_BYTES..]], None)?;
    let found = superblock::decode(whole.volume, whole.body).ok_or(Unusable::Nonsense(Piece::Superblock))?;
    Ok(Identity { volume: found.volume, node: found.node, size_blocks: found.size_blocks })
}

/// A start that reads bitmaps.
#[derive(Debug)]
pub struct Loading {
    layout: Layout,
    found: Found,
    newest: [u64; 3],
    directories: [Option<Directory>; MAX_NODES],
    /// What is still to be read, each at most a MiB.
    wanted: VecDeque<Wanted>,
    salt: u64,
}

#[derive(Debug)]
struct Directory {
    stamp: Stamp,
    entries: Vec<(u32, Entry)>,
    /// The newest copy of each page read so far.
    pages: BTreeMap<u32, Page>,
}

/// One copy of pages in a row.
#[derive(Debug)]
struct Wanted {
    node: Node,
    copy: u64,
    pages: Range<u32>,
}

impl Loading {
    /// `head` is the first [`HEAD_BYTES`] of the file; what cannot be read of it is given as zeros. `salt` is random, and another one at every
    /// start.
    ///
    /// # Errors
    /// The replica cannot be started.
    ///
    /// # Panics
    /// If `head` has another length.
    pub fn begin(layout: Layout, head: &[u8], salt: u64) -> Result<Self, Unusable> {
        assert_eq!(head.len(), HEAD_BYTES, "the head is read as a whole");
        let volume = Some(layout.volume);
        let here = |piece: Piece, range: Range<u64>| newest(piece, copies(head, &range), volume);

        let first = here(Piece::Superblock, layout.superblock())?;
        let superblock = superblock::decode(layout.volume, first.body).ok_or(Unusable::Nonsense(Piece::Superblock))?;
        if superblock.size_blocks != layout.size_blocks {
            return Err(Unusable::Size { wanted: layout.size_blocks, found: superblock.size_blocks });
        }
        let log = here(Piece::Activity, layout.activity()).map_err(|unusable| torn(unusable, Piece::Activity))?;
        let activity = superblock::decode_activity(&layout, log.body).ok_or(Unusable::Nonsense(Piece::Activity))?;
        let document = here(Piece::Control, layout.control()).map_err(|unusable| torn(unusable, Piece::Control))?;
        let control = decode_control(document.body).ok_or(Unusable::Nonsense(Piece::Control))?;

        let directories = core::array::from_fn(|place| {
            let node = Node::all().nth(place).expect("there are eight");
            let whole = here(Piece::Directory(node), layout.directory(node)).ok()?;
            let entries = decode_directory(&layout, whole.body)?;
            Some(Directory { stamp: whole.stamp, entries, pages: BTreeMap::new() })
        });
        let newest = [first, log, document].map(|whole| whole.stamp.sequence);
        let found = Found { superblock, activity, bitmaps: Vec::new(), control };
        let mut loading = Self { layout, found, newest, directories, wanted: VecDeque::new(), salt };
        loading.want_pages();
        Ok(loading)
    }

    /// Of absent members only: nobody asks for another's marks.
    fn want_pages(&mut self) {
        let most = u32::try_from(MIB / PAGE).expect("they are 256");
        for node in Node::all().filter(|node| self.found.superblock.absent[node.index()].is_some()) {
            let Some(directory) = &self.directories[node.index()] else { continue };
            for pages in runs(&self.layout, &directory.entries) {
                for start in pages.clone().step_by(most as usize) {
                    let pages = start..(start + most).min(pages.end);
                    self.wanted.extend([0, 1].map(|copy| Wanted { node, copy, pages: pages.clone() }));
                }
            }
        }
    }

    /// What is to be read next: at most 1 MiB, whole pages.
    #[must_use]
    pub fn wants(&self) -> Option<Range<u64>> {
        let Wanted { node, copy, pages } = self.wanted.front()?;
        let start = self.layout.place(Piece::Bitmap(*node, pages.start), *copy);
        Some(start..start + PAGE * pages.len() as u64)
    }

    /// What was read where it [`wants`](Self::wants) to; what cannot be read is given as zeros.
    ///
    /// # Panics
    /// If it has another length.
    pub fn read(&mut self, bytes: &[u8]) {
        let Some(Wanted { node, copy, pages }) = self.wanted.pop_front() else { return };
        assert_eq!(bytes.len(), PAGE_BYTES * pages.len(), "the range is read as a whole");
        let Some(directory) = &mut self.directories[node.index()] else { return };
        for (number, bytes) in pages.zip(bytes.chunks_exact(PAGE_BYTES)) {
            let Copy::Whole(whole) = inspect(Piece::Bitmap(node, number), copy, bytes) else { continue };
            let is_of_now = whole.volume == self.layout.volume && whole.stamp.era == directory.stamp.era;
            let before = directory.pages.get(&number).map(|page| page.sequence);
            if is_of_now && before.is_none_or(|before| before < whole.stamp.sequence) {
                let page = Page { sequence: whole.stamp.sequence, words: decode_page(whole.body) };
                directory.pages.insert(number, page);
            }
        }
    }

    /// Once it wants nothing more. A bitmap that could not be read wholly is missing in [`Found`].
    ///
    /// # Panics
    /// If it still wants something.
    #[must_use]
    pub fn finish(mut self) -> (Found, Pages) {
        assert!(self.wanted.is_empty(), "something was not read");
        let layout = self.layout;
        let absent = self.found.superblock.absent;
        let bitmaps = Node::all().map(|node| {
            let directory = self.directories[node.index()].take();
            let stamp = directory.as_ref().map(|directory| directory.stamp);
            let sections = directory.filter(|_| absent[node.index()].is_some()).and_then(|it| it.sections(&layout));
            Bitmap::found(node, stamp, sections)
        });
        let bitmaps: Vec<Bitmap> = bitmaps.collect();
        let read = Node::all().zip(&bitmaps).filter_map(|(node, bitmap)| Some((node, bitmap.bits(&layout)?)));
        self.found.bitmaps = read.collect();
        let bitmaps = bitmaps.try_into().expect("there are eight");
        (self.found, Pages::found(layout, self.newest, bitmaps, self.salt))
    }
}

impl Directory {
    /// `None` if a page of it is missing.
    fn sections(mut self, layout: &Layout) -> Option<BTreeMap<u32, Section>> {
        let section = |(number, entry)| {
            let section = match entry {
                Entry::Clean => return None,
                Entry::All => Some(Section::All),
                Entry::Stored => {
                    let pages = layout.pages_of(number).map(|page| self.pages.remove(&page));
                    pages.collect::<Option<Vec<_>>>().map(Section::Stored)
                }
            };
            Some(section.map(|section| (number, section)))
        };
        self.entries.into_iter().filter_map(section).collect()
    }
}

/// The pages of stored sections, those in a row together.
fn runs(layout: &Layout, entries: &[(u32, Entry)]) -> Vec<Range<u32>> {
    let mut runs: Vec<Range<u32>> = Vec::new();
    for (section, _) in entries.iter().filter(|(_, entry)| *entry == Entry::Stored) {
        let pages = layout.pages_of(*section);
        match runs.last_mut() {
            Some(last) if last.end == pages.start => last.end = pages.end,
            _ => runs.push(pages),
        }
    }
    runs
}

/// The two copies that lie in this range of the head.
fn copies<'a>(head: &'a [u8], range: &Range<u64>) -> [&'a [u8]; 2] {
    let [start, end] = [range.start, range.end].map(|at| usize::try_from(at).expect("the head has 640 KiB"));
    head[start..end].split_at((end - start) / 2).into()
}

/// The newer of the copies that are whole. One of a later version is never passed over for an older one that we know.
fn newest<'a>(piece: Piece, copies: [&'a [u8]; 2], volume: Option<VolumeId>) -> Result<Whole<'a>, Unusable> {
    let [a, b] = copies;
    let copies = [inspect(piece, 0, a), inspect(piece, 1, b)];
    let later = copies.iter().find_map(|copy| match copy {
        Copy::Later(found) => Some(Unusable::Newer { found: *found }),
        Copy::Whole(_) | Copy::Torn | Copy::Foreign => None,
    });
    let whole = copies.iter().filter_map(|copy| match copy {
        Copy::Whole(whole) => Some(*whole),
        Copy::Later(_) | Copy::Torn | Copy::Foreign => None,
    });
    let ours = whole.clone().filter(|whole| volume.is_none_or(|volume| volume == whole.volume));
    let newest = ours.max_by_key(|whole| whole.stamp.sequence);
    let anothers = whole.clone().next().zip(volume);
    match (later, newest, anothers) {
        (Some(later), _, _) => Err(later),
        (None, Some(newest), _) => Ok(newest),
        (None, None, Some((whole, wanted))) => Err(Unusable::AnotherVolume { wanted, found: whole.volume }),
        (None, None, None) if copies == [Copy::Foreign; 2] => Err(Unusable::NotOurs),
        (None, None, None) => Err(Unusable::Torn(piece)),
    }
}

/// Behind a superblock of ours nothing is a stranger's.
fn torn(unusable: Unusable, piece: Piece) -> Unusable {
    match unusable {
        Unusable::NotOurs => Unusable::Torn(piece),
        other => other,
    }
}
