//! Random schedules with kills and power cuts in virtual time: nothing acknowledged is lost, what is recovered is a
//! prefix of what happened, no revision is used twice, whoever saw a lost revision is told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base::task::Task;
use base::time::{Instant, instant, sleep};
use storage::sim::SimDisk;
use storage::{Bytes, Class, Engine, EventKind, Op, Options, Range, Store, StoreError, Txn, TxnReply};

/// Keys and values of one revision; `None` is a delete.
type Changes = BTreeMap<Bytes, Option<Bytes>>;

/// What the outside world knows of the store.
#[derive(Default)]
struct World {
    /// All revisions known to exist.
    log: BTreeMap<u64, Changes>,
    /// Of the lazy ones that were acknowledged or seen, when.
    lazy: BTreeMap<u64, Instant>,
    /// Lost with good reason; must never come again.
    lost: BTreeSet<u64>,
    /// Values that were ever asked to be written.
    tried: BTreeSet<Bytes>,
    /// Up to where the watcher has seen.
    seen: u64,
    serial: u64,
}

impl World {
    fn learn(&mut self, revision: u64, changes: Changes) {
        assert!(!self.lost.contains(&revision), "revision {revision} was lost and came again");
        for value in changes.values().flatten() {
            assert!(self.tried.contains(value), "nobody wrote this value");
        }
        let known = self.log.entry(revision).or_insert_with(|| changes.clone());
        assert_eq!(*known, changes, "revision {revision} has two contents");
    }

    fn state_at(&self, revision: u64) -> BTreeMap<Bytes, Bytes> {
        let mut state = BTreeMap::new();
        for (key, value) in self.log.range(..=revision).flat_map(|(_, changes)| changes) {
            match value {
                Some(value) => state.insert(key.clone(), value.clone()),
                None => state.remove(key),
            };
        }
        state
    }
}

type Shared = Arc<Mutex<World>>;

fn random_txn(world: &Shared) -> (Txn, Changes) {
    let mut world = world.lock().unwrap();
    let mut then = Vec::new();
    let mut changes = Changes::new();
    for _ in 0..1 + base::rand::below(6) / 4 * 2 {
        let key = Bytes::from(format!("k{}", base::rand::below(10)));
        if changes.contains_key(&key) {
            continue;
        }
        world.serial += 1;
        let long = if base::rand::below(4) == 0 { 1500 } else { 20 };
        let value =
            Bytes::from(format!("{:>width$}", world.serial, width = 1 + base::rand::below(long) as usize));
        let ttl = (base::rand::below(8) == 0).then(|| Duration::from_millis(base::rand::below(2000)));
        world.tried.insert(value.clone());
        changes.insert(key.clone(), Some(value.clone()));
        then.push(Op::Put { key, value, ttl });
    }
    let class = if base::rand::below(3) == 0 { Class::Lazy } else { Class::Durable };
    (Txn { then, class, ..Txn::default() }, changes)
}

async fn client(engine: Arc<Engine>, world: Shared) {
    loop {
        sleep(Duration::from_millis(base::rand::below(30))).await;
        if base::rand::below(5) == 0 {
            let key = Bytes::from(format!("k{}", base::rand::below(10)));
            let txn = Txn { want_prev: true, ..Txn::of(vec![Op::delete(key.clone())]) };
            if let TxnReply::Done { revision, prev } = engine.txn(txn).await.unwrap()
                && prev[0].is_some()
            {
                world.lock().unwrap().learn(revision, [(key, None)].into());
            }
            continue;
        }
        let (txn, changes) = random_txn(&world);
        let lazy = txn.class == Class::Lazy;
        if let TxnReply::Done { revision, .. } = engine.txn(txn).await.unwrap() {
            let mut world = world.lock().unwrap();
            world.learn(revision, changes);
            if lazy {
                world.lazy.insert(revision, instant());
            }
        }
        if base::rand::below(40) == 0 {
            let seen = world.lock().unwrap().seen;
            match engine.compact(seen.saturating_sub(base::rand::below(20))).await {
                Ok(()) | Err(StoreError::Compacted { .. }) => {}
                Err(err) => panic!("{err}"),
            }
        }
    }
}

async fn watcher(engine: Arc<Engine>, world: Shared) {
    let from = world.lock().unwrap().seen + 1;
    let mut watch = engine.watch(Bytes::new(), from).await.unwrap();
    loop {
        let batch = watch.next().await.unwrap();
        let mut revisions: BTreeMap<u64, Changes> = BTreeMap::new();
        for event in batch.events {
            let value = (event.kind == EventKind::Put).then_some(event.kv.value);
            revisions.entry(event.kv.mod_revision).or_default().insert(event.kv.key, value);
        }
        let mut world = world.lock().unwrap();
        for (revision, changes) in revisions {
            if changes.values().all(Option::is_none) {
                // It may be an expiry, which is lazy.
                world.lazy.entry(revision).or_insert_with(instant);
            }
            world.learn(revision, changes);
        }
        world.seen = batch.revision;
    }
}

