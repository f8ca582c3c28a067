//! Ledgers as chance makes them, and decisions about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use failover::{
    Act, Answer, Arming, Binding, BootId, Call, CallAnswer, ChannelKind, Decision, FenceReceipt, Gate, Hold, Host,
    HostRecord, How, Incident, IncidentId, InstanceId, Kind, Ledger, Method, MigrationId, Move, MoveState, Outcome,
    Phase, Proof, Restart, RestartState, SystemId, Time, Verdict,
};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::host;

/// Hosts and instances are few, so that ledgers meet.
const FEW: u128 = 4;

fn time() -> impl Strategy<Value = Time> {
    (0..253_402_300_800_000_u64).prop_map(Time)
}

fn text() -> impl Strategy<Value = Arc<str>> {
    prop_oneof![
        "[a-z ]{0,20}".prop_map(Into::into),
        ".{0,12}".prop_map(Into::into),
        Just("it's \"odd\"\0\n; DROP TABLE moves; -- \u{1f4a5}".into()),
    ]
}

fn hosts() -> impl Strategy<Value = Host> {
    (1..=FEW).prop_map(host)
}

fn gate() -> impl Strategy<Value = Gate> {
    select(Gate::ALL.map(|(gate, _)| gate).to_vec())
}

fn binding() -> impl Strategy<Value = Binding> {
    prop_oneof![any::<u128>().prop_map(|id| Binding::SameSystem(SystemId(id))), Just(Binding::OnWhileAlive)]
}

fn channel() -> impl Strategy<Value = (Arc<str>, ChannelKind)> {
    let network = prop_oneof![select(vec!["mgmt", "storage"]).prop_map(Into::into), text()];
    (network, select(vec![ChannelKind::Heartbeat, ChannelKind::Tcp]))
}

fn kind() -> impl Strategy<Value = Kind> {
    let boot = || any::<u128>().prop_map(BootId);
    prop_oneof![Just(Kind::Outage), boot().prop_map(Kind::Reboot), boot().prop_map(Kind::FoundRebooted)]
}

fn record() -> impl Strategy<Value = HostRecord> {
    let boot = option::of(any::<u128>().prop_map(BootId));
    (any::<u32>(), boot, btree_set(channel(), 0..4), option::of(binding()))
        .prop_map(|(outages, boot, proven, bound)| HostRecord { outages, boot, proven, bound })
}

fn call() -> impl Strategy<Value = Option<Call>> {
    let answer = prop_oneof![Just(CallAnswer::Done), text().prop_map(CallAnswer::Failed)];
    let call = (any::<u32>(), time(), option::of((time(), answer)));
    option::of(call.prop_map(|(attempts, begun, answer)| Call { attempts, begun, answer }))
}

fn proof() -> impl Strategy<Value = Proof> {
    prop_oneof![
        time().prop_map(|epoch| Proof::PowerOff { epoch }),
        (text(), text()).prop_map(|(by, why)| Proof::Person { by, why })
    ]
}

fn receipt() -> impl Strategy<Value = (Proof, Time, Option<Arc<str>>)> {
    (proof(), time(), option::of(text()))
}

fn state() -> impl Strategy<Value = MoveState> {
    prop_oneof![
        (option::of(text()), time(), time()).prop_map(|(why, since, not_before)| MoveState::Waiting {
            why,
            since,
            not_before
        }),
        Just(MoveState::Intended),
        text().prop_map(|why| MoveState::Unknown { why }),
        Just(MoveState::Accepted),
        Just(MoveState::Moved),
        text().prop_map(|why| MoveState::Named { why }),
    ]
}

