//! A compute service that Nova lists no more: what becomes of an incident of its host.

use std::time::Duration;

use failover::{
    Decision, Gate, Host, IncidentId, Ledger, Observation, Order, Outcome, Phase, Policy, Time, View, decide, order,
};

const NOW: Time = Time(1_000_000_000);

fn incident() -> IncidentId {
    IncidentId { host: Host { service: 0xc000, name: "cmp1".into() }, outage: 1 }
}

/// Armed and leading, with an incident of a host in this phase.
fn ledger(phase: Phase) -> Ledger {
    let mut ledger = Ledger { armed: true, lease_until: NOW + Duration::from_secs(30), ..Ledger::default() };
    let before = NOW - Duration::from_secs(60);
    ledger.apply(before, &Decision::Open { id: incident(), why: "nothing is heard of it".into() });
    ledger.apply(before, &Decision::Phase { id: incident(), to: phase, why: "as it was".into() });
    ledger
}

/// Nova answers, we have watched for an hour, and no such host is on the list.
fn nothing_listed() -> Observation {
    let unbroken_since = NOW - Duration::from_secs(3_600);
    Observation { view: View { nova_answered: Some(NOW), unbroken_since, broken_by: None }, ..Observation::default() }
}

fn decided(seen: &Observation, phase: Phase) -> Vec<Decision> {
    decide(NOW, seen, &ledger(phase), &Policy::default())
}

fn closes(decisions: &[Decision], with: Outcome) -> bool {
    matches!(decisions, [Decision::Close { id, outcome, .. }] if *id == incident() && *outcome == with)
}

#[test]
fn an_incident_that_came_to_nothing_yet_is_cancelled() {
    for phase in [Phase::Suspected, Phase::Confirmed, Phase::Fencing] {
        let decisions = decided(&nothing_listed(), phase);
        assert!(closes(&decisions, Outcome::Cancelled), "{phase:?}: {decisions:?}");
    }
}

#[test]
fn an_incident_that_is_settled_is_closed_as_it_ended() {
    for phase in [Phase::Recovered, Phase::HostReturned, Phase::Reintegrating] {
        let decisions = decided(&nothing_listed(), phase);
        assert!(closes(&decisions, Outcome::Recovered), "{phase:?}: {decisions:?}");
    }
    let decisions = decided(&nothing_listed(), Phase::RestartingGuests);
    assert!(closes(&decisions, Outcome::Rebooted), "{decisions:?}");
}

#[test]
fn what_is_fenced_is_held_until_a_person_closes_it() {
    let (seen, policy) = (nothing_listed(), Policy::default());
    for phase in [Phase::Fenced, Phase::ForcedDown, Phase::Evacuating] {
        let mut ledger = ledger(phase);
        let decisions = decide(NOW, &seen, &ledger, &policy);
        let [hold @ Decision::Hold { gate: Gate::Evidence, .. }] = decisions.as_slice() else {
            panic!("{phase:?}: {decisions:?}");
        };
        ledger.apply(NOW, hold);
        assert_eq!(decide(NOW, &seen, &ledger, &policy), [], "{phase:?}: it is said once");

        let (by, why) = ("anna".into(), "it was scrapped".into());
        let released = order(NOW, &seen, &ledger, &policy, &Order::Release(incident()), &by, &why);
        let released = released.expect("a person may close it");
        assert!(matches!(released.as_slice(), [Decision::Close { .. }]), "{phase:?}: {released:?}");
        released.iter().for_each(|decision| ledger.apply(NOW, decision));
        assert!(ledger.open_incident(&incident().host).is_none());
        assert_eq!(decide(NOW, &seen, &ledger, &policy), []);
    }
}

/// A list that could not be read says nothing.
#[test]
fn while_nova_does_not_answer_it_stays_open() {
    let seen = Observation {
        view: View { nova_answered: Some(NOW - Duration::from_secs(60)), ..nothing_listed().view },
        ..nothing_listed()
    };
    for phase in [Phase::Suspected, Phase::Evacuating, Phase::Recovered] {
        let decisions = decided(&seen, phase);
        assert!(matches!(decisions.as_slice(), [Decision::Hold { gate: Gate::WeSee, .. }]), "{phase:?}: {decisions:?}");
    }
}
