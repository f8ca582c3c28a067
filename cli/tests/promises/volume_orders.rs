//! What changes a volume.

use std::process::Stdio;

use anyhow::Result;
use serde_json::{Value, json};

use crate::fake::{ATTACHMENT, DB1, Fake, Ran, Way, attachment, copying, refusal, replica, volume, with};

/// The path by which a volume is looked at again.
fn again() -> String {
    format!("GET /v1/volumes/{DB1}")
}

fn idle() -> Value {
    let replicas = [replica("cmp1", 0, "Secondary"), replica("cmp2", 1, "Secondary")];
    with(volume(), json!({ "primary": null, "serving": false, "replicas": replicas }))
}

#[test]
fn create_waits_until_every_replica_is_up_to_date_and_promoted() -> Result<()> {
    let begun = with(
        idle(),
        json!({ "state": "creating", "replicas": [with(replica("cmp1", 0, "Unknown"), json!({ "disk": "Unknown" }))] }),
    );
    let again = again();
    let answers = [("POST /v1/volumes", 201, begun), (again.as_str(), 200, idle()), (again.as_str(), 200, volume())];
    let fake = Fake::start(Way::Socket, &answers)?;
    let args = ["volume", "create", "db-1", "--size", "10G", "--on", "cmp1,cmp2", "--promote", "--uuid", DB1];
    let ran = fake.node(&args)?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.out, "db-1: created\ndb-1  Primary/Secondary  UpToDate/UpToDate  10 GiB, serving\n");
    let progress = "\
tandem: db-1  Unknown  Unknown  10 GiB, creating
tandem: db-1  Secondary/Secondary  UpToDate/UpToDate  10 GiB, no Primary
";
    assert_eq!(ran.err, progress);
    let body = json!({ "name": "db-1", "promote": true, "replicas": ["cmp1", "cmp2"], "size_bytes": 10_737_418_240_u64,
                       "uuid": DB1 });
    assert_eq!(fake.asked()[0], format!("POST /v1/volumes {body}"));
    Ok(())
}

#[test]
fn create_asks_for_what_was_typed_and_no_more() -> Result<()> {
    let fake = Fake::start(Way::Socket, &[("POST /v1/volumes", 201, volume())])?;
    let args =
        ["volume", "create", "x", "--size", "4096", "--replicas", "3", "--pool", "fast", "--durability", "write"];
    assert_eq!(fake.node(&[&args[..], &["--promote", "cmp1", "--uuid", DB1]].concat())?.code, Some(0));
    let body = json!({ "durability": "write", "name": "x", "pool": "fast", "promote": "cmp1", "replicas": 3,
                       "size_bytes": 4096, "uuid": DB1 });
    assert_eq!(fake.asked(), [format!("POST /v1/volumes {body}")]);
    let ran = fake.node(&["volume", "create", "x", "--size", "1M", "--json"])?;
    ran.prints(0, &format!("{}\n", volume()));
    let asked = fake.asked().remove(1);
    assert!(asked.contains("\"replicas\":2") && asked.contains("\"uuid\":\"") && !asked.contains("promote"), "{asked}");
    Ok(())
}

#[test]
fn a_create_without_an_answer_tells_how_it_is_continued() -> Result<()> {
    let ran =
        Fake::stranger(None)?.node(&["volume", "create", "x", "--size", "1G", "--uuid", DB1, "--timeout", "0.3"])?;
    ran.fails(3, &[&format!("given again with --uuid {DB1}, it continues"), "gave no answer to POST /v1/volumes"]);
    Ok(())
}

#[test]
fn what_does_not_come_about_in_time_is_a_failure_that_says_how_it_stands() -> Result<()> {
    let again = again();
    let fake = Fake::start(Way::Socket, &[("POST /v1/volumes/db-1/promote", 200, idle()), (&again, 200, idle())])?;
    let ran = fake.node(&["volume", "promote", "db-1", "--node", "cmp2", "--wait", "0.2"])?;
    ran.fails(
        1,
        &["not yet is it so that cmp2 serves it, after 0.2 s", "no Primary", "`tandem volume show db-1 --watch`"],
    );
    Ok(())
}

