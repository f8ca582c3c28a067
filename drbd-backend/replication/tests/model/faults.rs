//! What goes wrong: processes, hosts, disks, connections, and answers of the arbiter.

use crate::state::{Asked, Change, Part, Set, State};
use crate::volume::Volume;

impl Volume {
    /// The process is gone: what it remembered, and its connections. What it had asked of the arbiter may still execute.
    fn end_process(&self, s: &mut State, node: usize) -> Option<()> {
        for other in self.others(node) {
            s.links.remove(node + other - 1);
            Self::part_from(s, other, node);
            Self::part_from(s, node, other);
        }
        let replica = &s.nodes[node];
        let is_open = replica.change != Change::None && replica.asked == Asked::Sent;
        let proposed = replica.proposed;
        if is_open && s.register == replica.record {
            Self::leave_behind(s, proposed)?;
        }
        Self::lead_no_more(s, node);
        let replica = &mut s.nodes[node];
        replica.part = Part::Down;
        replica.pending = [0; 2];
        (replica.recent, replica.orphans) = (Set::NONE, Set::NONE);
        (replica.told, replica.forgot) = (Set::NONE, Set::NONE);
        (replica.forgetful, replica.generation) = (false, 0);
        // After a crash the bitmaps lack at least what the log names: that is marked (rule 10).
        let keeps = self.keeps(crate::dropped::Dropped::Rule10CrashMarksLog);
        for bitmap in replica.bitmaps.iter_mut().filter(|bitmap| bitmap.since != 0) {
            let log = replica.log;
            bitmap.blocks = if keeps { bitmap.blocks.union(log) } else { bitmap.blocks.minus(log) };
        }
        Some(())
    }

    fn leave_behind(s: &mut State, record: crate::state::Record) -> Option<()> {
        if s.late.contains(&record) {
            return Some(());
        }
        let place = s.late.iter().position(crate::state::Record::is_none)?;
        s.late[place] = record;
        Some(())
    }

    /// What was submitted lands before the next process has the disk, or never does: it has locked the very descriptor.
    pub(crate) fn crash(&self, s: &mut State, node: usize, landed: Set) -> Option<()> {
        for block in landed.iter() {
            let version = s.nodes[node].pending[block] - 1;
            self.store(s, node, block, version);
        }
        self.end_process(s, node)?;
        s.spent.crashes += 1;
        s.spent.faults += 1;
        Some(())
    }

    /// Each block comes back as it was on the medium, or as it was in the cache, or as it was submitted. Only what was durable counts
    /// as kept.
    pub(crate) fn lose_power(&self, s: &mut State, node: usize, kept: [u8; 2]) -> Option<()> {
        let replica = &mut s.nodes[node];
        let mut was_durable = Set::NONE;
        for (block, choice) in kept.into_iter().enumerate().take(self.blocks) {
            let (durable, visible) = (replica.durable[block], replica.visible[block]);
            if durable == visible {
                was_durable.insert(block);
            }
            replica.durable[block] = match choice {
                0 => durable,
                1 if visible != durable => visible,
                2 if replica.pending[block] != 0 => replica.pending[block] - 1,
                _ => return None,
            };
        }
        replica.visible = replica.durable;
        replica.lost = true;
        replica.rebooted = true;
        self.end_process(s, node)?;
        self.has_lost_cache(s, node, was_durable);
        s.spent.power_losses += 1;
        s.spent.faults += 1;
        Some(())
    }

    pub(crate) fn cut(&self, s: &mut State, a: usize, b: usize) -> Option<()> {
        s.links.remove(a + b - 1);
        Self::part_from(s, a, b);
        Self::part_from(s, b, a);
        s.spent.cuts += 1;
        s.spent.faults += 1;
        Some(())
    }

    /// No answer in time: the request may have been lost, or execute later, or have been executed.
    pub(crate) fn time_out(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &mut s.nodes[node];
        replica.asked = Asked::Unknown;
        let (is_live, proposed) = (s.register == replica.record, replica.proposed);
        if is_live {
            Self::leave_behind(s, proposed)?;
        }
        s.spent.time_outs += 1;
        s.spent.faults += 1;
        Some(())
    }

    /// A strange disk, which says that it is consistent.
    pub(crate) fn replace(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &mut s.nodes[node];
        *replica =
            crate::state::Replica { disk: replica.disk + 1, consistent: true, ..crate::state::Replica::default() };
        self.has_lost_disk(s, node);
        s.spent.replaced += 1;
        s.spent.faults += 1;
        Some(())
    }

    /// An old copy of the same disk, from before its last barrier.
    pub(crate) fn roll_back(&self, s: &mut State, node: usize) -> Option<()> {
        let replica = &mut s.nodes[node];
        if !replica.consistent || replica.copy == replica.durable {
            return None;
        }
        (replica.durable, replica.visible) = (replica.copy, replica.copy);
        (replica.log, replica.behind) = (Set::NONE, true);
        self.has_lost_disk(s, node);
        s.spent.rolled_back += 1;
        s.spent.faults += 1;
        Some(())
    }

    /// A host is switched off, and everybody knows that this boot is over.
    pub(crate) fn fence(&self, s: &mut State, node: usize) -> Option<()> {
        let kept = [0; 2];
        self.lose_power(s, node, kept)?;
        s.spent.power_losses -= 1;
        s.spent.fences += 1;
        s.fenced.insert(node);
        Some(())
    }
}
