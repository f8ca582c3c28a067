//! `tandem status`: armed or not, seeing or not, the hosts, the open incidents.

use chrono::{DateTime, Utc};

use super::words::since;
use super::{Paint, Table, bar, beginning, counts, held_by, of_phase, of_standing, released_by, short, when};
use crate::address::Address;
use crate::answer::{Channel, Host, Hosts, Incident, Nova, Power, Status};

const BAR_WIDTH: u64 = 20;

pub(crate) fn text(status: &Status, address: &Address, now: DateTime<Utc>, paint: Paint) -> String {
    let mut text = lines(status, address, now, paint).join("\n");
    text.push('\n');
    text
}

pub(crate) fn lines(status: &Status, address: &Address, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let Status { hosts, incidents, more } = status;
    let ids: Vec<&str> = incidents.iter().filter_map(|incident| incident.id.get()).collect();
    let digits = short(&ids);
    let mut lines = vec![format!("tandem-ha at {address}"), armed(hosts, paint)];
    lines.extend(armed_by(hosts));
    lines.extend([view(hosts, now, paint), String::new()]);
    lines.extend(table(hosts, digits, now, paint));
    lines.extend(notes(hosts));
    lines.push(String::new());
    match incidents.is_empty() {
        true => lines.push("no open incidents".to_owned()),
        false => lines.push(paint.head("OPEN INCIDENTS")),
    }
    lines.extend(incidents.iter().flat_map(|incident| open(incident, digits, now, paint)));
    if *more {
        lines.push(paint.bad(&format!("MORE INCIDENTS ARE OPEN: these are the newest {}", incidents.len())));
        lines.push("`tandem incidents --host HOST` lists those of one host".to_owned());
    }
    lines
}

fn armed(hosts: &Hosts, paint: Paint) -> String {
    match hosts.armed {
        Some(true) => format!("{}: dead hosts are fenced and their instances evacuated", paint.good("armed")),
        Some(false) => format!("{}: nothing is fenced or evacuated until `tandem arm`", paint.bad("DISARMED")),
        None => format!("{}: the answer does not say whether it is armed", paint.warn("armed?")),
    }
}

/// Since when it is so, by whom, and why it was disarmed.
fn armed_by(hosts: &Hosts) -> Option<String> {
    let last = hosts.armed_by.as_ref()?;
    let word = if hosts.armed? { "armed" } else { "disarmed" };
    let why = last.why.get().filter(|why| *why != word).map_or_else(String::new, |why| format!(": {why}"));
    Some(format!("  {word} since {} by {}{why}", when(&last.at), last.by))
}

fn view(hosts: &Hosts, now: DateTime<Utc>, paint: Paint) -> String {
    let view = &hosts.view;
    let nova = match since(&view.nova_answered_at, now) {
        Some(ago) => format!("Nova answered {ago} ago"),
        None => "Nova has not answered yet".to_owned(),
    };
    let why = view.why.get().filter(|why| **why != nova).map_or_else(String::new, |why| format!("{why}; "));
    match view.sees {
        Some(true) => format!("{}: {why}{nova}", paint.good("sees")),
        Some(false) => format!("{}: {why}{nova}; nothing is decided while it does not see", paint.bad("BLIND")),
        None => format!("{}: the answer does not say whether it sees; {why}{nova}", paint.warn("sees?")),
    }
}

fn table(hosts: &Hosts, digits: usize, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    if hosts.hosts.is_empty() && hosts.view.nova_answered_at.get().is_none() {
        return vec!["no hosts yet: Nova has not answered; tandem-ha's log says why".to_owned()];
    }
    if hosts.hosts.is_empty() {
        return vec!["no hosts: Nova lists no nova-compute that Tandem watches".to_owned()];
    }
    let mut table = Table::new(&["HOST", "STANDING", "NOVA", "CHANNELS", "POWER", "INCIDENT", "WHY"]);
    for host in &hosts.hosts {
        table.row([
            host.name.to_string(),
            of_standing(paint, &host.standing.to_string()),
            host.nova.as_ref().map_or_else(|| "-".to_owned(), nova),
            channels(host, now),
            host.power.as_ref().map_or_else(|| "-".to_owned(), power),
            host.incident.get().map_or("-", |id| beginning(id, digits)).to_owned(),
            host.why.to_string(),
        ]);
    }
    table.lines("", paint)
}

fn nova(nova: &Nova) -> String {
    let mut text = nova.state.to_string();
    if nova.forced_down {
        text.push_str(", forced");
    }
    if nova.status.get().is_some_and(|status| status != "enabled") {
        text.push_str(&format!(", {}", nova.status));
    }
    text
}

/// Those that are silent are named; those that live are only counted.
fn channels(host: &Host, now: DateTime<Utc>) -> String {
    if host.channels.is_empty() {
        return "none".to_owned();
    }
    let silent: Vec<&Channel> = host.channels.iter().filter(|channel| !channel.alive).collect();
    let counted = format!("{} of {}", host.channels.len() - silent.len(), host.channels.len());
    if silent.is_empty() {
        return counted;
    }
    let silent: Vec<String> = silent.into_iter().map(|channel| silence(channel, now)).collect();
    format!("{counted}: {}", silent.join(", "))
}

/// A channel that never showed life while the host was well proves nothing by its silence.
fn silence(channel: &Channel, now: DateTime<Utc>) -> String {
    let name = format!("{} {}", channel.network, channel.kind);
    match since(&channel.last_at, now) {
        Some(span) if channel.proven == Some(false) => format!("{name} silent {span} (unproven)"),
        Some(span) => format!("{name} silent {span}"),
        None => format!("{name} never heard"),
    }
}

fn power(power: &Power) -> String {
    match power.bound {
        Some(false) if !power.state.is("none") => format!("{}, not bound", power.state),
        _ => power.state.to_string(),
    }
}

/// What would make the table too wide.
fn notes(hosts: &Hosts) -> Vec<String> {
    let mut notes = Vec::new();
    for host in &hosts.hosts {
        if let Some(why) = host.power.as_ref().and_then(|power| power.why.get()) {
            notes.push(format!("  {}: power: {why}", host.name));
        }
        if let Some(why) = host.nova.as_ref().and_then(|nova| nova.disabled_reason.get()) {
            notes.push(format!("  {}: disabled: {why}", host.name));
        }
    }
    notes
}

fn open(incident: &Incident, digits: usize, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let id = beginning(incident.id.get().unwrap_or("-"), digits);
    let age = since(&incident.opened_at, now).map_or_else(String::new, |age| format!(", opened {age} ago"));
    let mut lines = vec![
        format!(
            "{}  {id}  {}  {} {}",
            incident.host,
            of_phase(paint, incident),
            bar(incident.instances, BAR_WIDTH),
            counts(incident.instances),
        ),
        format!("  {}{age}", incident.why),
    ];
    if let Some(hold) = &incident.hold {
        lines.push(format!("  {}", paint.bad(&held_by(hold))));
        lines.extend(released_by(hold, id).map(|how| format!("  {how}")));
    }
    lines
}
