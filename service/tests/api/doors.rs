//! The real doors: a TCP port and the control socket.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use serde_json::{Value, json};
use tandem_ha::api::{ListenError, Listeners, bind, serve};
use tandem_ha::store::incident_uuid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::cloud::{Cloud, dead, sentence};
use failover::{Decision, Gate};

fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

struct Served {
    tcp: SocketAddr,
    stop: watch::Sender<bool>,
    task: JoinHandle<std::io::Result<()>>,
}

async fn served(cloud: &Cloud) -> Served {
    let listeners = bind(&any_port(), &cloud.socket()).await.unwrap();
    let (stop, stopped) = watch::channel(false);
    let tcp = listeners.address().unwrap();
    let task = tokio::spawn(serve(listeners, cloud.desk.clone(), cloud.store.clone(), stopped));
    Served { tcp, stop, task }
}

impl Served {
    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap().unwrap();
    }
}

async fn say(mut stream: impl AsyncRead + AsyncWrite + Unpin, method: &str, path: &str, body: &str) -> (u16, Value) {
    let length = body.len();
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: ha\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn an_order_over_the_control_socket_is_recorded_with_whom_the_kernel_names() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    cloud.decide(&[Decision::Hold { id: id.clone(), gate: Gate::NotFlapping, why: "too often".into() }]).await;
    let served = served(&cloud).await;
    let path = format!("/v2/incidents/{}/release", incident_uuid(&id));
    let stream = UnixStream::connect(cloud.socket()).await.unwrap();
    let (status, answer) = say(stream, "POST", &path, r#"{"reason":"a new cable"}"#).await;
    assert_eq!(status, 200, "{answer}");
    let last = answer["incident"]["timeline"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap().to_owned();
    let uid = fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap();
    assert!(last.starts_with(&format!("released by uid {uid}")), "{last}");
    assert!(last.ends_with(&format!(", pid {}: a new cable", std::process::id())), "{last}");
    served.end().await;
}

#[tokio::test]
async fn the_port_reads_and_takes_no_orders() {
    let cloud = Cloud::new().await;
    let served = served(&cloud).await;
    let (status, answer) = say(TcpStream::connect(served.tcp).await.unwrap(), "GET", "/v2/hosts", "").await;
    assert_eq!((status, answer["hosts"].as_array().unwrap().len()), (200, 3));
    let (status, answer) = say(TcpStream::connect(served.tcp).await.unwrap(), "POST", "/v2/arm", "{}").await;
    assert_eq!(status, 403);
    assert!(sentence(&answer).contains(&cloud.socket().display().to_string()), "{answer}");
    served.end().await;
}

#[tokio::test]
async fn the_control_socket_is_for_its_owner_alone_and_goes_with_the_daemon() {
    let cloud = Cloud::new().await;
    let served = served(&cloud).await;
    let mode = fs::metadata(cloud.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.end().await;
    assert!(!cloud.socket().exists());
}

#[tokio::test]
async fn a_socket_that_a_killed_daemon_left_behind_is_replaced() {
    let cloud = Cloud::new().await;
    drop(std::os::unix::net::UnixListener::bind(cloud.socket()).unwrap());
    assert!(cloud.socket().exists());
    let served = served(&cloud).await;
    let stream = UnixStream::connect(cloud.socket()).await.unwrap();
    assert_eq!(say(stream, "POST", "/v2/arm", "{}").await, (200, json!({ "armed": true })));
    served.end().await;
}

async fn not_bound(listen: SocketAddr, socket: &Path) -> ListenError {
    bind(&listen, socket).await.map(|_: Listeners| ()).unwrap_err()
}

#[tokio::test]
async fn a_socket_that_somebody_listens_on_is_left_alone() {
    let cloud = Cloud::new().await;
    let served = served(&cloud).await;
    let error = not_bound(any_port(), &cloud.socket()).await;
    assert!(matches!(error, ListenError::InUse { .. }), "{error:?}");
    let stream = UnixStream::connect(cloud.socket()).await.unwrap();
    assert_eq!(say(stream, "GET", "/healthcheck", "").await.0, 200);
    served.end().await;
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let cloud = Cloud::new().await;
    fs::write(cloud.socket(), "my notes").unwrap();
    let error = not_bound(any_port(), &cloud.socket()).await;
    assert!(matches!(error, ListenError::NotASocket { .. }), "{error:?}");
    assert_eq!(fs::read_to_string(cloud.socket()).unwrap(), "my notes");
    let error = not_bound(any_port(), &cloud.directory.path().join("run/ha.sock")).await;
    assert!(matches!(error, ListenError::NoDirectory { .. }), "{error:?}");
    let long = cloud.directory.path().join("x".repeat(120));
    let error = not_bound(any_port(), &long).await;
    assert!(matches!(error, ListenError::Socket { .. }), "{error:?}");
}

#[tokio::test]
async fn a_port_that_is_taken_is_named() {
    let cloud = Cloud::new().await;
    let served = served(&cloud).await;
    let error = not_bound(served.tcp, &cloud.directory.path().join("other.sock")).await;
    assert!(error.to_string().contains(&served.tcp.to_string()), "{error}");
    served.end().await;
}

#[tokio::test]
async fn a_request_that_is_on_its_way_is_answered_before_the_end() {
    let cloud = Cloud::new().await;
    let id = cloud.outage().await;
    let served = served(&cloud).await;
    let path = format!("/v2/incidents/{}", incident_uuid(&id));
    let mut stream = TcpStream::connect(served.tcp).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: ha\r\n").as_bytes()).await.unwrap();
    let mut idle = UnixStream::connect(cloud.socket()).await.unwrap();
    // Connections are taken in order: once this one is answered, the two before it have been taken.
    say(TcpStream::connect(served.tcp).await.unwrap(), "GET", "/", "").await;
    say(UnixStream::connect(cloud.socket()).await.unwrap(), "GET", "/", "").await;
    served.stop.send_replace(true);
    stream.write_all(b"\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert!(answer.contains(&*dead().name));
    assert_eq!(idle.read(&mut [0; 8]).await.unwrap(), 0, "who asks nothing is let go");
    served.task.await.unwrap().unwrap();
}
