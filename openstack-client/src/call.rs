//! Carries every call to Nova, Placement and Keystone: token, microversion, ids, limit, repetition, and the meaning of the answer.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_stream::try_stream;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Request, StatusCode, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use crate::auth::{Token, sensitive, sign};
use crate::error::{Call, Cause, Error, RequestId};
use crate::http::{Incomplete, Lost, Reply, exchange};
use crate::microversion::{Microversion, Offered, Wanted};
use crate::retry::{Ending, Repeat, again, is_ambiguous, pause, retry_after};
use crate::secret::Secret;
use crate::wire::{Page, Versions, error_message};
use crate::{Cloud, Limits};

/// The services that we call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Compute,
    Placement,
    Identity,
}

impl Service {
    /// Its type in the catalogue.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Placement => "placement",
            Self::Identity => "identity",
        }
    }

    fn too_old(self, offered: Offered) -> &'static str {
        match (self, offered) {
            (Self::Compute, Offered::None) => {
                "register Nova's v2.1 endpoint in the catalogue, this one is its legacy API"
            }
            (Self::Compute, Offered::Range { .. }) => "Tandem needs Nova 19.0.0 (Stein) or newer",
            (Self::Placement | Self::Identity, _) => "upgrade the service",
        }
    }
}

/// What we ask of a service.
#[derive(Debug, Clone)]
pub(crate) struct Ask {
    pub(crate) service: Service,
    pub(crate) method: Method,
    /// Below the service's endpoint.
    pub(crate) path: String,
    pub(crate) query: Vec<(&'static str, String)>,
    pub(crate) body: Option<Value>,
    /// The token that is asked about.
    pub(crate) subject: Option<Secret>,
    pub(crate) wanted: Option<Wanted>,
    pub(crate) repeat: Repeat,
    /// For the whole call with all its attempts.
    pub(crate) limit: Duration,
    /// For one attempt of a call that may be repeated.
    pub(crate) attempt: Duration,
    /// Until the last attempt begins.
    pub(crate) begin: Duration,
}

impl Ask {
    /// A read.
    pub(crate) fn get(
        cloud: &Cloud,
        service: Service,
        path: impl Into<String>,
        wanted: impl Into<Option<Wanted>>,
    ) -> Self {
        let limits = cloud.limits();
        Self {
            service,
            method: Method::GET,
            path: path.into(),
            query: Vec::new(),
            body: None,
            subject: None,
            wanted: wanted.into(),
            repeat: Repeat::Safe,
            limit: limits.read,
            attempt: limits.attempt,
            begin: limits.read,
        }
    }

    /// A read that Nova collects from all its cells, of which it waits for a silent one.
    pub(crate) fn collect(cloud: &Cloud, path: impl Into<String>, wanted: Wanted) -> Self {
        Self { attempt: cloud.limits().cells, ..Self::get(cloud, Service::Compute, path, wanted) }
    }

    /// A state of a compute service: set twice it is as set once.
    pub(crate) fn set(cloud: &Cloud, path: String, state: Value, wanted: Wanted) -> Self {
        let limit = cloud.limits().write;
        let ask =
            Self { method: Method::PUT, body: Some(state), limit, ..Self::get(cloud, Service::Compute, path, wanted) };
        Self { begin: limit, ..ask }
    }

    /// What must happen at most once. It is sent soon or not at all: whoever asked for it looked just before whether it may be done.
    pub(crate) fn once(cloud: &Cloud, path: String, action: Value, wanted: Wanted) -> Self {
        let Limits { write: limit, begin, .. } = *cloud.limits();
        let (method, body, repeat) = (Method::POST, Some(action), Repeat::Once);
        Self { method, body, repeat, limit, begin, ..Self::get(cloud, Service::Compute, path, wanted) }
    }

    /// Whether the cloud is another afterwards: then no answer means that it may be.
    fn changes(&self) -> bool {
        self.method != Method::GET
    }

    pub(crate) fn with(mut self, key: &'static str, value: impl ToString) -> Self {
        self.query.push((key, value.to_string()));
        self
    }

    pub(crate) fn call(&self) -> Call {
        let pairs: Vec<_> = self.query.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
        call_name(self.method.clone(), self.service.kind(), &format!("{}{query}", self.path))
    }
}

pub(crate) fn call_name(method: Method, service: &'static str, path: &str) -> Call {
    Call { method, service, path: path.to_owned(), sent_as: RequestId::new(), answered_as: None }
}

/// A successful answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) call: Call,
    address: String,
    body: Bytes,
}

