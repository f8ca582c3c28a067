//! Disks of a node with a volatile write cache that real power cuts empty: XFS on a loop device over a FUSE file of ours.
//!
//! ```text
//!  node ─▶ XFS, its page cache ─▶ loop device, direct I/O ─▶ FUSE ─▶ server: a process per life ─▶ image
//!                                                                    cache, faults, delays
//!             create, power_on                  power_cut
//!  (no disk) ──────────────────▶ On: life N ◀──────────────▶ Off: the image holds what was flushed, and what was spared
//! ```
//!
//! kill -9 of a node never loses a cache, since the kernel keeps its page cache and finishes the I/O. A power cut here ends
//! the server in the middle of whatever is on its way: its cache is gone, every I/O of that life fails from then on, and
//! so what XFS still holds can reach nothing. The next life has a server, a FUSE mount, a loop device and an XFS mount of
//! its own over the same image, and XFS replays its log. A process of the old life that still has files open keeps a dead
//! file system, not the new one.
//!
//! A power cut of a node is: SIGKILL to its processes, `power_cut` at once (a process that waits for the disk ends only
//! then), wait for the processes, `power_on`, start them.
//!
//! It needs root, /dev/fuse, /dev/loop-control, util-linux and xfsprogs. In a mount namespace of its own a disk works as
//! well, and goes with it. A namespace that is made while a disk is on gets a copy of its mount and keeps a dead life in
//! memory until it ends: make a node's namespace first, and its disk within, or take the copies off there.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::fs::{FallocateFlags, fallocate, statvfs};

mod attached;
mod media;
mod orders;
pub mod server;

use attached::Process;
use orders::{Answer, Order};
pub use orders::{Counts, Fault, FlushLoses, Op, Survives};

/// The program of `disks/main.rs`, as Cargo names it.
const PROGRAM: &str = "tandem-disk-under-test";
const IMAGE: &str = "image";
/// Where a server has its mount, in its own mount namespace; elsewhere an empty folder.
const FUSE: &str = "fuse";
/// XFS has no smaller file systems.
const SMALLEST_MIB: u32 = 32;
const FILLER: &str = ".filler";

/// A disk with an empty XFS on it. Dropped, it is gone with all that it needed, also while a test panics.
#[derive(Debug)]
pub struct Disk {
    state: PathBuf,
    seed: u64,
    life: u32,
    power: Power,
    /// Cleans up if we cannot.
    keeper: Child,
}

#[derive(Debug)]
enum Power {
    On(Mutex<Server>),
    Off,
}

/// The process of one life, and the line to it.
#[derive(Debug)]
struct Server {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Disk {
    /// A new disk that is on, with its state in `state`, a folder that it makes and removes. What a killed test left in a
    /// folder of this name is cleaned first, so give a test's disk the same name in every run.
    pub fn create(state: impl AsRef<Path>, size_mib: u32, seed: u64) -> Result<Self> {
        ensure!(size_mib >= SMALLEST_MIB, "a disk of {size_mib} MiB is too small for XFS: at least {SMALLEST_MIB}");
        let state = existing(state.as_ref())?;
        let owner = Process::noted(&state, "owner").filter(Process::lives);
        ensure!(owner.is_none(), "{} is the disk of {owner:?}, which lives", state.display());
        let is_ours = state.join("owner").exists() || fs::read_dir(&state)?.next().is_none();
        ensure!(is_ours, "{} is a folder of something else, and would be removed", state.display());
        attached::clean_up(&state).context("cannot clean what a killed test has left")?;
        ["", attached::MOUNTED, FUSE].iter().try_for_each(|folder| existing(&state.join(folder)).map(drop))?;
        Process::with_pid(std::process::id())?.note(&state, "owner")?;
        let keeper = start_keeper(&state)?;
        let mut disk = Self { state, seed, life: 0, power: Power::Off, keeper };
        Process::with_pid(disk.keeper.id())?.note(&disk.state, "keeper")?;
        attached::format(&disk.image(), size_mib)?;
        disk.power_on()?;
        Ok(disk)
    }

    /// Where its file system is mounted. While the power is off this folder is empty and read by nobody.
    pub fn path(&self) -> PathBuf {
        self.state.join(attached::MOUNTED)
    }

