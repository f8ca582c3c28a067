//! What is shown of volumes.

use anyhow::Result;
use serde_json::{Value, json};

use crate::fake::{DB1, Fake, Way, copying, refusal, replica, volume, with};

fn listed(volumes: &[Value], unreachable: &[&str]) -> Result<Fake> {
    let body = json!({ "volumes": volumes, "unreachable": unreachable });
    Fake::start(Way::Socket, &[("GET /v1/volumes", 200, body)])
}

#[test]
fn volumes_are_listed_in_drbds_words_with_what_goes_on() -> Result<()> {
    let copying = with(copying(6_100_000_000, 8), json!({ "name": "db-2" }));
    let lost = json!({ "role": "Unknown", "disk": "Unknown", "reached": false, "in_sync": true });
    let frozen = json!({ "name": "db-3", "serving": false, "why": "cmp2 does not answer; waits for the arbiter to drop it",
                         "replicas": [replica("cmp1", 0, "Primary"), with(replica("cmp2", 1, "x"), lost)] });
    let replicas = [replica("cmp1", 0, "Secondary"), with(replica("cmp2", 1, "Secondary"), json!({ "full": true }))];
    let idle =
        json!({ "name": "db-4", "size_bytes": 1_u64 << 40, "primary": null, "serving": false, "replicas": replicas });
    let being_made = json!({ "name": "db-5", "state": "creating", "primary": null, "serving": false, "replicas": [] });
    let volumes = [volume(), copying, with(volume(), frozen), with(volume(), idle), with(volume(), being_made)];
    let golden = "\
NAME  SIZE    ROLES                DISKS                  PRIMARY  STATE
db-1  10 GiB  Primary/Secondary    UpToDate/UpToDate      cmp1     serving
db-2  10 GiB  Primary/Secondary    UpToDate/Inconsistent  cmp1     serving; cmp2 Inconsistent 43.1 % 112 MiB/s, 51 s left
db-3  10 GiB  Primary/Unknown      UpToDate/Unknown       cmp1     frozen: cmp2 does not answer; waits for the arbiter to drop it; cmp2 not reached
db-4  1 TiB   Secondary/Secondary  UpToDate/UpToDate      -        no Primary; cmp2 POOL FULL
db-5  10 GiB  -                    -                      -        creating
NOT REACHED: cmp9; what only they know is missing
";
    listed(&volumes, &["cmp9"])?.node(&["volume", "list"])?.prints(0, golden);
    Ok(())
}

#[test]
fn a_cloud_without_volumes_says_how_one_is_made() -> Result<()> {
    let ran = listed(&[], &[])?.node(&["volume", "list"])?;
    ran.prints(0, "no volumes; `tandem volume create NAME --size 10G` makes one\n");
    Ok(())
}

#[test]
fn a_volume_is_shown_on_one_screen() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("GET /v1/volumes/db-1", 200, copying(6_100_000_000, 8))])?;
    let golden = "\
volume db-1
  state       serving, Primary on cmp1
  size        10 GiB (10737418240 bytes)
  durability  flush
  generation  8, epoch 2
  uuid        5e0f7d0a-3a53-4c0e-9f43-000000000001
  created     -

REPLICAS
  NODE  PLACE  ROLE       DISK          IN SYNC  CONNECTED  MISSING  CLIENTS  REQUESTS  POOL
  cmp1  0      Primary    UpToDate      yes      cmp2       -        1        0         default
  cmp2  1      Secondary  Inconsistent  no       cmp1       5.6 GiB  0        0         default
  cmp2 [#################.......................] 4.3 GiB of 10 GiB, 43.1 % 112 MiB/s, 51 s left

ATTACHMENTS
  ID                                    HOST  ACCESS       STATE  EPOCH  EXPORT
  0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf  cmp3  read, write  valid  2      5e0f7d0a-3a53-4c0e-9f43-000000000001/0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf
";
    fake.node(&["volume", "show", "db-1"])?.prints(0, golden);
    Ok(())
}

