//! tandem-node from start to end: everything is begun in the order in which it is needed, and ended the other way round.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use replication::{DiskState, Node as Place, Order, Role, Settings, VolumeId};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::admin::dead::Book;
use crate::admin::state::{Parts, State};
use crate::admin::{self, Listeners};
use crate::arbiter::{self, ArbiterConfig, Embedded, Etcd, EtcdSettings, Limits, Register};
use crate::catalog::Catalog;
use crate::cluster::Cluster;
use crate::config::{ArbiterAt, Config};
use crate::fences::Watcher;
use crate::identity::{Credentials, Door, Identity, client_config, ordinary_client_config, server_config};
use crate::node::{Node, NodeConfig, boot_id};

/// How long a volume may take to pass its role on at the end.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Runs the daemon until `stop` is true; then every role is handed over to a peer in sync, and every replica shut down clean.
///
/// # Errors
/// Something that it needs cannot be had: an address, a directory, a certificate.
pub async fn run(config: Config, mut stop: watch::Receiver<bool>) -> Result<()> {
    let credentials = credentials(&config)?;
    let (register, arbiter) = register(&config, credentials.as_ref())?;
    let boot = boot_id(&config.boot_id_file)
        .with_context(|| format!("no boot id in {} (node.boot_id_file)", config.boot_id_file.display()))?;
    for (name, path) in &config.pools {
        let shown = path.display();
        std::fs::create_dir_all(path).with_context(|| format!("pools.{name}.path: {shown} cannot be made"))?;
    }
    let pool = config.pools.values().next().context("there is no pool")?;
    let dead = Book::open(pool)?;
    let cluster = Cluster::new(config.nodes.clone(), credentials.as_ref())?;
    let catalog = Arc::new(Catalog::load(config.name.as_str(), config.pools.clone()));
    let listeners = Listeners::bind(config.listen.rest, credentials.as_ref(), &config.control_socket).await?;
    let node = Node::begin(
        NodeConfig {
            peers: config.listen.peers,
            nbd: config.listen.nbd,
            iscsi: config.listen.iscsi,
            engine: config.engine,
            credentials: credentials.clone(),
            boot,
        },
        register.clone(),
    )
    .await?;
    let node = Arc::new(node);
    tracing::info!(name = %config.name, peers = %node.peers_address(), nbd = %node.nbd_address(), "serves replicas");
    let watched = catalog.clone();
    let watcher = Watcher::new(node.clone(), register.clone(), move || watched.volumes());
    let mut settings = Settings::of(VolumeId(0), Place::new(0).expect("there is a first place"));
    config.replication.apply(&mut settings);
    let scheme = if credentials.is_some() { "https" } else { "http" };
    let state = State::new(Parts {
        name: config.name.to_string(),
        node,
        rest: format!("{scheme}://{}", listeners.address()),
        started_at: Utc::now(),
        register,
        arbiter,
        dead,
        watcher,
        cluster,
        catalog,
        settings,
    });
    admin::open_all(&state).await;
    state.node().let_in();
    let reloading = tokio::spawn(reload(credentials));
    let serving = state.clone();
    admin::serve_on(listeners, serving, async move { drop(stop.wait_for(|stop| *stop).await) }).await;
    reloading.abort();
    farewell(&state).await;
    Ok(())
}

/// Runs the embedded arbiter until `stop` is true.
///
/// # Errors
/// Its address or its directory cannot be had, or its store fails.
pub async fn run_arbiter(config: Config, mut stop: watch::Receiver<bool>) -> Result<()> {
    let credentials = credentials(&config)?;
    let directory = config.arbiter_server.directory;
    let shown = directory.display();
    std::fs::create_dir_all(&directory).with_context(|| format!("arbiter_server.directory: {shown} cannot be made"))?;
    let reloading = tokio::spawn(reload(credentials.clone()));
    let tls = credentials.map(|credentials| server_config(&credentials, Door::Arbiter));
    let config = ArbiterConfig { directory, listen: config.arbiter_server.listen, tls };
    arbiter::serve(config, async move { drop(stop.wait_for(|stop| *stop).await) }).await?;
    reloading.abort();
    Ok(())
}

