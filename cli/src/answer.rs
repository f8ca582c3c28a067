//! The answers of tandem-ha, as far as they are shown; those of tandem-node are in `node/answer.rs`.
//!
//! A newer daemon must not break an older `tandem`: fields that are absent or null are empty, unknown ones are passed
//! over, and a standing or a phase is whatever word the daemon uses.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A text of the daemon's, safe to print. Prints as `-` where there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Text(Option<String>);

impl Text {
    pub(crate) fn get(&self) -> Option<&str> {
        self.0.as_deref()
    }

    pub(crate) fn is(&self, word: &str) -> bool {
        self.get() == Some(word)
    }

    pub(crate) fn or_empty(&self) -> &str {
        self.get().unwrap_or_default()
    }

    /// As a moment, where it is one.
    pub(crate) fn at(&self) -> Option<DateTime<Utc>> {
        DateTime::parse_from_rfc3339(self.get()?).ok().map(|at| at.to_utc())
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.get().unwrap_or("-"))
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(match Value::deserialize(deserializer)? {
            Value::Null => None,
            Value::String(text) => Some(clean(&text)),
            other => Some(clean(&other.to_string())),
        }))
    }
}

/// Without what could steer a terminal: tenants name their instances as they like.
pub(crate) fn clean(text: &str) -> String {
    let steers = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if steers(c) { ' ' } else { c }).collect()
}

pub(crate) fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Armed {
    pub(crate) armed: bool,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hosts {
    #[serde(default)]
    pub(crate) armed: Option<bool>,
    /// None also from a daemon that does not tell.
    #[serde(default)]
    pub(crate) armed_by: Option<Arming>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) view: View,
    pub(crate) hosts: Vec<Host>,
}

/// The last order to arm or disarm.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Arming {
    pub(crate) by: Text,
    pub(crate) why: Text,
    pub(crate) at: Text,
}

/// The hosts and the open incidents, of one look.
#[derive(Debug)]
pub(crate) struct Status {
    pub(crate) hosts: Hosts,
    pub(crate) incidents: Vec<Incident>,
    /// Not all that are open.
    pub(crate) more: bool,
}

impl Status {
    pub(crate) fn held(&self) -> bool {
        let host_is = self.hosts.hosts.iter().any(|host| host.standing.is("held"));
        host_is || self.incidents.iter().any(|incident| incident.hold.is_some())
    }
}

/// Whether the daemon sees the cloud.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct View {
    pub(crate) sees: Option<bool>,
    pub(crate) why: Text,
    pub(crate) nova_answered_at: Text,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Host {
    pub(crate) name: Text,
    pub(crate) standing: Text,
    pub(crate) why: Text,
    pub(crate) incident: Text,
    pub(crate) nova: Option<Nova>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) channels: Vec<Channel>,
    pub(crate) power: Option<Power>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Nova {
    pub(crate) state: Text,
    pub(crate) status: Text,
    pub(crate) disabled_reason: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) forced_down: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Channel {
    pub(crate) network: Text,
    pub(crate) kind: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) alive: bool,
    pub(crate) last_at: Text,
    pub(crate) proven: Option<bool>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Power {
    pub(crate) state: Text,
    pub(crate) bound: Option<bool>,
    pub(crate) why: Text,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Incidents {
    pub(crate) incidents: Vec<Incident>,
    #[serde(default)]
    more: Option<bool>,
}

impl Incidents {
    /// Whether there are more than those that were asked for. A daemon that does not tell has none if it gave fewer.
    pub(crate) fn more(&self, limit: u32) -> bool {
        self.more.unwrap_or(self.incidents.len() as u64 >= u64::from(limit))
    }
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct OneIncident {
    pub(crate) incident: Incident,
}

/// A summary, or the whole of it: then the lists are filled.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Incident {
    pub(crate) id: Text,
    pub(crate) host: Text,
    pub(crate) outage: Text,
    pub(crate) kind: Text,
    pub(crate) phase: Text,
    pub(crate) outcome: Text,
    pub(crate) hold: Option<Hold>,
    pub(crate) opened_at: Text,
    pub(crate) closed_at: Text,
    pub(crate) why: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) instances: Counts,
    #[serde(deserialize_with = "or_default")]
    pub(crate) gates: Vec<Gate>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) receipts: Vec<Receipt>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) moves: Vec<Move>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) restarts: Vec<Restart>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) timeline: Vec<Event>,
}

impl Incident {
    /// Nothing will move any more. The return of the host may still be to come.
    pub(crate) fn settled(&self) -> bool {
        const PHASES: [&str; 5] = ["recovered", "partly recovered", "host returned", "reintegrating", "closed"];
        self.closed_at.get().is_some() || PHASES.iter().any(|phase| self.phase.is(phase))
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Hold {
    pub(crate) gate: Text,
    pub(crate) why: Text,
    pub(crate) since: Text,
}

/// How far the instances of an incident are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Counts {
    pub(crate) total: u64,
    pub(crate) moved: u64,
    pub(crate) moving: u64,
    pub(crate) waiting: u64,
    pub(crate) named: u64,
    /// Of guests that a reboot stopped: started, and seen to run. None: the incident is none of a reboot.
    pub(crate) running: Option<u64>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) asked: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Gate {
    pub(crate) gate: Text,
    pub(crate) passed: Option<bool>,
    pub(crate) why: Text,
}

impl Gate {
    /// What does not say yes says no.
    pub(crate) fn says_no(&self) -> bool {
        self.passed != Some(true)
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Receipt {
    pub(crate) kind: Text,
    pub(crate) by: Text,
    pub(crate) why: Text,
    pub(crate) power_epoch: Text,
    pub(crate) read_at: Text,
    pub(crate) void: Text,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Move {
    pub(crate) instance: Text,
    pub(crate) name: Text,
    pub(crate) state: Text,
    pub(crate) attempt: Text,
    pub(crate) to: Text,
    pub(crate) migration: Text,
    pub(crate) migration_status: Text,
    pub(crate) request_id: Text,
    pub(crate) why: Text,
    pub(crate) intended_at: Text,
    pub(crate) ended_at: Text,
}

/// A guest that a reboot of its host stopped.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Restart {
    pub(crate) instance: Text,
    pub(crate) name: Text,
    pub(crate) state: Text,
    pub(crate) attempt: Text,
    pub(crate) request_id: Text,
    pub(crate) why: Text,
    pub(crate) asked_at: Text,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Event {
    pub(crate) at: Text,
    pub(crate) kind: Text,
    pub(crate) text: Text,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct OnePlan {
    pub(crate) plan: Plan,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Plan {
    pub(crate) host: Text,
    pub(crate) would: Text,
    #[serde(deserialize_with = "or_default")]
    pub(crate) gates: Vec<Gate>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) fence: Vec<Fence>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) instances: Vec<Planned>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Fence {
    pub(crate) method: Text,
    pub(crate) ready: Option<bool>,
    pub(crate) why: Text,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Planned {
    pub(crate) instance: Text,
    pub(crate) name: Text,
    pub(crate) would: Text,
    pub(crate) why: Text,
}
