//! Reads each section, and holds the values against each other.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use configuration::{ConfigError, Given, Secret, Source, Table, meaning, one_of};
use reqwest::Url;

use super::{
    Api, Authority, Config, Detection, Evacuation, Fencing, Gates, Heartbeat, Host, Instances, KEYS, Loaded,
    MOST_NAME_BYTES, Method, Network, Openstack, PROBE_EVERY, Pattern, Probe, Redfish, RootDisk, Segment, Store,
    is_name, warnings,
};

const KNOWN: configuration::Known =
    configuration::Known { prefix: "TANDEM_HA", keys: KEYS, file_only: &["hosts", "segments", "heartbeat.networks"] };

const DAY_S: f64 = 86_400.0;
/// What a heartbeat is signed with is as long as what signs it.
const LEAST_KEY_BYTES: usize = 32;
/// Fewer different bytes are no random key, but an empty disk or a placeholder.
const LEAST_DIFFERENT_KEY_BYTES: usize = 8;
const ALLOWED_NAME: &str = "a name of letters, digits, '.', '-' and '_', at most 255 of them";
const ALLOWED_ADDRESS: &str = "an IP address and a port, such as \"198.18.1.2:15869\" or \"[2001:db8::2]:15869\"";

pub(super) fn load(path: &Path, env: impl Iterator<Item = (String, String)>) -> Result<Loaded, ConfigError> {
    let mut loaded = configuration::load(path, env, KNOWN, config)?;
    loaded.warnings.extend(warnings::of(&loaded.config));
    Ok(loaded)
}

fn config(source: &Source, mut all: Table<'_>) -> Config {
    let control_socket = all.path("control_socket").unwrap_or_else(|| "/run/tandem/ha.sock".into());
    let config = Config {
        file: source.file.clone(),
        control_socket,
        api: api(all.table("api")),
        store: Store { path: all.table("store").path("path").unwrap_or_else(|| "/var/lib/tandem/ha.sqlite".into()) },
        openstack: openstack(all.table("openstack")),
        detection: detection(all.table("detection")),
        gates: gates(all.table("gates")),
        heartbeat: heartbeat(all.table("heartbeat")),
        fencing: fencing(all.table("fencing")),
        evacuation: evacuation(all.table("evacuation")),
        hosts: all
            .named("hosts", "hosts.NAME")
            .into_iter()
            .map(|(name, table)| (name.clone(), host(&name, table)))
            .collect(),
        segments: all
            .named("segments", "segments.NAME")
            .into_iter()
            .map(|(name, table)| (name, segment(table)))
            .collect(),
    };
    check_times(source, &config);
    check_networks(source, &config);
    check_hosts(source, &config);
    config
}

fn api(mut table: Table<'_>) -> Api {
    let listen = table.parsed("listen", ALLOWED_ADDRESS);
    Api { listen: listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 15868))) }
}

fn openstack(mut table: Table<'_>) -> Openstack {
    Openstack {
        cloud: table.text("cloud", "the name of a cloud in clouds.yaml"),
        poll: table.seconds("poll_s", 2.0, 0.2..=60.0),
    }
}

fn detection(mut table: Table<'_>) -> Detection {
    Detection {
        suspect: table.seconds("suspect_s", 2.0, 0.5..=600.0),
        silence: table.seconds("silence_s", 12.0, 1.0..=3600.0),
        nova_alone: table.yes("nova_alone", false),
    }
}

fn gates(mut table: Table<'_>) -> Gates {
    Gates {
        mass_failure_percent: table.whole("mass_failure_percent", 50, 1..=100),
        mass_failure_window: table.seconds("mass_failure_window_s", 600.0, 1.0..=DAY_S),
        quiet: table.seconds("quiet_s", 600.0, 0.0..=DAY_S),
        flap_limit: table.whole("flap_limit", 3, 1..=1000),
        flap_window: table.seconds("flap_window_s", DAY_S, 1.0..=30.0 * DAY_S),
    }
}

fn heartbeat(mut table: Table<'_>) -> Heartbeat {
    let networks: Vec<Network> =
        table.tables("networks", "heartbeat.networks").into_iter().filter_map(network).collect();
    let used = networks.iter().any(|network| network.listen.is_some() || network.to.is_some());
    let key_file = table.path("key_file").unwrap_or_else(|| "/etc/tandem/heartbeat.key".into());
    let name = |given: &Given| given.text().filter(|text| is_name(text)).map(str::to_owned);
    Heartbeat {
        key: if used { key(&table, &key_file) } else { None },
        interval: table.seconds("interval_s", 1.0, 0.1..=60.0),
        host: table.get("host", ALLOWED_NAME, name),
        networks,
        boot_id_file: table.path("boot_id_file").unwrap_or_else(|| "/proc/sys/kernel/random/boot_id".into()),
        system_uuid_file: table.path("system_uuid_file").unwrap_or_else(|| "/sys/class/dmi/id/product_uuid".into()),
    }
}

