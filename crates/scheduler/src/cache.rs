//! Which pods are where: what the API says, and beyond it the assumed pods, which have been given a node whose binding
//! is not yet seen.
//!
//! An assumed pod stays until its binding is seen, it is gone, or the binding failed; it never expires by time (so
//! upstream's default), because the watch tells all of these. Upstream: pkg/scheduler/backend/cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::ObjectKey;

use crate::info::{Node, NodeInfo, PodInfo};

/// Nodes with their pods.
#[derive(Debug, Default)]
pub struct Cache {
    // Invariant: sorted by name, each name once; an entry without node has pods.
    nodes: Vec<NodeInfo>,
    // Invariant: each of these is on the node that its entry names.
    pods: BTreeMap<ObjectKey, Known>,
}

#[derive(Debug)]
struct Known {
    pod: Arc<PodInfo>,
    node: String,
    assumed: bool,
}

/// All nodes at the moment a pod is placed: nothing changes them until it has its place.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    nodes: &'a [NodeInfo],
}

// === impl Snapshot ===

impl<'a> Snapshot<'a> {
    /// Nodes whose object is known, by name.
    pub fn iter(self) -> impl Iterator<Item = (&'a NodeInfo, &'a Node)> {
        self.nodes.iter().filter_map(|info| Some((info, info.node.as_ref()?)))
    }

    /// The same, beginning with the one at `start` and around.
    pub fn iter_from(self, start: usize) -> impl Iterator<Item = (&'a NodeInfo, &'a Node)> {
        let (before, after) = self.nodes.split_at(start.min(self.nodes.len()));
        after.iter().chain(before).filter_map(|info| Some((info, info.node.as_ref()?)))
    }

    /// How many there are.
    pub fn len(self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.iter().next().is_none()
    }
}

// === impl Cache ===

impl Cache {
    /// The nodes as they are now.
    pub fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { nodes: &self.nodes }
    }

    /// A node's object has come or changed; gives what it was.
    pub fn set_node(&mut self, node: Node) -> Option<Node> {
        let at = self.entry(&node.name);
        self.nodes[at].node.replace(node)
    }

    /// A node's object is gone. Its pods are remembered until they are gone, too.
    pub fn remove_node(&mut self, name: &str) {
        if let Ok(at) = self.find(name) {
            self.nodes[at].node = None;
            self.tidy(at);
        }
    }

    /// A node's object.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes[self.find(name).ok()?].node.as_ref()
    }

    /// The pod on a node under this key, assumed or bound.
    pub fn pod(&self, key: &ObjectKey) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|known| &known.pod)
    }

    /// Whether a pod waits for its binding to be seen.
    pub fn is_assumed(&self, key: &ObjectKey) -> bool {
        self.pods.get(key).is_some_and(|known| known.assumed)
    }

    /// Counts a pod as being on `node` from now on.
    ///
    /// # Panics
    /// When it is on a node already.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &str) {
        self.put(pod, node, true);
    }

    /// A bound pod, as seen; in place of what was known of it.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>) {
        self.remove_pod(&pod.key);
        let node = pod.node_name.clone();
        self.put(pod, &node, false);
    }

    /// A pod is gone or has ended, or its binding failed; gives what was known of it.
    pub fn remove_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodInfo>> {
        let known = self.pods.remove(key)?;
        let at = self.find(&known.node).expect("a pod's node has an entry");
        self.nodes[at].remove(key);
        self.tidy(at);
        Some(known.pod)
    }

    fn put(&mut self, pod: Arc<PodInfo>, node: &str, assumed: bool) {
        let at = self.entry(node);
        self.nodes[at].add(pod.clone());
        let known = Known { pod: pod.clone(), node: node.to_owned(), assumed };
        let old = self.pods.insert(pod.key.clone(), known);
        assert!(old.is_none(), "a pod is on one node");
    }

    fn find(&self, name: &str) -> Result<usize, usize> {
        self.nodes.binary_search_by(|info| info.name.as_str().cmp(name))
    }

    fn entry(&mut self, name: &str) -> usize {
        self.find(name).unwrap_or_else(|at| {
            self.nodes.insert(at, NodeInfo::new(name));
            at
        })
    }

    fn tidy(&mut self, at: usize) {
        if self.nodes[at].node.is_none() && self.nodes[at].pods.is_empty() {
            self.nodes.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    fn pod(name: &str, node: &str, cpu: &str) -> Arc<PodInfo> {
        let doc = doc!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": { "nodeName": node,
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": cpu } } }] } });
        Arc::new(PodInfo::of(&doc))
    }

    #[test]
    fn pods_are_counted_once_from_assumption_to_removal() {
        let mut cache = Cache::default();
        cache.set_node(Node { name: "n1".into(), ..Node::default() });
        let requested =
            |c: &Cache| c.snapshot().iter().map(|(i, _)| i.requested.milli_cpu).collect::<Vec<_>>();
        cache.assume(pod("a", "", "100m"), "n1");
        assert!(cache.is_assumed(&ObjectKey::new("ns", "a")));
        cache.set_pod(pod("a", "n1", "100m"));
        assert!(!cache.is_assumed(&ObjectKey::new("ns", "a")));
        cache.set_pod(pod("b", "n1", "50m"));
        assert_eq!(requested(&cache), [150]);
        cache.set_pod(pod("b", "n1", "20m"));
        assert_eq!(requested(&cache), [120]);
        // The node goes, its pods stay until they go, and count when it returns.
        cache.remove_node("n1");
        assert!(cache.snapshot().is_empty());
        cache.remove_pod(&ObjectKey::new("ns", "a"));
        cache.set_node(Node { name: "n1".into(), ..Node::default() });
        assert_eq!(requested(&cache), [20]);
        cache.remove_pod(&ObjectKey::new("ns", "b"));
        cache.remove_node("n1");
        assert!(cache.nodes.is_empty() && cache.pods.is_empty());
    }
}
