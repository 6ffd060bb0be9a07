//! The core group: pods and what they live from.

mod config_map;
mod container_validation;
mod endpoints;
mod event;
mod limit_range;
mod namespace;
mod node;
mod pod;
pub(crate) mod pod_defaults;
mod pod_print;
mod pod_template;
mod pod_update;
pub(crate) mod pod_validation;
pub(crate) mod pod_warnings;
mod replication_controller;
mod resource_quota;
pub(crate) mod resources;
pub(crate) mod scheduling_rules;
mod secret;
mod service;
mod service_account;
mod service_ports;
mod volumes;

pub use pod::qos_class;
pub use service::{DEFAULT_AFFINITY_SECONDS, needs_cluster_ip};

use crate::kind::Kind;

/// The group's kinds, in the order of discovery.
pub(crate) fn kinds() -> Vec<Kind> {
    vec![
        Kind::new_virtual("", "v1", "bindings", "Binding"),
        config_map::kind(),
        endpoints::kind(),
        event::kind(),
        limit_range::kind(),
        namespace::kind(),
        node::kind(),
        pod::kind(),
        pod_template::kind(),
        replication_controller::kind(),
        resource_quota::kind(),
        secret::kind(),
        service_account::kind(),
        service::kind(),
    ]
}
