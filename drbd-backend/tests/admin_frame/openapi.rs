//! The API's description is held against the routes, and answers against the description.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use tandem_node::admin::DOCUMENT;

use crate::world::World;

fn document() -> Result<Value> {
    Ok(serde_json::from_str(DOCUMENT)?)
}

const ATTACHMENT: &str = "/v1/volumes/db-1/attachments/6b0e3f6c-0000-4000-8000-000000000001";

/// Every path that the sources give to the router.
fn routes(folder: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            routes(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.extend(routes_of(&std::fs::read_to_string(&path)?));
        }
    }
    Ok(())
}

fn routes_of(source: &str) -> BTreeSet<String> {
    let given = source.split(".route(").skip(1);
    given.filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_is_described_and_everything_described_is_a_route() -> Result<()> {
    let document = document()?;
    let paths = document["paths"].as_object().context("paths")?;
    let mut served = BTreeSet::new();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    routes(&sources.join("admin"), &mut served)?;
    served.extend(routes_of(&std::fs::read_to_string(sources.join("admin.rs"))?));
    ensure!(
        served == paths.keys().map(|path| path.to_string()).collect(),
        "only served or only described: {:?}",
        served.symmetric_difference(&paths.keys().map(|path| path.to_string()).collect()).collect::<Vec<_>>()
    );
    let world = World::new(1).await?;
    let machine = &world.machines[0];
    for (path, item) in paths {
        let concrete = path.replace("{volume}", "db-1").replace("{id}", "x").replace(['{', '}'], "");
        let answer = machine.client.patch(machine.url(&concrete)).send().await?;
        let allow =
            answer.headers().get("allow").with_context(|| format!("{path}: {}", answer.status()))?.to_str()?.to_owned();
        let taken: BTreeSet<String> =
            allow.split(',').map(|it| it.trim().to_lowercase()).filter(|it| it != "head").collect();
        let item = item.as_object().context("a path")?;
        let described = item.keys().filter(|key| *key != "parameters").cloned().collect();
        ensure!(taken == described, "{path} takes {taken:?}, and is said to take {described:?}");
    }
    Ok(())
}

#[test]
fn everything_that_is_referred_to_is_there() -> Result<()> {
    fn each(value: &Value, document: &Value) -> Result<()> {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            ensure!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
        }
        let inside: Vec<&Value> = match value {
            Value::Object(map) => map.values().collect(),
            Value::Array(list) => list.iter().collect(),
            _ => Vec::new(),
        };
        inside.into_iter().try_for_each(|value| each(value, document))
    }
    let document = document()?;
    each(&document, &document)?;
    let mut seen = BTreeMap::new();
    for (path, item) in document["paths"].as_object().context("paths")? {
        for (method, operation) in item.as_object().context("a path")?.iter().filter(|(key, _)| *key != "parameters") {
            let id = operation["operationId"].as_str().with_context(|| format!("{method} {path}"))?;
            ensure!(seen.insert(id.to_owned(), path.clone()).is_none(), "{id} twice");
            ensure!(operation["responses"]["default"].is_object(), "{method} {path}: errors");
        }
        let braces = path.matches('{').count();
        ensure!(item["parameters"].as_array().map_or(0, Vec::len) == braces, "{path}: parameters");
    }
    Ok(())
}

/// Holds a value against a schema, as far as this document uses JSON Schema.
fn fits(value: &Value, schema: &Value, document: &Value) -> Result<()> {
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let schema = document.pointer(reference.trim_start_matches('#')).context("a schema")?;
        return fits(value, schema, document);
    }
    if let Some(ways) = schema.get("oneOf").and_then(Value::as_array) {
        ensure!(
            ways.iter().filter(|way| fits(value, way, document).is_ok()).count() == 1,
            "{value} fits not one of {ways:?}"
        );
    }
    if let Some(allowed) = schema.get("enum").and_then(Value::as_array) {
        ensure!(allowed.contains(value), "{value} is none of {allowed:?}");
    }
    if let Some(kind) = schema.get("type") {
        let kinds = kind.as_array().cloned().unwrap_or_else(|| vec![kind.clone()]);
        ensure!(kinds.iter().any(|kind| is_a(value, kind.as_str().unwrap_or_default())), "{value} is no {kind}");
    }
    if let (Some(format), Some(text)) = (schema.get("format").and_then(Value::as_str), value.as_str()) {
        match format {
            "uuid" => drop(uuid::Uuid::parse_str(text).with_context(|| text.to_owned())?),
            "date-time" => {
                let at = chrono::DateTime::parse_from_rfc3339(text).with_context(|| text.to_owned())?;
                ensure!(at.offset().local_minus_utc() == 0 && text.len() == 27, "{text}: UTC, microseconds");
            }
            other => bail!("format {other}"),
        }
    }
    if let (Some(list), Some(items)) = (value.as_array(), schema.get("items")) {
        list.iter().try_for_each(|value| fits(value, items, document))?;
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema["required"].as_array().into_iter().flatten() {
        ensure!(object.contains_key(name.as_str().unwrap_or_default()), "{name} is missing in {value}");
    }
    // Answers may gain fields, but not without being described.
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return Ok(()) };
    for (name, value) in object {
        let schema = properties.get(name).with_context(|| format!("{name} is not described"))?;
        fits(value, schema, document).with_context(|| format!("in {name}"))?;
    }
    Ok(())
}

