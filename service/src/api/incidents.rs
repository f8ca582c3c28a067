//! `/v2/incidents`: what happened, from the record.

use axum::Json;
use axum::extract::State;
use failover::{FenceReceipt, Incident, InstanceId, Kind, Move, MoveState, Proof, Restart, RestartState, Verdict};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::ask::{Named, Pairs};
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
    #[serde(flatten)]
    restarts: Option<RestartCounts>,
}

/// Of guests that a reboot stopped.
#[derive(Debug, Default, Serialize)]
struct RestartCounts {
    asked: usize,
    running: usize,
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
    let mut incidents = api.store.incidents(which, host, limit + 1).await?;
    let more = incidents.len() > limit as usize;
    incidents.truncate(limit as usize);
    let incidents: Vec<Summary<'_>> = incidents.iter().map(summary).collect();
    Ok(Json(json!({ "incidents": incidents, "more": more })))
}

pub(super) async fn show(State(api): State<Api>, Named(name): Named) -> Result<Json<Value>, ApiError> {
    told(&api, &named(&api, &name).await?).await
}

/// The incident that is meant: by its id, by the host's name, or by the two that the log has, HOST/OUTAGE.
pub(super) async fn named(api: &Api, wanted: &str) -> Result<Incident, ApiError> {
    if let Ok(key) = Uuid::parse_str(wanted) {
        let incident = api.store.incident(key).await?;
        return incident.ok_or_else(|| ApiError::not_found(format!("there is no incident {key}")));
    }
    if let Some(incident) = of_host(api, wanted, None).await? {
        return Ok(incident);
    }
    let pair = wanted.rsplit_once('/').and_then(|(host, outage)| Some((host, outage.parse().ok()?)));
    let incident = match pair {
        Some((host, outage)) => of_host(api, host, Some(outage)).await?,
        None => None,
    };
    let forms = "its id is a UUID; HOST and HOST/OUTAGE will do where the host had one";
    incident.ok_or_else(|| ApiError::not_found(format!("there is no incident {wanted:?}: {forms}")))
}

/// The open one, else the newest. A host that was set up anew counts its outages anew, under the same name.
async fn of_host(api: &Api, host: &str, outage: Option<u32>) -> Result<Option<Incident>, ApiError> {
    let is_meant = |incident: &Incident| outage.is_none_or(|outage| incident.id.outage == outage);
    let mut open = api.store.incidents(Which::Open, Some(host), Wanted::MOST).await?;
    open.retain(is_meant);
    if open.len() > 1 {
        let ids: Vec<String> = open.iter().map(|incident| incident_uuid(&incident.id).to_string()).collect();
        let ids = ids.join(" and ");
        return Err(ApiError::conflict(format!("{host:?} has several open incidents: name one by its id, {ids}")));
    }
    if let Some(incident) = open.pop() {
        return Ok(Some(incident));
    }
    let newest = if outage.is_none() { 1 } else { Wanted::MOST };
    Ok(api.store.incidents(Which::All, Some(host), newest).await?.into_iter().find(is_meant))
}

/// Everything about one incident, as it is recorded now.
pub(super) async fn whole(api: &Api, key: Uuid) -> Result<Json<Value>, ApiError> {
    let incident = api.store.incident(key).await?;
    told(api, &incident.ok_or_else(|| ApiError::not_found(format!("there is no incident {key}")))?).await
}

async fn told(api: &Api, incident: &Incident) -> Result<Json<Value>, ApiError> {
    let timeline = api.store.timeline(&incident.id).await?;
    let whole = Whole {
        summary: summary(incident),
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
            Kind::Reboot(_) | Kind::FoundRebooted(_) => "reboot",
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
    let total = incident.moves.len() + incident.restarts.len();
    let mut counts = Counts { total, ..Counts::default() };
    for moving in incident.moves.values() {
        match moving.state {
            MoveState::Waiting { .. } => counts.waiting += 1,
            MoveState::Intended | MoveState::Unknown { .. } | MoveState::Accepted => counts.moving += 1,
            MoveState::Moved => counts.moved += 1,
            MoveState::Named { .. } => counts.named += 1,
        }
    }
    let mut restarts = RestartCounts::default();
    for restart in incident.restarts.values() {
        match restart.state {
            RestartState::Waiting { .. } => counts.waiting += 1,
            RestartState::Asked => restarts.asked += 1,
            RestartState::Running => restarts.running += 1,
            RestartState::Named { .. } => counts.named += 1,
        }
    }
    let rebooted = matches!(incident.kind, Kind::Reboot(_) | Kind::FoundRebooted(_)) || !incident.restarts.is_empty();
    counts.restarts = rebooted.then_some(restarts);
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
