//! Promises of the configuration: what is wrong is told with file, key, value and what is allowed, and what is dangerous is told, too.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tandem_ha::config::{Config, Instances, KEYS, Loaded, Method, Pattern, RootDisk};
use tempfile::TempDir;

const SAMPLE: &str = include_str!("../../etc/tandem-ha.toml");

/// A directory as /etc/tandem, with the files that a configuration names.
struct Etc(TempDir);

impl Etc {
    fn new() -> Self {
        let etc = Self(TempDir::new().expect("a temporary directory"));
        let random: Vec<u8> = (0..64).map(|i: u8| i.wrapping_mul(37)).collect();
        etc.write("heartbeat.key", &random);
        etc.write("bmc.password", b"open sesame\n");
        let authority = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).expect("a certificate");
        etc.write("bmc-ca.pem", authority.cert.pem().as_bytes());
        etc
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).expect("a file can be written");
        self.mode(name, 0o600);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect("a mode can be set");
    }

    fn load(&self, toml: &str) -> Result<Loaded, String> {
        self.load_with(toml, &[])
    }

    fn load_with(&self, toml: &str, variables: &[(&str, &str)]) -> Result<Loaded, String> {
        self.write("tandem-ha.toml", toml.as_bytes());
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(&self.path("tandem-ha.toml"), variables).map_err(|e| e.to_string())
    }

    fn good(&self, toml: &str) -> Loaded {
        self.load(toml).unwrap_or_else(|e| panic!("{toml}\n{e}"))
    }

    /// What is said about a configuration that cannot be used.
    fn wrong(&self, toml: &str) -> String {
        self.wrong_with(toml, &[])
    }

    fn wrong_with(&self, toml: &str, variables: &[(&str, &str)]) -> String {
        match self.load_with(toml, variables) {
            Ok(_) => panic!("was accepted: {toml} {variables:?}"),
            Err(told) => told.replace(&format!("{}/", self.0.path().display()), ""),
        }
    }
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = Etc::new().good("").config;
    assert_eq!(config.control_socket, Path::new("/run/tandem/ha.sock"));
    assert_eq!(config.api.listen.to_string(), "127.0.0.1:15868");
    assert_eq!(config.detection.silence, Duration::from_secs(12));
    assert_eq!(config.fencing.methods, [Method::Redfish, Method::Manual]);
    assert_eq!(config.evacuation.instances, Instances::All);
    assert!(!config.detection.nova_alone && config.heartbeat.key.is_none() && config.hosts.is_empty());
}

#[test]
fn the_sample_loads_as_it_is_and_with_every_key_in_use() {
    let etc = Etc::new();
    let as_it_is = etc.good(SAMPLE).config;
    let in_use = etc.good(&uncommented(&etc)).config;
    for config in [&as_it_is, &in_use] {
        assert_eq!(format!("{:?}", config.gates), format!("{:?}", etc.good("").config.gates));
        assert_eq!(format!("{:?}", config.evacuation), format!("{:?}", etc.good("").config.evacuation));
        assert_eq!(format!("{:?}", config.fencing), format!("{:?}", etc.good("").config.fencing));
        assert_eq!(format!("{:?}", config.detection), format!("{:?}", etc.good("").config.detection));
    }
    assert_eq!(in_use.heartbeat.networks.len(), 2);
    assert_eq!(in_use.hosts["cmp1"].probes.len(), 2);
    let redfish = in_use.hosts["cmp1"].redfish.as_ref().expect("the sample has a BMC");
    assert_eq!(redfish.password.reveal(), "open sesame");
    assert_eq!(in_use.segment_of("cmp1").expect("covered").1.root_disk, RootDisk::Local);
}

#[test]
fn the_sample_has_every_key_that_is_known_with_a_sentence() {
    let text = uncommented(&Etc::new());
    let sample = config::Config::builder().add_source(config::File::from_str(&text, config::FileFormat::Toml));
    let sample = sample.build().expect("the sample is TOML").cache;
    for (table, keys) in KEYS {
        let tables = tables(&sample, table);
        for key in *keys {
            assert!(
                tables.iter().any(|table| table.contains_key(*key)),
                "{key} of [{table}] is not in etc/tandem-ha.toml"
            );
        }
    }
    let lines: Vec<&str> = SAMPLE.lines().collect();
    for key in
        lines.iter().enumerate().filter(|(_, line)| line.starts_with('#') && line.contains(" = ")).map(|(i, _)| i)
    {
        let paragraph = lines[..key].iter().rev().take_while(|line| !line.is_empty());
        let sentences = paragraph.filter(|line| line.starts_with("# ")).count();
        assert!(sentences > 0 || lines[key].starts_with("# "), "no sentence above {}", lines[key]);
    }
}

