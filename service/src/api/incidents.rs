//! `/v2/incidents`: what happened, from the record.

use axum::Json;
use axum::extract::State;
use failover::{FenceReceipt, Incident, InstanceId, Kind, Move, MoveState, Proof, Restart, RestartState, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::{IncidentKey, Pairs, no_such_incident};
use super::{Api, ApiError, At};
use crate::store::{Recorded, Which, incident_uuid, receipt_kind};

#[derive(Debug, Serialize)]
struct Summary<'a> {
    id: Uuid,
    host: &'a str,
    outage: u32,
    kind: &'static str,
    phase: &'static str,
    outcome: Option<&'static str>,
    hold: Option<HoldAnswer<'a>>,
    opened_at: At,
    closed_at: Option<At>,
    why: &'a str,
    instances: Counts,
}

#[derive(Debug, Serialize)]
struct HoldAnswer<'a> {
    gate: &'static str,
    why: &'a str,
    since: At,
}

#[derive(Debug, Default, Serialize)]
struct Counts {
    total: usize,
    moved: usize,
    moving: usize,
    waiting: usize,
    named: usize,
}

#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    summary: Summary<'a>,
    gates: Vec<GateAnswer<'a>>,
    receipts: Vec<ReceiptAnswer<'a>>,
    moves: Vec<MoveAnswer<'a>>,
    restarts: Vec<RestartAnswer<'a>>,
    timeline: Vec<Line<'a>>,
}

#[derive(Debug, Serialize)]
pub(super) struct GateAnswer<'a> {
    gate: &'static str,
    passed: bool,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct ReceiptAnswer<'a> {
    kind: &'static str,
    by: String,
    why: &'a str,
    power_epoch: Option<At>,
    read_at: At,
    void: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct MoveAnswer<'a> {
    instance: String,
    name: &'a str,
    state: &'static str,
    attempt: u32,
    to: Option<&'a str>,
    migration: Option<String>,
    migration_status: Option<&'a str>,
    request_id: Option<&'a str>,
    why: Option<&'a str>,
    intended_at: Option<At>,
    ended_at: Option<At>,
}

#[derive(Debug, Serialize)]
struct RestartAnswer<'a> {
    instance: String,
    name: &'a str,
    state: &'static str,
    attempt: u32,
    request_id: Option<&'a str>,
    why: Option<&'a str>,
    asked_at: Option<At>,
}

#[derive(Debug, Serialize)]
struct Line<'a> {
    at: At,
    kind: &'static str,
    instance: Option<String>,
    text: &'a str,
}

pub(super) async fn list(State(api): State<Api>, Pairs(pairs): Pairs) -> Result<Json<Value>, ApiError> {
    let Wanted { which, host, limit } = Wanted::of(&pairs)?;
    let incidents = api.store.incidents(which, host, limit).await?;
    let incidents: Vec<Summary<'_>> = incidents.iter().map(summary).collect();
    Ok(Json(json!({ "incidents": incidents })))
}

pub(super) async fn show(State(api): State<Api>, IncidentKey(key): IncidentKey) -> Result<Json<Value>, ApiError> {
    whole(&api, key).await
}

/// Everything about one incident, as it is recorded now.
pub(super) async fn whole(api: &Api, key: Uuid) -> Result<Json<Value>, ApiError> {
    let incident = api.store.incident(key).await?.ok_or_else(|| no_such_incident(key))?;
    let timeline = api.store.timeline(&incident.id).await?;
    let whole = Whole {
        summary: summary(&incident),
        gates: incident.gates.iter().map(gate).collect(),
        receipts: incident.receipts.iter().map(receipt).collect(),
        moves: incident.moves.iter().map(|(instance, moving)| a_move(*instance, moving)).collect(),
        restarts: incident.restarts.iter().map(|(instance, start)| restart(*instance, start)).collect(),
        timeline: timeline.iter().map(line).collect(),
    };
    Ok(Json(json!({ "incident": whole })))
}

/// Which incidents a query asks for.
struct Wanted<'a> {
    which: Which,
    host: Option<&'a str>,
    limit: u32,
}

impl<'a> Wanted<'a> {
    const MOST: u32 = 1000;

