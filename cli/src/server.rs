//! Speaks HTTP with tandem-ha, over TCP or its control socket: whatever comes back is an answer or a [`Failure`].

use std::error::Error;
use std::io;
use std::time::Duration;

use reqwest::{Client, Method, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::address::{Address, Target};
use crate::answer::{Text, clean};
use crate::failure::{Call, Failure};

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// No answer of tandem-ha's comes near; an endless one shall not fill the memory.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: Address,
    client: Client,
    limit: Duration,
}

/// A whole answer with a status of success, known to be JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    body: Vec<u8>,
    call: Call,
    address: String,
}

impl Answer {
    /// As it came, byte for byte.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.body
    }

    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|cause| Failure::NotUnderstood {
            call: self.call.clone(),
            address: self.address.clone(),
            what: cause.to_string(),
        })
    }
}

/// What tandem-ha says where it does not say yes.
#[derive(Debug, Deserialize)]
struct ErrorAnswer {
    error: ErrorText,
}

#[derive(Debug, Deserialize)]
struct ErrorText {
    message: Text,
}

impl Server {
    /// Connects to nothing yet.
    pub(crate) fn at(address: Address, limit: Duration) -> Result<Self, Failure> {
        // http_proxy is for the world outside; the daemon is never behind it.
        let builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT.min(limit))
            .timeout(limit)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        let builder = match &address.target {
            Target::Socket(path) => builder.unix_socket(path.as_path()).tls_built_in_root_certs(false),
            Target::Port(url) => builder.tls_built_in_root_certs(url.scheme() == "https"),
        };
        Ok(Self { client: builder.build().map_err(Failure::Client)?, address, limit })
    }

    /// True if this is the control socket, which takes orders.
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self.address.target, Target::Socket(_))
    }

    /// `segments` are escaped: names of hosts and ids come from outside.
    pub(crate) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.ask(Method::GET, self.url(segments, query), None).await
    }

    pub(crate) async fn post(&self, segments: &[&str], body: Value) -> Result<Answer, Failure> {
        self.ask(Method::POST, self.url(segments, &[]), Some(body)).await
    }

    fn url(&self, segments: &[&str], query: &[(&str, &str)]) -> Url {
        let mut url = match &self.address.target {
            Target::Socket(_) => Url::parse("http://localhost/").expect("it is one"),
            Target::Port(url) => url.clone(),
        };
        url.path_segments_mut().expect("http and https have paths").pop_if_empty().extend(segments);
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        url
    }

    async fn ask(&self, method: Method, url: Url, body: Option<Value>) -> Result<Answer, Failure> {
        let call = Call { method: method.clone(), path: path_of(&url) };
        let mut request = self.client.request(method, url);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.map_err(|cause| self.not_answered(&call, cause))?;
        let status = response.status();
        let body = self.whole(&call, response).await?;
        if status.is_success() { self.answer(call, body) } else { Err(self.refusal(call, status, &body)) }
    }

    async fn whole(&self, call: &Call, mut response: Response) -> Result<Vec<u8>, Failure> {
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(Some(_)) if body.len() > ANSWER_LIMIT_BYTES => {
                    return Err(self.not_understood(call, format!("more than {ANSWER_LIMIT_BYTES} bytes")));
                }
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => return Ok(body),
                Err(source) => {
                    let (call, address) = (call.clone(), self.address.to_string());
                    return Err(Failure::BrokenOff { call, address, status, bytes: body.len(), source });
                }
            }
        }
    }

    fn answer(&self, call: Call, body: Vec<u8>) -> Result<Answer, Failure> {
        match serde_json::from_slice::<IgnoredAny>(&body) {
            Ok(_) => Ok(Answer { body, call, address: self.address.to_string() }),
            Err(cause) => Err(self.not_understood(&call, format!("no JSON ({cause}): {}", beginning(&body)))),
        }
    }

    fn refusal(&self, call: Call, status: StatusCode, body: &[u8]) -> Failure {
        if !status.is_client_error() && !status.is_server_error() {
            return self.not_understood(&call, format!("HTTP {status}"));
        }
        let (code, address) = (status.as_u16(), self.address.to_string());
        match serde_json::from_slice::<ErrorAnswer>(body) {
            Ok(ErrorAnswer { error }) => {
                Failure::Refused { call, status: code, message: error.message.to_string(), remedy: remedy(code) }
            }
            Err(_) => Failure::Stranger { call, address, status: code, message: beginning(body) },
        }
    }

    fn not_understood(&self, call: &Call, what: String) -> Failure {
        Failure::NotUnderstood { call: call.clone(), address: self.address.to_string(), what }
    }

    fn not_answered(&self, call: &Call, source: reqwest::Error) -> Failure {
        let (address, origin) = (self.address.to_string(), self.address.origin.clone());
        if !source.is_connect() {
            let limit = source.is_timeout().then_some(self.limit);
            return Failure::NoAnswer { call: call.clone(), address, origin, limit, source };
        }
        match io_kind(&source) {
            Some(io::ErrorKind::PermissionDenied) if self.is_socket() => Failure::NotPermitted { address, origin },
            _ => Failure::NotReached { address, origin, source },
        }
    }
}

fn remedy(status: u16) -> Option<String> {
    (status >= 500).then(|| "`journalctl -u tandem-ha` tells more".to_owned())
}

fn path_of(url: &Url) -> String {
    url.query().map_or_else(|| url.path().to_owned(), |query| format!("{}?{query}", url.path()))
}

/// Enough of a stranger's answer to recognise him.
fn beginning(body: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = clean(&String::from_utf8_lossy(&body[..body.len().min(4 * SHOWN)]));
    let text = text.trim();
    match text.char_indices().nth(SHOWN) {
        _ if text.is_empty() => "(nothing)".to_owned(),
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn io_kind(error: &dyn Error) -> Option<io::ErrorKind> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        cause = error.source();
    }
    None
}
