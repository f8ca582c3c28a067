//! Promises of `tandem`: the built binary against a small fake of tandem-ha.

mod bad_days;
mod fake;
mod finding;
mod looks;
mod orders;
mod terminal;
