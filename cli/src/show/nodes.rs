//! `tandem node`, `tandem pool` and `tandem arbiter`: nodes, fenced hosts, pools, the register.

use chrono::{DateTime, Utc};

use super::volumes::not_reached;
use super::words::since;
use super::{Paint, Table, amount, names, when};
use crate::node::answer::{Arbiter, Dead, Fences, Node, Pools};

pub(crate) fn list(nodes: &[Node], now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["NODE", "STATE", "VERSION", "UP", "VOLUMES", "BOOT ID", "REST", "WHY"]);
    for node in nodes {
        table.row([
            node.name.to_string(),
            state(node, paint),
            node.version.to_string(),
            since(&node.started_at, now).unwrap_or_else(|| "-".to_owned()),
            node.volumes.to_string(),
            node.boot_id.to_string(),
            node.rest.to_string(),
            node.why.to_string(),
        ]);
    }
    let mut lines = table.without_silent_columns().lines("", paint);
    lines.extend(nodes.iter().filter_map(|node| node.dead.as_ref().map(|dead| vouched(node, dead))));
    lines
}

pub(crate) fn one(node: &Node, now: DateTime<Utc>, paint: Paint) -> Vec<String> {
    let up = since(&node.started_at, now).map_or_else(String::new, |up| format!(" ({up} ago)"));
    let why = node.why.get().map_or_else(String::new, |why| format!(": {why}"));
    let mut lines = vec![
        format!("node {}", node.name),
        format!("  state    {}{why}", state(node, paint)),
        format!("  version  {}", node.version),
        format!("  started  {}{up}", when(&node.started_at)),
        format!("  boot id  {}", node.boot_id),
        format!("  REST     {}", node.rest),
        format!("  peers    {}", node.peers),
        format!("  volumes  {}", node.volumes),
    ];
    lines.extend(node.dead.as_ref().map(|dead| vouched(node, dead)));
    lines
}

fn state(node: &Node, paint: Paint) -> String {
    match (&node.dead, node.reached) {
        (Some(_), _) => paint.bad("dead"),
        (None, true) => paint.good("reached"),
        (None, false) => paint.bad("NOT REACHED"),
    }
}

/// Whose word it is that a boot has ended.
fn vouched(node: &Node, dead: &Dead) -> String {
    format!("  {}: boot {} dead since {} by {}: {}", node.name, dead.boot_id, when(&dead.at), dead.by, dead.why)
}

pub(crate) fn fences(fences: &Fences, paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["HOST", "SINCE", "BY", "WHY"]);
    for fence in &fences.fences {
        table.row([fence.host.to_string(), when(&fence.at), fence.by.to_string(), fence.why.to_string()]);
    }
    if fences.fences.is_empty() { vec!["no host is fenced".to_owned()] } else { table.lines("", paint) }
}

pub(crate) fn pools(pools: &Pools, paint: Paint) -> Vec<String> {
    let mut table = Table::new(&["NODE", "POOL", "SIZE", "FREE", "STATE", "VOLUMES", "PATH"]);
    for pool in &pools.pools {
        table.row([
            pool.node.to_string(),
            pool.name.to_string(),
            amount(pool.size_bytes),
            amount(pool.free_bytes),
            if pool.full { paint.bad("FULL: writes wait") } else { paint.good("has room") },
            pool.volumes.to_string(),
            pool.path.to_string(),
        ]);
    }
    let mut lines = if pools.pools.is_empty() { vec!["no pools".to_owned()] } else { table.lines("", paint) };
    lines.extend(not_reached(&pools.unreachable, paint));
    lines
}

pub(crate) fn arbiter(arbiter: &Arbiter, paint: Paint) -> Vec<String> {
    let took = arbiter.latency_ms.map_or_else(String::new, |took| format!(" in {took:.1} ms"));
    let why = arbiter.why.get().map_or_else(String::new, |why| format!(": {why}"));
    let state = match arbiter.reached {
        true => format!("{}{took}{why}", paint.good("answers")),
        false => format!("{}{why}", paint.bad("NOT REACHED")),
    };
    vec![
        format!("arbiter, {}, at {}", arbiter.kind, names(&arbiter.at).unwrap_or_else(|| "-".to_owned())),
        format!("  state        {state}"),
        format!("  records      {}", arbiter.records),
        format!("  incarnation  {}", arbiter.incarnation),
    ]
}
