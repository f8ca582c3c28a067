//! The pools of all nodes: what room there is.

use std::path::Path;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::routing::get;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::caller::Caller;
use super::error::Problem;
use super::state::State;
use crate::identity::Action;

const ASK: Duration = Duration::from_secs(2);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/pools", get(list))
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pools {
    pub(super) pools: Vec<Pool>,
    pub(super) unreachable: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Pool {
    pub(super) node: String,
    pub(super) name: String,
    path: String,
    size_bytes: u64,
    pub(super) free_bytes: u64,
    volumes: usize,
    /// Writes wait for space in it.
    full: bool,
}

async fn list(Shared(state): Shared<State>, caller: Caller) -> Result<Json<Pools>, Problem> {
    caller.may(Action::Read)?;
    Ok(Json(match caller.is_local() {
        true => Pools { pools: own(&state).await, unreachable: Vec::new() },
        false => all(&state, &caller).await,
    }))
}

pub(super) async fn all(state: &State, caller: &Caller) -> Pools {
    let (own, answers) = tokio::join!(own(state), state.cluster().ask_all::<Pools>("/v1/pools", caller, ASK));
    let mut pools: Vec<Pool> =
        own.into_iter().chain(answers.told.into_iter().flat_map(|(_, told)| told.pools)).collect();
    pools.sort_by(|one, other| (&one.node, &one.name).cmp(&(&other.node, &other.name)));
    Pools { pools, unreachable: answers.silent.into_keys().collect() }
}

async fn own(state: &State) -> Vec<Pool> {
    let mut pools = Vec::new();
    for (name, path) in state.pools() {
        let (mut volumes, mut full) = (0, false);
        for entry in state.catalog().entries().into_iter().filter(|entry| entry.pool == *path) {
            let seen = state.node().look(replication::VolumeId(entry.uuid.as_u128())).await;
            full |= seen.is_some_and(|seen| seen.status.full);
            volumes += 1;
        }
        let (size_bytes, free_bytes) = space(path);
        let (node, path) = (state.name().to_owned(), path.display().to_string());
        pools.push(Pool { node, name: name.clone(), path, size_bytes, free_bytes, volumes, full });
    }
    pools
}

/// Of the pool's file system: its size, and what is left for those who are not root. A pool that is away has none.
fn space(path: &Path) -> (u64, u64) {
    let space = rustix::fs::statvfs(path).inspect_err(|error| {
        tracing::warn!(pool = %path.display(), %error, "the space of a pool cannot be seen");
    });
    space.map_or((0, 0), |space| {
        (space.f_blocks.saturating_mul(space.f_frsize), space.f_bavail.saturating_mul(space.f_frsize))
    })
}
