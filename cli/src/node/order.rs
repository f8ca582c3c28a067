//! What changes something: one call, and what came of it. Ctrl-C ends `tandem`, never what was ordered.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::answer::{Attachment, Chap, Dead, Fence, Rebuilt, RebuiltVolume, Volume};
use super::args::{Create, Durability, ForcePrimary, Wait};
use super::wait::{self, Goal, Patience};
use super::{ask, confirm};
use crate::failure::{Ending, Failure};
use crate::out;
use crate::server::{Answer, Server};
use crate::show;
use crate::watch::EndSignal;

const VOLUMES: &str = "tandem volume list";
const NODES: &str = "tandem node list";

pub(crate) async fn create(server: &Server, create: Create) -> Result<Ending, Failure> {
    let uuid = create.uuid.unwrap_or_else(Uuid::new_v4);
    let body = description(&create, uuid);
    interruptible(&create.name, async {
        let answer = server.post(&["v1", "volumes"], body).await;
        let answer = answer.inspect_err(|failure| {
            if failure.may_pass() {
                out::note(&format!("given again with --uuid {uuid}, it continues what was begun"));
            }
        })?;
        let goal = Goal::UpToDate { promoted: create.promote.is_some() };
        came_to(server, answer, "created", goal, Patience::Until(create.wait.wait), create.json.json).await
    })
    .await
}

/// What was left out is the server's to choose.
fn description(create: &Create, uuid: Uuid) -> Value {
    let replicas = if create.on.is_empty() { json!(create.replicas) } else { json!(create.on) };
    let mut body = Map::new();
    body.insert("uuid".to_owned(), json!(uuid));
    body.insert("name".to_owned(), json!(create.name));
    body.insert("size_bytes".to_owned(), json!(create.size));
    body.insert("replicas".to_owned(), replicas);
    if let Some(pool) = &create.pool {
        body.insert("pool".to_owned(), json!(pool));
    }
    if let Some(durability) = create.durability {
        let word = match durability {
            Durability::Flush => "flush",
            Durability::Write => "write",
        };
        body.insert("durability".to_owned(), json!(word));
    }
    match create.promote.as_deref() {
        Some("") => drop(body.insert("promote".to_owned(), json!(true))),
        Some(node) => drop(body.insert("promote".to_owned(), json!(node))),
        None => {}
    }
    Value::Object(body)
}

pub(crate) async fn delete(server: &Server, name: &str, sure: bool, json: bool) -> Result<Ending, Failure> {
    if !sure {
        let volume: Volume = ask::volume(server, name).await?.read()?;
        let (size, on) = (show::amount(volume.size_bytes), nodes_of(&volume));
        confirm::yes("deleting a volume", &format!("Delete {} and its data ({size} on {on}) for good?", volume.name))?;
    }
    let call = async { server.delete(&["v1", "volumes", name]).await };
    simply(name, VOLUMES, call, json, |_| Ok(format!("{name}: deleted"))).await
}

fn nodes_of(volume: &Volume) -> String {
    let nodes: Vec<_> = volume.in_order().iter().map(|replica| replica.node.to_string()).collect();
    nodes.join(" and ")
}

pub(crate) async fn promote(
    server: &Server,
    name: &str,
    node: Option<String>,
    wait: Wait,
    json: bool,
) -> Result<Ending, Failure> {
    interruptible(name, async {
        let body = node.as_ref().map_or_else(|| json!({}), |node| json!({ "node": node }));
        let answer = post(server, name, "promote", body).await?;
        came_to(server, answer, "promoted", Goal::Primary(node), Patience::Until(wait.wait), json).await
    })
    .await
}

pub(crate) async fn demote(server: &Server, name: &str, wait: Wait, json: bool) -> Result<Ending, Failure> {
    interruptible(name, async {
        let answer = post(server, name, "demote", json!({})).await?;
        came_to(server, answer, "demoted", Goal::NoPrimary, Patience::Until(wait.wait), json).await
    })
    .await
}

pub(crate) async fn force_primary(server: &Server, force: ForcePrimary) -> Result<Ending, Failure> {
    let ForcePrimary { volume: given, node, destroyed, name, wait, json } = force;
    let name = match name {
        Some(name) => name,
        None => typed_again(&ask::volume(server, &given).await?.read()?, &node, &destroyed)?,
    };
    let mut body = json!({ "node": node, "name": name, "destroyed": destroyed });
    if let Some(by) = whoever_asks() {
        body["by"] = json!(by);
    }
    interruptible(&given, async {
        let answer = post(server, &given, "force-primary", body).await?;
        came_to(server, answer, "forced", Goal::Primary(Some(node)), Patience::Until(wait.wait), json.json).await
    })
    .await
}

