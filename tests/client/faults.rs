//! What the client promises when the cloud misbehaves, against a fake that does so on request.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::join_all;
use futures::{StreamExt, TryStreamExt};
use openstack_client::{
    Cloud, CloudConfig, ComputeService, Error, Limits, MigrationFilter, MigrationKind, MigrationStatus, Secret,
    ServerId, ServerRow, ServiceId, ServiceState, ServiceStatus, chain,
};
use reqwest::Method;
use system_tests::http::{Fault, Seen};
use system_tests::openstack::{Fake, PASSWORD};

/// As short as a test can bear.
fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        attempt: Duration::from_millis(500),
        read: Duration::from_secs(5),
        write: Duration::from_secs(5),
        evacuate: Duration::from_secs(1),
        begin: Duration::from_secs(1),
        cells: Duration::from_millis(500),
        pause: Duration::from_millis(1),
        longest_pause: Duration::from_millis(5),
        ..Limits::default()
    }
}

fn client(fake: &Fake) -> Cloud {
    Cloud::new(fake.config(), limits()).expect("the fake's config is good")
}

/// A fake with one instance on a host that Nova believes dead.
async fn dead_host() -> (Fake, Cloud, ServerId) {
    let fake = Fake::start().await;
    let id = fake.facts().boot("cmp1", 1)[0];
    fake.facts().hosts[0].up = false;
    let cloud = client(&fake);
    (fake, cloud, ServerId(id))
}

fn sent(fake: &Fake, part: &str) -> usize {
    fake.http.seen(&Method::GET, part).len()
}

fn evacuations(fake: &Fake) -> usize {
    fake.http.seen(&Method::POST, "/action").len()
}

/// An error as a log line, with what differs from run to run taken out.
fn told(error: &Error, fake: &Fake) -> String {
    let mut text = chain(error).replace(&fake.address.to_string(), "CLOUD");
    while let Some(at) = text.find("req-") {
        text.replace_range(at..at + 40, "ID");
    }
    text
}

// ---- reads ----

#[tokio::test]
async fn a_read_outlives_every_fault_that_passes() {
    let faults = [
        Fault::status(500),
        Fault::retry_after(503, 0),
        Fault::retry_after(429, 0),
        Fault::status(502),
        Fault::status(504),
        Fault::Truncated,
        Fault::Reset,
        Fault::ClosesBeforeAnswer,
        Fault::NeverAnswers,
    ];
    for fault in faults {
        let fake = Fake::start().await;
        fake.http.fail(Method::GET, "/os-services", 1, fault.clone());
        let services = client(&fake).compute_services().await.unwrap_or_else(|e| panic!("{fault:?}: {}", chain(&e)));
        assert_eq!(services.len(), 3, "{fault:?}");
        assert_eq!(sent(&fake, "/os-services"), 2, "{fault:?}");
    }
}

#[tokio::test]
async fn a_read_is_given_up_after_the_allowed_attempts() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", usize::MAX, Fault::status(503));
    let error = client(&fake).compute_services().await.expect_err("it never answers well");
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    assert_eq!(sent(&fake, "/os-services"), 4);
}

#[tokio::test]
async fn a_slow_answer_within_the_limit_is_waited_for() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", 1, Fault::Slow(Duration::from_millis(100)));
    client(&fake).compute_services().await.expect("slow is not broken");
    assert_eq!(sent(&fake, "/os-services"), 1);
}

#[tokio::test]
async fn a_read_ends_at_its_limit_however_often_it_may_be_repeated() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", usize::MAX, Fault::NeverAnswers);
    let limits = Limits { read: Duration::from_millis(700), attempts: 100, ..limits() };
    let cloud = Cloud::new(fake.config(), limits).expect("good");
    let before = Instant::now();
    cloud.compute_services().await.expect_err("nobody answers");
    assert!(before.elapsed() < Duration::from_secs(2), "{:?}", before.elapsed());
}

