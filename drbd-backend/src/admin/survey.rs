//! What all nodes together say of a volume.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use replication::Node as Place;
use uuid::Uuid;

use super::caller::Caller;
use super::error::{Code, Problem};
use super::report::{self, ReplicaReport, Report, Reports};
use super::state::State;
use crate::catalog::{Definition, Phase, check_name};

/// How long another node may take to say how its replicas are.
const ASK: Duration = Duration::from_secs(2);

/// A volume as the nodes that were reached know it.
#[derive(Debug)]
pub(super) struct Whole {
    pub(super) uuid: Uuid,
    /// The one that has come furthest; None where every file of it is damaged.
    pub(super) definition: Option<Definition>,
    /// By node.
    pub(super) reports: BTreeMap<String, Report>,
    /// The nodes that were reached, whether they have a replica or not.
    pub(super) reached: BTreeSet<String>,
}

/// Volumes, and why some nodes said nothing of theirs.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) volumes: Vec<Whole>,
    pub(super) silent: BTreeMap<String, Problem>,
}

/// Of all volumes, or of those called so.
pub(super) async fn survey(state: &State, caller: &Caller, key: Option<&str>) -> Survey {
    let path = key.map_or_else(|| "/v1/volumes".to_owned(), |key| format!("/v1/volumes/{key}"));
    let (own, answers) = tokio::join!(report::own(state, key), state.cluster().ask_all::<Reports>(&path, caller, ASK));
    let mut reached: BTreeSet<String> = answers.told.iter().map(|(node, _)| node.clone()).collect();
    reached.insert(state.name().to_owned());
    let mut volumes: BTreeMap<Uuid, Whole> = BTreeMap::new();
    for (node, reports) in answers.told.into_iter().chain([(state.name().to_owned(), own)]) {
        for report in reports.replicas {
            let whole = volumes.entry(report.uuid).or_insert_with(|| Whole {
                uuid: report.uuid,
                definition: None,
                reports: BTreeMap::new(),
                reached: reached.clone(),
            });
            whole.take_in(node.clone(), report);
        }
    }
    Survey { volumes: volumes.into_values().collect(), silent: answers.silent }
}

/// The one volume that has this UUID or name.
///
/// # Errors
/// There is none among the nodes that were reached, or several have this name.
pub(super) async fn find(state: &State, caller: &Caller, key: &str) -> Result<Whole, Problem> {
    let key = key_of(key)?;
    let whole = the_one(survey(state, caller, Some(&key)).await, &key)?;
    match whole.is_known_to_all() {
        true => Ok(whole),
        // A node whose file is damaged knows the uuid alone.
        false => {
            let uuid = whole.uuid.to_string();
            the_one(survey(state, caller, Some(&uuid)).await, &key)
        }
    }
}

fn the_one(survey: Survey, key: &str) -> Result<Whole, Problem> {
    let Survey { volumes, silent } = survey;
    let mut found = volumes.into_iter();
    match (found.next(), found.next()) {
        (Some(whole), None) => Ok(whole),
        (None, _) if silent.is_empty() => Err(no_such_volume(key)),
        (None, _) => {
            let silent: Vec<String> = silent.into_keys().collect();
            let remedy = format!("not reached: {}; what only they know is missing", silent.join(", "));
            Err(no_such_volume(key).remedy(remedy))
        }
        (Some(one), Some(other)) => {
            let message = format!("two volumes are called {key}: {} and {}", one.uuid, other.uuid);
            Err(Problem::new(Code::Conflict, message).remedy("say which by its uuid"))
        }
    }
}

/// What stands for a volume in a path, in the form in which it is passed on.
pub(super) fn key_of(key: &str) -> Result<String, Problem> {
    match key.parse::<Uuid>() {
        Ok(uuid) => Ok(uuid.to_string()),
        Err(_) => check_name(key).map(|()| key.to_owned()).map_err(|_| no_such_volume(key)),
    }
}

pub(super) fn no_such_volume(key: &str) -> Problem {
    Problem::not_found(format!("there is no volume {key:?}"))
}

