//! Talks to the BMC of one host by Redfish: is the power on, which machine is it, switch it off.
//!
//! A BMC is a small, slow computer that anybody may have misconfigured: everything it says is bounded in time and size, what it says of other
//! addresses is not followed, and every error names its address and what to do. Each request has a connection of its own: BMCs close idle ones
//! without a word, and a power-off must not be lost on one of those.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::header::LOCATION;
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Method, Response, StatusCode, Url};
use serde_json::{Value, json};
use tokio::time::timeout;
use uuid::Uuid;

use crate::config::{self, Secret};
use crate::watch::heartbeat::identity::system_uuid;

const SYSTEMS: &str = "/redfish/v1/Systems";
const MOST_BYTES: usize = 1 << 20;
/// A chassis full of blades; more are not searched one by one.
const MOST_SYSTEMS: usize = 64;
/// Some BMCs send from /redfish/v1/Systems to /redfish/v1/Systems/.
const MOST_REDIRECTS: usize = 3;
const MOST_MESSAGE_CHARACTERS: usize = 300;

/// What the BMC says of the power.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PowerReading {
    On,
    Off,
    /// PoweringOn or PoweringOff: not off, and perhaps soon.
    Changing,
    /// It says something that proves nothing.
    Unknown(String),
}

/// What the BMC says of its system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    pub power: PowerReading,
    /// The machine that it controls.
    pub uuid: Option<Uuid>,
}

#[derive(Debug, thiserror::Error)]
pub enum RedfishError {
    #[error("no HTTP client can be made for the BMC at {address}")]
    Client { address: Arc<str>, source: reqwest::Error },
    #[error("the BMC at {address} cannot be reached")]
    NotConnected { address: Arc<str>, source: reqwest::Error },
    #[error("the BMC at {address} did not answer {what} within {limit_s} s")]
    TimedOut { address: Arc<str>, what: &'static str, limit_s: f64 },
    #[error("no TLS with the BMC at {address}: {remedy}")]
    Tls { address: Arc<str>, remedy: &'static str, source: reqwest::Error },
    #[error("the BMC at {address} rejected user {user}; correct the user, or the password in {}", password_file.display())]
    Rejected { address: Arc<str>, user: String, password_file: PathBuf },
    #[error(
        "the BMC at {address} does not allow {what} to user {user}; give the user a role that may, such as Operator"
    )]
    Forbidden { address: Arc<str>, what: String, user: String },
    #[error("{address} does not answer as Redfish does ({what}); correct the BMC's address")]
    NotRedfish { address: Arc<str>, what: String },
    #[error("the BMC at {address} has several systems ({systems}); say with `system` which is this host")]
    SeveralSystems { address: Arc<str>, systems: String },
    #[error("the BMC at {address} has no system {wanted}, it has {systems}; correct `system`")]
    NoSystem { address: Arc<str>, wanted: String, systems: String },
    #[error(
        "the BMC at {address} sends from {what} to {to}, which is not followed; if that is the BMC, make it the address"
    )]
    Redirected { address: Arc<str>, what: String, to: String },
    #[error("the BMC at {address} cannot do ForceOff, only {offered}")]
    NoForceOff { address: Arc<str>, offered: String },
    #[error("the BMC at {address} answered {what} with {status}: {message}")]
    Refused { address: Arc<str>, what: String, status: StatusCode, message: String },
    #[error("the answer of the BMC at {address} to {what} broke off")]
    BrokenOff { address: Arc<str>, what: String, source: reqwest::Error },
    #[error("the answer of the BMC at {address} to {what} is longer than {MOST_BYTES} bytes")]
    TooLarge { address: Arc<str>, what: String },
}

/// The BMC of one host.
#[derive(Debug)]
pub struct Redfish {
    address: Url,
    /// The same, as errors name it.
    shown: Arc<str>,
    user: String,
    password: Secret<String>,
    password_file: PathBuf,
    system: Option<String>,
    limit: Duration,
    client: Client,
    /// Kept, so that a slow BMC gets further with each attempt, and a power-off is one request.
    found: Mutex<Found>,
}

/// What has been learnt of the system.
#[derive(Debug, Default, Clone)]
struct Found {
    path: Option<String>,
    reset: Option<Reset>,
}

/// How to change its power.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Reset {
    target: String,
    /// The `ResetType`s that it says it knows.
    offered: Option<Vec<String>>,
}

