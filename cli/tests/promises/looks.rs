//! What only reads.

use anyhow::Result;
use serde_json::{Value, json};

use crate::fake::{CMP1, CMP2, Fake, Way, error, hold, hosts, plan, summary, whole, with};

fn status_with(incidents: &Value) -> Result<Fake> {
    let answers = [("GET /v2/hosts", 200, hosts()), ("GET /v2/incidents", 200, json!({ "incidents": incidents }))];
    Fake::start(Way::Socket, &answers)
}

#[test]
fn status_shows_hosts_and_the_progress_of_each_open_incident() -> Result<()> {
    let incident = with(summary(), json!({ "opened_at": null }));
    let fake = status_with(&json!([incident]))?;
    let golden = "\
tandem-ha at URL
armed: dead hosts are fenced and their instances evacuated
sees: Nova has not answered yet

HOST  STANDING    NOVA                    CHANNELS                            POWER               INCIDENT  WHY
cmp1  evacuating  down, forced, disabled  1 of 2: mgmt heartbeat never heard  off                 3f2a8c11  silent on mgmt and storage
cmp2  well        up                      1 of 1                              unknown, not bound  -         heard on mgmt
  cmp1: disabled: tandem: fenced
  cmp2: power: the BMC does not answer

OPEN INCIDENTS
cmp1  3f2a8c11  evacuating  [#####!!!!!>>>>>.....] 1 of 4 moved, 1 moving, 1 waiting, 1 named
  silent on mgmt and storage for 12 s
";
    fake.run(&["status"])?.prints(0, &golden.replace("URL", &fake.url));
    assert_eq!(fake.asked(), ["GET /v2/hosts", "GET /v2/incidents?state=open&limit=1000"]);
    Ok(())
}

#[test]
fn status_ends_with_held_and_says_how_to_release() -> Result<()> {
    let fake = status_with(&json!([with(summary(), json!({ "hold": hold() }))]))?;
    let ran = fake.run(&["status"])?;
    assert_eq!(ran.code, Some(5), "{ran:#?}");
    let held = "  HELD by the gate \"mass failure\" since 2026-11-03 03:12:50Z: 2 of 3 hosts are silent\n";
    assert!(ran.out.contains(held), "{ran:#?}");
    assert!(ran.out.contains("`tandem release 3f2a8c11 --reason ...` overrules the gate"), "{ran:#?}");
    fake.run(&["status", "--json"])?.prints(5, &format!("{}\n", hosts()));
    Ok(())
}

#[test]
fn only_what_a_person_may_overrule_is_to_be_released() -> Result<()> {
    let release = "`tandem release 3f2a8c11";
    for (gate, said) in [
        ("mass failure", Some(release)),
        ("flapping", Some(release)),
        ("maintenance", Some(release)),
        ("armed", Some("  `tandem arm` lets it go on\n")),
        ("we can see", None),
        ("somewhere to go", None),
        ("evidence", None),
        ("fence", None),
        ("BMC contradicts", None),
        ("return", None),
        ("moon", None),
    ] {
        let held = with(summary(), json!({ "hold": with(hold(), json!({ "gate": gate })) }));
        let one = format!("GET /v2/incidents/{CMP1}");
        let answers = [
            ("GET /v2/hosts", 200, hosts()),
            ("GET /v2/incidents", 200, json!({ "incidents": [&held] })),
            (one.as_str(), 200, json!({ "incident": held })),
        ];
        let fake = Fake::start(Way::Socket, &answers)?;
        for command in [&["status"][..], &["incident", "show", CMP1]] {
            let ran = fake.run(command)?;
            assert!(ran.out.contains(&format!("HELD by the gate \"{gate}\"")), "{ran:#?}");
            match said {
                Some(said) => assert!(ran.out.contains(said), "{gate}: {ran:#?}"),
                None => assert!(!ran.out.contains("`tandem "), "{gate}: {ran:#?}"),
            }
        }
    }
    Ok(())
}

#[test]
fn status_says_who_armed_or_disarmed_when_and_why() -> Result<()> {
    let with_order = |armed: bool, why: &str| {
        let by = json!({ "by": "uid 0 (root), pid 7", "why": why, "at": "2026-11-03T03:12:50.000000Z" });
        with(hosts(), json!({ "armed": armed, "armed_by": by }))
    };
    let said = |hosts: Value| -> Result<String> {
        let answers = [("GET /v2/hosts", 200, hosts), ("GET /v2/incidents", 200, json!({ "incidents": [] }))];
        Ok(Fake::start(Way::Tcp, &answers)?.run(&["status"])?.out)
    };
    let out = said(with_order(false, "switch upgrade"))?;
    let line = "`tandem arm`\n  disarmed since 2026-11-03 03:12:50Z by uid 0 (root), pid 7: switch upgrade\nsees";
    assert!(out.contains(line), "{out}");
    let out = said(with_order(true, "armed"))?;
    let line = "evacuated\n  armed since 2026-11-03 03:12:50Z by uid 0 (root), pid 7\nsees";
    assert!(out.contains(line), "{out}");
    let out = said(with(hosts(), json!({ "armed": false, "armed_by": null })))?;
    assert!(out.contains("`tandem arm`\nsees"), "{out}");
    Ok(())
}

#[test]
fn that_there_are_more_incidents_than_shown_is_said() -> Result<()> {
    let list = |more: Value| json!({ "incidents": [summary()], "more": more });
    let run = |more: Value, command: &[&str]| -> Result<String> {
        let answers = [("GET /v2/hosts", 200, hosts()), ("GET /v2/incidents", 200, list(more))];
        Ok(Fake::start(Way::Tcp, &answers)?.run(command)?.out)
    };
    let status = run(json!(true), &["status"])?;
    assert!(status.contains("MORE INCIDENTS ARE OPEN: these are the newest 1\n"), "{status}");
    assert!(!run(json!(false), &["status"])?.contains("MORE"));
    let some = run(json!(true), &["incidents", "--limit", "1"])?;
    assert!(some.ends_with("... and more: these are the newest 1, --limit N shows others\n"), "{some}");
    assert!(!run(json!(false), &["incidents", "--limit", "1"])?.contains("more"));
    // A daemon that does not tell.
    assert!(run(json!(null), &["incidents", "--limit", "1"])?.contains("... and more"));
    assert!(!run(json!(null), &["incidents", "--limit", "2"])?.contains("more"));
    Ok(())
}

#[test]
fn status_says_loudly_that_it_is_disarmed_or_blind() -> Result<()> {
    let blind = json!({ "armed": false, "hosts": [], "view": { "sees": false, "why": "Keystone does not answer",
                        "nova_answered_at": "2020-01-01T00:00:00Z" } });
    let answers = [("GET /v2/hosts", 200, blind), ("GET /v2/incidents", 200, json!({ "incidents": [] }))];
    let ran = Fake::start(Way::Tcp, &answers)?.run(&["status"])?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    assert!(ran.out.contains("DISARMED: nothing is fenced or evacuated until `tandem arm`\n"), "{ran:#?}");
    assert!(ran.out.contains("BLIND: Keystone does not answer; Nova answered"), "{ran:#?}");
    assert!(ran.out.contains("no hosts") && ran.out.contains("no open incidents"), "{ran:#?}");
    Ok(())
}

#[test]
fn a_newer_daemon_with_other_words_and_fields_is_shown_as_it_speaks() -> Result<()> {
    let host = json!({ "name": "cmp1", "standing": "levitating", "nova": null, "channels": null, "mood": [1],
                       "power": { "state": 7, "bound": null } });
    let hosts = json!({ "hosts": [host, {}], "armed": null, "view": null, "moon": "full" });
    let incident =
        json!({ "id": CMP1, "phase": "teleporting", "instances": { "total": 2, "beamed": 1 }, "hold": null });
    let answers = [("GET /v2/hosts", 200, hosts), ("GET /v2/incidents", 200, json!({ "incidents": [incident] }))];
    let ran = Fake::start(Way::Tcp, &answers)?.run(&["status"])?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:#?}");
    for word in ["levitating", "teleporting", "armed?", "sees?", "0 of 2 moved"] {
        assert!(ran.out.contains(word), "{word}: {ran:#?}");
    }
    Ok(())
}

#[test]
fn a_tenants_instance_name_does_not_steer_the_terminal() -> Result<()> {
    let evil = with(whole(), json!({ "moves": [{ "name": "vm\u{1b}[2J\u{202e}\nx", "state": "named", "why": "no" }] }));
    let fake = Fake::start(Way::Tcp, &[(&format!("GET /v2/incidents/{CMP1}"), 200, json!({ "incident": evil }))])?;
    let ran = fake.run(&["incident", "show", CMP1])?;
    assert!(ran.out.contains("vm [2J  x"), "{ran:#?}");
    assert!(!ran.out.contains(['\u{1b}', '\u{202e}']), "{ran:#?}");
    Ok(())
}

#[test]
fn incidents_are_listed_with_what_holds_them() -> Result<()> {
    let held = with(summary(), json!({ "hold": hold() }));
    let closed = with(whole(), json!({ "id": CMP2, "host": "cmp2" }));
    let fake = Fake::start(Way::Socket, &[("GET /v2/incidents", 200, json!({ "incidents": [held, closed] }))])?;
    let golden = "\
ID        HOST  KIND    PHASE                            OPENED                CLOSED                INSTANCES                                   WHY
3f2a8c11  cmp1  outage  evacuating, HELD (mass failure)  2026-11-03 03:12:44Z  -                     1 of 4 moved, 1 moving, 1 waiting, 1 named  silent on mgmt and storage for 12 s
3f2a8c22  cmp2  outage  closed, partly recovered         2026-11-03 03:12:44Z  2026-11-03 03:22:44Z  1 of 2 moved, 1 named                       silent on mgmt and storage for 12 s
";
    fake.run(&["incidents", "--all", "--host", "cmp 1&x", "--limit", "7"])?.prints(0, golden);
    assert_eq!(fake.asked(), ["GET /v2/incidents?state=all&limit=7&host=cmp+1%26x"]);
    Ok(())
}

#[test]
fn no_incidents_is_an_answer() -> Result<()> {
    let fake = Fake::start(Way::Tcp, &[("GET /v2/incidents", 200, json!({ "incidents": [] }))])?;
    fake.run(&["incidents"])?.prints(0, "no open incidents; closed ones: --all\n");
    fake.run(&["incidents", "--all", "--host", "cmp9"])?.prints(0, "no incidents of cmp9\n");
    assert_eq!(fake.asked()[0], "GET /v2/incidents?state=open&limit=100");
    Ok(())
}

#[test]
fn ids_are_shown_as_long_as_they_must_be_to_be_told_apart() -> Result<()> {
    let of = |id: &str| with(summary(), json!({ "id": id }));
    let incidents = json!({ "incidents": [of("3f2a8c11-aa"), of("3f2a8c11-ab")] });
    let ran = Fake::start(Way::Tcp, &[("GET /v2/incidents", 200, incidents)])?.run(&["incidents"])?;
    assert!(ran.out.contains("3f2a8c11-aa") && ran.out.contains("3f2a8c11-ab"), "{ran:#?}");
    Ok(())
}

#[test]
fn an_incident_tells_its_whole_story() -> Result<()> {
    let list = json!({ "incidents": [summary(), with(summary(), json!({ "id": CMP2 }))] });
    let one = format!("GET /v2/incidents/{CMP1}");
    let answers = [("GET /v2/incidents", 200, list), (one.as_str(), 200, json!({ "incident": whole() }))];
    let fake = Fake::start(Way::Socket, &answers)?;
    let golden = "\
incident 3f2a8c11-5b0e-4a57-9d1c-000000000001
  host       cmp1, outage 2
  phase      closed, partly recovered
  why        silent on mgmt and storage for 12 s
  opened     2026-11-03 03:12:44Z
  closed     2026-11-03 03:22:44Z (after 10 min 0 s)
  instances  [##########!!!!!!!!!!] 1 of 2 moved, 1 named

GATES
  yes  we can see    Nova and Keystone answered
  NO   mass failure  2 of 3 hosts are silent

RECEIPTS
  redfish by http://198.18.3.11:8000: two Off readings 1 s apart, read 2026-11-03 03:12:58.000Z

MOVES
  NAME  STATE  TO    TOOK   TRY  MIGRATION  INSTANCE  MIGRATION ID  REQUEST  WHY
  vm1   moved  cmp2  8.2 s  1    done       i1        m1            req-1    -
  vm2   named  -     -      1    -          i2        -             -        local root disk

TIMELINE
  2026-11-03 03:12:44.120Z     +0.0 s  phase     suspected
  2026-11-03 03:12:58.000Z    +13.9 s  fence     redfish: Off, read twice
";
    fake.run(&["incident", "show", "3F2A8C1"])?.prints(0, golden);
    let sought = ["GET /v2/incidents/3F2A8C1", "GET /v2/incidents?state=all&limit=1000"].map(str::to_owned);
    assert_eq!(fake.asked(), [&sought[..], &[one]].concat());
    Ok(())
}

/// A host that booted by itself: nothing moves.
fn rebooted() -> Value {
    let keys = json!({
        "kind": "reboot", "phase": "closed", "outcome": "rebooted", "moves": [], "receipts": [],
        "instances": { "total": 4, "moved": 0, "moving": 0, "waiting": 1, "named": 1, "asked": 1, "running": 1 },
        "restarts": [
            { "instance": "i1", "name": "vm1", "state": "running", "attempt": 1, "request_id": "req-1", "why": null,
              "asked_at": "2026-11-03T03:13:00.000000Z" },
            { "instance": "i2", "name": "vm2", "state": "asked", "attempt": 2, "request_id": null, "why": null,
              "asked_at": "2026-11-03T03:13:10.000000Z" },
            { "instance": "i3", "name": "vm3", "state": "waiting", "attempt": 0, "request_id": null, "why": null,
              "asked_at": null },
            { "instance": "i4", "name": "vm4", "state": "named", "attempt": 3, "request_id": "req-9",
              "why": "it did not start", "asked_at": "2026-11-03T03:13:20.000000Z" },
        ],
    });
    with(whole(), keys)
}

#[test]
fn the_guests_of_a_host_that_rebooted_are_told_one_by_one() -> Result<()> {
    let one = format!("GET /v2/incidents/{CMP1}");
    let fake = Fake::start(Way::Socket, &[(one.as_str(), 200, json!({ "incident": rebooted() }))])?;
    let ran = fake.run(&["incident", "show", CMP1])?;
    let golden = "
RECEIPTS
  none

RESTARTS
  NAME  STATE    TRY  ASKED                 INSTANCE  REQUEST  WHY
  vm1   running  1    2026-11-03 03:13:00Z  i1        req-1    -
  vm2   asked    2    2026-11-03 03:13:10Z  i2        -        -
  vm3   waiting  0    -                     i3        -        -
  vm4   named    3    2026-11-03 03:13:20Z  i4        req-9    it did not start

TIMELINE
";
    assert!(ran.out.contains(golden), "{ran:#?}");
    let counted = "[#####!!!!!>>>>>.....] 1 of 4 run again, 1 asked to start, 1 waiting, 1 named\n";
    assert!(ran.out.contains(counted), "{ran:#?}");
    Ok(())
}

#[test]
fn following_a_reboot_ends_with_the_guests_that_did_not_start() -> Result<()> {
    let one = format!("GET /v2/incidents/{CMP1}");
    let before = with(rebooted(), json!({ "phase": "restarting guests", "outcome": null, "closed_at": null }));
    let answers = [(&*one, 200, json!({ "incident": before })), (&*one, 200, json!({ "incident": rebooted() }))];
    let fake = Fake::start(Way::Socket, &answers)?;
    let ran = fake.run(&["incident", "show", CMP1, "--follow", "--interval", "0.1"])?;
    let golden = "\
cmp1: closed, 1 of 4 run again, 1 asked to start, 1 waiting, 1 named
  not started: vm4 (i4): it did not start
";
    assert!(ran.out.ends_with(golden), "{ran:#?}");
    Ok(())
}

#[test]
fn a_host_stands_for_its_incident() -> Result<()> {
    for (given, path) in [("cmp1", "cmp1"), ("cmp1/2", "cmp1%2F2"), ("Rack 3", "Rack%203")] {
        let (by_host, by_id) = (format!("GET /v2/incidents/{path}"), format!("GET /v2/incidents/{CMP1}"));
        let answer = json!({ "incident": whole() });
        let fake = Fake::start(Way::Socket, &[(&by_host, 200, answer.clone()), (&by_id, 200, answer)])?;
        for more in [&[][..], &["--follow"]] {
            let ran = fake.run(&[&["incident", "show", given], more].concat())?;
            assert_eq!(ran.code, Some(0), "{ran:#?}");
            assert!(ran.out.starts_with(&format!("incident {CMP1}\n")), "{ran:#?}");
        }
        assert_eq!(fake.asked(), [&*by_host, &*by_id, &*by_host, &*by_id]);
    }
    Ok(())
}

#[test]
fn a_void_receipt_is_not_overlooked() -> Result<()> {
    let void = json!([{ "kind": "redfish", "by": "b", "why": "w", "power_epoch": "2026-11-03T03:12:57Z",
                        "read_at": "2026-11-03T03:12:58Z", "void": "cmp1 was heard on mgmt" }]);
    let incident = json!({ "incident": with(whole(), json!({ "receipts": void })) });
    let ran = Fake::start(Way::Tcp, &[(&format!("GET /v2/incidents/{CMP1}"), 200, incident)])?
        .run(&["incident", "show", CMP1])?;
    assert!(ran.out.contains("off since 2026-11-03 03:12:57.000Z\n    VOID: cmp1 was heard on mgmt\n"), "{ran:#?}");
    Ok(())
}

#[test]
fn an_ambiguous_id_names_the_candidates() -> Result<()> {
    let list = json!({ "incidents": [summary(), with(summary(), json!({ "id": CMP2 }))] });
    let fake = Fake::start(Way::Tcp, &[("GET /v2/incidents", 200, list)])?;
    fake.run(&["incident", "show", "3f2a8c"])?.fails(2, &["2 incidents", CMP1, CMP2, "give more of the id"]);
    let ran = fake.run(&["release", "3f", "--reason", "r"])?;
    ran.fails(2, &["2 incidents"]);
    assert!(fake.asked().iter().all(|request| request.starts_with("GET ")), "{:?}", fake.asked());
    Ok(())
}

#[test]
fn an_unknown_incident_or_host_is_not_found() -> Result<()> {
    let id = "00000000-0000-4000-8000-000000000000";
    let incident = format!("GET /v2/incidents/{id}");
    let answers = [
        ("GET /v2/incidents", 200, json!({ "incidents": [summary()] })),
        (incident.as_str(), 404, error(404, "there is no incident 0000")),
        ("GET /v2/plan/cmp%2F9", 404, error(404, "Nova has no host cmp/9")),
    ];
    let fake = Fake::start(Way::Socket, &answers)?;
    fake.run(&["incident", "show", id])?.fails(4, &["there is no incident 0000", "tandem incidents --all"]);
    fake.run(&["incident", "show", "ffff", "--follow"])?
        .fails(4, &["no such incident: no host \"ffff\"", "no id among the newest 1000"]);
    fake.run(&["plan", "cmp/9"])?.fails(4, &["no such host: cmp/9: Nova has no host cmp/9", "tandem status"]);
    Ok(())
}

#[test]
fn a_plan_is_shown_gate_by_gate_and_ends_with_5_when_one_says_no() -> Result<()> {
    let golden = "\
If cmp1 died now: held by not flapping

GATES
  yes  we can see    Nova and Keystone answered
  NO   not flapping  recovered 40 s ago

FENCE
  redfish  ready      On, bound
  manual   NOT READY  nobody said so

INSTANCES
  NAME  WOULD     INSTANCE  WHY
  vm1   evacuate  i1        -
  vm2   leave     i2        local root disk
";
    let fake = Fake::start(Way::Socket, &[("GET /v2/plan/cmp1", 200, plan(false))])?;
    fake.run(&["plan", "cmp1"])?.prints(5, golden);
    fake.run(&["plan", "cmp1", "--json"])?.prints(5, &format!("{}\n", plan(false)));
    let ran = Fake::start(Way::Tcp, &[("GET /v2/plan/cmp1", 200, plan(true))])?.run(&["plan", "cmp1"])?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    Ok(())
}

#[test]
fn a_plan_that_cannot_be_made_now_is_to_be_asked_for_again() -> Result<()> {
    let busy = "the instances of cmp1 could not be looked up: 4 dry runs are under way already: try again";
    let fake = Fake::start(Way::Tcp, &[("GET /v2/plan/cmp1", 503, error(503, busy))])?;
    fake.run(&["plan", "cmp1"])?.fails(1, &[busy, "ask again in a moment"]);
    Ok(())
}

#[test]
fn a_gate_that_does_not_say_yes_says_no() -> Result<()> {
    let plan = json!({ "plan": { "host": "cmp1", "would": "?", "gates": [{ "gate": "moon" }] } });
    let ran = Fake::start(Way::Tcp, &[("GET /v2/plan/cmp1", 200, plan)])?.run(&["plan", "cmp1"])?;
    assert_eq!(ran.code, Some(5), "{ran:#?}");
    assert!(ran.out.contains("  NO  moon"), "{ran:#?}");
    Ok(())
}

#[test]
fn json_is_the_daemons_byte_for_byte() -> Result<()> {
    for way in [Way::Tcp, Way::Socket] {
        let odd = |top: &str| format!("{{ \"{top}\" :\t[],\"z\":1.0e2, \"a\" : \"\\u00e9\" }} ");
        let one = "{\"incident\":\n {\"id\": \"x\"}}\n".to_owned();
        let id = format!("GET /v2/incidents/{CMP1}");
        let fake = Fake::verbatim(
            way,
            &[
                ("GET /v2/hosts", 200, odd("hosts")),
                ("GET /v2/incidents", 200, odd("incidents")),
                (&id, 200, one.clone()),
            ],
        )?;
        fake.run(&["status", "--json"])?.prints(0, &(odd("hosts") + "\n"));
        fake.run(&["incidents", "--json"])?.prints(0, &(odd("incidents") + "\n"));
        fake.run(&["incident", "show", CMP1, "--json"])?.prints(0, &one);
    }
    Ok(())
}

#[test]
fn follow_without_a_terminal_prints_what_is_new_until_the_incident_is_settled() -> Result<()> {
    let event = |text: &str| json!({ "at": "2026-11-03T03:12:45.120000Z", "kind": "phase", "text": text });
    let at = |phase: &str, moved: u64, events: &[&str]| {
        let instances = json!({ "total": 2, "moved": moved, "moving": 2 - moved, "waiting": 0, "named": 0 });
        let timeline: Vec<Value> = events.iter().map(|text| event(text)).collect();
        json!({ "incident": with(summary(), json!({ "phase": phase, "instances": instances, "timeline": timeline })) })
    };
    let key = format!("GET /v2/incidents/{CMP1}");
    let fake = Fake::start(
        Way::Socket,
        &[
            (&key, 200, at("fenced", 0, &["one"])),
            (&key, 500, error(500, "starting")),
            (&key, 200, at("evacuating", 1, &["one", "two"])),
            (&key, 200, at("recovered", 2, &["one", "two", "three"])),
        ],
    )?;
    let ran = fake.run(&["incident", "show", CMP1, "--follow", "--interval", "0.1"])?;
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let golden = "
TIMELINE
  2026-11-03 03:12:45.120Z     +1.0 s  phase     one
  2026-11-03 03:12:45.120Z     +1.0 s  phase     two
  instances: 1 of 2 moved, 1 moving
  2026-11-03 03:12:45.120Z     +1.0 s  phase     three
  instances: 2 of 2 moved
cmp1: recovered, 2 of 2 moved
";
    assert!(ran.out.ends_with(golden), "{ran:#?}");
    assert!(ran.err.contains("500: starting"), "{ran:#?}");
    Ok(())
}

#[test]
fn follow_of_a_settled_incident_ends_at_once() -> Result<()> {
    let body = json!({ "incident": whole() });
    let fake = Fake::start(Way::Tcp, &[(&format!("GET /v2/incidents/{CMP1}"), 200, body.clone())])?;
    let ran = fake.run(&["incident", "show", CMP1, "--follow"])?;
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:#?}");
    fake.run(&["incident", "show", CMP1, "--follow", "--json"])?.prints(0, &format!("{body}\n"));
    Ok(())
}
