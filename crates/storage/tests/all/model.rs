//! One caller, random calls: every answer equals that of a naive model that keeps every state there ever was.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::rand::below;
use storage::sim::SimDisk;
use storage::{
    Bytes, Class, End, Engine, EventKind, KeyValue, Op, Options, Range, RangeReply, Store, StoreError, Txn,
    TxnReply, Want,
};

type State = BTreeMap<Bytes, KeyValue>;

struct Model {
    states: Vec<State>,
    compacted: u64,
}

impl Model {
    fn now(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn txn(&mut self, txn: &Txn) -> TxnReply {
        let state = &self.states[self.now() as usize];
        if txn.compare.iter().any(|(k, r)| state.get(k).map_or(0, |kv| kv.mod_revision) != *r) {
            let current = txn.compare.iter().map(|(k, _)| state.get(k).cloned()).collect();
            return TxnReply::Conflict { revision: self.now(), current };
        }
        let prev = match txn.want_prev {
            true => txn.then.iter().map(|op| state.get(op.key()).cloned()).collect(),
            false => vec![],
        };
        let mut next = state.clone();
        let revision = self.now() + 1;
        let mut changed = false;
        for op in &txn.then {
            match op {
                Op::Put { key, value, .. } => {
                    let old = state.get(key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: old.map_or(revision, |o| o.create_revision),
                        mod_revision: revision,
                        version: old.map_or(1, |o| o.version + 1),
                        expires: false,
                    };
                    next.insert(key.clone(), kv);
                    changed = true;
                }
                Op::Delete { key } => changed |= next.remove(key).is_some(),
            }
        }
        if changed {
            self.states.push(next);
        }
        TxnReply::Done { revision: self.now(), prev }
    }

    fn range(&self, r: &Range) -> Result<RangeReply, &'static str> {
        let at = match r.revision {
            0 => self.now(),
            at if at > self.now() => return Err("future"),
            at if at < self.compacted => return Err("compacted"),
            at => at,
        };
        let inside = |key: &Bytes| match &r.end {
            End::Key => *key == r.start,
            End::Before(end) => *key >= r.start && key < end,
            End::Last => *key >= r.start,
        };
        let all: Vec<_> = self.states[at as usize].values().filter(|kv| inside(&kv.key)).cloned().collect();
        let count = all.len() as u64;
        let limit = if r.limit == 0 { usize::MAX } else { r.limit };
        let more = r.want != Want::Count && all.len() > limit;
        let kvs = match r.want {
            Want::Count => vec![],
            Want::Values => all.into_iter().take(limit).collect(),
            Want::Keys => {
                all.into_iter().take(limit).map(|kv| KeyValue { value: Bytes::new(), ..kv }).collect()
            }
        };
        Ok(RangeReply { kvs, revision: self.now(), more, count })
    }

    /// What a watch of `prefix` from `from` on has to tell up to now: put values, deletes with what was there.
    fn events(&self, prefix: &[u8], from: u64) -> Vec<(u64, EventKind, KeyValue)> {
        let mut out = Vec::new();
        for revision in from..=self.now() {
            let (old, new) = (&self.states[revision as usize - 1], &self.states[revision as usize]);
            let put = new.values().filter(|kv| kv.mod_revision == revision).map(|kv| (EventKind::Put, kv));
            let gone = old.values().filter(|kv| !new.contains_key(&kv.key)).map(|kv| (EventKind::Delete, kv));
            let mut events: Vec<_> = put
                .chain(gone)
                .filter(|(_, kv)| kv.key.starts_with(prefix))
                .map(|(k, kv)| (revision, k, kv.clone()))
                .collect();
            events.sort_by(|a, b| a.2.key.cmp(&b.2.key));
            out.extend(events);
        }
        out
    }
}

fn key() -> Bytes {
    let names: &[&str] = &["a", "a/b", "a/c", "b", "b/\u{ff}", "c", "a\u{0}", "d/e/f"];
    Bytes::from_static(names[below(names.len() as u64) as usize].as_bytes())
}

