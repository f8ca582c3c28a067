//! Whether we see: what the gate *we can see* would say, and whether anybody looks at all.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use failover::{Gate, Host, HostSeen, NovaSeen, PowerSeen, Time, plan};
use serde_json::json;

use super::Api;
use crate::desk::Board;

/// The conductor looks several times a second; standing still for so long, it hangs.
const STILL: Duration = Duration::from_secs(10);

/// When the board was seen to change last.
#[derive(Debug, Default)]
pub(super) struct Pulse(Mutex<Option<(Time, Instant)>>);

impl Pulse {
    /// How long the board has shown the same moment, as far as anybody asked.
    fn still_for(&self, shown: Time) -> Duration {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some((at, since)) if at == shown => since.elapsed(),
            Some(_) | None => {
                *last = Some((shown, Instant::now()));
                Duration::ZERO
            }
        }
    }
}

/// The reason, if we do not see.
pub(super) fn sees(api: &Api, board: &Board) -> Result<(), String> {
    let still = api.pulse.still_for(board.now);
    if still > STILL {
        return Err(format!("nothing has been looked at or decided for {} s", still.as_secs()));
    }
    gate(board)
}

/// The gate is judged with a host. Before any is listed a stand-in shows what it would say.
fn gate(board: &Board) -> Result<(), String> {
    let judged = match board.seen.hosts.keys().next() {
        Some(host) => plan(board.now, &board.seen, &board.ledger, &board.policy, host),
        None => {
            let nobody = Host { service: 0, name: "".into() };
            let mut seen = board.seen.clone();
            seen.hosts.insert(nobody.clone(), unknown());
            plan(board.now, &seen, &board.ledger, &board.policy, &nobody)
        }
    };
    let verdicts = judged.map_or_else(Vec::new, |plan| plan.gates);
    match verdicts.into_iter().find(|verdict| verdict.gate == Gate::WeSee) {
        Some(verdict) if !verdict.passed => Err(verdict.why.to_string()),
        Some(_) | None => Ok(()),
    }
}

fn unknown() -> HostSeen {
    let (groups, channels, power) = (Vec::new(), Vec::new(), PowerSeen::default());
    HostSeen { groups, nova: NovaSeen::NoData, channels, boot: None, power, schedulable: None }
}

pub(super) async fn healthcheck(State(api): State<Api>) -> Response {
    match sees(&api, &api.desk.board()) {
        Ok(()) => Json(json!({ "status": "ok" })).into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "blind", "why": why }))).into_response(),
    }
}
