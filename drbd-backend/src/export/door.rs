//! Lets NBD clients in: all of the handshake, TLS included, until a client has an export and its requests begin.
//!
//! ```text
//!  TCP ──▶ Handshake ──── NBD_OPT_STARTTLS ────▶ TLS ──▶ Handshake ──▶ Guest: a socket that speaks plain requests, for whoever serves them
//!              └──────────── an export is chosen ────────────────────────▲
//! ```
//! Nobody is waited for without end: a negotiation takes 30 s at most, and of those who negotiate there are 1024 at most. No more is read than belongs
//! to the handshake, so whatever a client sends behind it is still in its socket.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::nbd::{Ended, Export, Exports, GREETING, Handshake, Opened, Progress, Refusal, Session, Tls};
use crate::identity::{self, Credentials, Identity, explain, peer_identity, server_config, tunnel};

/// All of a client's negotiation.
const NEGOTIATION: Duration = Duration::from_secs(30);

const MOST_NEGOTIATING: usize = 1024;

/// How long, in all of a negotiation, answers wait for a takeover: longer than one takes with the default lease. A client that is refused stays away for
/// long: QEMU seven seconds.
const PATIENCE: Duration = Duration::from_secs(5);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// After the listener ran out of descriptors, others may go.
const REST: Duration = Duration::from_millis(100);

/// A client whose host is gone is noticed by these: it is asked after a minute of silence, and given up after another.
const SILENCE: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(15);
const QUESTIONS: u32 = 4;

/// The exports behind a door.
#[async_trait]
pub trait Shelf: Send + Sync + 'static {
    /// What an export is to whoever serves it.
    type Ticket: Clone + Send + Sync;

    /// The export of that name for this client, at this moment; `who` it is by its certificate, or nobody where it speaks without TLS.
    /// [`Refusal::NotYet`] only if the client `may_wait`: it is looked up again soon.
    ///
    /// # Errors
    /// Why this client does not get it.
    async fn find(&self, name: &str, who: Option<&Identity>, may_wait: bool)
    -> Result<(Export, Self::Ticket), Refusal>;

    /// Name and description of each.
    fn each(&self, show: &mut dyn FnMut(&str, &str));

    /// The negotiation is over, and this client's requests begin.
    fn serve(&self, guest: Guest<Self::Ticket>);
}

/// A client that has an export.
#[derive(Debug)]
pub struct Guest<T> {
    /// A stream socket, for plain requests and replies.
    pub socket: OwnedFd,
    pub session: Session,
    pub ticket: T,
}

/// How clients come in.
#[derive(Clone)]
pub struct Door {
    tls: Tls,
    acceptor: Option<TlsAcceptor>,
}

/// Why a client is sent away without being told.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error(transparent)]
    Protocol(#[from] Ended),
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    #[error("TLS did not come about: {0}")]
    Tls(String),
    #[error("it did not choose an export within {} s", NEGOTIATION.as_secs())]
    Slow,
}

/// What a conversation led to.
enum Outcome<T> {
    StartTls,
    Opened(Session, T),
    /// Without an export.
    Gone,
}

impl Door {
    /// Without credentials everything is plain. With them a client may speak TLS, and must unless the door `is_local`, on loopback; its certificate must
    /// be of an identity that may open exports.
    #[must_use]
    pub fn new(credentials: Option<&Arc<Credentials>>, is_local: bool) -> Self {
        let tls = match credentials {
            None => Tls::None,
            Some(_) if is_local => Tls::Allowed,
            Some(_) => Tls::Required,
        };
        let acceptor = credentials.map(|ours| TlsAcceptor::from(server_config(ours, identity::Door::Nbd)));
        Self { tls, acceptor }
    }

    /// Lets clients in for ever. Whoever negotiates when this is dropped is sent away.
    pub async fn keep<S: Shelf>(self, listener: TcpListener, shelf: Arc<S>) {
        let mut negotiating = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = negotiating.join_next() => continue,
            };
            let Ok((stream, from)) = accepted else {
                sleep(REST).await;
                continue;
            };
            if negotiating.len() >= MOST_NEGOTIATING {
                tracing::warn!(%from, "{MOST_NEGOTIATING} NBD clients negotiate: one more is turned away");
                continue;
            }
            let (door, shelf) = (self.clone(), shelf.clone());
            negotiating.spawn(async move {
                let let_in = timeout(NEGOTIATION, door.let_in(stream, &*shelf)).await.unwrap_or(Err(Unwelcome::Slow));
                match let_in {
                    Ok(Some(guest)) => shelf.serve(guest),
                    Ok(None) => tracing::debug!(%from, "an NBD client went without an export"),
                    Err(why) => tracing::info!(%from, "an NBD client was sent away: {why}"),
                }
            });
        }
    }

    async fn let_in<S: Shelf>(&self, mut stream: TcpStream, shelf: &S) -> Result<Option<Guest<S::Ticket>>, Unwelcome> {
        stream.set_nodelay(true)?;
        notice_silence(&stream)?;
        let mut talk = Talk { handshake: Handshake::new(self.tls), shelf, who: None, patience: None };
        stream.write_all(&GREETING).await?;
        match talk.on(&mut stream).await? {
            Outcome::Gone => Ok(None),
            Outcome::Opened(session, ticket) => Ok(Some(Guest { socket: stream.into_std()?.into(), session, ticket })),
            Outcome::StartTls => {
                let acceptor = self.acceptor.as_ref().expect("TLS begins only where there are credentials");
                let mut stream = acceptor.accept(stream).await.map_err(|error| Unwelcome::Tls(explained(&error)))?;
                let who = peer_identity(stream.get_ref().1, identity::Door::Nbd);
                talk.who = Some(who.map_err(|error| Unwelcome::Tls(error.to_string()))?);
                talk.handshake.secured();
                match talk.on(&mut stream).await? {
                    Outcome::Gone => Ok(None),
                    Outcome::Opened(session, ticket) => Ok(Some(Guest { socket: tunnel(stream)?, session, ticket })),
                    Outcome::StartTls => unreachable!("TLS begins once"),
                }
            }
        }
    }
}