#[tokio::test]
async fn retry_after_is_honoured() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", 1, Fault::retry_after(503, 1));
    client(&fake).compute_services().await.expect("the second attempt is well");
    let seen = fake.http.seen(&Method::GET, "/os-services");
    assert!(seen[1].at - seen[0].at >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_retry_after_beyond_the_limit_is_told_and_not_waited_for() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", 1, Fault::retry_after(429, 3600));
    let error = client(&fake).compute_services().await.expect_err("an hour is too long");
    assert_eq!(
        told(&error, &fake),
        "GET compute /os-services?binary=nova-compute (ID) was put off with 429 Too Many Requests: no explanation; it asks to come back in 3600 s"
    );
}

#[tokio::test]
async fn an_answer_that_is_not_json_is_an_error_that_names_the_call() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", 1, Fault::WrongJson);
    let error = client(&fake).compute_services().await.expect_err("it is not JSON");
    assert_eq!(
        told(&error, &fake),
        "GET compute /os-services?binary=nova-compute (ID): the answer could not be understood; is http://CLOUD/compute/v2.1 really compute?: \
         key must be a string at line 1 column 16"
    );
    assert_eq!(sent(&fake, "/os-services"), 1, "the same question would get the same answer");
}

#[tokio::test]
async fn an_answer_larger_than_allowed_is_not_taken_in() {
    let fake = Fake::start().await;
    fake.facts().boot("cmp1", 50);
    let cloud = Cloud::new(fake.config(), Limits { body_bytes: 50_000, ..limits() }).expect("good");
    let error =
        cloud.servers_of_host("cmp1").try_collect::<Vec<_>>().await.expect_err("50 servers are more than 50 KB");
    assert!(matches!(error, Error::TooLarge { limit_bytes: 50_000, .. }), "{error:?}");
    assert_eq!(sent(&fake, "/servers/detail"), 1);
}

/// `Status` with a body, for answers that look whole.
fn says(code: u16, body: &'static str) -> Fault {
    Fault::Status { code, headers: Vec::new(), body }
}

#[tokio::test]
async fn a_404_of_a_proxy_does_not_make_an_instance_vanish() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::GET, "/servers/", usize::MAX, Fault::status(404));
    let error = cloud.server(server).await.expect_err("the proxy has no backend");
    assert!(matches!(error, Error::BrokenOff { .. }), "{error}");
}

#[tokio::test]
async fn a_404_before_the_call_is_not_about_what_was_asked_for() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::GET, "/compute/v2.1/", usize::MAX, says(404, r#"{"itemNotFound": {"message": "no"}}"#));
    let error = cloud.server(server).await.expect_err("no microversions");
    assert!(matches!(error, Error::BadAnswer { .. }), "{error}");
}

#[tokio::test]
async fn a_page_of_maintenance_is_not_kept_as_the_clouds_versions() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::GET, "/compute/v2.1/", 1, says(200, r#"{"status": "maintenance"}"#));
    cloud.server(server).await.expect_err("who is that?");
    cloud.server(server).await.expect("the next call asks again");
}

#[tokio::test]
async fn a_list_that_does_not_go_on_is_not_taken_for_whole() {
    let fake = Fake::start().await;
    let endless = r#"{"servers": [], "servers_links": [{"rel": "next", "href": "http://nova/next"}]}"#;
    fake.http.fail(Method::GET, "/servers/detail", usize::MAX, says(200, endless));
    let error = client(&fake).servers_of_host("cmp1").try_collect::<Vec<_>>().await.expect_err("there is more");
    assert!(chain(&error).contains("it says that there is more, and does not go on"), "{}", chain(&error));
}

#[tokio::test]
async fn instances_of_other_hosts_are_an_error_that_names_the_policy() {
    let fake = Fake::start().await;
    let page = include_str!("../../openstack-client/tests/wire/servers-detail.json");
    fake.http.fail(Method::GET, "/servers/detail", usize::MAX, says(200, page));
    let error = client(&fake).servers_of_host("cmp9").try_collect::<Vec<_>>().await.expect_err("they are on cmp1");
    assert!(error.to_string().contains("os_compute_api:servers:allow_all_filters"), "{error}");
}

