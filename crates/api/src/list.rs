//! The explicit, ordered list of built-in kinds. Discovery follows this order within a group.

use std::sync::Arc;

use apimachinery::GroupVersion;
use apimachinery::call::Verb;

use crate::kind::*;

/// Every built-in kind, virtual ones included.
pub fn kinds() -> Vec<Arc<Kind>> {
    let all: Vec<Kind> = vec![
        Kind::new_virtual("", "v1", "bindings", "Binding"),
        Kind { short: names(&["cm"]), ..Kind::new("", "v1", "configmaps", "ConfigMap") },
        Kind {
            short: names(&["ep"]),
            key_prefix: "/registry/services/endpoints".into(),
            ..Kind::new("", "v1", "endpoints", "Endpoints")
        },
        Kind {
            short: names(&["ev"]),
            class: Class::Lazy,
            ttl_seconds: 3600,
            ..Kind::new("", "v1", "events", "Event")
        },
        Kind { short: names(&["limits"]), ..Kind::new("", "v1", "limitranges", "LimitRange") },
        Kind {
            short: names(&["ns"]),
            scope: Scope::Cluster,
            subresources: vec![Sub::new("finalize", SubKind::Finalize, "", &[Verb::Update]), Sub::STATUS],
            ..Kind::new("", "v1", "namespaces", "Namespace")
        },
        Kind {
            short: names(&["no"]),
            scope: Scope::Cluster,
            key_prefix: "/registry/minions".into(),
            subresources: vec![Sub::STATUS],
            ..Kind::new("", "v1", "nodes", "Node")
        },
        Kind {
            short: names(&["po"]),
            categories: names(&["all"]),
            subresources: vec![
                Sub::new("binding", SubKind::Binding, "Binding", CREATE_ONLY),
                Sub::new("log", SubKind::Log, "", &[Verb::Get]),
                Sub::STATUS,
            ],
            ..Kind::new("", "v1", "pods", "Pod")
        },
        Kind {
            short: names(&["quota"]),
            subresources: vec![Sub::STATUS],
            ..Kind::new("", "v1", "resourcequotas", "ResourceQuota")
        },
        Kind::new("", "v1", "secrets", "Secret"),
        Kind {
            short: names(&["sa"]),
            subresources: vec![Sub {
                gv: Some(GroupVersion::new("authentication.k8s.io", "v1")),
                ..Sub::new("token", SubKind::Token, "TokenRequest", CREATE_ONLY)
            }],
            ..Kind::new("", "v1", "serviceaccounts", "ServiceAccount")
        },
        Kind {
            short: names(&["svc"]),
            categories: names(&["all"]),
            key_prefix: "/registry/services/specs".into(),
            subresources: vec![Sub::STATUS],
            ..Kind::new("", "v1", "services", "Service")
        },
        Kind {
            short: names(&["deploy"]),
            categories: names(&["all"]),
            subresources: vec![Sub::SCALE, Sub::STATUS],
            ..Kind::new("apps", "v1", "deployments", "Deployment")
        },
        Kind {
            short: names(&["rs"]),
            categories: names(&["all"]),
            subresources: vec![Sub::SCALE, Sub::STATUS],
            ..Kind::new("apps", "v1", "replicasets", "ReplicaSet")
        },
        Kind::new("coordination.k8s.io", "v1", "leases", "Lease"),
        Kind::new("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice"),
    ];
    all.into_iter().map(Arc::new).collect()
}
