//! Volumes: the lists of all nodes as one, and what is done to a volume.

use axum::extract::State as Shared;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::Value;

use super::caller::Caller;
use super::error::{InPath, InQuery, Problem};
use super::state::State;
use super::survey::{find, key_of, survey};
use super::view::{Volume, Volumes};
use super::{create, delete, orders, report, steps};
use crate::identity::Action;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/v1/volumes", get(list).post(create::create))
        .route("/v1/volumes/{volume}", get(show).delete(delete::delete))
        .merge(orders::routes())
        .merge(steps::routes())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    name: Option<String>,
}

/// Passed on by a node: what this one knows of its own replicas.
async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    InQuery(Which { name }): InQuery<Which>,
) -> Result<Json<Value>, Problem> {
    caller.may(Action::Read)?;
    let key = match name.as_deref().map(key_of) {
        Some(Ok(key)) => Some(key),
        // Nothing is called so.
        Some(Err(_)) => return Ok(json(&Volumes { volumes: Vec::new(), unreachable: Vec::new() })),
        None => None,
    };
    if caller.is_local() {
        return Ok(json(&report::own(&state, key.as_deref()).await));
    }
    Ok(json(&Volumes::from(survey(&state, &caller, key.as_deref()).await)))
}

async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
) -> Result<Json<Value>, Problem> {
    caller.may(Action::Read)?;
    if caller.is_local() {
        return Ok(json(&report::own(&state, Some(&key)).await));
    }
    Ok(json(&Volume::from(&find(&state, &caller, &key).await?)))
}

fn json(answer: &impl serde::Serialize) -> Json<Value> {
    Json(serde_json::to_value(answer).expect("answers are JSON"))
}
