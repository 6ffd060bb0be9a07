//! Durations by their size: 64 steps for every power of two, so that a percentile is right to 1.6 %.

use std::time::Duration;

const STEPS_BITS: u32 = 6;
const STEPS: u64 = 1 << STEPS_BITS;

/// How often which duration was seen.
#[derive(Clone, Default)]
pub struct Histogram {
    counts: Vec<u64>,
    /// How many there are.
    pub count: u64,
    max: u64,
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS {
        return nanos as usize;
    }
    let shift = nanos.ilog2() - STEPS_BITS;
    (u64::from(shift + 1) * STEPS + (nanos >> shift) - STEPS) as usize
}

/// The largest of a bucket.
fn top(bucket: usize) -> u64 {
    let (power, step) = (bucket as u64 / STEPS, bucket as u64 % STEPS);
    if power == 0 { step } else { ((STEPS + step + 1) << (power - 1)) - 1 }
}

impl Histogram {
    /// Adds one.
    pub fn add(&mut self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let at = bucket(nanos);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.count += 1;
        self.max = self.max.max(nanos);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Histogram) {
        if other.counts.len() > self.counts.len() {
            self.counts.resize(other.counts.len(), 0);
        }
        for (at, n) in other.counts.iter().enumerate() {
            self.counts[at] += n;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// What this part of all (0 to 1) does not exceed; zero when there is none.
    pub fn percentile(&self, part: f64) -> Duration {
        let mut left = (self.count as f64 * part).ceil().max(1.0) as u64;
        for (at, n) in self.counts.iter().enumerate() {
            if *n >= left {
                return Duration::from_nanos(top(at).min(self.max));
            }
            left -= n;
        }
        Duration::from_nanos(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_close() {
        let mut all = Histogram::default();
        for micros in 1..=1000 {
            all.add(Duration::from_micros(micros));
        }
        for (part, micros) in [(0.5, 500.0), (0.99, 990.0), (1.0, 1000.0)] {
            let got = all.percentile(part).as_nanos() as f64 / 1000.0;
            assert!((got / micros - 1.0).abs() < 0.016, "{part}: {got}");
        }
        for nanos in [0, 1, 63, 64, 65, 127, 128, 1_000_000_007, u64::MAX >> 1] {
            assert!(top(bucket(nanos)) >= nanos && (nanos == 0 || top(bucket(nanos) - 1) < nanos), "{nanos}");
        }
        assert_eq!(Histogram::default().percentile(0.5), Duration::ZERO);
    }
}
