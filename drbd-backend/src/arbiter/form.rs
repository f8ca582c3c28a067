//! What records and fences look like as JSON: on the wire, in the embedded arbiter's file and in etcd, so that a person can read all three.
//!
//! ```json
//! {"generation":5,"primary":0,"members":[0,1],"in_sync":{"0":"8f1c1a9e-…"},"left":{"1":5},"epoch":1}
//! ```

use std::collections::{BTreeMap, BTreeSet};

use replication::{DiskId, Generation, MAX_NODES, Node, Nodes, Record};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Bytes that are no record or list of fences, or are one of a newer version.
#[derive(Debug, thiserror::Error)]
pub enum Misform {
    #[error("it is not the JSON that was expected")]
    Json(#[from] serde_json::Error),
    #[error("it is not text")]
    Text(#[from] std::str::Utf8Error),
    #[error("it is not base64")]
    Base64(#[from] base64::DecodeError),
    #[error("it is no UUID")]
    Key,
}

/// The one way a record is written down. The same record always gives the same text.
#[must_use]
pub fn record_to_json(record: &Record) -> String {
    serde_json::to_string(&Form::from(record))
        .expect("numbers, ids and maps with numbers as keys can be written as JSON")
}

/// Fields that this version does not know are an error: whoever wrote them meant something by them.
pub fn record_from_json(text: &str) -> Result<Record, Misform> {
    let form: Form = serde_json::from_str(text)?;
    Ok(form.into_record()?)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    generation: u64,
    primary: Option<u8>,
    members: BTreeSet<u8>,
    in_sync: BTreeMap<u8, Uuid>,
    left: BTreeMap<u8, u64>,
    epoch: u64,
}

impl From<&Record> for Form {
    fn from(record: &Record) -> Self {
        let disk = |node| record.disk(node).map(|disk: DiskId| (node.place(), Uuid::from_u128(disk.0)));
        let left = |node| record.left(node).map(|generation: Generation| (node.place(), generation.0));
        Self {
            generation: record.generation.0,
            primary: record.primary.map(Node::place),
            members: record.members.iter().map(Node::place).collect(),
            in_sync: Node::all().filter_map(disk).collect(),
            left: Node::all().filter_map(left).collect(),
            epoch: record.epoch,
        }
    }
}

impl Form {
    fn into_record(self) -> Result<Record, serde_json::Error> {
        let mut in_sync = [None; MAX_NODES];
        let mut left = [None; MAX_NODES];
        for (place, disk) in self.in_sync {
            in_sync[node(place)?.index()] = Some(DiskId(disk.as_u128()));
        }
        for (place, generation) in self.left {
            left[node(place)?.index()] = Some(Generation(generation));
        }
        let members = self.members.into_iter().map(node).collect::<Result<Nodes, _>>()?;
        let primary = self.primary.map(node).transpose()?;
        Ok(Record::of_parts(Generation(self.generation), primary, members, in_sync, left, self.epoch))
    }
}

fn node(place: u8) -> Result<Node, serde_json::Error> {
    Node::new(place).ok_or_else(|| serde::de::Error::custom(format!("node {place}: a volume has nodes 0 to 7")))
}

/// A record as a field.
pub(super) mod record {
    use super::{Deserialize, Form, Record, Serialize};

    pub(in super::super) fn serialize<S: serde::Serializer>(record: &Record, to: S) -> Result<S::Ok, S::Error> {
        Form::from(record).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Record, D::Error> {
        Form::deserialize(from)?.into_record().map_err(serde::de::Error::custom)
    }
}

/// A record as a field that may be null.
pub(super) mod optional {
    use super::{Deserialize, Form, Record, Serialize};

    pub(in super::super) fn serialize<S: serde::Serializer>(record: &Option<Record>, to: S) -> Result<S::Ok, S::Error> {
        record.as_ref().map(Form::from).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<Record>, D::Error> {
        let form = Option::<Form>::deserialize(from)?;
        form.map(Form::into_record).transpose().map_err(serde::de::Error::custom)
    }
}

/// A boot id as the kernel writes it, or null.
pub(super) mod boot {
    use replication::BootId;

    use super::{Deserialize, Serialize, Uuid};

    pub(in super::super) fn serialize<S: serde::Serializer>(boot: &Option<BootId>, to: S) -> Result<S::Ok, S::Error> {
        boot.map(|boot| Uuid::from_u128(boot.0)).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<BootId>, D::Error> {
        Ok(Option::<Uuid>::deserialize(from)?.map(|boot| BootId(boot.as_u128())))
    }
}

/// RFC 3339, UTC, with microseconds.
pub(super) mod time {
    use chrono::{DateTime, SecondsFormat, Utc};

    use super::{Deserialize, Serialize};

    pub(in super::super) fn serialize<S: serde::Serializer>(at: &DateTime<Utc>, to: S) -> Result<S::Ok, S::Error> {
        at.to_rfc3339_opts(SecondsFormat::Micros, true).serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::deserialize(from)
    }
}
