//! Who gives an order: whom the kernel says is at the other end of the control socket.

use std::fmt;
use std::sync::Arc;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use tokio::net::UnixListener;

use super::{Api, ApiError, Door};

/// The process at the other end when it connected. None: the kernel did not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(Option<(u32, Option<i32>)>);

impl Peer {
    pub fn new(uid: u32, pid: Option<i32>) -> Self {
        Self(Some((uid, pid)))
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Self(stream.io().peer_cred().ok().map(|peer| (peer.uid(), peer.pid())))
    }
}

/// As the timeline names it: `uid 0 (root), pid 123`.
pub(super) struct Caller(pub(super) Arc<str>);

impl FromRequestParts<Api> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        if let Door::ReadOnly { control_socket } = &*api.door {
            return Err(ApiError::new(
                StatusCode::FORBIDDEN,
                format!("this port only reads; orders are taken at the control socket {}", control_socket.display()),
            ));
        }
        let info = ConnectInfo::<Peer>::from_request_parts(parts, api).await.ok();
        match info.and_then(|ConnectInfo(peer)| peer.0) {
            Some((uid, pid)) => Ok(Self(Name { uid, pid, passwd: &passwd() }.to_string().into())),
            None => {
                let why = "the kernel does not say who you are, so nothing is done";
                Err(ApiError::new(StatusCode::FORBIDDEN, why))
            }
        }
    }
}

fn passwd() -> String {
    std::fs::read("/etc/passwd").map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

struct Name<'a> {
    uid: u32,
    /// None, or nought, for a process outside of our PID namespace.
    pid: Option<i32>,
    passwd: &'a str,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "uid {}", self.uid)?;
        if let Some(user) = user(self.uid, self.passwd) {
            write!(f, " ({user})")?;
        }
        match self.pid {
            Some(pid) if pid != 0 => write!(f, ", pid {pid}"),
            Some(_) | None => Ok(()),
        }
    }
}

/// Of the local users; those of a directory service stay numbers.
fn user(uid: u32, passwd: &str) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next()?, fields.nth(1)?);
        (number.parse() == Ok(uid)).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn a_caller_is_named_as_far_as_it_is_known() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nbroken\nops:x:1000:1000::/home/ops:/bin/sh\n";
        let name = |uid, pid| Name { uid, pid, passwd }.to_string();
        assert_eq!(name(0, Some(123)), "uid 0 (root), pid 123");
        assert_eq!(name(1000, None), "uid 1000 (ops)");
        assert_eq!(name(4711, Some(0)), "uid 4711");
    }
}
