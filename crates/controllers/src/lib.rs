//! The controllers: each makes the world that its kind describes. One file per controller, one ordered list.
//!
//! They see the API only, each under its own identity; they never see each other. Reconcile is observe, plan (pure),
//! execute. Upstream: pkg/controller, cmd/kube-controller-manager.

mod apiserver_endpoints;
mod clusterroleaggregation;
mod deployment;
mod endpoints;
mod endpointslice;
mod endpointslicemirroring;
mod garbage_collector;
pub mod manager;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod objects;
mod pod_gc;
mod replicaset;
mod resourcequota;
mod root_ca;
mod serviceaccount;
mod servicecidrs;

pub use manager::{Controller, Manager, Settings, roles};

/// All controllers, in the order in which they start.
pub const ALL: &[Controller] = &[
    apiserver_endpoints::APISERVER_ENDPOINTS,
    namespace::NAMESPACE,
    serviceaccount::SERVICE_ACCOUNT,
    root_ca::ROOT_CA,
    clusterroleaggregation::CLUSTER_ROLE_AGGREGATION,
    servicecidrs::SERVICE_CIDRS_CONTROLLER,
    node_ipam::NODE_IPAM,
    node_lifecycle::NODE_LIFECYCLE,
    pod_gc::POD_GC,
    resourcequota::RESOURCE_QUOTA,
    deployment::DEPLOYMENT,
    replicaset::REPLICA_SET,
    replicaset::REPLICATION_CONTROLLER,
    endpoints::ENDPOINTS,
    endpointslice::ENDPOINT_SLICE,
    endpointslicemirroring::ENDPOINT_SLICE_MIRRORING,
    garbage_collector::GARBAGE_COLLECTOR,
];

/// Of these, what every API server does, whoever leads.
pub const EACH_SERVER: &[Controller] = ALL.split_at(1).0;
/// The others, which only one of several servers does at a time.
pub const LED: &[Controller] = ALL.split_at(1).1;
