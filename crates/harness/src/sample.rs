//! The least of each kind that is accepted.

use api::Kind;
use apimachinery::{Doc, doc, k};

/// The least that each kind accepts beyond names.
pub fn sample(kind: &Kind, path: &str, name: &str) -> Doc {
    let container = doc!({ "name": "c", "image": "i" });
    let mut template = doc!({ "metadata": { "labels": { "a": "b" } } });
    template.edit().at(k::SPEC).list(k::CONTAINERS).push(&container);
    let mut out = doc!({ "metadata": { "name": name } });
    let selector = doc!({ "matchLabels": { "a": "b" } });
    let mut edit = out.edit();
    match &*kind.kind {
        "Pod" => {
            edit.at(k::SPEC).list(k::CONTAINERS).push(&container);
        }
        "Deployment" | "ReplicaSet" => {
            edit.at(k::SPEC).set(k::SELECTOR, &selector).set(k::TEMPLATE, &template);
        }
        "ReplicationController" => {
            edit.at(k::SPEC).set(k::TEMPLATE, &template);
        }
        "PodTemplate" => {
            edit.set(k::TEMPLATE, &template);
        }
        "Service" => {
            edit.at(k::SPEC).list(k::PORTS).push(doc!({ "port": 80 }));
        }
        "Event" if path.contains("events.k8s.io") => {
            edit.set(k::REGARDING, doc!({ "kind": "Pod", "name": "p", "namespace": "default" }));
            edit.set("reportingController", "example.com/c")
                .set("reportingInstance", "c-1")
                .set("action", "Act")
                .set("reason", "Because");
            edit.set("type", "Normal").set("eventTime", "2026-01-01T00:00:00.000000Z");
        }
        "Event" => {
            edit.set(k::INVOLVED_OBJECT, doc!({ "kind": "Pod", "name": "p", "namespace": "default" }));
        }
        "EndpointSlice" => {
            edit.set(k::ADDRESS_TYPE, "IPv4").set(k::ENDPOINTS, Doc::array());
        }
        "IPAddress" => {
            edit.at(k::SPEC)
                .set(k::PARENT_REF, doc!({ "resource": "services", "namespace": "default", "name": "s" }));
        }
        "RoleBinding" | "ClusterRoleBinding" => {
            edit.set(
                k::ROLE_REF,
                doc!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r" }),
            );
        }
        "Lease" => {
            edit.at(k::SPEC);
        }
        "PriorityClass" => {
            edit.set(k::VALUE, 5);
        }
        "IngressClass" => {
            edit.at(k::SPEC).set(k::CONTROLLER, "example.com/c");
        }
        "Ingress" => {
            let service = doc!({ "name": "s", "port": { "number": 80 } });
            edit.at(k::SPEC).at(k::DEFAULT_BACKEND).set(k::SERVICE, service);
        }
        "RuntimeClass" => {
            edit.set(k::HANDLER, "h");
        }
        "ServiceCIDR" => {
            edit.at(k::SPEC).set("cidrs", vec!["10.250.0.0/16"]);
        }
        _ => {}
    }
    out
}

/// One of the names that objects of a kind may have.
pub fn name(kind: &Kind, n: u8) -> String {
    if kind.kind == "IPAddress" { format!("10.96.3.{n}") } else { format!("x{n}") }
}
