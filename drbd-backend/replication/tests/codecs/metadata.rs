//! Where metadata lies, what of it can be used, and what it costs.

use fastrand::Rng;
use replication::layout::{
    HEAD_BYTES, Identity, Layout, Loading, PAGE_BYTES, Pages, Piece, TooLarge, Unusable, Writes, identify,
};
use replication::{Bits, Control, EXTENT_BLOCKS, Extent, Metadata, Node, Span, Superblock, VolumeId};

use crate::disk::{Disk, SECTOR};
use crate::random;

const VOLUME: VolumeId = VolumeId(0x3d2c_1b0a);
const SIZE: u64 = 100 * EXTENT_BLOCKS;
const TIB: u64 = 1 << 28;

fn layout() -> Layout {
    Layout::new(VOLUME, SIZE).expect("it is a size")
}

fn node(place: u8) -> Node {
    Node::new(place).expect("it is one of eight")
}

fn superblock(layout_size: u64) -> Superblock {
    let mut superblock = random::superblock(&mut Rng::with_seed(7), VOLUME, layout_size);
    superblock.absent = [None; 8];
    superblock.absent[1] = Some(random::absent(&mut Rng::with_seed(7)));
    superblock
}

/// A new replica that has lived through these changes.
fn lived(layout: Layout, size: u64, changes: &[Metadata]) -> (Disk, Pages) {
    let (mut disk, mut writes) = (Disk::default(), Writes::default());
    let mut pages = layout.format(&superblock(size), 1, &mut writes);
    disk.carry_out(&writes);
    for change in changes {
        pages.write(change, &mut writes).expect("there is room");
        disk.carry_out(&writes);
    }
    (disk, pages)
}

fn bytes_of(writes: &Writes) -> usize {
    writes.first().chain(writes.then()).map(|(_, bytes)| bytes.len()).sum()
}

#[test]
fn nothing_overlaps_and_everything_lies_in_the_file() {
    for size in [1, 1023, 1024, SIZE, TIB, 2 * TIB, 31 * TIB + 5, 64 * TIB] {
        let layout = Layout::new(VOLUME, size).expect("it is a size");
        let mut ranges = vec![layout.superblock(), layout.activity(), layout.control()];
        ranges.extend(Node::all().flat_map(|node| [layout.directory(node), layout.bitmap(node)]));
        ranges.sort_by_key(|range| range.start);
        assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "{size} blocks: {ranges:?}");
        assert_eq!(ranges.last().map(|range| range.end), Some(layout.file_bytes()));
        assert!(ranges.iter().all(|range| range.start % 4096 == 0 && range.end % 4096 == 0));
        let outside = ranges.iter().filter(|range| range.end > HEAD_BYTES as u64).count();
        assert_eq!(outside, 8, "all but the bitmaps is read at the start");
    }
    assert_eq!(Layout::new(VOLUME, 64 * TIB).map(|layout| layout.file_bytes()), Ok(35_476_471_808));
    assert!(Layout::new(VOLUME, 0).is_err() && Layout::new(VOLUME, 64 * TIB + 1).is_err());
}

#[test]
fn what_was_kept_is_found() {
    for seed in 0..200 {
        let mut rng = Rng::with_seed(seed);
        let mut superblock = random::superblock(&mut rng, VOLUME, SIZE);
        superblock.absent[3] = Some(random::absent(&mut rng));
        let (bits, control) = (random::bits(&mut rng, SIZE), random::control(&mut rng));
        let activity = random::activity(&mut rng, SIZE);
        let changes = [
            Metadata::WholeBitmap { node: node(3), bits: bits.clone() },
            Metadata::Superblock(Box::new(superblock.clone())),
            Metadata::Control(Box::new(control.clone())),
            Metadata::Activity(activity.clone()),
        ];
        let (found, _) = lived(layout(), SIZE, &changes).0.load(layout(), 2).expect("it is whole");
        assert_eq!(found.superblock, superblock, "seed {seed}");
        assert_eq!((found.activity, found.control), (activity, control), "seed {seed}");
        assert!(found.bitmaps.contains(&(node(3), bits)), "seed {seed}");
        let absent = Node::all().filter(|node| superblock.absent[node.index()].is_some());
        assert!(absent.eq(found.bitmaps.iter().map(|(node, _)| *node)), "seed {seed}");
    }
}

