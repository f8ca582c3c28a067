//! What befalls the cloud, in the words of the stories.

use std::fmt;

use failover::Order;

use super::bmc::Says;
use super::nova::By;
use super::world::{HostId, NETWORK_NAMES, NETWORKS, World};

/// Written and read in the same words: a failing seed can be turned into a story.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    LosesPower(HostId),
    GetsPower(HostId),
    Hangs(HostId),
    Thaws(HostId),
    Panics(HostId),
    Reboots(HostId),
    Link(HostId, usize, bool),
    Sender(HostId, bool),
    Compute(HostId, bool),
    Cell(HostId, bool),
    Bmc(HostId, BmcFault),
    Network(usize, bool),
    Nova(bool),
    NovaSlow(u64),
    PostsSlow(u64),
    LoseAnswers(u32),
    LosePosts(u32),
    RefusePosts(u32),
    RefuseEdits(u32),
    FailAtDestination(u32),
    Database(bool),
    Crashes(usize),
    Starts(usize),
    Stalls(usize, u64),
    /// Between the record of an act and its sending.
    StallsAtNextAct(usize, u64),
    ClockJumps(usize, i64),
    OwnLink(usize, usize, bool),
    OwnNova(usize, bool),
    Disables(HostId),
    Enables(HostId),
    ForcesDown(HostId),
    LiftsForcedDown(HostId),
    Edits(HostId),
    Releases(HostId),
    FencesByHand(HostId),
    /// Everything but hosts that are dead.
    AllRepaired,
    Arms,
    Disarms,
    Evacuates(usize),
    Migrates(usize, HostId),
    Deletes(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcFault {
    Says(Says),
    Slow(u64),
    Late(u64),
    Refuses(bool),
}

struct Cmp(HostId);
impl fmt::Display for Cmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cmp{}", self.0 + 1)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        match self {
            Self::LosesPower(host) => write!(f, "{} loses power", Cmp(*host)),
            Self::GetsPower(host) => write!(f, "{} gets power", Cmp(*host)),
            Self::Hangs(host) => write!(f, "{} hangs", Cmp(*host)),
            Self::Thaws(host) => write!(f, "{} thaws", Cmp(*host)),
            Self::Panics(host) => write!(f, "{} panics", Cmp(*host)),
            Self::Reboots(host) => write!(f, "{} reboots", Cmp(*host)),
            Self::Link(host, network, up) => {
                write!(f, "{} {} {}", Cmp(*host), if *up { "regains" } else { "loses" }, NETWORK_NAMES[*network])
            }
            Self::Sender(host, on) => write!(f, "heartbeats of {} {}", Cmp(*host), starts(*on)),
            Self::Compute(host, on) => write!(f, "nova-compute of {} {}", Cmp(*host), starts(*on)),
            Self::Cell(host, up) => write!(f, "cell of {} {}", Cmp(*host), goes(*up)),
            Self::Bmc(host, BmcFault::Says(Says::Truth)) => write!(f, "BMC of {} tells the truth", Cmp(*host)),
            Self::Bmc(host, BmcFault::Says(Says::Off)) => write!(f, "BMC of {} says off", Cmp(*host)),
            Self::Bmc(host, BmcFault::Says(Says::On)) => write!(f, "BMC of {} says on", Cmp(*host)),
            Self::Bmc(host, BmcFault::Says(Says::Nothing)) => write!(f, "BMC of {} falls silent", Cmp(*host)),
            Self::Bmc(host, BmcFault::Slow(ms)) => write!(f, "BMC of {} takes {} s", Cmp(*host), seconds(*ms)),
            Self::Bmc(host, BmcFault::Late(ms)) => write!(f, "BMC of {} acts {} s late", Cmp(*host), seconds(*ms)),
            Self::Bmc(host, BmcFault::Refuses(true)) => write!(f, "BMC of {} refuses", Cmp(*host)),
            Self::Bmc(host, BmcFault::Refuses(false)) => write!(f, "BMC of {} obeys", Cmp(*host)),
            Self::Network(network, up) => write!(f, "network {} {}", NETWORK_NAMES[*network], goes(*up)),
            Self::Nova(up) => write!(f, "nova {}", goes(*up)),
            Self::NovaSlow(ms) => write!(f, "nova takes {} s", seconds(*ms)),
            Self::PostsSlow(ms) => write!(f, "evacuations take {} s to be accepted", seconds(*ms)),
            Self::LoseAnswers(few) => write!(f, "next {few} answers are lost"),
            Self::LosePosts(few) => write!(f, "next {few} evacuations are lost"),
            Self::RefusePosts(few) => write!(f, "next {few} evacuations are refused"),
            Self::RefuseEdits(few) => write!(f, "next {few} edits fail"),
            Self::FailAtDestination(few) => write!(f, "next {few} evacuations fail"),
            Self::Database(up) => write!(f, "database {}", goes(*up)),
            Self::Crashes(tandem) => write!(f, "tandem-ha {} crashes", tandem + 1),
            Self::Starts(tandem) => write!(f, "tandem-ha {} starts", tandem + 1),
            Self::Stalls(tandem, ms) => write!(f, "tandem-ha {} stalls for {} s", tandem + 1, seconds(*ms)),
            Self::StallsAtNextAct(tandem, ms) => {
                write!(f, "tandem-ha {} stalls for {} s at its next act", tandem + 1, seconds(*ms))
            }
            Self::ClockJumps(tandem, ms) => {
                write!(f, "clock of tandem-ha {} jumps by {} s", tandem + 1, *ms as f64 / 1000.0)
            }
            Self::OwnLink(tandem, network, up) => {
                let verb = if *up { "regains" } else { "loses" };
                write!(f, "tandem-ha {} {verb} {}", tandem + 1, NETWORK_NAMES[*network])
            }
            Self::OwnNova(tandem, up) => {
                write!(f, "tandem-ha {} {} nova", tandem + 1, if *up { "regains" } else { "loses" })
            }
            Self::Disables(host) => write!(f, "operator disables {}", Cmp(*host)),
            Self::Enables(host) => write!(f, "operator enables {}", Cmp(*host)),
            Self::ForcesDown(host) => write!(f, "operator forces {} down", Cmp(*host)),
            Self::LiftsForcedDown(host) => write!(f, "operator lifts forced_down of {}", Cmp(*host)),
            Self::Edits(host) => write!(f, "operator edits {}", Cmp(*host)),
            Self::Releases(host) => write!(f, "operator releases {}", Cmp(*host)),
            Self::FencesByHand(host) => write!(f, "operator fences {}", Cmp(*host)),
            Self::AllRepaired => write!(f, "everything is repaired but dead hosts"),
            Self::Arms => write!(f, "operator arms"),
            Self::Disarms => write!(f, "operator disarms"),
            Self::Evacuates(guest) => write!(f, "operator evacuates vm{}", guest + 1),
            Self::Migrates(guest, to) => write!(f, "operator migrates vm{} to {}", guest + 1, Cmp(*to)),
            Self::Deletes(guest) => write!(f, "operator deletes vm{}", guest + 1),
        }
    }
}

