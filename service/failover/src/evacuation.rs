//! Evacuation: which instances, in what order, how many at once, and each followed to its end.
//!
//! ```text
//!            intent recorded        Nova took it           migration done, seen elsewhere
//!  waiting ─────────────────▶ intended ────────▶ accepted ────────────────────────────────▶ moved
//!     ▲                          │ no answer        │ failed, or its destination was fenced
//!     │                          ▼                  │
//!     ├──── nothing shows ─── unknown               │
//!     └─────────────────────────────────────────────┘          no way: named, with the reason
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Cycle;
use crate::decision::{Act, Decision};
use crate::evidence::Evidence;
use crate::fence;
use crate::gates::{self, Gate};
use crate::incident::Thought;
use crate::ledger::{Incident, Move, MoveState, Phase};
use crate::names::{GroupId, Host, IncidentId, InstanceId, MigrationId, Time};
use crate::observation::{
    HostSeen, InstanceSeen, Listing, MigrationSeen, Migrations, NovaSeen, Place, Stage, Task, VmState,
};
use crate::reintegration::settled_phase;

/// A receipt for every host that may hold a copy of the instance. Only [`Proofs::of`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proofs(Vec<IncidentId>);

impl Proofs {
    /// Fails with the host that is not fenced, and why.
    fn of(copies: &BTreeSet<&Host>, cycle: &Cycle<'_>) -> Result<Self, String> {
        let mut proofs = Vec::new();
        for host in copies {
            let fenced = cycle.ledger.open_incident(host).zip(cycle.evidence(host));
            let (incident, evidence) = fenced.ok_or_else(|| format!("{host} may hold a copy and is not fenced"))?;
            fence::holds(incident, &evidence).map_err(|why| format!("{host} may hold a copy: {why}"))?;
            proofs.push(incident.id.clone());
        }
        Ok(Self(proofs))
    }

    /// The incidents whose receipts prove it, one for each host.
    pub fn incidents(&self) -> &[IncidentId] {
        &self.0
    }
}

impl fmt::Display for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts: Vec<String> = self.0.iter().map(|id| id.host.to_string()).collect();
        write!(f, "fenced: {}", hosts.join(", "))
    }
}

/// What is known of one incident's instances.
struct Scene<'a> {
    incident: &'a Incident,
    cycle: &'a Cycle<'a>,
    listing: &'a Listing,
    /// Migrations, asked for after the listing.
    migrations: &'a Migrations,
}

const KEPT: &str = "kept";
/// What was read of instances longer ago than this is not acted upon.
const OLD: Duration = Duration::from_secs(45);

pub(crate) fn step(incident: &Incident, evidence: &Evidence<'_>, fenced: bool, thought: &mut Thought<'_>) {
    let cycle = evidence.cycle;
    let looked = cycle.listing(incident.host()).zip(cycle.migrations(incident.host()));
    // Looked before Nova was told: something may have been added since.
    let looked =
        looked.filter(|(listing, migrations)| listing.at > incident.phase_since && migrations.at >= listing.at);
    let fresh = looked.map_or(incident.phase_since, |(_, migrations)| migrations.at);
    if cycle.now.since(fresh) > OLD {
        thought.hold(Gate::WeSee, "its instances cannot be looked at: tandem-ha's log says why".to_owned());
        return;
    }
    let Some((listing, migrations)) = looked else { return };
    let scene = Scene { incident, cycle, listing, migrations };
    if plan(&scene, thought) {
        return thought.stay_held(incident, Gate::Fence, KEPT);
    }
    let mut changed = false;
    for (id, moving) in &incident.moves {
        changed |= scene.follow(*id, moving, fenced, thought);
    }
    if changed {
        return thought.stay_held(incident, Gate::Fence, KEPT); // the limits count what is recorded
    }
    if incident.moves.values().all(|moving| moving.state.is_settled()) {
        match scene.may_still_arrive() {
            Some((moving, row)) => {
                let why = format!(
                    "{KEPT}: the migration of {} is still {}, so it may start elsewhere yet; if it never will: tandem release {} --reason ...",
                    moving.name, row.status, incident.id
                );
                thought.hold(Gate::Fence, why);
            }
            None if !scene.is_needed_by_others() => settle(incident, thought),
            None => {}
        }
        return;
    }
    if fenced {
        scene.begin_some(thought);
    }
}

