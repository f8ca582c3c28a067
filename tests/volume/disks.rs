//! What a disk of the torture runs promises: it forgets what no flush covered, fails when told to, and leaves nothing.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use rustix::io::Errno;
use system_tests::disks::{Disk, FlushLoses, Op, Survives};

const SIZE_MIB: u32 = 64;
const BLOCK: u64 = 4096;

#[test]
fn a_flushed_write_outlives_a_power_cut_and_an_unflushed_one_does_not() -> Result<()> {
    let mut disk = disk("flushed", 1)?;
    let data = written(&disk, "data", 4, 1)?;
    write(&data, 0, 2)?;
    data.sync_data()?;
    write(&data, 1, 2)?;
    write(&data, 0, 3)?;
    ensure!(shown(&data, 0)? == 3 && shown(&data, 1)? == 2, "a read shows what was written last");
    drop(data);
    disk.power_cut()?;
    ensure!(fs::read_dir(disk.path())?.next().is_none(), "a disk without power shows files");
    disk.power_on()?;
    let data = direct(&disk.path().join("data"))?;
    assert_eq!([shown(&data, 0)?, shown(&data, 1)?, shown(&data, 2)?], [2, 1, 1]);
    Ok(())
}

#[test]
fn the_page_cache_and_unflushed_names_go_with_the_power() -> Result<()> {
    let mut disk = disk("page-cache", 2)?;
    let file = File::create_new(disk.path().join("buffered"))?;
    file.write_all_at(&[1; 8192], 0)?;
    file.sync_all()?;
    file.write_all_at(&[2; 8192], 0)?;
    fs::write(disk.path().join("never-synced"), "x")?;
    fs::rename(disk.path().join("buffered"), disk.path().join("renamed"))?;
    drop(file);
    disk.power_cut()?;
    disk.power_on()?;
    assert!(!disk.path().join("never-synced").exists() && !disk.path().join("renamed").exists());
    assert_eq!(fs::read(disk.path().join("buffered"))?, [1; 8192]);
    Ok(())
}

#[test]
fn everything_survives_where_the_cache_reached_the_medium() -> Result<()> {
    let mut disk = disk("spared", 3)?;
    let data = written(&disk, "data", 2, 1)?;
    write(&data, 1, 2)?;
    drop(data);
    disk.power_cut_but(Survives::Everything)?;
    disk.power_on()?;
    assert_eq!(shown(&direct(&disk.path().join("data"))?, 1)?, 2);
    Ok(())
}

#[test]
fn errors_of_the_disk_reach_the_application() -> Result<()> {
    let disk = disk("errors", 4)?;
    let data = written(&disk, "data", 8, 1)?;
    let [place] = &disk.bytes_of(&disk.path().join("data"))?[..] else { anyhow::bail!("the file is in pieces") };
    let third = place.start + 2 * BLOCK..place.start + 3 * BLOCK;

    disk.fail(Op::Write, third.clone(), Some(2))?;
    assert_eq!(errno(write(&data, 2, 2)), Some(Errno::IO));
    write(&data, 1, 2)?;
    assert_eq!(errno(write(&data, 2, 2)), Some(Errno::IO));
    assert_eq!(shown(&data, 2)?, 1);
    write(&data, 2, 2)?;

    disk.fail(Op::Read, third, None)?;
    assert_eq!(errno(shown(&data, 2)), Some(Errno::IO));
    assert_eq!(shown(&data, 3)?, 1);

    disk.heal()?;
    disk.fail(Op::Flush, 0..u64::MAX, Some(1))?;
    assert_eq!(errno(data.sync_data()), Some(Errno::IO));
    data.sync_data()?;
    assert_eq!((shown(&data, 2)?, disk.counts()?.cached_bytes), (2, 0));
    Ok(())
}

#[test]
fn a_failed_flush_loses_data_and_the_next_one_succeeds() -> Result<()> {
    for (how, shown_before_the_cut) in [(FlushLoses::Data, 1), (FlushLoses::DataUnseen, 2)] {
        let mut disk = disk("failed-flush", 5)?;
        let data = written(&disk, "data", 4, 1)?;
        let [place] = &disk.bytes_of(&disk.path().join("data"))?[..] else { anyhow::bail!("the file is in pieces") };
        write(&data, 0, 2)?;
        write(&data, 1, 2)?;
        disk.lose_at_next_flush(place.start..place.start + BLOCK, how)?;
        assert_eq!(errno(data.sync_data()), Some(Errno::IO), "{how:?}");
        data.sync_data()?;
        assert_eq!([shown(&data, 0)?, shown(&data, 1)?], [shown_before_the_cut, 2], "{how:?}");
        drop(data);
        disk.power_cut()?;
        disk.power_on()?;
        let data = direct(&disk.path().join("data"))?;
        assert_eq!([shown(&data, 0)?, shown(&data, 1)?], [1, 2], "{how:?}");
    }
    Ok(())
}

