//! What changes something: one POST over the control socket, and what came of it.

use serde_json::{Value, json};

use crate::answer::{Armed, Hosts, Incident, OneIncident};
use crate::args::Order;
use crate::ask::{no_such_host, no_such_incident, one_incident, whole_id};
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show;

/// JSON is printed before anybody here tries to understand it: the order was taken, whatever the answer looks like.
pub(crate) async fn give(server: &Server, order: Order, json: bool) -> Result<Ending, Failure> {
    let answer = match &order {
        Order::Arm => send(server, &["v2", "arm"], json!({})).await?,
        Order::Disarm { reason } => send(server, &["v2", "disarm"], because(reason)).await?,
        Order::Release { id, reason } => release(server, id, reason).await?,
        Order::Fence { host, reason } => fence(server, host, reason).await?,
    };
    if json {
        out::json(&answer)?;
    }
    let text = what_became(&order, &answer)?;
    if !json {
        out::print(&text)?;
    }
    Ok(Ending::Done)
}

async fn release(server: &Server, id: &str, reason: &str) -> Result<Answer, Failure> {
    let id = whole_id(server, id).await?;
    let failure = match send(server, &["v2", "incidents", &id, "release"], because(reason)).await {
        Ok(answer) => return Ok(answer),
        Err(failure) => failure,
    };
    if unknown_to_a_port(server, &failure) && one_incident(server, &id).await.is_ok() {
        return Err(only_reads(server, failure));
    }
    Err(no_such_incident(conflict(failure, &format!("incident show {id}")), &id))
}

async fn fence(server: &Server, host: &str, reason: &str) -> Result<Answer, Failure> {
    let body = json!({ "method": "manual", "reason": reason });
    let failure = match send(server, &["v2", "hosts", host, "fence"], body).await {
        Ok(answer) => return Ok(answer),
        Err(failure) => failure,
    };
    if unknown_to_a_port(server, &failure) && knows(server, host).await {
        return Err(only_reads(server, failure));
    }
    Err(no_such_host(conflict(failure, "status"), host))
}

fn because(reason: &str) -> Value {
    json!({ "reason": reason })
}

async fn send(server: &Server, segments: &[&str], body: Value) -> Result<Answer, Failure> {
    let names_nothing = segments.len() == 2;
    server.post(segments, body).await.map_err(|failure| match failure {
        Failure::Refused { status: 403 | 405, .. } | Failure::Stranger { status: 403 | 405, .. }
            if !server.is_socket() =>
        {
            only_reads(server, failure)
        }
        Failure::Refused { status: 404, .. } if !server.is_socket() && names_nothing => only_reads(server, failure),
        other => other,
    })
}

/// A port that only reads may answer 404 for the route; so does one that takes orders for a name it does not know.
fn unknown_to_a_port(server: &Server, failure: &Failure) -> bool {
    !server.is_socket() && matches!(failure, Failure::Refused { status: 404, .. })
}

async fn knows(server: &Server, host: &str) -> bool {
    let answer = server.get(&["v2", "hosts"], &[]).await;
    let hosts = answer.and_then(|answer| answer.read::<Hosts>());
    hosts.is_ok_and(|answer| answer.hosts.iter().any(|known| known.name.is(host)))
}

fn only_reads(server: &Server, failure: Failure) -> Failure {
    match failure {
        Failure::Refused { call, status, message, .. } | Failure::Stranger { call, status, message, .. } => {
            Failure::ReadOnly { call, address: server.address().to_string(), status, message }
        }
        other => other,
    }
}

/// The state does not allow the order: `look` shows the state.
fn conflict(failure: Failure, look: &str) -> Failure {
    match failure {
        Failure::Refused { call, status: 409, code, message, .. } => Failure::Refused {
            call,
            status: 409,
            code,
            message,
            remedy: Some(format!("`tandem {look}` shows how it stands")),
        },
        other => other,
    }
}

fn what_became(order: &Order, answer: &Answer) -> Result<String, Failure> {
    match order {
        Order::Arm if answer.read::<Armed>()?.armed => {
            Ok("armed: Tandem fences dead hosts and evacuates their instances\n".to_owned())
        }
        Order::Arm => Err(Failure::NotDone("tandem-ha took the order to arm and yet says that it is disarmed")),
        Order::Disarm { .. } if answer.read::<Armed>()?.armed => {
            Err(Failure::NotDone("tandem-ha took the order to disarm and yet says that it is armed"))
        }
        Order::Disarm { .. } => Ok("disarmed: nothing is fenced or evacuated until `tandem arm`\n".to_owned()),
        Order::Release { .. } => Ok(goes_on("released", &answer.read::<OneIncident>()?.incident)),
        Order::Fence { .. } => Ok(goes_on("recorded as off", &answer.read::<OneIncident>()?.incident)),
    }
}

fn goes_on(done: &str, incident: &Incident) -> String {
    let mut text = format!("{}: {done}; incident {} is {}\n", incident.host, incident.id, incident.phase);
    if let Some(hold) = &incident.hold {
        text.push_str(&format!("{}\n", show::held_by(hold)));
    }
    if !incident.settled() && incident.id.get().is_some() {
        text.push_str(&format!("`tandem incident show {} --follow` shows how it goes on\n", incident.id));
    }
    text
}
