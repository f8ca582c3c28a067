//! Promises of the Redfish client, against BMCs of every bad kind.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State as Shared};
use axum::http::{Method, Response, StatusCode, header};
use openstack_client::chain;
use serde_json::{Value, json};
use tandem_ha::config::{self, Authority, Secret};
use tandem_ha::fence::redfish::{PowerReading, Redfish, RedfishError};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(20);
const BASIC: &str = "Basic dGFuZGVtOm9wZW4gc2VzYW1l"; // tandem:open sesame
const MACHINE: Uuid = Uuid::from_u128(0x5751);

/// A BMC that answers as `answer` says, and remembers what it was asked.
struct Bmc {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

type Answer = (StatusCode, Value);
type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

#[derive(Clone)]
struct Board {
    asked: Arc<Mutex<Vec<String>>>,
    answer: Answers,
    pause: Duration,
}

impl Bmc {
    /// `answer` is told "METHOD PATH", with the ResetType of a POST behind it.
    async fn new(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        Self::slow(Duration::ZERO, answer).await
    }

    async fn slow(pause: Duration, answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let board = Board { asked: Arc::clone(&asked), answer: Arc::new(answer), pause };
        let router = Router::new().fallback(answered).with_state(board);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has one");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, asked }
    }

    /// One system, "1", whose power is in the cell.
    async fn of(power: &Arc<Mutex<&'static str>>) -> Self {
        let power = Arc::clone(power);
        Self::new(move |asked| board(&power, asked)).await
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("nobody panics with it").clone()
    }

    fn client(&self) -> Redfish {
        client(&config(self.address, None), LONG)
    }

