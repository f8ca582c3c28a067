//! Turns answers into text. Nothing here asks, waits or prints.

pub(crate) mod incident;
pub(crate) mod incidents;
pub(crate) mod nodes;
pub(crate) mod plan;
pub(crate) mod status;
mod table;
pub(crate) mod volume;
pub(crate) mod volumes;
mod words;

use crate::answer::{Gate, Hold, Incident};

pub(crate) use table::{Paint, Table};
pub(crate) use words::{amount, bar, counts, in_short, lasted, names, offset, precisely, progress, when};

/// Why an incident does not go on, in one sentence.
pub(crate) fn held_by(hold: &Hold) -> String {
    format!("HELD by the gate \"{}\" since {}: {}", hold.gate, when(&hold.since), hold.why)
}

/// How an operator lets it go on, where one command does. Elsewhere the hold's own reason says what is to be done: nobody can overrule
/// that tandem-ha is blind, or that a host still lives.
fn released_by(hold: &Hold, id: &str) -> Option<String> {
    match hold.gate.get()? {
        "mass failure" | "flapping" | "maintenance" => {
            Some(format!("`tandem release {id} --reason ...` overrules the gate"))
        }
        "armed" => Some("`tandem arm` lets it go on".to_owned()),
        _ => None,
    }
}

/// The colour of a host's standing or an incident's phase. Words that we do not know have none.
fn of_standing(paint: Paint, word: &str) -> String {
    match word {
        "well" | "settled" | "recovered" | "closed" => paint.good(word),
        "partly silent" | "suspected" | "returning" | "no data" | "partly recovered" | "host returned"
        | "reintegrating" | "restarting guests" => paint.warn(word),
        "confirmed" | "fencing" | "fenced" | "forced down" | "evacuating" | "held" => paint.bad(word),
        other => other.to_owned(),
    }
}

fn of_phase(paint: Paint, incident: &Incident) -> String {
    of_standing(paint, &incident.phase.to_string())
}

/// One row each: the verdict stands first, so that a NO is found at a glance.
fn gates(gates: &[Gate], paint: Paint) -> Vec<String> {
    let mut table = Table::without_head();
    for gate in gates {
        let verdict = if gate.says_no() { paint.bad("NO") } else { paint.good("yes") };
        table.row([verdict, gate.gate.to_string(), gate.why.or_empty().to_owned()]);
    }
    table.lines("  ", paint)
}

/// So many digits that no two of these ids look the same; 8 at least.
fn short(ids: &[&str]) -> usize {
    const AT_LEAST: usize = 8;
    let longest = ids.iter().map(|id| id.len()).max().unwrap_or(AT_LEAST);
    let distinct = |digits: &usize| {
        let cut: std::collections::BTreeSet<&str> = ids.iter().map(|id| beginning(id, *digits)).collect();
        cut.len() == ids.iter().collect::<std::collections::BTreeSet<_>>().len()
    };
    (AT_LEAST..longest).find(distinct).unwrap_or(longest.max(AT_LEAST))
}

fn beginning(id: &str, digits: usize) -> &str {
    id.char_indices().nth(digits).map_or(id, |(end, _)| &id[..end])
}