/// An answer that is there as a whole.
struct Answer {
    status: StatusCode,
    body: Vec<u8>,
}

impl Redfish {
    /// `limit` is for all that one call of this needs.
    pub fn new(bmc: &config::Redfish, limit: Duration) -> Result<Self, RedfishError> {
        let shown: Arc<str> = bmc.address.as_str().trim_end_matches('/').into();
        let client = client(bmc).map_err(|source| RedfishError::Client { address: Arc::clone(&shown), source })?;
        Ok(Self {
            address: bmc.address.clone(),
            shown,
            user: bmc.user.clone(),
            password: bmc.password.clone(),
            password_file: bmc.password_file.clone(),
            system: bmc.system.clone(),
            limit,
            client,
            found: Mutex::default(),
        })
    }

    /// What it says now.
    pub async fn read(&self) -> Result<State, RedfishError> {
        self.within("what the power is", self.state()).await
    }

    /// Switches the machine off without asking it. Done or not, only a reading tells whether it is off.
    pub async fn force_off(&self) -> Result<(), RedfishError> {
        self.within("ForceOff", self.reset()).await
    }

    async fn within<T>(
        &self,
        what: &'static str,
        done: impl Future<Output = Result<T, RedfishError>>,
    ) -> Result<T, RedfishError> {
        let late = |_| RedfishError::TimedOut { address: self.address(), what, limit_s: self.limit.as_secs_f64() };
        timeout(self.limit, done).await.map_err(late)?
    }

    // ---- reading ----

    async fn state(&self) -> Result<State, RedfishError> {
        let path = self.path().await?;
        let answer = self.get(&path).await?;
        if answer.status == StatusCode::NOT_FOUND {
            *self.found() = Found::default();
            let systems = self.listed().await?.join(", ");
            return Err(RedfishError::NoSystem { address: self.address(), wanted: path, systems });
        }
        let system = self.json(&path, &answer)?;
        self.found().reset = Some(reset_of(&path, &system));
        Ok(State { power: power_of(&system), uuid: system["UUID"].as_str().and_then(system_uuid) })
    }

    async fn path(&self) -> Result<String, RedfishError> {
        let known = self.found().path.clone();
        match known {
            Some(path) => Ok(path),
            None => {
                let path = self.find().await?;
                self.found().path = Some(path.clone());
                Ok(path)
            }
        }
    }

    async fn find(&self) -> Result<String, RedfishError> {
        match self.system.as_deref() {
            Some(path) if path.starts_with('/') => Ok(path.to_owned()),
            Some(name) => self.named(name).await,
            None => self.only().await,
        }
    }

    async fn only(&self) -> Result<String, RedfishError> {
        let mut systems = self.listed().await?;
        match systems.len() {
            0 => Err(RedfishError::NotRedfish { address: self.address(), what: format!("{SYSTEMS} is empty") }),
            1 => Ok(systems.remove(0)),
            _ => Err(RedfishError::SeveralSystems { address: self.address(), systems: systems.join(", ") }),
        }
    }

    /// The system of this id or UUID. On many BMCs the id is something else than the UUID.
    async fn named(&self, name: &str) -> Result<String, RedfishError> {
        let systems = self.listed().await?;
        let id = |path: &str| path.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        if let Some(path) = systems.iter().find(|path| id(path).eq_ignore_ascii_case(name)) {
            return Ok(path.clone());
        }
        if let Ok(wanted) = name.parse::<Uuid>() {
            for path in systems.iter().take(MOST_SYSTEMS) {
                let system = self.json(path, &self.get(path).await?)?;
                if system["UUID"].as_str().and_then(|uuid| uuid.parse().ok()) == Some(wanted) {
                    return Ok(path.clone());
                }
            }
        }
        Err(RedfishError::NoSystem { address: self.address(), wanted: name.to_owned(), systems: systems.join(", ") })
    }

