//! The core on a simulated cloud: stories, promises, and faults planted in it.

mod planted;
mod sim;
mod stories;
