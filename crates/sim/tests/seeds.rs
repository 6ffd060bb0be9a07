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
    seeds_0_to_7: 0..8;
    seeds_8_to_15: 8..16;
    seeds_16_to_23: 16..24;
    seeds_24_to_31: 24..32;
}
