//! How long a volume did not serve although it should have.
//!
//! It should while the arbiter and at least one replica that was UpToDate when the cycle began are untouched by faults of
//! the cycle, and once all faults have ended. A gap is the longest time then without an answered request of any client; what is not owed does not count. A replica counts as touched
//! if its process, host, disk or the whole of its link is; a cut between two hosts, and slowness, touch nobody.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Gap {
    owed_since: Option<Instant>,
    served: Instant,
    longest: Duration,
}

impl Gap {
    pub(crate) fn new() -> Self {
        Self { owed_since: None, served: Instant::now(), longest: Duration::ZERO }
    }

    pub(crate) fn served(&mut self) {
        self.measure();
        self.served = Instant::now();
    }

    pub(crate) fn is_owed(&mut self, owed: bool) {
        self.measure();
        self.owed_since = owed.then(|| self.owed_since.unwrap_or_else(Instant::now));
    }

    /// Since it was asked last.
    pub(crate) fn take(&mut self) -> Duration {
        self.measure();
        std::mem::take(&mut self.longest)
    }

    fn measure(&mut self) {
        if let Some(since) = self.owed_since {
            self.longest = self.longest.max(since.max(self.served).elapsed());
        }
    }
}
