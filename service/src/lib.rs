//! tandem-ha: watches compute hosts, decides which are dead, fences them and evacuates their instances.
pub mod api;
pub mod config;
pub mod desk;
pub mod fence;
pub mod store;
pub mod watch;
