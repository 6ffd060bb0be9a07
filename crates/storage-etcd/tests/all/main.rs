//! etcd as a store, against real servers: the conformance suite, TLS, failing members, compaction by several.

// All of it is test, which Clippy sees only inside the functions that are marked so.
#![allow(clippy::unwrap_used)]

mod failing;
mod server;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use server::{Server, open, program, run};
use storage::{Range, Store, StoreError, suite};
use storage_etcd::{Config, Etcd};

#[test]
fn passes_the_suite() {
    let Some(etcd) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let servers = [Server::start(&etcd, dir.path(), "http", &[])];
    run(async { suite::all(open(&servers).await).await });
}

#[test]
fn several_users_compact_together() {
    let Some(etcd) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let servers = [Server::start(&etcd, dir.path(), "http", &[])];
    run(async {
        let keep = Duration::from_millis(500);
        let config = Config { endpoints: vec![servers[0].clients.clone()], ..Config::default() };
        let open = || Etcd::open_within(&config, server::START_MAX, keep);
        let users = [open().await.unwrap(), open().await.unwrap(), open().await.unwrap()];
        let store: &dyn Store = &*users[0];
        let old = suite::put(store, "/a", "1").await;
        suite::put(store, "/a", "2").await;
        // The clock's ticks are changes: after each, ask whether the old state is gone.
        let mut ticks = store.watch("compact_rev_key".into(), old + 1).await.unwrap();
        let begin = base::time::instant();
        let mut moved = 0;
        let gone = loop {
            let batch = base::time::timeout(server::START_MAX, ticks.next()).await.expect("a tick");
            moved += batch.unwrap().events.len();
            match store.range(Range::key("/a").at(old)).await {
                Ok(reply) => assert_eq!(&reply.kvs[0].value[..], b"1"),
                Err(error) => break error,
            }
        };
        assert!(matches!(gone, StoreError::Compacted { .. }), "{gone}");
        let took = begin.elapsed();
        assert!(took >= keep, "{took:?}: younger than it has to be kept");
        // Alone, each of the three would move the clock in every interval.
        assert!(moved as f64 <= took.as_secs_f64() / keep.as_secs_f64() + 1.0, "{moved} ticks in {took:?}");
        assert_eq!(&suite::get(store, "/a").await.unwrap().value[..], b"2");
    });
}

#[test]
fn leases_are_shared_within_their_window() {
    let Some(etcd) = program() else { return };
    let dir = tempfile::tempdir().unwrap();
    let servers = [Server::start(&etcd, dir.path(), "http", &[])];
    run(async {
        let store = open(&servers).await;
        let put = |i: usize| {
            let op = storage::Op::Put {
                key: format!("/e/{i}").into(),
                value: "v".into(),
                ttl: Some(Duration::from_secs(3600)),
            };
            let store = Arc::clone(&store);
            base::task::spawn(async move { suite::done(&*store, storage::Txn::of(vec![op])).await })
        };
        for put in (0..1001).map(put).collect::<Vec<_>>() {
            put.await;
        }
        assert_eq!(servers[0].metric("etcd_debugging_lease_granted_total"), 2, "a thousand keys to a lease");
    });
}
