//! Lets no heartbeat pass a second time, so that nobody can make a dead host look alive with packets that he recorded.
//!
//! Within a boot the sequence must rise. Another boot is believed if it has not been left before, and if its first packet was sent within 60 s
//! of our clock. Nothing is remembered over a restart of tandem-ha: a packet recorded less than 60 s before it can pass once, until the host
//! itself is heard. Within a boot clocks do not matter: a host whose clock jumps is still heard.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use uuid::Uuid;

use super::wire::{Packet, Refusal};

/// How far the first packet of a boot may be from our clock.
const FRESH: Duration = Duration::from_secs(60);
/// How many earlier boots are remembered; the oldest ones were sent long ago and fail by [`FRESH`] alone.
const BOOTS: usize = 64;

/// What has been heard on one network.
#[derive(Debug, Default)]
pub struct Guard {
    hosts: HashMap<String, Heard>,
}

#[derive(Debug)]
struct Heard {
    boot: Uuid,
    sequence: u64,
    left: VecDeque<Uuid>,
}

impl Guard {
    /// Whether a signed packet is new. `now_ms` is our clock, milliseconds since the Unix epoch.
    pub fn admit(&mut self, packet: &Packet<'_>, now_ms: u64) -> Result<(), Refusal> {
        let Some(heard) = self.hosts.get_mut(packet.host) else {
            fresh(packet, now_ms)?;
            let heard = Heard { boot: packet.boot_id, sequence: packet.sequence, left: VecDeque::new() };
            self.hosts.insert(packet.host.to_owned(), heard);
            return Ok(());
        };
        if packet.boot_id == heard.boot { heard.go_on(packet) } else { heard.reboot(packet, now_ms) }
    }
}

impl Heard {
    fn go_on(&mut self, packet: &Packet<'_>) -> Result<(), Refusal> {
        if packet.sequence <= self.sequence {
            return Err(Refusal::Replayed);
        }
        self.sequence = packet.sequence;
        Ok(())
    }

    fn reboot(&mut self, packet: &Packet<'_>, now_ms: u64) -> Result<(), Refusal> {
        if self.left.contains(&packet.boot_id) {
            return Err(Refusal::Replayed);
        }
        fresh(packet, now_ms)?;
        if self.left.len() == BOOTS {
            self.left.pop_front();
        }
        self.left.push_back(self.boot);
        (self.boot, self.sequence) = (packet.boot_id, packet.sequence);
        Ok(())
    }
}

fn fresh(packet: &Packet<'_>, now_ms: u64) -> Result<(), Refusal> {
    let apart = Duration::from_millis(packet.sent_at_ms.abs_diff(now_ms));
    if apart <= FRESH { Ok(()) } else { Err(Refusal::WrongTime) }
}
