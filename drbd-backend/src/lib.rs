//! tandem-node: replicated volumes.
//!
//! `engine` moves the blocks and asks the core, `replication`, what to do; `node` finds peers and asks the `arbiter`; `disk` is all that
//! touches the kernel's queues; `export` is what clients speak; `identity` says who is who;
//! `catalog` has the definitions of volumes, `cluster` the way to the other nodes, and `admin` is the REST over all of it.

pub mod admin;
pub mod arbiter;
pub mod catalog;
pub mod cert;
pub mod cluster;
pub mod config;
pub mod daemon;
pub mod disk;
pub mod engine;
pub mod export;
pub mod fences;
pub mod identity;
pub mod node;
mod seldom;
