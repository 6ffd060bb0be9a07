//! What containers of all three sorts may say.
//! Upstream: pkg/apis/core/validation validateContainers, validateProbe, validateEnv.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, k, validation};

use crate::core::{pod_validation, resources, volumes};
use crate::rules::{complain, none_or_one_of, not_negative, one_of, required};

const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const STOP_POLICIES: &[&str] = &["File", "FallbackToLogsOnError"];

/// All containers of a pod; names are unique among all of them.
pub(crate) fn containers(errs: &mut ErrorList, spec: Ref<'_>, at: &Path) {
    if spec.get(k::CONTAINERS).is_empty() {
        errs.required(&at.child("containers"), "");
    }
    let mut names: Vec<&str> = Vec::new();
    let mut host_ports: Vec<(String, &str, i64)> = Vec::new();
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for (i, container) in spec.get(list).items().enumerate() {
            let at = at.child(list).index(i);
            let name = container.get(k::NAME).str();
            if name.is_empty() {
                errs.required(&at.child("name"), "");
            } else {
                complain(errs, &at.child("name"), name, validation::dns1123_label(name));
                if names.contains(&name) {
                    errs.duplicate(&at.child("name"), name);
                }
                names.push(name);
            }
            one(errs, container, spec, &at);
            match list {
                "containers" => claim_host_ports(errs, container, &at, &mut host_ports),
                "initContainers" => init_only(errs, container, &at),
                _ => ephemeral_only(errs, container, spec, &at),
            }
        }
    }
}

fn one(errs: &mut ErrorList, c: Ref<'_>, spec: Ref<'_>, at: &Path) {
    let image = c.get(k::IMAGE).str();
    if required(errs, c.get(k::IMAGE), &at.child("image")) && image.trim() != image {
        errs.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
    }
    one_of(errs, c.get(k::TERMINATION_MESSAGE_POLICY), &at.child("terminationMessagePolicy"), STOP_POLICIES);
    ports(errs, c.get(k::PORTS), spec, &at.child("ports"));
    env(errs, c.get(k::ENV), &at.child("env"));
    env_from(errs, c.get(k::ENV_FROM), &at.child("envFrom"));
    volumes::mounts(errs, c, spec.get(k::VOLUMES), at);
    one_of(
        errs,
        c.get(k::IMAGE_PULL_POLICY),
        &at.child("imagePullPolicy"),
        &["Always", "IfNotPresent", "Never"],
    );
    resources::requirements(errs, c.get(k::RESOURCES), &at.child("resources"));
    resize_policy(errs, c.get(k::RESIZE_POLICY), spec, &at.child("resizePolicy"));
    let grace = at.child("readinessProbe").child("terminationGracePeriodSeconds");
    let never = c.get(k::READINESS_PROBE).get(k::TERMINATION_GRACE_PERIOD_SECONDS);
    if never.is_set() {
        errs.invalid(&grace, never.i64(), "must not be set for readinessProbes");
    }
    for (field, single) in [("livenessProbe", true), ("readinessProbe", false), ("startupProbe", true)] {
        probe(errs, c.get(field), &at.child(field), single);
    }
    for hook in ["postStart", "preStop"] {
        let handler = c.get(k::LIFECYCLE).get(hook);
        if handler.is_set() {
            handlers(errs, handler, &at.child("lifecycle").child(hook));
        }
    }
    security_context(errs, c.get(k::SECURITY_CONTEXT), &at.child("securityContext"));
}

/// What is to become of a container when its resources change.
fn resize_policy(errs: &mut ErrorList, list: Ref<'_>, spec: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, policy) in list.items().enumerate() {
        let (name, restart) = (policy.get(k::RESOURCE_NAME).str(), policy.get(k::RESTART_POLICY));
        if seen.contains(&name) {
            errs.duplicate(&at.index(i), name);
        }
        seen.push(name);
        one_of(errs, policy.get(k::RESOURCE_NAME), at, &["cpu", "memory"]);
        one_of(errs, restart, at, &["NotRequired", "RestartContainer"]);
        if spec.get(k::RESTART_POLICY).str() == "Never" && restart.str() != "NotRequired" {
            errs.invalid(at, restart.str(), "must be 'NotRequired' when `restartPolicy` is 'Never'");
        }
    }
}

