//! The kubelet.

pub mod worker;
