//! A fake of the OpenStack endpoints that Tandem calls, over real HTTP: for faults and for scale, not for the truth about Nova.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path as FilePath, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use chrono::{DateTime, Duration, SecondsFormat, Utc};
use openstack_client::{CloudConfig, Credentials, Domain, Interface, Named, Secret};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use uuid::Uuid;

use crate::http::{Server, lock};

pub const PASSWORD: &str = "correct-horse-battery-staple";

/// Everything the fake knows. Tests change it as they like.
#[derive(Debug)]
pub struct Facts {
    pub hosts: Vec<Host>,
    pub servers: Vec<Value>,
    pub migrations: Vec<Value>,
    pub actions: BTreeMap<String, Vec<Value>>,
    /// Live tokens; removing one revokes it.
    pub tokens: BTreeSet<String>,
    pub token_life_s: i64,
    /// The newest microversions.
    pub nova: (u16, u16),
    pub placement: (u16, u16),
    /// Service types that the catalogue has.
    pub catalogue: Vec<&'static str>,
    /// Nova gives no more than this in one page.
    pub max_limit: usize,
    /// How long an evacuation takes for each of its steps; without it it stays `accepted`.
    pub evacuation_step: Option<std::time::Duration>,
    /// What must never be, as Nova and the machines saw it.
    pub violations: Vec<String>,
    url: String,
}

/// A compute host as Nova sees it.
#[derive(Debug, Clone)]
pub struct Host {
    pub id: Uuid,
    pub name: String,
    pub up: bool,
    pub forced_down: bool,
    pub disabled_reason: Option<String>,
    pub cell_down: bool,
    /// When its nova-compute reported last, if it does no more.
    pub silent_since: Option<DateTime<Utc>>,
    /// When somebody changed its service last, which moves `updated_at`, too.
    edited: Option<DateTime<Utc>>,
    /// Silent for longer than this is down to Nova.
    pub service_down_time: Duration,
    /// What Nova cannot know: whether the machine runs, and its guests with it.
    pub runs: bool,
}

impl Host {
    pub fn new(name: &str) -> Self {
        Self {
            id: Uuid::new_v4(),
            name: name.to_owned(),
            up: true,
            forced_down: false,
            disabled_reason: None,
            cell_down: false,
            silent_since: None,
            edited: None,
            service_down_time: Duration::seconds(60),
            runs: true,
        }
    }

    fn is_up(&self) -> bool {
        let silent = self.silent_since.is_some_and(|since| Utc::now() - since > self.service_down_time);
        self.up && !silent && !self.forced_down
    }

    fn updated_at(&self) -> DateTime<Utc> {
        self.silent_since.map_or_else(Utc::now, |since| self.edited.map_or(since, |edited| edited.max(since)))
    }

    fn row(&self) -> Value {
        if self.cell_down {
            return json!({"binary": "nova-compute", "host": self.name, "status": "UNKNOWN"});
        }
        let disabled = self.disabled_reason.is_some();
        json!({
            "id": self.id, "binary": "nova-compute", "host": self.name, "zone": "nova",
            "status": if disabled { "disabled" } else { "enabled" }, "disabled_reason": self.disabled_reason,
            "state": if self.is_up() { "up" } else { "down" },
            "forced_down": self.forced_down, "updated_at": naive(self.updated_at()),
        })
    }
}

/// The running fake. It ends when it is dropped.
#[derive(Debug)]
pub struct Fake {
    pub address: SocketAddr,
    pub http: Arc<Server>,
    pub facts: Arc<Mutex<Facts>>,
    scheme: &'static str,
    /// The CA that signed its certificate, if it speaks https.
    pub ca: Option<PathBuf>,
    _folder: tempfile::TempDir,
    accepting: JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Fake {
    pub async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Over https, with a certificate of a CA that nobody knows.
    pub async fn start_https() -> Self {
        Self::start_with(Some(certificate())).await
    }

    async fn start_with(tls: Option<(TlsAcceptor, String)>) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the CA");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let facts = Arc::new(Mutex::new(Facts::new(format!("{scheme}://{address}"))));
        let http = Server::new(routes(&facts));
        let ca = tls.as_ref().map(|(_, pem)| write(folder.path(), pem));
        let accepting = tokio::spawn(accept(listener, tls.map(|(acceptor, _)| acceptor), Arc::clone(&http)));
        Self { address, http, facts, scheme, ca, _folder: folder, accepting }
    }

