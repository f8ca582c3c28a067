//! How long a swap takes: `cargo test --release --test arbiter -- --ignored latency --nocapture`.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tandem_node::arbiter::Outcome;

use super::{World, created, promoted};

const SWAPS: usize = 1000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, on a quiet machine"]
async fn latency_of_a_swap() -> Result<()> {
    for (name, world) in [("embedded", World::embedded().await?), ("etcd, three", World::etcd().await?)] {
        let register = world.register()?;
        let (volume, mut record) = created(&*register).await?;
        let mut took = Vec::with_capacity(SWAPS);
        for tag in 0..SWAPS as u64 {
            let proposed = promoted(&record, 0, tag);
            let begun = Instant::now();
            ensure!(matches!(register.swap(volume, &record, &proposed).await, Outcome::Done));
            took.push(begun.elapsed());
            record = proposed;
        }
        took.sort_unstable();
        let (p50, p99) = (took[SWAPS / 2], took[SWAPS * 99 / 100]);
        println!("{name}: p50 {p50:?}, p99 {p99:?}, longest {:?}", took[SWAPS - 1]);
        // A node that takes over waits for one swap; the default lease is 2 s.
        ensure!(p99 < Duration::from_millis(250), "{name}: p99 {p99:?}");
    }
    Ok(())
}
