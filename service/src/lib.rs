//! tandem-ha: watches compute hosts, decides which are dead, fences them and evacuates their instances.

pub mod act;
pub mod api;
pub mod clock;
pub mod conductor;
pub mod config;
pub mod daemon;
pub mod desk;
pub mod fence;
pub mod store;
pub mod watch;
pub mod world;
