//! How things are written down: words, times and ids, and back.

use chrono::{DateTime, SecondsFormat, Utc};
use failover::{ChannelKind, EntryKind, Gate, Outcome, Phase, Proof, Time};
use uuid::Uuid;

/// The last moment that RFC 3339 can write; what is later is written as this.
const END_OF_TIME_MS: i64 = 253_402_300_799_999;

/// UTC with microseconds, of which the last three digits are nought: the core counts milliseconds.
pub(crate) fn rfc3339(at: Time) -> String {
    let ms = i64::try_from(at.0).unwrap_or(END_OF_TIME_MS).min(END_OF_TIME_MS);
    let at = DateTime::<Utc>::from_timestamp_millis(ms).expect("it is before the end of time");
    at.to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn of_rfc3339(text: &str) -> Option<Time> {
    let at = DateTime::parse_from_rfc3339(text).ok()?;
    u64::try_from(at.timestamp_millis()).ok().map(Time)
}

pub(super) fn id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

pub(super) fn of_id(text: &str) -> Option<u128> {
    Uuid::parse_str(text).ok().map(|id| id.as_u128())
}

pub(super) fn channel(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Heartbeat => "heartbeat",
        ChannelKind::Tcp => "tcp",
    }
}

pub(super) fn of_channel(word: &str) -> Option<ChannelKind> {
    [ChannelKind::Heartbeat, ChannelKind::Tcp].into_iter().find(|kind| channel(*kind) == word)
}

pub(super) fn of_phase(word: &str) -> Option<Phase> {
    Phase::ALL.iter().find(|(_, its)| *its == word).map(|(phase, _)| *phase)
}

pub(super) fn of_gate(word: &str) -> Option<Gate> {
    Gate::ALL.iter().find(|(_, its)| *its == word).map(|(gate, _)| *gate)
}

pub(super) fn of_outcome(word: &str) -> Option<Outcome> {
    let all = [Outcome::Recovered, Outcome::PartlyRecovered, Outcome::Cancelled, Outcome::Rebooted];
    all.into_iter().find(|outcome| outcome.word() == word)
}

pub(super) fn of_entry(word: &str) -> Option<EntryKind> {
    use EntryKind as K;
    let all = [K::Evidence, K::Phase, K::Gate, K::Hold, K::Fence, K::Nova, K::Move, K::Operator];
    all.into_iter().find(|kind| kind.word() == word)
}

/// The method that a receipt came by.
pub(crate) fn receipt_kind(proof: &Proof) -> &'static str {
    match proof {
        Proof::PowerOff { .. } => "redfish",
        Proof::Person { .. } => "manual",
    }
}
