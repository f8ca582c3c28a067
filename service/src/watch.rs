//! Watches for signs of life.

pub mod heartbeat;
pub mod instances;
pub mod nova;
pub mod power;
pub mod reach;
