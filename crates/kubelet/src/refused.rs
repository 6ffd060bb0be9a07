//! THE TABLE of pod fields that this kubelet does not know yet how to honour. A pod that sets one is refused
//! with words that name it; nothing is accepted and ignored. Removing a line is the last step of building the field.

use apimachinery::Ref;

/// When a field counts as used.
#[derive(Clone, Copy)]
enum Used {
    /// It is there, and not empty, false or zero.
    Set,
    /// It has a value other than these.
    NotOneOf(&'static [&'static str]),
}

use Used::{NotOneOf, Set};

/// Fields of the pod's spec.
const POD: &[(&str, Used)] = &[
    ("hostUsers", NotOneOf(&["true"])),
    ("resourceClaims", Set),
    ("os.name", NotOneOf(&["", "linux"])),
    ("schedulingGroup", Set),
    ("evictionResponders", Set),
    ("securityContext.seLinuxOptions", Set),
    ("securityContext.windowsOptions", Set),
    ("securityContext.appArmorProfile.type", NotOneOf(&["", "Unconfined"])),
];

/// Fields of each container, init containers too.
const CONTAINER: &[(&str, Used)] = &[
    ("resources.claims", Set),
    ("volumeDevices", Set),
    ("securityContext.seLinuxOptions", Set),
    ("securityContext.windowsOptions", Set),
    ("securityContext.procMount", NotOneOf(&["", "Default"])),
    ("securityContext.appArmorProfile.type", NotOneOf(&["", "Unconfined"])),
];

/// Fields of each rule for restarts.
const RULE: &[(&str, Used)] = &[("action", NotOneOf(&["", "Restart"]))];

/// Fields of each volume mount.
const MOUNT: &[(&str, Used)] = &[("bindMountOptions", Set)];

/// Kinds of volume that are built. Every other member of a volume is refused by name.
const VOLUMES: &[&str] = &["name", "emptyDir", "configMap", "secret", "projected", "downwardAPI", "hostPath"];

/// Further fields of volumes.
const VOLUME: &[(&str, Used)] = &[
    ("emptyDir.medium", NotOneOf(&["", "Memory"])),
    ("emptyDir.mode", Set),
    ("configMap.defaultUser", Set),
    ("secret.defaultUser", Set),
    ("projected.defaultUser", Set),
];

/// Sources of a projected volume that are built.
const SOURCES: &[&str] = &["serviceAccountToken", "configMap", "secret", "downwardAPI"];

/// The paths of all fields in use that are not built, such as `spec.containers[0].volumeDevices`.
pub fn fields(pod: Ref<'_>) -> Vec<String> {
    let spec = pod.get("spec");
    let mut out = Vec::new();
    look(spec, "spec", POD, &mut out);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for (i, container) in spec.get(list).items().enumerate() {
            let at = format!("spec.{list}[{i}]");
            look(container, &at, CONTAINER, &mut out);
            for (j, rule) in container.get("restartPolicyRules").items().enumerate() {
                look(rule, &format!("{at}.restartPolicyRules[{j}]"), RULE, &mut out);
            }
            for (j, mount) in container.get("volumeMounts").items().enumerate() {
                look(mount, &format!("{at}.volumeMounts[{j}]"), MOUNT, &mut out);
            }
            for (j, var) in container.get("env").items().enumerate() {
                if var.find("valueFrom.fileKeyRef").is_set() {
                    out.push(format!("{at}.env[{j}].valueFrom.fileKeyRef"));
                }
            }
        }
    }
    for (i, volume) in spec.get("volumes").items().enumerate() {
        let at = format!("spec.volumes[{i}]");
        let other = volume.entries().filter(|(name, value)| !VOLUMES.contains(name) && value.is_set());
        out.extend(other.map(|(name, _)| format!("{at}.{name}")));
        look(volume, &at, VOLUME, &mut out);
        for (j, source) in volume.find("projected.sources").items().enumerate() {
            let other = source.entries().filter(|(name, value)| !SOURCES.contains(name) && value.is_set());
            out.extend(other.map(|(name, _)| format!("{at}.projected.sources[{j}].{name}")));
        }
    }
    out
}

/// Those of the ephemeral container with this name: it comes to a pod that runs, and is refused alone.
pub fn of_ephemeral(pod: Ref<'_>, name: &str) -> Vec<String> {
    let list = pod.get("spec").get("ephemeralContainers");
    let Some(at) = list.items().position(|c| c.get("name").str() == name) else { return Vec::new() };
    let own = format!("spec.ephemeralContainers[{at}].");
    fields(pod).into_iter().filter(|field| field.starts_with(&own)).collect()
}

/// Reason and message of the refusal of these fields.
pub fn words(fields: &[String]) -> (&'static str, String) {
    ("UnsupportedPodField", format!("this node does not support {} yet", fields.join(", ")))
}

fn look(object: Ref<'_>, at: &str, table: &[(&str, Used)], out: &mut Vec<String>) {
    for (path, used) in table {
        let value = object.find(path);
        let refused = match used {
            _ if !value.is_set() => false,
            Set => value.opt_bool().unwrap_or_else(|| !is_empty(value)),
            NotOneOf(known) => {
                let text = value.opt_bool().map_or(value.str(), |b| if b { "true" } else { "false" });
                !known.contains(&text)
            }
        };
        if refused {
            out.push(format!("{at}.{path}"));
        }
    }
}

fn is_empty(value: Ref<'_>) -> bool {
    match value.opt_i64() {
        Some(n) => n == 0,
        None if value.is_object() || value.is_array() => value.is_empty(),
        None => value.opt_str() == Some(""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn names_what_is_not_built_and_nothing_else() {
        let plain = doc!({ "spec": { "hostUsers": true, "overhead": {}, "volumes": [{ "name": "v", "emptyDir": {} },
            { "name": "t", "projected": { "sources": [{ "serviceAccountToken": { "path": "token" } }] } }],
            "containers": [{ "name": "a", "stdin": true, "tty": true, "readinessProbe": { "httpGet": { "scheme": "HTTP" } }, "ports": [{ "containerPort": 1 }],
            "volumeMounts": [{ "name": "v", "mountPath": "/v", "mountPropagation": "None" }] }] } });
        assert_eq!(fields(plain.root()), [""; 0]);
        let added = doc!({ "spec": { "hostUsers": false, "ephemeralContainers": [{ "name": "a" },
            { "name": "b", "volumeDevices": [{ "name": "v" }] }] } });
        assert_eq!(of_ephemeral(added.root(), "a"), [""; 0]);
        assert_eq!(of_ephemeral(added.root(), "b"), ["spec.ephemeralContainers[1].volumeDevices"]);
        let odd = doc!({ "spec": { "hostUsers": false, "volumes": [{ "name": "v", "nfs": { "path": "/" } }],
            "initContainers": [{ "restartPolicy": "Always", "volumeDevices": [{ "name": "d" }] }],
            "containers": [{ "tty": true, "volumeMounts": [{ "bindMountOptions": ["x"] }] }] } });
        assert_eq!(
            fields(odd.root()),
            [
                "spec.hostUsers",
                "spec.initContainers[0].volumeDevices",
                "spec.containers[0].volumeMounts[0].bindMountOptions",
                "spec.volumes[0].nfs"
            ]
        );
    }
}
