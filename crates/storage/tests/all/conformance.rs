//! The suite on the simulated disk and on the real one.

use std::sync::Arc;
use std::time::Duration;

use storage::disk::RealDisk;
use storage::sim::SimDisk;
use storage::{Engine, Options, suite};

/// Small segments and little memory, so that rotation, rewriting and reading back all happen.
pub fn small() -> Options {
    Options { segment_bytes: 4096, recent_bytes: 512, reserve: 50, ..Options::default() }
}

#[test]
fn on_the_simulated_disk() {
    for (seed, options) in [(1, Options::default()), (2, small())] {
        base::sim::run(seed, async {
            let disk = SimDisk::new(Duration::from_millis(2));
            let engine = Arc::new(Engine::open(Arc::new(disk), options).await.unwrap());
            suite::all(engine.clone()).await;
            engine.close().await;
        });
    }
}

#[test]
fn on_the_real_disk() {
    let dir = tempfile::tempdir().unwrap();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let open = || Engine::open(Arc::new(RealDisk::new(dir.path().join("data"))), small());
        let engine = Arc::new(open().await.unwrap());
        suite::all(engine.clone()).await;
        let second = open().await.err().expect("the directory is taken").to_string();
        assert!(second.contains(&format!("process {}", std::process::id())), "{second}");
        let revision = storage::Store::revision(&*engine).await.unwrap();
        engine.close().await;
        let again = open().await.unwrap();
        assert_eq!(storage::Store::revision(&again).await.unwrap(), revision);
        again.close().await;
    });
}