impl Answer {
    /// What a change came to may be unreadable: then it has most likely happened.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|e| {
            let (call, source) = (Box::new(self.call.clone()), Arc::new(e));
            match call.method {
                Method::GET => Error::BadAnswer { call, address: self.address.clone(), source },
                _ => {
                    Error::Unknown { call, what: "the answer could not be understood".to_owned(), source: Some(source) }
                }
            }
        })
    }

    pub(crate) fn bad(&self, why: &'static str) -> Error {
        let (call, address) = (Box::new(self.call.clone()), self.address.clone());
        Error::BadAnswer { call, address, source: Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(why)) }
    }

    /// The id that the service's logs and the instance's actions carry.
    pub(crate) fn request_id(self) -> RequestId {
        self.call.answered_as.unwrap_or(self.call.sent_as)
    }
}

/// A request that only has to be sent.
struct Ready {
    request: Request,
    address: String,
    token: u64,
}

/// An attempt without success.
struct Failed {
    ending: Ending,
    /// What the service asked us to wait.
    wait: Option<Duration>,
    error: Box<Error>,
}

/// What the attempts of one call have come to.
struct SoFar {
    begin_until: Instant,
    attempts: u32,
    /// The token that a service answered 401 to.
    rejected: Option<u64>,
    last: Option<Box<Error>>,
    /// An attempt that may have done it. Only a success undoes that: a later *no* is about the later attempt.
    unknown: Option<Box<Error>>,
}

impl SoFar {
    /// The pause before the next attempt, or the error if there is to be none.
    fn next(&mut self, ask: &Ask, limits: &Limits, failed: Failed, token: u64) -> Result<Duration, Error> {
        let Failed { ending, wait, error } = failed;
        self.attempts += 1;
        if error.may_have_happened() {
            self.unknown = Some(error.clone());
        }
        if ending == Ending::Answered(StatusCode::UNAUTHORIZED) && self.rejected.is_none() {
            tracing::info!(error = %error, "the service rejects our token, asking Keystone for a new one");
            self.rejected = Some(token);
            return Ok(Duration::ZERO);
        }
        let pause = pause(self.attempts - 1, wait, limits, fastrand::f64());
        let too_late = pause >= self.begin_until.saturating_duration_since(Instant::now());
        if !again(ask.repeat, ending) || self.attempts >= limits.attempts || too_late {
            return Err(self.end(*error));
        }
        tracing::debug!(error = crate::error::chain(&*error), pause_ms = pause.as_millis(), "asking again");
        self.last = Some(error);
        Ok(pause)
    }

    fn end(&mut self, last: Error) -> Error {
        self.unknown.take().map_or(last, |unknown| *unknown)
    }
}

