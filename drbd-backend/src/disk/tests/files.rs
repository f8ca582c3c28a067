//! Files: what is written, punched, locked, refused.

use std::path::Path;
use std::process::Command;

use super::*;

#[test]
fn what_was_written_is_read_again() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let file = desk.file();
        for (seed, durable) in [(1, false), (2, true)] {
            let data = desk.filled(3 * BLOCK, seed);
            assert_eq!(desk.write(&file, 8192, data.part(BLOCK..3 * BLOCK), durable), Ok(2 * BLOCK));
            assert_eq!(desk.run(Operation::Flush { file: file.clone() }).result, Ok(0));
            let (result, buffer) = desk.read(&file, 8192, 2 * BLOCK);
            assert_eq!(result, Ok(2 * BLOCK));
            assert_eq!(buffer[..], pattern(3 * BLOCK, seed)[BLOCK..]);
        }
    }
}

#[test]
fn a_read_fills_only_its_part_of_the_buffer_and_ends_with_the_file() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let file = desk.file();
        let data = desk.filled(BLOCK, 3);
        desk.write(&file, SIZE - BLOCK as u64, data.clone(), false).unwrap();
        let mut buffer = desk.buffers.take(4 * BLOCK).unwrap();
        buffer.fill(9);
        let (offset, into) = (SIZE - BLOCK as u64, BLOCK..3 * BLOCK);
        let done = desk.run(Operation::Read { file: file.clone(), offset, buffer, into });
        assert_eq!(done.result, Ok(BLOCK));
        let buffer = done.buffer.unwrap();
        assert_eq!(buffer[BLOCK..2 * BLOCK], data[..]);
        assert!(buffer[..BLOCK].iter().chain(&buffer[3 * BLOCK..]).all(|byte| *byte == 9));
    }
}

#[test]
fn a_range_that_is_punched_or_zeroed_reads_as_zeroes_and_its_neighbours_stay() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let file = desk.file();
        assert_eq!(file.allocated_bytes().unwrap(), 0);
        let data = desk.filled(4 * BLOCK, 4);
        desk.write(&file, 0, data.clone(), false).unwrap();
        let full = file.allocated_bytes().unwrap();
        let (offset, length) = (BLOCK as u64, BLOCK as u64);
        assert_eq!(desk.run(Operation::PunchHole { file: file.clone(), offset, length }).result, Ok(0));
        let (offset, length) = (2 * BLOCK as u64, BLOCK as u64);
        let zeroed = desk.run(Operation::ZeroRange { file: file.clone(), offset, length }).result;
        // tmpfs has no such thing.
        if zeroed != Err(Failure::Unsupported) {
            assert_eq!(zeroed, Ok(0));
            assert!(desk.read(&file, offset, BLOCK).1.iter().all(|byte| *byte == 0));
        }
        assert_eq!(file.allocated_bytes().unwrap(), full - BLOCK as u64);
        let (_, all) = desk.read(&file, 0, 4 * BLOCK);
        assert_eq!(all[..BLOCK], data[..BLOCK]);
        assert!(all[BLOCK..2 * BLOCK].iter().all(|byte| *byte == 0));
        assert_eq!(all[3 * BLOCK..], data[3 * BLOCK..]);
    }
}

#[test]
fn misaligned_io_fails_and_does_no_harm() {
    for engine in ENGINES {
        let mut desk = Desk::new(engine);
        let file = desk.file();
        let data = desk.filled(BLOCK, 6);
        let result = desk.write(&file, 17, data, false);
        assert_eq!(result, Err(Failure::Other(libc::EINVAL)));
        assert!(desk.read(&file, 0, 2 * BLOCK).1.iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_second_opener_is_refused_until_the_last_operation_of_the_first_has_ended() {
    let mut desk = Desk::new(Engine::Auto);
    let file = desk.file();
    let path = file.path().to_owned();
    let refused = DiskFile::open(&path, SIZE).unwrap_err();
    let us = format!("process {}", std::process::id());
    assert!(matches!(&refused, FileError::InUse { by, .. } if *by == us), "{refused}");
    assert!(refused.to_string().contains(path.to_str().unwrap()), "{refused}");
    desk.ring.submit(Operation::Flush { file }, 1);
    assert!(DiskFile::open(&path, SIZE).is_err());
    desk.at_least(1);
    open_soon(&path, SIZE).unwrap();
}

#[test]
fn a_file_is_opened_only_as_what_it_should_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data");
    assert!(matches!(DiskFile::open(&path, SIZE), Err(FileError::Missing { .. })));
    let file = DiskFile::create(&path, SIZE).unwrap();
    assert_eq!((file.size(), std::fs::metadata(&path).unwrap().len()), (SIZE, SIZE));
    assert!((512..=4096).contains(&file.block_bytes()));
    assert!(matches!(DiskFile::create(&path, SIZE), Err(FileError::Exists { .. })));
    drop(file);
    let cut = open_soon(&path, SIZE + 4096);
    assert!(matches!(cut, Err(FileError::Size { wanted, found: SIZE, .. }) if wanted == SIZE + 4096));
    let nowhere = DiskFile::create(&directory.path().join("no/data"), SIZE);
    assert!(matches!(nowhere, Err(FileError::Failed { failure: Failure::Other(libc::ENOENT), .. })));
}

#[test]
fn what_was_reserved_takes_room() {
    let desk = Desk::new(Engine::Auto);
    let file = desk.file();
    file.reserve().unwrap();
    assert!(file.allocated_bytes().unwrap() >= SIZE);
}

/// In a mount namespace of its own, on a file system of 1 MiB that vanishes with the process.
#[test]
fn a_full_file_system_is_told_apart_and_goes_on_once_there_is_room() {
    const INSIDE: &str = "TANDEM_TEST_SMALL_DISK";
    if let Some(directory) = std::env::var_os(INSIDE) {
        return ENGINES.into_iter().for_each(|engine| fill(engine, Path::new(&directory)));
    }
    let directory = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs -o size=1m tmpfs \"$1\" && shift && exec \"$@\"";
    let name = "a_full_file_system_is_told_apart_and_goes_on_once_there_is_room";
    let mut inside = Command::new("unshare");
    inside.args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"]).arg(directory.path());
    inside.arg(std::env::current_exe().unwrap()).args(["--nocapture", name]);
    let output = inside.env(INSIDE, directory.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
}

fn fill(engine: Engine, directory: &Path) {
    let mut desk = Desk::new(engine);
    let path = directory.join("data");
    let file = DiskFile::create(&path, 2 << 20).unwrap();
    assert_eq!(file.reserve(), Err(Failure::NoSpace));
    let data = desk.filled(BLOCK, 1);
    let offsets = (0..512).map(|block| block * BLOCK as u64);
    let written = offsets.map(|offset| (offset, desk.write(&file, offset, data.clone(), false)));
    let results: Vec<_> = written.collect();
    let full = results.iter().position(|(_, result)| result.is_err()).expect("2 MiB do not fit");
    assert!(full > 200 && results[full..].iter().all(|(_, result)| *result == Err(Failure::NoSpace)), "{results:?}");
    let (offset, length) = (0, 64 * BLOCK as u64);
    assert_eq!(desk.run(Operation::PunchHole { file: file.clone(), offset, length }).result, Ok(0));
    assert_eq!(desk.write(&file, results[full].0, data.clone(), false), Ok(BLOCK));
    assert_eq!(desk.read(&file, results[full].0, BLOCK).1[..], data[..]);
    drop(file);
    std::fs::remove_file(path).unwrap();
}
