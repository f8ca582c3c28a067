//! tandem-node: replicated volumes. So far: who is who, by certificates.

pub mod cert;
pub mod identity;
