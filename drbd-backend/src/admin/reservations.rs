//! Persistent reservations that initiators change through a node that stands by: it has the Primary do it.

use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::{Method, StatusCode};
use axum::routing::put;
use replication::{Change, Order};
use serde_json::json;
use tokio::task::JoinSet;

use super::body::Reservations;
use super::caller::Caller;
use super::error::{Body, InPath, Problem};
use super::orders::{here, order};
use super::state::State;
use crate::identity::Action;
use crate::node::Wish;

/// The initiator waits, and gives up after 30 s where it is Linux.
const LIMIT: Duration = Duration::from_secs(10);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/volumes/{volume}/reservations", put(change))
}

async fn change(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
    Body(Reservations { was, next }): Body<Reservations>,
) -> Result<StatusCode, Problem> {
    caller.may(Action::Reserve)?;
    let definition = here(&state, &key)?;
    order(&state, &definition, Order::Control(Change::Reserve { was, next })).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// For as long as the node runs.
pub(super) async fn pass_on(state: State) {
    let mut passing = JoinSet::new();
    while let Some(wish) = state.node().wish().await {
        while passing.try_join_next().is_some() {}
        let state = state.clone();
        passing.spawn(async move {
            let (volume, Wish { was, next, primary, done, .. }) = (wish.volume, wish);
            let definition = state.definitions().into_iter().find(|definition| definition.volume() == volume);
            let Some(definition) = definition else { return };
            let (node, caller) = (definition.name_of(primary), Caller::this_node(state.name()));
            let path = format!("/v1/volumes/{}/reservations", definition.uuid);
            let body = json!({ "was": was, "next": next });
            let answer = state.ask(&node, Method::PUT, &path, Some(body), &caller, LIMIT).await;
            if let Err(problem) = &answer {
                tracing::info!(volume = %definition.uuid, node, "a reservation could not be passed on: {}", problem.message);
            }
            let _ = done.send(answer.is_ok()); // the initiator may be gone
        });
    }
}
