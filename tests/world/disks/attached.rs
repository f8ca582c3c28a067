//! What the kernel has of a disk: a loop device, a mount, the processes behind it; and how all that goes again.
//!
//! A disk's state folder says all that is its own, so that the leftovers of a test that was killed are found, and
//! nothing else on the machine is touched: `owner`, `keeper` and `server` name a process each, XFS is mounted below the
//! folder, and the file under a loop device bears the folder's name in its own, since that file's mount is out of sight.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{Pid, Signal, kill_process};

/// How long the kernel may take to let go of what nobody uses any more, or a process to end.
const LETS_GO_WITHIN: Duration = Duration::from_secs(10);
/// Where XFS is mounted, below the state folder.
pub(super) const MOUNTED: &str = "mounted";
/// What every FUSE file has in its name, and nobody else's file.
const LIFE: &str = "%life-";
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(2);

/// Writes the image of an empty disk with XFS on it. Images below 300 MiB are more than XFS' authors promise for, and
/// enough for tests: their log is small, so that a mount is fast.
pub(super) fn format(image: &Path, size_mib: u32) -> Result<()> {
    let file = fs::File::create_new(image).with_context(|| format!("cannot make {}", image.display()))?;
    file.set_len(u64::from(size_mib) << 20)?;
    run(Command::new("mkfs.xfs").args(["-q", "-K", "--unsupported"]).arg(image), "apt-get install xfsprogs")?;
    Ok(())
}

/// A loop device over the file, with direct I/O so that nothing is cached between the two.
pub(super) fn attach(file: &Path) -> Result<PathBuf> {
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--direct-io=on"]).arg(file);
    Ok(PathBuf::from(run(&mut losetup, "apt-get install mount")?.trim()))
}

/// From now on the loop device goes when its last user goes (loop(4), LO_FLAGS_AUTOCLEAR).
pub(super) fn detach_when_unused(device: &Path) -> Result<()> {
    run(Command::new("losetup").arg("--detach").arg(device), "apt-get install mount").map(drop)
}

/// XFS refuses a UUID that is mounted already. While somebody holds a file of an earlier life that one still is, dead.
pub(super) fn mount_xfs(device: &Path, folder: &Path) -> Result<()> {
    let options = CString::new("nouuid").expect("without a zero byte");
    mount(device, folder, "xfs", MountFlags::NOATIME, options.as_c_str())
        .with_context(|| format!("cannot mount {} on {}", device.display(), folder.display()))
}

/// Off the folder at once, whoever still has files open. Fine if nothing is mounted there.
pub(super) fn unmount_now(folder: &Path) -> Result<()> {
    match unmount(folder, UnmountFlags::DETACH) {
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => Ok(()),
        Err(failed) => Err(failed).with_context(|| format!("cannot unmount {}", folder.display())),
    }
}

/// The name of the FUSE file of one life; no other file on the machine has it.
pub(super) fn file_of_life(state: &Path, life: u32) -> String {
    format!("{}{life}", file_of_lives(state))
}

fn file_of_lives(state: &Path) -> String {
    format!("{}{LIFE}", state.to_string_lossy().replace('/', "%"))
}

/// Loop devices over files of any life of this disk.
pub(super) fn loop_devices_of(state: &Path) -> Result<Vec<PathBuf>> {
    let lives = file_of_lives(state);
    Ok(loop_devices()?.into_iter().filter(|(_, file)| file.starts_with(&lives)).map(|(device, _)| device).collect())
}

/// A new mount namespace has copies of all mounts. Those of disks would keep them alive after their power cuts, so a
/// server, which has a namespace of its own, takes them off there.
pub(super) fn unmount_copies_of_disks() -> Result<()> {
    let disks: Vec<_> = loop_devices()?.into_iter().filter(|(_, file)| file.contains(LIFE)).collect();
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    for (device, point) in mounts.lines().filter_map(|line| line.split_once(' ')) {
        if disks.iter().any(|(disk, _)| disk == Path::new(device)) {
            let point = point.split(' ').next().unwrap_or_default();
            unmount_now(Path::new(point))?;
        }
    }
    Ok(())
}

