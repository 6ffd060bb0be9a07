//! What every object's metadata tells: owners, labels, annotations, finalizers.
//! Upstream: k8s.io/apimachinery/pkg/apis/meta/v1/{meta,controller_ref}.go.

use crate::doc::{Edit, Ref};
use crate::schema::keys::k;

/// The finalizer that orphans an object's dependents before it goes.
pub const FINALIZER_ORPHAN: &str = "orphan";
/// The finalizer that keeps an object until its dependents are gone.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";

/// The metadata of an object, read.
#[derive(Clone, Copy)]
pub struct Meta<'a>(pub Ref<'a>);

/// The metadata of a whole object.
pub fn of(object: Ref<'_>) -> Meta<'_> {
    Meta(object.get(k::METADATA))
}

impl<'a> Meta<'a> {
    /// `metadata.name`.
    pub fn name(self) -> &'a str {
        self.0.get(k::NAME).str()
    }

    /// `metadata.namespace`; empty for cluster-scoped objects.
    pub fn namespace(self) -> &'a str {
        self.0.get(k::NAMESPACE).str()
    }

    /// `metadata.uid`.
    pub fn uid(self) -> &'a str {
        self.0.get(k::UID).str()
    }

    /// The value of a label.
    pub fn label(self, key: &str) -> Option<&'a str> {
        self.0.get(k::LABELS).get(key).opt_str()
    }

    /// The value of an annotation.
    pub fn annotation(self, key: &str) -> Option<&'a str> {
        self.0.get(k::ANNOTATIONS).get(key).opt_str()
    }

    /// Whether its deletion has been asked for.
    pub fn is_being_deleted(self) -> bool {
        self.0.get(k::DELETION_TIMESTAMP).is_set()
    }

    /// Its finalizers.
    pub fn finalizers(self) -> impl Iterator<Item = &'a str> {
        self.0.get(k::FINALIZERS).items().map(Ref::str)
    }

    /// Whether this finalizer is on it.
    pub fn has_finalizer(self, name: &str) -> bool {
        self.finalizers().any(|f| f == name)
    }

    /// Its owners.
    pub fn owners(self) -> impl Iterator<Item = Ref<'a>> {
        self.0.get(k::OWNER_REFERENCES).items()
    }
}

/// Takes a finalizer off; tells whether it was there.
pub fn remove_finalizer(object: Edit<'_>, name: &str) -> bool {
    if !of(object.read()).has_finalizer(name) {
        return false;
    }
    let mut meta = object.at(k::METADATA);
    meta.reborrow().at(k::FINALIZERS).retain(|f| f.str() != name);
    if meta.read().get(k::FINALIZERS).is_empty() {
        meta.remove(k::FINALIZERS);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_finalizer_takes_the_list_along() {
        let mut pod = crate::doc!({ "metadata": { "name": "p", "finalizers": ["a/b", "c/d"] } });
        assert!(remove_finalizer(pod.edit(), "a/b") && !remove_finalizer(pod.edit(), "a/b"));
        assert!(of(pod.root()).has_finalizer("c/d") && remove_finalizer(pod.edit(), "c/d"));
        assert!(!pod.get(k::METADATA).get(k::FINALIZERS).exists());
    }
}
