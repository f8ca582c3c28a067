//! The API's own description, OpenAPI 3.1: `openapi.json` beside this file, which a test holds against the routes and their answers.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::caller::Caller;
use super::error::Problem;
use crate::identity::Action;

/// As it is served.
pub const DOCUMENT: &str = include_str!("openapi.json");

pub(super) async fn show(caller: Caller) -> Result<Response, Problem> {
    caller.may(Action::Read)?;
    Ok(([(CONTENT_TYPE, "application/json")], DOCUMENT).into_response())
}
