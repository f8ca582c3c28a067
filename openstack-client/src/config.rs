//! Reads which cloud to talk to and as whom, from clouds.yaml and secure.yaml or from the `OS_*` variables.
//!
//! The files are those of openstacksdk, so what works for `openstack` works here. A key that nobody knows is an error: a misspelt
//! `project_name` would otherwise come back as "no access", a misspelt `verify` not at all.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use reqwest::Url;
use serde_yaml::{Mapping, Value};

use crate::error::Cause;
use crate::secret::Secret;

/// What is wrong with what we were told, as a sentence that ends in the remedy.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    text: String,
    #[source]
    source: Option<Cause>,
}

impl ConfigError {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), source: None }
    }

    pub(crate) fn because(text: impl Into<String>, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self { text: text.into(), source: Some(std::sync::Arc::new(source)) }
    }
}

/// One cloud and who we are there.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Where this was read, as messages name it: "cloud tandem of /etc/openstack/clouds.yaml".
    pub origin: String,
    /// Keystone's v3 root; always ends in `/v3`.
    pub auth_url: Url,
    pub credentials: Credentials,
    pub region: Option<String>,
    pub interface: Interface,
    /// A PEM file of CAs to trust beside those of the system.
    pub cacert: Option<PathBuf>,
    /// False trusts any certificate.
    pub verify: bool,
}

/// How we prove who we are.
#[derive(Debug, Clone)]
pub enum Credentials {
    Password { user: Named, password: Secret, project: Named },
    ApplicationCredential { credential: ApplicationCredential, secret: Secret },
    Token { token: Secret, project: Named },
}

/// Which application credential.
#[derive(Debug, Clone)]
pub enum ApplicationCredential {
    Id(String),
    Name { name: String, user: Named },
}

/// A user or project: its id, or its name within a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    Id(String),
    Name { name: String, domain: Domain },
}

/// A domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Domain {
    Id(String),
    Name(String),
}

/// Which of a service's endpoints we use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    Public,
    Internal,
    Admin,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Internal => "internal",
            Self::Admin => "admin",
        })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name { name, domain: Domain::Id(domain) | Domain::Name(domain) } => {
                write!(f, "{name} (domain {domain})")
            }
        }
    }
}

impl fmt::Display for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, project, .. } => write!(f, "the password of user {user} for project {project}"),
            Self::ApplicationCredential { credential: ApplicationCredential::Id(id), .. } => {
                write!(f, "the application credential {id}")
            }
            Self::ApplicationCredential { credential: ApplicationCredential::Name { name, user }, .. } => {
                write!(f, "the application credential {name} of user {user}")
            }
            Self::Token { project, .. } => write!(f, "the given token for project {project}"),
        }
    }
}

/// What a process is told from outside: its variables and where it looks for files.
#[derive(Clone)]
pub struct Surroundings {
    pub variables: BTreeMap<String, String>,
    /// Searched in this order for clouds.yaml and secure.yaml.
    pub folders: Vec<PathBuf>,
}

impl fmt::Debug for Surroundings {
    /// Names only: OS_PASSWORD is among the values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Surroundings")
            .field("variables", &self.variables.keys())
            .field("folders", &self.folders)
            .finish()
    }
}

