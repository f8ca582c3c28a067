//! Log lines that strangers could cause without end: some at once, then one now and then that says how many were left out.

use std::time::{Duration, Instant};

/// So many in a row.
const MOST: u32 = 10;
/// After which one more may be written.
const EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Seldom {
    left: u32,
    since: Instant,
    left_out: u64,
}

impl Seldom {
    pub(crate) fn new(now: Instant) -> Self {
        Self { left: MOST, since: now, left_out: 0 }
    }

    /// Whether a line may be written, and how many were left out before it.
    pub(crate) fn may(&mut self, now: Instant) -> Option<u64> {
        let seconds = u32::try_from(now.duration_since(self.since).as_secs() / EVERY.as_secs()).unwrap_or(u32::MAX);
        self.left = self.left.saturating_add(seconds).min(MOST);
        self.since += EVERY * seconds.min(u32::from(u16::MAX));
        if self.left == 0 {
            self.left_out += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_ten_lines_and_one_a_second() {
        let start = Instant::now();
        let mut seldom = Seldom::new(start);
        let written = (0..1000).filter_map(|_| seldom.may(start)).collect::<Vec<_>>();
        assert_eq!(written, [0; 10]);
        assert_eq!(seldom.may(start + EVERY), Some(990));
        assert_eq!(seldom.may(start + EVERY), None);
        let rested = start + 100 * EVERY;
        assert_eq!((0..20).filter_map(|_| seldom.may(rested)).count(), 10);
    }
}