#[test]
fn a_full_disk_says_so_and_takes_writes_again_once_it_is_not() -> Result<()> {
    let disk = disk("full", 6)?;
    let data = written(&disk, "data", 1, 1)?;
    data.set_len(64 * BLOCK)?;
    disk.fill()?;
    assert_eq!(errno(write(&data, 40, 2)), Some(Errno::NOSPC));
    write(&data, 0, 2)?;
    data.sync_data()?;
    disk.empty()?;
    write(&data, 40, 2)?;
    assert_eq!([shown(&data, 0)?, shown(&data, 40)?, shown(&data, 41)?], [2, 2, 0]);
    Ok(())
}

#[test]
fn a_delay_is_that_long_and_requests_wait_side_by_side() -> Result<()> {
    let disk = disk("delays", 7)?;
    let data = written(&disk, "data", 8, 1)?;
    let (least, most) = (Duration::from_millis(30), Duration::from_millis(60));
    disk.delay(Op::Write, least, most)?;
    let one = Instant::now();
    write(&data, 0, 2)?;
    ensure!((least..most * 4).contains(&one.elapsed()), "one write took {:?}", one.elapsed());
    let eight = Instant::now();
    let data = &data;
    thread::scope(|scope| {
        let writers: Vec<_> = (0..8).map(|at| scope.spawn(move || write(data, at, 3))).collect();
        writers.into_iter().try_for_each(|writer| writer.join().expect("it does not panic"))
    })?;
    ensure!((least..least * 8).contains(&eight.elapsed()), "eight at once took {:?}", eight.elapsed());
    disk.heal()?;
    disk.delay(Op::Flush, least, least)?;
    let flush = Instant::now();
    data.sync_data()?;
    ensure!((least..least * 8).contains(&flush.elapsed()), "a flush took {:?}", flush.elapsed());
    Ok(())
}

#[test]
fn writes_on_their_way_fail_at_a_power_cut_and_what_was_flushed_stays() -> Result<()> {
    for seed in 0..4 {
        let mut disk = disk("midway", seed)?;
        let data = written(&disk, "data", 16, 1)?;
        let (flushed, last_written) = (AtomicU64::new(1), AtomicU64::new(1));
        thread::scope(|scope| -> Result<()> {
            let writer = scope.spawn(|| write_until_it_fails(&data, &flushed, &last_written));
            while flushed.load(Ordering::SeqCst) < 20 && !writer.is_finished() {
                thread::park_timeout(Duration::from_millis(1));
            }
            disk.power_cut_but(Survives::Some { per_mille: 500, tear_bytes: Some(4096) })?;
            assert_eq!(errno::<()>(Err(writer.join().expect("it does not panic"))), Some(Errno::IO));
            Ok(())
        })?;
        drop(data);
        disk.power_on()?;
        let data = direct(&disk.path().join("data"))?;
        let (flushed, last_written) = (flushed.into_inner(), last_written.into_inner());
        for at in 0..16 {
            let shown = shown(&data, at)?;
            ensure!((flushed..=last_written).contains(&shown), "block {at}: {shown}, not {flushed}..={last_written}");
        }
    }
    Ok(())
}

/// All blocks get one number after the other; after each number a flush.
fn write_until_it_fails(data: &File, flushed: &AtomicU64, last_written: &AtomicU64) -> io::Error {
    for number in 2.. {
        last_written.store(number, Ordering::SeqCst);
        match (0..16).try_for_each(|at| write(data, at, number)).and_then(|()| data.sync_data()) {
            Ok(()) => flushed.store(number, Ordering::SeqCst),
            Err(failed) => return failed,
        }
    }
    unreachable!("nobody writes so many numbers")
}