/// Says first what may be lost.
fn typed_again(volume: &Volume, node: &str, destroyed: &[String]) -> Result<String, Failure> {
    out::note(&format!("{} becomes Primary on {node}, whatever it lacks", show::volumes::line(volume, out::paint())));
    for line in may_be_lost(volume, node, destroyed) {
        out::note(&line);
    }
    confirm::name("force-primary", volume.name.or_empty())
}

fn may_be_lost(volume: &Volume, node: &str, destroyed: &[String]) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(replica) = volume.replica(node).filter(|replica| !replica.is_well()) {
        lines.push(format!("{node} is {}: writes that were acknowledged without it are lost", replica.disk));
    }
    for other in volume.in_order().into_iter().filter(|other| !other.node.is(node) && other.in_sync != Some(false)) {
        let retired = destroyed.iter().any(|gone| other.node.is(gone));
        match (retired, other.reached) {
            (true, _) => lines.push(format!(
                "{0} is retired for good: what only it has is lost, and if it lives after all, two Primaries write",
                other.node
            )),
            (false, false) => lines.push(format!("{} is not reached: what only it has is lost", other.node)),
            (false, true) => {}
        }
    }
    lines
}

/// For the record; the certificate says more where there is one.
fn whoever_asks() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()))
}

pub(crate) async fn resync(server: &Server, name: &str, node: &str, wait: bool, json: bool) -> Result<Ending, Failure> {
    let before: Volume = ask::volume(server, name).await?.read()?;
    let goal = Goal::InSync { node: node.to_owned(), after: before.generation };
    interruptible(name, async {
        let answer = post(server, name, "resync", json!({ "node": node })).await?;
        if wait {
            return came_to(server, answer, "resync", goal, Patience::WhileItMoves, json).await;
        }
        print(&answer, json, |answer| {
            let volume: Volume = answer.read()?;
            let name = &volume.name;
            Ok(format!(
                "{name}: {node} copies everything anew; `tandem volume show {name} --watch` shows how far it is"
            ))
        })
    })
    .await
}

pub(crate) async fn attach(
    server: &Server,
    name: &str,
    host: &str,
    initiator: Option<String>,
    id: Option<Uuid>,
    read_only: bool,
    json: bool,
) -> Result<Ending, Failure> {
    let id = id.unwrap_or_else(Uuid::new_v4).to_string();
    let mut body = json!({ "host": host, "read_only": read_only });
    if let Some(initiator) = &initiator {
        body["initiator"] = json!(initiator);
    }
    let call = async { server.put(&["v1", "volumes", name, "attachments", &id], body).await };
    simply(name, VOLUMES, call, json, |answer| {
        let one: Attachment = answer.read()?;
        let mut said = format!("{name}: attached to {} with the id {}\n  NBD export  {}", one.host, one.id, one.export);
        if initiator.is_some() {
            let Chap { user, secret } = &one.chap;
            let target = &one.target;
            said += &format!("\n  iSCSI target  {target}\n  CHAP user  {user}\n  CHAP secret  {secret}");
        }
        Ok(said)
    })
    .await
}

pub(crate) async fn revoke(server: &Server, name: &str, id: Uuid, json: bool) -> Result<Ending, Failure> {
    let id = id.to_string();
    let call = async { server.delete(&["v1", "volumes", name, "attachments", &id]).await };
    let said = format!("{name}: {id} is revoked; nothing is read or written through it any more");
    simply(name, VOLUMES, call, json, |_| Ok(said)).await
}

pub(crate) async fn dead(server: &Server, node: &str, boot: Uuid, why: &str, json: bool) -> Result<Ending, Failure> {
    let call = async { server.put(&["v1", "nodes", node, "dead"], json!({ "boot_id": boot, "why": why })).await };
    simply(node, NODES, call, json, |answer| {
        let dead: Dead = answer.read()?;
        Ok(format!("{}: boot {} is known to be dead, by {}: {}", dead.node, dead.boot_id, dead.by, dead.why))
    })
    .await
}

pub(crate) async fn alive(server: &Server, node: &str, json: bool) -> Result<Ending, Failure> {
    let call = async { server.delete(&["v1", "nodes", node, "dead"]).await };
    simply(node, NODES, call, json, |_| Ok(format!("{node}: not known to be dead any more"))).await
}

