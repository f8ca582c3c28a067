//! What to put back into an arbiter that was lost, wiped or restored from an old copy: judged from what it holds and what the replicas remember.
//!
//! A replica that does not report may remember a later record than all others, so it is waited for. A change that is not settled may still be answered by the
//! old arbiter, so nothing is put back meanwhile.

use std::collections::BTreeMap;

use replication::{Generation, Node as Place, Record};

/// What one replica remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) record: Record,
    pub(super) changing: bool,
}

/// A member of a volume, and what it says; None: it was not reached, or its replica is not open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) node: String,
    pub(super) memory: Option<Memory>,
    /// As its operator says: it will never report.
    pub(super) destroyed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plan {
    /// The arbiter holds what the replicas remember, or something later; `sure`: each of them was asked.
    Intact {
        generation: Generation,
        sure: bool,
    },
    /// This, instead of what is there.
    Put(Box<Record>),
    Wait(String),
}

pub(super) fn plan(found: Option<&Record>, members: &BTreeMap<Place, Member>) -> Plan {
    let told = members.values().filter_map(|member| Some((member, member.memory.as_ref()?)));
    if let Some((member, _)) = told.clone().find(|(_, memory)| memory.changing) {
        return Plan::Wait(format!(
            "{} has asked for a change of the record that is not settled; if it stays so, restart tandem-node there",
            member.node
        ));
    }
    let Some((_, latest)) = told.clone().max_by_key(|(_, memory)| memory.record.generation) else {
        return Plan::Wait(format!("none of its replicas is reached: {}", names(members.values())));
    };
    let latest = &latest.record;
    if let Some((other, _)) =
        told.clone().find(|(_, it)| it.record.generation == latest.generation && it.record != *latest)
    {
        return Plan::Wait(format!("{} remembers another record of generation {}", other.node, latest.generation));
    }
    let silent: Vec<&Member> = members.values().filter(|member| member.memory.is_none() && !member.destroyed).collect();
    let unknown = latest.members.iter().filter(|place| !members.contains_key(place)).count();
    match found {
        Some(found) if found.generation > latest.generation || found == latest => {
            Plan::Intact { generation: found.generation, sure: silent.is_empty() && unknown == 0 }
        }
        _ if !silent.is_empty() => Plan::Wait(format!("not reported yet: {}", names(silent.into_iter()))),
        _ if unknown > 0 => Plan::Wait(format!("{unknown} of its members are not known to any node that is reached")),
        // The same generation, and not what was recorded then: who holds it is deposed, and starts over.
        Some(found) if found.generation == latest.generation => Plan::Put(Box::new(latest.next())),
        Some(_) | None => Plan::Put(Box::new(latest.clone())),
    }
}

fn names<'a>(members: impl Iterator<Item = &'a Member>) -> String {
    members.map(|member| member.node.as_str()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use replication::DiskId;

    use super::*;

    fn place(number: u8) -> Place {
        Place::new(number).unwrap()
    }

    fn record(generation: u64) -> Record {
        let first = Record::of_new_volume([(place(0), DiskId(1)), (place(1), DiskId(2))]);
        (1..generation).fold(first, |record, _| record.next())
    }

    fn members(generations: [Option<u64>; 2]) -> BTreeMap<Place, Member> {
        let memory = |generation| Memory { record: record(generation), changing: false };
        let member = |number: u8, generation: Option<u64>| Member {
            node: format!("cmp{number}"),
            memory: generation.map(memory),
            destroyed: false,
        };
        generations
            .into_iter()
            .zip(0..)
            .map(|(generation, number)| (place(number), member(number, generation)))
            .collect()
    }

    #[test]
    fn the_latest_record_is_put_back_as_it_was() {
        assert_eq!(plan(None, &members([Some(5), Some(7)])), Plan::Put(Box::new(record(7))));
        assert_eq!(plan(Some(&record(3)), &members([Some(5), Some(7)])), Plan::Put(Box::new(record(7))));
    }

    #[test]
    fn a_record_that_is_not_behind_stays() {
        let sure = Plan::Intact { generation: Generation(7), sure: true };
        assert_eq!(plan(Some(&record(7)), &members([Some(5), Some(7)])), sure);
        assert_eq!(plan(Some(&record(7)), &members([Some(5), Some(5)])), sure);
        let unsure = Plan::Intact { generation: Generation(7), sure: false };
        assert_eq!(plan(Some(&record(7)), &members([Some(7), None])), unsure);
    }

    #[test]
    fn nothing_is_put_back_while_a_member_is_silent_or_changing() {
        assert_eq!(plan(None, &members([Some(7), None])), Plan::Wait("not reported yet: cmp1".to_owned()));
        assert_eq!(plan(Some(&record(6)), &members([Some(7), None])), Plan::Wait("not reported yet: cmp1".to_owned()));
        let mut changing = members([Some(7), Some(7)]);
        changing.get_mut(&place(1)).unwrap().memory.as_mut().unwrap().changing = true;
        assert!(matches!(plan(Some(&record(7)), &changing), Plan::Wait(why) if why.starts_with("cmp1 has asked")));
        assert!(matches!(plan(None, &members([None, None])), Plan::Wait(_)));
        let mut alone = members([Some(7), Some(7)]);
        alone.remove(&place(1));
        assert!(matches!(plan(None, &alone), Plan::Wait(why) if why.contains("not known")));
    }

    #[test]
    fn who_is_destroyed_is_not_waited_for() {
        let mut left = members([Some(7), None]);
        left.get_mut(&place(1)).unwrap().destroyed = true;
        assert_eq!(plan(None, &left), Plan::Put(Box::new(record(7))));
        left.get_mut(&place(0)).unwrap().memory = None;
        assert!(matches!(plan(None, &left), Plan::Wait(why) if why.contains("none of its replicas")));
    }

    #[test]
    fn of_two_records_of_one_generation_none_is_guessed() {
        let mut other = record(7);
        other.primary = Some(place(0));
        let mut forked = members([Some(7), Some(7)]);
        forked.get_mut(&place(1)).unwrap().memory.as_mut().unwrap().record = other.clone();
        assert!(matches!(plan(None, &forked), Plan::Wait(why) if why.contains("another record")));
        assert_eq!(plan(Some(&other), &members([Some(7), Some(7)])), Plan::Put(Box::new(record(8))));
    }
}
