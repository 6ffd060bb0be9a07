//! What the runtime is asked for: sandboxes and containers from a pod's spec. Pure.
//!
//! Upstream: pkg/kubelet/kuberuntime/{kuberuntime_sandbox,kuberuntime_container,security_context}.go,
//! pkg/kubelet/cm/helpers_linux.go, pkg/kubelet/qos/policy.go.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use apimachinery::quantity::Quantity;
use apimachinery::schema::views::{Container, ContainerPort, Pod, VolumeMount};
use apimachinery::{Ref, k};
use runtime::{
    Capability, ContainerConfig, ContainerId, Image, KeyValue, LinuxContainerResources,
    LinuxContainerSecurityContext, LinuxPodSandboxConfig, Mount, MountPropagation, NamespaceMode,
    NamespaceOption, PodSandboxConfig, PodSandboxMetadata, SecurityProfile,
};

use crate::admission::{Resources, pod_limits, pod_requests};
use crate::config::Config;
use crate::doors::HostPort;
use crate::env;
use crate::fields::Facts;
use crate::objects::Objects;
use crate::resolver;
use crate::volumes::{self, pod_dir};
use crate::worker::{Role, container_specs};

/// The kernel's least share, and a CPU's.
const SHARES_MIN: i64 = 2;
const SHARES_CPU: i64 = 1024;
/// The period that quotas are counted in, and the least quota, in microseconds.
const PERIOD: i64 = 100_000;
const QUOTA_MIN: i64 = 1_000;

/// The directory of a pod's logs.
pub fn log_dir(config: &Config, pod: Pod<'_>) -> PathBuf {
    let meta = pod.metadata();
    config.pod_logs_dir.join(format!("{}_{}_{}", meta.namespace(), meta.name(), meta.uid()))
}

/// The log of one run of a container, below [`log_dir`].
pub fn log_path(container: &str, attempt: u32) -> PathBuf {
    Path::new(container).join(format!("{attempt}.log"))
}

/// Where one run of a container leaves its last words.
pub fn termination_log(config: &Config, uid: &str, container: &str, attempt: u32) -> PathBuf {
    pod_dir(&config.root_dir, uid).join("containers").join(container).join(attempt.to_string())
}

/// The pod's own `/etc/hosts` and `/etc/resolv.conf` on the host.
pub fn etc_file(config: &Config, uid: &str, name: &str) -> PathBuf {
    pod_dir(&config.root_dir, uid).join(name)
}

/// The pod's quality of service, as the API has it or as follows from its resources.
pub fn qos(pod: Ref<'_>) -> &'static str {
    let spec = pod.get(k::SPEC);
    let containers: Vec<Ref<'_>> =
        spec.get(k::INIT_CONTAINERS).items().chain(spec.get(k::CONTAINERS).items()).collect();
    // What a pod says of itself as a whole decides alone.
    let whole = spec.get(k::RESOURCES);
    let whole = whole.get(k::LIMITS).is_set() || whole.get(k::REQUESTS).is_set();
    let containers = if whole { vec![spec] } else { containers };
    let amount = |c: &Ref<'_>, list: apimachinery::Key, name: &str| {
        Quantity::parse(c.get(k::RESOURCES).get(list).get(name).str()).ok().filter(|q| !q.is_zero())
    };
    let both = ["cpu", "memory"];
    let set = |c: &Ref<'_>| {
        both.iter().any(|n| amount(c, k::LIMITS, n).is_some() || amount(c, k::REQUESTS, n).is_some())
    };
    if !containers.iter().any(set) {
        return "BestEffort";
    }
    let equal = |c: &Ref<'_>| {
        both.iter().all(|n| match (amount(c, k::LIMITS, n), amount(c, k::REQUESTS, n)) {
            (Some(limit), request) => request.is_none_or(|r| r == limit),
            (None, _) => false,
        })
    };
    if containers.iter().all(equal) { "Guaranteed" } else { "Burstable" }
}

