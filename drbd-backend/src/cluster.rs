//! The other nodes, and the way to them: their REST, over mutual TLS, or plain between nodes of one machine.
//!
//! Every question is bounded in time, in bytes, and says for whom it is asked. A node that does not answer is one of those that were not reached, and
//! no more than that.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Method;
use futures::future::join_all;
use reqwest::{Client, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::admin::{Caller, FOR, LOCAL, Problem};
use crate::identity::{Credentials, Door, Identity, Name, client_config};

/// No answer of a node is longer, in bytes.
const LONGEST_ANSWER: usize = 16 << 20;

/// A node of one network answers at once, or not at all.
const CONNECT: Duration = Duration::from_secs(2);

/// Less than a door keeps a connection on which nothing is asked.
const IDLE: Duration = Duration::from_secs(20);

/// Where another node is, as it is configured.
#[derive(Debug, Clone)]
pub struct OtherConfig {
    /// Where its replicas meet those of this node.
    pub peers: SocketAddr,
    /// `https://HOST:PORT`, or `http://` on loopback.
    pub rest: String,
    /// Where initiators reach it, to be told to those that ask here.
    pub iscsi: Option<SocketAddr>,
}

/// Another node.
#[derive(Debug)]
pub struct Other {
    pub name: Name,
    pub peers: SocketAddr,
    pub iscsi: Option<SocketAddr>,
    /// Without a slash at its end.
    pub rest: String,
    /// Speaks to this node and to nobody else.
    client: Client,
}

/// Why another node cannot be spoken to.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("[nodes.{node}] rest = {rest:?} is no address: https://HOST:PORT")]
    Url { node: Name, rest: String },
    #[error("[nodes.{node}] rest = {rest:?} is plain, and not on loopback: https, with [tls] set")]
    InTheClear { node: Name, rest: String },
    #[error("[nodes.{node}] rest = {rest:?} is https, and this node has no certificate: set [tls]")]
    NoCertificate { node: Name, rest: String },
    #[error("there could be no client for {node}")]
    Client {
        node: Name,
        #[source]
        source: reqwest::Error,
    },
}

/// All other nodes of the configuration.
#[derive(Debug, Default)]
pub struct Cluster {
    others: BTreeMap<String, Other>,
}

/// What the nodes said, and why some said nothing.
#[derive(Debug)]
pub struct Answers<T> {
    pub told: Vec<(String, T)>,
    pub silent: BTreeMap<String, Problem>,
}

impl Cluster {
    /// # Errors
    /// A node's address is none, or would be spoken to in the clear.
    pub fn new(
        nodes: impl IntoIterator<Item = (Name, OtherConfig)>,
        ours: Option<&Arc<Credentials>>,
    ) -> Result<Self, ClusterError> {
        let others = nodes.into_iter().map(|(name, config)| {
            let client = client(&name, &config.rest, ours)?;
            let rest = config.rest.trim_end_matches('/').to_owned();
            Ok((name.to_string(), Other { name, peers: config.peers, iscsi: config.iscsi, rest, client }))
        });
        Ok(Self { others: others.collect::<Result<_, _>>()? })
    }

    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.others.keys().map(String::as_str)
    }

    #[must_use]
    pub fn get(&self, node: &str) -> Option<&Other> {
        self.others.get(node)
    }

    /// Asks another node alone, on behalf of this caller.
    ///
    /// # Errors
    /// What it answers, or that it does not within `limit`.
    pub async fn ask(
        &self,
        node: &str,
        method: Method,
        path: &str,
        body: Option<&Value>,
        caller: &Caller,
        limit: Duration,
    ) -> Result<Value, Problem> {
        let other = self.known(node)?;
        let mut request = other.client.request(method, format!("{}{path}", other.rest)).timeout(limit);
        request = request.header(LOCAL, "1").header(FOR, caller.to_string());
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut answer = request.send().await.map_err(|error| silent(node, error))?;
        let (status, mut bytes) = (answer.status(), Vec::new());
        while let Some(piece) = answer.chunk().await.map_err(|error| silent(node, error))? {
            bytes.extend_from_slice(&piece);
            if bytes.len() > LONGEST_ANSWER {
                return Err(Problem::unreachable(format!("{node} answers without end")));
            }
        }
        match status.is_success() {
            true => Ok(serde_json::from_slice(&bytes).unwrap_or(Value::Null)),
            false => Err(Problem::of_answer(status, &bytes)),
        }
    }

    /// Asks all other nodes at once what they alone know.
    pub async fn ask_all<T: DeserializeOwned>(&self, path: &str, caller: &Caller, limit: Duration) -> Answers<T> {
        let asked = self.names().map(|node| self.ask(node, Method::GET, path, None, caller, limit));
        let mut answers = Answers { told: Vec::new(), silent: BTreeMap::new() };
        for (node, answer) in self.names().zip(join_all(asked).await) {
            let strange = |_| {
                Problem::internal(format!("{node} says what this node does not understand: are they of one version?"))
            };
            match answer.and_then(|answer| serde_json::from_value(answer).map_err(strange)) {
                Ok(answer) => answers.told.push((node.to_owned(), answer)),
                Err(problem) => drop(answers.silent.insert(node.to_owned(), problem)),
            }
        }
        answers
    }

    /// An answer that does not end by itself.
    ///
    /// # Errors
    /// There is none.
    pub async fn stream(&self, node: &str, path: &str) -> Result<reqwest::Response, Problem> {
        let other = self.known(node)?;
        let asked = other.client.get(format!("{}{path}", other.rest)).header(LOCAL, "1").send().await;
        asked.and_then(reqwest::Response::error_for_status).map_err(|error| silent(node, error))
    }

    fn known(&self, node: &str) -> Result<&Other, Problem> {
        self.others.get(node).ok_or_else(|| Problem::not_found(format!("there is no node {node:?}")))
    }
}

