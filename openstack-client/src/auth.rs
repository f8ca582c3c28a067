//! Holds the one token of a cloud: shared by all calls, renewed before its end, replaced once when a service rejects it.
//!
//! ```text
//!  (none) ──▶ Live ──90 % of its life──▶ Due ──one caller asks──▶ Live, next generation
//!              │                           │ ▲
//!              │                           └─┘ meanwhile the old one serves on; Keystone silent: asked again after a moment
//!              └── a service answers 401 to generation N ──▶ one new token; whoever got 401 for N takes N+1
//! ```
//!
//! `osauth` has an authentication of its own, but it prints the password in its `Debug` and never replaces a token that was revoked before
//! its time. So this one implements `osauth`'s trait.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use osauth::{AuthType, EndpointFilters, ErrorKind};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, Request, RequestBuilder, StatusCode, Url};

use crate::Limits;
use crate::call::{call_name, message, request_id};
use crate::config::CloudConfig;
use crate::error::{Call, Error};
use crate::http::{Http, Incomplete, Lost, Reply, exchange};
use crate::retry::{Ending, Repeat, again, pause, retry_after};
use crate::secret::Secret;
use crate::wire::keystone::{AuthAnswer, CatalogueService, auth_request};

pub(crate) const X_AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
const X_SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");
const X_OPENSTACK_REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");

/// How long after a renewal has begun the next one may: one caller renews for all, and a silent Keystone is not asked by every call.
const RENEWAL_PAUSE: Duration = Duration::from_secs(30);
/// How long a rejected password is not tried again: Keystone can lock an account after a few (`lockout_failure_attempts`).
const REJECTION_PAUSE: Duration = Duration::from_secs(30);

