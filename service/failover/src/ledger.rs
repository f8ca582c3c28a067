//! What has been recorded: hosts, incidents, fences, moves. Nothing is done that does not stand here first.
//!
//! [`Ledger::apply`] is the only way in, for what was decided; [`Ledger::answered`] for what came of an act. Both are called by whoever keeps the
//! record, in the transaction that writes it down.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::decision::{Act, Answer, Decision};
use crate::fence::FenceReceipt;
use crate::gates::{Gate, Verdict};
use crate::names::{BootId, Host, IncidentId, InstanceId, MigrationId, SystemId, Time};
use crate::observation::ChannelKind;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ledger {
    /// A new database starts disarmed: everything is watched, nothing is done.
    pub armed: bool,
    /// Who said so last; None on a new database.
    pub arming: Option<Arming>,
    /// Until when nobody else acts. Everything that is sent must be sent before.
    pub lease_until: Time,
    pub hosts: BTreeMap<Host, HostRecord>,
    /// The open ones, and those that the flapping and mass failure gates still count.
    pub incidents: BTreeMap<IncidentId, Incident>,
}

/// The last order to arm or disarm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arming {
    pub by: Arc<str>,
    pub why: Arc<str>,
    pub at: Time,
}

/// What was learned of a host while it was well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostRecord {
    pub outages: u32,
    pub boot: Option<BootId>,
    /// Channels on which it was heard at least once: only their silence says anything.
    pub proven: BTreeSet<(Arc<str>, ChannelKind)>,
    pub bound: Option<Binding>,
}

/// Why the BMC is believed to be this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// Host and BMC told the same System UUID.
    SameSystem(SystemId),
    /// The host does not tell one; the BMC said On while the host was heard.
    OnWhileAlive,
}

/// One outage of one host, from suspicion to its return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    pub id: IncidentId,
    pub kind: Kind,
    pub why: Arc<str>,
    pub opened: Time,
    pub phase: Phase,
    pub phase_since: Time,
    pub hold: Option<Hold>,
    /// Gates that a person has overruled.
    pub released: BTreeSet<Gate>,
    pub gates: Vec<Verdict>,
    pub power_off: Option<Call>,
    pub receipts: Vec<FenceReceipt>,
    pub force_down: Option<Call>,
    pub disable: Option<Call>,
    pub clear: Option<Call>,
    pub enable: Option<Call>,
    pub moves: BTreeMap<InstanceId, Move>,
    pub restarts: BTreeMap<InstanceId, Restart>,
    pub outcome: Option<Outcome>,
    pub closed: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Outage,
    /// The host booted by itself before it was fenced: nothing is fenced or moved, what it ran is started again.
    Reboot(BootId),
    /// The same, but it was not seen as it happened: how long ago it was, and who has started its guests since, is not known.
    FoundRebooted(BootId),
}

/// ```text
/// suspected ─▶ confirmed ─▶ fencing ─▶ fenced ─▶ forced down ─▶ evacuating ─▶ recovered | partly recovered ─▶ host returned ─▶ reintegrating ─▶ closed
///     │            │           │
///     ├────────────┴───────────┴─▶ closed (cancelled: it answers again)
///     └─▶ restarting guests ─▶ closed (it rebooted by itself)
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Suspected,
    Confirmed,
    Fencing,
    Fenced,
    ForcedDown,
    Evacuating,
    Recovered,
    PartlyRecovered,
    HostReturned,
    Reintegrating,
    RestartingGuests,
    Closed,
}

impl Phase {
    pub const ALL: [(Self, &str); 12] = [
        (Self::Suspected, "suspected"),
        (Self::Confirmed, "confirmed"),
        (Self::Fencing, "fencing"),
        (Self::Fenced, "fenced"),
        (Self::ForcedDown, "forced down"),
        (Self::Evacuating, "evacuating"),
        (Self::Recovered, "recovered"),
        (Self::PartlyRecovered, "partly recovered"),
        (Self::HostReturned, "host returned"),
        (Self::Reintegrating, "reintegrating"),
        (Self::RestartingGuests, "restarting guests"),
        (Self::Closed, "closed"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(phase, _)| *phase == self).expect("every phase has its word").1
    }