fn network(mut table: Table<'_>) -> Option<Network> {
    table.require("name", "what hosts and probes call this network");
    let name = table.get("name", ALLOWED_NAME, |given| given.text().filter(|text| is_name(text)).map(str::to_owned));
    let target = |given: &Given| given.text()?.parse().ok().filter(|to: &SocketAddr| to.port() != 0);
    let (listen, to) = (table.parsed("listen", ALLOWED_ADDRESS), table.get("to", ALLOWED_ADDRESS, target));
    let source: Option<IpAddr> = table.parsed("source", "an IP address of this machine");
    if let (Some(to), Some(source)) = (to, source)
        && to.is_ipv4() != source.is_ipv4()
    {
        let told = format!(
            "{source} and the address that it sends to, {to}, are of two kinds; allowed are two of IPv4 or of IPv6"
        );
        table.problem("source", &told);
    }
    Some(Network { name: name?, listen, to, source })
}

/// The bytes of the file as they are: it is copied from machine to machine, and a shorter copy must not pass for it.
fn key(table: &Table<'_>, file: &Path) -> Option<Secret<Vec<u8>>> {
    let bytes = read_secret(table, "key_file", file)?;
    let different = bytes.iter().collect::<std::collections::BTreeSet<_>>().len();
    let make = format!("make one with `head -c 64 /dev/urandom > {}`", file.display());
    if bytes.len() < LEAST_KEY_BYTES {
        let is = bytes.len();
        table.problem(
            "key_file",
            &format!("{} holds {is} bytes; at least {LEAST_KEY_BYTES} are allowed: {make}", file.display()),
        );
    } else if different < LEAST_DIFFERENT_KEY_BYTES {
        table.problem(
            "key_file",
            &format!("{} holds the same few bytes again and again, which is no key: {make}", file.display()),
        );
    }
    Some(Secret::new(bytes))
}

/// The contents of a file that only its readers should know.
fn read_secret(table: &Table<'_>, key: &str, file: &Path) -> Option<Vec<u8>> {
    let bytes =
        std::fs::read(file).map_err(|e| table.problem(key, &format!("{} cannot be read: {e}", file.display()))).ok()?;
    let mode = std::fs::metadata(file).map(|metadata| metadata.permissions().mode() & 0o777).unwrap_or(0);
    if mode & 0o026 != 0 {
        let open = format!(
            "{} has mode {mode:03o}, so others than its owner may read or change it; chmod 600, or 640 with the group that reads it",
            file.display()
        );
        table.source.warning(&table.key(key), &open);
    }
    Some(bytes)
}

fn fencing(mut table: Table<'_>) -> Fencing {
    const METHODS: &[(&str, Method)] = &[("redfish", Method::Redfish), ("manual", Method::Manual)];
    let methods = table.list("methods", &format!("a list of {}", one_of(METHODS)), |word| meaning(word, METHODS));
    let methods = methods.unwrap_or_else(|| vec![Method::Redfish, Method::Manual]);
    if methods.iter().enumerate().any(|(i, method)| methods[..i].contains(method)) {
        table.problem("methods", "a method stands in it twice; once is allowed");
    }
    Fencing {
        methods,
        attempts: table.whole("attempts", 3, 1..=100),
        retry: table.seconds("retry_s", 10.0, 0.1..=3600.0),
        // An act that might still run when its lease ends is never begun, and the lease is 30 s from the decision.
        limit: table.seconds("limit_s", 10.0, 0.5..=20.0),
    }
}

fn evacuation(mut table: Table<'_>) -> Evacuation {
    let mut count = |key, default| usize::try_from(table.whole(key, default, 1..=1000)).expect("at most 1000");
    let (in_flight, per_destination, per_source) =
        (count("in_flight", 32), count("per_destination", 5), count("per_source", 10));
    let instances = table.word("instances", &[("all", Instances::All), ("opted-in", Instances::OptedIn)]);
    Evacuation {
        in_flight,
        per_destination,
        per_source,
        attempts: table.whole("attempts", 3, 1..=100),
        // not below the time that Nova itself may take to answer: it accepts a second evacuation while the first one runs
        unknown: table.seconds("unknown_s", 180.0, 120.0..=3600.0),
        instances: instances.unwrap_or(Instances::All),
        metadata_key: table.text("metadata_key", "a key of server metadata").unwrap_or_else(|| "HA_Enabled".to_owned()),
    }
}

