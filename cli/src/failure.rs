//! How a call of `tandem` ends: the six exit codes, and each failure with what an operator can do about it.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::answer::Text;
use crate::daemon::Daemon;
use crate::out::story;

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

/// What a request does. Smaller than reqwest's, for a failure is passed from hand to hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Get,
    Post,
    Put,
    Delete,
}

impl From<Verb> for reqwest::Method {
    fn from(verb: Verb) -> Self {
        match verb {
            Verb::Get => Self::GET,
            Verb::Post => Self::POST,
            Verb::Put => Self::PUT,
            Verb::Delete => Self::DELETE,
        }
    }
}

/// Which request, as messages name it: "GET /v2/hosts".
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) daemon: Daemon,
    pub(crate) verb: Verb,
    pub(crate) path: String,
}

impl Call {
    /// True if it changes something, so that it matters whether it happened.
    pub(crate) fn orders(&self) -> bool {
        self.verb != Verb::Get
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", reqwest::Method::from(self.verb), self.path)
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
    #[error("cannot reach {daemon} at {address} ({origin})")]
    NotReached {
        daemon: Daemon,
        address: String,
        origin: String,
        #[source]
        source: reqwest::Error,
    },

    /// The control socket belongs to somebody else.
    #[error("cannot reach {daemon} at {address} ({origin}): permission denied")]
    NotPermitted { daemon: Daemon, address: String, origin: String },

    /// One side did not believe the other's certificate: certainly not done.
    #[error("cannot speak TLS with {daemon} at {address} ({origin}): {what}")]
    Tls { daemon: Daemon, address: String, origin: String, what: String },

    /// None of several.
    #[error("none of {} addresses answers: {}", failures.len(), stories(failures))]
    NoneReached { daemon: Daemon, failures: Vec<Self> },

    /// Without them nothing can be asked over https.
    #[error("{what}")]
    Certificates { what: String },

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

    /// A question whose answer does not end, and did not begin either.
    #[error("{address} gave no answer to {call}{}", within(Some(*limit)))]
    Late { call: Call, address: String, limit: Duration },

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

    /// Something answers, but not as the daemon does.
    #[error("the answer of {address} to {call} is not {}'s: {what}", call.daemon)]
    NotUnderstood { call: Call, address: String, what: String },

    /// The daemon understood and said no.
    #[error("{} refused {call} with {status}: {message}", call.daemon)]
    Refused {
        call: Call,
        status: u16,
        /// tandem-node's word for the kind of refusal: "held", "in_use".
        code: Text,
        message: String,
        remedy: Option<String>,
    },

    /// An error, but not in the daemon's form: a proxy, or another service.
    #[error("{address} answered {call} with {status}, not as {} does: {message}", call.daemon)]
    Stranger { call: Call, address: String, status: u16, message: String },

    /// The address only reads.
    #[error("{address} only reads: it refused {call} with {status}: {message}")]
    ReadOnly { call: Call, address: String, status: u16, message: String },

    #[error("no such {what}: {message}")]
    NotFound { what: String, message: String, remedy: String },

    /// tandem-ha said yes, and yet it is not so.
    #[error("{0}")]
    NotDone(&'static str),

    /// The order was taken, and its end did not come while we waited.
    #[error("{what}")]
    StillWaiting { what: String, remedy: String },

    /// Nobody is there to be asked whether it is meant.
    #[error("{what} wants to be confirmed, and stdin is no terminal")]
    Unconfirmed { what: &'static str, option: &'static str },

    #[error("nothing was done: {0}")]
    NotMeant(String),

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
            Self::Refused { code, .. } => ExitCode::from(of_refusal(code)),
            Self::BrokenOff { .. }
            | Self::NotUnderstood { .. }
            | Self::Stranger { .. }
            | Self::ReadOnly { .. }
            | Self::NotDone(_)
            | Self::StillWaiting { .. }
            | Self::NotMeant(_)
            | Self::Output(_)
            | Self::Start(_)
            | Self::Client(_) => ExitCode::from(1),
            Self::Address { .. }
            | Self::ConfigUnreadable { .. }
            | Self::Config { .. }
            | Self::Certificates { .. }
            | Self::Unconfirmed { .. }
            | Self::Ambiguous { .. } => ExitCode::from(2),
            Self::NotReached { .. }
            | Self::NotPermitted { .. }
            | Self::Tls { .. }
            | Self::NoneReached { .. }
            | Self::Late { .. }
            | Self::NoAnswer { .. } => ExitCode::from(3),
            Self::NotFound { .. } => ExitCode::from(4),
        }
    }

