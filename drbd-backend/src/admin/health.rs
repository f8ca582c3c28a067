//! Whether this node is well: its engine answers.

use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use replication::VolumeId;
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
    // Of a volume that there is not: the answer is none, and it is an answer.
    match timeout(ANSWER, state.node().look(VolumeId(0))).await {
        Ok(_) => Ok(Json(json!({ "ok": true })).into_response()),
        Err(_) => Ok((StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "ok": false }))).into_response()),
    }
}
