//! Known fences: somebody's word that one boot of a node writes no more, passed on to every node, and told to every volume that the node is a member of.
//!
//! ```text
//!            PUT                     heard with another boot, or with this one after all; DELETE
//! (alive) ─────────▶ said to be dead ───────────────────────────────────────────────────────────▶ (alive)
//! ```

mod book;

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{Method, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use chrono::Utc;
use futures::future::join_all;
use replication::{BootId, VolumeId};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

pub use self::book::{Book, BookError, Dead};
use super::caller::Caller;
use super::error::{Body, Code, InPath, Problem};
use super::state::State;
use crate::identity::Action;

/// How long a node that is said to be dead may take to contradict. Longer, and known fences would speed nothing up.
const CONTRADICTION: Duration = Duration::from_millis(200);

/// How long each other node may take to learn of it.
const PASS_ON: Duration = Duration::from_secs(2);

/// How often those said to be dead are listened for, and volumes are told again.
const EVERY: Duration = Duration::from_secs(1);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/nodes/{name}/dead", get(show).put(declare).delete(take_back))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Declaration {
    boot_id: Uuid,
    why: String,
}

async fn show(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> Result<Json<Dead>, Problem> {
    caller.may(Action::Read)?;
    known(&state, &name)?;
    state.dead().get(&name).map(Json).ok_or_else(|| Problem::not_found(format!("nobody says that {name} is dead")))
}

async fn declare(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(name): InPath<String>,
    Body(said): Body<Declaration>,
) -> Result<Json<Dead>, Problem> {
    caller.may(Action::DeclareDead)?;
    known(&state, &name)?;
    let boot = said.boot_id;
    if name == state.name() {
        return Err(alive(&name));
    }
    match hear(&state, &name).await {
        Heard::Boot(heard) if heard == boot => return Err(alive(&name)),
        Heard::Something => return Err(alive(&name)),
        Heard::Boot(_) | Heard::Nothing => {}
    }
    // Asked for again it is the same word, and whose it was and when stays as it was said first.
    let dead = state.dead().get(&name).filter(|word| word.boot_id == boot);
    let dead = dead.unwrap_or_else(|| Dead {
        node: name,
        boot_id: boot,
        why: said.why,
        by: caller.to_string(),
        at: Utc::now(),
    });
    state.dead().put(dead.clone())?;
    tracing::warn!(node = dead.node, boot_id = %boot, by = dead.by, why = dead.why, "said to be dead: promotions do not wait for it");
    tell_all(&state, &dead.node, BootId(boot.as_u128()));
    if !caller.is_local() {
        pass_on(&state, &caller, &dead).await?;
    }
    Ok(Json(dead))
}

/// Each node hears for itself whether it lives: one of them may still reach it.
async fn pass_on(state: &State, caller: &Caller, dead: &Dead) -> Result<(), Problem> {
    let path = format!("/v1/nodes/{}/dead", dead.node);
    let body = json!({ "boot_id": dead.boot_id, "why": dead.why });
    let others: Vec<String> = state.others().into_iter().filter(|other| *other != dead.node).collect();
    let told = others.iter().map(|other| state.ask(other, Method::PUT, &path, Some(body.clone()), caller, PASS_ON));
    for (other, told) in others.iter().zip(join_all(told).await) {
        match told {
            Err(problem) if problem.code == Code::Refused => {
                withdraw(state, dead, &format!("{other} hears it"))?;
                return Err(problem);
            }
            Err(problem) => {
                tracing::warn!(node = dead.node, to = other, why = problem.message, "its death was not passed on")
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

async fn take_back(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(name): InPath<String>,
) -> Result<StatusCode, Problem> {
    caller.may(Action::DeclareDead)?;
    known(&state, &name)?;
    if let Some(dead) = state.dead().get(&name) {
        withdraw(&state, &dead, &format!("{caller} takes it back"))?;
    }
    if !caller.is_local() {
        let path = format!("/v1/nodes/{name}/dead");
        let others: Vec<String> = state.others().into_iter().filter(|other| *other != name).collect();
        let told = others.iter().map(|other| state.ask(other, Method::DELETE, &path, None, &caller, PASS_ON));
        let missed = others.iter().zip(join_all(told).await).find(|(_, told)| told.is_err());
        if let Some((other, _)) = missed {
            return Err(Problem::unreachable(format!(
                "{other} was not reached, and may still believe that {name} is dead"
            ))
            .remedy("ask again once it is reached"));
        }
    }
    Ok(StatusCode::NO_CONTENT)
}

/// For as long as it is polled: those said to be dead are listened for, and volumes are told again, which may have been opened since.
pub(super) async fn watch(state: State) {
    let mut said = state.node().said();
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            said = said.recv() => match said {
                Ok(said) => { tell_of_all(&state, said.volume); continue }
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
        for dead in state.dead().all() {
            look_again(&state, &dead).await;
        }
    }
}

async fn look_again(state: &State, dead: &Dead) {
    let why = match hear(state, &dead.node).await {
        Heard::Nothing => return tell_all(state, &dead.node, BootId(dead.boot_id.as_u128())),
        Heard::Something => return,
        Heard::Boot(boot) if boot == dead.boot_id => {
            "it answers with that very boot: whoever said so was wrong".to_owned()
        }
        Heard::Boot(boot) => format!("it answers with another boot, {boot}"),
    };
    if let Err(problem) = withdraw(state, dead, &why) {
        tracing::error!(node = dead.node, why = problem.message, "a word that lapsed cannot be taken back");
    }
}

/// A boot that no node has: the fence is lifted.
const NO_BOOT: BootId = BootId(0);

fn withdraw(state: &State, dead: &Dead, why: &str) -> Result<(), Problem> {
    if state.dead().remove(&dead.node, Some(dead.boot_id))? {
        tracing::warn!(node = dead.node, boot_id = %dead.boot_id, by = dead.by, why, "no longer said to be dead");
        tell_all(state, &dead.node, NO_BOOT);
    }
    Ok(())
}

/// Every volume that this node has a part in, and the dead one too.
fn tell_all(state: &State, name: &str, boot: BootId) {
    for definition in state.definitions() {
        if let Some(place) = definition.place_of(name) {
            state.node().fenced(definition.volume(), place, boot);
        }
    }
}

fn tell_of_all(state: &State, volume: VolumeId) {
    let Some(definition) = state.definitions().into_iter().find(|definition| definition.volume() == volume) else {
        return;
    };
    for dead in state.dead().all() {
        if let Some(place) = definition.place_of(&dead.node) {
            state.node().fenced(volume, place, BootId(dead.boot_id.as_u128()));
        }
    }
}

/// What another node lets hear of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    Nothing,
    Boot(Uuid),
    /// It answers, and not what it should: it lives.
    Something,
}

async fn hear(state: &State, name: &str) -> Heard {
    let caller = Caller::this_node(state.name());
    match state.ask(name, Method::GET, "/v1", None, &caller, CONTRADICTION).await {
        Ok(answer) => {
            answer["boot_id"].as_str().and_then(|boot| boot.parse().ok()).map_or(Heard::Something, Heard::Boot)
        }
        Err(problem) if problem.code == Code::Unreachable => Heard::Nothing,
        Err(_) => Heard::Something,
    }
}

fn known(state: &State, name: &str) -> Result<(), Problem> {
    let is_known = name == state.name() || state.others().iter().any(|other| other == name);
    is_known.then_some(()).ok_or_else(|| {
        Problem::not_found(format!("there is no node {name:?}"))
            .remedy("GET /v1/nodes lists those of the configuration")
    })
}

fn alive(name: &str) -> Problem {
    Problem::refused(format!("{name} is alive: it answers, and not with another boot"))
        .remedy("switch it off first; say that it is dead only once its power is proved to be off")
}
