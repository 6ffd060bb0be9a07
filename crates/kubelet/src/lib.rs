//! The kubelet.

pub mod admission;
pub mod config;
pub mod containers;
pub mod doors;
pub mod env;
pub mod fields;
pub mod objects;
pub mod refused;
pub mod resolver;
pub mod status;
pub mod volumes;
pub mod worker;
