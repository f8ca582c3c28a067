//! The core on a simulated cloud: stories, promises, and faults planted in it.

mod planted;
mod promises;
mod sim;
mod stories;
mod unlisted;
