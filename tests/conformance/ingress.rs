//! network/ingress.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{assert_same, int, play, text, with};

fn ingress(name: &str) -> Doc {
    let paths = doc!([{ "path": "/", "pathType": "Prefix",
        "backend": { "service": { "name": "default-backend", "port": { "number": 80 } } } }]);
    let backend = doc!({ "service": { "name": "default-backend", "port": { "number": 80 } } });
    let mut rule = doc!({ "host": "foo.bar.com" });
    rule.edit().at(k::HTTP).set(k::PATHS, paths);
    let mut ingress = with(doc!({ "metadata": { "generateName": name } }), "spec.defaultBackend", &backend);
    ingress.edit().at(k::SPEC).list(k::RULES).push(rule);
    ingress
}

#[test]
fn ingresses_are_operated() {
    play(|c| async move {
        c.operates("networking.k8s.io", "ingresses", true, &ingress("e2e-example-ing")).await;

        let at = c.at("/apis/networking.k8s.io/v1", "ingresses");
        let made = c.post(&at, &ingress("status-")).await.ok();
        let status = format!("{at}/{}/status", text(&made, "metadata.name"));
        let patch = doc!({ "metadata": { "annotations": { "patchedstatus": "true" } },
            "status": { "loadBalancer": { "ingress": [{ "ip": "169.1.1.1" }] } } });
        let patched = c.patch(&status, "merge", &patch).await.ok();
        assert_same(patched.get(k::STATUS), patch.get(k::STATUS));
        assert_eq!(text(&patched, "metadata.annotations.patchedstatus"), "true");
        let balancer = doc!({ "ingress": [{ "ip": "169.1.1.2" }] });
        let set = |ingress: Edit<'_>| _ = ingress.at(k::STATUS).set(k::LOAD_BALANCER, &balancer);
        let updated = c.update(&status, set).await;
        assert_same(updated.root().find("status.loadBalancer"), balancer.root());
        let read = c.get(&status).await.ok();
        assert_same(read.root().find("status.loadBalancer"), balancer.root());
        assert_same(read.get(k::SPEC), made.get(k::SPEC));
        assert_eq!(int(&read, "metadata.generation"), 1);
    });
}