#[tokio::test]
async fn a_time_to_wait_that_no_clock_can_hold_is_told_and_not_waited_for() {
    let fake = Fake::start().await;
    let headers = vec![("retry-after", u64::MAX.to_string())];
    fake.http.fail(Method::GET, "/os-services", 1, Fault::Status { code: 503, headers, body: "" });
    let error = client(&fake).compute_services().await.expect_err("nobody waits that long");
    assert!(matches!(error, Error::Busy { .. }), "{error}");
}

/// What is asked, word for word: a filter that is lost makes a list that looks as good as the right one.
#[tokio::test]
async fn every_call_asks_for_exactly_this() {
    let (fake, cloud, server) = dead_host().await;
    let id = ServiceId(fake.facts().hosts[0].id);
    cloud.compute_services().await.expect("all is well");
    cloud.compute_service("cmp1").await.expect("all is well");
    cloud.force_down(id).await.expect("all is well");
    cloud.servers_of_host("cmp1").try_collect::<Vec<_>>().await.expect("all is well");
    cloud.evacuate(server, Some("cmp2")).await.expect("all is well");
    let filter =
        MigrationFilter { server: Some(server), kind: Some(MigrationKind::Evacuation), ..MigrationFilter::default() };
    cloud.migrations(&filter).try_collect::<Vec<_>>().await.expect("all is well");
    cloud.server_groups().await.expect("all is well");
    cloud.hypervisors().try_collect::<Vec<_>>().await.expect("all is well");
    cloud.validate(&Secret::new("of-a-caller")).await.expect("all is well");
    let asked: Vec<_> = fake.http.all().iter().map(line).collect();
    let ids = [(server.to_string(), "SERVER"), (id.to_string(), "SERVICE")];
    let told = ids.iter().fold(asked.join("\n"), |text, (id, name)| text.replace(id, name));
    assert_eq!(told.trim(), include_str!("asked.txt").trim(), "\n{told}");
}

fn line(seen: &Seen) -> String {
    let header = |name| seen.headers.get(name).and_then(|value: &reqwest::header::HeaderValue| value.to_str().ok());
    let version = header("openstack-api-version").unwrap_or("-");
    let rules = header("openstack-identity-access-rules").map_or(String::new(), |_| " access-rules".to_owned());
    let body = String::from_utf8_lossy(&seen.body);
    let body = if seen.path.contains("/auth/tokens") { "".into() } else { body };
    format!("{} {} {version}{rules} {body}", seen.method, seen.path).trim_end().to_owned()
}

// ---- what must happen once ----

#[tokio::test]
async fn an_evacuation_is_sent_soon_or_not_at_all() {
    let (fake, _, server) = dead_host().await;
    let cloud = Cloud::new(fake.config(), Limits { begin: Duration::from_millis(200), ..limits() }).expect("good");
    fake.http.fail(Method::POST, "/action", 1, Fault::retry_after(429, 1));
    let error = cloud.evacuate(server, None).await.expect_err("in a second the host may be on again");
    assert!(matches!(error, Error::Busy { .. }) && !error.may_have_happened(), "{error}");
    assert_eq!(evacuations(&fake), 1);
}

#[tokio::test]
async fn an_answer_to_a_change_that_cannot_be_read_is_unknown() {
    let (fake, cloud, _) = dead_host().await;
    let id = ServiceId(fake.facts().hosts[0].id);
    fake.http.fail(Method::PUT, "/os-services/", 1, Fault::WrongJson);
    let error = cloud.force_down(id).await.expect_err("it is not JSON");
    assert!(error.may_have_happened(), "{error}");
}