impl Cloud {
    /// Makes a call, repeated as `retry` allows, within its limit.
    pub(crate) async fn call(&self, ask: &Ask) -> Result<Answer, Error> {
        let (deadline, begin_until) = (Instant::now() + ask.limit, Instant::now() + ask.begin);
        let mut so_far = SoFar { begin_until, attempts: 0, rejected: None, last: None, unknown: None };
        loop {
            let call = ask.call();
            // Until it is ready nothing was sent that changes the cloud: a limit that passes here is not an "unknown".
            let prepared = timeout_at(begin_until.min(deadline), self.prepare(ask, &call, so_far.rejected)).await;
            let ready = match prepared {
                Ok(Ok(ready)) => ready,
                Ok(Err(error)) => return Err(so_far.end(error)),
                Err(_) => {
                    let error = timed_out(ask, call, so_far.last.take());
                    return Err(so_far.end(error));
                }
            };
            let token = ready.token;
            match self.attempt(ask, call, ready, deadline).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => tokio::time::sleep(so_far.next(ask, self.limits(), failed, token)?).await,
            }
        }
    }

    async fn prepare(&self, ask: &Ask, call: &Call, rejected: Option<u64>) -> Result<Ready, Error> {
        let token = self.auth().token(rejected).await?;
        let base = self.base(ask.service, &token)?;
        let version = match ask.wanted {
            Some(wanted) => Some(self.version(ask.service, wanted, &base, call).await?),
            None => None,
        };
        let request = build(ask, call, &base, version, &token);
        Ok(Ready { request, address: base.to_string(), token: token.generation })
    }

    async fn attempt(&self, ask: &Ask, call: Call, ready: Ready, deadline: Instant) -> Result<Answer, Failed> {
        let limits = self.limits();
        let (client, until) = match ask.repeat {
            Repeat::Safe => (&self.http().kept, deadline.min(Instant::now() + ask.attempt)),
            Repeat::Once => (&self.http().fresh, deadline),
        };
        let Ready { request, address, .. } = ready;
        match timeout_at(until, exchange(client, request, limits.body_bytes)).await {
            Ok(Ok(reply)) => self.answered(ask, call, address, reply),
            Ok(Err(lost)) => Err(lose(ask, call, address, self.auth().config.origin.clone(), lost)),
            Err(_) => {
                let error = Box::new(silent(ask, call, "no answer came within the limit", None));
                Err(Failed { ending: Ending::NoAnswer, wait: None, error })
            }
        }
    }

    fn answered(&self, ask: &Ask, mut call: Call, address: String, reply: Reply) -> Result<Answer, Failed> {
        call.answered_as = request_id(&reply.headers);
        let wait = retry_after(&reply.headers, SystemTime::now());
        if !reply.status.is_success() {
            let (ending, error) = (Ending::Answered(reply.status), Box::new(self.refused(ask, call, address, &reply)));
            return Err(Failed { ending, wait, error });
        }
        self.succeeded(ask, call, address, reply.body).map_err(|error| {
            // An answer that is too large will be so again.
            let too_large = matches!(error, Error::TooLarge { .. });
            let ending = if too_large { Ending::Answered(reply.status) } else { Ending::BrokenOff };
            Failed { ending, wait, error: Box::new(error) }
        })
    }

    fn succeeded(
        &self,
        ask: &Ask,
        call: Call,
        address: String,
        body: Result<Bytes, Incomplete>,
    ) -> Result<Answer, Error> {
        match body {
            Ok(body) => Ok(Answer { call, address, body }),
            // Nova has said that it accepts; of such calls we need no more.
            Err(_) if ask.repeat == Repeat::Once => Ok(Answer { call, address, body: Bytes::new() }),
            Err(Incomplete::TooLarge) if ask.changes() => Err(silent(ask, call, "the answer is too large", None)),
            Err(Incomplete::TooLarge) => {
                Err(Error::TooLarge { call: Box::new(call), limit_bytes: self.limits().body_bytes })
            }
            Err(Incomplete::BrokenOff(cause)) => Err(silent(ask, call, "it broke off", Some(cause))),
        }
    }

    fn refused(&self, ask: &Ask, call: Call, address: String, reply: &Reply) -> Error {
        let (status, message, call) = (reply.status, message(reply), Box::new(call));
        if ask.changes() && is_ambiguous(status) {
            return Error::Unknown { call, what: format!("{status} came back ({message})"), source: None };
        }
        let missing = matches!(status, StatusCode::NOT_FOUND | StatusCode::CONFLICT | StatusCode::GONE);
        if missing && !is_the_services_word(reply) {
            // A proxy without its backend also says 404. That a thing does not exist is for the service to say.
            return silent(ask, *call, &format!("{status} came from something before the service ({message})"), None);
        }
        match status {
            StatusCode::NOT_FOUND => Error::NotFound { call, message },
            StatusCode::CONFLICT => Error::Conflict { call, message },
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Error::Busy { call, status, message, retry_after: retry_after(&reply.headers, SystemTime::now()) }
            }
            StatusCode::NOT_ACCEPTABLE if ask.wanted.is_some() => self.no_longer_offered(ask, call, address),
            _ => Error::Refused { call, status, message },
        }
    }

    /// The cloud has changed since we asked what it offers: the next call asks again.
    fn no_longer_offered(&self, ask: &Ask, call: Box<Call>, address: String) -> Error {
        let offered = self.forget_versions(ask.service).unwrap_or(Offered::None);
        let needed = ask.wanted.map_or(Microversion(0, 0), |wanted| wanted.needed);
        Error::Microversion {
            call,
            address,
            needed,
            offered,
            remedy: "the service was exchanged meanwhile; call again",
        }
    }

    /// Where a service's paths begin. It comes from the catalogue and not from the `self` link that the service reports of itself: behind a
    /// proxy that link can name a host which only the proxy reaches.
    fn base(&self, service: Service, token: &Token) -> Result<Url, Error> {
        match service {
            Service::Compute => Ok(versioned(self.auth().endpoint(token, service.kind())?, "v2.1")),
            Service::Placement => self.auth().endpoint(token, service.kind()),
            // The address that gave us the token also knows what a token is worth.
            Service::Identity => Ok(self.auth().config.auth_url.clone()),
        }
    }

    // ---- microversions ----

    async fn version(&self, service: Service, wanted: Wanted, base: &Url, call: &Call) -> Result<Microversion, Error> {
        let offered = self.offered(service).await?;
        wanted.choose(offered).ok_or_else(|| {
            // It may have been a worker that is upgraded last: the next call asks again.
            self.forget_versions(service);
            Error::Microversion {
                call: Box::new(call.clone()),
                address: base.to_string(),
                needed: wanted.needed,
                offered,
                remedy: service.too_old(offered),
            }
        })
    }

    /// What the service offers, asked once. It is asked in a task of its own: a caller that is dropped or not polled keeps nobody waiting. A failure
    /// is not kept.
    async fn offered(&self, service: Service) -> Result<Offered, Error> {
        if let Some(offered) = self.versions(service).get() {
            return Ok(offered);
        }
        let cloud = self.clone();
        let asking = tokio::spawn(async move { cloud.ask_versions(service).await });
        asking.await.expect("it does not panic and nobody aborts it")
    }

    async fn ask_versions(&self, service: Service) -> Result<Offered, Error> {
        let known = self.versions(service);
        let _turn = known.turn.lock().await;
        if let Some(offered) = known.get() {
            return Ok(offered);
        }
        let answer = self.call_boxed(Ask::get(self, service, "/", None)).await.map_err(not_this_api)?;
        let offered = answer.json::<Versions>()?.offered().ok_or_else(|| answer.bad("it names no version"))?;
        known.set(Some(offered));
        Ok(offered)
    }

    /// A call within a call; boxed, or the future would contain itself.
    fn call_boxed(&self, ask: Ask) -> BoxFuture<'static, Result<Answer, Error>> {
        let cloud = self.clone();
        async move { cloud.call(&ask).await }.boxed()
    }

    fn forget_versions(&self, service: Service) -> Option<Offered> {
        let known = self.versions(service);
        let offered = known.get();
        known.set(None);
        offered
    }

    // ---- lists ----

    /// A list item by item, read page by page: no more than one page is held. Stops at the first error. A service that says that there is more
    /// and does not go on ends in an error: part of a list must not pass for the whole.
    pub(crate) fn pages<P: Page>(&self, ask: Ask) -> impl Stream<Item = Result<P::Item, Error>> + Send + use<P> {
        let cloud = self.clone();
        try_stream! {
            let mut markers = HashSet::new();
            let mut marker: Option<String> = None;
            loop {
                let mut ask = ask.clone().with("limit", cloud.limits().page);
                if let Some(marker) = &marker {
                    ask = ask.with("marker", marker);
                }
                let answer = cloud.call(&ask).await?;
                let page: P = answer.json()?;
                // Nova's link names the host that Nova believes to be, so it only says whether there is more.
                let more = page.has_next();
                marker = None;
                for item in page.into_items() {
                    marker = P::marker(&item);
                    yield item;
                }
                if !more {
                    break;
                }
                let goes_on = marker.as_ref().is_some_and(|marker| markers.insert(marker.clone()));
                if !goes_on {
                    Err(answer.bad("it says that there is more, and does not go on"))?;
                }
            }
        }
    }
}

