//! The child of the kill test: writes counters from several tasks for ever and prints each acknowledged write as
//! `<key> <value> <revision>`. Takes the data directory.

use std::io::Write;
use std::sync::Arc;

use storage::disk::RealDisk;
use storage::{Class, Engine, Op, Options, Range, Store, Txn, TxnReply};

fn main() {
    let dir = std::env::args().nth(1).expect("the data directory");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let options = Options {
            segment_bytes: 64 << 10,
            history: std::time::Duration::from_millis(50),
            ..Options::default()
        };
        let engine =
            Arc::new(Engine::open(Arc::new(RealDisk::new(dir)), options).await.expect("the store opens"));
        let tasks: Vec<_> = (0..8).map(|task| base::task::spawn(count(engine.clone(), task))).collect();
        for task in tasks {
            task.await;
        }
    });
}

async fn count(engine: Arc<Engine>, task: u32) {
    let key = format!("counter-{task}");
    let old = engine.range(Range::key(key.clone())).await.expect("a read").kvs.pop();
    let mut n = old.map_or(0, |kv| number(&kv.value));
    loop {
        n += 1;
        let op = Op::put(key.clone(), format!("{n} {}", "x".repeat((n % 700) as usize)));
        let class = if task.is_multiple_of(2) { Class::Durable } else { Class::Lazy };
        let reply = engine.txn(Txn { class, ..Txn::of(vec![op]) }).await.expect("a write");
        let TxnReply::Done { revision, .. } = reply else { panic!("nothing was compared") };
        // One system call, so that the line is whole or not there.
        std::io::stdout().write_all(format!("{key} {n} {revision}\n").as_bytes()).expect("the parent reads");
        if class == Class::Lazy {
            base::task::yield_now().await;
        }
    }
}

fn number(value: &[u8]) -> u64 {
    let text = std::str::from_utf8(value).expect("text");
    text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number")
}
