//! `tandem volume show`: one volume, on one screen.

use chrono::{DateTime, Utc};

use super::volumes::{of_disk, state, wrong};
use super::words::since;
use super::{Paint, Table, amount, in_short, names, progress, when};
use crate::node::answer::{Attachment, Replica, Volume};

const BAR_WIDTH: u64 = 40;

pub(crate) fn lines(volume: &Volume, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let mut lines = head(volume, now, paint);
    lines.extend([String::new(), paint.head("REPLICAS")]);
    lines.extend(replicas(volume, paint));
    for replica in volume.in_order() {
        lines.extend(resync(replica, paint));
        lines.extend(wrong(replica, paint).map(|text| format!("  {text}")));
    }
    lines.extend([String::new(), paint.head("ATTACHMENTS")]);
    lines.extend(attachments(&volume.attachments, "  ", paint));
    lines
}

fn head(volume: &Volume, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let on = volume.primary.get().map_or_else(String::new, |node| format!(", Primary on {node}"));
    let bytes = volume.size_bytes.map_or_else(String::new, |bytes| format!(" ({bytes} bytes)"));
    let age = since(&volume.created_at, now).map_or_else(String::new, |age| format!(" ({age} ago)"));
    vec![
        format!("volume {}", volume.name),
        format!("  state       {}{on}", state(volume, paint)),
        format!("  size        {}{bytes}", amount(volume.size_bytes)),
        format!("  durability  {}", volume.durability),
        format!("  generation  {}, epoch {}", volume.generation, volume.epoch),
        format!("  uuid        {}", volume.uuid),
        format!("  created     {}{age}", when(&volume.created_at)),
    ]
}

fn replicas(volume: &Volume, paint: Paint) -> Vec<String> {
    let head = ["NODE", "PLACE", "ROLE", "DISK", "IN SYNC", "CONNECTED", "MISSING", "CLIENTS", "REQUESTS", "POOL"];
    let mut table = Table::new(&head);
    for replica in volume.in_order() {
        table.row([
            replica.node.to_string(),
            replica.place.to_string(),
            replica.role.to_string(),
            of_disk(&replica.disk, paint),
            in_sync(replica, paint),
            names(&replica.connected).unwrap_or_else(|| "-".to_owned()),
            replica
                .missing_bytes
                .filter(|bytes| *bytes > 0)
                .map_or_else(|| "-".to_owned(), |bytes| amount(Some(bytes))),
            replica.clients.to_string(),
            replica.requests.to_string(),
            replica.pool.to_string(),
        ]);
    }
    if volume.replicas.is_empty() { vec!["  none".to_owned()] } else { table.lines("  ", paint) }
}

fn in_sync(replica: &Replica, paint: Paint) -> String {
    match replica.in_sync {
        Some(true) => paint.good("yes"),
        Some(false) => paint.warn("no"),
        None => "-".to_owned(),
    }
}

fn resync(replica: &Replica, paint: Paint) -> Option<String> {
    let resync = replica.resync?;
    let (done, total) = (amount(Some(resync.done_bytes())), amount(Some(resync.total_bytes)));
    let bar = progress(resync.done_bytes(), resync.total_bytes, BAR_WIDTH);
    Some(format!("  {} {bar} {done} of {total}, {}", replica.node, paint.warn(&in_short(resync))))
}

pub(crate) fn attachments(attachments: &[Attachment], indent: &str, paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["ID", "HOST", "ACCESS", "STATE", "EPOCH", "INITIATOR", "EXPORT"]);
    for one in attachments {
        table.row([
            one.id.to_string(),
            one.host.to_string(),
            if one.read_only { "read only" } else { "read, write" }.to_owned(),
            if one.revoked { paint.bad("revoked") } else { paint.good("valid") },
            one.epoch.to_string(),
            one.initiator.to_string(),
            one.export.to_string(),
        ]);
    }
    if attachments.is_empty() {
        vec![format!("{indent}none")]
    } else {
        table.without_silent_columns().lines(indent, paint)
    }
}