#[test]
fn promote_and_demote_show_the_volume_as_it_is_then() -> Result<()> {
    let answers = [("POST /v1/volumes/db-1/promote", 200, volume()), ("POST /v1/volumes/db-1/demote", 200, idle())];
    let fake = Fake::start(Way::Tcp, &answers)?;
    fake.node(&["volume", "promote", "db-1"])?
        .prints(0, "db-1: promoted\ndb-1  Primary/Secondary  UpToDate/UpToDate  10 GiB, serving\n");
    fake.node(&["volume", "demote", "db-1"])?
        .prints(0, "db-1: demoted\ndb-1  Secondary/Secondary  UpToDate/UpToDate  10 GiB, no Primary\n");
    fake.node(&["volume", "demote", "db-1", "--json"])?.prints(0, &format!("{}\n", idle()));
    assert_eq!(fake.asked()[..2], ["POST /v1/volumes/db-1/promote {}", "POST /v1/volumes/db-1/demote {}"]);
    Ok(())
}

#[test]
fn delete_is_confirmed_or_said_to_be_meant() -> Result<()> {
    let answers = [("GET /v1/volumes/db-1", 200, volume()), ("DELETE /v1/volumes/db-1", 200, json!({}))];
    let fake = Fake::start(Way::Socket, &answers)?;
    Ran::of(fake.node_command().args(["volume", "delete", "db-1"]).stdin(Stdio::null()))?
        .fails(2, &["deleting a volume wants to be confirmed", "--yes"]);
    assert_eq!(fake.asked(), ["GET /v1/volumes/db-1"]);
    fake.node(&["volume", "delete", "db-1", "--yes"])?.prints(0, "db-1: deleted\n");
    assert_eq!(fake.asked()[1], "DELETE /v1/volumes/db-1");
    let said = refusal("in_use", "cmp3 has it open", Some("revoke its attachment"));
    let fake = Fake::start(Way::Socket, &[("DELETE /v1/volumes/db-1", 409, said)])?;
    fake.node(&["volume", "delete", "db-1", "--yes"])?.fails(1, &["cmp3 has it open", "revoke its attachment"]);
    Ok(())
}

#[test]
fn force_primary_says_what_may_be_lost_and_wants_the_name() -> Result<()> {
    let gone = json!({ "role": "Unknown", "disk": "Unknown", "reached": false });
    let before = json!({ "serving": false, "primary": null, "replicas": [with(replica("cmp1", 0, "x"), gone),
        with(replica("cmp2", 1, "Secondary"), json!({ "disk": "Outdated", "in_sync": false }))] });
    let after = with(volume(), json!({ "primary": "cmp2" }));
    let post = "POST /v1/volumes/db-1/force-primary";
    let fake = Fake::start(Way::Socket, &[("GET /v1/volumes/db-1", 200, with(volume(), before)), (post, 200, after)])?;
    let args = ["volume", "force-primary", "db-1", "--node", "cmp2", "--destroyed", "cmp1"];
    Ran::of(fake.node_command().args(args).stdin(Stdio::null()))?.fails(
        2,
        &[
            "cmp2 is Outdated: writes that were acknowledged without it are lost",
            "cmp1 is retired for good: what only it has is lost, and if it lives after all, two Primaries write",
            "force-primary wants to be confirmed",
            "--name NAME",
        ],
    );
    assert_eq!(fake.asked().len(), 1);
    let mut command = fake.node_command();
    let ran = Ran::of(command.args(args).args(["--name", "db-1"]).env("SUDO_USER", "alice"))?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let body = json!({ "by": "alice", "destroyed": ["cmp1"], "name": "db-1", "node": "cmp2" });
    assert_eq!(fake.asked()[1], format!("{post} {body}"));
    Ok(())
}