    /// From the fence to the last settled instance: power is read, and switched off again if need be.
    pub fn holds_the_fence(self) -> bool {
        matches!(self, Self::Fenced | Self::ForcedDown | Self::Evacuating)
    }

    /// Nothing irrevocable has been done.
    pub fn is_before_the_fence(self) -> bool {
        matches!(self, Self::Suspected | Self::Confirmed | Self::Fencing)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Recovered,
    PartlyRecovered,
    Cancelled,
    Rebooted,
}

impl Outcome {
    pub fn word(self) -> &'static str {
        match self {
            Self::Recovered => "recovered",
            Self::PartlyRecovered => "partly recovered",
            Self::Cancelled => "cancelled",
            Self::Rebooted => "rebooted",
        }
    }
}

/// Why nothing goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub gate: Gate,
    pub why: Arc<str>,
    pub since: Time,
}

/// A call that may be repeated: how often it was made, when last, and what came of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub attempts: u32,
    pub begun: Time,
    pub answer: Option<(Time, CallAnswer)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallAnswer {
    Done,
    /// Certainly or perhaps not done; it may be asked again.
    Failed(Arc<str>),
}

impl Call {
    pub fn is_done(&self) -> bool {
        matches!(self.answer, Some((_, CallAnswer::Done)))
    }

    pub fn failure(&self) -> Option<&Arc<str>> {
        match &self.answer {
            Some((_, CallAnswer::Failed(why))) => Some(why),
            _ => None,
        }
    }
}

/// An instance on its way from a dead host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub name: Arc<str>,
    /// Evacuations begun for it, by us.
    pub attempt: u32,
    pub state: MoveState,
    /// Evacuations of it that Nova knew before ours.
    pub known: BTreeSet<MigrationId>,
    pub migration: Option<MigrationId>,
    pub migration_status: Option<Arc<str>>,
    /// Nova's request id of the last attempt.
    pub request: Option<Arc<str>>,
    pub to: Option<Host>,
    /// When the last attempt was recorded.
    pub intended: Option<Time>,
    pub ended: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MoveState {
    /// Its turn has not come. `why` if something other than its turn is missing.
    Waiting {
        why: Option<Arc<str>>,
        since: Time,
        not_before: Time,
    },
    /// Recorded; the POST may be on its way.
    Intended,
    /// No answer says whether Nova took it.
    Unknown {
        why: Arc<str>,
    },
    /// Nova took it, or a migration shows that it did.
    Accepted,
    Moved,
    /// Left where it is, for a reason that a person has to know.
    Named {
        why: Arc<str>,
    },
}

impl MoveState {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Intended | Self::Unknown { .. } | Self::Accepted => "moving",
            Self::Moved => "moved",
            Self::Named { .. } => "named",
        }
    }

    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Moved | Self::Named { .. })
    }

    pub fn is_in_flight(&self) -> bool {
        matches!(self, Self::Intended | Self::Unknown { .. } | Self::Accepted)
    }

    pub fn why(&self) -> Option<&Arc<str>> {
        match self {
            Self::Waiting { why, .. } => why.as_ref(),
            Self::Unknown { why } | Self::Named { why } => Some(why),
            Self::Intended | Self::Accepted | Self::Moved => None,
        }
    }
}

impl Move {
    pub fn waiting(name: Arc<str>, now: Time) -> Self {
        Self {
            name,
            attempt: 0,
            state: MoveState::Waiting { why: None, since: now, not_before: now },
            known: BTreeSet::new(),
            migration: None,
            migration_status: None,
            request: None,
            to: None,
            intended: None,
            ended: None,
        }
    }
}

/// A guest that a reboot of its host stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restart {
    pub name: Arc<str>,
    pub attempt: u32,
    pub state: RestartState,
    pub request: Option<Arc<str>>,
    pub asked: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RestartState {
    Waiting {
        not_before: Time,
    },
    /// Start or reboot was sent, or may have been.
    Asked,
    Running,
    Named {
        why: Arc<str>,
    },
}

impl RestartState {
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Running | Self::Named { .. })
    }
}

