//! `tandem incident show`: the whole story of one incident.

use chrono::{DateTime, Utc};

use super::words::since;
use super::{Paint, Table, bar, counts, gates, held_by, lasted, of_phase, offset, precisely, released_by, when};
use crate::answer::{Event, Incident, Move, Receipt, Restart, Text};

const BAR_WIDTH: u64 = 20;

pub(crate) fn text(incident: &Incident, now: DateTime<Utc>, paint: Paint) -> String {
    let mut lines = head(incident, now, paint);
    section(&mut lines, "GATES", gates(&incident.gates, paint), paint);
    section(&mut lines, "RECEIPTS", incident.receipts.iter().flat_map(|one| receipt(one, paint)).collect(), paint);
    // Nothing is moved after a reboot, nor started after an outage.
    let rebooted = incident.kind.is("reboot");
    if !rebooted || !incident.moves.is_empty() {
        section(&mut lines, "MOVES", moves(&incident.moves, now, paint), paint);
    }
    if rebooted || !incident.restarts.is_empty() {
        section(&mut lines, "RESTARTS", restarts(&incident.restarts, paint), paint);
    }
    section(&mut lines, "TIMELINE", timeline(&incident.timeline, &incident.opened_at, paint), paint);
    lines.join("\n") + "\n"
}

fn head(incident: &Incident, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let mut lines = vec![
        format!("incident {}", incident.id),
        format!("  host       {}, {} {}", incident.host, incident.kind, incident.outage),
        format!("  phase      {}{}", of_phase(paint, incident), outcome(incident)),
        format!("  why        {}", incident.why),
        format!("  opened     {}{}", when(&incident.opened_at), age(incident, now)),
    ];
    if incident.closed_at.get().is_some() {
        lines.push(format!("  closed     {}{}", when(&incident.closed_at), open_for(incident)));
    }
    lines.push(format!("  instances  {} {}", bar(incident.instances, BAR_WIDTH), counts(incident.instances)));
    if let Some(hold) = &incident.hold {
        lines.push(format!("  {}", paint.bad(&held_by(hold))));
        lines.extend(released_by(hold, &incident.id.to_string()).map(|how| format!("  {how}")));
    }
    lines
}

fn outcome(incident: &Incident) -> String {
    match incident.outcome.get() {
        Some(outcome) if !incident.phase.is(outcome) => format!(", {outcome}"),
        _ => String::new(),
    }
}

fn age(incident: &Incident, now: DateTime<Utc>) -> String {
    match since(&incident.opened_at, now) {
        Some(ago) if incident.closed_at.get().is_none() => format!(" ({ago} ago)"),
        _ => String::new(),
    }
}

fn open_for(incident: &Incident) -> String {
    match (incident.opened_at.at(), incident.closed_at.at()) {
        (Some(opened), Some(closed)) => format!(" (after {})", lasted(closed - opened)),
        _ => String::new(),
    }
}

fn section(lines: &mut Vec<String>, title: &str, body: Vec<String>, paint: Paint) {
    lines.extend([String::new(), paint.head(title)]);
    match body.is_empty() {
        true => lines.push("  none".to_owned()),
        false => lines.extend(body),
    }
}

fn receipt(receipt: &Receipt, paint: Paint) -> Vec<String> {
    let Receipt { kind, by, why, read_at, power_epoch, void } = receipt;
    let epoch = power_epoch.get().map_or_else(String::new, |_| format!(", off since {}", precisely(power_epoch)));
    let mut lines = vec![format!("  {kind} by {by}: {why}, read {}{epoch}", precisely(read_at))];
    if let Some(void) = void.get() {
        lines.push(format!("    {}", paint.bad(&format!("VOID: {void}"))));
    }
    lines
}

fn moves(moves: &[Move], now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let head = ["NAME", "STATE", "TO", "TOOK", "TRY", "MIGRATION", "INSTANCE", "MIGRATION ID", "REQUEST", "WHY"];
    let mut table = Table::new(&head);
    for one in moves {
        table.row([
            one.name.to_string(),
            state(&one.state, paint),
            one.to.to_string(),
            took(one, now),
            one.attempt.to_string(),
            one.migration_status.to_string(),
            one.instance.to_string(),
            one.migration.to_string(),
            one.request_id.to_string(),
            one.why.to_string(),
        ]);
    }
    if moves.is_empty() { Vec::new() } else { table.without_silent_columns().lines("  ", paint) }
}

/// Guests that the reboot stopped, and what became of each.
fn restarts(restarts: &[Restart], paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["NAME", "STATE", "TRY", "ASKED", "INSTANCE", "REQUEST", "WHY"]);
    for one in restarts {
        table.row([
            one.name.to_string(),
            state(&one.state, paint),
            one.attempt.to_string(),
            when(&one.asked_at),
            one.instance.to_string(),
            one.request_id.to_string(),
            one.why.to_string(),
        ]);
    }
    if restarts.is_empty() { Vec::new() } else { table.without_silent_columns().lines("  ", paint) }
}

fn state(state: &Text, paint: Paint) -> String {
    match state.get() {
        Some(good @ ("moved" | "running")) => paint.good(good),
        Some("named") => paint.bad("named"),
        _ => state.to_string(),
    }
}

/// From the intent to the end, or until now.
fn took(one: &Move, now: DateTime<Utc>) -> String {
    match (one.intended_at.at(), one.ended_at.at()) {
        (Some(intended), Some(ended)) => lasted(ended - intended),
        (Some(_), None) if one.state.is("moving") => since(&one.intended_at, now).unwrap_or_default() + " ...",
        _ => "-".to_owned(),
    }
}

/// One line each, with the seconds since the incident was opened. Of fixed widths: --follow prints them one by one.
pub(crate) fn timeline(events: &[Event], opened_at: &Text, paint: Paint) -> Vec<String> {
    let line = |event: &Event| {
        let kind = format!("{:<8}", event.kind);
        let kind = if event.kind.is("hold") { paint.bad(&kind) } else { kind };
        format!("  {}  {:>9}  {kind}  {}", precisely(&event.at), offset(&event.at, opened_at), event.text)
    };
    events.iter().map(line).collect()
}
