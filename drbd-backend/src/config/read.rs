//! Reads each section, and holds the values against each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use configuration::{ConfigError, Source, Table};
use replication::Durability;
use reqwest::Url;

use super::{Arbiter, ArbiterAt, ArbiterServer, Config, KEYS, Listen, Loaded, Replication};
use crate::cluster::OtherConfig;
use crate::disk::{Engine, Options};
use crate::identity::{Name, Paths};

const KNOWN: configuration::Known =
    configuration::Known { prefix: "TANDEM_NODE", keys: KEYS, file_only: &["nodes", "pools"] };

const ALLOWED_ADDRESS: &str = "an IP address and a port, such as \"198.18.1.2:15871\" or \"[2001:db8::2]:15871\"";
const ALLOWED_NAME: &str = "a host's name: letters, digits, '.', '-' and '_', at most 250 of them";
const ALLOWED_URL: &str = "an address such as \"https://198.18.1.2:15870\"; http:// only on loopback";
const ALLOWED_POOL: &str = "a name of letters, digits, '-' and '_', at most 64 of them";
const DURABILITIES: &[(&str, Durability)] = &[("flush", Durability::Flush), ("write", Durability::Write)];
const ENGINES: &[(&str, Engine)] = &[("auto", Engine::Auto), ("io_uring", Engine::Uring), ("threads", Engine::Threads)];

pub(super) fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    let loaded = configuration::load(path, env, KNOWN, config)?;
    let config = loaded.config.expect("without problems there is a name");
    Ok(Loaded { config, warnings: loaded.warnings })
}

/// None only where a problem has been written down.
fn config(source: &Source, mut all: Table<'_>) -> Option<Config> {
    let control_socket = all.path("control_socket").unwrap_or_else(|| "/run/tandem/node.sock".into());
    let (name, boot_id_file) = node(all.table("node"));
    let pools: BTreeMap<String, PathBuf> =
        all.named("pools", "pools.NAME").into_iter().filter_map(|(name, table)| pool(name, table)).collect();
    let nodes = all.named("nodes", "nodes.NAME").into_iter().filter_map(|(name, table)| other(&name, table)).collect();
    let (listen, tls) = (listen(all.table("listen")), tls(all.table("tls")));
    let (arbiter, arbiter_server) = (arbiter(all.table("arbiter")), arbiter_server(all.table("arbiter_server")));
    let replication = replication(all.table("replication"));
    let engine = engine(all.table("engine"));
    let file = source.file.clone();
    let mut config = Config {
        file,
        control_socket,
        name: name?,
        boot_id_file,
        listen,
        tls,
        pools,
        nodes,
        arbiter,
        replication,
        engine,
        arbiter_server,
    };
    config.nodes.remove(&config.name); // one file may serve all nodes
    check_encryption(source, &config);
    check_whole(source, &config);
    Some(config)
}

fn node(mut table: Table<'_>) -> (Option<Name>, PathBuf) {
    let boot_id_file = table.path("boot_id_file").unwrap_or_else(|| "/proc/sys/kernel/random/boot_id".into());
    let given = table.text("name", ALLOWED_NAME);
    let name = given.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned());
    let parsed = name.parse().ok();
    if parsed.is_none() {
        table.problem("name", &format!("{name:?} is not allowed; allowed is {ALLOWED_NAME}"));
    }
    (parsed, boot_id_file)
}

fn listen(mut table: Table<'_>) -> Listen {
    let mut address = |key: &str, port: u16| -> SocketAddr {
        table.parsed(key, ALLOWED_ADDRESS).unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
    };
    let (rest, peers, nbd) = (address("rest", 15870), address("peers", 15871), address("nbd", 10809));
    Listen { rest, peers, nbd, iscsi: table.parsed("iscsi", ALLOWED_ADDRESS) }
}

/// All three or none.
fn tls(mut table: Table<'_>) -> Option<Paths> {
    let keys = ["ca", "cert", "key"];
    let given: Vec<Option<PathBuf>> = keys.iter().map(|key| table.path(key)).collect();
    if given.iter().all(Option::is_none) {
        return None;
    }
    for (key, _) in keys.iter().zip(&given).filter(|(_, path)| path.is_none()) {
        table.problem(key, "is missing; it is a file that `tandem-node cert issue` writes");
    }
    let [ca, cert, key] = <[Option<PathBuf>; 3]>::try_from(given).expect("there are three keys");
    Some(Paths { ca: ca?, cert: cert?, key: key? })
}

fn pool(name: String, mut table: Table<'_>) -> Option<(String, PathBuf)> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        table.source.problem(&table.at, &format!("{name:?} is not allowed; allowed is {ALLOWED_POOL}"));
        return None;
    }
    table.require("path", "the directory that holds its volumes");
    Some((name, table.path("path")?))
}

fn other(name: &str, mut table: Table<'_>) -> Option<(Name, OtherConfig)> {
    let parsed = name.parse();
    if parsed.is_err() {
        table.source.problem(&table.at, &format!("{name:?} is not allowed; allowed is {ALLOWED_NAME}"));
    }
    table.require("peers", ALLOWED_ADDRESS);
    table.require("rest", ALLOWED_URL);
    let peers = table.parsed("peers", ALLOWED_ADDRESS);
    let rest = url(&mut table, "rest");
    let iscsi = table.parsed("iscsi", ALLOWED_ADDRESS);
    Some((parsed.ok()?, OtherConfig { peers: peers?, rest: rest?, iscsi }))
}

fn url(table: &mut Table<'_>, key: &str) -> Option<String> {
    table.get(key, ALLOWED_URL, |given| given.text().filter(|text| is_url(text)).map(str::to_owned))
}