/// The pod's cgroup below the runtime's root.
pub fn cgroup(pod: Ref<'_>) -> String {
    let uid = pod.get(k::METADATA).get(k::UID).str();
    match qos(pod) {
        "Guaranteed" => format!("/kubepods/pod{uid}"),
        "Burstable" => format!("/kubepods/burstable/pod{uid}"),
        _ => format!("/kubepods/besteffort/pod{uid}"),
    }
}

/// Limits of a container; `memory` is the machine's. What it does not limit itself, the pod as a whole may.
pub fn resources(pod: Ref<'_>, container: Ref<'_>, memory: i64) -> LinuxContainerResources {
    let of = |resources: Ref<'_>, list: apimachinery::Key, name: &str| {
        Quantity::parse(resources.get(list).get(name).str()).ok().filter(|q| !q.is_zero())
    };
    let amount = |list: apimachinery::Key, name: &str| of(container.get(k::RESOURCES), list, name);
    let whole = |name: &str| of(pod.get(k::SPEC).get(k::RESOURCES), k::LIMITS, name);
    let own = amount(k::LIMITS, "cpu").map(Quantity::milli_value);
    let limit = own.or(whole("cpu").map(Quantity::milli_value));
    let request = amount(k::REQUESTS, "cpu").map(Quantity::milli_value).or(own).unwrap_or(0);
    let own_memory = amount(k::LIMITS, "memory").map(Quantity::value);
    let memory_limit = own_memory.or(whole("memory").map(Quantity::value));
    let memory_request = amount(k::REQUESTS, "memory").map(Quantity::value).or(own_memory).unwrap_or(0);
    let oom_score_adj = match qos(pod) {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => (1000
            - i64::try_from(1000 * i128::from(memory_request) / i128::from(memory.max(1))).unwrap_or(1000))
        .clamp(3, 999),
    };
    let oom_score_adj = i32::try_from(oom_score_adj).unwrap_or(1000);
    LinuxContainerResources { oom_score_adj, ..limits(request, limit, memory_limit) }
}

/// Limits of all containers together.
pub fn pod_resources(pod: Ref<'_>) -> LinuxContainerResources {
    let (requests, limits_of) = (pod_requests(pod), pod_limits(pod));
    let cpu = |from: &Resources| from.get("cpu").map(|q| q.milli_value());
    let limit = cpu(&limits_of);
    limits(cpu(&requests).or(limit).unwrap_or(0), limit, limits_of.get("memory").map(|q| q.value()))
}

fn limits(request: i64, limit: Option<i64>, memory: Option<i64>) -> LinuxContainerResources {
    LinuxContainerResources {
        cpu_shares: u64::try_from((request * SHARES_CPU / 1000).max(SHARES_MIN)).unwrap_or(0),
        cpu_quota: limit.map_or(0, |milli| (milli * PERIOD / 1000).max(QUOTA_MIN)),
        cpu_period: limit.map_or(0, |_| u64::try_from(PERIOD).unwrap_or(0)),
        memory_limit_in_bytes: memory.unwrap_or(0),
        ..LinuxContainerResources::default()
    }
}

/// Limits for a run that has some already: what is not limited any more says so.
pub fn changed(limits: LinuxContainerResources) -> LinuxContainerResources {
    let none = |value: i64| if value == 0 { -1 } else { value };
    LinuxContainerResources {
        cpu_quota: none(limits.cpu_quota),
        memory_limit_in_bytes: none(limits.memory_limit_in_bytes),
        ..limits
    }
}

fn labels(pod: Pod<'_>) -> BTreeMap<String, String> {
    let meta = pod.metadata();
    let mut out: BTreeMap<String, String> =
        meta.labels().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    out.insert("io.kubernetes.pod.name".into(), meta.name().into());
    out.insert("io.kubernetes.pod.namespace".into(), meta.namespace().into());
    out.insert("io.kubernetes.pod.uid".into(), meta.uid().into());
    out
}

