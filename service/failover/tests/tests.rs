//! The core on a simulated cloud: stories, promises, and faults planted in it.

mod sim;
mod stories;