    fn client_for(&self, system: &str) -> Redfish {
        client(&config(self.address, Some(system)), LONG)
    }
}

async fn answered(Shared(board): Shared<Board>, request: Request) -> Response<Body> {
    tokio::time::sleep(board.pause).await; // what a slow BMC is
    let mut call = format!("{} {}", request.method(), request.uri().path());
    let authorized = request.headers().get(header::AUTHORIZATION).is_some_and(|given| given == BASIC);
    let method = request.method().clone();
    let body = axum::body::to_bytes(request.into_body(), 1000).await.expect("a small body");
    if method == Method::POST {
        let told: Value = serde_json::from_slice(&body).expect("JSON");
        call += &format!(" {}", told["ResetType"].as_str().expect("a ResetType"));
    }
    board.asked.lock().expect("nobody panics with it").push(call.clone());
    let (status, body) = if authorized { (board.answer)(&call) } else { (StatusCode::UNAUTHORIZED, json!({})) };
    let response = Response::builder().status(status);
    match body {
        Value::String(location) if status.is_redirection() => {
            response.header(header::LOCATION, location).body(Body::empty())
        }
        Value::String(text) => response.body(text.into()),
        body => response.body(body.to_string().into()),
    }
    .expect("a response")
}

fn board(power: &Mutex<&'static str>, asked: &str) -> Answer {
    let mut power = power.lock().expect("nobody panics with it");
    match asked {
        "GET /redfish/v1/Systems" => listing(&["/redfish/v1/Systems/1"]),
        "GET /redfish/v1/Systems/1" => (StatusCode::OK, system(&power, Value::Null)),
        "POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset ForceOff" if *power == "On" => {
            *power = "Off";
            (StatusCode::NO_CONTENT, json!(""))
        }
        "POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset ForceOff" => {
            (StatusCode::CONFLICT, json!({ "error": { "message": "not in this state" } }))
        }
        _ => (StatusCode::NOT_FOUND, json!({})),
    }
}

fn listing(paths: &[&str]) -> Answer {
    let members: Vec<Value> = paths.iter().map(|path| json!({ "@odata.id": path })).collect();
    (StatusCode::OK, json!({ "Members": members }))
}

fn system(power: &str, reset: Value) -> Value {
    json!({ "PowerState": power, "UUID": MACHINE.to_string().to_uppercase(), "Actions": { "#ComputerSystem.Reset": reset } })
}

fn one(power: &'static str, reset: Value) -> impl Fn(&str) -> Answer + Send + Sync {
    move |asked| match asked {
        "GET /redfish/v1/Systems" => listing(&["/redfish/v1/Systems/1"]),
        "GET /redfish/v1/Systems/1" => (StatusCode::OK, system(power, reset.clone())),
        _ => (StatusCode::NO_CONTENT, json!("")),
    }
}

fn config(address: SocketAddr, system: Option<&str>) -> config::Redfish {
    config::Redfish {
        address: format!("http://{address}/").parse().expect("an address"),
        user: "tandem".to_owned(),
        password: Secret::new("open sesame".to_owned()),
        password_file: "/etc/tandem/bmc.password".into(),
        system: system.map(str::to_owned),
        authority: None,
        verify: true,
    }
}

fn client(config: &config::Redfish, limit: Duration) -> Redfish {
    Redfish::new(config, limit).expect("a client")
}

async fn why(client: &Redfish) -> String {
    let error = client.read().await.expect_err("cannot be read");
    let told = chain(&error);
    assert!(!told.contains("sesame") && !format!("{error:?} {client:?}").contains("sesame"), "{told}");
    told
}

// ---- what works ----

#[tokio::test]
async fn a_machine_is_read_switched_off_and_read_again() {
    let power = Arc::new(Mutex::new("On"));
    let bmc = Bmc::of(&power).await;
    let client = bmc.client();
    let state = client.read().await.expect("it answers");
    assert_eq!((state.power, state.uuid), (PowerReading::On, Some(MACHINE)));
    client.force_off().await.expect("it obeys");
    assert_eq!(client.read().await.expect("it answers").power, PowerReading::Off);
    client.force_off().await.expect("off already is no error");
}

#[tokio::test]
async fn a_power_off_is_one_request_once_the_machine_is_known() {
    let power = Arc::new(Mutex::new("On"));
    let bmc = Bmc::of(&power).await;
    let client = bmc.client();
    client.read().await.expect("it answers");
    let before = bmc.asked().len();
    client.force_off().await.expect("it obeys");
    assert_eq!(bmc.asked()[before..], ["POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset ForceOff"]);
}

#[tokio::test]
async fn a_power_off_needs_no_reading_before() {
    let power = Arc::new(Mutex::new("On"));
    let bmc = Bmc::of(&power).await;
    bmc.client().force_off().await.expect("it obeys");
    assert_eq!(*power.lock().expect("nobody panics with it"), "Off");
}

#[tokio::test]
async fn only_off_is_off() {
    for (says, means) in [
        ("Off", PowerReading::Off),
        ("On", PowerReading::On),
        ("PoweringOff", PowerReading::Changing),
        ("PoweringOn", PowerReading::Changing),
        ("Paused", PowerReading::Unknown("the BMC says PowerState \"Paused\"".to_owned())),
        ("off", PowerReading::Unknown("the BMC says PowerState \"off\"".to_owned())),
    ] {
        let bmc = Bmc::new(one(says, Value::Null)).await;
        assert_eq!(bmc.client().read().await.expect("it answers").power, means);
    }
    let bmc = Bmc::new(|_| (StatusCode::OK, json!({ "PowerState": null, "UUID": 5 }))).await;
    let state = bmc.client_for("/redfish/v1/Systems/1").read().await.expect("it answers");
    assert_eq!((state.power, state.uuid), (PowerReading::Unknown("the BMC tells no PowerState".to_owned()), None));
}

#[tokio::test]
async fn the_words_and_the_target_are_the_bmcs_own() {
    let reset = json!({ "target": "/redfish/v1/Other/Reset", "ResetType@Redfish.AllowableValues": ["On", "forceoff"] });
    let bmc = Bmc::new(one("On", reset)).await;
    bmc.client().force_off().await.expect("it obeys");
    assert_eq!(bmc.asked().last().expect("asked"), "POST /redfish/v1/Other/Reset forceoff");

    let bmc = Bmc::new(one("On", json!({ "ResetType@Redfish.AllowableValues": ["On", "GracefulShutdown"] }))).await;
    let error = bmc.client().force_off().await.expect_err("cannot");
    assert!(error.to_string().ends_with("cannot do ForceOff, only On, GracefulShutdown"), "{error}");
    assert!(bmc.asked().iter().all(|asked| asked.starts_with("GET")));
}

#[tokio::test]
async fn of_several_systems_the_configured_one_is_used() {
    let several = |asked: &str| match asked {
        "GET /redfish/v1/Systems" => listing(&["/redfish/v1/Systems/left", "/redfish/v1/Systems/right/"]),
        "GET /redfish/v1/Systems/left" => (StatusCode::OK, json!({ "PowerState": "On", "UUID": Uuid::from_u128(1) })),
        "GET /redfish/v1/Systems/right/" => (StatusCode::OK, json!({ "PowerState": "Off", "UUID": MACHINE })),
        _ => (StatusCode::NOT_FOUND, json!({})),
    };
    let bmc = Bmc::new(several).await;
    let told = why(&bmc.client()).await;
    assert!(
        told.contains("several systems (/redfish/v1/Systems/left, /redfish/v1/Systems/right/); say with `system`"),
        "{told}"
    );
    for name in ["right", "/redfish/v1/Systems/right/", &MACHINE.to_string()] {
        assert_eq!(bmc.client_for(name).read().await.expect("it answers").power, PowerReading::Off, "{name}");
    }
    for name in ["middle", "/redfish/v1/Systems/middle", "7c5c0f2e-0b0f-4b8c-9d0b-0d0c6ee2f0aa"] {
        let told = why(&bmc.client_for(name)).await;
        assert!(told.contains(&format!("has no system {name}, it has /redfish/v1/Systems/left")), "{told}");
    }
}

#[tokio::test]
async fn a_system_that_goes_is_looked_for_again() {
    let there = Arc::new(Mutex::new("1"));
    let which = Arc::clone(&there);
    let bmc = Bmc::new(move |asked| {
        let path = format!("/redfish/v1/Systems/{}", which.lock().expect("nobody panics with it"));
        match asked.strip_prefix("GET ") {
            Some("/redfish/v1/Systems") => listing(&[&path]),
            Some(asked) if asked == path => (StatusCode::OK, system("On", Value::Null)),
            _ => (StatusCode::NOT_FOUND, json!({})),
        }
    })
    .await;
    let client = bmc.client();
    client.read().await.expect("it answers");
    *there.lock().expect("nobody panics with it") = "2";
    assert!(why(&client).await.contains("has no system /redfish/v1/Systems/1, it has /redfish/v1/Systems/2"));
    client.read().await.expect("it has been found");
}

// ---- what does not ----

#[tokio::test]
async fn a_refusal_of_the_user_names_user_and_password_file() {
    let bmc = Bmc::new(|_| (StatusCode::UNAUTHORIZED, json!({}))).await;
    let told = why(&bmc.client()).await;
    let expected = format!(
        "the BMC at http://{} rejected user tandem; correct the user, or the password in /etc/tandem/bmc.password",
        bmc.address
    );
    assert_eq!(told, expected);
    let bmc = Bmc::new(|_| (StatusCode::FORBIDDEN, json!({}))).await;
    assert!(why(&bmc.client()).await.ends_with(
        "does not allow GET /redfish/v1/Systems to user tandem; give the user a role that may, such as Operator"
    ));
}

#[tokio::test]
async fn an_error_is_told_in_the_bmcs_words() {
    let extended = json!({ "error": { "message": "general", "@Message.ExtendedInfo": [{ "Message": "The board\n is \u{7}on fire." }] } });
    let bmc = Bmc::new(move |_| (StatusCode::INTERNAL_SERVER_ERROR, extended.clone())).await;
    let told = why(&bmc.client()).await;
    assert!(
        told.ends_with("answered GET /redfish/v1/Systems with 500 Internal Server Error: The board is on fire."),
        "{told}"
    );
    let power = Arc::new(Mutex::new("On"));
    let bmc = Bmc::new(move |asked| match asked.starts_with("POST") {
        true => (StatusCode::CONFLICT, json!({ "error": { "message": "not now" } })),
        false => board(&power, asked),
    })
    .await;
    let error = bmc.client().force_off().await.expect_err("it is still on");
    assert!(error.to_string().ends_with("answered ForceOff with 409 Conflict: not now"), "{error}");
}

#[tokio::test]
async fn what_is_not_redfish_is_named_so() {
    let login = "<html>please log in</html>";
    for (status, body) in [
        (StatusCode::OK, json!(login)),
        (StatusCode::OK, json!([1, 2])),
        (StatusCode::OK, json!({})),
        (StatusCode::OK, json!({ "Members": [] })),
        (StatusCode::OK, json!({ "Members": [{ "@odata.id": 5 }] })),
        (StatusCode::OK, json!({ "Members": [{ "@odata.id": "//192.0.2.1/redfish" }] })),
        (StatusCode::OK, json!({ "Members": [{ "@odata.id": "http://192.0.2.1/redfish" }] })),
        (StatusCode::OK, json!({ "Members": [{ "@odata.id": "System" }] })),
        (StatusCode::NOT_FOUND, json!(login)),
    ] {
        let answer = body.clone();
        let bmc = Bmc::new(move |_| (status, answer.clone())).await;
        let told = why(&bmc.client()).await;
        assert!(
            told.contains("does not answer as Redfish does") && told.ends_with("correct the BMC's address"),
            "{body}: {told}"
        );
    }
}

#[tokio::test]
async fn a_redirect_is_followed_within_the_bmc_only() {
    let elsewhere = Bmc::new(one("Off", Value::Null)).await;
    let to = format!("http://{}/redfish/v1/Systems/", elsewhere.address);
    let bmc = Bmc::new(move |_| (StatusCode::PERMANENT_REDIRECT, json!(to))).await;
    let told = why(&bmc.client()).await;
    assert!(told.contains("which is not followed") && elsewhere.asked().is_empty(), "{told}");

    let bmc = Bmc::new(|asked| match asked {
        "GET /redfish/v1/Systems" => (StatusCode::MOVED_PERMANENTLY, json!("/redfish/v1/Systems/")),
        "GET /redfish/v1/Systems/" => listing(&["/redfish/v1/Systems/1"]),
        "GET /redfish/v1/Systems/1" => (StatusCode::OK, system("On", Value::Null)),
        _ => (StatusCode::FOUND, json!("/redfish/v1/Systems/1")),
    })
    .await;
    let client = bmc.client();
    assert_eq!(client.read().await.expect("it answers").power, PowerReading::On);
    let error = client.force_off().await.expect_err("a POST is not turned into a GET");
    assert!(matches!(error, RedfishError::Redirected { .. }), "{error}");

    let bmc = Bmc::new(|_| (StatusCode::FOUND, json!("/redfish/v1/Systems"))).await;
    assert!(why(&bmc.client()).await.contains("is sent round in circles"));
}

#[tokio::test]
async fn a_dead_bmc_is_told_from_a_silent_one() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one");
    let limit = Duration::from_millis(300);
    let start = Instant::now();
    let told = why(&client(&config(address, None), limit)).await;
    assert_eq!(told, format!("the BMC at http://{address} did not answer what the power is within 0.3 s"));
    assert!(start.elapsed() < LONG);
    let error = client(&config(address, None), limit).force_off().await.expect_err("silent");
    assert!(error.to_string().contains("did not answer ForceOff within 0.3 s"), "{error}");
    drop(listener);
    let told = why(&client(&config(address, None), LONG)).await;
    assert!(
        told.starts_with(&format!("the BMC at http://{address} cannot be reached: ")) && told.contains("refused"),
        "{told}"
    );
}

