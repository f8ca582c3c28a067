//! Reads what the administrator has settled: one TOML file, and variables `TANDEM_HA__SECTION__KEY` that override it.
//!
//! Everything that is wrong is told at once, each with file, key, value and what is allowed. A key that nobody knows is an error: a misspelt
//! `silence_s` would otherwise be found out by the first host that dies. `etc/tandem-ha.toml` explains every key.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::Url;

mod read;
mod warnings;

pub use configuration::{ConfigError, Secret};

/// Every key that is known, by the table that it stands in. `etc/tandem-ha.toml` is held to it by a test.
pub const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "api",
            "control_socket",
            "detection",
            "evacuation",
            "fencing",
            "gates",
            "heartbeat",
            "hosts",
            "openstack",
            "segments",
            "store",
        ],
    ),
    ("api", &["listen"]),
    ("store", &["path"]),
    ("openstack", &["cloud", "poll_s"]),
    ("detection", &["nova_alone", "silence_s", "suspect_s"]),
    ("gates", &["flap_limit", "flap_window_s", "mass_failure_percent", "mass_failure_window_s", "quiet_s"]),
    ("heartbeat", &["boot_id_file", "host", "interval_s", "key_file", "networks", "system_uuid_file"]),
    ("heartbeat.networks", &["listen", "name", "source", "to"]),
    ("fencing", &["attempts", "limit_s", "methods", "retry_s"]),
    (
        "evacuation",
        &["attempts", "in_flight", "instances", "metadata_key", "per_destination", "per_source", "unknown_s"],
    ),
    ("hosts.NAME", &["probes", "redfish"]),
    ("hosts.NAME.probes", &["address", "network"]),
    ("hosts.NAME.redfish", &["address", "ca_file", "password_file", "system", "user", "verify"]),
    ("segments.NAME", &["enabled", "hosts", "root_disk"]),
];

/// How often each port in `probes` is asked.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);

/// A configuration that can be used, and what its administrator should know about it.
pub type Loaded = configuration::Loaded<Config>;

#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read.
    pub file: PathBuf,
    pub control_socket: PathBuf,
    pub api: Api,
    pub store: Store,
    pub openstack: Openstack,
    pub detection: Detection,
    pub gates: Gates,
    pub heartbeat: Heartbeat,
    pub fencing: Fencing,
    pub evacuation: Evacuation,
    /// By their name in Nova.
    pub hosts: BTreeMap<String, Host>,
    pub segments: BTreeMap<String, Segment>,
}

#[derive(Debug, Clone)]
pub struct Api {
    pub listen: SocketAddr,
}

#[derive(Debug, Clone)]
pub struct Store {
    pub path: PathBuf,
}

#[derive(Debug, Clone)]
pub struct Openstack {
    /// An entry of clouds.yaml; without one the environment decides.
    pub cloud: Option<String>,
    pub poll: Duration,
}

#[derive(Debug, Clone)]
pub struct Detection {
    pub suspect: Duration,
    pub silence: Duration,
    pub nova_alone: bool,
}

#[derive(Debug, Clone)]
pub struct Gates {
    pub mass_failure_percent: u32,
    pub mass_failure_window: Duration,
    pub quiet: Duration,
    pub flap_limit: u32,
    pub flap_window: Duration,
}

#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// What signs and proves heartbeats; there whenever a network sends or listens.
    pub key: Option<Secret<Vec<u8>>>,
    pub interval: Duration,
    /// As whom the sender speaks; without it the machine's hostname.
    pub host: Option<String>,
    pub networks: Vec<Network>,
    pub boot_id_file: PathBuf,
    pub system_uuid_file: PathBuf,
}

/// A way from the compute hosts to us that can fail on its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub name: String,
    /// Where tandem-ha hears heartbeats.
    pub listen: Option<SocketAddr>,
    /// Where the sender sends them.
    pub to: Option<SocketAddr>,
    /// The sender's own address.
    pub source: Option<std::net::IpAddr>,
}

