//! Who is heard, who is silent, and what the power says.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::Cycle;
use crate::ledger::{Binding, HostRecord};
use crate::names::{Host, Time};
use crate::observation::{Channel, ChannelKind, HostSeen, NovaSeen, Power, ServiceSeen};

/// A packet may have waited in a buffer while the BMC was read: what is heard so shortly after the first Off is no contradiction.
const IN_FLIGHT: Duration = Duration::from_millis(500);

/// What is heard on a network, of all who were ever heard there.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Hearing {
    channels: usize,
    silent: usize,
}

impl Hearing {
    fn count(&mut self, evidence: &Evidence<'_>, channel: &Channel) {
        self.channels += 1;
        self.silent += usize::from(evidence.is_silent(channel, evidence.cycle.policy.suspect_after));
    }
}

pub(crate) fn hearing(cycle: &Cycle<'_>) -> BTreeMap<Arc<str>, Hearing> {
    let mut networks = BTreeMap::<Arc<str>, Hearing>::new();
    for (host, seen) in &cycle.seen.hosts {
        let evidence = Evidence { cycle, host, seen, record: cycle.ledger.hosts.get(host) };
        for channel in evidence.proven() {
            networks.entry(channel.network.clone()).or_default().count(&evidence, channel);
        }
    }
    networks
}

/// All that is known of one host.
#[derive(Clone, Copy)]
pub(crate) struct Evidence<'a> {
    pub(crate) cycle: &'a Cycle<'a>,
    pub(crate) host: &'a Host,
    pub(crate) seen: &'a HostSeen,
    pub(crate) record: Option<&'a HostRecord>,
}

/// What the power readings prove.
pub(crate) enum PowerProof {
    /// Off, and so long that it is believed; `epoch` is when the readings began to say so.
    Off {
        epoch: Time,
    },
    /// Off, for too short a time yet.
    OffJustNow {
        epoch: Time,
    },
    /// Off, and yet it is heard.
    Contradicted {
        by: String,
    },
    On {
        at: Time,
    },
    /// Nothing that can be used.
    None {
        why: Arc<str>,
        since: Option<Time>,
    },
}

