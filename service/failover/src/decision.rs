//! What is decided: what to record, and what to do once it is recorded.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::evacuation::Proofs;
use crate::fence::FenceReceipt;
use crate::gates::{Gate, Verdict};
use crate::ledger::{Binding, Kind, MoveState, Outcome, Phase, RestartState};
use crate::names::{BootId, Host, IncidentId, InstanceId, MigrationId};
use crate::observation::ChannelKind;
use crate::policy::Method;

/// Each is one row of the record, and one sentence of the incident's timeline where it belongs to one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// The host was heard on this channel: from now on its silence there says something.
    Prove {
        host: Host,
        network: Arc<str>,
        kind: ChannelKind,
    },
    /// The BMC is this host's.
    Bind {
        host: Host,
        binding: Binding,
    },
    /// It is not, or not any more.
    Unbind {
        host: Host,
        why: Arc<str>,
    },
    /// The host runs this boot.
    Boot {
        host: Host,
        boot: BootId,
    },
    /// A person arms or disarms everything.
    Arm {
        armed: bool,
        by: Arc<str>,
        why: Arc<str>,
    },
    Open {
        id: IncidentId,
        why: Arc<str>,
    },
    Kind {
        id: IncidentId,
        kind: Kind,
        why: Arc<str>,
    },
    Phase {
        id: IncidentId,
        to: Phase,
        why: Arc<str>,
    },
    Hold {
        id: IncidentId,
        gate: Gate,
        why: Arc<str>,
    },
    /// What held it holds it no more.
    GoOn {
        id: IncidentId,
    },
    Gates {
        id: IncidentId,
        verdicts: Vec<Verdict>,
    },
    Receipt {
        id: IncidentId,
        receipt: FenceReceipt,
    },
    /// The newest receipt proves nothing any more.
    Void {
        id: IncidentId,
        why: Arc<str>,
    },
    /// A person overrules what holds it.
    Release {
        id: IncidentId,
        gates: BTreeSet<Gate>,
        by: Arc<str>,
        why: Arc<str>,
    },
    /// The instance is to be moved, in its turn.
    Plan {
        id: IncidentId,
        instance: InstanceId,
        name: Arc<str>,
    },
    Move {
        id: IncidentId,
        instance: InstanceId,
        state: MoveState,
    },
    /// A migration shows how far the move is.
    Follow {
        id: IncidentId,
        instance: InstanceId,
        migration: MigrationId,
        status: Arc<str>,
        to: Option<Host>,
    },
    Restart {
        id: IncidentId,
        instance: InstanceId,
        name: Arc<str>,
        state: RestartState,
    },
    Close {
        id: IncidentId,
        outcome: Outcome,
        why: Arc<str>,
    },
    Act(Act),
}

/// Something to do in the world. It is recorded as begun before it is sent, and sent only if it can be before the lease ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    PowerOff {
        id: IncidentId,
        method: Method,
    },
    ForceDown {
        id: IncidentId,
    },
    Disable {
        id: IncidentId,
    },
    ClearForcedDown {
        id: IncidentId,
    },
    Enable {
        id: IncidentId,
    },
    /// `known`: evacuations of it that Nova knows already, so that the new one can be told from them.
    Evacuate {
        id: IncidentId,
        instance: InstanceId,
        attempt: u32,
        known: BTreeSet<MigrationId>,
        proofs: Proofs,
    },
    Start {
        id: IncidentId,
        instance: InstanceId,
        attempt: u32,
        how: How,
    },
}

/// How a stopped guest is started: as Nova sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Nova knows that it is stopped.
    Start,
    /// Nova still believes it active.
    HardReboot,
}

/// What came of an act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Done {
        request: Option<Arc<str>>,
    },
    /// Certainly not done, and told why.
    Refused {
        why: Arc<str>,
    },
    /// Certainly not done: it was never sent.
    NotSent {
        why: Arc<str>,
    },
    /// It may have been done.
    Unknown {
        why: Arc<str>,
    },
}

impl Act {
    pub fn incident(&self) -> &IncidentId {
        match self {
            Self::PowerOff { id, .. }
            | Self::ForceDown { id }
            | Self::Disable { id }
            | Self::ClearForcedDown { id }
            | Self::Enable { id }
            | Self::Evacuate { id, .. }
            | Self::Start { id, .. } => id,
        }
    }
}

/// One line of an incident's timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub id: IncidentId,
    pub kind: EntryKind,
    pub instance: Option<InstanceId>,
    pub text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    Evidence,
    Phase,
    Gate,
    Hold,
    Fence,
    Nova,
    Move,
    Operator,
}

impl EntryKind {
    pub fn word(self) -> &'static str {
        match self {
            Self::Evidence => "evidence",
            Self::Phase => "phase",
            Self::Gate => "gate",
            Self::Hold => "hold",
            Self::Fence => "fence",
            Self::Nova => "nova",
            Self::Move => "move",
            Self::Operator => "operator",
        }
    }
}

