//! The doors: a TCP port, over mutual TLS or, on loopback, plain; and the control socket. Each request learns through which it came.
//!
//! Bounded against strangers: so many connections, so long for a handshake, for the head of a request and for all of it, so many bytes.

use std::fs;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, info, warn};

use super::caller::{self, Came};
use super::error::Problem;
use crate::identity::{Credentials, Door, peer_identity, server_config};

/// Of both doors together.
const CONNECTIONS: usize = 256;
const BODY_BYTES: usize = 1 << 20;
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Also how long a connection may be idle: longer than clients keep one.
const HEAD: Duration = Duration::from_secs(30);
/// A promotion may have to wait for a lease, a shutdown for a flush; nothing takes longer than this. Events flow on after the answer has begun.
const REQUEST: Duration = Duration::from_secs(120);
/// For requests that are on their way at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound, and not yet served.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    address: SocketAddr,
    tls: Option<TlsDoor>,
    control: UnixListener,
    control_socket: PathBuf,
}

#[derive(Clone)]
struct TlsDoor(TlsAcceptor);

impl std::fmt::Debug for TlsDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsDoor")
    }
}

/// Why REST is not served.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("REST would be served on {listen} in the clear: set [tls], or let [listen] rest be on 127.0.0.1")]
    InTheClear { listen: SocketAddr },
    #[error("cannot listen on {listen} for REST: set [listen] rest to an address of this machine that is free")]
    Tcp {
        listen: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("the control socket {path} cannot be: there is no directory {directory}; create it, or set control_socket",
        path = path.display(), directory = directory.display())]
    NoDirectory { path: PathBuf, directory: PathBuf },
    #[error("another process listens on the control socket {path}: stop it, or set control_socket to another path",
        path = path.display())]
    InUse { path: PathBuf },
    #[error("{path} is no socket, and is left alone: set control_socket to another path, or move it away", path = path.display())]
    NotASocket { path: PathBuf },
    #[error("cannot listen on the control socket {path}", path = path.display())]
    Socket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Listeners {
    /// Takes both addresses. A socket that a killed process left behind is replaced.
    ///
    /// # Errors
    /// Plain elsewhere than on loopback; an address or a path that cannot be had.
    pub async fn bind(
        listen: SocketAddr,
        tls: Option<&Arc<Credentials>>,
        control_socket: &Path,
    ) -> Result<Self, ListenError> {
        if tls.is_none() && !listen.ip().is_loopback() {
            return Err(ListenError::InTheClear { listen });
        }
        let failed = |source| ListenError::Tcp { listen, source };
        let tcp = TcpListener::bind(listen).await.map_err(failed)?;
        let address = tcp.local_addr().map_err(failed)?;
        let path = control_socket.to_owned();
        make_room(&path).await?;
        let control = private_socket(&path).map_err(|source| ListenError::Socket { path: path.clone(), source })?;
        let tls = tls.map(|ours| TlsDoor(TlsAcceptor::from(server_config(ours, Door::Rest))));
        Ok(Self { tcp, address, tls, control, control_socket: path })
    }

    /// Where the port is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until `shutdown`; then what is on its way may end, for five seconds. The socket is removed.
    pub async fn serve(self, router: Router, shutdown: impl Future<Output = ()>) {
        let Self { tcp, address, tls, control, control_socket } = self;
        info!(%address, tls = tls.is_some(), control_socket = %control_socket.display(), "serves REST");
        let router = router
            .layer(DefaultBodyLimit::max(BODY_BYTES))
            .layer(middleware::from_fn(whole))
            .layer(middleware::from_fn(caller::keep_strangers_out));
        let (closing, closed) = watch::channel(false);
        let hall = Hall { router, tls, closed, places: Arc::new(Semaphore::new(CONNECTIONS)) };
        let mut guests = JoinSet::new();
        tokio::pin!(shutdown);
        loop {
            tokio::select! {
                () = &mut shutdown => break,
                Some(_) = guests.join_next() => {}
                accepted = tcp.accept() => match accepted {
                    Ok((stream, from)) => hall.welcome_from_afar(&mut guests, stream, from),
                    Err(error) => hold_on(&error).await,
                },
                accepted = control.accept() => match accepted {
                    Ok((stream, _)) => hall.welcome(&mut guests, stream),
                    Err(error) => hold_on(&error).await,
                },
            }
        }
        drop((tcp, control));
        let _ = fs::remove_file(&control_socket);
        closing.send_replace(true);
        let ended = timeout(PATIENCE, async { while guests.join_next().await.is_some() {} }).await;
        if ended.is_err() {
            warn!("{} connections did not end in {} s and are cut", guests.len(), PATIENCE.as_secs());
        }
        guests.shutdown().await;
    }
}