impl Incident {
    pub fn opened(id: IncidentId, kind: Kind, why: Arc<str>, now: Time) -> Self {
        Self {
            id,
            kind,
            why,
            opened: now,
            phase: Phase::Suspected,
            phase_since: now,
            hold: None,
            released: BTreeSet::new(),
            gates: Vec::new(),
            power_off: None,
            receipts: Vec::new(),
            force_down: None,
            disable: None,
            clear: None,
            enable: None,
            moves: BTreeMap::new(),
            restarts: BTreeMap::new(),
            outcome: None,
            closed: None,
        }
    }

    pub fn host(&self) -> &Host {
        &self.id.host
    }

    pub fn is_open(&self) -> bool {
        self.phase != Phase::Closed
    }

    /// The newest receipt, if nothing has voided it. Whether it still holds is judged by `fence`.
    pub fn receipt(&self) -> Option<&FenceReceipt> {
        self.receipts.last().filter(|receipt| receipt.void.is_none())
    }

    pub fn was_fenced(&self) -> bool {
        !self.receipts.is_empty()
    }
}

impl Ledger {
    pub fn open_incidents(&self) -> impl Iterator<Item = &Incident> {
        self.incidents.values().filter(|incident| incident.is_open())
    }

    pub fn open_incident(&self, host: &Host) -> Option<&Incident> {
        self.incidents_of(host).find(|incident| incident.is_open())
    }

