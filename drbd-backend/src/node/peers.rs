//! Connections between replicas: of two nodes the one with the lower place dials, and dials again whenever the connection is gone.
//!
//! With credentials a connection begins with TLS, and the certificate must be that of the node whose replica speaks. The first words
//! (`docs/wire-protocol.md`) say which volume it is; from then on the engine has it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use replication::wire::{PREAMBLE_BYTES, Preamble, VERSIONS, Verdict};
use replication::{Node as Place, VolumeId};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Known, Peer, Volumes};
use crate::engine::{Command, Handle};
use crate::identity::{
    Credentials, Door, Identity, client_config, explain, peer_identity, server_config, tunnel, unused_name,
};

/// How long a peer may take for a connection and its first words.
const GREETING_LIMIT: Duration = Duration::from_secs(2);

/// How long after a connection broke, or was refused, it is tried again.
const DIAL_AGAIN: Duration = Duration::from_millis(100);

/// Connections that have not said yet whose they are.
const MOST_STRANGERS: usize = 256;

/// Keeps the connection to one peer of one volume, as long as the volume is open.
pub(super) async fn dial(
    handle: Handle,
    known: Arc<Known>,
    place: Place,
    peer: Peer,
    credentials: Option<Arc<Credentials>>,
) {
    let volume = known.config.volume;
    let Some(parted) = known.parted.get(&place) else { return };
    let mut said = String::new();
    loop {
        let greeting = timeout(GREETING_LIMIT, introduce(&known, place, &peer, credentials.as_ref())).await;
        match greeting.context("it did not answer in time").and_then(|outcome| outcome) {
            Ok(stream) => {
                said.clear();
                handle.tell(Command::Peer { volume, node: place, stream });
                parted.notified().await;
            }
            Err(error) => {
                let error = format!("{error:#}");
                if error != said {
                    tracing::warn!(%volume, peer = %peer.name, address = %peer.address, error, "the peer was not reached");
                    said = error;
                }
            }
        }
        sleep(DIAL_AGAIN).await;
    }
}

async fn introduce(
    known: &Known,
    place: Place,
    peer: &Peer,
    credentials: Option<&Arc<Credentials>>,
) -> anyhow::Result<OwnedFd> {
    let config = &known.config;
    let mut stream = TcpStream::connect(peer.address).await?;
    stream.set_nodelay(true)?;
    let ours =
        Preamble { versions: VERSIONS, volume: config.volume, from: config.me, to: place, verdict: Verdict::Come };
    let Some(credentials) = credentials else {
        greet(&mut stream, &ours).await?;
        return Ok(stream.into_std()?.into());
    };
    let wanted = client_config(credentials, Identity::Node(peer.name.clone()), Door::Peers);
    let mut stream = TlsConnector::from(wanted).connect(unused_name(), stream).await.map_err(explained)?;
    peer_identity(stream.get_ref().1, Door::Peers)?;
    greet(&mut stream, &ours).await?;
    Ok(tunnel(stream)?)
}

async fn greet(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), ours: &Preamble) -> anyhow::Result<()> {
    stream.write_all(&ours.encode()).await?;
    stream.flush().await?;
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    ours.agree(&Preamble::decode(&bytes)?)?;
    Ok(())
}

/// rustls' reason, where the connection did not merely break.
fn explained(error: std::io::Error) -> anyhow::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(reason) => anyhow::anyhow!("{}", explain(reason)),
        None => error.into(),
    }
}

pub(super) async fn accept(
    handle: Handle,
    listener: TcpListener,
    volumes: Volumes,
    credentials: Option<Arc<Credentials>>,
) {
    let acceptor = credentials.map(|credentials| TlsAcceptor::from(server_config(&credentials, Door::Peers)));
    let strangers = Arc::new(Semaphore::new(MOST_STRANGERS));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            sleep(DIAL_AGAIN).await; // out of descriptors: others may go
            continue;
        };
        let Ok(permit) = strangers.clone().try_acquire_owned() else {
            tracing::warn!(%from, "too many connections that do not say whose they are: one is turned away");
            continue;
        };
        let (handle, volumes, acceptor) = (handle.clone(), volumes.clone(), acceptor.clone());
        tokio::spawn(async move {
            match timeout(GREETING_LIMIT, receive(&volumes, stream, acceptor)).await {
                Ok(Ok((volume, node, stream))) => handle.tell(Command::Peer { volume, node, stream }),
                Ok(Err(error)) => tracing::warn!(%from, error = %format!("{error:#}"), "a peer was turned away"),
                Err(_) => tracing::warn!(%from, "somebody connected to the peers' port and said nothing"),
            }
            drop(permit);
        });
    }
}

async fn receive(
    volumes: &Volumes,
    mut stream: TcpStream,
    acceptor: Option<TlsAcceptor>,
) -> anyhow::Result<(VolumeId, Place, OwnedFd)> {
    stream.set_nodelay(true)?;
    let Some(acceptor) = acceptor else {
        let (volume, place) = let_in(volumes, &mut stream, None).await?;
        return Ok((volume, place, stream.into_std()?.into()));
    };
    let mut stream = acceptor.accept(stream).await.map_err(explained)?;
    let identity = peer_identity(stream.get_ref().1, Door::Peers)?;
    let (volume, place) = let_in(volumes, &mut stream, Some(&identity)).await?;
    Ok((volume, place, tunnel(stream)?))
}

/// Whoever has shown a certificate speaks only for the node that it names.
async fn let_in(
    volumes: &Volumes,
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    identity: Option<&Identity>,
) -> anyhow::Result<(VolumeId, Place)> {
    let mut bytes = [0; PREAMBLE_BYTES];
    stream.read_exact(&mut bytes).await?;
    let theirs = Preamble::decode(&bytes)?;
    let known = volumes.find(theirs.volume);
    let verdict = match &known {
        None => Verdict::NoSuchVolume,
        Some(known) => match known.config.peers.get(&theirs.from) {
            Some(peer) if known.config.me == theirs.to => {
                if let Some(identity) = identity
                    && *identity != Identity::Node(peer.name.clone())
                {
                    bail!("{identity} speaks as {}, which is {} in volume {}", theirs.from, peer.name, theirs.volume);
                }
                Verdict::Come
            }
            _ => Verdict::NotThatNode,
        },
    };
    let ours = theirs.answer(VERSIONS, verdict);
    stream.write_all(&ours.encode()).await?;
    stream.flush().await?;
    theirs.agree(&ours)?;
    ensure!(
        known.is_some_and(|known| theirs.from < known.config.me),
        "{} has the higher place: it is dialled",
        theirs.from
    );
    Ok((theirs.volume, theirs.from))
}