fn silent(node: &str, error: reqwest::Error) -> Problem {
    let error = error.without_url();
    Problem::unreachable(format!("{node} does not answer: {}", crate::catalog::story(&error)))
        .remedy("see that tandem-node runs there, and that its address and certificates are right")
}

fn client(node: &Name, rest: &str, ours: Option<&Arc<Credentials>>) -> Result<Client, ClusterError> {
    let (name, text) = (|| node.clone(), || rest.to_owned());
    let url = Url::parse(rest).map_err(|_| ClusterError::Url { node: name(), rest: text() })?;
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let is_loopback = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let builder = Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
    let builder = builder.connect_timeout(CONNECT).pool_idle_timeout(IDLE);
    let builder = match (url.scheme(), ours) {
        ("https", Some(ours)) => {
            let tls = client_config(ours, Identity::Node(node.clone()), Door::Rest);
            builder.use_preconfigured_tls(rustls::ClientConfig::clone(&tls))
        }
        ("https", None) => return Err(ClusterError::NoCertificate { node: name(), rest: text() }),
        ("http", _) if is_loopback => builder,
        ("http", _) => return Err(ClusterError::InTheClear { node: name(), rest: text() }),
        _ => return Err(ClusterError::Url { node: name(), rest: text() }),
    };
    builder.build().map_err(|source| ClusterError::Client { node: name(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(rest: &str) -> Result<Cluster, ClusterError> {
        let config = OtherConfig { peers: "127.0.0.1:1".parse().unwrap(), rest: rest.to_owned(), iscsi: None };
        Cluster::new([("cmp2".parse().unwrap(), config)], None)
    }

    #[test]
    fn plain_is_for_loopback_and_https_needs_a_certificate() {
        for good in ["http://127.0.0.1:15870", "http://[::1]:15870/", "http://localhost:1"] {
            assert!(cluster(good).is_ok(), "{good}");
        }
        assert!(matches!(cluster("http://10.0.0.2:15870"), Err(ClusterError::InTheClear { .. })));
        assert!(matches!(cluster("http://127.0.0.1.evil.example"), Err(ClusterError::InTheClear { .. })));
        assert!(matches!(cluster("https://10.0.0.2:15870"), Err(ClusterError::NoCertificate { .. })));
        for bad in ["10.0.0.2:15870", "", "ftp://127.0.0.1"] {
            assert!(matches!(cluster(bad), Err(ClusterError::Url { .. })), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_node_that_does_not_listen_is_silent_and_a_stranger_is_not_found() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let cluster = cluster(&format!("http://{free}")).unwrap();
        let caller = Caller::this_node("cmp1");
        let answers: Answers<Value> = cluster.ask_all("/v1", &caller, Duration::from_secs(5)).await;
        assert!(answers.told.is_empty());
        assert!(answers.silent["cmp2"].message.contains("cmp2 does not answer"), "{:?}", answers.silent);
        let stranger = cluster.ask("cmp9", Method::GET, "/v1", None, &caller, Duration::from_secs(5)).await;
        assert!(stranger.unwrap_err().message.contains("no node"));
    }
}