#[test]
fn the_sample_states_the_ranges_of_numbers_as_they_are() {
    let etc = Etc::new();
    let lines: Vec<&str> = SAMPLE.lines().collect();
    let (mut section, mut found) = ("", 0);
    for (i, line) in lines.iter().enumerate() {
        if let Some(name) = line.trim_start_matches('#').strip_prefix('[') {
            section = name.trim_end_matches(']');
        }
        let key = line.strip_prefix('#').and_then(|line| line.split_once(" = "));
        let Some((key, _)) = key.filter(|(key, value)| !key.contains(' ') && value.parse::<f64>().is_ok()) else {
            continue;
        };
        let told = etc.wrong(&format!("[{section}]\n{key} = 1000000000"));
        let range = told.split_once(" from ").unwrap_or_else(|| panic!("{key} of [{section}]: {told}")).1;
        let range = range.lines().next().expect("a sentence");
        // a comment that begins with "..." goes on with the sentence of the key before
        let goes_on = |line: &str| !line.starts_with("# ") || line.starts_with("# ...");
        let begin = lines[..i].iter().rposition(|line| !goes_on(line)).expect("a sentence above it");
        let begin = lines[..begin].iter().rposition(|line| !line.starts_with("# ")).map_or(0, |before| before + 1);
        let sentence = lines[begin..i].join("\n");
        assert!(sentence.contains(range), "{key} of [{section}] is allowed from {range}; the sample says\n{sentence}");
        found += 1;
    }
    assert!(found > 15, "only {found} numbers were found");
}

/// The tables that stand under a name of [`KEYS`], where NAME is any name.
fn tables(sample: &config::Value, name: &str) -> Vec<config::Map<String, config::Value>> {
    let step = |found: Vec<config::Value>, part: &str| -> Vec<config::Value> {
        let tables = found.into_iter().filter_map(|value| value.into_table().ok());
        let of = |table: config::Map<String, config::Value>| -> Vec<config::Value> {
            table.into_iter().filter(|(key, _)| part == "NAME" || part == key).map(|(_, value)| value).collect()
        };
        let within = tables.flat_map(of);
        within.flat_map(|value| value.clone().into_array().unwrap_or_else(|_| vec![value])).collect()
    };
    let found = name.split('.').filter(|part| !part.is_empty()).fold(vec![sample.clone()], step);
    found.into_iter().filter_map(|value| value.into_table().ok()).collect()
}

fn uncommented(etc: &Etc) -> String {
    let use_it = |line: &'static str| match line.strip_prefix('#') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => rest,
        _ => line,
    };
    SAMPLE
        .lines()
        .map(use_it)
        .collect::<Vec<_>>()
        .join("\n")
        .replace("/etc/tandem", &etc.0.path().display().to_string())
}

#[test]
fn a_variable_overrides_the_file() {
    let etc = Etc::new();
    let variables = [
        ("TANDEM_HA__DETECTION__SILENCE_S", "20.5"),
        ("TANDEM_HA__DETECTION__NOVA_ALONE", "true"),
        ("TANDEM_HA__EVACUATION__IN_FLIGHT", "3"),
        ("TANDEM_HA__FENCING__METHODS", "manual"),
        ("TANDEM_HA__CONTROL_SOCKET", "/tmp/x"),
        ("TANDEM_HA__STORE__PATH", ""),
        ("TANDEM_HA_URL", "of somebody else"),
    ];
    let config = etc.load_with("[detection]\nsilence_s = 30", &variables).expect("usable").config;
    assert_eq!(config.detection.silence, Duration::from_millis(20_500));
    assert!(config.detection.nova_alone);
    assert_eq!(config.evacuation.in_flight, 3);
    assert_eq!(config.fencing.methods, [Method::Manual]);
    assert_eq!(config.control_socket, Path::new("/tmp/x"));
    assert_eq!(config.store.path, Path::new("/var/lib/tandem/ha.sqlite"));
}

