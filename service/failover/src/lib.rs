//! Decides when a compute host is dead, and what then: told the time, what was seen and what is recorded, it answers with what to record and to do.
//!
//! ```text
//!   Observation ─┐
//!   Ledger ──────┼─▶ decide ─▶ Decisions ─▶ recorded (Ledger::apply) ─▶ acts carried out ─▶ recorded (Ledger::answered)
//!   Policy ──────┘     ▲                                                                            │
//!                      └──────────────────────── the next cycle sees the world anew ◀───────────────┘
//! ```
//!
//! The promises, in this order: never two copies of an instance that can write; never an instance forgotten; then speed. The dangerous thing
//! needs a key: an evacuation carries [`Proofs`], which only confirmed fences of every host that may hold a copy can make.
//!
//! One call makes one step of each incident. Whoever calls it records what it says and calls it again until it has nothing to say; then nothing
//! changes until the world does. There is no I/O, clock, randomness or async in here.

mod decision;
mod evacuation;
mod evidence;
mod fence;
mod gates;
mod incident;
mod ledger;
mod names;
mod observation;
mod orders;
mod plan;
mod policy;
mod reintegration;

pub use decision::{Act, Answer, Decision, Entry, EntryKind, How};
pub use evacuation::{Proofs, looks_wanted};
pub use fence::{FenceReceipt, Proof};
pub use gates::{Gate, Verdict};
pub use ledger::{
    Arming, Binding, Call, CallAnswer, Hold, HostRecord, Incident, Kind, Ledger, Move, MoveState, Outcome, Phase,
    Restart, RestartState,
};
pub use names::{BootId, GroupId, Host, IncidentId, InstanceId, MigrationId, SystemId, Time};
pub use observation::{
    BootSeen, Channel, ChannelKind, HostSeen, InstanceSeen, InstancesSeen, Listing, Look, MigrationSeen, Migrations,
    NovaSeen, Observation, Place, Power, PowerSeen, ServiceSeen, Stage, Task, View, VmState,
};
pub use orders::{Order, Refusal, order};
pub use plan::{FencePlan, InstancePlan, Plan, Standing, plan, standing};
pub use policy::{EvacuationPolicy, FencePolicy, HostPolicy, Method, Policy};
pub use reintegration::disabled_reason;

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use evidence::{Evidence, Hearing};

/// What to record now, and to do once it is recorded. Nothing if the lease has ended: somebody else decides.
pub fn decide(now: Time, seen: &Observation, ledger: &Ledger, policy: &Policy) -> Vec<Decision> {
    if now >= ledger.lease_until {
        return Vec::new();
    }
    let cycle = Cycle::new(now, seen, ledger, policy);
    let mut decisions = Vec::new();
    for host in seen.hosts.keys() {
        cycle.learn(host, &mut decisions);
        decisions.extend(cycle.suspect(host));
    }
    for incident in ledger.open_incidents() {
        decisions.extend(incident::step(incident, &cycle));
    }
    decisions
}

/// Hosts to look at closely now: their BMC every second or two, their instances and migrations as often.
pub fn closely(ledger: &Ledger) -> BTreeSet<Host> {
    // While instances move, the receipt of a host that is settled may be needed for one that was on its way to it or from it.
    let moving = ledger.open_incidents().any(|incident| incident.phase == Phase::Evacuating);
    let is_settled = |incident: &Incident| matches!(incident.phase, Phase::Recovered | Phase::PartlyRecovered);
    let open = ledger.open_incidents().filter(|incident| moving || !is_settled(incident));
    open.map(|incident| incident.host().clone()).collect()
}

/// Everything that one call of [`decide`] looks at.
struct Cycle<'a> {
    now: Time,
    seen: &'a Observation,
    ledger: &'a Ledger,
    policy: &'a Policy,
    /// Counted once: when a network fails, each of a thousand hosts asks for it.
    troubled: OnceCell<BTreeSet<Host>>,
    hearing: OnceCell<BTreeMap<Arc<str>, Hearing>>,
}

impl<'a> Cycle<'a> {
    fn new(now: Time, seen: &'a Observation, ledger: &'a Ledger, policy: &'a Policy) -> Self {
        Self { now, seen, ledger, policy, troubled: OnceCell::new(), hearing: OnceCell::new() }
    }

    /// Hosts that are silent, suspected or were fenced lately.
    fn troubled(&self) -> &BTreeSet<Host> {
        let troubled = || self.seen.hosts.keys().filter(|host| gates::in_trouble(self, host)).cloned().collect();
        self.troubled.get_or_init(troubled)
    }

    /// How many channels there are on each network, and how many of them are silent.
    fn hearing(&self) -> &BTreeMap<Arc<str>, Hearing> {
        self.hearing.get_or_init(|| evidence::hearing(self))
    }

    fn evidence<'b>(&'b self, host: &'b Host) -> Option<Evidence<'b>> {
        let (host, seen) = self.seen.hosts.get_key_value(host)?;
        Some(Evidence { cycle: self, host, seen, record: self.ledger.hosts.get(host) })
    }

    /// Another compute service of the same name.
    fn namesake(&self, host: &Host) -> Option<&Host> {
        self.seen.hosts.keys().find(|other| other.name == host.name && other.service != host.service)
    }

    fn listing(&self, host: &Host) -> Option<&Listing> {
        self.seen.instances.get(host)?.listing.as_deref()
    }

    fn migrations(&self, host: &Host) -> Option<&Migrations> {
        self.seen.instances.get(host)?.migrations.as_deref()
    }

    fn look(&self, host: &Host, id: InstanceId) -> Option<&Look> {
        self.seen.instances.get(host)?.looks.get(&id)
    }

    /// What a host shows of itself while it is well: its channels, its boot, its BMC.
    fn learn(&self, host: &Host, decisions: &mut Vec<Decision>) {
        let Some(evidence) = self.evidence(host) else { return };
        let record = evidence.record;
        for channel in evidence.seen.channels.iter().filter(|channel| channel.last.is_some()) {
            let key = (channel.network.clone(), channel.kind);
            if !record.is_some_and(|record| record.proven.contains(&key)) {
                decisions.push(Decision::Prove { host: host.clone(), network: key.0, kind: key.1 });
            }
        }
        if let Some(boot) = evidence.seen.boot {
            let known = record.and_then(|record| record.boot);
            let expected =
                self.ledger.open_incident(host).is_some_and(|incident| !incident.phase.is_before_the_fence());
            if known.is_none() || (known != Some(boot.id) && expected) {
                decisions.push(Decision::Boot { host: host.clone(), boot: boot.id });
            }
        }
        let bound = record.and_then(|record| record.bound);
        match evidence.binding() {
            Ok(Some(binding))
                if bound.is_none() || (bound == Some(Binding::OnWhileAlive) && bound != Some(binding)) =>
            {
                decisions.push(Decision::Bind { host: host.clone(), binding });
            }
            Err(why) if bound.is_some() => decisions.push(Decision::Unbind { host: host.clone(), why: why.into() }),
            Ok(_) | Err(_) => {}
        }
    }

    fn suspect(&self, host: &Host) -> Option<Decision> {
        if self.ledger.open_incident(host).is_some() {
            return None;
        }
        let evidence = self.evidence(host)?;
        let why = match evidence.reboot() {
            Some(_) => "it has booted by itself".to_owned(),
            None if evidence.is_heard_since_off() => return None,
            None => evidence.suspicion()?,
        };
        let outage = evidence.record.map_or(0, |record| record.outages) + 1;
        Some(Decision::Open { id: IncidentId { host: host.clone(), outage }, why: why.into() })
    }
}