fn a_move() -> impl Strategy<Value = Move> {
    let ids = (btree_set(any::<u128>().prop_map(MigrationId), 0..3), option::of(any::<u128>().prop_map(MigrationId)));
    let stranger = text().prop_map(|name| Host { service: 0, name });
    let to = option::of(prop_oneof![hosts(), stranger]);
    let nova = (option::of(text()), option::of(text()), to, option::of(time()), option::of(time()));
    (text(), any::<u32>(), state(), ids, nova).prop_map(
        |(name, attempt, state, (known, migration), (migration_status, request, to, intended, ended))| Move {
            name,
            attempt,
            state,
            known,
            migration,
            migration_status,
            request,
            to,
            intended,
            ended,
        },
    )
}

fn restart_state() -> impl Strategy<Value = RestartState> {
    prop_oneof![
        time().prop_map(|not_before| RestartState::Waiting { not_before }),
        Just(RestartState::Asked),
        Just(RestartState::Running),
        text().prop_map(|why| RestartState::Named { why }),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    (text(), any::<u32>(), restart_state(), option::of(text()), option::of(time()))
        .prop_map(|(name, attempt, state, request, asked)| Restart { name, attempt, state, request, asked })
}

fn instance() -> impl Strategy<Value = InstanceId> {
    (1..=FEW).prop_map(InstanceId)
}

fn outcome() -> impl Strategy<Value = Outcome> {
    select(vec![Outcome::Recovered, Outcome::PartlyRecovered, Outcome::Cancelled, Outcome::Rebooted])
}

fn verdict() -> impl Strategy<Value = Verdict> {
    (gate(), any::<bool>(), text()).prop_map(|(gate, passed, why)| Verdict { gate, passed, why })
}

fn incident(id: IncidentId) -> impl Strategy<Value = Incident> {
    let phases = Phase::ALL.map(|(phase, _)| phase).to_vec();
    let head = (kind(), text(), time(), select(phases), time(), option::of((gate(), text(), time())));
    let judged = (btree_set(gate(), 0..3), vec(verdict(), 0..4), vec(receipt(), 0..3));
    let calls = (call(), call(), call(), call(), call());
    let instances = (btree_map(instance(), a_move(), 0..4), btree_map(instance(), restart(), 0..3));
    (head, judged, calls, instances, (outcome(), time())).prop_map(move |(head, judged, calls, instances, end)| {
        let (kind, why, opened, phase, phase_since, hold) = head;
        let (released, gates, receipts) = judged;
        let (power_off, force_down, disable, clear, enable) = calls;
        let closed = phase == Phase::Closed;
        let id = id.clone();
        let receipt = |(kind, read_at, void)| FenceReceipt { id: id.clone(), kind, read_at, void };
        Incident {
            receipts: receipts.into_iter().map(receipt).collect(),
            id: id.clone(),
            kind,
            why,
            opened,
            phase,
            phase_since,
            hold: hold.map(|(gate, why, since)| Hold { gate, why, since }),
            released,
            gates,
            power_off,
            force_down,
            disable,
            clear,
            enable,
            moves: instances.0,
            restarts: instances.1,
            outcome: closed.then_some(end.0),
            closed: closed.then_some(end.1),
        }
    })
}

fn incidents() -> impl Strategy<Value = BTreeMap<IncidentId, Incident>> {
    let ids = btree_set((hosts(), 1..3_u32), 0..4);
    ids.prop_flat_map(|ids| {
        let ids = ids.into_iter().map(|(host, outage)| incident(IncidentId { host, outage }));
        ids.collect::<Vec<_>>()
    })
    .prop_map(|all| all.into_iter().map(|incident| (incident.id.clone(), incident)).collect())
}

pub(crate) fn ledger() -> impl Strategy<Value = Ledger> {
    let hosts = btree_map(hosts(), record(), 0..4);
    let arming = option::of(("[a-z]{1,8}", text(), time()).prop_map(|(by, why, at)| Arming { by: by.into(), why, at }));
    (any::<bool>(), arming, hosts, incidents()).prop_map(
        |(armed, arming, mut hosts, incidents): (_, _, BTreeMap<_, _>, _)| {
            for id in incidents.keys() {
                let id: &IncidentId = id;
                hosts.entry(id.host.clone()).or_default();
            }
            Ledger { armed, arming, lease_until: Time(0), hosts, incidents }
        },
    )
}

/// What happens to a ledger: decisions of every kind but an evacuation, which only the core can prove, and answers.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    Decided(Decision),
    Answered(Act, Answer),
    TakenOver,
    ForgetBefore(Time),
}

