//! `torture-volume`: real nodes on disks that lose their caches, in networks that are cut, while clients keep account of what they were told.
//!
//! ```text
//!  torture-volume ──▶ unshare: user of its own network, mounts and processes ──▶ torture-volume, as process 1 there
//!     stdin of it is a pipe that ends with us                                      bridge ─ n1, n2, n3: tandem-node, each on its disk
//!                                                                                         ─ arb: tandem-node arbiter
//! ```
//!
//! Nothing of it is on the machine's network, and whatever happens to it, all of it goes: the kernel ends a process
//! namespace with its first process, and network and mounts with their last one. What stays is its folder.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use clap::Parser;

mod clients;
mod cluster;
mod faults;
mod gap;
mod host;
mod judge;
mod network;
mod process;
mod report;
mod rest;
mod run;

/// Torments replicated volumes and judges what their clients saw.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// How many times something breaks and is repaired
    #[arg(long, env = "CYCLES", default_value_t = 200)]
    cycles: u32,
    /// What breaks, and when, follows from it
    #[arg(long, env = "SEED", default_value_t = 1)]
    seed: u64,
    /// The first cycle, to come sooner to one that failed
    #[arg(long, env = "FROM", default_value_t = 1)]
    from: u32,
    /// A killed node, a power cut of the Primary and a pause past the lease, instead of what the seed says
    #[arg(long)]
    brief: bool,
    /// Folder for disks, logs and the result; emptied at the start, except for the result
    #[arg(long, default_value = "target/torture")]
    folder: PathBuf,
    /// Only within the namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.inside { run::inside(&arguments) } else { enclose(&arguments.folder) };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("torture-volume: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again in namespaces of its own, and waits for it.
fn enclose(folder: &Path) -> Result<ExitCode> {
    std::fs::create_dir_all(folder).with_context(|| format!("could not make {}", folder.display()))?;
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--pid", "--mount", "--mount-proc", "--propagation", "private", "--fork", "--kill-child"]);
    unshare.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--inside");
    // It ends with the pipe, and the pipe with us.
    let mut within =
        unshare.stdin(Stdio::piped()).spawn().context("could not start unshare: apt-get install util-linux")?;
    let line = within.stdin.take();
    let ended = within.wait()?;
    drop(line);
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
