//! What all handlers share: the node, the arbiter, the volumes that have a replica here, and the way to the other nodes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use chrono::{DateTime, Utc};
use replication::{Node as Place, Settings};
use serde_json::{Value, json};
use uuid::Uuid;

use super::caller::Caller;
use super::dead::Book;
use super::error::Problem;
use crate::arbiter::Register;
use crate::catalog::Catalog;
pub use crate::catalog::{Definition, Phase, ReplicaDefinition};
use crate::cluster::Cluster;
use crate::fences::Watcher;
use crate::identity::rfc3339;
use crate::node::{Node, Peer, VolumeConfig};

#[derive(Debug)]
pub struct Parts {
    pub name: String,
    pub node: Arc<Node>,
    /// Where this node's own REST is.
    pub rest: String,
    pub started_at: DateTime<Utc>,
    pub register: Arc<dyn Register>,
    /// Of which kind the arbiter is, and where.
    pub arbiter: (&'static str, Vec<String>),
    pub dead: Book,
    pub watcher: Watcher,
    pub cluster: Cluster,
    pub catalog: Arc<Catalog>,
    /// Of every volume, but for its id, its place and its durability; of new volumes also that.
    pub settings: Settings,
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
    pub fn node(&self) -> &Arc<Node> {
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
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.0.catalog
    }

    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.0.settings
    }

    #[must_use]
    pub fn pools(&self) -> &BTreeMap<String, PathBuf> {
        self.0.catalog.pools()
    }

    /// The names of the other nodes.
    #[must_use]
    pub fn others(&self) -> Vec<String> {
        self.0.cluster.names().map(str::to_owned).collect()
    }

    #[must_use]
    pub fn definitions(&self) -> Vec<Definition> {
        self.0.catalog.definitions()
    }

    /// Who answers here.
    #[must_use]
    pub fn introduction(&self) -> Value {
        let Parts { name, node, rest, started_at, .. } = &*self.0;
        json!({
            "name": name, "version": env!("CARGO_PKG_VERSION"), "boot_id": Uuid::from_u128(node.boot().0),
            "addresses": { "rest": rest, "peers": node.peers_address(), "nbd": node.nbd_address(), "iscsi": node.iscsi_address() },
            "started_at": rfc3339(*started_at),
        })
    }

    /// This node's part in a volume; None if it has none. A peer that is not configured is not met.
    #[must_use]
    pub fn volume_config(&self, definition: &Definition) -> Option<VolumeConfig> {
        let replica = definition.replica_of(self.name())?;
        let (me, volume) = (Place::new(replica.place)?, definition.volume());
        let others = definition.replicas.iter().filter(|other| other.node != replica.node);
        let peers = others.filter_map(|other| {
            let peer = self.0.cluster.get(&other.node);
            if peer.is_none() {
                tracing::warn!(%volume, node = other.node, "has a replica and is not configured: set [nodes.{}]", other.node);
            }
            let peer = peer?;
            Some((Place::new(other.place)?, Peer { name: peer.name.clone(), address: peer.peers, iscsi: peer.iscsi }))
        });
        Some(VolumeConfig {
            volume,
            me,
            size_blocks: definition.size_blocks(),
            pool: self.pools().get(&replica.pool)?.clone(),
            settings: Settings { volume, me, durability: definition.durability, ..self.0.settings.clone() },
            peers: peers.collect(),
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
        self.0.cluster.ask(node, method, path, body.as_ref(), caller, limit).await
    }

    /// An answer that does not end by itself.
    ///
    /// # Errors
    /// There is none.
    pub async fn stream(&self, node: &str, path: &str) -> Result<reqwest::Response, Problem> {
        self.0.cluster.stream(node, path).await
    }
}
