//! What operators order a volume's replicas to do. Whoever is asked passes it on to the node that can.

use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::Method;
use axum::routing::post;
use axum::{Json, Router};
use replication::{Generation, Node as Place, Order, Refusal};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use super::body::{ForcePrimary, Nothing, Promote, ResyncNode};
use super::caller::Caller;
use super::error::{Body, Code, InPath, Problem};
use super::report;
use super::state::State;
use super::steps::{self, not_in_use};
use super::survey::{Whole, find, no_such_volume};
use super::view::Volume;
use crate::catalog::Definition;
use crate::identity::Action;

/// How long an order may take. What was ordered goes on all the same.
const LIMIT: Duration = Duration::from_secs(60);

/// For the way to another node and back.
const PASSED_ON: Duration = Duration::from_secs(65);

/// How long the answer waits until everybody sees what was done.
const SEEN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Nobody was ever Primary.
const NEW: Generation = Generation(1);

pub(super) fn routes() -> Router<State> {
    Router::new()
        .route("/v1/volumes/{volume}/promote", post(promote))
        .route("/v1/volumes/{volume}/demote", post(demote))
        .route("/v1/volumes/{volume}/force-primary", post(force_primary))
        .route("/v1/volumes/{volume}/resync", post(resync))
}

type Answer = Result<Json<Value>, Problem>;

fn shown(whole: &Whole) -> Answer {
    Ok(Json(serde_json::to_value(Volume::from(whole)).expect("volumes are JSON")))
}

fn done() -> Answer {
    Ok(Json(Value::Null))
}

async fn promote(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
    Body(Promote { node }): Body<Promote>,
) -> Answer {
    if caller.is_local() {
        let definition = here(&state, &key)?;
        may_promote(&state, &caller, &definition).await?;
        let node = node.ok_or_else(|| Problem::invalid("between nodes the node is named"))?;
        promote_here(&state, &definition, &node).await?;
        return done();
    }
    caller.may(Action::Promote)?;
    let whole = find(&state, &caller, &key).await?;
    let target = whom_to_promote(&state, &whole, node.as_deref())?;
    shown(&promoted(&state, &caller, whole, &target).await?)
}

/// A new volume is promoted for whoever may create it.
async fn may_promote(state: &State, caller: &Caller, definition: &Definition) -> Result<(), Problem> {
    let seen = state.node().look(definition.volume()).await;
    match seen.is_some_and(|seen| seen.status.record.generation == NEW) {
        true => caller.may(Action::Promote).or_else(|_| caller.may(Action::CreateVolume)),
        false => caller.may(Action::Promote),
    }
}

/// The node that is asked for. Else the Primary there is, the node that answers, or the first: of those in sync.
pub(super) fn whom_to_promote(state: &State, whole: &Whole, wanted: Option<&str>) -> Result<String, Problem> {
    let definition = whole.ready()?;
    if let Some(node) = wanted {
        return has_replica(whole, definition, node).map(|()| node.to_owned());
    }
    if let Some((primary, _)) = whole.primary() {
        return Ok(primary.to_owned());
    }
    let fit: Vec<String> = whole.in_sync().into_iter().filter(|node| whole.replica(node).is_some()).collect();
    let own = fit.iter().find(|node| *node == state.name());
    own.or(fit.first()).cloned().ok_or_else(|| {
        Problem::held(format!("no replica of {} that is in sync is reached", definition.name))
            .remedy("`tandem volume show` says which nodes are in sync; start one of them")
    })
}

/// It has a replica, and is reached.
fn has_replica(whole: &Whole, definition: &Definition, node: &str) -> Result<(), Problem> {
    let nodes: Vec<&str> = definition.replicas.iter().map(|replica| replica.node.as_str()).collect();
    if !nodes.contains(&node) {
        return Err(Problem::invalid(format!("{node} has no replica of {}", definition.name))
            .remedy(format!("its replicas are on {}", nodes.join(", "))));
    }
    match whole.reached.contains(node) {
        true => Ok(()),
        false => Err(Problem::unreachable(format!("{node} is not reached")).remedy("see that tandem-node runs there")),
    }
}

