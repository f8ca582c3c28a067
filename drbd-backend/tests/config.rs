//! Promises of the configuration: what is wrong is told with file, key, value and what is allowed; the sample has every key.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use replication::{Node, Settings, VolumeId};
use tandem_node::config::{ArbiterAt, Config, KEYS, Loaded};
use tempfile::TempDir;

const SAMPLE: &str = include_str!("../../etc/tandem-node.toml");

const WHOLE: &str = "[node]\nname = 'cmp1'\n[pools.default]\npath = 'pool'\n[arbiter]\nurl = 'http://127.0.0.1:1'\n";

fn load_with(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = TempDir::new().expect("a temporary directory");
    let file = folder.path().join("tandem-node.toml");
    fs::write(&file, text).expect("it can be written");
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&file, variables).map_err(|error| error.to_string())
}

fn good(text: &str) -> Config {
    load_with(text, &[]).unwrap_or_else(|error| panic!("{text}\n{error}")).config
}

fn wrong(text: &str) -> String {
    load_with(text, &[]).expect_err(text)
}

fn uncommented() -> String {
    let use_it = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    };
    SAMPLE.lines().map(use_it).collect::<Vec<_>>().join("\n")
}

/// etcd stands in the sample beside the arbiter that is built in.
fn in_use() -> String {
    uncommented().lines().filter(|line| !line.starts_with("etcd = ")).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_can_be_used_as_it_is_and_with_every_line() {
    assert!(good(SAMPLE).is_for_the_arbiter());
    let config = good(&in_use());
    assert_eq!(config.name.as_str(), "cmp1");
    assert_eq!(config.pools["default"], Path::new("/var/lib/tandem/pools/default"));
    assert_eq!(config.nodes.len(), 1);
    assert!(matches!(config.arbiter.expect("it is there").at, ArbiterAt::Embedded { .. }));
    let etcd = uncommented().lines().filter(|line| !line.starts_with("url = ")).collect::<Vec<_>>().join("\n");
    assert!(
        matches!(good(&etcd).arbiter.expect("it is there").at, ArbiterAt::Etcd { endpoints, .. } if endpoints.len() == 3)
    );
}

#[test]
fn the_sample_states_the_defaults() {
    let (mut given, default) = (good(&in_use()), good(WHOLE));
    assert!(given.listen.iscsi.take().is_some(), "an example: by default there is no iSCSI");
    assert_eq!(format!("{:?}", given.listen), format!("{:?}", default.listen));
    assert_eq!(format!("{:?}", given.replication), format!("{:?}", default.replication));
    assert_eq!(format!("{:?}", given.arbiter_server), format!("{:?}", default.arbiter_server));
    assert_eq!((given.engine, given.control_socket), (default.engine, default.control_socket));
    assert_eq!(given.boot_id_file, default.boot_id_file);
    assert_eq!(given.arbiter.map(|it| it.timeout), default.arbiter.map(|it| it.timeout));
}

#[test]
fn the_sample_has_every_key_that_is_known() {
    let text = uncommented();
    let mut found = 0;
    for (table, keys) in KEYS.iter().filter(|(table, _)| !table.is_empty()) {
        let header = table.replace("NAME", "");
        let header = header.trim_end_matches('.');
        let begin = text.find(&format!("\n[{header}")).unwrap_or_else(|| panic!("no [{table}]"));
        let section = &text[begin + 2..];
        let section = &section[..section.find("\n[").unwrap_or(section.len())];
        for key in *keys {
            assert!(section.contains(&format!("\n{key} = ")), "{key} of [{table}] is not in etc/tandem-node.toml");
            found += 1;
        }
    }
    assert!(found > 20, "only {found} keys were looked for");
}

#[test]
fn the_defaults_of_a_volume_are_those_of_the_core() {
    let core = Settings::of(VolumeId(1), Node::new(0).expect("a place"));
    let mut ours = core.clone();
    good(WHOLE).replication.apply(&mut ours);
    assert_eq!(ours, core);
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let told = wrong(
        "[node]\nname = '-x'\n[listen]\nrest = 'here'\n[replication]\nlease_s = 0.1\ndurable = 'yes'\n[pools.'a b']\npath = 'p'\n",
    );
    for part in
        ["node.name: \"-x\"", "listen.rest: \"here\"", "lease_s: 0.1", "from 0.5 to 60", "did you mean durability?"]
    {
        assert!(told.contains(part), "{part} is not in\n{told}");
    }
}

#[test]
fn what_leaves_the_machine_is_encrypted() {
    let told = wrong(
        "[node]\nname = 'a'\n[listen]\nrest = '192.0.2.1:1'\npeers = '192.0.2.1:2'\nnbd = '0.0.0.0:3'\n[pools.default]\npath = 'p'\n\
         [arbiter]\nurl = 'http://192.0.2.9:1'\n[nodes.b]\npeers = '192.0.2.2:1'\nrest = 'http://192.0.2.2:2'\n",
    );
    for key in ["listen.rest", "listen.peers", "listen.nbd", "arbiter.url", "nodes.b.peers", "nodes.b.rest"] {
        assert!(told.contains(&format!("{key}: ")), "{key} is not in\n{told}");
    }
}

#[test]
fn a_node_has_pools_and_one_arbiter() {
    assert!(wrong("[pools.default]\npath = 'p'").contains("arbiter.url: is missing"));
    assert!(wrong("[arbiter]\nurl = 'http://127.0.0.1:1'").contains("[pools.default]"));
    let both = format!("{WHOLE}etcd = ['http://127.0.0.1:2']");
    assert!(wrong(&both).contains("one of both"));
    assert!(wrong(&format!("{WHOLE}[pools.more]\npath = 'pool'")).contains("another pool's"));
    assert!(wrong("[arbiter]\nurl = 'https://127.0.0.1:1'").contains("arbiter.name: is missing"));
}

#[test]
fn the_entry_of_the_node_itself_is_ignored() {
    let text = format!("{WHOLE}[nodes.cmp1]\npeers = '127.0.0.1:5'\nrest = 'http://127.0.0.1:6'\n");
    assert!(good(&text).nodes.is_empty());
}

#[test]
fn a_variable_overrides_the_file() {
    let loaded = load_with(WHOLE, &[("TANDEM_NODE__REPLICATION__LEASE_S", "0.7")]).expect("it can be used");
    assert_eq!(loaded.config.replication.lease, Duration::from_secs_f64(0.7));
    assert!(loaded.warnings[0].contains("TANDEM_NODE__REPLICATION__LEASE_S: 0.7"), "{:?}", loaded.warnings);
    let told = load_with(WHOLE, &[("TANDEM_NODE__REPLICATION__DURABILITY", "never")]).expect_err("it is wrong");
    assert!(told.starts_with("TANDEM_NODE__REPLICATION__DURABILITY: \"never\""), "{told}");
}

fn tandem_node(text: &str, arguments: &[&str]) -> Output {
    let folder = TempDir::new().expect("a temporary directory");
    let file = folder.path().join("tandem-node.toml");
    fs::write(&file, text).expect("it can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-node"));
    command.arg("--config").arg(&file).args(arguments).output().expect("it runs")
}

#[test]
fn check_config_says_who_can_use_the_file() {
    let good = tandem_node(WHOLE, &["check-config"]);
    assert!(
        good.status.success() && String::from_utf8_lossy(&good.stdout).contains("can be used by `tandem-node` as cmp1")
    );
    let bad = tandem_node("[listen]\nrest = 1", &["check-config"]);
    assert_eq!(bad.status.code(), Some(2));
    let missing = "[tls]\nca = 'ca.crt'\ncert = 'c.crt'\nkey = 'c.key'\n";
    let missing = tandem_node(missing, &["check-config"]);
    assert_eq!(missing.status.code(), Some(2), "{missing:?}");
    assert!(String::from_utf8_lossy(&missing.stderr).contains("ca.crt"), "{missing:?}");
}

#[test]
fn the_file_of_an_arbiter_does_not_make_a_node() {
    let refused = tandem_node("[arbiter_server]\ndirectory = 'a'", &[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("tandem-node arbiter"), "{refused:?}");
}