/// Writes `new` over `old`, of which only some sectors reach the disk, for every choice of sectors of a page.
fn tear(old: Metadata, new: Metadata) {
    let (disk, mut pages) = lived(layout(), SIZE, std::slice::from_ref(&old));
    let mut writes = Writes::default();
    pages.write(&new, &mut writes).expect("there is room");
    let mut after = disk.clone();
    after.carry_out(&writes);
    let load = |mut disk: Disk| disk.load(layout(), 3).expect("one copy is whole").0;
    let (before, after) = (load(disk.clone()), load(after));
    assert_ne!(before, after);
    let (offset, bytes) = writes.first().next().expect("something is to be written");
    let mut counts = [0, 0];
    for choice in 0..256 {
        let mut torn = disk.clone();
        torn.spare(offset, bytes, |sector| choice >> (sector % (PAGE_BYTES / SECTOR)) & 1 == 1);
        let found = load(torn);
        assert!(found == before || found == after, "sectors {choice:08b}");
        counts[usize::from(found == after)] += 1;
    }
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_torn_page_is_as_if_it_had_not_been_written() {
    let mut rng = Rng::with_seed(11);
    let mut next = superblock(SIZE);
    next.generation = next.generation.next();
    tear(Metadata::Superblock(Box::new(superblock(SIZE))), Metadata::Superblock(Box::new(next)));
    let activity = |count| Metadata::Activity((0..count).map(|extent| Extent(extent % 100)).collect());
    tear(activity(3), activity(500));
    let control =
        |rng: &mut Rng| Metadata::Control(Box::new(Control { reservations: vec![9; 9000], ..random::control(rng) }));
    tear(control(&mut rng), control(&mut rng));
    let mut marks = Bits::default();
    marks.set(Span::new(70, 5));
    let whole = Metadata::WholeBitmap { node: node(1), bits: marks.clone() };
    marks.set(Span::new(80, 5));
    tear(whole, Metadata::Bitmap { node: node(1), bits: marks, extents: vec![Extent(0)] });
}

#[test]
fn metadata_that_cannot_be_used_says_why() {
    let (mut disk, _) = lived(layout(), SIZE, &[Metadata::Activity(vec![Extent(1)])]);
    let begin = |head: &[u8]| Loading::begin(layout(), head, 1).map(|_| ());
    let head = disk.head();
    assert_eq!(begin(&head), Ok(()));
    assert_eq!(begin(&[0; HEAD_BYTES]), Err(Unusable::NotOurs));

    let other = Layout::new(VolumeId(5), SIZE).expect("it is a size");
    let swapped = Unusable::AnotherVolume { wanted: VolumeId(5), found: VOLUME };
    assert_eq!(Loading::begin(other, &head, 1).map(|_| ()), Err(swapped));
    let cut = Layout::new(VOLUME, SIZE - 1).expect("it is a size");
    let size = Unusable::Size { wanted: SIZE - 1, found: SIZE };
    assert_eq!(Loading::begin(cut, &head, 1).map(|_| ()), Err(size));

    let bent = |at: usize| {
        let mut head = head.clone();
        head[at] ^= 1;
        begin(&head)
    };
    assert_eq!(bent(100), Err(Unusable::Torn(Piece::Superblock)));
    assert_eq!(bent(128 * 1024 + 70), Err(Unusable::Torn(Piece::Control)));
    assert_eq!(bent(8192 + 4096 + 100), Ok(()), "the older copy of the activity log holds");

    let mut newer = head.clone();
    newer[9] = 2;
    reseal(&mut newer[..PAGE_BYTES]);
    assert_eq!(begin(&newer), Err(Unusable::Newer { found: 2 }));
    let mut nonsense = head.clone();
    nonsense[65] = 9;
    reseal(&mut nonsense[..PAGE_BYTES]);
    assert_eq!(begin(&nonsense), Err(Unusable::Nonsense(Piece::Superblock)));

    let start = head.first_chunk().expect("it is longer");
    let identity = Identity { volume: VOLUME, node: superblock(SIZE).node, size_blocks: SIZE };
    assert_eq!(identify(start), Ok(identity));
}

pub(crate) fn reseal(page: &mut [u8]) {
    page[12..16].fill(0);
    let crc = replication::checksum::crc32c(page);
    page[12..16].copy_from_slice(&crc.to_be_bytes());
}

#[test]
fn a_page_of_a_later_release_is_never_passed_over_for_an_older_copy() {
    let (mut disk, _) = lived(layout(), SIZE, &[Metadata::Superblock(Box::new(superblock(SIZE)))]);
    let mut head = disk.head();
    head[PAGE_BYTES + 9] = 2;
    reseal(&mut head[PAGE_BYTES..2 * PAGE_BYTES]);
    assert_eq!(Loading::begin(layout(), &head, 1).map(|_| ()), Err(Unusable::Newer { found: 2 }));
}

#[test]
fn a_page_that_landed_elsewhere_is_not_believed() {
    let (mut disk, _) = lived(layout(), SIZE, &[Metadata::Superblock(Box::new(superblock(SIZE)))]);
    let [a, b, log] = [0, 4096, 8192].map(|offset| disk.page(offset));
    let torn = Err(Unusable::Torn(Piece::Superblock));
    for pages in [[b, [0; PAGE_BYTES]], [[0; PAGE_BYTES], a], [log, log]] {
        disk.write(0, pages.as_flattened());
        assert_eq!(disk.load(layout(), 1).map(|_| ()), torn);
    }
    disk.write(0, [a, log].as_flattened());
    assert!(disk.load(layout(), 1).is_ok(), "the other copy holds");
}

#[test]
fn a_page_of_marks_that_belongs_elsewhere_is_not_believed() {
    let mut marks = Bits::default();
    [0, 40 * EXTENT_BLOCKS].iter().for_each(|block| marks.set(Span::new(*block, 1)));
    let whole = Metadata::WholeBitmap { node: node(1), bits: marks };
    let (mut disk, _) = lived(layout(), SIZE, std::slice::from_ref(&whole));
    assert_eq!(disk.load(layout(), 1).expect("it is whole").0.bitmaps.len(), 1);
    let start = layout().bitmap(node(1)).start;

    let mut moved = disk.clone();
    moved.write(start, &disk.page(start + 4096));
    assert_eq!(moved.load(layout(), 1).expect("the rest is whole").0.bitmaps, [], "page 1 lies in the place of page 0");

    // Of the same era, by a chance that there is not.
    let other = Layout::new(VolumeId(9), SIZE).expect("it is a size");
    let (mut others, mut writes) = (Disk::default(), Writes::default());
    let mut pages = other.format(&Superblock { volume: VolumeId(9), ..superblock(SIZE) }, 1, &mut writes);
    pages.write(&whole, &mut writes).expect("there is room");
    others.carry_out(&writes);
    disk.write(start, &others.page(start));
    assert_eq!(disk.load(layout(), 1).expect("the rest is whole").0.bitmaps, [], "page 0 is another volume's");
}

#[test]
fn a_bitmap_that_cannot_be_read_is_missing_and_the_next_one_is_sound() {
    let marks = random::bits(&mut Rng::with_seed(3), SIZE);
    let whole = |bits: &Bits| Metadata::WholeBitmap { node: node(1), bits: bits.clone() };
    let two_eras = [whole(&marks), whole(&Bits::all(SIZE)), whole(&marks)];
    let (disk, _) = lived(layout(), SIZE, &two_eras);
    let damaged = |ranges: &[std::ops::Range<u64>]| {
        let mut disk = disk.clone();
        let offsets = ranges.iter().flat_map(|range| range.clone().step_by(PAGE_BYTES));
        offsets.for_each(|offset| disk.write(offset, &[0xff; PAGE_BYTES]));
        disk
    };
    for ranges in [[layout().bitmap(node(1))], [layout().directory(node(1))]] {
        let mut broken = damaged(&ranges);
        let (found, mut pages) = broken.load(layout(), 9).expect("nothing else is broken");
        assert_eq!(found.bitmaps, [], "it cannot be read");
        let mut writes = Writes::default();
        pages.write(&whole(&marks), &mut writes).expect("there is room");
        broken.carry_out(&writes);
        assert_eq!(broken.load(layout(), 10).expect("it is whole").0.bitmaps, [(node(1), marks.clone())]);
        // The copies that could not be read come back: they are older, and of another era.
        let mut back = disk.clone();
        back.carry_out(&writes);
        assert_eq!(back.load(layout(), 10).expect("it is whole").0.bitmaps, [(node(1), marks.clone())]);
    }
}

#[test]
fn a_large_volume_with_few_marks_costs_little() {
    let size = 64 * TIB;
    let layout = Layout::new(VOLUME, size).expect("it is a size");
    let mut bits = Bits::default();
    [0, size / 2, size - 1].iter().for_each(|block| bits.set(Span::new(*block, 1)));
    let (mut disk, mut pages) = lived(layout, size, &[Metadata::WholeBitmap { node: node(1), bits: bits.clone() }]);
    let (found, _) = disk.load(layout, 2).expect("it is whole");
    assert_eq!(found.bitmaps, [(node(1), bits.clone())]);
    assert!(disk.read < 2 << 20, "{} bytes were read", disk.read);
    let mut writes = Writes::default();
    bits.set(Span::new(10, 1));
    pages
        .write(&Metadata::Bitmap { node: node(1), bits, extents: vec![Extent(0)] }, &mut writes)
        .expect("there is room");
    assert_eq!(bytes_of(&writes), PAGE_BYTES, "one page of marks");
}

#[test]
fn all_marks_of_a_volume_are_one_page() {
    let size = TIB + 3;
    let layout = Layout::new(VOLUME, size).expect("it is a size");
    let whole = Metadata::WholeBitmap { node: node(1), bits: Bits::all(size) };
    let (mut disk, mut pages) = lived(layout, size, &[]);
    let mut writes = Writes::default();
    pages.write(&whole, &mut writes).expect("there is room");
    assert_eq!(bytes_of(&writes), PAGE_BYTES);
    disk.carry_out(&writes);
    let (found, _) = disk.load(layout, 2).expect("it is whole");
    assert_eq!(found.bitmaps, [(node(1), Bits::all(size))]);
}

#[test]
fn what_is_too_large_is_refused_and_changes_nothing() {
    let (mut disk, mut pages) = lived(layout(), SIZE, &[]);
    let mut writes = Writes::default();
    let too_many = Metadata::Activity((0..1001).map(Extent).collect());
    assert_eq!(pages.write(&too_many, &mut writes), Err(TooLarge::Activity { extents: 1001 }));
    let beyond = Metadata::Activity(vec![Extent(99), Extent(100)]);
    assert_eq!(pages.write(&beyond, &mut writes), Err(TooLarge::Extent(Extent(100))));
    let most = replication::codec::MAX_CONTROL_BYTES - 24;
    let control = |bytes: usize| Control { version: 1, reservations: vec![7; bytes], ..Control::default() };
    let refused = Err(TooLarge::Control { bytes: Some(most + 25) });
    assert_eq!(pages.write(&Metadata::Control(Box::new(control(most + 1))), &mut writes), refused);
    assert_eq!(bytes_of(&writes), 0);
    pages.write(&Metadata::Control(Box::new(control(most))), &mut writes).expect("that fits");
    assert_eq!(bytes_of(&writes), 256 * 1024);
    disk.carry_out(&writes);
    assert_eq!(disk.load(layout(), 2).expect("it is whole").0.control, control(most));
}