    /// The power goes, and with it all that no completed flush covered.
    pub fn power_cut(&mut self) -> Result<()> {
        self.power_cut_but(Survives::Nothing)
    }

    /// The power goes, but some of the cache was on its way to the medium; which, the seed says.
    pub fn power_cut_but(&mut self, survives: Survives) -> Result<()> {
        let Power::On(server) = std::mem::replace(&mut self.power, Power::Off) else {
            bail!("the disk in {} has no power already", self.state.display());
        };
        let cut = server.into_inner().unwrap_or_else(PoisonError::into_inner).cut(survives);
        attached::unmount_now(&self.path())?;
        cut
    }

    /// The power is back: XFS is mounted anew, with its log replayed. Faults and delays are forgotten.
    pub fn power_on(&mut self) -> Result<()> {
        ensure!(matches!(self.power, Power::Off), "the disk in {} has power already", self.state.display());
        self.life += 1;
        let (server, device) = Server::start(&self.state, self.life, self.seed_of_this_life())?;
        self.power = Power::On(Mutex::new(server));
        let mounted = attached::mount_xfs(&device, &self.path());
        attached::detach_when_unused(&device)?;
        mounted
    }

    /// The next `times` operations (`None`: all until it is healed) that touch these bytes of the disk fail with EIO, and
    /// lose nothing else. A flush touches all. An error in the log of XFS shuts that file system down, as it does on real
    /// disks; `bytes_of` says where a file lies.
    pub fn fail(&self, op: Op, range: Range<u64>, times: Option<u32>) -> Result<()> {
        self.fails(Fault { op, range, times, flush_loses: FlushLoses::Nothing })
    }

    /// The next flush fails once, and what it should have covered of this range is lost; the one after succeeds.
    pub fn lose_at_next_flush(&self, range: Range<u64>, flush_loses: FlushLoses) -> Result<()> {
        self.fails(Fault { op: Op::Flush, range, times: Some(1), flush_loses })
    }

    pub fn fails(&self, fault: Fault) -> Result<()> {
        self.order(&Order::Fail(fault))
    }

    /// Every such operation takes that much longer: the same each time if both are equal, or else as the seed says.
    pub fn delay(&self, op: Op, least: Duration, most: Duration) -> Result<()> {
        let (least_us, most_us) = (u64::try_from(least.as_micros())?, u64::try_from(most.as_micros())?);
        self.order(&Order::Delay { op, least_us, most_us })
    }

    /// No faults and delays any more.
    pub fn heal(&self) -> Result<()> {
        self.order(&Order::Heal)
    }

    /// What it was asked since its power came on.
    pub fn counts(&self) -> Result<Counts> {
        match self.ask(&Order::Count)? {
            Answer::Counted(counts) => Ok(counts),
            other => bail!("the disk in {} was asked for its counts and said {other:?}", self.state.display()),
        }
    }

    /// No block is free any more: writes to what has its place go on, others get ENOSPC.
    pub fn fill(&self) -> Result<()> {
        let filler = File::options().create(true).append(true).open(self.path().join(FILLER))?;
        let free = statvfs(self.path())?;
        let (mut end, mut blocks) = (filler.metadata()?.len(), free.f_bavail.max(1));
        // XFS wants some more free than it takes, so it refuses large pieces first.
        while blocks > 0 {
            match fallocate(&filler, FallocateFlags::empty(), end, blocks * free.f_frsize) {
                Ok(()) => end += blocks * free.f_frsize,
                Err(rustix::io::Errno::NOSPC) => blocks /= 2,
                Err(failed) => return Err(failed).context("cannot fill the disk"),
            }
        }
        Ok(())
    }

    /// What `fill` took is free again.
    pub fn empty(&self) -> Result<()> {
        match fs::remove_file(self.path().join(FILLER)) {
            Err(failed) if failed.kind() != ErrorKind::NotFound => Err(failed).context("cannot remove the filler"),
            _ => Ok(()),
        }
    }