#[test]
fn a_process_of_an_earlier_life_holds_a_dead_disk_and_not_the_new_one() -> Result<()> {
    let mut disk = disk("earlier-life", 8)?;
    let old = written(&disk, "data", 2, 1)?;
    disk.power_cut()?;
    disk.power_on()?;
    let new = direct(&disk.path().join("data"))?;
    ensure!(write(&old, 0, 9).is_err(), "a write into the old life succeeded");
    assert_eq!((shown(&new, 0)?, disk.earlier_lives()?), (1, 1));
    drop((old, new));
    disk.power_cut()?;
    ensure!(until(|| disk.earlier_lives().is_ok_and(|lives| lives == 0)), "{} stay", disk.earlier_lives()?);
    Ok(())
}

#[test]
fn twenty_power_cuts_leave_nothing_behind() -> Result<()> {
    let mut disk = disk("twenty", 9)?;
    let data = written(&disk, "data", 2, 0)?;
    drop(data);
    for cycle in 1..=20 {
        let data = direct(&disk.path().join("data"))?;
        assert_eq!([shown(&data, 0)?, shown(&data, 1)?], [cycle - 1, 0]);
        write(&data, 0, cycle)?;
        data.sync_data()?;
        write(&data, 1, cycle)?;
        drop(data);
        disk.power_cut()?;
        leaves_nothing("twenty").with_context(|| format!("cycle {cycle}"))?;
        disk.power_on()?;
    }
    drop(disk);
    ensure!(!folder("twenty").exists(), "the folder is left");
    leaves_nothing("twenty")
}

#[test]
fn no_folder_but_one_of_a_disk_is_taken_and_no_disk_of_a_living_test() -> Result<()> {
    let others = folder("others");
    fs::create_dir_all(&others)?;
    fs::write(others.join("precious"), "x")?;
    let refused = Disk::create(&others, SIZE_MIB, 1).err().context("a folder of something else was taken")?;
    ensure!(refused.to_string().contains("something else") && others.join("precious").exists(), "{refused}");
    fs::remove_dir_all(&others)?;

    let disk = Disk::create(folder("taken"), 32, 1)?;
    let refused = Disk::create(folder("taken"), 32, 1).err().context("a disk in use was taken")?;
    ensure!(refused.to_string().contains("lives"), "{refused}");
    written(&disk, "still-there", 1, 1)?;
    ensure!(Disk::create(folder("small"), 8, 1).is_err(), "XFS has no such small file systems");
    Ok(())
}

#[test]
fn a_test_that_panics_leaves_nothing() -> Result<()> {
    let panicked = thread::spawn(|| {
        let disk = disk("panic", 10).expect("it is made");
        let _open = written(&disk, "data", 1, 1).expect("it is written");
        std::panic::resume_unwind(Box::new("as a failed assertion does, without its noise"));
    });
    ensure!(panicked.join().is_err(), "it did not panic");
    leaves_nothing("panic")
}

#[test]
fn what_a_killed_test_leaves_goes_without_it() -> Result<()> {
    let killed = this_test_program(&[]).env("KILLED", "killed").status()?;
    assert_eq!(killed.signal(), Some(9));
    leaves_nothing("killed")?;
    ensure!(until(|| !folder("killed").exists()), "the folder is left");
    Ok(())
}

#[test]
fn what_a_killed_test_and_its_killed_processes_leave_goes_at_the_next_start() -> Result<()> {
    let killed = this_test_program(&[]).env("KILLED", "killed-all").env("KILL_ALL", "1").status()?;
    assert_eq!(killed.signal(), Some(9));
    ensure!(!left_of("killed-all")?.is_empty(), "nothing was left, so nothing is shown");
    let disk = disk("killed-all", 11)?;
    written(&disk, "data", 1, 1)?;
    drop(disk);
    leaves_nothing("killed-all")
}

#[test]
fn a_disk_in_a_mount_namespace_of_its_own_goes_with_it() -> Result<()> {
    let mut unshare = this_test_program(&["unshare", "--mount", "--propagation", "private"]);
    let killed = unshare.env("KILLED", "namespace").env("KILL_ALL", "1").status()?;
    assert_eq!(killed.signal(), Some(9));
    leaves_nothing("namespace")?;
    drop(disk("namespace", 13)?);
    Ok(())
}

