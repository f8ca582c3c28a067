//! Our own clock: set once from the machine's, then only going forwards; and whether we were asleep or the machine's clock jumped.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use failover::Time;

/// A step of the machine's clock, or a gap between two looks, that is more than scheduling.
const JUMP: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
    start_ms: u64,
}

impl Clock {
    pub fn start() -> Self {
        Self { start: Instant::now(), start_ms: wall_ms() }
    }

    pub fn now(&self) -> Time {
        self.at(Instant::now())
    }

    pub fn at(&self, moment: Instant) -> Time {
        Time(self.start_ms) + moment.saturating_duration_since(self.start)
    }
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Notices that nobody looked for a while.
#[derive(Debug)]
pub struct Watchman {
    last: Instant,
    last_wall_ms: u64,
}

impl Watchman {
    pub fn start() -> Self {
        Self::started(Instant::now(), wall_ms())
    }

    fn started(last: Instant, last_wall_ms: u64) -> Self {
        Self { last, last_wall_ms }
    }

    /// What broke our watch since the last call, if anything did. `usual` is how often it is called.
    pub fn look(&mut self, usual: Duration) -> Option<Arc<str>> {
        self.look_at(Instant::now(), wall_ms(), usual)
    }

    fn look_at(&mut self, now: Instant, wall_ms: u64, usual: Duration) -> Option<Arc<str>> {
        let (gone, wall_gone) = (now - self.last, i128::from(wall_ms) - i128::from(self.last_wall_ms));
        (self.last, self.last_wall_ms) = (now, wall_ms);
        let step_ms = wall_gone - i128::try_from(gone.as_millis()).unwrap_or(i128::MAX);
        if step_ms.unsigned_abs() > JUMP.as_millis() {
            return Some(format!("the machine's clock jumped by {:.1} s", step_ms as f64 / 1000.0).into());
        }
        (gone > usual + JUMP).then(|| format!("tandem-ha was asleep for {:.1} s", gone.as_secs_f64()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USUAL: Duration = Duration::from_millis(200);

    /// What is noticed when so much time has passed on both clocks.
    fn noticed(gone: Duration, wall_ms: u64) -> Option<Arc<str>> {
        let start = Instant::now();
        Watchman::started(start, 1_000_000).look_at(start + gone, wall_ms, USUAL)
    }

    #[test]
    fn a_usual_pause_is_nothing() {
        assert_eq!(noticed(USUAL, 1_000_200), None);
    }

    #[test]
    fn a_sleep_is_noticed() {
        let why = noticed(Duration::from_secs(9), 1_009_000);
        assert_eq!(why.as_deref(), Some("tandem-ha was asleep for 9.0 s"));
    }

    #[test]
    fn a_jump_of_the_clock_is_noticed_in_both_directions() {
        assert_eq!(noticed(USUAL, 1_060_200).as_deref(), Some("the machine's clock jumped by 60.0 s"));
        assert_eq!(noticed(USUAL, 940_200).as_deref(), Some("the machine's clock jumped by -60.0 s"));
    }
}
