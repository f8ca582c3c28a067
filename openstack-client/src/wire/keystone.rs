//! Keystone v3: asking for a token, and asking what a token is worth.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::time;
use crate::config::{ApplicationCredential, Credentials, Domain, Named};

/// The body of `POST /v3/auth/tokens`. It holds the secret: not to be printed.
pub(crate) fn auth_request(credentials: &Credentials) -> Value {
    match credentials {
        Credentials::Password { user, password, project } => {
            let mut user = named(user);
            user["password"] = json!(password.reveal());
            scoped(json!({"methods": ["password"], "password": {"user": user}}), project)
        }
        Credentials::Token { token, project } => {
            scoped(json!({"methods": ["token"], "token": {"id": token.reveal()}}), project)
        }
        Credentials::ApplicationCredential { credential, secret } => {
            let mut credential = match credential {
                ApplicationCredential::Id(id) => json!({"id": id}),
                ApplicationCredential::Name { name, user } => json!({"name": name, "user": named(user)}),
            };
            credential["secret"] = json!(secret.reveal());
            // It is bound to its project: Keystone refuses a scope beside it.
            json!({"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}})
        }
    }
}

fn scoped(identity: Value, project: &Named) -> Value {
    json!({"auth": {"identity": identity, "scope": {"project": named(project)}}})
}

fn named(thing: &Named) -> Value {
    match thing {
        Named::Id(id) => json!({"id": id}),
        Named::Name { name, domain: Domain::Id(id) } => json!({"name": name, "domain": {"id": id}}),
        Named::Name { name, domain: Domain::Name(domain) } => json!({"name": name, "domain": {"name": domain}}),
    }
}

/// The answer to it; the token itself is in a header.
#[derive(Debug, Deserialize)]
pub(crate) struct AuthAnswer {
    pub(crate) token: AuthToken,
}

#[derive(Debug, Deserialize)]
pub(crate) struct AuthToken {
    #[serde(deserialize_with = "time")]
    pub(crate) issued_at: DateTime<Utc>,
    #[serde(deserialize_with = "time")]
    pub(crate) expires_at: DateTime<Utc>,
    #[serde(default, deserialize_with = "readable")]
    pub(crate) catalog: Vec<CatalogueService>,
}

/// The catalogue's entries that can be read: a strange one of a service that we never call must not cost us the token.
fn readable<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<CatalogueService>, D::Error> {
    let entries = Vec::<serde_json::Value>::deserialize(from)?;
    Ok(entries.into_iter().filter_map(|entry| serde_json::from_value(entry).ok()).collect())
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct CatalogueService {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) interface: String,
    pub(crate) url: String,
    region_id: Option<String>,
    region: Option<String>, // what region_id was called before; still sent beside it
}

impl Endpoint {
    pub(crate) fn region(&self) -> &str {
        self.region_id.as_deref().or(self.region.as_deref()).unwrap_or("")
    }
}

#[derive(Debug, Deserialize)]
pub(crate) struct ValidationAnswer {
    pub(crate) token: Bearer,
}

/// What a caller's token is worth: who, where, with which roles, until when.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "RawBearer")]
pub struct Bearer {
    pub user: User,
    pub scope: TokenScope,
    pub roles: Vec<Role>,
    /// Whether the project is the one that the cloud's own policy calls its admin project; true where no such project is configured, as in
    /// oslo.context.
    pub is_admin_project: bool,
    pub expires_at: DateTime<Utc>,
    /// The application credential that it came from.
    pub application_credential: Option<BearerCredential>,
}

/// What a token is valid for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenScope {
    Project(Project),
    Domain(NamedDomain),
    System,
    Unscoped,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: String,
    pub name: String,
    pub domain: NamedDomain,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Project {
    pub id: String,
    pub name: String,
    pub domain: NamedDomain,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct NamedDomain {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Role {
    pub id: String,
    pub name: String,
}

/// The application credential behind a token.
#[derive(Debug, Clone, Deserialize)]
pub struct BearerCredential {
    pub id: String,
    pub name: Option<String>,
    /// None: any call. Some, also empty: only these, and whoever accepts the token has to enforce it.
    pub access_rules: Option<Vec<AccessRule>>,
}

/// One call that an application credential allows.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AccessRule {
    pub service: String,
    pub method: String,
    pub path: String,
}

#[derive(Deserialize)]
struct RawBearer {
    user: User,
    project: Option<Project>,
    domain: Option<NamedDomain>,
    system: Option<Value>,
    #[serde(default)]
    roles: Vec<Role>,
    is_admin_project: Option<bool>,
    #[serde(deserialize_with = "time")]
    expires_at: DateTime<Utc>,
    application_credential: Option<BearerCredential>,
}

impl From<RawBearer> for Bearer {
    fn from(raw: RawBearer) -> Self {
        let scope = match (raw.project, raw.domain, raw.system) {
            (Some(project), _, _) => TokenScope::Project(project),
            (None, Some(domain), _) => TokenScope::Domain(domain),
            (None, None, Some(_)) => TokenScope::System,
            (None, None, None) => TokenScope::Unscoped,
        };
        Self {
            user: raw.user,
            scope,
            roles: raw.roles,
            is_admin_project: raw.is_admin_project.unwrap_or(true),
            expires_at: raw.expires_at,
            application_credential: raw.application_credential,
        }
    }
}