    /// Which bytes of the disk hold the bytes of this file, for those that have a place; in the file's order.
    pub fn bytes_of(&self, file: &Path) -> Result<Vec<Range<u64>>> {
        let mut bmap = Command::new("xfs_io");
        let told = bmap.args(["-r", "-c", "bmap"]).arg(file).output().context("cannot start xfs_io")?;
        ensure!(told.status.success(), "xfs_io failed: {}", String::from_utf8_lossy(&told.stderr));
        // `1: [8..15]: 96..103`, or `: hole`, in sectors, ends included.
        let extents = String::from_utf8(told.stdout)?;
        let placed = extents.lines().filter_map(|line| line.rsplit_once("]: ")?.1.split_once(".."));
        let sector = media::SECTOR as u64;
        placed.map(|(first, last)| Ok(first.parse::<u64>()? * sector..(last.parse::<u64>()? + 1) * sector)).collect()
    }

    /// How many lives that ended somebody still holds, by an open file or in a mount namespace. Their power cuts are
    /// complete, but the kernel keeps a dead file system and a loop device for each.
    pub fn earlier_lives(&self) -> Result<usize> {
        let lives = attached::loop_devices_of(&self.state)?.len();
        Ok(lives - usize::from(lives > 0 && matches!(self.power, Power::On(_))))
    }

    fn image(&self) -> PathBuf {
        self.state.join(IMAGE)
    }

    fn seed_of_this_life(&self) -> u64 {
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(u64::from(self.life))
    }

    fn order(&self, order: &Order) -> Result<()> {
        match self.ask(order)? {
            Answer::Done => Ok(()),
            other => bail!("the disk in {} was told {order:?} and said {other:?}", self.state.display()),
        }
    }

    fn ask(&self, order: &Order) -> Result<Answer> {
        match &self.power {
            Power::On(server) => server.lock().unwrap_or_else(PoisonError::into_inner).ask(order),
            Power::Off => bail!("the disk in {} has no power", self.state.display()),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Power::On(_) = self.power
            && let Err(failed) = self.power_cut()
        {
            eprintln!("disk: {failed:#}");
        }
        if let Err(failed) = attached::clean_up(&self.state).and_then(|()| Ok(self.keeper.wait()?)) {
            eprintln!("disk: something of it is left: {failed:#}");
        }
    }
}

impl Server {
    /// With the loop device of this life.
    fn start(state: &Path, life: u32, seed: u64) -> Result<(Self, PathBuf)> {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]).arg(program()?).arg("serve").arg(state.join(IMAGE));
        unshare.arg(state.join(FUSE)).arg(attached::file_of_life(state, life)).arg(seed.to_string());
        let mut process = with_a_line(unshare).spawn().context("cannot start unshare: apt-get install util-linux")?;
        Process::with_pid(process.id())?.note(state, "server")?;
        let (orders, answers) = (process.stdin.take(), process.stdout.take());
        let (orders, answers) = (orders.context("it was piped")?, answers.context("it was piped")?);
        let mut server = Self { process, orders, answers: BufReader::new(answers) };
        match server.answer()? {
            Answer::Ready { device } => Ok((server, device)),
            other => bail!("the server of a disk began with {other:?}"),
        }
    }

    fn ask(&mut self, order: &Order) -> Result<Answer> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        self.orders.write_all(&line).context("the server of the disk has ended")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<Answer> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the server of the disk has ended without an answer; its reason is on stderr");
        Ok(serde_json::from_str(&line)?)
    }

    /// The server is gone afterwards, whatever it says.
    fn cut(mut self, survives: Survives) -> Result<()> {
        let said = self.ask(&Order::Cut(survives));
        self.process.kill()?;
        self.process.wait()?;
        match said? {
            Answer::Done => Ok(()),
            other => bail!("the disk lost power and said {other:?}"),
        }
    }
}

fn start_keeper(state: &Path) -> Result<Child> {
    let mut keeper = Command::new(program()?);
    keeper.arg("keep").arg(state);
    with_a_line(keeper).stdout(Stdio::null()).spawn().context("cannot start the keeper of a disk")
}

/// In a group of its own: what kills the group of the test leaves it the time to clean up.
fn with_a_line(mut command: Command) -> Command {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    command
}

/// Beside the program of the test, or above the `deps` folder that Cargo builds tests in.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join(PROGRAM));
    let found = candidates.find(|program| program.is_file());
    found.with_context(|| format!("no {PROGRAM} near {}: cargo build -p system-tests --bin {PROGRAM}", own.display()))
}

fn existing(folder: &Path) -> Result<PathBuf> {
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.canonicalize()?)
}
