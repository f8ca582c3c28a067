//! Makes sure that a host runs nothing.

pub mod redfish;
