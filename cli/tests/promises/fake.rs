//! A tandem-ha, or tandem-node, that answers what it is told to, over TCP or a Unix socket, and the binary run against it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Runtime;

pub(crate) const CMP1: &str = "3f2a8c11-5b0e-4a57-9d1c-000000000001";
pub(crate) const CMP2: &str = "3f2a8c22-5b0e-4a57-9d1c-000000000002";

/// The answers to each "GET /path", in order; the last one stays.
type Answers = BTreeMap<String, Vec<(u16, String)>>;

pub(crate) struct Fake {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
    folder: TempDir,
    _runtime: Runtime,
}

/// How the fake is reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Way {
    Tcp,
    Socket,
}

impl Fake {
    pub(crate) fn start(way: Way, answers: &[(&str, u16, Value)]) -> Result<Self> {
        let answers: Vec<_> = answers.iter().map(|(key, status, body)| (*key, *status, body.to_string())).collect();
        Self::verbatim(way, &answers)
    }

    /// With bodies that are sent as they are.
    pub(crate) fn verbatim(way: Way, answers: &[(&str, u16, String)]) -> Result<Self> {
        let mut table = Answers::new();
        for (key, status, body) in answers {
            table.entry((*key).to_owned()).or_default().push((*status, body.clone()));
        }
        let asked = Arc::new(Mutex::new(Vec::new()));
        let app = routes(table, asked.clone());
        let (runtime, folder) = (Runtime::new()?, tempfile::tempdir()?);
        let url = match way {
            Way::Tcp => {
                let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
                let url = format!("http://{}", listener.local_addr()?);
                runtime.spawn(async { axum::serve(listener, app).await });
                url
            }
            Way::Socket => {
                let path = folder.path().join("ha.sock");
                let listener = runtime.block_on(async { UnixListener::bind(&path) })?;
                runtime.spawn(async { axum::serve(listener, app).await });
                format!("unix:{}", path.display())
            }
        };
        Ok(Self { url, asked, folder, _runtime: runtime })
    }

    /// No HTTP server: reads a request, sends these bytes (none: keeps silent), and hangs up.
    pub(crate) fn stranger(bytes: Option<&'static [u8]>) -> Result<Self> {
        let (runtime, folder) = (Runtime::new()?, tempfile::tempdir()?);
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let url = format!("http://{}", listener.local_addr()?);
        runtime.spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                match bytes {
                    Some(bytes) => drop(stream.write_all(bytes).await),
                    None => kept.push(stream),
                }
            }
        });
        Ok(Self { url, asked: Arc::default(), folder, _runtime: runtime })
    }

    /// "POST /v2/arm {}" for each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics while holding it").clone()
    }

    pub(crate) fn run(&self, args: &[&str]) -> Result<Ran> {
        Ran::of(self.command().args(args))
    }

    /// As `run`, of tandem-node.
    pub(crate) fn node(&self, args: &[&str]) -> Result<Ran> {
        Ran::of(self.node_command().args(args))
    }

    /// `tandem --node URL`.
    pub(crate) fn node_command(&self) -> Command {
        let mut command = tandem(self.folder.path());
        command.args(["--node", &self.url]);
        command
    }

    /// `tandem --ha URL`, with nothing of the developer's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = tandem(self.folder.path());
        command.args(["--ha", &self.url]);
        command
    }
}

fn routes(answers: Answers, asked: Arc<Mutex<Vec<String>>>) -> Router {
    let answers = Arc::new(Mutex::new(answers));
    Router::new().fallback(move |method: Method, uri: Uri, body: Bytes| {
        let request = format!("{method} {uri} {}", String::from_utf8_lossy(&body));
        asked.lock().expect("nobody panics while holding it").push(request.trim().to_owned());
        let answer = next(&mut answers.lock().expect("nobody panics while holding it"), &method, &uri);
        let (status, body) = answer.unwrap_or_else(|| (404, error(404, "no such route").to_string()));
        let status = StatusCode::from_u16(status).expect("a test's own status");
        async move { (status, [(header::CONTENT_TYPE, "application/json")], body).into_response() }
    })
}

