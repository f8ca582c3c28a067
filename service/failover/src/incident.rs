//! One incident, one step further: each phase knows what it waits for.

use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Act, Decision, How};
use crate::evidence::{Evidence, PowerProof, join};
use crate::gates::{self, Gate, Verdict};
use crate::ledger::{Incident, Kind, Outcome, Phase, Restart, RestartState};
use crate::names::{InstanceId, Time};
use crate::observation::{BootSeen, InstanceSeen, Listing, Task, VmState};
use crate::{Cycle, evacuation, fence, reintegration};

/// Within this nova-compute has told Nova which guests run: its `sync_power_state_interval`, and the minute by which its first turn may be put off.
const SYNC: Duration = Duration::from_secs(660);

/// What is thought about one incident in one cycle.
pub(crate) struct Thought<'a> {
    pub(crate) cycle: &'a Cycle<'a>,
    decisions: Vec<Decision>,
    hold: Option<(Gate, Arc<str>)>,
}

impl<'a> Thought<'a> {
    pub(crate) fn record(&mut self, decision: Decision) {
        self.decisions.push(decision);
    }

    /// Held by a gate that counts others: the count that stands there is kept, since it changes with every host.
    fn hold_at(&mut self, incident: &Incident, gate: Gate, why: String) {
        if gate == Gate::NotEverybody {
            self.stay_held(incident, gate, "");
        }
        self.hold(gate, why);
    }

    /// Says why nothing goes on; the first reason stays.
    pub(crate) fn hold(&mut self, gate: Gate, why: String) {
        self.hold.get_or_insert_with(|| (gate, why.into()));
    }

    /// What held it holds it until it is over, also while another attempt is under way: a hold is a row, and must not flicker.
    pub(crate) fn stay_held(&mut self, incident: &Incident, gate: Gate, what: &str) {
        if let Some(hold) = incident.hold.as_ref().filter(|hold| hold.gate == gate && hold.why.starts_with(what)) {
            self.hold(gate, hold.why.to_string());
        }
    }

    /// Does it, if we are armed, see, and hold the lease for as long as it may take to be sent. Otherwise says what keeps us from it.
    pub(crate) fn act(&mut self, act: Act, limit: Duration) -> bool {
        // A fence is held even while Nova does not answer: the power is seen without it.
        let blind = match act {
            Act::PowerOff { .. } if !self.decisions_begin_a_fence(&act) => Ok(String::new()),
            _ => gates::we_see(self.cycle),
        };
        for (gate, judged) in [(Gate::Armed, gates::armed(self.cycle)), (Gate::WeSee, blind)] {
            if let Err(why) = judged {
                self.hold(gate, why);
                return false;
            }
        }
        let in_time = self.cycle.now + limit < self.cycle.ledger.lease_until;
        if in_time {
            self.decisions.push(Decision::Act(act));
        }
        in_time
    }

    fn decisions_begin_a_fence(&self, act: &Act) -> bool {
        self.cycle.ledger.incidents.get(act.incident()).is_none_or(|incident| !incident.was_fenced())
    }

    fn enter(&mut self, incident: &Incident, to: Phase, why: impl Into<Arc<str>>) {
        self.record(Decision::Phase { id: incident.id.clone(), to, why: why.into() });
    }
}

