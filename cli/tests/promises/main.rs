//! Promises of `tandem`: the built binary against a small fake of tandem-ha and of tandem-node.

mod bad_days;
mod fake;
mod finding;
mod looks;
mod nodes;
mod orders;
mod terminal;
mod tls;
mod volume_orders;
mod volumes;