/// The certificates that the configuration names, if it does.
///
/// # Errors
/// They cannot be used.
pub fn credentials(config: &Config) -> Result<Option<Arc<Credentials>>> {
    let Some(paths) = config.tls.clone() else { return Ok(None) };
    let credentials = Credentials::load(paths).with_context(|| format!("{}: tls", config.file.display()))?;
    tracing::info!(identity = %credentials.identity(), ends = %credentials.ends(), "has a certificate");
    Ok(Some(credentials))
}

/// Where the records are, and how to say so.
type Arbiter = (Arc<dyn Register>, (&'static str, Vec<String>));

fn register(config: &Config, credentials: Option<&Arc<Credentials>>) -> Result<Arbiter> {
    let arbiter = config.arbiter.as_ref().context("arbiter.url is missing; it says where the arbiter is")?;
    let limits = Limits { connect: (arbiter.timeout / 2).min(Limits::default().connect), answer: arbiter.timeout };
    Ok(match &arbiter.at {
        ArbiterAt::Embedded { url, name } => {
            let tls = credentials.zip(name.clone()).filter(|_| url.starts_with("https"));
            let tls = tls.map(|(ours, name)| (*client_config(ours, Identity::Node(name), Door::Arbiter)).clone());
            (Arc::new(Embedded::new(url, tls, limits)?), ("embedded", vec![url.clone()]))
        }
        ArbiterAt::Etcd { endpoints, prefix } => {
            // etcd has an ordinary certificate, of the same CA.
            let is_tls = endpoints.iter().any(|it| it.starts_with("https"));
            let tls = credentials.filter(|_| is_tls).map(|ours| (*ordinary_client_config(ours)).clone());
            let settings = EtcdSettings { endpoints: endpoints.clone(), prefix: prefix.clone(), tls, limits };
            (Arc::new(Etcd::new(settings)?), ("etcd", endpoints.clone()))
        }
    })
}

/// Reads the certificates anew at each SIGHUP.
async fn reload(credentials: Option<Arc<Credentials>>) {
    let Ok(mut hangups) = signal(SignalKind::hangup()) else { return };
    while hangups.recv().await.is_some() {
        match credentials.as_ref().map(|credentials| credentials.reload()) {
            None => tracing::info!("SIGHUP: there are no certificates to read"),
            Some(Ok(ends)) => tracing::info!(%ends, "the certificates were read anew"),
            Some(Err(error)) => tracing::error!(%error, "the certificates stay as they were"),
        }
    }
}

/// Passes every role on, and closes every volume.
async fn farewell(state: &State) {
    let mut leaving = JoinSet::new();
    for volume in state.catalog().volumes() {
        let node = state.node().clone();
        leaving.spawn(async move {
            if let Some(heir) = heir(&node, volume).await {
                match timeout(HAND_OVER, node.order(volume, Order::HandOver(heir))).await {
                    Ok(Ok(())) => tracing::info!(%volume, to = %heir, "the role is handed over"),
                    Ok(Err(refusal)) => tracing::warn!(%volume, ?refusal, "the role is not handed over"),
                    Err(_) => tracing::warn!(%volume, to = %heir, "the role is not handed over in time"),
                }
            }
            if node.look(volume).await.is_some() {
                node.ask_to_log_out(volume).await;
                node.close(volume).await;
            }
        });
    }
    while leaving.join_next().await.is_some() {}
    tracing::info!("ended");
}

/// Who takes the role over from here.
async fn heir(node: &Node, volume: VolumeId) -> Option<Place> {
    let status = node.look(volume).await?.status;
    let fits = status.peers.iter().find(|peer| peer.connected && peer.disk == DiskState::UpToDate);
    fits.filter(|_| status.role == Role::Primary).map(|peer| peer.node)
}