    pub fn facts(&self) -> MutexGuard<'_, Facts> {
        lock(&self.facts)
    }

    pub fn auth_url(&self) -> String {
        format!("{}://{}/identity/v3", self.scheme, self.address)
    }

    /// What a client is told about this cloud.
    pub fn config(&self) -> CloudConfig {
        let named = |name: &str| Named::Name { name: name.to_owned(), domain: Domain::Id("default".to_owned()) };
        CloudConfig {
            origin: "cloud fake of clouds.yaml".to_owned(),
            auth_url: self.auth_url().parse().expect("a URL"),
            credentials: Credentials::Password {
                user: named("admin"),
                password: Secret::new(PASSWORD),
                project: named("admin"),
            },
            region: None,
            interface: Interface::Public,
            cacert: self.ca.clone(),
            verify: true,
        }
    }
}

fn write(folder: &FilePath, pem: &str) -> PathBuf {
    let path = folder.join("ca.pem");
    std::fs::write(&path, pem).expect("the folder is ours");
    path
}

fn certificate() -> (TlsAcceptor, String) {
    let ca_key = rcgen::KeyPair::generate().expect("a key");
    let mut ca = rcgen::CertificateParams::default();
    ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = ca.self_signed(&ca_key).expect("a CA").pem();
    let issuer = rcgen::Issuer::new(ca, ca_key);
    let key = rcgen::KeyPair::generate().expect("a key");
    let own = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let own = own.signed_by(&key, &issuer).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions that ring knows");
    let config =
        config.with_no_client_auth().with_single_cert(vec![own.der().clone()], key).expect("key and certificate fit");
    (TlsAcceptor::from(Arc::new(config)), pem)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, http: Arc<Server>) {
    while let Ok((connection, _)) = listener.accept().await {
        let (tls, http) = (tls.clone(), Arc::clone(&http));
        tokio::spawn(async move {
            match tls {
                None => http.serve(connection).await,
                Some(tls) => match tls.accept(connection).await {
                    Ok(connection) => http.serve(connection).await,
                    Err(refused) => Err(refused),
                },
            }
        });
    }
}

impl Facts {
    fn new(url: String) -> Self {
        Self {
            hosts: ["cmp1", "cmp2", "cmp3"].map(Host::new).into(),
            servers: Vec::new(),
            migrations: Vec::new(),
            actions: BTreeMap::new(),
            tokens: BTreeSet::new(),
            token_life_s: 3600,
            nova: (2, 100),
            placement: (1, 39),
            catalogue: vec!["compute", "identity", "placement"],
            max_limit: 1000,
            evacuation_step: None,
            violations: Vec::new(),
            url,
        }
    }

    /// Puts this many instances on a host and returns their ids.
    pub fn boot(&mut self, host: &str, count: usize) -> Vec<Uuid> {
        let ids: Vec<_> = (0..count).map(|_| Uuid::new_v4()).collect();
        let before = self.servers.len();
        self.servers.extend(ids.iter().enumerate().map(|(number, id)| server(*id, host, before + number)));
        ids
    }

    fn host(&mut self, id: &str) -> Option<&mut Host> {
        self.hosts.iter_mut().find(|host| host.id.to_string() == id)
    }

    fn catalogue(&self) -> Value {
        let path = |kind| match kind {
            "compute" => "/compute/v2.1",
            "placement" => "/placement",
            _ => "/identity",
        };
        let endpoint = |kind| json!({"id": Uuid::new_v4().simple().to_string(), "interface": "public", "region_id": "RegionOne", "region": "RegionOne", "url": format!("{}{}", self.url, path(kind))});
        self.catalogue.iter().map(|kind| json!({"type": kind, "name": kind, "endpoints": [endpoint(kind)]})).collect()
    }
}