fn host(name: &str, mut table: Table<'_>) -> Host {
    if !is_name(name) {
        table.source.problem(&table.at, &format!("{name:?} is no host's name; allowed is {ALLOWED_NAME}"));
    }
    let probes = table.tables("probes", "hosts.NAME.probes").into_iter().filter_map(probe).collect();
    let at = table.key("redfish");
    let redfish = table.take("redfish").map(|value| Table::open(table.source, at, "hosts.NAME.redfish", Some(value)));
    Host { probes, redfish: redfish.and_then(redfish_of) }
}

fn probe(mut table: Table<'_>) -> Option<Probe> {
    table.require("network", "the network that the address is in");
    table.require("address", ALLOWED_ADDRESS);
    let network =
        table.get("network", ALLOWED_NAME, |given| given.text().filter(|text| is_name(text)).map(str::to_owned));
    let address = table.get("address", ALLOWED_ADDRESS, |given| {
        given.text()?.parse().ok().filter(|address: &SocketAddr| address.port() != 0 && !address.ip().is_unspecified())
    });
    Some(Probe { network: network?, address: address? })
}

fn redfish_of(mut table: Table<'_>) -> Option<Redfish> {
    let allowed_address = "http:// or https:// with a host, and a port if it is not the usual one";
    table.require("address", allowed_address);
    table.require("user", "the BMC's user");
    table.require("password_file", "a file that holds the user's password");
    let address = bmc_address(&mut table, allowed_address);
    let user = table.text("user", "the BMC's user");
    let password_file = table.path("password_file");
    let password = password_file.as_ref().and_then(|file| password(&table, file));
    let allowed_system = "a path beginning with /redfish/, an id of a system, or a UUID";
    let system =
        table.get("system", allowed_system, |given| given.text().filter(|text| is_system(text)).map(str::to_owned));
    let authority = table.path("ca_file").and_then(|file| authority(&table, file));
    let verify = table.yes("verify", true);
    Some(Redfish {
        address: address?,
        user: user?,
        password: password?,
        password_file: password_file?,
        system,
        authority,
        verify,
    })
}

fn bmc_address(table: &mut Table<'_>, allowed: &str) -> Option<Url> {
    let text = table.text("address", allowed)?;
    let fits = |url: &Url| {
        matches!(url.scheme(), "http" | "https")
            && url.has_host()
            && matches!(url.path(), "" | "/" | "/redfish/v1" | "/redfish/v1/")
            && url.query().is_none()
            && url.fragment().is_none()
    };
    let url = text.parse::<Url>().ok();
    if url.as_ref().is_some_and(|url| !url.username().is_empty() || url.password().is_some()) {
        table.problem("address", "holds a user or password; they belong into user and password_file");
        return None;
    }
    let Some(mut url) = url.filter(fits) else {
        table.problem("address", &format!("{text:?} is not allowed; allowed is {allowed}"));
        return None;
    };
    url.set_path("/");
    Some(url)
}

fn is_system(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '%' | '\\');
    let whole_path = text.starts_with("/redfish/") && !text.contains("//") && !text.contains("/.");
    !text.is_empty() && text.chars().all(fits) && (whole_path || !text.contains('/') && !text.starts_with('.'))
}

fn password(table: &Table<'_>, file: &Path) -> Option<Secret<String>> {
    let bytes = read_secret(table, "password_file", file)?;
    let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
    match text {
        Some(text) if !text.is_empty() && !text.contains(['\r', '\n']) => Some(Secret::new(text)),
        _ => {
            table.problem(
                "password_file",
                &format!("{} must hold the password, and nothing but it, on its only line", file.display()),
            );
            None
        }
    }
}

fn authority(table: &Table<'_>, file: PathBuf) -> Option<Authority> {
    let pem = std::fs::read(&file)
        .map_err(|e| table.problem("ca_file", &format!("{} cannot be read: {e}", file.display())))
        .ok()?;
    let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_or(0, |found| found.len());
    if certificates == 0 {
        table.problem("ca_file", &format!("{} holds no certificates in PEM form", file.display()));
    }
    Some(Authority { file, pem })
}

fn segment(mut table: Table<'_>) -> Segment {
    table.require("hosts", "a list of names of hosts, with * for any characters and ? for one");
    let allowed = "a list of names of hosts as in Nova, with * for any characters and ? for one";
    let hosts = table.list("hosts", allowed, Pattern::new).unwrap_or_default();
    let root_disk = table.word("root_disk", &[("local", RootDisk::Local), ("shared", RootDisk::Shared)]);
    Segment { hosts, root_disk: root_disk.unwrap_or(RootDisk::Local), enabled: table.yes("enabled", true) }
}

// ---- values against each other ----

