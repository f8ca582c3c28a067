//! What the run asks of nodes over REST, with the certificate of an administrator.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, Client, Identity, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use uuid::Uuid;

use crate::network::Port;

pub(crate) const REST_PORT: u16 = 15870;
/// Longer than a node takes that waits for others which are gone.
const LIMIT: Duration = Duration::from_secs(8);

#[derive(Debug)]
pub(crate) struct Rest {
    runtime: Runtime,
    client: Client,
}

/// A volume, as far as the run looks at it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Volume {
    pub(crate) primary: Option<String>,
    pub(crate) serving: bool,
    pub(crate) why: Option<String>,
    pub(crate) replicas: Vec<Replica>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Replica {
    pub(crate) node: String,
    pub(crate) reached: bool,
    pub(crate) role: String,
    pub(crate) disk: String,
    pub(crate) in_sync: bool,
    pub(crate) suspect: bool,
    #[serde(default)]
    pub(crate) requests: u64,
}

impl Volume {
    pub(crate) fn is_whole(&self) -> bool {
        let good =
            |replica: &Replica| replica.reached && replica.disk == "UpToDate" && replica.in_sync && !replica.suspect;
        self.serving && self.primary.is_some() && self.replicas.iter().all(good)
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.replicas.iter().all(|replica| replica.requests == 0)
    }

    pub(crate) fn told(&self) -> String {
        let replicas = self.replicas.iter().map(|replica| {
            let Replica { node, role, disk, in_sync, suspect, requests, reached } = replica;
            let out = if *in_sync { "" } else { " not in sync" };
            let (suspect, away) = (if *suspect { " suspect" } else { "" }, if *reached { "" } else { " not reached" });
            format!("{node} {role} {disk}{out}{suspect}{away}, {requests} requests")
        });
        let serving = if self.serving { "serves" } else { "does not serve" };
        let why = self.why.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
        format!("{serving}{why}: {}", replicas.collect::<Vec<_>>().join("; "))
    }
}

impl Rest {
    /// `certificates`: the folder with ca.crt and the administrator's files.
    pub(crate) fn new(certificates: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = certificates.join(name);
            std::fs::read(&path).with_context(|| format!("could not read {}", path.display()))
        };
        let ours = [read("torture.crt")?, read("torture.key")?].concat();
        let client = Client::builder()
            .use_rustls_tls()
            .tls_built_in_root_certs(false)
            .add_root_certificate(Certificate::from_pem(&read("ca.crt")?)?)
            .identity(Identity::from_pem(&ours)?)
            .no_proxy()
            .connect_timeout(Duration::from_secs(2))
            .timeout(LIMIT)
            .build()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { runtime, client })
    }

    pub(crate) fn volume(&self, at: Port, volume: Uuid) -> Result<Volume> {
        Ok(serde_json::from_value(self.ask(Method::GET, at, &format!("/v1/volumes/{volume}"), None)?)?)
    }

    pub(crate) fn create(&self, at: Port, volume: &Value) -> Result<()> {
        self.ask(Method::POST, at, "/v1/volumes", Some(volume)).map(drop)
    }

    pub(crate) fn promote(&self, at: Port, volume: Uuid, node: Port) -> Result<()> {
        let body = json!({"node": node.to_string()});
        self.ask(Method::POST, at, &format!("/v1/volumes/{volume}/promote"), Some(&body)).map(drop)
    }

    pub(crate) fn answers(&self, at: Port) -> bool {
        self.ask(Method::GET, at, "/v1", None).is_ok()
    }

    fn ask(&self, method: Method, at: Port, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("https://{}:{REST_PORT}{path}", at.address());
        let mut request = self.client.request(method.clone(), &url);
        if let Some(body) = body {
            request = request.json(body);
        }
        let (status, text) = self.runtime.block_on(async {
            let answer = request.send().await?;
            Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
        })?;
        if !status.is_success() {
            bail!("{method} {path} at {at}: {status} {text}");
        }
        if text.is_empty() { Ok(Value::Null) } else { serde_json::from_str(&text).context("an answer that is no JSON") }
    }
}
