//! The daemon `tandem-ha`.

fn main() {}