fn is_a(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_they_are_described() -> Result<()> {
    let document = document()?;
    let world = World::new(2).await?;
    world.volume("db-1", 2).await?;
    let machine = &world.machines[0];
    let boot = uuid::Uuid::new_v4();
    for (method, path, described, body) in [
        (Method::GET, "/healthcheck", "/healthcheck", None),
        (Method::PUT, "/v1/fences/cmp7", "/v1/fences/{host}", Some(json!({ "why": "x" }))),
        (Method::GET, "/v1/fences", "/v1/fences", None),
        (Method::GET, "/v1/fences/cmp7", "/v1/fences/{host}", None),
        (Method::DELETE, "/v1/fences/cmp7", "/v1/fences/{host}", None),
        (Method::PUT, "/v1/nodes/cmp1/dead", "/v1/nodes/{name}/dead", Some(json!({ "boot_id": boot, "why": "x" }))),
        (Method::GET, "/v1/nodes/cmp9/dead", "/v1/nodes/{name}/dead", None),
        (Method::GET, "/v1/arbiter", "/v1/arbiter", None),
        (Method::GET, "/v1/arbiter/memories", "/v1/arbiter/memories", None),
        (Method::POST, "/v1/arbiter/rebuild", "/v1/arbiter/rebuild", Some(json!({ "confirm": true }))),
        (Method::POST, "/v1/arbiter/trust", "/v1/arbiter/trust", Some(json!({ "volumes": [] }))),
        (Method::POST, "/v1/arbiter/trust", "/v1/arbiter/trust", Some(json!({}))),
        (Method::GET, "/v1/openapi.json", "/v1/openapi.json", None),
        (Method::GET, "/v1/pools", "/v1/pools", None),
        (Method::GET, "/v1/nodes", "/v1/nodes", None),
        (Method::GET, "/v1/nodes/cmp1", "/v1/nodes/{name}", None),
        (Method::GET, "/v1/volumes", "/v1/volumes", None),
        (Method::GET, "/v1/volumes/db-1", "/v1/volumes/{volume}", None),
        (Method::GET, "/v1/volumes/db-2", "/v1/volumes/{volume}", None),
        (Method::POST, "/v1/volumes", "/v1/volumes", Some(json!({ "name": "db-2", "size_bytes": 1, "replicas": 2 }))),
        (
            Method::POST,
            "/v1/volumes",
            "/v1/volumes",
            Some(json!({ "name": "db-2", "size_bytes": 4096, "replicas": 2 })),
        ),
        (Method::POST, "/v1/volumes/db-1/promote", "/v1/volumes/{volume}/promote", Some(json!({}))),
        (Method::PUT, ATTACHMENT, "/v1/volumes/{volume}/attachments/{id}", Some(json!({ "host": "cmp3" }))),
        (Method::GET, "/v1/volumes/db-1/attachments", "/v1/volumes/{volume}/attachments", None),
    ] {
        let (status, answer) = machine.call(method.clone(), path, body).await?;
        let operation = &document["paths"][described][method.as_str().to_lowercase()];
        let told = operation["responses"].get(status.as_str()).unwrap_or(&operation["responses"]["default"]);
        let told = match told.get("$ref").and_then(Value::as_str) {
            Some(reference) => document.pointer(reference.trim_start_matches('#')).context("a response")?,
            None => told,
        };
        let schema = &told["content"]["application/json"]["schema"];
        ensure!(schema.is_object(), "{method} {path}: {status} {answer}");
        fits(&answer, schema, &document).with_context(|| format!("{method} {path}: {status} {answer}"))?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_name_every_volume_and_its_peers() -> Result<()> {
    let world = World::new(2).await?;
    let volume = uuid::Uuid::from_u128(world.volume("db-1", 2).await?.0);
    let machine = &world.machines[0];
    let answer = machine.client.get(machine.url("/metrics")).send().await?;
    ensure!(answer.headers()["content-type"] == "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text().await?;
    let labels = format!("volume=\"{volume}\",name=\"db-1\"");
    for line in [
        format!("tandem_volume_role{{{labels},role=\"Primary\"}} 1"),
        format!("tandem_volume_in_sync{{{labels}}} 2"),
        format!("tandem_volume_missing_bytes{{{labels},peer=\"cmp1\"}} 0"),
        "tandem_arbiter_reached 1".to_owned(),
    ] {
        ensure!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    }
    let page = include_str!("../../../docs/node-api.md");
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
        ensure!(page.contains(&format!("`{name}`")), "docs/node-api.md does not have {name}");
    }
    Ok(())
}