/// Compares what was recovered with what the world knows; `power` tells whether the power was cut.
async fn verify(engine: &Engine, world: &Shared, power: bool, since: u64, compacted: u64) {
    let opened = engine.revision().await.unwrap();
    let mut now = opened;
    let mut found = BTreeMap::<u64, Changes>::new();
    let mut watch = engine.watch(Bytes::new(), since.max(compacted) + 1).await.unwrap();
    let mut at = since.max(compacted);
    while at < now {
        let batch = watch.next().await.unwrap();
        at = batch.revision;
        for event in batch.events {
            let value = (event.kind == EventKind::Put).then_some(event.kv.value);
            found.entry(event.kv.mod_revision).or_default().insert(event.kv.key, value);
        }
    }
    // What expired meanwhile may have come along.
    now = now.max(at);
    let mut w = world.lock().unwrap();
    let last = found.keys().next_back().copied().unwrap_or(since.max(compacted));
    let missing: Vec<u64> =
        w.log.range(since.max(compacted) + 1..).map(|(r, _)| *r).filter(|r| !found.contains_key(r)).collect();
    for revision in missing {
        assert!(power, "revision {revision} was lost without a power cut");
        assert!(revision > last, "revision {revision} was lost, {last} was not");
        let acked = w.lazy.get(&revision).unwrap_or_else(|| panic!("durable revision {revision} was lost"));
        assert!(
            acked.elapsed() <= Duration::from_secs(1),
            "a lazy write was lost after {:?}",
            acked.elapsed()
        );
        w.log.remove(&revision);
        w.lost.insert(revision);
    }
    for (revision, changes) in found {
        w.learn(revision, changes);
    }
    assert!(
        w.lost.last().is_none_or(|lost| *lost < now) && w.log.last_key_value().is_none_or(|(r, _)| *r <= now)
    );
    let seen_lost = w.lost.contains(&w.seen);
    let resume = engine.watch(Bytes::new(), w.seen + 1);
    drop(w);
    let resume = resume.await;
    let mut w = world.lock().unwrap();
    assert!(
        if seen_lost { matches!(resume, Err(StoreError::Compacted { .. })) } else { resume.is_ok() },
        "seen {} lost {seen_lost} {resume:?}",
        w.seen
    );
    w.seen = now;
    w.lazy = w.log.range(opened + 1..).map(|(revision, _)| (*revision, instant())).collect();
    let states: Vec<_> =
        [now, compacted.max(1), (compacted + base::rand::below(now - compacted) + 1).min(now)]
            .into_iter()
            .map(|revision| (revision, w.state_at(revision)))
            .collect();
    drop(w);
    for (revision, expected) in states {
        match engine.range(Range::prefix("").at(revision)).await {
            Ok(reply) => {
                let got: BTreeMap<_, _> = reply.kvs.into_iter().map(|kv| (kv.key, kv.value)).collect();
                assert_eq!(got, expected, "state at revision {revision}");
            }
            // A revision that was lost or passed over by a reservation, or forgotten meanwhile.
            Err(err @ StoreError::Compacted { .. }) => {
                let gap = !world.lock().unwrap().log.contains_key(&revision) && revision < now;
                assert!(gap || self::compacted(engine).await > revision, "{err}");
            }
            Err(err) => panic!("{err}"),
        }
    }
}

/// Below which revision history is gone: the engine tells when it is asked for too old a watch.
async fn compacted(engine: &Engine) -> u64 {
    match engine.watch(Bytes::new(), 1).await {
        Ok(_) => 0,
        Err(StoreError::Compacted { compacted, .. }) => compacted,
        Err(err) => panic!("{err}"),
    }
}

async fn open(disk: &SimDisk, options: &Options) -> (Engine, bool) {
    let mut power = false;
    loop {
        // Sometimes the power fails again in the middle of the recovery.
        let patience = if base::rand::below(3) == 0 { base::rand::below(40) } else { 1 << 20 };
        let opening = Engine::open(Arc::new(disk.clone()), options.clone());
        match base::time::timeout(Duration::from_millis(patience), opening).await {
            Ok(engine) => return (engine.unwrap(), power),
            Err(_) => {
                disk.power_cut();
                power = true;
            }
        }
    }
}