#[derive(Debug, Clone)]
pub struct Fencing {
    /// Those that are allowed, for every host; their order says nothing.
    pub methods: Vec<Method>,
    pub attempts: u32,
    pub retry: Duration,
    /// How long one request to a BMC may take, all that belongs to it included.
    pub limit: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Redfish,
    Manual,
}

#[derive(Debug, Clone)]
pub struct Evacuation {
    pub in_flight: usize,
    pub per_destination: usize,
    pub per_source: usize,
    pub attempts: u32,
    pub unknown: Duration,
    pub instances: Instances,
    pub metadata_key: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Instances {
    /// All but those whose owner says no.
    All,
    /// Only those whose owner says yes.
    OptedIn,
}

#[derive(Debug, Clone, Default)]
pub struct Host {
    pub probes: Vec<Probe>,
    pub redfish: Option<Redfish>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    pub network: String,
    pub address: SocketAddr,
}

/// The BMC of a host.
#[derive(Debug, Clone)]
pub struct Redfish {
    /// Scheme, host and port.
    pub address: Url,
    pub user: String,
    pub password: Secret<String>,
    pub password_file: PathBuf,
    /// A path, an id, or a UUID; without it the BMC must have one system only.
    pub system: Option<String>,
    pub authority: Option<Authority>,
    /// False trusts any certificate.
    pub verify: bool,
}

/// Certificates in PEM form that alone are trusted to sign the BMC's.
#[derive(Debug, Clone)]
pub struct Authority {
    pub file: PathBuf,
    pub pem: Vec<u8>,
}

#[derive(Debug, Clone)]
pub struct Segment {
    pub hosts: Vec<Pattern>,
    pub root_disk: RootDisk,
    pub enabled: bool,
}

/// Where the root disks of image-backed instances are; no API tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RootDisk {
    Local,
    Shared,
}

impl Config {
    /// Reads `path`, then the variables of `env` that begin with `TANDEM_HA__`. Files that it names are read, too, and looked for beside it
    /// if their paths are relative.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
        read::load(path, env)
    }

    /// Whether it is the file of a compute host, which only sends heartbeats.
    pub fn is_for_a_sender(&self) -> bool {
        let networks = &self.heartbeat.networks;
        let sends = networks.iter().any(|network| network.to.is_some());
        let listens = networks.iter().any(|network| network.listen.is_some());
        sends && !listens && self.hosts.is_empty() && self.segments.is_empty()
    }

    /// The segment of a host. Of several the most cautious one: a disabled one, then one whose root disks are local.
    pub fn segment_of(&self, host: &str) -> Option<(&str, &Segment)> {
        self.segments_of(host).min_by_key(|(_, segment)| (segment.enabled, segment.root_disk == RootDisk::Shared))
    }

    fn segments_of(&self, host: &str) -> impl Iterator<Item = (&str, &Segment)> {
        let covers = move |segment: &Segment| segment.hosts.iter().any(|pattern| pattern.covers(host));
        self.segments.iter().filter(move |(_, segment)| covers(segment)).map(|(name, segment)| (name.as_str(), segment))
    }
}

/// Names of hosts, with `*` for any characters and `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// None if it could not be the name of any host.
    pub fn new(text: &str) -> Option<Self> {
        let fits = |c: char| is_name_character(c) || matches!(c, '*' | '?');
        (!text.is_empty() && text.len() <= MOST_NAME_BYTES && text.chars().all(fits)).then(|| Self(text.to_owned()))
    }

    pub fn covers(&self, host: &str) -> bool {
        covers(self.0.as_bytes(), host.as_bytes())
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The usual way in one pass: after a mismatch the last `*` takes one byte more.
fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == b'?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    (p, n) = (at + 1, taken + 1);
                    star = Some((at, taken + 1));
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == b'*')
}

/// A heartbeat has one byte for the length of a name.
const MOST_NAME_BYTES: usize = 255;

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_')
}

/// Whether this can be the name of a host or a network.
pub fn is_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MOST_NAME_BYTES && text.chars().all(is_name_character)
}
