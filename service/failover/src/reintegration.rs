//! The return of a host: it is let into the cloud again once it is certain what runs on it.

use crate::decision::{Act, Decision};
use crate::evidence::Evidence;
use crate::fence::{growing, may_repeat};
use crate::gates::Gate;
use crate::incident::Thought;
use crate::ledger::{Call, Incident, MoveState, Outcome, Phase};
use crate::names::IncidentId;

/// What Nova shows as the reason why the service is disabled; by it we know our own.
pub fn disabled_reason(id: &IncidentId) -> String {
    format!("tandem: {} failed, outage {}", id.host, id.outage)
}

/// Whether a service was disabled by tandem-ha, in this outage or in one that ended before it could be taken back.
pub(crate) fn is_ours(reason: &str) -> bool {
    reason.starts_with("tandem: ")
}

/// Settled: nothing more is done until the host is back. Its power is nobody's business now.
pub(crate) fn settled(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let booted = evidence.boot_after(incident.phase_since) && !evidence.heard_on().is_empty();
    let why = if booted {
        "it is heard, with a new boot"
    } else if evidence.reports_to_nova_twice_since(incident.phase_since) {
        "its nova-compute reports to Nova"
    } else {
        return;
    };
    thought.record(Decision::Phase { id: incident.id.clone(), to: Phase::HostReturned, why: why.into() });
}

/// Nova refuses to lift forced_down until the host's nova-compute has completed its evacuations: that is the proof that it has cleaned up.
pub(crate) fn returned(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    if evidence.all_silent(evidence.cycle.policy.silence) {
        let to = settled_phase(incident);
        return thought.record(Decision::Phase { id: incident.id.clone(), to, why: "it fell silent again".into() });
    }
    let lifted = incident.force_down.is_none() || done_since(incident.clear.as_ref(), incident);
    if lifted {
        let why = "Nova believes its reports again".into();
        return thought.record(Decision::Phase { id: incident.id.clone(), to: Phase::Reintegrating, why });
    }
    let act = Act::ClearForcedDown { id: incident.id.clone() };
    ask(incident.clear.as_ref(), act, "Nova does not lift forced_down", evidence, incident, thought);
}

/// A call of an earlier return, before it fell silent again, does not count.
fn done_since(call: Option<&Call>, incident: &Incident) -> bool {
    call.is_some_and(|call| call.is_done() && call.begun >= incident.phase_since)
}

pub(crate) fn reintegrating(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let close = |why: &str| Decision::Close { id: incident.id.clone(), outcome: outcome(incident), why: why.into() };
    if evidence.all_silent(evidence.cycle.policy.silence) {
        let why = "it fell silent again";
        return thought.record(match &incident.enable {
            Some(_) => close(why),
            // The scheduler has sent it nothing yet.
            None => Decision::Phase { id: incident.id.clone(), to: settled_phase(incident), why: why.into() },
        });
    }
    let Some(service) = evidence.service() else {
        return thought.hold(Gate::Return, "Nova has no data of it".to_owned());
    };
    match &service.disabled {
        Some(reason) if !is_ours(reason) => {
            return thought.record(close(&format!("back; somebody else keeps it disabled ({reason})")));
        }
        // Nova tells only a compute that it believes up; otherwise Placement would keep the scheduler off for another minute.
        Some(_) if service.up && !incident.enable.as_ref().is_some_and(Call::is_done) => {
            let act = Act::Enable { id: incident.id.clone() };
            return ask(incident.enable.as_ref(), act, "Nova does not enable it", evidence, incident, thought);
        }
        Some(_) | None => {}
    }
    if service.up && evidence.seen.schedulable == Some(true) {
        return thought.record(close("it takes instances again"));
    }
    if evidence.cycle.now.since(incident.phase_since) > evidence.cycle.policy.evacuation.unknown {
        thought.hold(
            Gate::Return,
            "Placement still keeps the scheduler off it (COMPUTE_STATUS_DISABLED), or Nova says down".to_owned(),
        );
    }
}

fn ask(
    call: Option<&Call>,
    act: Act,
    what: &str,
    evidence: &Evidence<'_>,
    incident: &Incident,
    thought: &mut Thought<'_>,
) {
    let policy = &evidence.cycle.policy.evacuation;
    let may = call
        .is_none_or(|call| may_repeat(call, evidence.cycle.now, policy.call_limit, growing(call, policy.call_retry)));
    if may {
        thought.act(act, policy.call_limit);
    }
    let long = evidence.cycle.now.since(incident.phase_since) > policy.unknown / 3;
    match call.and_then(Call::failure).filter(|_| long) {
        Some(why) => thought.hold(Gate::Return, format!("{what}: {why}")),
        None => thought.stay_held(incident, Gate::Return, what),
    }
}

pub(crate) fn settled_phase(incident: &Incident) -> Phase {
    match outcome(incident) {
        Outcome::PartlyRecovered => Phase::PartlyRecovered,
        Outcome::Recovered | Outcome::Cancelled | Outcome::Rebooted => Phase::Recovered,
    }
}

pub(crate) fn outcome(incident: &Incident) -> Outcome {
    let all_moved = incident.moves.values().all(|moving| moving.state == MoveState::Moved);
    if all_moved { Outcome::Recovered } else { Outcome::PartlyRecovered }
}
