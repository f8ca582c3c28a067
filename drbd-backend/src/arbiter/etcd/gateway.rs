//! The few messages of etcd's KV API that are needed, as its JSON gateway writes them: bytes in base64, 64-bit numbers as text, and
//! whatever is zero or false left out.
//!
//! etcd ignores fields that it does not know, so a misspelt `compare` would make a change unconditional: the tests ask a real etcd.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::Misform;

/// What must hold for a change to be made.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    Absent,
    Is(&'a str),
}

/// `TxnRequest`.
#[derive(Debug, Serialize)]
pub(super) struct Transaction {
    compare: Vec<Compare>,
    success: Vec<Operation>,
    failure: Vec<Operation>,
}

impl Transaction {
    /// Without a condition, and reading only: etcd answers it linearizably.
    pub(super) fn read(ranges: Vec<Range>) -> Self {
        let success = ranges.into_iter().map(Operation::Range).collect();
        Self { compare: Vec::new(), success, failure: Vec::new() }
    }

    /// Otherwise what is there is read.
    pub(super) fn put(key: &str, condition: Condition<'_>, value: &str) -> Self {
        Self::on(key, condition, Operation::Put { key: key.into(), value: value.into() })
    }

    /// Otherwise what is there is read.
    pub(super) fn delete(key: &str, condition: Condition<'_>) -> Self {
        Self::on(key, condition, Operation::Delete { key: key.into() })
    }

    fn on(key: &str, condition: Condition<'_>, operation: Operation) -> Self {
        let compare = vec![Compare::new(key, condition)];
        Self { compare, success: vec![operation], failure: vec![Operation::Range(Range::of(key))] }
    }
}

#[derive(Debug, Serialize)]
struct Compare {
    key: Bytes,
    result: &'static str,
    #[serde(flatten)]
    target: Target,
}

#[derive(Debug, Serialize)]
#[serde(tag = "target")]
enum Target {
    /// A key that is not there has revision 0 ("API reference", `Compare`).
    #[serde(rename = "CREATE")]
    Create { create_revision: &'static str },
    #[serde(rename = "VALUE")]
    Value { value: Bytes },
}

impl Compare {
    fn new(key: &str, condition: Condition<'_>) -> Self {
        let target = match condition {
            Condition::Absent => Target::Create { create_revision: "0" },
            Condition::Is(value) => Target::Value { value: value.into() },
        };
        Self { key: key.into(), result: "EQUAL", target }
    }
}

#[derive(Debug, Serialize)]
enum Operation {
    #[serde(rename = "request_range")]
    Range(Range),
    #[serde(rename = "request_put")]
    Put { key: Bytes, value: Bytes },
    #[serde(rename = "request_delete_range")]
    Delete { key: Bytes },
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct Range {
    key: Bytes,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<Bytes>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<String>,
}

impl Range {
    pub(super) fn of(key: &str) -> Self {
        Self { key: key.into(), range_end: None, limit: None }
    }

    /// From `start` to before `end`, in the order of the keys.
    pub(super) fn between(start: &str, end: &str, limit: u32) -> Self {
        Self { key: start.into(), range_end: Some(end.into()), limit: Some(limit.to_string()) }
    }
}

/// `TxnResponse`. An answer without a header is none of etcd's.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    header: Header,
    #[serde(default)]
    succeeded: bool,
    #[serde(default)]
    responses: Vec<Response>,
}

#[derive(Debug, Deserialize)]
struct Header {
    #[serde(deserialize_with = "number")]
    cluster_id: u64,
}

#[derive(Debug, Deserialize)]
struct Response {
    response_range: Option<Ranged>,
}

#[derive(Debug, Deserialize)]
struct Ranged {
    #[serde(default)]
    kvs: Vec<Pair>,
}

/// One key with its value.
#[derive(Debug, Deserialize)]
pub(super) struct Pair {
    key: Bytes,
    #[serde(default)]
    value: Bytes,
}

impl Answer {
    /// The condition held, and the change was made.
    pub(super) fn succeeded(&self) -> bool {
        self.succeeded
    }

    pub(super) fn cluster(&self) -> u64 {
        self.header.cluster_id
    }

    /// The first key of the first range that was read.
    pub(super) fn first(&self) -> Option<&Pair> {
        self.responses.first()?.response_range.as_ref()?.kvs.first()
    }

    pub(super) fn into_ranges(self) -> impl Iterator<Item = Vec<Pair>> {
        self.responses.into_iter().map(|response| response.response_range.map_or_else(Vec::new, |range| range.kvs))
    }
}

impl Pair {
    pub(super) fn name(&self) -> Result<String, Misform> {
        self.key.text()
    }

    pub(super) fn text(&self) -> Result<String, Misform> {
        self.value.text()
    }
}

/// Base64.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
struct Bytes(String);

impl From<&str> for Bytes {
    fn from(text: &str) -> Self {
        Self(STANDARD.encode(text))
    }
}

impl Bytes {
    fn text(&self) -> Result<String, Misform> {
        Ok(std::str::from_utf8(&STANDARD.decode(&self.0)?)?.to_owned())
    }
}

fn number<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    String::deserialize(from)?.parse().map_err(de::Error::custom)
}