impl Surroundings {
    /// Those of this process, with openstacksdk's folders: here, ~/.config/openstack, /etc/openstack.
    pub fn of_this_process() -> Self {
        // vars_os, because one variable that is not UTF-8 must not panic
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let variables: BTreeMap<_, _> = std::env::vars_os().filter_map(text).collect();
        let home = variables.get("HOME").map(|home| Path::new(home).join(".config/openstack"));
        let folders =
            [Some(PathBuf::from(".")), home, Some(PathBuf::from("/etc/openstack"))].into_iter().flatten().collect();
        Self { variables, folders }
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn find(&self, stem: &str) -> Option<PathBuf> {
        let names = [format!("{stem}.yaml"), format!("{stem}.yml")];
        self.folders.iter().flat_map(|folder| names.iter().map(|name| folder.join(name))).find(|path| path.is_file())
    }
}

impl CloudConfig {
    /// Reads the cloud of this name; without one that of `OS_CLOUD`, else the one that the other `OS_*` variables describe, else the only one
    /// in clouds.yaml. Values of the two sources are never mixed.
    pub fn load(cloud: Option<&str>, around: &Surroundings) -> Result<Self, ConfigError> {
        match cloud.or(around.variable("OS_CLOUD")) {
            Some(name) => from_file(Some(name), around),
            None if around.variable("OS_AUTH_URL").is_some() => from_variables(around),
            None => from_file(None, around),
        }
    }
}

// ---- files ----

fn from_file(name: Option<&str>, around: &Surroundings) -> Result<CloudConfig, ConfigError> {
    let path = clouds_file(name, around)?;
    let clouds = read_clouds(&path)?;
    let name = choose(name, &clouds, &path)?;
    let origin = format!("cloud {name} of {}", path.display());
    let mut keys = Keys::read(&clouds[&name], &origin)?;
    if let Some(secure) = secure_file(&path, around)
        && let Some(secrets) = read_clouds(&secure)?.get(&name)
    {
        keys.overlay(Keys::read(secrets, &format!("cloud {name} of {}", secure.display()))?);
    }
    keys.cloud()
}

fn clouds_file(name: Option<&str>, around: &Surroundings) -> Result<PathBuf, ConfigError> {
    if let Some(path) = around.variable("OS_CLIENT_CONFIG_FILE") {
        return Ok(PathBuf::from(path));
    }
    around.find("clouds").ok_or_else(|| {
        let folders: Vec<_> = around.folders.iter().map(|folder| folder.display().to_string()).collect();
        let wanted = name.map_or("no cloud is named".to_owned(), |name| format!("cloud {name} is wanted"));
        ConfigError::new(format!(
            "{wanted} and there is no clouds.yaml in {}; write one, name it with OS_CLIENT_CONFIG_FILE, or set OS_AUTH_URL and the other OS_* variables",
            folders.join(", ")
        ))
    })
}

fn secure_file(clouds: &Path, around: &Surroundings) -> Option<PathBuf> {
    let beside = || Some(clouds.with_file_name("secure.yaml")).filter(|path| path.is_file());
    around.variable("OS_CLIENT_SECURE_FILE").map(PathBuf::from).or_else(beside).or_else(|| around.find("secure"))
}

/// The `clouds` of a file. Values are kept as they are: messages of a typed parser would quote them, and some are secrets.
fn read_clouds(path: &Path) -> Result<BTreeMap<String, Value>, ConfigError> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|e| ConfigError::because(format!("{shown} cannot be read"), e))?;
    let not_yaml = |e| ConfigError::because(format!("{shown} is not YAML"), e);
    let mut file: Value = serde_yaml::from_str(&text).map_err(not_yaml)?;
    file.apply_merge().map_err(not_yaml)?;
    let Some(Value::Mapping(clouds)) = file.get("clouds") else {
        return Err(ConfigError::new(format!("{shown} has no `clouds:` with named clouds below it; add it")));
    };
    Ok(entries(clouds).collect())
}

fn choose(name: Option<&str>, clouds: &BTreeMap<String, Value>, path: &Path) -> Result<String, ConfigError> {
    let shown = path.display();
    let known = || clouds.keys().cloned().collect::<Vec<_>>().join(", ");
    match name {
        Some(name) if clouds.contains_key(name) => Ok(name.to_owned()),
        Some(name) => {
            let hint = nearest(name, clouds.keys().map(String::as_str));
            let hint = hint.map_or(String::new(), |near| format!("; did you mean {near}?"));
            Err(ConfigError::new(format!("{shown} has no cloud {name}, it has {}{hint}", known())))
        }
        None if clouds.len() == 1 => Ok(clouds.keys().next().expect("there is one").clone()),
        None => Err(ConfigError::new(format!("{shown} has several clouds ({}); choose one with OS_CLOUD", known()))),
    }
}

fn entries(mapping: &Mapping) -> impl Iterator<Item = (String, Value)> + '_ {
    mapping.iter().filter_map(|(key, value)| Some((key.as_str()?.to_owned(), value.clone())))
}

// ---- OS_* ----