/// Makes this node Primary: by hand-over if another one serves.
pub(super) async fn promoted(state: &State, caller: &Caller, whole: Whole, target: &str) -> Result<Whole, Problem> {
    if whole.primary().is_some_and(|(primary, replica)| primary == target && replica.serving) {
        return Ok(whole);
    }
    let by = whole.primary().map_or(target, |(primary, _)| primary).to_owned();
    let definition = whole.ready()?;
    tracing::info!(volume = %whole.uuid, name = definition.name, node = target, by = %caller, "is to be Primary");
    match by == state.name() {
        true => promote_here(state, definition, target).await?,
        false => pass_on(state, caller, &by, &whole, "promote", json!({ "node": target })).await?,
    }
    seen(state, caller, whole, |whole| whole.primary().is_some_and(|(node, replica)| node == target && replica.serving))
        .await
}

/// Asked of the node that is to be Primary, or of the one that is.
async fn promote_here(state: &State, definition: &Definition, target: &str) -> Result<(), Problem> {
    let place =
        definition.place_of(target).ok_or_else(|| Problem::invalid(format!("{target} has no replica of it")))?;
    let what = match target == state.name() {
        true => Order::Promote,
        false => {
            may_hand_over(state, definition).await?;
            Order::HandOver(place)
        }
    };
    order(state, definition, what).await
}

/// Who hands over stops to serve first: not for an arbiter that would refuse the next one.
async fn may_hand_over(state: &State, definition: &Definition) -> Result<(), Problem> {
    let Some(seen) = state.node().look(definition.volume()).await else { return Ok(()) };
    let known = seen.status.record.generation;
    let (_, found) = state.register().read(definition.volume()).await?;
    match found {
        Some(found) if found.generation >= known => Ok(()),
        found => {
            let has = found.map_or_else(|| "no record".to_owned(), |found| format!("generation {}", found.generation));
            let name = &definition.name;
            Err(Problem::held(format!("the arbiter has {has} of {name}, and its Primary is at generation {known}"))
                .remedy("it was lost, or restored from an old copy: `tandem arbiter rebuild`, then ask again"))
        }
    }
}

async fn demote(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
    Body(Nothing {}): Body<Nothing>,
) -> Answer {
    if caller.is_local() {
        let definition = here(&state, &key)?;
        if caller.may(Action::Promote).is_err() {
            // Before a volume that nobody uses is deleted it is demoted, for whoever may delete it.
            caller.may(Action::DeleteVolume)?;
            not_in_use(&state, &definition).await?;
        }
        order(&state, &definition, Order::Demote).await?;
        return done();
    }
    caller.may(Action::Promote)?;
    let whole = find(&state, &caller, &key).await?;
    whole.ready()?;
    let Some((primary, _)) = whole.primary() else {
        return match whole.recorded_primary() {
            None => shown(&whole),
            Some(primary) => Err(Problem::held(format!("{primary} is or was Primary, and does not serve"))
                .remedy("promote a node first, or see to that one")),
        };
    };
    let primary = primary.to_owned();
    tracing::info!(volume = %whole.uuid, name = whole.name(), node = primary, by = %caller, "is to be demoted");
    demote_at(&state, &caller, &whole, &primary).await?;
    shown(&seen(&state, &caller, whole, |whole| whole.recorded_primary().is_none()).await?)
}

pub(super) async fn demote_at(state: &State, caller: &Caller, whole: &Whole, primary: &str) -> Result<(), Problem> {
    match primary == state.name() {
        true => order(state, whole.definition()?, Order::Demote).await,
        false => pass_on(state, caller, primary, whole, "demote", json!({})).await,
    }
}

