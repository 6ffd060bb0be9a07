//! Namespace: empties a namespace that is being deleted, then lets it go. Upstream: pkg/controller/namespace.

use std::time::Duration;

use apimachinery::call::{BoxFuture, Options};
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;
use client::gvr::{NAMESPACES, PODS};
use client::{DeleteOptions, Deleted, Error, ObjectKey, Propagation, SharedCache, WorkQueue};

use crate::manager::{Action, Controller, Ctx, Named, Read, Rule, Wakes, nothing};
use crate::objects;

/// The declaration.
pub const NAMESPACE: Controller = Controller {
    name: "namespace-controller",
    component: "",
    workers: 10,
    reads: &[Read { gvr: NAMESPACES, indexes: &[], wakes: Wakes::Itself }],
    writes: &[
        Rule { group: "", resources: &["namespaces"], verbs: &["delete", "get", "list", "watch"] },
        Rule { group: "", resources: &["namespaces/finalize", "namespaces/status"], verbs: &["update"] },
        Rule { group: "*", resources: &["*"], verbs: &["delete", "deletecollection", "get", "list"] },
    ],
    every_kind: Some(subscribe),
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

/// What goes may be the last of its namespace.
fn subscribe(cache: &SharedCache, kind: &Named, queue: WorkQueue<ObjectKey>) {
    if kind.namespaced {
        cache.subscribe(move |change| {
            if change.new.is_none() {
                queue.add(ObjectKey::new("", &change.key.namespace));
            }
        });
    }
}

/// What is left of a namespace's content.
#[derive(Debug, Default)]
struct Left {
    /// Kind by kind: how many objects.
    kinds: Vec<(String, usize)>,
    /// How many objects wait for each finalizer.
    finalizers: std::collections::BTreeMap<String, usize>,
    /// What went wrong while deleting.
    failures: Vec<String>,
    /// Pods that still have grace, in seconds.
    grace: i64,
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let Some(stored) = ctx.cache(&NAMESPACES).get_key(key) else { return Ok(Action::Done) };
    let namespace = stored.doc();
    if !objects::is_deleting(namespace.root()) {
        return Ok(Action::Done);
    }
    let is_ours = |f: Ref<'_>| f.str() == "kubernetes";
    if !namespace.get(k::SPEC).get(k::FINALIZERS).items().any(is_ours) {
        return Ok(Action::Done);
    }
    let left = empty(ctx, &key.name).await;
    let mut now = namespace.clone();
    now.edit().set(k::STATUS, status(namespace.root(), &left, base::time::now()));
    let namespaces = ctx.client.resource(NAMESPACES);
    if !now.get(k::STATUS).same(namespace.get(k::STATUS)) {
        let written = namespaces.update_status(now).await?;
        now = written.doc();
        ctx.wrote(key, &NAMESPACES, &written);
    }
    if left.kinds.is_empty() && left.failures.is_empty() {
        now.edit().at(k::SPEC).list(k::FINALIZERS).retain(|f| f.str() != "kubernetes");
        return match namespaces.update_subresource(now, "finalize").await {
            Err(err) if !err.is_not_found() => Err(err),
            _ => Ok(Action::Done),
        };
    }
    // Each object that goes wakes this key; the wait is for what went unseen. Upstream: grace plus a few seconds.
    Ok(Action::After(Duration::from_secs(left.grace.unsigned_abs() / 2 + 5)))
}

/// Deletes everything in the namespace; tells what is still there afterwards.
async fn empty(ctx: &Ctx, namespace: &str) -> Left {
    let mut left = Left::default();
    for kind in ctx.settings.kinds.iter().filter(|kind| kind.namespaced) {
        if let Err(err) = empty_of(ctx, namespace, kind, &mut left).await {
            left.failures
                .push(format!("failed to delete all content of {}: {err}", kind.gvr.group_resource()));
        }
    }
    left
}

async fn empty_of(ctx: &Ctx, namespace: &str, kind: &Named, left: &mut Left) -> Result<(), Error> {
    let resource = objects::resource(&ctx.client, &kind.gvr, namespace);
    let mut remaining = 0;
    for object in resource.list(Options::default()).await?.items {
        let mut doc = object.doc();
        if !objects::is_deleting(doc.root()) {
            let options = DeleteOptions {
                propagation: Some(Propagation::Background),
                ..DeleteOptions::uid(objects::uid(doc.root()))
            };
            match resource.delete(object.name(), options).await {
                Ok(Deleted::Marked(now)) => doc = now.doc(),
                Ok(Deleted::Gone) => continue,
                Err(err) if err.is_not_found() || err.is_conflict() => continue,
                Err(err) => return Err(err),
            }
        }
        remaining += 1;
        for finalizer in doc.get(k::METADATA).get(k::FINALIZERS).items() {
            *left.finalizers.entry(finalizer.str().to_owned()).or_default() += 1;
        }
        if kind.gvr == PODS {
            left.grace = left.grace.max(doc.get(k::METADATA).get(k::DELETION_GRACE_PERIOD_SECONDS).i64());
        }
    }
    if remaining > 0 {
        left.kinds.push((kind.gvr.group_resource().to_string(), remaining));
    }
    Ok(())
}

/// Upstream: namespace_conditions.go.
/// A condition's status, reason and message.
type Condition = (&'static str, String, String);

/// What the conditions say of what is left: type, and status, reason and message.
fn conditions(left: &Left) -> [(&'static str, Condition); 5] {
    let resources: Vec<String> =
        left.kinds.iter().map(|(n, c)| format!("{n} has {c} resource instances")).collect();
    let finalizers: Vec<String> =
        left.finalizers.iter().map(|(n, c)| format!("{n} in {c} resource instances")).collect();
    let deleted = ("ContentDeleted", "All content successfully deleted, may be waiting on finalization");
    let removed = ("ContentRemoved", "All content successfully removed");
    let finalized = ("ContentHasNoFinalizers", "All content-preserving finalizers finished");
    let no = |ok: (&str, &str)| ("False", ok.0.to_owned(), ok.1.to_owned());
    [
        (
            "NamespaceDeletionDiscoveryFailure",
            no(("ResourcesDiscovered", "All resources successfully discovered")),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            no(("ParsedGroupVersions", "All legacy kube types successfully parsed")),
        ),
        (
            "NamespaceDeletionContentFailure",
            match left.failures.as_slice() {
                [] => no(deleted),
                all => {
                    let message = format!(
                        "Failed to delete all resource types, {} remaining: {}",
                        all.len(),
                        all.join(", ")
                    );
                    ("True", "ContentDeletionFailed".to_owned(), message)
                }
            },
        ),
        (
            "NamespaceContentRemaining",
            match resources.as_slice() {
                [] => no(removed),
                all => (
                    "True",
                    "SomeResourcesRemain".to_owned(),
                    format!("Some resources are remaining: {}", all.join(", ")),
                ),
            },
        ),
        (
            "NamespaceFinalizersRemaining",
            match finalizers.as_slice() {
                [] => no(finalized),
                all => (
                    "True",
                    "SomeFinalizersRemain".to_owned(),
                    format!("Some content in the namespace has finalizers remaining: {}", all.join(", ")),
                ),
            },
        ),
    ]
}

fn status(namespace: Ref<'_>, left: &Left, now: Timestamp) -> Doc {
    let mut out = namespace.get(k::STATUS).to_doc();
    out.edit().set(k::PHASE, "Terminating");
    for (kind, (value, reason, message)) in conditions(left) {
        let before = objects::condition(namespace, kind);
        let same = before.is_some_and(|c| {
            c.get(k::STATUS).str() == value
                && c.get(k::REASON).str() == reason
                && c.get(k::MESSAGE).str() == message
        });
        if !same {
            let since = before
                .filter(|c| c.get(k::STATUS).str() == value)
                .map(|c| c.get(k::LAST_TRANSITION_TIME).str());
            let since = since.map_or_else(|| gotime::format(now), str::to_owned);
            let condition = doc!({ "type": kind, "status": value, "lastTransitionTime": since, "reason": reason, "message": message });
            objects::set_condition(&mut out, condition);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_tell_what_is_left() {
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let left = Left {
            kinds: vec![("pods".into(), 2), ("deployments.apps".into(), 1)],
            finalizers: [("example.com/x".to_owned(), 1)].into(),
            ..Left::default()
        };
        let mut object = doc!({ "status": { "phase": "Active" } });
        let first = status(object.root(), &left, now);
        let messages: Vec<String> =
            first.get(k::CONDITIONS).items().map(|c| c.get(k::MESSAGE).str().to_owned()).collect();
        assert_eq!(
            messages[3..],
            [
                "Some resources are remaining: pods has 2 resource instances, deployments.apps has 1 resource instances",
                "Some content in the namespace has finalizers remaining: example.com/x in 1 resource instances"
            ]
        );
        object.edit().set(k::STATUS, first.clone());
        let later = "2026-01-01T00:01:00Z".parse().expect("a time");
        assert_eq!(status(object.root(), &left, later), first, "nothing new, nothing written");
    }
}
