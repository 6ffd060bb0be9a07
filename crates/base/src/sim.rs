//! Virtual time: one thread, a paused clock that jumps to the next deadline when all tasks wait, and seeded
//! randomness.

use std::cell::Cell;
use std::future::Future;

use crate::time::Timestamp;

thread_local! {
    static ACTIVE: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread runs a simulation.
pub fn active() -> bool {
    ACTIVE.with(Cell::get)
}

/// Runs `future` to its end in virtual time. Everything that [`crate`] offers follows from `seed`; the wall
/// clock starts at 2026-01-01T00:00:00Z.
///
/// # Panics
/// When `future` panics, or when a simulation is started inside another.
pub fn run<T>(seed: u64, future: impl Future<Output = T>) -> T {
    assert!(!active(), "a simulation cannot run inside another");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without IO needs nothing that can be missing");
    let _guard = Guard;
    ACTIVE.with(|a| a.set(true));
    crate::rand::install(Some(seed));
    let out = runtime.block_on(async {
        crate::time::install(Timestamp::from_second(1_767_225_600).expect("a valid date"));
        future.await
    });
    // Tasks left over are dropped while the doors are still the simulation's.
    drop(runtime);
    out
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        crate::time::uninstall();
        crate::rand::install(None);
        ACTIVE.with(|a| a.set(false));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{task, time};

    #[test]
    fn an_hour_passes_at_once_and_in_order() {
        let order = run(1, async {
            let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
            let start = time::now();
            for hours in [3u64, 1, 2] {
                let tx = tx.clone();
                task::spawn(async move {
                    time::sleep(Duration::from_secs(hours * 3600)).await;
                    tx.send(hours).expect("the receiver waits for all three");
                })
                .detach();
            }
            drop(tx);
            let mut order = Vec::new();
            while let Some(h) = rx.recv().await {
                order.push(h);
            }
            assert_eq!(time::now().as_second() - start.as_second(), 10_800);
            order
        });
        assert_eq!(order, [1, 2, 3]);
        assert!(!active());
    }
}
