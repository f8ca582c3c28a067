//! Whatever the core makes of a ledger, the record gives back exactly.

use failover::{Entry, Ledger, Time};
use proptest::prelude::*;
use tandem_ha::store::{Store, incident_uuid};

use super::ledgers::{Step, first_of_all, grown, ledger, makes_sense, steps};
use super::{NOW, place};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_ledger_and_any_change_of_it_survive(first in ledger(), then in ledger()) {
        let loaded = runtime().block_on(async {
            let (_directory, path) = place();
            let store = Store::open(&path).await.unwrap();
            store.record(NOW, &Ledger::default(), &first, &[]).await.unwrap();
            let once = store.load(Time(0)).await.unwrap();
            let then = grown(&first, then);
            store.record(NOW, &first, &then, &[]).await.unwrap();
            store.close().await;
            (once, Store::open(&path).await.unwrap().load(Time(0)).await.unwrap(), then)
        });
        prop_assert_eq!(&loaded.0, &first);
        prop_assert_eq!(&loaded.1, &loaded.2);
    }

    #[test]
    fn any_sequence_of_decisions_and_answers_survives(steps in steps()) {
        runtime().block_on(async {
            let (_directory, path) = place();
            let store = Store::open(&path).await.unwrap();
            let mut ledger = Ledger::default();
            let mut told = Vec::new();
            for (second, step) in (0_u64..).zip(steps) {
                let at = Time(NOW.0 + second * 1000);
                let before = ledger.clone();
                let entries = take(at, &mut ledger, &step);
                store.record(at, &before, &ledger, &entries).await.unwrap();
                told.extend(entries);
            }
            let oldest = Time(0);
            let loaded = store.load(oldest).await.unwrap();
            let mut expected = ledger.clone();
            for (id, incident) in &loaded.incidents {
                if incident.closed.is_some() {
                    // Only forgotten in memory.
                    expected.incidents.entry(id.clone()).or_insert_with(|| incident.clone());
                }
            }
            prop_assert_eq!(&loaded, &expected);
            for (id, incident) in &ledger.incidents {
                let found = store.incident(incident_uuid(id)).await.unwrap();
                prop_assert_eq!(found.as_ref(), Some(incident));
                let story: Vec<_> = store.timeline(id).await.unwrap().into_iter().map(|line| line.text).collect();
                let wanted: Vec<_> = told.iter().filter(|entry| entry.id == *id).map(|entry| entry.text.clone()).collect();
                prop_assert_eq!(story, wanted);
            }
            Ok(())
        })?;
    }
}

fn take(at: Time, ledger: &mut Ledger, step: &Step) -> Vec<Entry> {
    match step {
        Step::Decided(decision) => {
            let mut entries = Vec::new();
            for decision in first_of_all(decision).iter().chain([decision]) {
                if makes_sense(ledger, decision) {
                    ledger.apply(at, decision);
                    entries.extend(decision.entry());
                }
            }
            entries
        }
        Step::Answered(act, answer) => {
            ledger.answered(at, act, answer);
            let known = ledger.incidents.contains_key(act.incident());
            act.answer_entry(answer).filter(|_| known).into_iter().collect()
        }
        Step::TakenOver => {
            ledger.taken_over(at);
            Vec::new()
        }
        Step::ForgetBefore(then) => {
            ledger.forget_before(*then);
            Vec::new()
        }
    }
}
