//! A new volume: where its replicas are to be, and the steps until it serves. Whoever is asked again goes on where the last one stopped.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use uuid::Uuid;

use super::body::{Create, Promoted, Replicas};
use super::caller::Caller;
use super::error::{Body, Code, Problem};
use super::orders;
use super::pools::{self, Pool};
use super::state::State;
use super::steps;
use super::survey::{Whole, find, survey};
use super::view::Volume;
use crate::arbiter::Outcome;
use crate::catalog::{
    Definition, MAX_REPLICAS, Misfit, Phase, ReplicaDefinition, check_name, check_size, default_pool, now,
};
use crate::identity::Action;

pub(super) async fn create(
    Shared(state): Shared<State>,
    caller: Caller,
    Body(wish): Body<Create>,
) -> Result<(StatusCode, Json<Volume>), Problem> {
    caller.may(Action::CreateVolume)?;
    check(&wish)?;
    let uuid = wish.uuid.unwrap_or_else(Uuid::new_v4);
    let known = known(&state, &caller, &wish, uuid).await?;
    let was_there = known.as_ref().is_some_and(|definition| definition.state == Phase::Ready);
    let definition = match known {
        Some(definition) => definition,
        None => chosen(&state, &caller, &wish, uuid).await?,
    };
    make(&state, &caller, &definition).await.map_err(|problem| to_be_continued(problem, &definition))?;
    let whole = find(&state, &caller, &uuid.to_string()).await?;
    let whole = match target(&state, &wish, &whole) {
        Some(node) => {
            let promoted = orders::promoted(&state, &caller, whole, &node?).await;
            promoted.map_err(|problem| problem.within(format!("{} is there, but not promoted", definition.name)))?
        }
        None => whole,
    };
    let status = if was_there { StatusCode::OK } else { StatusCode::CREATED };
    if !was_there {
        tracing::info!(volume = %uuid, name = definition.name, by = %caller, "created");
    }
    Ok((status, Json(Volume::from(&whole))))
}

fn check(wish: &Create) -> Result<(), Problem> {
    let misfit = |misfit: Misfit| Problem::invalid(misfit.to_string());
    check_name(&wish.name).map_err(misfit)?;
    check_size(wish.size_bytes).map_err(misfit)?;
    let count = count(&wish.replicas);
    if !(1..=MAX_REPLICAS).contains(&count) {
        return Err(misfit(Misfit::Count { count }));
    }
    if let Replicas::Nodes(nodes) = &wish.replicas
        && let Some(node) = nodes.iter().enumerate().find_map(|(at, node)| nodes[..at].contains(node).then_some(node))
    {
        return Err(Problem::invalid(format!("{node} is named twice")));
    }
    Ok(())
}

fn count(replicas: &Replicas) -> usize {
    match replicas {
        Replicas::Count(count) => *count,
        Replicas::Nodes(nodes) => nodes.len(),
    }
}

/// What an earlier request has begun, or brought to its end.
async fn known(state: &State, caller: &Caller, wish: &Create, uuid: Uuid) -> Result<Option<Definition>, Problem> {
    let named = survey(state, caller, Some(&wish.name)).await.volumes;
    if let Some(other) = named.iter().find(|whole| whole.uuid != uuid) {
        return Err(Problem::new(Code::Conflict, format!("{} is the name of volume {}", wish.name, other.uuid))
            .remedy("use another name, or that volume's uuid"));
    }
    if wish.uuid.is_none() {
        return Ok(None);
    }
    let Some(whole) = survey(state, caller, Some(&uuid.to_string())).await.volumes.pop() else { return Ok(None) };
    let definition = whole.definition()?;
    if definition.state == Phase::Deleting {
        return whole.ready().map(|ready| Some(ready.clone()));
    }
    match difference(wish, definition) {
        None => Ok(Some(definition.clone())),
        Some(what) => Err(Problem::new(Code::Conflict, format!("volume {uuid} is there, and its {what}"))
            .remedy("ask with what it has, or with another uuid")),
    }
}

fn difference(wish: &Create, there: &Definition) -> Option<String> {
    if wish.name != there.name {
        return Some(format!("name is {}", there.name));
    }
    if wish.size_bytes != there.size_bytes {
        return Some(format!("size is {} bytes", there.size_bytes));
    }
    if wish.durability.is_some_and(|durability| durability != there.durability) {
        return Some(format!("durability is {:?}", there.durability).to_lowercase());
    }
    let nodes: Vec<&str> = there.replicas.iter().map(|replica| replica.node.as_str()).collect();
    let fits = match &wish.replicas {
        Replicas::Count(count) => *count == nodes.len(),
        Replicas::Nodes(wanted) => {
            wanted.len() == nodes.len() && wanted.iter().all(|node| nodes.contains(&node.as_str()))
        }
    };
    (!fits).then(|| format!("replicas are on {}", nodes.join(", ")))
}