fn decision(id: IncidentId) -> impl Strategy<Value = Decision> {
    let host = id.host.clone();
    let phases: Vec<Phase> = Phase::ALL.map(|(phase, _)| phase).into_iter().filter(|p| *p != Phase::Closed).collect();
    // One closure for each arm wants its own id.
    macro_rules! about {
        ($strategy:expr, |$id:ident, $value:pat_param| $decision:expr) => {{
            let $id = id.clone();
            $strategy
                .prop_map(move |$value| {
                    let $id = $id.clone();
                    $decision
                })
                .boxed()
        }};
    }
    macro_rules! of_host {
        ($strategy:expr, |$host:ident, $value:pat_param| $decision:expr) => {{
            let $host = host.clone();
            $strategy
                .prop_map(move |$value| {
                    let $host = $host.clone();
                    $decision
                })
                .boxed()
        }};
    }
    let all = vec![
        of_host!(channel(), |host, (network, kind)| Decision::Prove { host, network, kind }),
        of_host!(binding(), |host, binding| Decision::Bind { host, binding }),
        of_host!(text(), |host, why| Decision::Unbind { host, why }),
        of_host!(any::<u128>(), |host, boot| Decision::Boot { host, boot: BootId(boot) }),
        (any::<bool>(), text()).prop_map(|(armed, why)| Decision::Arm { armed, by: "root".into(), why }).boxed(),
        about!(text(), |id, why| Decision::Open { id, why }),
        about!((kind(), text()), |id, (kind, why)| Decision::Kind { id, kind, why }),
        about!((select(phases), text()), |id, (to, why)| Decision::Phase { id, to, why }),
        about!((gate(), text()), |id, (gate, why)| Decision::Hold { id, gate, why }),
        about!(Just(()), |id, ()| Decision::GoOn { id }),
        about!(vec(verdict(), 0..4), |id, verdicts| Decision::Gates { id, verdicts }),
        about!((proof(), time()), |id, (kind, read_at)| Decision::Receipt {
            receipt: FenceReceipt { id: id.clone(), kind, read_at, void: None },
            id
        }),
        about!(text(), |id, why| Decision::Void { id, why }),
        about!((btree_set(gate(), 0..3), text()), |id, (gates, why)| Decision::Release {
            id,
            gates,
            by: "uid 0 (root), pid 1".into(),
            why
        }),
        about!((instance(), text()), |id, (instance, name)| Decision::Plan { id, instance, name }),
        about!((instance(), state()), |id, (instance, state)| Decision::Move { id, instance, state }),
        about!((instance(), any::<u128>(), text(), option::of(hosts())), |id, (instance, row, status, to)| {
            Decision::Follow { id, instance, migration: MigrationId(row), status, to }
        }),
        about!((instance(), text(), restart_state()), |id, (instance, name, state)| Decision::Restart {
            id,
            instance,
            name,
            state
        }),
        about!((outcome(), text()), |id, (outcome, why)| Decision::Close { id, outcome, why }),
        about!(instance(), |id, instance| Decision::Act(Act::Start { id, instance, attempt: 1, how: How::Start })),
        about!(0..5_usize, |id, which| Decision::Act(an_act(id, which))),
    ];
    proptest::strategy::Union::new(all)
}

fn an_act(id: IncidentId, which: usize) -> Act {
    match which {
        0 => Act::PowerOff { id, method: Method::Redfish },
        1 => Act::ForceDown { id },
        2 => Act::Disable { id },
        3 => Act::ClearForcedDown { id },
        _ => Act::Enable { id },
    }
}

