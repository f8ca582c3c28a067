//! The steps of which creating, deleting and resyncing a volume are made, each on one node: safe to repeat, and to be left after any of them.
//!
//! ```text
//!            files made          record made, opened        closed               record gone, files gone
//! (nothing) ───────────▶ creating ─────────────────▶ ready ────────▶ deleting ─────────────────────────▶ (nothing)
//! ```
//! A definition never goes back. What comes late finds that it has been overtaken, and changes nothing.

use std::path::PathBuf;
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::{Method, StatusCode};
use axum::routing::put;
use axum::{Json, Router};
use futures::future::join_all;
use replication::{Node as Place, Record};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::caller::Caller;
use super::error::{Body, Code, InPath, Problem};
use super::report::{RoleWord, trouble};
use super::state::State;
use crate::catalog::{CatalogError, Definition, Phase, story};
use crate::disk::FileError;
use crate::engine::VolumeError;
use crate::identity::Action;

/// How long another node may take for one: a replica is closed within 10 s.
const LIMIT: Duration = Duration::from_secs(20);

/// A process that was killed keeps its files while the kernel ends what it had begun.
const PREDECESSOR: Duration = Duration::from_secs(60);
const TRY_AGAIN: Duration = Duration::from_millis(100);

/// How long a Primary may take to go on without a replica that is about to be copied anew.
const LEFT_OUT: Duration = Duration::from_secs(20);

pub(super) fn routes() -> Router<State> {
    Router::new().route("/v1/volumes/{volume}/definition", put(define).delete(erase))
}

async fn define(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(uuid): InPath<Uuid>,
    Body(definition): Body<Definition>,
) -> Result<Json<Value>, Problem> {
    between_nodes(&caller)?;
    let action = match definition.state {
        Phase::Creating | Phase::Ready => Action::CreateVolume,
        Phase::Deleting => Action::DeleteVolume,
    };
    caller.may(action)?;
    if definition.uuid != uuid {
        return Err(Problem::invalid(format!("the definition is that of {}", definition.uuid)));
    }
    definition.check().map_err(|misfit| Problem::invalid(misfit.to_string()))?;
    define_here(&state, definition).await?;
    Ok(Json(Value::Null))
}

