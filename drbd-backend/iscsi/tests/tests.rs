//! Promises of the target, told byte by byte.

#[path = "stories/initiator.rs"]
mod initiator;
#[path = "stories/logins.rs"]
mod logins;
#[path = "stories/reservations.rs"]
mod reservations;
#[path = "stories/sessions.rs"]
mod sessions;
#[path = "stories/strangers.rs"]
mod strangers;