fn answer() -> impl Strategy<Value = Answer> {
    prop_oneof![
        option::of(text()).prop_map(|request| Answer::Done { request }),
        text().prop_map(|why| Answer::Refused { why }),
        text().prop_map(|why| Answer::NotSent { why }),
        text().prop_map(|why| Answer::Unknown { why }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let id = (hosts(), 1..3_u32).prop_map(|(host, outage)| IncidentId { host, outage });
    id.prop_flat_map(|id| {
        let act = id.clone();
        let answered = (0..5_usize, answer()).prop_map(move |(which, a)| Step::Answered(an_act(act.clone(), which), a));
        prop_oneof![
            20 => decision(id).prop_map(Step::Decided),
            4 => answered,
            1 => Just(Step::TakenOver),
            1 => time().prop_map(Step::ForgetBefore),
        ]
    })
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec((time(), step()), 1..60).prop_map(|steps| steps.into_iter().map(|(_, step)| step).collect())
}

/// Whether the core could have said that now: about an open incident, an instance that is planned, and so on.
pub(crate) fn makes_sense(ledger: &Ledger, decision: &Decision) -> bool {
    let open = |id: &IncidentId| ledger.incidents.get(id).filter(|incident| incident.is_open());
    match decision {
        Decision::Prove { .. }
        | Decision::Bind { .. }
        | Decision::Unbind { .. }
        | Decision::Boot { .. }
        | Decision::Arm { .. } => true,
        Decision::Open { id, .. } => {
            let last = ledger.hosts.get(&id.host).map_or(0, |record| record.outages);
            ledger.open_incident(&id.host).is_none() && id.outage > last
        }
        Decision::Move { id, instance, .. } | Decision::Follow { id, instance, .. } => {
            open(id).is_some_and(|incident| incident.moves.contains_key(instance))
        }
        Decision::Act(Act::Start { id, instance, .. }) => {
            open(id).is_some_and(|incident| incident.restarts.contains_key(instance))
        }
        Decision::Kind { id, .. }
        | Decision::Phase { id, .. }
        | Decision::Hold { id, .. }
        | Decision::GoOn { id }
        | Decision::Gates { id, .. }
        | Decision::Receipt { id, .. }
        | Decision::Void { id, .. }
        | Decision::Release { id, .. }
        | Decision::Plan { id, .. }
        | Decision::Restart { id, .. }
        | Decision::Close { id, .. } => open(id).is_some(),
        Decision::Act(act) => open(act.incident()).is_some(),
    }
}

/// What must have been decided before this could be: the incident opened, the instance planned.
pub(crate) fn first_of_all(decision: &Decision) -> Vec<Decision> {
    let opened = |id: &IncidentId| Decision::Open { id: id.clone(), why: "it is silent".into() };
    match decision {
        Decision::Move { id, instance, .. } | Decision::Follow { id, instance, .. } => {
            vec![opened(id), Decision::Plan { id: id.clone(), instance: *instance, name: "vm".into() }]
        }
        Decision::Act(Act::Start { id, instance, .. }) => {
            let state = RestartState::Waiting { not_before: Time(0) };
            vec![opened(id), Decision::Restart { id: id.clone(), instance: *instance, name: "vm".into(), state }]
        }
        other => other.entry().map(|entry| opened(&entry.id)).into_iter().collect(),
    }
}

/// `after` with all that only `before` knows: hosts and incidents are never taken back.
pub(crate) fn grown(before: &Ledger, mut after: Ledger) -> Ledger {
    let missing = |known: &BTreeSet<Host>, host: &Host| !known.contains(host);
    let known: BTreeSet<Host> = after.hosts.keys().cloned().collect();
    after
        .hosts
        .extend(before.hosts.iter().filter(|(host, _)| missing(&known, host)).map(|(h, r)| (h.clone(), r.clone())));
    for (id, incident) in &before.incidents {
        after.incidents.entry(id.clone()).or_insert_with(|| incident.clone());
    }
    after
}
