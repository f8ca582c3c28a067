//! Who leads: the lease in the database, and the processes that hold it, crash, stall and start again.

use std::time::Duration;

use failover::Power;

use super::{LEASE_MS, Lease, RENEW_MS};
use crate::sim::world::{Event, World};

impl World {
    /// Renews the lease, if that is possible. False if somebody else leads.
    pub(super) fn renew(&mut self, tandem: usize) -> bool {
        let now = self.now;
        let it = &mut self.tandems[tandem];
        let Some(lease) = it.lease else { return false };
        if now < it.stalled_until || !self.db.up {
            return true;
        }
        if self.db.generation != lease.generation || self.db.until <= now && !self.renewable(tandem) {
            let it = &mut self.tandems[tandem];
            it.lease = None;
            let (life, at) = (it.life, self.db.until.max(now) + 100);
            self.at(at, Event::LeaseFree { tandem, life });
            return false;
        }
        let it = &mut self.tandems[tandem];
        let renewed = now - now % RENEW_MS;
        let until = it.clock(renewed) + Duration::from_millis(LEASE_MS);
        it.lease = Some(Lease { until: until.max(lease.until), ..lease });
        self.db.until = self.db.until.max(renewed + LEASE_MS);
        true
    }

    /// A process that was never stopped from renewing has renewed all the while that nothing happened.
    fn renewable(&self, tandem: usize) -> bool {
        self.db.holder == Some(tandem) && !self.db_was_away(tandem)
    }

    fn db_was_away(&self, tandem: usize) -> bool {
        let it = &self.tandems[tandem];
        it.stalled_until > self.db.until || self.db_back_at > self.db.until
    }

    pub fn starts(&mut self, tandem: usize) {
        let now = self.now;
        let it = &mut self.tandems[tandem];
        if it.alive {
            return;
        }
        (it.alive, it.offset, it.stalled_until) = (true, it.machine_offset, 0);
        it.life += 1;
        it.forgets(now);
        let life = it.life;
        self.forget_absent_bmcs(tandem);
        self.after(10 + tandem as u64 * 50, Event::LeaseFree { tandem, life });
        self.paths_change();
    }

    pub fn forget_absent_bmcs(&mut self, tandem: usize) {
        for (host, bmc) in self.tandems[tandem].seen.hosts.values_mut().zip(&self.bmcs) {
            if !bmc.configured {
                host.power.reading = Power::Absent;
            }
        }
    }

    pub fn crashes(&mut self, tandem: usize) {
        self.holder_settles(tandem);
        let it = &mut self.tandems[tandem];
        (it.alive, it.lease) = (false, None);
        it.life += 1;
        if self.tandems.len() == 1 {
            self.db.until = self.now; // a file lock ends with its process
        }
        self.lease_may_be_free();
    }

    pub fn stalls(&mut self, tandem: usize, ms: u64) {
        if !self.tandems[tandem].alive {
            return;
        }
        self.holder_settles(tandem);
        let now = self.now;
        let it = &mut self.tandems[tandem];
        (it.stalled_from, it.stalled_until) = (now, now + ms);
        let life = it.life;
        self.after(ms, Event::Wakes { tandem, life });
        self.lease_may_be_free();
    }

    pub fn wakes(&mut self, tandem: usize, life: u32) {
        let now = self.now;
        let it = &mut self.tandems[tandem];
        if !it.alive || it.life != life {
            return;
        }
        let (clock, from) = (it.clock(now), it.stalled_from);
        // What came while it was asleep lay in a buffer, and is read now.
        for (seen, memory) in it.seen.hosts.values_mut().zip(&it.memory) {
            for (nth, channel) in seen.channels.iter_mut().enumerate() {
                if memory.paths[nth].is_some_and(|since| since < now && from < now) {
                    channel.last = Some(clock);
                }
            }
        }
        (it.seen.view.unbroken_since, it.seen.view.broken_by) = (clock, Some("tandem-ha was asleep".into()));
        self.nudge(tandem);
        self.lease_may_be_free();
    }

    pub fn clock_jumps(&mut self, tandem: usize, ms: i64) {
        let now = self.now;
        let it = &mut self.tandems[tandem];
        it.machine_offset += ms;
        let clock = it.clock(now);
        (it.seen.view.unbroken_since, it.seen.view.broken_by) = (clock, Some("the machine's clock jumped".into()));
        self.nudge(tandem);
    }

    pub fn database(&mut self, up: bool) {
        if let Some(holder) = self.db.holder {
            self.holder_settles(holder);
        }
        self.db.up = up;
        if up {
            self.db_back_at = self.now;
        }
        self.lease_may_be_free();
    }

    /// The lease as it stands when its holder can no longer renew it.
    pub(super) fn holder_settles(&mut self, tandem: usize) {
        if self.db.holder == Some(tandem) {
            self.renew(tandem);
        }
    }

    pub(super) fn lease_may_be_free(&mut self) {
        let at = self.db.until.max(self.now);
        for tandem in 0..self.tandems.len() {
            let life = self.tandems[tandem].life;
            self.at(at + 50 + tandem as u64 * 150, Event::LeaseFree { tandem, life });
        }
    }

    pub fn lease_free(&mut self, tandem: usize, life: u32) {
        if !self.takes(tandem, life, || Event::LeaseFree { tandem, life }) || !self.db.up {
            return;
        }
        if let Some(holder) = self.db.holder {
            if holder != tandem && self.tandems[holder].leads() && self.now >= self.tandems[holder].stalled_until {
                self.renew(holder);
            }
            if self.tandems[tandem].lease.is_some() && self.renew(tandem) {
                return;
            }
        }
        if self.db.holder.is_some() && self.db.until > self.now {
            if self.tandems[tandem].lease.is_none() && self.db.holder == Some(tandem) {
                self.at(self.db.until + 10, Event::LeaseFree { tandem, life });
            }
            return;
        }
        self.takes_the_lease(tandem);
    }

    fn takes_the_lease(&mut self, tandem: usize) {
        let now = self.now;
        (self.db.holder, self.db.until) = (Some(tandem), now + LEASE_MS);
        self.db.generation += 1;
        let generation = self.db.generation;
        let clock = self.tandems[tandem].clock(now);
        self.db.ledger.taken_over(clock);
        if generation > 1 {
            self.tell(|_| format!("* tandem-ha {} leads", tandem + 1));
        }
        let it = &mut self.tandems[tandem];
        it.lease = Some(Lease { generation, until: clock + Duration::from_millis(LEASE_MS) });
        it.begins_to_lead();
        self.nudge(tandem);
    }
}
