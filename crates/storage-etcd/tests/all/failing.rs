//! Members that are killed while they are used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use storage::{Op, Store, StoreError, Txn, TxnReply, suite};

use crate::server::{Server, open, program, run};

/// What a writer knows of its counter.
#[derive(Default)]
struct Told {
    acknowledged: Vec<(u64, u64)>,
    uncertain: Vec<u64>,
}

/// Counts up in one key until told to stop.
async fn count(store: Arc<dyn Store>, key: String, stop: Arc<AtomicBool>) -> Told {
    let mut told = Told::default();
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        n += 1;
        match store.txn(Txn::of(vec![Op::put(key.clone(), n.to_string())])).await {
            Ok(TxnReply::Done { revision, .. }) => told.acknowledged.push((n, revision)),
            Err(StoreError::Uncertain { .. }) => told.uncertain.push(n),
            // Certainly not performed.
            Err(StoreError::Io { .. }) => {}
            other => panic!("{other:?}"),
        }
    }
    told
}

#[test]
fn a_watch_and_writers_survive_any_member() {
    let Some(etcd) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let mut servers = Server::three(&etcd, dir.path());
    run(async {
        let store: Arc<dyn Store> = open(&servers).await;
        let first = suite::put(&*store, "/begin", "").await;
        let mut watch = store.watch("/count/".into(), first + 1).await.unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let writers: Vec<_> = (0..4)
            .map(|i| base::task::spawn(count(store.clone(), format!("/count/{i}"), stop.clone())))
            .collect();
        for server in &mut servers {
            let before = store.revision().await.unwrap();
            server.kill();
            // They go on without it.
            let mut progress = store.watch("/".into(), before + 1).await.unwrap();
            suite::watch_until(&mut progress, before + 200).await;
            server.start_again();
            suite::watch_until(&mut progress, before + 400).await;
        }
        stop.store(true, Ordering::Relaxed);
        let mut seen: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        let mut told = Vec::new();
        for writer in writers {
            told.push(writer.await);
        }
        let last = store.revision().await.unwrap();
        for event in suite::watch_until(&mut watch, last).await {
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
            let n = text(&event.kv.value).parse().unwrap();
            seen.entry(text(&event.kv.key)).or_default().push((n, event.kv.mod_revision));
        }
        for (i, told) in told.iter().enumerate() {
            let seen = &seen[&format!("/count/{i}")];
            for write in &told.acknowledged {
                assert!(seen.contains(write), "acknowledged {write:?} of {i} was not seen");
            }
            for (n, revision) in seen {
                let known = told.acknowledged.contains(&(*n, *revision)) || told.uncertain.contains(n);
                assert!(known, "{n} of {i} was reported as not performed");
            }
        }
    });
}

#[test]
fn nobody_there_is_told_with_each_address() {
    run(async {
        let config = storage_etcd::Config {
            endpoints: vec!["127.0.0.1:1".into(), "http://127.0.0.1:2".into()],
            ..Default::default()
        };
        let none = std::time::Duration::ZERO;
        let err = storage_etcd::Etcd::open_within(&config, none, none).await.err().unwrap();
        let source = std::error::Error::source(&err).unwrap().to_string();
        assert!(
            source.contains("127.0.0.1:1/: Connection refused") && source.contains("127.0.0.1:2/"),
            "{source}"
        );
    });
}
