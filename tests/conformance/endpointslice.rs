//! network/endpointslice.go

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::{Doc, doc, k};

use crate::cluster::{Cluster, is_controlled_by, play, pod, text};

#[test]
fn endpoint_slices_are_operated() {
    play(|c| async move {
        let slice = doc!({ "metadata": { "generateName": "slice-" }, "addressType": "IPv4", "endpoints": [
            { "addresses": ["1.2.3.4", "5.6.7.8"] }, { "addresses": ["2.2.3.4", "6.6.7.8"] }] });
        c.operates("discovery.k8s.io", "endpointslices", true, &slice).await;
    });
}

/// The one slice of a Service, once `test` holds of it.
async fn slice(c: &Cluster, service: &str, what: &str, test: impl Fn(&Doc) -> bool) -> Doc {
    let at = c.at("/apis/discovery.k8s.io/v1", "endpointslices");
    let uri = format!("{at}?labelSelector=kubernetes.io/service-name%3D{service}");
    let mut all = c.until(&uri, what, |all| all.len() == 1 && all.values().all(&test)).await;
    all.pop_first().expect("there is one").1
}

#[test]
fn the_api_servers_are_endpoints() {
    play(|c| async move {
        c.is_discovered("discovery.k8s.io", "v1", "endpointslices").await;
        c.get("/api/v1/namespaces/default/services/kubernetes").await.ok();
        let endpoints = c.get("/api/v1/namespaces/default/endpoints/kubernetes").await.ok();
        let uri = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices?labelSelector=kubernetes.io/service-name%3Dkubernetes";
        let slices = c.list(uri).await;
        let [slice] = slices.as_slice() else { panic!("{slices:?}") };
        let subsets = endpoints.get("subsets");
        assert_eq!(subsets.len(), 1);
        // The address that the cluster was started with.
        let listed: Vec<&str> =
            subsets.item(0).get(k::ADDRESSES).items().map(|a| a.get(k::IP).str()).collect();
        assert_eq!(listed, ["192.0.2.100"]);
        let sliced: Vec<&str> =
            slice.get(k::ENDPOINTS).items().map(|e| e.get(k::ADDRESSES).item(0).str()).collect();
        assert_eq!(sliced, listed);
        for ports in [subsets.item(0).get(k::PORTS), slice.get(k::PORTS)] {
            assert_eq!(ports.to_doc(), doc!([{ "name": "https", "port": 6443, "protocol": "TCP" }]));
        }
    });
}

#[test]
fn a_service_that_selects_nothing_has_empty_endpoints() {
    play(|c| async move {
        c.is_discovered("discovery.k8s.io", "v1", "endpointslices").await;
        let services = c.at("/api/v1", "services");
        let made = doc!({ "metadata": { "name": "example-empty-selector" }, "spec": {
            "selector": { "does-not-match-anything": "all-the-same" },
            "ports": [{ "name": "example", "port": 80, "protocol": "TCP" }] } });
        let made = c.post(&services, &made).await.ok();
        let at = c.at("/api/v1", "endpoints");
        let endpoints = c.until_one(&at, "example-empty-selector", "endpoints are made", |_| true).await;
        assert!(endpoints.get("subsets").is_empty());
        let slice = slice(&c, "example-empty-selector", "a slice is made", |_| true).await;
        let labels = slice.root().find("metadata.labels");
        assert_eq!(
            labels.get("endpointslice.kubernetes.io/managed-by").str(),
            "endpointslice-controller.k8s.io"
        );
        assert!(slice.get(k::ENDPOINTS).is_empty());
        assert!(is_controlled_by(&slice, text(&made, "metadata.uid")));

        c.delete(&format!("{services}/example-empty-selector")).await.ok();
        c.until_none(&format!("{at}?fieldSelector=metadata.name%3Dexample-empty-selector"), "endpoints go")
            .await;
        let slices = c.at("/apis/discovery.k8s.io/v1", "endpointslices");
        c.until_none(&slices, "slices go").await;
    });
}

