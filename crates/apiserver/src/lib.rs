//! apiserver

pub mod server;
pub mod tokens;
pub mod tunnel;
