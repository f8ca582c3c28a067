//! How a tandem-node is found, which of several is asked, and what is shown of nodes, pools and the arbiter.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::fake::{Fake, Ran, Way, refusal, tandem};

const BOOT: &str = "7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e";
const GONE: &str = "http://127.0.0.1:1";

fn no_pools() -> Result<Fake> {
    Fake::start(Way::Tcp, &[("GET /v1/pools", 200, json!({ "pools": [], "unreachable": [] }))])
}

#[test]
fn the_option_overrides_the_variable_overrides_the_file() -> Result<()> {
    let home = tempfile::tempdir()?;
    let [behind, before, variable, file] = [no_pools()?, no_pools()?, no_pools()?, no_pools()?];
    fs::create_dir_all(home.path().join(".config/tandem"))?;
    fs::write(home.path().join(".config/tandem/tandem.toml"), format!("ha = 'unix:/x'\nnode = '{}'\n", file.url))?;
    let run = |args: &[&str], url: Option<&str>| {
        Ran::of(tandem(home.path()).args(args).envs(url.map(|url| ("TANDEM_NODE_URL", url))))
    };
    let seen = || [&behind, &before, &variable, &file].map(|fake| fake.asked().len());
    run(&["pool", "list"], None)?.prints(0, "no pools\n");
    assert_eq!(seen(), [0, 0, 0, 1]);
    run(&["pool", "list"], Some(&variable.url))?.prints(0, "no pools\n");
    assert_eq!(seen(), [0, 0, 1, 1]);
    run(&["--node", &before.url, "pool", "list"], Some(&variable.url))?.prints(0, "no pools\n");
    assert_eq!(seen(), [0, 1, 1, 1]);
    run(&["pool", "list", "--node", &behind.url], Some(&variable.url))?.prints(0, "no pools\n");
    assert_eq!(seen(), [1, 1, 1, 1]);
    Ok(())
}

#[test]
fn the_next_is_asked_when_one_is_not_reached() -> Result<()> {
    let home = tempfile::tempdir()?;
    let there = no_pools()?;
    Ran::of(tandem(home.path()).args(["--node", GONE, "--node", &there.url, "pool", "list"]))?.prints(0, "no pools\n");
    let both = format!("{GONE},{}", there.url);
    Ran::of(tandem(home.path()).args(["pool", "list"]).env("TANDEM_NODE_URL", &both))?.prints(0, "no pools\n");
    let file = home.path().join("t.toml");
    fs::write(&file, format!("node = ['{GONE}', '{}']\n", there.url))?;
    Ran::of(tandem(home.path()).arg("--config").arg(&file).args(["pool", "list"]))?.prints(0, "no pools\n");
    assert_eq!(there.asked().len(), 3);
    let ran = Ran::of(tandem(home.path()).args(["--node", GONE, "--node", "unix:/none", "pool", "list"]))?;
    ran.fails(
        3,
        &["none of 2 addresses answers", GONE, "unix:/none", "systemctl status tandem-node", "TANDEM_NODE_URL"],
    );
    Ok(())
}

#[test]
fn without_a_word_the_control_socket_is_asked() -> Result<()> {
    let home = tempfile::tempdir()?;
    if std::path::Path::new("/run/tandem/node.sock").exists()
        || std::path::Path::new("/etc/tandem/tandem.toml").exists()
    {
        return Ok(());
    }
    Ran::of(tandem(home.path()).args(["volume", "list"]))?
        .fails(3, &["cannot reach tandem-node at unix:/run/tandem/node.sock (the default)"]);
    Ok(())
}

#[test]
fn an_order_that_may_have_been_taken_is_not_given_to_another_node() -> Result<()> {
    let (silent, other) = (Fake::stranger(None)?, no_pools()?);
    let mut command = silent.node_command();
    command.args(["--node", &other.url, "--timeout", "0.3", "volume", "demote", "db-1"]);
    Ran::of(&mut command)?.fails(3, &["gave no answer to POST", "it may have been done", "`tandem volume list`"]);
    assert!(other.asked().is_empty(), "{:?}", other.asked());
    // A question may be asked twice.
    let mut command = silent.node_command();
    Ran::of(command.args(["--node", &other.url, "--timeout", "0.3", "pool", "list"]))?.prints(0, "no pools\n");
    Ok(())
}