/// Everything to be done about one incident now.
pub(crate) fn step(incident: &Incident, cycle: &Cycle<'_>) -> Vec<Decision> {
    let mut thought = Thought { cycle, decisions: Vec::new(), hold: None };
    match cycle.evidence(incident.host()) {
        None => match gates::we_see(cycle) {
            Err(why) => thought.hold(Gate::WeSee, why),
            Ok(_) => unlisted(incident, &mut thought),
        },
        Some(evidence) => match cycle.namesake(incident.host()) {
            // Heartbeats, BMC and TCP go by the name: nobody knows whose they are.
            Some(other) => {
                let (this, other) = (InstanceId(incident.host().service), InstanceId(other.service));
                let why =
                    format!("two compute services have this name ({this} and {other}): delete the one that is no more");
                thought.hold(Gate::Evidence, why);
            }
            None => think(incident, &evidence, &mut thought),
        },
    }
    let Thought { mut decisions, hold, .. } = thought;
    let held = incident.hold.as_ref().map(|hold| (hold.gate, hold.why.clone()));
    let closes = decisions.iter().any(|decision| matches!(decision, Decision::Close { .. }));
    match hold {
        Some((gate, why)) if held != Some((gate, why.clone())) => {
            decisions.push(Decision::Hold { id: incident.id.clone(), gate, why });
        }
        None if held.is_some() && !closes => decisions.insert(0, Decision::GoOn { id: incident.id.clone() }),
        _ => {}
    }
    decisions
}

/// Somebody has deleted its compute service. Nova lets nobody do that while instances are on it.
fn unlisted(incident: &Incident, thought: &mut Thought<'_>) {
    let outcome = match incident.phase {
        Phase::Suspected | Phase::Confirmed | Phase::Fencing => Outcome::Cancelled,
        Phase::RestartingGuests => Outcome::Rebooted,
        Phase::Recovered | Phase::PartlyRecovered | Phase::HostReturned | Phase::Reintegrating | Phase::Closed => {
            reintegration::outcome(incident)
        }
        Phase::Fenced | Phase::ForcedDown | Phase::Evacuating => {
            let why = format!(
                "{UNLISTED}, so its instances cannot be followed: `tandem release {} --reason ...` closes it",
                incident.id
            );
            return thought.hold(Gate::Evidence, why);
        }
    };
    thought.record(Decision::Close { id: incident.id.clone(), outcome, why: UNLISTED.into() });
}

pub(crate) const UNLISTED: &str = "Nova no longer lists this compute service";

fn think(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    match incident.phase {
        Phase::Suspected => suspected(incident, evidence, thought),
        Phase::Confirmed => confirmed(incident, evidence, thought),
        Phase::Fencing => fencing(incident, evidence, thought),
        Phase::Fenced => fenced(incident, evidence, thought),
        Phase::ForcedDown => forced_down(incident, evidence, thought),
        Phase::Evacuating => {
            let holds = fence::step(incident, evidence, thought);
            if let Err(why) = gates::we_see(evidence.cycle) {
                thought.hold(Gate::WeSee, why); // nothing can be followed, and nothing begun
            }
            evacuation::step(incident, evidence, holds, thought);
        }
        Phase::Recovered | Phase::PartlyRecovered => reintegration::settled(incident, evidence, thought),
        Phase::HostReturned => reintegration::returned(incident, evidence, thought),
        Phase::Reintegrating => reintegration::reintegrating(incident, evidence, thought),
        Phase::RestartingGuests => restarting_guests(incident, evidence, thought),
        Phase::Closed => {}
    }
}

/// Before the fence life ends the incident; a life with a new boot id was a reboot.
fn answers_again(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) -> bool {
    if let Some(boot) = evidence.reboot() {
        thought.record(Decision::Kind {
            id: incident.id.clone(),
            kind: kind_of(boot, evidence),
            why: format!("{} has booted by itself: nothing is fenced or moved", incident.host()).into(),
        });
        thought.record(Decision::Boot { host: incident.host().clone(), boot: boot.id });
        if incident.phase != Phase::Suspected {
            thought.enter(incident, Phase::Suspected, "what ran on it is looked up");
        }
        return true;
    }
    if evidence.suspicion().is_some()
        || evidence.contradiction().is_some()
        || (evidence.heard_on().is_empty() && !evidence.reports_to_nova_since(incident.opened))
    {
        return false;
    }
    let why = format!("{} answers again", incident.host());
    let boot = evidence.record.and_then(|record| record.boot);
    if let Some(boot) = boot.filter(|_| incident.restarts.values().any(|restart| !restart.state.is_settled())) {
        let why = format!("{why}, in the boot whose guests were being started").into();
        thought.record(Decision::Kind { id: incident.id.clone(), kind: Kind::FoundRebooted(boot), why });
        thought.enter(incident, Phase::RestartingGuests, "what does not run yet is still to be started");
        return true;
    }
    thought.record(Decision::Close { id: incident.id.clone(), outcome: Outcome::Cancelled, why: why.into() });
    true
}

