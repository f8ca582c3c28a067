//! tandem-node: replicated volumes. So far: who is who, by certificates, and the arbiter that says who may serve.

pub mod arbiter;
pub mod cert;
pub mod identity;