fn naive_now() -> String {
    naive(Utc::now())
}

fn naive(time: DateTime<Utc>) -> String {
    time.format("%Y-%m-%dT%H:%M:%S%.6f").to_string()
}

fn zoned(time: chrono::DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// An instance as Nova describes it to an administrator: about 3.5 KB.
fn server(id: Uuid, host: &str, number: usize) -> Value {
    let (project, image) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4());
    let link = |rel: &str, kind: &str, id: &str| json!({"rel": rel, "href": format!("http://nova.example.org:8774/v2.1/{kind}/{id}")});
    let address = |version: u8, text: String| json!({"version": version, "addr": text, "OS-EXT-IPS:type": "fixed", "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:4c:2c:30"});
    json!({
        "id": id, "name": format!("instance-of-a-customer-{number}"), "status": "ACTIVE", "tenant_id": project, "user_id": project,
        "metadata": {"HA_Enabled": "True", "purpose": "application server", "owner": "a-team@example.org"}, "tags": ["production", "ha"],
        "hostId": "9f2c1b7a6d5e4f30817263544a5b6c7d8e9fa0b1c2d3e4f5a6b7c8d9e0f1a2b3", "image": {"id": image, "links": [link("bookmark", "images", &image.to_string())]},
        "flavor": {
            "vcpus": 4, "ram": 8192, "disk": 80, "ephemeral": 0, "swap": 0, "original_name": "m1.large",
            "extra_specs": {"hw:cpu_policy": "shared", "hw:mem_page_size": "large", "trait:HW_CPU_X86_AVX2": "required", "aggregate_instance_extra_specs:ssd": "true"},
        },
        "created": "2026-11-20T08:15:30Z", "updated": "2026-11-21T09:16:31Z",
        "addresses": {"private": [address(4, format!("10.0.{}.{}", number / 250, number % 250)), address(6, format!("fd00::{number:x}"))], "storage": [address(4, "10.9.0.7".to_owned())]},
        "accessIPv4": "", "accessIPv6": "", "links": [link("self", "servers", &id.to_string()), link("bookmark", "servers", &id.to_string())],
        "OS-DCF:diskConfig": "MANUAL", "progress": 0, "OS-EXT-AZ:availability_zone": "nova", "config_drive": "True", "key_name": "a-key",
        "OS-SRV-USG:launched_at": "2026-11-20T08:15:42.000000", "OS-SRV-USG:terminated_at": null,
        "security_groups": [{"name": "default"}, {"name": "web"}, {"name": "ssh-from-bastion"}],
        "OS-EXT-SRV-ATTR:host": host, "OS-EXT-SRV-ATTR:instance_name": format!("instance-{number:08x}"), "OS-EXT-SRV-ATTR:hypervisor_hostname": host,
        "OS-EXT-SRV-ATTR:reservation_id": "r-00000001", "OS-EXT-SRV-ATTR:launch_index": 0, "OS-EXT-SRV-ATTR:hostname": format!("instance-of-a-customer-{number}"),
        "OS-EXT-SRV-ATTR:kernel_id": "", "OS-EXT-SRV-ATTR:ramdisk_id": "", "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
        "OS-EXT-SRV-ATTR:user_data": "I2Nsb3VkLWNvbmZpZwpwYWNrYWdlX3VwZGF0ZTogdHJ1ZQpwYWNrYWdlczoKICAtIG5naW54CiAg".repeat(16),
        "OS-EXT-STS:task_state": null, "OS-EXT-STS:vm_state": "active", "OS-EXT-STS:power_state": 1,
        "os-extended-volumes:volumes_attached": [{"id": Uuid::new_v4(), "delete_on_termination": false}, {"id": Uuid::new_v4(), "delete_on_termination": true}],
        "host_status": "UP", "description": "one of many", "locked": false, "locked_reason": null, "trusted_image_certificates": null,
    })
}

