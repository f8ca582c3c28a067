//! Heartbeats of compute hosts.