fn check_times(source: &Source, config: &Config) {
    let (interval, suspect, silence) = (config.heartbeat.interval, config.detection.suspect, config.detection.silence);
    if suspect <= interval && !config.heartbeat.networks.is_empty() {
        let (is, over) = (suspect.as_secs_f64(), interval.as_secs_f64());
        let allowed = format!("allowed is more than heartbeat.interval_s, which is {over}");
        let why = "every pause between two heartbeats would look like silence";
        source.problem("detection.suspect_s", &format!("{is} is not allowed; {allowed}: {why}"));
    }
    if suspect <= PROBE_EVERY && config.hosts.values().any(|host| !host.probes.is_empty()) {
        let (is, over) = (suspect.as_secs_f64(), PROBE_EVERY.as_secs_f64());
        let why = "every pause between two probes would look like silence";
        source.problem(
            "detection.suspect_s",
            &format!(
                "{is} is not allowed; allowed is more than {over}, since each port is probed every {over} s: {why}"
            ),
        );
    }
    if silence <= suspect {
        let (is, over) = (silence.as_secs_f64(), suspect.as_secs_f64());
        source.problem(
            "detection.silence_s",
            &format!("{is} is not allowed; allowed is more than detection.suspect_s, which is {over}"),
        );
    }
}

fn check_networks(source: &Source, config: &Config) {
    let networks = &config.heartbeat.networks;
    for (i, network) in networks.iter().enumerate() {
        let at = |key: &str| format!("heartbeat.networks[{i}].{key}");
        for earlier in &networks[..i] {
            if earlier.name == network.name {
                source.problem(
                    &at("name"),
                    &format!("{:?} stands there twice; each network once is allowed", network.name),
                );
            }
            if network.listen.is_some_and(|listen| listen.port() != 0) && earlier.listen == network.listen {
                source.problem(
                    &at("listen"),
                    &format!("the network {:?} listens there, too; each needs an address of its own", earlier.name),
                );
            }
            if network.to.is_some() && earlier.to == network.to {
                source.problem(
                    &at("to"),
                    &format!("the network {:?} sends there, too: that is one way with two names", earlier.name),
                );
            }
        }
    }
}

fn check_hosts(source: &Source, config: &Config) {
    let networks: Vec<&str> = config.heartbeat.networks.iter().map(|network| network.name.as_str()).collect();
    let mut addresses: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for (name, host) in &config.hosts {
        check_probes(source, name, host, &networks);
        for (i, probe) in host.probes.iter().enumerate() {
            if let Some(other) = addresses.insert(probe.address, name) {
                let told = format!("{} is probed for {other}, too; each address once is allowed", probe.address);
                source.problem(&format!("hosts.{name}.probes[{i}].address"), &told);
            }
        }
        check_board(source, config, name, host);
        check_segments(source, config, name);
    }
}

/// One BMC for two hosts would switch off the one for the other. Without `system` it has one system only.
fn check_board(source: &Source, config: &Config, name: &str, host: &Host) {
    let Some(board) = &host.redfish else { return };
    let same = |other: &Redfish| {
        let one_system = other.system.is_none() || board.system.is_none() || other.system == board.system;
        other.address == board.address && one_system
    };
    let earlier = config.hosts.iter().take_while(|(other, _)| other.as_str() != name);
    for (other, _) in earlier.filter(|(_, other)| other.redfish.as_ref().is_some_and(same)) {
        let told = format!(
            "{} is also the BMC of {other}; allowed are two systems of one BMC, each named with `system`",
            board.address
        );
        source.problem(&format!("hosts.{name}.redfish.address"), &told);
    }
}

/// A misspelt network, or one address on two networks, would pass for a second independent way.
fn check_probes(source: &Source, name: &str, host: &Host, networks: &[&str]) {
    for (i, probe) in host.probes.iter().enumerate() {
        let at = |key: &str| format!("hosts.{name}.probes[{i}].{key}");
        if !networks.is_empty() && !networks.contains(&probe.network.as_str()) {
            let allowed = format!("allowed is one of [[heartbeat.networks]] ({})", networks.join(", "));
            let how = "one that is only probed stands there with its name alone";
            source.problem(&at("network"), &format!("{:?} is not allowed; {allowed}; {how}", probe.network));
        }
        let same = |other: &&Probe| other.address.ip() == probe.address.ip() && other.network != probe.network;
        if let Some(other) = host.probes[..i].iter().find(same) {
            source.problem(
                &at("network"),
                &format!(
                    "{} is in the network {:?}, says the probe before; one address is one way",
                    probe.address.ip(),
                    other.network
                ),
            );
        }
    }
}

fn check_segments(source: &Source, config: &Config, name: &str) {
    let segments: Vec<&str> = config.segments_of(name).map(|(segment, _)| segment).collect();
    if segments.len() > 1 {
        source.problem(
            &format!("hosts.{name}"),
            &format!("the segments {} cover it; one is allowed", segments.join(" and ")),
        );
    }
}

const _: () = assert!(MOST_NAME_BYTES == 255, "ALLOWED_NAME says so");