fn txn(model: &Model) -> Txn {
    let now = &model.states[model.now() as usize];
    let mut then: Vec<Op> = Vec::new();
    for _ in 0..below(4) {
        let key = key();
        if then.iter().all(|op| *op.key() != key) {
            let value = vec![b'v'; below(300) as usize];
            then.push(if below(3) == 0 { Op::delete(key) } else { Op::put(key, value) });
        }
    }
    let compare = (0..below(3))
        .map(|_| {
            let key = key();
            let there = now.get(&key).map_or(0, |kv| kv.mod_revision);
            (key, if below(4) == 0 { below(model.now() + 2) } else { there })
        })
        .collect();
    let class = if below(2) == 0 { Class::Lazy } else { Class::Durable };
    Txn { compare, then, class, want_prev: below(2) == 0 }
}

fn range(model: &Model) -> Range {
    let end = match below(4) {
        0 => End::Key,
        1 => End::Last,
        2 => return Range::prefix(key()).limit(below(4) as usize),
        _ => End::Before(key()),
    };
    let revision = if below(2) == 0 { 0 } else { 1 + below(model.now() + 3) };
    let want = [Want::Values, Want::Keys, Want::Count][below(3) as usize];
    Range { start: key(), end, revision, limit: below(4) as usize, want }
}

async fn check_watch(engine: &Engine, model: &Model) {
    let from = 1 + below(model.now() + 1);
    let prefix = if below(2) == 0 { Bytes::new() } else { key() };
    let watch = engine.watch(prefix.clone(), from).await;
    if from <= model.compacted {
        assert!(matches!(watch, Err(StoreError::Compacted { .. })));
        return;
    }
    let mut watch = watch.unwrap();
    let (mut got, mut at) = (Vec::new(), from - 1);
    while at < model.now() {
        let batch = watch.next().await.unwrap();
        at = batch.revision;
        got.extend(batch.events.into_iter().map(|e| match e.kind {
            EventKind::Put => (e.kv.mod_revision, e.kind, e.kv),
            EventKind::Delete => (e.kv.mod_revision, e.kind, e.prev.unwrap()),
        }));
    }
    got.sort_by(|a, b| (a.0, &a.2.key).cmp(&(b.0, &b.2.key)));
    assert_eq!(got, model.events(&prefix, from));
}

async fn story() {
    let disk = SimDisk::default();
    let options = Options { segment_bytes: 3000, recent_bytes: 500, reserve: 20, ..Options::default() };
    let open = || Engine::open(Arc::new(disk.clone()), options.clone());
    let mut engine = open().await.unwrap();
    let mut model = Model { states: vec![State::new(), State::new()], compacted: 0 };
    for _ in 0..150 {
        match below(20) {
            0..=9 => {
                let txn = txn(&model);
                let expected = model.txn(&txn);
                assert_eq!(engine.txn(txn.clone()).await.unwrap(), expected, "{txn:?}");
            }
            10..=15 => {
                let range = range(&model);
                match (engine.range(range.clone()).await, model.range(&range)) {
                    (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{range:?}"),
                    (Err(StoreError::Compacted { .. }), Err("compacted")) => {}
                    (Err(StoreError::FutureRevision { .. }), Err("future")) => {}
                    other => panic!("{range:?}: {other:?}"),
                }
            }
            16 | 17 => check_watch(&engine, &model).await,
            18 => {
                let to = model.compacted + below(model.now() - model.compacted + 2);
                let result = engine.compact(to).await;
                match to {
                    to if to > model.now() => {
                        assert!(matches!(result, Err(StoreError::FutureRevision { .. })))
                    }
                    to if to <= model.compacted => {
                        assert!(matches!(result, Err(StoreError::Compacted { .. })))
                    }
                    to => {
                        result.unwrap();
                        model.compacted = to;
                    }
                }
                base::task::yield_now().await;
            }
            _ => {
                engine.close().await;
                engine = open().await.unwrap();
            }
        }
        assert_eq!(engine.revision().await.unwrap(), model.now());
    }
}

#[test]
fn every_answer_is_the_models() {
    for seed in 0..600 {
        let run = std::panic::catch_unwind(|| base::sim::run(seed, story()));
        run.unwrap_or_else(|_| panic!("seed {seed}"));
    }
}
