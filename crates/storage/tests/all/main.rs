//! The engine against the conformance suite, a model, crashes and damage, in virtual time; and killed for real.

// All of it is test, which Clippy sees only inside the functions that are marked so.
#![allow(clippy::unwrap_used)]
// A guard that was dropped before the await counts as held for this lint.
#![allow(clippy::await_holding_lock)]

mod conformance;
mod crash;
mod damage;
mod killed;
mod model;
