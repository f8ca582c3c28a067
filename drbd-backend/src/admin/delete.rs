//! The end of a volume that nobody uses: closed on every node, then taken from the arbiter, then its files go.

use axum::extract::State as Shared;
use axum::http::StatusCode;

use super::caller::Caller;
use super::error::{InPath, Problem};
use super::orders;
use super::state::State;
use super::steps::{self, attached_to, open_by};
use super::survey::{Whole, find};
use super::view;
use crate::arbiter::Outcome;
use crate::catalog::{Definition, Phase};
use crate::identity::Action;

/// A replica that is being closed may still change the record under the one that reads it.
const ATTEMPTS: usize = 5;

pub(super) async fn delete(
    Shared(state): Shared<State>,
    caller: Caller,
    InPath(key): InPath<String>,
) -> Result<StatusCode, Problem> {
    caller.may(Action::DeleteVolume)?;
    let whole = find(&state, &caller, &key).await?;
    let definition = whole.definition()?;
    not_missing(&whole)?;
    if definition.state == Phase::Ready {
        not_in_use(&whole)?;
        // Else a peer would take over from the one that is closed first.
        if let Some((primary, _)) = whole.primary() {
            orders::demote_at(&state, &caller, &whole, primary).await?;
        }
    }
    let deleting = definition.in_phase(Phase::Deleting);
    steps::everywhere(&state, &caller, &deleting).await?;
    take_from_the_arbiter(&state, definition).await?;
    steps::erase_everywhere(&state, &caller, &deleting).await?;
    tracing::info!(volume = %definition.uuid, name = definition.name, by = %caller, "deleted");
    Ok(StatusCode::NO_CONTENT)
}

/// A replica that stays behind would be a volume again, once its node is back.
fn not_missing(whole: &Whole) -> Result<(), Problem> {
    let missing = whole.missing();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(Problem::held(format!(
            "{} has replicas on nodes that are not reached: {}",
            whole.name(),
            missing.join(", ")
        ))
        .remedy("see that tandem-node runs there, and ask again")),
    }
}

fn not_in_use(whole: &Whole) -> Result<(), Problem> {
    if let Some((node, replica)) = whole.replicas().find(|(_, replica)| replica.clients > 0) {
        return Err(open_by(&whole.name(), replica.clients, node));
    }
    match view::attachments(whole).into_iter().find(|attachment| !attachment.revoked) {
        Some(attachment) => Err(attached_to(&whole.name(), &attachment.host)),
        None => Ok(()),
    }
}

async fn take_from_the_arbiter(state: &State, definition: &Definition) -> Result<(), Problem> {
    for _ in 0..ATTEMPTS {
        let (_, record) = state.register().read(definition.volume()).await?;
        let Some(record) = record else { return Ok(()) };
        match state.register().remove(definition.volume(), &record).await {
            Outcome::Done | Outcome::Missing => return Ok(()),
            Outcome::Refused(_) => {}
            Outcome::NotDone(failure) | Outcome::Unknown(failure) => return Err(failure.into()),
        }
    }
    Err(Problem::held(format!("the arbiter's record of {} keeps changing", definition.name)).remedy("ask again"))
}