#[tokio::test]
async fn a_later_no_does_not_undo_an_attempt_that_may_have_done_it() {
    let (fake, cloud, _) = dead_host().await;
    let id = ServiceId(fake.facts().hosts[0].id);
    fake.http.fail(Method::PUT, "/os-services/", 1, Fault::Reset);
    fake.http.fail(Method::PUT, "/os-services/", usize::MAX, says(403, r#"{"forbidden": {"message": "policy"}}"#));
    let error = cloud.disable(id, "dead").await.expect_err("the policy has changed meanwhile");
    assert!(error.may_have_happened(), "{error}");
}

#[tokio::test]
async fn an_evacuation_without_an_answer_is_unknown_and_sent_once() {
    let faults = [
        Fault::Reset,
        Fault::ClosesBeforeAnswer,
        Fault::NeverAnswers,
        Fault::status(500),
        Fault::status(502),
        Fault::retry_after(503, 0),
        Fault::status(504),
    ];
    for fault in faults {
        let (fake, cloud, server) = dead_host().await;
        fake.http.fail(Method::POST, "/action", 1, fault.clone());
        let error = cloud.evacuate(server, None).await.expect_err("no answer is no success");
        assert!(error.may_have_happened(), "{fault:?}: {error}");
        assert_eq!(evacuations(&fake), 1, "{fault:?}");
    }
}

#[tokio::test]
async fn an_unknown_evacuation_is_told_with_the_id_that_nova_logs() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::POST, "/action", 1, Fault::NeverAnswers);
    let error = cloud.evacuate(server, None).await.expect_err("no answer is no success");
    let id = fake.http.seen(&Method::POST, "/action")[0].headers["x-openstack-request-id"]
        .to_str()
        .expect("text")
        .to_owned();
    assert_eq!(
        error.to_string(),
        format!(
            "POST compute /servers/{server}/action ({id}) was sent, but no answer came within the limit: it may have happened"
        )
    );
}

#[tokio::test]
async fn an_evacuation_that_a_limiter_turned_away_is_sent_again() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::POST, "/action", 2, Fault::retry_after(429, 0));
    cloud.evacuate(server, None).await.expect("the third attempt reaches Nova");
    assert_eq!(evacuations(&fake), 3);
    assert_eq!(fake.facts().migrations.len(), 1);
}

#[tokio::test]
async fn an_evacuation_survives_a_token_that_was_revoked() {
    let (fake, cloud, server) = dead_host().await;
    cloud.compute_services().await.expect("all is well");
    fake.facts().tokens.clear();
    cloud.evacuate(server, None).await.expect("a new token is had");
    assert_eq!(fake.facts().migrations.len(), 1);
}

#[tokio::test]
async fn what_fails_before_an_evacuation_is_sent_is_not_unknown() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::GET, "/compute/v2.1/", usize::MAX, Fault::NeverAnswers);
    let error = cloud.evacuate(server, None).await.expect_err("Nova never says which microversions it has");
    assert!(!error.may_have_happened(), "{error}");
    assert_eq!(evacuations(&fake), 0);
}

#[tokio::test]
async fn an_accepted_evacuation_counts_although_its_answer_broke_off() {
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::POST, "/action", 1, Fault::Truncated);
    cloud.evacuate(server, None).await.expect("the status came through");
    assert_eq!(fake.facts().migrations.len(), 1);
}

/// On a kept connection that the service is just closing it would be lost, and nobody could say whether it arrived.
#[tokio::test]
async fn an_evacuation_travels_on_a_connection_of_its_own() {
    let (fake, cloud, server) = dead_host().await;
    cloud.compute_services().await.expect("all is well");
    cloud.compute_services().await.expect("all is well");
    cloud.evacuate(server, None).await.expect("the host is dead");
    let reads: Vec<_> = fake.http.seen(&Method::GET, "").iter().map(|seen| seen.connection).collect();
    assert!(!reads.contains(&fake.http.seen(&Method::POST, "/action")[0].connection));
    assert!(reads.windows(2).all(|pair| pair[0] == pair[1]), "reads share theirs: {reads:?}");
}

#[tokio::test]
async fn an_evacuation_that_finds_no_connection_is_not_unknown() {
    let (fake, cloud, server) = dead_host().await;
    cloud.compute_services().await.expect("all is well");
    drop(fake);
    let error = cloud.evacuate(server, None).await.expect_err("nobody listens any more");
    assert!(matches!(error, Error::Unreachable { .. }), "{}", chain(&error));
}

