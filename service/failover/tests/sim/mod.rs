//! A whole cloud on virtual time: hosts and their guests, BMCs, Nova with its real rules, operators, and one to three tandem-ha around the core.
//!
//! ```text
//!   faults ─▶ world (hosts · bmc · nova) ─▶ what each tandem-ha hears ─▶ decide ─▶ recorded under the lease ─▶ acts ─▶ world
//!                        │                                                   │
//!                        └───────────────────── judge ◀──────────────────────┘
//! ```
//!
//! Time jumps from event to event; whoever has nothing to look at sleeps until something happens. Everything follows from the seed.
#![allow(unreachable_pub, reason = "what is within a test is seen by it alone")]

pub mod bend;
pub mod bmc;
pub mod end;
pub mod faults;
pub mod host;
pub mod judge;
pub mod nova;
pub mod seeds;
pub mod story;
pub mod tandem;
pub mod world;