#[test]
fn a_wrong_variable_is_named_as_such() {
    let etc = Etc::new();
    for (name, value, told) in [
        (
            "TANDEM_HA__DETECTION__SILENCE_S",
            "soon",
            "TANDEM_HA__DETECTION__SILENCE_S: \"soon\" is not allowed; allowed is a number of seconds from 1 to 3600",
        ),
        (
            "TANDEM_HA__DETECTION__SILENSE_S",
            "3",
            "TANDEM_HA__DETECTION__SILENSE_S: no such key; did you mean silence_s?",
        ),
        (
            "TANDEM_HA__HOSTS__CMP1__REDFISH__USER",
            "x",
            "TANDEM_HA__HOSTS__CMP1__REDFISH__USER: hosts can only stand in the file",
        ),
        (
            "TANDEM_HA__HEARTBEAT__NETWORKS[0]__NAME",
            "x",
            "TANDEM_HA__HEARTBEAT__NETWORKS[0]__NAME: heartbeat.networks can only stand in the file",
        ),
        ("TANDEM_HA__", "x", "TANDEM_HA__: no such key; a variable is called TANDEM_HA__SECTION__KEY"),
    ] {
        assert_eq!(etc.wrong_with("", &[(name, value)]), told);
    }
}

#[test]
fn a_wrong_value_is_told_with_file_key_value_and_what_is_allowed() {
    let etc = Etc::new();
    for (toml, told) in [
        ("[detection]\nsilense_s = 3", "detection.silense_s: no such key; did you mean silence_s?"),
        ("zebra = 1", "zebra: no such key; known here are api, control_socket, detection"),
        (
            "[detection]\nsilence_s = \"12s\"",
            "detection.silence_s: \"12s\" is not allowed; allowed is a number of seconds from 1 to 3600",
        ),
        (
            "[detection]\nsilence_s = 0.5",
            "detection.silence_s: 0.5 is not allowed; allowed is a number of seconds from 1 to 3600",
        ),
        ("[detection]\nsilence_s = nan", "detection.silence_s: NaN is not allowed"),
        (
            "[detection]\nsilence_s = 2",
            "detection.silence_s: 2 is not allowed; allowed is more than detection.suspect_s, which is 2",
        ),
        ("[detection]\nnova_alone = 1", "detection.nova_alone: 1 is not allowed; allowed is true or false"),
        ("detection = 3", "detection: 3 is not allowed; a table is"),
        (
            "[gates]\nmass_failure_percent = 101",
            "gates.mass_failure_percent: 101 is not allowed; allowed is a whole number from 1 to 100",
        ),
        ("[gates]\nflap_limit = -1", "gates.flap_limit: -1 is not allowed"),
        (
            "[api]\nlisten = \"localhost:1\"",
            "api.listen: \"localhost:1\" is not allowed; allowed is an IP address and a port",
        ),
        (
            "[evacuation]\ninstances = \"some\"",
            "evacuation.instances: \"some\" is not allowed; allowed is \"all\" or \"opted-in\"",
        ),
        (
            "[fencing]\nlimit_s = 25",
            "fencing.limit_s: 25 is not allowed; allowed is a number of seconds from 0.5 to 20",
        ),
        (
            "[evacuation]\nunknown_s = 60",
            "evacuation.unknown_s: 60 is not allowed; allowed is a number of seconds from 120 to 3600",
        ),
        (
            "[fencing]\nmethods = [\"ipmi\"]",
            "fencing.methods: [\"ipmi\"] is not allowed; allowed is a list of \"redfish\" or \"manual\"",
        ),
        ("[fencing]\nmethods = [\"manual\", \"manual\"]", "fencing.methods: a method stands in it twice"),
        (
            "[segments.a]\nhosts = [\"cmp[1-3]\"]",
            "segments.a.hosts: [\"cmp[1-3]\"] is not allowed; allowed is a list of names of hosts as in Nova",
        ),
        ("[segments.a]\nroot_disk = \"local\"", "segments.a.hosts: is missing"),
        ("[hosts.\"a b\"]", "hosts.a b: \"a b\" is no host's name"),
        (
            "[hosts.a]\nprobes = [{ network = \"x\", address = \"1.2.3.4\" }]",
            "hosts.a.probes[0].address: \"1.2.3.4\" is not allowed; allowed is an IP address and a port",
        ),
        ("[hosts.a]\nprobes = [{ address = \"1.2.3.4:1\" }]", "hosts.a.probes[0].network: is missing"),
        ("[hosts.a]\nprobes = 3", "hosts.a.probes: 3 is not allowed; a list of tables is"),
    ] {
        let found = etc.wrong(toml);
        assert!(found.starts_with(&format!("tandem-ha.toml: {told}")), "{toml}\n  {found}\n  {told}");
    }
}

