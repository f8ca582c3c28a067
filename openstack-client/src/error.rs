//! Says why a call did not succeed, so that a caller can choose what to do and a reader knows what to change.
//!
//! The question that matters most is *may it have happened?* [`Error::Unknown`] alone answers yes: after every other error the cloud has
//! not done what it was asked.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};

use crate::config::ConfigError;
use crate::microversion::{Microversion, Offered};

/// A cause. Shared, because callers that waited for one token also share the reason why there is none.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// What a call may fail with.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// What we were told about the cloud cannot be used: nothing was sent.
    #[error(transparent)]
    Config(#[from] ConfigError),

    /// No connection came about: certainly not done.
    #[error("{call}: no connection to {address}; check that the service runs there and that this machine reaches it")]
    Unreachable {
        call: Box<Call>,
        address: String,
        #[source]
        source: Cause,
    },

    /// Keystone gave no token because it could not be reached.
    #[error(
        "Keystone at {auth_url} cannot be reached; check host, port and http or https of auth_url in {origin}, and the network"
    )]
    KeystoneUnreachable {
        auth_url: String,
        origin: String,
        #[source]
        source: Cause,
    },

    /// The certificate is signed by nobody we trust: certainly not done.
    #[error("the certificate of {address} is not trusted; {remedy}{origin}")]
    NotTrusted {
        address: String,
        /// What to do, up to where it is done.
        remedy: &'static str,
        origin: String,
        #[source]
        source: Cause,
    },

    /// Keystone does not accept who we say we are.
    #[error("Keystone at {auth_url} rejected {who}: {message} ({request}); check them in {origin}")]
    Rejected { auth_url: String, who: String, origin: String, message: String, request: RequestId },

    /// Something answers at auth_url, but not as Keystone does.
    #[error(
        "{auth_url} does not answer as Keystone's v3 API ({what}); check auth_url in {origin}, it usually ends in /v3"
    )]
    NotKeystone { auth_url: String, origin: String, what: String },

    /// The catalogue has the service in several regions, and nobody said which is ours: host names repeat from region to region.
    #[error("the catalogue has {service} in several regions ({regions}); choose one with region_name in {origin}")]
    SeveralRegions { service: String, regions: String, origin: String },

    /// The catalogue has no such endpoint.
    #[error(
        "the catalogue has no {interface} endpoint of {service}{region}; it has {known}; register it with `openstack endpoint create`, \
         or correct region_name and interface in {origin}"
    )]
    NoEndpoint { service: String, interface: String, region: String, known: String, origin: String },

    /// The cloud is too old for the call (or too new).
    #[error("{call} needs microversion {needed}, {address} offers {offered}; {remedy}")]
    Microversion { call: Box<Call>, address: String, needed: Microversion, offered: Offered, remedy: &'static str },

    /// OpenStack understood and said no.
    #[error("{call} was refused with {status}: {message}{}", remedy(*status))]
    Refused { call: Box<Call>, status: StatusCode, message: String },

    /// There is no such thing.
    #[error("{call} found nothing: {message}")]
    NotFound { call: Box<Call>, message: String },

    /// The thing is in a state that does not allow it.
    #[error("{call} conflicts with the present state: {message}")]
    Conflict { call: Box<Call>, message: String },

    /// The service asked us to come back later, and there was no time or no attempt left for it.
    #[error("{call} was put off with {status}: {message}{}", later(*retry_after))]
    Busy { call: Box<Call>, status: StatusCode, message: String, retry_after: Option<Duration> },

    /// It was sent, and no answer says whether it was done: **it may have happened**.
    #[error("{call} was sent, but {what}: it may have happened")]
    Unknown {
        call: Box<Call>,
        what: String,
        #[source]
        source: Option<Cause>,
    },

    /// An answer broke off, or something other than the service answered. Reads only.
    #[error("{call} got no whole answer: {what}")]
    BrokenOff {
        call: Box<Call>,
        what: String,
        #[source]
        source: Option<Cause>,
    },

    /// The answer is whole, but not what the API's reference describes.
    #[error("{call}: the answer could not be understood; is {address} really {}?", call.service)]
    BadAnswer {
        call: Box<Call>,
        address: String,
        #[source]
        source: Cause,
    },

    /// Nova leaves out a filter that the user may not use, and says nothing of it: the list is of other things than was asked for.
    #[error(
        "{call} told of instances on other hosts than {host}: Nova ignored the filter; the user needs a role that the policy \
         os_compute_api:servers:allow_all_filters accepts, by default admin"
    )]
    NotFiltered { call: Box<Call>, host: String },

    /// The answer is larger than we are willing to hold.
    #[error("{call}: the answer is larger than {limit_bytes} bytes")]
    TooLarge { call: Box<Call>, limit_bytes: usize },

    /// The limit passed before it could be sent: certainly not done.
    #[error("{call} could not be sent within {limit_s} s{}", before(last))]
    TimedOut { call: Box<Call>, limit_s: f64, last: Option<Box<Self>> },
}

impl Error {
    /// Whether the cloud may have done what it was asked, although we have no answer that says so.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Self::Unknown { .. })
    }

    /// The call that failed, with its request ids; none if it failed before a call was made.
    pub fn call(&self) -> Option<&Call> {
        match self {
            Self::Unreachable { call, .. }
            | Self::Microversion { call, .. }
            | Self::Refused { call, .. }
            | Self::NotFound { call, .. }
            | Self::Conflict { call, .. }
            | Self::Busy { call, .. }
            | Self::Unknown { call, .. }
            | Self::BrokenOff { call, .. }
            | Self::BadAnswer { call, .. }
            | Self::NotFiltered { call, .. }
            | Self::TooLarge { call, .. }
            | Self::TimedOut { call, .. } => Some(call),
            Self::Config(_)
            | Self::KeystoneUnreachable { .. }
            | Self::NotTrusted { .. }
            | Self::Rejected { .. }
            | Self::NotKeystone { .. }
            | Self::SeveralRegions { .. }
            | Self::NoEndpoint { .. } => None,
        }
    }
}

fn remedy(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => {
            "; the token is new, so if this is an application credential with access rules, add a rule for this call"
        }
        StatusCode::FORBIDDEN => "; the user needs a role that this call's policy accepts, by default admin",
        _ => "",
    }
}

fn later(retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(String::new, |wait| format!("; it asks to come back in {} s", wait.as_secs()))
}

fn before(last: &Option<Box<Error>>) -> String {
    last.as_ref().map_or_else(
        || ": no token or no microversions came".to_owned(),
        |error| format!("; the attempt before: {error}"),
    )
}

/// A call as a message names it: what was asked of whom, under which ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub service: &'static str,
    pub path: String,
    /// Ours, sent along: services log it as the global request id, so even an unanswered call can be found.
    pub sent_as: RequestId,
    /// The service's own, from its answer.
    pub answered_as: Option<RequestId>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.answered_as.as_ref().unwrap_or(&self.sent_as);
        write!(f, "{} {} {} ({id})", self.method, self.service, self.path)
    }
}

/// What one call is called in the logs of OpenStack's services: `req-` and a UUID.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub struct RequestId(pub String);

impl RequestId {
    /// A new one. oslo.middleware takes over an inbound id only in exactly this form.
    pub(crate) fn new() -> Self {
        Self(format!("req-{}", uuid::Uuid::new_v4()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An error and all its causes in one line, as a log prints it.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    let mut parts: Vec<String> = causes.map(ToString::to_string).collect();
    parts.dedup(); // a shared cause shows itself and then what it wraps
    parts.join(": ")
}
