//! Garbage collection: an object whose owners are all gone goes too; foreground deletion waits for dependents, orphaning
//! lets them live. The graph is the caches' index by owner uid; before anything is deleted, absent owners are asked for
//! at the server. Upstream: pkg/controller/garbagecollector.

use apimachinery::call::BoxFuture;
use apimachinery::{Doc, Ref, doc, k};
use client::cache::{Entering, IndexFn};
use client::{
    DeleteOptions, Deleted, Error, ObjectKey, PatchType, Propagation, Resource, SharedCache, WorkQueue,
};

use crate::manager::{Action, Controller, Ctx, Named, nothing};
use crate::objects::{self, Seen};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// What every kind's cache is indexed by, for this controller.
pub const INDEXES: [(&str, IndexFn); 1] = [("owners", owners)];

/// The declaration. Keys name kind and object: `deployments.apps/web` in the object's namespace; or `uid/<uid>` for an
/// owner that is gone, or `owner/<group>/<kind>/<name>` for one of an object in this namespace that is gone.
pub const GARBAGE_COLLECTOR: Controller = Controller {
    name: "generic-garbage-collector",
    component: "garbage-collector-controller",
    workers: 5,
    reads: &[],
    writes: &[],
    every_kind: Some(subscribe),
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

fn owners(object: &Entering<'_>) -> Vec<String> {
    if !object.mentions("ownerReferences") {
        return Vec::new();
    }
    let all = object.root().get(k::METADATA).get(k::OWNER_REFERENCES).items();
    all.map(|o| o.get(k::UID).str().to_owned()).collect()
}

/// Wakes objects that have owners or are being deleted, and the dependents of what is gone.
pub fn subscribe(cache: &SharedCache, kind: &Named, queue: WorkQueue<ObjectKey>) {
    let resource = kind.gvr.group_resource();
    cache.subscribe(move |change| match change.new {
        None => {
            let Some(gone) = change.old.map(|old| old.doc()) else { return };
            queue.add(ObjectKey::new("", &format!("uid/{}", objects::uid(gone.root()))));
            // An owner may wait for this one to go.
            for owner in gone.get(k::METADATA).get(k::OWNER_REFERENCES).items() {
                let (kind, name) = (owner.get(k::KIND).str(), owner.get(k::NAME).str());
                let name = format!("owner/{}/{kind}/{name}", group_of(owner));
                queue.add(ObjectKey::new(&change.key.namespace, &name));
            }
        }
        Some(new) => {
            let has_owners = !change.values("owners").is_empty();
            // A look at the text, which may err towards yes.
            if has_owners || memchr::memmem::find(&new.json, b"\"deletionTimestamp\"").is_some() {
                let name = format!("{resource}/{}", change.key.name);
                queue.add(ObjectKey::new(&change.key.namespace, &name));
            }
        }
    });
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let (kind, name) = key.name.split_once('/').unwrap_or_default();
    match kind {
        "uid" => wake_dependents(ctx, name),
        "owner" => wake_owner(ctx, &key.namespace, name),
        kind => {
            let kind = ctx.settings.kinds.iter().find(|k| k.gvr.group_resource().to_string() == kind);
            if let Some(kind) = kind
                && let Some(stored) = ctx.cache(&kind.gvr).get(&key.namespace, name)
            {
                let object = Object { ctx, key, kind, seen: Seen::new(stored) };
                object.process().await?;
            }
        }
    }
    Ok(Action::Done)
}

/// The group of the owner that a reference names; empty for the core group.
fn group_of(owner: Ref<'_>) -> &str {
    owner.get(k::API_VERSION).str().rsplit_once('/').map_or("", |(group, _)| group)
}

fn kind_of<'c>(ctx: &'c Ctx, group: &str, kind: &str) -> Option<&'c Named> {
    ctx.settings.kinds.iter().find(|known| known.kind == kind && known.gvr.group == group)
}

fn wake_owner(ctx: &Ctx, namespace: &str, owner: &str) {
    let mut parts = owner.splitn(3, '/');
    let mut part = || parts.next().unwrap_or_default();
    let (group, kind, name) = (part(), part(), part());
    if let Some(kind) = kind_of(ctx, group, kind) {
        let namespace = if kind.namespaced { namespace } else { "" };
        ctx.wake(ObjectKey::new(namespace, &format!("{}/{name}", kind.gvr.group_resource())));
    }
}

