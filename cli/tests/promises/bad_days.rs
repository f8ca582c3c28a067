//! Servers that are dead, silent, torn, or somebody else; pipes that nobody reads.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

use anyhow::Result;
use serde_json::json;

use crate::fake::{CMP1, Fake, Ran, Way, error, hosts, tandem};

const HALF: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"hosts\":";
const NO_HTTP: &[u8] = b"SSH-2.0-OpenSSH_9.6\r\n";

#[test]
fn a_server_that_is_not_there_is_named_with_the_way_to_another() -> Result<()> {
    let home = tempfile::tempdir()?;
    let socket = format!("unix:{}/none.sock", home.path().display());
    for url in [socket.as_str(), "http://127.0.0.1:1"] {
        for command in [&["status"][..], &["status", "--watch"], &["incidents"], &["plan", "cmp1"], &["arm"]] {
            let ran = Ran::of(tandem(home.path()).args(["--ha", url]).args(command))?;
            ran.fails(3, &["cannot reach tandem-ha at", url, "(--ha): ", "is tandem-ha running?", "TANDEM_HA_URL"]);
        }
    }
    Ok(())
}

#[test]
fn a_socket_of_roots_says_run_as_root() -> Result<()> {
    let fake = Fake::start(Way::Socket, &[("GET /v2/hosts", 200, hosts())])?;
    let mut command = fake.command();
    // Root may do everything: be nobody. Anybody else: take the permission away.
    let socket = fake.url.trim_start_matches("unix:");
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o000))?;
    if rustix::process::geteuid().is_root() {
        command.uid(65_534).gid(65_534);
    }
    Ran::of(command.arg("status"))?.fails(3, &["permission denied", &fake.url, "run as root"]);
    Ok(())
}

#[test]
fn a_server_that_keeps_silent_is_given_up() -> Result<()> {
    let fake = Fake::stranger(None)?;
    fake.run(&["status", "--timeout", "0.2"])?.fails(3, &["gave no answer to GET /v2/hosts within 0.2 s", &fake.url]);
    fake.run(&["arm", "--timeout", "0.2"])?.fails(3, &["POST /v2/arm", "it may have been done all the same"]);
    Ok(())
}

#[test]
fn half_an_answer_is_no_answer() -> Result<()> {
    let fake = Fake::stranger(Some(HALF))?;
    fake.run(&["status"])?.fails(1, &["GET /v2/hosts broke off after 9 bytes", "systemctl status tandem-ha"]);
    fake.run(&["status", "--json"])?.fails(1, &["broke off"]);
    fake.run(&["arm"])?.fails(1, &["broke off", "it was accepted"]);
    Ok(())
}

#[test]
fn a_server_that_speaks_no_http_is_doubted() -> Result<()> {
    for bytes in [NO_HTTP, b"", b"HTTP/1.1 "] {
        let ran = Fake::stranger(Some(bytes))?.run(&["status"])?;
        ran.fails(3, &["gave no answer to GET /v2/hosts", "is that tandem-ha?"]);
    }
    Ok(())
}

#[test]
fn garbage_is_shown_by_its_beginning_and_never_passed_on_as_json() -> Result<()> {
    for garbage in ["<html><body>It works!\u{1b}[2J", "", "{\"hosts\": [}", "\u{0}\u{1}"] {
        let fake = Fake::verbatim(Way::Tcp, &[("GET /v2/hosts", 200, garbage.to_owned())])?;
        fake.run(&["status"])?.fails(1, &["not tandem-ha's: no JSON"]);
        let ran = fake.run(&["status", "--json"])?;
        ran.fails(1, &["is that tandem-ha"]);
        assert!(!ran.err.contains('\u{1b}'), "{ran:#?}");
    }
    Ok(())
}

#[test]
fn json_of_somebody_else_is_not_understood() -> Result<()> {
    for body in [json!({}), json!([]), json!(null), json!({ "hosts": 3 }), json!({ "hosts": [7] })] {
        let fake = Fake::start(Way::Tcp, &[("GET /v2/hosts", 200, body)])?;
        fake.run(&["status"])?.fails(1, &["not tandem-ha's", "--json shows an answer as it came"]);
    }
    let fake = Fake::start(Way::Tcp, &[("GET /v2/hosts", 200, json!({}))])?;
    let ran = fake.run(&["status", "--json"])?;
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), "{}\n"), "{ran:#?}");
    Ok(())
}

#[test]
fn a_refusal_is_told_with_its_status_whoever_refuses() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("GET /v2/hosts", 500, error(500, "the database is locked"))])?;
    fake.run(&["status"])?.fails(1, &["GET /v2/hosts with 500: the database is locked", "journalctl -u tandem-ha"]);
    for (status, body) in [(404, "<html>nginx</html>"), (502, ""), (400, "{\"error\": \"no\"}")] {
        let fake = Fake::verbatim(Way::Tcp, &[("GET /v2/hosts", status, body.to_owned())])?;
        fake.run(&["status"])?.fails(1, &[&status.to_string(), "not as tandem-ha does", "its address?"]);
    }
    let fake = Fake::verbatim(Way::Tcp, &[("GET /v2/plan/cmp1", 404, "<html>nginx</html>".to_owned())])?;
    fake.run(&["plan", "cmp1"])?.fails(1, &["not as tandem-ha does: <html>nginx</html>"]);
    let fake = Fake::verbatim(Way::Tcp, &[("GET /v2/hosts", 302, String::new())])?;
    fake.run(&["status"])?.fails(1, &["HTTP 302"]);
    Ok(())
}

#[test]
fn a_pipe_that_nobody_reads_is_no_accident() -> Result<()> {
    let answers = [("GET /v2/hosts", 200, hosts()), ("GET /v2/incidents", 200, json!({ "incidents": [] }))];
    let fake = Fake::start(Way::Tcp, &answers)?;
    for command in [
        &["man"][..],
        &["completions", "bash"],
        &["status"],
        &["status", "--json"],
        &["status", "--watch", "--interval", "0.1"],
        &["--help"],
    ] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let output = fake.command().args(command).stdout(writer).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), err.as_ref()), (Some(0), ""), "{command:?}");
    }
    Ok(())
}

#[test]
fn an_error_is_told_even_where_stderr_is_closed() -> Result<()> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    let home = tempfile::tempdir()?;
    let mut command = tandem(home.path());
    command.args(["--ha", "http://127.0.0.1:1", "incident", "show", CMP1]).stderr(writer);
    assert_eq!(command.status()?.code(), Some(3));
    Ok(())
}

#[test]
fn a_full_disk_is_a_failure() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("GET /v2/incidents", 200, json!({ "incidents": [] }))])?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let output = fake.command().arg("incidents").stdout(full).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot write the output"), "{output:?}");
    Ok(())
}