fn starts(on: bool) -> &'static str {
    if on { "start" } else { "stop" }
}

fn goes(up: bool) -> &'static str {
    if up { "comes back" } else { "fails" }
}

fn number(word: &str, prefix: &str) -> Option<usize> {
    word.strip_prefix(prefix)?.parse::<usize>().ok()?.checked_sub(1)
}

fn cmp(word: &str) -> Option<HostId> {
    number(word, "cmp")
}

fn millis(word: &str) -> Option<u64> {
    let seconds: f64 = word.parse().ok()?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few seconds")]
    Some((seconds * 1000.0).round() as u64)
}

fn network(word: &str) -> Option<usize> {
    NETWORK_NAMES.iter().position(|name| *name == word)
}

impl Fault {
    /// The fault that these words name.
    pub fn read(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        Some(match words.as_slice() {
            [host, "loses", "power"] => Self::LosesPower(cmp(host)?),
            [host, "gets", "power"] => Self::GetsPower(cmp(host)?),
            [host, "hangs"] => Self::Hangs(cmp(host)?),
            [host, "thaws"] => Self::Thaws(cmp(host)?),
            [host, "panics"] => Self::Panics(cmp(host)?),
            [host, "reboots"] => Self::Reboots(cmp(host)?),
            ["tandem-ha", it, "crashes"] => Self::Crashes(number(it, "")?),
            ["tandem-ha", it, "starts"] => Self::Starts(number(it, "")?),
            ["tandem-ha", it, "stalls", "for", span, "s", "at", "its", "next", "act"] => {
                Self::StallsAtNextAct(number(it, "")?, millis(span)?)
            }
            ["tandem-ha", it, "stalls", "for", span, "s"] => Self::Stalls(number(it, "")?, millis(span)?),
            ["tandem-ha", it, verb @ ("loses" | "regains"), "nova"] => {
                Self::OwnNova(number(it, "")?, *verb == "regains")
            }
            ["tandem-ha", it, verb @ ("loses" | "regains"), name] => {
                Self::OwnLink(number(it, "")?, network(name)?, *verb == "regains")
            }
            ["clock", "of", "tandem-ha", it, "jumps", "by", span, "s"] => {
                let ms = i64::try_from(millis(span.trim_start_matches('-'))?).ok()?;
                Self::ClockJumps(number(it, "")?, if span.starts_with('-') { -ms } else { ms })
            }
            ["heartbeats", "of", host, verb] => Self::Sender(cmp(host)?, *verb == "start"),
            ["nova-compute", "of", host, verb] => Self::Compute(cmp(host)?, *verb == "start"),
            ["cell", "of", host, "fails"] => Self::Cell(cmp(host)?, false),
            ["cell", "of", host, "comes", "back"] => Self::Cell(cmp(host)?, true),
            ["BMC", "of", host, rest @ ..] => Self::Bmc(
                cmp(host)?,
                match rest {
                    ["tells", "the", "truth"] => BmcFault::Says(Says::Truth),
                    ["says", "off"] => BmcFault::Says(Says::Off),
                    ["says", "on"] => BmcFault::Says(Says::On),
                    ["falls", "silent"] => BmcFault::Says(Says::Nothing),
                    ["takes", span, "s"] => BmcFault::Slow(millis(span)?),
                    ["acts", span, "s", "late"] => BmcFault::Late(millis(span)?),
                    ["refuses"] => BmcFault::Refuses(true),
                    ["obeys"] => BmcFault::Refuses(false),
                    _ => return None,
                },
            ),
            ["network", name, "fails"] => Self::Network(network(name)?, false),
            ["network", name, "comes", "back"] => Self::Network(network(name)?, true),
            ["nova", "fails"] => Self::Nova(false),
            ["nova", "comes", "back"] => Self::Nova(true),
            ["nova", "takes", span, "s"] => Self::NovaSlow(millis(span)?),
            ["evacuations", "take", span, "s", "to", "be", "accepted"] => Self::PostsSlow(millis(span)?),
            ["next", few, "answers", "are", "lost"] => Self::LoseAnswers(few.parse().ok()?),
            ["next", few, "evacuations", "are", "lost"] => Self::LosePosts(few.parse().ok()?),
            ["next", few, "evacuations", "are", "refused"] => Self::RefusePosts(few.parse().ok()?),
            ["next", few, "edits", "fail"] => Self::RefuseEdits(few.parse().ok()?),
            ["next", few, "evacuations", "fail"] => Self::FailAtDestination(few.parse().ok()?),
            ["database", "fails"] => Self::Database(false),
            ["database", "comes", "back"] => Self::Database(true),
            ["everything", "is", "repaired", "but", "dead", "hosts"] => Self::AllRepaired,
            ["operator", "arms"] => Self::Arms,
            ["operator", "disarms"] => Self::Disarms,
            ["operator", "disables", host] => Self::Disables(cmp(host)?),
            ["operator", "enables", host] => Self::Enables(cmp(host)?),
            ["operator", "forces", host, "down"] => Self::ForcesDown(cmp(host)?),
            ["operator", "lifts", "forced_down", "of", host] => Self::LiftsForcedDown(cmp(host)?),
            ["operator", "edits", host] => Self::Edits(cmp(host)?),
            ["operator", "releases", host] => Self::Releases(cmp(host)?),
            ["operator", "fences", host] => Self::FencesByHand(cmp(host)?),
            ["operator", "evacuates", guest] => Self::Evacuates(number(guest, "vm")?),
            ["operator", "deletes", guest] => Self::Deletes(number(guest, "vm")?),
            ["operator", "migrates", guest, "to", host] => Self::Migrates(number(guest, "vm")?, cmp(host)?),
            [host, verb @ ("loses" | "regains"), name] => Self::Link(cmp(host)?, network(name)?, *verb == "regains"),
            _ => return None,
        })
    }
}