#[test]
fn networks_and_ways_are_not_told_twice() {
    let etc = Etc::new();
    let two = |a: &str, b: &str| {
        format!("[heartbeat]\nkey_file = \"heartbeat.key\"\n[[heartbeat.networks]]\n{a}\n[[heartbeat.networks]]\n{b}\n")
    };
    let plain = two("name = \"m\"", "name = \"s\"");
    for (toml, told) in [
        (two("name = \"m\"", "name = \"m\""), "heartbeat.networks[1].name: \"m\" stands there twice"),
        (two("name = \"m\"\nlisten = \"127.0.0.1:1\"", "name = \"s\"\nlisten = \"127.0.0.1:1\""), "heartbeat.networks[1].listen: the network \"m\" listens there, too"),
        (two("name = \"m\"\nto = \"127.0.0.1:1\"", "name = \"s\"\nto = \"127.0.0.1:1\""), "heartbeat.networks[1].to: the network \"m\" sends there, too"),
        (two("name = \"m\"\nto = \"127.0.0.1:0\"", "name = \"s\""), "heartbeat.networks[0].to: \"127.0.0.1:0\" is not allowed"),
        (two("name = \"m\"\nto = \"127.0.0.1:1\"\nsource = \"::1\"", "name = \"s\""), "heartbeat.networks[0].source: ::1 and the address"),
        (format!("{plain}[hosts.a]\nprobes = [{{ network = \"n\", address = \"1.1.1.1:1\" }}]"), "hosts.a.probes[0].network: \"n\" is not allowed; allowed is one of [[heartbeat.networks]] (m, s)"),
        ("[hosts.a]\nprobes = [{ network = \"n\", address = \"1.1.1.1:1\" }, { network = \"m\", address = \"1.1.1.1:2\" }]".to_owned(), "hosts.a.probes[1].network: 1.1.1.1 is in the network \"n\""),
        ("[hosts.a]\nprobes = [{ network = \"n\", address = \"1.1.1.1:1\" }]\n[hosts.b]\nprobes = [{ network = \"n\", address = \"1.1.1.1:1\" }]".to_owned(), "hosts.b.probes[0].address: 1.1.1.1:1 is probed for a, too"),
        ("[hosts.a]\n[segments.x]\nhosts = [\"*\"]\n[segments.y]\nhosts = [\"a\"]".to_owned(), "hosts.a: the segments x and y cover it; one is allowed"),
        (two("name = \"m\"\nlisten = \"127.0.0.1:1\"", "name = \"s\"") + "[detection]\nsuspect_s = 1", "detection.suspect_s: 1 is not allowed; allowed is more than heartbeat.interval_s"),
    ] {
        let found = etc.wrong(&toml);
        assert!(found.starts_with(&format!("tandem-ha.toml: {told}")), "{toml}\n  {found}\n  {told}");
    }
}

#[test]
fn a_pause_between_two_probes_is_no_silence() {
    let etc = Etc::new();
    let with = |suspect: &str| {
        format!(
            "[detection]\nsuspect_s = {suspect}\n[hosts.a]\nprobes = [{{ network = \"m\", address = \"1.1.1.1:22\" }}]"
        )
    };
    for suspect in ["0.5", "1"] {
        let told = etc.wrong(&with(suspect));
        let expected = format!(
            "tandem-ha.toml: detection.suspect_s: {suspect} is not allowed; allowed is more than 1, since each port is probed every 1 s: every \
             pause between two probes would look like silence"
        );
        assert_eq!(told, expected);
    }
    etc.good(&with("1.5"));
    etc.good("[detection]\nsuspect_s = 0.5");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let told = Etc::new().wrong("zebra = 1\n[detection]\nsilence_s = 0\n[gates]\nquiet_s = \"no\"");
    assert_eq!(told.lines().count(), 3, "{told}");
}

