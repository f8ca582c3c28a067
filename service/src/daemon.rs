//! Puts the daemon together: store, cloud, watchers, conductor, API; and takes it apart again in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use failover::Ledger;
use openstack_client::{Cloud, CloudConfig, Limits, Surroundings, chain};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::act::Hands;
use crate::api;
use crate::clock::Clock;
use crate::conductor::{Conductor, Ends, Event};
use crate::config::{Config, PROBE_EVERY};
use crate::desk::{Board, Desk};
use crate::fence::redfish::Redfish;
use crate::store::Store;
use crate::watch::heartbeat::{Beat, Listener};
use crate::watch::instances::{Reader, Turns};
use crate::watch::power::{self, Attention};
use crate::watch::{nova, reach};
use crate::world::{World, policy};

/// Events that wait for the conductor; a second of a thousand hosts' heartbeats.
const EVENTS: usize = 4096;

/// Runs until `stop` says so. What cannot be had at the start and is ours (database, sockets) ends it with an error; what is elsewhere
/// (Keystone, Nova, BMCs) is waited for.
pub async fn run(config: Config, stop: watch::Receiver<bool>) -> Result<()> {
    let config = Arc::new(config);
    let clock = Clock::start();
    let cloud = CloudConfig::load(config.openstack.cloud.as_deref(), &Surroundings::of_this_process())?;
    let cloud = Cloud::new(cloud, Limits::default())?;
    let store = Store::open(&config.store.path).await?;
    let ledger = store.load(clock.now() - policy(&config).memory()).await?;
    let bmcs = Arc::new(bmcs(&config)?);
    let (events, received) = mpsc::channel(EVENTS);
    let (attention, wanted) = watch::channel(Attention::default());
    let world = World::new(Arc::clone(&config), clock.now(), ledger.hosts.keys());
    let (board, shown) = watch::channel(Arc::new(first_board(&world, &ledger, clock)));

    let mut watchers = JoinSet::new();
    listen(&config, &events, &mut watchers).await?;
    probe(&config, clock, &events, &mut watchers);
    watchers.spawn(nova::run(cloud.clone(), config.openstack.poll, clock, events.clone()));
    watchers.spawn(nova::watch_aggregates(cloud.clone(), events.clone()));
    watchers.spawn(nova::watch_bare_metal(cloud.clone(), events.clone()));
    let desk = Desk::new(shown, requests(&events, &mut watchers));
    let api = api::bind(&config.api.listen, &config.control_socket).await?;
    // Last of what may fail: a daemon that cannot start must not log in at every BMC each time.
    for (name, bmc) in bmcs.iter() {
        watchers.spawn(power::run(name.clone(), Arc::clone(bmc), wanted.clone(), clock, events.clone()));
    }
    let served = tokio::spawn(api::serve(api, desk, store.clone(), stop.clone()));
    say_hello(&config, &cloud, &ledger);

    let reader = Reader {
        cloud: cloud.clone(),
        clock,
        metadata_key: config.evacuation.metadata_key.as_str().into(),
        turns: Turns::default(),
    };
    let hands = Hands { cloud, bmcs, clock };
    let conductor = Conductor::new(world, ledger, store, hands, reader, Ends { events, board, attention });
    let took_over = conductor.run(received, stop).await;
    watchers.shutdown().await;
    ensure!(took_over, "the database cannot be written, so nothing may be done: the log says why");
    served.await.context("the API ended badly")??;
    tracing::info!("ended; open incidents are taken up again at the next start");
    Ok(())
}

fn first_board(world: &World, ledger: &Ledger, clock: Clock) -> Board {
    Board { now: clock.now(), seen: world.seen.clone(), ledger: ledger.clone(), policy: world.policy.clone() }
}

fn say_hello(config: &Config, cloud: &Cloud, ledger: &Ledger) {
    let (armed, open) = (ledger.armed, ledger.open_incidents().count());
    tracing::info!(config = %config.file.display(), database = %config.store.path.display(), armed, open, "tandem-ha watches");
    if !armed {
        tracing::warn!("disarmed: it watches and does nothing; `tandem arm` lets it act");
    }
    let cloud = cloud.clone();
    tokio::spawn(async move {
        if let Err(error) = cloud.authenticate().await {
            tracing::warn!(error = chain(&error), "no token yet");
        }
    });
}

fn bmcs(config: &Config) -> Result<BTreeMap<String, Arc<Redfish>>> {
    let with_bmc = config.hosts.iter().filter_map(|(name, host)| Some((name, host.redfish.as_ref()?)));
    with_bmc
        .map(|(name, redfish)| {
            let client = Redfish::new(redfish, config.fencing.limit).with_context(|| format!("the BMC of {name}"))?;
            Ok((name.clone(), Arc::new(client)))
        })
        .collect()
}

/// One socket for each network that hosts send heartbeats over.
async fn listen(config: &Config, events: &mpsc::Sender<Event>, watchers: &mut JoinSet<()>) -> Result<()> {
    let (beats, mut heard) = mpsc::channel::<Beat>(EVENTS);
    for listener in Listener::bind_all(&config.heartbeat, beats).await? {
        watchers.spawn(listener.run());
    }
    let events = events.clone();
    watchers.spawn(async move {
        while let Some(beat) = heard.recv().await {
            if events.send(Event::Beat(beat)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn probe(config: &Config, clock: Clock, events: &mpsc::Sender<Event>, watchers: &mut JoinSet<()>) {
    let (reached, mut found) = mpsc::channel::<reach::Probed>(EVENTS);
    for (name, host) in &config.hosts {
        for probe in &host.probes {
            watchers.spawn(reach::watch(name.clone(), probe.clone(), PROBE_EVERY, reached.clone()));
        }
    }
    let events = events.clone();
    watchers.spawn(async move {
        while let Some(probed) = found.recv().await {
            if probed.alive {
                let at = clock.at(probed.at.into());
                let event = Event::Reached { name: probed.host, network: probed.network, at };
                if events.send(event).await.is_err() {
                    return;
                }
            }
        }
    });
}

/// Requests of the API arrive among all other events, in order.
fn requests(events: &mpsc::Sender<Event>, watchers: &mut JoinSet<()>) -> mpsc::Sender<crate::desk::Request> {
    let (requests, mut asked) = mpsc::channel(16);
    let events = events.clone();
    watchers.spawn(async move {
        while let Some(request) = asked.recv().await {
            if events.send(Event::Request(request)).await.is_err() {
                return;
            }
        }
    });
    requests
}
