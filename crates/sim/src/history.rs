//! All that the store ever showed, in its order: what the checkers look at, and what two runs of a seed must share.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use base::time::{Instant, Timestamp};
use bytes::Bytes;
use storage::{
    BoxFuture, Class, Event, EventKind, KeyValue, Op, Range, RangeReply, Result, Store, StoreError, Txn,
    TxnReply, Watch,
};

use crate::checkers::{self, Checker};

/// What became of a key at a revision.
pub struct Write<'a> {
    /// At which revision.
    pub revision: u64,
    /// Which key.
    pub key: &'a str,
    /// Its value; none when it was deleted.
    pub value: Option<&'a Bytes>,
    /// When this was seen.
    pub at: Timestamp,
}

/// One line of the history: revision, key, and the value's hash (0 for a delete).
pub type Line = (u64, String, u64);

/// What became of a key at a revision, for good.
#[derive(Clone, Debug)]
pub struct Commit {
    /// The value; none when the key was deleted.
    pub value: Option<Bytes>,
    /// The revision from which on it has never been, if a power cut undid it.
    pub undone: Option<u64>,
    /// When this was seen.
    pub at: Instant,
}

/// How the store's life ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Its process is killed.
    Killed,
    /// The machine stops.
    PowerCut,
}

/// What may be gone after a power cut: lazy writes of the last second, and of as long as the disk took meanwhile.
const LAST: Duration = Duration::from_secs(1);
const DISK_CALLS: u32 = 8;

/// The history of one run.
#[derive(Default)]
pub struct History(Mutex<State>);

#[derive(Default)]
struct State {
    lines: Vec<Line>,
    seen: u64,
    commits: BTreeMap<(u64, String), Commit>,
    ended: Option<(End, Instant)>,
    disk_delay_most: Duration,
    live: BTreeMap<String, u64>,
    promised: BTreeMap<Bytes, Promise>,
    under_way: BTreeMap<u64, Vec<Op>>,
    next_txn: u64,
    checkers: Vec<Box<dyn Checker>>,
    broken: Vec<String>,
}

/// What an acknowledged durable write said of a key.
struct Promise {
    revision: u64,
    value: Option<u64>,
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = base::hash::Seeded::default().build_hasher();
    hasher.write(bytes);
    hasher.finish().max(1)
}