#[test]
fn a_file_that_is_not_there_or_no_toml_is_named() {
    let etc = Etc::new();
    let missing = Config::load(&etc.path("nowhere.toml"), std::iter::empty()).expect_err("is not there").to_string();
    assert!(missing.contains("nowhere.toml cannot be read: No such file"), "{missing}");
    let told = etc.wrong("[detection\nsilence_s = 3");
    assert!(told.starts_with("tandem-ha.toml is no TOML: ") && told.contains("line 1"), "{told}");
}

#[test]
fn keys_and_passwords_are_checked_and_never_printed() {
    let etc = Etc::new();
    let key = |file: &str| {
        format!("[heartbeat]\nkey_file = \"{file}\"\n[[heartbeat.networks]]\nname = \"m\"\nlisten = \"127.0.0.1:1\"")
    };
    etc.write("short.key", b"0123456789");
    etc.write("zero.key", &[0; 64]);
    assert!(etc.wrong(&key("none.key")).contains("heartbeat.key_file: none.key cannot be read: No such file"));
    assert!(
        etc.wrong(&key("short.key")).contains("heartbeat.key_file: short.key holds 10 bytes; at least 32 are allowed")
    );
    assert!(etc.wrong(&key("zero.key")).contains("heartbeat.key_file: zero.key holds the same few bytes"));

    let bmc = |rest: &str| {
        format!(
            "[hosts.a.redfish]\naddress = \"https://1.1.1.1\"\nuser = \"u\"\npassword_file = \"bmc.password\"\n{rest}"
        )
    };
    let loaded = etc.good(&bmc(""));
    assert!(!format!("{loaded:?}").contains("sesame"), "a password is printed");
    assert!(format!("{loaded:?}").contains("***"));
    for (line, told) in [
        (
            "system = \"../x\"",
            "hosts.a.redfish.system: \"../x\" is not allowed; allowed is a path beginning with /redfish/",
        ),
        ("ca_file = \"heartbeat.key\"", "hosts.a.redfish.ca_file: heartbeat.key holds no certificates in PEM form"),
        ("ca_file = \"none\"", "hosts.a.redfish.ca_file: none cannot be read"),
        ("password = \"sesame\"", "hosts.a.redfish.password: no such key; did you mean password_file?"),
    ] {
        let found = etc.wrong(&bmc(line));
        assert!(found.contains(told) && !found.contains("sesame"), "{found}");
    }
    let address = |address: &str| etc.wrong(&bmc("").replace("https://1.1.1.1", address));
    assert!(address("ftp://x").contains("hosts.a.redfish.address: \"ftp://x\" is not allowed; allowed is http://"));
    assert!(address("http://1.1.1.1/?x").contains("is not allowed"));
    let told = address("http://u:sesame@1.1.1.1");
    assert!(told.contains("belong into user and password_file") && !told.contains("sesame"), "{told}");
    etc.write("bmc.password", b"");
    assert!(etc.wrong(&bmc("")).contains("bmc.password must hold the password"));
}

#[test]
fn one_bmc_is_not_the_bmc_of_two_hosts() {
    let etc = Etc::new();
    let bmc = |host: &str, system: &str| {
        format!(
            "[hosts.{host}.redfish]\naddress = \"https://1.1.1.1/\"\nuser = \"u\"\npassword_file = \"bmc.password\"\n{system}\n"
        )
    };
    let told = etc.wrong(&(bmc("a", "") + &bmc("b", "")));
    assert!(told.contains("hosts.b.redfish.address: https://1.1.1.1/ is also the BMC of a"), "{told}");
    assert!(etc.wrong(&(bmc("a", "system = \"1\"") + &bmc("b", ""))).contains("hosts.b.redfish.address"));
    etc.good(&(bmc("a", "system = \"1\"") + &bmc("b", "system = \"2\"")));
}

