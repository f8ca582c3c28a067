//! A connected or listening socket, shared by the operations in flight on it: it closes when the last of them has ended.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{self, Errno};
use rustix::net::{self, AddressFamily, Shutdown, SocketFlags, SocketType, sockopt};

/// Clones are the same socket.
#[derive(Debug, Clone)]
pub struct Socket(Arc<OwnedFd>);

impl Socket {
    /// Of a stream socket in use elsewhere until now: from `std::net`, `std::os::unix::net`, or tokio's after `into_std`.
    ///
    /// # Errors
    /// What fcntl(2) says.
    pub fn new(socket: impl Into<OwnedFd>) -> Result<Self, std::io::Error> {
        let socket = Self(Arc::new(socket.into()));
        socket.set_nonblocking(false)?;
        Ok(socket)
    }

    /// A TCP socket to connect to that address.
    ///
    /// # Errors
    /// What socket(2) says.
    pub fn tcp_for(address: &SocketAddr) -> Result<Self, std::io::Error> {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        Ok(Self(Arc::new(socket)))
    }

    /// Small messages leave at once (TCP_NODELAY): for every connection of peers and clients.
    ///
    /// # Errors
    /// What setsockopt(2) says; it is no TCP socket.
    pub fn set_nodelay(&self) -> Result<(), std::io::Error> {
        Ok(sockopt::set_tcp_nodelay(&self.0, true)?)
    }

    /// Ends the connection in both directions: what is in flight on it fails soon, and the other end is told.
    pub fn shutdown(&self) {
        // Refused only where there is no connection any more, which is what was wanted.
        let _ = net::shutdown(&self.0, Shutdown::Both);
    }

    pub(super) fn raw(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    /// io_uring waits by itself only on a blocking socket; on others it answers EAGAIN.
    fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        let flags = fcntl_getfl(&self.0)?;
        let wanted = if on { flags | OFlags::NONBLOCK } else { flags - OFlags::NONBLOCK };
        if wanted == flags { Ok(()) } else { fcntl_setfl(&self.0, wanted) }
    }

    /// Begins to listen for `accept`, which must not block when the connection that woke us has vanished.
    pub(super) fn prepare_accept(&self) -> io::Result<()> {
        self.set_nonblocking(true)
    }

    /// The next connection; `None` if there is none after all.
    pub(super) fn accept(&self) -> io::Result<Option<Self>> {
        match net::accept_with(&self.0, SocketFlags::CLOEXEC) {
            Ok(socket) => Ok(Some(Self(Arc::new(socket)))),
            // ABORTED: it came and went while it waited.
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Begins to connect; true if that is done already. Else the socket becomes writable when it is.
    pub(super) fn begin_connect(&self, address: &SocketAddr) -> io::Result<bool> {
        self.set_nonblocking(true)?;
        match net::connect(&self.0, address) {
            Ok(()) => self.end_connect().map(|()| true),
            Err(Errno::INPROGRESS | Errno::INTR) => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(super) fn end_connect(&self) -> io::Result<()> {
        sockopt::socket_error(&self.0)??;
        self.set_nonblocking(false)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
