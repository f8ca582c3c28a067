//! What changes something.

use anyhow::Result;
use serde_json::{Value, json};

use crate::fake::{CMP1, Fake, Way, error, hold, hosts, summary, with};

#[test]
fn arm_and_disarm_tell_what_that_means() -> Result<()> {
    let answers =
        [("POST /v2/arm", 200, json!({ "armed": true })), ("POST /v2/disarm", 200, json!({ "armed": false }))];
    let fake = Fake::start(Way::Socket, &answers)?;
    fake.run(&["arm"])?.prints(0, "armed: Tandem fences dead hosts and evacuates their instances\n");
    fake.run(&["disarm", "--reason", "switch upgrade"])?
        .prints(0, "disarmed: nothing is fenced or evacuated until `tandem arm`\n");
    fake.run(&["arm", "--json"])?.prints(0, "{\"armed\":true}\n");
    assert_eq!(fake.asked(), ["POST /v2/arm {}", "POST /v2/disarm {\"reason\":\"switch upgrade\"}", "POST /v2/arm {}"]);
    Ok(())
}

#[test]
fn an_order_that_was_taken_and_not_carried_out_is_a_failure() -> Result<()> {
    let answers =
        [("POST /v2/arm", 200, json!({ "armed": false })), ("POST /v2/disarm", 200, json!({ "armed": true }))];
    let fake = Fake::start(Way::Socket, &answers)?;
    fake.run(&["arm"])?.fails(1, &["says that it is disarmed"]);
    fake.run(&["disarm", "--reason", "r"])?.fails(1, &["says that it is armed"]);
    Ok(())
}

#[test]
fn release_takes_the_beginning_of_an_id_and_says_what_still_holds() -> Result<()> {
    let held = json!({ "incident": with(summary(), json!({ "hold": hold() })) });
    let post = format!("POST /v2/incidents/{CMP1}/release");
    let answers = [("GET /v2/incidents", 200, json!({ "incidents": [summary()] })), (post.as_str(), 200, held)];
    let fake = Fake::start(Way::Socket, &answers)?;
    let golden = "\
cmp1: released; incident 3f2a8c11-5b0e-4a57-9d1c-000000000001 is evacuating
HELD by the gate \"mass failure\" since 2026-11-03 03:12:50Z: 2 of 3 hosts are silent
`tandem incident show 3f2a8c11-5b0e-4a57-9d1c-000000000001 --follow` shows how it goes on
";
    fake.run(&["release", "3f2a", "--reason", "rack 3 lost power"])?.prints(0, golden);
    assert_eq!(fake.asked()[2], format!("{post} {{\"reason\":\"rack 3 lost power\"}}"));
    Ok(())
}

#[test]
fn release_takes_what_the_log_and_the_holds_call_an_incident() -> Result<()> {
    let post = format!("POST /v2/incidents/{CMP1}/release");
    let one = json!({ "incident": summary() });
    for (given, path) in [("cmp1", "cmp1"), ("cmp1/2", "cmp1%2F2")] {
        let by_host = format!("GET /v2/incidents/{path}");
        let fake = Fake::start(Way::Socket, &[(&by_host, 200, one.clone()), (&post, 200, one.clone())])?;
        let ran = fake.run(&["release", given, "--reason", "r"])?;
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        assert_eq!(fake.asked(), [by_host, format!("{post} {{\"reason\":\"r\"}}")]);
    }
    let several = "\"cmp1\" has several open incidents: name one by its id, a and b";
    let fake = Fake::start(Way::Socket, &[("GET /v2/incidents/cmp1", 409, error(409, several))])?;
    fake.run(&["release", "cmp1", "--reason", "r"])?.fails(1, &[several]);
    assert_eq!(fake.asked().len(), 1, "nothing is released");
    Ok(())
}

#[test]
fn fence_passes_on_the_operators_word() -> Result<()> {
    let fenced = json!({ "incident": with(summary(), json!({ "phase": "closed" })) });
    let fake = Fake::start(Way::Socket, &[("POST /v2/hosts/cmp1/fence", 200, fenced.clone())])?;
    let args = ["fence", "cmp1", "--manual", "--reason", "pulled the cords"];
    let golden = "cmp1: recorded as off; incident 3f2a8c11-5b0e-4a57-9d1c-000000000001 is closed\n";
    fake.run(&args)?.prints(0, golden);
    fake.run(&[&args[..], &["--json"]].concat())?.prints(0, &format!("{fenced}\n"));
    assert_eq!(fake.asked()[0], "POST /v2/hosts/cmp1/fence {\"method\":\"manual\",\"reason\":\"pulled the cords\"}");
    Ok(())
}

