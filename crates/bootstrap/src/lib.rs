//! What a cluster is born with: keys and certificates, kubeconfigs, namespaces, roles.
//!
//! Everything here can be run again at any time: what exists is kept, what is missing or due is made.

pub mod kubeconfig;
pub mod objects;
pub mod pki;
pub mod policy;
