//! One node's bitmap as it lies on disk: a directory of sections, and the pages of those that are neither clean nor wholly marked.
//!
//! ```text
//!   directory   era 7:   clean │ stored │ clean │ all │ clean ...      two bits a section, in one page
//!                                  │
//!                                  └─▶ pages of era 7, 31 extents each, every extent 16 words
//! ```
//! Its pages are kept in memory, since a write of a few extents writes whole pages.

use std::collections::{BTreeMap, BTreeSet};

use super::page::{HEAD, PAGE_BYTES, Piece, Stamp, seal};
use super::writes::Writes;
use super::{Layout, MAX_SECTIONS, PAGE_EXTENTS};
use crate::bits::{Bits, Words};
use crate::names::{Extent, Node};

/// In a page of the bitmap the extents begin here.
const EXTENTS_AT: usize = 128;

const NO: Words = [0; 16];

#[derive(Debug)]
pub(super) struct Bitmap {
    node: Node,
    /// Of the newest directory on disk; `None` if neither copy could be read.
    sequence: Option<u64>,
    era: u64,
    /// What is not here is clean. `None`: what is on disk is not known, or not all of it can be read.
    sections: Option<BTreeMap<u32, Section>>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Every block is marked.
    All,
    Stored(Vec<Page>),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) sequence: u64,
    pub(super) words: Box<[Words; PAGE_EXTENTS as usize]>,
}

/// What a directory says of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Clean,
    Stored,
    All,
}

impl Bitmap {
    /// Of a new replica, whose directory has been written with the sequence number 0.
    pub(super) fn empty(node: Node) -> Self {
        Self { node, sequence: Some(0), era: 0, sections: Some(BTreeMap::new()) }
    }

    pub(super) fn found(node: Node, directory: Option<Stamp>, sections: Option<BTreeMap<u32, Section>>) -> Self {
        let (sequence, era) = (directory.map(|stamp| stamp.sequence), directory.map_or(0, |stamp| stamp.era));
        Self { node, sequence, era, sections }
    }

    /// The bits of these extents; all others stay.
    pub(super) fn write(&mut self, layout: &Layout, bits: &Bits, extents: &[Extent], era: u64, writes: &mut Writes) {
        let mut changed_sections = false;
        if self.sections.is_none() {
            // Nobody may take what is not known for clean.
            self.sections = Some((0..layout.sections()).map(|section| (section, Section::All)).collect());
            self.era = era;
            changed_sections = true;
        }
        let sections = self.sections.as_mut().expect("it is there now");
        let extents = extents.iter().filter(|extent| extent.0 < layout.extents);
        let pages: BTreeSet<u32> = extents.clone().map(|extent| extent.0 / PAGE_EXTENTS).collect();
        let mut dirty = BTreeSet::new();
        for page in pages {
            let (section, range) = (page / layout.section_pages, layout.extents_of(page));
            let mut words = words_of(layout, sections.get(&section), page);
            let before = words.clone();
            for extent in extents.clone().filter(|extent| range.contains(&extent.0)) {
                words[(extent.0 - range.start) as usize] = masked(layout, bits, *extent);
            }
            if words == before {
                continue;
            }
            let stored = match sections.get_mut(&section) {
                Some(Section::Stored(pages)) => pages,
                was => {
                    let pages = unfold(layout, was.as_deref(), section);
                    dirty.extend(layout.pages_of(section));
                    changed_sections = true;
                    stored_at(sections, section, pages)
                }
            };
            let place = &mut stored[(page - layout.pages_of(section).start) as usize];
            place.words = words;
            // A page that comes into use is written with its first number.
            place.sequence += u64::from(dirty.insert(page));
        }
        self.push_pages(layout, &dirty, writes);
        if changed_sections {
            self.push_directory(layout, writes);
        }
    }

    /// These bits in place of all that was there.
    pub(super) fn replace(&mut self, layout: &Layout, bits: &Bits, era: u64, writes: &mut Writes) {
        let was = self.sections.replace(BTreeMap::new()).unwrap_or_default();
        let sections = self.sections.as_mut().expect("it is there now");
        let mut marked: Vec<Extent> = bits.extents().map(|(extent, _)| extent).collect();
        marked.retain(|extent| extent.0 < layout.extents);
        let section_of = |extent: &Extent| extent.0 / PAGE_EXTENTS / layout.section_pages;
        for extents in marked.chunk_by(|a, b| section_of(a) == section_of(b)) {
            let number = section_of(&extents[0]);
            let is_all = layout.pages_of(number).flat_map(|page| layout.extents_of(page)).count() == extents.len()
                && extents.iter().all(|extent| masked(layout, bits, *extent) == layout.whole(*extent));
            let section = if is_all { Section::All } else { section_of_bits(layout, bits, number, was.get(&number)) };
            sections.insert(number, section);
        }
        self.era = era;
        let stored = |(number, section): (&u32, &Section)| matches!(section, Section::Stored(_)).then_some(*number);
        let dirty =
            self.sections.iter().flatten().filter_map(stored).flat_map(|number| layout.pages_of(number)).collect();
        self.push_pages(layout, &dirty, writes);
        self.push_directory(layout, writes);
    }

    fn push_pages(&self, layout: &Layout, pages: &BTreeSet<u32>, writes: &mut Writes) {
        // In the order of the copies, so that pages that lie side by side become one write.
        for copy in [0, 1] {
            for number in pages {
                let section = number / layout.section_pages;
                let Some(Section::Stored(stored)) = self.sections.as_ref().and_then(|all| all.get(&section)) else {
                    continue;
                };
                let page = &stored[(number - layout.pages_of(section).start) as usize];
                if page.sequence % 2 == copy {
                    self.push_page(layout, *number, page, writes);
                }
            }
        }
    }

