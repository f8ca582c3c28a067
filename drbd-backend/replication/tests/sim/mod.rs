//! A whole volume on virtual time: two or three replicas on disks with caches, an arbiter, links, clients who check what they read,
//! and operators, all of whom may do their worst.
//!
//! ```text
//!   misfortunes ─▶ world (disks · links · arbiter · clients · operators) ─▶ events ─▶ Replica::handle ─▶ effects, in any order
//!                      ▲          │                                                                          │
//!                      └──────────┼──────────────────────────────────────────────────────────────────────────┘
//!                                 └─▶ judge: who knows what no node can know
//! ```
//!
//! Time jumps from one thing that is due to the next. Everything follows from the seed.
#![allow(unreachable_pub, reason = "what is within a test is seen by it alone")]

pub mod arbiter;
pub mod befall;
pub mod bend;
pub mod client;
pub mod disk;
pub mod end;
pub mod history;
pub mod judge;
pub mod misfortune;
pub mod network;
pub mod node;
pub mod operator;
pub mod process;
pub mod seeds;
pub mod story;
pub mod world;
