//! Hosts' rights to use a volume: given and revoked by the Primary that serves, and known to every replica in sync before it is answered.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use replication::{Change, Order, Secret};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::body::Attach;
use super::caller::Caller;
use super::error::{Body, Code, InPath, Problem};
use super::orders::{here, order};
use super::report::Attachment;
use super::state::State;
use super::survey::{Whole, find};
use super::view;
use crate::catalog::{Definition, Phase};
use crate::identity::{Action, Name};

/// As an order, and the way to another node and back.
const LIMIT: Duration = Duration::from_secs(65);

/// RFC 7143, section 4.2.7.2.
const INITIATOR_BYTES: usize = 223;

/// Of a user or a secret of CHAP.
const CHAP_BYTES: usize = 128;

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/v1/volumes/{volume}/attachments", get(list))
        .route("/v1/volumes/{volume}/attachments/{id}", put(attach).delete(revoke))
}

#[derive(Debug, Serialize)]
struct Attachments {
    attachments: Vec<Attachment>,
}

async fn list(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
) -> Result<Json<Attachments>, Problem> {
    caller.may(Action::Read)?;
    let whole = find(&state, &caller, &key).await?;
    Ok(Json(Attachments { attachments: view::attachments(&whole) }))
}

async fn attach(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath((key, id)): InPath<(String, Uuid)>,
    Body(wish): Body<Attach>,
) -> Result<Json<Value>, Problem> {
    caller.may(Action::Attach)?;
    check(&wish)?;
    if caller.is_local() {
        let attachment = attach_here(&state, &here(&state, &key)?, id, &wish).await?;
        return Ok(Json(serde_json::to_value(attachment).expect("attachments are JSON")));
    }
    let whole = find(&state, &caller, &key).await?;
    let definition = whole.ready()?;
    let primary = primary(&whole)?;
    tracing::info!(volume = %whole.uuid, name = definition.name, host = wish.host, attachment = %id, by = %caller, "is to be attached");
    if primary == state.name() {
        let attachment = attach_here(&state, definition, id, &wish).await?;
        return Ok(Json(serde_json::to_value(attachment).expect("attachments are JSON")));
    }
    let body = json!({
        "host": wish.host, "initiator": wish.initiator, "read_only": wish.read_only, "chap": wish.chap,
    });
    state.ask(primary, Method::PUT, &path(&whole, id), Some(body), &caller, LIMIT).await.map(Json)
}

fn check(wish: &Attach) -> Result<(), Problem> {
    if let Err(error) = wish.host.parse::<Name>() {
        return Err(Problem::invalid(error.to_string()));
    }
    let initiator = wish.initiator.as_deref().unwrap_or_default();
    if initiator.len() > INITIATOR_BYTES || !initiator.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::invalid(format!("{initiator:?} is no iSCSI name")));
    }
    let Some(chap) = &wish.chap else { return Ok(()) };
    if initiator.is_empty() {
        return Err(Problem::invalid("chap is for an initiator, and none is named"));
    }
    let pairs = [(Some(&chap.user), Some(&chap.secret)), (chap.target_user.as_ref(), chap.target_secret.as_ref())];
    for (user, secret) in pairs {
        match (user, secret) {
            (None, None) => {}
            (Some(user), Some(secret)) => {
                let is_text = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
                if !is_text(user) || user.len() > CHAP_BYTES {
                    return Err(Problem::invalid(format!("{user:?} is no user for CHAP")));
                }
                if !is_text(secret) || !(iscsi::MIN_SECRET_BYTES..=CHAP_BYTES).contains(&secret.len()) {
                    let (least, most) = (iscsi::MIN_SECRET_BYTES, CHAP_BYTES);
                    return Err(Problem::invalid(format!(
                        "a secret of CHAP has {least} to {most} printable characters"
                    )));
                }
            }
            _ => return Err(Problem::invalid("chap.target_user and chap.target_secret come together")),
        }
    }
    // RFC 7143, section 9.2.1: or whoever knows one could play the other.
    match chap.target_secret.as_ref() == Some(&chap.secret) {
        true => Err(Problem::invalid("the secrets of the initiator and of the target must differ")),
        false => Ok(()),
    }
}