/// Out of file descriptors, say: others must end first.
async fn hold_on(error: &io::Error) {
    warn!("cannot accept connections for a moment: {error}");
    sleep(Duration::from_millis(100)).await;
}

struct Hall {
    router: Router,
    tls: Option<TlsDoor>,
    closed: watch::Receiver<bool>,
    places: Arc<Semaphore>,
}

impl Hall {
    fn place(&self, from: &str) -> Option<OwnedSemaphorePermit> {
        let place = self.places.clone().try_acquire_owned().ok();
        if place.is_none() {
            warn!(from, "turned away: {CONNECTIONS} connections are open");
        }
        place
    }

    fn welcome(&self, guests: &mut JoinSet<()>, stream: UnixStream) {
        let Some(place) = self.place("the control socket") else { return };
        let (router, closed) = (self.router.clone(), self.closed.clone());
        guests.spawn(async move {
            converse(stream, router, Came::ControlSocket, closed).await;
            drop(place);
        });
    }

    fn welcome_from_afar(&self, guests: &mut JoinSet<()>, stream: TcpStream, from: SocketAddr) {
        let Some(place) = self.place(&from.to_string()) else { return };
        let (router, closed, tls) = (self.router.clone(), self.closed.clone(), self.tls.clone());
        // An answer is one small packet: it must not wait for the next.
        let _ = stream.set_nodelay(true);
        guests.spawn(async move {
            match tls {
                None => converse(stream, router, Came::Loopback, closed).await,
                Some(TlsDoor(tls)) => converse_in_secret(tls, stream, from, router, closed).await,
            }
            drop(place);
        });
    }
}

async fn converse_in_secret(
    tls: TlsAcceptor,
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    closed: watch::Receiver<bool>,
) {
    let stream = match timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let why = tls.map_or_else(|| error.to_string(), crate::identity::explain);
            return info!(%from, "turned away from REST: {why}");
        }
        Err(_) => return debug!(%from, "no TLS came about in {} s", HANDSHAKE.as_secs()),
    };
    match peer_identity(stream.get_ref().1, Door::Rest) {
        Ok(identity) => converse(stream, router, Came::Known(identity), closed).await,
        Err(error) => info!(%from, "turned away from REST: {error}"),
    }
}

async fn converse<S>(stream: S, router: Router, came: Came, mut closed: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = TowerToHyperService::new(router.layer(Extension(came)).layer(Extension(Closing(closed.clone()))));
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
        debug!("a connection to REST ended: {error}");
    }
}

/// Told when the doors close: an answer without end must come to one.
#[derive(Debug, Clone)]
pub(super) struct Closing(pub(super) watch::Receiver<bool>);

/// In a task of its own: a client that hangs up must not stop a change half way.
async fn whole(request: Request, next: Next) -> Response {
    let work = tokio::spawn(timeout(REQUEST, next.run(request)));
    match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => {
            let message = format!("it is not done after {} s, and may or may not be later", REQUEST.as_secs());
            Problem::unreachable(message).remedy("look at how it is, and ask again").into_response()
        }
        Err(error) => {
            tracing::error!(%error, "a request came to a bad end");
            Problem::internal("a bug: the log has its place").into_response()
        }
    }
}

async fn make_room(path: &Path) -> Result<(), ListenError> {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !directory.is_dir() {
        return Err(ListenError::NoDirectory { path: path.to_owned(), directory: directory.to_owned() });
    }
    let failed = |source| ListenError::Socket { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Ok(file) if !file.file_type().is_socket() => return Err(ListenError::NotASocket { path: path.to_owned() }),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        // A queue that is full has somebody behind it, too.
        Ok(_) => Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(ListenError::InUse { path: path.to_owned() }),
        Err(error) => Err(failed(error)),
    }
}

/// Its mode is set before it listens: nobody can have connected earlier.
fn private_socket(path: &Path) -> io::Result<UnixListener> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&socket, 128)?;
    UnixListener::from_std(socket.into())
}