// ---- routes ----

type Cloud = State<Arc<Mutex<Facts>>>;
type Terms = Query<BTreeMap<String, String>>;

fn routes(facts: &Arc<Mutex<Facts>>) -> Router {
    let nova = Router::new()
        .route("/", get(nova_version))
        .route("/os-services", get(services))
        .route("/os-services/{id}", put(update_service))
        .route("/servers/detail", get(servers))
        .route("/servers/{id}", get(one_server))
        .route("/servers/{id}/action", post(action))
        .route("/servers/{id}/os-instance-actions", get(actions))
        .route("/servers/{id}/os-instance-actions/{request}", get(one_action))
        .route("/os-migrations", get(migrations))
        .route("/os-server-groups", get(server_groups))
        .route("/os-aggregates", get(aggregates))
        .route("/os-hypervisors/detail", get(hypervisors));
    let placement =
        Router::new().route("/", get(placement_version)).route("/resource_providers/{id}/{what}", get(provider));
    Router::new()
        .nest("/compute/v2.1", nova.route_layer(from_fn_with_state(facts.clone(), admit)))
        .nest("/placement", placement.route_layer(from_fn_with_state(facts.clone(), admit)))
        // axum's nest serves /compute/v2.1 for its "/", the client asks with a slash behind it
        .route("/compute/v2.1/", get(nova_version))
        .route("/placement/", get(placement_version))
        .route("/identity/v3/auth/tokens", post(issue).get(validate))
        .with_state(facts.clone())
}

/// Token and microversion, as the middlewares in front of each service judge them.
async fn admit(State(facts): Cloud, request: Request, next: Next) -> Response {
    let (known, nova, placement) = {
        let facts = lock(&facts);
        (
            token(request.headers(), "x-auth-token").is_some_and(|token| facts.tokens.contains(token)),
            facts.nova,
            facts.placement,
        )
    };
    let id = format!("req-{}", Uuid::new_v4());
    let mut response = match (known, version(request.headers())) {
        (false, _) => {
            fault(StatusCode::UNAUTHORIZED, "unauthorized", "The request you have made requires authentication.")
        }
        (true, Some(("compute", wanted))) if wanted > nova => {
            fault(StatusCode::NOT_ACCEPTABLE, "computeFault", "Version is not supported by the API.")
        }
        (true, Some(("placement", wanted))) if wanted > placement => {
            fault(StatusCode::NOT_ACCEPTABLE, "error", "Unacceptable version header")
        }
        (true, _) => next.run(request).await,
    };
    response.headers_mut().insert("x-openstack-request-id", HeaderValue::from_str(&id).expect("a UUID"));
    response
}

fn token<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn version(headers: &HeaderMap) -> Option<(&str, (u16, u16))> {
    let (service, version) = headers.get("openstack-api-version")?.to_str().ok()?.split_once(' ')?;
    let (major, minor) = version.split_once('.')?;
    Some((service, (major.parse().ok()?, minor.parse().ok()?)))
}

fn fault(status: StatusCode, name: &str, message: &str) -> Response {
    (status, Json(json!({name: {"code": status.as_u16(), "message": message}}))).into_response()
}

fn nothing(what: &str) -> Response {
    fault(StatusCode::NOT_FOUND, "itemNotFound", &format!("{what} could not be found."))
}

// Keystone

async fn issue(State(facts): Cloud, Json(body): Json<Value>) -> Response {
    let identity = &body["auth"]["identity"];
    let given = [&identity["password"]["user"]["password"], &identity["application_credential"]["secret"]];
    if given.iter().all(|secret| secret.as_str() != Some(PASSWORD)) {
        return fault(StatusCode::UNAUTHORIZED, "error", "The request you have made requires authentication.");
    }
    let mut facts = lock(&facts);
    let token = format!("gAAAAA-{}", Uuid::new_v4().simple());
    facts.tokens.insert(token.clone());
    let mut answer = bearer(&facts);
    answer["token"]["catalog"] = facts.catalogue();
    (StatusCode::CREATED, [("x-subject-token", token)], Json(answer)).into_response()
}