#[test]
fn orders_need_their_reason_and_fence_its_manual() -> Result<()> {
    let fake = Fake::start(Way::Socket, &[])?;
    fake.run(&["disarm"])?.fails(2, &["--reason"]);
    fake.run(&["disarm", "--reason", "  "])?.fails(2, &["must not be empty"]);
    fake.run(&["release", CMP1])?.fails(2, &["--reason"]);
    fake.run(&["fence", "cmp1", "--reason", "r"])?.fails(2, &["--manual"]);
    assert!(fake.asked().is_empty());
    Ok(())
}

#[test]
fn a_conflict_is_told_in_the_daemons_words() -> Result<()> {
    let release = format!("POST /v2/incidents/{CMP1}/release");
    let answers = [
        (release.as_str(), 409, error(409, "nothing is held that a person may release")),
        ("POST /v2/hosts/cmp1/fence", 409, error(409, "cmp1 is alive: heard on mgmt 0.4 s ago")),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    fake.run(&["release", CMP1, "--reason", "r"])?
        .fails(1, &["409: nothing is held that a person may release", &format!("`tandem incident show {CMP1}`")]);
    fake.run(&["fence", "cmp1", "--manual", "--reason", "r"])?
        .fails(1, &["409: cmp1 is alive: heard on mgmt 0.4 s ago", "`tandem status`"]);
    Ok(())
}

#[test]
fn a_port_that_only_reads_is_told_from_a_thing_that_is_not_there() -> Result<()> {
    let commands: [&[&str]; 4] = [
        &["arm"],
        &["disarm", "--reason", "r"],
        &["release", CMP1, "--reason", "r"],
        &["fence", "cmp1", "--manual", "--reason", "r"],
    ];
    for status in [403, 404, 405] {
        let fake = reading_port(status)?;
        for command in commands {
            fake.run(command)?.fails(1, &["only reads", &status.to_string(), "unix:/run/tandem/ha.sock", "as root"]);
        }
    }
    let fake = reading_port(404)?;
    fake.run(&["release", "00000000-0000-4000-8000-000000000000", "--reason", "r"])?.fails(4, &["no such incident"]);
    fake.run(&["fence", "cmp9", "--manual", "--reason", "r"])?.fails(4, &["no such host: cmp9"]);
    Ok(())
}

fn reading_port(status: u16) -> Result<Fake> {
    let (one, release) = (format!("GET /v2/incidents/{CMP1}"), format!("POST /v2/incidents/{CMP1}/release"));
    let refused = || error(status, "orders go elsewhere");
    let answers: [(&str, u16, Value); 6] = [
        ("GET /v2/hosts", 200, hosts()),
        (&one, 200, json!({ "incident": summary() })),
        (&release, status, refused()),
        ("POST /v2/arm", status, refused()),
        ("POST /v2/disarm", status, refused()),
        ("POST /v2/hosts/cmp1/fence", status, refused()),
    ];
    Fake::start(Way::Tcp, &answers)
}

#[test]
fn on_the_socket_404_is_not_found_and_403_is_the_daemons_word() -> Result<()> {
    let release = format!("POST /v2/incidents/{CMP1}/release");
    let answers = [
        (release.as_str(), 404, error(404, "there is no such incident")),
        ("POST /v2/hosts/cmp9/fence", 404, error(404, "Nova has no host cmp9")),
        ("POST /v2/arm", 403, error(403, "uid 1000 may not")),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    fake.run(&["release", CMP1, "--reason", "r"])?.fails(4, &["there is no such incident"]);
    fake.run(&["fence", "cmp9", "--manual", "--reason", "r"])?.fails(4, &["Nova has no host cmp9"]);
    fake.run(&["arm"])?.fails(1, &["403: uid 1000 may not"]);
    Ok(())
}

#[test]
fn a_daemon_that_takes_orders_over_tcp_gets_them() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("POST /v2/arm", 200, json!({ "armed": true }))])?;
    assert_eq!(fake.run(&["arm"])?.code, Some(0));
    Ok(())
}
