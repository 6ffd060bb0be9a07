//! The conformance suite: what every [`Store`] must do, as functions that panic where it does not. Written against
//! etcd's meaning; each works under a prefix of its own and needs no empty store, only that nobody else writes to it.
//!
//! Knows no backend. Time passes through [`base::time`], so that an embedded store runs it in virtual time.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{
    Batch, Class, Event, EventKind, KeyValue, Op, Range, Store, StoreError, Txn, TxnReply, Want, Watch,
};

/// How long a watch may keep silent before the suite gives up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Runs every part.
///
/// # Panics
/// Where the store differs from etcd's meaning.
pub async fn all(store: Arc<dyn Store>) {
    let s = &*store;
    compare(s).await;
    create_and_delete(s).await;
    transactions_are_one_revision(s).await;
    invalid_transactions(s).await;
    ranges(s).await;
    paging_at_one_revision(s).await;
    watch_from_the_past(s).await;
    watch_batches_are_whole(s).await;
    watch_tells_progress(s).await;
    compaction(s).await;
    expiry(s).await;
    concurrent_counters(store).await;
}

/// `txn` must be done; gives its revision.
pub async fn done(store: &dyn Store, txn: Txn) -> u64 {
    match store.txn(txn).await.expect("the transaction is valid") {
        TxnReply::Done { revision, .. } => revision,
        conflict @ TxnReply::Conflict { .. } => panic!("expected no conflict: {conflict:?}"),
    }
}

/// Puts without compares; gives the revision.
pub async fn put(store: &dyn Store, key: &str, value: &str) -> u64 {
    done(store, Txn::of(vec![Op::put(key.to_owned(), value.to_owned())])).await
}

/// The key as it is now.
pub async fn get(store: &dyn Store, key: &str) -> Option<KeyValue> {
    store.range(Range::key(key.to_owned())).await.expect("a read of now").kvs.pop()
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    base::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing came in {PATIENCE:?}"))
}

/// Pulls batches until `revision` is delivered; checks the order.
pub async fn watch_until(watch: &mut Watch, revision: u64) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut at = 0;
    while at < revision {
        let batch: Batch = in_time("watch", watch.next()).await.expect("the watch goes on");
        assert!(batch.revision > at, "batches go forward: {} after {at}", batch.revision);
        for event in &batch.events {
            assert!(
                event.kv.mod_revision > at && event.kv.mod_revision <= batch.revision,
                "an event in its batch"
            );
            let last = events.last().map_or(0, |e| e.kv.mod_revision);
            assert!(event.kv.mod_revision >= last, "events in the order of revisions");
            events.push(event.clone());
        }
        at = batch.revision;
    }
    events
}

fn brief(events: &[Event]) -> Vec<(EventKind, &str, u64)> {
    events
        .iter()
        .map(|e| (e.kind, std::str::from_utf8(&e.kv.key).expect("text"), e.kv.mod_revision))
        .collect()
}

async fn compare(s: &dyn Store) {
    let key = Bytes::from("/suite/compare");
    let write = |revision, value: &'static str| Txn::guarded(revision, Op::put(key.clone(), value));
    let first = done(s, write(0, "a")).await;
    assert_eq!(s.revision().await.expect("a revision"), first);
    for wrong in [0, first - 1, first + 1] {
        match s.txn(write(wrong, "b")).await.expect("valid") {
            TxnReply::Conflict { revision, current } => {
                assert_eq!(revision, first);
                let kv = current[0].as_ref().expect("the key is there");
                assert_eq!((&kv.value[..], kv.mod_revision), (&b"a"[..], first));
            }
            other => panic!("revision {wrong} must not match: {other:?}"),
        }
    }
    let second = done(s, write(first, "b")).await;
    let kv = get(s, "/suite/compare").await.expect("there");
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (first, second, 2));
    // A compare of one key guards a change of another; all compares must hold.
    let other = Op::put("/suite/compare2", "x");
    let both = |b| Txn {
        compare: vec![(key.clone(), second), (Bytes::from("/suite/compare2"), b)],
        then: vec![other.clone()],
        ..Txn::default()
    };
    assert!(matches!(s.txn(both(7)).await.expect("valid"), TxnReply::Conflict { current, .. }
        if current[0].is_some() && current[1].is_none()));
    done(s, both(0)).await;
}