#[test]
fn the_two_options_node_are_told_apart() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("POST /v1/volumes/db-1/promote", 409, refusal("held", "no", None))])?;
    fake.node(&["volume", "promote", "db-1", "--node", "cmp2"])?.fails(5, &["409: no"]);
    assert_eq!(fake.asked(), ["POST /v1/volumes/db-1/promote {\"node\":\"cmp2\"}"]);
    fake.node(&["volume", "promote", "db-1", "--node", &fake.url])?.fails(2, &["stands before the command"]);
    Ok(())
}

#[test]
fn a_wrong_file_is_named_with_its_key() -> Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("tandem.toml");
    for (text, said) in [
        ("node = 1", "key `node`: must be text, is integer: 1"),
        ("node = []", "key `node`: must be text, is array"),
        ("node = ['unix:/a', 'cmp1']", "key `node`: \"cmp1\" is no address"),
        ("nodes = 'unix:/a'", "unknown key `nodes`"),
    ] {
        fs::write(&file, text)?;
        let ran = Ran::of(tandem(home.path()).arg("--config").arg(&file).args(["volume", "list"]))?;
        ran.fails(2, &[&file.display().to_string(), said, "`node = [\"URL\", ...]`"]);
    }
    Ok(())
}

fn nodes() -> Value {
    let dead = json!({ "node": "cmp2", "boot_id": BOOT, "why": "cords pulled", "by": "tandem://admin/alice",
                       "at": "2026-11-03T03:12:50.000000Z" });
    json!({ "nodes": [
        { "name": "cmp1", "reached": true, "version": "0.1.0", "boot_id": BOOT, "rest": "https://198.18.1.1:15870",
          "peers": "198.18.1.1:15871", "started_at": null, "volumes": 3, "dead": null },
        { "name": "cmp2", "reached": false, "version": null, "boot_id": null, "rest": "https://198.18.1.2:15870",
          "peers": "198.18.1.2:15871", "started_at": null, "volumes": null, "dead": dead, "why": "connection refused" },
    ] })
}

#[test]
fn nodes_are_listed_with_who_vouches_for_a_dead_one() -> Result<()> {
    let one = nodes()["nodes"][0].clone();
    let fake = Fake::start(Way::Socket, &[("GET /v1/nodes", 200, nodes()), ("GET /v1/nodes/cmp1", 200, one)])?;
    let golden = "\
NODE  STATE    VERSION  VOLUMES  BOOT ID                               REST                      WHY
cmp1  reached  0.1.0    3        7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e  https://198.18.1.1:15870  -
cmp2  dead     -        -        -                                     https://198.18.1.2:15870  connection refused
  cmp2: boot 7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e dead since 2026-11-03 03:12:50Z by tandem://admin/alice: cords pulled
";
    fake.node(&["node", "list"])?.prints(0, golden);
    let golden = "\
node cmp1
  state    reached
  version  0.1.0
  started  -
  boot id  7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e
  REST     https://198.18.1.1:15870
  peers    198.18.1.1:15871
  volumes  3
";
    fake.node(&["node", "show", "cmp1"])?.prints(0, golden);
    fake.node(&["node", "list", "--json"])?.prints(0, &format!("{}\n", nodes()));
    Ok(())
}

