//! The binary's servers as processes, spoken to over HTTPS.

// All of it is test, which Clippy sees only inside the functions that are marked so.
#![allow(clippy::unwrap_used)]

mod kubectl;
mod servers;
mod several;
mod single;
