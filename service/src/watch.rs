//! Watches for signs of life.

pub mod heartbeat;
pub mod reach;
