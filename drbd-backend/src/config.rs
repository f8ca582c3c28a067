//! What the administrator has settled: one TOML file, and variables `TANDEM_NODE__SECTION__KEY` that override it.
//! `etc/tandem-node.toml` explains every key.

mod read;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use replication::{Durability, Settings};

pub use configuration::ConfigError;

use crate::cluster::OtherConfig;
use crate::disk::Options;
use crate::identity::{Name, Paths};

/// Every key that is known, by the table that it stands in. `etc/tandem-node.toml` is held to it by a test.
pub const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "arbiter",
            "arbiter_server",
            "control_socket",
            "engine",
            "listen",
            "node",
            "nodes",
            "pools",
            "replication",
            "tls",
        ],
    ),
    ("node", &["boot_id_file", "name"]),
    ("listen", &["iscsi", "nbd", "peers", "rest"]),
    ("tls", &["ca", "cert", "key"]),
    ("pools.NAME", &["path"]),
    ("nodes.NAME", &["iscsi", "peers", "rest"]),
    ("arbiter", &["etcd", "name", "prefix", "timeout_s", "url"]),
    ("replication", &["confirm_reads", "durability", "lease_s", "reconnect_s", "resync_share_percent", "stalled_s"]),
    ("engine", &["busy_poll_us", "io"]),
    ("arbiter_server", &["directory", "listen"]),
];

/// A configuration that can be used, and what its administrator should know about it.
pub type Loaded = configuration::Loaded<Config>;

#[derive(Debug, Clone)]
pub struct Config {
    /// Where it was read.
    pub file: PathBuf,
    pub control_socket: PathBuf,
    /// This node's name: its host's name in Nova.
    pub name: Name,
    /// Where the kernel's boot id is read.
    pub boot_id_file: PathBuf,
    pub listen: Listen,
    pub tls: Option<Paths>,
    pub pools: BTreeMap<String, PathBuf>,
    /// All others.
    pub nodes: BTreeMap<Name, OtherConfig>,
    pub arbiter: Option<Arbiter>,
    pub replication: Replication,
    pub engine: Options,
    pub arbiter_server: ArbiterServer,
}

#[derive(Debug, Clone)]
pub struct Listen {
    pub rest: SocketAddr,
    pub peers: SocketAddr,
    pub nbd: SocketAddr,
    /// None: no iSCSI.
    pub iscsi: Option<SocketAddr>,
}

/// Where the records of the volumes are.
#[derive(Debug, Clone)]
pub struct Arbiter {
    pub at: ArbiterAt,
    pub timeout: Duration,
}

#[derive(Debug, Clone)]
pub enum ArbiterAt {
    /// `tandem-node arbiter`, and whose certificate it shows.
    Embedded {
        url: String,
        name: Option<Name>,
    },
    Etcd {
        endpoints: Vec<String>,
        prefix: String,
    },
}

/// Of all volumes; the durability is that of new ones which do not name theirs.
#[derive(Debug, Clone, Copy)]
pub struct Replication {
    pub durability: Durability,
    pub lease: Duration,
    pub reconnect: Duration,
    pub stalled: Duration,
    /// In percent.
    pub resync_share: u32,
    pub confirm_reads: bool,
}

/// `tandem-node arbiter`.
#[derive(Debug, Clone)]
pub struct ArbiterServer {
    pub listen: SocketAddr,
    pub directory: PathBuf,
}

impl Config {
    /// Reads `path`, then the variables of `env` that begin with `TANDEM_NODE__`.
    ///
    /// # Errors
    /// Every key that cannot be used, at once.
    pub fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
        read::load(path, env)
    }

    /// Whether it is the file of a machine that runs only the arbiter.
    #[must_use]
    pub fn is_for_the_arbiter(&self) -> bool {
        self.arbiter.is_none() && self.pools.is_empty()
    }
}

impl Replication {
    /// What a replica goes by. A Secondary waits longer for a Primary's lease to run out than its clocks may differ:
    /// 10 % of the lease, and 100 ms.
    pub fn apply(&self, settings: &mut Settings) {
        settings.durability = self.durability;
        settings.lease = self.lease;
        settings.grace = self.lease.mul_f64(1.1) + Duration::from_millis(100);
        settings.heartbeat_every = self.lease / 5;
        settings.reconnect = self.reconnect;
        settings.stalled = self.stalled;
        settings.resync.share = self.resync_share;
        settings.confirm_reads = self.confirm_reads;
    }
}