/// One client's handshake.
struct Talk<'a, S: Shelf> {
    handshake: Handshake,
    shelf: &'a S,
    who: Option<Identity>,
    /// Until when answers may wait, once one has.
    patience: Option<Instant>,
}

/// An export that was asked for, and what came of it.
type Found<T> = (String, Result<(Export, T), Refusal>);

impl<S: Shelf> Talk<'_, S> {
    async fn on(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<Outcome<S::Ticket>, Unwelcome> {
        let mut bytes = [0; 1024];
        loop {
            let wanted = self.handshake.wants().min(bytes.len());
            let count = stream.read(&mut bytes[..wanted]).await?;
            if count == 0 {
                return Ok(Outcome::Gone);
            }
            if let Some(outcome) = self.heard(&bytes[..count], stream).await? {
                return Ok(outcome);
            }
        }
    }

    /// What came of these bytes, if the conversation is over. Exports are looked up between two looks of the handshake, which knows no waiting.
    async fn heard(
        &mut self,
        mut bytes: &[u8],
        stream: &mut (impl AsyncWrite + Unpin),
    ) -> Result<Option<Outcome<S::Ticket>>, Unwelcome> {
        let mut found: Option<Found<S::Ticket>> = None;
        loop {
            let mut out = Vec::new();
            let answers = Answers { shelf: self.shelf, found: found.as_ref(), asked: Mutex::default() };
            let (taken, progress) = self.handshake.received(bytes, &answers, &mut out)?;
            let asked = answers.asked.into_inner().unwrap_or_else(PoisonError::into_inner);
            bytes = &bytes[taken..];
            stream.write_all(&out).await?;
            stream.flush().await?;
            match progress {
                Progress::More if bytes.is_empty() => return Ok(None),
                Progress::More => found = None,
                Progress::Waiting => {
                    let name = asked.expect("an answer waits only for an export");
                    let looked_up = self.look_up(&name).await;
                    found = Some((name, looked_up));
                }
                Progress::StartTls => return Ok(Some(Outcome::StartTls)),
                Progress::Aborted => return Ok(Some(Outcome::Gone)),
                Progress::Opened(opened) => {
                    let Opened { session, .. } = *opened;
                    let ticket = found.and_then(|(_, outcome)| outcome.ok()).map(|(_, ticket)| ticket);
                    return Ok(Some(Outcome::Opened(session, ticket.expect("what was opened was found"))));
                }
            }
        }
    }

    async fn look_up(&mut self, name: &str) -> Result<(Export, S::Ticket), Refusal> {
        loop {
            let may_wait = self.patience.is_none_or(|until| Instant::now() < until);
            match self.shelf.find(name, self.who.as_ref(), may_wait).await {
                Err(Refusal::NotYet) => {
                    self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
                    sleep(LOOK_AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// What was found, for the handshake; what else it asks for has to be looked up first.
struct Answers<'a, S: Shelf> {
    shelf: &'a S,
    found: Option<&'a Found<S::Ticket>>,
    asked: Mutex<Option<String>>,
}

impl<S: Shelf> Exports for Answers<'_, S> {
    fn find(&self, name: &str) -> Result<Export, Refusal> {
        match self.found {
            Some((found, outcome)) if found == name => {
                outcome.as_ref().map(|(export, _)| export.clone()).map_err(Clone::clone)
            }
            _ => {
                *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(name.to_owned());
                Err(Refusal::NotYet)
            }
        }
    }

    fn each(&self, show: &mut dyn FnMut(&str, &str)) {
        self.shelf.each(show);
    }
}

pub(crate) fn notice_silence(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENCE)?;
    sockopt::set_tcp_keepintvl(stream, ASK_EVERY)?;
    sockopt::set_tcp_keepcnt(stream, QUESTIONS)?;
    Ok(())
}

/// rustls' reason, where the connection did not merely break.
fn explained(error: &io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => explain(reason),
        None => error.to_string(),
    }
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Door(TLS {})", self.tls)
    }
}
