//! How the arbiter is, and how its records are put back after it was lost.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use axum::extract::State as Shared;
use axum::http::Method;
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::future::join_all;
use replication::{Node as Place, Order, Record, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use self::plan::{Member, Memory, Plan, plan};
use super::caller::Caller;
use super::error::{Body, Problem};
use super::fences::List;
use super::state::{Phase, State};
use crate::arbiter::{Fence, FencesOutcome, Outcome, record_from_json, record_to_json};
use crate::identity::Action;

/// How long another node may take to say what its replicas remember.
const ASK: Duration = Duration::from_secs(5);

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/v1/arbiter", get(show))
        .route("/v1/arbiter/memories", get(memories))
        .route("/v1/arbiter/trust", post(trust))
        .route("/v1/arbiter/rebuild", post(rebuild))
}

async fn show(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.may(Action::Read)?;
    let (kind, at) = state.arbiter();
    let asked = Instant::now();
    let listed = state.register().list().await;
    let latency_ms = asked.elapsed().as_micros() as f64 / 1000.0;
    Ok(Json(match listed {
        Ok((incarnation, records)) => json!({
            "kind": kind, "at": at, "reached": true, "incarnation": incarnation.to_string(),
            "latency_ms": latency_ms, "records": records.len(), "why": null,
        }),
        Err(failure) => json!({
            "kind": kind, "at": at, "reached": false, "incarnation": null,
            "latency_ms": null, "records": null, "why": failure.to_string(),
        }),
    }))
}