#[tokio::test]
async fn what_nova_refuses_is_told_in_novas_words() {
    let (fake, cloud, server) = dead_host().await;
    fake.facts().hosts[0].up = true;
    let error = cloud.evacuate(server, None).await.expect_err("the host is up");
    assert_eq!(
        told(&error, &fake),
        format!(
            "POST compute /servers/{server}/action (ID) was refused with 400 Bad Request: Compute service of cmp1 is still in use."
        )
    );
}

#[tokio::test]
async fn the_state_of_a_service_is_set_however_often_it_takes() {
    let (fake, cloud, _) = dead_host().await;
    let id = ServiceId(fake.facts().hosts[0].id);
    fake.http.fail(Method::PUT, "/os-services/", 2, Fault::Reset);
    assert!(cloud.force_down(id).await.expect("it may be repeated").forced_down);
    let service = cloud.disable(id, "dead").await.expect("all is well");
    assert_eq!(service.status, ServiceStatus::Disabled { reason: Some("dead".to_owned()) });
    assert_eq!(cloud.enable(id).await.expect("all is well").status, ServiceStatus::Enabled);
    assert!(!cloud.clear_forced_down(id).await.expect("all is well").forced_down);
    assert_eq!(fake.http.seen(&Method::PUT, "/os-services/").len(), 6);
}

