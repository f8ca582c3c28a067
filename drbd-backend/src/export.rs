//! How clients reach a volume: [`door`] lets in those that speak [`nbd`], [`iscsi`] those that speak that.

pub mod door;
pub mod iscsi;
pub mod nbd;
