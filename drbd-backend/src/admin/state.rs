//! What all handlers share: the node, the arbiter, the volumes that have a replica here, and the way to the other nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::Method;
use chrono::{DateTime, Utc};
use replication::{Node as Place, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::{Caller, FOR, LOCAL};
use super::dead::Book;
use super::error::Problem;
use crate::arbiter::Register;
use crate::fences::Watcher;
use crate::identity::rfc3339;
use crate::node::Node;

/// No answer of a node is longer, in bytes.
const LONGEST_ANSWER: usize = 16 << 20;

/// A volume that this node has a replica of.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Definition {
    pub uuid: Uuid,
    pub name: String,
    pub state: Phase,
    pub replicas: Vec<ReplicaDefinition>,
}

/// Where a volume is between its creation and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Creating,
    Ready,
    Deleting,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaDefinition {
    pub node: String,
    pub place: u8,
    pub pool: String,
}

impl Definition {
    #[must_use]
    pub fn volume(&self) -> VolumeId {
        VolumeId(self.uuid.as_u128())
    }

    /// None: it has no replica there.
    #[must_use]
    pub fn place_of(&self, node: &str) -> Option<Place> {
        self.replicas.iter().find(|replica| replica.node == node).and_then(|replica| Place::new(replica.place))
    }
}

/// Another node.
#[derive(Debug)]
pub struct Other {
    /// `https://HOST:PORT`, or `http://` on loopback.
    pub rest: String,
    /// Speaks to this node and to nobody else.
    pub client: reqwest::Client,
}

#[derive(Debug)]
pub struct Parts {
    pub name: String,
    pub node: Arc<Node>,
    pub rest: String,
    pub started_at: DateTime<Utc>,
    pub register: Arc<dyn Register>,
    /// Of which kind the arbiter is, and where.
    pub arbiter: (&'static str, Vec<String>),
    pub dead: Book,
    pub watcher: Watcher,
    pub others: BTreeMap<String, Other>,
    pub definitions: Arc<Mutex<Vec<Definition>>>,
    pub pools: BTreeMap<String, PathBuf>,
}

#[derive(Debug, Clone)]
pub struct State(Arc<Parts>);

impl State {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    #[must_use]
    pub fn node(&self) -> &Node {
        &self.0.node
    }

    #[must_use]
    pub fn register(&self) -> &dyn Register {
        &*self.0.register
    }

    #[must_use]
    pub fn arbiter(&self) -> &(&'static str, Vec<String>) {
        &self.0.arbiter
    }

    #[must_use]
    pub fn dead(&self) -> &Book {
        &self.0.dead
    }

    #[must_use]
    pub fn watcher(&self) -> &Watcher {
        &self.0.watcher
    }

    #[must_use]
    pub fn pools(&self) -> &BTreeMap<String, PathBuf> {
        &self.0.pools
    }

    /// The names of the other nodes.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        self.0.others.keys().cloned().collect()
    }

    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        self.0.definitions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who answers here.
    #[must_use]
    pub fn introduction(&self) -> Value {
        let Parts { name, node, rest, started_at, .. } = &*self.0;
        json!({
            "name": name, "version": env!("CARGO_PKG_VERSION"), "boot_id": Uuid::from_u128(node.boot().0),
            "addresses": { "rest": rest, "peers": node.peers_address(), "nbd": node.nbd_address() },
            "started_at": rfc3339(*started_at),
        })
    }

    /// Asks another node alone, on behalf of this caller.
    ///
    /// # Errors
    /// What it answers, or that it does not within `limit`.
    pub async fn ask(
        &self,
        node: &str,
        method: Method,
        path: &str,
        body: Option<Value>,
        caller: &Caller,
        limit: Duration,
    ) -> Result<Value, Problem> {
        let silent =
            |error: reqwest::Error| Problem::unreachable(format!("{node} does not answer: {}", error.without_url()));
        let other = self.0.others.get(node).ok_or_else(|| Problem::not_found(format!("there is no node {node:?}")))?;
        let mut request = other.client.request(method, format!("{}{path}", other.rest)).timeout(limit);
        request = request.header(LOCAL, "1").header(FOR, caller.to_string());
        if let Some(body) = body {
            request = request.json(&body);
        }
        let mut answer = request.send().await.map_err(silent)?;
        let (status, mut bytes) = (answer.status(), Vec::new());
        while let Some(piece) = answer.chunk().await.map_err(silent)? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > LONGEST_ANSWER {
                return Err(Problem::unreachable(format!("{node} answers without end")));
            }
        }
        match status.is_success() {
            true => Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
            false => Err(Problem::of_answer(status, &bytes)),
        }
    }

    /// An answer that does not end by itself.
    ///
    /// # Errors
    /// There is none.
    pub async fn stream(&self, node: &str, path: &str) -> Result<reqwest::Response, Problem> {
        let silent =
            |error: reqwest::Error| Problem::unreachable(format!("{node} does not answer: {}", error.without_url()));
        let other = self.0.others.get(node).ok_or_else(|| Problem::not_found(format!("there is no node {node:?}")))?;
        let asked = other.client.get(format!("{}{path}", other.rest)).header(LOCAL, "1").send().await;
        asked.and_then(reqwest::Response::error_for_status).map_err(silent)
    }
}