async fn create_and_delete(s: &dyn Store) {
    let key = "/suite/create";
    let before = s.revision().await.expect("a revision");
    let unchanged = done(s, Txn::of(vec![Op::delete(key)])).await;
    assert_eq!(unchanged, before, "a delete of what is absent changes nothing");
    let created = done(s, Txn::guarded(0, Op::put(key, "1"))).await;
    assert_eq!(created, before + 1, "one transaction, one revision");
    let txn = Txn { want_prev: true, ..Txn::guarded(created, Op::delete(key)) };
    match s.txn(txn).await.expect("valid") {
        TxnReply::Done { revision, prev } => {
            assert_eq!(revision, created + 1);
            assert_eq!(&prev[0].as_ref().expect("it was there").value[..], b"1");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(get(s, key).await, None);
    let again = done(s, Txn::guarded(0, Op::put(key, "2"))).await;
    let kv = get(s, key).await.expect("there");
    assert_eq!((kv.create_revision, kv.version), (again, 1), "a new life begins at version 1");
    let old = s.range(Range::key(key).at(created)).await.expect("history");
    assert_eq!(&old.kvs[0].value[..], b"1");
    assert!(s.range(Range::key(key).at(created + 1)).await.expect("history").kvs.is_empty());
}

async fn transactions_are_one_revision(s: &dyn Store) {
    let gone = put(s, "/suite/txn/c", "0").await;
    let then = vec![Op::put("/suite/txn/a", "1"), Op::put("/suite/txn/b", "1"), Op::delete("/suite/txn/c")];
    let revision = done(s, Txn { then, ..Txn::default() }).await;
    assert_eq!(revision, gone + 1);
    let reply = s.range(Range::prefix("/suite/txn/")).await.expect("now");
    assert_eq!(reply.kvs.iter().map(|kv| kv.mod_revision).collect::<Vec<_>>(), [revision, revision]);
    // A lazy write is seen at once, by readers and compares.
    let lazy = Txn { class: Class::Lazy, ..Txn::of(vec![Op::put("/suite/txn/a", "2")]) };
    let lazy = done(s, lazy).await;
    assert_eq!(&get(s, "/suite/txn/a").await.expect("there").value[..], b"2");
    done(s, Txn::guarded(lazy, Op::put("/suite/txn/a", ""))).await;
    assert_eq!(get(s, "/suite/txn/a").await.expect("there").value.len(), 0, "an empty value is a value");
}

async fn invalid_transactions(s: &dyn Store) {
    let before = s.revision().await.expect("a revision");
    let twice = Txn::of(vec![Op::put("/suite/x", "1"), Op::delete("/suite/x")]);
    assert!(matches!(s.txn(twice).await, Err(StoreError::Invalid(_))));
    assert!(matches!(s.txn(Txn::of(vec![Op::put("", "1")])).await, Err(StoreError::Invalid(_))));
    let large = Txn::of(vec![Op::put("/suite/x", vec![0; 8 << 20])]);
    assert!(matches!(s.txn(large).await, Err(StoreError::TooLarge { .. })));
    assert_eq!(s.revision().await.expect("a revision"), before);
}

fn keys(kvs: &[KeyValue]) -> Vec<&str> {
    kvs.iter().map(|kv| std::str::from_utf8(&kv.key).expect("text")).collect()
}

async fn ranges(s: &dyn Store) {
    for key in ["/suite/r/a", "/suite/r/b", "/suite/r/b/1", "/suite/r/c", "/suite/r0"] {
        put(s, key, key).await;
    }
    let now = s.revision().await.expect("a revision");
    let all = s.range(Range::prefix("/suite/r/")).await.expect("now");
    assert_eq!(keys(&all.kvs), ["/suite/r/a", "/suite/r/b", "/suite/r/b/1", "/suite/r/c"]);
    assert_eq!((all.count, all.more, all.revision), (4, false, now));
    assert_eq!(all.kvs[2].value, all.kvs[2].key);
    let two = s.range(Range::prefix("/suite/r/").limit(2)).await.expect("now");
    assert_eq!((keys(&two.kvs), two.count, two.more), (vec!["/suite/r/a", "/suite/r/b"], 4, true));
    let four = s.range(Range::prefix("/suite/r/").limit(4)).await.expect("now");
    assert!(!four.more);
    let names = s.range(Range::prefix("/suite/r/").want(Want::Keys)).await.expect("now");
    assert!(names.kvs.len() == 4 && names.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
    let count = s.range(Range::prefix("/suite/r/").want(Want::Count)).await.expect("now");
    assert_eq!((count.kvs.len(), count.count), (0, 4));
    let mut between = Range::key("/suite/r/b");
    between.end = crate::End::Before("/suite/r/c".into());
    assert_eq!(keys(&s.range(between.clone()).await.expect("now").kvs), ["/suite/r/b", "/suite/r/b/1"]);
    between.end = crate::End::Before("/suite/r/a".into());
    assert!(s.range(between.clone()).await.expect("an empty range is no error").kvs.is_empty());
    between.end = crate::End::Last;
    assert_eq!(s.range(between.limit(1)).await.expect("now").kvs.len(), 1);
    let future = s.range(Range::key("/suite/r/a").at(now + 100)).await;
    assert!(matches!(future, Err(StoreError::FutureRevision { .. })), "{future:?}");
}

async fn paging_at_one_revision(s: &dyn Store) {
    for i in 0..25 {
        put(s, &format!("/suite/p/{i:02}"), "old").await;
    }
    let range = Range::prefix("/suite/p/").limit(10);
    let first = s.range(range.clone()).await.expect("now");
    // What happens between pages does not show on the later ones.
    done(
        s,
        Txn::of(vec![
            Op::delete("/suite/p/12"),
            Op::put("/suite/p/13", "new"),
            Op::put("/suite/p/20x", "new"),
        ]),
    )
    .await;
    let (mut all, mut page) = (first.kvs.clone(), first.clone());
    let mut pages = 1;
    while page.more {
        let next = range.clone().after(&page.kvs.last().expect("a page has keys").key).at(first.revision);
        page = s.range(next).await.expect("the revision is kept");
        assert_eq!(page.count as usize, 25 - all.len());
        all.extend(page.kvs.clone());
        pages += 1;
    }
    assert_eq!((pages, all.len()), (3, 25));
    assert!(all.iter().all(|kv| &kv.value[..] == b"old"));
}

async fn watch_from_the_past(s: &dyn Store) {
    let a = put(s, "/suite/w/a", "1").await;
    put(s, "/suite/other", "1").await;
    let b = put(s, "/suite/w/a", "2").await;
    let c = done(s, Txn::of(vec![Op::delete("/suite/w/a")])).await;
    let mut past = s.watch("/suite/w/".into(), a).await.expect("kept");
    let mut late = s.watch("/suite/w/".into(), b).await.expect("kept");
    let mut now = s.watch("/suite/w/".into(), 0).await.expect("now");
    let d = put(s, "/suite/w/b", "3").await;
    let key = "/suite/w/a";
    use EventKind::{Delete, Put};
    let events = watch_until(&mut past, d).await;
    assert_eq!(brief(&events), [(Put, key, a), (Put, key, b), (Delete, key, c), (Put, "/suite/w/b", d)]);
    assert_eq!(
        (&events[1].kv.value[..], events[1].kv.version, events[1].kv.create_revision),
        (&b"2"[..], 2, a)
    );
    let prev = events[2].prev.as_ref().expect("a delete carries what was there");
    assert_eq!((&prev.value[..], prev.mod_revision), (&b"2"[..], b));
    assert!(events[2].kv.value.is_empty());
    assert_eq!(brief(&watch_until(&mut late, d).await), brief(&events[1..]));
    assert_eq!(brief(&watch_until(&mut now, d).await), brief(&events[3..]));
    let mut future = s.watch("/suite/w/".into(), d + 2).await.expect("the future is waited for");
    put(s, "/suite/w/b", "4").await;
    let e = put(s, "/suite/w/b", "5").await;
    assert_eq!(brief(&watch_until(&mut future, e).await), [(Put, "/suite/w/b", e)]);
}

async fn watch_batches_are_whole(s: &dyn Store) {
    let first = s.revision().await.expect("a revision") + 1;
    let mut watch = s.watch("/suite/b/".into(), first).await.expect("now");
    for round in 0..40 {
        let then = (0..50).map(|i| Op::put(format!("/suite/b/{i}"), format!("{round}"))).collect();
        done(s, Txn::of(then)).await;
    }
    let last = s.revision().await.expect("a revision");
    let mut seen = 0;
    while seen < 40 * 50 {
        let batch = in_time("watch", watch.next()).await.expect("the watch goes on");
        assert_eq!(batch.events.len() % 50, 0, "a batch never splits a revision");
        seen += batch.events.len();
        assert!(batch.revision <= last);
    }
    assert_eq!(last - first, 39);
}

async fn watch_tells_progress(s: &dyn Store) {
    let mut watch = s.watch("/suite/quiet/".into(), 0).await.expect("now");
    let revision = put(s, "/suite/loud", "1").await;
    assert!(watch_until(&mut watch, revision).await.is_empty(), "progress without events");
}

async fn compaction(s: &dyn Store) {
    let a = put(s, "/suite/c/a", "1").await;
    let b = put(s, "/suite/c/a", "2").await;
    let c = put(s, "/suite/c/b", "1").await;
    let d = done(s, Txn::of(vec![Op::delete("/suite/c/b")])).await;
    let mut slow = s.watch("/suite/c/".into(), a).await.expect("kept");
    let late = s.compact(d + 1).await;
    assert!(matches!(late, Err(StoreError::FutureRevision { .. })), "{late:?}");
    s.compact(c).await.expect("kept until now");
    for revision in [a, b] {
        let read = s.range(Range::prefix("/suite/c/").at(revision)).await;
        assert!(matches!(read, Err(StoreError::Compacted { .. })), "{read:?}");
    }
    let kept =
        s.range(Range::prefix("/suite/c/").at(c)).await.expect("the compaction point itself can be read");
    assert_eq!(keys(&kept.kvs), ["/suite/c/a", "/suite/c/b"]);
    assert_eq!(&kept.kvs[0].value[..], b"2");
    let again = s.compact(c).await;
    assert!(matches!(again, Err(StoreError::Compacted { .. })), "{again:?}");
    let watch = match s.watch("/suite/c/".into(), a).await {
        Ok(mut watch) => in_time("watch", watch.next()).await.map(|_| ()),
        Err(err) => Err(err),
    };
    assert!(matches!(watch, Err(StoreError::Compacted { .. })), "{watch:?}");
    // A watcher that was there already either had its events on the way or is told that they are gone.
    if let Err(err) = in_time("watch", slow.next()).await {
        assert!(matches!(err, StoreError::Compacted { .. }), "{err}");
    }
    let mut after = s.watch("/suite/c/".into(), c + 1).await.expect("kept");
    let events = watch_until(&mut after, d).await;
    assert_eq!(brief(&events), [(EventKind::Delete, "/suite/c/b", d)]);
    assert_eq!(events[0].prev.as_ref().map(|kv| kv.mod_revision), Some(c), "what was deleted is still known");
    s.compact(d).await.expect("kept until now");
    assert_eq!(keys(&s.range(Range::prefix("/suite/c/")).await.expect("now").kvs), ["/suite/c/a"]);
}

async fn expiry(s: &dyn Store) {
    let put = |key: &'static str, ttl: Option<u64>| Op::Put {
        key: key.into(),
        value: "v".into(),
        ttl: ttl.map(Duration::from_secs),
    };
    let first =
        done(s, Txn::of(vec![put("/suite/e/short", Some(2)), put("/suite/e/long", Some(3600))])).await;
    done(s, Txn::of(vec![put("/suite/e/kept", Some(2))])).await;
    done(s, Txn::of(vec![put("/suite/e/renewed", Some(2))])).await;
    done(s, Txn::of(vec![put("/suite/e/kept", None)])).await;
    done(s, Txn::of(vec![put("/suite/e/renewed", Some(3600))])).await;
    let start = base::time::instant();
    assert!(get(s, "/suite/e/short").await.expect("not yet").expires);
    assert!(!get(s, "/suite/e/kept").await.expect("there").expires, "a put without TTL makes it stay");
    let mut watch = s.watch("/suite/e/".into(), first + 5).await.expect("now");
    let event = loop {
        let batch = in_time("expiry", watch.next()).await.expect("the watch goes on");
        if let Some(event) = batch.events.into_iter().next() {
            break event;
        }
    };
    let waited = start.elapsed();
    assert_eq!((event.kind, &event.kv.key[..]), (EventKind::Delete, &b"/suite/e/short"[..]));
    assert_eq!(event.prev.map(|kv| kv.mod_revision), Some(first));
    assert!(waited >= Duration::from_millis(1900) && waited < Duration::from_secs(10), "{waited:?}");
    base::time::sleep(Duration::from_secs(3)).await;
    let left = s.range(Range::prefix("/suite/e/")).await.expect("now");
    assert_eq!(keys(&left.kvs), ["/suite/e/kept", "/suite/e/long", "/suite/e/renewed"]);
}

async fn concurrent_counters(store: Arc<dyn Store>) {
    const TASKS: u64 = 8;
    const ROUNDS: u64 = 20;
    let key = "/suite/counter";
    put(&*store, key, "0").await;
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            let s = store.clone();
            base::task::spawn(async move {
                for _ in 0..ROUNDS {
                    let mut kv = get(&*s, key).await.expect("there");
                    loop {
                        let n: u64 = std::str::from_utf8(&kv.value).expect("text").parse().expect("a number");
                        let next = Txn::guarded(kv.mod_revision, Op::put(key, (n + 1).to_string()));
                        match s.txn(next).await.expect("valid") {
                            TxnReply::Done { .. } => break,
                            TxnReply::Conflict { mut current, .. } => kv = current.remove(0).expect("there"),
                        }
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    let end = get(&*store, key).await.expect("there");
    assert_eq!((&end.value[..], end.version), ((TASKS * ROUNDS).to_string().as_bytes(), TASKS * ROUNDS + 1));
}