fn from_variables(around: &Surroundings) -> Result<CloudConfig, ConfigError> {
    let value =
        |key: &str| around.variable(&format!("OS_{}", key.to_uppercase())).map(|text| Value::from(text.to_owned()));
    let take = |keys: &[&str]| keys.iter().filter_map(|key| Some(((*key).to_owned(), value(key)?))).collect();
    let mut keys = Keys { origin: "the OS_* variables".to_owned(), top: take(USED), auth: take(USED_IN_AUTH) };
    if let Some(interface) = value("endpoint_type") {
        keys.top.entry("interface".to_owned()).or_insert(interface); // its name before Keystone v3
    }
    if matches!(around.variable("OS_INSECURE"), Some("1" | "true" | "True")) {
        keys.top.insert("verify".to_owned(), Value::from(false));
    }
    keys.cloud()
}

// ---- keys ----

const USED: &[&str] = &["auth_type", "region_name", "interface", "cacert", "verify"];
const USED_IN_AUTH: &[&str] = &[
    "auth_url",
    "username",
    "user_id",
    "password",
    "user_domain_name",
    "user_domain_id",
    "project_name",
    "project_id",
    "project_domain_name",
    "project_domain_id",
    "tenant_name",
    "tenant_id",
    "default_domain",
    "default_domain_id",
    "default_domain_name",
    "application_credential_id",
    "application_credential_name",
    "application_credential_secret",
    "token",
];

/// Keys that openstacksdk knows and that change nothing about the calls we make.
const IGNORED: &[&str] = &[
    "auth",
    "cache",
    "client_config",
    "disable_vendor_agent",
    "floating_ip_source",
    "force_ipv4",
    "identity_api_version",
    "image_format",
    "log_level",
    "message",
    "metrics",
    "networks",
    "nat_destination",
    "nat_source",
    "requires_floating_ip",
    "secgroup_source",
    "status",
    "vendor_hook",
];
const IGNORED_ENDINGS: &[&str] = &[
    "_api_version",
    "_default_microversion",
    "_service_name",
    "_service_type",
    "_timeout",
    "_retries",
    "_retry_delay",
    "_status_code_retries",
];

/// Keys that would change our calls in a way that we do not support: to ignore them would be to do something else than was asked.
const REFUSED: &[(&str, &str)] = &[
    ("profile", "write the values of the profile into the cloud"),
    ("cloud", "write the values of the vendor's cloud into this one"),
    ("regions", "name the one region with region_name"),
    ("cert", "Tandem has no client certificates for OpenStack; remove it"),
    ("key", "Tandem has no client certificates for OpenStack; remove it"),
    ("endpoint_type", "it is called interface now"),
];
const REFUSED_IN_AUTH: &[(&str, &str)] = &[
    ("system_scope", "Nova's calls need a project; name it with project_name"),
    ("domain_id", "Nova's calls need a project; name it with project_name"),
    ("domain_name", "Nova's calls need a project; name it with project_name"),
    ("trust_id", "use an application credential"),
    ("passcode", "a daemon cannot type one-time codes; use an application credential"),
];

/// The keys of one cloud, known by name; the values are still as written.
struct Keys {
    origin: String,
    top: BTreeMap<String, Value>,
    auth: BTreeMap<String, Value>,
}

impl Keys {
    fn read(cloud: &Value, origin: &str) -> Result<Self, ConfigError> {
        let part = |value: Option<&Value>| match value {
            Some(Value::Mapping(keys)) => Ok(entries(keys).collect::<BTreeMap<_, _>>()),
            None | Some(Value::Null) => Ok(BTreeMap::new()),
            Some(_) => {
                Err(ConfigError::new(format!("{origin} is not a list of `key: value`; correct its indentation")))
            }
        };
        let keys = Self { origin: origin.to_owned(), top: part(Some(cloud))?, auth: part(cloud.get("auth"))? };
        keys.top.keys().try_for_each(|key| keys.check_top(key))?;
        keys.auth.keys().try_for_each(|key| keys.check_auth(key))?;
        Ok(keys)
    }