async fn force_primary(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
    Body(force): Body<ForcePrimary>,
) -> Answer {
    caller.may(Action::ForcePrimary)?;
    if caller.is_local() {
        force_here(&state, &caller, &here(&state, &key)?, &force).await?;
        return done();
    }
    let whole = find(&state, &caller, &key).await?;
    let definition = whole.ready()?;
    may_be_forced(&whole, definition, &force)?;
    let node = force.node.clone();
    match node == state.name() {
        true => force_here(&state, &caller, definition, &force).await?,
        false => {
            let body = json!({ "node": node, "name": force.name, "destroyed": force.destroyed, "by": force.by });
            pass_on(&state, &caller, &node, &whole, "force-primary", body).await?;
        }
    }
    shown(&seen(&state, &caller, whole, |whole| whole.primary().is_some_and(|(primary, _)| primary == node)).await?)
}

/// What is known to be wrong before the replica is asked: it lives, so it is neither destroyed nor to be passed over.
fn may_be_forced(whole: &Whole, definition: &Definition, force: &ForcePrimary) -> Result<(), Problem> {
    if force.name != definition.name {
        return Err(Problem::invalid(format!(
            "the name was typed as {:?}, and the volume is called {}",
            force.name, definition.name
        )));
    }
    has_replica(whole, definition, &force.node)?;
    for node in &force.destroyed {
        if definition.replica_of(node).is_none() || *node == force.node {
            return Err(Problem::invalid(format!("{node} is none of the other replicas of {}", definition.name)));
        }
        if whole.reached.contains(node) {
            return Err(Problem::refused(format!("{node} is not destroyed: it answers")).remedy("leave it out"));
        }
    }
    let alive = whole.replicas().find(|(node, replica)| *node != force.node && replica.is_primary());
    match alive {
        None => Ok(()),
        Some((node, _)) => Err(Problem::refused(format!("{node} is Primary, and is reached"))
            .remedy("promote the node instead: the role is handed over and nothing is lost")),
    }
}

async fn force_here(
    state: &State,
    caller: &Caller,
    definition: &Definition,
    force: &ForcePrimary,
) -> Result<(), Problem> {
    if force.node != state.name() {
        return Err(Problem::invalid(format!("this is {}, not {}", state.name(), force.node)));
    }
    let destroyed: Vec<Place> = force.destroyed.iter().filter_map(|node| definition.place_of(node)).collect();
    let by = force.by.as_ref().map_or_else(|| caller.to_string(), |by| format!("{caller} ({by})"));
    let without = match force.destroyed.is_empty() {
        true => String::new(),
        false => format!("; destroyed for good, as they say: {}", force.destroyed.join(", ")),
    };
    state.node().say(definition.volume(), format!("{by} forces {} to be Primary{without}", force.node));
    order(state, definition, Order::ForcePrimary { destroyed }).await
}

async fn resync(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
    Body(ResyncNode { node }): Body<ResyncNode>,
) -> Answer {
    caller.may(Action::ChangeReplicas)?;
    if caller.is_local() {
        steps::resync_here(&state, &here(&state, &key)?).await?;
        return done();
    }
    let whole = find(&state, &caller, &key).await?;
    let definition = whole.ready()?;
    has_replica(&whole, definition, &node)?;
    copied_from(&whole, &node)?;
    tracing::warn!(volume = %whole.uuid, name = definition.name, node, by = %caller, "throws its data away and is copied anew");
    match node == state.name() {
        true => steps::resync_here(&state, definition).await?,
        false => pass_on(&state, &caller, &node, &whole, "resync", json!({ "node": node })).await?,
    }
    shown(&find(&state, &caller, &whole.uuid.to_string()).await?)
}

/// Its data goes before it is copied: somebody else must serve, with all of it.
fn copied_from(whole: &Whole, node: &str) -> Result<(), Problem> {
    match whole.primary() {
        Some((primary, _)) if primary == node => {
            Err(Problem::refused(format!("{node} is Primary, and has what others would copy"))
                .remedy("promote another node first"))
        }
        Some((_, replica)) if replica.serving => Ok(()),
        Some((primary, _)) => {
            Err(Problem::held(format!("{primary} does not serve at this moment")).remedy("ask again once it does"))
        }
        None => Err(Problem::held(format!("{} has no Primary to be copied from", whole.name()))
            .remedy("promote another node first")),
    }
}

