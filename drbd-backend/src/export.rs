//! How clients reach a volume: [`door`] lets them in, [`nbd`] is what they speak.

pub mod door;
pub mod nbd;