fn kind_of(boot: BootSeen, evidence: &Evidence<'_>) -> Kind {
    let (policy, now) = (evidence.cycle.policy, evidence.cycle.now);
    let watched = boot.heard.since(evidence.cycle.seen.view.unbroken_since) > policy.suspect_after;
    let lately = now.since(boot.heard) < policy.evacuation.unknown / 3;
    if watched && lately { Kind::Reboot(boot.id) } else { Kind::FoundRebooted(boot.id) }
}

fn suspected(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if incident.is_reboot() {
        return rebooted(incident, evidence, thought);
    }
    if fence::void_if_broken(incident, evidence, thought) || answers_again(incident, evidence, thought) {
        return;
    }
    match proof_of_death(incident, evidence) {
        Ok(why) => thought.enter(incident, Phase::Confirmed, why),
        Err(why) => {
            if let Some(by) = evidence.contradiction() {
                thought.hold(Gate::Contradiction, format!("its BMC says Off, but {by}"));
            } else if evidence.cycle.now.since(incident.opened) > evidence.cycle.policy.silence {
                thought.hold(Gate::Evidence, why);
            }
        }
    }
}

fn proof_of_death(incident: &Incident, evidence: &Evidence<'_>) -> Result<String, String> {
    if matches!(evidence.power(), PowerProof::Off { .. }) {
        return Ok("its BMC says Off, and nothing is heard of it".to_owned());
    }
    if fence::holds(incident, evidence).is_ok() {
        return Ok("a person says that it is off, and nothing is heard of it".to_owned());
    }
    evidence.dead_by_silence()
}

fn confirmed(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if fence::void_if_broken(incident, evidence, thought) || answers_again(incident, evidence, thought) {
        return;
    }
    if let Err(why) = proof_of_death(incident, evidence) {
        let is_unread = matches!(evidence.power(), PowerProof::None { .. } | PowerProof::OffJustNow { .. });
        return match &incident.hold {
            // A BMC that is slow for a moment takes nothing back.
            Some(hold) if is_unread && evidence.heard_on().is_empty() => {
                thought.hold(hold.gate, hold.why.to_string());
            }
            _ => thought.enter(incident, Phase::Suspected, why),
        };
    }
    let verdicts = gates::judge(evidence, Some(incident));
    let held = gates::held(&verdicts, incident).map(|verdict| (verdict.gate, verdict.why.to_string()));
    if Verdict::turned(&incident.gates, &verdicts) {
        thought.record(Decision::Gates { id: incident.id.clone(), verdicts });
    }
    match held {
        Some((gate, why)) => thought.hold_at(incident, gate, why),
        None => thought.enter(incident, Phase::Fencing, "every gate is passed"),
    }
}

fn fencing(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if incident.receipt().is_some() {
        if fence::step(incident, evidence, thought) {
            thought.enter(incident, Phase::Fenced, "the fence is confirmed");
        }
    } else if !evidence.heard_on().is_empty() || evidence.reports_to_nova_twice_since(incident.phase_since) {
        heard_while_fencing(incident, evidence, thought);
    } else if !stopped_at_a_gate(incident, evidence, thought) {
        fence::step(incident, evidence, thought);
    }
}