async fn validate(State(facts): Cloud, headers: HeaderMap) -> Response {
    let facts = lock(&facts);
    let live = |name| token(&headers, name).is_some_and(|token| facts.tokens.contains(token));
    match (live("x-auth-token"), live("x-subject-token")) {
        (false, _) => fault(StatusCode::UNAUTHORIZED, "error", "The request you have made requires authentication."),
        (true, false) => fault(StatusCode::NOT_FOUND, "error", "Failed to validate token"),
        (true, true) => Json(bearer(&facts)).into_response(),
    }
}

fn bearer(facts: &Facts) -> Value {
    let now = Utc::now();
    let domain = json!({"id": "default", "name": "Default"});
    json!({"token": {
        "methods": ["password"], "user": {"id": "a1", "name": "admin", "domain": domain, "password_expires_at": null},
        "audit_ids": ["3T2dc1CGQxyJsHdDu1xkcw"], "issued_at": zoned(now), "expires_at": zoned(now + Duration::seconds(facts.token_life_s)),
        "project": {"id": "b2", "name": "admin", "domain": domain}, "is_domain": false, "roles": [{"id": "c3", "name": "admin"}],
    }})
}

// Nova

async fn nova_version(State(facts): Cloud) -> Json<Value> {
    let (major, minor) = lock(&facts).nova;
    Json(
        json!({"version": {"id": "v2.1", "status": "CURRENT", "version": format!("{major}.{minor}"), "min_version": "2.1", "updated": "2013-07-23T11:33:21Z", "links": []}}),
    )
}

async fn services(State(facts): Cloud, Query(terms): Terms) -> Json<Value> {
    let facts = lock(&facts);
    let hosts = facts.hosts.iter().filter(|host| terms.get("host").is_none_or(|name| *name == host.name));
    Json(json!({"services": hosts.map(Host::row).collect::<Vec<_>>()}))
}

async fn update_service(State(facts): Cloud, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    let mut facts = lock(&facts);
    let Some(host) = facts.host(&id).map(|host| host.name.clone()) else { return nothing("Service") };
    let forced_down = body["forced_down"].as_bool();
    if forced_down == Some(false) && facts.evacuations_from(&host).any(|row| row["status"] == "done") {
        let message = format!("Service {host} has evacuations that its nova-compute has not completed.");
        return fault(StatusCode::BAD_REQUEST, "badRequest", &message);
    }
    let host = facts.host(&id).expect("it was just found");
    host.forced_down = forced_down.unwrap_or(host.forced_down);
    let blocks = host.is_up() && !host.runs; // Nova would wait 60 s for an answer of its nova-compute
    match body["status"].as_str() {
        Some("disabled") => {
            host.disabled_reason = Some(body["disabled_reason"].as_str().unwrap_or_default().to_owned())
        }
        Some("enabled") => host.disabled_reason = None,
        _ => {}
    }
    host.edited = Some(Utc::now());
    let row = host.row();
    if blocks && body["status"] == "disabled" {
        facts.violations.push(format!("{} was disabled before it was forced down", row["host"]));
    }
    Json(json!({"service": row})).into_response()
}

async fn servers(State(facts): Cloud, Query(terms): Terms) -> Response {
    let facts = lock(&facts);
    let of_host =
        |server: &&Value| terms.get("host").is_none_or(|host| server["OS-EXT-SRV-ATTR:host"] == host.as_str());
    let all: Vec<_> = facts.servers.iter().filter(of_host).collect();
    page("servers", "id", &all, &terms, facts.max_limit)
}

