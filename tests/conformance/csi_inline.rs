//! storage/csi_inline.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{assert_same, play, pod, text};

#[test]
fn pods_with_csi_volumes_are_kept() {
    play(|c| async move {
        let at = c.at("/api/v1", "pods");
        let one = format!("{at}/inline-driver");
        let selected = "labelSelector=name%3Dinline-driver";
        let csi = doc!({ "driver": "e2e.example.com", "readOnly": true, "volumeAttributes": { "attribute": "value" } });
        let mut volume = doc!({ "name": "csi-inline-vol" });
        volume.edit().set("csi", &csi);
        let mut pod = pod("inline-driver", "inline-driver");
        let mut spec = pod.edit().at(k::SPEC);
        spec.reborrow().list(k::VOLUMES).push(&volume);
        let mount = doc!({ "name": "csi-inline-vol", "mountPath": "/mnt" });
        let add = |container: Edit<'_>| _ = container.list(k::VOLUME_MOUNTS).push(&mount);
        spec.list(k::CONTAINERS).for_each(add);
        c.post(&at, &pod).await.ok();

        let has = |pod: &Doc| pod.root().find("spec.volumes").items().any(|v| v.same(volume.root()));
        let got = c.get(&one).await.ok();
        assert!(has(&got), "{}", String::from_utf8_lossy(&got.to_json()));
        for list in [format!("{at}?{selected}"), format!("/api/v1/pods?{selected}")] {
            let found = c.list(&list).await;
            assert!(found.len() == 1 && has(&found[0]), "{list}");
        }
        let patch = doc!({ "metadata": { "labels": { "test-pod": "patched" } } });
        let patched = c.patch(&one, "strategic-merge", &patch).await.ok();
        assert_eq!(text(&patched, "metadata.labels.test-pod"), "patched");
        assert_same(patched.root().find("spec.volumes"), got.root().find("spec.volumes"));
        c.delete(&one).await.ok();
        c.until_none(&format!("{at}?{selected}"), "it is deleted").await;
    });
}