fn shares_pids(pod: Pod<'_>) -> bool {
    pod.spec().share_process_namespace() == Some(true)
}

/// The pod's sandbox.
pub fn sandbox(config: &Config, pod: Pod<'_>, attempt: u32) -> PodSandboxConfig {
    let (meta, spec) = (pod.metadata(), pod.spec());
    let host = |yes: bool, own: NamespaceMode| if yes { NamespaceMode::Node } else { own };
    let namespace_options = NamespaceOption {
        network: host(spec.host_network(), NamespaceMode::Pod),
        pid: host(
            spec.host_pid(),
            if shares_pids(pod) { NamespaceMode::Pod } else { NamespaceMode::Container },
        ),
        ipc: host(spec.host_ipc(), NamespaceMode::Pod),
    };
    let sysctls = spec
        .security_context()
        .sysctls()
        .iter()
        .map(|s| (s.name().replace('/', "."), s.value().to_owned()))
        .collect();
    PodSandboxConfig {
        metadata: PodSandboxMetadata {
            name: meta.name().into(),
            uid: meta.uid().into(),
            namespace: meta.namespace().into(),
            attempt,
        },
        hostname: if spec.host_network() {
            String::new()
        } else {
            resolver::hostname(pod, &config.cluster_domain).0
        },
        log_directory: log_dir(config, pod),
        labels: labels(pod),
        annotations: meta
            .annotations()
            .iter()
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect(),
        linux: LinuxPodSandboxConfig {
            cgroup_parent: cgroup(pod.0),
            namespace_options,
            sysctls,
            resources: pod_resources(pod.0),
        },
    }
}

/// The ports of the machine that are to lead to a pod with a network of its own.
pub fn host_ports(pod: Pod<'_>) -> Vec<HostPort> {
    let port = |p: ContainerPort<'_>| {
        Some(HostPort {
            address: p.host_ip().parse().ok(),
            protocol: p.protocol().to_owned(),
            port: u16::try_from(p.host_port()).ok().filter(|port| *port > 0)?,
            pod_port: u16::try_from(p.container_port()).ok()?,
        })
    };
    let lasting = container_specs(pod.0).filter(|(role, _)| matches!(role, Role::Main | Role::Sidecar));
    lasting.flat_map(|(_, c)| Container(c).ports().iter().filter_map(port).collect::<Vec<_>>()).collect()
}

/// What a container's configuration follows from.
pub struct Inputs<'a> {
    /// The kubelet's configuration.
    pub config: &'a Config,
    /// The pod and its surroundings.
    pub facts: Facts<'a>,
    /// ConfigMaps and Secrets.
    pub objects: &'a Objects,
    /// Variables that tell of Services.
    pub services: &'a [(String, String)],
    /// The image, as the store has it.
    pub image: &'a Image,
    /// The machine's memory, in bytes.
    pub memory: i64,
    /// What runs of the container that an ephemeral one names as its target.
    pub target: Option<ContainerId>,
}

