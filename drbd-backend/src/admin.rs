//! REST: what operators, tandem-ha and Cinder see of a node and ask of it, and what nodes ask of each other.
//!
//! ```text
//!  TCP, TLS or loopback ─┐           ┌─ volumes, pools, nodes ── Cluster ── other nodes
//!  control socket ───────┴─ Caller ──┼─ fences, dead, arbiter ── Register
//!                           may it?  └─ events, metrics, health ─ Node
//! ```
//! Any node answers for all. A request that one node passes on to another says so, and is passed on no further. `docs/node-api.md` is the operator's
//! page, `openapi.json` the whole.

mod arbiter;
mod attachments;
mod body;
mod caller;
mod create;
pub mod dead;
mod delete;
mod error;
mod events;
mod fences;
mod health;
mod listen;
mod metrics;
mod nodes;
mod openapi;
mod orders;
mod pools;
mod report;
mod reservations;
pub mod state;
mod steps;
mod survey;
mod view;
mod volumes;

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio::task::JoinSet;

pub use caller::{Caller, FOR, LOCAL};
pub use error::{Code, Problem};
pub use listen::{ListenError, Listeners};
pub use openapi::DOCUMENT;
use state::State;
pub use steps::open_all;

use crate::identity::Action;

/// Takes the addresses and serves them until `shutdown`: [`Listeners::bind`], then [`serve_on`].
///
/// # Errors
/// As [`Listeners::bind`].
pub async fn serve(
    state: State,
    listen: SocketAddr,
    tls: Option<&Arc<crate::identity::Credentials>>,
    control_socket: &Path,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ListenError> {
    let listeners = Listeners::bind(listen, tls, control_socket).await?;
    serve_on(listeners, state, shutdown).await;
    Ok(())
}

/// Until `shutdown`, with what has to go on beside it: the watch over fenced hosts and over those said to be dead.
pub async fn serve_on(listeners: Listeners, state: State, shutdown: impl Future<Output = ()>) {
    let mut beside = JoinSet::new();
    beside.spawn(dead::watch(state.clone()));
    beside.spawn(reservations::pass_on(state.clone()));
    let watched = state.clone();
    beside.spawn(async move { watched.watcher().run(crate::fences::EVERY).await });
    listeners.serve(router(state), shutdown).await;
    beside.shutdown().await;
}

async fn introduce(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Value>, Problem> {
    caller.may(Action::Read)?;
    Ok(Json(state.introduction()))
}

fn router(state: State) -> Router {
    Router::new()
        .route("/v1", get(introduce))
        .route("/v1/openapi.json", get(openapi::show))
        .route("/v1/events", get(events::follow))
        .route("/metrics", get(metrics::show))
        .route("/healthcheck", get(health::check))
        .merge(fences::routes())
        .merge(dead::routes())
        .merge(arbiter::routes())
        .merge(volumes::routes())
        .merge(attachments::routes())
        .merge(reservations::routes())
        .merge(nodes::routes())
        .merge(pools::routes())
        .fallback(error::no_such_path)
        .method_not_allowed_fallback(error::no_such_method)
        .with_state(state)
}