impl History {
    /// A history that all checkers look at.
    pub fn new() -> Arc<History> {
        let state = State { checkers: checkers::all(), ..State::default() };
        Arc::new(History(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// What the checkers found, with when.
    pub fn broken(&self) -> Vec<String> {
        self.lock().broken.clone()
    }

    /// A checker outside of the store's history found something.
    pub fn accuse(&self, what: String) {
        self.lock().accuse(what);
    }

    /// All lines so far.
    pub fn lines(&self) -> Vec<Line> {
        self.lock().lines.clone()
    }

    /// All changes that were ever visible, by revision and key.
    pub fn commits(&self) -> BTreeMap<(u64, String), Commit> {
        self.lock().commits.clone()
    }

    /// The store's life ends.
    pub fn ends(&self, end: End) {
        self.lock().ended = Some((end, base::time::instant()));
    }

    /// Calls of the store's disk may take that long.
    pub fn disk_takes(&self, delay_most: Duration) {
        let mut state = self.lock();
        state.disk_delay_most = state.disk_delay_most.max(delay_most);
    }

    /// The store was opened: what was promised must be there. Gives the revision to watch from.
    ///
    /// # Errors
    /// The store's.
    pub async fn begin(&self, store: &dyn Store) -> Result<u64> {
        let all = store.range(Range::prefix(Bytes::new())).await?;
        self.catch_up(store, all.revision).await?;
        let mut state = self.lock();
        state.check_promises(&all.kvs);
        let now: BTreeMap<String, &KeyValue> = all.kvs.iter().map(|kv| (text(&kv.key), kv)).collect();
        // What nobody was told of may have gone with the crash, or have come just before it.
        let gone: Vec<String> = state.live.keys().filter(|key| !now.contains_key(*key)).cloned().collect();
        for key in gone {
            state.write(all.revision, key, None);
        }
        for (key, kv) in now {
            if state.live.get(&key) != Some(&kv.mod_revision) {
                state.write(kv.mod_revision, key, Some(&kv.value));
            }
        }
        state.seen = all.revision;
        Ok(all.revision + 1)
    }

    /// Takes in what became visible, or was undone, while nobody followed.
    async fn catch_up(&self, store: &dyn Store, revision: u64) -> Result<()> {
        let mut from = self.lock().seen + 1;
        if from == 1 || revision < from {
            return Ok(());
        }
        // Whoever saw what is undone is refused: back to the place that is not.
        let mut watch = loop {
            match store.watch(Bytes::new(), from).await {
                Err(StoreError::Compacted { .. }) if from > 2 => from -= 1,
                watch => break watch?,
            }
        };
        let mut there = BTreeSet::new();
        loop {
            let batch = watch.next().await?;
            let mut state = self.lock();
            for event in &batch.events {
                state.commit_event(event);
                there.insert((event.kv.mod_revision, text(&event.kv.key)));
            }
            if batch.revision >= revision {
                state.undo(from, revision, &there);
                return Ok(());
            }
        }
    }

    /// Follows a server's store until dropped.
    pub async fn follow(self: Arc<Self>, mut watch: Watch) {
        while let Ok(batch) = watch.next().await {
            let mut state = self.lock();
            for event in batch.events {
                state.commit_event(&event);
                let Event { kind, kv, .. } = event;
                if kv.mod_revision > state.seen {
                    let value = (kind == EventKind::Put).then_some(&kv.value);
                    state.write(kv.mod_revision, text(&kv.key), value);
                }
            }
            state.seen = state.seen.max(batch.revision);
        }
    }
}

/// Whether a key is of those whose writes may be lost with the last second.
fn is_lazy(key: &str) -> bool {
    ["/registry/events/", "/registry/leases/kube-node-lease/"].iter().any(|prefix| key.starts_with(prefix))
}

fn text(key: &[u8]) -> String {
    String::from_utf8_lossy(key).into_owned()
}

impl State {
    fn accuse(&mut self, what: String) {
        self.broken.push(format!("{}: {what}", base::time::now()));
    }

    fn write(&mut self, revision: u64, key: String, value: Option<&Bytes>) {
        self.lines.push((revision, key.clone(), value.map_or(0, |v| hash(v))));
        match value {
            Some(_) => self.live.insert(key.clone(), revision),
            None => self.live.remove(&key),
        };
        let write = Write { revision, key: &key, value, at: base::time::now() };
        let mut found = Vec::new();
        for checker in &mut self.checkers {
            let name = checker.name();
            found.extend(checker.wrote(&write).into_iter().map(|what| format!("{name}: {what}")));
        }
        found.into_iter().for_each(|what| self.accuse(what));
    }

    fn commit_event(&mut self, event: &Event) {
        let value = (event.kind == EventKind::Put).then(|| event.kv.value.clone());
        self.commit(event.kv.mod_revision, &event.kv.key, value);
    }

    fn commit(&mut self, revision: u64, key: &[u8], value: Option<Bytes>) {
        let commit = Commit { value, undone: None, at: base::time::instant() };
        self.commits.entry((revision, text(key))).or_insert(commit);
    }

    /// Of what was visible from revision `from` on, only this is there; `revision` is that of the store as it is now.
    fn undo(&mut self, from: u64, revision: u64, there: &BTreeSet<(u64, String)>) {
        let ended = self.ended;
        let since = LAST + self.disk_delay_most * DISK_CALLS;
        let mut found = Vec::new();
        let since_then = self.commits.range_mut((from, String::new())..);
        for ((at, key), commit) in since_then.filter(|(at, _)| !there.contains(at)) {
            commit.undone = Some(revision);
            let may_go = ended.is_some_and(|(end, ended)| {
                end == End::PowerCut && ended.saturating_duration_since(commit.at) <= since
            });
            if !may_go || !is_lazy(key) {
                found.push(format!("undone: {key} of revision {at} after {ended:?}"));
            }
        }
        found.into_iter().for_each(|what| self.accuse(what));
    }

    fn check_promises(&mut self, now: &[KeyValue]) {
        let now: BTreeMap<&Bytes, &KeyValue> = now.iter().map(|kv| (&kv.key, kv)).collect();
        let mut found = Vec::new();
        let unsettled: Vec<&Op> = self.under_way.values().flatten().collect();
        for (key, promise) in &self.promised {
            let kept = match now.get(key) {
                Some(kv) if kv.mod_revision == promise.revision => promise.value == Some(hash(&kv.value)),
                Some(kv) => kv.mod_revision > promise.revision,
                None => {
                    promise.value.is_none()
                        || unsettled.iter().any(|op| matches!(op, Op::Delete { key: k } if k == key))
                }
            };
            if !kept {
                found.push(format!("lost: {} as acknowledged at revision {}", text(key), promise.revision));
            }
        }
        self.promised.retain(|key, _| now.contains_key(key));
        self.under_way.clear();
        found.into_iter().for_each(|what| self.accuse(what));
    }

    fn acknowledged(&mut self, id: u64, class: Class, reply: &TxnReply) {
        let ops = self.under_way.remove(&id).unwrap_or_default();
        let TxnReply::Done { revision, .. } = reply else { return };
        for op in ops {
            if let Op::Put { key, value, .. } = &op {
                // Its reader may be quicker than we who follow.
                self.commit(*revision, key, Some(value.clone()));
            }
            let (key, value) = match op {
                // What expires, and what may be lost with the last second, promises nothing.
                Op::Put { key, value, ttl: None } if class == Class::Durable => (key, Some(hash(&value))),
                Op::Delete { key } if class == Class::Durable => (key, None),
                op => {
                    self.promised.remove(op.key());
                    continue;
                }
            };
            let newer = self.promised.get(&key).is_some_and(|p| p.revision > *revision);
            if !newer {
                self.promised.insert(key, Promise { revision: *revision, value });
            }
        }
    }
}

/// A store that notes what it acknowledges.
pub struct Witness {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Where it is noted.
    pub history: Arc<History>,
}

impl Store for Witness {
    fn is_shared(&self) -> bool {
        self.store.is_shared()
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply>> {
        Box::pin(async move {
            let class = txn.class;
            let id = {
                let mut state = self.history.lock();
                state.next_txn += 1;
                let id = state.next_txn;
                state.under_way.insert(id, txn.then.clone());
                id
            };
            let reply = self.store.txn(txn).await?;
            self.history.lock().acknowledged(id, class, &reply);
            Ok(reply)
        })
    }
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply>> {
        self.store.range(range)
    }
    fn watch(&self, prefix: Bytes, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        self.store.watch(prefix, from_revision)
    }
    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        self.store.revision()
    }
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<()>> {
        self.store.compact(revision)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use storage::sim::SimDisk;
    use storage::{Engine, Options};

    async fn engine(disk: &SimDisk) -> Arc<dyn Store> {
        Arc::new(Engine::open(Arc::new(disk.clone()), Options::default()).await.expect("it opens"))
    }

    #[test]
    fn a_store_that_forgets_is_accused() {
        base::sim::run(1, async {
            let (history, kept, empty) = (History::new(), SimDisk::default(), SimDisk::default());
            let store = engine(&kept).await;
            history.begin(&*store).await.expect("it reads");
            let witness = Witness { store, history: history.clone() };
            let done = witness.txn(Txn::of(vec![Op::put("/registry/configmaps/a/b", "{}")])).await;
            assert!(matches!(done, Ok(TxnReply::Done { .. })));
            kept.power_cut();
            history.begin(&*engine(&kept).await).await.expect("it reads");
            assert_eq!(history.broken(), Vec::<String>::new());
            history.begin(&*engine(&empty).await).await.expect("it reads");
            let broken = history.broken();
            assert!(broken.len() == 1 && broken[0].contains("lost: /registry/configmaps/a/b"), "{broken:?}");
        });
    }
}
