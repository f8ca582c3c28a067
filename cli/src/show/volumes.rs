//! `tandem volume list`: one row each, in DRBD's words.

use super::{Paint, Table, amount, in_short, names};
use crate::answer::Text;
use crate::node::answer::{Replica, Volume, Volumes};

pub(crate) fn lines(volumes: &Volumes, paint: Paint) -> Vec<String> {
    let mut lines = if volumes.volumes.is_empty() {
        vec!["no volumes; `tandem volume create NAME --size 10G` makes one".to_owned()]
    } else {
        table(&volumes.volumes, paint)
    };
    lines.extend(not_reached(&volumes.unreachable, paint));
    lines
}

/// What the list may lack.
pub(super) fn not_reached(nodes: &[Text], paint: Paint) -> Option<String> {
    let names = names(nodes)?;
    Some(paint.bad(&format!("NOT REACHED: {names}; what only they know is missing")))
}

fn table(volumes: &[Volume], paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["NAME", "SIZE", "ROLES", "DISKS", "PRIMARY", "STATE"]);
    for volume in volumes {
        table.row([
            volume.name.to_string(),
            amount(volume.size_bytes),
            roles(volume),
            disks(volume, paint),
            volume.primary.to_string(),
            whole_state(volume, paint),
        ]);
    }
    table.lines("", paint)
}

/// "db-1  Primary/Secondary  UpToDate/UpToDate  10 GiB, serving".
pub(crate) fn line(volume: &Volume, paint: Paint) -> String {
    let (roles, disks, size) = (roles(volume), disks(volume, paint), amount(volume.size_bytes));
    format!("{}  {roles}  {disks}  {size}, {}", volume.name, whole_state(volume, paint))
}

pub(crate) fn roles(volume: &Volume) -> String {
    let words: Vec<_> = volume.in_order().iter().map(|replica| replica.role.to_string()).collect();
    if words.is_empty() { "-".to_owned() } else { words.join("/") }
}

pub(crate) fn disks(volume: &Volume, paint: Paint) -> String {
    let words: Vec<_> = volume.in_order().iter().map(|replica| of_disk(&replica.disk, paint)).collect();
    if words.is_empty() { "-".to_owned() } else { words.join("/") }
}

pub(super) fn of_disk(disk: &Text, paint: Paint) -> String {
    let word = disk.to_string();
    match word.as_str() {
        "UpToDate" => paint.good(&word),
        "Outdated" | "Inconsistent" => paint.warn(&word),
        "Failed" | "Diskless" => paint.bad(&word),
        _ => word,
    }
}

fn whole_state(volume: &Volume, paint: Paint) -> String {
    let of_replicas = volume.in_order().into_iter().flat_map(|replica| {
        let copies = replica.resync.map(|resync| format!("{} {} {}", replica.node, replica.disk, in_short(resync)));
        copies.map(|text| paint.warn(&text)).into_iter().chain(wrong(replica, paint))
    });
    std::iter::once(state(volume, paint)).chain(of_replicas).collect::<Vec<_>>().join("; ")
}

/// Whether it serves, and if not, why.
pub(super) fn state(volume: &Volume, paint: Paint) -> String {
    let why = volume.why.get().map_or_else(String::new, |why| format!(": {why}"));
    match volume.state.get() {
        Some(word) if word != "ready" => paint.warn(&format!("{word}{why}")),
        _ if volume.serving => paint.good("serving"),
        _ if volume.primary.get().is_some() => paint.bad(&format!("frozen{why}")),
        _ => paint.warn(&format!("no Primary{why}")),
    }
}

/// What is wrong with one replica, besides its disk's state.
pub(super) fn wrong(replica: &Replica, paint: Paint) -> Option<String> {
    let Replica { node, reached, suspect, full, .. } = replica;
    let words = [(!reached, "not reached"), (*suspect, "suspect: may have lost its cache"), (*full, "POOL FULL")];
    let words: Vec<_> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    (!words.is_empty()).then(|| paint.bad(&format!("{node} {}", words.join(", "))))
}
