//! All JSON that passes between OpenStack and us, as the API references describe it, and the quirks of its values.

pub(crate) mod keystone;
pub(crate) mod nova;
pub(crate) mod placement;

use chrono::{DateTime, NaiveDateTime, Utc};
use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

/// An enum of words that OpenStack uses and may add to: a word we do not know is kept in `Other`.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$word_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$word_doc])* $variant,)+
            /// A word that this release does not know.
            Other(String),
        }

        impl $name {
            /// The word as OpenStack writes it.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => Self::$variant,)+
                    _ => Self::Other(word),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                String::deserialize(from).map(Self::from)
            }
        }
    };
}
pub(crate) use words;

/// An id that OpenStack writes as a UUID: safe in a path, not to be mixed up with another thing's.
macro_rules! uuid_ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub uuid::Uuid);

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map(Self)
            }
        }
    )+};
}
pub(crate) use uuid_ids;

/// OpenStack writes times in two ways: with a zone (`…T13:42:05Z`, `…05.000000Z`), and naive (`…05.000000`), which is UTC.
pub(crate) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<DateTime<Utc>, D::Error> {
    let text = String::deserialize(from)?;
    parse_time(&text).ok_or_else(|| de::Error::custom(format!("{text:?} is not a time")))
}

pub(crate) fn maybe_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<DateTime<Utc>>, D::Error> {
    let Some(text) = Option::<String>::deserialize(from)? else { return Ok(None) };
    parse_time(&text).map(Some).ok_or_else(|| de::Error::custom(format!("{text:?} is not a time")))
}

fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    let zoned = || DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc());
    let naive = || NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f").ok().map(|time| time.and_utc());
    zoned().or_else(naive)
}

/// A link of a list; the one called `next` says that there is more.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Link {
    pub(crate) rel: String,
}

pub(crate) fn has_next(links: &[Link]) -> bool {
    links.iter().any(|link| link.rel == "next")
}

/// One page of a list that is read with `limit` and `marker`.
pub(crate) trait Page: serde::de::DeserializeOwned + Send {
    type Item: Send;
    fn has_next(&self) -> bool;
    fn into_items(self) -> Vec<Self::Item>;
    /// What to give as `marker` to read on after this item.
    fn marker(item: &Self::Item) -> Option<String>;
}

/// An item of a list that is read row by row.
pub(crate) trait Row: serde::de::DeserializeOwned {
    /// What stands for a row that cannot be read; none if the whole list is worth nothing then.
    fn unreadable(row: &RawValue, why: String) -> Option<Self>;
}

/// Reads a list row by row, so that one bad row does not hide the others.
pub(crate) fn rows<'de, D: Deserializer<'de>, T: Row>(from: D) -> Result<Vec<T>, D::Error> {
    let raw = Vec::<Box<RawValue>>::deserialize(from)?;
    let read = |row: Box<RawValue>| {
        serde_json::from_str(row.get())
            .or_else(|e| T::unreadable(&row, e.to_string()).ok_or_else(|| de::Error::custom(e)))
    };
    raw.into_iter().map(read).collect()
}

/// The body of an error: Nova `{"badRequest": {"message"}}`, Keystone `{"error": {"message"}}`, Placement and the 406 of all
/// `{"errors": [{"title", "detail"}]}`.
pub(crate) fn error_message(body: &[u8]) -> Option<String> {
    let value: serde_json::Value = serde_json::from_slice(body).ok()?;
    let fault = value.as_object()?.values().next()?;
    let fault = fault.get(0).unwrap_or(fault);
    let text = ["message", "detail", "title"].iter().find_map(|key| fault.get(*key)?.as_str());
    Some(text?.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// The answer of a service's root, or of one of its versions: `{"version": {}}` or `{"versions": [{}]}`.
#[derive(Debug, Deserialize)]
pub(crate) struct Versions {
    #[serde(default)]
    version: Option<Version>,
    #[serde(default)]
    versions: Vec<Version>,
}

/// Nova calls the newest microversion `version`, Placement `max_version`; both write "" where there are none.
#[derive(Debug, Deserialize)]
struct Version {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    max_version: Option<String>,
    #[serde(default)]
    min_version: Option<String>,
}

impl Versions {
    /// None if it speaks of no version at all: then it was not the service that answered.
    pub(crate) fn offered(&self) -> Option<crate::microversion::Offered> {
        use crate::microversion::Offered;
        if self.version.is_none() && self.versions.is_empty() {
            return None;
        }
        let range = |version: &Version| {
            let max = version.max_version.as_ref().or(version.version.as_ref())?.parse().ok()?;
            let min = version.min_version.as_ref()?.parse().ok()?;
            Some(Offered::Range { min, max })
        };
        Some(self.version.iter().chain(&self.versions).find_map(range).unwrap_or(Offered::None))
    }
}

/// Bytes as services sent them, for the tests of this crate. The only place that reads them.
#[cfg(test)]
pub(crate) fn recorded(name: &str) -> Vec<u8> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire").join(name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{} cannot be read: {e}", path.display()))
}

#[cfg(test)]
mod tests;