/// Takes every instance of the host into the record, with the reason if it stays.
fn plan(scene: &Scene<'_>, thought: &mut Thought<'_>) -> bool {
    let id = &scene.incident.id;
    let mut any = false;
    let mut add = |instance: InstanceId, name: Arc<str>, stays: Option<String>| {
        any = true;
        thought.record(Decision::Plan { id: id.clone(), instance, name });
        if let Some(why) = stays {
            thought.record(Decision::Move { id: id.clone(), instance, state: MoveState::Named { why: why.into() } });
        }
    };
    for (instance, seen) in &scene.listing.instances {
        if !scene.incident.moves.contains_key(instance) {
            add(*instance, seen.name.clone(), choose(seen, id_host(id), scene.cycle).err());
        }
    }
    for migration in scene.arriving() {
        // If its source is dead, too, that host's incident sees to it.
        let incident = migration.source.as_ref().and_then(|source| scene.cycle.ledger.open_incident(source));
        let seen_to = incident.is_some_and(|other| other.phase.holds_the_fence());
        if !scene.incident.moves.contains_key(&migration.instance) && !seen_to {
            let from = migration.source.as_ref().map_or("another host", |host| &host.name);
            let why = format!(
                "it was on its way here from {from} ({}), and Nova says that it is there still: see that it runs",
                migration.status
            );
            add(migration.instance, migration.instance.to_string().into(), Some(why));
        }
    }
    any
}

fn id_host(id: &IncidentId) -> &Host {
    &id.host
}

/// Whether an instance is to be moved; otherwise why not.
pub(crate) fn choose(seen: &InstanceSeen, host: &Host, cycle: &Cycle<'_>) -> Result<(), String> {
    let policy = &cycle.policy.evacuation;
    if seen.task == Task::Deleting {
        return Err("it is being deleted".to_owned());
    }
    if let Some(owner) = &seen.owned_by {
        return Err(format!("{owner} owns it and replaces it itself"));
    }
    match seen.wish {
        Some(false) => return Err("its owner opted out".to_owned()),
        None if policy.opted_in_only => {
            return Err("its owner did not opt in (evacuation.instances is opted-in)".to_owned());
        }
        Some(true) | None => {}
    }
    if let VmState::Other(state) = &seen.state {
        return Err(format!("Nova does not evacuate what is {state}"));
    }
    if !seen.launched {
        return Err("it never ran, and Nova does not evacuate that".to_owned());
    }
    if !seen.boots_from_volume && !seen.expendable_root && !cycle.policy.of(host).shared_root {
        return Err(
            "its root disk is on the dead host: evacuating would build it anew from its image (root_disk = local)"
                .to_owned(),
        );
    }
    Ok(())
}

fn settle(incident: &Incident, thought: &mut Thought<'_>) {
    let moved = incident.moves.values().filter(|moving| moving.state == MoveState::Moved).count();
    let all = incident.moves.len();
    let why = match all - moved {
        0 if all == 0 => "nothing was on it".to_owned(),
        0 => format!("{moved} of {all} instances moved"),
        named => format!("{moved} of {all} instances moved, {named} left where they are"),
    };
    thought.record(Decision::Phase { id: incident.id.clone(), to: settled_phase(incident), why: why.into() });
}

