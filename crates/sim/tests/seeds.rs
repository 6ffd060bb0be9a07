//! A few dozen seeds, each twice; `cargo run -p sim --release -- --seeds 1000` plays more.

/// One test per batch, so that batches run side by side.
macro_rules! batches {
    ($($name:ident: $seeds:expr;)*) => { $(
        #[test]
        fn $name() {
            for seed in $seeds {
                let outcome = sim::run_twice(seed);
                assert!(outcome.broken.is_empty(), "seed {seed}: {}", outcome.broken.join("\n"));
            }
        }
    )* };
}

batches! {
    seeds_0_to_5: 0..6;
    seeds_6_to_11: 6..12;
    seeds_12_to_17: 12..18;
    seeds_18_to_23: 18..24;
}