fn build(ask: &Ask, call: &Call, base: &Url, version: Option<Microversion>, token: &Token) -> Request {
    let mut url = base.clone();
    url.set_path(&format!("{}{}", base.path().trim_end_matches('/'), ask.path));
    if !ask.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&ask.query);
    }
    let mut request = Request::new(ask.method.clone(), url);
    sign(&mut request, token, call);
    let headers = request.headers_mut();
    headers.insert(reqwest::header::ACCEPT, HeaderValue::from_static("application/json"));
    if let Some(version) = version {
        let value = format!("{} {version}", ask.service.kind());
        headers.insert("openstack-api-version", HeaderValue::from_str(&value).expect("a word and two numbers"));
    }
    if let Some(subject) = &ask.subject {
        headers.insert("x-subject-token", sensitive(subject).expect("checked before the call"));
        // Without it Keystone says of a token with access rules that there is none.
        headers.insert("openstack-identity-access-rules", HeaderValue::from_static("1.0"));
    }
    if let Some(body) = &ask.body {
        headers.insert(reqwest::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(body.to_string().into());
    }
    request
}

/// The endpoint of one major version. Catalogues name it with or without the version, and with or without the project behind it.
fn versioned(mut url: Url, version: &str) -> Url {
    let segments: Vec<_> = url.path().split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
    let is_version =
        |segment: &String| segment.strip_prefix('v').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    let path = match segments.iter().position(is_version) {
        Some(at) => segments[..=at].join("/"),
        None => segments.into_iter().chain([version.to_owned()]).collect::<Vec<_>>().join("/"),
    };
    url.set_path(&path);
    url
}

