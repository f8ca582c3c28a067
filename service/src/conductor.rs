//! Observe, decide, record, act: one task, which alone changes the ledger.
//!
//! ```text
//!   watchers ──▶ events ─▶ World ─▶ decide ─▶ store.record ─▶ acts ─▶ answers ─┐
//!                  ▲                   ▲ until it has nothing more to say      │
//!                  └───────────────────┴────────────────────────────────────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use failover::{
    Act, Answer, ChannelKind, Decision, Entry, EntryKind, Host, InstancesSeen, Ledger, NovaSeen, Order, Phase, Time,
    closely, decide, order,
};
use openstack_client::{Aggregate, ServiceId, chain};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::act::{Hands, edits_the_service, limit};
use crate::clock::{Clock, Watchman};
use crate::desk::{Board, OrderError, Request};
use crate::store::Store;
use crate::watch::heartbeat::Beat;
use crate::watch::instances::{Reader, Survey};
use crate::watch::power::Attention;
use crate::world::{NovaAnswer, Reading, World};

/// How often we look although nothing was heard: silence is heard by looking.
const TICK: Duration = Duration::from_millis(200);
/// The store's file lock stands in for a lease: nobody else acts while we live. Its end still stops what was decided before a long sleep.
const LEASE: Duration = Duration::from_secs(30);
/// Each lists a host's instances, which costs Nova something; anybody may ask for them.
const DRY_RUNS: usize = 4;
/// One cycle makes one step of each incident; more than so many in a row without the world changing is a mistake of ours.
const MOST_STEPS: usize = 64;

/// What was seen, heard, answered or asked.
#[derive(Debug)]
pub enum Event {
    Nova(NovaAnswer),
    Aggregates(Vec<Aggregate>),
    BareMetal(BTreeSet<ServiceId>),
    Beat(Beat),
    Reached { name: String, network: String, at: Time },
    Power { name: String, reading: Reading, system: Option<Uuid>, asked: Time, answered: Time },
    Instances { host: Host, seen: InstancesSeen },
    Schedulable { host: Host, schedulable: bool },
    Answered { act: Act, answer: Answer },
    Request(Request),
}

#[derive(Debug)]
pub struct Conductor {
    world: World,
    ledger: Ledger,
    store: Store,
    hands: Hands,
    reader: Reader,
    clock: Clock,
    watchman: Watchman,
    events: mpsc::Sender<Event>,
    board: watch::Sender<Arc<Board>>,
    attention: watch::Sender<Attention>,
    surveys: BTreeMap<Host, tokio::task::AbortHandle>,
    tasks: JoinSet<()>,
    dry_runs: Arc<Semaphore>,
    store_complained: bool,
}

/// Where the conductor's ends are held by others.
#[derive(Debug)]
pub struct Ends {
    pub events: mpsc::Sender<Event>,
    pub board: watch::Sender<Arc<Board>>,
    pub attention: watch::Sender<Attention>,
}

/// Whether something should be decided at once. Signs of life come by the thousand, and wait for the next tick.
fn changes_much(event: &Event) -> bool {
    match event {
        Event::Beat(_) | Event::Reached { .. } => false,
        Event::Nova(_)
        | Event::Aggregates(_)
        | Event::BareMetal(_)
        | Event::Power { .. }
        | Event::Instances { .. }
        | Event::Schedulable { .. }
        | Event::Answered { .. }
        | Event::Request(_) => true,
    }
}

impl Conductor {
    pub fn new(world: World, ledger: Ledger, store: Store, hands: Hands, reader: Reader, ends: Ends) -> Self {
        let Ends { events, board, attention } = ends;
        let clock = hands.clock;
        let watchman = Watchman::start();
        let (surveys, tasks) = (BTreeMap::new(), JoinSet::new());
        Self {
            world,
            ledger,
            store,
            hands,
            reader,
            clock,
            watchman,
            events,
            board,
            attention,
            surveys,
            tasks,
            dry_runs: Arc::new(Semaphore::new(DRY_RUNS)),
            store_complained: false,
        }
    }