/// A scheme, a host and a port, and nothing behind.
fn is_url(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        let is_bare = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_bare
    })
}

fn arbiter(mut table: Table<'_>) -> Option<Arbiter> {
    let url = url(&mut table, "url");
    let members = "a list of addresses such as [\"https://198.18.1.2:2379\"]";
    let etcd = table.list("etcd", members, |text| is_url(text).then(|| text.to_owned()));
    let name = table.parsed::<Name>("name", ALLOWED_NAME);
    let prefix = table.text("prefix", "what keys in etcd begin with").unwrap_or_else(|| "/tandem".into());
    let timeout = table.seconds("timeout_s", 2.0, 0.2..=60.0);
    let at = match (url, etcd) {
        (Some(url), None) => {
            if url.starts_with("https") && name.is_none() {
                table.problem("name", "is missing; it is the name in the arbiter's certificate, tandem://node/NAME");
            }
            ArbiterAt::Embedded { url, name }
        }
        (None, Some(endpoints)) if !endpoints.is_empty() => ArbiterAt::Etcd { endpoints, prefix },
        (None, Some(_)) => {
            table.problem("etcd", "[] is not allowed; name its members");
            return None;
        }
        (Some(_), Some(_)) => {
            table.problem("etcd", "there is [arbiter] url, too; one of both says where the arbiter is");
            return None;
        }
        (None, None) => return None,
    };
    Some(Arbiter { at, timeout })
}

fn replication(mut table: Table<'_>) -> Replication {
    Replication {
        durability: table.word("durability", DURABILITIES).unwrap_or(Durability::Flush),
        lease: table.seconds("lease_s", 2.0, 0.5..=60.0),
        reconnect: table.seconds("reconnect_s", 0.2, 0.05..=60.0),
        stalled: table.seconds("stalled_s", 10.0, 1.0..=600.0),
        resync_share: table.whole("resync_share_percent", 50, 1..=100),
        confirm_reads: table.yes("confirm_reads", false),
    }
}

fn engine(mut table: Table<'_>) -> Options {
    let default = Options::default();
    Options {
        engine: table.word("io", ENGINES).unwrap_or(default.engine),
        busy_poll: Duration::from_micros(table.whole("busy_poll_us", 100, 0..=1000).into()),
        ..default
    }
}

fn arbiter_server(mut table: Table<'_>) -> ArbiterServer {
    let listen = table.parsed("listen", ALLOWED_ADDRESS);
    let directory = table.path("directory");
    ArbiterServer {
        listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 15872))),
        directory: directory.unwrap_or_else(|| "/var/lib/tandem/arbiter".into()),
    }
}

/// What leaves the machine is encrypted.
fn check_encryption(source: &Source, config: &Config) {
    let told = "set [tls] ca, cert and key, since this is not on loopback";
    // iSCSI has no TLS: CHAP says who comes, and a network of its own keeps others from listening.
    let Listen { rest, peers, nbd, iscsi: _ } = &config.listen;
    let ours = [("listen.rest", rest), ("listen.peers", peers), ("listen.nbd", nbd)];
    let server = [("arbiter_server.listen", &config.arbiter_server.listen)];
    for (key, address) in ours.into_iter().chain(server) {
        if config.tls.is_none() && !address.ip().is_loopback() {
            source.problem(key, &format!("{address}: {told}"));
        }
    }
    let nodes = config.nodes.iter().map(|(name, other)| (format!("nodes.{name}.rest"), &other.rest));
    let arbiter = config.arbiter.iter().flat_map(|arbiter| match &arbiter.at {
        ArbiterAt::Embedded { url, .. } => vec![("arbiter.url".to_owned(), url)],
        ArbiterAt::Etcd { endpoints, .. } => endpoints.iter().map(|it| ("arbiter.etcd".to_owned(), it)).collect(),
    });
    for (key, address) in nodes.chain(arbiter) {
        let is_plain = address.starts_with("http://");
        if is_plain && !is_on_loopback(address) {
            source.problem(&key, &format!("{address:?} is not allowed; https is, since this is not on loopback"));
        }
        if !is_plain && config.tls.is_none() {
            source.problem(&key, &format!("{address:?} needs a certificate of this node: set [tls] ca, cert and key"));
        }
    }
    for (name, other) in &config.nodes {
        if config.tls.is_none() && !other.peers.ip().is_loopback() {
            source.problem(&format!("nodes.{name}.peers"), &format!("{}: {told}", other.peers));
        }
    }
}

fn is_on_loopback(address: &str) -> bool {
    let host = Url::parse(address).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// A node has pools and an arbiter; a machine for the arbiter alone has neither.
fn check_whole(source: &Source, config: &Config) {
    let has_pools = !config.pools.is_empty();
    if has_pools && config.arbiter.is_none() {
        source.problem("arbiter.url", "is missing; it says where the arbiter is (or arbiter.etcd does)");
    }
    if config.arbiter.is_some() && !has_pools {
        source.problem("pools", "there is none; [pools.default] with a path is where volumes are kept");
    }
    let paths: Vec<_> = config.pools.values().collect();
    for (name, path) in &config.pools {
        if paths.iter().filter(|other| **other == path).count() > 1 {
            source.problem(&format!("pools.{name}.path"), &format!("{} is another pool's, too", path.display()));
        }
    }
    if config.replication.lease < Duration::from_secs(1) {
        let lease = config.replication.lease.as_secs_f64();
        let why = "a pause of the process or of the network as long as this takes the role away";
        source.warning("replication.lease_s", &format!("{lease}: {why}"));
    }
}