    fn check_top(&self, key: &str) -> Result<(), ConfigError> {
        let ignored = IGNORED.contains(&key) || IGNORED_ENDINGS.iter().any(|ending| key.ends_with(ending));
        if USED.contains(&key) || ignored {
            return Ok(());
        }
        if USED_IN_AUTH.contains(&key) {
            return Err(ConfigError::new(format!("{}: {key} belongs below `auth:`; move it there", self.origin)));
        }
        if key.ends_with("_endpoint_override") {
            return Err(self.unsupported(key, "correct the endpoint in Keystone's catalogue"));
        }
        self.refuse(key, REFUSED, USED)
    }

    fn check_auth(&self, key: &str) -> Result<(), ConfigError> {
        if USED_IN_AUTH.contains(&key) {
            return Ok(());
        }
        if USED.contains(&key) {
            return Err(ConfigError::new(format!(
                "{}: {key} belongs beside `auth:`, not below it; move it",
                self.origin
            )));
        }
        self.refuse(key, REFUSED_IN_AUTH, USED_IN_AUTH)
    }

    fn refuse(&self, key: &str, refused: &[(&str, &str)], used: &[&str]) -> Result<(), ConfigError> {
        if let Some((_, remedy)) = refused.iter().find(|(name, _)| *name == key) {
            return Err(self.unsupported(key, remedy));
        }
        let hint = nearest(key, used.iter().copied());
        let hint = hint.map_or("; remove it".to_owned(), |near| format!("; did you mean {near}?"));
        Err(ConfigError::new(format!("{} has an unknown key {key}{hint}", self.origin)))
    }

    fn unsupported(&self, key: &str, remedy: &str) -> ConfigError {
        ConfigError::new(format!("{}: {key} is not supported; {remedy}", self.origin))
    }

    fn overlay(&mut self, secrets: Self) {
        self.top.extend(secrets.top);
        self.auth.extend(secrets.auth);
    }

    fn cloud(&self) -> Result<CloudConfig, ConfigError> {
        Ok(CloudConfig {
            origin: self.origin.clone(),
            auth_url: self.auth_url()?,
            credentials: self.credentials()?,
            region: self.top("region_name")?,
            interface: self.interface()?,
            cacert: self.top("cacert")?.map(PathBuf::from),
            verify: self.verify()?,
        })
    }

