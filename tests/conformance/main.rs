//! Rows of the conformance list that need no real container: their descriptions, step by step, against a whole control
//! plane in virtual time over two hollow nodes. `tests/conformance.toml` says which test proves which row.

mod cluster;

mod architecture;
mod beyond_the_list;
mod configmap;
mod core_events;
mod csi_inline;
mod deployment;
mod discovery;
mod endpointslice;
mod endpointslicemirroring;
mod events;
mod field_validation;
mod garbage_collector;
mod immutable;
mod ingress;
mod ingressclass;
mod lease;
mod limit_range;
mod namespace;
mod pods;
mod podtemplates;
mod predicates;
mod preemption;
mod rc;
mod replica_set;
mod resource_quota;
mod runtimeclass;
mod secrets;
mod server_version;
mod service;
mod service_accounts;
mod service_latency;
mod subjectreviews;
mod sysctl;
mod table_conversion;
mod taints;
mod watch;
