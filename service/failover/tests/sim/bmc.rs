//! BMCs: what they say, what they do, and how they fail.

use failover::SystemId;

use super::world::{Event, HostId, World};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    Truth,
    Off,
    On,
    /// No answer at all.
    Nothing,
}

#[derive(Debug)]
pub struct Bmc {
    /// Whether tandem-ha knows one at all.
    pub configured: bool,
    /// The machine that it really switches.
    pub wired_to: HostId,
    pub tells_system: bool,
    pub says: Says,
    /// Added to every answer.
    pub slow_ms: u64,
    /// A ForceOff is carried out only after this.
    pub late_ms: u64,
    pub refuses: bool,
    /// When it was last said Off of a host that was on.
    pub lied: Option<u64>,
}

impl Bmc {
    pub fn new(host: HostId) -> Self {
        Self {
            configured: true,
            wired_to: host,
            tells_system: true,
            says: Says::Truth,
            slow_ms: 0,
            late_ms: 0,
            refuses: false,
            lied: None,
        }
    }

    pub fn system(&self) -> Option<SystemId> {
        self.tells_system.then(|| system_of(self.wired_to))
    }
}

pub fn system_of(host: HostId) -> SystemId {
    SystemId(0x5_0000 + host as u128)
}

/// What came of asking a BMC for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BmcAnswer {
    On,
    Off,
    Silent,
}

impl World {
    /// A lie lasts from change to change, as everything does.
    pub fn lies_go_on(&mut self) {
        for host in 0..self.hosts.len() {
            if self.lies(host) {
                self.bmcs[host].lied = Some(self.now);
            }
        }
    }

    /// It says Off of a host that is on.
    pub fn lies(&self, host: HostId) -> bool {
        self.bmcs[host].says == Says::Off && self.hosts[host].power
    }

    pub fn read_power(&self, host: HostId) -> BmcAnswer {
        let bmc = &self.bmcs[host];
        match bmc.says {
            Says::Nothing => BmcAnswer::Silent,
            Says::Off => BmcAnswer::Off,
            Says::On => BmcAnswer::On,
            Says::Truth if self.hosts[bmc.wired_to].power => BmcAnswer::On,
            Says::Truth => BmcAnswer::Off,
        }
    }

    /// ForceOff: whether it said yes.
    pub fn force_off(&mut self, host: HostId) -> Result<(), Option<&'static str>> {
        let (says, refuses, late) = (self.bmcs[host].says, self.bmcs[host].refuses, self.bmcs[host].late_ms);
        if says == Says::Nothing {
            return Err(None);
        }
        if refuses {
            return Err(Some("the BMC says: not now"));
        }
        let takes = if late > 0 { late } else { self.between(300, 1_500) };
        let target = self.bmcs[host].wired_to;
        self.after(takes, Event::Cut { host: target, by_bmc_of: host });
        Ok(())
    }
}
