//! Throws that can be kept, played again, and taken away one by one.

use base::rand::SplitMix;

/// Where a target's randomness comes from. The lower a throw, the simpler what it chooses: a tape of zeros, or of
/// nothing, is the simplest input.
pub struct Dice {
    source: Option<SplitMix>,
    tape: Vec<u64>,
    at: usize,
    said: String,
}

impl Dice {
    /// Throws that follow from a seed.
    pub fn seeded(seed: u64) -> Dice {
        Dice { source: Some(SplitMix::new(seed)), tape: Vec::new(), at: 0, said: String::new() }
    }

    /// The throws of `tape`, then zeros.
    pub fn replay(tape: Vec<u64>) -> Dice {
        Dice { source: None, tape, at: 0, said: String::new() }
    }

    /// A number in `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        let thrown = match &mut self.source {
            Some(source) => {
                let thrown = source.below(n);
                self.tape.push(thrown);
                thrown
            }
            None => self.tape.get(self.at).copied().unwrap_or(0).min(n.saturating_sub(1)),
        };
        self.at += 1;
        thrown
    }

    /// As [`Dice::below`].
    pub fn upto(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// True once in `n` times.
    pub fn rarely(&mut self, n: u64) -> bool {
        n > 0 && self.below(n) == n - 1
    }

    /// One of some; the first is the simplest.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.upto(of.len())]
    }

    /// Keeps a part of the input for whoever looks into a failure.
    pub fn say(&mut self, what: &str, input: &[u8]) {
        self.said.push_str(&format!("  {what}: {}\n", input.escape_ascii()));
    }

    /// The throws so far.
    pub fn into_parts(self) -> (Vec<u64>, String) {
        (self.tape, self.said)
    }
}
