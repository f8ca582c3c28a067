//! The gates before a fence: each a verdict with its reason, so that whoever asks why nothing happens is told.
//!
//! One more of the design will stand here: *not dumping* (kdump).

use std::sync::Arc;

use crate::Cycle;
use crate::evidence::Evidence;
use crate::ledger::{Incident, Kind, Outcome, Phase};
use crate::names::{BootId, Host};
use crate::reintegration::is_ours;

/// What may hold an incident. The first few are judged before a fence; the others where they arise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gate {
    Armed,
    WeSee,
    NotEverybody,
    NotFlapping,
    NotMaintained,
    /// No other host takes instances. (Whether they fit will be asked here, too.)
    SomewhereToGo,
    /// It is not sure that the host is dead.
    Evidence,
    /// No method has confirmed a fence.
    Fence,
    /// The BMC says Off, and yet the host lives.
    Contradiction,
    /// The host is back, and something keeps it from being taken back.
    Return,
}

impl Gate {
    pub const ALL: [(Self, &str); 10] = [
        (Self::Armed, "armed"),
        (Self::WeSee, "we can see"),
        (Self::NotEverybody, "mass failure"),
        (Self::NotFlapping, "flapping"),
        (Self::NotMaintained, "maintenance"),
        (Self::SomewhereToGo, "somewhere to go"),
        (Self::Evidence, "evidence"),
        (Self::Fence, "fence"),
        (Self::Contradiction, "BMC contradicts"),
        (Self::Return, "return"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(gate, _)| *gate == self).expect("every gate has its word").1
    }

    /// Whether a person may overrule it. Nobody can overrule that we are blind, or that there is no fence.
    pub fn may_be_released(self) -> bool {
        matches!(self, Self::NotEverybody | Self::NotFlapping | Self::NotMaintained)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub gate: Gate,
    pub passed: bool,
    pub why: Arc<str>,
}

impl Verdict {
    fn of(gate: Gate, judged: Result<String, String>) -> Self {
        let (passed, why) = match judged {
            Ok(why) => (true, why),
            Err(why) => (false, why),
        };
        Self { gate, passed, why: why.into() }
    }

    /// Whether anything is judged otherwise; that a reason counts other hosts now is no news.
    pub(crate) fn turned(before: &[Self], now: &[Self]) -> bool {
        let judged = |verdicts: &[Self]| verdicts.iter().map(|it| (it.gate, it.passed)).collect::<Vec<_>>();
        judged(before) != judged(now)
    }

    pub(crate) fn line(verdicts: &[Self]) -> String {
        let one = |verdict: &Self| {
            let word = if verdict.passed { "passed" } else { "held" };
            format!("{} {word} ({})", verdict.gate.word(), verdict.why)
        };
        verdicts.iter().map(one).collect::<Vec<_>>().join("; ")
    }
}

/// All gates for one host, passed or not.
pub(crate) fn judge(evidence: &Evidence<'_>, incident: Option<&Incident>) -> Vec<Verdict> {
    let cycle = evidence.cycle;
    vec![
        Verdict::of(Gate::Armed, armed(cycle)),
        Verdict::of(Gate::WeSee, we_see(cycle)),
        Verdict::of(Gate::NotEverybody, not_everybody(evidence)),
        Verdict::of(Gate::NotFlapping, not_flapping(cycle, evidence.host, incident)),
        Verdict::of(Gate::NotMaintained, not_maintained(evidence, incident)),
    ]
}

/// The gate that holds it and that nobody has overruled: the one that does so already, or the first. So a host that was in repair before a mass
/// failure is held for that, and one that somebody disables amid the failure is held, and counted, for the failure.
pub(crate) fn held<'v>(verdicts: &'v [Verdict], incident: &Incident) -> Option<&'v Verdict> {
    let mut holding = verdicts.iter().filter(|it| !it.passed && !incident.released.contains(&it.gate));
    let already = incident.hold.as_ref().map(|hold| hold.gate);
    holding.clone().find(|verdict| Some(verdict.gate) == already).or_else(|| holding.next())
}

pub(crate) fn armed(cycle: &Cycle<'_>) -> Result<String, String> {
    if cycle.ledger.armed { Ok("armed".to_owned()) } else { Err("disarmed: `tandem arm` lets it act".to_owned()) }
}

pub(crate) fn we_see(cycle: &Cycle<'_>) -> Result<String, String> {
    let view = &cycle.seen.view;
    let Some(answered) = view.nova_answered else {
        return Err("Nova has not answered yet".to_owned());
    };
    if cycle.now.since(answered) > cycle.policy.see_within {
        return Err("Nova does not answer us".to_owned());
    }
    if cycle.now.since(view.unbroken_since) < cycle.policy.suspect_after {
        let what = view.broken_by.as_deref().unwrap_or("tandem-ha has just started");
        return Err(format!("{what}: looking anew first"));
    }
    Ok("Nova and Keystone answer".to_owned())
}

