//! Failures that others have paid for, and those that the rules were found by: each a short day with the judge there. Many are told twice, the second time
//! with the fault planted that they are about, to see that they would have found it.

#[path = "stories/caches.rs"]
mod caches;
#[path = "stories/changes.rs"]
mod changes;
#[path = "stories/disks.rs"]
mod disks;
#[path = "stories/rejoining.rs"]
mod rejoining;
#[path = "stories/serving.rs"]
mod serving;
