//! The own-write fence: a key is not reconciled until the caches show what its last reconcile wrote. It takes the place
//! of upstream's expectations (pkg/controller/controller_utils.go), and cannot leak or expire.

use std::collections::BTreeMap;
use std::sync::Mutex;

use apimachinery::Gvr;
use apimachinery::call::Stored;

use crate::api::Deleted;
use crate::cache::{ObjectKey, SharedCache};

/// What the caches must show before a key is reconciled again.
pub struct Fence {
    caches: Vec<(Gvr, SharedCache)>,
    owed: Mutex<BTreeMap<ObjectKey, Vec<Owed>>>,
}

/// One write that a cache may not show yet.
#[derive(Clone, Debug)]
struct Owed {
    /// Index into `caches`.
    cache: usize,
    what: Shows,
}

#[derive(Clone, Debug)]
enum Shows {
    Revision(u64),
    /// The object, last seen at this revision, is gone or was written since.
    Gone(ObjectKey, u64),
}

impl Fence {
    /// A fence over the caches that a controller reads. Writes to other resources need no waiting.
    pub fn new(caches: Vec<(Gvr, SharedCache)>) -> Fence {
        Fence { caches, owed: Mutex::new(BTreeMap::new()) }
    }

    /// Notes that the reconcile of `key` wrote `written`.
    pub fn wrote(&self, key: &ObjectKey, gvr: &Gvr, written: &Stored) {
        self.owe(key, gvr, Shows::Revision(written.revision));
    }

    /// Notes that the reconcile of `key` deleted `object`, as the cache had it.
    pub fn deleted(&self, key: &ObjectKey, gvr: &Gvr, object: &Stored, outcome: &Deleted) {
        match outcome {
            Deleted::Marked(now) => self.wrote(key, gvr, now),
            Deleted::Gone => self.owe(key, gvr, Shows::Gone(ObjectKey::of(object), object.revision)),
        }
    }

    /// Waits until the caches show all that was written for `key`.
    pub async fn wait(&self, key: &ObjectKey) {
        let owed = self.lock().remove(key).unwrap_or_default();
        for Owed { cache, what } in owed {
            let cache = &self.caches[cache].1;
            match what {
                Shows::Revision(revision) => cache.wait_for_revision(revision).await,
                Shows::Gone(object, seen) => {
                    cache.wait_until(|c| c.get_key(&object).is_none_or(|now| now.revision > seen)).await;
                }
            }
        }
    }

    fn owe(&self, key: &ObjectKey, gvr: &Gvr, what: Shows) {
        let Some(cache) = self.caches.iter().position(|(g, _)| g == gvr) else { return };
        let mut owed = self.lock();
        let all = owed.entry(key.clone()).or_default();
        if let Shows::Revision(new) = what {
            // Later revisions include earlier ones.
            let same = all.iter_mut().find(|o| o.cache == cache && matches!(o.what, Shows::Revision(_)));
            if let Some(Owed { what: Shows::Revision(old), .. }) = same {
                *old = new.max(*old);
                return;
            }
        }
        all.push(Owed { cache, what });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ObjectKey, Vec<Owed>>> {
        self.owed.lock().expect("no code panics while it holds the fence")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gvr::PODS;
    use std::sync::Arc;
    use std::time::Duration;

    fn pod(name: &str, revision: u64) -> Arc<Stored> {
        Arc::new(Stored::new("{}".into(), revision, "ns", name))
    }

    #[test]
    fn a_key_waits_for_its_own_writes_only() {
        base::sim::run(1, async {
            let cache = SharedCache::new(vec![]);
            cache.replace(vec![pod("old", 4)], 5);
            let fence = Fence::new(vec![(PODS, cache.clone())]);
            let (a, b) = (ObjectKey::new("ns", "a"), ObjectKey::new("ns", "b"));
            fence.wrote(&a, &PODS, &pod("x", 7));
            fence.deleted(&a, &PODS, &pod("old", 4), &Deleted::Gone);
            fence.wait(&b).await;
            let short = Duration::from_secs(1);
            let mut waiting = Box::pin(fence.wait(&a));
            assert!(base::time::timeout(short, waiting.as_mut()).await.is_err());
            cache.upsert(pod("x", 7));
            assert!(base::time::timeout(short, waiting.as_mut()).await.is_err(), "old is still there");
            cache.remove(&pod("old", 8));
            waiting.await;
            fence.wait(&a).await;
        });
    }
}
