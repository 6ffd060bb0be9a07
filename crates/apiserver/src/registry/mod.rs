//! Objects in storage: the generic store that every kind shares, what is handed out along with a write, and how
//! objects are shown. Upstream: k8s.io/apiserver/pkg/registry/generic/registry.

pub mod allocate;
pub mod change;
pub mod remove;
pub mod render;
pub mod store;
pub mod subresources;
pub mod table;
