//! One request to an arbiter over HTTP, with limits, sent once; and which of its failures mean that nothing was sent.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, StatusCode, redirect, retry};
use rustls::ClientConfig;

use super::Failure;

/// No answer of an arbiter is longer, in bytes: a page of the list, or the list of fences.
const LONGEST_ANSWER: usize = 16 << 20;

/// How long the arbiter may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// TCP and TLS together.
    pub connect: Duration,
    /// From the request to the last byte of the answer, the connection included.
    pub answer: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connect: Duration::from_secs(1), answer: Duration::from_secs(2) }
    }
}

/// Why this arbiter cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{url} is not the address of an arbiter: it reads https://HOST:PORT")]
    NotAnAddress { url: String },
    #[error(
        "the arbiter at {url} is on another machine, and is to be spoken to in the clear: use https, with this node's certificate"
    )]
    InTheClear { url: String },
    #[error("no etcd is named: give the address of each of its members")]
    NoEndpoints,
    #[error("the client for the arbiter at {url} could not be made from these TLS settings")]
    Client {
        url: String,
        #[source]
        source: reqwest::Error,
    },
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// A client that never does anything twice: no redirects, no retries, no proxy in between.
pub(super) fn client(url: &str, tls: Option<ClientConfig>, limits: Limits) -> Result<Client, SettingsError> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .retry(retry::never())
        .http1_only()
        .connect_timeout(limits.connect)
        .timeout(limits.answer)
        // Shorter than any server's, so that no request runs into a connection that is just being closed.
        .pool_idle_timeout(Duration::from_secs(5));
    let client = match tls {
        Some(tls) => client.use_preconfigured_tls(tls),
        None => client,
    };
    client.build().map_err(|source| SettingsError::Client { url: url.to_owned(), source })
}

/// `http://HOST:PORT` or `https://HOST:PORT`, without what may stand behind it.
pub(super) fn address(url: &str) -> Result<reqwest::Url, SettingsError> {
    let parsed = reqwest::Url::parse(url).ok();
    let parsed = parsed.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host() && url.path() == "/");
    parsed.ok_or_else(|| SettingsError::NotAnAddress { url: url.to_owned() })
}

pub(super) async fn call(request: RequestBuilder, arbiter: &str) -> Result<Answer, Failure> {
    let mut response = request.send().await.map_err(|source| of_sending(arbiter, source))?;
    let status = response.status();
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|source| no_answer(arbiter, source))? {
        if body.len() + piece.len() > LONGEST_ANSWER {
            let why = format!("it is longer than {LONGEST_ANSWER} bytes");
            return Err(Failure::Unsettled { arbiter: arbiter.to_owned(), why });
        }
        body.extend_from_slice(&piece);
    }
    Ok(Answer { status, body })
}

/// Only where no connection came about was nothing sent. A time limit that ran out says nothing of the kind.
fn of_sending(arbiter: &str, source: reqwest::Error) -> Failure {
    match source.is_connect() {
        true => Failure::Unreachable { arbiter: arbiter.to_owned(), source: source.without_url() },
        false => no_answer(arbiter, source),
    }
}

fn no_answer(arbiter: &str, source: reqwest::Error) -> Failure {
    Failure::NoAnswer { arbiter: arbiter.to_owned(), source: source.without_url() }
}

impl Failure {
    /// Whether it is certain that the arbiter has done nothing, and will do nothing later.
    pub(super) fn is_harmless(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Declined { .. } | Self::Misfit { .. } | Self::Contended { .. } => true,
            Self::NoAnswer { .. } | Self::Unsettled { .. } | Self::Misformed { .. } => false,
        }
    }

    /// An answer that is not of the form that was expected, quoted in part.
    pub(super) fn unsettled(arbiter: &str, answer: &Answer) -> Self {
        let start: String = String::from_utf8_lossy(&answer.body).chars().take(200).collect();
        let why = format!("status {}, {:?}", answer.status.as_u16(), start.trim());
        Self::Unsettled { arbiter: arbiter.to_owned(), why }
    }
}
