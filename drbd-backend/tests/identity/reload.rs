//! Credentials: what is refused when they are read, and how renewed ones are taken.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;

use chrono::{TimeDelta, Utc};
use rustls::{ClientConnection, ServerConnection};
use tandem_node::identity::{Authority, Credentials, Door, Error, Facts, Paths, Request, peer_identity, server_config};

use crate::world::{World, chain, file, id, our_client, our_server, shake};

fn refusal(paths: &Paths) -> String {
    chain(&Credentials::load(paths.clone()).expect_err("must be refused"))
}

fn sha256(certificate: &rustls::pki_types::CertificateDer<'_>) -> String {
    Facts::read(certificate).unwrap().sha256
}

#[test]
fn a_renewed_certificate_is_taken_at_the_next_handshake_and_what_stands_goes_on() {
    let world = World::new();
    let (ours, host) = (world.credentials("tandem://node/ours"), world.credentials("tandem://node/host"));
    let config = server_config(&host, Door::Peers);
    let connected = || {
        let mut client = our_client(&ours, "tandem://node/host", Door::Peers);
        let mut server = ServerConnection::new(config.clone()).unwrap();
        let outcome = shake(&mut client, &mut server);
        assert!(outcome.is_well(), "{outcome:?}");
        (client, server)
    };
    let (mut old_client, mut old_server) = connected();
    let before = host.ends();
    world.issue("tandem://node/host", &["198.18.2.1"]);
    assert_eq!(sha256(&shown(&connected().0)), sha256(&shown(&old_client)), "not before it is told to");
    let ends = host.reload().unwrap();
    assert!(ends >= before && ends == host.ends());
    assert_ne!(sha256(&shown(&connected().0)), sha256(&shown(&old_client)));
    old_client.writer().write_all(b"still here").unwrap();
    assert!(shake(&mut old_client, &mut old_server).is_well());
    let mut word = [0; 10];
    old_server.reader().read_exact(&mut word).unwrap();
    assert_eq!(&word, b"still here");
}

fn shown(client: &ClientConnection) -> rustls::pki_types::CertificateDer<'static> {
    client.peer_certificates().unwrap()[0].clone()
}

#[test]
fn one_ca_follows_another_without_a_restart() {
    let (old, new) = (World::new(), World::new());
    let host_paths = old.issue("tandem://node/host", &[]);
    let host = Credentials::load(host_paths.clone()).unwrap();
    let newcomer_paths = new.issue("tandem://node/new", &[]);
    let both = format!("{}{}", old.authority.pem(), new.authority.pem());
    fs::write(&newcomer_paths.ca, &both).unwrap();
    let newcomer = Credentials::load(newcomer_paths).unwrap();
    let config = server_config(&host, Door::Peers);
    let meets = || {
        let mut server = ServerConnection::new(config.clone()).unwrap();
        shake(&mut our_client(&newcomer, "tandem://node/host", Door::Peers), &mut server)
    };
    assert!(meets().servers_refusal().contains("not trusted here"));
    fs::write(&host_paths.ca, &both).unwrap();
    host.reload().unwrap();
    let outcome = meets();
    assert!(outcome.is_well(), "{outcome:?}");
}

#[test]
fn a_reload_that_fails_leaves_everything_as_it_was() {
    let world = World::new();
    let paths = world.issue("tandem://node/host", &[]);
    let host = Credentials::load(paths.clone()).unwrap();
    let ours = world.credentials("tandem://node/ours");
    let good = fs::read(&paths.cert).unwrap();
    let anothers = fs::read(world.issue("tandem://node/another", &[]).cert).unwrap();
    for (bad, word) in [
        (&b"nonsense"[..], "holds no certificate"),
        (&anothers, "is not the key of"),
        (&good[..300], "holds no certificate"),
    ] {
        fs::write(&paths.cert, bad).unwrap();
        let why = chain(&host.reload().unwrap_err());
        assert!(why.contains(word) && why.contains("host"), "{why}");
        let mut server = our_server(&host, Door::Peers);
        let outcome = shake(&mut our_client(&ours, "tandem://node/host", Door::Peers), &mut server);
        assert!(outcome.is_well(), "{outcome:?}");
        assert_eq!(peer_identity(&server, Door::Peers).unwrap(), id("tandem://node/ours"));
    }
}

