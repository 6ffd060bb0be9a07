//! What several controllers ask of objects: owners, readiness, conditions. Upstream: pkg/controller/controller_utils.go,
//! pkg/api/v1/pod, controller_ref_manager.go.

use std::time::Duration;

use apimachinery::call::Stored;
use apimachinery::selector::Selector;
use apimachinery::{Doc, Gvr, Ref, doc, gotime, k};
use base::time::Timestamp;
use client::cache::Entering;
use client::{Client, Error, ObjectKey, PatchType, Resource};

use crate::manager::Ctx;

/// An object with its document.
pub struct Seen {
    /// As stored.
    pub stored: std::sync::Arc<Stored>,
    /// As a document.
    pub doc: Doc,
}

impl Seen {
    /// Reads an object.
    pub fn new(stored: std::sync::Arc<Stored>) -> Seen {
        Seen { doc: stored.doc(), stored }
    }

    /// The document's root.
    pub fn root(&self) -> Ref<'_> {
        self.doc.root()
    }
}

/// `metadata.name`
pub fn name(object: Ref<'_>) -> &str {
    object.get(k::METADATA).get(k::NAME).str()
}

/// `metadata.namespace`
pub fn namespace(object: Ref<'_>) -> &str {
    object.get(k::METADATA).get(k::NAMESPACE).str()
}

/// `metadata.uid`
pub fn uid(object: Ref<'_>) -> &str {
    object.get(k::METADATA).get(k::UID).str()
}

/// `metadata.labels`
pub fn labels(object: Ref<'_>) -> Ref<'_> {
    object.get(k::METADATA).get(k::LABELS)
}

/// An annotation.
pub fn annotation<'a>(object: Ref<'a>, name: &str) -> &'a str {
    object.get(k::METADATA).get(k::ANNOTATIONS).get(name).str()
}

/// Whether the object is being deleted.
pub fn is_deleting(object: Ref<'_>) -> bool {
    object.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set()
}

/// A time in the object; none when unset or no time.
pub fn time(value: Ref<'_>) -> Option<Timestamp> {
    gotime::parse(value.opt_str()?).ok()
}

/// The owner that controls the object.
pub fn controller_of(object: Ref<'_>) -> Option<Ref<'_>> {
    object.get(k::METADATA).get(k::OWNER_REFERENCES).items().find(|o| o.get(k::CONTROLLER).bool())
}

/// A controlling owner reference.
pub fn owner_reference(owner: Ref<'_>, api_version: &str, kind: &str) -> Doc {
    doc!({ "apiVersion": api_version, "kind": kind, "name": name(owner), "uid": uid(owner), "controller": true,
        "blockOwnerDeletion": true })
}

/// Index: the uid of the controlling owner, or `orphan/<namespace>`.
pub fn by_controller(object: &Entering<'_>) -> Vec<String> {
    let root = object.root();
    match controller_of(root) {
        Some(owner) => vec![owner.get(k::UID).str().to_owned()],
        None => vec![format!("orphan/{}", namespace(root))],
    }
}

/// Index: the name.
pub fn by_name(object: &Entering<'_>) -> Vec<String> {
    vec![object.name().to_owned()]
}

/// Index: the pod's node, empty without one.
pub fn by_node(pod: &Entering<'_>) -> Vec<String> {
    vec![pod.root().get(k::SPEC).get(k::NODE_NAME).str().to_owned()]
}

/// Index: whom to wake: `=<kind>/<name>` of the controlling owner, or the labels (as JSON) of an object without one.
pub fn by_owner_or_labels(object: &Entering<'_>) -> Vec<String> {
    let root = object.root();
    match controller_of(root) {
        Some(owner) => vec![format!("={}/{}", owner.get(k::KIND).str(), owner.get(k::NAME).str())],
        None => vec![labels_json(root)],
    }
}

/// The labels as JSON; `null` without any.
pub fn labels_json(object: Ref<'_>) -> String {
    String::from_utf8(labels(object).to_json()).expect("documents hold valid UTF-8")
}

/// The keys that a value of [`by_owner_or_labels`] wakes among the owners of `kind` in `gvr`'s cache.
pub fn owners_to_wake(ctx: &Ctx, gvr: &Gvr, kind: &str, namespace: &str, value: &str) -> Vec<ObjectKey> {
    if let Some(owner) = value.strip_prefix('=') {
        let (found, name) = owner.split_once('/').unwrap_or_default();
        return if found == kind { vec![ObjectKey::new(namespace, name)] } else { Vec::new() };
    }
    let labels = apimachinery::codec::json::parse(value).map(|p| p.doc).unwrap_or_default();
    let owners = ctx.cache(gvr).list_namespace(namespace);
    owners
        .iter()
        .filter(|o| selects(&selector(o.doc().root()), labels.root()))
        .map(|o| ObjectKey::of(o))
        .collect()
}

/// `spec.selector` of either form as a selector; one that cannot be read matches nothing.
pub fn selector(object: Ref<'_>) -> Selector {
    Selector::from_either(object.get(k::SPEC).get(k::SELECTOR)).unwrap_or_else(|_| Selector::nothing())
}

/// Whether `selector` fits a map of labels.
pub fn selects(selector: &Selector, labels: Ref<'_>) -> bool {
    selector.matches(labels)
}

/// A condition by type.
pub fn condition<'a>(object: Ref<'a>, kind: &str) -> Option<Ref<'a>> {
    object.get(k::STATUS).get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == kind)
}

/// The pod has run for the last time.
pub fn has_ended(pod: Ref<'_>) -> bool {
    matches!(pod.get(k::STATUS).get(k::PHASE).str(), "Failed" | "Succeeded")
}

