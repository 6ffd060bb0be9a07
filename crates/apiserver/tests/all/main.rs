//! Tests of the whole line in process: the real engine on the simulated disk, in virtual time, no sockets.
#![allow(clippy::unwrap_used, clippy::disallowed_macros)]

mod behaviour;
mod harness;
mod protobuf;
mod scripts;
mod security;
mod stories;