#[test]
fn resync_without_waiting_says_where_to_look() -> Result<()> {
    let answers =
        [("GET /v1/volumes/db-1", 200, volume()), ("POST /v1/volumes/db-1/resync", 200, copying(10_737_418_240, 8))];
    let fake = Fake::start(Way::Tcp, &answers)?;
    let golden = "db-1: cmp2 copies everything anew; `tandem volume show db-1 --watch` shows how far it is\n";
    fake.node(&["volume", "resync", "db-1", "--node", "cmp2"])?.prints(0, golden);
    assert_eq!(fake.asked()[1], "POST /v1/volumes/db-1/resync {\"node\":\"cmp2\"}");
    Ok(())
}

#[test]
fn resync_waits_until_the_replica_has_left_and_is_back() -> Result<()> {
    let again = again();
    let done = with(volume(), json!({ "generation": 9 }));
    let answers = [
        ("GET /v1/volumes/db-1", 200, volume()),
        // As if nothing had happened yet.
        ("POST /v1/volumes/db-1/resync", 200, volume()),
        (again.as_str(), 200, copying(6_100_000_000, 8)),
        (again.as_str(), 503, refusal("unreachable", "starting", None)),
        (again.as_str(), 200, copying(6_099_990_000, 8)),
        (again.as_str(), 200, done),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    let ran = fake.node(&["volume", "resync", "db-1", "--node", "cmp2", "--wait"])?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert_eq!(ran.out, "db-1: resync\ndb-1  Primary/Secondary  UpToDate/UpToDate  10 GiB, serving\n");
    let copy = "tandem: db-1  Primary/Secondary  UpToDate/Inconsistent  10 GiB, serving; cmp2 Inconsistent 43.1 % 112 MiB/s, 51 s left\n";
    assert_eq!(ran.err.matches(copy).count(), 1, "{ran:#?}");
    assert!(ran.err.contains("503: starting"), "{ran:#?}");
    Ok(())
}

#[test]
fn attach_for_an_initiator_prints_what_it_logs_in_with() -> Result<()> {
    let path = format!("PUT /v1/volumes/db-1/attachments/{ATTACHMENT}");
    let mut answer = attachment();
    answer["target"] = json!("iqn.2026-11.org.tandem:volume-1");
    answer["chap"] = json!({ "user": "u1", "secret": "a long secret" });
    let fake = Fake::start(Way::Tcp, &[(&path, 200, answer)])?;
    let golden = format!(
        "db-1: attached to cmp3 with the id {ATTACHMENT}\n  NBD export  {DB1}/{ATTACHMENT}\n  \
         iSCSI target  iqn.2026-11.org.tandem:volume-1\n  CHAP user  u1\n  CHAP secret  a long secret\n"
    );
    let words = ["volume", "attach", "db-1", "--host", "cmp3", "--initiator", "iqn.a", "--id", ATTACHMENT];
    fake.node(&words)?.prints(0, &golden);
    assert_eq!(fake.asked(), [format!("{path} {{\"host\":\"cmp3\",\"initiator\":\"iqn.a\",\"read_only\":false}}")]);
    Ok(())
}

#[test]
fn attach_prints_the_export_and_revoke_ends_it() -> Result<()> {
    let path = format!("/v1/volumes/db-1/attachments/{ATTACHMENT}");
    let (put, delete) = (format!("PUT {path}"), format!("DELETE {path}"));
    let fake = Fake::start(Way::Tcp, &[(&put, 200, attachment()), (&delete, 200, attachment())])?;
    let golden = format!("db-1: attached to cmp3 with the id {ATTACHMENT}\n  NBD export  {DB1}/{ATTACHMENT}\n");
    fake.node(&["volume", "attach", "db-1", "--host", "cmp3", "--id", ATTACHMENT])?.prints(0, &golden);
    fake.node(&["volume", "revoke", "db-1", ATTACHMENT])?
        .prints(0, &format!("db-1: {ATTACHMENT} is revoked; nothing is read or written through it any more\n"));
    assert_eq!(fake.asked(), [format!("{put} {{\"host\":\"cmp3\",\"read_only\":false}}"), delete]);
    Ok(())
}