/// One page of a list, with the link that says that there is more. The link names a host that only a proxy would reach.
fn page(name: &str, key: &str, all: &[&Value], terms: &BTreeMap<String, String>, max_limit: usize) -> Response {
    let start = match terms.get("marker") {
        None => 0,
        Some(marker) => match all.iter().position(|item| item[key] == marker.as_str()) {
            None => return fault(StatusCode::BAD_REQUEST, "badRequest", &format!("marker [{marker}] not found")),
            Some(at) => at + 1,
        },
    };
    let limit = terms.get("limit").and_then(|limit| limit.parse().ok()).unwrap_or(max_limit).min(max_limit);
    let end = (start + limit).min(all.len());
    let mut answer = json!({name: &all[start..end]});
    if end < all.len() {
        answer[format!("{name}_links")] = json!([{"rel": "next", "href": "http://behind-the-proxy.invalid/v2.1/next"}]);
    }
    Json(answer).into_response()
}

async fn one_server(State(facts): Cloud, Path(id): Path<String>) -> Response {
    match lock(&facts).servers.iter().find(|server| server["id"] == id.as_str()) {
        Some(server) => {
            let mut server = server.clone();
            server["server_groups"] = json!([]);
            Json(json!({"server": server})).into_response()
        }
        None => nothing("Instance"),
    }
}

async fn action(State(shared): Cloud, Path(id): Path<String>, Json(body): Json<Value>) -> Response {
    let mut facts = lock(&shared);
    let Some(at) = facts.servers.iter().position(|server| server["id"] == id.as_str()) else {
        return nothing("Instance");
    };
    let (name, status) = match body.as_object().and_then(|body| body.keys().next()).map(String::as_str) {
        Some("evacuate") => {
            let (answer, begun) = evacuate(&mut facts, at);
            if let Some((migration, step)) = begun.zip(facts.evacuation_step) {
                tokio::spawn(carry_out(Arc::clone(&shared), migration, step));
            }
            return answer;
        }
        Some("os-start") => ("start", "active"),
        Some("os-stop") => ("stop", "stopped"),
        Some("reboot") => ("reboot", "active"),
        _ => return fault(StatusCode::BAD_REQUEST, "badRequest", "There is no such action"),
    };
    facts.servers[at]["OS-EXT-STS:vm_state"] = json!(status);
    facts.note(&id, name);
    StatusCode::ACCEPTED.into_response()
}

fn evacuate(facts: &mut Facts, at: usize) -> (Response, Option<Uuid>) {
    let (id, source) = (facts.servers[at]["id"].clone(), facts.servers[at]["OS-EXT-SRV-ATTR:host"].clone());
    if facts.hosts.iter().any(|host| source == host.name.as_str() && host.is_up()) {
        let message = format!("Compute service of {} is still in use.", source.as_str().unwrap_or_default());
        return (fault(StatusCode::BAD_REQUEST, "badRequest", &message), None);
    }
    let (number, uuid) = (facts.migrations.len() + 1, Uuid::new_v4());
    facts.migrations.push(json!({
        "id": number, "uuid": uuid, "instance_uuid": id, "migration_type": "evacuation", "status": "accepted",
        "source_compute": source, "dest_compute": null, "source_node": source, "dest_node": null, "dest_host": null,
        "old_instance_type_id": 1, "new_instance_type_id": 1, "created_at": naive_now(), "updated_at": null,
    }));
    facts.note(id.as_str().unwrap_or_default(), "evacuate");
    (StatusCode::OK.into_response(), Some(uuid))
}

/// The destination spawns the guest; where the instance is changes last.
async fn carry_out(facts: Arc<Mutex<Facts>>, migration: Uuid, step: std::time::Duration) {
    for begin in [Facts::schedule, Facts::spawn, Facts::arrive] {
        tokio::time::sleep(step).await;
        if !begin(&mut lock(&facts), migration) {
            return;
        }
    }
}

impl Facts {
    fn evacuations_from(&self, host: &str) -> impl Iterator<Item = &Value> {
        let of_host = move |row: &&Value| row["migration_type"] == "evacuation" && row["source_compute"] == host;
        self.migrations.iter().filter(of_host)
    }