impl Scene<'_> {
    fn host(&self) -> &Host {
        self.incident.host()
    }

    /// Moves of others towards this host that had not ended when it died. Nova says of these instances that they are elsewhere.
    fn arriving(&self) -> impl Iterator<Item = &MigrationSeen> {
        let here = |host: &Option<Host>| host.as_ref() == Some(self.host());
        self.migrations.rows.iter().filter(move |row| {
            row.stage == Stage::Unfinished && !row.evacuation && here(&row.destination) && !here(&row.source)
        })
    }

    fn migrations_of(&self, id: InstanceId) -> impl Iterator<Item = &MigrationSeen> {
        self.migrations.rows.iter().filter(move |row| row.instance == id)
    }

    /// The evacuation that our last attempt brought about: one that was not there before.
    fn ours(&self, id: InstanceId, moving: &Move) -> Option<&MigrationSeen> {
        moving.intended?;
        self.migrations_of(id).find(|row| row.evacuation && !moving.known.contains(&row.id))
    }

    fn record(&self, id: InstanceId, state: MoveState, thought: &mut Thought<'_>) -> bool {
        if self.incident.moves.get(&id).is_some_and(|moving| moving.state == state) {
            return false; // it stands there already
        }
        thought.record(Decision::Move { id: self.incident.id.clone(), instance: id, state });
        true
    }

    fn name(&self, id: InstanceId, why: impl Into<Arc<str>>, thought: &mut Thought<'_>) -> bool {
        self.record(id, MoveState::Named { why: why.into() }, thought)
    }

    fn wait(&self, id: InstanceId, why: impl Into<Arc<str>>, thought: &mut Thought<'_>) -> bool {
        let now = self.cycle.now;
        self.record(id, MoveState::Waiting { why: Some(why.into()), since: now, not_before: now }, thought)
    }

    /// Records what became of a move since the last look; says whether anything did.
    fn follow(&self, id: InstanceId, moving: &Move, fenced: bool, thought: &mut Thought<'_>) -> bool {
        match &moving.state {
            MoveState::Moved => false,
            MoveState::Waiting { .. } => self.follow_waiting(id, moving, fenced, thought),
            MoveState::Named { .. } => moving.migration.is_some() && self.follow_migration(id, moving, thought),
            MoveState::Intended | MoveState::Unknown { .. } | MoveState::Accepted => {
                self.follow_migration(id, moving, thought) || self.follow_silence(id, moving, thought)
            }
        }
    }

    /// Before its turn it may have been moved or deleted by somebody else, or have used up its attempts.
    fn follow_waiting(&self, id: InstanceId, moving: &Move, fenced: bool, thought: &mut Thought<'_>) -> bool {
        let Some(seen) = self.listing.instances.get(&id) else {
            return self.elsewhere(id, self.listing.at, thought);
        };
        let MoveState::Waiting { why: Some(why), since, .. } = &moving.state else { return false };
        if moving.attempt >= self.cycle.policy.evacuation.attempts {
            return self.name(id, format!("{} attempts failed, the last one: {why}", moving.attempt), thought);
        }
        let for_long = self.cycle.now.since(*since) > self.cycle.policy.evacuation.unknown;
        // While nothing may be begun at all, the incident is held, and not this instance.
        if !for_long || !fenced || gates::armed(self.cycle).is_err() {
            return false;
        }
        match self.proofs(id, seen) {
            Err(missing) => self.name(id, missing, thought),
            Ok(_) => false,
        }
    }

    fn follow_migration(&self, id: InstanceId, moving: &Move, thought: &mut Thought<'_>) -> bool {
        let Some(row) = self.ours(id, moving) else { return false };
        let is_new = moving.migration != Some(row.id)
            || moving.migration_status.as_ref() != Some(&row.status)
            || (row.destination.is_some() && moving.to != row.destination);
        if is_new {
            thought.record(Decision::Follow {
                id: self.incident.id.clone(),
                instance: id,
                migration: row.id,
                status: row.status.clone(),
                to: row.destination.clone(),
            });
            return true;
        }
        match row.stage {
            Stage::Done => self.elsewhere(id, moving.intended.unwrap_or_default(), thought),
            Stage::Failed => moving.state.is_in_flight() && self.failed(id, row, thought),
            Stage::Unfinished => moving.state.is_in_flight() && self.unfinished(id, moving, row, thought),
        }
    }

    /// It has left the host: to where, and how, only a look at it alone tells.
    fn elsewhere(&self, id: InstanceId, after: Time, thought: &mut Thought<'_>) -> bool {
        let Some(look) = self.cycle.look(self.host(), id).filter(|look| look.at >= after) else { return false };
        match &look.found {
            None => self.name(id, "it has been deleted meanwhile", thought),
            Some(Place { host: Some(host), .. }) if host == self.host() => false,
            Some(Place { host: None, .. }) => self.name(id, "Nova says that it is on no host", thought),
            Some(Place { host: Some(host), state: VmState::Error }) => {
                self.name(id, format!("it is on {host}, in ERROR"), thought)
            }
            Some(Place { host: Some(_), .. }) => self.record(id, MoveState::Moved, thought),
        }
    }

    fn failed(&self, id: InstanceId, row: &MigrationSeen, thought: &mut Thought<'_>) -> bool {
        let what = match (&*row.status, &row.destination) {
            ("error", _) => "Nova found no host for it".to_owned(),
            (status, Some(to)) => format!("the evacuation to {to} ended as {status}"),
            (status, None) => format!("the evacuation ended as {status}"),
        };
        self.wait(id, what, thought)
    }

    /// Its destination may have died under it. Then the destination, too, must be fenced before it is tried again.
    fn unfinished(&self, id: InstanceId, moving: &Move, row: &MigrationSeen, thought: &mut Thought<'_>) -> bool {
        let fenced = row.destination.as_ref().filter(|to| *to != self.host()).and_then(|to| {
            let (incident, evidence) = self.cycle.ledger.open_incident(to).zip(self.cycle.evidence(to))?;
            fence::holds(incident, &evidence).ok().map(|()| to)
        });
        if let Some(to) = fenced {
            return self.wait(id, format!("its destination {to} died before it was done"), thought);
        }
        let since = moving.intended.unwrap_or_default();
        let for_long = self.cycle.now.since(since) > self.cycle.policy.evacuation.limit;
        for_long && self.name(id, format!("its migration has been {} for too long", row.status), thought)
    }

    /// No migration shows. What was never answered is asked again only after a long while, and only if nothing at all shows of it.
    fn follow_silence(&self, id: InstanceId, moving: &Move, thought: &mut Thought<'_>) -> bool {
        let intended = moving.intended.unwrap_or_default();
        let waited = self.cycle.now.since(intended) > self.cycle.policy.evacuation.unknown;
        let looked_after = self.listing.at > intended + self.cycle.policy.evacuation.unknown;
        let Some(seen) = self.listing.instances.get(&id) else {
            return self.listing.at > intended && self.elsewhere(id, intended, thought);
        };
        let idle = !matches!(seen.task, Task::Elsewhere(_));
        if waited && looked_after && idle {
            return self.wait(id, "nothing shows of the evacuation that was asked for", thought);
        }
        let for_long = self.cycle.now.since(intended) > self.cycle.policy.evacuation.limit;
        let what = "no migration shows of the evacuation that was asked for, and Nova works on it";
        for_long && looked_after && moving.state.is_in_flight() && self.name(id, what, thought)
    }

    /// Begins as many as the limits allow, in order.
    fn begin_some(&self, thought: &mut Thought<'_>) {
        let mut busy = self.busy();
        let destinations = self.destinations();
        if destinations == 0 && incident_waits(self.incident) {
            let why = "every other compute service is down or disabled: nobody takes its instances";
            return thought.hold(Gate::SomewhereToGo, why.to_owned());
        }
        let room = self.room(destinations, busy.mine, busy.all);
        let mut begun = 0;
        for (id, moving, seen) in self.in_order() {
            if begun == room {
                return;
            }
            if !seen.apart.is_disjoint(&busy.apart) {
                continue; // the late check of a group aborts what arrives at the same time
            }
            match self.begin(id, moving, seen, thought) {
                Begun::Yes => {
                    begun += 1;
                    busy.apart.extend(&seen.apart);
                }
                Begun::No => {}
                Begun::NothingMay => return,
            }
        }
    }

    /// What is in flight, of this incident and of all.
    fn busy(&self) -> Busy {
        let mut busy = Busy::default();
        for incident in self.cycle.ledger.open_incidents() {
            let in_flight = incident.moves.iter().filter(|(_, moving)| moving.state.is_in_flight());
            for (id, _) in in_flight {
                busy.all += 1;
                busy.mine += usize::from(incident.id == self.incident.id);
                let listing = self.cycle.listing(incident.host());
                let seen = listing.and_then(|listing| listing.instances.get(id));
                busy.apart.extend(seen.into_iter().flat_map(|seen| &seen.apart));
            }
        }
        busy
    }

    fn destinations(&self) -> usize {
        let takes = |seen: &&HostSeen| matches!(&seen.nova, NovaSeen::Listed(it) if it.up && it.disabled.is_none());
        self.cycle.seen.hosts.values().filter(takes).count()
    }

    fn room(&self, destinations: usize, mine: usize, all: usize) -> usize {
        let policy = &self.cycle.policy.evacuation;
        let all_limit = policy.in_flight.min(policy.per_destination * destinations);
        all_limit.saturating_sub(all).min(policy.per_source.saturating_sub(mine))
    }

    /// Those that wait: the more important first, then the older.
    fn in_order(&self) -> Vec<(InstanceId, &Move, &InstanceSeen)> {
        let mut waiting: Vec<_> = self
            .incident
            .moves
            .iter()
            .filter(|(_, moving)| matches!(moving.state, MoveState::Waiting { .. }))
            .filter_map(|(id, moving)| Some((*id, moving, self.listing.instances.get(id)?)))
            .collect();
        waiting.sort_by_key(|(id, _, seen)| (-i64::from(seen.priority), seen.created, *id));
        waiting
    }

    fn begin(&self, id: InstanceId, moving: &Move, seen: &InstanceSeen, thought: &mut Thought<'_>) -> Begun {
        let MoveState::Waiting { why, since, not_before } = &moving.state else { return Begun::No };
        let policy = &self.cycle.policy.evacuation;
        let pause =
            if moving.attempt == 0 { Duration::ZERO } else { policy.retry * (1 << (moving.attempt - 1).min(10)) };
        let ended = moving.intended.unwrap_or_default().max(*since);
        let looked_after = moving.intended.is_none() || self.listing.at > ended;
        if self.cycle.now < *not_before || self.cycle.now < *since + pause || !looked_after {
            return Begun::No;
        }
        let proofs = match self.proofs(id, seen) {
            Ok(proofs) => proofs,
            Err(missing) => {
                if why.as_deref() != Some(&*missing) {
                    self.wait(id, missing, thought);
                }
                return Begun::No;
            }
        };
        let known = self.migrations_of(id).filter(|row| row.evacuation).map(|row| row.id).collect();
        let attempt = moving.attempt + 1;
        let act = Act::Evacuate { id: self.incident.id.clone(), instance: id, attempt, known, proofs };
        if thought.act(act, policy.begin) { Begun::Yes } else { Begun::NothingMay }
    }

    /// The host of another open incident that has the instance in flight.
    fn moved_by_another(&self, id: InstanceId) -> Option<&Host> {
        let mut others = self.cycle.ledger.open_incidents().filter(|other| other.id != self.incident.id);
        others.find(|other| other.moves.get(&id).is_some_and(|moving| moving.state.is_in_flight())).map(Incident::host)
    }

    fn proofs(&self, id: InstanceId, seen: &InstanceSeen) -> Result<Proofs, String> {
        self.settled(id, seen)?;
        if let Some(other) = self.moved_by_another(id) {
            return Err(format!("the incident of {other} moves it"));
        }
        Proofs::of(&self.copies(id), self.cycle)
    }

    /// Whether an instance of another dead host may have a copy here: the fence is held until that instance is settled, too.
    fn is_needed_by_others(&self) -> bool {
        let here = |host: &Option<Host>| host.as_ref() == Some(self.host());
        let others = self.cycle.ledger.open_incidents();
        let mut others = others.filter(|other| other.id != self.incident.id && other.phase == Phase::Evacuating);
        others.any(|other| {
            let rows = self.cycle.migrations(other.host()).map_or(&[][..], |migrations| &migrations.rows);
            let mut ends_here = rows
                .iter()
                .filter(|row| row.stage == Stage::Unfinished && (here(&row.source) || here(&row.destination)));
            ends_here.any(|row| other.moves.get(&row.instance).is_some_and(|moving| !moving.state.is_settled()))
        })
    }

    /// One that was given up, and of which an evacuation from here has not ended: were the fence let go, it could run twice.
    fn may_still_arrive(&self) -> Option<(&Move, &MigrationSeen)> {
        let given_up = |moving: &Move| matches!(moving.state, MoveState::Named { .. }) && moving.intended.is_some();
        let from_here = |row: &&MigrationSeen| row.evacuation && row.source.as_ref() == Some(self.host());
        self.incident.moves.iter().filter(|(_, moving)| given_up(moving)).find_map(|(id, moving)| {
            let mut rows = self.migrations_of(*id).filter(from_here);
            rows.find(|row| row.stage == Stage::Unfinished).map(|row| (moving, row))
        })
    }

    /// Nobody else is at it. What only its own host was doing ended with the fence.
    fn settled(&self, id: InstanceId, seen: &InstanceSeen) -> Result<(), String> {
        let unfinished = || self.migrations_of(id).filter(|row| row.stage == Stage::Unfinished);
        // Whoever is to take it may be at it already, or find the message when it starts again.
        if let Some(row) = unfinished().find(|row| row.destination.is_none()) {
            return Err(format!("a migration of it is {}, and Nova does not say to where", row.status));
        }
        match &seen.task {
            Task::Elsewhere(task) if unfinished().next().is_none() => {
                Err(format!("its task is {task}, in which other hosts take part, and no migration says which"))
            }
            Task::Deleting => Err("it is being deleted".to_owned()),
            Task::None | Task::OnItsHost(_) | Task::Elsewhere(_) => Ok(()),
        }
    }

    /// Every host that may hold a copy: its own, and both ends of each migration that has not ended.
    fn copies(&self, id: InstanceId) -> BTreeSet<&Host> {
        let unfinished = self.migrations_of(id).filter(|row| row.stage == Stage::Unfinished);
        let ends = unfinished.flat_map(|row| row.source.iter().chain(&row.destination));
        ends.chain([self.host()]).collect()
    }
}