    /// All its recorded outages, the oldest first.
    pub fn incidents_of(&self, host: &Host) -> impl Iterator<Item = &Incident> + use<'_> {
        let outage = |outage| IncidentId { host: host.clone(), outage };
        self.incidents.range(outage(0)..=outage(u32::MAX)).map(|(_, incident)| incident)
    }

    /// Takes a decision down. What it asks for may only be done once this is written.
    pub fn apply(&mut self, now: Time, decision: &Decision) {
        match decision {
            Decision::Prove { host, network, kind } => {
                self.host(host).proven.insert((network.clone(), *kind));
            }
            Decision::Bind { host, binding } => self.host(host).bound = Some(*binding),
            Decision::Unbind { host, .. } => self.host(host).bound = None,
            Decision::Boot { host, boot } => self.host(host).boot = Some(*boot),
            Decision::Open { id, why } => {
                self.host(&id.host).outages = id.outage;
                let incident = Incident::opened(id.clone(), Kind::Outage, why.clone(), now);
                self.incidents.insert(id.clone(), incident);
            }
            Decision::Arm { armed, by, why } => {
                self.armed = *armed;
                self.arming = Some(Arming { by: by.clone(), why: why.clone(), at: now });
            }
            Decision::Kind { id, kind, .. } => {
                let incident = self.incident(id);
                incident.kind = *kind;
                for restart in incident.restarts.values_mut() {
                    (restart.attempt, restart.request, restart.asked) = (0, None, None); // of another boot
                }
            }
            Decision::Phase { id, to, .. } => enter(self.incident(id), *to, now),
            Decision::Hold { id, gate, why } => {
                self.incident(id).hold = Some(Hold { gate: *gate, why: why.clone(), since: now });
            }
            Decision::GoOn { id } => self.incident(id).hold = None,
            Decision::Gates { id, verdicts } => self.incident(id).gates.clone_from(verdicts),
            Decision::Receipt { id, receipt } => self.incident(id).receipts.push(receipt.clone()),
            Decision::Void { id, why } => {
                if let Some(receipt) = self.incident(id).receipts.last_mut() {
                    receipt.void = Some(why.clone());
                }
            }
            Decision::Release { id, gates, .. } => release(self.incident(id), gates, now),
            Decision::Plan { id, instance, name } => {
                self.incident(id).moves.insert(*instance, Move::waiting(name.clone(), now));
            }
            Decision::Move { id, instance, state } => {
                let moving = self.moving(id, *instance);
                moving.ended = state.is_settled().then_some(now);
                moving.state = state.clone();
            }
            Decision::Follow { id, instance, migration, status, to } => {
                let moving = self.moving(id, *instance);
                moving.migration = Some(*migration);
                moving.migration_status = Some(status.clone());
                moving.to = to.clone().or(moving.to.take());
                if moving.state.is_in_flight() {
                    moving.state = MoveState::Accepted;
                }
            }
            Decision::Restart { id, instance, name, state } => {
                let restarts = &mut self.incident(id).restarts;
                let restart = restarts.entry(*instance).or_insert_with(|| Restart {
                    name: name.clone(),
                    attempt: 0,
                    state: state.clone(),
                    request: None,
                    asked: None,
                });
                restart.state = state.clone();
            }
            Decision::Close { id, outcome, .. } => {
                let incident = self.incident(id);
                enter(incident, Phase::Closed, now);
                (incident.outcome, incident.closed, incident.hold) = (Some(*outcome), Some(now), None);
            }
            Decision::Act(act) => self.begin(now, act),
        }
    }

    fn begin(&mut self, now: Time, act: &Act) {
        match act {
            Act::PowerOff { id, .. } => begun(&mut self.incident(id).power_off, now),
            Act::ForceDown { id, .. } => begun(&mut self.incident(id).force_down, now),
            Act::Disable { id, .. } => begun(&mut self.incident(id).disable, now),
            Act::ClearForcedDown { id, .. } => begun(&mut self.incident(id).clear, now),
            Act::Enable { id, .. } => begun(&mut self.incident(id).enable, now),
            Act::Evacuate { id, instance, known, attempt, .. } => {
                let moving = self.moving(id, *instance);
                moving.attempt = *attempt;
                moving.state = MoveState::Intended;
                moving.known.clone_from(known);
                moving.intended = Some(now);
                (moving.migration, moving.migration_status, moving.request, moving.to) = (None, None, None, None);
            }
            Act::Start { id, instance, .. } => {
                let restart = self.incident(id).restarts.get_mut(instance).expect("a start has its restart");
                restart.attempt += 1;
                (restart.state, restart.asked, restart.request) = (RestartState::Asked, Some(now), None);
            }
        }
    }

    /// Takes down what came of an act. An answer to anything but the last attempt changes nothing.
    pub fn answered(&mut self, now: Time, act: &Act, answer: &Answer) {
        let Some(incident) = self.incidents.get_mut(act.incident()) else { return };
        let call = match act {
            Act::PowerOff { .. } => &mut incident.power_off,
            Act::ForceDown { .. } => &mut incident.force_down,
            Act::Disable { .. } => &mut incident.disable,
            Act::ClearForcedDown { .. } => &mut incident.clear,
            Act::Enable { .. } => &mut incident.enable,
            Act::Evacuate { instance, attempt, .. } => {
                if let Some(moving) = incident.moves.get_mut(instance).filter(|moving| moving.attempt == *attempt) {
                    evacuate_answered(moving, now, answer);
                }
                return;
            }
            Act::Start { instance, attempt, .. } => {
                if let Some(restart) = incident.restarts.get_mut(instance).filter(|r| r.attempt == *attempt) {
                    start_answered(restart, now, answer);
                }
                return;
            }
        };
        if let Some(call) = call {
            let answer = match answer {
                Answer::Done { .. } => CallAnswer::Done,
                Answer::Refused { why } | Answer::NotSent { why } | Answer::Unknown { why } => {
                    CallAnswer::Failed(why.clone())
                }
            };
            call.answer = Some((now, answer));
        }
    }

    /// A new process or a new leader begins: whatever was on its way has no one left to hear its answer.
    pub fn taken_over(&mut self, now: Time) {
        let why: Arc<str> = "whoever sent it ended before the answer came".into();
        for incident in self.incidents.values_mut() {
            let calls = [
                &mut incident.power_off,
                &mut incident.force_down,
                &mut incident.disable,
                &mut incident.clear,
                &mut incident.enable,
            ];
            for call in calls.into_iter().flatten().filter(|call| call.answer.is_none()) {
                call.answer = Some((now, CallAnswer::Failed(why.clone())));
            }
            for moving in incident.moves.values_mut() {
                if moving.state == MoveState::Intended {
                    moving.state = MoveState::Unknown { why: why.clone() };
                }
                // Another clock wrote down when it was sent: the wait for a sign of it begins anew on ours.
                if let MoveState::Unknown { .. } = moving.state {
                    moving.intended = Some(now);
                }
            }
            none_later(incident, now);
        }
    }

    /// Forgets closed incidents that no gate counts any more.
    pub fn forget_before(&mut self, then: Time) {
        let counts = |incident: &Incident, closed| {
            let was_harmless = matches!(incident.outcome, Some(Outcome::Cancelled | Outcome::Rebooted));
            closed >= then && !(was_harmless && incident.receipts.is_empty())
        };
        self.incidents.retain(|_, incident| incident.closed.is_none_or(|closed| counts(incident, closed)));
    }

    fn host(&mut self, host: &Host) -> &mut HostRecord {
        self.hosts.entry(host.clone()).or_default()
    }

    fn incident(&mut self, id: &IncidentId) -> &mut Incident {
        self.incidents.get_mut(id).expect("a decision is about an incident that was opened")
    }

    fn moving(&mut self, id: &IncidentId, instance: InstanceId) -> &mut Move {
        self.incident(id).moves.get_mut(&instance).expect("a decision is about an instance that was planned")
    }
}