fn next(answers: &mut Answers, method: &Method, uri: &Uri) -> Option<(u16, String)> {
    let list = answers.get_mut(&format!("{method} {}", uri.path()))?;
    if list.len() > 1 { Some(list.remove(0)) } else { list.first().cloned() }
}

/// The binary, at home in an empty folder.
pub(crate) fn tandem(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem"));
    command.env_clear().env("HOME", home).env("http_proxy", "http://127.0.0.1:1");
    command
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn of(command: &mut Command) -> Result<Self> {
        let Output { status, stdout, stderr } = command.output().context("tandem could not be started")?;
        Ok(Self { code: status.code(), out: String::from_utf8(stdout)?, err: String::from_utf8(stderr)? })
    }

    /// The exit code, and what stands in stderr.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, said: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:#?}");
        assert_eq!(self.out, "", "{self:#?}");
        for text in said {
            assert!(self.err.contains(text), "stderr does not say {text:?}: {self:#?}");
        }
        assert!(!self.err.contains("panicked"), "{self:#?}");
    }

    #[track_caller]
    pub(crate) fn prints(&self, code: i32, out: &str) {
        assert_eq!(self.out, out, "{self:#?}");
        assert_eq!((self.code, self.err.as_str()), (Some(code), ""), "{self:#?}");
    }
}

pub(crate) fn error(code: u16, message: &str) -> Value {
    json!({ "error": { "code": code, "title": "Title", "message": message } })
}

/// In tandem-node's form.
pub(crate) fn refusal(code: &str, message: &str, remedy: Option<&str>) -> Value {
    json!({ "error": { "code": code, "message": message, "remedy": remedy } })
}

pub(crate) const DB1: &str = "5e0f7d0a-3a53-4c0e-9f43-000000000001";
pub(crate) const ATTACHMENT: &str = "0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf";

/// On two nodes, served by the first.
pub(crate) fn volume() -> Value {
    json!({
        "uuid": DB1, "name": "db-1", "size_bytes": 10_737_418_240_u64, "durability": "flush",
        "created_at": null, "state": "ready", "generation": 7, "epoch": 2, "primary": "cmp1", "serving": true, "why": null,
        // Not in the order of their places.
        "replicas": [replica("cmp2", 1, "Secondary"), replica("cmp1", 0, "Primary")],
        "attachments": [attachment()],
    })
}

pub(crate) fn replica(node: &str, place: u64, role: &str) -> Value {
    json!({
        "node": node, "place": place, "pool": "default", "reached": true, "role": role, "disk": "UpToDate",
        "in_sync": true, "suspect": false, "full": false, "connected": [if place == 0 { "cmp2" } else { "cmp1" }],
        "missing_bytes": 0, "resync": null, "clients": 1 - place, "requests": 0,
    })
}

/// `volume` while its second replica copies.
pub(crate) fn copying(left_bytes: u64, generation: u64) -> Value {
    let resync = json!({ "left_bytes": left_bytes, "total_bytes": 10_737_418_240_u64, "began_at": null,
                         "bytes_per_s": 117_440_512, "eta_s": left_bytes / 117_440_512 });
    let keys = json!({ "disk": "Inconsistent", "in_sync": false, "missing_bytes": left_bytes, "resync": resync });
    let replicas = [replica("cmp1", 0, "Primary"), with(replica("cmp2", 1, "Secondary"), keys)];
    with(volume(), json!({ "replicas": replicas, "generation": generation }))
}

pub(crate) fn attachment() -> Value {
    json!({ "id": ATTACHMENT, "host": "cmp3", "initiator": null, "read_only": false, "epoch": 2, "revoked": false,
            "export": format!("{DB1}/{ATTACHMENT}") })
}

