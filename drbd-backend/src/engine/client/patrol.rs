//! Once a second initiators are looked after: what waits too long is answered, who is silent is asked, who does not receive goes.

use std::time::Instant;

use iscsi::SessionId;
use replication::{Event, Request, VolumeId};

use super::super::Engine;
use super::initiator::NOBODY;
use super::requests::{NOBODYS, Then};
use super::{Client, Talk};
use crate::disk::boottime_ns;
use crate::seldom::Seldom;

const EVERY_NS: u64 = 1_000_000_000;

/// Linux gives a command 30 s, and takes a disk offline that does not answer aborts either. What has not begun by then is answered before: NOT READY,
/// logical unit not accessible, asymmetric access state transition (SPC-4, 5.15.2.5), which multipath and sd try again.
const PATIENCE_S: u8 = 20;

/// Who was silent for so long is asked whether it is there (RFC 7143, section 11.19), and is gone if it says nothing either.
const ASK_AFTER_S: u8 = 15;
const GONE_AFTER_S: u8 = 45;

/// Nothing went out in as long, though there was something.
const STUCK_AFTER_S: u8 = 60;

/// What initiators are given to log out before this node goes.
pub const LOG_OUT_WITHIN_S: u16 = 3;

#[derive(Debug)]
pub(in super::super) struct Patrol {
    due_ns: u64,
    log: Seldom,
}

impl Default for Patrol {
    fn default() -> Self {
        Self { due_ns: 0, log: Seldom::new(Instant::now()) }
    }
}

/// What is known of a client from one patrol to the next.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Watched {
    silent_s: u8,
    stuck_s: u8,
    /// What had gone out.
    sent: u64,
}

impl Watched {
    pub(super) fn was_heard(&mut self) {
        self.silent_s = 0;
    }
}

impl Engine {
    /// When the patrol is due: with no initiator there is none.
    pub(in super::super) fn next_patrol(&self) -> Option<u64> {
        (self.initiators > 0).then_some(self.patrol.due_ns)
    }

    pub(in super::super) fn patrol_when_due(&mut self) {
        let now = boottime_ns();
        if self.initiators == 0 || now < self.patrol.due_ns {
            return;
        }
        self.patrol.due_ns = now + EVERY_NS;
        for place in 0..self.clients.len() {
            let Some(client) = self.clients[place].as_ref().filter(|client| !client.closed) else { continue };
            if let Talk::Iscsi(id) = client.talk
                && id != NOBODY
            {
                self.end_patience(place);
                self.look_after(place, id);
            }
        }
    }

    /// What has waited too long, or is dropped, need not begin any more.
    fn end_patience(&mut self, place: usize) {
        for number in 0..self.clients[place].as_ref().map_or(0, |client| client.deeds.len()) {
            let Some(client) = &mut self.clients[place] else { return };
            let deed = &mut client.deeds[number];
            if deed.cookie == NOBODYS {
                continue;
            }
            deed.seconds = deed.seconds.saturating_add(1);
            if deed.seconds > PATIENCE_S || deed.then == Then::Drop {
                self.withdraw(place, number);
            }
        }
    }

    /// The volume need not begin what it has not begun of this deed.
    pub(super) fn withdraw(&mut self, place: usize, number: usize) {
        let Some(client) = &self.clients[place] else { return };
        let (index, serial) = (client.volume, client.serial);
        let asked = self.volumes[index].requests.each();
        let of_deed = asked.filter(|(_, it)| it.client == place && it.serial == serial && it.deed == number);
        for request in of_deed.map(|(request, _)| Request(request)).collect::<Vec<_>>() {
            self.tell(index, Event::Withdrawn { request });
        }
    }

    fn look_after(&mut self, place: usize, id: SessionId) {
        let Some(client) = &mut self.clients[place] else { return };
        let backlog = self.ring.backlog(&client.socket);
        let Client { watched, .. } = client;
        let is_stuck = backlog.bytes > 0 && backlog.sent == watched.sent;
        watched.sent = backlog.sent;
        watched.stuck_s = if is_stuck { watched.stuck_s.saturating_add(1) } else { 0 };
        // Who is not listened to cannot be heard.
        watched.silent_s = if client.receiving { watched.silent_s.saturating_add(1) } else { 0 };
        let Watched { silent_s, stuck_s, .. } = *watched;
        if stuck_s >= STUCK_AFTER_S {
            self.send_away(place, &format!("it has received nothing for {STUCK_AFTER_S} s"));
        } else if silent_s >= GONE_AFTER_S {
            self.send_away(place, &format!("it has said nothing for {GONE_AFTER_S} s, though it was asked"));
        } else if silent_s == ASK_AFTER_S {
            self.with_target(place, |target, out| target.ping(id, out));
        }
    }

    /// Its session is over, and the log says why.
    pub(super) fn send_away(&mut self, place: usize, why: &str) {
        let Some(client) = &self.clients[place] else { return };
        if let Some(left_out) = self.patrol.log.may(Instant::now()) {
            let volume = self.volumes[client.volume].id;
            tracing::info!(%volume, left_out, "an initiator is sent away: {why}");
        }
        self.close_client(place);
    }

    /// This node is about to go: initiators use their other paths before they have to.
    pub(in super::super) fn ask_all_to_log_out(&mut self, volume: VolumeId) {
        let Some(index) = self.by_id.get(&volume).copied() else { return };
        if let Some(served) = &mut self.volumes[index].target {
            served.target.ask_all_to_log_out(LOG_OUT_WITHIN_S);
            self.target_events(index);
        }
    }
}
