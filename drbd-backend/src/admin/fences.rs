//! Host fences: the arbiter's list is changed here, and the answer waits until no volume serves the host any more.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use futures::future::join_all;
use replication::{Generation, Node as Place, Role};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::caller::Caller;
use super::error::{Body, InPath, InQuery, Problem};
use super::state::{Phase, State};
use crate::arbiter::{Failure, Fence, Fences};
use crate::fences::verdict::{self, Replica, Standing};
use crate::identity::{Action, rfc3339};

/// How long the answer waits for the Primaries.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long they are left alone between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// How long another node may take to say how its replicas stand.
const ASK: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/fences", get(list)).route("/v1/fences/{host}", get(show).put(fence).delete(lift))
}

/// The list, as the API shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct List {
    pub(super) version: u64,
    pub(super) fences: Vec<Entry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) host: String,
    pub(super) by: String,
    pub(super) why: String,
    #[serde(serialize_with = "microseconds")]
    pub(super) at: DateTime<Utc>,
}

fn microseconds<S: serde::Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&rfc3339(*at))
}

impl From<Fence> for Entry {
    fn from(fence: Fence) -> Self {
        Self { host: fence.host, by: fence.by, why: fence.reason, at: fence.at }
    }
}

impl From<Entry> for Fence {
    fn from(entry: Entry) -> Self {
        Self { host: entry.host, boot: None, by: entry.by, at: entry.at, reason: entry.why }
    }
}

impl From<Fences> for List {
    fn from(fences: Fences) -> Self {
        Self { version: fences.version, fences: fences.list.into_iter().map(Entry::from).collect() }
    }
}

/// A fence, and the version of the list from which on it stands.
#[derive(Debug, Serialize)]
struct Fenced {
    version: u64,
    #[serde(flatten)]
    fence: Entry,
}

/// Passed on by a node: what was last read here, though the arbiter may be away.
async fn list(Shared(state): Shared<State>, caller: Caller) -> Result<Json<List>, Problem> {
    caller.may(Action::Read)?;
    if caller.is_local() {
        let known = state.watcher().known();
        return Ok(Json(known.map_or_else(|| List { version: 0, fences: Vec::new() }, List::from)));
    }
    Ok(Json(state.watcher().refresh().await?.into()))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    why: String,
}

async fn fence(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(host): InPath<String>,
    Body(Why { why }): Body<Why>,
) -> Result<Json<Fenced>, Problem> {
    caller.may(Action::FenceHost)?;
    let host = name(host)?;
    let wanted = Fence { host: host.clone(), boot: None, by: caller.to_string(), at: now(), reason: why };
    let version = state.register().fence(wanted.clone()).await?;
    tracing::warn!(host, by = %caller, version, "fenced: it may use no volume any more");
    let fences = state.watcher().refresh().await?;
    let fence = fences.list.into_iter().find(|fence| fence.host == host).unwrap_or(wanted).into();
    let until = Instant::now() + PATIENCE;
    loop {
        let open = open_volumes(&state, &caller, &host, version).await?;
        if open.is_empty() {
            return Ok(Json(Fenced { version, fence }));
        }
        if Instant::now() >= until {
            return Err(still_open(&host, &open));
        }
        sleep(PAUSE).await;
    }
}

fn still_open(host: &str, open: &[Open]) -> Problem {
    let volumes: Vec<String> = open.iter().map(Open::to_string).collect();
    Problem::held(format!("{host} is on the list, but may still use {}", volumes.join("; ")))
        .remedy("this proves nothing: ask again, or make sure by other means that the host is off")
}

async fn lift(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(host): InPath<String>,
) -> Result<Json<List>, Problem> {
    caller.may(Action::FenceHost)?;
    let version = state.register().lift(&name(host.clone())?).await?;
    tracing::info!(host, by = %caller, version, "no longer fenced");
    Ok(Json(state.watcher().refresh().await?.into()))
}

/// How far a fence has come.
#[derive(Debug, Serialize)]
struct Progress {
    host: String,
    version: u64,
    fence: Option<Entry>,
    open: Vec<Open>,
}

/// A volume that the host may still use.
#[derive(Debug, Serialize)]
struct Open {
    uuid: Uuid,
    name: Option<String>,
    why: String,
}

impl std::fmt::Display for Open {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} ({}): {}", self.uuid, self.why),
            None => write!(f, "{}: {}", self.uuid, self.why),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AtLeast {
    /// The version that the one who asks knows of.
    version: Option<u64>,
}