/// Neither ended nor being deleted.
pub fn is_active(pod: Ref<'_>) -> bool {
    !has_ended(pod) && !is_deleting(pod)
}

/// The pod's `Ready` condition is true.
pub fn is_ready(pod: Ref<'_>) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.get(k::STATUS).str() == "True")
}

/// When a pod is available: it has been ready for `min_ready` seconds. `None` when it is not ready.
pub fn available_at(pod: Ref<'_>, min_ready: i64) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.get(k::STATUS).str() == "True")?;
    if min_ready == 0 {
        return Some(Timestamp::MIN);
    }
    let since = time(ready.get(k::LAST_TRANSITION_TIME))?;
    since.checked_add(Duration::from_secs(min_ready.unsigned_abs())).ok()
}

/// The time from `now` until `at`, at least a millisecond.
pub fn until(at: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(now)).unwrap_or_default().max(Duration::from_millis(1))
}

/// What claiming objects needs: the owner and the kind it claims.
pub struct Claim<'a> {
    /// The reconcile's context.
    pub ctx: &'a Ctx,
    /// The owner's key.
    pub key: &'a ObjectKey,
    /// The owner.
    pub owner: Ref<'a>,
    /// The owner's group, version and kind, and resource.
    pub owner_kind: (&'static str, &'static str, Gvr),
    /// What is claimed.
    pub claimed: Gvr,
}

impl Claim<'_> {
    /// The objects that belong to the owner: those it controls and still selects, and orphans that it selects, which it
    /// adopts after asking the server whether it still is who it was. Those that it no longer selects are released.
    pub async fn all(&self) -> Result<Vec<Seen>, Error> {
        let cache = self.ctx.cache(&self.claimed);
        let selector = selector(self.owner);
        let mut out = Vec::new();
        for stored in cache.by_index("controller", uid(self.owner)) {
            let seen = Seen::new(stored);
            if selects(&selector, labels(seen.root())) {
                out.push(seen);
            } else if !is_deleting(self.owner) {
                self.release(&seen).await?;
            }
        }
        if is_deleting(self.owner) {
            return Ok(out);
        }
        let orphans = cache.by_index("controller", &format!("orphan/{}", self.key.namespace));
        let fits = |s: &Seen| !is_deleting(s.root()) && selects(&selector, labels(s.root()));
        let orphans: Vec<Seen> = orphans.into_iter().map(Seen::new).filter(fits).collect();
        if !orphans.is_empty() && self.is_still_there().await? {
            for orphan in orphans {
                out.extend(self.adopt(&orphan).await?);
            }
        }
        out.sort_by(|a, b| a.stored.name().cmp(b.stored.name()));
        Ok(out)
    }

    async fn is_still_there(&self) -> Result<bool, Error> {
        let owners = self.ctx.client.namespaced(self.owner_kind.2.clone(), &self.key.namespace);
        match owners.get(&self.key.name).await {
            Ok(found) => {
                let found = found.doc();
                Ok(uid(found.root()) == uid(self.owner) && !is_deleting(found.root()))
            }
            Err(err) if err.is_not_found() => Ok(false),
            Err(err) => Err(err),
        }
    }

    async fn adopt(&self, orphan: &Seen) -> Result<Option<Seen>, Error> {
        let mut patch = doc!({ "metadata": { "uid": uid(orphan.root()) } });
        let reference = owner_reference(self.owner, self.owner_kind.0, self.owner_kind.1);
        patch.edit().at(k::METADATA).list(k::OWNER_REFERENCES).push(reference);
        self.patch(orphan, patch).await
    }

    async fn release(&self, object: &Seen) -> Result<(), Error> {
        let patch = doc!({ "metadata": { "uid": uid(object.root()),
            "ownerReferences": [{ "$patch": "delete", "uid": uid(self.owner) }] } });
        self.patch(object, patch).await.map(drop)
    }

    /// An object that is gone, or another one of the same name, is nobody's concern.
    async fn patch(&self, object: &Seen, patch: Doc) -> Result<Option<Seen>, Error> {
        let resource = resource(&self.ctx.client, &self.claimed, &self.key.namespace);
        match resource.patch(object.stored.name(), PatchType::Strategic, patch, "").await {
            Ok(written) => {
                self.ctx.wrote(self.key, &self.claimed, &written);
                Ok(Some(Seen::new(written)))
            }
            Err(err) if err.is_not_found() || err.is_invalid() || err.is_conflict() => Ok(None),
            Err(err) => Err(err),
        }
    }
}

/// A resource in a namespace.
pub fn resource(client: &Client, gvr: &Gvr, namespace: &str) -> Resource {
    client.namespaced(gvr.clone(), namespace)
}

/// Sets a condition in a status document's list, in its old place if it was there.
pub fn set_condition(status: &mut Doc, condition: Doc) {
    let kind = condition.get(k::TYPE).str().to_owned();
    let mut list = status.edit().list(k::CONDITIONS);
    let at = list.read().items().position(|c| c.get(k::TYPE).str() == kind);
    match at.and_then(|i| list.reborrow().item(i)) {
        Some(mut item) => item.put(condition),
        None => {
            list.push(condition);
        }
    }
}

/// Removes a condition; the list too when it was the last.
pub fn remove_condition(status: &mut Doc, kind: &str) {
    if status.get(k::CONDITIONS).is_empty() {
        return;
    }
    let mut list = status.edit().list(k::CONDITIONS);
    list.retain(|c| c.get(k::TYPE).str() != kind);
    if list.read().is_empty() {
        status.edit().remove(k::CONDITIONS);
    }
}
