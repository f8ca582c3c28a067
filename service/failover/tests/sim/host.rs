//! Compute hosts: power, kernel, links, and the guests that run on them.

use std::collections::BTreeSet;

use failover::{BootId, Host};

use super::world::{Event, HostId, MGMT, NETWORKS, World};

/// Heartbeats on each network, and TCP on the first.
pub const CHANNELS: usize = NETWORKS + 1;
pub const TCP: usize = NETWORKS;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Alive,
    /// It does nothing now, and may go on at any moment: its guests count as able to write.
    Hung,
    /// Dead, with the power on.
    Panicked,
    /// Off, or not booted yet.
    Down,
}

#[derive(Debug)]
pub struct SimHost {
    pub host: Host,
    pub power: bool,
    pub kernel: Kernel,
    /// Counts boots: what was begun in another boot is void.
    pub boot: u32,
    pub links: [bool; NETWORKS],
    /// Whether its heartbeat sender runs.
    pub sender: bool,
    /// Whether its nova-compute is meant to run, and does.
    pub compute_wanted: bool,
    pub compute: bool,
    /// Instances whose guests run here.
    pub guests: Vec<usize>,
    /// Those that ran until its kernel or its power went, and have not run here since.
    pub lost: BTreeSet<usize>,
    pub cell_down: bool,
    /// Of each way to hear it: since when it can be heard without a break.
    pub heard_since: [Option<u64>; CHANNELS],
    /// When it could last be heard on any of them.
    pub last_heard: u64,
    /// When its power last came back.
    pub off_until: Option<u64>,
}

impl SimHost {
    pub fn new(index: HostId) -> Self {
        let name = format!("cmp{}", index + 1);
        Self {
            host: Host { service: 0xc000 + index as u128, name: name.into() },
            power: true,
            kernel: Kernel::Alive,
            boot: 1,
            links: [true; NETWORKS],
            sender: true,
            compute_wanted: true,
            compute: true,
            guests: Vec::new(),
            lost: BTreeSet::new(),
            cell_down: false,
            heard_since: [None; CHANNELS],
            last_heard: 0,
            off_until: None,
        }
    }

    pub fn boot_id(&self) -> BootId {
        BootId(u128::from(self.boot) + (self.host.service << 32))
    }

    /// Whether it can be heard on a channel, as far as it is up to itself.
    pub fn tells(&self, channel: usize) -> bool {
        self.kernel == Kernel::Alive
            && if channel == TCP { self.links[MGMT] } else { self.links[channel] && self.sender }
    }

    pub fn is_reporting(&self) -> bool {
        self.kernel == Kernel::Alive && self.compute && self.links[MGMT]
    }

    fn loses_its_guests(&mut self) {
        self.lost.extend(self.guests.drain(..));
    }

    pub fn can_write(&self) -> bool {
        self.power && matches!(self.kernel, Kernel::Alive | Kernel::Hung)
    }
}

impl World {
    /// Power is cut: nothing of it is left.
    pub fn power_off(&mut self, host: HostId) {
        let it = &mut self.hosts[host];
        (it.power, it.kernel, it.compute) = (false, Kernel::Down, false);
        it.loses_its_guests();
    }

    pub fn panic(&mut self, host: HostId) {
        let it = &mut self.hosts[host];
        if it.power && it.kernel != Kernel::Down {
            (it.kernel, it.compute) = (Kernel::Panicked, false);
            it.loses_its_guests();
        }
    }

    pub fn hang(&mut self, host: HostId) {
        let it = &mut self.hosts[host];
        if it.kernel == Kernel::Alive {
            it.kernel = Kernel::Hung;
        }
    }

    pub fn thaw(&mut self, host: HostId) {
        let it = &mut self.hosts[host];
        if it.kernel == Kernel::Hung {
            it.kernel = Kernel::Alive;
        }
    }

    pub fn power_on(&mut self, host: HostId) {
        if self.hosts[host].power {
            return;
        }
        self.hosts[host].power = true;
        self.hosts[host].off_until = Some(self.now);
        self.begin_boot(host);
    }

    /// The kernel starts anew, by itself or by a person, with the power on.
    pub fn reboot(&mut self, host: HostId) {
        if self.hosts[host].power {
            self.panic(host);
            self.begin_boot(host);
        }
    }

    fn begin_boot(&mut self, host: HostId) {
        let it = &mut self.hosts[host];
        it.boot += 1;
        (it.kernel, it.compute) = (Kernel::Down, false);
        it.loses_its_guests();
        let (boot, takes) = (it.boot, self.boot_ms);
        self.after(takes, Event::Booted { host, boot });
    }

    pub fn booted(&mut self, host: HostId, boot: u32) {
        let it = &mut self.hosts[host];
        if !it.power || it.boot != boot || it.kernel != Kernel::Down {
            return;
        }
        it.kernel = Kernel::Alive;
        self.after(8_000, Event::ComputeStarts { host, boot });
    }

    pub fn compute_starts(&mut self, host: HostId, boot: u32) {
        let it = &mut self.hosts[host];
        if it.boot != boot || it.kernel != Kernel::Alive || it.compute || !it.compute_wanted {
            return;
        }
        it.compute = true;
        self.compute_started(host);
    }
}