    fn of(pairs: &'a [(String, String)]) -> Result<Self, ApiError> {
        let mut wanted = Self { which: Which::All, host: None, limit: 100 };
        for (position, (key, value)) in pairs.iter().enumerate() {
            if pairs[..position].iter().any(|(earlier, _)| earlier == key) {
                return Err(ApiError::bad_request(format!("{key} is given twice")));
            }
            match &**key {
                "state" => wanted.which = state(value)?,
                "host" => wanted.host = Some(value),
                "limit" => wanted.limit = limit(value)?,
                other => {
                    return Err(ApiError::bad_request(format!("{other:?} is not known: state, host and limit are")));
                }
            }
        }
        Ok(wanted)
    }
}

fn state(value: &str) -> Result<Which, ApiError> {
    match value {
        "open" => Ok(Which::Open),
        "closed" => Ok(Which::Closed),
        "all" => Ok(Which::All),
        other => Err(ApiError::bad_request(format!("state is open, closed or all, not {other:?}"))),
    }
}

fn limit(value: &str) -> Result<u32, ApiError> {
    let limit = value.parse().ok().filter(|limit| (1..=Wanted::MOST).contains(limit));
    limit.ok_or_else(|| ApiError::bad_request(format!("limit is a number from 1 to {}, not {value:?}", Wanted::MOST)))
}

fn summary(incident: &Incident) -> Summary<'_> {
    Summary {
        id: incident_uuid(&incident.id),
        host: &incident.id.host.name,
        outage: incident.id.outage,
        kind: match incident.kind {
            Kind::Outage => "outage",
            Kind::Reboot(_) => "reboot",
        },
        phase: incident.phase.word(),
        outcome: incident.outcome.map(failover::Outcome::word),
        hold: incident.hold.as_ref().map(|hold| HoldAnswer {
            gate: hold.gate.word(),
            why: &hold.why,
            since: At(hold.since),
        }),
        opened_at: At(incident.opened),
        closed_at: incident.closed.map(At),
        why: &incident.why,
        instances: counts(incident),
    }
}

fn counts(incident: &Incident) -> Counts {
    let mut counts = Counts { total: incident.moves.len(), ..Counts::default() };
    for moving in incident.moves.values() {
        match moving.state {
            MoveState::Waiting { .. } => counts.waiting += 1,
            MoveState::Intended | MoveState::Unknown { .. } | MoveState::Accepted => counts.moving += 1,
            MoveState::Moved => counts.moved += 1,
            MoveState::Named { .. } => counts.named += 1,
        }
    }
    counts
}

pub(super) fn gate(verdict: &Verdict) -> GateAnswer<'_> {
    GateAnswer { gate: verdict.gate.word(), passed: verdict.passed, why: &verdict.why }
}

fn receipt(receipt: &FenceReceipt) -> ReceiptAnswer<'_> {
    let (by, why, epoch) = match &receipt.kind {
        Proof::PowerOff { epoch } => (format!("the BMC of {}", receipt.id.host), "it says Off", Some(At(*epoch))),
        Proof::Person { by, why } => (by.to_string(), &**why, None),
    };
    ReceiptAnswer {
        kind: receipt_kind(&receipt.kind),
        by,
        why,
        power_epoch: epoch,
        read_at: At(receipt.read_at),
        void: receipt.void.as_deref(),
    }
}

fn a_move(instance: InstanceId, moving: &Move) -> MoveAnswer<'_> {
    MoveAnswer {
        instance: instance.to_string(),
        name: &moving.name,
        state: moving.state.word(),
        attempt: moving.attempt,
        to: moving.to.as_ref().map(|to| &*to.name),
        migration: moving.migration.map(|migration| migration.to_string()),
        migration_status: moving.migration_status.as_deref(),
        request_id: moving.request.as_deref(),
        why: moving.state.why().map(|why| &**why),
        intended_at: moving.intended.map(At),
        ended_at: moving.ended.map(At),
    }
}

fn restart(instance: InstanceId, restart: &Restart) -> RestartAnswer<'_> {
    let (state, why) = match &restart.state {
        RestartState::Waiting { .. } => ("waiting", None),
        RestartState::Asked => ("asked", None),
        RestartState::Running => ("running", None),
        RestartState::Named { why } => ("named", Some(&**why)),
    };
    RestartAnswer {
        instance: instance.to_string(),
        name: &restart.name,
        state,
        attempt: restart.attempt,
        request_id: restart.request.as_deref(),
        why,
        asked_at: restart.asked.map(At),
    }
}

fn line(recorded: &Recorded) -> Line<'_> {
    Line {
        at: At(recorded.at),
        kind: recorded.kind.word(),
        instance: recorded.instance.map(|instance| instance.to_string()),
        text: &recorded.text,
    }
}