#[tokio::test]
async fn a_slow_bmc_gets_further_with_each_attempt() {
    let bmc = Bmc::slow(Duration::from_millis(1200), one("On", Value::Null)).await;
    let client = client(&config(bmc.address, None), Duration::from_millis(2000));
    assert!(why(&client).await.contains("did not answer"), "two answers take longer than the limit");
    assert_eq!(client.read().await.expect("the second time one is enough").power, PowerReading::On);
    client.force_off().await.expect("one is enough for this, too");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it has one");
    std::thread::spawn(move || {
        while let Ok((mut socket, _)) = listener.accept() {
            let mut request = [0; 4096];
            let _ = std::io::Read::read(&mut socket, &mut request);
            let _ = socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"PowerState\": \"Off\"}");
        }
    });
    let client = client(&config(address, Some("/redfish/v1/Systems/1")), LONG);
    let error = client.read().await.expect_err("broken off");
    assert!(matches!(error, RedfishError::BrokenOff { .. }), "{error}");
}

#[tokio::test]
async fn an_endless_answer_ends() {
    let long = "x".repeat((1 << 20) + 1);
    let bmc = Bmc::new(move |_| (StatusCode::OK, json!(long))).await;
    assert!(why(&bmc.client()).await.ends_with("is longer than 1048576 bytes"));
}

