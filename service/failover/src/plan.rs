//! What would be done if a host died now; and in one word how each host stands.

use std::sync::Arc;

use crate::Cycle;
use crate::evacuation::choose;
use crate::evidence::{Evidence, join};
use crate::gates::{self, Verdict};
use crate::ledger::{Ledger, Phase};
use crate::names::{Host, InstanceId, Time};
use crate::observation::{NovaSeen, Observation, Power};
use crate::policy::{Method, Policy};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub would: String,
    /// Whether a gate would hold it.
    pub held: bool,
    pub gates: Vec<Verdict>,
    pub fence: Vec<FencePlan>,
    pub instances: Vec<InstancePlan>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencePlan {
    pub method: Method,
    pub ready: bool,
    pub why: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstancePlan {
    pub instance: InstanceId,
    pub name: Arc<str>,
    /// None: it would be moved.
    pub stays: Option<String>,
}

/// A dry run. None if Nova lists no such host. Needs the host's instances in `seen`.
pub fn plan(now: Time, seen: &Observation, ledger: &Ledger, policy: &Policy, host: &Host) -> Option<Plan> {
    let cycle = Cycle::new(now, seen, ledger, policy);
    let evidence = cycle.evidence(host)?;
    let gates = gates::judge(&evidence, ledger.open_incident(host));
    let fence: Vec<FencePlan> = policy.of(host).methods.iter().map(|method| ready(*method, &evidence)).collect();
    let instances = cycle.listing(host).map_or_else(Vec::new, |listing| {
        let one = |(id, seen): (&InstanceId, &crate::observation::InstanceSeen)| InstancePlan {
            instance: *id,
            name: seen.name.clone(),
            stays: choose(seen, host, &cycle).err(),
        };
        listing.instances.iter().map(one).collect()
    });
    let moved = instances.iter().filter(|instance| instance.stays.is_none()).count();
    let held = gates.iter().find(|verdict| !verdict.passed);
    let would = match (held, fence.iter().find(|fence| fence.ready)) {
        (Some(verdict), _) => format!("held by {}: {}", verdict.gate.word(), verdict.why),
        (None, Some(FencePlan { method: Method::Redfish, .. })) => {
            format!("switch it off and evacuate {moved} of {} instances", instances.len())
        }
        (None, None) => "wait for a fence: none of fencing.methods is ready".to_owned(),
        (None, Some(_)) => {
            format!("wait for a person to say that it is off, then evacuate {moved} of {} instances", instances.len())
        }
    };
    Some(Plan { would, held: held.is_some(), gates, fence, instances })
}

fn ready(method: Method, evidence: &Evidence<'_>) -> FencePlan {
    let (ready, why) = match (method, evidence.is_bound(), &evidence.seen.power.reading) {
        (Method::Manual, _, _) => (true, "a person".into()),
        (Method::Redfish, Err(why), _) => (false, why),
        (Method::Redfish, Ok(_), Power::Unknown { why, .. }) => (false, why.clone()),
        (Method::Redfish, Ok(_), Power::On { .. } | Power::Off { .. } | Power::Absent) => {
            (true, "its BMC answers".into())
        }
    };
    FencePlan { method, ready, why }
}

/// One word and one sentence for a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub word: &'static str,
    pub why: String,
}

pub fn standing(now: Time, seen: &Observation, ledger: &Ledger, policy: &Policy, host: &Host) -> Option<Standing> {
    let cycle = Cycle::new(now, seen, ledger, policy);
    let evidence = cycle.evidence(host)?;
    let Some(incident) = ledger.open_incident(host) else { return Some(without_incident(&evidence)) };
    if let Some(hold) = &incident.hold {
        return Some(Standing { word: "held", why: format!("{}: {}", hold.gate.word(), hold.why) });
    }
    let word = match incident.phase {
        Phase::Suspected => "suspected",
        Phase::Confirmed => "confirmed",
        Phase::Fencing => "fencing",
        Phase::Fenced | Phase::ForcedDown => "fenced",
        Phase::Evacuating => "evacuating",
        Phase::Recovered | Phase::PartlyRecovered => "settled",
        Phase::HostReturned | Phase::Reintegrating | Phase::RestartingGuests => "returning",
        Phase::Closed => "well",
    };
    Some(Standing { word, why: incident.why.to_string() })
}

fn without_incident(evidence: &Evidence<'_>) -> Standing {
    let (heard, all) = (evidence.heard_on(), evidence.networks());
    if evidence.seen.nova == NovaSeen::NoData {
        return Standing { word: "no data", why: "Nova's cell of it does not answer".to_owned() };
    }
    if heard.len() < all.len() {
        let silent = all.difference(&heard).copied().collect();
        return Standing { word: "partly silent", why: format!("nothing is heard of it on {}", join(&silent)) };
    }
    let why = if all.is_empty() { "only Nova watches it".to_owned() } else { format!("heard on {}", join(&heard)) };
    Standing { word: "well", why }
}