/// A token as Keystone issued it, with the catalogue that came along.
pub(crate) struct Token {
    value: Secret,
    /// Counts the tokens of this process: a 401 is about one of them.
    pub(crate) generation: u64,
    ends: Instant,
    catalogue: Vec<CatalogueService>,
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Token {
    /// As a header, which no `Debug` and no compressed HTTP/2 table shows.
    pub(crate) fn header(&self) -> HeaderValue {
        sensitive(&self.value).expect("Keystone sent it as a header")
    }
}

pub(crate) fn sensitive(secret: &Secret) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(secret.reveal()).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Who we are at one cloud, and the token that says so.
pub(crate) struct Auth {
    pub(crate) config: CloudConfig,
    limits: Limits,
    http: Http,
    /// Held while one caller asks Keystone for all.
    turn: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    token: Option<Arc<Token>>,
    renew_at: Instant,
    /// Counts the questions to Keystone, so that one who waited for his turn sees that somebody asked meanwhile.
    asked: u64,
    failure: Option<(Instant, Error)>,
}

/// What there is at one moment.
#[derive(Debug)]
enum Present {
    Live(Arc<Token>),
    /// Live, but to be renewed.
    Due(Arc<Token>),
    None {
        asked: u64,
    },
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Auth {
    pub(crate) fn new(config: CloudConfig, limits: Limits, http: Http) -> Self {
        let state = State { token: None, renew_at: Instant::now(), asked: 0, failure: None };
        Self { config, limits, http, turn: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }

    /// A live token, other than the rejected one. However many wait for it, Keystone is asked once, and a failure is shared like a token:
    /// one wrong password tried fifty times would lock the account. Keystone is asked in a task of its own: a caller that is dropped, or not
    /// polled, keeps nobody waiting.
    pub(crate) async fn token(self: &Arc<Self>, rejected: Option<u64>) -> Result<Arc<Token>, Error> {
        let this = Arc::clone(self);
        let asking = match self.present(rejected) {
            Present::Live(token) => return Ok(token),
            Present::Due(token) => {
                tokio::spawn(async move { this.renew().await });
                return Ok(token);
            }
            Present::None { asked } => tokio::spawn(async move { this.ask_for_all(rejected, asked).await }),
        };
        asking.await.expect("it does not panic and nobody aborts it")
    }

    /// `before`: how often Keystone had been asked when the caller began to wait.
    async fn ask_for_all(&self, rejected: Option<u64>, before: u64) -> Result<Arc<Token>, Error> {
        let _turn = self.turn.lock().await;
        match self.present(rejected) {
            Present::Live(token) | Present::Due(token) => return Ok(token),
            Present::None { asked } => {
                if let Some(failure) = self.state().failure_to_share(asked > before, Instant::now()) {
                    return Err(failure);
                }
            }
        }
        let answer = self.authenticate_within_limit().await;
        self.state().settle(answer, Instant::now())
    }

    /// Exchanges a token that still lives, while it serves on.
    async fn renew(&self) {
        let _turn = self.turn.lock().await;
        match self.authenticate_within_limit().await {
            Ok(issued) => drop(self.state().accept(issued, Instant::now())),
            Err(error) => {
                let why = crate::error::chain(&error);
                tracing::warn!(why, "the token could not be renewed, the old one serves on");
            }
        }
    }

    fn present(&self, rejected: Option<u64>) -> Present {
        self.state().present(rejected, Instant::now())
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn endpoint(&self, token: &Token, service: &str) -> Result<Url, Error> {
        find_endpoint(&token.catalogue, service, &self.config)
    }

    // ---- asking Keystone ----

    async fn authenticate_within_limit(&self) -> Result<Issued, Error> {
        let elapsed = match tokio::time::timeout(self.limits.read, self.authenticate()).await {
            Ok(answer) => return answer,
            Err(elapsed) => elapsed,
        };
        Err(self.unreachable(Lost::NoAnswer { cause: Arc::new(elapsed) }))
    }

    async fn authenticate(&self) -> Result<Issued, Error> {
        let body = auth_request(&self.config.credentials);
        let mut attempt = 0;
        loop {
            let mut call = call_name(Method::POST, "identity", "/auth/tokens");
            let outcome = self.ask(&body, &call).await;
            let (ending, wait) = ended(&outcome);
            let error = match self.judge(outcome, &mut call) {
                Ok(issued) => return Ok(issued),
                Err(error) => error,
            };
            let pause = pause(attempt, wait, &self.limits, fastrand::f64());
            let too_long = pause > self.limits.attempt;
            if !again(Repeat::Safe, ending) || attempt + 1 >= self.limits.attempts || too_long {
                return Err(error);
            }
            tracing::debug!(error = crate::error::chain(&error), "asking Keystone again");
            tokio::time::sleep(pause).await;
            attempt += 1;
        }
    }

    async fn ask(&self, body: &serde_json::Value, call: &Call) -> Result<Reply, Lost> {
        let url = format!("{}/auth/tokens", self.config.auth_url);
        let request = self
            .http
            .kept
            .post(url)
            .headers(ids(call))
            .json(body)
            .build()
            .expect("the URL was parsed, the body is JSON");
        let limit = self.limits.attempt;
        match tokio::time::timeout(limit, exchange(&self.http.kept, request, self.limits.body_bytes)).await {
            Ok(outcome) => outcome,
            Err(elapsed) => Err(Lost::NoAnswer { cause: Arc::new(elapsed) }),
        }
    }

    fn judge(&self, outcome: Result<Reply, Lost>, call: &mut Call) -> Result<Issued, Error> {
        let reply = outcome.map_err(|lost| self.unreachable(lost))?;
        call.answered_as = request_id(&reply.headers);
        match reply.status {
            StatusCode::CREATED => self.read(&reply, call),
            StatusCode::UNAUTHORIZED => Err(self.rejected(&reply, call)),
            status if status.is_redirection() || status == StatusCode::NOT_FOUND => {
                Err(self.not_keystone(&status.to_string()))
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Err(Error::Busy {
                call: Box::new(call.clone()),
                status,
                message: message(&reply),
                retry_after: retry_after(&reply.headers, SystemTime::now()),
            }),
            status => Err(Error::Refused { call: Box::new(call.clone()), status, message: message(&reply) }),
        }
    }

    fn read(&self, reply: &Reply, call: &Call) -> Result<Issued, Error> {
        let token = reply.headers.get(X_SUBJECT_TOKEN).and_then(|value| value.to_str().ok());
        let token = token.ok_or_else(|| self.not_keystone("201 without X-Subject-Token"))?;
        let body = match &reply.body {
            Ok(body) => body,
            Err(Incomplete::TooLarge) => {
                return Err(Error::TooLarge { call: Box::new(call.clone()), limit_bytes: self.limits.body_bytes });
            }
            Err(Incomplete::BrokenOff(cause)) => {
                return Err(Error::BrokenOff {
                    call: Box::new(call.clone()),
                    what: "it broke off".to_owned(),
                    source: Some(cause.clone()),
                });
            }
        };
        let answer: AuthAnswer = serde_json::from_slice(body).map_err(|e| self.not_keystone(&e.to_string()))?;
        Ok(Issued { value: Secret::new(token), answer })
    }

    fn unreachable(&self, lost: Lost) -> Error {
        let (auth_url, origin) = (self.config.auth_url.to_string(), self.config.origin.clone());
        match lost {
            Lost::NotTrusted { cause, remedy } => {
                Error::NotTrusted { address: auth_url, remedy, origin, source: cause }
            }
            Lost::NotConnected { cause } | Lost::NoAnswer { cause } => {
                Error::KeystoneUnreachable { auth_url, origin, source: cause }
            }
        }
    }

    fn rejected(&self, reply: &Reply, call: &Call) -> Error {
        Error::Rejected {
            auth_url: self.config.auth_url.to_string(),
            who: self.config.credentials.to_string(),
            origin: self.config.origin.clone(),
            message: message(reply),
            request: call.answered_as.clone().unwrap_or_else(|| call.sent_as.clone()),
        }
    }

    fn not_keystone(&self, what: &str) -> Error {
        Error::NotKeystone {
            auth_url: self.config.auth_url.to_string(),
            origin: self.config.origin.clone(),
            what: what.to_owned(),
        }
    }
}

/// A token fresh from Keystone.
struct Issued {
    value: Secret,
    answer: AuthAnswer,
}

impl State {
    /// Whoever is told `Due` is to renew it; the next ones are told `Live` for a while.
    fn present(&mut self, rejected: Option<u64>, now: Instant) -> Present {
        match &self.token {
            Some(token) if rejected == Some(token.generation) || now >= token.ends => {
                Present::None { asked: self.asked }
            }
            Some(token) if now >= self.renew_at => {
                self.renew_at = now + RENEWAL_PAUSE;
                Present::Due(Arc::clone(token))
            }
            Some(token) => Present::Live(Arc::clone(token)),
            None => Present::None { asked: self.asked },
        }
    }

    /// A failure that answers this caller too: one that came while he waited, or a rejection that is still fresh.
    fn failure_to_share(&self, while_waiting: bool, now: Instant) -> Option<Error> {
        let (at, failure) = self.failure.as_ref()?;
        let fresh = matches!(failure, Error::Rejected { .. }) && now.duration_since(*at) < REJECTION_PAUSE;
        (while_waiting || fresh).then(|| failure.clone())
    }

    fn settle(&mut self, answer: Result<Issued, Error>, now: Instant) -> Result<Arc<Token>, Error> {
        self.asked += 1;
        match answer {
            Ok(issued) => Ok(self.accept(issued, now)),
            Err(error) => {
                self.failure = Some((now, error.clone()));
                Err(error)
            }
        }
    }

    /// Its life is measured by our own clock from now on: the difference of Keystone's two times does not care how far apart the clocks are.
    fn accept(&mut self, issued: Issued, now: Instant) -> Arc<Token> {
        let life = (issued.answer.token.expires_at - issued.answer.token.issued_at).to_std().unwrap_or_default();
        let generation = self.token.as_ref().map_or(0, |token| token.generation) + 1;
        let catalogue = issued.answer.token.catalog;
        let token = Arc::new(Token { value: issued.value, generation, ends: now + life, catalogue });
        self.renew_at = now + life.mul_f64(0.9);
        self.token = Some(Arc::clone(&token));
        self.failure = None;
        tracing::debug!(generation, life_s = life.as_secs(), "new token");
        token
    }
}

fn ended(outcome: &Result<Reply, Lost>) -> (Ending, Option<Duration>) {
    match outcome {
        Ok(reply) if reply.body.is_err() && reply.status.is_success() => (Ending::BrokenOff, None),
        Ok(reply) => (Ending::Answered(reply.status), retry_after(&reply.headers, SystemTime::now())),
        Err(Lost::NotConnected { .. }) => (Ending::NotSent, None),
        Err(Lost::NoAnswer { .. }) => (Ending::NoAnswer, None),
        Err(Lost::NotTrusted { .. }) => (Ending::NotTrusted, None),
    }
}

pub(crate) fn ids(call: &Call) -> HeaderMap {
    let id = HeaderValue::from_str(&call.sent_as.0).expect("a UUID is a header");
    HeaderMap::from_iter([(X_OPENSTACK_REQUEST_ID, id)])
}

fn find_endpoint(catalogue: &[CatalogueService], service: &str, config: &CloudConfig) -> Result<Url, Error> {
    let (service_name, origin) = (service.to_owned(), config.origin.clone());
    let fitting = fitting_endpoints(catalogue, service, config);
    let regions: BTreeSet<_> = fitting.iter().map(|(region, _)| *region).collect();
    if regions.len() > 1 {
        let regions = regions.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::SeveralRegions { service: service_name, regions, origin });
    }
    fitting.into_iter().next().map(|(_, url)| url).ok_or_else(|| Error::NoEndpoint {
        service: service_name,
        interface: config.interface.to_string(),
        region: config.region.as_ref().map_or_else(String::new, |region| format!(" in region {region}")),
        known: known_endpoints(catalogue, service),
        origin,
    })
}

/// The endpoints of our interface, each with its region; of our region alone, if we were told which that is.
fn fitting_endpoints<'a>(
    catalogue: &'a [CatalogueService],
    service: &str,
    config: &CloudConfig,
) -> Vec<(&'a str, Url)> {
    let interface = config.interface.to_string();
    let fits = |region: &str| config.region.as_deref().is_none_or(|wanted| wanted == region);
    let services = catalogue.iter().filter(|entry| entry.kind == service);
    let endpoints = services.flat_map(|entry| &entry.endpoints);
    let ours = endpoints.filter(|endpoint| endpoint.interface == interface && fits(endpoint.region()));
    ours.filter_map(|endpoint| Some((endpoint.region(), http_url(&endpoint.url)?))).collect()
}

fn http_url(text: &str) -> Option<Url> {
    Url::parse(text).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"))
}

/// What the catalogue has instead, for a message.
fn known_endpoints(catalogue: &[CatalogueService], service: &str) -> String {
    let mut of_service: Vec<String> = catalogue
        .iter()
        .filter(|entry| entry.kind == service)
        .flat_map(|entry| &entry.endpoints)
        .map(|endpoint| format!("{} in {} ({})", endpoint.interface, endpoint.region(), endpoint.url))
        .collect();
    if of_service.is_empty() {
        let kinds: BTreeSet<_> = catalogue.iter().map(|entry| entry.kind.as_str()).collect();
        of_service = kinds.into_iter().map(str::to_owned).collect();
    }
    if of_service.is_empty() { "nothing at all".to_owned() } else { of_service.join(", ") }
}

/// Lets the session of the `openstack` crate use our token.
#[derive(Debug, Clone)]
pub(crate) struct Shared(pub(crate) Arc<Auth>);

#[async_trait]
impl AuthType for Shared {
    async fn authenticate(&self, _: &Client, request: RequestBuilder) -> Result<RequestBuilder, osauth::Error> {
        let token = self.0.token(None).await.map_err(untyped)?;
        Ok(request.header(X_AUTH_TOKEN, token.header()))
    }

    async fn get_endpoint(&self, _: &Client, service: &str, filters: &EndpointFilters) -> Result<Url, osauth::Error> {
        let token = self.0.token(None).await.map_err(untyped)?;
        let mut config = self.0.config.clone();
        config.region = filters.region.clone().or(config.region);
        find_endpoint(&token.catalogue, service, &config)
            .map_err(|error| osauth::Error::new(ErrorKind::EndpointNotFound, crate::error::chain(&error)))
    }

    async fn refresh(&self, _: &Client) -> Result<(), osauth::Error> {
        let present = self.0.state().token.as_ref().map(|token| token.generation);
        self.0.token(present).await.map(drop).map_err(untyped)
    }
}

/// `osauth`'s error has no source, so the whole chain goes into its text.
fn untyped(error: Error) -> osauth::Error {
    osauth::Error::new(ErrorKind::AuthenticationFailed, crate::error::chain(&error))
}

/// A request with our token and ids on it.
pub(crate) fn sign(request: &mut Request, token: &Token, call: &Call) {
    request.headers_mut().insert(X_AUTH_TOKEN, token.header());
    request.headers_mut().extend(ids(call));
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn config() -> CloudConfig {
        let told = [("AUTH_URL", "http://keystone/v3"), ("USERNAME", "u"), ("PASSWORD", "p"), ("PROJECT_NAME", "p")];
        let variables = told.map(|(name, value)| (format!("OS_{name}"), value.to_owned())).into();
        let around = crate::Surroundings { variables, folders: Vec::new() };
        CloudConfig::load(None, &around).expect("all is told")
    }

    fn state(now: Instant) -> State {
        let mut state = State { token: None, renew_at: now, asked: 0, failure: None };
        let answer: AuthAnswer = serde_json::from_value(serde_json::json!({
            "token": {"issued_at": "2026-11-22T14:00:00.000000Z", "expires_at": "2026-11-22T15:00:00.000000Z"}
        }))
        .expect("as Keystone answers");
        state.accept(Issued { value: Secret::new("gAAAAA"), answer }, now);
        state
    }

    #[test]
    fn a_token_lives_becomes_due_for_one_caller_and_ends() {
        let now = Instant::now();
        let mut state = state(now);
        let late = now + HOUR.mul_f64(0.95);
        assert!(matches!(state.present(None, now), Present::Live(_)));
        assert!(matches!(state.present(None, late), Present::Due(_)));
        assert!(matches!(state.present(None, late), Present::Live(_)), "one caller renews it for all");
        assert!(matches!(state.present(None, late + RENEWAL_PAUSE), Present::Due(_)), "Keystone was silent: once more");
        assert!(matches!(state.present(None, now + HOUR), Present::None { .. }));
    }

    #[test]
    fn a_rejection_is_about_one_token_and_not_about_the_next() {
        let now = Instant::now();
        let mut state = state(now);
        assert!(matches!(state.present(Some(1), now), Present::None { .. }));
        assert!(matches!(state.present(Some(0), now), Present::Live(_)));
    }

    #[test]
    fn a_rejected_password_is_not_tried_again_at_once() {
        let now = Instant::now();
        let mut state = state(now);
        let rejected = Error::Rejected {
            auth_url: String::new(),
            who: String::new(),
            origin: String::new(),
            message: String::new(),
            request: crate::error::RequestId::new(),
        };
        assert!(state.settle(Err(rejected), now).is_err());
        assert!(state.failure_to_share(false, now + REJECTION_PAUSE / 2).is_some());
        assert!(state.failure_to_share(false, now + REJECTION_PAUSE).is_none());
    }

    #[test]
    fn an_endpoint_is_of_our_interface_and_of_one_region() {
        let endpoint = |interface: &str, region: &str| {
            let url = format!("http://{interface}.{region}.example.org");
            serde_json::json!({"interface": interface, "region_id": region, "url": url})
        };
        let endpoints = [endpoint("admin", "one"), endpoint("public", "one"), endpoint("public", "two")];
        let service = serde_json::json!([{"type": "compute", "endpoints": endpoints}]);
        let catalogue: Vec<CatalogueService> = serde_json::from_value(service).expect("as Keystone writes it");
        let find = |region: Option<&str>| {
            let config = CloudConfig { region: region.map(str::to_owned), ..config() };
            find_endpoint(&catalogue, "compute", &config).map(String::from).map_err(|e| e.to_string())
        };
        assert_eq!(find(Some("two")).as_deref(), Ok("http://public.two.example.org/"));
        let error = find(None).expect_err("which of the two?");
        assert!(error.contains("several regions (one, two); choose one with region_name in"), "{error}");
    }

    #[test]
    fn the_debug_of_token_and_header_shows_neither() {
        let now = Instant::now();
        let token = state(now).token.expect("it was accepted");
        let shown = format!("{token:?} {:?}", token.header());
        assert!(!shown.contains("gAAAAA"), "{shown}");
    }
}
