//! Figures of this node in Prometheus' text format, version 0.0.4. `docs/node-api.md` has the table.

mod text;

use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use replication::{BLOCK_BYTES, DiskState, PeerStatus, Role};
use uuid::Uuid;

use self::text::Text;
use super::caller::Caller;
use super::error::Problem;
use super::state::{Definition, State};
use crate::engine::Seen;
use crate::identity::Action;

pub(super) async fn show(Shared(state): Shared<State>, caller: Caller) -> Result<Response, Problem> {
    caller.may(Action::Read)?;
    let mut text = Text::default();
    node(&state, &mut text);
    for (name, path) in state.pools() {
        pool(name, path, &mut text);
    }
    for definition in state.definitions() {
        if let Some(seen) = state.node().look(definition.volume()).await {
            volume(&definition, &seen, &mut text);
        }
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text.finish()).into_response())
}

fn node(state: &State, text: &mut Text) {
    let boot = Uuid::from_u128(state.node().boot().0).to_string();
    let labels = [("node", state.name()), ("version", env!("CARGO_PKG_VERSION")), ("boot_id", boot.as_str())];
    text.gauge("tandem_node_info", "Which node this is.", &labels, 1);
    let watcher = state.watcher();
    let help = "Whether the arbiter's list of fenced hosts could be read when it was tried last.";
    text.gauge("tandem_arbiter_reached", help, &[], u64::from(watcher.is_reached()));
    let version = watcher.known().map_or(0, |fences| fences.version);
    text.gauge("tandem_fences_version", "Version of the list of fenced hosts that is known here.", &[], version);
}

fn pool(name: &str, path: &std::path::Path, text: &mut Text) {
    let Ok(space) = rustix::fs::statvfs(path) else { return };
    let labels = [("pool", name)];
    let size = space.f_blocks.saturating_mul(space.f_frsize);
    text.gauge("tandem_pool_size_bytes", "Size of the pool's file system.", &labels, size);
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    text.gauge("tandem_pool_free_bytes", "Free space of the pool's file system.", &labels, free);
}

fn volume(definition: &Definition, seen: &Seen, text: &mut Text) {
    let (uuid, status) = (definition.uuid.to_string(), &seen.status);
    let labels = [("volume", uuid.as_str()), ("name", definition.name.as_str())];
    let role = role(status.role);
    text.gauge("tandem_volume_role", "1 for the role of this node's replica.", &with(labels, "role", role), 1);
    let disk = disk(status.disk);
    text.gauge("tandem_volume_disk", "1 for the state of its disk, in DRBD's words.", &with(labels, "disk", disk), 1);
    let figures: [(&'static str, &'static str, u64); 7] = [
        ("tandem_volume_serving", "Whether clients are answered here at this moment.", status.serving.into()),
        ("tandem_volume_in_sync", "Replicas that have every acknowledged write.", status.record.in_sync().len().into()),
        ("tandem_volume_replicas", "Replicas that there are.", status.record.members.len().into()),
        ("tandem_volume_requests", "Requests that wait or are under way.", status.requests as u64),
        ("tandem_volume_clients", "NBD clients that have it open.", seen.clients as u64),
        ("tandem_volume_full", "Whether writes wait for space in the pool.", status.full.into()),
        (
            "tandem_volume_suspect",
            "Whether the disk may have lost writes with its host's memory.",
            status.suspect.into(),
        ),
    ];
    for (name, help, value) in figures {
        text.gauge(name, help, &labels, value);
    }
    for status in &status.peers {
        let place = definition.replicas.iter().find(|replica| replica.place == status.node.place());
        let name = place.map_or_else(|| status.node.to_string(), |replica| replica.node.clone());
        peer(&with(labels, "peer", &name), status, text);
    }
}

type Label<'a> = (&'static str, &'a str);

fn with<'a>(labels: [Label<'a>; 2], label: &'static str, value: &'a str) -> [Label<'a>; 3] {
    [labels[0], labels[1], (label, value)]
}

fn peer(labels: &[(&str, &str)], status: &PeerStatus, text: &mut Text) {
    let bytes = |blocks: u64| blocks.saturating_mul(u64::from(BLOCK_BYTES));
    let help = "Whether the peer's replica is connected to this node's.";
    text.gauge("tandem_volume_connected", help, labels, status.connected.into());
    let help = "What the peer's replica lacks, as far as is known here.";
    text.gauge("tandem_volume_missing_bytes", help, labels, bytes(status.missing_blocks));
    if let Some((left, _, _)) = status.resync {
        text.gauge("tandem_volume_resync_left_bytes", "What a resync still has to copy.", labels, bytes(left));
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Unknown => "Unknown",
        Role::Secondary => "Secondary",
        Role::Promoting => "Promoting",
        Role::Primary => "Primary",
    }
}

fn disk(disk: DiskState) -> &'static str {
    match disk {
        DiskState::Failed => "Failed",
        DiskState::Inconsistent => "Inconsistent",
        DiskState::Outdated => "Outdated",
        DiskState::UpToDate => "UpToDate",
        DiskState::Unknown => "Unknown",
    }
}