/// Where the replicas of a volume that is not there yet will be.
async fn chosen(state: &State, caller: &Caller, wish: &Create, uuid: Uuid) -> Result<Definition, Problem> {
    let everybody: Vec<String> = [state.name().to_owned()].into_iter().chain(state.others()).collect();
    if count(&wish.replicas) > everybody.len() {
        let (wanted, there) = (count(&wish.replicas), everybody.len());
        return Err(Problem::invalid(format!("{wanted} replicas need {wanted} nodes, and there are {there}")));
    }
    if let Replicas::Nodes(nodes) = &wish.replicas
        && let Some(stranger) = nodes.iter().find(|node| !everybody.contains(node))
    {
        return Err(Problem::invalid(format!("there is no node {stranger:?}"))
            .remedy(format!("the nodes are {}", everybody.join(", "))));
    }
    let pools = pools::all(state, caller).await;
    let places = match &wish.replicas {
        Replicas::Nodes(nodes) => nodes.iter().map(|node| on(&pools, wish, node)).collect::<Result<Vec<_>, _>>()?,
        Replicas::Count(count) => roomiest(&pools, wish, &everybody, *count)?,
    };
    let replicas = places.into_iter().zip(0..).map(|(pool, place)| ReplicaDefinition {
        node: pool.node.clone(),
        place,
        pool: pool.name.clone(),
        disk_id: Uuid::new_v4(),
    });
    Ok(Definition {
        uuid,
        name: wish.name.clone(),
        size_bytes: wish.size_bytes,
        durability: wish.durability.unwrap_or(state.settings().durability),
        created_at: now(),
        state: Phase::Creating,
        replicas: replicas.collect(),
    })
}

/// The pool on this node, with room for the volume.
fn on<'a>(pools: &'a pools::Pools, wish: &Create, node: &str) -> Result<&'a Pool, Problem> {
    if pools.unreachable.iter().any(|silent| silent == node) {
        return Err(Problem::unreachable(format!("{node} is not reached"))
            .remedy("see that tandem-node runs there, or name other nodes"));
    }
    let there: Vec<&Pool> = pools.pools.iter().filter(|pool| pool.node == node).collect();
    let names: Vec<&str> = there.iter().map(|pool| pool.name.as_str()).collect();
    let wanted = wish.pool.as_deref().or_else(|| default_pool(names.iter().copied()));
    let pool = there.into_iter().find(|pool| Some(pool.name.as_str()) == wanted).ok_or_else(|| {
        Problem::invalid(format!("there is no pool {:?} on {node}", wanted.unwrap_or_default()))
            .remedy(format!("its pools are {}", names.join(", ")))
    })?;
    match pool.free_bytes >= wish.size_bytes {
        true => Ok(pool),
        false => Err(Problem::refused(format!(
            "pool {} on {node} has {} bytes free, and {} needs {}",
            pool.name, pool.free_bytes, wish.name, wish.size_bytes
        ))
        .remedy("make room there, or name other nodes or another pool")),
    }
}

/// The nodes with most room; the one that is asked first among equals.
fn roomiest<'a>(
    pools: &'a pools::Pools,
    wish: &Create,
    everybody: &[String],
    count: usize,
) -> Result<Vec<&'a Pool>, Problem> {
    let mut fit = Vec::new();
    let mut unfit = Vec::new();
    for node in everybody {
        match on(pools, wish, node) {
            Ok(pool) => fit.push(pool),
            Err(problem) => unfit.push(problem),
        }
    }
    fit.sort_by_key(|pool| std::cmp::Reverse(pool.free_bytes));
    fit.truncate(count);
    if fit.len() == count {
        return Ok(fit);
    }
    let code = if unfit.iter().all(|problem| problem.code == Code::Invalid) { Code::Invalid } else { Code::Refused };
    let why: Vec<String> = unfit.into_iter().map(|problem| problem.message).collect();
    Err(Problem::new(code, format!("{count} replicas do not find {count} nodes: {}", why.join("; "))))
}

async fn make(state: &State, caller: &Caller, definition: &Definition) -> Result<(), Problem> {
    if definition.state == Phase::Creating {
        steps::everywhere(state, caller, definition).await?;
        let record = definition.record();
        match state.register().create(definition.volume(), &record).await {
            Outcome::Done => {}
            Outcome::Refused(there) => {
                return Err(Problem::new(Code::Conflict, format!("the arbiter has another record of it: {there}"))
                    .remedy("use another uuid; or delete it"));
            }
            Outcome::Missing => return Err(Problem::internal("the arbiter misses what is only to be made")),
            Outcome::NotDone(failure) | Outcome::Unknown(failure) => return Err(failure.into()),
        }
    }
    // Also where it is ready: a coordinator may have died before it had told all.
    steps::everywhere(state, caller, &definition.in_phase(Phase::Ready)).await
}

fn to_be_continued(problem: Problem, definition: &Definition) -> Problem {
    let uuid = definition.uuid;
    let goes_on = format!("asked again with the uuid {uuid} it goes on; or delete it");
    let remedy = match &problem.remedy {
        Some(remedy) => format!("{remedy}; {goes_on}"),
        None => goes_on,
    };
    problem.within(format!("{} was not created", definition.name)).remedy(remedy)
}

/// Whom to promote, unless it has a Primary already: asked again, nothing moves.
fn target(state: &State, wish: &Create, whole: &Whole) -> Option<Result<String, Problem>> {
    let wanted = match wish.promote.as_ref()? {
        Promoted::Somewhere(false) => return None,
        Promoted::Somewhere(true) => None,
        Promoted::On(node) => Some(node.as_str()),
    };
    let none_yet = whole.recorded_primary().is_none();
    none_yet.then(|| orders::whom_to_promote(state, whole, wanted))
}