fn wake_dependents(ctx: &Ctx, uid: &str) {
    for kind in &ctx.settings.kinds {
        let resource = kind.gvr.group_resource();
        for found in ctx.cache(&kind.gvr).by_index("owners", uid) {
            ctx.wake(ObjectKey::new(found.namespace(), &format!("{resource}/{}", found.name())));
        }
    }
}

/// One object and what is to become of it.
struct Object<'a> {
    ctx: &'a Ctx,
    key: &'a ObjectKey,
    kind: &'a Named,
    seen: Seen,
}

/// What became of an object's owners.
#[derive(Debug, Default)]
struct Owners<'a> {
    solid: Vec<Ref<'a>>,
    dangling: Vec<Ref<'a>>,
    // Deleted in the foreground: they wait for their dependents.
    waiting: Vec<Ref<'a>>,
}

impl Object<'_> {
    async fn process(&self) -> Result<(), Error> {
        let root = self.seen.root();
        if objects::is_deleting(root) {
            if self.has_finalizer(FOREGROUND) {
                return self.process_foreground().await;
            }
            if self.has_finalizer(ORPHAN) {
                return self.orphan().await;
            }
            return Ok(());
        }
        let owners = self.owners().await?;
        if !owners.solid.is_empty() {
            let gone: Vec<&str> =
                owners.dangling.iter().chain(&owners.waiting).map(|o| o.get(k::UID).str()).collect();
            return if gone.is_empty() { Ok(()) } else { self.drop_owners(&gone).await };
        }
        if owners.dangling.is_empty() && owners.waiting.is_empty() {
            return Ok(());
        }
        let dependents = self.dependents();
        let waits = |object: Ref<'_>| objects::is_deleting(object) && has_finalizer(object, FOREGROUND);
        if !owners.waiting.is_empty()
            && dependents.iter().any(|(_, dependent)| waits(dependent.root()))
            && self.blocks_owners()
        {
            // Its owners wait for it, and something that it waits for waits, too: a circle would never end.
            return self.unblock_owners().await;
        }
        let propagation = if !owners.waiting.is_empty() && !dependents.is_empty() {
            Propagation::Foreground
        } else if self.has_finalizer(ORPHAN) {
            Propagation::Orphan
        } else if self.has_finalizer(FOREGROUND) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        self.delete(propagation).await
    }

    async fn owners(&self) -> Result<Owners<'_>, Error> {
        let mut out = Owners::default();
        for owner in self.seen.root().get(k::METADATA).get(k::OWNER_REFERENCES).items() {
            // A kind that is not known here may well exist: nothing is deleted on its account.
            let Some(kind) = kind_of(self.ctx, group_of(owner), owner.get(k::KIND).str()) else {
                out.solid.push(owner);
                continue;
            };
            let (name, uid) = (owner.get(k::NAME).str(), owner.get(k::UID).str());
            let namespace = if kind.namespaced { self.key.namespace.as_str() } else { "" };
            let cached = self.ctx.cache(&kind.gvr).get(namespace, name).map(|s| s.doc());
            let found = match cached.filter(|o| objects::uid(o.root()) == uid) {
                Some(found) => Some(found),
                None => match objects::resource(&self.ctx.client, &kind.gvr, namespace).get(name).await {
                    Ok(found) => Some(found.doc()).filter(|o| objects::uid(o.root()) == uid),
                    Err(err) if err.is_not_found() => None,
                    Err(err) => return Err(err),
                },
            };
            match found {
                None => out.dangling.push(owner),
                Some(found)
                    if objects::is_deleting(found.root()) && has_finalizer(found.root(), FOREGROUND) =>
                {
                    out.waiting.push(owner);
                }
                Some(_) => out.solid.push(owner),
            }
        }
        Ok(out)
    }

    /// Deletes what blocks; once nothing does, lets the object go.
    async fn process_foreground(&self) -> Result<(), Error> {
        let uid = objects::uid(self.seen.root());
        let mut blocked = false;
        for (kind, dependent) in self.dependents() {
            let blocks = dependent
                .root()
                .get(k::METADATA)
                .get(k::OWNER_REFERENCES)
                .items()
                .any(|o| o.get(k::UID).str() == uid && o.get(k::BLOCK_OWNER_DELETION).bool());
            blocked |= blocks;
            if !objects::is_deleting(dependent.root()) {
                let name = format!("{}/{}", kind.gvr.group_resource(), dependent.stored.name());
                self.ctx.wake(ObjectKey::new(dependent.stored.namespace(), &name));
            }
        }
        if blocked { Ok(()) } else { self.remove_finalizer(FOREGROUND).await }
    }

    async fn orphan(&self) -> Result<(), Error> {
        let uid = objects::uid(self.seen.root());
        for (kind, dependent) in self.dependents() {
            let object = Object { ctx: self.ctx, key: self.key, kind, seen: dependent };
            object.drop_owners(&[uid]).await?;
        }
        self.remove_finalizer(ORPHAN).await
    }

    fn dependents(&self) -> Vec<(&Named, Seen)> {
        let uid = objects::uid(self.seen.root());
        let kinds = self.ctx.settings.kinds.iter();
        let of = |kind: &Named| self.ctx.cache(&kind.gvr).by_index("owners", uid).into_iter().map(Seen::new);
        kinds.flat_map(|kind| of(kind).map(move |seen| (kind, seen))).collect()
    }

    fn has_finalizer(&self, name: &str) -> bool {
        has_finalizer(self.seen.root(), name)
    }

    async fn delete(&self, propagation: Propagation) -> Result<(), Error> {
        let meta = self.seen.root().get(k::METADATA);
        let options = DeleteOptions {
            propagation: Some(propagation),
            resource_version: Some(meta.get(k::RESOURCE_VERSION).str().to_owned()),
            ..DeleteOptions::uid(meta.get(k::UID).str())
        };
        match self.resource().delete(self.seen.stored.name(), options).await {
            Ok(outcome) => {
                if let Deleted::Marked(_) = &outcome {
                    self.ctx.deleted(self.key, &self.kind.gvr, &self.seen.stored, &outcome);
                }
                Ok(())
            }
            Err(err) if err.is_not_found() => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn blocks_owners(&self) -> bool {
        let mut owners = self.seen.root().get(k::METADATA).get(k::OWNER_REFERENCES).items();
        owners.any(|o| o.get(k::BLOCK_OWNER_DELETION).bool())
    }

    async fn unblock_owners(&self) -> Result<(), Error> {
        let mut doc = self.seen.doc.clone();
        let mut owners = doc.edit().at(k::METADATA).list(k::OWNER_REFERENCES);
        owners.for_each(|mut owner| _ = owner.set(k::BLOCK_OWNER_DELETION, false));
        let unblocked = doc.get(k::METADATA).get(k::OWNER_REFERENCES).to_doc();
        self.patch_metadata(k::OWNER_REFERENCES, unblocked).await
    }

    async fn drop_owners(&self, uids: &[&str]) -> Result<(), Error> {
        let mut doc = self.seen.doc.clone();
        doc.edit().at(k::METADATA).list(k::OWNER_REFERENCES).retain(|o| !uids.contains(&o.get(k::UID).str()));
        let left = doc.get(k::METADATA).get(k::OWNER_REFERENCES).to_doc();
        self.patch_metadata(k::OWNER_REFERENCES, left).await
    }

    async fn remove_finalizer(&self, name: &str) -> Result<(), Error> {
        let mut doc = self.seen.doc.clone();
        doc.edit().at(k::METADATA).list(k::FINALIZERS).retain(|f| f.str() != name);
        let left = doc.get(k::METADATA).get(k::FINALIZERS).to_doc();
        self.patch_metadata(k::FINALIZERS, left).await
    }

    /// Replaces one list in the metadata of exactly the version that was seen.
    async fn patch_metadata(&self, field: apimachinery::Key, list: Doc) -> Result<(), Error> {
        let meta = self.seen.root().get(k::METADATA);
        let mut patch = doc!({ "metadata": { "uid": meta.get(k::UID).str(),
            "resourceVersion": meta.get(k::RESOURCE_VERSION).str() } });
        patch.edit().at(k::METADATA).set(field, list);
        match self.resource().patch(self.seen.stored.name(), PatchType::Merge, patch, "").await {
            Ok(written) => {
                self.ctx.wrote(self.key, &self.kind.gvr, &written);
                Ok(())
            }
            Err(err) if err.is_not_found() => Ok(()),
            Err(err) => Err(err),
        }
    }

    fn resource(&self) -> Resource {
        objects::resource(&self.ctx.client, &self.kind.gvr, self.seen.stored.namespace())
    }
}

fn has_finalizer(object: Ref<'_>, name: &str) -> bool {
    object.get(k::METADATA).get(k::FINALIZERS).items().any(|f| f.str() == name)
}
