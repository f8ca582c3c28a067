//! Whatever is being written when the power goes: afterwards there is what was before, or what was to come.

use fastrand::Rng;
use replication::layout::{Layout, Pages, Writes};
use replication::{Bits, Control, EXTENT_BLOCKS, Extent, Found, MAX_NODES, Metadata, Node, Span, Superblock, VolumeId};

use crate::disk::Disk;
use crate::random;

const VOLUME: VolumeId = VolumeId(0xab);
const PAGE_EXTENTS: u32 = 31;

/// Not a whole number of extents or pages.
const SMALL: u64 = 3 * 31 * EXTENT_BLOCKS + 5 * EXTENT_BLOCKS + 77;
/// Sections of two pages.
const LARGE: u64 = 3 << 28;
/// Sections of 34 pages.
const LARGEST: u64 = random::MAX_BLOCKS;

/// What a replica believes to have on disk.
#[derive(Debug, Clone, PartialEq)]
struct Kept {
    superblock: Superblock,
    activity: Vec<Extent>,
    control: Control,
    /// `None`: nobody has asked for it.
    bitmaps: [Option<Bits>; MAX_NODES],
}

impl Kept {
    fn of(found: Found) -> Self {
        let mut bitmaps = [const { None }; MAX_NODES];
        found.bitmaps.into_iter().for_each(|(node, bits)| bitmaps[node.index()] = Some(bits));
        Self { superblock: found.superblock, activity: found.activity, control: found.control, bitmaps }
    }

    /// Once it is done.
    fn with(&self, change: &Metadata, size_blocks: u64) -> Self {
        let mut kept = self.clone();
        match change {
            Metadata::Superblock(superblock) => kept.superblock.clone_from(superblock),
            Metadata::Activity(extents) => kept.activity.clone_from(extents),
            Metadata::Control(control) => kept.control.clone_from(control),
            Metadata::WholeBitmap { node, bits } => kept.bitmaps[node.index()] = Some(bits.clone()),
            Metadata::Bitmap { node, bits, extents } => {
                let all = kept.bitmaps[node.index()].get_or_insert_with(|| Bits::all(size_blocks));
                extents.iter().for_each(|extent| all.replace_words(*extent, &bits.words(*extent)));
            }
        }
        kept
    }

    /// What a start finds: marks of absent members only.
    fn as_found(&self) -> Self {
        let mut kept = self.clone();
        for node in Node::all().filter(|node| kept.superblock.absent[node.index()].is_none()) {
            kept.bitmaps[node.index()] = None;
        }
        kept
    }
}

/// A change that a core could ask for.
fn change(rng: &mut Rng, kept: &Kept, size_blocks: u64) -> Metadata {
    let node = Node::new(rng.u8(..3)).expect("it is one of eight");
    match rng.u8(..8) {
        0 | 1 => {
            let mut superblock = random::superblock(rng, VOLUME, size_blocks);
            for node in Node::all() {
                let known = kept.bitmaps[node.index()].is_some();
                superblock.absent[node.index()] = known.then(|| random::absent(rng));
            }
            if rng.u8(..4) == 0 {
                superblock.absent[node.index()] = None;
            }
            Metadata::Superblock(Box::new(superblock))
        }
        2 => Metadata::Activity(random::activity(rng, size_blocks)),
        3 => Metadata::Control(Box::new(random::control(rng))),
        4 => Metadata::WholeBitmap { node, bits: marks(rng, size_blocks) },
        // A bitmap that is not known begins with all marks: too many here.
        _ if kept.bitmaps[node.index()].is_none() && size_blocks != SMALL => {
            Metadata::WholeBitmap { node, bits: marks(rng, size_blocks) }
        }
        _ => {
            let bits = marks(rng, size_blocks);
            let mut extents: Vec<Extent> = bits.extents().map(|(extent, _)| extent).collect();
            extents.extend(random::activity(rng, size_blocks).into_iter().take(10));
            let marked = kept.bitmaps[node.index()].iter().flat_map(|bits| bits.extents().map(|(extent, _)| extent));
            extents.extend(marked.filter(|_| rng.u8(..10) == 0));
            extents.sort_unstable();
            extents.dedup();
            Metadata::Bitmap { node, bits, extents }
        }
    }
}