// ---- https ----

/// A BMC behind TLS with a certificate of its own making, and that certificate.
async fn https(name: &str) -> (SocketAddr, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
    let pem = made.cert.pem().into_bytes();
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let chain = vec![CertificateDer::from(made.cert.der().to_vec())];
    let provider = tokio_rustls::rustls::crypto::ring::default_provider();
    let server =
        ServerConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions().expect("versions");
    let server = server.with_no_client_auth().with_single_cert(chain, key.into()).expect("a key that fits");
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("it has one");
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Ok(mut tls) = acceptor.accept(socket).await else { continue };
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let _ = tls.read(&mut [0; 4096]).await;
            let body = r#"{"PowerState": "On"}"#;
            let _ = tls
                .write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes())
                .await;
            let _ = tls.shutdown().await;
        }
    });
    (address, pem)
}

fn over_tls(address: SocketAddr) -> config::Redfish {
    let plain = config(address, Some("/redfish/v1/Systems/1"));
    config::Redfish { address: format!("https://{address}/").parse().expect("an address"), ..plain }
}

#[tokio::test]
async fn a_certificate_must_be_trusted_or_named_or_waved_through() {
    let (address, pem) = https("127.0.0.1").await;
    let told = why(&client(&over_tls(address), LONG)).await;
    assert!(told.contains("its certificate is not trusted: name its CA, or itself, in ca_file"), "{told}");
    let named = config::Redfish { authority: Some(Authority { file: "ca.pem".into(), pem }), ..over_tls(address) };
    assert_eq!(client(&named, LONG).read().await.expect("trusted").power, PowerReading::On);
    let waved = config::Redfish { verify: false, ..over_tls(address) };
    assert_eq!(client(&waved, LONG).read().await.expect("not looked at").power, PowerReading::On);
}

#[tokio::test]
async fn a_certificate_for_another_name_and_plain_http_are_told() {
    let (address, pem) = https("bmc.example.org").await;
    let named = config::Redfish { authority: Some(Authority { file: "ca.pem".into(), pem }), ..over_tls(address) };
    let told = why(&client(&named, LONG)).await;
    assert!(told.contains("its certificate is for another name"), "{told}");
    let plain = Bmc::new(one("On", Value::Null)).await;
    let told = why(&client(&over_tls(plain.address), LONG)).await;
    assert!(told.contains("it does not speak TLS: is its address http://?"), "{told}");
}
