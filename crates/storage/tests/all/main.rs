//! The engine against the conformance suite, a model, crashes and damage, in virtual time; and killed for real.

mod conformance;
mod crash;
mod damage;
mod killed;
mod model;