/// One run of a container.
///
/// # Errors
/// The message of a CreateContainerConfigError.
pub fn container(
    inputs: &Inputs<'_>,
    container: Container<'_>,
    attempt: u32,
) -> Result<ContainerConfig, String> {
    let pod = Pod(inputs.facts.pod);
    check_user(pod, container, inputs.image)?;
    let vars = env::make(container, inputs.facts, inputs.objects, inputs.services)?;
    let known: BTreeMap<String, String> = vars.iter().cloned().collect();
    let mut left = env::EXPANDED_BYTES_MAX;
    let mut expanded = |list: Ref<'_>| -> Result<Vec<String>, String> {
        list.items().map(|s| env::expand(s.str(), &known, &mut left)).collect()
    };
    let mut out = ContainerConfig {
        name: container.name().to_owned(),
        attempt,
        image: inputs.image.id.clone(),
        command: expanded(container.command().node)?,
        args: expanded(container.args().node)?,
        working_dir: container.working_dir().to_owned(),
        envs: vars.into_iter().map(|(key, value)| KeyValue { key, value }).collect(),
        mounts: mounts(inputs, container, attempt, &known)?,
        labels: labels(pod),
        log_path: log_path(container.name(), attempt),
        stop_signal: container.lifecycle().stop_signal().unwrap_or_default().to_owned(),
        stdin: container.stdin(),
        stdin_once: container.stdin_once(),
        tty: container.tty(),
        ..ContainerConfig::default()
    };
    out.labels.insert("io.kubernetes.container.name".into(), container.name().into());
    out.linux.resources = resources(pod.0, container.0, inputs.memory);
    out.linux.security_context = security_context(inputs.config, pod, container);
    let target = container.0.get(k::TARGET_CONTAINER_NAME).str();
    if !target.is_empty() && !shares_pids(pod) && !pod.spec().host_pid() {
        let found =
            inputs.target.clone().ok_or_else(|| format!("unable to find target container {target:?}"))?;
        out.linux.security_context.pid_target = Some(found);
    }
    Ok(out)
}

fn check_user(pod: Pod<'_>, container: Container<'_>, image: &Image) -> Result<(), String> {
    let (own, shared) = (container.security_context(), pod.spec().security_context());
    if own.run_as_non_root().or(shared.run_as_non_root()) != Some(true) {
        return Ok(());
    }
    let who = crate::worker::pod_words(pod);
    match own.run_as_user().or(shared.run_as_user()) {
        Some(0) => Err(format!(
            "container's runAsUser breaks non-root policy (pod: \"{who}\", container: {})",
            container.name()
        )),
        Some(_) => Ok(()),
        None if image.uid.is_some_and(|uid| uid != 0) => Ok(()),
        None if image.uid.is_none() && !image.username.is_empty() => Err(format!(
            "container has runAsNonRoot and image has non-numeric user ({}), cannot verify user is non-root (pod: \"{who}\", container: {})",
            image.username,
            container.name()
        )),
        None => Err(format!(
            "container has runAsNonRoot and image will run as root (pod: \"{who}\", container: {})",
            container.name()
        )),
    }
}

fn mounts(
    inputs: &Inputs<'_>,
    container: Container<'_>,
    attempt: u32,
    known: &BTreeMap<String, String>,
) -> Result<Vec<Mount>, String> {
    let pod = Pod(inputs.facts.pod);
    let uid = pod.metadata().uid();
    let paths: BTreeMap<String, volumes::VolumePath> =
        volumes::paths(&inputs.config.root_dir, pod.0).into_iter().collect();
    let mut out = Vec::new();
    for mount in container.volume_mounts().iter() {
        let at = paths.get(mount.name()).ok_or_else(|| {
            format!("cannot find volume {:?} to mount into container {:?}", mount.name(), container.name())
        })?;
        // Relative paths count from the root, as upstream makes them.
        let inside = Path::new("/").join(mount.mount_path());
        out.push(Mount {
            sub_path: sub_path(mount, known)?,
            recursive_read_only: mount.read_only()
                && matches!(mount.recursive_read_only(), Some("Enabled" | "IfPossible")),
            propagation: match mount.mount_propagation() {
                Some("HostToContainer") => MountPropagation::HostToContainer,
                Some("Bidirectional") => MountPropagation::Bidirectional,
                _ => MountPropagation::Private,
            },
            ..bind(inside, at.path.clone(), mount.read_only() || at.readonly)
        });
    }
    let has = |out: &[Mount], path: &str| out.iter().any(|m| m.container_path == Path::new(path));
    for (name, file) in [("/etc/hosts", "etc-hosts"), ("/etc/resolv.conf", "resolv.conf")] {
        if !has(&out, name) {
            out.push(bind(name.into(), etc_file(inputs.config, uid, file), false));
        }
    }
    let last_words = container.termination_message_path();
    if !last_words.is_empty() && !has(&out, last_words) {
        out.push(bind(
            last_words.into(),
            termination_log(inputs.config, uid, container.name(), attempt),
            false,
        ));
    }
    Ok(out)
}