#[test]
fn nobody_becomes_somebody_else_by_a_reload() {
    let world = World::new();
    let paths = world.issue("tandem://node/host", &[]);
    let host = Credentials::load(paths.clone()).unwrap();
    let another = world.issue("tandem://node/another", &[]);
    fs::copy(another.cert, &paths.cert).unwrap();
    fs::copy(another.key, &paths.key).unwrap();
    let why = host.reload().unwrap_err();
    assert!(matches!(why, Error::Renamed { .. }), "{why}");
    assert_eq!(host.identity(), &id("tandem://node/host"));
}

#[test]
fn a_key_that_everybody_can_read_is_refused_and_one_of_a_group_is_taken() {
    let world = World::new();
    let paths = world.issue("tandem://node/host", &[]);
    fs::set_permissions(&paths.key, fs::Permissions::from_mode(0o640)).unwrap();
    Credentials::load(paths.clone()).unwrap();
    fs::set_permissions(&paths.key, fs::Permissions::from_mode(0o644)).unwrap();
    let why = refusal(&paths);
    assert!(why.contains("host.key can be read by everybody (mode 644); chmod 640 "), "{why}");
}

#[test]
fn what_others_would_refuse_is_refused_at_home_first() {
    let (world, other) = (World::new(), World::new());
    let paths = world.issue("tandem://node/host", &[]);
    let of_other = Paths { ca: other.path("ca.crt"), ..paths.clone() };
    let why = refusal(&of_other);
    assert!(why.contains("would be refused by everybody who trusts") && why.contains("UnknownIssuer"), "{why}");

    let now = Utc::now();
    let ended = Request {
        begins: now - TimeDelta::days(9),
        ends: now - TimeDelta::days(2),
        ..World::request("tandem://node/host", &[])
    };
    let written = world.authority.write(&ended, paths.cert.parent().unwrap(), true).unwrap();
    let why = refusal(&Paths { ca: written.ca, cert: written.cert, key: written.key });
    assert!(why.contains("expired") && why.contains("cert issue --force"), "{why}");
}

#[test]
fn each_file_that_is_wrong_is_named() {
    let world = World::new();
    let paths = world.issue("tandem://node/host", &[]);
    let away = Paths { cert: world.path("away.crt"), ..paths.clone() };
    assert!(refusal(&away).contains("away.crt cannot be read; certificates come from `tandem-node cert issue`"));
    let no_key = Paths { key: world.path("away.key"), ..paths.clone() };
    assert!(refusal(&no_key).contains("away.key cannot be read"));
    file(&world.path("empty.key"), 0o600, b"");
    let empty = Paths { key: world.path("empty.key"), ..paths.clone() };
    assert!(refusal(&empty).contains("empty.key holds no private key in PEM"));
    let swapped = Paths { ca: paths.key.clone(), ..paths.clone() };
    assert!(refusal(&swapped).contains("host.key holds no certificate in PEM"));
    let others_key = Paths { key: world.issue("tandem://node/another", &[]).key, ..paths.clone() };
    assert!(refusal(&others_key).contains("another.key is not the key of"));
    let no_identity = Paths { cert: world.path("ca.crt"), ..paths };
    assert!(refusal(&no_identity).contains("ca.crt cannot be used: the certificate names no identity"));
}

#[test]
fn a_ca_in_memory_signs_as_one_in_a_folder() {
    let (authority, made) = Authority::generate(10, Utc::now()).unwrap();
    assert_eq!(authority.pem(), made.cert);
    let issued = authority.issue(&Request::for_days(id("tandem://node/x"), vec![], 9, Utc::now())).unwrap();
    assert!(!format!("{issued:?} {authority:?} {made:?}").contains("PRIVATE"), "keys stay out of logs");
    let folder = tempfile::TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    file(&at("ca.crt"), 0o644, made.cert.as_bytes());
    file(&at("x.crt"), 0o644, issued.cert.as_bytes());
    file(&at("x.key"), 0o600, issued.key.as_bytes());
    Credentials::load(Paths { ca: at("ca.crt"), cert: at("x.crt"), key: at("x.key") }).unwrap();
}