    /// nova-compute of this host has started again: it removes what was evacuated, says so, and reports.
    pub fn compute_restarts(&mut self, name: &str) {
        for row in &mut self.migrations {
            if row["source_compute"] == name && row["status"] == "done" {
                row["status"] = json!("completed");
                row["updated_at"] = json!(naive_now());
            }
        }
        for host in self.hosts.iter_mut().filter(|host| host.name == name) {
            (host.silent_since, host.runs) = (None, true);
        }
    }

    /// The instances that Nova says are on this host.
    pub fn on_host(&self, name: &str) -> usize {
        self.servers.iter().filter(|server| server["OS-EXT-SRV-ATTR:host"] == name).count()
    }

    fn schedule(&mut self, migration: Uuid) -> bool {
        let row = self.migration(migration).clone();
        let fits = |host: &&Host| {
            host.is_up() && host.disabled_reason.is_none() && row["source_compute"] != host.name.as_str()
        };
        let chosen = self.hosts.iter().filter(fits).min_by_key(|host| self.on_host(&host.name));
        let to = chosen.map(|host| json!(host.name));
        let row = self.migration(migration);
        let status = if to.is_some() { "pre-migrating" } else { "error" };
        let (found, to) = (to.is_some(), to.unwrap_or_default());
        (row["status"], row["dest_compute"], row["dest_node"]) = (json!(status), to.clone(), to);
        row["updated_at"] = json!(naive_now());
        let task = if found { json!("rebuild_spawning") } else { json!(null) };
        self.server_of(migration)["OS-EXT-STS:task_state"] = task;
        found
    }

    fn spawn(&mut self, migration: Uuid) -> bool {
        let row = self.migration(migration).clone();
        let runs = |name: &Value| self.hosts.iter().any(|host| *name == host.name.as_str() && host.runs);
        if !runs(&row["dest_compute"]) {
            return false; // died under it: it stays as it is
        }
        if runs(&row["source_compute"]) {
            let twice =
                format!("{} runs on {} and on {}", row["instance_uuid"], row["source_compute"], row["dest_compute"]);
            self.violations.push(twice);
        }
        let row = self.migration(migration);
        (row["status"], row["updated_at"]) = (json!("done"), json!(naive_now()));
        true
    }

    fn arrive(&mut self, migration: Uuid) -> bool {
        let to = self.migration(migration)["dest_compute"].clone();
        let server = self.server_of(migration);
        server["OS-EXT-SRV-ATTR:host"] = to.clone();
        server["OS-EXT-SRV-ATTR:hypervisor_hostname"] = to;
        server["OS-EXT-STS:task_state"] = json!(null);
        true
    }

    fn migration(&mut self, id: Uuid) -> &mut Value {
        let id = id.to_string();
        self.migrations.iter_mut().find(|row| row["uuid"] == id.as_str()).expect("migrations are never removed")
    }

    fn server_of(&mut self, migration: Uuid) -> &mut Value {
        let id = self.migration(migration)["instance_uuid"].clone();
        self.servers.iter_mut().find(|server| server["id"] == id).expect("its instance is there")
    }
}

impl Facts {
    fn note(&mut self, server: &str, action: &str) {
        let row = json!({
            "action": action, "instance_uuid": server, "request_id": format!("req-{}", Uuid::new_v4()), "message": null,
            "start_time": naive_now(), "updated_at": naive_now(), "user_id": "a1", "project_id": "b2",
        });
        self.actions.entry(server.to_owned()).or_default().insert(0, row);
    }
}

async fn actions(State(facts): Cloud, Path(id): Path<String>) -> Json<Value> {
    Json(json!({"instanceActions": lock(&facts).actions.get(&id).cloned().unwrap_or_default()}))
}

async fn one_action(State(facts): Cloud, Path((id, request)): Path<(String, String)>) -> Response {
    let facts = lock(&facts);
    let found = facts.actions.get(&id).and_then(|rows| rows.iter().find(|row| row["request_id"] == request.as_str()));
    found.map_or_else(|| nothing("Action"), |row| Json(json!({"instanceAction": row})).into_response())
}

