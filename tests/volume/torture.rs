//! A short torture run: a node killed, the Primary's power cut, a Primary paused past its lease. `make torture-volume` is the long one.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

const GONE_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn clients_lose_nothing_while_nodes_are_killed_without_power_and_paused() -> Result<()> {
    let folder = folder("torture");
    let done = torture(&folder).args(["--cycles", "3"]).output()?;
    let told = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    ensure!(done.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("volume.json"))?)?;
    for (name, value) in [("cycles", 3), ("lost_acknowledged_writes", 0), ("stale_reads", 0), ("diverged_replicas", 0)]
    {
        ensure!(report[name] == value, "{name} is {}: {told}", report[name]);
    }
    let requests = report["requests"].as_u64().unwrap_or_default();
    ensure!(requests > 1000, "{requests} requests are too few to show anything: {told}");
    Ok(())
}

#[test]
fn a_run_that_is_killed_leaves_no_process_and_no_disk() -> Result<()> {
    let folder = folder("torture-killed");
    let mut run = torture(&folder).args(["--cycles", "1"]).stdout(Stdio::piped()).spawn()?;
    let mut first = String::new();
    BufReader::new(run.stdout.take().context("it was piped")?).read_line(&mut first)?;
    ensure!(first.contains("kill -9"), "it began with: {first}");
    ensure!(!left_of(&folder)?.is_empty(), "nothing runs, so nothing is shown");
    run.kill()?;
    run.wait()?;
    let end = Instant::now() + GONE_WITHIN;
    while !left_of(&folder)?.is_empty() {
        ensure!(Instant::now() < end, "this is left: {:?}", left_of(&folder)?);
        thread::park_timeout(Duration::from_millis(20));
    }
    Ok(())
}

fn torture(folder: &Path) -> Command {
    let mut torture = Command::new(env!("CARGO_BIN_EXE_torture-volume"));
    torture.args(["--brief", "--seed", "1", "--from", "1", "--folder"]).arg(folder);
    torture
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Command lines that name the folder, and files of loop devices, whose names have it with another sign between its parts.
fn left_of(folder: &Path) -> Result<Vec<String>> {
    let of_processes = fs::read_dir("/proc")?.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let of_devices =
        fs::read_dir("/sys/block")?.filter_map(|entry| fs::read(entry.ok()?.path().join("loop/backing_file")).ok());
    let names = of_processes.chain(of_devices).map(|bytes| String::from_utf8_lossy(&bytes).replace('%', "/"));
    let folder = format!("{}/", folder.display());
    Ok(names.filter(|name| name.contains(&folder)).collect())
}
