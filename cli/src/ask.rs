//! What only reads: one look at tandem-ha, shown.

use chrono::Utc;

use crate::answer::{Gate, Incidents, OneIncident, OnePlan, Status};
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show;

/// As many as the API gives at once.
const MOST: u32 = 1000;
const LATER: &str = "ask again in a moment; `tandem status` says whether Nova answers, `journalctl -u tandem-ha` more";
const LISTED: &str = "`tandem incidents --all` lists them";

pub(crate) async fn look(server: &Server) -> Result<Status, Failure> {
    beside(server, &hosts(server).await?).await
}

/// The hosts of this answer, and the incidents that are open now.
async fn beside(server: &Server, hosts: &Answer) -> Result<Status, Failure> {
    let hosts = hosts.read()?;
    let most = MOST.to_string();
    let open: Incidents = server.get(&["v2", "incidents"], &[("state", "open"), ("limit", &most)]).await?.read()?;
    Ok(Status { hosts, more: open.more(MOST), incidents: open.incidents })
}

pub(crate) async fn hosts(server: &Server) -> Result<Answer, Failure> {
    server.get(&["v2", "hosts"], &[]).await
}

/// JSON is printed before anybody here tries to understand it: it is the way out when we do not.
pub(crate) async fn status(server: &Server, json: bool) -> Result<Ending, Failure> {
    let answer = hosts(server).await?;
    if json {
        out::json(&answer)?;
    }
    let status = beside(server, &answer).await?;
    if !json {
        out::print(&show::status::text(&status, server.address(), Utc::now(), out::paint()))?;
    }
    Ok(Ending::held_if(status.held()))
}

pub(crate) async fn incidents(
    server: &Server,
    all: bool,
    host: Option<String>,
    limit: u32,
    json: bool,
) -> Result<Ending, Failure> {
    let most = limit.to_string();
    let mut query = vec![("state", if all { "all" } else { "open" }), ("limit", &most)];
    query.extend(host.iter().map(|host| ("host", host.as_str())));
    let answer = server.get(&["v2", "incidents"], &query).await?;
    if json {
        out::json(&answer)?;
        return Ok(Ending::Done);
    }
    let list: Incidents = answer.read()?;
    let whose = host.as_deref().map_or_else(String::new, |host| format!(" of {host}"));
    out::print(&match list.incidents.as_slice() {
        [] if all => format!("no incidents{whose}\n"),
        [] => format!("no open incidents{whose}; closed ones: --all\n"),
        some => show::incidents::text(some, list.more(limit), out::paint()),
    })?;
    Ok(Ending::Done)
}

pub(crate) async fn incident(server: &Server, id: &str, json: bool) -> Result<Ending, Failure> {
    let answer = one_incident(server, &whole_id(server, id).await?).await?;
    if json {
        out::json(&answer)?;
        return Ok(Ending::Done);
    }
    let one: OneIncident = answer.read()?;
    out::print(&show::incident::text(&one.incident, Utc::now(), out::paint()))?;
    Ok(Ending::Done)
}

pub(crate) async fn plan(server: &Server, host: &str, json: bool) -> Result<Ending, Failure> {
    let answer = server.get(&["v2", "plan", host], &[]).await.map_err(|failure| no_plan(failure, host))?;
    if json {
        out::json(&answer)?;
    }
    let OnePlan { plan } = answer.read()?;
    if !json {
        out::print(&show::plan::text(&plan, out::paint()))?;
    }
    Ok(Ending::held_if(plan.gates.iter().any(Gate::says_no)))
}

/// A host that there is not; or a plan that cannot be made now, since Nova does not list the instances, or lists them for too many already.
fn no_plan(failure: Failure, host: &str) -> Failure {
    match failure {
        Failure::Refused { call, status: 503, code, message, .. } => {
            Failure::Refused { call, status: 503, code, message, remedy: Some(LATER.to_owned()) }
        }
        other => no_such_host(other, host),
    }
}

pub(crate) async fn one_incident(server: &Server, id: &str) -> Result<Answer, Failure> {
    server.get(&["v2", "incidents", id], &[]).await.map_err(|failure| no_such_incident(failure, id))
}

/// The id of the incident that is meant: a whole id is taken as it is; a host, or HOST/OUTAGE, is for tandem-ha to find; else it is the
/// one that begins like this, among the newest.
pub(crate) async fn whole_id(server: &Server, given: &str) -> Result<String, Failure> {
    let lower = given.to_lowercase();
    if is_uuid(&lower) {
        return Ok(lower);
    }
    if let Some(id) = id_by_host(server, given).await? {
        return Ok(id);
    }
    let most = MOST.to_string();
    let all: Incidents = server.get(&["v2", "incidents"], &[("state", "all"), ("limit", &most)]).await?.read()?;
    let ids = all.incidents.iter().filter_map(|incident| incident.id.get());
    choose(given, ids.filter(|id| id.to_lowercase().starts_with(&lower)).map(str::to_owned).collect())
}

fn is_uuid(text: &str) -> bool {
    let is_dash = |position| matches!(position, 8 | 13 | 18 | 23);
    text.len() == 36
        && text.chars().enumerate().all(|(at, c)| if is_dash(at) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// None where tandem-ha knows no incident by that name.
async fn id_by_host(server: &Server, given: &str) -> Result<Option<String>, Failure> {
    match server.get(&["v2", "incidents", given], &[]).await {
        Ok(answer) => Ok(answer.read::<OneIncident>()?.incident.id.get().map(str::to_owned)),
        Err(Failure::Refused { status: 404, .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn choose(given: &str, mut candidates: Vec<String>) -> Result<String, Failure> {
    if let Some(exact) = candidates.iter().find(|id| id.eq_ignore_ascii_case(given)) {
        return Ok(exact.clone());
    }
    match candidates.len() {
        0 => Err(Failure::NotFound {
            what: "incident".to_owned(),
            message: format!("no host {given:?} had one, and no id among the newest {MOST} begins like that"),
            remedy: LISTED.to_owned(),
        }),
        1 => Ok(candidates.remove(0)),
        _ => Err(Failure::Ambiguous { given: given.to_owned(), candidates }),
    }
}

pub(crate) fn no_such_incident(failure: Failure, id: &str) -> Failure {
    match failure {
        Failure::Refused { status: 404, message, .. } => {
            Failure::NotFound { what: format!("incident: {id}"), message, remedy: LISTED.to_owned() }
        }
        other => other,
    }
}

pub(crate) fn no_such_host(failure: Failure, host: &str) -> Failure {
    match failure {
        Failure::Refused { status: 404, message, .. } => Failure::NotFound {
            what: format!("host: {host}"),
            message,
            remedy: "`tandem status` lists them, by their names in Nova".to_owned(),
        },
        other => other,
    }
}
