//! Tests of the whole line in process: the real engine on the simulated disk, in virtual time; one of
//! them through the listener.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod behaviour;
mod coverage;
mod protobuf;
mod revisions;
mod scripts;
mod security;
mod stories;
mod wire;