    /// The paths of all systems.
    async fn listed(&self) -> Result<Vec<String>, RedfishError> {
        let answer = self.get(SYSTEMS).await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Err(RedfishError::NotRedfish { address: self.address(), what: format!("it has no {SYSTEMS}") });
        }
        let list = self.json(SYSTEMS, &answer)?;
        let members = list["Members"].as_array();
        let paths = members
            .map(|members| members.iter().map(|member| member["@odata.id"].as_str().map(str::to_owned)).collect());
        let none = || RedfishError::NotRedfish { address: self.address(), what: format!("{SYSTEMS} lists no members") };
        paths.flatten().ok_or_else(none)
    }

    // ---- switching off ----

    async fn reset(&self) -> Result<(), RedfishError> {
        let known = self.found().reset.clone();
        let reset = match known {
            Some(reset) => reset,
            None => {
                self.state().await?;
                // None if another reading has found in the meantime that the system is gone.
                let found = self.found().reset.clone();
                found.ok_or_else(|| RedfishError::NotRedfish {
                    address: self.address(),
                    what: "the system went away while it was read".to_owned(),
                })?
            }
        };
        let Some(word) = reset.force_off() else {
            let offered = reset.offered.unwrap_or_default().join(", ");
            return Err(RedfishError::NoForceOff { address: self.address(), offered });
        };
        let answer = self.send(Method::POST, &reset.target, Some(json!({ "ResetType": word }))).await?;
        match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::BAD_REQUEST | StatusCode::CONFLICT if self.is_off().await => Ok(()),
            _ => Err(self.refused("ForceOff", &answer)),
        }
    }

    /// Some BMCs refuse to switch off what is off.
    async fn is_off(&self) -> bool {
        self.state().await.is_ok_and(|state| state.power == PowerReading::Off)
    }

    // ---- HTTP ----

    async fn get(&self, path: &str) -> Result<Answer, RedfishError> {
        self.send(Method::GET, path, None).await
    }

    /// An answer of any status but those that say no to whoever asks.
    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, RedfishError> {
        let mut url = self.within_address(path)?;
        let what = format!("{method} {path}");
        for _ in 0..=MOST_REDIRECTS {
            let request =
                self.client.request(method.clone(), url.clone()).basic_auth(&self.user, Some(self.password.reveal()));
            let request = body.iter().fold(request, |request, body| request.json(body));
            let response = request.send().await.map_err(|e| self.lost(&what, e))?;
            let Some(next) = self.redirected(&method, &url, &response, &what)? else {
                return self.accepted(what, response).await;
            };
            url = next;
        }
        Err(RedfishError::NotRedfish { address: self.address(), what: format!("{what} is sent round in circles") })
    }

    async fn accepted(&self, what: String, response: Response) -> Result<Answer, RedfishError> {
        match response.status() {
            StatusCode::UNAUTHORIZED => {
                let (user, password_file) = (self.user.clone(), self.password_file.clone());
                Err(RedfishError::Rejected { address: self.address(), user, password_file })
            }
            StatusCode::FORBIDDEN => {
                Err(RedfishError::Forbidden { address: self.address(), what, user: self.user.clone() })
            }
            status => Ok(Answer { status, body: self.body(what, response).await? }),
        }
    }

    /// Where the same BMC sends us on to, if it does. A POST is only repeated where its repetition is what is asked for.
    fn redirected(
        &self,
        method: &Method,
        from: &Url,
        response: &Response,
        what: &str,
    ) -> Result<Option<Url>, RedfishError> {
        if !response.status().is_redirection() {
            return Ok(None);
        }
        let location = response.headers().get(LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
        let same_call = matches!(response.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
        let to = from.join(location).ok().filter(|to| to.origin() == self.address.origin());
        match to {
            Some(to) if same_call || method == Method::GET => Ok(Some(to)),
            _ => Err(RedfishError::Redirected {
                address: self.address(),
                what: what.to_owned(),
                to: location.to_owned(),
            }),
        }
    }

    /// A path of this BMC: what it says of other addresses would get our password.
    fn within_address(&self, path: &str) -> Result<Url, RedfishError> {
        let url = self.address.join(path).ok().filter(|url| url.origin() == self.address.origin());
        let url = url.filter(|_| path.starts_with('/'));
        url.ok_or_else(|| RedfishError::NotRedfish {
            address: self.address(),
            what: format!("{path:?} is no path of it"),
        })
    }

    async fn body(&self, what: String, mut response: Response) -> Result<Vec<u8>, RedfishError> {
        let mut body = Vec::new();
        loop {
            match response.chunk().await {
                Ok(None) => return Ok(body),
                Ok(Some(chunk)) if body.len() + chunk.len() <= MOST_BYTES => body.extend_from_slice(&chunk),
                Ok(Some(_)) => return Err(RedfishError::TooLarge { address: self.address(), what }),
                Err(e) => {
                    return Err(RedfishError::BrokenOff { address: self.address(), what, source: e.without_url() });
                }
            }
        }
    }

    fn json(&self, path: &str, answer: &Answer) -> Result<Value, RedfishError> {
        if !answer.status.is_success() {
            return Err(self.refused(&format!("GET {path}"), answer));
        }
        let parsed = serde_json::from_slice::<Value>(&answer.body).ok().filter(Value::is_object);
        let bad = || RedfishError::NotRedfish { address: self.address(), what: format!("{path} is no JSON object") };
        parsed.ok_or_else(bad)
    }

    fn refused(&self, what: &str, answer: &Answer) -> RedfishError {
        let (status, message) = (answer.status, message_of(&answer.body));
        RedfishError::Refused { address: self.address(), what: what.to_owned(), status, message }
    }

    fn lost(&self, what: &str, error: reqwest::Error) -> RedfishError {
        let (address, source) = (self.address(), error.without_url());
        match (tls_remedy(&source), source.is_connect()) {
            (Some(remedy), _) => RedfishError::Tls { address, remedy, source },
            (None, true) => RedfishError::NotConnected { address, source },
            (None, false) => RedfishError::BrokenOff { address, what: what.to_owned(), source },
        }
    }

    fn address(&self) -> Arc<str> {
        Arc::clone(&self.shown)
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reset {
    /// The BMC's word for it, if it has one or does not tell.
    fn force_off(&self) -> Option<&str> {
        match &self.offered {
            None => Some("ForceOff"),
            Some(offered) => offered.iter().map(String::as_str).find(|word| word.eq_ignore_ascii_case("ForceOff")),
        }
    }
}

/// A proxy would get the password, so none is used. Where a CA is named no other is trusted; plain http needs none.
fn client(bmc: &config::Redfish) -> reqwest::Result<Client> {
    let mut builder = Client::builder()
        .use_rustls_tls()
        .user_agent(concat!("tandem/", env!("CARGO_PKG_VERSION")))
        .no_proxy()
        .redirect(Policy::none())
        .pool_max_idle_per_host(0)
        .tls_built_in_root_certs(bmc.address.scheme() == "https" && bmc.verify && bmc.authority.is_none())
        .danger_accept_invalid_certs(!bmc.verify);
    if let Some(authority) = &bmc.authority {
        for certificate in Certificate::from_pem_bundle(&authority.pem)? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    builder.build()
}

fn power_of(system: &Value) -> PowerReading {
    match system["PowerState"].as_str() {
        Some("On") => PowerReading::On,
        Some("Off") => PowerReading::Off,
        Some("PoweringOn" | "PoweringOff") => PowerReading::Changing,
        Some(other) => PowerReading::Unknown(format!("the BMC says PowerState {other:?}")),
        None => PowerReading::Unknown("the BMC tells no PowerState".to_owned()),
    }
}

fn reset_of(path: &str, system: &Value) -> Reset {
    let action = &system["Actions"]["#ComputerSystem.Reset"];
    let usual = || format!("{}/Actions/ComputerSystem.Reset", path.trim_end_matches('/'));
    let words = |values: &Vec<Value>| values.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect();
    Reset {
        target: action["target"].as_str().map_or_else(usual, str::to_owned),
        offered: action["ResetType@Redfish.AllowableValues"].as_array().map(words),
    }
}

/// Redfish's own message, else the beginning of whatever came.
fn message_of(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = &told["error"];
    let message = error["@Message.ExtendedInfo"][0]["Message"].as_str().or(error["message"].as_str()).unwrap_or(&text);
    let words = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match words.chars().filter(|c| !c.is_control()).take(MOST_MESSAGE_CHARACTERS).collect::<String>() {
        message if message.is_empty() => "without a word".to_owned(),
        message => message,
    }
}

fn tls_remedy(error: &reqwest::Error) -> Option<&'static str> {
    use rustls::CertificateError::*;
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = as_rustls(error) {
            return Some(match error {
                rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
                    "its certificate has expired: renew it"
                }
                rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
                    "its certificate is not valid yet: compare the clocks"
                }
                rustls::Error::InvalidCertificate(NotValidForName | NotValidForNameContext { .. }) => {
                    "its certificate is for another name: use that name as the address"
                }
                rustls::Error::InvalidCertificate(_) => {
                    "its certificate is not trusted: name its CA, or itself, in ca_file"
                }
                rustls::Error::InvalidMessage(_) => "it does not speak TLS: is its address http://?",
                _ => "compare what TLS it can do",
            });
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