/// That a Service's endpoints are these pods, on the port that each has, in both forms.
async fn leads_to(c: &Cluster, service: &str, pods: &[(&Doc, i64)], slices: usize) {
    let expected: BTreeSet<(String, i64)> =
        pods.iter().map(|(pod, port)| (text(pod, "status.podIP").to_owned(), *port)).collect();
    let endpoints = |e: &Doc| -> BTreeSet<(String, i64)> {
        let subsets = e.get("subsets").items();
        let all = subsets.flat_map(|s| {
            let ports = s.get(k::PORTS).items();
            ports.flat_map(move |p| {
                s.get(k::ADDRESSES)
                    .items()
                    .map(move |a| (a.get(k::IP).str().to_owned(), p.get(k::PORT).i64()))
            })
        });
        all.collect()
    };
    c.until_one(&c.at("/api/v1", "endpoints"), service, "endpoints", |e| endpoints(e) == expected).await;
    let at = c.at("/apis/discovery.k8s.io/v1", "endpointslices");
    let uri = format!("{at}?labelSelector=kubernetes.io/service-name%3D{service}");
    let sliced = |all: &BTreeMap<String, Doc>| -> BTreeSet<(String, i64)> {
        let of = |slice: &Doc| -> Vec<(String, i64)> {
            let port = slice.get(k::PORTS).item(0).get(k::PORT).i64();
            slice
                .get(k::ENDPOINTS)
                .items()
                .map(|e| (e.get(k::ADDRESSES).item(0).str().to_owned(), port))
                .collect()
        };
        all.values().flat_map(of).collect()
    };
    let all = c.until(&uri, "slices", |all| all.len() == slices && sliced(all) == expected).await;
    for endpoint in all.values().flat_map(|slice| slice.get(k::ENDPOINTS).items()) {
        assert!(endpoint.find("conditions.ready").bool());
        let target = endpoint.get(k::TARGET_REF);
        let (pod, _) =
            pods.iter().find(|(p, _)| text(p, "metadata.uid") == target.get(k::UID).str()).expect("one");
        assert_eq!(target.get(k::NAME).str(), text(pod, "metadata.name"));
        assert_eq!(endpoint.get(k::NODE_NAME).str(), text(pod, "spec.nodeName"));
    }
}

#[test]
fn the_endpoints_of_a_service_are_its_pods() {
    play(|c| async move {
        c.is_discovered("discovery.k8s.io", "v1", "endpointslices").await;
        let pods = c.at("/api/v1", "pods");
        for (name, ports) in [
            ("pod1", doc!([{ "name": "example-name", "containerPort": 3000 }])),
            (
                "pod2",
                doc!([{ "name": "example-name", "containerPort": 3001 }, { "name": "other-port", "containerPort": 3002 }]),
            ),
        ] {
            let mut pod = pod(name, name);
            pod.edit().at(k::METADATA).at(k::LABELS).set(name, "on").set("shared12", "on");
            pod.edit().at(k::SPEC).list(k::CONTAINERS).for_each(|mut c| _ = c.set(k::PORTS, &ports));
            c.post(&pods, &pod).await.ok();
        }
        for (name, label, port, target) in [
            ("example-int-port", "pod1", "example", doc!({ "to": 3000 })),
            ("example-named-port", "shared12", "http", doc!({ "to": "example-name" })),
            ("example-no-match", "pod3", "example-no-match", doc!({ "to": 8080 })),
        ] {
            let mut service = doc!({ "metadata": { "name": name }, "spec": { "selector": { label: "on" },
                "publishNotReadyAddresses": true } });
            let mut one = doc!({ "name": port, "port": 80, "protocol": "TCP" });
            one.edit().set(k::TARGET_PORT, target.get("to"));
            service.edit().at(k::SPEC).list(k::PORTS).push(one);
            c.post(&c.at("/api/v1", "services"), &service).await.ok();
        }
        let addressed = |pod: &Doc| !text(pod, "status.podIP").is_empty();
        let pod1 = c.until_one(&pods, "pod1", "it has an address", addressed).await;
        let pod2 = c.until_one(&pods, "pod2", "it has an address", addressed).await;

        leads_to(&c, "example-int-port", &[(&pod1, 3000)], 1).await;
        leads_to(&c, "example-named-port", &[(&pod1, 3000), (&pod2, 3001)], 2).await;
        leads_to(&c, "example-no-match", &[], 1).await;

        let slices = c.at("/apis/discovery.k8s.io/v1", "endpointslices");
        let uri = format!("{slices}?labelSelector=kubernetes.io/service-name%3Dexample-named-port");
        let old = c.list(&uri).await;
        c.delete(&uri).await.ok();
        let is_old = |slice: &Doc| old.iter().any(|o| text(o, "metadata.uid") == text(slice, "metadata.uid"));
        c.until(&uri, "the old ones are gone", |all| !all.values().any(is_old)).await;
        leads_to(&c, "example-named-port", &[(&pod1, 3000), (&pod2, 3001)], 2).await;
    });
}