/// Whether a service wrote this answer: it has a request id, or the fault that the service's API describes.
fn is_the_services_word(reply: &Reply) -> bool {
    request_id(&reply.headers).is_some() || reply.body.as_deref().is_ok_and(|body| error_message(body).is_some())
}

pub(crate) fn request_id(headers: &HeaderMap) -> Option<RequestId> {
    const NAMES: [HeaderName; 2] =
        [HeaderName::from_static("x-openstack-request-id"), HeaderName::from_static("x-compute-request-id")];
    let found = NAMES.iter().find_map(|name| headers.get(name))?;
    // a stranger's bytes that go into our log
    let text = found.to_str().ok().filter(|text| text.len() <= 64)?;
    Some(RequestId(text.to_owned()))
}

/// What a service says in an error, or what came instead.
pub(crate) fn message(reply: &Reply) -> String {
    const LONGEST: usize = 400;
    let body = reply.body.as_deref().unwrap_or_default();
    let other = || match reply.headers.get(reqwest::header::CONTENT_TYPE).and_then(|value| value.to_str().ok()) {
        _ if body.is_empty() => "no explanation".to_owned(),
        Some(kind) => format!("{} bytes of {kind}", body.len()),
        None => format!("{} bytes of no known type", body.len()),
    };
    let text = error_message(body).unwrap_or_else(other);
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn lose(ask: &Ask, call: Call, address: String, origin: String, lost: Lost) -> Failed {
    let (ending, error) = match lost {
        Lost::NotTrusted { cause, remedy } => {
            (Ending::NotTrusted, Error::NotTrusted { address, remedy, origin, source: cause })
        }
        Lost::NotConnected { cause } => {
            (Ending::NotSent, Error::Unreachable { call: Box::new(call), address, source: cause })
        }
        Lost::NoAnswer { cause } => (Ending::NoAnswer, silent(ask, call, "no answer came", Some(cause))),
    };
    Failed { ending, wait: None, error: Box::new(error) }
}

/// An error of the question for microversions, as whoever made another call should read it: that a thing does not exist was not said.
fn not_this_api(error: Error) -> Error {
    let address = match &error {
        Error::NotFound { call, .. } | Error::Conflict { call, .. } | Error::Refused { call, .. } => call.service,
        _ => return error,
    };
    let call = error.call().expect("all three have one").clone();
    Error::BadAnswer { call: Box::new(call), address: format!("the {address} endpoint"), source: Arc::new(error) }
}

fn silent(ask: &Ask, call: Call, what: &str, source: Option<Cause>) -> Error {
    let (call, what) = (Box::new(call), what.to_owned());
    if ask.changes() { Error::Unknown { call, what, source } } else { Error::BrokenOff { call, what, source } }
}

fn timed_out(ask: &Ask, call: Call, last: Option<Box<Error>>) -> Error {
    Error::TimedOut { call: Box::new(call), limit_s: ask.begin.min(ask.limit).as_secs_f64(), last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compute(url: &str) -> String {
        versioned(url.parse().expect("a URL"), "v2.1").to_string()
    }

    #[test]
    fn every_way_to_write_novas_endpoint_leads_to_the_same_place() {
        let ways = [
            "http://nova/compute",
            "http://nova/compute/",
            "http://nova/compute/v2.1",
            "http://nova/compute/v2.1/",
            "http://nova/compute/v2.1/f00d",
        ];
        assert!(ways.into_iter().all(|way| compute(way) == "http://nova/compute/v2.1"));
        assert_eq!(compute("http://nova:8774"), "http://nova:8774/v2.1");
    }

    #[test]
    fn an_error_body_is_told_in_its_own_words_or_by_its_kind() {
        let reply = |kind: &'static str, body: &'static [u8]| Reply {
            status: StatusCode::BAD_GATEWAY,
            headers: HeaderMap::from_iter([(reqwest::header::CONTENT_TYPE, HeaderValue::from_static(kind))]),
            body: Ok(Bytes::from_static(body)),
        };
        assert_eq!(message(&reply("text/html", b"<h1>Bad</h1>")), "12 bytes of text/html");
        assert_eq!(message(&reply("application/json", br#"{"badRequest": {"code": 400, "message": "No."}}"#)), "No.");
        assert_eq!(message(&reply("application/json", b"")), "no explanation");
    }
}