    fn push_page(&self, layout: &Layout, number: u32, page: &Page, writes: &mut Writes) {
        let piece = Piece::Bitmap(self.node, number);
        let stamp = Stamp { sequence: page.sequence, era: self.era };
        writes.push(layout.place(piece, page.sequence), |out| {
            seal(layout.volume, piece, stamp, out, |out| {
                out.extend([0; EXTENTS_AT - HEAD]);
                page.words.as_flattened().iter().for_each(|word| out.extend(word.to_be_bytes()));
            });
        });
    }

    /// After the pages are durable.
    fn push_directory(&mut self, layout: &Layout, writes: &mut Writes) {
        writes.step();
        match self.sequence {
            Some(sequence) => self.push_directory_as(layout, sequence + 1, writes),
            // A copy that could not be read may be readable, and the newer one, next time: both are written.
            None => {
                self.push_directory_as(layout, 0, writes);
                self.push_directory_as(layout, 1, writes);
            }
        }
    }

    pub(super) fn push_directory_as(&mut self, layout: &Layout, sequence: u64, writes: &mut Writes) {
        self.sequence = Some(sequence);
        let (piece, stamp) = (Piece::Directory(self.node), Stamp { sequence, era: self.era });
        let mut entries = [0_u8; PAGE_BYTES - HEAD];
        for (number, section) in self.sections.iter().flatten() {
            let entry = match section {
                Section::Stored(_) => 1,
                Section::All => 2,
            };
            entries[(number / 4) as usize] |= entry << (2 * (number % 4));
        }
        writes.push(layout.place(piece, sequence), |out| {
            seal(layout.volume, piece, stamp, out, |out| out.extend_from_slice(&entries));
        });
    }

    /// What is on disk; `None` if that is not known.
    pub(super) fn bits(&self, layout: &Layout) -> Option<Bits> {
        let mut bits = Bits::default();
        for (number, section) in self.sections.as_ref()? {
            for page in layout.pages_of(*number) {
                let words = words_of(layout, Some(section), page);
                for (extent, words) in layout.extents_of(page).zip(words.iter()) {
                    bits.set_words(Extent(extent), words);
                }
            }
        }
        Some(bits)
    }
}

fn masked(layout: &Layout, bits: &Bits, extent: Extent) -> Words {
    let (words, whole) = (bits.words(extent), layout.whole(extent));
    core::array::from_fn(|index| words[index] & whole[index])
}

fn words_of(layout: &Layout, section: Option<&Section>, page: u32) -> Box<[Words; PAGE_EXTENTS as usize]> {
    let mut words = Box::new([NO; PAGE_EXTENTS as usize]);
    match section {
        None => {}
        Some(Section::All) => {
            for (words, extent) in words.iter_mut().zip(layout.extents_of(page)) {
                *words = layout.whole(Extent(extent));
            }
        }
        Some(Section::Stored(pages)) => {
            let first = layout.pages_of(page / layout.section_pages).start;
            words.clone_from(&pages[(page - first) as usize].words);
        }
    }
    words
}

/// A section that was clean or wholly marked gets pages.
fn unfold(layout: &Layout, was: Option<&Section>, section: u32) -> Vec<Page> {
    layout.pages_of(section).map(|page| Page { sequence: 0, words: words_of(layout, was, page) }).collect()
}

fn stored_at(sections: &mut BTreeMap<u32, Section>, number: u32, pages: Vec<Page>) -> &mut Vec<Page> {
    sections.insert(number, Section::Stored(pages));
    match sections.get_mut(&number) {
        Some(Section::Stored(pages)) => pages,
        Some(Section::All) | None => unreachable!("it was just put there"),
    }
}

/// A section of a new era. Its pages do not land on those of the old one, which hold until the directory is durable.
fn section_of_bits(layout: &Layout, bits: &Bits, section: u32, was: Option<&Section>) -> Section {
    let sequence = |index: usize| match was {
        Some(Section::Stored(pages)) => pages[index].sequence + 1,
        Some(Section::All) | None => 0,
    };
    let page = |(index, number): (usize, u32)| {
        let mut words = Box::new([NO; PAGE_EXTENTS as usize]);
        for (words, extent) in words.iter_mut().zip(layout.extents_of(number)) {
            *words = masked(layout, bits, Extent(extent));
        }
        Page { sequence: sequence(index), words }
    };
    Section::Stored(layout.pages_of(section).enumerate().map(page).collect())
}

/// What follows the head of a directory. `None` if it makes no sense.
pub(super) fn decode_directory(layout: &Layout, body: &[u8]) -> Option<Vec<(u32, Entry)>> {
    let entry = |section: u32| match (body.get((section / 4) as usize)? >> (2 * (section % 4))) & 3 {
        0 => Some((section, Entry::Clean)),
        1 => Some((section, Entry::Stored)),
        2 => Some((section, Entry::All)),
        _ => None,
    };
    let entries = (0..MAX_SECTIONS).map(entry).collect::<Option<Vec<_>>>()?;
    let (used, beyond) = entries.split_at(layout.sections() as usize);
    let is_sound = beyond.iter().all(|(_, entry)| *entry == Entry::Clean);
    is_sound.then(|| used.iter().filter(|(_, entry)| *entry != Entry::Clean).copied().collect())
}

/// What follows the head of a page of a bitmap.
pub(super) fn decode_page(body: &[u8]) -> Box<[Words; PAGE_EXTENTS as usize]> {
    let mut words = Box::new([NO; PAGE_EXTENTS as usize]);
    let (eights, _) = body[EXTENTS_AT - HEAD..].as_chunks::<8>();
    for (word, eight) in words.as_flattened_mut().iter_mut().zip(eights) {
        *word = u64::from_be_bytes(*eight);
    }
    words
}
