//! The roles and bindings that every cluster has, as data.
//!
//! Controllers' roles are not here: they follow from the controllers' own declarations.
//! Upstream: plugin/pkg/auth/authorizer/rbac/bootstrappolicy.

use apimachinery::{Doc, doc, k};

/// One rule: verbs, groups, resources. With no groups, the last list holds paths.
pub struct Rule(pub &'static [&'static str], pub &'static [&'static str], pub &'static [&'static str]);

/// A ClusterRole and who is bound to it in the whole cluster.
pub struct Policy {
    /// The role's name, and the binding's.
    pub name: &'static str,
    /// What it allows.
    pub rules: &'static [Rule],
    /// Users bound to it.
    pub users: &'static [&'static str],
    /// Groups bound to it.
    pub groups: &'static [&'static str],
    /// The label by which an aggregated role takes this one in, such as `admin`.
    pub aggregate_to: &'static str,
}

const ALL: &[&str] = &["*"];
const READ: &[&str] = &["get", "list", "watch"];
const WRITE: &[&str] = &["create", "delete", "deletecollection", "patch", "update"];
const CORE: &[&str] = &[""];

/// A role for administrators to bind.
const fn unbound(name: &'static str, rules: &'static [Rule]) -> Policy {
    Policy { name, rules, users: &[], groups: &[], aggregate_to: "" }
}