async fn migrations(State(facts): Cloud, Query(terms): Terms) -> Response {
    let facts = lock(&facts);
    let fits = |row: &&Value| {
        let is = |term: &str, key: &str| terms.get(term).is_none_or(|value| row[key] == value.as_str());
        let host = terms
            .get("host")
            .is_none_or(|host| row["source_compute"] == host.as_str() || row["dest_compute"] == host.as_str());
        host && is("source_compute", "source_compute")
            && is("instance_uuid", "instance_uuid")
            && is("migration_type", "migration_type")
            && is("status", "status")
    };
    let all: Vec<_> = facts.migrations.iter().rev().filter(fits).collect();
    page("migrations", "uuid", &all, &terms, facts.max_limit)
}

async fn server_groups(Query(terms): Terms) -> Json<Value> {
    let first = terms.get("offset").is_none_or(|offset| offset == "0");
    let group = json!({"id": Uuid::new_v4(), "name": "apart", "policy": "anti-affinity", "rules": {"max_server_per_host": 1}, "members": [], "project_id": "b2", "user_id": "a1"});
    Json(json!({"server_groups": if first { vec![group] } else { Vec::new() }}))
}

async fn aggregates(State(facts): Cloud) -> Json<Value> {
    let hosts: Vec<_> = lock(&facts).hosts.iter().map(|host| host.name.clone()).collect();
    Json(json!({"aggregates": [{
        "id": 1, "uuid": Uuid::new_v4(), "name": "all", "availability_zone": "nova", "hosts": hosts, "metadata": {"availability_zone": "nova"},
        "created_at": naive_now(), "updated_at": null, "deleted": false, "deleted_at": null,
    }]}))
}

async fn hypervisors(State(facts): Cloud, Query(terms): Terms) -> Response {
    let facts = lock(&facts);
    let row = |host: &Host| {
        json!({
            "id": host.id, "hypervisor_hostname": host.name, "hypervisor_type": "fake", "hypervisor_version": 1000, "host_ip": "127.0.0.1",
            "state": if host.is_up() { "up" } else { "down" }, "status": "enabled", "uptime": null, "servers": [],
            "service": {"id": host.id, "host": host.name, "disabled_reason": host.disabled_reason},
        })
    };
    let all: Vec<_> = facts.hosts.iter().map(row).collect();
    page("hypervisors", "id", &all.iter().collect::<Vec<_>>(), &terms, facts.max_limit)
}

// Placement

async fn placement_version(State(facts): Cloud) -> Json<Value> {
    let (major, minor) = lock(&facts).placement;
    Json(
        json!({"versions": [{"id": "v1.0", "status": "CURRENT", "max_version": format!("{major}.{minor}"), "min_version": "1.0", "links": []}]}),
    )
}

async fn provider(State(facts): Cloud, Path((id, what)): Path<(String, String)>) -> Response {
    let enabled = lock(&facts).host(&id).is_some_and(|host| host.disabled_reason.is_none());
    let inventory = |total: u64, ratio: f64| json!({"total": total, "reserved": 0, "min_unit": 1, "max_unit": total, "step_size": 1, "allocation_ratio": ratio});
    let (name, value) = match what.as_str() {
        "inventories" => (
            "inventories",
            json!({"VCPU": inventory(1000, 4.0), "MEMORY_MB": inventory(800_000, 1.0), "DISK_GB": inventory(600_000, 1.0)}),
        ),
        "usages" => ("usages", json!({"VCPU": 4, "MEMORY_MB": 8192, "DISK_GB": 80})),
        "traits" if enabled => ("traits", json!(["COMPUTE_NODE"])),
        "traits" => ("traits", json!(["COMPUTE_NODE", "COMPUTE_STATUS_DISABLED"])),
        _ => return nothing("Resource"),
    };
    Json(json!({name: value, "resource_provider_generation": 3})).into_response()
}
