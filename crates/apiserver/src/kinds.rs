//! The table of served kinds: looked up by every request, replaced as a whole when a definition changes.

use std::sync::Arc;

use api::Kind;
use apimachinery::gvk::{GroupResource, GroupVersion, Gvr};
use arc_swap::ArcSwap;
use base::hash::Map;

/// The served kinds.
pub struct Kinds(ArcSwap<Table>);

/// One state of the served kinds.
#[derive(Default)]
pub struct Table {
    all: Vec<Arc<Kind>>,
    served: Map<Gvr, (usize, usize)>,
    stored: Map<GroupResource, usize>,
}

impl Kinds {
    /// A table of these kinds, in the order of discovery.
    pub fn new(all: Vec<Arc<Kind>>) -> Kinds {
        Kinds(ArcSwap::from_pointee(Table::new(all)))
    }

    /// The present state.
    pub fn table(&self) -> Arc<Table> {
        self.0.load_full()
    }

    /// Replaces the table.
    pub fn replace(&self, all: Vec<Arc<Kind>>) {
        self.0.store(Arc::new(Table::new(all)));
    }

    /// The kind that serves a resource, with the index of the version asked for.
    pub fn served(&self, gvr: &Gvr) -> Option<(Arc<Kind>, usize)> {
        let table = self.0.load();
        let (kind, version) = table.served.get(gvr)?;
        Some((table.all[*kind].clone(), *version))
    }

    /// The kind whose objects are stored as this resource.
    pub fn stored(&self, resource: &GroupResource) -> Option<Arc<Kind>> {
        let table = self.0.load();
        table.stored.get(resource).map(|i| table.all[*i].clone())
    }
}

impl Table {
    fn new(all: Vec<Arc<Kind>>) -> Table {
        let mut table = Table { all, ..Table::default() };
        for (i, kind) in table.all.iter().enumerate() {
            for (j, version) in kind.versions.iter().enumerate() {
                let GroupVersion { group, version } = version.gv.clone();
                let gvr = Gvr { group, version, resource: kind.storage.resource.clone() };
                table.served.entry(gvr).or_insert((i, j));
            }
            table.stored.entry(kind.storage.clone()).or_insert(i);
        }
        table
    }

    /// All kinds in the order of discovery.
    pub fn all(&self) -> &[Arc<Kind>] {
        &self.all
    }
}
