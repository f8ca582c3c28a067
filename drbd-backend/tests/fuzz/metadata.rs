//! What a start may find on disk: the image of a replica that has lived, with pages bent, torn, swapped or put in a stranger's place.
//!
//! The bytes are changes, one behind the other: what to do (a byte; with 128 the page gets a checksum that is right), which page (a byte), where in
//! it (two bytes), and how many bytes (a byte), which follow.

use std::collections::BTreeMap;
use std::ops::Range;

use replication::checksum::crc32c;
use replication::layout::{HEAD_BYTES, Layout, Loading, PAGE_BYTES, Pages, Unusable, Writes, identify};
use replication::{
    Absent, Barrier, Bits, BootId, Data, DiskId, EXTENT_BLOCKS, Extent, Found, Generation, MAX_NODES, Metadata, Node,
    Record, Span, Superblock, VolumeId,
};

/// Three pages of each bitmap, the last extent not whole.
const SIZE_BLOCKS: u64 = 70 * EXTENT_BLOCKS + 3;
const VOLUME: VolumeId = VolumeId(1);
const SECTOR: usize = 512;

/// Of the node whose bitmap is in use.
const AWAY: u8 = 1;

#[derive(Debug, Default)]
struct Image(BTreeMap<u64, [u8; PAGE_BYTES]>);

impl Image {
    fn carry_out(&mut self, writes: &Writes) {
        for (offset, bytes) in writes.first().chain(writes.then()) {
            for (at, page) in (offset..).step_by(PAGE_BYTES).zip(bytes.chunks_exact(PAGE_BYTES)) {
                self.0.insert(at, page.try_into().expect("it is a whole page"));
            }
        }
    }

    fn range(&self, range: Range<u64>) -> Vec<u8> {
        let at = |offset: u64| usize::try_from(offset - range.start).expect("a range is short");
        let mut bytes = vec![0; at(range.end)];
        for (offset, page) in self.0.range(range.clone()) {
            bytes[at(*offset)..][..PAGE_BYTES].copy_from_slice(page);
        }
        bytes
    }

    fn load(&self, layout: Layout) -> Result<(Found, Pages), Unusable> {
        let mut loading = Loading::begin(layout, &self.range(0..HEAD_BYTES as u64), 9)?;
        let mut reads = 0;
        while let Some(range) = loading.wants() {
            reads += 1;
            assert!(reads <= 2 * 3 * MAX_NODES, "it never has enough");
            assert!(range.end - range.start <= 1 << 20 && range.end <= layout.file_bytes(), "{range:?}");
            loading.read(&self.range(range));
        }
        Ok(loading.finish())
    }
}

/// It is refused, or what was found can be written, and is found again.
pub(crate) fn take(bytes: &[u8]) {
    let layout = Layout::new(VOLUME, SIZE_BLOCKS).expect("it is a size");
    let mut image = lived(&layout);
    bend(&mut image, &layout, bytes);
    let _ = identify(image.range(0..2 * PAGE_BYTES as u64)[..].try_into().expect("it is as long"));
    let Ok((found, mut pages)) = image.load(layout) else { return };
    let mut writes = Writes::default();
    for change in changes_of(&found) {
        pages.write(&change, &mut writes).expect("what was read has room");
        image.carry_out(&writes);
    }
    let (again, _) = image.load(layout).expect("what was written can be read");
    assert_eq!(again.superblock, found.superblock);
    assert_eq!((again.activity, again.control), (found.activity, found.control));
    assert_eq!(again.bitmaps, found.bitmaps);
}

fn changes_of(found: &Found) -> Vec<Metadata> {
    let mut changes = vec![
        Metadata::Superblock(Box::new(found.superblock.clone())),
        Metadata::Activity(found.activity.clone()),
        Metadata::Control(Box::new(found.control.clone())),
    ];
    changes.extend(found.bitmaps.iter().map(|(node, bits)| Metadata::WholeBitmap { node: *node, bits: bits.clone() }));
    changes
}

fn lived(layout: &Layout) -> Image {
    let node = |place| Node::new(place).expect("it is one of eight");
    let mut absent = [None; MAX_NODES];
    absent[usize::from(AWAY)] = Some(Absent { since: Generation(3), disk: DiskId(11), barrier: Barrier(4) });
    let superblock = Superblock {
        volume: VOLUME,
        node: node(0),
        size_blocks: SIZE_BLOCKS,
        disk: DiskId(10),
        incarnation: None,
        generation: Generation(3),
        record: Record::of_new_volume([(node(0), DiskId(10))]),
        data: Data::Consistent,
        boot: BootId(5),
        clean: true,
        suspect: false,
        barrier: Barrier(7),
        confirmed: Barrier(6),
        absent,
    };
    let (mut image, mut writes) = (Image::default(), Writes::default());
    let mut pages = layout.format(&superblock, 1, &mut writes);
    image.carry_out(&writes);
    let mut bits = Bits::default();
    bits.set(Span::new(5, 3));
    let extents = vec![Extent(0)];
    for change in
        [Metadata::Activity(vec![Extent(0), Extent(69)]), Metadata::Bitmap { node: node(AWAY), bits, extents }]
    {
        pages.write(&change, &mut writes).expect("there is room");
        image.carry_out(&writes);
    }
    image
}

fn bend(image: &mut Image, layout: &Layout, mut bytes: &[u8]) {
    let places = places(layout);
    let place = |byte: u8| places[usize::from(byte) % places.len()];
    while let Some(([what, page, high, low, count], rest)) = bytes.split_first_chunk::<5>() {
        let offset = place(*page);
        let at = usize::from(u16::from_be_bytes([*high, *low])) % PAGE_BYTES;
        let count = usize::from(*count).min(PAGE_BYTES - at).min(rest.len());
        let (new, rest) = rest.split_at(count);
        let mut old = image.0.get(&offset).copied().unwrap_or([0; PAGE_BYTES]);
        match what % 4 {
            0 => old[at..at + count].copy_from_slice(new),
            1 => old[at..at + count].iter_mut().zip(new).for_each(|(old, new)| *old ^= new),
            2 => old[at - at % SECTOR..].fill(0),
            _ => {
                let other = image.0.insert(place(*low), old).unwrap_or([0; PAGE_BYTES]);
                old = other;
            }
        }
        if what & 128 != 0 {
            reseal(&mut old);
        }
        image.0.insert(offset, old);
        bytes = rest;
    }
}

/// Both copies of everything that a start reads, and one that nobody uses.
fn places(layout: &Layout) -> Vec<u64> {
    let node = |place| Node::new(place).expect("it is one of eight");
    let ranges = [layout.superblock(), layout.activity(), layout.directory(node(AWAY)), layout.directory(node(2))];
    let bitmap = layout.bitmap(node(AWAY)).start;
    let control = layout.control();
    let middle = control.start + (control.end - control.start) / 2;
    let pages = ranges.into_iter().flat_map(|range| range.step_by(PAGE_BYTES));
    pages.chain([control.start, middle]).chain((bitmap..).step_by(PAGE_BYTES).take(7)).collect()
}

/// As a stranger would who knows the checksums: that of a superblock's record too. Documents of one page only.
fn reseal(page: &mut [u8; PAGE_BYTES]) {
    if page[10] == 1 {
        seal(&mut page[144..368], 4);
    }
    seal(page, 12);
}

fn seal(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let crc = crc32c(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_be_bytes());
}
