//! Counts what was refused, and says when to tell of it: at most once a minute for each cause and source, however many packets strangers send.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

use super::wire::Refusal;

const EVERY: Duration = Duration::from_secs(60);
/// Sources are easily forged: so many are told apart, all others are one.
const SOURCES: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Refusals {
    told: HashMap<(Refusal, Option<IpAddr>), Told>,
}

#[derive(Debug)]
struct Told {
    at: Instant,
    since: u64,
}

/// What the log should say now.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    /// None: from many.
    pub(super) from: Option<IpAddr>,
    /// How many there were since the last report, this one included.
    pub(super) packets: u64,
}

impl Refusals {
    pub(super) fn note(&mut self, why: Refusal, from: IpAddr, now: Instant) -> Option<Report> {
        if self.told.len() >= SOURCES {
            self.told.retain(|_, told| now.saturating_duration_since(told.at) < 2 * EVERY);
        }
        let known = self.told.contains_key(&(why, Some(from))) || self.told.len() < SOURCES;
        let from = known.then_some(from);
        let Some(told) = self.told.get_mut(&(why, from)) else {
            self.told.insert((why, from), Told { at: now, since: 0 });
            return Some(Report { from, packets: 1 });
        };
        told.since += 1;
        if now.saturating_duration_since(told.at) < EVERY {
            return None;
        }
        let packets = std::mem::take(&mut told.since);
        told.at = now;
        Some(Report { from, packets })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    #[test]
    fn a_flood_is_one_line_a_minute_and_cause() {
        let (mut refusals, start) = (Refusals::default(), Instant::now());
        assert_eq!(refusals.note(Refusal::Torn, A, start), Some(Report { from: Some(A), packets: 1 }));
        for _ in 0..1000 {
            assert_eq!(refusals.note(Refusal::Torn, A, start + EVERY / 2), None);
        }
        assert_eq!(refusals.note(Refusal::Torn, A, start + EVERY), Some(Report { from: Some(A), packets: 1001 }));
        assert_eq!(refusals.note(Refusal::WrongKey, A, start + EVERY), Some(Report { from: Some(A), packets: 1 }));
    }

    #[test]
    fn forged_sources_do_not_fill_the_memory_or_the_log() {
        let (mut refusals, now) = (Refusals::default(), Instant::now());
        let lines = (0..100_000u32).filter(|n| refusals.note(Refusal::Foreign, IpAddr::V4((*n).into()), now).is_some());
        assert_eq!(lines.count(), SOURCES + 1);
        assert!(refusals.told.len() <= SOURCES + 1, "one more for each cause");
        let later = now + 3 * EVERY;
        assert_eq!(
            refusals.note(Refusal::Torn, A, later),
            Some(Report { from: Some(A), packets: 1 }),
            "there is room again"
        );
    }
}
