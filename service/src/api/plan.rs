//! `/v2/plan/{host}`: what would be done if the host died now, gate by gate, without doing it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use failover::{FencePlan, InstancePlan, Method, plan};
use serde::Serialize;
use serde_json::{Value, json};

use super::ask::Named;
use super::hosts::find;
use super::incidents::{GateAnswer, gate};
use super::{Api, ApiError};
use crate::desk::OrderError;

#[derive(Debug, Serialize)]
struct PlanAnswer<'a> {
    host: &'a str,
    would: &'a str,
    held: bool,
    gates: Vec<GateAnswer<'a>>,
    fence: Vec<FenceAnswer<'a>>,
    instances: Vec<InstanceAnswer<'a>>,
}

#[derive(Debug, Serialize)]
struct FenceAnswer<'a> {
    method: &'static str,
    ready: bool,
    why: &'a str,
}

#[derive(Debug, Serialize)]
struct InstanceAnswer<'a> {
    instance: String,
    name: &'a str,
    would: &'static str,
    why: Option<&'a str>,
}

pub(super) async fn show(State(api): State<Api>, Named(name): Named) -> Result<Json<Value>, ApiError> {
    let host = find(&api.desk.board(), &name)?;
    let instances = api.desk.instances_of(host.clone()).await.map_err(|error| not_looked_up(&name, error))?;
    let board = api.desk.board();
    let mut seen = board.seen.clone();
    seen.instances.insert(host.clone(), instances);
    let plan = plan(board.now, &seen, &board.ledger, &board.policy, &host)
        .ok_or_else(|| ApiError::not_found(format!("Nova no longer lists a compute service of {host}")))?;
    let plan = PlanAnswer {
        host: &host.name,
        would: &plan.would,
        held: plan.held,
        gates: plan.gates.iter().map(gate).collect(),
        fence: plan.fence.iter().map(fence).collect(),
        instances: plan.instances.iter().map(instance).collect(),
    };
    Ok(Json(json!({ "plan": plan })))
}

fn not_looked_up(name: &str, error: OrderError) -> ApiError {
    match error {
        OrderError::Refused(why) => {
            let message = format!("the instances of {name} could not be looked up: {why}");
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message)
        }
        OrderError::NotRecorded | OrderError::Closing => error.into(),
    }
}

fn fence(fence: &FencePlan) -> FenceAnswer<'_> {
    let method = match fence.method {
        Method::Redfish => "redfish",
        Method::Manual => "manual",
    };
    FenceAnswer { method, ready: fence.ready, why: &fence.why }
}

fn instance(instance: &InstancePlan) -> InstanceAnswer<'_> {
    InstanceAnswer {
        instance: instance.instance.to_string(),
        name: &instance.name,
        would: if instance.stays.is_none() { "evacuate" } else { "leave" },
        why: instance.stays.as_deref(),
    }
}
