//! Images that no container uses go when their disk is nearly full, the longest unused first. Imported ones stay: no
//! registry could give them back.
//!
//! Upstream: pkg/kubelet/images/image_gc_manager.go. Thresholds are its defaults.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use apimachinery::doc;
use base::time::Timestamp;
use client::{EventType, ObjectRef};
use runtime::{Disk, Image, Result};

use crate::core::SharedCore;
use crate::worker::since;

/// How often the disk is looked at.
pub(crate) const LOOK_EVERY: Duration = Duration::from_secs(300);
/// From how much of the disk in use images go, and how much may then stay in use, in hundredths.
const HIGH_PERCENT: u64 = 85;
const LOW_PERCENT: u64 = 80;
/// How long an image that has come stays at least.
const AGE_LEAST: Duration = Duration::from_secs(120);

/// What is known of the images over time.
#[derive(Default)]
pub struct Images {
    seen: BTreeMap<String, Seen>,
    /// Whether they were looked at before: what was there at the first look may be old.
    looked: bool,
    /// Whether the last attempt failed.
    failed: bool,
}

struct Seen {
    size: u64,
    pinned: bool,
    /// Unknown for what was there at the first look.
    found: Option<Timestamp>,
    used: Option<Timestamp>,
}

/// How many bytes images should free of a disk.
pub fn excess(disk: Disk) -> u64 {
    let available = disk.available.min(disk.capacity);
    if disk.capacity == 0 || available.saturating_mul(100) / disk.capacity > 100 - HIGH_PERCENT {
        return 0;
    }
    (disk.capacity / 100 * (100 - LOW_PERCENT)).saturating_sub(available)
}

impl Images {
    /// Takes note of the images that are there now, and of those in use: by id, name or digest.
    pub fn see(&mut self, images: &[Image], used: &BTreeSet<String>, now: Timestamp) {
        let found = self.looked.then_some(now);
        self.looked = true;
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let (size, pinned) = (image.size, image.pinned);
            let fresh = Seen { size, pinned, found, used: None };
            let seen = self.seen.entry(image.id.clone()).or_insert(fresh);
            (seen.size, seen.pinned) = (size, pinned);
            let mut names = image.repo_tags.iter().chain(&image.repo_digests).chain([&image.id]);
            if names.any(|name| used.contains(name)) {
                seen.used = Some(now);
            }
        }
    }

    /// Of what was just seen, the ids of images that go so that this many bytes are freed, and how many those are.
    pub fn to_go(&self, bytes: u64, now: Timestamp) -> (Vec<String>, u64) {
        let is_old = |seen: &Seen| seen.found.is_none_or(|at| since(at, now) >= AGE_LEAST);
        let unused = |seen: &Seen| seen.used.is_none_or(|at| at < now);
        let mut all: Vec<_> =
            self.seen.iter().filter(|(_, seen)| !seen.pinned && is_old(seen) && unused(seen)).collect();
        all.sort_by_key(|(_, seen)| (seen.used, seen.found));
        let (mut out, mut freed) = (Vec::new(), 0);
        for (id, seen) in all {
            if freed >= bytes {
                break;
            }
            freed += seen.size;
            out.push(id.clone());
        }
        (out, freed)
    }

    /// Looks at the disk and frees what should be; tells people of the node where that cannot be done.
    pub(crate) async fn collect(&mut self, core: &SharedCore) {
        let failure = match self.free_excess(core).await {
            Ok((wanted, freed)) if freed < wanted => (
                "FreeDiskSpaceFailed",
                format!(
                    "Failed to garbage collect required amount of images. Attempted to free {wanted} bytes, but only found {freed} bytes eligible to free."
                ),
            ),
            Ok(_) => {
                self.failed = false;
                return;
            }
            // Once may be bad luck.
            Err(error) if !std::mem::replace(&mut self.failed, true) => {
                tracing::warn!(%error, "images were not looked at, will be tried again");
                return;
            }
            Err(error) => ("ImageGCFailed", error.to_string()),
        };
        let name = core.config.node_name.as_str();
        let node = doc!({ "metadata": { "name": name, "uid": name } });
        core.recorder.event(
            ObjectRef::of(node.root(), "v1", "Node"),
            EventType::Warning,
            failure.0,
            failure.1,
        );
    }

    async fn free_excess(&mut self, core: &SharedCore) -> Result<(u64, u64)> {
        let wanted = excess(core.doors.images.disk().await?);
        Ok((wanted, self.free(core, wanted).await?))
    }

    /// Frees this many bytes, or all that can be; gives how many were freed.
    ///
    /// # Errors
    /// The engine's.
    pub(crate) async fn free(&mut self, core: &SharedCore, bytes: u64) -> Result<u64> {
        // Before the containers: what is made of an image that comes meanwhile is too young to go.
        let images = core.doors.images.list().await?;
        let containers = core.doors.runtime.list_containers().await?;
        let used = containers.into_iter().flat_map(|c| [c.image, c.image_ref]).collect();
        let now = base::time::now();
        self.see(&images, &used, now);
        let (ids, freed) = self.to_go(bytes, now);
        for id in ids {
            tracing::info!(image = %id, "removed to make room");
            core.doors.images.remove(&id).await?;
        }
        Ok(freed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    #[test]
    fn how_much_is_too_much() {
        for (capacity, available, want) in
            [(1000, 160, 0), (1000, 150, 50), (1000, 0, 200), (1000, 9999, 0), (0, 0, 0)]
        {
            assert_eq!(excess(Disk { capacity, available }), want, "{available} of {capacity}");
        }
    }

    #[test]
    fn which_go() {
        let image = |id: &str, pinned: bool| Image {
            id: id.into(),
            repo_tags: vec![format!("{id}:latest")],
            repo_digests: vec![format!("{id}@sha256:1")],
            size: 10,
            uid: None,
            username: String::new(),
            pinned,
        };
        let used = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut images = Images::default();
        let first = [image("a", false), image("b", false), image("c", true), image("d", false)];
        images.see(&first, &used(&["a", "b:latest"]), at(0));
        assert_eq!(images.to_go(u64::MAX, at(0)), (vec!["d".to_owned()], 10), "never used, and not imported");
        // A was used later than b; e is new.
        let all = [first.to_vec(), vec![image("e", false)]].concat();
        images.see(&all, &used(&["a@sha256:1"]), at(100));
        images.see(&all, &used(&[]), at(200));
        let gone = |bytes: u64, now: i64| images.to_go(bytes, at(now)).0.concat();
        for (bytes, now, want) in [
            (0, 200, ""),
            (1, 200, "d"),
            (10, 200, "d"),
            (11, 200, "db"),
            (99, 200, "dba"),
            (99, 220, "deba"),
        ] {
            assert_eq!(gone(bytes, now), want, "{bytes} bytes at {now}");
        }
        images.see(&[image("a", false)], &used(&[]), at(300));
        assert_eq!(images.to_go(99, at(300)), (vec!["a".to_owned()], 10), "what is gone is forgotten");
    }
}
