//! Rows of the conformance list that need real containers or packets, step by step as their descriptions say, on a node
//! as users have it. `tests/conformance.toml` says which test proves which row.

mod downward_api;
mod empty_dir;
mod environment;
mod files;
mod hooks;
mod in_cluster;
mod kubectl;
mod network;
mod pods;
mod probes;
mod security;
mod streams;
mod subpaths;