pub(crate) async fn fence_host(server: &Server, host: &str, why: &str, json: bool) -> Result<Ending, Failure> {
    let call = async { server.put(&["v1", "fences", host], json!({ "why": why })).await };
    simply(host, "tandem node fences", call, json, |answer| {
        let fence: Fence = answer.read()?;
        let host = fence.host.get().unwrap_or(host);
        Ok(format!("{host}: fenced, shut out of every volume that is served"))
    })
    .await
}

pub(crate) async fn unfence_host(server: &Server, host: &str, json: bool) -> Result<Ending, Failure> {
    let call = async { server.delete(&["v1", "fences", host]).await };
    simply(host, "tandem node fences", call, json, |_| Ok(format!("{host}: let in again"))).await
}

pub(crate) async fn rebuild(server: &Server, destroyed: &[String], sure: bool, json: bool) -> Result<Ending, Failure> {
    if !sure {
        let lost = match destroyed {
            [] => String::new(),
            nodes => {
                format!(" Writes that only {} had are lost, too, and if it lives, two may serve.", nodes.join(", "))
            }
        };
        confirm::yes(
            "rebuilding the arbiter's records",
            &format!(
                "Make the arbiter's records anew from what the replicas know? What only the arbiter knew is lost.{lost}"
            ),
        )?;
    }
    let mut body = json!({ "confirm": true });
    if !destroyed.is_empty() {
        body["destroyed"] = json!(destroyed);
    }
    let call = async { server.post(&["v1", "arbiter", "rebuild"], body).await };
    interruptible("arbiter", async {
        let answer = call.await.map_err(|failure| ask::listed(failure, "tandem arbiter status"))?;
        print(&answer, json, |answer| Ok(rebuilt(&answer.read()?)))?;
        let Rebuilt { volumes } = answer.read()?;
        Ok(Ending::held_if(volumes.iter().any(|one| one.settled == Some(false))))
    })
    .await
}

fn rebuilt(Rebuilt { volumes }: &Rebuilt) -> String {
    let line = |one: &RebuiltVolume| {
        let what = match (one.rebuilt, one.settled) {
            (true, _) => "made anew",
            (false, Some(false)) => "NOT MADE",
            (false, _) => "left as it is",
        };
        format!("{}: {what}: {}", one.name, one.why)
    };
    let lines: Vec<String> = volumes.iter().map(line).collect();
    if lines.is_empty() { "no replica remembers a volume".to_owned() } else { lines.join("\n") }
}

async fn post(server: &Server, volume: &str, order: &str, body: Value) -> Result<Answer, Failure> {
    let answer = server.post(&["v1", "volumes", volume, order], body).await;
    answer.map_err(|failure| ask::listed(failure, VOLUMES))
}

/// An order whose answer is its end.
async fn simply(
    what: &str,
    list: &str,
    call: impl Future<Output = Result<Answer, Failure>>,
    json: bool,
    text: impl FnOnce(&Answer) -> Result<String, Failure>,
) -> Result<Ending, Failure> {
    interruptible(what, async {
        let answer = call.await.map_err(|failure| ask::listed(failure, list))?;
        print(&answer, json, text)
    })
    .await
}

/// JSON is printed before anybody here tries to understand it: the order was taken, whatever the answer looks like.
fn print(
    answer: &Answer,
    json: bool,
    text: impl FnOnce(&Answer) -> Result<String, Failure>,
) -> Result<Ending, Failure> {
    match json {
        true => out::json(answer)?,
        false => out::print(&(text(answer)? + "\n"))?,
    }
    Ok(Ending::Done)
}

/// An order that is taken before it is done: waits, and shows the volume as it is then. With --json the last answer is printed alone.
async fn came_to(
    server: &Server,
    answer: Answer,
    done: &str,
    goal: Goal,
    patience: Patience,
    json: bool,
) -> Result<Ending, Failure> {
    if json && answer.read::<Volume>().is_err() {
        out::json(&answer)?;
    }
    let last = wait::until(server, answer, &goal, patience).await?;
    print(&last, json, |last| {
        let volume: Volume = last.read()?;
        Ok(format!("{}: {done}\n{}", volume.name, show::volumes::line(&volume, out::paint())))
    })
}

/// Ends with the first of the order and Ctrl-C.
async fn interruptible(what: &str, order: impl Future<Output = Result<Ending, Failure>>) -> Result<Ending, Failure> {
    let mut ended = EndSignal::listen()?;
    tokio::select! {
        biased;
        () = ended.comes() => {
            out::note(&format!("{what}: no longer waited for; what was ordered goes on all the same"));
            Ok(Ending::Interrupted)
        }
        ending = order => ending,
    }
}
