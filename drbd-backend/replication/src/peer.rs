//! What this replica knows of another one.

use crate::message::Hello;
use crate::names::{Barrier, BootId, Link, Process, Time};
use crate::resync::Resyncing;

#[derive(Debug, Default)]
pub(crate) struct Peer {
    pub(crate) link: Option<Link>,
    /// When the last connection broke.
    pub(crate) down_since: Option<Time>,
    /// Since when it does not get every write, though it should; whatever connections come and go meanwhile.
    pub(crate) missing_since: Option<Time>,
    /// Our Hello has gone out on this link.
    pub(crate) greeted: bool,
    /// Its Hello on this link.
    pub(crate) hello: Option<Box<Hello>>,
    /// The last boot that it told of, on whatever link.
    pub(crate) boot: Option<BootId>,
    /// That boot is known to write no more.
    pub(crate) fenced: bool,
    /// When this replica last answered a heartbeat of it: for the grace from then on, that one may be serving.
    pub(crate) heard: Option<Time>,
    /// It has stopped for good in this generation.
    pub(crate) stopped: bool,

    // ---- while this replica is Primary ----
    pub(crate) stage: Stage,
    /// Made equal, or added, since this replica became Primary.
    pub(crate) kin: bool,
    /// The life of its process in which it became so: another one may have been started from an older copy of the disk.
    pub(crate) process: Process,
    /// When the newest heartbeat that it answered was sent.
    pub(crate) answered: Option<Time>,
    /// The last barrier that it stored.
    pub(crate) barrier: Barrier,
    /// The version of the control document that it stored.
    pub(crate) control: u64,
    /// It cannot stay in sync: its disk failed, is another one, was rolled back, or may have lost its cache.
    pub(crate) unfit: bool,
    pub(crate) resync: Option<Box<Resyncing>>,
}

/// How far a Primary has come with a peer on this link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Stage {
    #[default]
    Apart,
    /// It was told what it is; it has not said that it is ready.
    Welcomed,
    /// It gets every write.
    Along,
}

impl Peer {
    /// The connection is gone.
    pub(crate) fn part(&mut self, now: Time) {
        self.link = None;
        self.down_since = Some(now);
        self.missing_since = self.missing_since.or(Some(now));
        self.greeted = false;
        self.hello = None;
        self.stage = Stage::Apart;
        self.resync = None;
    }

    /// This replica is Primary no more, or anew.
    pub(crate) fn forget(&mut self) {
        self.stage = Stage::Apart;
        self.kin = false;
        self.missing_since = None;
        self.answered = None;
        self.unfit = false;
        self.resync = None;
        self.control = 0;
    }

    pub(crate) fn along(&self) -> Option<Link> {
        self.link.filter(|_| self.stage == Stage::Along)
    }
}
