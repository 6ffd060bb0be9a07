//! Plays seeds: each on a thread of its own with the stack that a server's task has, so that what needs more is found
//! out (the operating system then ends the process, and the thread's name in its last words is the seed).

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, Once};
use std::time::Duration;

use crate::Target;
use crate::dice::Dice;

/// A server's tasks have as much.
const STACK_BYTES: usize = 2 << 20;
/// No input may take longer, by far, on the slowest machine.
const TIME_MAX: Duration = Duration::from_secs(20);
/// How many smaller inputs are tried, and for how long.
const SMALLER_TRIES_MAX: usize = 3_000;
const SMALLER_TIME_MAX: Duration = Duration::from_secs(60);

/// A seed that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What is wrong with the smallest input found.
    pub why: String,
    /// That input.
    pub input: String,
}

/// What became of one throw.
struct Outcome {
    why: Option<String>,
    tape: Vec<u64>,
    said: String,
    took: Duration,
}

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// The words and place of this thread's last panic, once.
pub fn last_panic() -> Option<String> {
    PANIC.take()
}

/// Panics are outcomes here: they are kept, not printed.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let ours = std::thread::current().name().is_some_and(|n| n.starts_with("seed ") || n == "deep");
            if ours {
                PANIC.set(Some(info.to_string()));
            } else {
                usual(info);
            }
        }));
    });
}

fn throw(target: &Target, name: String, mut dice: Dice) -> Outcome {
    listen();
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
        let work = move || {
            let began = base::time::instant();
            let verdict = catch_unwind(AssertUnwindSafe(|| (target.run)(&mut dice)));
            let took = began.elapsed();
            let why = match verdict {
                Ok(Ok(())) if took > TIME_MAX => Some(format!("it took {took:?}")),
                Ok(verdict) => verdict.err(),
                Err(_) => Some(last_panic().unwrap_or_else(|| "a panic on another thread".to_owned())),
            };
            let (tape, said) = dice.into_parts();
            Outcome { why, tape, said, took }
        };
        let thread = thread.spawn_scoped(scope, work).expect("a thread can be had");
        thread.join().expect("the work's panics are caught within")
    })
}

/// Plays one seed, and makes what fails smaller.
///
/// # Errors
/// With the failure.
pub fn seed(target: &Target, seed: u64) -> Result<Duration, Failure> {
    let name = format!("seed {seed} of {}", target.name);
    let outcome = throw(target, name.clone(), Dice::seeded(seed));
    match outcome.why {
        None => Ok(outcome.took),
        Some(why) => {
            let (why, input) = smaller(target, &name, outcome.tape, why, outcome.said);
            Err(Failure { seed, why, input })
        }
    }
}

/// Takes throws away, and lowers them, for as long as something still fails.
fn smaller(
    target: &Target,
    name: &str,
    mut tape: Vec<u64>,
    mut why: String,
    mut input: String,
) -> (String, String) {
    let (mut tries, began) = (0, base::time::instant());
    let mut fails = |tape: &[u64]| {
        tries += 1;
        let enough = tries > SMALLER_TRIES_MAX || began.elapsed() > SMALLER_TIME_MAX;
        let outcome = (!enough).then(|| throw(target, name.to_owned(), Dice::replay(tape.to_vec())))?;
        outcome.why.map(|why| (why, outcome.said))
    };
    let mut size = tape.len().max(1).next_power_of_two() / 2;
    while size > 0 {
        let mut at = 0;
        while at < tape.len() {
            let end = (at + size).min(tape.len());
            let without = [&tape[..at], &tape[end..]].concat();
            let mut zeros = tape.clone();
            zeros[at..end].fill(0);
            let mut half = tape.clone();
            half[at..end].iter_mut().for_each(|throw| *throw /= 2);
            let found = [without, zeros, half]
                .into_iter()
                .filter(|next| *next != tape)
                .find_map(|next| fails(&next).map(|why| (next, why)));
            match found {
                Some((next, told)) => {
                    tape = next;
                    (why, input) = told;
                }
                None => at += size,
            }
        }
        size /= 2;
    }
    (why, input)
}

/// Plays `count` seeds from `from` on `jobs` threads; `said` hears of every seed that is done, with the slowest so far.
pub fn seeds(
    target: &Target,
    from: u64,
    count: u64,
    jobs: usize,
    said: impl Fn(u64, Duration) + Sync,
) -> Vec<Failure> {
    let state = Mutex::new((0, 0, Duration::ZERO, Vec::new()));
    let lock = || state.lock().expect("nobody panics holding it");
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                loop {
                    let next = {
                        let mut state = lock();
                        state.0 += 1;
                        state.0 - 1
                    };
                    if next >= count {
                        return;
                    }
                    let played = seed(target, from + next);
                    let mut state = lock();
                    match played {
                        Ok(took) => state.2 = state.2.max(took),
                        Err(failure) => state.3.push(failure),
                    }
                    state.1 += 1;
                    said(state.1, state.2);
                }
            });
        }
    });
    state.into_inner().expect("nobody panics holding it").3
}
