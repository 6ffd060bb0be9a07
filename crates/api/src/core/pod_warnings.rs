//! What a pod's author is told though the pod is accepted: fields that do nothing any more, and what hides or doubles
//! something else. Upstream: pkg/api/pod/warnings.go, pkg/api/node/util.go.

use apimachinery::field::Path;
use apimachinery::quantity::Quantity;
use apimachinery::{Ref, k, validation};

/// Labels of nodes that have better names.
const OLD_LABELS: [(&str, &str, &str); 5] = [
    ("beta.kubernetes.io/arch", "1.14", "kubernetes.io/arch"),
    ("beta.kubernetes.io/os", "1.14", "kubernetes.io/os"),
    ("failure-domain.beta.kubernetes.io/region", "1.17", "topology.kubernetes.io/region"),
    ("failure-domain.beta.kubernetes.io/zone", "1.17", "topology.kubernetes.io/zone"),
    ("beta.kubernetes.io/instance-type", "1.17", "node.kubernetes.io/instance-type"),
];
/// Annotations that do nothing, and what is said of them.
const OLD_ANNOTATIONS: [(&str, &str); 3] = [
    (
        "scheduler.alpha.kubernetes.io/critical-pod",
        r#"non-functional in v1.16+; use the "priorityClassName" field instead"#,
    ),
    ("security.alpha.kubernetes.io/sysctls", r#"non-functional in v1.11+; use the "sysctls" field instead"#),
    (
        "security.alpha.kubernetes.io/unsafe-sysctls",
        r#"non-functional in v1.11+; use the "sysctls" field instead"#,
    ),
];
/// Volumes that are gone or going.
const OLD_VOLUMES: [(&str, &str); 9] = [
    ("photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"),
    ("gitRepo", "deprecated in v1.11"),
    ("scaleIO", "deprecated in v1.16, non-functional in v1.22+"),
    ("flocker", "deprecated in v1.22, non-functional in v1.25+"),
    ("storageos", "deprecated in v1.22, non-functional in v1.25+"),
    ("quobyte", "deprecated in v1.22, non-functional in v1.25+"),
    ("glusterfs", "deprecated in v1.25, non-functional in v1.26+"),
    ("cephfs", "deprecated in v1.28, non-functional in v1.31+"),
    ("rbd", "deprecated in v1.28, non-functional in v1.31+"),
];
const SECCOMP: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";
const APPARMOR: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Of a pod; `what` is what its name becomes, such as `the Pod's hostname`.
pub(crate) fn name(name: &str, what: &str) -> Option<String> {
    let bad = validation::dns1123_label(name);
    (!bad.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {what}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            bad.join(" ")
        )
    })
}