    /// Until `stop`; or not at all, if it cannot even be recorded that we have taken over. What is on its way then is answered by nobody; the next process looks anew.
    pub async fn run(mut self, mut events: mpsc::Receiver<Event>, mut stop: watch::Receiver<bool>) -> bool {
        if !self.take_over().await {
            return false;
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => break,
                // before the events: a flood of them must not keep us from looking
                _ = ticks.tick() => {}
                event = events.recv() => {
                    let Some(event) = event else { break };
                    let mut changes = changes_much(&event);
                    self.take(event).await;
                    while let Ok(event) = events.try_recv() {
                        changes |= changes_much(&event);
                        self.take(event).await;
                    }
                    if !changes {
                        continue;
                    }
                }
            }
            while self.tasks.try_join_next().is_some() {}
            self.cycle().await;
        }
        self.settle_answers(events).await;
        true
    }

    /// Acts that were sent are given a moment to be answered, so that the next process need not wonder.
    async fn settle_answers(mut self, mut events: mpsc::Receiver<Event>) {
        for survey in self.surveys.values() {
            survey.abort();
        }
        let patience = Duration::from_secs(5);
        let _ = tokio::time::timeout(patience, async { while self.tasks.join_next().await.is_some() {} }).await;
        while let Ok(event) = events.try_recv() {
            if let Event::Answered { act, answer } = event {
                self.answered(&act, &answer).await;
            }
        }
    }

    async fn take_over(&mut self) -> bool {
        let now = self.clock.now();
        let mut after = self.ledger.clone();
        after.taken_over(now);
        let entries: Vec<Entry> = after
            .open_incidents()
            .map(|incident| Entry {
                id: incident.id.clone(),
                kind: EntryKind::Evidence,
                instance: None,
                text: format!(
                    "tandem-ha has started; the incident is {}, and all is looked at anew",
                    incident.phase.word()
                ),
            })
            .collect();
        self.write(now, after, &entries).await
    }

    async fn take(&mut self, event: Event) {
        let now = self.clock.now();
        match event {
            Event::Nova(answer) => self.world.nova_answered(now, &answer),
            Event::Aggregates(aggregates) => self.world.aggregated(&aggregates),
            Event::BareMetal(services) => self.world.bare_metal(services),
            Event::Beat(beat) => {
                let at = self.clock.at(beat.at.into());
                self.world.beat(&beat.host, &beat.network, (beat.boot_id, beat.system_uuid), at);
            }
            Event::Reached { name, network, at } => {
                self.world.heard(&name, &network, ChannelKind::Tcp, at);
            }
            Event::Power { name, reading, system, asked, answered } => {
                self.world.power(&name, reading, system, (asked, answered));
            }
            Event::Instances { host, seen } => {
                self.world.seen.instances.insert(host, seen);
            }
            Event::Schedulable { host, schedulable } => self.world.schedulable(&host, schedulable),
            Event::Answered { act, answer } => self.answered(&act, &answer).await,
            Event::Request(Request::Order { order, by, why, answer }) => {
                let done = self.ordered(&order, &by, &why).await;
                let _ = answer.send(done);
            }
            Event::Request(Request::Instances { host, answer }) => self.look_for(host, answer),
        }
    }

    async fn answered(&mut self, act: &Act, answer: &Answer) {
        let now = self.clock.now();
        if edits_the_service(act) {
            self.world.edit_ended(&act.incident().host, now);
        }
        let entries: Vec<Entry> = act.answer_entry(answer).into_iter().collect();
        let mut after = self.ledger.clone();
        after.answered(now, act, answer);
        self.write(now, after, &entries).await;
    }

    async fn ordered(&mut self, wanted: &Order, by: &Arc<str>, why: &Arc<str>) -> Result<(), OrderError> {
        let now = self.clock.now();
        let decisions = order(now, &self.world.seen, &self.ledger, &self.world.policy, wanted, by, why)
            .map_err(|refusal| OrderError::Refused(refusal.0))?;
        tracing::info!(by = &**by, why = &**why, ?wanted, "ordered");
        if self.record(now, &decisions).await {
            self.publish(now);
            Ok(())
        } else {
            Err(OrderError::NotRecorded)
        }
    }

    fn look_for(&mut self, host: Host, answer: oneshot::Sender<Result<InstancesSeen, OrderError>>) {
        let Ok(turn) = Arc::clone(&self.dry_runs).try_acquire_owned() else {
            let busy = format!("{DRY_RUNS} dry runs are under way already: try again");
            let _ = answer.send(Err(OrderError::Refused(busy)));
            return;
        };
        let reader = self.reader.clone();
        self.tasks.spawn(async move {
            let _turn = turn;
            let listing = reader.listing(&host).await.map_err(OrderError::Refused);
            let seen =
                listing.map(|listing| InstancesSeen { listing: Some(Arc::new(listing)), ..InstancesSeen::default() });
            let _ = answer.send(seen);
        });
    }

    async fn cycle(&mut self) {
        let now = self.clock.now();
        if let Some(why) = self.watchman.look(TICK) {
            self.world.broken(now, why);
        }
        self.ledger.lease_until = now + LEASE;
        for _ in 0..MOST_STEPS {
            let decisions = decide(now, &self.world.seen, &self.ledger, &self.world.policy);
            if decisions.is_empty() || !self.record(now, &decisions).await {
                break;
            }
        }
        self.ledger.forget_before(now - self.world.policy.memory());
        self.publish(now);
    }

    /// Record, then act: if it cannot be recorded, it is not done.
    async fn record(&mut self, now: Time, decisions: &[Decision]) -> bool {
        let mut after = self.ledger.clone();
        let mut entries = Vec::new();
        for decision in decisions {
            after.apply(now, decision);
            entries.extend(decision.entry());
        }
        if !self.write(now, after, &entries).await {
            return false;
        }
        for decision in decisions {
            self.tell(decision);
            if let Decision::Act(act) = decision {
                self.begin(act.clone());
            }
            if let Decision::Phase { id, to: Phase::HostReturned, .. } = decision {
                self.world.forget_schedulable(&id.host);
            }
        }
        true
    }

    async fn write(&mut self, now: Time, after: Ledger, entries: &[Entry]) -> bool {
        match self.store.record(now, &self.ledger, &after, entries).await {
            Ok(()) => {
                if std::mem::take(&mut self.store_complained) {
                    tracing::info!("the database can be written again");
                }
                self.ledger = after;
                true
            }
            Err(error) => {
                if !std::mem::replace(&mut self.store_complained, true) {
                    tracing::error!(error = chain(&error), "nothing is done that is not recorded");
                }
                false
            }
        }
    }

    /// The sentence that the timeline has, in the log.
    fn tell(&self, decision: &Decision) {
        match (decision.entry(), decision) {
            (Some(entry), _) => match entry.instance {
                Some(instance) => tracing::info!(incident = %entry.id, %instance, "{}", entry.text),
                None => tracing::info!(incident = %entry.id, "{}", entry.text),
            },
            (None, Decision::Bind { host, .. }) => tracing::info!(%host, "its BMC is bound to it"),
            (None, Decision::Unbind { host, why }) => tracing::warn!(%host, why = &**why, "its BMC proves nothing"),
            (None, Decision::Prove { host, network, kind }) => {
                tracing::info!(%host, network = &**network, ?kind, "heard")
            }
            (None, Decision::Boot { host, boot }) => tracing::info!(%host, %boot, "its boot"),
            (None, _) => {}
        }
    }

    fn begin(&mut self, act: Act) {
        if edits_the_service(&act) {
            self.world.edit_begins(&act.incident().host);
        }
        let (hands, events) = (self.hands.clone(), self.events.clone());
        let (limit, lease_until) = (limit(&act, &self.world.policy), self.ledger.lease_until);
        self.tasks.spawn(async move {
            let answer = hands.carry_out(&act, limit, lease_until).await;
            let _ = events.send(Event::Answered { act, answer }).await;
        });
    }

    fn publish(&mut self, now: Time) {
        let (seen, ledger, policy) = (self.world.seen.clone(), self.ledger.clone(), self.world.policy.clone());
        self.board.send_replace(Arc::new(Board { now, seen, ledger, policy }));
        let wanted = self.wanted_attention();
        self.attention.send_if_modified(|attention| {
            let changed = *attention != wanted;
            *attention = wanted;
            changed
        });
        self.watch_incidents();
    }

    fn wanted_attention(&self) -> Attention {
        let names = |host: &Host| host.name.to_string();
        let is_unbound = |host: &&Host| self.ledger.hosts.get(*host).is_none_or(|record| record.bound.is_none());
        Attention {
            close: closely(&self.ledger).iter().map(names).collect(),
            unbound: self.world.seen.hosts.keys().filter(is_unbound).map(names).collect(),
        }
    }

    /// One survey for each host with an open incident; it ends by itself when the incident does.
    fn watch_incidents(&mut self) {
        self.surveys.retain(|_, survey| !survey.is_finished());
        let open: Vec<Host> = self.ledger.open_incidents().map(|incident| incident.host().clone()).collect();
        self.world.seen.instances.retain(|host, _| open.contains(host));
        for host in open {
            if self.surveys.contains_key(&host)
                || !matches!(self.world.seen.hosts.get(&host), Some(seen) if seen.nova != NovaSeen::NoData)
            {
                continue;
            }
            let survey = Survey::new(self.reader.clone(), host.clone(), self.board.subscribe(), self.events.clone());
            self.surveys.insert(host, self.tasks.spawn(survey.run()));
        }
    }
}