#[test]
fn a_name_may_be_a_uuid_and_is_escaped() -> Result<()> {
    let path = format!("GET /v1/volumes/{DB1}");
    let gone = ("GET /v1/volumes/a%2F..%2Fb%3Fc", 404, refusal("not_found", "no such volume", None));
    let fake = Fake::start(Way::Tcp, &[(&path, 200, volume()), gone])?;
    assert_eq!(fake.node(&["volume", "show", DB1])?.code, Some(0));
    fake.node(&["volume", "show", "a/../b?c"])?.fails(4, &["no such volume"]);
    assert_eq!(fake.asked()[1], "GET /v1/volumes/a%2F..%2Fb%3Fc");
    Ok(())
}

#[test]
fn json_is_the_nodes_byte_for_byte() -> Result<()> {
    let odd = "{ \"volumes\" :\t[],\"z\":1.0e2, \"a\" : \"\\u00e9\" } ".to_owned();
    let fake =
        Fake::verbatim(Way::Tcp, &[("GET /v1/volumes", 200, odd.clone()), ("GET /v1/volumes/x", 200, odd.clone())])?;
    fake.node(&["volume", "list", "--json"])?.prints(0, &(odd.clone() + "\n"));
    fake.node(&["volume", "show", "x", "--json"])?.prints(0, &(odd + "\n"));
    Ok(())
}

#[test]
fn a_newer_node_with_other_words_and_fields_is_shown_as_it_speaks() -> Result<()> {
    let strange = json!({ "name": "db-1", "moon": 1, "replicas": [{ "node": "cmp1", "role": "Tertiary", "disk": 7 }, {}],
                          "attachments": null });
    let fake = Fake::start(Way::Tcp, &[("GET /v1/volumes/db-1", 200, strange)])?;
    let ran = fake.node(&["volume", "show", "db-1"])?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:#?}");
    assert!(ran.out.contains("Tertiary") && ran.out.contains("no Primary"), "{ran:#?}");
    Ok(())
}

#[test]
fn what_a_node_says_does_not_steer_the_terminal() -> Result<()> {
    let evil = with(volume(), json!({ "name": "db\u{1b}[2J\u{202e}", "serving": false, "why": "x\r\ny" }));
    let ran = listed(&[evil], &[])?.node(&["volume", "list"])?;
    assert!(ran.out.contains("db [2J ") && ran.out.contains("frozen: x  y"), "{ran:#?}");
    assert!(!ran.out.contains(['\u{1b}', '\u{202e}', '\r']), "{ran:#?}");
    Ok(())
}

#[test]
fn each_refusal_has_its_exit_code_and_the_nodes_remedy() -> Result<()> {
    for (status, code, exit) in [
        (404, "not_found", 4),
        (409, "held", 5),
        (409, "in_use", 1),
        (409, "refused", 1),
        (409, "conflict", 1),
        (400, "invalid", 1),
        (403, "forbidden", 1),
        (503, "unreachable", 3),
        (500, "internal", 1),
    ] {
        let body = refusal(code, "the message", Some("the remedy"));
        let fake = Fake::start(Way::Socket, &[("GET /v1/volumes/db-1", status, body)])?;
        let said = format!("tandem-node refused GET /v1/volumes/db-1 with {status}: the message\n  the remedy\n");
        for command in [&["volume", "show", "db-1"][..], &["volume", "show", "db-1", "--json"]] {
            fake.node(command)?.fails(exit, &[&said]);
        }
    }
    let fake =
        Fake::start(Way::Socket, &[("GET /v1/volumes/db-9", 404, refusal("not_found", "no volume db-9", None))])?;
    fake.node(&["volume", "show", "db-9"])?.fails(4, &["no volume db-9", "`tandem volume list` lists what there is"]);
    Ok(())
}

#[test]
fn attachments_are_listed() -> Result<()> {
    let one = with(crate::fake::attachment(), json!({ "revoked": true, "read_only": true, "initiator": "iqn.x" }));
    let fake = Fake::start(Way::Tcp, &[("GET /v1/volumes/db-1/attachments", 200, json!({ "attachments": [one] }))])?;
    let golden = "\
ID                                    HOST  ACCESS     STATE    EPOCH  INITIATOR  EXPORT
0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf  cmp3  read only  revoked  2      iqn.x      5e0f7d0a-3a53-4c0e-9f43-000000000001/0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf
";
    fake.node(&["volume", "attachments", "db-1"])?.prints(0, golden);
    Ok(())
}