#[test]
fn what_is_dangerous_is_told() {
    let etc = Etc::new();
    let told = |toml: &str| etc.good(toml).warnings.join("\n");
    assert!(told("").contains("resume_guests_state_on_host_boot must be false"));
    assert!(told("").contains(
        "no [segments.NAME]: every root disk counts as local: image-backed instances there are named and left"
    ));
    assert!(
        told("[detection]\nnova_alone = true")
            .contains("detection.nova_alone = true: a host that only Nova believes down is taken for dead")
    );
    assert!(told("[detection]\nnova_alone = true").contains("The BMC of such a host is never bound to it"));
    let probed = told("[hosts.a]\nprobes = [{ network = \"m\", address = \"1.1.1.1:22\" }]");
    assert!(
        probed.contains("a: fewer than two independent networks are watched") && probed.contains("Nova must say down")
    );
    assert!(!probed.contains("nothing is probed"));
    assert!(told("[hosts.a]").contains("a: no fencing but an operator's word"));
    assert!(told("fencing.methods = [\"redfish\"]\n[hosts.a]").contains("a: no fencing at all"));
    assert!(
        told("[hosts.a]\n[segments.s]\nhosts = [\"b\"]\nroot_disk = \"shared\"").contains("a: no segment covers them")
    );
    assert!(told("[segments.s]\nhosts = [\"b*\"]").contains("segments.s (b*): root_disk = \"local\""));
    assert!(told("[api]\nlisten = \"0.0.0.0:1\"").contains("everybody who reaches this address may read"));
    let bmc = "[hosts.a.redfish]\naddress = \"http://1.1.1.1\"\nuser = \"u\"\npassword_file = \"bmc.password\"\n";
    assert!(told(bmc).contains("a: the BMC is asked over plain http"));
    assert!(!told(bmc).contains("no fencing but"));
    assert!(told(&format!("{bmc}[fencing]\nmethods = [\"manual\"]")).contains("a: no fencing but"));
    assert!(
        told(&bmc.replace("http:", "https:").replace("\nuser", "\nverify = false\nuser")).contains("a: verify = false")
    );
    etc.mode("bmc.password", 0o644);
    assert!(told(bmc).contains("bmc.password has mode 644, so others than its owner may read or change it"));
}

#[test]
fn a_host_that_nobody_would_ever_hear_is_told_that_its_bmc_proves_nothing() {
    let etc = Etc::new();
    let loaded = etc.good(
        "[hosts.a.redfish]\naddress = \"https://1.1.1.1\"\nuser = \"u\"\npassword_file = \"bmc.password\"\n[hosts.b]\n\
         probes = [{ network = \"m\", address = \"1.1.1.1:22\" }]",
    );
    let told: Vec<&String> = loaded.warnings.iter().filter(|told| told.starts_with("a: no heartbeats")).collect();
    assert_eq!(told.len(), 1, "{:#?}", loaded.warnings);
    assert!(told[0].contains("nothing ever moves by itself") && told[0].contains("Give it heartbeats or probes"));
    let of_the_bmc = |told: &&String| told.starts_with("a: ") && told.contains("its BMC Off");
    assert_eq!(loaded.warnings.iter().find(of_the_bmc), None, "only a host that is heard has a BMC that can say so");
}

#[test]
fn two_networks_a_bmc_and_shared_disks_leave_only_the_precondition_to_tell() {
    let etc = Etc::new();
    let loaded = etc.good(
        "[heartbeat]\nkey_file = \"heartbeat.key\"\n[[heartbeat.networks]]\nname = \"m\"\nlisten = \"127.0.0.1:1\"\n\
         [[heartbeat.networks]]\nname = \"s\"\n[hosts.\"CMP1.example.org\"]\nprobes = [{ network = \"s\", address = \"1.1.1.1:1\" }]\n\
         [hosts.\"CMP1.example.org\".redfish]\naddress = \"https://1.1.1.1\"\nuser = \"u\"\npassword_file = \"bmc.password\"\n\
         [segments.s]\nhosts = [\"CMP?.example.*\"]\nroot_disk = \"shared\"\n",
    );
    assert_eq!(loaded.warnings.len(), 2, "{:#?}", loaded.warnings);
    assert!(loaded.warnings[0].starts_with("hosts without a table"), "{:#?}", loaded.warnings);
    assert!(loaded.config.hosts.contains_key("CMP1.example.org"));
}

#[test]
fn a_sender_needs_no_more_than_its_networks() {
    let etc = Etc::new();
    let toml = "[heartbeat]\nkey_file = \"heartbeat.key\"\n[[heartbeat.networks]]\nname = \"m\"\nto = \"127.0.0.1:1\"";
    assert!(etc.good(toml).warnings.is_empty());
}

