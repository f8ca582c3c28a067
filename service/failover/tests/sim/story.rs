//! Stories as text: the cloud, what befalls it and when, and then what is to be told of it.

use std::collections::BTreeMap;

use failover::{HostPolicy, Method, Task, VmState};

use super::faults::Fault;
use super::nova::Guest;
use super::world::{Cloud, Event, HostId, World};

/// Parts the story's text from what it tells.
pub const LINE: &str = "----";
/// Begins what the judge says in a story.
pub const BROKEN: &str = "BROKEN:";

#[derive(Debug, Default)]
pub struct Story {
    pub cloud: Cloud,
    bmcs: Vec<(HostId, String)>,
    pub faults: Vec<(u64, Fault)>,
    pub until: u64,
    boot: Option<u64>,
}

impl Story {
    pub fn read(text: &str) -> Result<Self, String> {
        let mut story = Self { until: 120_000, ..Self::default() };
        let mut last = 0;
        for line in text.lines().take_while(|line| *line != LINE) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if !line.is_empty() {
                story.line(line, &mut last).ok_or_else(|| format!("not understood: {line}"))?;
            }
        }
        Ok(story)
    }

    fn line(&mut self, line: &str, last: &mut u64) -> Option<()> {
        if let Some(rest) = line.strip_prefix("at ") {
            let (at, what) = rest.split_once(' ')?;
            *last = seconds(at)?;
            self.faults.push((*last, Fault::read(what)?));
            return Some(());
        }
        if let Some(until) = line.strip_prefix("until ") {
            self.until = seconds(until)?;
            return Some(());
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [few, "hosts"] => self.cloud.hosts = few.parse().ok()?,
            [few, "tandem-ha"] => self.cloud.tandems = few.parse().ok()?,
            ["heard", "on", "mgmt", "only"] => (self.cloud.networks, self.cloud.tcp) = (1, false),
            ["heard", "on", "nothing"] => (self.cloud.networks, self.cloud.tcp) = (0, false),
            ["boots", "take", span, "s"] => self.boot = Some(seconds(span)?),
            ["disarmed"] => self.cloud.armed = false,
            ["policy", rest @ ..] => self.policy(rest)?,
            ["segment", "of", host, "is", "disabled"] => self.own_policy(cmp(host)?).enabled = false,
            ["methods", "of", host, "manual"] => self.own_policy(cmp(host)?).methods = vec![Method::Manual],
            ["zone", name, hosts @ ..] => {
                let hosts = hosts.iter().map(|host| cmp(host)).collect::<Option<_>>()?;
                self.cloud.groups.push((format!("zone {name}"), hosts));
            }
            [host, "has", rest @ ..] => self.bmcs.push((cmp(host)?, rest.join(" "))),
            [..] => self.guests(line)?,
        }
        Some(())
    }

    fn policy(&mut self, words: &[&str]) -> Option<()> {
        let policy = &mut self.cloud.policy;
        match words {
            ["nova", "alone"] => policy.nova_alone = true,
            ["opted", "in"] => policy.evacuation.opted_in_only = true,
            ["shared", "root"] => policy.other_hosts.shared_root = true,
            ["in", "flight", few] => policy.evacuation.in_flight = few.parse().ok()?,
            ["per", "source", few] => policy.evacuation.per_source = few.parse().ok()?,
            _ => return None,
        }
        Some(())
    }

    fn own_policy(&mut self, host: HostId) -> &mut HostPolicy {
        let other = &self.cloud.policy.other_hosts;
        let own = &mut self.cloud.host_policies;
        if !own.iter().any(|(it, _)| *it == host) {
            own.push((host, other.clone()));
        }
        &mut own.iter_mut().find(|(it, _)| *it == host).expect("it was just added").1
    }

    /// `vm1 vm2 on cmp1: opted out, priority 5`
    fn guests(&mut self, line: &str) -> Option<()> {
        let (who, how) = line.split_once(": ").unwrap_or((line, ""));
        let (names, host) = who.split_once(" on ")?;
        for name in names.split_whitespace() {
            let mut guest = Guest::new(name, cmp(host)?);
            for how in how.split(", ").filter(|how| !how.is_empty()) {
                shape(&mut guest, how)?;
            }
            self.cloud.instances.push(guest);
        }
        Some(())
    }

    pub fn build(&self) -> World {
        let mut world = World::new(&self.cloud, 1, true);
        world.boot_ms = self.boot.unwrap_or(world.boot_ms);
        for (host, what) in &self.bmcs {
            let bmc = &mut world.bmcs[*host];
            match what.as_str() {
                "no BMC" => bmc.configured = false,
                "a BMC that tells no UUID" => bmc.tells_system = false,
                what => {
                    let other = what.strip_prefix("the BMC of ").and_then(cmp).expect("a BMC that there is");
                    bmc.wired_to = other;
                }
            }
        }
        for tandem in 0..world.tandems.len() {
            world.forget_absent_bmcs(tandem);
        }
        for (at, fault) in &self.faults {
            world.at(*at, Event::Fault(fault.clone()));
        }
        world
    }

    /// What is told, one line each, and what promises were broken.
    pub fn tell(&self) -> String {
        let mut world = self.build();
        world.run_until(self.until);
        told(&world)
    }
}

pub fn told(world: &World) -> String {
    let mut text = String::new();
    let mut lines: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for (at, line) in &world.story {
        lines.entry(*at).or_default().push(line);
    }
    for (at, line) in lines.iter().flat_map(|(at, lines)| lines.iter().map(move |line| (at, line))) {
        text.push_str(&format!("{:7.1} {line}\n", *at as f64 / 1000.0));
    }
    for broken in &world.judge.violations {
        text.push_str(&format!("{:7.1} {BROKEN} {}\n", broken.at as f64 / 1000.0, broken.what));
    }
    text
}

fn shape(guest: &mut Guest, how: &str) -> Option<()> {
    match how.split_whitespace().collect::<Vec<_>>().as_slice() {
        ["image", "disk"] => guest.from_volume = false,
        ["expendable"] => guest.expendable = true,
        ["opted", "out"] => guest.wish = Some(false),
        ["opted", "in"] => guest.wish = Some(true),
        ["priority", level] => guest.priority = level.parse().ok()?,
        ["group", group] => guest.group = Some(group.parse().ok()?),
        ["stopped"] => (guest.state, guest.running) = (VmState::Stopped, false),
        ["in", "error"] => (guest.state, guest.running) = (VmState::Error, false),
        ["paused"] => (guest.state, guest.running) = (VmState::Other("paused".into()), false),
        ["never", "ran"] => (guest.launched, guest.running, guest.state) = (false, false, VmState::Error),
        ["of", "Octavia"] => guest.owned_by = Some("Octavia".into()),
        ["rebooting"] => guest.task = Task::OnItsHost("rebooting".into()),
        ["resizing"] => guest.task = Task::Elsewhere("resize_prep".into()),
        ["being", "deleted"] => guest.task = Task::Deleting,
        _ => return None,
    }
    Some(())
}

fn cmp(word: &str) -> Option<HostId> {
    word.strip_prefix("cmp")?.parse::<usize>().ok()?.checked_sub(1)
}

fn seconds(word: &str) -> Option<u64> {
    let seconds: f64 = word.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    Some((seconds * 1000.0).round() as u64)
}
