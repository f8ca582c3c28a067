//! `tandem incidents`: one row each.

use super::{Paint, Table, beginning, counts, of_phase, short, when};
use crate::answer::Incident;

pub(crate) fn text(incidents: &[Incident], more: bool, paint: Paint) -> String {
    let ids: Vec<&str> = incidents.iter().filter_map(|incident| incident.id.get()).collect();
    let digits = short(&ids);
    let mut table = Table::new(&["ID", "HOST", "KIND", "PHASE", "OPENED", "CLOSED", "INSTANCES", "WHY"]);
    for incident in incidents {
        table.row([
            beginning(incident.id.get().unwrap_or("-"), digits).to_owned(),
            incident.host.to_string(),
            incident.kind.to_string(),
            phase(incident, paint),
            when(&incident.opened_at),
            when(&incident.closed_at),
            counts(incident.instances),
            incident.why.to_string(),
        ]);
    }
    let mut lines = table.lines("", paint);
    if more {
        lines.push(format!("... and more: these are the newest {}, --limit N shows others", incidents.len()));
    }
    lines.join("\n") + "\n"
}

/// With what it came to, and with what keeps it from going on.
fn phase(incident: &Incident, paint: Paint) -> String {
    let phase = of_phase(paint, incident);
    match (&incident.hold, incident.outcome.get()) {
        (Some(hold), _) => format!("{phase}, {}", paint.bad(&format!("HELD ({})", hold.gate))),
        (None, Some(outcome)) if !incident.phase.is(outcome) => format!("{phase}, {outcome}"),
        (None, _) => phase,
    }
}
