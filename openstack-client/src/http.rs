//! Sends one HTTP request and says exactly how far it came: not sent, not answered, broken off, answered.
//!
//! The session of the `openstack` crate could send as well, but it turns every failure into a text, after which nobody can tell a refused
//! connection from a lost answer. So the session keeps the endpoints and shares our token, and only the sending is done here.

use std::error::Error as StdError;
use std::io;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Request, Response, StatusCode};
use tokio::time::Duration;

use crate::Limits;
use crate::config::{CloudConfig, ConfigError};
use crate::error::Cause;

/// Apache in front of OpenStack closes idle connections after 5 s (its `KeepAliveTimeout`): we let go of them earlier.
const IDLE: Duration = Duration::from_secs(4);

/// The HTTP clients of one cloud: same trust, same limits.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    /// Keeps connections open between calls.
    pub(crate) kept: Client,
    /// Opens a connection for each request: one that the service is just closing swallows what is sent on it, and for a call that must
    /// happen once that would be an *unknown* without need.
    pub(crate) fresh: Client,
}

impl Http {
    pub(crate) fn new(config: &CloudConfig, limits: &Limits) -> Result<Self, ConfigError> {
        let failed = |e| ConfigError::because(format!("{}: no HTTP client can be made of this", config.origin), e);
        let kept = builder(config, limits)?.pool_idle_timeout(IDLE).build().map_err(failed)?;
        let fresh = builder(config, limits)?.pool_max_idle_per_host(0).build().map_err(failed)?;
        Ok(Self { kept, fresh })
    }
}

fn builder(config: &CloudConfig, limits: &Limits) -> Result<ClientBuilder, ConfigError> {
    let mut builder = Client::builder()
        .use_rustls_tls()
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none()) // reqwest would carry X-Auth-Token to whatever host it is sent to
        .connect_timeout(limits.connect);
    for certificate in authorities(config)? {
        builder = builder.add_root_certificate(certificate);
    }
    if !config.verify {
        builder = builder.danger_accept_invalid_certs(true);
    }
    Ok(builder)
}

fn authorities(config: &CloudConfig) -> Result<Vec<Certificate>, ConfigError> {
    let Some(path) = &config.cacert else { return Ok(Vec::new()) };
    let place = format!("cacert {} of {}", path.display(), config.origin);
    let pem = std::fs::read(path).map_err(|e| ConfigError::because(format!("{place} cannot be read"), e))?;
    let found = Certificate::from_pem_bundle(&pem)
        .map_err(|e| ConfigError::because(format!("{place} holds no certificates in PEM form"), e))?;
    if found.is_empty() {
        return Err(ConfigError::new(format!("{place} holds no certificates in PEM form")));
    }
    Ok(found)
}

/// An answer. Its status is certain even if the body is not.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, Incomplete>,
}

/// Why a body is not there.
#[derive(Debug)]
pub(crate) enum Incomplete {
    BrokenOff(Cause),
    TooLarge,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The certificate does not convince us. Nothing was sent.
    NotTrusted { cause: Cause, remedy: &'static str },
    /// No connection. Nothing was sent.
    NotConnected { cause: Cause },
    /// Sent, at least in part, and no status came back.
    NoAnswer { cause: Cause },
}

pub(crate) async fn exchange(client: &Client, request: Request, body_bytes: usize) -> Result<Reply, Lost> {
    let response = client.execute(request).await.map_err(lost)?;
    let (status, headers) = (response.status(), response.headers().clone());
    Ok(Reply { status, headers, body: read(response, body_bytes).await })
}

async fn read(mut response: Response, limit: usize) -> Result<Bytes, Incomplete> {
    let announced = response.content_length().and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
    if announced > limit {
        return Err(Incomplete::TooLarge);
    }
    let mut body = BytesMut::with_capacity(announced);
    while let Some(chunk) = response.chunk().await.map_err(|e| Incomplete::BrokenOff(Arc::new(e.without_url())))? {
        if body.len() + chunk.len() > limit {
            return Err(Incomplete::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

fn lost(error: reqwest::Error) -> Lost {
    let remedy = certificate_error(&error).map(certificate_remedy);
    let connected = !error.is_connect() && !error.is_builder();
    let cause: Cause = Arc::new(error.without_url());
    match (remedy, connected) {
        (Some(remedy), _) => Lost::NotTrusted { cause, remedy },
        (None, false) => Lost::NotConnected { cause },
        (None, true) => Lost::NoAnswer { cause },
    }
}

/// Ends where the place is named that our configuration comes from.
fn certificate_remedy(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError::*;
    match why {
        Expired | ExpiredContext { .. } => "it has expired: renew it; the cloud is named in ",
        NotValidYet | NotValidYetContext { .. } => "it is not valid yet: compare the clocks; the cloud is named in ",
        NotValidForName | NotValidForNameContext { .. } => {
            "it is for another name: use the name that it is for; the addresses come from the catalogue and from auth_url in "
        }
        _ => "name the CA that signed it with cacert (or OS_CACERT) in ",
    }
}

/// rustls' word on a certificate, somewhere below reqwest's error.
fn certificate_error(error: &reqwest::Error) -> Option<&rustls::CertificateError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(rustls::Error::InvalidCertificate(why)) = as_rustls(error) {
            return Some(why);
        }
        cause = error.source();
    }
    None
}

/// `io::Error::source` skips the error that it wraps, here one `io::Error` within another, so each is asked for by `get_ref`.
fn as_rustls<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapping) => as_rustls(wrapping.get_ref()?),
        None => error.downcast_ref(),
    }
}
