//! The resources that our own components use.

use apimachinery::Gvr;

macro_rules! resources {
    ($($name:ident = $group:literal, $version:literal, $resource:literal;)*) => { $(
        #[doc = concat!("`", $resource, "` in `", $group, "/", $version, "`.")]
        pub const $name: Gvr = Gvr::new($group, $version, $resource);
    )* };
}

resources! {
    CONFIG_MAPS = "", "v1", "configmaps";
    ENDPOINTS = "", "v1", "endpoints";
    EVENTS = "", "v1", "events";
    NAMESPACES = "", "v1", "namespaces";
    NODES = "", "v1", "nodes";
    PODS = "", "v1", "pods";
    REPLICATION_CONTROLLERS = "", "v1", "replicationcontrollers";
    RESOURCE_QUOTAS = "", "v1", "resourcequotas";
    SECRETS = "", "v1", "secrets";
    SERVICES = "", "v1", "services";
    SERVICE_ACCOUNTS = "", "v1", "serviceaccounts";
    DEPLOYMENTS = "apps", "v1", "deployments";
    REPLICA_SETS = "apps", "v1", "replicasets";
    LEASES = "coordination.k8s.io", "v1", "leases";
    ENDPOINT_SLICES = "discovery.k8s.io", "v1", "endpointslices";
    IP_ADDRESSES = "networking.k8s.io", "v1", "ipaddresses";
    SERVICE_CIDRS = "networking.k8s.io", "v1", "servicecidrs";
    RUNTIME_CLASSES = "node.k8s.io", "v1", "runtimeclasses";
    CLUSTER_ROLES = "rbac.authorization.k8s.io", "v1", "clusterroles";
    CLUSTER_ROLE_BINDINGS = "rbac.authorization.k8s.io", "v1", "clusterrolebindings";
    ROLES = "rbac.authorization.k8s.io", "v1", "roles";
    ROLE_BINDINGS = "rbac.authorization.k8s.io", "v1", "rolebindings";
}
