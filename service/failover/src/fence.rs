//! Fencing: the proof that a host runs nothing, how it is come by, and what takes it away again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::decision::{Act, Decision};
use crate::evidence::{Evidence, PowerProof};
use crate::gates::Gate;
use crate::incident::Thought;
use crate::ledger::{Call, Incident};
use crate::names::{IncidentId, Time};
use crate::observation::Power;
use crate::policy::Method;

/// The proof that a host runs nothing. It serves only its own incident, and only while it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FenceReceipt {
    pub id: IncidentId,
    pub kind: Proof,
    /// When it was read, or said.
    pub read_at: Time,
    /// Why it proves nothing any more.
    pub void: Option<Arc<str>>,
}

/// What the proof rests on. (A storage fence will stand here.)
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// The BMC says Off without a break since the power epoch.
    PowerOff { epoch: Time },
    /// A person says so.
    Person { by: Arc<str>, why: Arc<str> },
}

impl fmt::Display for FenceReceipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Proof::PowerOff { .. } => write!(f, "fenced: the BMC of {} says Off", self.id.host),
            Proof::Person { by, why } => write!(f, "fenced: {by} says that {} is off: {why}", self.id.host),
        }
    }
}

/// Whether a receipt can be used now.
pub(crate) enum Standing {
    Holds,
    /// It may well hold, but that was not read within the last seconds.
    NotRead(Arc<str>),
    /// It proves nothing any more.
    Broken(Arc<str>),
}

impl FenceReceipt {
    pub(crate) fn standing(&self, evidence: &Evidence<'_>) -> Standing {
        match &self.kind {
            Proof::PowerOff { epoch } => power_standing(*epoch, evidence),
            Proof::Person { .. } => person_standing(self.read_at, evidence),
        }
    }
}

/// Power off holds only in one epoch: after an On, or a time when nobody watched, it must be proved anew.
fn power_standing(epoch: Time, evidence: &Evidence<'_>) -> Standing {
    let another_epoch = || Standing::Broken("its power was on meanwhile, or nobody watched it".into());
    match evidence.power() {
        PowerProof::Off { epoch: seen } if seen == epoch => Standing::Holds,
        PowerProof::OffJustNow { epoch: seen } if seen == epoch => {
            Standing::NotRead("something was heard of it".into())
        }
        PowerProof::Off { .. } | PowerProof::OffJustNow { .. } => another_epoch(),
        PowerProof::Contradicted { by } => Standing::Broken(format!("its BMC says Off, but {by}").into()),
        PowerProof::On { .. } => Standing::Broken("its power is on again".into()),
        PowerProof::None { why, .. } => Standing::NotRead(why),
    }
}

fn person_standing(said: Time, evidence: &Evidence<'_>) -> Standing {
    if let Some(life) = evidence.life_after(said) {
        return Standing::Broken(life.into());
    }
    match &evidence.seen.power.reading {
        Power::On { at } if *at > said && evidence.is_bound().is_ok() => Standing::Broken("its BMC says On".into()),
        _ => Standing::Holds,
    }
}

/// Whether the incident is fenced now, beyond doubt.
pub(crate) fn holds(incident: &Incident, evidence: &Evidence<'_>) -> Result<(), Arc<str>> {
    let Some(receipt) = incident.receipt() else { return Err("it is not fenced".into()) };
    match receipt.standing(evidence) {
        Standing::Holds => Ok(()),
        Standing::NotRead(why) | Standing::Broken(why) => Err(why),
    }
}

/// A receipt that life has contradicted is void for good, also where the contradiction would be forgotten by a restart.
pub(crate) fn void_if_broken(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) -> bool {
    match incident.receipt().map(|receipt| receipt.standing(evidence)) {
        Some(Standing::Broken(why)) => {
            thought.record(Decision::Void { id: incident.id.clone(), why });
            true
        }
        Some(Standing::Holds | Standing::NotRead(_)) | None => false,
    }
}

/// One step towards the fence, or towards keeping it. Says whether it holds now.
pub(crate) fn step(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) -> bool {
    if let Some(receipt) = incident.receipt() {
        match receipt.standing(evidence) {
            Standing::Holds => return true,
            Standing::NotRead(why) => {
                unread(incident, evidence, &why, thought);
                return false;
            }
            Standing::Broken(why) => {
                thought.record(Decision::Void { id: incident.id.clone(), why });
                return false;
            }
        }
    }
    obtain(incident, evidence, thought);
    false
}