#[test]
fn dead_alive_and_fences_pass_the_operators_word_on() -> Result<()> {
    let dead = nodes()["nodes"][1]["dead"].clone();
    let fence = json!({ "host": "cmp3", "by": "tandem://admin/alice", "why": "hangs", "at": "2026-11-03T03:12:50.0Z" });
    let answers = [
        ("PUT /v1/nodes/cmp2/dead", 200, dead),
        ("DELETE /v1/nodes/cmp2/dead", 204, json!(null)),
        ("PUT /v1/fences/cmp3", 200, fence.clone()),
        ("GET /v1/fences", 200, json!({ "version": 4, "fences": [fence] })),
        ("DELETE /v1/fences/cmp3", 200, json!({})),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    let ran = fake.node(&["node", "dead", "cmp2", "--boot-id", BOOT, "--why", "cords pulled"])?;
    ran.prints(0, &format!("cmp2: boot {BOOT} is known to be dead, by tandem://admin/alice: cords pulled\n"));
    fake.node(&["node", "alive", "cmp2"])?.prints(0, "cmp2: not known to be dead any more\n");
    fake.node(&["node", "alive", "cmp2", "--json"])?.prints(0, "");
    fake.node(&["node", "fence-host", "cmp3", "--why", "hangs"])?
        .prints(0, "cmp3: fenced, shut out of every volume that is served\n");
    let golden = "\
HOST  SINCE                 BY                    WHY
cmp3  2026-11-03 03:12:50Z  tandem://admin/alice  hangs
";
    fake.node(&["node", "fences"])?.prints(0, golden);
    fake.node(&["node", "unfence-host", "cmp3"])?.prints(0, "cmp3: let in again\n");
    let put = format!("PUT /v1/nodes/cmp2/dead {{\"boot_id\":\"{BOOT}\",\"why\":\"cords pulled\"}}");
    assert_eq!(fake.asked()[0], put);
    assert_eq!(fake.asked()[3], "PUT /v1/fences/cmp3 {\"why\":\"hangs\"}");
    Ok(())
}

#[test]
fn a_fence_that_is_not_everywhere_names_the_volumes() -> Result<()> {
    let said = "db-1 and db-2 have not recorded it";
    let fake = Fake::start(Way::Tcp, &[("PUT /v1/fences/cmp3", 409, refusal("refused", said, Some("try again")))])?;
    fake.node(&["node", "fence-host", "cmp3", "--why", "x"])?.fails(1, &["tandem-node refused PUT", said, "try again"]);
    Ok(())
}

#[test]
fn pools_are_listed_and_a_full_one_is_loud() -> Result<()> {
    let pool = |node: &str, free: u64, full: bool| {
        json!({ "node": node, "name": "default", "path": "/var/lib/tandem/pools/default", "size_bytes": 1_u64 << 40,
                "free_bytes": free, "volumes": 2, "full": full })
    };
    let pools = json!({ "pools": [pool("cmp1", 3 << 38, false), pool("cmp2", 4096, true)], "unreachable": ["cmp3"] });
    let fake = Fake::start(Way::Tcp, &[("GET /v1/pools", 200, pools)])?;
    let golden = "\
NODE  POOL     SIZE   FREE     STATE              VOLUMES  PATH
cmp1  default  1 TiB  768 GiB  has room           2        /var/lib/tandem/pools/default
cmp2  default  1 TiB  4 KiB    FULL: writes wait  2        /var/lib/tandem/pools/default
NOT REACHED: cmp3; what only they know is missing
";
    fake.node(&["pool", "list"])?.prints(0, golden);
    Ok(())
}

#[test]
fn an_arbiter_that_is_not_reached_ends_with_5() -> Result<()> {
    let status = |reached: bool, why: Value| {
        json!({ "kind": "embedded", "at": ["https://198.18.1.9:15872"], "reached": reached, "incarnation": BOOT,
                "latency_ms": reached.then_some(0.84), "records": 12, "why": why })
    };
    let fake = Fake::start(Way::Tcp, &[("GET /v1/arbiter", 200, status(true, json!(null)))])?;
    let golden = "\
arbiter, embedded, at https://198.18.1.9:15872
  state        answers in 0.8 ms
  records      12
  incarnation  7d1f6c0e-90a3-4b7a-9d6e-3f3a2b1c0d9e
";
    fake.node(&["arbiter", "status"])?.prints(0, golden);
    let away = status(false, json!("connection refused"));
    let fake = Fake::start(Way::Tcp, &[("GET /v1/arbiter", 200, away.clone())])?;
    let ran = fake.node(&["arbiter", "status"])?;
    assert!(ran.code == Some(5) && ran.out.contains("NOT REACHED: connection refused\n"), "{ran:#?}");
    fake.node(&["arbiter", "status", "--json"])?.prints(5, &format!("{away}\n"));
    Ok(())
}

#[test]
fn rebuild_is_confirmed_first_and_tells_what_became_of_each_volume() -> Result<()> {
    let rebuilt = json!({ "volumes": [
        { "uuid": "0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0cf", "name": "db-1", "generation": 7, "rebuilt": true, "why": "put back" },
        { "uuid": "0c6e4cf1-7f0e-4a55-bb8e-3a1cc1a5b0c0", "name": "db-2", "generation": 3, "rebuilt": false, "why": "ask again" },
    ] });
    let fake = Fake::start(Way::Tcp, &[("POST /v1/arbiter/rebuild", 200, rebuilt)])?;
    let mut command = fake.node_command();
    Ran::of(command.args(["arbiter", "rebuild"]).stdin(Stdio::null()))?
        .fails(2, &["rebuilding the arbiter's records wants to be confirmed", "--yes confirms it unasked"]);
    assert!(fake.asked().is_empty());
    let told = "db-1: made anew: put back\ndb-2: left as it is: ask again\n";
    fake.node(&["arbiter", "rebuild", "--yes"])?.prints(0, told);
    fake.node(&["arbiter", "rebuild", "--yes", "--destroyed", "cmp3"])?.prints(0, told);
    assert_eq!(
        fake.asked(),
        [
            "POST /v1/arbiter/rebuild {\"confirm\":true}",
            "POST /v1/arbiter/rebuild {\"confirm\":true,\"destroyed\":[\"cmp3\"]}",
        ]
    );
    Ok(())
}

#[test]
fn events_are_a_line_each_and_come_again_after_a_break() -> Result<()> {
    let said = |text: &str| json!({ "volume": "u", "name": "db-1", "node": "cmp1", "at": "2026-11-03T03:12:44.120000Z", "text": text });
    let stream = |text: &str| format!(": hello\n\nevent: said\ndata: {}\n\n", said(text));
    let answers =
        [("GET /v1/events", 200, stream("drops cmp2\u{1b}[2J")), ("GET /v1/events", 200, stream("adds cmp2"))];
    for (json, first, second) in [
        (false, "2026-11-03 03:12:44.120Z  db-1  cmp1  drops cmp2 [2J".to_owned(), "adds cmp2"),
        (true, said("drops cmp2\u{1b}[2J").to_string(), "\"adds cmp2\""),
    ] {
        let fake = Fake::verbatim(Way::Socket, &answers)?;
        let mut command = fake.node_command();
        command.args(["events", "--volume", "db-1"]).args(json.then_some("--json")).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("it is piped")?).lines();
        assert_eq!(lines.next().context("it ended")??, first);
        assert!(lines.next().context("it ended")??.contains(second));
        kill_process(Pid::from_child(&child), Signal::INT)?;
        lines.for_each(drop);
        assert_eq!(child.wait()?.code(), Some(0), "Ctrl-C is how it ends");
        assert_eq!(fake.asked()[0], "GET /v1/events?volume=db-1");
    }
    Ok(())
}

#[test]
fn a_node_that_cannot_tell_of_events_is_no_silence() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("GET /v1/events", 404, refusal("not_found", "no volume db-9", None))])?;
    fake.node(&["events", "--volume", "db-9"])?.fails(4, &["404: no volume db-9"]);
    Fake::stranger(None)?
        .node(&["events", "--timeout", "0.3"])?
        .fails(3, &["gave no answer to GET /v1/events within 0.3 s"]);
    Ok(())
}
