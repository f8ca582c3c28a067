//! Lets iSCSI initiators in: their login, until a session begins; and discovery, all of it.
//!
//! ```text
//!  TCP ──▶ Login ──▶ normal session: a socket and its terms, for whoever serves the volume
//!              └───▶ Discovery: which targets there are, and where
//! ```
//! Nobody is waited for without end: a login takes 15 s at most (RFC 7143 leaves it to us; open-iscsi gives up after as long), a discovery a minute, and of
//! those that are at it there are 1024 at most, 256 from one address. No more is read than belongs to a login, so whatever comes behind it is still in the socket.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use iscsi::{Admission, CHALLENGE_BYTES, Claim, Discovery, Entropy, LoggedIn, Login, Portal, Progress, Said, Status};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::export::door::notice_silence;
use crate::seldom::Seldom;

const LOGIN: Duration = Duration::from_secs(15);
const DISCOVERY: Duration = Duration::from_secs(60);
const MOST_AT_THE_DOOR: usize = 1024;
/// Of those from one address.
const MOST_FROM_ONE: usize = 256;

/// After the listener ran out of descriptors, others may go.
const REST: Duration = Duration::from_millis(100);

/// The targets behind a portal.
#[async_trait]
pub trait Targets: Send + Sync + 'static {
    /// What a target is to whoever serves it.
    type Ticket: Send + Sync;

    /// What this initiator has to prove to get what it wants.
    ///
    /// # Errors
    /// Why it does not get it, for it and for the log.
    async fn admit(&self, claim: &Claim) -> Result<(Admission, Self::Ticket), (Status, String)>;

    /// The tag of the portal group through which a target is served here (RFC 7143, section 4.4.1).
    async fn group(&self, target: &str) -> u16;

    /// The targets of this name, which comes without proof, each with its portals; only the `wanted` one, if there is one.
    async fn of(&self, initiator: &str, here: SocketAddr, wanted: Option<&str>) -> Vec<(String, Vec<Portal>)>;

    /// A session begins.
    fn serve(&self, ticket: Self::Ticket, logged_in: LoggedIn, socket: OwnedFd);
}

/// Why an initiator is sent away.
#[derive(Debug, thiserror::Error)]
enum Unwelcome {
    #[error(transparent)]
    Login(#[from] iscsi::Ended),
    #[error(transparent)]
    Discovery(#[from] iscsi::DiscoveryBroken),
    #[error("the connection broke: {0}")]
    Connection(#[from] io::Error),
    #[error("it did not log in within {} s", LOGIN.as_secs())]
    Slow,
}

/// Of whoever is sent away, for all tasks.
#[derive(Debug)]
struct Log(Mutex<Seldom>);

impl Log {
    fn may(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).may(Instant::now())
    }
}

/// Lets initiators in for ever. Whoever is at the door when this is dropped is sent away.
pub async fn keep<T: Targets>(listener: TcpListener, targets: Arc<T>) {
    let (tsih, log) = (Arc::new(AtomicU16::new(1)), Arc::new(Log(Mutex::new(Seldom::new(Instant::now())))));
    let mut at_the_door = JoinSet::new();
    let mut from_one: HashMap<IpAddr, usize> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(gone) = at_the_door.join_next() => {
                if let Ok(address) = gone
                    && let Entry::Occupied(mut count) = from_one.entry(address)
                {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
                continue;
            }
        };
        let Ok((stream, from)) = accepted else {
            sleep(REST).await;
            continue;
        };
        let of_this = from_one.entry(from.ip()).or_default();
        if at_the_door.len() >= MOST_AT_THE_DOOR || *of_this >= MOST_FROM_ONE {
            if let Some(left_out) = log.may() {
                tracing::warn!(%from, left_out, of_this, "too many initiators are logging in: one more is turned away");
            }
            continue;
        }
        *of_this += 1;
        let (targets, tsih, log) = (targets.clone(), tsih.clone(), log.clone());
        at_the_door.spawn(async move {
            if let Err(why) = let_in(stream, &*targets, &tsih).await
                && let Some(left_out) = log.may()
            {
                tracing::info!(%from, left_out, "an initiator was sent away: {why}");
            }
            from.ip()
        });
    }
}

async fn let_in<T: Targets>(mut stream: TcpStream, targets: &T, tsih: &AtomicU16) -> Result<(), Unwelcome> {
    stream.set_nodelay(true)?;
    notice_silence(&stream)?;
    let logged_in = timeout(LOGIN, log_in(&mut stream, targets, tsih)).await.unwrap_or(Err(Unwelcome::Slow))?;
    match logged_in {
        None => Ok(()),
        Some((logged_in, Some(ticket))) => {
            targets.serve(ticket, logged_in, stream.into_std()?.into());
            Ok(())
        }
        Some((logged_in, None)) => timeout(DISCOVERY, discover(stream, targets, logged_in)).await.unwrap_or(Ok(())),
    }
}

/// None: it went away.
async fn log_in<T: Targets>(
    stream: &mut TcpStream,
    targets: &T,
    tsih: &AtomicU16,
) -> Result<Option<(LoggedIn, Option<T::Ticket>)>, Unwelcome> {
    // Zero is no session's.
    let tsih = tsih.fetch_add(1, Ordering::Relaxed).max(1);
    let mut login = Login::new(tsih, entropy());
    let mut ticket = None;
    let mut bytes = [0; 4096];
    loop {
        let wanted = login.wants().min(bytes.len());
        let count = stream.read(&mut bytes[..wanted]).await?;
        if count == 0 {
            return Ok(None);
        }
        let mut out = Vec::new();
        let mut progress = login.received(&bytes[..count], &mut out).map(|(_, progress)| progress);
        if let Ok(Progress::WhoIs(claim)) = &progress {
            let admission = match claim.target.as_deref() {
                // Which targets there are may be asked by everybody; what is told is only what the name it gives may use.
                None => Ok(Admission::default()),
                Some(target) => match targets.admit(claim).await {
                    Ok((admission, found)) => {
                        ticket = Some(found);
                        Ok(Admission { portal_group: targets.group(target).await, ..admission })
                    }
                    Err(refused) => Err(refused),
                },
            };
            progress = login.admit(admission, &mut out);
        }
        stream.write_all(&out).await?;
        if let Progress::Done(logged_in) = progress? {
            return Ok(Some((*logged_in, ticket)));
        }
    }
}

async fn discover<T: Targets>(mut stream: TcpStream, targets: &T, logged_in: LoggedIn) -> Result<(), Unwelcome> {
    let (initiator, here) = (logged_in.claim.initiator.clone(), stream.local_addr()?);
    let mut discovery = Discovery::new(logged_in);
    let mut bytes = [0; 4096];
    loop {
        let wanted = discovery.wants().min(bytes.len());
        let count = stream.read(&mut bytes[..wanted]).await?;
        if count == 0 {
            return Ok(());
        }
        let mut out = Vec::new();
        let (_, said) = discovery.received(&bytes[..count], &mut out)?;
        if let Said::Targets(wanted) = &said {
            let found = targets.of(&initiator, here, wanted.as_deref()).await;
            discovery.found(&found, &mut out);
        }
        stream.write_all(&out).await?;
        if said == Said::LoggedOut {
            return Ok(());
        }
    }
}

/// Of the kernel's random numbers (getrandom(2)), as uuids are.
fn entropy() -> Entropy {
    let mut challenge = [0; CHALLENGE_BYTES];
    challenge.chunks_mut(16).for_each(|part| part.copy_from_slice(Uuid::new_v4().as_bytes()));
    Entropy { challenge, identifier: Uuid::new_v4().as_bytes()[0] }
}
