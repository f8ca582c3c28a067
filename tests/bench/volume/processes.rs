//! The processes that serve: what they cost, and that they end with us.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use system_tests::addresses::free_address;

const PATIENCE: Duration = Duration::from_secs(30);

/// A process of ours: it is killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL, and it is gone when this returns.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill(); // it fails where the process is gone already
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// User and system time of these processes so far.
pub(crate) fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let ticks = pids.iter().map(|pid| ticks(*pid)).sum::<Result<u64>>()?;
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / rustix::param::clock_ticks_per_second())))
}

/// Fields 14 and 15 of /proc/PID/stat, proc(5); the second field may hold anything in its parentheses.
fn ticks(pid: u32) -> Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).context("a server has ended")?;
    let (_, rest) = stat.rsplit_once(") ").context("the name ends with a parenthesis")?;
    let fields: Vec<_> = rest.split(' ').collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}

/// How long their threads have waited for a processor so far: what other work on this machine took from them (schedstat of proc(5)).
pub(crate) fn waiting_time(pids: &[u32]) -> Result<Duration> {
    let waited = pids.iter().map(|pid| waited_ns(*pid)).sum::<Result<u64>>()?;
    Ok(Duration::from_nanos(waited))
}

fn waited_ns(pid: u32) -> Result<u64> {
    let mut waited_ns = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).context("a server has ended")? {
        // A thread may end meanwhile, and a kernel may not count.
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        waited_ns += text.split_whitespace().nth(1).map_or(Ok(0), str::parse::<u64>)?;
    }
    Ok(waited_ns)
}

/// From here on [`peak_kib`] counts anew, where the kernel has clear_refs of proc(5); else since the process began.
pub(crate) fn forget_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// The most memory that it held resident.
pub(crate) fn peak_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmHWM:")
}

/// The memory that it holds resident now.
pub(crate) fn resident_kib(pid: u32) -> Result<u64> {
    status_kib(pid, "VmRSS:")
}

fn status_kib(pid: u32, name: &str) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(name)).with_context(|| format!("Linux says {name}"))?;
    Ok(line.split_whitespace().nth(1).context("a number follows")?.parse()?)
}

/// Of the last minute: how many threads ran or waited for a processor or a disk.
pub(crate) fn load_average() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/loadavg")?;
    Ok(text.split(' ').next().context("it begins with a number")?.parse()?)
}

/// Waits, 30 s at most.
pub(crate) fn until<T>(what: &str, seen: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    until_every(Duration::from_millis(2), what, seen)
}

/// The same, and looks as often.
pub(crate) fn until_every<T>(every: Duration, what: &str, mut seen: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(it) = seen()? {
            return Ok(it);
        }
        ensure!(Instant::now() < deadline, "waited {} s in vain until {what}", PATIENCE.as_secs());
        pause(every);
    }
}

/// Lets time pass in which something is measured, or before something is tried again.
#[expect(clippy::disallowed_methods, reason = "what is waited for is time")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// qemu-nbd over a file: an NBD server that does not replicate.
pub(crate) fn qemu_nbd(file: &Path) -> Result<(Process, SocketAddr)> {
    let address = free_address("127.0.0.1")?;
    let process = Command::new("qemu-nbd")
        .args(["--cache=none", "--aio=io_uring", "-f", "raw", "--shared=4", "-t", "-x", "bench"])
        .args(["-b", "127.0.0.1", "-p", &address.port().to_string()])
        .arg(file)
        .stdin(Stdio::null())
        .spawn()
        .context("qemu-nbd does not start: `make tools` installs it")?;
    let process = Process(process);
    until("qemu-nbd listens", || Ok(system_tests::nbd::dial(address, "bench", PATIENCE).ok()))?;
    Ok((process, address))
}
