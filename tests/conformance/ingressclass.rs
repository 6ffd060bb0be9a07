//! network/ingressclass.go

use apimachinery::doc;

use crate::cluster::play;

#[test]
fn ingress_classes_are_operated() {
    play(|c| async move {
        let class = doc!({ "metadata": { "generateName": "e2e-example-class" },
            "spec": { "controller": "example.com/controller" } });
        c.operates("networking.k8s.io", "ingressclasses", false, &class).await;
    });
}
