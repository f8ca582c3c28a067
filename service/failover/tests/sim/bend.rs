//! Planted faults: a core that was built wrong in one place, made from the right one by bending what it is told or what it says.

use std::collections::BTreeSet;
use std::sync::Arc;

use failover::{
    Act, Binding, Decision, FenceReceipt, Gate, Host, Incident, IncidentId, Kind, Ledger, MoveState, NovaSeen,
    Observation, Phase, Policy, Power, Proof, Stage, Task, Time, decide, disabled_reason,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bend {
    /// The right core.
    None,
    NoReceiptCheck,
    StaleReceipt,
    OneReceiptForAllHosts,
    SecondPostAfterALostAnswer,
    DisableBeforeForceDown,
    ActsAfterTheLease,
    BlindTakenForSeeing,
    MassFailureGateDropped,
    MaintenanceGateDropped,
    SilenceCountedFromTheStart,
    LiveMigrationsForgotten,
    EvacuationsForgotten,
    DisarmedIgnored,
    UnboundBmcBelieved,
    OneSilentNetworkIsEnough,
    DestinationNotFenced,
    OptOutIgnored,
    LocalDiskIgnored,
    InstanceOverlooked,
    NothingEverNamed,
    HoldTextsTick,
    OthersDisablesUndone,
    NeverTakenBack,
    ContradictionIgnored,
    FlappingGateDropped,
    SegmentIgnored,
    ForcedDownIgnored,
    GuestNotStartedAgain,
    RebootsOverlooked,
    HoldsTooMuch,
    HoldsNeverEnd,
}

impl Bend {
    pub const PLANTED: [Self; 31] = [
        Self::NoReceiptCheck,
        Self::StaleReceipt,
        Self::OneReceiptForAllHosts,
        Self::SecondPostAfterALostAnswer,
        Self::DisableBeforeForceDown,
        Self::ActsAfterTheLease,
        Self::BlindTakenForSeeing,
        Self::MassFailureGateDropped,
        Self::MaintenanceGateDropped,
        Self::SilenceCountedFromTheStart,
        Self::LiveMigrationsForgotten,
        Self::EvacuationsForgotten,
        Self::DisarmedIgnored,
        Self::UnboundBmcBelieved,
        Self::OneSilentNetworkIsEnough,
        Self::DestinationNotFenced,
        Self::OptOutIgnored,
        Self::LocalDiskIgnored,
        Self::InstanceOverlooked,
        Self::NothingEverNamed,
        Self::HoldTextsTick,
        Self::OthersDisablesUndone,
        Self::NeverTakenBack,
        Self::ContradictionIgnored,
        Self::FlappingGateDropped,
        Self::SegmentIgnored,
        Self::ForcedDownIgnored,
        Self::GuestNotStartedAgain,
        Self::RebootsOverlooked,
        Self::HoldsTooMuch,
        Self::HoldsNeverEnd,
    ];

    pub fn decide(self, now: Time, seen: &Observation, ledger: &Ledger, policy: &Policy) -> Vec<Decision> {
        if matches!(self, Self::None | Self::ActsAfterTheLease) {
            return decide(now, seen, ledger, policy);
        }
        let (mut bent_seen, mut bent_ledger, mut bent_policy) = (seen.clone(), ledger.clone(), policy.clone());
        self.tells(now, &mut bent_seen, &mut bent_ledger, &mut bent_policy);
        let mut decisions = decide(now, &bent_seen, &bent_ledger, &bent_policy);
        self.says(now, ledger, &mut decisions);
        decisions
    }

    /// What the core is told instead of the truth.
    fn tells(self, now: Time, seen: &mut Observation, ledger: &mut Ledger, policy: &mut Policy) {
        match self {
            Self::NoReceiptCheck => {
                let open = ledger.open_incidents().map(|incident| incident.host().clone()).collect();
                forge(ledger, now, &open, |_| true);
            }
            Self::OneReceiptForAllHosts => {
                let hosts = seen.hosts.keys().cloned().collect();
                let fenced: BTreeSet<Host> =
                    ledger.open_incidents().filter(|it| it.receipt().is_some()).map(|it| it.host().clone()).collect();
                if !fenced.is_empty() {
                    forge(ledger, now, &hosts, |host| !fenced.contains(host));
                }
            }
            Self::StaleReceipt => stay_off(now, seen, ledger),
            Self::SecondPostAfterALostAnswer => ask_again(ledger),
            Self::BlindTakenForSeeing => seen.view.nova_answered = Some(now),
            Self::MassFailureGateDropped => policy.mass_failure_percent = 101,
            Self::MaintenanceGateDropped => release(ledger, Gate::NotMaintained),
            Self::SilenceCountedFromTheStart => seen.view.unbroken_since = Time(0),
            Self::LiveMigrationsForgotten => {
                rows(seen, |row| row.evacuation);
                guests(seen, |guest| guest.task = Task::None);
            }
            Self::EvacuationsForgotten => {
                rows(seen, |row| !row.evacuation);
                guests(seen, |guest| guest.task = Task::None);
            }
            Self::DisarmedIgnored => ledger.armed = true,
            Self::UnboundBmcBelieved => believe_bmcs(seen, ledger),
            Self::OneSilentNetworkIsEnough => keep_the_silent(now, seen, policy),
            Self::DestinationNotFenced => {
                fail_towards_the_silent(now, seen, policy);
                guests(seen, |guest| guest.task = Task::None);
            }
            Self::OptOutIgnored => guests(seen, |guest| (guest.wish, guest.owned_by) = (Some(true), None)),
            Self::LocalDiskIgnored => guests(seen, |guest| guest.boots_from_volume = true),
            Self::OthersDisablesUndone => claim_disables(seen, ledger),
            Self::InstanceOverlooked => overlook(seen),
            Self::ContradictionIgnored => ignore_what_is_heard_since_off(seen),
            Self::FlappingGateDropped => release(ledger, Gate::NotFlapping),
            Self::SegmentIgnored => policy.hosts.values_mut().for_each(|host| host.enabled = true),
            Self::ForcedDownIgnored => forget_forced_down(seen, ledger),
            Self::RebootsOverlooked => {
                for (host, record) in &mut ledger.hosts {
                    record.boot = seen.hosts.get(host).and_then(|host| host.boot).map(|boot| boot.id).or(record.boot);
                }
            }
            Self::HoldsTooMuch => policy.mass_failure_percent = 10,
            _ => {}
        }
    }

    /// What is made of what the core says.
    fn says(self, now: Time, ledger: &Ledger, decisions: &mut Vec<Decision>) {
        // What is about an incident that was only forged cannot be recorded.
        decisions.retain(|decision| match decision.entry() {
            Some(entry) if !matches!(decision, Decision::Open { .. }) => ledger.incidents.contains_key(&entry.id),
            _ => true,
        });
        match self {
            Self::DisableBeforeForceDown => {
                for decision in decisions.iter_mut() {
                    if let Decision::Act(Act::ForceDown { id }) = decision
                        && ledger.incidents[id].disable.is_none()
                    {
                        *decision = Decision::Act(Act::Disable { id: id.clone() });
                    }
                }
            }
            Self::NothingEverNamed => {
                decisions.retain(|it| !matches!(it, Decision::Move { state: MoveState::Named { .. }, .. }))
            }
            Self::HoldTextsTick => {
                for decision in decisions.iter_mut() {
                    if let Decision::Hold { why, .. } = decision {
                        *why = format!("{why} (at {})", now.0).into();
                    }
                }
            }
            Self::NeverTakenBack => {
                decisions.retain(|it| !matches!(it, Decision::Phase { to: Phase::HostReturned, .. }))
            }
            Self::GuestNotStartedAgain => {
                let last = decisions.iter().rposition(|it| matches!(it, Decision::Restart { .. }));
                let noted = |it: &Decision| matches!(it, Decision::Phase { to: Phase::RestartingGuests, .. });
                if let Some(last) = last.filter(|_| decisions.iter().any(noted)) {
                    decisions.remove(last);
                }
            }
            Self::HoldsNeverEnd => decisions.retain(|it| !matches!(it, Decision::GoOn { .. })),
            _ => {}
        }
    }

    pub fn acts_late(self) -> bool {
        self == Self::ActsAfterTheLease
    }
}

fn forge(ledger: &mut Ledger, now: Time, hosts: &BTreeSet<Host>, on: impl Fn(&Host) -> bool) {
    for host in hosts.iter().filter(|host| on(host)) {
        let id = ledger.open_incident(host).map(|incident| incident.id.clone());
        let id = id.unwrap_or_else(|| {
            let id = IncidentId { host: host.clone(), outage: u32::MAX };
            let mut incident = Incident::opened(id.clone(), Kind::Outage, "forged".into(), now);
            incident.phase = Phase::Recovered;
            ledger.incidents.insert(id.clone(), incident);
            id
        });
        let kind = Proof::Person { by: "nobody".into(), why: "forged".into() };
        let receipt = FenceReceipt { id: id.clone(), kind, read_at: now, void: None };
        ledger.incidents.get_mut(&id).expect("it is there").receipts.push(receipt);
    }
}

fn stay_off(now: Time, seen: &mut Observation, ledger: &Ledger) {
    for incident in ledger.open_incidents() {
        let Some(FenceReceipt { kind: Proof::PowerOff { epoch }, .. }) = incident.receipt() else { continue };
        if let Some(host) = seen.hosts.get_mut(incident.host()) {
            host.power.reading = Power::Off { since: *epoch, at: now };
            host.channels.iter_mut().for_each(|channel| channel.last = channel.last.min(Some(*epoch)));
        }
    }
}

fn ask_again(ledger: &mut Ledger) {
    let moves = ledger.incidents.values_mut().flat_map(|incident| incident.moves.values_mut());
    for moving in moves.filter(|moving| matches!(moving.state, MoveState::Intended | MoveState::Unknown { .. })) {
        moving.state = MoveState::Waiting { why: None, since: Time(0), not_before: Time(0) };
        moving.intended = None;
    }
}

fn release(ledger: &mut Ledger, gate: Gate) {
    for incident in ledger.incidents.values_mut() {
        incident.released.insert(gate);
    }
}

fn rows(seen: &mut Observation, keep: impl Fn(&failover::MigrationSeen) -> bool) {
    for instances in seen.instances.values_mut() {
        if let Some(migrations) = &mut instances.migrations {
            Arc::make_mut(migrations).rows.retain(|row| keep(row));
        }
    }
}

fn guests(seen: &mut Observation, bend: impl Fn(&mut failover::InstanceSeen)) {
    for instances in seen.instances.values_mut() {
        if let Some(listing) = &mut instances.listing {
            Arc::make_mut(listing).instances.values_mut().for_each(&bend);
        }
    }
}

fn overlook(seen: &mut Observation) {
    for instances in seen.instances.values_mut() {
        if let Some(listing) = &mut instances.listing {
            Arc::make_mut(listing).instances.pop_last();
        }
    }
}

fn believe_bmcs(seen: &mut Observation, ledger: &mut Ledger) {
    for host in seen.hosts.values_mut() {
        host.power.system = None;
    }
    for record in ledger.hosts.values_mut() {
        record.bound = Some(Binding::OnWhileAlive);
    }
}

fn keep_the_silent(now: Time, seen: &mut Observation, policy: &Policy) {
    for host in seen.hosts.values_mut() {
        let is_silent = |last: Option<Time>| last.is_some_and(|last| now.since(last) >= policy.suspect_after);
        if host.channels.iter().any(|channel| is_silent(channel.last)) {
            host.channels.retain(|channel| is_silent(channel.last));
            let mut again = host.channels[0].clone();
            again.network = "the same again".into();
            host.channels.push(again);
        }
    }
}

/// A migration towards a host that is silent is taken for failed.
fn fail_towards_the_silent(now: Time, seen: &mut Observation, policy: &Policy) {
    let hosts = seen.hosts.iter();
    let silent: BTreeSet<Host> = hosts
        .filter(|(_, host)| {
            host.channels.iter().all(|it| it.last.is_none_or(|last| now.since(last) > policy.suspect_after))
        })
        .map(|(name, _)| name.clone())
        .collect();
    for instances in seen.instances.values_mut() {
        let Some(migrations) = &mut instances.migrations else { continue };
        for row in &mut Arc::make_mut(migrations).rows {
            if row.stage == Stage::Unfinished && row.destination.as_ref().is_some_and(|to| silent.contains(to)) {
                row.stage = Stage::Failed;
            }
        }
    }
}

/// What is heard after the first Off, on every way.
fn ignore_what_is_heard_since_off(seen: &mut Observation) {
    for host in seen.hosts.values_mut() {
        let Power::Off { since, .. } = host.power.reading else { continue };
        host.channels.iter_mut().for_each(|channel| channel.last = channel.last.min(Some(since)));
        if let NovaSeen::Listed(service) = &mut host.nova {
            service.reports = 0;
        }
    }
}

fn forget_forced_down(seen: &mut Observation, ledger: &Ledger) {
    for (host, seen) in &mut seen.hosts {
        let ours = ledger.open_incident(host).is_some_and(|incident| incident.force_down.is_some());
        if let NovaSeen::Listed(service) = &mut seen.nova {
            service.forced_down &= ours;
        }
    }
}

fn claim_disables(seen: &mut Observation, ledger: &mut Ledger) {
    for incident in ledger.incidents.values_mut().filter(|incident| incident.is_open()) {
        let Some(host) = seen.hosts.get_mut(&incident.id.host) else { continue };
        if let NovaSeen::Listed(service) = &mut host.nova
            && service.disabled.is_some()
            && incident.phase == Phase::Reintegrating
        {
            service.disabled = Some(disabled_reason(&incident.id).into());
            incident.disable.get_or_insert(failover::Call { attempts: 1, begun: Time(0), answer: None });
        }
    }
}