impl Whole {
    fn take_in(&mut self, node: String, report: Report) {
        if let Some(definition) = &report.definition
            && self.definition.as_ref().is_none_or(|known| known.state < definition.state)
        {
            self.definition = Some(definition.clone());
        }
        self.reports.insert(node, report);
    }

    /// # Errors
    /// Every file of it that was reached is damaged.
    pub(super) fn definition(&self) -> Result<&Definition, Problem> {
        self.definition.as_ref().ok_or_else(|| {
            let why: Vec<&str> = self.reports.values().filter_map(|report| report.trouble.as_deref()).collect();
            Problem::refused(format!("volume {} is not known any more: {}", self.uuid, why.join("; ")))
        })
    }

    /// # Errors
    /// It is being made, or on its way out.
    pub(super) fn ready(&self) -> Result<&Definition, Problem> {
        let definition = self.definition()?;
        match definition.state {
            Phase::Ready => Ok(definition),
            Phase::Creating => Err(Problem::held(format!("{} is being created", definition.name))
                .remedy("create it again with the same uuid, which goes on with it; or delete it")),
            Phase::Deleting => Err(Problem::held(format!("{} is being deleted", definition.name))
                .remedy("delete it again, which goes on with that")),
        }
    }

    pub(super) fn name(&self) -> String {
        self.definition.as_ref().map_or_else(|| self.uuid.to_string(), |definition| definition.name.clone())
    }

    pub(super) fn replica(&self, node: &str) -> Option<&ReplicaReport> {
        self.reports.get(node)?.replica.as_ref()
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = (&str, &ReplicaReport)> {
        self.reports.iter().filter_map(|(node, report)| Some((node.as_str(), report.replica.as_ref()?)))
    }

    /// Whose word counts for the volume: who knows the latest record, and of these its Primary.
    pub(super) fn authority(&self) -> Option<(&str, &ReplicaReport)> {
        let of_record =
            |node: &str, replica: &ReplicaReport| replica.primary.is_some() && replica.primary == self.place(node);
        let is_in_sync = |node: &str, replica: &ReplicaReport| {
            self.place(node).is_some_and(|place| replica.in_sync.contains(&place))
        };
        self.replicas().max_by_key(|(node, replica)| {
            (
                replica.generation,
                replica.is_primary(),
                of_record(node, replica),
                is_in_sync(node, replica),
                replica.control,
            )
        })
    }

    /// The Primary that is reached, by the latest record.
    pub(super) fn primary(&self) -> Option<(&str, &ReplicaReport)> {
        self.authority().filter(|(_, replica)| replica.is_primary())
    }

    /// The Primary of the record, reached or not.
    pub(super) fn recorded_primary(&self) -> Option<String> {
        self.authority().and_then(|(_, replica)| Some(self.node_at(replica.primary?)))
    }

    pub(super) fn place(&self, node: &str) -> Option<u8> {
        self.definition.as_ref()?.place_of(node).map(Place::place)
    }

    pub(super) fn node_at(&self, place: u8) -> String {
        let place = Place::new(place);
        let name = |place| self.definition.as_ref().map(|definition| definition.name_of(place));
        place.and_then(name).unwrap_or_else(|| "an unknown node".to_owned())
    }

    /// Nodes in sync by the latest record, in the order of their places.
    pub(super) fn in_sync(&self) -> Vec<String> {
        let places = self.authority().map(|(_, replica)| replica.in_sync.clone()).unwrap_or_default();
        places.into_iter().map(|place| self.node_at(place)).collect()
    }

    /// Every node that should have a replica, and was reached, has said something of it.
    fn is_known_to_all(&self) -> bool {
        let replicas = self.definition.iter().flat_map(|definition| &definition.replicas);
        let mut reached = replicas.filter(|replica| self.reached.contains(&replica.node));
        reached.all(|replica| self.reports.contains_key(&replica.node))
    }

    /// Those that have a replica and were not reached.
    pub(super) fn missing(&self) -> Vec<String> {
        let replicas = self.definition.iter().flat_map(|definition| &definition.replicas);
        replicas.map(|replica| replica.node.clone()).filter(|node| !self.reached.contains(node)).collect()
    }
}