/// What is heard is not switched off, whatever else is wrong with it.
fn heard_while_fencing(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if let PowerProof::Contradicted { .. } | PowerProof::OffJustNow { .. } = evidence.power() {
        fence::step(incident, evidence, thought);
        return;
    }
    // What was sent may still be carried out: until the power has been read after it, or long enough, the host counts as neither alive nor dead.
    let on_its_way = incident.power_off.as_ref().is_some_and(|call| {
        let policy = &evidence.cycle.policy.fence;
        let over = call.answer.as_ref().map_or(call.begun + policy.limit, |(at, _)| *at);
        let was_read = matches!(evidence.power(), PowerProof::On { at } if at > over + policy.limit / 2);
        !was_read && evidence.cycle.now < over + policy.slow_retry
    });
    if on_its_way {
        let why = "it is heard, and its BMC was told to switch it off: waiting for what the BMC says of that";
        thought.hold(Gate::Fence, why.to_owned());
    } else if !answers_again(incident, evidence, thought) {
        let heard = evidence.heard_on();
        let reports = "its nova-compute reports to Nova".to_owned();
        let why = if heard.is_empty() { reports } else { format!("it is heard on {}", join(&heard)) };
        thought.enter(incident, Phase::Suspected, why);
    }
}

/// Each power-off is a decision: what came up since the first one counts, too.
fn stopped_at_a_gate(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) -> bool {
    let verdicts = gates::judge(evidence, Some(incident));
    let held = gates::held(&verdicts, incident).map(|verdict| (verdict.gate, verdict.why.to_string()));
    if Verdict::turned(&incident.gates, &verdicts) && held.is_some() {
        thought.record(Decision::Gates { id: incident.id.clone(), verdicts });
    }
    let is_held = held.is_some();
    if let Some((gate, why)) = held {
        thought.hold_at(incident, gate, why);
    }
    is_held
}

fn fenced(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let nothing_done = incident.receipt().is_none() && incident.force_down.is_none();
    if nothing_done && !evidence.heard_on().is_empty() {
        let why = format!("it is heard on {}, and nothing was done yet", join(&evidence.heard_on()));
        return thought.enter(incident, Phase::Suspected, why);
    }
    if !fence::step(incident, evidence, thought) {
        return;
    }
    let policy = &evidence.cycle.policy.evacuation;
    match &incident.force_down {
        Some(call) if call.is_done() => {
            thought.enter(incident, Phase::ForcedDown, "Nova lets its instances be evacuated")
        }
        Some(call)
            if !fence::may_repeat(
                call,
                evidence.cycle.now,
                policy.call_limit,
                fence::growing(call, policy.call_retry),
            ) =>
        {
            said_why(call.failure(), NOT_FORCED_DOWN, incident, thought);
        }
        _ => {
            thought.act(Act::ForceDown { id: incident.id.clone() }, policy.call_limit);
            thought.stay_held(incident, Gate::WeSee, NOT_FORCED_DOWN);
        }
    }
}

/// Force down first: a disable of a host that Nova believes up waits 60 s for its nova-compute.
fn forced_down(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if !fence::step(incident, evidence, thought) {
        return;
    }
    let policy = &evidence.cycle.policy.evacuation;
    let disabled_by_others =
        incident.disable.is_none() && evidence.service().is_some_and(|service| service.disabled.is_some());
    match &incident.disable {
        Some(call) if call.is_done() => thought.enter(incident, Phase::Evacuating, "the scheduler keeps off it"),
        None if disabled_by_others => {
            thought.enter(incident, Phase::Evacuating, "its compute service was disabled already")
        }
        Some(call)
            if !fence::may_repeat(
                call,
                evidence.cycle.now,
                policy.call_limit,
                fence::growing(call, policy.call_retry),
            ) =>
        {
            said_why(call.failure(), NOT_DISABLED, incident, thought);
        }
        _ => {
            thought.act(Act::Disable { id: incident.id.clone() }, policy.call_limit);
            thought.stay_held(incident, Gate::WeSee, NOT_DISABLED);
        }
    }
}

const NOT_FORCED_DOWN: &str = "Nova did not force it down";
const NOT_DISABLED: &str = "Nova did not disable it";

fn said_why(failure: Option<&Arc<str>>, what: &str, incident: &Incident, thought: &mut Thought<'_>) {
    match failure {
        Some(why) => thought.hold(Gate::WeSee, format!("{what}: {why}")),
        None => thought.stay_held(incident, Gate::WeSee, what),
    }
}