/// What one replica of this node remembers of its volume.
#[derive(Debug, Serialize, Deserialize)]
struct Report {
    uuid: Uuid,
    name: String,
    place: u8,
    /// Who has the others, by place.
    members: BTreeMap<u8, String>,
    /// None: its replica is not open.
    record: Option<Value>,
    changing: bool,
    /// The version of the list of fenced hosts that it has taken in.
    fences: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Memories {
    replicas: Vec<Report>,
}

async fn memories(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Memories>, Problem> {
    caller.may(Action::Read)?;
    Ok(Json(Memories { replicas: own_memories(&state).await }))
}

async fn own_memories(state: &State) -> Vec<Report> {
    let own = state.definitions().into_iter().filter(|definition| definition.state == Phase::Ready).filter_map(
        |definition| {
            let place = definition.place_of(state.name())?;
            Some(async move {
                let seen = state.node().look(definition.volume()).await;
                let members = definition.replicas.into_iter().map(|replica| (replica.place, replica.node)).collect();
                let record = seen.as_ref().map(|seen| record_to_json(&seen.status.record));
                Report {
                    uuid: definition.uuid,
                    name: definition.name,
                    place: place.place(),
                    members,
                    record: record.map(|text| serde_json::from_str(&text).expect("it was just written")),
                    changing: seen.as_ref().is_some_and(|seen| seen.status.changing),
                    fences: seen.map_or(0, |seen| seen.control.fences),
                }
            })
        },
    );
    join_all(own).await
}

/// Of all nodes that are reached, with their names.
async fn all_memories(state: &State, caller: &Caller) -> Vec<(String, Report)> {
    let others = state.others();
    let asked = others.iter().map(|other| state.ask(other, Method::GET, "/v1/arbiter/memories", None, caller, ASK));
    let (own, answers) = tokio::join!(own_memories(state), join_all(asked));
    let answers = others.into_iter().zip(answers);
    let told =
        answers.filter_map(|(other, answer)| Some((other, serde_json::from_value::<Memories>(answer.ok()?).ok()?)));
    let told = told.chain([(state.name().to_owned(), Memories { replicas: own })]);
    told.flat_map(|(node, memories)| memories.replicas.into_iter().map(move |report| (node.clone(), report))).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    confirm: bool,
    #[serde(default)]
    volumes: Option<BTreeSet<Uuid>>,
    /// Nodes whose replicas are lost for good: they are not waited for.
    #[serde(default)]
    destroyed: BTreeSet<String>,
}

/// A volume, as its replicas remember it.
#[derive(Debug, Default)]
struct Remembered {
    name: String,
    members: BTreeMap<Place, Member>,
    reported: BTreeSet<String>,
}

#[derive(Debug, Serialize)]
struct Done {
    uuid: Uuid,
    name: String,
    generation: u64,
    rebuilt: bool,
    /// The arbiter holds what the replicas remember; else it is to be asked again.
    settled: bool,
    why: String,
}

async fn rebuild(Shared(state): Shared<State>, caller: Caller, Body(wish): Body<Wish>) -> Result<Json<Value>, Problem> {
    caller.may(Action::RebuildArbiter)?;
    if !wish.confirm {
        return Err(Problem::invalid("confirm is not true").remedy("docs/node-api.md says what it confirms"));
    }
    let reports = all_memories(&state, &caller).await;
    let fences = reports.iter().map(|(_, report)| report.fences).max().unwrap_or_default();
    let mut volumes = by_volume(reports)?;
    if let Some(wanted) = &wish.volumes {
        volumes.retain(|uuid, _| wanted.contains(uuid));
    }
    leave_out(&mut volumes, &wish.destroyed)?;
    let (_, found) = state.register().list().await?;
    let record = |uuid: &Uuid| found.get(&VolumeId(uuid.as_u128()));
    let plans: Vec<(Uuid, Remembered, Plan)> = volumes
        .into_iter()
        .map(|(uuid, volume)| {
            let plan = plan(record(&uuid), &volume.members);
            (uuid, volume, plan)
        })
        .collect();
    held_by_some(&plans)?;
    let without = wish.destroyed.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    tracing::warn!(by = %caller, volumes = plans.len(), destroyed = without, "the arbiter's records are put back");
    put_fences_back(&state, &caller, fences).await?;
    let mut done = Vec::new();
    for (uuid, volume, plan) in plans {
        done.push(carry_out(&state, &caller, uuid, volume, record(&uuid), plan).await);
    }
    Ok(Json(json!({ "volumes": done })))
}

fn by_volume(reports: Vec<(String, Report)>) -> Result<BTreeMap<Uuid, Remembered>, Problem> {
    let mut volumes: BTreeMap<Uuid, Remembered> = BTreeMap::new();
    let misfit = |node: &str| {
        Problem::internal(format!("{node} says what this node does not understand: are they of one version?"))
    };
    for (node, report) in reports {
        let volume = volumes.entry(report.uuid).or_default();
        volume.name = report.name;
        for (place, name) in report.members {
            let place = Place::new(place).ok_or_else(|| misfit(&node))?;
            volume.members.entry(place).or_insert(Member { node: name, memory: None, destroyed: false });
        }
        let Some(record) = report.record else { continue };
        let record = record_from_json(&record.to_string()).map_err(|_| misfit(&node))?;
        let place = Place::new(report.place).ok_or_else(|| misfit(&node))?;
        volume.reported.insert(node.clone());
        let memory = Some(Memory { record, changing: report.changing });
        volume.members.insert(place, Member { node, memory, destroyed: false });
    }
    Ok(volumes)
}

/// These are not waited for. Who answers is not destroyed, and who has no replica is another node than was meant.
fn leave_out(volumes: &mut BTreeMap<Uuid, Remembered>, destroyed: &BTreeSet<String>) -> Result<(), Problem> {
    for node in destroyed {
        let members = volumes.values_mut().flat_map(|volume| volume.members.values_mut());
        let mut known = false;
        for member in members.filter(|member| member.node == *node) {
            if member.memory.is_some() {
                return Err(Problem::refused(format!("{node} is not destroyed: it answers")).remedy("leave it out"));
            }
            (known, member.destroyed) = (true, true);
        }
        if !known {
            return Err(Problem::invalid(format!("destroyed: no volume in question has a replica on {node}"))
                .remedy("`tandem volume list` shows where replicas are"));
        }
    }
    Ok(())
}

/// All volumes or none: an operator who reads half a list believes the other half.
fn held_by_some(plans: &[(Uuid, Remembered, Plan)]) -> Result<(), Problem> {
    let waiting: Vec<String> = plans
        .iter()
        .filter_map(|(uuid, volume, plan)| match plan {
            Plan::Wait(why) => Some(format!("{} ({uuid}): {why}", volume.name)),
            Plan::Intact { .. } | Plan::Put(_) => None,
        })
        .collect();
    match waiting.is_empty() {
        true => Ok(()),
        false => Err(Problem::held(format!("nothing was put back. {}", waiting.join("; ")))
            .remedy("see to these, or name the other volumes in \"volumes\"")),
    }
}

async fn carry_out(
    state: &State,
    caller: &Caller,
    uuid: Uuid,
    volume: Remembered,
    found: Option<&Record>,
    plan: Plan,
) -> Done {
    let done = |generation: u64, (rebuilt, settled), why: &str| Done {
        uuid,
        name: volume.name.clone(),
        generation,
        rebuilt,
        settled,
        why: why.to_owned(),
    };
    let (put_back, left, failed) = ((true, true), (false, true), (false, false));
    match plan {
        Plan::Wait(why) => done(0, failed, &why),
        Plan::Intact { generation, sure: false } => {
            done(generation.0, left, "it is not behind what those remember that are reached; left as it is")
        }
        Plan::Intact { generation, sure: true } => {
            trust_everywhere(state, caller, uuid, &volume.reported).await;
            done(generation.0, left, "it is not behind what its replicas remember")
        }
        Plan::Put(record) => match state.register().rebuild(VolumeId(uuid.as_u128()), found, &record).await {
            Outcome::Done => {
                tracing::warn!(volume = %uuid, by = %caller, "put back: {record}");
                trust_everywhere(state, caller, uuid, &volume.reported).await;
                done(record.generation.0, put_back, "put back as its replicas remember it")
            }
            Outcome::Refused(there) => done(there.generation.0, failed, "it was changed meanwhile: ask again"),
            Outcome::Missing => done(record.generation.0, failed, "it was removed meanwhile: ask again"),
            Outcome::NotDone(failure) | Outcome::Unknown(failure) => {
                done(record.generation.0, failed, &failure.to_string())
            }
        },
    }
}

async fn trust_everywhere(state: &State, caller: &Caller, uuid: Uuid, nodes: &BTreeSet<String>) {
    let body = json!({ "volumes": [uuid] });
    let others = state.others().into_iter().filter(|other| nodes.contains(other)).collect::<Vec<_>>();
    let told =
        others.iter().map(|other| state.ask(other, Method::POST, "/v1/arbiter/trust", Some(body.clone()), caller, ASK));
    let (_, told) = tokio::join!(trust_here(state, [uuid].into()), join_all(told));
    for (other, told) in others.iter().zip(told) {
        if let Err(problem) = told {
            tracing::warn!(volume = %uuid, node = other, why = problem.message, "it was not told to believe the arbiter");
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    volumes: BTreeSet<Uuid>,
}

/// From the node that has put the records back: this node's replicas are to believe the arbiter.
async fn trust(
    Shared(state): Shared<State>,
    caller: Caller,
    Body(trusted): Body<Trusted>,
) -> Result<Json<Value>, Problem> {
    caller.may(Action::RebuildArbiter)?;
    Ok(Json(json!({ "volumes": trust_here(&state, trusted.volumes).await })))
}

async fn trust_here(state: &State, volumes: BTreeSet<Uuid>) -> Vec<Uuid> {
    let mut told = Vec::new();
    for uuid in volumes {
        match state.node().order(VolumeId(uuid.as_u128()), Order::TrustArbiter).await {
            Ok(()) => told.push(uuid),
            Err(refusal) => tracing::warn!(volume = %uuid, ?refusal, "it does not believe the arbiter again"),
        }
    }
    told
}

/// The list's version must pass the one that replicas have taken in, or they would heed no fence any more; and what only nodes remember of it stands again.
async fn put_fences_back(state: &State, caller: &Caller, taken_in: u64) -> Result<(), Problem> {
    let others = state.others();
    let asked = others.iter().map(|other| state.ask(other, Method::GET, "/v1/fences", None, caller, ASK));
    let told = join_all(asked).await.into_iter().filter_map(|answer| serde_json::from_value::<List>(answer.ok()?).ok());
    let own = state.watcher().known().map(List::from);
    let Some(latest) = told.chain(own).max_by_key(|list| list.version) else { return Ok(()) };
    let mut there = state.register().fences().await?;
    let goal = latest.version.max(taken_in);
    let lost = latest.version > there.version;
    while there.version < goal || (lost && there.version == goal) {
        let mut list = there.list.clone();
        let missing = latest.fences.iter().filter(|entry| !there.list.iter().any(|fence| fence.host == entry.host));
        list.extend(missing.cloned().map(Fence::from));
        match state.register().change_fences(there.version, &list).await {
            FencesOutcome::Done => there = crate::arbiter::Fences { version: there.version + 1, list, ..there },
            FencesOutcome::Refused(newer) => there = newer,
            FencesOutcome::NotDone(failure) | FencesOutcome::Unknown(failure) => return Err(failure.into()),
        }
    }
    state.watcher().wake();
    Ok(())
}
