//! TCP reachability of compute hosts.
