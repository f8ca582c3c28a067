//! The medium against a model of eight sectors, and what a seed decides at a power cut.

use proptest::prelude::*;

use super::*;

const SECTORS: u64 = 8;

fn image() -> File {
    let file = tempfile::tempfile().expect("there is a folder for temporary files");
    file.set_len(SECTORS * SECTOR_BYTES).expect("it can grow");
    file
}

fn media(seed: u64) -> (Media, File) {
    let image = image();
    (Media::new(image.try_clone().expect("a descriptor is left"), seed), image)
}

/// One number per sector.
fn write(media: &mut Media, first: u64, numbers: &[u8]) {
    let data: Vec<u8> = numbers.iter().flat_map(|number| [*number; SECTOR]).collect();
    media.write(first * SECTOR_BYTES, &data).expect("nothing is to fail");
}

fn numbers(bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.as_chunks::<SECTOR>().0.iter().all(|sector| sector.iter().all(|byte| *byte == sector[0])));
    bytes.iter().step_by(SECTOR).copied().collect()
}

fn shown(media: &mut Media) -> Vec<u8> {
    numbers(&media.read(0, SECTOR * 8).expect("nothing is to fail"))
}

fn on(image: &File) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR * 8];
    image.read_exact_at(&mut bytes, 0).expect("it has that size");
    numbers(&bytes)
}

#[test]
fn a_flush_covers_what_was_written_before_it_was_sent() {
    let (mut media, image) = media(1);
    write(&mut media, 0, &[1, 1]);
    let mark = media.mark();
    write(&mut media, 1, &[2, 2]);
    assert_eq!(on(&image), [0; 8]);
    media.flush(mark).expect("nothing is to fail");
    assert_eq!(on(&image), [1, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(shown(&mut media), [1, 2, 2, 0, 0, 0, 0, 0]);
    media.cut(Survives::Nothing).expect("the image takes it");
    assert_eq!(on(&image), [1, 1, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn a_full_cache_gives_its_oldest_writes_to_the_medium() {
    let image = tempfile::tempfile().expect("there is a folder for temporary files");
    image.set_len(3 * CACHE_BYTES as u64).expect("it can grow");
    let mut media = Media::new(image.try_clone().expect("a descriptor is left"), 1);
    let (piece, mut at) = (vec![1; 1 << 20], 0);
    while at <= CACHE_BYTES as u64 {
        media.write(at, &piece).expect("nothing is to fail");
        at += piece.len() as u64;
    }
    let (mut first, mut last) = ([0; 1], [0; 1]);
    image.read_exact_at(&mut first, 0).expect("it has that size");
    image.read_exact_at(&mut last, at - 1).expect("it has that size");
    assert_eq!((first, last, media.counts().cached_bytes), ([1], [0], CACHE_BYTES as u64));
}

#[test]
fn what_a_failed_flush_loses_uncovers_what_was_written_before() {
    let (mut media, image) = media(1);
    write(&mut media, 0, &[1, 1, 1]);
    write(&mut media, 1, &[2]);
    write(&mut media, 1, &[3, 3]);
    let fails = |sector: u64, flush_loses| {
        let range = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        Fault { op: Op::Flush, range, times: Some(1), flush_loses }
    };
    for loses_nothing in [fails(2, FlushLoses::Nothing), fails(5, FlushLoses::Data)] {
        media.fail(loses_nothing);
        media.flush(media.mark()).expect_err("it was told to");
        assert_eq!(shown(&mut media), [1, 3, 3, 0, 0, 0, 0, 0]);
    }
    media.fail(fails(2, FlushLoses::Data));
    write(&mut media, 0, &[4]);
    media.flush(media.mark()).expect_err("it was told to");
    assert_eq!(shown(&mut media), [4, 2, 0, 0, 0, 0, 0, 0], "the first write and the third are lost");
    media.flush(media.mark()).expect("it fails once");
    assert_eq!(on(&image), [4, 2, 0, 0, 0, 0, 0, 0]);
    assert_eq!(media.counts(), Counts { reads: 3, writes: 4, flushes: 4, failed: 3, cached_bytes: 0 });
}

#[test]
fn the_seed_decides_what_is_spared_and_torn() {
    let left_by = |seed| {
        let (mut media, image) = media(seed);
        for number in 1..=4 {
            write(&mut media, 0, &[number; 8]);
        }
        media.cut(Survives::Some { per_mille: 500, tear_bytes: Some(512) }).expect("the image takes it");
        on(&image)
    };
    let all: Vec<_> = (0..512).map(left_by).collect();
    assert_eq!(all, (0..512).map(left_by).collect::<Vec<_>>());
    for number in 0..=4 {
        assert!(all.contains(&vec![number; 8]), "nowhere the whole {number}");
    }
    assert!(all.iter().any(|left| left.windows(2).any(|two| two[0] != two[1])), "nothing was torn");
}

#[derive(Debug, Clone)]
enum Step {
    Write { first: u64, count: usize },
    Flush,
    Read,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SECTORS, 1_usize..4).prop_map(|(first, count)| Step::Write { first, count }),
        1 => Just(Step::Flush),
        1 => Just(Step::Read),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Each sector shows its last write; after a power cut its last flushed one, or one of those since, if they may be spared.
    #[test]
    fn a_sector_shows_its_last_write_and_keeps_its_last_flushed_one(
        steps in prop::collection::vec(step(), 1..40),
        spares in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let (mut media, image) = media(seed);
        let mut may_stay: Vec<Vec<u8>> = vec![vec![0]; 8];
        for (step, number) in steps.into_iter().zip(1_u8..) {
            match step {
                Step::Write { first, count } => {
                    let count = count.min(as_index(SECTORS - first));
                    write(&mut media, first, &vec![number; count]);
                    may_stay.iter_mut().skip(as_index(first)).take(count).for_each(|stay| stay.push(number));
                }
                Step::Flush => {
                    media.flush(media.mark())?;
                    may_stay.iter_mut().for_each(|stay| drop(stay.drain(..stay.len() - 1)));
                }
                Step::Read => {
                    let last: Vec<u8> = may_stay.iter().map(|stay| stay[stay.len() - 1]).collect();
                    prop_assert_eq!(shown(&mut media), last);
                }
            }
        }
        media.cut(if spares { Survives::Some { per_mille: 700, tear_bytes: Some(512) } } else { Survives::Nothing })?;
        for (left, stay) in on(&image).into_iter().zip(may_stay) {
            prop_assert!(stay[0] == left || spares && stay.contains(&left));
        }
    }
}