/// A BMC that is slow only makes evacuations wait; one whose word is always too old, or never comes, is told. (Two answers of a BMC that takes
/// almost `held_within` are twice that and a pause apart.)
fn unread(incident: &Incident, evidence: &Evidence<'_>, why: &Arc<str>, thought: &mut Thought<'_>) {
    let since = match &evidence.seen.power.reading {
        Power::Unknown { since, .. } => *since,
        Power::Off { at, .. } => *at,
        Power::On { .. } | Power::Absent => evidence.cycle.now,
    };
    if evidence.cycle.now.since(since) > evidence.cycle.policy.fence.held_within * 3 {
        thought.hold(Gate::Fence, format!("{NOT_HELD}: {why}; {}", by_hand(evidence)));
    }
    thought.stay_held(incident, Gate::Fence, NOT_HELD);
}

const NOT_SWITCHED_OFF: &str = "its BMC did not switch it off";
const NOT_HELD: &str = "the fence is not held";

/// While its own BMC says On, nobody's word makes it off.
const AT_THE_HOST: &str = "switch it off at the host, and it goes on once its BMC says Off";

fn by_hand(evidence: &Evidence<'_>) -> String {
    let host = evidence.host;
    if evidence.cycle.policy.of(host).methods.contains(&Method::Manual) {
        format!("if {host} is certainly off: tandem fence {host} --manual --reason ...")
    } else {
        "nobody may say so by hand (\"manual\" is not among fencing.methods)".to_owned()
    }
}

fn obtain(incident: &Incident, evidence: &Evidence<'_>, thought: &mut Thought<'_>) {
    let methods = &evidence.cycle.policy.of(evidence.host).methods;
    match evidence.power() {
        // Whoever switched it off: it is off. No method need be configured to read that.
        PowerProof::Off { epoch } => thought.record(Decision::Receipt {
            id: incident.id.clone(),
            receipt: FenceReceipt {
                id: incident.id.clone(),
                kind: Proof::PowerOff { epoch },
                read_at: evidence.cycle.now,
                void: None,
            },
        }),
        PowerProof::OffJustNow { .. } => {}
        PowerProof::Contradicted { by } => {
            thought.hold(Gate::Contradiction, format!("its BMC says Off, but {by}; {}", by_hand(evidence)));
        }
        PowerProof::On { at } if methods.contains(&Method::Redfish) => switch_off(incident, evidence, at, thought),
        PowerProof::On { .. } => thought.hold(Gate::Fence, format!("its power is on; {AT_THE_HOST}")),
        PowerProof::None { why, since } => {
            if since.is_none_or(|since| evidence.cycle.now.since(since) > evidence.cycle.policy.fence.held_within) {
                thought.hold(Gate::Fence, format!("{why}; {}", by_hand(evidence)));
            }
        }
    }
}

fn switch_off(incident: &Incident, evidence: &Evidence<'_>, on_at: Time, thought: &mut Thought<'_>) {
    let (policy, now) = (&evidence.cycle.policy.fence, evidence.cycle.now);
    if let Some(call) = &incident.power_off {
        if call.attempts >= policy.attempts && on_at > call.begun + policy.limit {
            let why = call.failure().map_or_else(|| "its power is still on".to_owned(), ToString::to_string);
            thought.hold(Gate::Fence, format!("{NOT_SWITCHED_OFF}: {why}; {AT_THE_HOST}"));
        }
        thought.stay_held(incident, Gate::Fence, NOT_SWITCHED_OFF);
        if !may_repeat(call, now, policy.limit, pause(call, policy.attempts, policy.retry, policy.slow_retry)) {
            return;
        }
    }
    thought.act(Act::PowerOff { id: incident.id.clone(), method: Method::Redfish }, policy.limit);
}

fn pause(call: &Call, attempts: u32, retry: Duration, slow_retry: Duration) -> Duration {
    if call.attempts < attempts { retry } else { slow_retry }
}

/// The pause before a call to Nova is made again: it doubles up to eight times the first.
pub(crate) fn growing(call: &Call, first: Duration) -> Duration {
    first * (1 << call.attempts.saturating_sub(1).min(3))
}

/// Whether a call may be made again: it was answered, or its limit has passed, and the pause after that.
pub(crate) fn may_repeat(call: &Call, now: Time, limit: Duration, pause: Duration) -> bool {
    let ended = call.answer.as_ref().map_or(call.begun + limit, |(at, _)| *at);
    now >= ended + pause
}
