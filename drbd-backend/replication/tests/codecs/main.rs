//! What replicas say to each other and keep on disk, as bytes: goldens, round trips, damage.

mod damage;
mod disk;
mod golden;
mod metadata;
mod power_cuts;
mod random;
mod wire;