/// The node that can.
fn primary(whole: &Whole) -> Result<&str, Problem> {
    let primary = whole.primary().map(|(primary, _)| primary);
    primary.ok_or_else(|| {
        let why = view::why(whole).unwrap_or_default();
        Problem::held(format!("{} has no Primary that is reached: {why}", whole.name())).remedy("promote a node first")
    })
}

fn path(whole: &Whole, id: Uuid) -> String {
    format!("/v1/volumes/{}/attachments/{id}", whole.uuid)
}

async fn attach_here(state: &State, definition: &Definition, id: Uuid, wish: &Attach) -> Result<Attachment, Problem> {
    if definition.state != Phase::Ready {
        return Err(Problem::held(format!("{} is being created or deleted", definition.name)));
    }
    // A node that has just started does not know the list yet: nobody is attached before it does.
    let known = match state.watcher().known() {
        Some(known) => known,
        None => state.watcher().refresh().await?,
    };
    if known.list.iter().any(|fence| fence.host == wish.host) {
        return Err(Problem::refused(format!("{} is fenced", wish.host))
            .remedy("lift the fence first: `tandem node unfence-host`"));
    }
    if let Some(there) = look(state, definition, id).await {
        fits(&there, wish)?;
    }
    let wanted = replication::Attachment {
        client: 0,
        id: id.as_u128(),
        host: wish.host.clone(),
        initiator: wish.initiator.clone().unwrap_or_default(),
        read_only: wish.read_only,
        chap: chap(id, wish),
        epoch: 0,
        revoked: false,
    };
    order(state, definition, Order::Control(Change::Attach(wanted))).await?;
    let there = look(state, definition, id).await;
    let there = there.ok_or_else(|| Problem::held("it was attached, and revoked at once"))?;
    fits(&there, wish).map(|()| there)
}

/// What the wish says, or one that nobody knows yet. Who asks again is answered with the first.
fn chap(id: Uuid, wish: &Attach) -> Option<replication::Chap> {
    wish.initiator.as_ref().filter(|initiator| !initiator.is_empty())?;
    let Some(chap) = &wish.chap else {
        let secret = Secret(Uuid::new_v4().simple().to_string());
        return Some(replication::Chap { user: id.to_string(), secret, target: None });
    };
    let target = chap.target_user.clone().zip(chap.target_secret.clone().map(Secret));
    Some(replication::Chap { user: chap.user.clone(), secret: Secret(chap.secret.clone()), target })
}

/// # Errors
/// Under this id another host was attached, or it was revoked.
fn fits(there: &Attachment, wish: &Attach) -> Result<(), Problem> {
    let conflict = |message: String| Problem::new(Code::Conflict, message).remedy("use another id");
    if there.revoked {
        return Err(conflict(format!("attachment {} was revoked", there.id)));
    }
    let initiator = wish.initiator.as_deref().filter(|initiator| !initiator.is_empty());
    let is_same_chap = wish.chap.is_none() || wish.chap == there.chap;
    let is_same =
        there.host == wish.host && there.initiator.as_deref() == initiator && there.read_only == wish.read_only;
    match is_same && is_same_chap {
        true => Ok(()),
        false => Err(conflict(format!("attachment {} is another one, of {}", there.id, there.host))),
    }
}

async fn look(state: &State, definition: &Definition, id: Uuid) -> Option<Attachment> {
    let seen = state.node().look(definition.volume()).await?;
    let found = seen.control.attachments.iter().find(|attachment| attachment.id == id.as_u128());
    found.map(|found| Attachment::with_secrets(definition.uuid, found))
}

async fn revoke(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath((key, id)): InPath<(String, Uuid)>,
) -> Result<Response, Problem> {
    caller.may(Action::Attach)?;
    if caller.is_local() {
        revoke_here(&state, &here(&state, &key)?, id).await?;
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let whole = find(&state, &caller, &key).await?;
    let definition = whole.ready()?;
    let primary = primary(&whole)?;
    tracing::info!(volume = %whole.uuid, name = definition.name, attachment = %id, by = %caller, "is to be revoked");
    match primary == state.name() {
        true => revoke_here(&state, definition, id).await?,
        false => state.ask(primary, Method::DELETE, &path(&whole, id), None, &caller, LIMIT).await.map(drop)?,
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Answered once nothing of it is under way, on any replica in sync.
async fn revoke_here(state: &State, definition: &Definition, id: Uuid) -> Result<(), Problem> {
    order(state, definition, Order::Control(Change::Revoke { id: id.as_u128() })).await
}
