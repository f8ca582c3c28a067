//! The core on simulated nodes: stories, promises, and faults planted in it.

mod planted;
mod promises;
mod sim;
mod stories;
