//! What only reads: one look at tandem-ha, shown.

use chrono::Utc;

use crate::answer::{Gate, Incidents, OneIncident, OnePlan, Status};
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show;

/// How many incidents an abbreviated id is sought in.
const SOUGHT: &str = "1000";
const LISTED: &str = "`tandem incidents --all` lists them";

pub(crate) async fn look(server: &Server) -> Result<Status, Failure> {
    beside(server, &hosts(server).await?).await
}

/// The hosts of this answer, and the incidents that are open now.
async fn beside(server: &Server, hosts: &Answer) -> Result<Status, Failure> {
    let hosts = hosts.read()?;
    let open: Incidents = server.get(&["v2", "incidents"], &[("state", "open")]).await?.read()?;
    Ok(Status { hosts, incidents: open.incidents })
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
        out::print(&show::status::text(&status, &server.address, Utc::now(), out::paint()))?;
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
    let limit = limit.to_string();
    let mut query = vec![("state", if all { "all" } else { "open" }), ("limit", &limit)];
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
        some => show::incidents::text(some, out::paint()),
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
    let answer = server.get(&["v2", "plan", host], &[]).await.map_err(|failure| no_such_host(failure, host))?;
    if json {
        out::json(&answer)?;
    }
    let OnePlan { plan } = answer.read()?;
    if !json {
        out::print(&show::plan::text(&plan, out::paint()))?;
    }
    Ok(Ending::held_if(plan.gates.iter().any(Gate::says_no)))
}

pub(crate) async fn one_incident(server: &Server, id: &str) -> Result<Answer, Failure> {
    server.get(&["v2", "incidents", id], &[]).await.map_err(|failure| no_such_incident(failure, id))
}

/// The id that begins like `given`, among the newest. A whole one is not sought: it may be older than what is listed.
pub(crate) async fn whole_id(server: &Server, given: &str) -> Result<String, Failure> {
    const LENGTH_OF_A_UUID: usize = 36;
    let given = given.to_lowercase();
    if given.len() == LENGTH_OF_A_UUID {
        return Ok(given);
    }
    let all: Incidents = server.get(&["v2", "incidents"], &[("state", "all"), ("limit", SOUGHT)]).await?.read()?;
    let ids = all.incidents.iter().filter_map(|incident| incident.id.get());
    choose(&given, ids.filter(|id| id.to_lowercase().starts_with(&given)).map(str::to_owned).collect())
}

fn choose(given: &str, mut candidates: Vec<String>) -> Result<String, Failure> {
    if let Some(exact) = candidates.iter().find(|id| id.eq_ignore_ascii_case(given)) {
        return Ok(exact.clone());
    }
    match candidates.len() {
        0 => Err(Failure::NotFound {
            what: "incident".to_owned(),
            message: format!("no id among the newest {SOUGHT} begins with {given:?}"),
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