    /// Whether the next look may succeed: the daemon may be starting again.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::NotReached { .. }
            | Self::NoneReached { .. }
            | Self::NoAnswer { .. }
            | Self::Late { .. }
            | Self::BrokenOff { .. } => true,
            Self::Refused { status, .. } | Self::Stranger { status, .. } => *status >= 500,
            _ => false,
        }
    }

    /// Whether another node may be asked the same: this one was not reached, or only a question got no answer.
    pub(crate) fn another_may_answer(&self) -> bool {
        match self {
            Self::NotReached { .. } | Self::NotPermitted { .. } | Self::Tls { .. } | Self::Late { .. } => true,
            Self::NoAnswer { call, .. } | Self::BrokenOff { call, .. } => !call.orders(),
            _ => false,
        }
    }

    /// What the operator can do.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            Self::Address { .. } => Some("allowed: http://HOST:PORT, https://HOST:PORT, unix:/PATH".to_owned()),
            Self::ConfigUnreadable { .. } => Some("name another with --config, or the address itself with --ha or --node".into()),
            Self::Config { .. } => {
                Some(
                    "allowed: `ha = \"URL\"`, `node = \"URL\"` or `node = [\"URL\", ...]`, with http://HOST:PORT, \
                     https://HOST:PORT or unix:/PATH, and `tls_ca`, `tls_cert`, `tls_key`, files of TLS with tandem-node"
                        .to_owned(),
                )
            }
            Self::Ambiguous { .. } => Some("give more of the id".to_owned()),
            Self::NotReached { daemon, .. } | Self::NoneReached { daemon, .. } => {
                Some(format!("is {daemon} running? `systemctl status {daemon}` tells; {}", elsewhere(*daemon)))
            }
            Self::NotPermitted { daemon, .. } => {
                let port = format!("`--{} {}` will do", daemon.key(), daemon.port());
                Some(match daemon {
                    Daemon::Ha => format!("{ROOT_ALONE}: run as root (sudo); to read only, {port}"),
                    Daemon::Node => format!("{ROOT_ALONE}: run as root (sudo); where it listens on loopback, {port}"),
                })
            }
            Self::Tls { .. } => Some(
                "`tandem-node cert show FILE` tells whose a certificate is, of which CA, and until when it is good; \
                 docs/certificates.md has who may do what"
                    .to_owned(),
            ),
            Self::Certificates { .. } => Some(
                "set tls_ca, tls_cert and tls_key in /etc/tandem/tandem.toml, or TANDEM_TLS_CA, TANDEM_TLS_CERT and \
                 TANDEM_TLS_KEY; `tandem-node cert issue admin NAME` makes the files"
                    .to_owned(),
            ),
            Self::NoAnswer { call, .. } if call.orders() => Some(format!(
                "it may have been done all the same: look with `{}` before you give it again; \
                 `journalctl -u {daemon}` tells what holds {daemon} up",
                call.daemon.look(),
                daemon = call.daemon
            )),
            Self::NoAnswer { call: Call { daemon, .. }, .. } | Self::Late { call: Call { daemon, .. }, .. } => Some(format!(
                "is that {daemon}? `journalctl -u {daemon}` tells what holds it up; {}",
                elsewhere(*daemon)
            )),
            Self::BrokenOff { call, status, .. } if call.orders() && *status < 300 => {
                Some(format!("it was accepted: `{}` shows what came of it", call.daemon.look()))
            }
            Self::BrokenOff { call: Call { daemon, .. }, .. } => {
                Some(format!("did {daemon} end just now? `systemctl status {daemon}` tells; then ask again"))
            }
            Self::NotUnderstood { call: Call { daemon, .. }, .. } => Some(format!(
                "is that {daemon}, and of the same version as `tandem --version`? --json shows an answer as it came; {}",
                elsewhere(*daemon)
            )),
            Self::Refused { remedy, .. } => remedy.clone(),
            Self::Stranger { call, address, .. } => {
                Some(format!("is {address} its address? {}", elsewhere(call.daemon)))
            }
            Self::ReadOnly { .. } => Some(
                "orders go through the control socket: as root on tandem-ha's own host, `--ha unix:/run/tandem/ha.sock`"
                    .to_owned(),
            ),
            Self::NotFound { remedy, .. } => Some(remedy.clone()),
            Self::NotDone(_) => Some("`journalctl -u tandem-ha` tells more".to_owned()),
            Self::StillWaiting { remedy, .. } => Some(remedy.clone()),
            Self::Unconfirmed { option, .. } => Some(format!("{option} confirms it unasked")),
            Self::NotMeant(_) | Self::Output(_) | Self::Start(_) | Self::Client(_) => None,
        }
    }
}

const ROOT_ALONE: &str = "the control socket is open to root alone";

fn elsewhere(daemon: Daemon) -> String {
    let (key, variable) = (daemon.key(), daemon.variable());
    format!("another address: --{key} URL, {variable}, or `{key} = \"URL\"` in /etc/tandem/tandem.toml")
}

/// tandem-ha's codes are numbers: its refusals end with 1, or are told from each other where the order is given.
fn of_refusal(code: &Text) -> u8 {
    match code.get() {
        Some("unreachable") => 3,
        Some("not_found") => 4,
        Some("held") => 5,
        _ => 1,
    }
}

fn stories(failures: &[Failure]) -> String {
    failures.iter().map(story).collect::<Vec<_>>().join("; ")
}

fn within(limit: Option<Duration>) -> String {
    limit.map_or_else(String::new, |limit| format!(" within {} s", limit.as_secs_f64()))
}

/// The first few, so that one line stays one line.
fn list(candidates: &[String]) -> String {
    const SHOWN: usize = 5;
    let more = if candidates.len() > SHOWN { ", ..." } else { "" };
    format!("{}{more}", candidates.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", "))
}