#[tokio::test]
async fn the_state_of_a_service_that_no_answer_confirms_is_unknown() {
    for fault in [Fault::Reset, Fault::ClosesBeforeAnswer, Fault::status(504)] {
        let (fake, cloud, _) = dead_host().await;
        let id = ServiceId(fake.facts().hosts[0].id);
        fake.http.fail(Method::PUT, "/os-services/", usize::MAX, fault.clone());
        let error = cloud.force_down(id).await.expect_err("no answer ever comes");
        assert!(error.may_have_happened(), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn a_lost_answer_is_not_forgotten_when_later_attempts_are_turned_away() {
    let (fake, cloud, _) = dead_host().await;
    let id = ServiceId(fake.facts().hosts[0].id);
    fake.http.fail(Method::PUT, "/os-services/", 1, Fault::Reset);
    fake.http.fail(Method::PUT, "/os-services/", usize::MAX, Fault::retry_after(429, 0));
    let error = cloud.force_down(id).await.expect_err("only the first attempt reaches Nova");
    assert!(error.may_have_happened(), "{error}");
}

// ---- one token ----

#[tokio::test]
async fn fifty_callers_share_one_token() {
    let fake = Fake::start().await;
    let cloud = client(&fake);
    let answers = join_all((0..50).map(|_| cloud.compute_services())).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.http.seen(&Method::POST, "/auth/tokens").len(), 1);
    assert_eq!(
        fake.http.seen(&Method::GET, "/compute/v2.1/").iter().filter(|seen| seen.path == "/compute/v2.1/").count(),
        1
    );
}

#[tokio::test]
async fn fifty_callers_with_a_revoked_token_get_one_new_token() {
    let fake = Fake::start().await;
    let cloud = client(&fake);
    cloud.compute_services().await.expect("all is well");
    fake.facts().tokens.clear();
    let answers = join_all((0..50).map(|_| cloud.compute_services())).await;
    assert!(answers.iter().all(Result::is_ok));
    assert_eq!(fake.http.seen(&Method::POST, "/auth/tokens").len(), 2);
}

#[tokio::test]
async fn a_service_that_rejects_every_token_is_asked_twice() {
    let fake = Fake::start().await;
    fake.http.fail(Method::GET, "/os-services", usize::MAX, Fault::status(401));
    let error = client(&fake).compute_services().await.expect_err("it rejects every token");
    assert!(matches!(&error, Error::Refused { status, .. } if status.as_u16() == 401), "{error:?}");
    assert_eq!((sent(&fake, "/os-services"), fake.http.seen(&Method::POST, "/auth/tokens").len()), (2, 2));
}

#[tokio::test]
async fn a_wrong_password_is_tried_once_for_all_who_wait() {
    let fake = Fake::start().await;
    let cloud = client(&fake);
    fake.http.fail(Method::POST, "/auth/tokens", usize::MAX, Fault::status(401));
    let answers = join_all((0..50).map(|_| cloud.compute_services())).await;
    assert!(answers.iter().all(|answer| matches!(answer, Err(Error::Rejected { .. }))));
    assert_eq!(fake.http.seen(&Method::POST, "/auth/tokens").len(), 1);
}

#[tokio::test]
async fn a_token_is_renewed_before_its_end() {
    let fake = Fake::start().await;
    fake.facts().token_life_s = 0;
    let cloud = client(&fake);
    cloud.compute_services().await.expect("all is well");
    let before = fake.http.seen(&Method::POST, "/auth/tokens").len();
    cloud.compute_services().await.expect("all is well");
    assert!(fake.http.seen(&Method::POST, "/auth/tokens").len() > before);
}

#[tokio::test]
async fn a_keystone_that_hiccups_is_asked_again() {
    let fake = Fake::start().await;
    fake.http.fail(Method::POST, "/auth/tokens", 2, Fault::status(503));
    client(&fake).compute_services().await.expect("the third token is issued");
}

#[tokio::test]
async fn a_callers_token_is_worth_what_keystone_says() {
    let fake = Fake::start().await;
    let cloud = client(&fake);
    cloud.authenticate().await.expect("all is well");
    let own = Secret::new(fake.facts().tokens.first().expect("there is one").clone());
    let bearer = cloud.validate(&own).await.expect("all is well").expect("it is ours");
    assert_eq!((bearer.user.name.as_str(), bearer.roles[0].name.as_str()), ("admin", "admin"));
    for strange in ["gAAAAA-made-up", "", "a\nb"] {
        assert!(cloud.validate(&Secret::new(strange)).await.expect("it is told").is_none());
    }
}

// ---- what is read ----

#[tokio::test]
async fn servers_of_a_host_are_read_page_by_page_to_the_end() {
    let fake = Fake::start().await;
    fake.facts().boot("cmp1", 25);
    fake.facts().boot("cmp2", 5);
    fake.facts().max_limit = 7; // less than we ask for, as an operator may set it
    let rows: Vec<ServerRow> = client(&fake).servers_of_host("cmp1").try_collect().await.expect("all is well");
    assert_eq!(rows.len(), 25);
    assert_eq!(sent(&fake, "/servers/detail"), 4);
}

#[tokio::test]
async fn no_page_is_asked_for_before_it_is_wanted() {
    let fake = Fake::start().await;
    fake.facts().boot("cmp1", 20);
    fake.facts().max_limit = 5;
    let first: Vec<_> = client(&fake).servers_of_host("cmp1").take(5).collect().await;
    assert!(first.iter().all(Result::is_ok));
    assert_eq!(sent(&fake, "/servers/detail"), 1);
}

#[tokio::test]
async fn a_host_of_a_down_cell_is_no_data_and_not_down() {
    let fake = Fake::start().await;
    fake.facts().hosts[0].cell_down = true;
    fake.facts().hosts[1].up = false;
    let services = client(&fake).compute_services().await.expect("all is well");
    assert_eq!(services[0], ComputeService::NoData { host: "cmp1".to_owned() });
    assert!(matches!(&services[1], ComputeService::Seen(service) if service.state == ServiceState::Down));
    assert!(matches!(&services[2], ComputeService::Seen(service) if service.state == ServiceState::Up));
}

#[tokio::test]
async fn an_evacuation_can_be_followed_by_its_migration_and_its_action() {
    let (_fake, cloud, server) = dead_host().await;
    cloud.evacuate(server, Some("cmp2")).await.expect("the host is dead");
    let filter =
        MigrationFilter { server: Some(server), source: Some("cmp1".to_owned()), ..MigrationFilter::default() };
    let migrations: Vec<_> = cloud.migrations(&filter).try_collect().await.expect("all is well");
    assert_eq!(migrations.len(), 1);
    assert_eq!((&migrations[0].status, &migrations[0].destination), (&MigrationStatus::Accepted, &None));
    let actions = cloud.instance_actions(server).await.expect("all is well");
    assert_eq!(actions[0].action, "evacuate");
    let action = cloud.instance_action(server, &actions[0].request_id).await.expect("all is well");
    assert_eq!(action, actions[0]);
}

#[tokio::test]
async fn every_other_call_reads_what_the_fake_has() {
    let fake = Fake::start().await;
    let id = ServerId(fake.facts().boot("cmp1", 1)[0]);
    fake.facts().hosts[0].disabled_reason = Some("its disk is changed".to_owned());
    let cloud = client(&fake);
    assert!(matches!(cloud.server(id).await, Ok(ServerRow::Known(server)) if server.server_groups == Some(Vec::new())));
    assert!(matches!(cloud.server(ServerId(uuid::Uuid::nil())).await, Err(Error::NotFound { .. })));
    cloud.stop(id).await.expect("all is well");
    cloud.start(id).await.expect("all is well");
    cloud.hard_reboot(id).await.expect("all is well");
    assert_eq!(cloud.server_groups().await.expect("all is well").len(), 1);
    assert_eq!(cloud.aggregates().await.expect("all is well")[0].hosts.len(), 3);
    let nodes: Vec<_> = cloud.hypervisors().try_collect().await.expect("all is well");
    assert_eq!(cloud.inventories(nodes[0].id).await.expect("all is well").of["VCPU"].capacity(), 4000);
    assert_eq!(cloud.usages(nodes[0].id).await.expect("all is well").of["VCPU"], 4);
    assert!(cloud.traits(nodes[0].id).await.expect("all is well").names.contains("COMPUTE_STATUS_DISABLED"));
    assert!(cloud.compute_service("cmp9").await.expect("all is well").is_none());
}

// ---- bad input ----

#[tokio::test]
async fn a_wrong_password_is_told_with_who_and_where() {
    let fake = Fake::start().await;
    let mut config = fake.config();
    if let openstack_client::Credentials::Password { password, .. } = &mut config.credentials {
        *password = Secret::new("hunter2");
    }
    let error = Cloud::new(config, limits()).expect("good").authenticate().await.expect_err("it is wrong");
    assert_eq!(
        told(&error, &fake),
        "Keystone at http://CLOUD/identity/v3 rejected the password of user admin (domain default) for project admin (domain default): \
         The request you have made requires authentication. (ID); check them in cloud fake of clouds.yaml"
    );
}

#[tokio::test]
async fn an_unreachable_keystone_is_told_with_its_address() {
    let fake = Fake::start().await;
    let mut config = fake.config();
    config.auth_url = "http://127.0.0.1:1/v3".parse().expect("a URL");
    let error = Cloud::new(config, limits()).expect("good").authenticate().await.expect_err("nobody is there");
    assert!(
        error.to_string()
            == "Keystone at http://127.0.0.1:1/v3 cannot be reached; check host, port and http or https of auth_url in cloud fake of clouds.yaml, and the network"
    );
    assert!(chain(&error).contains("Connection refused"), "{}", chain(&error));
}

#[tokio::test]
async fn an_auth_url_that_is_not_keystone_is_told() {
    let fake = Fake::start().await;
    let mut config = fake.config();
    config.auth_url = format!("http://{}/compute/v3", fake.address).parse().expect("a URL");
    let error = Cloud::new(config, limits()).expect("good").authenticate().await.expect_err("it is Nova");
    assert_eq!(
        told(&error, &fake),
        "http://CLOUD/compute/v3 does not answer as Keystone's v3 API (404 Not Found); check auth_url in cloud fake of clouds.yaml, it usually ends in /v3"
    );
}

#[tokio::test]
async fn a_certificate_of_an_unknown_ca_is_refused_and_with_cacert_accepted() {
    let fake = Fake::start_https().await;
    client(&fake).compute_services().await.expect("its CA is named");
    let config = CloudConfig { cacert: None, ..fake.config() };
    let error = Cloud::new(config, limits()).expect("good").authenticate().await.expect_err("nobody knows its CA");
    let text = error.to_string().replace(&fake.address.to_string(), "CLOUD");
    assert_eq!(
        text,
        "the certificate of https://CLOUD/identity/v3 is not trusted; name the CA that signed it with cacert (or OS_CACERT) in cloud fake of clouds.yaml"
    );
    let config = CloudConfig { cacert: None, verify: false, ..fake.config() };
    Cloud::new(config, limits()).expect("good").compute_services().await.expect("verify is false");
}

#[tokio::test]
async fn a_catalogue_without_placement_is_told_with_what_it_has() {
    let fake = Fake::start().await;
    fake.facts().catalogue.retain(|kind| *kind != "placement");
    let cloud = client(&fake);
    let nodes: Vec<_> = cloud.hypervisors().try_collect().await.expect("Nova is there");
    let error = cloud.usages(nodes[0].id).await.expect_err("Placement is not");
    assert_eq!(
        told(&error, &fake),
        "the catalogue has no public endpoint of placement; it has compute, identity; register it with `openstack endpoint create`, or correct \
         region_name and interface in cloud fake of clouds.yaml"
    );
}

#[tokio::test]
async fn a_region_that_does_not_exist_is_told_with_those_that_do() {
    let fake = Fake::start().await;
    let config = CloudConfig { region: Some("RegionTwo".to_owned()), ..fake.config() };
    let error = Cloud::new(config, limits()).expect("good").compute_services().await.expect_err("there is one region");
    assert_eq!(
        told(&error, &fake),
        "the catalogue has no public endpoint of compute in region RegionTwo; it has public in RegionOne (http://CLOUD/compute/v2.1); register it \
         with `openstack endpoint create`, or correct region_name and interface in cloud fake of clouds.yaml"
    );
}

#[tokio::test]
async fn a_cloud_too_old_is_told_with_what_it_offers() {
    let (fake, cloud, server) = dead_host().await;
    fake.facts().nova = (2, 60);
    let error = cloud.evacuate(server, None).await.expect_err("2.60 could only force");
    assert_eq!(
        told(&error, &fake),
        format!(
            "POST compute /servers/{server}/action (ID) needs microversion 2.68, http://CLOUD/compute/v2.1 offers 2.1 to 2.60; Tandem needs Nova 19.0.0 \
             (Stein) or newer"
        )
    );
    assert_eq!(evacuations(&fake), 0);
}

#[tokio::test]
async fn an_evacuation_asks_for_2_94_and_never_for_more() {
    let (fake, cloud, server) = dead_host().await;
    cloud.evacuate(server, None).await.expect("the host is dead");
    assert_eq!(fake.http.seen(&Method::POST, "/action")[0].headers["openstack-api-version"], "compute 2.94");
}

// ---- secrets ----

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The whole process logs at its most talkative here, so this also reads what other tests do meanwhile: none of it may hold a secret.
#[tokio::test]
async fn no_log_and_no_debug_shows_password_or_token() {
    let written = Written::default();
    let writer = written.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    let (fake, cloud, server) = dead_host().await;
    fake.http.fail(Method::GET, "/os-services", 1, Fault::status(503));
    cloud.compute_services().await.expect("the second attempt is well");
    fake.facts().tokens.clear();
    cloud.evacuate(server, None).await.expect("a new token is had");
    cloud.validate(&Secret::new("gAAAAA-of-a-caller")).await.expect("it is told");
    let refresh = cloud.session().auth_type().refresh(cloud.session().client().inner()).await;
    refresh.expect("the session shares our token");
    let log = String::from_utf8(written.0.lock().expect("no writer panics").clone()).expect("text");
    let debug = format!("{cloud:?} {:?} {:?} {:#?}", cloud.config(), cloud.session(), fake.config());
    assert!(log.contains("asking again") && log.contains("hyper"), "the log is not complete:\n{log}");
    for (name, text) in [("log", &log), ("Debug", &debug)] {
        for secret in [PASSWORD, "gAAAAA-"] {
            assert!(
                !text.contains(secret),
                "the {name} shows {secret}: {:?}",
                text.lines().find(|line| line.contains(secret))
            );
        }
    }
}