/// The part of a volume that a mount shows.
fn sub_path(mount: VolumeMount<'_>, known: &BTreeMap<String, String>) -> Result<PathBuf, String> {
    let (plain, expr) = (mount.sub_path(), mount.sub_path_expr());
    let path = if expr.is_empty() { plain.to_owned() } else { env::expand_known(expr, known)? };
    if path.starts_with('/') {
        return Err(format!("error SubPath `{path}` must not be an absolute path"));
    }
    if path.split('/').any(|part| part == "..") {
        return Err(format!("unable to provision SubPath `{path}`: must not contain '..'"));
    }
    Ok(path.into())
}

fn bind(container_path: PathBuf, host_path: PathBuf, readonly: bool) -> Mount {
    Mount { container_path, host_path, readonly, ..Mount::default() }
}

fn security_context(
    config: &Config,
    pod: Pod<'_>,
    container: Container<'_>,
) -> LinuxContainerSecurityContext {
    let (own, shared) = (container.security_context(), pod.spec().security_context());
    let names = |list: Ref<'_>| list.items().map(|c| c.str().trim_start_matches("CAP_").to_owned()).collect();
    let privileged = own.privileged() == Some(true);
    let profile =
        if own.seccomp_profile().exists() { own.seccomp_profile() } else { shared.seccomp_profile() };
    let mut groups: Vec<i64> = shared.supplemental_groups().iter().collect();
    groups.extend(shared.fs_group());
    LinuxContainerSecurityContext {
        pid_target: None,
        strict_supplemental_groups: shared.supplemental_groups_policy() == Some("Strict"),
        capabilities: Capability {
            add_capabilities: names(own.capabilities().add().node),
            drop_capabilities: names(own.capabilities().drop().node),
        },
        privileged,
        run_as_user: own.run_as_user().or(shared.run_as_user()),
        run_as_group: own.run_as_group().or(shared.run_as_group()),
        run_as_username: String::new(),
        supplemental_groups: groups,
        readonly_rootfs: own.read_only_root_filesystem() == Some(true),
        no_new_privs: own.allow_privilege_escalation() == Some(false),
        masked_paths: None,
        readonly_paths: None,
        seccomp: match profile.type_() {
            "RuntimeDefault" if !privileged => SecurityProfile::RuntimeDefault,
            "Localhost" if !privileged => {
                let name = profile.localhost_profile().unwrap_or_default();
                SecurityProfile::Localhost(config.root_dir.join("seccomp").join(name).display().to_string())
            }
            _ => SecurityProfile::Unconfined,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{Doc, doc};

    fn pod(resources: Doc) -> Doc {
        let mut pod = doc!({ "metadata": { "uid": "u" }, "spec": { "containers": [{ "name": "a" }] } });
        pod.edit().at(k::SPEC).at(k::CONTAINERS).item(0).expect("one").set(k::RESOURCES, resources);
        pod
    }

    #[test]
    fn classes_and_limits() {
        for (given, class, shares, quota, memory, oom) in [
            (doc!({}), "/kubepods/besteffort/podu", 2, 0, 0, 1000),
            (
                doc!({ "limits": { "cpu": "500m", "memory": "64Mi" } }),
                "/kubepods/podu",
                512,
                50_000,
                64 << 20,
                -997,
            ),
            (
                doc!({ "requests": { "cpu": "250m", "memory": "256Mi" }, "limits": { "memory": "512Mi" } }),
                "/kubepods/burstable/podu",
                256,
                0,
                512 << 20,
                750,
            ),
            (doc!({ "requests": { "cpu": "1m" } }), "/kubepods/burstable/podu", 2, 0, 0, 999),
        ] {
            let pod = pod(given);
            let got = resources(pod.root(), pod.root().find("spec.containers").item(0), 1 << 30);
            assert_eq!(cgroup(pod.root()), class);
            assert_eq!(
                (got.cpu_shares, got.cpu_quota, got.memory_limit_in_bytes, got.oom_score_adj),
                (shares, quota, memory, oom),
                "{class}"
            );
        }
    }

    #[test]
    fn a_whole_container() {
        let pod = doc!({ "metadata": { "name": "p", "namespace": "n", "uid": "u" }, "spec": { "securityContext": { "runAsNonRoot": true, "fsGroup": 7 },
            "volumes": [{ "name": "v", "configMap": { "name": "m" } }],
            "containers": [{ "name": "a", "command": ["sh", "$(X)"], "env": [{ "name": "X", "value": "1" }], "terminationMessagePath": "/dev/termination-log",
                "volumeMounts": [{ "name": "v", "mountPath": "/v" }], "securityContext": { "runAsUser": 5, "allowPrivilegeEscalation": false } }] } });
        let image = Image {
            id: "sha256:1".into(),
            repo_tags: vec![],
            repo_digests: vec![],
            size: 0,
            uid: Some(0),
            username: String::new(),
            pinned: false,
        };
        let (config, none) = (Config::new("n"), Default::default());
        let facts = Facts { pod: pod.root(), ips: &[], host_ips: &[], allocatable: &none };
        let inputs = Inputs {
            config: &config,
            facts,
            objects: &Objects::default(),
            services: &[],
            image: &image,
            memory: 1,
            target: None,
        };
        let spec = Container(pod.root().find("spec.containers").item(0));
        let got = container(&inputs, spec, 3).unwrap();
        assert_eq!(got.command, ["sh", "1"]);
        let mounts: Vec<String> = got
            .mounts
            .iter()
            .map(|m| format!("{} {} {}", m.container_path.display(), m.host_path.display(), m.readonly))
            .collect();
        assert_eq!(
            mounts,
            [
                "/v /var/lib/kubelet/pods/u/volumes/kubernetes.io~configmap/v true",
                "/etc/hosts /var/lib/kubelet/pods/u/etc-hosts false",
                "/etc/resolv.conf /var/lib/kubelet/pods/u/resolv.conf false",
                "/dev/termination-log /var/lib/kubelet/pods/u/containers/a/3 false"
            ]
        );
        assert_eq!(got.log_path, Path::new("a/3.log"));
        let context = got.linux.security_context;
        assert_eq!(
            (context.run_as_user, context.no_new_privs, context.supplemental_groups),
            (Some(5), true, vec![7])
        );
        let known = BTreeMap::from([("X".to_owned(), "x/1".to_owned())]);
        for (mount, want) in [
            (doc!({ "subPath": "a/b" }), Ok("a/b")),
            (doc!({ "subPathExpr": "d/$(X)/$$(X)" }), Ok("d/x/1/$(X)")),
            (doc!({ "subPathExpr": "$(Y)" }), Err("missing value for Y")),
            (doc!({ "subPathExpr": "/$(X)" }), Err("error SubPath `/x/1` must not be an absolute path")),
            (
                doc!({ "subPath": "a/../b" }),
                Err("unable to provision SubPath `a/../b`: must not contain '..'"),
            ),
        ] {
            let got = sub_path(VolumeMount(mount.root()), &known);
            assert_eq!(got, want.map(PathBuf::from).map_err(str::to_owned), "{:?}", mount.root());
        }
        let root = doc!({ "name": "a" });
        assert!(
            container(&inputs, Container(root.root()), 0).unwrap_err().contains("image will run as root")
        );
    }
}