impl Decision {
    /// What the timeline and the log say of it; nothing if it belongs to no incident.
    pub fn entry(&self) -> Option<Entry> {
        use EntryKind as K;
        let (id, kind, instance, text) = match self {
            Self::Prove { .. } | Self::Bind { .. } | Self::Unbind { .. } | Self::Boot { .. } | Self::Arm { .. } => {
                return None;
            }
            Self::Open { id, why } => (id, K::Evidence, None, format!("suspected: {why}")),
            Self::Kind { id, why, .. } => (id, K::Evidence, None, why.to_string()),
            Self::Phase { id, to, why } => (id, K::Phase, None, format!("{}: {why}", to.word())),
            Self::Hold { id, gate, why } => (id, K::Hold, None, format!("held by {}: {why}", gate.word())),
            Self::GoOn { id } => (id, K::Hold, None, "no longer held".to_owned()),
            Self::Gates { id, verdicts } => (id, K::Gate, None, Verdict::line(verdicts)),
            Self::Receipt { id, receipt } => (id, K::Fence, None, receipt.to_string()),
            Self::Void { id, why } => (id, K::Fence, None, format!("the fence is void: {why}")),
            Self::Release { id, by, why, .. } => (id, K::Operator, None, format!("released by {by}: {why}")),
            Self::Plan { id, instance, .. } => (id, K::Move, Some(*instance), "to be moved".to_owned()),
            Self::Move { id, instance, state } => (id, K::Move, Some(*instance), of_state(state)),
            Self::Follow { id, instance, status, to, .. } => {
                let to = to.as_ref().map_or_else(String::new, |to| format!(", to {to}"));
                (id, K::Move, Some(*instance), format!("its migration is {status}{to}"))
            }
            Self::Restart { id, instance, state, .. } => (id, K::Move, Some(*instance), of_restart(state)),
            Self::Close { id, outcome, why } => (id, K::Phase, None, format!("closed ({}): {why}", outcome.word())),
            Self::Act(act) => return Some(act.entry()),
        };
        Some(Entry { id: id.clone(), kind, instance, text })
    }
}

fn of_state(state: &MoveState) -> String {
    match state {
        MoveState::Waiting { why: None, .. } => "waits for its turn".to_owned(),
        MoveState::Waiting { why: Some(why), .. } => format!("waits: {why}"),
        MoveState::Intended => "about to be evacuated".to_owned(),
        MoveState::Unknown { why } => format!("no answer says whether Nova took the evacuation: {why}"),
        MoveState::Accepted => "Nova took the evacuation".to_owned(),
        MoveState::Moved => "moved".to_owned(),
        MoveState::Named { why } => format!("left where it is: {why}"),
    }
}

fn of_restart(state: &RestartState) -> String {
    match state {
        RestartState::Waiting { .. } => "ran before the reboot; to be started again".to_owned(),
        RestartState::Asked => "asked to start".to_owned(),
        RestartState::Running => "runs again".to_owned(),
        RestartState::Named { why } => format!("not started: {why}"),
    }
}

impl Act {
    /// What the timeline says when it is begun.
    pub fn entry(&self) -> Entry {
        use EntryKind as K;
        let host = &self.incident().host;
        let (kind, instance, text) = match self {
            Self::PowerOff { method: Method::Redfish, .. } => {
                (K::Fence, None, format!("switch the power of {host} off by Redfish"))
            }
            Self::PowerOff { method: Method::Manual, .. } => {
                (K::Fence, None, format!("{host} waits for a person to switch it off"))
            }
            Self::ForceDown { .. } => (K::Nova, None, format!("force the compute service of {host} down")),
            Self::Disable { .. } => (K::Nova, None, format!("disable the compute service of {host}")),
            Self::ClearForcedDown { .. } => (K::Nova, None, format!("lift forced_down of {host}")),
            Self::Enable { .. } => (K::Nova, None, format!("enable the compute service of {host}")),
            Self::Evacuate { instance, attempt: 1, proofs, .. } => {
                (K::Move, Some(*instance), format!("evacuate; {proofs}"))
            }
            Self::Evacuate { instance, attempt, proofs, .. } => {
                (K::Move, Some(*instance), format!("evacuate, attempt {attempt}; {proofs}"))
            }
            Self::Start { instance, how: How::Start, .. } => (K::Move, Some(*instance), "start".to_owned()),
            Self::Start { instance, how: How::HardReboot, .. } => (K::Move, Some(*instance), "hard reboot".to_owned()),
        };
        Entry { id: self.incident().clone(), kind, instance, text }
    }

    /// What the timeline says when it is answered; nothing where what follows says it.
    pub fn answer_entry(&self, answer: &Answer) -> Option<Entry> {
        let text = match answer {
            Answer::Done { request: Some(request) } => format!("accepted ({request})"),
            Answer::Done { request: None } => return None,
            Answer::Refused { why } => format!("refused: {why}"),
            Answer::NotSent { why } => format!("not sent: {why}"),
            Answer::Unknown { why } => format!("no answer: {why}"),
        };
        let entry = self.entry();
        Some(Entry { text: format!("{}: {text}", entry.text), ..entry })
    }
}
