//! Which blocks of a volume are marked: sparse, by extent.

use std::collections::BTreeMap;

use crate::names::{EXTENT_BLOCKS, Extent, Span};

/// The marks of one extent, a bit a block.
pub type Words = [u64; 16];

/// A set of blocks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bits {
    extents: BTreeMap<Extent, Words>,
    count: u64,
}

impl Bits {
    /// Every block of a volume of this size.
    #[must_use]
    pub fn all(size_blocks: u64) -> Self {
        let mut bits = Self::default();
        let mut start = 0;
        while start < size_blocks {
            let count = (size_blocks - start).min(EXTENT_BLOCKS);
            bits.set(Span::new(start, u32::try_from(count).expect("at most an extent")));
            start += count;
        }
        bits
    }

    /// Forgets what lies beyond the end of a volume of this size.
    pub(crate) fn cut(&mut self, size_blocks: u64) {
        while let Some((extent, _)) = self.extents.last_key_value() {
            let whole = extent.span();
            if whole.end() <= size_blocks {
                break;
            }
            let start = whole.start.max(size_blocks);
            self.clear(Span::new(start, u32::try_from(whole.end() - start).expect("at most an extent")));
            if start > whole.start {
                break;
            }
        }
    }

    /// How many blocks are marked.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn set(&mut self, span: Span) {
        for (extent, mask) in masks(span) {
            let words = self.extents.entry(extent).or_insert([0; 16]);
            self.count += change(words, &mask, |word, mask| word | mask).0;
        }
    }

    pub fn clear(&mut self, span: Span) {
        for (extent, mask) in masks(span) {
            let Some(words) = self.extents.get_mut(&extent) else { continue };
            self.count -= change(words, &mask, |word, mask| word & !mask).1;
            if *words == [0; 16] {
                self.extents.remove(&extent);
            }
        }
    }

    pub fn set_words(&mut self, extent: Extent, mask: &Words) {
        if *mask != [0; 16] {
            let words = self.extents.entry(extent).or_insert([0; 16]);
            self.count += change(words, mask, |word, mask| word | mask).0;
        }
    }

    /// In place of what was marked there.
    pub fn replace_words(&mut self, extent: Extent, words: &Words) {
        self.clear(extent.span());
        self.set_words(extent, words);
    }

    pub fn set_all(&mut self, other: &Self) {
        other.extents.iter().for_each(|(extent, words)| self.set_words(*extent, words));
    }

    pub fn clear_all(&mut self, other: &Self) {
        for (extent, mask) in &other.extents {
            let Some(words) = self.extents.get_mut(extent) else { continue };
            self.count -= change(words, mask, |word, mask| word & !mask).1;
            if *words == [0; 16] {
                self.extents.remove(extent);
            }
        }
    }

    /// Whether any block of it is marked.
    #[must_use]
    pub fn any(&self, span: Span) -> bool {
        masks(span).any(|(extent, mask)| {
            self.extents.get(&extent).is_some_and(|words| words.iter().zip(mask).any(|(word, mask)| word & mask != 0))
        })
    }

    #[must_use]
    pub fn words(&self, extent: Extent) -> Words {
        self.extents.get(&extent).copied().unwrap_or([0; 16])
    }

    pub fn extents(&self) -> impl Iterator<Item = (Extent, &Words)> {
        self.extents.iter().map(|(extent, words)| (*extent, words))
    }

    /// The first run of marked blocks at or after `from`, at most `longest` blocks, within one extent.
    #[must_use]
    pub fn run(&self, from: u64, longest: u32) -> Option<Span> {
        let first = Extent(u32::try_from(from / EXTENT_BLOCKS).ok()?);
        self.extents.range(first..).find_map(|(extent, words)| {
            let base = extent.span().start;
            let marked = |block: &u64| words[word_of(*block)] & bit_of(*block) != 0;
            let start = (from.max(base)..base + EXTENT_BLOCKS).find(marked)?;
            let end = (start..base + EXTENT_BLOCKS).take(longest as usize).take_while(marked).last()? + 1;
            Some(Span::new(start, u32::try_from(end - start).expect("at most an extent")))
        })
    }
}

fn word_of(block: u64) -> usize {
    usize::try_from(block % EXTENT_BLOCKS / 64).expect("below 16")
}

fn bit_of(block: u64) -> u64 {
    1 << (block % 64)
}

/// The extents that a span touches, with its bits in each.
fn masks(span: Span) -> impl Iterator<Item = (Extent, Words)> {
    span.extents().map(move |extent| {
        let whole = extent.span();
        let (start, end) = (span.start.max(whole.start) - whole.start, span.end().min(whole.end()) - whole.start);
        let mut mask = [0; 16];
        for (index, word) in mask.iter_mut().enumerate() {
            let base = 64 * index as u64;
            let (low, high) = (start.clamp(base, base + 64) - base, end.clamp(base, base + 64) - base);
            if low < high {
                *word = (u64::MAX >> (64 - (high - low))) << low;
            }
        }
        (extent, mask)
    })
}

/// How many bits came and went.
fn change(words: &mut Words, mask: &Words, with: impl Fn(u64, u64) -> u64) -> (u64, u64) {
    let mut counts = (0, 0);
    for (word, mask) in words.iter_mut().zip(mask) {
        let new = with(*word, *mask);
        counts.0 += u64::from((new & !*word).count_ones());
        counts.1 += u64::from((*word & !new).count_ones());
        *word = new;
    }
    counts
}
