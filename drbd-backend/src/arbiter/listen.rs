//! Accepts connections, in the clear or over mutual TLS, and serves a router on each, which learns who calls.
//!
//! Bounded against strangers: so many connections, so long for a handshake, for the head of a request and for all of it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::caller::Caller;

const CONNECTIONS: usize = 1024;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Also how long a connection may be idle: longer than clients keep one.
const HEAD: Duration = Duration::from_secs(30);
const REQUEST: Duration = Duration::from_secs(30);
/// For requests that are on their way at the end.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    until: impl Future<Output = ()>,
) {
    let door =
        Arc::new(Door { tls: tls.map(TlsAcceptor::from), router: router.layer(middleware::from_fn(no_longer_than)) });
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let (closing, closed) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(until);
    loop {
        let accepted = tokio::select! {
            () = &mut until => break,
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match (accepted, places.clone().try_acquire_owned()) {
            (Ok((stream, from)), Ok(place)) => {
                let (door, closed) = (door.clone(), closed.clone());
                connections.spawn(async move {
                    door.welcome(stream, from, closed).await;
                    drop(place);
                });
            }
            (Ok((_, from)), Err(_)) => warn!(%from, "turned away: {CONNECTIONS} connections are open"),
            (Err(error), _) => {
                warn!("cannot accept connections for a moment: {error}");
                sleep(Duration::from_millis(100)).await; // out of file descriptors, say: others must end first
            }
        }
    }
    drop(listener);
    closing.send_replace(true);
    let ended = timeout(PATIENCE, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        warn!("{} connections did not end in {} s and are cut", connections.len(), PATIENCE.as_secs());
    }
    // What a request has begun in the store runs in a task of its own and is not cut with it.
    connections.shutdown().await;
}

struct Door {
    tls: Option<TlsAcceptor>,
    router: Router,
}

impl Door {
    async fn welcome(&self, stream: TcpStream, from: SocketAddr, closed: watch::Receiver<bool>) {
        // An answer is one small packet: it must not wait for the next.
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else { return self.converse(stream, Caller::Loopback, from, closed).await };
        match timeout(HANDSHAKE, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let chain = stream.get_ref().1.peer_certificates();
                let caller = Caller::of_certificate(chain.and_then(<[_]>::first));
                self.converse(stream, caller, from, closed).await;
            }
            Ok(Err(error)) => debug!(%from, "no TLS came about: {error}"),
            Err(_) => debug!(%from, "no TLS came about in {} s", HANDSHAKE.as_secs()),
        }
    }

    async fn converse<S>(&self, stream: S, caller: Caller, from: SocketAddr, mut closed: watch::Receiver<bool>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(caller)));
        let http = http1::Builder::new().timer(TokioTimer::new()).header_read_timeout(HEAD).clone();
        let connection = http.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = async { drop(closed.wait_for(|closed| *closed).await) } => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(%from, "the connection ended: {error}");
        }
    }
}

async fn no_longer_than(request: Request, next: Next) -> Response {
    match timeout(REQUEST, next.run(request)).await {
        Ok(response) => response,
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
    }
}