/// Each that has a file, with the last part of that file's name: what is before it is not to be seen from everywhere.
fn loop_devices() -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for device in fs::read_dir("/sys/block").context("cannot read /sys/block")? {
        let device = device?;
        // Without that file it is no loop device, or one without a file.
        let Ok(path) = fs::read_to_string(device.path().join("loop/backing_file")) else { continue };
        if let Some(file) = Path::new(path.trim_end()).file_name() {
            found.push((Path::new("/dev").join(device.file_name()), file.to_string_lossy().into_owned()));
        }
    }
    Ok(found)
}

/// Ends the processes, unmounts, detaches and removes all of a disk whose owner is gone or is done with it.
pub(super) fn clean_up(state: &Path) -> Result<()> {
    let noted = ["keeper", "server"].into_iter().filter_map(|role| Process::noted(state, role));
    noted.filter(|process| process.pid != std::process::id()).try_for_each(|process| process.end())?;
    unmount_now(&state.join(MOUNTED))?;
    for device in loop_devices_of(state)? {
        // It may have gone by itself meanwhile.
        let detached = detach_when_unused(&device);
        if loop_devices_of(state)?.contains(&device) {
            detached?;
        }
    }
    let went = wait_until(|| Ok(loop_devices_of(state)?.is_empty()))?;
    ensure!(went, "a process still holds files of the disk in {}: end it first", state.display());
    match fs::remove_dir_all(state) {
        Err(failed) if failed.kind() != ErrorKind::NotFound => {
            Err(failed).with_context(|| format!("cannot remove {}", state.display()))
        }
        _ => Ok(()),
    }
}

/// Polls what no event tells of, for a bounded time; whether it came true.
pub(super) fn wait_until(mut is_so: impl FnMut() -> Result<bool>) -> Result<bool> {
    let end = Instant::now() + LETS_GO_WITHIN;
    while !is_so()? {
        if Instant::now() > end {
            return Ok(false);
        }
        thread::park_timeout(LOOK_AGAIN_AFTER);
    }
    Ok(true)
}

/// A process that no other can be taken for: its number may come again, its number and start time do not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Process {
    pid: u32,
    /// In clock ticks since the boot (proc_pid_stat(5), field 22).
    started: u64,
}

impl Process {
    pub(super) fn with_pid(pid: u32) -> Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        // The name in parentheses may hold anything, so counting starts behind it, with field 3.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat without a name")?;
        let started = fields.split_whitespace().nth(19).context("/proc/PID/stat without a start time")?;
        Ok(Self { pid, started: started.parse()? })
    }

    pub(super) fn note(&self, state: &Path, role: &str) -> io::Result<()> {
        fs::write(state.join(role), format!("{} {}\n", self.pid, self.started))
    }

    /// As noted in a state folder, if a note can be read there.
    pub(super) fn noted(state: &Path, role: &str) -> Option<Self> {
        let note = fs::read_to_string(state.join(role)).ok()?;
        let (pid, started) = note.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok()?, started: started.parse().ok()? })
    }

    /// A zombie, which has only its parent left to tell, lives no more.
    pub(super) fn lives(&self) -> bool {
        let is_zombie = || fs::read_to_string(format!("/proc/{}/stat", self.pid)).is_ok_and(|s| s.contains(") Z "));
        Self::with_pid(self.pid).is_ok_and(|now| now == *self) && !is_zombie()
    }

    fn end(&self) -> Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a pid that cannot be")?;
        if self.lives() {
            // It may end between the two.
            kill_process(pid, Signal::KILL).or_else(|failed| match failed {
                rustix::io::Errno::SRCH => Ok(()),
                other => Err(other),
            })?;
        }
        ensure!(wait_until(|| Ok(!self.lives()))?, "process {} does not end", self.pid);
        Ok(())
    }
}

fn run(command: &mut Command, remedy: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let done = command.output().with_context(|| format!("cannot start {name}: {remedy}"))?;
    if !done.status.success() {
        bail!("{name} failed ({}): {}", done.status, String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}
