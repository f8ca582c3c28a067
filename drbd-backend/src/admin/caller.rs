//! Who calls, and what they may do: loopback and the control socket are this machine's administrator, over TLS the certificate says.
//!
//! A node that passes a request on says so (`Tandem-Local: 1`), and for whom (`Tandem-For: tandem://admin/alice`). It has asked itself whether that
//! one may; whoever it asks, asks again. Only nodes of the configuration are believed in this; on their own account nodes may do what the table says.

use std::convert::Infallible;
use std::fmt;

use axum::extract::{FromRequestParts, Request};
use axum::http::header::{HOST, ORIGIN};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::error::Problem;
use super::state::State;
use crate::identity::{Action, Identity, allows};

/// The request is passed on by a node: answer from what this node has, and pass it to nobody.
pub const LOCAL: HeaderName = HeaderName::from_static("tandem-local");

/// For whom a node passes it on.
pub const FOR: HeaderName = HeaderName::from_static("tandem-for");

/// Through which door a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Came {
    ControlSocket,
    /// Plain TCP.
    Loopback,
    Known(Identity),
}

/// Who wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    identity: Identity,
    on_behalf: Option<Identity>,
    is_local: bool,
}

impl Caller {
    /// `nodes`: the other nodes of the configuration.
    fn new(came: &Came, headers: &HeaderMap, nodes: &[String]) -> Self {
        let identity = match came {
            Came::Known(identity) => identity.clone(),
            Came::ControlSocket | Came::Loopback => Self::of_this_machine(),
        };
        let may_speak_for_others = match came {
            Came::Known(Identity::Node(name)) => nodes.iter().any(|node| node == name.as_str()),
            Came::Known(Identity::Ha(_) | Identity::Cinder(_) | Identity::Admin(_)) | Came::ControlSocket => false,
            // Between nodes on one machine's loopback nobody shows a certificate.
            Came::Loopback => true,
        };
        let is_local = headers.get(LOCAL).is_some_and(|value| value == HeaderValue::from_static("1"));
        let on_behalf = headers.get(FOR).filter(|_| is_local && may_speak_for_others);
        Self { identity, on_behalf: on_behalf.and_then(|value| value.to_str().ok()?.parse().ok()), is_local }
    }

    /// For what a node asks of others on its own account.
    #[must_use]
    pub fn this_node(name: &str) -> Self {
        Self { identity: Identity::Node(name.parse().expect("a node has a name")), on_behalf: None, is_local: false }
    }

    fn of_this_machine() -> Identity {
        Identity::Admin("local".parse().expect("it is a name"))
    }

    /// Whether a node passed it on: it is answered from this node alone.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_local
    }

    /// Who wants it in the end: what records and logs name.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        self.on_behalf.as_ref().unwrap_or(&self.identity)
    }

    /// # Errors
    /// 403: neither this caller nor the one it speaks for may do that.
    pub fn may(&self, action: Action) -> Result<(), Problem> {
        let wanting = self.identity();
        match allows(wanting, action) {
            true => Ok(()),
            false => Err(Problem::forbidden(format!("{wanting} may not {action}"))
                .remedy("docs/certificates.md says who may do what")),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.identity().fmt(f)
    }
}

impl FromRequestParts<State> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Infallible> {
        let came = parts.extensions.get::<Came>().expect("every door says who comes in");
        Ok(Self::new(came, &parts.headers, &state.others()))
    }
}

/// On loopback a browser could be made to call: by a page whose name was bound to 127.0.0.1 anew, which its Host header shows, or by any page
/// across origins, which its Origin header shows. Nothing of Tandem's sends either.
pub(super) async fn keep_strangers_out(request: Request, next: Next) -> Response {
    let is_plain = matches!(request.extensions().get::<Came>(), Some(Came::Loopback));
    if is_plain && let Some(why) = strange(request.headers()) {
        return Problem::forbidden(why).remedy("call http://127.0.0.1, or use the control socket").into_response();
    }
    next.run(request).await
}

fn strange(headers: &HeaderMap) -> Option<String> {
    if headers.contains_key(ORIGIN) {
        return Some("pages in browsers are not served here".to_owned());
    }
    let host = headers.get(HOST).map_or("", |host| host.to_str().unwrap_or("?"));
    (!is_loopback(host)).then(|| format!("the Host header is {host:?}, which is not this machine's loopback"))
}

/// HTTP/1.0 sends no Host, and no browser speaks it.
fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    let address = name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    address || name.eq_ignore_ascii_case("localhost") || host.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(identity: &str, headers: &[(&HeaderName, &str)]) -> Caller {
        let headers = headers.iter().map(|(name, value)| ((*name).clone(), value.parse().unwrap())).collect();
        Caller::new(&Came::Known(identity.parse().unwrap()), &headers, &["a".to_owned()])
    }

    #[test]
    fn only_names_of_this_machine_pass_on_loopback() {
        for host in ["127.0.0.1", "127.0.0.1:15870", "127.9.9.9:1", "localhost", "LOCALHOST:80", "[::1]:15870", ""] {
            assert!(is_loopback(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:15870", "127.0.0.1.evil.example", "localhost.evil:1", "10.0.0.1", "[::2]"]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_node_may_do_more_only_for_one_who_may() {
        let node = "tandem://node/a";
        assert!(caller(node, &[]).may(Action::Read).is_ok());
        assert!(caller(node, &[(&LOCAL, "1")]).may(Action::CreateVolume).is_err(), "on its own account");
        assert!(caller(node, &[(&LOCAL, "1"), (&FOR, "tandem://ha/h")]).may(Action::DeclareDead).is_ok());
        assert!(caller(node, &[(&LOCAL, "1"), (&FOR, "tandem://cinder/c")]).may(Action::DeclareDead).is_err());
        assert!(caller(node, &[(&FOR, "tandem://admin/a")]).may(Action::ForcePrimary).is_err());
        let stranger = caller("tandem://node/arbiter", &[(&LOCAL, "1"), (&FOR, "tandem://admin/a")]);
        assert!(stranger.may(Action::CreateVolume).is_err(), "it is no node of the configuration");
    }

    #[test]
    fn nobody_but_a_node_speaks_for_others() {
        let posing = caller("tandem://cinder/c", &[(&LOCAL, "1"), (&FOR, "tandem://admin/a")]);
        assert_eq!(posing.to_string(), "tandem://cinder/c");
        assert!(posing.may(Action::ForcePrimary).is_err());
    }
}
