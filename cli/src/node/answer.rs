//! The answers of tandem-node, as far as they are shown. As in `answer.rs`, what is absent or null is empty.

use serde::Deserialize;

use crate::answer::{Text, or_default};

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Volumes {
    pub(crate) volumes: Vec<Volume>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) unreachable: Vec<Text>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Volume {
    pub(crate) uuid: Text,
    pub(crate) name: Text,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) durability: Text,
    pub(crate) created_at: Text,
    pub(crate) state: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) generation: u64,
    pub(crate) epoch: Text,
    pub(crate) primary: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) serving: bool,
    pub(crate) why: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) replicas: Vec<Replica>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) attachments: Vec<Attachment>,
}

impl Volume {
    pub(crate) fn replica(&self, node: &str) -> Option<&Replica> {
        self.replicas.iter().find(|replica| replica.node.is(node))
    }

    /// By place; those without one stay where they are.
    pub(crate) fn in_order(&self) -> Vec<&Replica> {
        let mut replicas: Vec<_> = self.replicas.iter().collect();
        replicas.sort_by_key(|replica| replica.place.or_empty().parse().unwrap_or(u64::MAX));
        replicas
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Replica {
    pub(crate) node: Text,
    pub(crate) place: Text,
    pub(crate) pool: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) reached: bool,
    pub(crate) role: Text,
    pub(crate) disk: Text,
    pub(crate) in_sync: Option<bool>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) suspect: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) full: bool,
    #[serde(deserialize_with = "or_default")]
    pub(crate) connected: Vec<Text>,
    pub(crate) missing_bytes: Option<u64>,
    pub(crate) resync: Option<Resync>,
    pub(crate) clients: Text,
    pub(crate) requests: Text,
}

impl Replica {
    pub(crate) fn is_well(&self) -> bool {
        self.disk.is("UpToDate") && self.in_sync != Some(false)
    }
}

/// What a replica copies from the Primary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Resync {
    #[serde(deserialize_with = "or_default")]
    pub(crate) left_bytes: u64,
    #[serde(deserialize_with = "or_default")]
    pub(crate) total_bytes: u64,
    pub(crate) bytes_per_s: Option<u64>,
    pub(crate) eta_s: Option<u64>,
}

impl Resync {
    pub(crate) fn done_bytes(&self) -> u64 {
        self.total_bytes.saturating_sub(self.left_bytes)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attachments {
    #[serde(deserialize_with = "or_default")]
    pub(crate) attachments: Vec<Attachment>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Attachment {
    pub(crate) id: Text,
    pub(crate) host: Text,
    pub(crate) initiator: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) read_only: bool,
    pub(crate) epoch: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) revoked: bool,
    pub(crate) export: Text,
    pub(crate) target: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) chap: Chap,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Chap {
    pub(crate) user: Text,
    pub(crate) secret: Text,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) name: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) reached: bool,
    pub(crate) version: Text,
    pub(crate) boot_id: Text,
    pub(crate) rest: Text,
    pub(crate) peers: Text,
    pub(crate) started_at: Text,
    pub(crate) volumes: Text,
    pub(crate) dead: Option<Dead>,
    pub(crate) why: Text,
}

/// A known fence: somebody vouches that this boot has ended.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Dead {
    pub(crate) node: Text,
    pub(crate) boot_id: Text,
    pub(crate) why: Text,
    pub(crate) by: Text,
    pub(crate) at: Text,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Fences {
    pub(crate) fences: Vec<Fence>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fence {
    pub(crate) host: Text,
    pub(crate) by: Text,
    pub(crate) why: Text,
    pub(crate) at: Text,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Pools {
    pub(crate) pools: Vec<Pool>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) unreachable: Vec<Text>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pool {
    pub(crate) node: Text,
    pub(crate) name: Text,
    pub(crate) path: Text,
    pub(crate) size_bytes: Option<u64>,
    pub(crate) free_bytes: Option<u64>,
    pub(crate) volumes: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) full: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Arbiter {
    pub(crate) kind: Text,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) at: Vec<Text>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) reached: bool,
    #[serde(default)]
    pub(crate) incarnation: Text,
    #[serde(default)]
    pub(crate) latency_ms: Option<f64>,
    #[serde(default)]
    pub(crate) records: Text,
    #[serde(default)]
    pub(crate) why: Text,
}

/// One line of the events.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Said {
    pub(crate) volume: Text,
    pub(crate) name: Text,
    pub(crate) node: Text,
    pub(crate) at: Text,
    pub(crate) text: Text,
}

/// What became of the arbiter's records.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Rebuilt {
    pub(crate) volumes: Vec<RebuiltVolume>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RebuiltVolume {
    pub(crate) name: Text,
    pub(crate) rebuilt: bool,
    /// None: a node that does not say so yet.
    pub(crate) settled: Option<bool>,
    pub(crate) why: Text,
}
