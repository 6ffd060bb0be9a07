//! apiserver

pub mod server;
