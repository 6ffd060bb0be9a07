//! Whole control planes in one thread, in virtual time, from a seed: the real store on a disk that tears, the real API
//! server, controllers, scheduler and kubelets, over machines and a network that do not exist ([`doors`], [`net`]).
//!
//! [`run`] plays a [`Story`] while [`faults`] strike, [`checkers`] look at every change, and in the end all must be as if
//! nothing had happened. TLS, HTTP, the real runtime and network lie outside.

mod api_clients;
pub mod api_story;
pub mod checkers;
pub mod doors;
pub mod faults;
pub mod history;
pub mod ledger;
pub mod net;
pub mod record;
pub mod seat;
pub mod server;
pub mod story;
pub mod world;

use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::Once;

use history::Line;

/// How a seed went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// All that was written, in order.
    pub lines: Vec<Line>,
    /// How often each fault struck, in the order of their list.
    pub faults: Vec<(&'static str, u32)>,
    /// What clients did and saw, in numbers.
    pub saw: Vec<(&'static str, u64)>,
    /// What was wrong; empty if all went well.
    pub broken: Vec<String>,
}

/// What is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Story {
    /// The demo on one cluster in one process, with nodes: [`story`].
    Demo,
    /// API servers over one store and their clients: [`api_story`].
    Api,
}

thread_local! {
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Plays one seed.
pub fn run(story: Story, seed: u64) -> Outcome {
    note_panics();
    PANICS.with(|p| p.borrow_mut().clear());
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| match story {
        Story::Demo => base::sim::run(seed, story::play()),
        Story::Api => base::sim::run(seed, api_story::play()),
    }));
    let mut outcome = played.unwrap_or_default();
    outcome.broken.extend(PANICS.with(|p| p.borrow_mut().drain(..).collect::<Vec<_>>()));
    outcome
}

/// Plays one seed twice: what differs between the two is wrong, too.
pub fn run_twice(story: Story, seed: u64) -> Outcome {
    let first = run(story, seed);
    let second = run(story, seed);
    let mut outcome = first.clone();
    if first.lines != second.lines {
        let at = first.lines.iter().zip(&second.lines).position(|(a, b)| a != b);
        let at = at.unwrap_or(first.lines.len().min(second.lines.len()));
        let (a, b) = (first.lines.get(at), second.lines.get(at));
        outcome.broken.push(format!("two runs differ from write {at} on: {a:?} and {b:?}"));
    } else if first != second {
        outcome.broken.push(format!("two runs differ in what they found: {:?}", second.broken));
    }
    outcome
}

/// A task's panic ends the task only: here it ends the seed.
fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if base::sim::active() {
                PANICS.with(|p| p.borrow_mut().push(format!("panic: {info}")));
            } else {
                before(info);
            }
        }));
    });
}
