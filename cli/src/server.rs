//! Speaks HTTP with a daemon, over TCP, TLS or its control socket: whatever comes back is an answer or a [`Failure`].

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode, Url, redirect};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use crate::address::{Address, Target};
use crate::answer::{Text, clean};
use crate::daemon::Daemon;
use crate::failure::{Call, Failure, Verb};
use crate::tls;

const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection on which lines come now and then is looked after by the kernel.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// No answer of a daemon's comes near; an endless one shall not fill the memory.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;

/// One daemon, at one address, or any of several nodes: the first that is reached.
#[derive(Debug)]
pub(crate) struct Server {
    doors: Vec<Door>,
    /// The door that answered last.
    open: AtomicUsize,
}

/// A whole answer with a status of success, known to be JSON; or nothing, where there is nothing to say (204).
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

/// What a daemon says where it does not say yes. tandem-ha's code is the number of the status, tandem-node's a word.
#[derive(Debug, Deserialize)]
struct ErrorAnswer {
    error: ErrorText,
}

#[derive(Debug, Deserialize)]
struct ErrorText {
    #[serde(default)]
    code: Text,
    message: Text,
    #[serde(default)]
    remedy: Text,
}

impl Server {
    /// Connects to nothing yet. `config` is the file of --config, which may name certificates.
    pub(crate) fn at(
        daemon: Daemon,
        addresses: Vec<Address>,
        limit: Duration,
        config: Option<&Path>,
    ) -> Result<Self, Failure> {
        let doors = addresses.into_iter().map(|address| Door::new(daemon, address, limit, config));
        Ok(Self { doors: doors.collect::<Result<_, _>>()?, open: AtomicUsize::new(0) })
    }

    /// The one that answered last, or is asked first.
    pub(crate) fn address(&self) -> &Address {
        &self.doors[self.open.load(Ordering::Relaxed)].address
    }

    /// True if this is the control socket, which takes orders.
    pub(crate) fn is_socket(&self) -> bool {
        matches!(self.address().target, Target::Socket(_))
    }

    /// `segments` are escaped: names of hosts and ids come from outside.
    pub(crate) async fn get(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Answer, Failure> {
        self.ask(Verb::Get, segments, query, None).await
    }

    pub(crate) async fn post(&self, segments: &[&str], body: Value) -> Result<Answer, Failure> {
        self.ask(Verb::Post, segments, &[], Some(body)).await
    }

    pub(crate) async fn put(&self, segments: &[&str], body: Value) -> Result<Answer, Failure> {
        self.ask(Verb::Put, segments, &[], Some(body)).await
    }

    pub(crate) async fn delete(&self, segments: &[&str]) -> Result<Answer, Failure> {
        self.ask(Verb::Delete, segments, &[], None).await
    }

    /// An answer that does not end by itself: only its beginning is waited for.
    pub(crate) async fn stream(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Stream, Failure> {
        self.anywhere(async |door: &Door| door.stream(segments, query).await).await
    }

    async fn ask(
        &self,
        verb: Verb,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<Value>,
    ) -> Result<Answer, Failure> {
        self.anywhere(async |door: &Door| door.ask(verb, segments, query, body.as_ref()).await).await
    }

    /// Each door once, the one that answered last first.
    async fn anywhere<T>(&self, ask: impl AsyncFn(&Door) -> Result<T, Failure>) -> Result<T, Failure> {
        let first = self.open.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (0..self.doors.len()).map(|step| (first + step) % self.doors.len()) {
            match ask(&self.doors[index]).await {
                Err(failure) if failure.another_may_answer() => failures.push(failure),
                answer => {
                    self.open.store(index, Ordering::Relaxed);
                    return answer;
                }
            }
        }
        match failures.len() {
            1 => Err(failures.remove(0)),
            _ => Err(Failure::NoneReached { daemon: self.doors[first].daemon, failures }),
        }
    }
}

/// One address.
#[derive(Debug)]
struct Door {
    daemon: Daemon,
    address: Address,
    client: Client,
    limit: Duration,
}

impl Door {
    fn new(daemon: Daemon, address: Address, limit: Duration, config: Option<&Path>) -> Result<Self, Failure> {
        // http_proxy is for the world outside; the daemon is never behind it.
        let builder = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT.min(limit))
            .tcp_keepalive(KEEPALIVE)
            .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")));
        let builder = match &address.target {
            Target::Socket(path) => builder.unix_socket(path.as_path()).tls_built_in_root_certs(false),
            Target::Port(_) => with_roots(builder, daemon, &address, config)?,
        };
        Ok(Self { daemon, client: builder.build().map_err(Failure::Client)?, address, limit })
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

    fn request(&self, verb: Verb, segments: &[&str], query: &[(&str, &str)]) -> (Call, RequestBuilder) {
        let url = self.url(segments, query);
        let call = Call { daemon: self.daemon, verb, path: path_of(&url) };
        (call, self.client.request(verb.into(), url))
    }

    async fn ask(
        &self,
        verb: Verb,
        segments: &[&str],
        query: &[(&str, &str)],
        body: Option<&Value>,
    ) -> Result<Answer, Failure> {
        let (call, mut request) = self.request(verb, segments, query);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.timeout(self.limit).send().await.map_err(|cause| self.not_answered(&call, cause))?;
        let status = response.status();
        let body = self.whole(&call, response).await?;
        if status.is_success() { self.answer(call, status, body) } else { Err(self.refusal(call, status, &body)) }
    }

    async fn stream(&self, segments: &[&str], query: &[(&str, &str)]) -> Result<Stream, Failure> {
        let (call, request) = self.request(Verb::Get, segments, query);
        let late = Failure::Late { call: call.clone(), address: self.address.to_string(), limit: self.limit };
        let response = tokio::time::timeout(self.limit, request.send()).await.map_err(|_| late)?;
        let response = response.map_err(|cause| self.not_answered(&call, cause))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Stream { response, call, address: self.address.to_string(), bytes: 0 });
        }
        let body = self.whole(&call, response).await?;
        Err(self.refusal(call, status, &body))
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

    fn answer(&self, call: Call, status: StatusCode, body: Vec<u8>) -> Result<Answer, Failure> {
        if status == StatusCode::NO_CONTENT {
            return Ok(Answer { body: Vec::new(), call, address: self.address.to_string() });
        }
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
            Ok(ErrorAnswer { error: ErrorText { code: word, message, remedy } }) => {
                let remedy = remedy.get().map(str::to_owned).or_else(|| self.remedy(code));
                Failure::Refused { call, status: code, code: word, message: message.to_string(), remedy }
            }
            Err(_) => Failure::Stranger { call, address, status: code, message: beginning(body) },
        }
    }