/// The host has booted by itself. What ran on it is noted before nova-compute changes it, and started once nova-compute reports.
fn rebooted(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let Some(listing) = evidence.cycle.listing(incident.host()).filter(|listing| listing.at >= incident.opened) else {
        return;
    };
    let ran = listing.instances.iter().filter(|(_, instance)| instance.state == VmState::Active);
    for (id, instance) in ran {
        thought.record(Decision::Restart {
            id: incident.id.clone(),
            instance: *id,
            name: instance.name.clone(),
            state: RestartState::Waiting { not_before: evidence.cycle.now },
        });
    }
    thought.enter(incident, Phase::RestartingGuests, "its guests are started once nova-compute is back");
}

fn restarting_guests(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if evidence.all_silent(evidence.cycle.policy.silence) {
        let why = format!("{} fell silent again", incident.host());
        thought.record(Decision::Kind { id: incident.id.clone(), kind: Kind::Outage, why: why.clone().into() });
        return thought.enter(incident, Phase::Suspected, why);
    }
    if let Some(boot) = evidence.seen.boot.filter(|boot| !evidence.heard_on().is_empty() && !incident.is_of(boot.id)) {
        return rebooted_again(incident, boot, evidence, thought);
    }
    if incident.restarts.values().all(|restart| restart.state.is_settled()) {
        let why = restarted(incident);
        return thought.record(Decision::Close {
            id: incident.id.clone(),
            outcome: Outcome::Rebooted,
            why: why.into(),
        });
    }
    let maintained = gates::not_maintained(evidence, Some(incident)).err();
    if let Some(why) = maintained.filter(|_| !incident.released.contains(&Gate::NotMaintained)) {
        return thought.hold(Gate::NotMaintained, why);
    }
    let back =
        evidence.reports_to_nova_since(incident.phase_since) && evidence.service().is_some_and(|service| service.up);
    if !back {
        if evidence.cycle.now.since(incident.phase_since) > evidence.cycle.policy.evacuation.unknown {
            thought.hold(Gate::Return, "its nova-compute does not report: its guests cannot be started".to_owned());
        }
        return;
    }
    let Some(listing) = evidence.cycle.listing(incident.host()) else { return };
    let asked = incident.restarts.values().filter(|restart| restart.state == RestartState::Asked).count();
    let mut room = evidence.cycle.policy.evacuation.per_source.saturating_sub(asked);
    for (id, restart) in in_order(incident, listing) {
        restart_one(incident, evidence, (id, restart), &mut room, thought);
    }
}

/// So quickly that it was not missed in between: what had been started is gone once more.
fn rebooted_again(incident: &Incident, boot: BootSeen, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let why: Arc<str> = format!("{} has booted by itself once more", incident.host()).into();
    thought.record(Decision::Kind { id: incident.id.clone(), kind: kind_of(boot, evidence), why: why.clone() });
    let gone = incident.restarts.iter().filter(|(_, it)| !matches!(it.state, RestartState::Named { .. }));
    for (instance, restart) in gone {
        thought.record(Decision::Restart {
            id: incident.id.clone(),
            instance: *instance,
            name: restart.name.clone(),
            state: RestartState::Waiting { not_before: evidence.cycle.now },
        });
    }
    thought.enter(incident, Phase::RestartingGuests, why);
}

/// Those that do not run yet: the more important first, then the older.
fn in_order<'a>(incident: &'a Incident, listing: &Listing) -> Vec<(InstanceId, &'a Restart)> {
    let waiting = incident.restarts.iter().filter(|(_, restart)| !restart.state.is_settled());
    let mut waiting: Vec<_> = waiting.map(|(id, restart)| (*id, restart)).collect();
    waiting
        .sort_by_key(|(id, _)| (listing.instances.get(id).map(|seen| (-i64::from(seen.priority), seen.created)), *id));
    waiting
}

