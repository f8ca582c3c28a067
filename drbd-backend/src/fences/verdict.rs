//! Whether a host can still use a volume, judged from the arbiter's record and from what the replicas that are reached say.

use replication::{Generation, Node as Place, Record};

/// What one node says of its replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub node: String,
    pub place: Place,
    /// None: it is not open there.
    pub replica: Option<Replica>,
    /// The volume is just being made, or on its way out: nobody serves it.
    pub is_idle: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    /// Of the record as it knows it.
    pub generation: Generation,
    pub is_primary: bool,
    /// The version of the list of fenced hosts that every in-sync replica has stored.
    pub recorded: u64,
    /// The version that it takes in once it is promoted.
    pub told: u64,
    /// It has an attachment of the host that is not revoked.
    pub attached: bool,
}

/// Why the host may still use the volume; None once it surely cannot.
///
/// The record's Primary must have taken this version in, and must have revoked the host's attachments. A volume without a Primary is served by
/// nobody: there each of those that could be promoted must know the version. A volume where the host has no attachment is none of this; every in-sync replica
/// knows all of them.
#[must_use]
pub fn open(version: u64, record: Option<&Record>, standings: &[Standing]) -> Option<String> {
    let replicas = || standings.iter().filter_map(|standing| Some((standing, standing.replica.as_ref()?)));
    let Some(record) = record else {
        let attached = replicas().any(|(_, replica)| replica.attached);
        return attached.then(|| "the arbiter has no record of it; see `tandem arbiter status`".to_owned());
    };
    if replicas().next().is_none() && standings.iter().any(|standing| standing.is_idle) {
        return None;
    }
    let in_sync: Vec<_> = replicas()
        .filter(|(at, replica)| record.disk(at.place).is_some() && replica.generation == record.generation)
        .collect();
    if in_sync.is_empty() {
        return Some("no replica of it that is in sync is reached".to_owned());
    }
    let attached = in_sync.iter().any(|(_, replica)| replica.attached);
    let Some(primary) = record.primary else {
        return attached.then(|| whoever_knows_not(version, record, &in_sync)).flatten();
    };
    match in_sync.iter().find(|(at, _)| at.place == primary) {
        None if !attached => None,
        None => Some("its Primary is not reached".to_owned()),
        Some((_, replica)) if !replica.attached => None,
        Some((at, replica)) if !replica.is_primary => Some(format!("{} is becoming Primary", at.node)),
        Some((at, replica)) if replica.recorded < version => Some(format!("{} has not taken it in yet", at.node)),
        Some((at, _)) => Some(format!("{} has not revoked the host's attachment yet", at.node)),
    }
}

fn whoever_knows_not(version: u64, record: &Record, in_sync: &[(&Standing, &Replica)]) -> Option<String> {
    let ignorant = in_sync.iter().find(|(_, replica)| replica.told < version);
    match ignorant {
        Some((at, _)) => Some(format!("{} does not know of it yet", at.node)),
        None if in_sync.len() < record.in_sync().len() as usize => {
            Some("not every node that could be promoted is reached".to_owned())
        }
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use replication::DiskId;

    use super::*;

    fn place(number: u8) -> Place {
        Place::new(number).unwrap()
    }

    /// Of nodes 0 and 1, in sync, the first of them Primary.
    fn record() -> Record {
        let mut record = Record::of_new_volume([(place(0), DiskId(1)), (place(1), DiskId(2))]).next();
        record.primary = Some(place(0));
        record
    }

    fn standing(number: u8, replica: Replica) -> Standing {
        Standing { node: format!("cmp{number}"), place: place(number), replica: Some(replica), is_idle: false }
    }

    fn attached() -> Replica {
        Replica { generation: record().generation, is_primary: false, recorded: 6, told: 6, attached: true }
    }

    fn primary() -> Replica {
        Replica { is_primary: true, ..attached() }
    }

    fn revoked(replica: Replica) -> Replica {
        Replica { attached: false, recorded: 7, told: 7, ..replica }
    }

    #[test]
    fn a_host_is_out_once_the_primary_has_revoked_it() {
        let record = record();
        assert_eq!(
            open(7, Some(&record), &[standing(0, primary()), standing(1, attached())]).unwrap(),
            "cmp0 has not taken it in yet"
        );
        let late = Replica { recorded: 7, ..primary() };
        assert!(open(7, Some(&record), &[standing(0, late)]).unwrap().contains("has not revoked"));
        assert_eq!(open(7, Some(&record), &[standing(0, revoked(primary())), standing(1, attached())]), None);
    }

    #[test]
    fn a_primary_out_of_reach_proves_nothing_unless_the_host_is_not_attached() {
        let record = record();
        assert_eq!(open(7, Some(&record), &[standing(1, attached())]).unwrap(), "its Primary is not reached");
        assert_eq!(open(7, Some(&record), &[standing(1, Replica { attached: false, ..attached() })]), None);
        assert!(open(7, Some(&record), &[]).unwrap().contains("no replica of it that is in sync"));
    }

    #[test]
    fn what_an_outdated_replica_says_does_not_count() {
        let mut record = record().next();
        record.remove(place(1));
        let ignorant = Replica { attached: false, ..attached() };
        assert!(open(7, Some(&record), &[standing(1, ignorant)]).is_some());
        let behind = Replica { generation: Generation(1), ..revoked(primary()) };
        assert!(open(7, Some(&record), &[standing(0, behind)]).is_some(), "it has been deposed since");
    }

    #[test]
    fn without_a_primary_everybody_who_could_become_one_must_know() {
        let mut record = record();
        record.primary = None;
        let knows = Replica { told: 7, ..attached() };
        assert!(open(7, Some(&record), &[standing(0, knows.clone())]).unwrap().contains("not every node"));
        assert!(
            open(7, Some(&record), &[standing(0, knows.clone()), standing(1, attached())]).unwrap().contains("cmp1")
        );
        assert_eq!(open(7, Some(&record), &[standing(0, knows.clone()), standing(1, knows)]), None);
    }

    #[test]
    fn a_volume_that_is_just_being_made_is_served_by_nobody() {
        let idle = Standing { node: "cmp0".to_owned(), place: place(0), replica: None, is_idle: true };
        assert_eq!(open(7, Some(&record()), std::slice::from_ref(&idle)), None);
        assert!(
            open(7, Some(&record()), &[Standing { is_idle: false, ..idle }]).is_some(),
            "its files cannot be opened"
        );
    }
}
