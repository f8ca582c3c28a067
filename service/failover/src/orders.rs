//! What a person may order, and what even a person may not.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::Cycle;
use crate::decision::Decision;
use crate::evidence::join;
use crate::fence::{FenceReceipt, Proof};
use crate::gates::{self, Gate};
use crate::incident::UNLISTED;
use crate::ledger::{Ledger, MoveState, Outcome, Phase};
use crate::names::{Host, IncidentId, Time};
use crate::observation::{Observation, Power};
use crate::policy::{Method, Policy};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    Arm,
    Disarm,
    /// Overrule the gates that hold an incident, or look once more at the instances that it left, or close it if Nova no longer lists the host.
    Release(IncidentId),
    /// The host is certainly off: a person has made sure.
    ManualFence(Host),
}

/// Why an order is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub String);

/// What an order comes to: recorded like everything else.
pub fn order(
    now: Time,
    seen: &Observation,
    ledger: &Ledger,
    policy: &Policy,
    order: &Order,
    by: &Arc<str>,
    why: &Arc<str>,
) -> Result<Vec<Decision>, Refusal> {
    let cycle = Cycle::new(now, seen, ledger, policy);
    match order {
        Order::Arm | Order::Disarm => {
            Ok(vec![Decision::Arm { armed: *order == Order::Arm, by: by.clone(), why: why.clone() }])
        }
        Order::Release(id) => release(&cycle, id, by, why),
        Order::ManualFence(host) => manual_fence(&cycle, host, by, why),
    }
}

fn release(cycle: &Cycle<'_>, id: &IncidentId, by: &Arc<str>, why: &Arc<str>) -> Result<Vec<Decision>, Refusal> {
    let incident = cycle.ledger.incidents.get(id).filter(|incident| incident.is_open());
    let incident = incident.ok_or_else(|| Refusal("the incident is closed".to_owned()))?;
    if cycle.evidence(incident.host()).is_none() && gates::we_see(cycle).is_ok() {
        let why = format!("{UNLISTED}; closed by {by}: {why}").into();
        return Ok(vec![Decision::Close { id: id.clone(), outcome: Outcome::PartlyRecovered, why }]);
    }
    let held = incident.hold.as_ref().map(|hold| hold.gate);
    let left = incident.moves.values().any(|moving| matches!(moving.state, MoveState::Named { .. }));
    let again = left && matches!(incident.phase, Phase::Evacuating | Phase::PartlyRecovered);
    let gates: BTreeSet<Gate> = incident
        .gates
        .iter()
        .filter(|verdict| !verdict.passed)
        .map(|verdict| verdict.gate)
        .chain(held)
        .filter(|gate| gate.may_be_released())
        .collect();
    if gates.is_empty() && !again {
        let why = incident.hold.as_ref().map_or_else(
            || "nothing holds it".to_owned(),
            |hold| format!("{}: nobody can overrule that ({})", hold.gate.word(), hold.why),
        );
        return Err(Refusal(why));
    }
    Ok(vec![Decision::Release { id: id.clone(), gates, by: by.clone(), why: why.clone() }])
}

fn manual_fence(cycle: &Cycle<'_>, host: &Host, by: &Arc<str>, why: &Arc<str>) -> Result<Vec<Decision>, Refusal> {
    let evidence = cycle.evidence(host).ok_or_else(|| Refusal(format!("Nova lists no compute service of {host}")))?;
    if !cycle.policy.of(host).methods.contains(&Method::Manual) {
        return Err(Refusal(
            "\"manual\" is not among fencing.methods: the administrator lets nobody say so".to_owned(),
        ));
    }
    let heard = evidence.heard_on();
    if !heard.is_empty() {
        return Err(Refusal(format!("{host} is alive: it is heard on {}", join(&heard))));
    }
    let incident = cycle.ledger.open_incident(host);
    let incident = incident.ok_or_else(|| Refusal(format!("{host} has no open incident: nothing needs a fence")))?;
    if !incident.phase.is_before_the_fence() && !incident.phase.holds_the_fence() {
        return Err(Refusal(format!("its incident is {}: it needs no fence", incident.phase.word())));
    }
    if let (Power::On { .. }, Ok(_)) = (&evidence.seen.power.reading, evidence.is_bound()) {
        let why = format!("the BMC of {host} says On: switch it off, and the incident goes on by itself");
        return Err(Refusal(why));
    }
    let receipt = FenceReceipt {
        id: incident.id.clone(),
        kind: Proof::Person { by: by.clone(), why: why.clone() },
        read_at: cycle.now,
        void: None,
    };
    Ok(vec![Decision::Receipt { id: incident.id.clone(), receipt }])
}
