//! What things are called, and when things were.

use std::fmt;
use std::ops::{Add, Sub};
use std::sync::Arc;
use std::time::Duration;

/// A moment on our own clock: milliseconds since the Unix epoch. No other machine's clock is ever compared with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub u64);

impl Time {
    /// How long after `earlier` this is; nothing if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A compute host: the uuid of its compute service in Nova. The name is for people, and returns when a host is set up anew; the uuid does not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    pub service: u128,
    pub name: Arc<str>,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let all = self.0;
                let (a, b, c) = (all >> 96, all >> 80 & 0xffff, all >> 64 & 0xffff);
                write!(f, "{a:08x}-{b:04x}-{c:04x}-{:04x}-{:012x}", all >> 48 & 0xffff, all & 0xffff_ffff_ffff)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}

ids! {
    /// An instance: Nova's server uuid.
    InstanceId,
    /// A migration record of Nova: its uuid.
    MigrationId,
    /// One boot of a host's kernel (`/proc/sys/kernel/random/boot_id`).
    BootId,
    /// A machine, as its firmware names it (SMBIOS System UUID; Redfish `ComputerSystem.UUID`).
    SystemId,
    /// A server group.
    GroupId,
}

/// One outage of one host. Not keyed on a clock: the same outage is the same incident, whoever looks and whenever.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct IncidentId {
    pub host: Host,
    pub outage: u32,
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.outage)
    }
}