    fn not_understood(&self, call: &Call, what: String) -> Failure {
        Failure::NotUnderstood { call: call.clone(), address: self.address.to_string(), what }
    }

    fn not_answered(&self, call: &Call, source: reqwest::Error) -> Failure {
        let (daemon, address, origin) = (self.daemon, self.address.to_string(), self.address.origin.clone());
        if let Some(what) = tls::refusal(&source) {
            return Failure::Tls { daemon, address, origin, what };
        }
        if !source.is_connect() {
            let limit = source.is_timeout().then_some(self.limit);
            return Failure::NoAnswer { call: call.clone(), address, origin, limit, source };
        }
        match io_kind(&source) {
            Some(io::ErrorKind::PermissionDenied) if matches!(self.address.target, Target::Socket(_)) => {
                Failure::NotPermitted { daemon, address, origin }
            }
            _ => Failure::NotReached { daemon, address, origin, source },
        }
    }

    fn remedy(&self, status: u16) -> Option<String> {
        (status >= 500).then(|| format!("`journalctl -u {}` tells more", self.daemon))
    }
}

/// tandem-node has a CA of its own; tandem-ha is believed as any web server is.
fn with_roots(
    builder: ClientBuilder,
    daemon: Daemon,
    address: &Address,
    config: Option<&Path>,
) -> Result<ClientBuilder, Failure> {
    match (daemon, address.is_tls()) {
        (Daemon::Node, true) => Ok(builder.use_preconfigured_tls(tls::client_config(config)?)),
        (_, is_tls) => Ok(builder.tls_built_in_root_certs(is_tls)),
    }
}

/// An answer that comes in pieces, as long as there is something to tell.
#[derive(Debug)]
pub(crate) struct Stream {
    response: Response,
    call: Call,
    address: String,
    bytes: usize,
}

impl Stream {
    /// The next bytes; none at its end.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        match self.response.chunk().await {
            Ok(chunk) => {
                self.bytes += chunk.as_ref().map_or(0, |chunk| chunk.len());
                Ok(chunk.map(Into::into))
            }
            Err(source) => {
                let status = self.response.status().as_u16();
                let (call, address) = (self.call.clone(), self.address.clone());
                Err(Failure::BrokenOff { call, address, status, bytes: self.bytes, source })
            }
        }
    }
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
