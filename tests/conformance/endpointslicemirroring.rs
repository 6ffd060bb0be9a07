//! network/endpointslicemirroring.go

use apimachinery::{Doc, doc, k};

use crate::cluster::{play, text};

#[test]
fn endpoints_kept_by_hand_are_mirrored() {
    play(|c| async move {
        c.is_discovered("discovery.k8s.io", "v1", "endpointslices").await;
        let service = doc!({ "metadata": { "name": "example-custom-endpoints" },
            "spec": { "ports": [{ "name": "example", "port": 80, "protocol": "TCP" }] } });
        c.post(&c.at("/api/v1", "services"), &service).await.ok();
        let at = c.at("/api/v1", "endpoints");
        let one = format!("{at}/example-custom-endpoints");
        let endpoints = |ip: &str| {
            doc!({ "metadata": { "name": "example-custom-endpoints" }, "subsets": [{
                "addresses": [{ "ip": ip }], "ports": [{ "port": 80 }] }] })
        };
        c.post(&at, &endpoints("10.1.2.3")).await.ok();
        let slices = c.at("/apis/discovery.k8s.io/v1", "endpointslices");
        let uri = format!("{slices}?labelSelector=kubernetes.io/service-name%3Dexample-custom-endpoints");
        let shows = |slice: &Doc, ip: &str| {
            let all = slice.get(k::ENDPOINTS);
            all.len() == 1 && all.item(0).get(k::ADDRESSES).to_doc() == doc!([ip])
        };
        let mirrored = c
            .until(&uri, "it is mirrored", |all| all.len() == 1 && all.values().all(|s| shows(s, "10.1.2.3")))
            .await;
        let slice = mirrored.values().next().expect("there is one");
        let labels = slice.root().find("metadata.labels");
        let manager = labels.get("endpointslice.kubernetes.io/managed-by").str();
        assert_eq!(manager, "endpointslicemirroring-controller.k8s.io");
        assert_eq!(slice.get(k::PORTS).item(0).get(k::PORT).i64(), 80);
        assert!(slice.get(k::ENDPOINTS).item(0).find("conditions.ready").bool());

        c.update(&one, |mut e| _ = e.set("subsets", endpoints("10.2.3.4").get("subsets"))).await;
        let updated = c
            .until(&uri, "the update is mirrored", |all| {
                all.len() == 1 && all.values().all(|s| shows(s, "10.2.3.4"))
            })
            .await;
        let again = updated.values().next().expect("there is one");
        assert_eq!(text(again, "metadata.uid"), text(slice, "metadata.uid"));

        c.delete(&one).await.ok();
        c.until_none(&uri, "the deletion is mirrored").await;
    });
}
