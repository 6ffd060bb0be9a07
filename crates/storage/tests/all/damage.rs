//! Damage that no crash explains is told, and a disk that fails ends the engine.

use std::sync::Arc;
use std::time::Duration;

use storage::sim::SimDisk;
use storage::{Engine, Op, Options, Range, Store, StoreError, Txn, suite};

fn options() -> Options {
    Options { segment_bytes: 4096, recent_bytes: 0, ..Options::default() }
}

async fn written(options: &Options) -> SimDisk {
    let disk = SimDisk::default();
    let engine = Engine::open(Arc::new(disk.clone()), options.clone()).await.unwrap();
    for i in 0..60 {
        suite::put(&engine, &format!("key{i}"), &"v".repeat(150)).await;
    }
    disk.kill();
    disk.clone()
}

#[test]
fn a_flipped_bit_is_named_or_was_never_safe() {
    base::sim::run(3, async {
        let mut told = 0;
        for round in 0..400 {
            let disk = written(&options()).await;
            let files = disk.files();
            let (name, len) = &files[base::rand::below(files.len() as u64) as usize];
            let last = *name == files.last().unwrap().0;
            let at = base::rand::below(*len as u64) as usize;
            disk.flip_bit(name, at);
            match Engine::open(Arc::new(disk), options()).await {
                Err(StoreError::Corrupt { file, offset, .. }) => {
                    told += 1;
                    assert!(
                        file == *name && offset <= at as u64,
                        "round {round}: {name} {at}, told {file} {offset}"
                    );
                }
                // Only the very last frame has no successor that vouches for it.
                Ok(_) => {
                    assert!(last && at + 300 > *len, "round {round}: {name} at {at} of {len} went unseen")
                }
                Err(err) => panic!("{err}"),
            }
        }
        assert!(told > 300);
    });
}

#[test]
fn a_damaged_value_is_not_given_out() {
    base::sim::run(3, async {
        let disk = SimDisk::default();
        let engine = Engine::open(Arc::new(disk.clone()), options()).await.unwrap();
        suite::put(&engine, "key", "value").await;
        let (name, len) = disk.files().pop().unwrap();
        disk.flip_bit(&name, len - 1);
        let read = engine.range(Range::key("key")).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "{read:?}");
    });
}

#[test]
fn a_failed_sync_ends_the_engine_and_shows_nothing() {
    base::sim::run(3, async {
        let disk = SimDisk::new(Duration::from_millis(1));
        let engine = Engine::open(Arc::new(disk.clone()), options()).await.unwrap();
        let mut watch = engine.watch("".into(), 0).await.unwrap();
        let before = engine.revision().await.unwrap();
        disk.fail_next_sync();
        let write = engine.txn(Txn::of(vec![Op::put("key", "value")])).await;
        assert!(matches!(write, Err(StoreError::Closed)), "{write:?}");
        assert!(matches!(watch.next().await, Err(StoreError::Closed)));
        assert_eq!(engine.revision().await.unwrap(), before);
        assert!(engine.range(Range::key("key")).await.unwrap().kvs.is_empty());
    });
}

#[test]
fn a_batch_is_synced_once_and_lazy_writes_within_a_second() {
    base::sim::run(3, async {
        let disk = SimDisk::new(Duration::from_millis(1));
        let engine = Engine::open(Arc::new(disk.clone()), Options::default()).await.unwrap();
        let before = disk.syncs();
        let writes = (0..500).map(|i| engine.txn(Txn::of(vec![Op::put(format!("{i}"), "v")])));
        let done = futures_util::future::join_all(writes).await;
        assert!(done.iter().all(Result::is_ok));
        assert!(disk.syncs() - before <= 3, "{} syncs for 500 writes", disk.syncs() - before);
        let before = disk.syncs();
        let lazy = Txn { class: storage::Class::Lazy, ..Txn::of(vec![Op::put("lazy", "v")]) };
        engine.txn(lazy).await.unwrap();
        assert_eq!(disk.syncs(), before);
        base::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(disk.syncs(), before + 1);
        base::time::sleep(Duration::from_secs(3600)).await;
        let idle = disk.syncs();
        assert!(idle <= before + 3, "history was forgotten, once for each write");
        base::time::sleep(Duration::from_secs(86_400)).await;
        assert_eq!(disk.syncs(), idle, "an idle engine writes nothing");
        engine.close().await;
    });
}

#[test]
fn dead_bytes_are_given_back() {
    base::sim::run(3, async {
        let disk = SimDisk::default();
        let options = Options { history: Duration::from_secs(10), ..options() };
        let engine = Engine::open(Arc::new(disk.clone()), options).await.unwrap();
        for round in 0..2000 {
            suite::put(&engine, &format!("key{}", round % 10), &"v".repeat(100)).await;
            base::time::sleep(Duration::from_millis(50)).await;
        }
        base::time::sleep(Duration::from_secs(60)).await;
        let size: usize = disk.files().iter().map(|(_, len)| len).sum();
        // Ten live keys of some 200 bytes; a segment, half a segment of dead bytes and its rewritten form may stand.
        assert!(size < 4096 * 3, "{:?}", disk.files());
        engine.close().await;
    });
}