/// Often in the same places, sometimes a whole section, sometimes everything.
fn marks(rng: &mut Rng, size_blocks: u64) -> Bits {
    let near = size_blocks.min(1 << 20);
    let mut bits = random::bits(rng, near);
    match rng.u8(..8) {
        0 => bits.set_all(&random::bits(rng, size_blocks)),
        1 => bits.set(Span::new(0, u32::try_from(near).expect("it is at most 2^20"))),
        2 if size_blocks == SMALL => bits = Bits::all(size_blocks),
        3 => bits = Bits::default(),
        _ => {}
    }
    bits
}

/// Before, or after. A bitmap that is not written as a whole may be so page by page.
fn is_one_of_them(found: &Kept, before: &Kept, after: &Kept, change: &Metadata) -> bool {
    let (mut mixed, after) = (before.as_found(), after.as_found());
    if let Metadata::Bitmap { node, extents, .. } = change
        && let place = node.index()
        && let (Some(mixed), Some(found), Some(after)) =
            (&mut mixed.bitmaps[place], &found.bitmaps[place], &after.bitmaps[place])
    {
        for page in extents.iter().map(|extent| extent.0 / PAGE_EXTENTS) {
            let page = || (page * PAGE_EXTENTS..(page + 1) * PAGE_EXTENTS).map(Extent);
            if page().all(|extent| found.words(extent) == after.words(extent)) {
                page().for_each(|extent| mixed.replace_words(extent, &after.words(extent)));
            }
        }
    }
    *found == mixed || *found == after
}

fn live(seed: u64, size_blocks: u64, changes: u32) -> (u32, u32) {
    let mut rng = Rng::with_seed(seed);
    let layout = Layout::new(VOLUME, size_blocks).expect("it is a size");
    let (mut disk, mut writes, mut counts) = (Disk::default(), Writes::default(), (0, 0));
    let mut superblock = random::superblock(&mut rng, VOLUME, size_blocks);
    superblock.absent = [None; MAX_NODES];
    let mut pages = layout.format(&superblock, rng.u64(..), &mut writes);
    disk.carry_out(&writes);
    let empty = [const { None }; MAX_NODES].map(|_: Option<Bits>| Some(Bits::default()));
    let mut kept = Kept { superblock, activity: vec![], control: Control::default(), bitmaps: empty };
    for step in 0..changes {
        let change = change(&mut rng, &kept, size_blocks);
        let after = kept.with(&change, size_blocks);
        pages.write(&change, &mut writes).expect("there is room");
        let is_cut = rng.u8(..4) == 0;
        if is_cut {
            disk.cut(&writes, &mut rng);
        } else {
            disk.carry_out(&writes);
            kept = after.clone();
        }
        if is_cut || rng.u8(..8) == 0 {
            let loaded: (Found, Pages) = disk.load(layout, rng.u64(..)).expect("every piece has a whole copy");
            let found = Kept::of(loaded.0);
            assert!(is_one_of_them(&found, &kept, &after, &change), "seed {seed}, size {size_blocks}, step {step}");
            counts.0 += u32::from(found == kept.as_found());
            counts.1 += u32::from(found == after.as_found());
            (kept, pages) = (found, loaded.1);
        }
    }
    counts
}

fn lives(seeds: u64, size_blocks: u64, changes: u32) {
    let counts = (0..seeds).map(|seed| live(seed, size_blocks, changes));
    let (before, after) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert!(before > 0 && after > 0, "cuts left {before} times what was before, {after} times what was to come");
}

#[test]
fn a_power_cut_leaves_what_was_before_or_what_was_to_come() {
    lives(150, SMALL, 60);
}

#[test]
fn so_it_does_where_sections_have_several_pages() {
    lives(30, LARGE, 40);
    lives(10, LARGEST, 40);
}