/// Of a pod (`at` is `None`) or of a template at this place.
pub(crate) fn pod(pod: Ref<'_>, at: Option<&Path>) -> Vec<String> {
    let mut out = Vec::new();
    let child = |name: &str| at.map_or_else(|| Path::new(name), |at| at.child(name));
    let (spec_at, annotations_at) = (child("spec"), child("metadata").child("annotations"));
    let (spec, annotations) = (pod.get(k::SPEC), pod.get(k::METADATA).get(k::ANNOTATIONS));
    labels(spec, &spec_at, &mut out);
    for (key, why) in OLD_ANNOTATIONS.iter().filter(|(key, _)| annotations.get(*key).exists()) {
        out.push(format!("{}: {why}", annotations_at.key(key)));
    }
    volumes(spec, &spec_at.child("volumes"), &mut out);
    doubles(spec, &spec_at, &mut out);
    whole_bytes(spec.get(k::OVERHEAD), &spec_at.child("overhead"), &mut out);
    let security = spec.get(k::SECURITY_CONTEXT);
    let seccomp = r#"non-functional in v1.27+; use the "seccompProfile" field instead"#;
    if !security.get(k::SECCOMP_PROFILE).is_set() && annotations.get(SECCOMP).exists() {
        out.push(format!("{}: {seccomp}", annotations_at.key(SECCOMP)));
    }
    for (container, place) in containers(spec, &spec_at) {
        let (name, own) = (container.get(k::NAME).str(), container.get(k::SECURITY_CONTEXT));
        let key = format!("{SECCOMP_CONTAINER}{name}");
        if !own.get(k::SECCOMP_PROFILE).is_set() && annotations.get(&key).exists() {
            out.push(format!("{}: {seccomp}", annotations_at.key(&key)));
        }
        let key = format!("{APPARMOR}{name}");
        let field = [security, own].iter().any(|s| s.get(k::APP_ARMOR_PROFILE).is_set());
        if at.is_some() && !field && annotations.get(&key).exists() {
            let why = r#"deprecated since v1.30; use the "appArmorProfile" field instead"#;
            out.push(format!("{}: {why}", annotations_at.key(&key)));
        }
        let resources = container.get(k::RESOURCES);
        for list in ["limits", "requests"] {
            whole_bytes(resources.get(list), &place.child("resources").child(list), &mut out);
        }
        hidden(container.get(k::ENV), &place.child("env"), &mut out);
    }
    ports(spec, &spec_at, &mut out);
    if spec.get(k::TERMINATION_GRACE_PERIOD_SECONDS).i64() < 0 {
        let at = spec_at.child("terminationGracePeriodSeconds");
        out.push(format!("{at}: must be >= 0; negative values are invalid and will be treated as 1"));
    }
    selectors(spec.get(k::AFFINITY), &spec_at.child("affinity"), &mut out);
    out
}

fn containers<'a>(spec: Ref<'a>, at: &Path) -> impl Iterator<Item = (Ref<'a>, Path)> {
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let lists = lists.map(|list| (spec.get(list), at.child(list)));
    lists.into_iter().flat_map(|(list, at)| list.items().enumerate().map(move |(i, c)| (c, at.index(i))))
}

fn old_label(key: &str) -> Option<String> {
    let (_, since, new) = OLD_LABELS.iter().find(|(old, ..)| *old == key)?;
    Some(format!("deprecated since v{since}; use {new:?} instead"))
}

fn labels(spec: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    for (key, _) in spec.get(k::NODE_SELECTOR).entries() {
        out.extend(old_label(key).map(|why| format!("{}: {why}", at.child("nodeSelector").key(key))));
    }
    let affinity = spec.get(k::AFFINITY).get(k::NODE_AFFINITY);
    let affinity_at = at.child("affinity").child("nodeAffinity");
    let (required, preferred) =
        ("requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution");
    let mut term = |term: Ref<'_>, at: Path| {
        for (i, expression) in term.get(k::MATCH_EXPRESSIONS).items().enumerate() {
            let key = expression.get(k::KEY).str();
            let at = at.child("matchExpressions").index(i).child("key");
            out.extend(old_label(key).map(|why| format!("{at}: {key} is {why}")));
        }
    };
    for (i, one) in affinity.get(required).get(k::NODE_SELECTOR_TERMS).items().enumerate() {
        term(one, affinity_at.child(required).child("nodeSelectorTerms").index(i));
    }
    for (i, one) in affinity.get(preferred).items().enumerate() {
        term(one.get(k::PREFERENCE), affinity_at.child(preferred).index(i).child("preference"));
    }
    for (i, spread) in spec.get(k::TOPOLOGY_SPREAD_CONSTRAINTS).items().enumerate() {
        let at = at.child("topologySpreadConstraints").index(i);
        let key = spread.get(k::TOPOLOGY_KEY).str();
        out.extend(old_label(key).map(|why| format!("{}: {key} is {why}", at.child("topologyKey"))));
        no_selector(spread, &at, out);
    }
}

