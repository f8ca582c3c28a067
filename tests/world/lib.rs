//! The world that Tandem is tested in.

#![recursion_limit = "256"] // one server of Nova's is a long `json!`

pub mod addresses;
pub mod bmc;
pub mod cloud;
pub mod disks;
pub mod history;
pub mod house;
pub mod http;
pub mod initiators;
pub mod iscsi;
pub mod machine;
pub mod nbd;
pub mod openstack;