/// Every default role, in order.
pub const POLICIES: &[Policy] = &[
    Policy {
        name: "cluster-admin",
        rules: &[Rule(ALL, ALL, ALL), Rule(ALL, &[], ALL)],
        users: &[],
        groups: &["system:masters"],
        aggregate_to: "",
    },
    Policy {
        name: "system:discovery",
        rules: &[Rule(
            &["get"],
            &[],
            &[
                "/api",
                "/api/*",
                "/apis",
                "/apis/*",
                "/healthz",
                "/livez",
                "/openapi",
                "/openapi/*",
                "/readyz",
                "/version",
                "/version/",
            ],
        )],
        users: &[],
        groups: &["system:authenticated"],
        aggregate_to: "",
    },
    Policy {
        name: "system:public-info-viewer",
        rules: &[Rule(&["get"], &[], &["/healthz", "/livez", "/readyz", "/version", "/version/"])],
        users: &[],
        groups: &["system:authenticated", "system:unauthenticated"],
        aggregate_to: "",
    },
    Policy {
        name: "system:basic-user",
        rules: &[
            Rule(
                &["create"],
                &["authorization.k8s.io"],
                &["selfsubjectaccessreviews", "selfsubjectrulesreviews"],
            ),
            Rule(&["create"], &["authentication.k8s.io"], &["selfsubjectreviews"]),
        ],
        users: &[],
        groups: &["system:authenticated"],
        aggregate_to: "",
    },
    Policy {
        name: "system:service-account-issuer-discovery",
        rules: &[Rule(
            &["get"],
            &[],
            &[
                "/.well-known/openid-configuration",
                "/.well-known/openid-configuration/",
                "/openid/v1/jwks",
                "/openid/v1/jwks/",
            ],
        )],
        users: &[],
        groups: &["system:serviceaccounts"],
        aggregate_to: "",
    },
    Policy {
        name: "system:kube-scheduler",
        rules: &[
            Rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            Rule(
                READ,
                CORE,
                &[
                    "nodes",
                    "namespaces",
                    "services",
                    "replicationcontrollers",
                    "persistentvolumeclaims",
                    "persistentvolumes",
                ],
            ),
            Rule(&["delete", "get", "list", "watch"], CORE, &["pods"]),
            Rule(&["create"], CORE, &["bindings", "pods/binding"]),
            Rule(&["patch", "update"], CORE, &["pods/status"]),
            Rule(READ, &["apps"], &["replicasets", "statefulsets"]),
            Rule(READ, &["scheduling.k8s.io"], &["priorityclasses"]),
            Rule(
                &["create", "get", "update", "patch", "list", "watch"],
                &["coordination.k8s.io"],
                &["leases"],
            ),
        ],
        users: &["system:kube-scheduler"],
        groups: &[],
        aggregate_to: "",
    },
    Policy {
        name: "system:node-proxier",
        rules: &[
            Rule(&["list", "watch"], CORE, &["services", "endpoints"]),
            Rule(READ, CORE, &["nodes"]),
            Rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
            Rule(&["list", "watch"], &["discovery.k8s.io"], &["endpointslices"]),
            Rule(&["list", "watch"], &["networking.k8s.io"], &["servicecidrs"]),
        ],
        users: &["system:kube-proxy"],
        groups: &[],
        aggregate_to: "",
    },
    Policy {
        name: "system:kube-dns",
        rules: &[
            Rule(&["list", "watch"], CORE, &["endpoints", "services", "pods", "namespaces"]),
            Rule(&["list", "watch"], &["discovery.k8s.io"], &["endpointslices"]),
        ],
        users: &["system:kube-dns"],
        groups: &[],
        aggregate_to: "",
    },
    Policy {
        name: "system:monitoring",
        rules: &[Rule(
            &["get"],
            &[],
            &[
                "/healthz",
                "/healthz/*",
                "/livez",
                "/livez/*",
                "/metrics",
                "/metrics/slis",
                "/readyz",
                "/readyz/*",
            ],
        )],
        users: &[],
        groups: &["system:monitoring"],
        aggregate_to: "",
    },
    unbound(
        "system:auth-delegator",
        &[
            Rule(&["create"], &["authentication.k8s.io"], &["tokenreviews"]),
            Rule(&["create"], &["authorization.k8s.io"], &["subjectaccessreviews"]),
        ],
    ),
    unbound("system:kube-aggregator", &[Rule(READ, CORE, &["services", "endpoints"])]),
    unbound(
        "system:kubelet-api-admin",
        &[
            Rule(READ, CORE, &["nodes"]),
            Rule(&["proxy"], CORE, &["nodes"]),
            Rule(
                ALL,
                CORE,
                &[
                    "nodes/checkpoint",
                    "nodes/configz",
                    "nodes/healthz",
                    "nodes/log",
                    "nodes/metrics",
                    "nodes/pods",
                    "nodes/proxy",
                    "nodes/stats",
                ],
            ),
        ],
    ),
    unbound(
        "system:node-bootstrapper",
        &[Rule(
            &["create", "get", "list", "watch"],
            &["certificates.k8s.io"],
            &["certificatesigningrequests"],
        )],
    ),
    unbound(
        "system:node-problem-detector",
        &[
            Rule(&["get"], CORE, &["nodes"]),
            Rule(&["patch"], CORE, &["nodes/status"]),
            Rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        ],
    ),
    unbound(
        "system:persistent-volume-provisioner",
        &[
            Rule(&["create", "delete", "get", "list", "watch"], CORE, &["persistentvolumes"]),
            Rule(&["get", "list", "update", "watch"], CORE, &["persistentvolumeclaims"]),
            Rule(READ, &["storage.k8s.io"], &["storageclasses"]),
            Rule(&["get", "list", "watch"], CORE, &["nodes"]),
            Rule(&["create", "patch", "update"], &["", "events.k8s.io"], &["events"]),
        ],
    ),
    Policy {
        name: "system:aggregate-to-admin",
        rules: &[
            Rule(&["create"], &["authorization.k8s.io"], &["localsubjectaccessreviews"]),
            Rule(
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                &["rbac.authorization.k8s.io"],
                &["rolebindings", "roles"],
            ),
        ],
        users: &[],
        groups: &[],
        aggregate_to: "admin",
    },
    Policy {
        name: "system:aggregate-to-edit",
        rules: &[
            Rule(
                READ,
                CORE,
                &["pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "secrets", "services/proxy"],
            ),
            Rule(&["impersonate"], CORE, &["serviceaccounts"]),
            Rule(WRITE, CORE, &["pods", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy"]),
            Rule(&["create"], CORE, &["pods/eviction", "serviceaccounts/token"]),
            Rule(
                WRITE,
                CORE,
                &[
                    "configmaps",
                    "events",
                    "persistentvolumeclaims",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "secrets",
                    "serviceaccounts",
                    "services",
                    "services/proxy",
                ],
            ),
            Rule(
                WRITE,
                &["apps", "extensions"],
                &[
                    "daemonsets",
                    "deployments",
                    "deployments/rollback",
                    "deployments/scale",
                    "replicasets",
                    "replicasets/scale",
                    "statefulsets",
                    "statefulsets/scale",
                ],
            ),
            Rule(
                &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
                &["coordination.k8s.io"],
                &["leases"],
            ),
            Rule(WRITE, &["autoscaling"], &["horizontalpodautoscalers"]),
            Rule(WRITE, &["batch"], &["cronjobs", "jobs"]),
            Rule(WRITE, &["networking.k8s.io", "extensions"], &["ingresses", "networkpolicies"]),
            Rule(WRITE, &["policy"], &["poddisruptionbudgets"]),
        ],
        users: &[],
        groups: &[],
        aggregate_to: "edit",
    },
    Policy {
        name: "system:aggregate-to-view",
        rules: &[
            Rule(
                READ,
                CORE,
                &[
                    "bindings",
                    "configmaps",
                    "endpoints",
                    "events",
                    "limitranges",
                    "namespaces",
                    "namespaces/status",
                    "persistentvolumeclaims",
                    "persistentvolumeclaims/status",
                    "pods",
                    "pods/log",
                    "pods/status",
                    "replicationcontrollers",
                    "replicationcontrollers/scale",
                    "replicationcontrollers/status",
                    "resourcequotas",
                    "resourcequotas/status",
                    "serviceaccounts",
                    "services",
                    "services/status",
                ],
            ),
            Rule(READ, &["discovery.k8s.io"], &["endpointslices"]),
            Rule(
                READ,
                &["apps", "extensions"],
                &[
                    "controllerrevisions",
                    "daemonsets",
                    "daemonsets/status",
                    "deployments",
                    "deployments/scale",
                    "deployments/status",
                    "replicasets",
                    "replicasets/scale",
                    "replicasets/status",
                    "statefulsets",
                    "statefulsets/scale",
                    "statefulsets/status",
                ],
            ),
            Rule(READ, &["autoscaling"], &["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
            Rule(READ, &["batch"], &["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
            Rule(
                READ,
                &["networking.k8s.io", "extensions"],
                &["ingresses", "ingresses/status", "networkpolicies"],
            ),
            Rule(READ, &["policy"], &["poddisruptionbudgets", "poddisruptionbudgets/status"]),
        ],
        users: &[],
        groups: &[],
        aggregate_to: "view",
    },
];

/// The users' roles that are sums of others: name, the role that takes it in, and the parts that its rules come from
/// in the order of the roles' names.
pub const AGGREGATES: &[(&str, &str, &[&str])] = &[
    ("admin", "", &["edit", "view", "admin"]),
    ("edit", "admin", &["edit", "view"]),
    ("view", "edit", &["view"]),
];

fn rule(rule: &Rule) -> Doc {
    let Rule(verbs, groups, resources) = rule;
    if groups.is_empty() {
        return doc!({ "nonResourceURLs": resources, "verbs": verbs });
    }
    doc!({ "apiGroups": groups, "resources": resources, "verbs": verbs })
}

fn meta(kind: &str, name: &str) -> Doc {
    doc!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": {
        "name": name,
        "labels": { "kubernetes.io/bootstrapping": "rbac-defaults" },
        "annotations": { "rbac.authorization.kubernetes.io/autoupdate": "true" } } })
}

/// Every default ClusterRole.
pub fn cluster_roles() -> Vec<Doc> {
    let mut out: Vec<Doc> = POLICIES
        .iter()
        .map(|policy| {
            let mut role = meta("ClusterRole", policy.name);
            if !policy.aggregate_to.is_empty() {
                role.edit().at(k::METADATA).at(k::LABELS).set(aggregate_to(policy.aggregate_to), "true");
            }
            role.edit().set(k::RULES, policy.rules.iter().map(rule).collect::<Vec<_>>());
            role
        })
        .collect();
    out.extend(AGGREGATES.iter().map(|(name, into, parts)| aggregated(name, into, parts)));
    out
}

fn aggregate_to(role: &str) -> String {
    format!("rbac.authorization.k8s.io/aggregate-to-{role}")
}

/// A role whose rules are those of others; written out here too, so that it holds from the first moment.
fn aggregated(name: &str, into: &str, parts: &[&str]) -> Doc {
    let mut role = meta("ClusterRole", name);
    if !into.is_empty() {
        role.edit().at(k::METADATA).at(k::LABELS).set(aggregate_to(into), "true");
    }
    let mut labels = Doc::object();
    labels.edit().set(aggregate_to(name), "true");
    let selectors = vec![doc_with(k::MATCH_LABELS, labels)];
    role.edit().at(k::AGGREGATION_RULE).set(k::CLUSTER_ROLE_SELECTORS, selectors);
    let sources = parts.iter().flat_map(|part| POLICIES.iter().filter(move |p| p.aggregate_to == *part));
    let rules = sources.flat_map(|p| p.rules).map(rule);
    role.edit().set(k::RULES, rules.collect::<Vec<_>>());
    role
}

fn doc_with(key: apimachinery::Key, value: Doc) -> Doc {
    let mut out = Doc::object();
    out.edit().set(key, value);
    out
}

/// Every default ClusterRoleBinding.
pub fn cluster_role_bindings() -> Vec<Doc> {
    POLICIES
        .iter()
        .filter(|p| !p.users.is_empty() || !p.groups.is_empty())
        .map(|policy| {
            let mut binding = meta("ClusterRoleBinding", policy.name);
            binding.edit().set(k::ROLE_REF, role_ref(policy.name));
            let users = policy.users.iter().map(|name| subject("User", name));
            let groups = policy.groups.iter().map(|name| subject("Group", name));
            binding.edit().set(k::SUBJECTS, users.chain(groups).collect::<Vec<_>>());
            binding
        })
        .collect()
}

/// What the DNS servers may write: their own endpoints, in `kube-system`. A Role and its RoleBinding.
pub fn dns_announcer() -> [Doc; 2] {
    let name = "system:kube-dns";
    let verbs = ["create", "get", "update"];
    let place = |kind| {
        let mut object = meta(kind, name);
        object.edit().at(k::METADATA).set(k::NAMESPACE, "kube-system");
        object
    };
    let (mut role, mut binding) = (place("Role"), place("RoleBinding"));
    let rule = doc!({ "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": verbs });
    role.edit().set(k::RULES, vec![rule]);
    let role_ref = doc!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name });
    binding.edit().set(k::ROLE_REF, role_ref).set(k::SUBJECTS, vec![subject("User", name)]);
    [role, binding]
}

fn role_ref(name: &str) -> Doc {
    doc!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name })
}

fn subject(kind: &str, name: &str) -> Doc {
    doc!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_holds_what_view_holds() {
        let roles = cluster_roles();
        let rules = |name: &str| {
            let role =
                roles.iter().find(|r| r.get(k::METADATA).get(k::NAME).str() == name).expect("a default role");
            role.get(k::RULES).items().map(|r| r.to_json()).collect::<Vec<_>>()
        };
        let edit = rules("edit");
        assert!(rules("view").iter().all(|rule| edit.contains(rule)));
        assert!(rules("view").iter().all(|rule| !String::from_utf8_lossy(rule).contains("secrets")));
    }
}
