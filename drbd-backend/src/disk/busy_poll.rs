//! When to look for the next completion oneself instead of sleeping until the kernel wakes: a sleep and its end cost tens of microseconds, which is
//! much of what one small request takes. It pays only under a load whose waits are short, and never costs more than the limit per wait.

use std::time::{Duration, Instant};

/// How much one wait counts against those before it: an eighth.
const WEIGHT: u32 = 8;

/// What a long wait counts at most, in limits: so a load is recognised after a few waits, and an idle time too.
const LONGEST: u32 = 4;

/// The waits of one thread.
#[derive(Debug)]
pub(super) struct BusyPoll {
    limit: Duration,
    /// Of the latest waits.
    mean: Duration,
}

impl BusyPoll {
    /// Never longer than that; zero for never.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, mean: limit * LONGEST }
    }

    /// Until when the wait that begins is worth looking; `None` for a sleep at once.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        (self.mean < self.limit).then(|| now + self.limit)
    }

    /// So long a wait took, whether it was looked or slept.
    pub(super) fn waited(&mut self, time: Duration) {
        self.mean = (self.mean * (WEIGHT - 1) + time.min(self.limit * LONGEST)) / WEIGHT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_micros(100);

    fn after(waits_us: &[u64]) -> bool {
        let mut poll = BusyPoll::new(LIMIT);
        waits_us.iter().for_each(|wait| poll.waited(Duration::from_micros(*wait)));
        poll.until(Instant::now()).is_some()
    }

    #[test]
    fn a_load_of_short_waits_is_looked_for() {
        assert!(!after(&[]), "nothing is known at first");
        assert!(after(&[60; 20]));
    }

    #[test]
    fn an_idle_node_sleeps() {
        let busy_then_idle = [[60; 20].as_slice(), &[100_000; 3]].concat();
        assert!(!after(&busy_then_idle));
    }

    #[test]
    fn a_load_whose_waits_are_long_half_of_the_time_is_slept_for() {
        assert!(!after(&[50, 900].repeat(20)));
    }

    #[test]
    fn a_limit_of_zero_is_never() {
        let mut poll = BusyPoll::new(Duration::ZERO);
        poll.waited(Duration::ZERO);
        assert!(poll.until(Instant::now()).is_none());
    }
}