/// Not a test by itself: the body of the process that the tests above start, and that dies.
#[test]
#[ignore = "started by other tests, with KILLED set"]
fn makes_a_disk_and_is_killed() -> Result<()> {
    let mut disk = disk(&std::env::var("KILLED")?, 12)?;
    let data = written(&disk, "data", 1, 1)?;
    disk.power_cut()?;
    disk.power_on()?;
    drop(data);
    write(&direct(&disk.path().join("data"))?, 0, 2)?;
    if std::env::var_os("KILL_ALL").is_some() {
        kill(noted_pid(&disk.path().with_file_name("keeper"))?)?;
        kill(noted_pid(&disk.path().with_file_name("server"))?)?;
    }
    kill(rustix::process::getpid())
}

/// The program of these tests, told to run the one that dies; through another program if that is named.
fn this_test_program(through: &[&str]) -> Command {
    let own = std::env::current_exe().expect("we run from a file").into_os_string();
    let mut words = through.iter().map(Into::into).chain([own]);
    let mut command = Command::new(words.next().expect("our own program is one"));
    command.args(words).args(["--exact", "makes_a_disk_and_is_killed", "--ignored", "--nocapture"]);
    command.stdout(Stdio::null());
    command
}

fn noted_pid(note: &Path) -> Result<rustix::process::Pid> {
    let note = fs::read_to_string(note)?;
    let pid = note.split(' ').next().context("an empty note")?.parse()?;
    rustix::process::Pid::from_raw(pid).context("no pid")
}

fn kill(process: rustix::process::Pid) -> Result<()> {
    Ok(rustix::process::kill_process(process, rustix::process::Signal::KILL)?)
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("disks").join(name)
}

fn disk(name: &str, seed: u64) -> Result<Disk> {
    Disk::create(folder(name), SIZE_MIB, seed)
}

/// What the machine's own tools tell of loop devices and mounts. Another test's new mount namespace may hold a copy for
/// a moment, so this one waits.
fn leaves_nothing(name: &str) -> Result<()> {
    ensure!(until(|| left_of(name).is_ok_and(|left| left.is_empty())), "this is left: {:?}", left_of(name)?);
    Ok(())
}

fn left_of(name: &str) -> Result<Vec<String>> {
    let told = Command::new("losetup").args(["--list", "--noheadings", "--output", "NAME,BACK-FILE"]).output()?;
    ensure!(told.status.success(), "losetup failed");
    let both = format!("{}{}", String::from_utf8(told.stdout)?, fs::read_to_string("/proc/self/mounts")?);
    // Files below loop devices have the folder in their name, with another sign between its parts.
    let folder = format!("{}/", folder(name).display());
    Ok(both.replace('%', "/").lines().filter(|line| line.contains(&folder)).map(str::to_owned).collect())
}

fn until(mut is_so: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so() && Instant::now() < end {
        thread::park_timeout(Duration::from_millis(5));
    }
    is_so()
}

/// What O_DIRECT takes: memory that begins at a multiple of the block.
#[repr(align(4096))]
struct Block([u8; 4096]);

fn direct(path: &Path) -> io::Result<File> {
    let o_direct = i32::try_from(OFlags::DIRECT.bits()).expect("one flag fits");
    File::options().read(true).write(true).create(true).truncate(false).custom_flags(o_direct).open(path)
}

/// A file whose blocks all show this number, durably, its name too.
fn written(disk: &Disk, name: &str, blocks: u64, number: u64) -> io::Result<File> {
    let file = direct(&disk.path().join(name))?;
    rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, blocks * BLOCK)?;
    (0..blocks).try_for_each(|at| write(&file, at, number))?;
    file.sync_all()?;
    File::open(disk.path())?.sync_all()?;
    Ok(file)
}

fn write(file: &File, at: u64, number: u64) -> io::Result<()> {
    let mut block = Block([0; 4096]);
    block.0.chunks_exact_mut(8).for_each(|word| word.copy_from_slice(&number.to_le_bytes()));
    file.write_all_at(&block.0, at * BLOCK)
}

/// The number that the whole block shows.
fn shown(file: &File, at: u64) -> io::Result<u64> {
    let mut block = Block([0; 4096]);
    file.read_exact_at(&mut block.0, at * BLOCK)?;
    let (words, _) = block.0.as_chunks::<8>();
    if words.iter().any(|word| word != &words[0]) {
        return Err(io::Error::other("a torn block"));
    }
    Ok(u64::from_le_bytes(words[0]))
}

fn errno<T>(done: io::Result<T>) -> Option<Errno> {
    done.err().as_ref().and_then(Errno::from_io_error)
}