fn incident_waits(incident: &Incident) -> bool {
    incident.moves.values().any(|moving| matches!(moving.state, MoveState::Waiting { .. }))
}

#[derive(Default)]
struct Busy {
    mine: usize,
    all: usize,
    apart: BTreeSet<GroupId>,
}

enum Begun {
    Yes,
    No,
    /// Not armed, blind, or the lease is about to end.
    NothingMay,
}

/// Instances of which only a look at each alone says more: their migration is done, or they are on the host's list no more.
pub fn looks_wanted(incident: &Incident, listing: &Listing, migrations: &Migrations) -> BTreeSet<InstanceId> {
    let done: BTreeMap<InstanceId, BTreeSet<MigrationId>> = migrations
        .rows
        .iter()
        .filter(|row| row.evacuation && row.stage == Stage::Done)
        .fold(BTreeMap::new(), |mut done, row| {
            done.entry(row.instance).or_insert_with(BTreeSet::new).insert(row.id);
            done
        });
    let wanted = incident.moves.iter().filter(|(id, moving)| {
        let is_done = done.get(id).is_some_and(|rows| rows.iter().any(|row| !moving.known.contains(row)));
        let unsettled =
            !moving.state.is_settled() || (is_done && moving.state != MoveState::Moved && moving.migration.is_some());
        unsettled && (is_done || !listing.instances.contains_key(id))
    });
    wanted.map(|(id, _)| *id).collect()
}
