//! How the server is found, and what goes to stdout without one.

use std::fs;

use anyhow::Result;
use serde_json::json;

use crate::fake::{Fake, Ran, Way, tandem};

fn empty() -> Result<Fake> {
    Fake::start(Way::Tcp, &[("GET /v2/incidents", 200, json!({ "incidents": [] }))])
}

#[test]
fn the_flag_overrides_the_variable_overrides_the_file_overrides_the_users() -> Result<()> {
    let home = tempfile::tempdir()?;
    let [flag, variable, file, user] = [empty()?, empty()?, empty()?, empty()?];
    let config = home.path().join("tandem.toml");
    fs::create_dir_all(home.path().join(".config/tandem"))?;
    fs::write(&config, format!("ha = \"{}\"\n", file.url))?;
    fs::write(home.path().join(".config/tandem/tandem.toml"), format!("# mine\nha = '{}'\n", user.url))?;

    let config = config.display().to_string();
    let run = |args: &[&str], url: Option<&str>| {
        let mut command = tandem(home.path());
        command.args(["incidents"]).args(args).envs(url.map(|url| ("TANDEM_HA_URL", url)));
        Ran::of(&mut command)
    };
    let seen = || [&flag, &variable, &file, &user].map(|fake| fake.asked().len());
    assert_eq!(run(&[], None)?.code, Some(0));
    assert_eq!(seen(), [0, 0, 0, 1]);
    assert_eq!(run(&["--config", &config], Some(""))?.code, Some(0));
    assert_eq!(seen(), [0, 0, 1, 1]);
    assert_eq!(run(&["--config", &config], Some(&variable.url))?.code, Some(0));
    assert_eq!(seen(), [0, 1, 1, 1]);
    assert_eq!(run(&["--config", &config, "--ha", &flag.url], Some(&variable.url))?.code, Some(0));
    assert_eq!(seen(), [1, 1, 1, 1]);
    Ok(())
}

#[test]
fn a_wrong_file_is_named_with_its_key() -> Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("tandem.toml");
    let name = file.display().to_string();
    for (text, said) in [
        ("ha = 15868", "key `ha`: must be text, is integer: 15868"),
        ("ha = \"cmp1:15868\"", "key `ha`: \"cmp1:15868\" is no address"),
        ("# server\nhost = \"x\"", "unknown key `host`"),
        ("\nha = \"x", "line 2"),
    ] {
        fs::write(&file, text)?;
        let ran = Ran::of(tandem(home.path()).args(["--config", &name, "status"]))?;
        ran.fails(2, &[&name, said, "allowed: `ha = \"URL\"`"]);
    }
    Ok(())
}

#[test]
fn a_file_that_was_named_must_be_there() -> Result<()> {
    let home = tempfile::tempdir()?;
    let ran = Ran::of(tandem(home.path()).args(["--config", "/nowhere/t.toml", "status"]))?;
    ran.fails(2, &["/nowhere/t.toml", "No such file", "--ha"]);
    Ok(())
}

#[test]
fn a_wrong_address_is_a_wrong_call() -> Result<()> {
    let home = tempfile::tempdir()?;
    for url in ["cmp1", "ftp://cmp1", "unix:", "http://u:p@cmp1"] {
        let ran = Ran::of(tandem(home.path()).args(["status", "--ha", url]))?;
        ran.fails(2, &["--ha", "is no address", "allowed: http://HOST:PORT"]);
    }
    let ran = Ran::of(tandem(home.path()).arg("status").env("TANDEM_HA_URL", "cmp1"))?;
    ran.fails(2, &["TANDEM_HA_URL: \"cmp1\" is no address"]);
    Ok(())
}

#[test]
fn wrong_words_are_usage() -> Result<()> {
    let home = tempfile::tempdir()?;
    for args in [
        &[][..],
        &["statsu"],
        &["status", "--interval", "2"],
        &["status", "--watch", "--interval", "0"],
        &["status", "--timeout", "nan"],
        &["incidents", "--limit", "0"],
        &["incident"],
        &["incident", "show", ""],
        &["plan"],
        &["completions", "tcsh"],
        &["volume"],
        &["volume", "create", "db-1"],
        &["volume", "create", "db-1", "--size", "10Q"],
        &["volume", "create", "db-1", "--size", "1G", "--replicas", "2", "--on", "cmp1,cmp2"],
        &["volume", "resync", "db-1"],
        &["volume", "promote", "db-1", "--node", "http://127.0.0.1:15870"],
        &["volume", "list", "--interval", "2"],
        &["volume", "revoke", "db-1", "no-uuid"],
        &["node", "dead", "cmp1", "--why", "x"],
        &["arbiter"],
    ] {
        let ran = Ran::of(tandem(home.path()).args(args))?;
        assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""), "{args:?} {ran:#?}");
    }
    Ok(())
}

#[test]
fn every_command_has_help_with_examples() -> Result<()> {
    let home = tempfile::tempdir()?;
    for command in [
        &[][..],
        &["status"],
        &["incidents"],
        &["incident", "show"],
        &["plan"],
        &["arm"],
        &["disarm"],
        &["release"],
        &["fence"],
        &["completions"],
        &["man"],
        &["volume", "list"],
        &["volume", "show"],
        &["volume", "create"],
        &["volume", "delete"],
        &["volume", "promote"],
        &["volume", "demote"],
        &["volume", "force-primary"],
        &["volume", "resync"],
        &["volume", "attach"],
        &["volume", "revoke"],
        &["volume", "attachments"],
        &["node", "list"],
        &["node", "show"],
        &["node", "dead"],
        &["node", "alive"],
        &["node", "fence-host"],
        &["node", "unfence-host"],
        &["node", "fences"],
        &["pool", "list"],
        &["events"],
        &["arbiter", "status"],
        &["arbiter", "rebuild"],
    ] {
        let ran = Ran::of(tandem(home.path()).args(command).arg("--help"))?;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert!(ran.out.contains("Examples:\n  "), "{ran:#?}");
    }
    Ok(())
}

#[test]
fn completions_and_the_man_page_know_every_command() -> Result<()> {
    let home = tempfile::tempdir()?;
    for shell in ["bash", "zsh", "fish"] {
        let ran = Ran::of(tandem(home.path()).args(["completions", shell]))?;
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
        for word in ["status", "incident", "release", "manual", "follow", "force-primary", "rebuild"] {
            assert!(ran.out.contains(word), "{shell} does not complete {word}");
        }
    }
    let ran = Ran::of(tandem(home.path()).arg("man"))?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""));
    for section in [
        ".TH tandem 1",
        "TANDEM STATUS",
        "TANDEM INCIDENT SHOW",
        "TANDEM FENCE",
        "TANDEM VOLUME FORCE-PRIMARY",
        "TANDEM ARBITER REBUILD",
        "TANDEM_NODE_URL",
        "tls_cert",
        "Exit codes",
        ".SH FILES",
    ] {
        assert!(ran.out.contains(section), "the page lacks {section}:\n{}", ran.out);
    }
    Ok(())
}