impl<'a> Evidence<'a> {
    pub(crate) fn service(&self) -> Option<&'a ServiceSeen> {
        match &self.seen.nova {
            NovaSeen::NoData => None,
            NovaSeen::Listed(service) => Some(service),
        }
    }

    /// Somebody has said of it in Nova that it is not to be used.
    pub(crate) fn is_out_of_service(&self) -> bool {
        self.service().is_some_and(|service| service.disabled.is_some() || service.forced_down)
    }

    pub(crate) fn nova_says_down(&self) -> bool {
        self.service().is_some_and(|service| !service.up && !service.forced_down)
    }

    /// Channels on which it was heard at least once.
    fn proven(&self) -> impl Iterator<Item = &'a Channel> + use<'a> {
        let record = self.record;
        self.seen.channels.iter().filter(move |channel| {
            channel.last.is_some()
                || record.is_some_and(|record| {
                    record.proven.iter().any(|(network, kind)| (network, kind) == (&channel.network, &channel.kind))
                })
        })
    }

    fn is_silent(&self, channel: &Channel, span: Duration) -> bool {
        let quiet_since = channel.last.unwrap_or_default().max(self.cycle.seen.view.unbroken_since);
        self.cycle.now.since(quiet_since) >= span
    }

    /// Whether every channel on which it was ever heard is silent for so long; no if there is none.
    pub(crate) fn all_silent(&self, span: Duration) -> bool {
        let mut any = false;
        self.proven().all(|channel| {
            any = true;
            self.is_silent(channel, span)
        }) && any
    }

    /// The networks on which it is heard now.
    pub(crate) fn heard_on(&self) -> BTreeSet<&'a str> {
        let since = |last| self.cycle.now.since(last) < self.cycle.policy.suspect_after;
        let heard = self.proven().filter(|channel| channel.last.is_some_and(since));
        heard.map(|channel| &*channel.network).collect()
    }

    pub(crate) fn networks(&self) -> BTreeSet<&'a str> {
        self.proven().map(|channel| &*channel.network).collect()
    }

    /// When it was last heard, and on what. One report to Nova counts: better to wait once more for nothing.
    pub(crate) fn last_life(&self) -> Option<Time> {
        let heard = self.seen.channels.iter().filter_map(|channel| channel.last);
        let reported = self.service().and_then(|service| service.reported);
        heard.chain(reported).max()
    }

    /// What was heard of it after a moment. Of Nova only what no single edit of a person can be.
    pub(crate) fn life_after(&self, moment: Time) -> Option<String> {
        let heard = self.seen.channels.iter().find(|channel| channel.last.is_some_and(|last| last > moment));
        let reports =
            || self.reports_to_nova_twice_since(moment).then(|| "its nova-compute reports to Nova".to_owned());
        heard.map(|channel| format!("it is heard on {}", channel.network)).or_else(reports)
    }

    /// Silent on every path for the whole time that policy demands, at least two of them independent. The reason, either way.
    pub(crate) fn dead_by_silence(&self) -> Result<String, String> {
        let (policy, now) = (self.cycle.policy, self.cycle.now);
        let heard = self.heard_on();
        if !heard.is_empty() {
            return Err(format!("it is heard on {}", join(&heard)));
        }
        let networks = self.networks();
        if networks.is_empty() {
            return match (self.nova_says_down(), policy.nova_alone) {
                (true, true) => Ok("Nova says its nova-compute is down, and nothing else watches it".to_owned()),
                (true, false) => {
                    Err("only Nova watches it, and one source never condemns a host (detection.nova_alone is false)"
                        .to_owned())
                }
                (false, _) => Err("Nova does not say that it is down".to_owned()),
            };
        }
        let quiet_since = self.last_life().unwrap_or_default().max(self.cycle.seen.view.unbroken_since);
        if !self.all_silent(policy.silence) || now.since(quiet_since) < policy.silence {
            return Err(format!("not silent for {} s yet", policy.silence.as_secs_f64()));
        }
        let (deaf, silent): (BTreeSet<&str>, BTreeSet<&str>) =
            networks.iter().partition(|network| self.is_deaf(network));
        // One process sends all heartbeats: while nothing else listens, its silence is one, on however many networks.
        let only_beats = self.proven().all(|channel| channel.kind == ChannelKind::Heartbeat);
        let paths = if only_beats { silent.len().min(1) } else { silent.len() };
        if paths + usize::from(self.nova_says_down()) < 2 {
            let deaf = if deaf.is_empty() {
                String::new()
            } else {
                format!(" (nobody is heard on {}: we may be deaf there)", join(&deaf))
            };
            if silent.is_empty() {
                return Err(format!("nobody is heard on {}: we may be deaf there", join(&networks)));
            }
            let silent = join(&silent);
            return Err(format!(
                "only {} is silent: a second path is needed, {} or Nova's word{deaf}",
                if only_beats { "the heartbeat" } else { &*silent },
                if only_beats { "a TCP probe" } else { "another network" }
            ));
        }
        let nova = if self.nova_says_down() { ", and Nova says down" } else { "" };
        Ok(format!("silent on {}{nova}, for {} s", join(&networks), policy.silence.as_secs_f64()))
    }

    /// A network on which nobody else is heard either says something of us, and nothing of a host.
    fn is_deaf(&self, network: &str) -> bool {
        let all = self.cycle.hearing().get(network).copied().unwrap_or_default();
        let mut own = Hearing::default();
        self.proven().filter(|channel| &*channel.network == network).for_each(|channel| own.count(self, channel));
        let others = Hearing { channels: all.channels - own.channels, silent: all.silent - own.silent };
        others.channels > 0 && others.silent == others.channels
    }

    /// What the power readings prove of this host: nothing, unless the BMC was bound to it while it was well.
    pub(crate) fn power(&self) -> PowerProof {
        let (policy, now) = (&self.cycle.policy.fence, self.cycle.now);
        if let Err(why) = self.is_bound() {
            return PowerProof::None { why, since: None };
        }
        match &self.seen.power.reading {
            Power::Absent => PowerProof::None { why: "no BMC is configured".into(), since: None },
            Power::Unknown { why, since } => PowerProof::None { why: why.clone(), since: Some(*since) },
            Power::On { at } => PowerProof::On { at: *at },
            Power::Off { since, at } => {
                // While we did not watch it may have been on: what was read before proves nothing of now.
                let epoch = (*since).max(self.cycle.seen.view.unbroken_since);
                match self.life_after(epoch + IN_FLIGHT) {
                    Some(by) => PowerProof::Contradicted { by },
                    None if now.since(*at) > policy.held_within => {
                        PowerProof::None { why: "its BMC was not read lately".into(), since: Some(*at) }
                    }
                    None if at.since(epoch) < policy.off_for || !self.heard_on().is_empty() => {
                        PowerProof::OffJustNow { epoch }
                    }
                    None => PowerProof::Off { epoch },
                }
            }
        }
    }

    /// Whether the BMC is known to be this host's.
    pub(crate) fn is_bound(&self) -> Result<Binding, Arc<str>> {
        if self.seen.power.reading == Power::Absent {
            return Err("no BMC is configured".into());
        }
        if let Err(why) = self.systems() {
            return Err(why.into());
        }
        let bound = self.record.and_then(|record| record.bound);
        bound.ok_or_else(|| {
            "its BMC was not seen to be this host's (On while the host was heard): its word proves nothing".into()
        })
    }

    /// Host and BMC must not name different machines.
    fn systems(&self) -> Result<(), String> {
        match (self.seen.boot.and_then(|boot| boot.system), self.seen.power.system) {
            (Some(host), Some(bmc)) if host != bmc => {
                Err(format!("its BMC controls another machine (System UUID {bmc}, the host is {host})"))
            }
            (None, Some(bmc)) => match self.record.and_then(|record| record.bound) {
                Some(Binding::SameSystem(host)) if host != bmc => Err(format!(
                    "its BMC controls another machine (System UUID {bmc}, the host was {host} when it was well)"
                )),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    /// What is heard although the BMC says Off. Somebody must look at that, whether the BMC is believed to be this host's or not.
    pub(crate) fn contradiction(&self) -> Option<String> {
        let Power::Off { since, .. } = self.seen.power.reading else { return None };
        if self.systems().is_err() || self.heard_on().is_empty() {
            return None;
        }
        self.life_after(since + IN_FLIGHT)
    }

    /// It was heard between two Off readings: such a BMC is not believed again, by nobody, until it says On of a living host.
    fn was_heard_while_off(&self) -> bool {
        let Power::Off { since, at } = self.seen.power.reading else { return false };
        self.seen.channels.iter().filter_map(|channel| channel.last).any(|last| since + IN_FLIGHT < last && last < at)
    }

    /// What the host and its BMC show now of belonging together; only while the host is heard.
    pub(crate) fn binding(&self) -> Result<Option<Binding>, String> {
        self.systems()?;
        if self.was_heard_while_off() {
            return Err("it said Off while the host was heard".to_owned());
        }
        let systems = (self.seen.boot.and_then(|boot| boot.system), self.seen.power.system);
        // Not Nova's word: it says nothing of which machine it is, and a BMC that is another host's would be believed.
        let alive = !self.heard_on().is_empty();
        let is_on = matches!(self.seen.power.reading, Power::On { at } if self.cycle.now.since(at) <= self.cycle.policy.fence.held_within);
        Ok(match systems {
            (Some(system), Some(_)) if alive && is_on => Some(Binding::SameSystem(system)),
            _ if alive && is_on => Some(Binding::OnWhileAlive),
            _ => None,
        })
    }

    /// The BMC's Off is older than what was heard since: it is read again before anything is made of it.
    pub(crate) fn is_heard_since_off(&self) -> bool {
        let heard = self.seen.channels.iter().filter_map(|channel| channel.last).max();
        matches!(self.seen.power.reading, Power::Off { at, .. } if heard > Some(at) && !self.heard_on().is_empty())
    }

    /// Why it should be looked at more closely.
    pub(crate) fn suspicion(&self) -> Option<String> {
        if let (Power::Off { .. }, Ok(_)) = (&self.seen.power.reading, self.is_bound()) {
            return Some("its BMC says Off".to_owned());
        }
        if self.all_silent(self.cycle.policy.suspect_after) {
            return Some(format!("nothing is heard of it on {}", join(&self.networks())));
        }
        self.nova_says_down().then(|| "Nova says its nova-compute is down".to_owned())
    }
}

pub(crate) fn join(words: &BTreeSet<&str>) -> String {
    let words: Vec<&str> = words.iter().copied().collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

impl Evidence<'_> {
    /// The boot that is heard now, if the host was known in another one before.
    pub(crate) fn reboot(&self) -> Option<crate::observation::BootSeen> {
        let known = self.record?.boot?;
        self.seen.boot.filter(|boot| boot.id != known && !self.heard_on().is_empty())
    }

    pub(crate) fn boot_after(&self, moment: Time) -> bool {
        self.seen.boot.is_some_and(|boot| boot.heard > moment)
    }

    pub(crate) fn reports_to_nova_since(&self, moment: Time) -> bool {
        self.service().is_some_and(|service| service.reported > Some(moment))
    }

    /// Not an edit of a person, which advances `updated_at` once. Two edits look like life; then somebody has to say that it is off.
    pub(crate) fn reports_to_nova_twice_since(&self, moment: Time) -> bool {
        self.service().is_some_and(|service| service.reports >= 2 && service.reported_before > Some(moment))
    }
}