fn restarted(incident: &Incident) -> String {
    let running = incident.restarts.values().filter(|restart| restart.state == RestartState::Running).count();
    format!("{running} of {} guests run again", incident.restarts.len())
}

fn restart_one(
    incident: &Incident,
    evidence: &Evidence<'_>,
    (id, restart): (InstanceId, &Restart),
    room: &mut usize,
    thought: &mut Thought<'_>,
) {
    let (now, policy) = (evidence.cycle.now, &evidence.cycle.policy.evacuation);
    let Some(listing) = evidence.cycle.listing(incident.host()) else { return };
    let becomes =
        |state| Decision::Restart { id: incident.id.clone(), instance: id, name: restart.name.clone(), state };
    let named = |why: &str| becomes(RestartState::Named { why: why.into() });
    let looked_after = |moment: Time| listing.at > moment;
    let Some(seen) = listing.instances.get(&id) else {
        return thought.record(named("it is on this host no more"));
    };
    match &restart.state {
        // Before Nova has taken the order what it shows may be as old as the reboot.
        RestartState::Asked
            if restart.request.is_some() && looked_after(restart.asked.unwrap_or_default()) && runs(seen) =>
        {
            thought.record(becomes(RestartState::Running));
        }
        RestartState::Asked if now.since(restart.asked.unwrap_or_default()) > policy.unknown => {
            thought.record(becomes(RestartState::Waiting { not_before: now }));
        }
        // Somebody may have started it. Or Nova has not noticed yet that it does not run: its word counts once nova-compute is back for a while.
        RestartState::Waiting { not_before } if runs(seen) && !booted_before_our_eyes(incident, evidence) => {
            if *not_before <= incident.phase_since {
                thought.record(becomes(RestartState::Waiting { not_before: now }));
            } else if looked_after(*not_before + SYNC) {
                thought.record(becomes(RestartState::Running));
            }
        }
        RestartState::Waiting { not_before }
            if restart.attempt == 0 && looked_after(incident.phase_since)
                || looked_after(*not_before) && now >= *not_before + policy.retry =>
        {
            if restart.attempt >= policy.attempts {
                return thought.record(named("it did not start"));
            }
            let Some(how) = how(seen) else {
                if now.since(incident.phase_since) > policy.unknown {
                    thought.record(named(&format!("Nova does not start what is {}", standing(seen))));
                }
                return;
            };
            let act = Act::Start { id: incident.id.clone(), instance: id, attempt: restart.attempt + 1, how };
            if *room > 0 && thought.act(act, policy.begin) {
                *room -= 1;
            }
        }
        _ => {}
    }
}

/// Whether the boot was seen as it happened, and lately. Otherwise somebody may have started the guest since, and Nova's word that it runs counts.
fn booted_before_our_eyes(incident: &Incident, evidence: &Evidence<'_>) -> bool {
    let Kind::Reboot(seen) = incident.kind else { return false };
    let is_this_one = evidence.seen.boot.is_none_or(|boot| boot.id == seen);
    is_this_one && evidence.cycle.now.since(incident.phase_since) < evidence.cycle.policy.evacuation.unknown
}

fn runs(seen: &InstanceSeen) -> bool {
    seen.state == VmState::Active && seen.running && seen.task == Task::None
}

fn standing(seen: &InstanceSeen) -> String {
    let state = match &seen.state {
        VmState::Active => "active",
        VmState::Stopped => "stopped",
        VmState::Error => "in ERROR",
        VmState::Other(state) => state,
    };
    match &seen.task {
        Task::None => state.to_owned(),
        Task::OnItsHost(task) | Task::Elsewhere(task) => format!("{state} and {task}"),
        Task::Deleting => format!("{state} and being deleted"),
    }
}

/// Its kernel booted anew, so nothing of the guest is left: what Nova still calls active and running is not.
fn how(seen: &InstanceSeen) -> Option<How> {
    match (&seen.state, &seen.task) {
        (VmState::Stopped, Task::None) => Some(How::Start),
        (VmState::Active, Task::None) => Some(How::HardReboot),
        _ => None,
    }
}
