//! `guests`: a machine with Linux's own initiator, multipathd and os-brick, whose disk is a replicated volume, while nodes die under it.
//!
//! ```text
//!  guests ──▶ unshare: a network of its own ──▶ guests, inside
//!                                                 tap0: 198.18.9.1 .2 .3 the nodes, .9 the arbiter
//!                                                   └─ 198.18.9.10 the machine: iscsid ─ two sessions ─ multipathd ─ ext4 ─ writer.py
//! ```

mod machine;
mod stories;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use system_tests::house::{House, Programs};

use machine::Machine;
use stories::World;

const NETWORK: &str = "198.18.9";
const TAP: &str = "tap0";

/// A machine with Linux's initiator keeps its disk while nodes die.
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// How many times the Primary is killed under the writer
    #[arg(long, env = "KILLS", default_value_t = 1)]
    kills: usize,
    /// How long the volume is frozen under the writer, in seconds; 0: not at all
    #[arg(long, env = "FREEZE", default_value_t = 120)]
    freeze: u64,
    /// Folder of the machine's image, for logs, and for the result
    #[arg(long, default_value = "target/guests")]
    folder: PathBuf,
    /// Only within the namespaces
    #[arg(long, hide = true)]
    inside: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = if arguments.inside { inside(&arguments) } else { enclose() };
    match done {
        Ok(code) => code,
        Err(error) => {
            eprintln!("guests: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Starts this program again in namespaces of its own, and waits for it.
fn enclose() -> Result<ExitCode> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--net", "--pid", "--mount", "--mount-proc", "--propagation", "private", "--fork", "--kill-child"]);
    unshare.arg(std::env::current_exe()?).args(std::env::args_os().skip(1)).arg("--inside");
    let ended = unshare.stdin(Stdio::null()).status().context("could not start unshare: apt-get install util-linux")?;
    Ok(if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn inside(arguments: &Arguments) -> Result<ExitCode> {
    let image = fs::canonicalize(&arguments.folder).context("there is no image: `make guests` builds it")?;
    let run = image.join("run");
    if run.exists() {
        fs::remove_dir_all(&run)?;
    }
    fs::create_dir(&run)?;
    let result = image.join("guests.json");
    let _ = fs::remove_file(&result); // an earlier run's must not stand for this one
    ip(&["link", "set", "lo", "up"])?;
    ip(&["tuntap", "add", TAP, "mode", "tap"])?;
    for part in [1, 2, 3, 9] {
        ip(&["addr", "add", &format!("{NETWORK}.{part}/24"), "dev", TAP])?;
    }
    ip(&["link", "set", TAP, "up"])?;
    let programs = std::env::current_exe()?.parent().context("this program is in no folder")?.to_owned();
    let (node, tandem) = (programs.join("tandem-node-under-test"), programs.join("tandem-under-test"));
    let house = House::create_at(&run, Programs { node, tandem }, Some(NETWORK))?;
    println!("the machine boots");
    let machine = Machine::boot(&image, &run.join("machine"), TAP)?;
    let mut world = World::new(house, machine, source())?;
    world.is_connected_by_os_brick()?;
    world.writes()?;
    let mut gaps = Vec::new();
    for number in 1..=arguments.kills {
        let gap = world.loses_its_primary()?;
        println!("kill {number} of {}: the longest write took {gap:.3} s", arguments.kills);
        gaps.push(gap);
    }
    if arguments.freeze > 0 {
        let gap = world.is_frozen_for(Duration::from_secs(arguments.freeze))?;
        println!("frozen for {} s: the longest write took {gap:.3} s", arguments.freeze);
    }
    let writes = world.loses_nothing()?;
    println!("{writes} writes, none lost, no error in ext4");
    world.is_revoked_while_it_writes()?;
    let worst = gaps.iter().copied().max_by(f64::total_cmp);
    let target = json!({
        "name": "path_failover_p99_s", "value": worst, "limit": 10.0, "better": "lower",
        "holds": worst.is_some_and(|worst| worst <= 10.0),
    });
    let rows = json!([{ "name": "path_failover", "longest_write_s": gaps, "writes": writes }]);
    fs::write(&result, serde_json::to_vec_pretty(&json!({ "rows": rows, "targets": [target] }))?)?;
    println!("-> {}", result.display());
    Ok(ExitCode::SUCCESS)
}

/// This folder, as it was when this was compiled.
fn source() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn ip(words: &[&str]) -> Result<()> {
    let done = Command::new("ip").args(words).stdin(Stdio::null()).output().context("apt-get install iproute2")?;
    ensure!(done.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&done.stderr));
    Ok(())
}
