//! A small HTTP/1.1 server that answers for an axum router, and on request breaks off, lies or falls silent where a real one may.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::response::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt;

/// What goes wrong with an answer.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The request is lost on its way: the connection ends, and the service never hears of it.
    Lost,
    /// This status instead of asking the service.
    Status { code: u16, headers: Vec<(&'static str, String)>, body: &'static str },
    /// The service did it, and half of the answer arrives before the connection ends.
    Truncated,
    /// The service did it, and what arrives is whole, but not JSON.
    WrongJson,
    /// The service did it, and the connection is reset after the first bytes of the answer's head.
    Reset,
    /// The service did it, and the connection ends without an answer.
    ClosesBeforeAnswer,
    /// The service did it and never says so.
    NeverAnswers,
    /// The service answers, but takes its time.
    Slow(Duration),
}

impl Fault {
    pub fn status(code: u16) -> Self {
        Self::Status { code, headers: Vec::new(), body: "<html>a proxy's words</html>" }
    }

    pub fn retry_after(code: u16, seconds: u32) -> Self {
        Self::Status { code, headers: vec![("retry-after", seconds.to_string())], body: "" }
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    pub method: Method,
    /// With the query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub at: Instant,
    /// Requests of the same number came over the same connection.
    pub connection: usize,
}

#[derive(Debug)]
struct Planned {
    method: Method,
    part: String,
    times: usize,
    fault: Fault,
}

/// A router, what shall go wrong with its answers, and what was asked of it.
#[derive(Debug)]
pub struct Server {
    router: Router,
    planned: Mutex<Vec<Planned>>,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
}

impl Server {
    pub fn new(router: Router) -> Arc<Self> {
        Arc::new(Self { router, planned: Mutex::default(), seen: Mutex::default(), connections: AtomicUsize::new(0) })
    }

    /// The next `times` requests of this method whose path contains `part` meet the fault.
    pub fn fail(&self, method: Method, part: &str, times: usize, fault: Fault) {
        lock(&self.planned).push(Planned { method, part: part.to_owned(), times, fault });
    }

    /// From now on all goes well. What was lost stays lost.
    pub fn heal(&self) {
        lock(&self.planned).clear();
    }

    /// The requests of this method so far whose path contains `part`.
    pub fn seen(&self, method: &Method, part: &str) -> Vec<Seen> {
        lock(&self.seen).iter().filter(|seen| seen.method == *method && seen.path.contains(part)).cloned().collect()
    }

    /// Everything that arrived, in its order.
    pub fn all(&self) -> Vec<Seen> {
        lock(&self.seen).clone()
    }

    fn fault(&self, seen: &Seen) -> Option<Fault> {
        let mut planned = lock(&self.planned);
        let fits = |plan: &&mut Planned| plan.times > 0 && plan.method == seen.method && seen.path.contains(&plan.part);
        let plan = planned.iter_mut().find(fits)?;
        plan.times -= 1;
        Some(plan.fault.clone())
    }

    /// Answers the requests of one connection, one after another.
    pub async fn serve(&self, mut connection: impl Connection) -> std::io::Result<()> {
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let mut buffer = BytesMut::new();
        while let Some(mut seen) = read_request(&mut connection, &mut buffer).await? {
            seen.connection = number;
            lock(&self.seen).push(seen.clone());
            let fault = self.fault(&seen);
            if let Some(Fault::Status { code, headers, body }) = fault {
                connection.write_all(&plain_answer(code, &headers, body)).await?;
                continue;
            }
            if let Some(Fault::Lost) = fault {
                return Ok(());
            }
            let (head, body) = self.answer(seen).await;
            let answer = whole(&head, &body);
            match fault {
                None | Some(Fault::Status { .. } | Fault::Lost) => connection.write_all(&answer).await?,
                Some(Fault::Slow(wait)) => {
                    tokio::time::sleep(wait).await;
                    connection.write_all(&answer).await?;
                }
                Some(Fault::WrongJson) => connection.write_all(&plain_answer(200, &[], "{\"services\": [{]")).await?,
                // An empty body is also cut short: more is announced than there is.
                Some(Fault::Truncated) => {
                    let announced = head_of(head.status, &head.headers, body.len() + 1);
                    return break_off(&mut connection, &[&announced, &body[..body.len() / 2]].concat()).await;
                }
                Some(Fault::Reset) => {
                    connection.reset_on_close();
                    return break_off(&mut connection, &answer[..12]).await;
                }
                Some(Fault::ClosesBeforeAnswer) => return Ok(()),
                Some(Fault::NeverAnswers) => std::future::pending().await,
            }
        }
        Ok(())
    }

    async fn answer(&self, seen: Seen) -> (Parts, Bytes) {
        let mut request = Request::new(Body::from(seen.body));
        *request.method_mut() = seen.method;
        *request.uri_mut() = seen.path.parse().expect("a client sends a path");
        *request.headers_mut() = seen.headers;
        let response = self.router.clone().oneshot(request).await.expect("a router always answers");
        let (head, body) = response.into_parts();
        (head, body.collect().await.expect("a body of bytes").to_bytes())
    }
}

fn whole(head: &Parts, body: &[u8]) -> Vec<u8> {
    let mut answer = head_of(head.status, &head.headers, body.len());
    answer.extend_from_slice(body);
    answer
}

async fn break_off(connection: &mut impl Connection, part: &[u8]) -> std::io::Result<()> {
    connection.write_all(part).await?;
    connection.flush().await
}

fn plain_answer(code: u16, headers: &[(&'static str, String)], body: &str) -> Vec<u8> {
    let mut map =
        HeaderMap::from_iter([(HeaderName::from_static("content-type"), HeaderValue::from_static("text/html"))]);
    for (name, value) in headers {
        map.insert(HeaderName::from_static(name), value.parse().expect("a header"));
    }
    let mut answer = head_of(StatusCode::from_u16(code).expect("a status"), &map, body.len());
    answer.extend_from_slice(body.as_bytes());
    answer
}

fn head_of(status: StatusCode, headers: &HeaderMap, length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in headers.iter().filter(|(name, _)| *name != "content-length") {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(format!("content-length: {length}\r\n\r\n").into_bytes());
    head
}

async fn read_request(connection: &mut impl Connection, buffer: &mut BytesMut) -> std::io::Result<Option<Seen>> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break end;
        }
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end)).into_owned();
    buffer.advance(4);
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default().to_owned());
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(k, v)| Some((k.parse::<HeaderName>().ok()?, v.parse().ok()?)))
        .collect();
    let length = headers.get("content-length").and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        if connection.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    let method = method.parse().expect("a client sends a method");
    Ok(Some(Seen { method, path, headers, body: buffer.split_to(length).freeze(), at: Instant::now(), connection: 0 }))
}

/// A connection that can be torn.
pub trait Connection: AsyncRead + AsyncWrite + Unpin + Send {
    fn reset_on_close(&self);
}

impl Connection for TcpStream {
    fn reset_on_close(&self) {
        self.set_zero_linger().expect("a TCP socket can be reset");
    }
}

impl Connection for TlsStream<TcpStream> {
    fn reset_on_close(&self) {
        self.get_ref().0.reset_on_close();
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