/// tandem-ha in a folder that has no clouds.yaml but its own, if any.
fn tandem_ha(etc: &Etc, toml: &str, arguments: &[&str]) -> Output {
    etc.write("tandem-ha.toml", toml.as_bytes());
    let mut command = Command::new(env!("CARGO_BIN_EXE_tandem-ha"));
    command.current_dir(etc.0.path()).env_clear().env("OS_CLIENT_CONFIG_FILE", etc.path("clouds.yaml"));
    command.args(["--config", "tandem-ha.toml"]).args(arguments).output().expect("it was built with this test")
}

#[test]
fn a_cloud_that_is_not_known_is_told_by_the_check_and_ends_the_daemon_for_good() {
    let etc = Etc::new();
    let toml = "store.path = \"ha.sqlite\"\ncontrol_socket = \"ha.sock\"\napi.listen = \"127.0.0.1:0\"\nopenstack.cloud = \"tandem\"";
    let fails = |words: &str| {
        for arguments in [&[][..], &["check-config"][..]] {
            let run = tandem_ha(&etc, toml, arguments);
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(2), "{arguments:?}: {said}");
            assert!(said.contains(words), "{words:?} is not in {said}");
            assert!(!String::from_utf8_lossy(&run.stdout).contains("can be used"));
        }
    };
    fails("clouds.yaml cannot be read");
    let cloud = "auth: {auth_url: 'http://127.0.0.1:5000/v3', username: ha, password: sesame, project_name: admin, user_domain_name: Default, \
                 project_domain_name: Default}";
    etc.write("clouds.yaml", format!("clouds: {{tandems: {{{cloud}}}}}").as_bytes());
    fails("has no cloud tandem, it has tandems; did you mean tandems?");
    etc.write("clouds.yaml", format!("clouds: {{tandem: {{{cloud}, cacert: none.pem}}}}").as_bytes());
    fails("none.pem");
    etc.write("clouds.yaml", format!("clouds: {{tandem: {{{cloud}}}}}").as_bytes());
    let run = tandem_ha(&etc, toml, &["check-config"]);
    let said = String::from_utf8_lossy(&run.stdout);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
    assert!(
        said.contains("user ha (domain Default)") && said.contains("can be used") && !said.contains("sesame"),
        "{said}"
    );
}

#[test]
fn a_compute_host_needs_no_cloud() {
    let toml = "[heartbeat]\nkey_file = \"heartbeat.key\"\n[[heartbeat.networks]]\nname = \"m\"\nto = \"127.0.0.1:1\"";
    let run = tandem_ha(&Etc::new(), toml, &["check-config"]);
    assert_eq!(run.status.code(), Some(0), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn a_sender_that_has_nowhere_to_send_to_is_not_started_again() {
    let run = tandem_ha(&Etc::new(), "[[heartbeat.networks]]\nname = \"m\"", &["heartbeat"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert_eq!(run.status.code(), Some(2), "the unit starts nothing again that ends with 2: {said}");
    assert!(
        said.contains("nowhere to send heartbeats to: give `to` in [[heartbeat.networks]] of tandem-ha.toml"),
        "{said}"
    );
}

#[test]
fn patterns_cover_as_a_shell_would() {
    for (pattern, host, covers) in [
        ("cmp*", "cmp1", true),
        ("cmp*", "cmp", true),
        ("cmp*", "xcmp", false),
        ("*", "a", true),
        ("c?p", "cmp", true),
        ("c?p", "cp", false),
        ("*-*-1", "a-b-c-1", true),
        ("*ab", "aab", true),
        ("a*b*c", "abcbc", true),
        ("a*b*c", "abcb", false),
        ("cmp1", "cmp1", true),
        ("cmp1", "cmp10", false),
    ] {
        assert_eq!(Pattern::new(pattern).expect("a pattern").covers(host), covers, "{pattern} {host}");
    }
    assert!(["", "a b", "[a]", "a/b"].iter().all(|text| Pattern::new(text).is_none()));
}

#[test]
fn of_two_segments_the_more_cautious_holds() {
    let toml = "[segments.a]\nhosts = [\"*\"]\nroot_disk = \"shared\"\n[segments.b]\nhosts = [\"x*\"]\n[segments.c]\nhosts = [\"xy\"]\nroot_disk = \"shared\"\nenabled = false";
    let config = Etc::new().good(toml).config;
    let of = |host| config.segment_of(host).map(|(name, _)| name.to_owned());
    assert_eq!(of("w").as_deref(), Some("a"));
    assert_eq!(of("x").as_deref(), Some("b"));
    assert_eq!(of("xy").as_deref(), Some("c"));
}
