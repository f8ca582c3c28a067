//! What people order, configure, and load it with.

use std::process::Command;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use system_tests::bmc::Says;
use system_tests::http::Fault;
use system_tests::openstack::Host;
use tokio::time::sleep;

use crate::story::{DOOMED, NETWORKS, Story};

#[tokio::test(flavor = "multi_thread")]
async fn disarmed_it_does_nothing_and_armed_it_goes_on() {
    let story = Story::begun().await;
    let (status, said) = story.order("/v2/disarm", &json!({"reason": "we move racks"}));
    assert_eq!((status, &said["armed"]), (200, &json!(false)));
    story.dies();
    story.says("held by armed: disarmed").await;
    sleep(Duration::from_secs(1)).await;
    story.nothing_done();
    let (status, said) = story.order("/v2/arm", &json!({}));
    assert_eq!((status, &said["armed"]), (200, &json!(true)));
    story.is_recovered_by_one_try().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mass_failure_waits_until_a_person_releases_it() {
    let story = Story::begun().await;
    for name in [DOOMED, "cmp2"] {
        story.machine(name).cut_off(&NETWORKS);
    }
    story.says("held by mass failure: 2 of 3 hosts").await;
    let id = story.get(&format!("/v2/incidents?host={DOOMED}")).await["incidents"][0]["id"]
        .as_str()
        .expect("an id")
        .to_owned();
    let (status, said) =
        story.order(&format!("/v2/incidents/{id}/release"), &json!({"reason": "the others are in the other room"}));
    assert_eq!((status, &said["incident"]["id"]), (200, &json!(id)), "{said}");
    story.says("recovered: 4 of 4 instances moved").await;
    let incident = story.get(&format!("/v2/incidents/{id}")).await;
    let told = crate::timeline(&incident["incident"]);
    let who = told.iter().find(|line| line.starts_with("released by ")).expect("it is told");
    assert!(who.contains("the others are in the other room"), "{who}");
    assert!(story.machine("cmp2").is_on(), "nobody released that");
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_say_that_a_host_is_off_which_is_heard() {
    let story = Story::begun().await;
    let body = json!({"method": "manual", "reason": "I pulled its plug"});
    let (status, said) = story.order(&format!("/v2/hosts/{DOOMED}/fence"), &body);
    assert_eq!(status, 409, "{said}");
    assert!(
        said["error"]["message"].as_str().is_some_and(|why| why.contains("is alive: it is heard on mgmt and storage")),
        "{said}"
    );
    assert_eq!(story.count("fenced"), 0);
    story.nothing_done();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_may_say_that_a_host_is_off_whose_bmc_says_on() {
    let story = Story::begun().await;
    story.bmc().says(Says::AlwaysOn);
    story.machine(DOOMED).cut_off(&NETWORKS);
    story.says("held by fence: its BMC did not switch it off").await;
    let body = json!({"method": "manual", "reason": "I pulled its plug"});
    let (status, said) = story.order(&format!("/v2/hosts/{DOOMED}/fence"), &body);
    assert_eq!(status, 409, "{said}");
    assert!(said["error"]["message"].as_str().is_some_and(|why| why.contains("says On")), "{said}");
    assert_eq!(story.evacuations(), 0);
    story.nothing_forbidden();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_fences_a_host_that_has_no_bmc() {
    let mut story = Story::prepared().await;
    let bmc = format!(
        "redfish = {{ address = \"http://{}\", user = \"tandem\", password_file = \"bmc.password\" }}",
        story.bmc().address
    );
    story.reconfigure(&bmc, "");
    story.start();
    story.others_are_bound_and_all_are_heard().await;
    story.dies();
    story.says("held by fence: no BMC is configured").await;
    let (status, said) =
        story.order(&format!("/v2/hosts/{DOOMED}/fence"), &json!({"method": "manual", "reason": "I pulled its plug"}));
    assert_eq!(status, 200, "{said}");
    story.is_recovered_by_one_try().await;
    story.takes_it_back().await;
}

#[test]
fn a_wrong_configuration_ends_it_with_2_and_names_file_and_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("tandem-ha.toml");
    let wrong = [
        ("detection.silense_s = 12", "detection.silense_s: no such key; did you mean silence_s?"),
        (
            "detection.silence_s = \"long\"",
            "detection.silence_s: \"long\" is not allowed; allowed is a number of seconds",
        ),
        ("detection.silence_s = 0.1", "detection.silence_s: 0.1 is not allowed"),
        ("api.listen = \"everywhere\"", "api.listen: \"everywhere\" is not allowed"),
        ("store.path = 7", "store.path: 7 is not allowed"),
        ("[hosts.cmp1.redfish]\naddress = \"http://127.0.0.1\"", "hosts.cmp1.redfish.user: is missing"),
        ("[detection", "is no TOML"),
    ];
    for (text, words) in wrong {
        std::fs::write(&file, text).expect("the folder is ours");
        for arguments in [&[][..], &["check-config"][..]] {
            let run = Command::new(env!("CARGO_BIN_EXE_tandem-ha-under-test"))
                .arg("--config")
                .arg(&file)
                .args(arguments)
                .output();
            let run = run.expect("it was built with this test");
            let said = String::from_utf8_lossy(&run.stderr);
            assert_eq!(run.status.code(), Some(2), "{text}: {said}");
            assert!(said.contains(words) && said.contains(&*file.to_string_lossy()), "{words:?} is not in {said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_cannot_be_had_ends_it_with_1_and_names_it() {
    let mut story = Story::prepared().await;
    let taken = story.listen_where_it_would();
    story.start();
    let status = story.ended().await;
    assert_eq!(status.code(), Some(1));
    assert!(story.log().contains(&taken.local_addr().expect("bound").to_string()), "{}", story.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_heartbeats_of_a_thousand_hosts_leave_it_time_to_see_a_death() {
    let mut story = Story::of_hosts(3).await;
    story.fake.facts().hosts.extend((4..=1000).map(|number| Host::new(&format!("cmp{number}"))));
    // Each of them sends every second.
    story.reconfigure("suspect_s = 0.6, silence_s = 3", "suspect_s = 2, silence_s = 6");
    story.start();
    story.sees_all_well().await;
    let crowd = story.crowd(4..=1000);
    story.until("all are heard", || story.count("kind=Heartbeat") == 2000).await;
    let (before, began) = (story.cpu(), Instant::now());
    sleep(Duration::from_secs(3)).await;
    let (used, packets) = (story.cpu() - before, began.elapsed().as_secs_f64() * 2000.0);
    println!(
        "CPU at 1,000 hosts on two networks, each every second (unoptimised build): {:.0} % of a core, {:.0} us a packet",
        used.as_secs_f64() / began.elapsed().as_secs_f64() * 100.0,
        used.as_secs_f64() * 1e6 / packets
    );
    let died = Instant::now();
    story.dies();
    story.is_recovered_by_one_try().await;
    let (took, behind) = (died.elapsed().as_secs_f64(), story.count("asleep"));
    println!("death to recovery: {took:.1} s; fell behind {behind} times (on a busy machine it may)");
    crowd.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn hosts_that_all_fall_silent_at_once_are_held_and_nova_is_asked_gently() {
    let mut story = Story::of_hosts(3).await;
    story.fake.facts().hosts.extend((4..=200).map(|number| Host::new(&format!("cmp{number}"))));
    story.reconfigure("suspect_s = 0.6, silence_s = 3", "suspect_s = 2, silence_s = 4");
    story.start();
    story.sees_all_well().await;
    let crowd = story.crowd(4..=200);
    story.until("all are heard", || story.count("kind=Heartbeat") == 400).await;
    story.fake.http.fail(Method::GET, "/servers/detail", usize::MAX, Fault::Slow(Duration::from_millis(400)));
    crowd.abort();
    for machine in &story.machines {
        machine.cut_off(&NETWORKS);
    }
    story.until("Nova is asked", || story.listings() > 0).await;
    let began = Instant::now();
    story.until("all are suspected", || story.count("suspected: ") >= 200).await;
    sleep(Duration::from_secs(3)).await;
    let asked = story.listings() as f64 / began.elapsed().as_secs_f64();
    assert!(asked < 25.0, "{asked} listings a second"); // a few at a time, 400 ms each
    assert_eq!(story.count("fencing"), 0);
    story.nothing_done();
}
