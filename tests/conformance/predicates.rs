//! scheduling/predicates.go

use apimachinery::quantity::Quantity;
use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, condition, play, pod, text, with};

const HOSTNAME: &str = "kubernetes.io/hostname";

/// Waits until the pod runs; the node it is on.
async fn placed(c: &Cluster, name: &str) -> String {
    let pod =
        c.until_one(&c.at("/api/v1", "pods"), name, "it runs", |p| condition(p, "Ready") == "True").await;
    text(&pod, "spec.nodeName").to_owned()
}

/// Waits until the scheduler has said that the pod has no place, and a while longer; what it said.
async fn not_placed(c: &Cluster, name: &str) -> String {
    let at = c.at("/api/v1", "pods");
    c.until_one(&at, name, "it has no place", |pod| condition(pod, "PodScheduled") == "False").await;
    base::time::sleep(std::time::Duration::from_secs(60)).await;
    let pod = c.get(&format!("{at}/{name}")).await.ok();
    assert_eq!((text(&pod, "spec.nodeName"), text(&pod, "status.phase")), ("", "Pending"));
    let conditions = pod.root().find("status.conditions");
    let said = conditions.items().find(|c| c.get(k::TYPE).str() == "PodScheduled").expect("it was there");
    assert_eq!(said.get(k::REASON).str(), "Unschedulable");
    said.get(k::MESSAGE).str().to_owned()
}

fn on(pod: Doc, node: &str) -> Doc {
    with(pod, "spec.nodeSelector", doc!({ HOSTNAME: node }))
}

fn asking(mut pod: Doc, cpu_milli: i64) -> Doc {
    let asked = doc!({ "requests": { "cpu": format!("{cpu_milli}m") }, "limits": { "cpu": format!("{cpu_milli}m") } });
    pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::RESOURCES, &asked));
    pod
}

#[test]
fn pods_that_ask_for_more_than_there_is_are_not_placed() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let mut largest = 0;
        for node in c.list("/api/v1/nodes").await {
            let cpu =
                Quantity::parse(text(&node, "status.allocatable.cpu")).expect("a quantity").milli_value();
            let name = text(&node, "metadata.name");
            let filler = format!("filler-{name}");
            c.post(&at, &on(asking(pod(&filler, "filler"), cpu * 7 / 10), name)).await.ok();
            assert_eq!(placed(&c, &filler).await, name);
            largest = largest.max(cpu);
        }
        c.post(&at, &asking(pod("additional", "additional"), largest / 2)).await.ok();
        let said = not_placed(&c, "additional").await;
        assert!(said.starts_with("0/2 nodes are available: 2 Insufficient cpu."), "{said}");
        // What fits is placed all the same.
        c.post(&at, &asking(pod("fits", "fits"), largest / 10)).await.ok();
        placed(&c, "fits").await;
    });
}

#[test]
fn a_node_selector_that_matches_nothing_keeps_a_pod_waiting() {
    play(|c| async move {
        let selecting = with(pod("restricted", "restricted"), "spec.nodeSelector.label", "nonempty");
        c.post(&c.at("/api/v1", "pods"), &selecting).await.ok();
        let said = not_placed(&c, "restricted").await;
        assert!(said.contains("didn't match Pod's node affinity/selector"), "{said}");
    });
}

#[test]
fn a_node_selector_that_matches_places_a_pod_there() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        for (name, node) in [("one", "n1"), ("two", "n2")] {
            let patch = doc!({ "metadata": { "labels": { "e2e-label": name } } });
            c.patch(&format!("/api/v1/nodes/{node}"), "strategic-merge", &patch).await.ok();
            c.post(&at, &with(pod(name, name), "spec.nodeSelector.e2e-label", name)).await.ok();
            assert_eq!(placed(&c, name).await, node);
        }
    });
}
