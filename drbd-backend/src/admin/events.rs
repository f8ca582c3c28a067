//! What replicas say of themselves, as server-sent events: this node's own lines, and those of the others that are reached.

mod feed;

use std::convert::Infallible;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::Extension;
use axum::extract::State as Shared;
use axum::response::sse::{Event as Sent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use self::feed::{Event, Feed, Line, Missed, Reader};
use super::caller::Caller;
use super::error::{InQuery, Problem};
use super::listen::Closing;
use super::state::State;
use crate::catalog::ReplicaDefinition;
use crate::identity::Action;
use crate::node::Said;

/// Readers at once: each keeps a connection to every other node.
const READERS: usize = 64;

/// How often a comment is sent where nothing is said.
const QUIET: Duration = Duration::from_secs(15);

/// How long after a node was lost it is joined again.
const JOIN_AGAIN: Duration = Duration::from_secs(1);

/// A node that sends nothing for so long, not even comments, is lost.
const LOST: Duration = Duration::from_secs(45);

static PLACES: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(READERS)));

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Which {
    /// UUID or name.
    volume: Option<String>,
}

/// One reader: what it has not been sent yet, and who fetches more. All of it ends when the reader goes.
struct Listening {
    feed: Arc<Feed>,
    _fetching: JoinSet<()>,
    _place: OwnedSemaphorePermit,
    closing: Closing,
    has_begun: bool,
}

pub(super) async fn follow(
    Shared(state): Shared<State>,
    caller: Caller,
    InQuery(which): InQuery<Which>,
    Extension(closing): Extension<Closing>,
) -> Result<Response, Problem> {
    caller.may(Action::Read)?;
    let place = PLACES.clone().try_acquire_owned();
    let place = place.map_err(|_| Problem::unreachable(format!("{READERS} others follow the events of this node")))?;
    let feed = Arc::new(Feed::default());
    let mut fetching = JoinSet::new();
    if !caller.is_local() {
        for other in state.others() {
            fetching.spawn(fetch(state.clone(), other, which.volume.clone(), feed.clone()));
        }
    }
    let said = state.node().said();
    fetching.spawn(overhear(state, said, which.volume, feed.clone()));
    let listening = Listening { feed, _fetching: fetching, _place: place, closing, has_begun: false };
    let events = stream::unfold(listening, |mut listening| async {
        let sent = listening.next().await?;
        Some((Ok::<_, Infallible>(sent), listening))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(QUIET)).into_response())
}

impl Listening {
    /// None: the doors close.
    async fn next(&mut self) -> Option<Sent> {
        if !std::mem::replace(&mut self.has_begun, true) {
            return Some(Sent::default().comment("from now on"));
        }
        let line = tokio::select! {
            line = self.feed.next() => line,
            _ = self.closing.0.wait_for(|closing| *closing) => return None,
        };
        let sent = match line {
            Line::Said(event) => Sent::default().event("said").json_data(event),
            Line::Missed(count) => Sent::default().event("missed").json_data(Missed { count }),
        };
        Some(sent.expect("events are JSON"))
    }
}

/// This node's own replicas.
async fn overhear(
    state: State,
    mut said: tokio::sync::broadcast::Receiver<Said>,
    which: Option<String>,
    feed: Arc<Feed>,
) {
    loop {
        match said.recv().await {
            Ok(said) => {
                let event = event(&state, said);
                if is_wanted(which.as_deref(), &event) {
                    feed.push(Line::Said(event));
                }
            }
            Err(RecvError::Lagged(count)) => feed.push(Line::Missed(count)),
            Err(RecvError::Closed) => return,
        }
    }
}

fn event(state: &State, said: Said) -> Event {
    let Said { volume, at, text } = said;
    let definition = state.definitions().into_iter().find(|definition| definition.volume() == volume);
    let text = definition.as_ref().map(|definition| with_names(&text, &definition.replicas)).unwrap_or(text);
    let name = definition.map(|definition| definition.name);
    Event { volume: Uuid::from_u128(volume.0), name, node: state.name().to_owned(), at, text }
}

/// The core counts places ("node 1", "in sync 0 2"), operators know names.
fn with_names(text: &str, replicas: &[ReplicaDefinition]) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut in_sync = false; // a list of places follows these words
    let mut after = "";
    for word in text.split(' ') {
        let digits = word.trim_end_matches([',', ':', ';']);
        let name = digits.parse().ok().and_then(|place: u8| replicas.iter().find(|replica| replica.place == place));
        let is_place = in_sync || after == "node";
        match name.filter(|_| is_place) {
            Some(replica) => {
                if after == "node" {
                    words.pop();
                }
                words.push(format!("{}{}", replica.node, &word[digits.len()..]));
                in_sync &= digits == word;
            }
            None => {
                words.push(word.to_owned());
                in_sync = word == "sync" && after == "in";
            }
        }
        after = word;
    }
    words.join(" ")
}

fn is_wanted(which: Option<&str>, event: &Event) -> bool {
    which.is_none_or(|which| event.name.as_deref() == Some(which) || which.parse() == Ok(event.volume))
}

/// Another node's, for as long as somebody listens.
async fn fetch(state: State, other: String, which: Option<String>, feed: Arc<Feed>) {
    loop {
        if let Ok(mut answer) = state.stream(&other, "/v1/events").await {
            let mut reader = Reader::default();
            while let Ok(Ok(Some(bytes))) = tokio::time::timeout(LOST, answer.chunk()).await {
                let Some(lines) = reader.read(&bytes) else {
                    tracing::warn!(node = other, "it sends events that this node does not understand");
                    break;
                };
                let wanted = |line: &Line| match line {
                    Line::Said(event) => is_wanted(which.as_deref(), event),
                    Line::Missed(_) => true,
                };
                lines.into_iter().filter(wanted).for_each(|line| feed.push(line));
            }
        }
        sleep(JOIN_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_by_the_names_of_their_nodes() {
        let replica = |place, node: &str| {
            let (node, pool) = (node.to_owned(), "default".to_owned());
            ReplicaDefinition { node, place, pool, disk_id: Uuid::nil() }
        };
        let replicas = [replica(0, "cmp1"), replica(1, "cmp2")];
        for (said, told) in [
            (
                "promoted: generation 4, Primary node 0, in sync 0 1",
                "promoted: generation 4, Primary cmp1, in sync cmp1 cmp2",
            ),
            ("resync of node 1: 512 blocks, what it missed", "resync of cmp2: 512 blocks, what it missed"),
            ("frozen: node 7 missing", "frozen: node 7 missing"),
            ("barrier 1 stored", "barrier 1 stored"),
        ] {
            assert_eq!(with_names(said, &replicas), told);
        }
    }
}