async fn lives(seed: u64) -> (u64, u64) {
    let disk = SimDisk::new(Duration::from_micros(base::rand::below(6000)));
    let options = Options {
        segment_bytes: 2048 << base::rand::below(4),
        recent_bytes: 4096,
        reserve: 1 + base::rand::below(60),
        history: Duration::from_millis(300 + base::rand::below(5000)),
        ..Options::default()
    };
    let world = Shared::default();
    let mut power = false;
    let mut since = 0;
    for _ in 0..4 {
        let (engine, again) = open(&disk, &options).await;
        // Expiries go on at once; what they delete is learned from the watch inside, and may be lost again.
        let opened = engine.revision().await.unwrap();
        let old = compacted(&engine).await;
        verify(&engine, &world, power || again, since, old).await;
        since = opened;
        let engine = Arc::new(engine);
        let mut tasks: Vec<Task<()>> =
            (0..3).map(|_| base::task::spawn(client(engine.clone(), world.clone()))).collect();
        tasks.push(base::task::spawn(watcher(engine.clone(), world.clone())));
        sleep(Duration::from_millis(base::rand::below(400))).await;
        power = false;
        match base::rand::below(5) {
            0 => {
                drop(tasks);
                base::task::yield_now().await;
                engine.close().await;
            }
            1 => disk.kill(),
            _ => {
                disk.power_cut();
                power = true;
            }
        }
    }
    let w = world.lock().unwrap();
    assert!(seed != 0 || w.log.len() > 20, "something must have happened");
    (w.log.len() as u64, w.lost.len() as u64)
}

/// Runs one seed; gives how many revisions there were, and how many of them a power cut took.
fn life(seed: u64) -> (u64, u64) {
    let whole = async {
        let hour = Duration::from_secs(3600);
        base::time::timeout(hour, lives(seed)).await.expect("no call waits for ever")
    };
    let run = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| base::sim::run(seed, whole)));
    run.unwrap_or_else(|_| panic!("SEED={seed} SEEDS=1 shows it again"))
}

/// How many seeds go by between two signs of life.
const TELL_EVERY: u64 = 5000;

// A million: SEEDS=1000000 cargo test --release -p storage sudden_ends -- --nocapture
#[test]
fn lives_with_sudden_ends() {
    let seeds = std::env::var("SEEDS").ok().and_then(|s| s.parse().ok()).unwrap_or(300);
    let first = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    let (mut revisions, mut lost) = (0, 0);
    let begin = instant();
    for seed in first..first + seeds {
        let (r, l) = life(seed);
        revisions += r;
        lost += l;
        let done = seed - first + 1;
        if done.is_multiple_of(TELL_EVERY) {
            let left = begin.elapsed().mul_f64((seeds - done) as f64 / done as f64).as_secs();
            eprintln!(
                "{:3} %  {done} of {seeds} seeds, {revisions} revisions, {left} s left",
                done * 100 / seeds
            );
        }
    }
    println!("{revisions} revisions, {lost} lazy ones lost");
    assert!(seeds < 100 || lost > 0, "power cuts that lose nothing test nothing");
}

#[test]
fn a_base_is_safe_before_what_it_stands_for_goes() {
    // Killed after a rewrite was given its name, opened again, and then the power failed.
    life(5079);
}

#[test]
fn the_compaction_point_is_no_further_than_what_is_safe() {
    // A durable value in a sealed segment, a lazy one that replaces it, history forgotten up to the lazy one, the log
    // rewritten without what it replaced; then the power fails before the lazy write's own sync.
    base::sim::run(8380, async {
        let disk = SimDisk::default();
        let options = Options {
            segment_bytes: 2048,
            lazy_sync: Duration::from_secs(3600),
            history: Duration::from_secs(3600),
            ..Options::default()
        };
        let engine = Engine::open(Arc::new(disk.clone()), options.clone()).await.unwrap();
        let first = storage::suite::put(&engine, "key", &"v".repeat(3000)).await;
        let lazy = |value: String| Txn { class: Class::Lazy, ..Txn::of(vec![Op::put("key", value)]) };
        let TxnReply::Done { revision, .. } = engine.txn(lazy("w".repeat(20))).await.unwrap() else {
            panic!("nothing was compared")
        };
        engine.compact(revision).await.unwrap();
        sleep(Duration::from_secs(1)).await;
        assert!(disk.files().iter().any(|(name, _)| name.starts_with("base-")), "{:?}", disk.files());
        disk.power_cut();
        let engine = Engine::open(Arc::new(disk.clone()), options).await.unwrap();
        let kvs = engine.range(Range::key("key")).await.unwrap().kvs;
        assert!(kvs.len() == 1 && kvs[0].mod_revision >= first, "the key was never deleted: {kvs:?}");
        let floor = compacted(&engine).await;
        assert_eq!(floor, revision);
        assert!(
            engine.watch(Bytes::new(), floor + 1).await.is_ok(),
            "whoever has seen it goes on from there"
        );
    });
}

#[test]
fn one_seed_gives_one_history() {
    let run = || base::sim::run(7, lives(7));
    assert_eq!(run(), run());
}