fn init_only(errs: &mut ErrorList, c: Ref<'_>, at: &Path) {
    let sidecar = match c.get(k::RESTART_POLICY).str() {
        "" => false,
        "Always" => true,
        other => {
            errs.not_supported(&at.child("restartPolicy"), other, &["Always"]);
            false
        }
    };
    for field in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
        if !sidecar && c.get(field).is_set() {
            errs.forbidden(
                &at.child(field),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

/// What an ephemeral container may say; everything else is for containers that a pod is built on.
const EPHEMERAL: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "securityContext",
    "stdin",
    "stdinOnce",
    "targetContainerName",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "tty",
    "volumeDevices",
    "volumeMounts",
    "workingDir",
];

fn ephemeral_only(errs: &mut ErrorList, c: Ref<'_>, spec: Ref<'_>, at: &Path) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let target = c.get(k::TARGET_CONTAINER_NAME).str();
    let mut others = [k::CONTAINERS, k::INIT_CONTAINERS].into_iter().flat_map(|list| spec.get(list).items());
    if !target.is_empty() && !others.any(|o| o.get(k::NAME).str() == target) {
        errs.not_found(&at.child("targetContainerName"), target);
    }
    for (field, value) in c.entries() {
        let nothing = !value.is_set() || ((value.is_object() || value.is_array()) && value.is_empty());
        if !nothing && !EPHEMERAL.contains(&field) {
            errs.forbidden(&at.child(field), DETAIL);
        }
    }
    for (i, mount) in c.get(k::VOLUME_MOUNTS).items().enumerate() {
        for field in ["subPath", "subPathExpr"] {
            if !mount.get(field).str().is_empty() {
                errs.forbidden(&at.child("volumeMounts").index(i).child(field), DETAIL);
            }
        }
    }
}

fn ports(errs: &mut ErrorList, list: Ref<'_>, spec: Ref<'_>, at: &Path) {
    let mut names: Vec<&str> = Vec::new();
    for (i, port) in list.items().enumerate() {
        let at = at.index(i);
        let name = port.get(k::NAME).str();
        if !name.is_empty() {
            complain(errs, &at.child("name"), name, validation::port_name(name));
            if names.contains(&name) {
                errs.duplicate(&at.child("name"), name);
            }
            names.push(name);
        }
        let (inner, outer) = (port.get(k::CONTAINER_PORT).i64(), port.get(k::HOST_PORT).i64());
        match inner {
            0 => errs.required(&at.child("containerPort"), ""),
            _ => numbers(errs, inner, &at.child("containerPort")),
        }
        if outer != 0 {
            numbers(errs, outer, &at.child("hostPort"));
        }
        // Pods have been given theirs by now; in templates none need be said.
        if spec.get(k::HOST_NETWORK).bool() && outer != 0 && outer != inner {
            errs.invalid(
                &at.child("hostPort"),
                outer,
                "must match `containerPort` when `hostNetwork` is true",
            );
        }
        one_of(errs, port.get(k::PROTOCOL), &at.child("protocol"), PROTOCOLS);
        let ip = port.get(k::HOST_IP).str();
        if !ip.is_empty() {
            complain(errs, &at.child("hostIP"), ip, validation::ip(ip));
        }
    }
}

fn numbers(errs: &mut ErrorList, port: i64, at: &Path) {
    for complaint in validation::port_number(port) {
        errs.invalid(at, port, &complaint);
    }
}

fn claim_host_ports<'a>(errs: &mut ErrorList, c: Ref<'a>, at: &Path, seen: &mut Vec<(String, &'a str, i64)>) {
    for (i, port) in c.get(k::PORTS).items().enumerate() {
        let number = port.get(k::HOST_PORT).i64();
        if number == 0 {
            continue;
        }
        let claim = (port.get(k::HOST_IP).str().to_owned(), port.get(k::PROTOCOL).str(), number);
        if seen.contains(&claim) {
            let text = format!("{}/{}/{number}", claim.1, claim.0);
            errs.duplicate(&at.child("ports").index(i).child("hostPort"), &*text);
        }
        seen.push(claim);
    }
}

fn env(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    for (i, var) in list.items().enumerate() {
        let at = at.index(i);
        let name = var.get(k::NAME).str();
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else {
            complain(errs, &at.child("name"), name, validation::env_var_name(name));
        }
        let (from, at) = (var.get(k::VALUE_FROM), at.child("valueFrom"));
        if !from.is_set() {
            continue;
        }
        let sources: Vec<Ref<'_>> = from.fields().filter(|f| f.is_set()).collect();
        for source in &sources {
            env_source(errs, *source, &at.child(source.name()));
        }
        if sources.is_empty() {
            let all = "must specify one of: `configMapKeyRef`, `fieldRef`, `fileKeyRef`, `resourceFieldRef` or `secretKeyRef`";
            errs.invalid(&at, "", all);
        } else if !var.get(k::VALUE).str().is_empty() {
            errs.invalid(&at, "", "may not be specified when `value` is not empty");
        } else if sources.len() > 1 {
            errs.invalid(&at, "", "may not have more than one field specified at a time");
        }
    }
}

fn env_source(errs: &mut ErrorList, source: Ref<'_>, at: &Path) {
    match source.key() {
        Some(k::FIELD_REF) => pod_validation::field_ref(errs, source, at, ENV_FIELDS),
        Some(k::RESOURCE_FIELD_REF) => {
            let resource = source.get(k::RESOURCE).str();
            let known = [
                "limits.cpu",
                "limits.ephemeral-storage",
                "limits.memory",
                "requests.cpu",
                "requests.ephemeral-storage",
                "requests.memory",
            ];
            let pages =
                resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
            if required(errs, source.get(k::RESOURCE), &at.child("resource"))
                && !known.contains(&resource)
                && !pages
            {
                errs.not_supported(&at.child("resource"), resource, &known);
            }
        }
        Some(k::CONFIG_MAP_KEY_REF | k::SECRET_KEY_REF) => {
            required(errs, source.get(k::NAME), &at.child("name"));
            let key = source.get(k::KEY).str();
            if required(errs, source.get(k::KEY), &at.child("key")) {
                complain(errs, &at.child("key"), key, validation::config_map_key(key));
            }
        }
        _ => {}
    }
}

fn env_from(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    for (i, from) in list.items().enumerate() {
        let at = at.index(i);
        let prefix = from.get(k::PREFIX).str();
        if !prefix.is_empty() {
            complain(errs, &at.child("prefix"), prefix, validation::env_var_name(prefix));
        }
        let (map, secret) = (from.get(k::CONFIG_MAP_REF), from.get(k::SECRET_REF));
        for (which, source) in [("configMapRef", map), ("secretRef", secret)] {
            if source.is_set() {
                required(errs, source.get(k::NAME), &at.child(which).child("name"));
            }
        }
        match (map.is_set(), secret.is_set()) {
            (false, false) => errs.invalid(&at, "", "must specify one of: `configMapRef` or `secretRef`"),
            (true, true) => errs.invalid(&at, "", "may not have more than one field specified at a time"),
            _ => {}
        }
    }
}

fn probe(errs: &mut ErrorList, probe: Ref<'_>, at: &Path, single: bool) {
    if !probe.is_set() {
        return;
    }
    handlers(errs, probe, at);
    for field in
        ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"]
    {
        not_negative(errs, probe.get(field), &at.child(field));
    }
    let grace = probe.get(k::TERMINATION_GRACE_PERIOD_SECONDS);
    if grace.is_set() && grace.i64() <= 0 {
        errs.invalid(&at.child("terminationGracePeriodSeconds"), grace.i64(), "must be greater than 0");
    }
    if single && probe.get(k::SUCCESS_THRESHOLD).i64() != 1 {
        errs.invalid(&at.child("successThreshold"), probe.get(k::SUCCESS_THRESHOLD).i64(), "must be 1");
    }
}

fn handlers(errs: &mut ErrorList, handler: Ref<'_>, at: &Path) {
    let mut count = 0;
    for field in ["exec", "httpGet", "tcpSocket", "grpc", "sleep"] {
        let one = handler.get(field);
        if !one.is_set() {
            continue;
        }
        count += 1;
        let at = at.child(field);
        if count > 1 {
            errs.forbidden(&at, "may not specify more than 1 handler type");
            continue;
        }
        match field {
            "exec" if one.get(k::COMMAND).is_empty() => errs.required(&at.child("command"), ""),
            "httpGet" => http_get(errs, one, &at),
            "tcpSocket" => port(errs, one.get(k::PORT), &at.child("port")),
            "grpc" => numbers(errs, one.get(k::PORT).i64(), &at.child("port")),
            _ => {}
        }
    }
    if count == 0 {
        errs.required(at, "must specify a handler type");
    }
}

fn http_get(errs: &mut ErrorList, get: Ref<'_>, at: &Path) {
    required(errs, get.get(k::PATH), &at.child("path"));
    port(errs, get.get(k::PORT), &at.child("port"));
    none_or_one_of(errs, get.get(k::SCHEME), &at.child("scheme"), &["HTTP", "HTTPS"]);
    for header in get.get(k::HTTP_HEADERS).items() {
        let name = header.get(k::NAME).str();
        complain(errs, &at.child("httpHeaders"), name, validation::http_header_name(name));
    }
}

/// A port as a number or a name.
pub(crate) fn port(errs: &mut ErrorList, port: Ref<'_>, at: &Path) {
    match port.opt_str() {
        Some(name) => complain(errs, at, name, validation::port_name(name)),
        None => numbers(errs, port.i64(), at),
    }
}

fn security_context(errs: &mut ErrorList, context: Ref<'_>, at: &Path) {
    pod_validation::identity(errs, context.get(k::RUN_AS_USER), &at.child("runAsUser"));
    pod_validation::identity(errs, context.get(k::RUN_AS_GROUP), &at.child("runAsGroup"));
    none_or_one_of(errs, context.get(k::PROC_MOUNT), &at.child("procMount"), &["Default", "Unmasked"]);
    pod_validation::profiles(errs, context, at);
    let escalation = context.get(k::ALLOW_PRIVILEGE_ESCALATION);
    if escalation.opt_bool() == Some(false) {
        if context.get(k::PRIVILEGED).bool() {
            errs.invalid(
                at,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
            );
        }
        if context.get(k::CAPABILITIES).get(k::ADD).items().any(|c| c.str() == "CAP_SYS_ADMIN") {
            errs.invalid(
                at,
                context,
                "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN",
            );
        }
    }
}
