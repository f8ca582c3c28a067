//! How a call of `tandem` ends: the six exit codes, and each failure with what an operator can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// What was asked for was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Done,
    /// A gate says no.
    Held,
    /// Ctrl-C before what was waited for.
    Interrupted,
}

impl Ending {
    pub(crate) fn held_if(held: bool) -> Self {
        if held { Self::Held } else { Self::Done }
    }

    pub(crate) fn exit_code(self) -> ExitCode {
        match self {
            Self::Done => ExitCode::SUCCESS,
            Self::Held => ExitCode::from(5),
            // What a shell reports of a command that SIGINT ended.
            Self::Interrupted => ExitCode::from(130),
        }
    }
}

/// Which request, as messages name it: "GET /v2/hosts".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: reqwest::Method,
    pub(crate) path: String,
}

impl Call {
    /// True if it changes something, so that it matters whether it happened.
    pub(crate) fn orders(&self) -> bool {
        self.method != reqwest::Method::GET
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The address, as it was given, is none.
    #[error("{origin}: {url:?} is no address: {why}")]
    Address { origin: String, url: String, why: String },

    #[error("cannot read the configuration file {}", file.display())]
    ConfigUnreadable {
        file: PathBuf,
        #[source]
        source: io::Error,
    },

    #[error("{}: {what}", file.display())]
    Config { file: PathBuf, what: String },

    /// Several incidents begin like this.
    #[error("{given:?} is the beginning of {} incidents: {}", candidates.len(), list(candidates))]
    Ambiguous { given: String, candidates: Vec<String> },

    /// No connection: certainly not done.
    #[error("cannot reach tandem-ha at {address} ({origin})")]
    NotReached {
        address: String,
        origin: String,
        #[source]
        source: reqwest::Error,
    },

    /// The control socket belongs to somebody else.
    #[error("cannot reach tandem-ha at {address} ({origin}): permission denied")]
    NotPermitted { address: String, origin: String },

    /// Connected, sent, and nothing came back.
    #[error("{address} ({origin}) gave no answer to {call}{}", within(*limit))]
    NoAnswer {
        call: Call,
        address: String,
        origin: String,
        /// The limit, where it was what ended the wait.
        limit: Option<Duration>,
        #[source]
        source: reqwest::Error,
    },

    /// The status came, the rest did not.
    #[error("the answer of {address} to {call} broke off after {bytes} bytes (HTTP {status})")]
    BrokenOff {
        call: Call,
        address: String,
        status: u16,
        bytes: usize,
        #[source]
        source: reqwest::Error,
    },

    /// Something answers, but not as tandem-ha does.
    #[error("the answer of {address} to {call} is not tandem-ha's: {what}")]
    NotUnderstood { call: Call, address: String, what: String },

    /// tandem-ha understood and said no.
    #[error("tandem-ha refused {call} with {status}: {message}")]
    Refused { call: Call, status: u16, message: String, remedy: Option<String> },

    /// An error, but not in tandem-ha's form: a proxy, or another service.
    #[error("{address} answered {call} with {status}, not as tandem-ha does: {message}")]
    Stranger { call: Call, address: String, status: u16, message: String },

    /// The address only reads.
    #[error("{address} only reads: it refused {call} with {status}: {message}")]
    ReadOnly { call: Call, address: String, status: u16, message: String },

    #[error("no such {what}: {message}")]
    NotFound { what: String, message: String, remedy: String },

    /// tandem-ha said yes, and yet it is not so.
    #[error("{0}")]
    NotDone(&'static str),

    #[error("cannot write the output")]
    Output(#[from] io::Error),

    #[error("cannot start")]
    Start(#[source] io::Error),

    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

impl Failure {
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            // Who reads no further has what he wanted.
            Self::Output(cause) if cause.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Self::BrokenOff { .. }
            | Self::NotUnderstood { .. }
            | Self::Refused { .. }
            | Self::Stranger { .. }
            | Self::ReadOnly { .. }
            | Self::NotDone(_)
            | Self::Output(_)
            | Self::Start(_)
            | Self::Client(_) => ExitCode::from(1),
            Self::Address { .. } | Self::ConfigUnreadable { .. } | Self::Config { .. } | Self::Ambiguous { .. } => {
                ExitCode::from(2)
            }
            Self::NotReached { .. } | Self::NotPermitted { .. } | Self::NoAnswer { .. } => ExitCode::from(3),
            Self::NotFound { .. } => ExitCode::from(4),
        }
    }

    /// Whether the next look may succeed: the daemon may be starting again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NotReached { .. } | Self::NoAnswer { .. } | Self::BrokenOff { .. } => true,
            Self::Refused { status, .. } | Self::Stranger { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// What the operator can do.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Address { .. } => Some("allowed: http://HOST:PORT, https://HOST:PORT, unix:/PATH".to_owned()),
            Self::ConfigUnreadable { .. } => Some("name another with --config, or the address itself with --ha".into()),
            Self::Config { .. } => {
                Some("allowed: `ha = \"URL\"`, with http://HOST:PORT, https://HOST:PORT or unix:/PATH".to_owned())
            }
            Self::Ambiguous { .. } => Some("give more of the id".to_owned()),
            Self::NotReached { .. } => {
                Some(format!("is tandem-ha running? `systemctl status tandem-ha` tells; {ELSEWHERE}"))
            }
            Self::NotPermitted { .. } => Some(
                "the control socket is open to root alone: run as root (sudo); to read only, \
                 `--ha http://127.0.0.1:15868` will do"
                    .to_owned(),
            ),
            Self::NoAnswer { call, .. } if call.orders() => Some(
                "it may have been done all the same: look with `tandem status` before you give it again; \
                 `journalctl -u tandem-ha` tells what holds tandem-ha up"
                    .to_owned(),
            ),
            Self::NoAnswer { .. } => {
                Some(format!("is that tandem-ha? `journalctl -u tandem-ha` tells what holds it up; {ELSEWHERE}"))
            }
            Self::BrokenOff { call, status, .. } if call.orders() && *status < 300 => {
                Some("it was accepted: `tandem status` shows what came of it".to_owned())
            }
            Self::BrokenOff { .. } => {
                Some("did tandem-ha end just now? `systemctl status tandem-ha` tells; then ask again".to_owned())
            }
            Self::NotUnderstood { .. } => Some(format!(
                "is that tandem-ha, and of the same version as `tandem --version`? --json shows an answer as it came; \
                 {ELSEWHERE}"
            )),
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Stranger { address, .. } => Some(format!("is {address} its address? {ELSEWHERE}")),
            Self::ReadOnly { .. } => Some(
                "orders go through the control socket: as root on tandem-ha's own host, `--ha unix:/run/tandem/ha.sock`"
                    .to_owned(),
            ),
            Self::NotFound { remedy, .. } => Some(remedy.clone()),
            Self::NotDone(_) => Some("`journalctl -u tandem-ha` tells more".to_owned()),
            Self::Output(_) | Self::Start(_) | Self::Client(_) => None,
        }
    }
}

const ELSEWHERE: &str = "another address: --ha URL, TANDEM_HA_URL, or `ha = \"URL\"` in /etc/tandem/tandem.toml";

fn within(limit: Option<Duration>) -> String {
    limit.map_or_else(String::new, |limit| format!(" within {} s", limit.as_secs_f64()))
}

/// The first few, so that one line stays one line.
fn list(candidates: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = if candidates.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", candidates.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
}
