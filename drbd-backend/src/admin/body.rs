//! What callers send: every field known, or the body is refused.

use super::report::Chap;
use replication::Durability;
use serde::Deserialize;
use uuid::Uuid;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Create {
    #[serde(default)]
    pub(super) uuid: Option<Uuid>,
    pub(super) name: String,
    pub(super) size_bytes: u64,
    pub(super) replicas: Replicas,
    #[serde(default)]
    pub(super) pool: Option<String>,
    #[serde(default, deserialize_with = "durability")]
    pub(super) durability: Option<Durability>,
    #[serde(default)]
    pub(super) promote: Option<Promoted>,
}

fn durability<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Durability>, D::Error> {
    crate::catalog::durability::deserialize(from).map(Some)
}

/// How many, or on which nodes.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "replicas is a number, or a list of nodes")]
pub(super) enum Replicas {
    Count(usize),
    Nodes(Vec<String>),
}

/// Whether a new volume is promoted, or on which node.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "promote is true, false, or a node")]
pub(super) enum Promoted {
    Somewhere(bool),
    On(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Promote {
    #[serde(default)]
    pub(super) node: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Nothing {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ForcePrimary {
    pub(super) node: String,
    /// The volume's, typed again.
    pub(super) name: String,
    #[serde(default)]
    pub(super) destroyed: Vec<String>,
    /// Who sits at the keyboard, where the caller's certificate does not say.
    #[serde(default)]
    pub(super) by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ResyncNode {
    pub(super) node: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reservations {
    /// As the iSCSI target encodes them.
    pub(super) was: Vec<u8>,
    pub(super) next: Vec<u8>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Attach {
    pub(super) host: String,
    #[serde(default)]
    pub(super) initiator: Option<String>,
    /// Without it, one is made for the initiator.
    #[serde(default)]
    pub(super) chap: Option<Chap>,
    #[serde(default)]
    pub(super) read_only: bool,
}
