//! A few dozen seeds, each twice; `cargo run -p sim --release -- --seeds 1000` plays more.

use sim::Story;

/// One test per batch, so that batches run side by side.
macro_rules! batches {
    ($($name:ident: $story:ident, $seeds:expr;)*) => { $(
        #[test]
        fn $name() {
            for seed in $seeds {
                let outcome = sim::run_twice(Story::$story, seed);
                assert!(outcome.broken.is_empty(), "seed {seed}: {}", outcome.broken.join("\n"));
            }
        }
    )* };
}

batches! {
    seeds_0_to_5: Demo, 0..6;
    seeds_6_to_11: Demo, 6..12;
    seeds_12_to_17: Demo, 12..18;
    seeds_18_to_23: Demo, 18..24;
    api_seed_0: Api, 0..1;
    api_seed_1: Api, 1..2;
}
