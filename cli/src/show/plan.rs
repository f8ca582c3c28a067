//! `tandem plan`: what would be done for a host, gate by gate.

use super::{Paint, Table, gates};
use crate::answer::{Fence, Plan, Planned};

pub(crate) fn text(plan: &Plan, paint: Paint) -> String {
    let mut lines = vec![format!("If {} died now: {}", plan.host, plan.would), String::new(), paint.head("GATES")];
    lines.extend(or_none(gates(&plan.gates, paint)));
    lines.extend([String::new(), paint.head("FENCE")]);
    lines.extend(or_none(fence(&plan.fence, paint)));
    lines.extend([String::new(), paint.head("INSTANCES")]);
    lines.extend(or_none(instances(&plan.instances, paint)));
    lines.join("\n") + "\n"
}

fn or_none(lines: Vec<String>) -> Vec<String> {
    if lines.is_empty() { vec!["  none".to_owned()] } else { lines }
}

/// In the order in which they would be tried.
fn fence(methods: &[Fence], paint: Paint) -> Vec<String> {
    let mut table = Table::without_head();
    for method in methods {
        let ready = if method.ready == Some(true) { paint.good("ready") } else { paint.bad("NOT READY") };
        table.row([method.method.to_string(), ready, method.why.or_empty().to_owned()]);
    }
    table.lines("  ", paint)
}

fn instances(instances: &[Planned], paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["NAME", "WOULD", "INSTANCE", "WHY"]);
    for one in instances {
        let would = one.would.to_string();
        let would = if one.would.is("leave") { paint.warn(&would) } else { would };
        table.row([one.name.to_string(), would, one.instance.to_string(), one.why.to_string()]);
    }
    if instances.is_empty() { Vec::new() } else { table.without_silent_columns().lines("  ", paint) }
}
