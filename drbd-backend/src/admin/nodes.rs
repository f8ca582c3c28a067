//! All nodes of the configuration, and whether they are reached.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::Method;
use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::caller::Caller;
use super::dead::Dead;
use super::error::{InPath, Problem};
use super::state::State;
use crate::identity::Action;

const ASK: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/nodes", get(list)).route("/v1/nodes/{name}", get(show))
}

#[derive(Debug, Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Node {
    name: String,
    reached: bool,
    version: Option<String>,
    boot_id: Option<Uuid>,
    rest: String,
    peers: String,
    started_at: Option<String>,
    volumes: Option<usize>,
    dead: Option<Dead>,
    /// Why it was not reached.
    why: Option<String>,
}

async fn list(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Nodes>, Problem> {
    caller.may(Action::Read)?;
    let own = own(&state);
    if caller.is_local() {
        return Ok(Json(Nodes { nodes: vec![own] }));
    }
    let others = state.others();
    let mut nodes = join_all(others.iter().map(|name| other(&state, &caller, name))).await;
    nodes.push(own);
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(Json(Nodes { nodes }))
}

async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> Result<Json<Node>, Problem> {
    caller.may(Action::Read)?;
    if name == state.name() {
        return Ok(Json(own(&state)));
    }
    match !caller.is_local() && state.cluster().get(&name).is_some() {
        true => Ok(Json(other(&state, &caller, &name).await)),
        false => Err(Problem::not_found(format!("there is no node {name:?}"))
            .remedy("GET /v1/nodes lists those of the configuration")),
    }
}

fn own(state: &State) -> Node {
    let introduction = state.introduction();
    let text = |pointer: &str| introduction.pointer(pointer).and_then(|text| text.as_str()).map(str::to_owned);
    Node {
        name: state.name().to_owned(),
        reached: true,
        version: text("/version"),
        boot_id: Some(Uuid::from_u128(state.node().boot().0)),
        rest: text("/addresses/rest").unwrap_or_default(),
        peers: state.node().peers_address().to_string(),
        started_at: text("/started_at"),
        volumes: Some(state.catalog().entries().len()),
        dead: state.dead().get(state.name()),
        why: None,
    }
}

/// As it says itself; but whether it is said to be dead is what this node was told.
async fn other(state: &State, caller: &Caller, name: &str) -> Node {
    let answer = state.ask(name, Method::GET, &format!("/v1/nodes/{name}"), None, caller, ASK).await;
    let understood = answer.and_then(|answer| {
        serde_json::from_value::<Node>(answer).map_err(|_| {
            Problem::internal(format!("{name} says what this node does not understand: are they of one version?"))
        })
    });
    let dead = state.dead().get(name);
    let (rest, peers) =
        state.cluster().get(name).map_or_else(Default::default, |other| (other.rest.clone(), other.peers.to_string()));
    match understood {
        Ok(node) => Node { dead, ..node },
        Err(problem) => Node {
            name: name.to_owned(),
            reached: false,
            version: None,
            boot_id: None,
            rest,
            peers,
            started_at: None,
            volumes: None,
            dead,
            why: Some(problem.message),
        },
    }
}