fn no_selector(term: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    if !term.get(k::LABEL_SELECTOR).is_set() {
        out.push(format!("{}: a null labelSelector results in matching no pod", at.child("labelSelector")));
    }
}

fn selectors(affinity: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    for kind in ["podAffinity", "podAntiAffinity"] {
        let list = "requiredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in affinity.get(kind).get(list).items().enumerate() {
            no_selector(term, &at.child(kind).child(list).index(i), out);
        }
        let list = "preferredDuringSchedulingIgnoredDuringExecution";
        for (i, term) in affinity.get(kind).get(list).items().enumerate() {
            let at = at.child(kind).child(list).index(i).child("podAffinityTerm");
            no_selector(term.get(k::POD_AFFINITY_TERM), &at, out);
        }
    }
}

fn sources(volume: Ref<'_>) -> Ref<'_> {
    volume.get(k::PROJECTED).get(k::SOURCES)
}

fn volumes(spec: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    for (i, volume) in spec.get(k::VOLUMES).items().enumerate() {
        for (kind, why) in OLD_VOLUMES.iter().filter(|(kind, _)| volume.get(*kind).is_set()) {
            // Upstream's own spelling of one of them.
            let shown = if *kind == "storageos" { "storageOS" } else { kind };
            out.push(format!("{}: {why}", at.index(i).child(shown)));
        }
    }
    let tokens: Vec<&str> = spec
        .get(k::VOLUMES)
        .items()
        .flat_map(|volume| sources(volume).items())
        .map(|source| source.get(k::SERVICE_ACCOUNT_TOKEN).get(k::PATH).str())
        .filter(|path| !path.is_empty())
        .collect();
    for (i, volume) in spec.get(k::VOLUMES).items().enumerate() {
        let at = at.index(i).child("projected").child("sources");
        for source in sources(volume).items() {
            for (kind, shown) in
                [("configMap", "configMap"), ("secret", "secrets"), ("downwardAPI", "downwardAPI")]
            {
                for (j, item) in source.get(kind).get(k::ITEMS).items().enumerate() {
                    let path = item.get(k::PATH).str();
                    if tokens.contains(&path) {
                        let at = at.child(shown).index(j);
                        out.push(format!("{at}: has duplicated path with ServiceAccountToken {path:?}"));
                    }
                }
            }
        }
    }
}

fn doubles(spec: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    for (list, field) in [("hostAliases", "ip"), ("imagePullSecrets", "name")] {
        let values: Vec<&str> = spec.get(list).items().map(|item| item.get(field).str()).collect();
        for (i, value) in values.iter().enumerate() {
            let at = at.child(list).index(i).child(field);
            if values[..i].contains(value) {
                out.push(format!("{at}: duplicate {field} {value:?}"));
            }
            if value.is_empty() && field == "name" {
                out.push(format!("{at}: invalid empty name {value:?}"));
            }
        }
    }
}

/// Memory and disk are counted in whole bytes.
fn whole_bytes(amounts: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    for name in ["memory", "ephemeral-storage"] {
        let text = amounts.get(name).str();
        if Quantity::parse(text).is_ok_and(|amount| amount.milli_value() % 1000 != 0) {
            out.push(format!(
                "{}: fractional byte value {text:?} is invalid, must be an integer",
                at.key(name)
            ));
        }
    }
}

/// Variables that replace an earlier one without making use of it.
fn hidden(env: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    let mut seen = base::hash::Set::default();
    for (i, variable) in env.items().enumerate() {
        let name = variable.get(k::NAME).str();
        if seen.insert(name) {
            continue;
        }
        let (value, own) = (variable.get(k::VALUE).str(), format!("$({name})"));
        if variable.get(k::VALUE_FROM).is_set() || value == own || !value.contains(&own) {
            let at = at.index(i);
            out.push(format!(
                "{at}: hides previous definition of {name:?}, which may be dropped when using apply"
            ));
        }
    }
}

fn ports(spec: Ref<'_>, at: &Path, out: &mut Vec<String>) {
    let mut seen: Vec<(Path, Ref<'_>)> = Vec::new();
    for (container, place) in containers(spec, at) {
        for (i, port) in container.get(k::PORTS).items().enumerate() {
            let at = place.child("ports").index(i);
            let of = |p: Ref<'_>| (p.get(k::CONTAINER_PORT).i64(), p.get(k::PROTOCOL).str().to_owned());
            let (host, ip) = (port.get(k::HOST_PORT).i64(), port.get(k::HOST_IP).str());
            if !ip.is_empty() && host == 0 {
                let (number, protocol) = of(port);
                let name = port.get(k::NAME).str();
                out.push(format!(
                    "{at}: hostIP set without hostPort: {{Name:{name} HostPort:0 ContainerPort:{number} Protocol:{protocol} HostIP:{ip}}}"
                ));
            }
            for (other_at, other) in seen.iter().filter(|(_, other)| of(*other) == of(port)) {
                let (other_host, other_ip) = (other.get(k::HOST_PORT).i64(), other.get(k::HOST_IP).str());
                let what = if (host, ip) == (other_host, other_ip) {
                    "duplicate"
                } else if host == 0 || other_host == 0 {
                    "overlapping"
                } else if host == other_host && ip.is_empty() != other_ip.is_empty() {
                    "dangerously ambiguous"
                } else {
                    continue;
                };
                out.push(format!("{at}: {what} port definition with {other_at}"));
            }
            seen.push((at, port));
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::doc;

    use super::*;

    #[test]
    fn what_does_nothing_or_hides_something_is_told() {
        let spec = doc!({ "metadata": { "annotations": { "security.alpha.kubernetes.io/sysctls": "x", "container.apparmor.security.beta.kubernetes.io/a": "x" } },
            "spec": { "nodeSelector": { "beta.kubernetes.io/os": "linux" }, "hostAliases": [{ "ip": "1.2.3.4" }, { "ip": "1.2.3.4" }],
                "volumes": [{ "name": "v", "gitRepo": {} }], "imagePullSecrets": [{ "name": "" }],
                "topologySpreadConstraints": [{ "topologyKey": "zone" }],
                "containers": [{ "name": "a", "resources": { "limits": { "memory": "500m", "cpu": "500m" } },
                    "env": [{ "name": "A", "value": "1" }, { "name": "A", "value": "$(A)2" }, { "name": "A", "value": "3" }],
                    "ports": [{ "containerPort": 80, "protocol": "TCP" }, { "containerPort": 80, "protocol": "TCP", "hostPort": 80 }] }] } });
        let at = Path::new("spec").child("template");
        assert_eq!(
            pod(spec.root(), Some(&at)),
            [
                r#"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#,
                "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod",
                r#"spec.template.metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional in v1.11+; use the "sysctls" field instead"#,
                "spec.template.spec.volumes[0].gitRepo: deprecated in v1.11",
                r#"spec.template.spec.hostAliases[1].ip: duplicate ip "1.2.3.4""#,
                r#"spec.template.spec.imagePullSecrets[0].name: invalid empty name """#,
                r#"spec.template.metadata.annotations[container.apparmor.security.beta.kubernetes.io/a]: deprecated since v1.30; use the "appArmorProfile" field instead"#,
                r#"spec.template.spec.containers[0].resources.limits[memory]: fractional byte value "500m" is invalid, must be an integer"#,
                r#"spec.template.spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply"#,
                "spec.template.spec.containers[0].ports[1]: overlapping port definition with spec.template.spec.containers[0].ports[0]",
            ]
        );
        assert_eq!(pod(doc!({ "spec": { "containers": [{ "name": "a" }] } }).root(), None), [""; 0]);
        assert!(
            name("a.b", "the Pod's hostname")
                .is_some_and(|w| w.starts_with("metadata.name: this is used in the Pod's hostname, which"))
        );
    }
}