/// Two hosts, one of them evacuated.
pub(crate) fn hosts() -> Value {
    json!({
        "armed": true,
        "view": { "sees": true, "why": null, "nova_answered_at": null },
        "hosts": [
            {
                "name": "cmp1", "id": "c1", "standing": "evacuating", "why": "silent on mgmt and storage", "incident": CMP1,
                "nova": { "state": "down", "status": "disabled", "disabled_reason": "tandem: fenced", "forced_down": true,
                          "reported_at": null },
                "channels": [
                    { "network": "mgmt", "kind": "heartbeat", "alive": false, "last_at": null, "proven": true },
                    { "network": "storage", "kind": "tcp", "alive": true, "last_at": null, "proven": true },
                ],
                "power": { "state": "off", "bound": true, "read_at": null, "why": null }, "boot_id": null,
            },
            {
                "name": "cmp2", "id": "c2", "standing": "well", "why": "heard on mgmt", "incident": null,
                "nova": { "state": "up", "status": "enabled", "disabled_reason": null, "forced_down": false, "reported_at": null },
                "channels": [{ "network": "mgmt", "kind": "heartbeat", "alive": true, "last_at": null, "proven": true }],
                "power": { "state": "unknown", "bound": false, "read_at": null, "why": "the BMC does not answer" },
                "boot_id": "b2",
            },
        ],
    })
}

pub(crate) fn hold() -> Value {
    json!({ "gate": "mass failure", "why": "2 of 3 hosts are silent", "since": "2026-11-03T03:12:50.000000Z" })
}

pub(crate) fn summary() -> Value {
    json!({
        "id": CMP1, "host": "cmp1", "outage": 2, "kind": "outage", "phase": "evacuating", "outcome": null, "hold": null,
        "opened_at": "2026-11-03T03:12:44.120000Z", "closed_at": null, "why": "silent on mgmt and storage for 12 s",
        "instances": { "total": 4, "moved": 1, "moving": 1, "waiting": 1, "named": 1 },
    })
}

/// The whole of an incident that is over.
pub(crate) fn whole() -> Value {
    let mut incident = summary();
    let rest = json!({
        "phase": "closed", "outcome": "partly recovered", "closed_at": "2026-11-03T03:22:44.120000Z",
        "instances": { "total": 2, "moved": 1, "moving": 0, "waiting": 0, "named": 1 },
        "gates": [
            { "gate": "we can see", "passed": true, "why": "Nova and Keystone answered" },
            { "gate": "mass failure", "passed": false, "why": "2 of 3 hosts are silent" },
        ],
        "receipts": [{ "kind": "redfish", "by": "http://198.18.3.11:8000", "why": "two Off readings 1 s apart",
                       "power_epoch": null, "read_at": "2026-11-03T03:12:58.000000Z", "void": null }],
        "moves": [
            { "instance": "i1", "name": "vm1", "state": "moved", "attempt": 1, "to": "cmp2", "migration": "m1",
              "migration_status": "done", "request_id": "req-1", "why": null,
              "intended_at": "2026-11-03T03:13:00.000000Z", "ended_at": "2026-11-03T03:13:08.200000Z" },
            { "instance": "i2", "name": "vm2", "state": "named", "attempt": 1, "to": null, "migration": null,
              "migration_status": null, "request_id": null, "why": "local root disk",
              "intended_at": null, "ended_at": null },
        ],
        "timeline": [
            { "at": "2026-11-03T03:12:44.120000Z", "kind": "phase", "instance": null, "text": "suspected" },
            { "at": "2026-11-03T03:12:58.000000Z", "kind": "fence", "instance": null, "text": "redfish: Off, read twice" },
        ],
    });
    incident.as_object_mut().expect("it is one").extend(rest.as_object().expect("it is one").clone());
    incident
}

/// `value` with some of its keys set.
pub(crate) fn with(mut value: Value, keys: Value) -> Value {
    value.as_object_mut().expect("it is one").extend(keys.as_object().expect("they are one").clone());
    value
}

pub(crate) fn plan(passed: bool) -> Value {
    json!({ "plan": {
        "host": "cmp1", "would": if passed { "fence and evacuate 1 of 2 instances" } else { "held by not flapping" },
        "gates": [
            { "gate": "we can see", "passed": true, "why": "Nova and Keystone answered" },
            { "gate": "not flapping", "passed": passed, "why": "recovered 40 s ago" },
        ],
        "fence": [{ "method": "redfish", "ready": true, "why": "On, bound" },
                  { "method": "manual", "ready": false, "why": "nobody said so" }],
        "instances": [{ "instance": "i1", "name": "vm1", "would": "evacuate", "why": null },
                      { "instance": "i2", "name": "vm2", "would": "leave", "why": "local root disk" }],
    }})
}
