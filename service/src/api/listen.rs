//! The two doors: a TCP port that only reads, and the control socket.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio::sync::watch;

use super::{Door, Peer, router};
use crate::desk::Desk;
use crate::store::Store;

/// How long requests that are on their way may take to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bound, and not yet served.
#[derive(Debug)]
pub struct Listeners {
    tcp: TcpListener,
    control: UnixListener,
    control_socket: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("cannot listen on {address}: set [api] listen to an address of this machine that is free")]
    Tcp {
        address: SocketAddr,
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

/// Takes both addresses. A socket that a killed process left behind is replaced.
pub async fn bind(listen: &SocketAddr, control_socket: &Path) -> Result<Listeners, ListenError> {
    let path = control_socket.to_owned();
    let tcp = TcpListener::bind(listen).await;
    let tcp = tcp.map_err(|source| ListenError::Tcp { address: *listen, source })?;
    make_room(&path).await?;
    let control = private_socket(&path).map_err(|source| ListenError::Socket { path: path.clone(), source })?;
    Ok(Listeners { tcp, control, control_socket: path })
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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket.into())
}

impl Listeners {
    /// Where the port is, if any was taken.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }
}

/// Until `stop`; then what is on its way may end, for a moment. The socket is removed.
pub async fn serve(
    listeners: Listeners,
    desk: Desk,
    store: Store,
    stop: watch::Receiver<bool>,
) -> Result<(), io::Error> {
    let Listeners { tcp, control, control_socket } = listeners;
    let reads = router(desk.clone(), store.clone(), Door::ReadOnly { control_socket: control_socket.clone() });
    let orders = router(desk, store, Door::Control).into_make_service_with_connect_info::<Peer>();
    let reads = axum::serve(tcp, reads).with_graceful_shutdown(stopped(stop.clone()));
    let orders = axum::serve(control, orders).with_graceful_shutdown(stopped(stop.clone()));
    let both = async { tokio::try_join!(reads.into_future(), orders.into_future()) };
    let served = tokio::select! {
        served = both => served.map(drop),
        () = out_of_patience(stop) => Ok(()),
    };
    let _ = fs::remove_file(&control_socket);
    served
}

/// Also if nobody is left who could say so.
async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn out_of_patience(stop: watch::Receiver<bool>) {
    stopped(stop).await;
    tokio::time::sleep(PATIENCE).await;
}
