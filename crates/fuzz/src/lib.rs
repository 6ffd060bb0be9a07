//! Random input for everything that reads what a stranger sent: `cargo run --release -p fuzz -- json --seeds 100000`
//! plays many seeds, `-- json --seed 7` one. The tests play a few of every target.
//!
//! A target is a function of [`Dice`]: it throws an input, says what it is, and complains of what should not be. All
//! throws of a failing run are kept, so that any target's input is made smaller by taking throws away.

pub mod dice;
pub mod make;
pub mod play;
mod targets;
mod wire;

use dice::Dice;

/// What is wrong, in a sentence.
pub type Verdict = Result<(), String>;

/// One thing to throw input at.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line.
    pub name: &'static str,
    /// How many seeds the tests play.
    pub seeds: u64,
    /// One throw.
    pub run: fn(&mut Dice) -> Verdict,
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "json", seeds: 1500, run: targets::json::run },
    Target { name: "yaml", seeds: 600, run: targets::yaml::run },
    Target { name: "protobuf", seeds: 600, run: targets::protobuf::run },
    Target { name: "schema", seeds: 400, run: targets::schema::run },
    Target { name: "json-patch", seeds: 2000, run: targets::json_patch::run },
    Target { name: "merge-patch", seeds: 2000, run: targets::merge_patch::run },
    Target { name: "strategic", seeds: 600, run: targets::strategic::run },
    Target { name: "selector", seeds: 3000, run: targets::selector::run },
    Target { name: "quantity", seeds: 5000, run: targets::quantity::run },
    Target { name: "frames", seeds: 2000, run: targets::frames::run },
    Target { name: "requests", seeds: 60, run: targets::requests::run },
];

/// Complains with the words of `why` unless `holds`.
///
/// # Errors
/// When it does not hold.
pub fn check(holds: bool, why: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(why()) }
}
