//! Whether this node is well: its engine answers.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use replication::{Order, Refusal, VolumeId};
use serde_json::json;
use tokio::time::timeout;

use super::caller::Caller;
use super::error::Problem;
use super::state::State;
use crate::identity::Action;

/// The engine looks at what others ask of it many times a second.
const ANSWER: Duration = Duration::from_secs(2);

pub(super) async fn check(Shared(state): Shared<State>, caller: Caller) -> Result<Response, Problem> {
    caller.may(Action::Read)?;
    // To a volume that there is not: an engine that lives says so, one that has ended says nothing.
    let asked = timeout(ANSWER, state.node().order(VolumeId(0), Order::TrustArbiter)).await;
    match asked {
        Ok(Err(Refusal::Invalid(_))) => Ok(Json(json!({ "ok": true })).into_response()),
        Ok(_) | Err(_) => Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false }))).into_response()),
    }
}