/// What a clock that was ahead of ours has written down would otherwise stay in the future: a word of a person would outlast every sign of life.
fn none_later(incident: &mut Incident, now: Time) {
    let Incident { opened, phase_since, hold, receipts, power_off, force_down, disable, clear, enable, .. } = incident;
    for time in [opened, phase_since].into_iter().chain(hold.as_mut().map(|hold| &mut hold.since)) {
        *time = now.min(*time);
    }
    for receipt in receipts.iter_mut().filter(|receipt| receipt.read_at > now && receipt.void.is_none()) {
        receipt.void = Some("it was written by a clock that was ahead".into());
    }
    for call in [power_off, force_down, disable, clear, enable].into_iter().flatten() {
        call.begun = now.min(call.begun);
        call.answer = call.answer.take().map(|(at, answer)| (now.min(at), answer));
    }
    for moving in incident.moves.values_mut() {
        moving.intended = moving.intended.map(|at| now.min(at));
        if let MoveState::Waiting { since, not_before, .. } = &mut moving.state {
            (*since, *not_before) = (now.min(*since), now.min(*not_before));
        }
    }
    for restart in incident.restarts.values_mut() {
        restart.asked = restart.asked.map(|at| now.min(at));
        if let RestartState::Waiting { not_before } = &mut restart.state {
            *not_before = now.min(*not_before);
        }
    }
}

fn enter(incident: &mut Incident, phase: Phase, now: Time) {
    if phase == Phase::Confirmed || phase == Phase::Suspected {
        incident.power_off = None;
    }
    if phase == Phase::Fenced {
        incident.restarts.clear(); // they are moved
    }
    (incident.phase, incident.phase_since) = (phase, now);
}

fn begun(call: &mut Option<Call>, now: Time) {
    let attempts = call.as_ref().map_or(0, |call| call.attempts) + 1;
    *call = Some(Call { attempts, begun: now, answer: None });
}

/// What is overruled stays so for this incident; instances that were left for a reason are looked at once more.
fn release(incident: &mut Incident, gates: &BTreeSet<Gate>, now: Time) {
    incident.released.extend(gates);
    incident.hold = None;
    if matches!(incident.phase, Phase::PartlyRecovered | Phase::Evacuating) {
        incident.moves.retain(|_, moving| !matches!(moving.state, MoveState::Named { .. }));
        enter(incident, Phase::Evacuating, now);
    }
}

fn evacuate_answered(moving: &mut Move, now: Time, answer: &Answer) {
    if let Answer::Done { request } = answer {
        moving.request.clone_from(request);
    }
    if !matches!(moving.state, MoveState::Intended | MoveState::Unknown { .. }) {
        return; // a migration has told more
    }
    moving.state = match answer {
        Answer::Done { .. } => MoveState::Accepted,
        Answer::Unknown { why } => MoveState::Unknown { why: why.clone() },
        // How long to wait, or whether to give up, is decided with the policy in hand.
        Answer::Refused { why } | Answer::NotSent { why } => {
            MoveState::Waiting { why: Some(why.clone()), since: now, not_before: now }
        }
    };
    if let Answer::NotSent { .. } = answer {
        moving.attempt -= 1; // it does not count: Nova never saw it
    }
}

fn start_answered(restart: &mut Restart, now: Time, answer: &Answer) {
    match answer {
        // What Nova shows from now on is newer than the order.
        Answer::Done { request } => (restart.request, restart.asked) = (request.clone(), Some(now)),
        Answer::Unknown { .. } => {}
        Answer::Refused { .. } | Answer::NotSent { .. } => restart.state = RestartState::Waiting { not_before: now },
    }
}
