//! What a `PodSpec` may say: once, for pods and every template of them.
//! Upstream: pkg/apis/core/validation ValidatePodSpec.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, k, validation};

use crate::core::{container_validation, scheduling_rules, volumes};
use crate::rules::{self, complain, none_or_one_of, not_negative, one_of};

/// On a pod that shows what a node runs of its own accord.
pub(crate) const MIRROR: &str = "kubernetes.io/config.mirror";
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// A pod's spec at `at`.
pub(crate) fn pod_spec(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let vols = spec.get(k::VOLUMES);
    volumes::volumes(errs, vols, &at.child("volumes"));
    container_validation::containers(errs, spec, at);
    one_of(errs, spec.get(k::RESTART_POLICY), &at.child("restartPolicy"), &["Always", "OnFailure", "Never"]);
    one_of(
        errs,
        spec.get(k::DNS_POLICY),
        &at.child("dnsPolicy"),
        &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"],
    );
    rules::labels(errs, spec.get(k::NODE_SELECTOR), &at.child("nodeSelector"));
    not_negative(
        errs,
        spec.get(k::TERMINATION_GRACE_PERIOD_SECONDS),
        &at.child("terminationGracePeriodSeconds"),
    );
    let deadline = spec.get(k::ACTIVE_DEADLINE_SECONDS);
    if deadline.is_set() && !(1..=i64::from(i32::MAX)).contains(&deadline.i64()) {
        errs.invalid(
            &at.child("activeDeadlineSeconds"),
            deadline.i64(),
            "must be between 1 and 2147483647, inclusive",
        );
    }
    names(errs, spec, at);
    dns_config(errs, spec, at);
    host_aliases(errs, spec, at);
    security_context(errs, spec, at);
    scheduling_rules::tolerations(errs, spec.get(k::TOLERATIONS), &at.child("tolerations"));
    scheduling_rules::affinity(errs, spec.get(k::AFFINITY), &at.child("affinity"));
    scheduling_rules::spread(
        errs,
        spec.get(k::TOPOLOGY_SPREAD_CONSTRAINTS),
        &at.child("topologySpreadConstraints"),
    );
    for (i, gate) in spec.get(k::READINESS_GATES).items().enumerate() {
        let name = gate.get(k::CONDITION_TYPE).str();
        complain(
            errs,
            &at.child("readinessGates").index(i).child("conditionType"),
            name,
            validation::qualified_name(name),
        );
    }
    scheduling_gates(errs, spec, at);
}

fn names(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    type Rule = fn(&str) -> Vec<String>;
    let all: [(&str, Rule); 6] = [
        ("serviceAccountName", validation::dns1123_subdomain),
        ("nodeName", validation::dns1123_subdomain),
        ("hostname", validation::dns1123_label),
        ("subdomain", validation::dns1123_label),
        ("priorityClassName", validation::dns1123_subdomain),
        ("runtimeClassName", validation::dns1123_subdomain),
    ];
    for (field, rule) in all {
        let value = spec.get(field).str();
        if !value.is_empty() {
            complain(errs, &at.child(field), value, rule(value));
        }
    }
    none_or_one_of(
        errs,
        spec.get(k::PREEMPTION_POLICY),
        &at.child("preemptionPolicy"),
        &["PreemptLowerPriority", "Never"],
    );
    let os = spec.get(k::OS);
    if os.is_set() {
        one_of(errs, os.get(k::NAME), &at.child("os").child("name"), &["linux", "windows"]);
    }
}

fn scheduling_gates(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, gate) in spec.get(k::SCHEDULING_GATES).items().enumerate() {
        let (name, at) = (gate.get(k::NAME).str(), at.child("schedulingGates").index(i));
        complain(errs, &at, name, validation::qualified_name(name));
        if seen.contains(&name) {
            errs.duplicate(&at, name);
        }
        seen.push(name);
    }
}

fn dns_config(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let (config, at) = (spec.get(k::DNS_CONFIG), at.child("dnsConfig"));
    let servers = config.get(k::NAMESERVERS);
    if spec.get(k::DNS_POLICY).str() == "None" {
        if !config.is_set() {
            return errs.required(&at, "must provide `dnsConfig` when `dnsPolicy` is None");
        }
        if servers.is_empty() {
            errs.required(
                &at.child("nameservers"),
                "must provide at least one DNS nameserver when `dnsPolicy` is None",
            );
        }
    }
    if servers.len() > 3 {
        errs.invalid(&at.child("nameservers"), servers, "must not have more than 3 nameservers");
    }
    for (i, server) in servers.items().enumerate() {
        complain(errs, &at.child("nameservers").index(i), server.str(), validation::ip(server.str()));
    }
    if config.get(k::SEARCHES).len() > 32 {
        errs.invalid(
            &at.child("searches"),
            config.get(k::SEARCHES),
            "must not have more than 32 search paths",
        );
    }
    for (i, search) in config.get(k::SEARCHES).items().enumerate() {
        let name = search.str().trim_end_matches('.').to_owned();
        let name = name.replace('_', "a");
        if search.str() != "." {
            complain(
                errs,
                &at.child("searches").index(i),
                search.str(),
                validation::dns1123_subdomain(&name),
            );
        }
    }
    for (i, option) in config.get(k::OPTIONS).items().enumerate() {
        if option.get(k::NAME).str().is_empty() {
            errs.required(&at.child("options").index(i), "must not be empty");
        }
    }
}