async fn erase(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(uuid): InPath<Uuid>,
) -> Result<StatusCode, Problem> {
    between_nodes(&caller)?;
    caller.may(Action::DeleteVolume)?;
    erase_here(&state, uuid).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// # Errors
/// No node passed it on.
fn between_nodes(caller: &Caller) -> Result<(), Problem> {
    match caller.is_local() {
        true => Ok(()),
        false => Err(Problem::forbidden("this is a step that nodes ask of each other")
            .remedy("create or delete the whole volume under /v1/volumes")),
    }
}

/// One step, on every node that has a replica, at once.
///
/// # Errors
/// The first of theirs, with the node's name.
pub(super) async fn everywhere(state: &State, caller: &Caller, definition: &Definition) -> Result<(), Problem> {
    let body = serde_json::to_value(definition).expect("definitions are JSON");
    let path = path(definition.uuid);
    let steps = definition.replicas.iter().map(|replica| async {
        let node = &replica.node;
        let done = match node == state.name() {
            true => define_here(state, definition.clone()).await,
            false => state.ask(node, Method::PUT, &path, Some(body.clone()), caller, LIMIT).await.map(drop),
        };
        done.map_err(|problem| problem.within(node))
    });
    join_all(steps).await.into_iter().collect()
}

/// The files and the definition go, on every node that has a replica.
///
/// # Errors
/// As [`everywhere`].
pub(super) async fn erase_everywhere(state: &State, caller: &Caller, definition: &Definition) -> Result<(), Problem> {
    let path = path(definition.uuid);
    let steps = definition.replicas.iter().map(|replica| async {
        let node = &replica.node;
        let done = match node == state.name() {
            true => erase_here(state, definition.uuid).await,
            false => state.ask(node, Method::DELETE, &path, None, caller, LIMIT).await.map(drop),
        };
        done.map_err(|problem| problem.within(node))
    });
    join_all(steps).await.into_iter().collect()
}

fn path(uuid: Uuid) -> String {
    format!("/v1/volumes/{uuid}/definition")
}

async fn define_here(state: &State, wanted: Definition) -> Result<(), Problem> {
    let _step = state.catalog().step(wanted.uuid).await;
    let entry = state.catalog().get(wanted.uuid);
    let Some(known) = entry.as_ref().and_then(|entry| entry.definition.clone()) else {
        return match (wanted.state, entry) {
            (Phase::Creating, None) => make(state, &wanted).await,
            (Phase::Creating, Some(entry)) => Err(damaged(entry.trouble)),
            (Phase::Ready, _) => Err(Problem::held("it was not begun here, or was deleted meanwhile")
                .remedy("create it again, which begins anew")),
            (Phase::Deleting, None) => Ok(()),
            (Phase::Deleting, Some(_)) => close(state, &wanted).await,
        };
    };
    // Two may create it at once. Nothing is in what is still being created, so the later one's takes its place.
    let is_other = !known.is_same(&wanted);
    if is_other && known.state != Phase::Creating {
        return Err(Problem::new(
            Code::Conflict,
            format!("{} has another creation under the uuid {}", known.name, wanted.uuid),
        )
        .remedy("ask again with what it has; or use another uuid"));
    }
    match (known.state, wanted.state) {
        (Phase::Deleting, Phase::Creating | Phase::Ready) => {
            Err(Problem::held("it is being deleted").remedy("delete it again, which goes on with that"))
        }
        (Phase::Ready, Phase::Creating) => Ok(()),
        (Phase::Creating, Phase::Creating) => make(state, &wanted).await,
        (Phase::Creating | Phase::Ready, Phase::Ready) => {
            if is_other {
                // The arbiter has the record of this one.
                make(state, &wanted).await?;
            }
            keep(state, &wanted).await?;
            open(state, &wanted).await.map_err(|error| Problem::refused(trouble(&error)))
        }
        (Phase::Creating | Phase::Ready | Phase::Deleting, Phase::Deleting) => {
            close(state, &known.in_phase(Phase::Deleting)).await
        }
    }
}

async fn close(state: &State, deleting: &Definition) -> Result<(), Problem> {
    not_in_use(state, deleting).await?;
    keep(state, deleting).await?;
    state.node().close(deleting.volume()).await;
    Ok(())
}

fn damaged(trouble: Option<String>) -> Problem {
    Problem::refused(trouble.unwrap_or_default()).remedy("use another uuid; or put the file right")
}

/// Nothing was ever written into files of a volume that is being created: what an earlier attempt left is made anew.
async fn make(state: &State, definition: &Definition) -> Result<(), Problem> {
    let config = state.volume_config(definition).ok_or_else(|| no_pool(state, definition))?;
    let left = state.catalog().get(definition.uuid).map(|entry| entry.pool);
    let is_first = left.is_none();
    if left.as_ref().is_some_and(|pool| *pool != config.pool) {
        forget(state, definition.uuid).await?;
    }
    keep(state, &definition.in_phase(Phase::Creating)).await?;
    let (node, disk) = (state.node().clone(), definition.disks()[&config.me]);
    let record = definition.record();
    let made = blocking(move || {
        if let Some(pool) = left {
            node.remove(&pool, config.volume)?;
        }
        node.create(&config, disk, &record)
    });
    let made = made.await.map_err(|error| Problem::refused(trouble(&error)));
    if made.is_err() && is_first {
        // Files that were there before are not ours to replace at the next attempt.
        forget(state, definition.uuid).await?;
    }
    made
}

fn no_pool(state: &State, definition: &Definition) -> Problem {
    let pool = definition.replica_of(state.name()).map_or("", |replica| replica.pool.as_str());
    let pools: Vec<&str> = state.pools().keys().map(String::as_str).collect();
    Problem::invalid(format!("there is no pool {pool:?} on {}", state.name()))
        .remedy(format!("its pools are {}", pools.join(", ")))
}

/// A client that came in since the coordinator looked stays.
pub(super) async fn not_in_use(state: &State, definition: &Definition) -> Result<(), Problem> {
    let Some(seen) = state.node().look(definition.volume()).await else { return Ok(()) };
    let attached = seen.control.attachments.iter().find(|it| !it.revoked);
    match (seen.clients, attached) {
        (0, None) => Ok(()),
        (0, Some(attached)) => Err(attached_to(&definition.name, &attached.host)),
        (clients, _) => Err(open_by(&definition.name, clients, state.name())),
    }
}

pub(super) fn attached_to(name: &str, host: &str) -> Problem {
    Problem::new(Code::InUse, format!("{name} is attached to {host}")).remedy("revoke its attachments first")
}

pub(super) fn open_by(name: &str, clients: usize, node: &str) -> Problem {
    Problem::new(Code::InUse, format!("{clients} clients have {name} open on {node}")).remedy("stop them first")
}

async fn erase_here(state: &State, uuid: Uuid) -> Result<(), Problem> {
    let _step = state.catalog().step(uuid).await;
    let Some(entry) = state.catalog().get(uuid) else { return Ok(()) };
    if entry.definition.is_some_and(|definition| definition.state != Phase::Deleting) {
        return Err(Problem::held("it is not being deleted"));
    }
    let (node, volume) = (state.node().clone(), replication::VolumeId(uuid.as_u128()));
    let removed = blocking(move || node.remove(&entry.pool, volume)).await;
    removed.map_err(|error| Problem::refused(trouble(&error)))?;
    forget(state, uuid).await
}

/// This node's replica throws its data away; its peers copy it anew. Files that are missing or damaged are made again.
pub(super) async fn resync_here(state: &State, definition: &Definition) -> Result<(), Problem> {
    let _step = state.catalog().step(definition.uuid).await;
    let entry = state.catalog().get(definition.uuid);
    if entry.and_then(|entry| entry.definition).is_none_or(|known| known != *definition) {
        return Err(Problem::held(format!("{} changes at this moment", definition.name)));
    }
    let volume = definition.volume();
    let role = state.node().look(volume).await.map_or(RoleWord::Unknown, |seen| seen.status.role.into());
    if matches!(role, RoleWord::Primary | RoleWord::Promoting) {
        return Err(
            Problem::refused(format!("{} is Primary here", definition.name)).remedy("promote another node first")
        );
    }
    let config = state.volume_config(definition).ok_or_else(|| no_pool(state, definition))?;
    state.node().close(volume).await;
    let record = match left_out(state, definition, config.me).await {
        Ok(record) => record,
        Err(problem) => {
            // It was open before, or is in trouble as it was.
            let _ = open(state, definition).await;
            return Err(problem);
        }
    };
    let node = state.node().clone();
    let made = blocking(move || {
        node.remove(&config.pool, volume)?;
        node.create_blank(&config, &record)
    });
    let made = match made.await {
        Ok(()) => open(state, definition).await,
        failed => failed,
    };
    made.map_err(|error| {
        state.catalog().set_trouble(definition.uuid, Some(trouble(&error)));
        Problem::refused(trouble(&error)).remedy("ask again, once that is put right")
    })
}

/// The record, once it counts on this replica no more. Before that the data here may be the last there is: the Primary may be lost, or may be deposed by
/// a promotion of this node that nobody knows the end of.
async fn left_out(state: &State, definition: &Definition, me: Place) -> Result<Record, Problem> {
    let until = Instant::now() + LEFT_OUT;
    loop {
        let (_, record) = state.register().read(definition.volume()).await?;
        let record = record
            .ok_or_else(|| Problem::held("the arbiter has no record of it").remedy("see `tandem arbiter status`"))?;
        if record.disk(me).is_none() {
            return Ok(record);
        }
        if Instant::now() >= until {
            let name = &definition.name;
            return Err(Problem::held(format!("the Primary of {name} does not go on without {}", state.name()))
                .remedy("its data was not thrown away; ask again once the Primary serves"));
        }
        sleep(TRY_AGAIN).await;
    }
}

/// Takes this node's replica into service. One that is open is as good.
async fn open(state: &State, definition: &Definition) -> Result<(), VolumeError> {
    let pool = definition.replica_of(state.name()).map_or("", |replica| replica.pool.as_str());
    let config = state.volume_config(definition).ok_or_else(|| {
        let path = PathBuf::from(format!("[pools.{pool}]"));
        VolumeError::File(FileError::Missing { path })
    })?;
    let opened = match state.node().look(config.volume).await {
        Some(_) => Ok(()),
        None => state.node().open(config).await,
    };
    state.catalog().set_trouble(definition.uuid, opened.as_ref().err().map(trouble));
    state.watcher().wake();
    opened
}

/// Opens every volume of this node that is ready; as the daemon starts. What cannot be opened is trouble for itself alone; files that a predecessor
/// still holds are tried again for a while, in the background.
pub async fn open_all(state: &State) {
    let ready = state.catalog().entries().into_iter().filter(|entry| entry.trouble.is_none());
    let ready = ready.filter_map(|entry| entry.definition).filter(|definition| definition.state == Phase::Ready);
    join_all(ready.map(|definition| async {
        let _step = state.catalog().step(definition.uuid).await;
        match open(state, &definition).await {
            Ok(()) => {}
            Err(VolumeError::File(FileError::InUse { .. })) => {
                tokio::spawn(open_later(state.clone(), definition));
            }
            Err(error) => {
                tracing::error!(volume = %definition.uuid, name = definition.name, "not served: {}", trouble(&error))
            }
        }
    }))
    .await;
}

async fn open_later(state: State, definition: Definition) {
    let until = Instant::now() + PREDECESSOR;
    loop {
        sleep(TRY_AGAIN).await;
        let _step = state.catalog().step(definition.uuid).await;
        // It may have been deleted meanwhile.
        if state.catalog().get(definition.uuid).and_then(|entry| entry.definition).as_ref() != Some(&definition) {
            return;
        }
        match open(&state, &definition).await {
            Ok(()) => return,
            Err(VolumeError::File(FileError::InUse { .. })) if Instant::now() < until => {}
            Err(error) => {
                tracing::error!(volume = %definition.uuid, name = definition.name, "not served: {}", trouble(&error));
                return;
            }
        }
    }
}

async fn keep(state: &State, definition: &Definition) -> Result<(), Problem> {
    let (catalog, definition) = (state.catalog().clone(), definition.clone());
    on_disk(move || catalog.put(&definition)).await
}

async fn forget(state: &State, uuid: Uuid) -> Result<(), Problem> {
    let catalog = state.catalog().clone();
    on_disk(move || catalog.remove(uuid)).await
}

async fn on_disk(work: impl FnOnce() -> Result<(), CatalogError> + Send + 'static) -> Result<(), Problem> {
    let done = spawn_blocking(work).await.map_err(|_| Problem::internal("a task ended before its work"))?;
    done.map_err(|error| match &error {
        CatalogError::NameTaken { .. } => {
            Problem::new(Code::Conflict, error.to_string()).remedy("use another name; or delete that volume")
        }
        _ => Problem::refused(story(&error)),
    })
}

async fn blocking(work: impl FnOnce() -> Result<(), VolumeError> + Send + 'static) -> Result<(), VolumeError> {
    spawn_blocking(work).await.unwrap_or(Err(VolumeError::Ended))
}
