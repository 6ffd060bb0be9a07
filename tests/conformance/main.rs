//! Rows of the conformance list that need no real container: their descriptions, step by step, against a whole control
//! plane in virtual time over two hollow nodes. `tests/conformance.toml` says which test proves which row.

mod cluster;
#[path = "../../crates/apiserver/tests/all/harness.rs"]
#[allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared with the API server's own tests, which start theirs by themselves"
)]
mod harness;

mod architecture;
mod configmap;
mod core_events;
mod discovery;
mod endpointslice;
mod events;
mod immutable;
mod lease;
mod namespace;
mod preemption;
mod resource_quota;
mod secrets;
mod server_version;
mod service;
mod service_accounts;
mod subjectreviews;
mod table_conversion;
mod watch;
