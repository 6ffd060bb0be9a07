//! What the generated views are made of: a view is a [`Ref`] that knows its type, so it costs nothing to make or copy.
//!
//! Reading never fails: what is absent, null or of another type reads as Go's zero value (or `None` where upstream has
//! a pointer to a scalar). Whether a struct is there at all is `exists()`.
use crate::doc::Ref;

/// Anything that can be read from a place in a document.
pub trait View<'a>: From<Ref<'a>> + Copy {}

impl<'a, T: From<Ref<'a>> + Copy> View<'a> for T {}

/// A list. Absent and null lists are empty.
#[derive(Clone, Copy)]
pub struct List<'a, V> {
    /// The place in the document.
    pub node: Ref<'a>,
    item: std::marker::PhantomData<fn() -> V>,
}

/// A map with string keys. Absent and null maps are empty.
#[derive(Clone, Copy)]
pub struct Map<'a, V> {
    /// The place in the document.
    pub node: Ref<'a>,
    value: std::marker::PhantomData<fn() -> V>,
}

/// `map[string]string`, and maps of other values that are strings in JSON (quantities, bytes in base64).
pub type StrMap<'a> = Map<'a, &'a str>;

// === impl List ===

impl<'a, V> From<Ref<'a>> for List<'a, V> {
    fn from(node: Ref<'a>) -> Self {
        List { node, item: std::marker::PhantomData }
    }
}

impl<'a, V: View<'a>> List<'a, V> {
    /// The items in order.
    pub fn iter(self) -> impl Iterator<Item = V> + 'a
    where
        V: 'a,
    {
        self.node.items().map(V::from)
    }

    /// Number of items; walks the list.
    pub fn len(self) -> usize {
        self.node.items().count()
    }

    /// No items.
    pub fn is_empty(self) -> bool {
        self.node.items().next().is_none()
    }

    /// An item by position.
    pub fn get(self, index: usize) -> Option<V> {
        self.node.items().nth(index).map(V::from)
    }

    /// The first item.
    pub fn first(self) -> Option<V> {
        self.get(0)
    }

    /// The first item for which the test holds.
    pub fn find(self, mut test: impl FnMut(V) -> bool) -> Option<V> {
        self.node.items().map(V::from).find(|item| test(*item))
    }
}

impl<'a, V: View<'a> + PartialEq> List<'a, V> {
    /// One of the items equals this one.
    pub fn contains(self, wanted: V) -> bool {
        self.node.items().any(|item| V::from(item) == wanted)
    }
}

// === impl Map ===

impl<'a, V> From<Ref<'a>> for Map<'a, V> {
    fn from(node: Ref<'a>) -> Self {
        Map { node, value: std::marker::PhantomData }
    }
}

impl<'a, V: View<'a>> Map<'a, V> {
    /// The entries in document order.
    pub fn iter(self) -> impl Iterator<Item = (&'a str, V)> + 'a
    where
        V: 'a,
    {
        self.node.entries().map(|(key, value)| (key, V::from(value)))
    }

    /// The value of a key.
    pub fn get(self, key: &str) -> Option<V> {
        self.node.entries().find(|(k, _)| *k == key).map(|(_, value)| V::from(value))
    }

    /// The key is there.
    pub fn contains_key(self, key: &str) -> bool {
        self.node.entries().any(|(k, _)| k == key)
    }

    /// Number of entries; walks the map.
    pub fn len(self) -> usize {
        self.node.entries().count()
    }

    /// No entries.
    pub fn is_empty(self) -> bool {
        self.node.entries().next().is_none()
    }
}

/// A scalar that the document holds, or Go's zero value.
macro_rules! scalars {
    ($($ty:ty: $read:ident, $read_opt:ident;)*) => {$(
        impl<'a> From<Ref<'a>> for $ty {
            fn from(node: Ref<'a>) -> Self {
                node.$read()
            }
        }

        impl<'a> From<Ref<'a>> for Option<$ty> {
            fn from(node: Ref<'a>) -> Self {
                node.$read_opt()
            }
        }
    )*};
}

scalars! {
    &'a str: str, opt_str;
    i64: i64, opt_i64;
    bool: bool, opt_bool;
}

#[cfg(test)]
mod tests {
    use crate::schema::views::Pod;

    #[test]
    fn views_read_what_is_there_and_zero_values_elsewhere() {
        let doc = crate::doc!({
            "metadata": {"name": "a", "labels": {"app": "x"}, "finalizers": ["f", "g"]},
            "spec": {
                "containers": [{"name": "c", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}],
                "priority": 0, "hostNetwork": true, "nodeName": 5,
            },
        });
        let pod = Pod(doc.root());
        let (meta, spec) = (pod.metadata(), pod.spec());
        assert_eq!((meta.name(), meta.namespace(), meta.labels().get("app")), ("a", "", Some("x")));
        assert!(meta.finalizers().contains("g") && !meta.finalizers().contains("h"));
        assert_eq!(
            (spec.priority(), spec.active_deadline_seconds(), spec.host_network()),
            (Some(0), None, true)
        );
        assert_eq!(spec.node_name(), "", "a number is no string");
        assert!(!spec.security_context().exists() && !spec.affinity().node_affinity().exists());
        let container = spec.containers().find(|c| c.name() == "c").expect("it is there");
        assert_eq!(container.ports().first().map(|p| p.container_port()), Some(80));
        assert_eq!(container.resources().limits().iter().collect::<Vec<_>>(), [("cpu", "1")]);
        assert_eq!((spec.volumes().len(), spec.containers().len(), pod.status().phase()), (0, 1, ""));
    }
}
