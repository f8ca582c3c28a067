//! The command `cert`: what it writes, what it refuses, what it tells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread;

use chrono::{DateTime, TimeDelta, Utc};
use clap::{Parser, Subcommand};
use serde_json::Value;
use tandem_node::cert::{CertCommand, run_at};
use tandem_node::identity::{Credentials, Paths};
use tempfile::TempDir;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Cert {
        #[command(subcommand)]
        command: CertCommand,
    },
}

/// `tandem-node cert ...` at a moment: what it printed, and what it said on failing.
fn cert_at(now: DateTime<Utc>, arguments: &[&str]) -> (String, Result<(), String>) {
    let line = Line::try_parse_from(["tandem-node", "cert"].iter().chain(arguments));
    let Command::Cert { command } = match line {
        Ok(line) => line.command,
        Err(usage) => return (String::new(), Err(usage.to_string())),
    };
    let mut out = Vec::new();
    let ended = run_at(command, now, &mut out).map_err(|error| format!("{error:#}"));
    (String::from_utf8(out).unwrap(), ended)
}

fn cert(arguments: &[&str]) -> String {
    let (out, ended) = cert_at(Utc::now(), arguments);
    ended.unwrap();
    out
}

fn refused(arguments: &[&str]) -> String {
    cert_at(Utc::now(), arguments).1.expect_err("must be refused")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn utf8(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A CA in a folder below a temporary one.
fn made() -> (TempDir, String) {
    let parent = TempDir::new().unwrap();
    let dir = utf8(&parent.path().join("ca")).to_owned();
    cert(&["init", "--dir", &dir]);
    (parent, dir)
}

#[test]
fn init_keeps_the_key_for_its_owner() {
    let (_parent, dir) = made();
    let dir = Path::new(&dir);
    assert_eq!((mode(dir), mode(&dir.join("ca.key")), mode(&dir.join("ca.crt"))), (0o700, 0o600, 0o644));
    let files: Vec<_> = fs::read_dir(dir).unwrap().collect();
    assert_eq!(files.len(), 2, "nothing else is left: {files:?}");
}

#[test]
fn a_second_init_changes_nothing() {
    let (_parent, dir) = made();
    let key = fs::read(format!("{dir}/ca.key")).unwrap();
    assert!(refused(&["init", "--dir", &dir]).contains("has a CA already; another one needs another folder"));
    assert_eq!(fs::read(format!("{dir}/ca.key")).unwrap(), key);
}

#[test]
fn init_closes_an_empty_folder_and_refuses_an_open_one_with_something_in_it() {
    let parent = TempDir::new().unwrap();
    let dir = parent.path().join("ca");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(dir.join("x"), "").unwrap();
    let why = refused(&["init", "--dir", utf8(&dir)]);
    assert!(why.contains("can be read by others than its owner (mode 755); chmod 700 "), "{why}");
    assert!(!dir.join("ca.key").exists());
    fs::remove_file(dir.join("x")).unwrap();
    cert(&["init", "--dir", utf8(&dir)]);
    assert_eq!(mode(&dir), 0o700);
}

#[test]
fn what_is_issued_can_be_used_and_its_key_is_its_owners() {
    let (parent, dir) = made();
    let out = parent.path().join("for/host");
    let said = cert(&["issue", "node", "host", "--dir", &dir, "--address", "198.18.2.1", "--out", utf8(&out)]);
    assert!(said.starts_with("tandem://node/host until "), "{said}");
    let paths = Paths { ca: out.join("ca.crt"), cert: out.join("host.crt"), key: out.join("host.key") };
    assert_eq!((mode(&out), mode(&paths.key), mode(&paths.cert)), (0o700, 0o600, 0o644));
    assert!(!out.join("ca.key").exists());
    Credentials::load(paths).unwrap();
}

#[test]
fn issue_replaces_only_with_force_and_only_the_same_identity() {
    let (_parent, dir) = made();
    let issue = |more: &[&str]| cert_at(Utc::now(), &[&["issue", "--dir", &dir], more].concat()).1;
    issue(&["node", "host"]).unwrap();
    let before = fs::read(format!("{dir}/host.crt")).unwrap();
    assert!(issue(&["node", "host"]).unwrap_err().ends_with("host.crt exists; --force replaces it"));
    let why = issue(&["admin", "host", "--force"]).unwrap_err();
    assert!(why.contains("is the certificate of tandem://node/host, which --force does not replace"), "{why}");
    assert_eq!(fs::read(format!("{dir}/host.crt")).unwrap(), before);
    issue(&["node", "host", "--force"]).unwrap();
    assert_ne!(fs::read(format!("{dir}/host.crt")).unwrap(), before);
    assert_eq!(mode(Path::new(&format!("{dir}/host.key"))), 0o600);
}

#[test]
fn nobody_named_ca_replaces_the_ca() {
    let (parent, dir) = made();
    let key = fs::read(format!("{dir}/ca.key")).unwrap();
    for force in [&[][..], &["--force"]] {
        let why = refused(&[&["issue", "node", "ca", "--dir", &dir], force].concat());
        assert!(why.contains("nobody can be named \"ca\""), "{why}");
    }
    assert_eq!(fs::read(format!("{dir}/ca.key")).unwrap(), key);
    let out = parent.path().join("out");
    assert!(refused(&["issue", "node", "ca", "--dir", &dir, "--out", utf8(&out)]).contains("named \"ca\""));
}

/// Two operators at once: one pair of files, and it belongs together.
#[test]
fn of_many_who_issue_the_same_at_once_one_wins() {
    let (_parent, dir) = made();
    let all: Vec<_> = (0..8)
        .map(|_| {
            let dir = dir.clone();
            thread::spawn(move || cert_at(Utc::now(), &["issue", "node", "host", "--dir", &dir]).1)
        })
        .collect();
    let ended: Vec<_> = all.into_iter().map(|one| one.join().unwrap()).collect();
    assert_eq!(ended.iter().filter(|one| one.is_ok()).count(), 1, "{ended:?}");
    assert!(ended.iter().filter_map(|one| one.as_ref().err()).all(|why| why.contains("exists; --force")), "{ended:?}");
    let at = |name: &str| Path::new(&dir).join(name);
    Credentials::load(Paths { ca: at("ca.crt"), cert: at("host.crt"), key: at("host.key") }).unwrap();
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 4, "nothing half written is left");
}

#[test]
fn a_folder_of_another_ca_is_left_alone_and_one_that_trusts_several_is_not() {
    let (_one, ours) = made();
    let (_two, others) = made();
    let out = TempDir::new().unwrap();
    let ca = out.path().join("ca.crt");
    fs::copy(format!("{others}/ca.crt"), &ca).unwrap();
    let issue = ["issue", "node", "host", "--dir", &ours, "--out", utf8(out.path())];
    assert!(refused(&issue).contains("ca.crt holds another CA"));
    assert!(!out.path().join("host.key").exists());
    let both = [fs::read(&ca).unwrap(), fs::read(format!("{ours}/ca.crt")).unwrap()].concat();
    fs::write(&ca, &both).unwrap();
    cert(&issue);
    assert_eq!(fs::read(&ca).unwrap(), both);
}

#[test]
fn nothing_outlives_its_ca() {
    let parent = TempDir::new().unwrap();
    let dir = utf8(&parent.path().join("ca")).to_owned();
    let now = Utc::now();
    cert_at(now, &["init", "--dir", &dir, "--days", "100"]).1.unwrap();
    let issue = |now, days: &str| cert_at(now, &["issue", "node", "x", "--dir", &dir, "--days", days]).1;
    let why = issue(now + TimeDelta::hours(1), "100").unwrap_err();
    assert!(why.contains("at most --days 99"), "{why}");
    issue(now + TimeDelta::hours(1), "99").unwrap();
    fs::remove_file(format!("{dir}/x.crt")).unwrap();
    fs::remove_file(format!("{dir}/x.key")).unwrap();
    let why = issue(now + TimeDelta::days(101), "1").unwrap_err();
    assert!(why.contains("the CA ended on") && why.contains("make another"), "{why}");
}

#[test]
fn what_is_missing_or_wrong_is_named_with_its_remedy() {
    let (parent, dir) = made();
    let away = utf8(&parent.path().join("away")).to_owned();
    let why = refused(&["issue", "node", "x", "--dir", &away]);
    assert!(why.contains(&format!("has no CA; `tandem-node cert init --dir {away}` makes one")), "{why}");
    for (name, word) in [("a/b", "cannot be a name"), ("-x", "unexpected argument"), ("", "cannot be a name")] {
        let why = refused(&["issue", "node", name, "--dir", &dir]);
        assert!(why.contains(word), "{why}");
    }
    assert!(refused(&["issue", "arbiter", "x", "--dir", &dir]).contains("[possible values: node, ha, cinder, admin]"));
    assert!(refused(&["issue", "node", "x", "--dir", &dir, "--days", "0"]).contains("0 is not in 1..=36500"));
    assert!(refused(&["issue", "node", "x", "--dir", &dir, "--address", "a b"]).contains("neither an IP address"));
    let key = format!("{dir}/ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    let why = refused(&["issue", "node", "x", "--dir", &dir]);
    assert!(why.contains("ca.key can be read by others than its owner (mode 640); chmod 600 "), "{why}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let (_other, other) = made();
    fs::copy(format!("{other}/ca.key"), &key).unwrap();
    assert!(refused(&["issue", "node", "x", "--dir", &dir]).contains("ca.key is not the key of"));
    assert!(refused(&["show", &key]).contains("is a private key; its certificate is the .crt beside it"));
    assert!(refused(&["show", &away]).contains("away cannot be read"));
    assert!(refused(&["check", "--dir", utf8(TempDir::new().unwrap().path())]).contains("has no *.crt"));
}

#[test]
fn show_tells_who_until_when_and_by_whom() {
    let (_parent, dir) = made();
    cert(&["issue", "node", "host", "--dir", &dir, "--address", "198.18.2.1", "--address", "fd00::1"]);
    let said = cert(&["show", &format!("{dir}/host.crt")]);
    for word in
        ["tandem://node/host\n", "  ends     20", "  issuer   CN=Tandem CA ", "  address  198.18.2.1, fd00::1\n"]
    {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    let said = cert(&["show", &format!("{dir}/ca.crt")]);
    assert!(said.starts_with("the CA CN=Tandem CA "), "{said}");
    let json: Value = serde_json::from_str(&cert(&["show", "--json", &format!("{dir}/host.crt")])).unwrap();
    assert_eq!(json[0]["identity"], "tandem://node/host");
    assert_eq!(json[0]["is_ca"], false);
    assert_eq!(json[0]["addresses"][1], "fd00::1");
    let ends = DateTime::parse_from_rfc3339(json[0]["ends"].as_str().unwrap()).unwrap();
    let days = (ends.with_timezone(&Utc) - Utc::now()).num_days();
    assert!((728..=730).contains(&days), "{days}");
}

#[test]
fn check_is_silent_until_a_certificate_ends_soon_and_then_says_how_to_renew_it() {
    let (_parent, dir) = made();
    let now = Utc::now();
    let issue = ["issue", "node", "host", "--dir", &dir, "--days", "100", "--address", "198.18.2.1"];
    cert_at(now, &issue).1.unwrap();
    cert_at(now, &["issue", "admin", "alice", "--dir", &dir, "--days", "300"]).1.unwrap();
    let check = |day: i64| cert_at(now + TimeDelta::days(day), &["check", "--dir", &dir]);
    assert_eq!(check(69).1, Ok(()));
    for (day, word) in [(71, "ENDS in 2"), (99, "ENDS in 0 days"), (101, "ENDED on "), (-1, "NOT BEFORE ")] {
        let (said, ended) = check(day);
        assert!(said.contains(word) && said.contains("tandem://node/host: "), "{said}");
        assert!(
            day < 0 || said.contains("  tandem-node cert issue node host --address 198.18.2.1 --force\n"),
            "{said}"
        );
        assert!(day < 0 || ended.unwrap_err().starts_with("1 of 3 certificates must be issued anew"));
    }
    let (said, ended) =
        cert_at(now, &["check", "--json", "--within", "120", &format!("{dir}/host.crt"), &format!("{dir}/ca.crt")]);
    ended.unwrap_err();
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!((&json[0]["state"], &json[1]["state"]), (&"ends_soon".into(), &"good".into()));
    assert_eq!((&json[0]["days_left"], &json[1]["renew"]), (&99.into(), &Value::Null));
}

#[test]
fn every_command_shows_examples_in_its_help() {
    for command in
        [&["--help"][..], &["init", "--help"], &["issue", "--help"], &["show", "--help"], &["check", "--help"]]
    {
        let help = refused(command);
        assert!(help.contains("Examples") && help.contains("\n  tandem-node cert "), "{help}");
    }
}