/// Hosts in trouble stay under a share of all, overall and in each group of the host. One host is never a mass failure.
fn not_everybody(evidence: &Evidence<'_>) -> Result<String, String> {
    let cycle = evidence.cycle;
    let is_troubled = |host: &Host| host == evidence.host || cycle.troubled().contains(host);
    let troubled = cycle.troubled().len() + usize::from(!cycle.troubled().contains(evidence.host));
    let percent = u64::from(cycle.policy.mass_failure_percent);
    let too_many = |few: usize, all: usize| few > 1 && few as u64 * 100 >= percent * all as u64;
    let all = cycle.seen.hosts.len();
    if too_many(troubled, all) {
        return Err(format!("{troubled} of {all} hosts are in trouble"));
    }
    for group in &evidence.seen.groups {
        let members = cycle.seen.hosts.iter().filter(|(_, seen)| seen.groups.contains(group));
        let (mut few, mut all) = (0, 0);
        for (host, _) in members {
            all += 1;
            few += usize::from(is_troubled(host));
        }
        if too_many(few, all) {
            return Err(format!("{few} of {all} hosts of {group} are in trouble"));
        }
    }
    Ok(format!("{troubled} of {all} hosts in trouble"))
}

/// Silent, suspected or fenced, since not longer ago than the window; and whatever is still to be judged. A host whose death was seen to long ago,
/// or that somebody has taken out of service and switched off, says nothing of the others.
pub(crate) fn in_trouble(cycle: &Cycle<'_>, host: &Host) -> bool {
    let lately = |moment| cycle.now.since(moment) <= cycle.policy.mass_failure_window;
    let Some(evidence) = cycle.evidence(host) else { return false };
    let is_silent = evidence.all_silent(cycle.policy.suspect_after);
    let fell_silent = evidence.last_life().unwrap_or_default().max(cycle.seen.view.unbroken_since);
    let is_unjudged = |incident: &Incident| {
        let is_held = incident.hold.as_ref().is_some_and(|hold| hold.gate == Gate::NotEverybody);
        let is_taken_for_dead = is_silent || incident.phase != Phase::Suspected;
        incident.phase.is_before_the_fence()
            && (lately(incident.opened) || is_held || (is_taken_for_dead && !evidence.is_out_of_service()))
    };
    (is_silent && lately(fell_silent))
        || cycle
            .ledger
            .incidents_of(host)
            .any(|incident| is_unjudged(incident) || incident.receipts.iter().any(|receipt| lately(receipt.read_at)))
}

/// Only outages that were fenced count: what cancels itself costs nothing.
fn not_flapping(cycle: &Cycle<'_>, host: &Host, incident: Option<&Incident>) -> Result<String, String> {
    let past = || {
        let others = cycle.ledger.incidents_of(host).filter(|other| Some(&other.id) != incident.map(|this| &this.id));
        others.filter(|other| matches!(other.outcome, Some(Outcome::Recovered | Outcome::PartlyRecovered)))
    };
    let within =
        |span| past().filter(|other| other.closed.is_some_and(|closed| cycle.now.since(closed) < span)).count();
    if within(cycle.policy.quiet) > 0 {
        return Err(format!("it was taken back less than {} s ago", cycle.policy.quiet.as_secs()));
    }
    let times = within(cycle.policy.flap_window);
    if times > cycle.policy.flap_limit as usize {
        return Err(format!("recovered {times} times within {} s", cycle.policy.flap_window.as_secs()));
    }
    Ok("no recent outage".to_owned())
}

/// Somebody else's hand on the host is respected.
pub(crate) fn not_maintained(evidence: &Evidence<'_>, incident: Option<&Incident>) -> Result<String, String> {
    let host_policy = evidence.cycle.policy.of(evidence.host);
    if !host_policy.enabled {
        let segment =
            host_policy.segment.as_ref().map_or_else(|| "its segment".to_owned(), |it| format!("segment {it}"));
        return Err(format!("{segment} is disabled"));
    }
    let ours = |call: fn(&Incident) -> bool| incident.is_some_and(call);
    // Its instances cannot be listed before its cell answers again, so nothing is lost by waiting to know.
    let Some(service) = evidence.service() else {
        return Err("Nova has no data of it, nor of whether somebody works on it".to_owned());
    };
    let by_somebody = |reason: &&Arc<str>| !ours(|incident| incident.disable.is_some()) && !is_ours(reason);
    if let Some(reason) = service.disabled.as_ref().filter(by_somebody) {
        return Err(format!("somebody disabled its compute service ({reason})"));
    }
    if service.forced_down && !ours(|incident| incident.force_down.is_some()) {
        return Err("somebody forced its compute service down".to_owned());
    }
    Ok("nobody else works on it".to_owned())
}

impl Incident {
    pub(crate) fn is_reboot(&self) -> bool {
        matches!(self.kind, Kind::Reboot(_) | Kind::FoundRebooted(_))
    }

    /// Whether it is a reboot into this boot.
    pub(crate) fn is_of(&self, boot: BootId) -> bool {
        matches!(self.kind, Kind::Reboot(id) | Kind::FoundRebooted(id) if id == boot)
    }
}
