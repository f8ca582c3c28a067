//! `/v2/hosts`: how each host stands, and what is known of it.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use failover::{
    Arming, Channel, ChannelKind, Host, HostRecord, HostSeen, Incident, NovaSeen, Power, ServiceSeen, standing,
};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::view::sees;
use super::{Api, ApiError, At};
use crate::desk::Board;
use crate::store::incident_uuid;

#[derive(Debug, Serialize)]
struct ArmingAnswer<'a> {
    by: &'a str,
    why: &'a str,
    at: At,
}

#[derive(Debug, Serialize)]
struct HostAnswer<'a> {
    name: &'a str,
    id: Uuid,
    standing: &'static str,
    why: String,
    incident: Option<Uuid>,
    nova: NovaAnswer<'a>,
    channels: Vec<ChannelAnswer<'a>>,
    power: PowerAnswer<'a>,
    boot_id: Option<String>,
}

#[derive(Debug, Default, Serialize)]
struct NovaAnswer<'a> {
    state: &'static str,
    status: Option<&'static str>,
    disabled_reason: Option<&'a str>,
    forced_down: Option<bool>,
    reported_at: Option<At>,
}

#[derive(Debug, Serialize)]
struct ChannelAnswer<'a> {
    network: &'a str,
    kind: &'static str,
    alive: bool,
    last_at: Option<At>,
    proven: bool,
}

#[derive(Debug, Serialize)]
struct PowerAnswer<'a> {
    state: &'static str,
    bound: bool,
    read_at: Option<At>,
    why: Option<&'a str>,
}

pub(super) async fn list(State(api): State<Api>) -> Json<Value> {
    let board = api.desk.board();
    let why = sees(&api, &board).err();
    let answered = board.seen.view.nova_answered.map(At);
    let view = json!({ "sees": why.is_none(), "why": why, "nova_answered_at": answered });
    let ledger = &board.ledger;
    let armed_by = ledger.arming.as_ref().map(arming);
    Json(json!({ "armed": ledger.armed, "armed_by": armed_by, "view": view, "hosts": hosts(&board) }))
}

/// Who armed or disarmed last.
fn arming(last: &Arming) -> ArmingAnswer<'_> {
    ArmingAnswer { by: &last.by, why: &last.why, at: At(last.at) }
}

/// By their names: all that Nova lists, and those it lists no more while an incident of theirs is open.
fn hosts(board: &Board) -> Vec<HostAnswer<'_>> {
    let mut hosts: Vec<&Host> = known(board).into_iter().collect();
    hosts.sort_by_key(|host| (&host.name, host.service));
    hosts.into_iter().map(|host| answer(board, host)).collect()
}

fn known(board: &Board) -> BTreeSet<&Host> {
    board.seen.hosts.keys().chain(board.ledger.open_incidents().map(Incident::host)).collect()
}

/// The one host of this name, or of this uuid: a name may be shared by two services, of which Nova forgets neither.
pub(super) fn find(board: &Board, wanted: &str) -> Result<Host, ApiError> {
    let uuid = Uuid::parse_str(wanted).ok().map(|id| id.as_u128());
    let hosts = known(board);
    let found: Vec<&Host> =
        hosts.into_iter().filter(|host| *host.name == *wanted || Some(host.service) == uuid).collect();
    match found.as_slice() {
        [host] => Ok((*host).clone()),
        [] if board.seen.view.nova_answered.is_none() => {
            let message = format!("whether there is a host {wanted:?} is not known yet: Nova has not answered");
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message))
        }
        [] => Err(ApiError::not_found(format!("there is no host {wanted:?}: Nova lists no such compute service"))),
        several => {
            let ids: Vec<String> = several.iter().map(|host| Uuid::from_u128(host.service).to_string()).collect();
            let ids = ids.join(" and ");
            Err(ApiError::conflict(format!(
                "the compute services {ids} are all called {wanted:?}: name one by its uuid"
            )))
        }
    }
}

fn answer<'a>(board: &'a Board, host: &'a Host) -> HostAnswer<'a> {
    let (seen, record) = (board.seen.hosts.get(host), board.ledger.hosts.get(host));
    let incident = board.ledger.open_incident(host);
    let boot = seen.and_then(|seen| seen.boot).map(|boot| boot.id).or(record.and_then(|record| record.boot));
    let (standing, why) = stands(board, host, incident);
    HostAnswer {
        name: &host.name,
        id: Uuid::from_u128(host.service),
        standing,
        why,
        incident: incident.map(|incident| incident_uuid(&incident.id)),
        nova: nova(seen.map(|seen| &seen.nova)),
        channels: seen.map_or_else(Vec::new, |seen| channels(board, seen, record)),
        power: power(seen, record),
        boot_id: boot.map(|boot| boot.to_string()),
    }
}

fn stands(board: &Board, host: &Host, incident: Option<&Incident>) -> (&'static str, String) {
    if let Some(standing) = standing(board.now, &board.seen, &board.ledger, &board.policy, host) {
        return (standing.word, standing.why);
    }
    match incident.and_then(|incident| incident.hold.as_ref()) {
        Some(hold) => ("held", format!("{}: {}", hold.gate.word(), hold.why)),
        None => ("no data", "Nova does not list its compute service".to_owned()),
    }
}

fn nova(seen: Option<&NovaSeen>) -> NovaAnswer<'_> {
    match seen {
        Some(NovaSeen::Listed(service)) => listed(service),
        Some(NovaSeen::NoData) | None => NovaAnswer { state: "no data", ..NovaAnswer::default() },
    }
}

fn listed(service: &ServiceSeen) -> NovaAnswer<'_> {
    NovaAnswer {
        state: if service.up { "up" } else { "down" },
        status: Some(if service.disabled.is_some() { "disabled" } else { "enabled" }),
        disabled_reason: service.disabled.as_deref(),
        forced_down: Some(service.forced_down),
        reported_at: service.reported.map(At),
    }
}

fn channels<'a>(board: &Board, seen: &'a HostSeen, record: Option<&HostRecord>) -> Vec<ChannelAnswer<'a>> {
    let one = |channel: &'a Channel| ChannelAnswer {
        network: &channel.network,
        kind: match channel.kind {
            ChannelKind::Heartbeat => "heartbeat",
            ChannelKind::Tcp => "tcp",
        },
        alive: is_alive(board, channel),
        last_at: channel.last.map(At),
        proven: channel.last.is_some()
            || record.is_some_and(|record| record.proven.contains(&(channel.network.clone(), channel.kind))),
    };
    seen.channels.iter().map(one).collect()
}

/// As the core judges silence: not before we have watched for so long.
fn is_alive(board: &Board, channel: &Channel) -> bool {
    channel
        .last
        .is_some_and(|last| board.now.since(last.max(board.seen.view.unbroken_since)) < board.policy.suspect_after)
}

fn power<'a>(seen: Option<&'a HostSeen>, record: Option<&HostRecord>) -> PowerAnswer<'a> {
    let bound = record.is_some_and(|record| record.bound.is_some());
    let (state, read_at, why) = match seen.map(|seen| &seen.power.reading) {
        None | Some(Power::Absent) => ("none", None, None),
        Some(Power::Unknown { why, .. }) => ("unknown", None, Some(&**why)),
        Some(Power::On { at }) => ("on", Some(At(*at)), None),
        Some(Power::Off { at, .. }) => ("off", Some(At(*at)), None),
    };
    PowerAnswer { state, bound, read_at, why }
}