fn host_aliases(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    for (i, alias) in spec.get(k::HOST_ALIASES).items().enumerate() {
        let at = at.child("hostAliases").index(i);
        let ip = alias.get(k::IP).str();
        complain(errs, &at.child("ip"), ip, validation::ip(ip));
        for (j, name) in alias.get(k::HOSTNAMES).items().enumerate() {
            complain(
                errs,
                &at.child("hostnames").index(j),
                name.str(),
                validation::dns1123_subdomain(name.str()),
            );
        }
    }
}

fn security_context(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    let (context, at) = (spec.get(k::SECURITY_CONTEXT), at.child("securityContext"));
    for id in ["runAsUser", "runAsGroup", "fsGroup"] {
        identity(errs, context.get(id), &at.child(id));
    }
    for (i, group) in context.get(k::SUPPLEMENTAL_GROUPS).items().enumerate() {
        identity(errs, group, &at.child("supplementalGroups").index(i));
    }
    let policies = &["Always", "OnRootMismatch"];
    none_or_one_of(errs, context.get(k::FS_GROUP_CHANGE_POLICY), &at.child("fsGroupChangePolicy"), policies);
    none_or_one_of(
        errs,
        context.get(k::SUPPLEMENTAL_GROUPS_POLICY),
        &at.child("supplementalGroupsPolicy"),
        &["Merge", "Strict"],
    );
    profiles(errs, context, &at);
    sysctls(errs, context.get(k::SYSCTLS), &at.child("sysctls"));
    if spec.get(k::SHARE_PROCESS_NAMESPACE).bool() && spec.get(k::HOST_PID).bool() {
        errs.invalid(
            &at.child("shareProcessNamespace"),
            true,
            "ShareProcessNamespace and HostPID cannot both be enabled",
        );
    }
}

fn sysctls(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, sysctl) in list.items().enumerate() {
        let (name, at) = (sysctl.get(k::NAME).str(), at.index(i).child("name"));
        let part = |p: &str| {
            let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
            edge(p.bytes().next())
                && edge(p.bytes().last())
                && p.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b))
        };
        if name.is_empty() {
            errs.required(&at, "");
        } else if name.len() > 253 || !name.split(['.', '/']).all(part) {
            const FORM: &str = "([a-z0-9][-_a-z0-9]*)?[a-z0-9][\\./])*([a-z0-9][-_a-z0-9]*)?[a-z0-9]";
            errs.invalid(&at, name, &format!("must have at most 253 characters and match regex ^({FORM}$"));
        }
        if seen.contains(&name) {
            errs.duplicate(&at, name);
        }
        seen.push(name);
    }
}

/// A user's or group's number.
pub(crate) fn identity(errs: &mut ErrorList, id: Ref<'_>, at: &Path) {
    if id.is_set() && !(0..=i64::from(i32::MAX)).contains(&id.i64()) {
        errs.invalid(at, id.i64(), "must be between 0 and 2147483647, inclusive");
    }
}

/// What the kernel should filter, of pods and containers: profiles that come with the runtime, or a file of the node's.
pub(crate) fn profiles(errs: &mut ErrorList, context: Ref<'_>, at: &Path) {
    for (field, called) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let (profile, at) = (context.get(field), at.child(field));
        if !profile.is_set() {
            continue;
        }
        one_of(errs, profile.get(k::TYPE), &at.child("type"), &["Localhost", "RuntimeDefault", "Unconfined"]);
        let (local, given) = (profile.get(k::TYPE).str() == "Localhost", profile.get(k::LOCALHOST_PROFILE));
        let at = at.child("localhostProfile");
        match (local, given.is_set()) {
            (true, false) => {
                errs.required(&at, &format!("must be set when {called} type is Localhost"));
            }
            (false, true) => {
                errs.invalid(&at, given, &format!("can only be set when {called} type is Localhost"));
            }
            _ => {}
        }
    }
}

/// Annotations that mean something for the pod that `spec` is of.
pub(crate) fn annotations(errs: &mut ErrorList, annotations: Ref<'_>, spec: Ref<'_>, at: &Path) {
    let mirror = annotations.get(MIRROR);
    if mirror.exists() && spec.get(k::NODE_NAME).str().is_empty() {
        let detail = "must set spec.nodeName if mirror pod annotation is set";
        errs.invalid(&at.key(MIRROR), mirror.str(), detail);
    }
    let cost = annotations.get(DELETION_COST);
    if cost.exists() && cost.str().parse::<i32>().is_err() {
        errs.invalid(&at.key(DELETION_COST), cost.str(), "must be a 32bit integer");
    }
}

/// A reference to a field of the pod; `allowed` are the plain ones, and labels and annotations go by key.
pub(crate) fn field_ref(errs: &mut ErrorList, field: Ref<'_>, at: &Path, allowed: &[&str]) {
    if field.get(k::API_VERSION).str().is_empty() {
        errs.required(&at.child("apiVersion"), "");
    }
    let path = field.get(k::FIELD_PATH).str();
    if path.is_empty() {
        return errs.required(&at.child("fieldPath"), "");
    }
    match subscript(path) {
        Some(("metadata.annotations", key)) => {
            complain(errs, &at.child("fieldPath"), key, validation::qualified_name(&key.to_lowercase()));
        }
        Some(("metadata.labels", key)) => {
            complain(errs, &at.child("fieldPath"), key, validation::qualified_name(key))
        }
        Some((other, _)) => {
            errs.invalid(&at.child("fieldPath"), path, &format!("{other} does not support subscript"))
        }
        None if !allowed.contains(&path) => errs.not_supported(&at.child("fieldPath"), path, allowed),
        None => {}
    }
}

fn subscript(path: &str) -> Option<(&str, &str)> {
    let (field, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((field, key))
}
