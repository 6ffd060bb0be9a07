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

mod namespace;
mod resource_quota;
mod watch;