impl World {
    pub fn strikes(&mut self, fault: &Fault) {
        match *fault {
            Fault::LosesPower(host) => self.power_off(host),
            Fault::GetsPower(host) => self.power_on(host),
            Fault::Hangs(host) => self.hang(host),
            Fault::Thaws(host) => self.thaw(host),
            Fault::Panics(host) => self.panic(host),
            Fault::Reboots(host) => self.reboot(host),
            Fault::Link(host, network, up) => self.hosts[host].links[network] = up,
            Fault::Sender(host, on) => self.hosts[host].sender = on,
            Fault::Compute(host, on) => {
                self.hosts[host].compute_wanted = on;
                self.hosts[host].compute &= on;
                if on {
                    let boot = self.hosts[host].boot;
                    self.compute_starts(host, boot);
                }
            }
            Fault::Cell(host, up) => self.hosts[host].cell_down = !up,
            Fault::Bmc(host, fault) => {
                let bmc = &mut self.bmcs[host];
                match fault {
                    BmcFault::Says(says) => bmc.says = says,
                    BmcFault::Slow(ms) => bmc.slow_ms = ms,
                    BmcFault::Late(ms) => bmc.late_ms = ms,
                    BmcFault::Refuses(refuses) => bmc.refuses = refuses,
                }
            }
            Fault::Network(network, up) => self.hosts.iter_mut().for_each(|host| host.links[network] = up),
            Fault::Nova(up) => self.nova.up = up,
            Fault::NovaSlow(ms) => self.nova.slow_ms = ms,
            Fault::PostsSlow(ms) => self.nova.posts_slow_ms = ms,
            Fault::LoseAnswers(few) => self.nova.lose_answers = few,
            Fault::LosePosts(few) => self.nova.lose_posts = few,
            Fault::RefusePosts(few) => self.nova.refuse_posts = few,
            Fault::RefuseEdits(few) => self.nova.refuse_edits = few,
            Fault::FailAtDestination(few) => self.nova.fail_at_destination = few,
            Fault::Database(up) => self.database(up),
            Fault::Crashes(tandem) => self.crashes(tandem),
            Fault::Starts(tandem) => self.starts(tandem),
            Fault::Stalls(tandem, ms) => self.stalls(tandem, ms),
            Fault::StallsAtNextAct(tandem, ms) => self.tandems[tandem].stalls_at_next_act = Some(ms),
            Fault::ClockJumps(tandem, ms) => self.clock_jumps(tandem, ms),
            Fault::OwnLink(tandem, network, up) => self.tandems[tandem].links[network] = up,
            Fault::OwnNova(tandem, up) => self.tandems[tandem].sees_nova = up,
            Fault::Disables(host) => {
                self.nova.services[host].disabled = Some("planned work".into());
                self.nova.edited_by_operator(host, self.now);
            }
            Fault::Enables(host) => {
                self.nova.services[host].disabled = None;
                self.nova.enabled_at[host] = self.now;
                self.nova.edited_by_operator(host, self.now);
            }
            Fault::ForcesDown(host) if !self.nova.services[host].forced_down => {
                let service = &mut self.nova.services[host];
                (service.forced_down, service.forced_by_operator) = (true, true);
                self.nova.edited_by_operator(host, self.now);
            }
            Fault::LiftsForcedDown(host) if self.nova.services[host].forced_by_operator => {
                let service = &mut self.nova.services[host];
                (service.forced_down, service.forced_by_operator) = (false, false);
                self.nova.edited_by_operator(host, self.now);
            }
            // What stands there already, or is somebody else's, is left alone.
            Fault::ForcesDown(_) | Fault::LiftsForcedDown(_) => {}
            Fault::Edits(host) => self.nova.edited_by_operator(host, self.now),
            Fault::Releases(host) => {
                let id = self.db.ledger.open_incident(&self.hosts[host].host).map(|incident| incident.id.clone());
                match id {
                    Some(id) => self.orders(&Order::Release(id)),
                    None => self.tell(|_| "  nothing to release".to_owned()),
                }
            }
            Fault::FencesByHand(host) if self.honest && self.hosts[host].power => {}
            Fault::FencesByHand(host) => {
                self.judge_manual_fence(host);
                self.orders(&Order::ManualFence(self.hosts[host].host.clone()));
            }
            Fault::AllRepaired => self.all_repaired(),
            Fault::Arms => self.orders(&Order::Arm),
            Fault::Disarms => self.orders(&Order::Disarm),
            Fault::Evacuates(guest) => {
                if self.nova.up {
                    let _ = self.evacuate(guest, By::Operator);
                }
            }
            Fault::Migrates(guest, to) => self.migrate_live(guest, to),
            Fault::Deletes(guest) => {
                self.nova.instances[guest].deleted = true;
                let host = self.nova.instances[guest].host;
                self.nova.at_host[host].remove(&guest);
                self.hosts.iter_mut().for_each(|host| host.guests.retain(|it| *it != guest));
            }
        }
    }
}

impl World {
    fn all_repaired(&mut self) {
        self.nova.repaired();
        self.database(true);
        for host in 0..self.hosts.len() {
            self.thaw(host);
            self.hosts[host].cell_down = false;
            (self.hosts[host].sender, self.hosts[host].links) = (true, [true; NETWORKS]);
            self.strikes(&Fault::Compute(host, true));
            let bmc = &mut self.bmcs[host];
            (bmc.says, bmc.slow_ms, bmc.late_ms, bmc.refuses) = (Says::Truth, 0, 0, false);
        }
        for tandem in 0..self.tandems.len() {
            let it = &mut self.tandems[tandem];
            (it.links, it.sees_nova) = ([true; NETWORKS], true);
            self.starts(tandem);
        }
    }
}
