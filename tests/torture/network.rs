//! One bridge, a namespace for each host, and what is cut between them.
//!
//! ```text
//!  ours: fabric 10.77.0.254 ── port n1 ══ eth0 10.77.0.1 in namespace n1
//!                           ── port n2 ══ ...
//!                           ── port arb
//! ```
//!
//! Clients connect on the loopback of the host whose node they use, as a guest's QEMU does: a host that is cut off has clients all
//! the same. Names are free to choose, since no other process on the machine sees them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const FABRIC: &str = "fabric";
/// Where `ip` keeps names of namespaces: a file system of our own is mounted there.
const NAMES: &str = "/run/netns";
/// What a slow link lets through, and how much of that it loses.
const SLOW_KBYTES_PER_S: u32 = 400;
const SLOW_LOST_PERCENT: u32 = 5;

/// A place on the bridge, by the last part of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Port(pub(crate) u8);

pub(crate) const ARBITER: Port = Port(9);
const OURS: Port = Port(254);

impl Port {
    pub(crate) fn address(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.0).into()
    }

    /// Enters its network, with this thread alone.
    pub(crate) fn enter(self) -> Result<()> {
        let file = File::open(format!("{NAMES}/{self}")).with_context(|| format!("{self} has no network"))?;
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("could not enter the network of {self}"))
    }

    /// Starts a program there, when the words of the command follow.
    pub(crate) fn nsenter(self) -> String {
        format!("nsenter --net={NAMES}/{self} --")
    }
}

impl fmt::Display for Port {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == ARBITER { to.write_str("arb") } else { write!(to, "n{}", self.0) }
    }
}

/// What happens to frames from one port to another; `None`: of any port, to any port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bend {
    pub(crate) from: Option<Port>,
    pub(crate) to: Option<Port>,
    pub(crate) how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Cut,
    /// Little goes through, and some of that is lost.
    Slow,
    /// Half of it is lost: what is sent again comes late.
    Lossy,
}

impl Bend {
    fn rules(self, out: &mut String) {
        let mut matching = String::from("add rule bridge torture forward");
        for (word, port) in [("iifname", self.from), ("oifname", self.to)] {
            if let Some(port) = port {
                let _ = write!(matching, " {word} \"{port}\"");
            }
        }
        match self.how {
            How::Cut => drop(writeln!(out, "{matching} drop")),
            How::Lossy => drop(writeln!(out, "{matching} numgen random mod 2 < 1 drop")),
            How::Slow => {
                let _ = writeln!(out, "{matching} limit rate over {SLOW_KBYTES_PER_S} kbytes/second drop");
                let _ = writeln!(out, "{matching} numgen random mod 100 < {SLOW_LOST_PERCENT} drop");
            }
        }
    }
}

/// All links, and what is bent now.
#[derive(Debug)]
pub(crate) struct Network {
    bends: Vec<Bend>,
}

impl Network {
    /// To be called once, before any disk is made: a namespace of mounts that is made later would keep disks alive.
    pub(crate) fn create(ports: &[Port]) -> Result<Self> {
        std::fs::create_dir_all(NAMES)?;
        run("mount", &["-t", "tmpfs", "none", NAMES], "")?;
        let ours = format!("{}/24", OURS.address());
        let mut lines = format!(
            "link set lo up\nlink add name {FABRIC} type bridge\naddr add {ours} dev {FABRIC}\nlink set {FABRIC} up\n"
        );
        for port in ports {
            run("ip", &["netns", "add", &port.to_string()], "")?;
            let _ = writeln!(lines, "link add {port} type veth peer name eth0 netns {port}");
            let _ = writeln!(lines, "link set {port} master {FABRIC} up");
        }
        run("ip", &["-batch", "-"], &lines)?;
        for port in ports {
            let inside = format!("link set lo up\naddr add {}/24 dev eth0\nlink set eth0 up\n", port.address());
            run("ip", &["-n", &port.to_string(), "-batch", "-"], &inside)?;
        }
        let network = Self { bends: Vec::new() };
        network.apply()?;
        Ok(network)
    }

    pub(crate) fn bend(&mut self, bends: &[Bend]) -> Result<()> {
        self.bends.extend_from_slice(bends);
        self.apply()
    }

    pub(crate) fn heal(&mut self) -> Result<()> {
        self.bends.clear();
        self.apply()
    }

    /// All rules at once, or none.
    fn apply(&self) -> Result<()> {
        let mut rules = String::from(
            "add table bridge torture\ndelete table bridge torture\nadd table bridge torture\n\
             add chain bridge torture forward { type filter hook forward priority 0; }\n",
        );
        self.bends.iter().for_each(|bend| bend.rules(&mut rules));
        run("nft", &["-f", "-"], &rules)
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> Result<()> {
    let mut command = Command::new(program);
    let piped = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = piped.spawn().with_context(|| format!("could not start {program}: is it installed?"))?;
    running.stdin.take().context("it was piped")?.write_all(input.as_bytes())?;
    let done = running.wait_with_output()?;
    let said = String::from_utf8_lossy(&done.stderr);
    ensure!(done.status.success(), "`{program} {}` failed: {}; it was told: {input}", arguments.join(" "), said.trim());
    Ok(())
}