/// The volume, of which this node has a replica.
pub(super) fn here(state: &State, key: &str) -> Result<Definition, Problem> {
    let entries = state.catalog().entries().into_iter();
    let entry = entries.filter(|entry| report::is_called(entry, key)).find_map(|entry| entry.definition);
    entry.ok_or_else(|| no_such_volume(key))
}

pub(super) async fn pass_on(
    state: &State,
    caller: &Caller,
    node: &str,
    whole: &Whole,
    what: &str,
    body: Value,
) -> Result<(), Problem> {
    let path = format!("/v1/volumes/{}/{what}", whole.uuid);
    state.ask(node, Method::POST, &path, Some(body), caller, PASSED_ON).await.map(drop)
}

/// Waits, within bounds, until the nodes show what was done; then that, or how far it is.
async fn seen(state: &State, caller: &Caller, whole: Whole, is_so: impl Fn(&Whole) -> bool) -> Result<Whole, Problem> {
    let until = Instant::now() + SEEN;
    let key = whole.uuid.to_string();
    loop {
        let whole = find(state, caller, &key).await?;
        if is_so(&whole) || Instant::now() >= until {
            return Ok(whole);
        }
        sleep(LOOK_AGAIN).await;
    }
}

/// Has this node's replica do it.
pub(super) async fn order(state: &State, definition: &Definition, what: Order) -> Result<(), Problem> {
    let said = format!("{what:?}");
    match timeout(LIMIT, state.node().order(definition.volume(), what)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(refused(state, definition, refusal)),
        Err(_) => {
            tracing::warn!(volume = %definition.uuid, order = said, "is not carried out yet");
            Err(Problem::held(format!("{} has not done it after {} s, and may yet", state.name(), LIMIT.as_secs()))
                .remedy("`tandem volume show` says what it waits for"))
        }
    }
}

/// A replica's refusal, with the names of nodes.
fn refused(state: &State, definition: &Definition, refusal: Refusal) -> Problem {
    let (me, volume) = (state.name(), &definition.name);
    let name = |place: Place| definition.name_of(place);
    match refusal {
        Refusal::NotPrimary { primary: Some(primary) } => {
            Problem::held(format!("{me} is not Primary of {volume}: {} is", name(primary))).remedy("ask again")
        }
        Refusal::NotPrimary { primary: None } => {
            Problem::held(format!("{me} is not Primary of {volume}")).remedy("promote a node first")
        }
        Refusal::NotInSync => Problem::refused(format!("{me} lacks writes of {volume}"))
            .remedy("promote a node that is in sync, or wait until this one is copied"),
        Refusal::Suspect => Problem::refused(format!("{me} may have lost writes of {volume} with its host's memory"))
            .remedy("promote another node; or start all nodes that were in sync"),
        Refusal::DiskFailed => Problem::refused(format!("{me} has no usable data of {volume}"))
            .remedy("promote another node, and resync this one"),
        Refusal::Overtaken(record) => {
            Problem::new(Code::Conflict, format!("another change of {volume} came first: {record}"))
                .remedy("look at how it is, and ask again")
        }
        Refusal::MayServe(nodes) => {
            let names: Vec<String> = nodes.into_iter().map(name).collect();
            Problem::held(format!("{} may be serving {volume}, or hold writes that {me} lacks", names.join(", ")))
                .remedy("see that these are reached; or, once they are surely off, say so with `tandem node dead`")
        }
        Refusal::Unfit(to) => {
            Problem::held(format!("{} cannot take {volume} over: it is not connected, or not in sync", name(to)))
                .remedy("wait until it is UpToDate")
        }
        Refusal::NoSource => {
            Problem::held(format!("{me} is not led by a serving Primary of {volume}: nobody is there to copy it from"))
                .remedy("promote another node that is in sync first")
        }
        Refusal::Invalid(why) => Problem::refused(format!("{volume}: {why}")),
        Refusal::Busy => Problem::held(format!("another order for {volume} is under way")).remedy("ask again"),
        Refusal::ShuttingDown => {
            Problem::unreachable(format!("{me} is about to end, or to close {volume}")).remedy("ask again")
        }
    }
}