    fn auth_url(&self) -> Result<Url, ConfigError> {
        let text = self.auth("auth_url")?.ok_or_else(|| self.missing("auth_url", "the address of Keystone"))?;
        if text.contains('@') {
            // before any message quotes it
            return Err(ConfigError::new(format!(
                "{}: auth_url holds a user or password; write them as username and password",
                self.origin
            )));
        }
        let wrong = |why: &str| ConfigError::new(format!("{}: auth_url {text} {why}", self.origin));
        let mut url =
            Url::parse(&text).map_err(|_| wrong("is not a URL; write it as https://keystone.example.org:5000/v3"))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(wrong("is not an http or https address; write it as https://keystone.example.org:5000/v3"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        if path.ends_with("/v2.0") {
            return Err(wrong("names Keystone's v2.0 API, which no longer exists; let it end in /v3"));
        }
        url.set_path(&if path.ends_with("/v3") { path } else { format!("{path}/v3") });
        Ok(url)
    }

    fn credentials(&self) -> Result<Credentials, ConfigError> {
        let by_credential =
            ["application_credential_id", "application_credential_name"].iter().any(|key| self.auth.contains_key(*key));
        match self.top("auth_type")?.as_deref() {
            Some("password" | "v3password") => self.password(),
            Some("v3applicationcredential") => self.application_credential(),
            Some("token" | "v3token") => self.token(),
            None if by_credential => self.application_credential(),
            None if self.auth.contains_key("token") => self.token(),
            None => self.password(),
            Some(other) => Err(ConfigError::new(format!(
                "{}: auth_type {other} is not supported; use password, v3applicationcredential or v3token",
                self.origin
            ))),
        }
    }

    fn password(&self) -> Result<Credentials, ConfigError> {
        let user = self.user()?;
        let password = self.secret("password", "put it into secure.yaml")?;
        Ok(Credentials::Password { user, password, project: self.project()? })
    }

    fn application_credential(&self) -> Result<Credentials, ConfigError> {
        let credential = match self.auth("application_credential_id")? {
            Some(id) => ApplicationCredential::Id(id),
            None => {
                let name = self.auth("application_credential_name")?;
                let name = name.ok_or_else(|| {
                    self.missing("application_credential_id", "or application_credential_name with username")
                })?;
                ApplicationCredential::Name { name, user: self.user()? }
            }
        };
        let secret = self.secret("application_credential_secret", "put it into secure.yaml")?;
        Ok(Credentials::ApplicationCredential { credential, secret })
    }

    fn token(&self) -> Result<Credentials, ConfigError> {
        let token = self.secret("token", "`openstack token issue` makes one")?;
        Ok(Credentials::Token { token, project: self.project()? })
    }

    fn secret(&self, key: &str, remedy: &str) -> Result<Secret, ConfigError> {
        self.auth(key)?.map(Secret::new).ok_or_else(|| self.missing(key, remedy))
    }

    fn user(&self) -> Result<Named, ConfigError> {
        let user = self.named("user_id", "username", "user")?;
        user.ok_or_else(|| self.missing("username", "or user_id"))
    }

    fn project(&self) -> Result<Named, ConfigError> {
        let project = match self.named("project_id", "project_name", "project")? {
            None => self.named("tenant_id", "tenant_name", "project")?, // what projects were called before Keystone v3
            some => some,
        };
        project.ok_or_else(|| self.missing("project_name", "or project_id: Nova's calls need a project"))
    }

    fn named(&self, id_key: &str, name_key: &str, kind: &str) -> Result<Option<Named>, ConfigError> {
        if let Some(id) = self.auth(id_key)? {
            return Ok(Some(Named::Id(id)));
        }
        let Some(name) = self.auth(name_key)? else { return Ok(None) };
        let own = self.domain(&format!("{kind}_domain_id"), &format!("{kind}_domain_name"))?;
        let fallback = match self.domain("default_domain_id", "default_domain_name")? {
            None => self.auth("default_domain")?.map(Domain::Id),
            some => some,
        };
        // "default" is the id of the domain that Keystone's own bootstrap makes.
        let domain = own.or(fallback).unwrap_or_else(|| Domain::Id("default".to_owned()));
        Ok(Some(Named::Name { name, domain }))
    }

    fn domain(&self, id_key: &str, name_key: &str) -> Result<Option<Domain>, ConfigError> {
        Ok(match self.auth(id_key)? {
            Some(id) => Some(Domain::Id(id)),
            None => self.auth(name_key)?.map(Domain::Name),
        })
    }

    fn interface(&self) -> Result<Interface, ConfigError> {
        match self.top("interface")?.as_deref() {
            None | Some("public" | "publicURL") => Ok(Interface::Public),
            Some("internal" | "internalURL") => Ok(Interface::Internal),
            Some("admin" | "adminURL") => Ok(Interface::Admin),
            Some(other) => Err(ConfigError::new(format!(
                "{}: interface {other} does not exist; use public, internal or admin",
                self.origin
            ))),
        }
    }

    fn verify(&self) -> Result<bool, ConfigError> {
        match self.top.get("verify") {
            None | Some(Value::Null) => Ok(true),
            Some(Value::Bool(verify)) => Ok(*verify),
            Some(_) => Err(ConfigError::new(format!(
                "{}: verify is neither true nor false; write one of them, and name a CA with cacert",
                self.origin
            ))),
        }
    }

    fn missing(&self, key: &str, remedy: &str) -> ConfigError {
        ConfigError::new(format!("{} lacks {key} ({remedy})", self.origin))
    }

    fn top(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.text(&self.top, key)
    }

    fn auth(&self, key: &str) -> Result<Option<String>, ConfigError> {
        self.text(&self.auth, key)
    }

    /// YAML makes a number of 1e3 and 0x10: what was written cannot be read back, so it has to be quoted.
    fn text(&self, keys: &BTreeMap<String, Value>, key: &str) -> Result<Option<String>, ConfigError> {
        match keys.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(ConfigError::new(format!("{}: {key} is not text; put its value in quotes", self.origin))),
        }
    }
}

/// The known word that a misspelt one most probably means.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|other| (strsim::damerau_levenshtein(word, other), other)).min()?;
    (near.0 * 3 <= word.len()).then_some(near.1)
}

#[cfg(test)]
mod tests;
