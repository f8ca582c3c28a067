//! What a person orders: arm, disarm, release, fence. Each is recorded with who gave it before anything comes of it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use failover::Order;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::{Body, Named, reason};
use super::caller::Caller;
use super::hosts::find;
use super::incidents::{named, whole};
use super::{Api, ApiError};
use crate::store::incident_uuid;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArmBody {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ReasonBody {
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FenceBody {
    method: String,
    reason: String,
}

type Answer = Result<Json<Value>, ApiError>;

pub(super) async fn arm(State(api): State<Api>, Caller(by): Caller, Body(ArmBody {}): Body<ArmBody>) -> Answer {
    api.desk.order(Order::Arm, by, "armed".into()).await?;
    Ok(armed(&api))
}

pub(super) async fn disarm(State(api): State<Api>, Caller(by): Caller, Body(body): Body<ReasonBody>) -> Answer {
    api.desk.order(Order::Disarm, by, reason(&body.reason)?.into()).await?;
    Ok(armed(&api))
}

fn armed(api: &Api) -> Json<Value> {
    Json(json!({ "armed": api.desk.board().ledger.armed }))
}

pub(super) async fn release(
    State(api): State<Api>,
    Caller(by): Caller,
    Named(name): Named,
    Body(body): Body<ReasonBody>,
) -> Answer {
    let why: Arc<str> = reason(&body.reason)?.into();
    let id = named(&api, &name).await?.id;
    let key = incident_uuid(&id);
    api.desk.order(Order::Release(id), by, why).await?;
    whole(&api, key).await
}

pub(super) async fn fence(
    State(api): State<Api>,
    Caller(by): Caller,
    Named(name): Named,
    Body(body): Body<FenceBody>,
) -> Answer {
    if body.method != "manual" {
        let message = format!("method: manual, not {:?}; other methods are tandem-ha's own to choose", body.method);
        return Err(ApiError::bad_request(message));
    }
    let why: Arc<str> = reason(&body.reason)?.into();
    let host = find(&api.desk.board(), &name)?;
    api.desk.order(Order::ManualFence(host.clone()), by, why).await?;
    let board = api.desk.board();
    let last = board.ledger.incidents_of(&host).last();
    let id = last.map(|incident| incident_uuid(&incident.id));
    whole(&api, id.ok_or_else(|| ApiError::conflict(format!("the incident of {host} is over")))?).await
}