async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(host): InPath<String>,
    InQuery(AtLeast { version }): InQuery<AtLeast>,
) -> Result<Json<serde_json::Value>, Problem> {
    caller.may(Action::Read)?;
    let host = name(host)?;
    if caller.is_local() {
        if state.watcher().known().is_none_or(|known| known.version < version.unwrap_or_default()) {
            state.watcher().refresh().await?;
        }
        return Ok(Json(serde_json::to_value(standings(&state, &host).await).expect("standings are JSON")));
    }
    let fences = state.watcher().refresh().await?;
    let open = open_volumes(&state, &caller, &host, fences.version).await?;
    let fence = fences.list.into_iter().find(|fence| fence.host == host).map(Entry::from);
    let progress = Progress { host, version: fences.version, fence, open };
    Ok(Json(serde_json::to_value(progress).expect("progress is JSON")))
}

/// What a node says of one volume, to another node.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    uuid: Uuid,
    name: String,
    place: u8,
    is_idle: bool,
    replica: Option<ReplicaReport>,
}

#[derive(Debug, Serialize, Deserialize)]
struct ReplicaReport {
    generation: u64,
    is_primary: bool,
    recorded: u64,
    told: u64,
    attached: bool,
}

async fn standings(state: &State, host: &str) -> Vec<Report> {
    let own = state.definitions().into_iter().filter_map(|definition| {
        let place = definition.place_of(state.name())?;
        Some(async move {
            let volume = definition.volume();
            let seen = state.node().look(volume).await;
            let replica = seen.map(|seen| ReplicaReport {
                generation: seen.status.record.generation.0,
                is_primary: seen.status.role == Role::Primary,
                recorded: seen.control.fences,
                told: state.watcher().told(volume),
                attached: seen.control.attachments.iter().any(|it| !it.revoked && it.host == host),
            });
            let is_idle = definition.state != Phase::Ready;
            Report { uuid: definition.uuid, name: definition.name, place: place.place(), is_idle, replica }
        })
    });
    join_all(own).await
}

/// What all nodes that are reached say of it, held against the arbiter's records.
async fn open_volumes(state: &State, caller: &Caller, host: &str, version: u64) -> Result<Vec<Open>, Failure> {
    let path = format!("/v1/fences/{host}?version={version}");
    let others = state.others();
    let asked = others.iter().map(|other| state.ask(other, Method::GET, &path, None, caller, ASK));
    let (own, answers) = tokio::join!(standings(state, host), join_all(asked));
    let mut volumes: BTreeMap<Uuid, (Option<String>, Vec<Standing>)> = BTreeMap::new();
    let answers = others
        .into_iter()
        .zip(answers)
        .filter_map(|(other, answer)| Some((other, serde_json::from_value::<Vec<Report>>(answer.ok()?).ok()?)));
    for (node, reports) in answers.chain([(state.name().to_owned(), own)]) {
        for report in reports {
            let (uuid, name) = (report.uuid, report.name.clone());
            let entry = volumes.entry(uuid).or_default();
            entry.0 = Some(name);
            entry.1.extend(standing(&node, report));
        }
    }
    // After the replicas: a change that they did not know of yet is seen here, and they are asked again.
    let (_, records) = state.register().list().await?;
    for volume in records.keys() {
        volumes.entry(Uuid::from_u128(volume.0)).or_default();
    }
    let judged = volumes.into_iter().filter_map(|(uuid, (name, standings))| {
        let record = records.get(&replication::VolumeId(uuid.as_u128()));
        verdict::open(version, record, &standings).map(|why| Open { uuid, name, why })
    });
    Ok(judged.collect())
}

fn standing(node: &str, report: Report) -> Option<Standing> {
    let replica = report.replica.map(|replica| Replica {
        generation: Generation(replica.generation),
        is_primary: replica.is_primary,
        recorded: replica.recorded,
        told: replica.told,
        attached: replica.attached,
    });
    Some(Standing { node: node.to_owned(), place: Place::new(report.place)?, replica, is_idle: report.is_idle })
}

/// As hosts are named in Nova.
fn name(host: String) -> Result<String, Problem> {
    let parsed = host.parse::<crate::identity::Name>();
    parsed.map(|_| host).map_err(|error| Problem::invalid(error.to_string()))
}

/// To the microsecond, as it is kept.
fn now() -> DateTime<Utc> {
    let now = Utc::now();
    DateTime::from_timestamp_micros(now.timestamp_micros()).unwrap_or(now)
}
