//! Durable writes a second, with the time of one fdatasync beside it: `cargo run --release -p storage --example bench
//! [directory]`. 32 writers at a time, values of 1 KB, 100,000 keys.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use base::time::instant;
use storage::disk::RealDisk;
use storage::{Bytes, Engine, Op, Options, Range, Store, Txn};

const WRITERS: u64 = 32;
const KEYS: u64 = 100_000;
const SECONDS: u64 = 5;

fn main() {
    let base = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = base.join(format!("storage-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).expect("the directory can be made");
    fdatasync(&dir);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&dir));
    std::fs::remove_dir_all(&dir).expect("the directory can be removed");
}

/// What the disk itself takes for a batch: 32 KB appended and synced.
fn fdatasync(dir: &std::path::Path) {
    let mut file = std::fs::File::create(dir.join("probe")).expect("a file can be made");
    let data = vec![7u8; 32 << 10];
    let mut times: Vec<Duration> = (0..2000)
        .map(|_| {
            let start = instant();
            file.write_all(&data).and_then(|()| file.sync_data()).expect("the disk can be written");
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("write of 32 KB with fdatasync: median {:?}, 99th of a hundred {:?}", times[1000], times[1980]);
}

async fn run(dir: &std::path::Path) {
    let open = || Engine::open(Arc::new(RealDisk::new(dir.join("data"))), Options::default());
    let engine = Arc::new(open().await.expect("the store opens"));
    let value = Bytes::from(vec![b'v'; 1024]);
    let start = instant();
    let tasks: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (engine, value) = (engine.clone(), value.clone());
            base::task::spawn(async move {
                let (mut n, mut slowest) = (0, Duration::ZERO);
                while start.elapsed() < Duration::from_secs(SECONDS) {
                    let key = format!("/registry/pods/namespace/pod-{}", (n * WRITERS + writer) % KEYS);
                    let before = instant();
                    engine.txn(Txn::of(vec![Op::put(key, value.clone())])).await.expect("a write");
                    slowest = slowest.max(before.elapsed());
                    n += 1;
                }
                (n, slowest)
            })
        })
        .collect();
    let (mut all, mut slowest) = (0, Duration::ZERO);
    for task in tasks {
        let (n, s) = task.await;
        all += n;
        slowest = slowest.max(s);
    }
    let elapsed = start.elapsed().as_secs_f64();
    println!("durable writes, {WRITERS} at a time, 1 KB: {:.0}/s, slowest {slowest:?}", all as f64 / elapsed);
    let start = instant();
    let mut gets = 0;
    while start.elapsed() < Duration::from_secs(1) {
        let key = format!("/registry/pods/namespace/pod-{}", gets % WRITERS);
        assert_eq!(engine.range(Range::key(key)).await.expect("a read").count, 1);
        gets += 1;
    }
    println!("reads of one key, one at a time: {gets}/s");
    let start = instant();
    let list = engine.range(Range::prefix("/registry/")).await.expect("a read");
    println!("range of {} keys with values: {:?}", list.kvs.len(), start.elapsed());
    drop(list);
    engine.close().await;
    drop(engine);
    let start = instant();
    let engine = open().await.expect("the store opens again");
    println!("open after {all} writes: {:?}", start.elapsed());
    engine.close().await;
}
