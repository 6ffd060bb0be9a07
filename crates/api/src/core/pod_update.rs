//! What of a pod may change, through which of its parts: little of the spec, the status, additions to the ephemeral
//! containers, and the containers' resources.
//! Upstream: ValidatePodUpdate, ValidatePodStatusUpdate, ValidatePodEphemeralContainersUpdate, ValidatePodResize.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Edit, Key, Ref, k, validation};

use crate::core::pod::qos_class;
use crate::core::pod_validation::MIRROR;
use crate::rules::{complain, unchanged};

const LISTS: [Key; 2] = [k::CONTAINERS, k::INIT_CONTAINERS];
/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

/// The few things of a pod's spec that may change.
pub(crate) fn spec(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    for list in LISTS {
        if new.get(list).len() != old.get(list).len() {
            return errs.forbidden(&at.child(list.name()), "pod updates may not add or remove containers");
        }
    }
    deadline(
        errs,
        new.get(k::ACTIVE_DEADLINE_SECONDS),
        old.get(k::ACTIVE_DEADLINE_SECONDS),
        &at.child("activeDeadlineSeconds"),
    );
    added_only(errs, new.get(k::TOLERATIONS), old.get(k::TOLERATIONS), &at.child("tolerations"));
    let gates = |spec: Ref<'_>| -> Vec<String> {
        spec.get(k::SCHEDULING_GATES).items().map(|g| g.get(k::NAME).str().to_owned()).collect()
    };
    let was = gates(old);
    for gate in gates(new).iter().filter(|g| !was.contains(g)) {
        let detail = format!("only deletion is allowed, but found new scheduling gate '{gate}'");
        errs.forbidden(&at.child("schedulingGates"), &detail);
    }
    let mut munged = new.to_doc();
    for key in [k::ACTIVE_DEADLINE_SECONDS, k::TOLERATIONS, k::SCHEDULING_GATES] {
        restore(&mut munged, old, key);
    }
    if old.get(k::TERMINATION_GRACE_PERIOD_SECONDS).i64() < 0
        && new.get(k::TERMINATION_GRACE_PERIOD_SECONDS).i64() == 1
    {
        restore(&mut munged, old, k::TERMINATION_GRACE_PERIOD_SECONDS);
    }
    if !was.is_empty() {
        gated(errs, new, old, at);
        restore(&mut munged, old, k::NODE_SELECTOR);
        restore_node_affinity(&mut munged, old);
    }
    for list in LISTS {
        each_pair(&mut munged, old, list, |mut item, container| {
            item.set(k::IMAGE, container.get(k::IMAGE));
        });
    }
    const CHANGEABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
         `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
         `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    nothing_else(errs, &munged, old, at, CHANGEABLE);
}

fn nothing_else(errs: &mut ErrorList, munged: &Doc, old: Ref<'_>, at: &Path, detail: &str) {
    if munged.root().same(old) {
        return;
    }
    let new = munged.root();
    let mut changed: Vec<&str> =
        new.entries().filter(|(name, v)| !v.same(old.get(*name))).map(|(n, _)| n).collect();
    changed.extend(old.entries().map(|(n, _)| n).filter(|n| !new.get(*n).exists()));
    errs.forbidden(at, &format!("{detail}\nchanged: {}", changed.join(", ")));
}

/// Calls `change` with each container of `list` and the old one in its place.
fn each_pair(munged: &mut Doc, old: Ref<'_>, list: Key, mut change: impl FnMut(Edit<'_>, Ref<'_>)) {
    for (i, container) in old.get(list).items().enumerate() {
        if let Some(item) = munged.edit().existing(list).and_then(|l| l.item(i)) {
            change(item, container);
        }
    }
}

fn restore(munged: &mut Doc, old: Ref<'_>, key: Key) {
    let was = old.get(key);
    munged.edit().set_opt(key, was.exists().then_some(was));
}

/// Pods that wait at a gate may still become choosier about their node.
fn gated(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    let (now, was) = (new.get(k::NODE_SELECTOR), old.get(k::NODE_SELECTOR));
    if was.entries().any(|(name, value)| !now.get(name).same(value)) {
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errs.invalid(&at.child("nodeSelector"), now, detail);
    }
    let terms = |spec: Ref<'_>| {
        let required = spec
            .get(k::AFFINITY)
            .get(k::NODE_AFFINITY)
            .get(k::REQUIRED_DURING_SCHEDULING_IGNORED_DURING_EXECUTION);
        required.get(k::NODE_SELECTOR_TERMS).to_doc()
    };
    let (now, was) = (terms(new), terms(old));
    let at = at
        .child("affinity")
        .child("nodeAffinity")
        .child("requiredDuringSchedulingIgnoredDuringExecution")
        .child("nodeSelectorTerms");
    if was.root().is_empty() {
        return;
    }
    if now.root().len() != was.root().len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        return errs.invalid(&at, now.root(), detail);
    }
    for (i, term) in was.root().items().enumerate() {
        let new = now.root().item(i);
        let grown = |list: Key| {
            let (new, old) = (new.get(list), term.get(list));
            new.len() >= old.len() && old.items().zip(new.items()).all(|(o, n)| o.same(n))
        };
        // A term without conditions matches no node; giving it some would loosen it.
        let empty = |t: Ref<'_>| t.get(k::MATCH_EXPRESSIONS).is_empty() && t.get(k::MATCH_FIELDS).is_empty();
        let loosened = empty(term) && !empty(new);
        if loosened || !grown(k::MATCH_EXPRESSIONS) || !grown(k::MATCH_FIELDS) {
            errs.invalid(&at.index(i), new, "only additions are allowed (no mutations or deletions)");
        }
    }
}

fn restore_node_affinity(munged: &mut Doc, old: Ref<'_>) {
    let was = old.get(k::AFFINITY).get(k::NODE_AFFINITY);
    if !was.exists() && !munged.get(k::AFFINITY).is_set() {
        return;
    }
    let mut affinity = munged.edit().at(k::AFFINITY);
    affinity.set_opt(k::NODE_AFFINITY, was.exists().then_some(was));
    if affinity.read().is_empty() && !old.get(k::AFFINITY).exists() {
        munged.edit().remove(k::AFFINITY);
    }
}

fn deadline(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    match (new.opt_i64(), old.opt_i64()) {
        (Some(new), Some(old)) if new > old => {
            errs.invalid(at, new, "must be less than or equal to previous value")
        }
        (None, Some(_)) => errs.invalid(at, new, "must not update from a positive integer to nil value"),
        _ => {}
    }
}

fn added_only(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    let bare = |t: Ref<'_>| {
        let mut t = t.to_doc();
        t.edit().remove(k::TOLERATION_SECONDS);
        t
    };
    let kept = old.items().all(|o| new.items().any(|n| bare(n) == bare(o)));
    if !kept {
        errs.forbidden(at, "existing toleration can not be modified except its tolerationSeconds");
    }
}

/// Takes of `new` what a part of a pod is for, and everything else from the pod as it is.
pub(crate) fn keep_but(new: &mut Doc, old: &Doc, subresource: &str) {
    let mut out = old.clone();
    if subresource == "resize" {
        // Containers that come, go or change places are for validation to refuse.
        let names = |doc: &Doc| -> Vec<Vec<String>> {
            let of = |list: Key| {
                doc.get(k::SPEC).get(list).items().map(|c| c.get(k::NAME).str().to_owned()).collect()
            };
            LISTS.into_iter().map(of).collect()
        };
        for list in LISTS {
            let given = new.get(k::SPEC).get(list);
            if names(new) != names(old) {
                out.edit().at(k::SPEC).set_opt(list, given.exists().then_some(given));
                continue;
            }
            for (i, container) in given.items().enumerate() {
                let item = out.edit().at(k::SPEC).existing(list).and_then(|l| l.item(i));
                let Some(mut item) = item else { continue };
                for key in [k::RESOURCES, k::RESIZE_POLICY] {
                    let value = container.get(key);
                    item.set_opt(key, value.exists().then_some(value));
                }
            }
        }
        let whole = new.get(k::SPEC).get(k::RESOURCES);
        out.edit().at(k::SPEC).set_opt(k::RESOURCES, whole.exists().then_some(whole));
    } else {
        let list = new.get(k::SPEC).get(k::EPHEMERAL_CONTAINERS);
        out.edit().at(k::SPEC).set_opt(k::EPHEMERAL_CONTAINERS, list.exists().then_some(list));
    }
    *new = out;
}

/// Whether a pod is a node's own does not change.
pub(crate) fn mirror(errs: &mut ErrorList, new: &Doc, old: &Doc, at: &Path) {
    let of = |pod: &Doc| pod.get(k::METADATA).get(k::ANNOTATIONS).get(MIRROR).to_doc();
    let (now, was) = (of(new), of(old));
    if now == was {
        return;
    }
    let at = at.key(MIRROR);
    if was.root().is_set() {
        errs.invalid(&at, now.root().str(), "may not remove or update mirror pod annotation");
    } else {
        errs.invalid(&at, now.root().str(), "may not add mirror pod annotation");
    }
}

fn is_mirror(pod: &Doc) -> bool {
    pod.get(k::METADATA).get(k::ANNOTATIONS).get(MIRROR).exists()
}

/// Ephemeral containers come, and neither change nor go.
pub(crate) fn ephemeral(errs: &mut ErrorList, new: &Doc, old: &Doc) {
    if is_mirror(old) {
        return errs.forbidden(&Path::new(""), "static pods do not support ephemeral containers");
    }
    let at = Path::new("spec").child("ephemeralContainers");
    let list = |doc: &Doc| doc.get(k::SPEC).get(k::EPHEMERAL_CONTAINERS).to_doc();
    let (new, old) = (list(new), list(old));
    for was in old.root().items() {
        let name = was.get(k::NAME).str();
        match new.root().items().find(|c| c.get(k::NAME).str() == name) {
            None => {
                errs.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be removed\n"))
            }
            Some(now) if !now.same(was) => {
                errs.forbidden(&at, &format!("existing ephemeral containers {name:?} may not be changed\n"))
            }
            Some(_) => {}
        }
    }
}

/// Of a resize only cpu and memory of containers and sidecars change, and neither the class of service nor what a
/// container has a bound for.
pub(crate) fn resize(errs: &mut ErrorList, new: &Doc, old: &Doc) {
    let (now, was, at) = (new.get(k::SPEC), old.get(k::SPEC), Path::new("spec"));
    if now.get(k::RESOURCES).is_set() || was.get(k::RESOURCES).is_set() {
        return errs.forbidden(&Path::new(""), "pods with pod-level resources cannot be resized");
    }
    if is_mirror(old) {
        return errs.forbidden(&Path::new(""), "static pods cannot be resized");
    }
    if was.get(k::OS).get(k::NAME).str() == "windows" {
        return errs.forbidden(&Path::new(""), "windows pods cannot be resized");
    }
    let class = qos_class(now);
    let before = match old.get(k::STATUS).get(k::QOS_CLASS).str() {
        "" => qos_class(was),
        given => given,
    };
    if class != before {
        errs.invalid(&at, before, "Pod QOS Class may not change as a result of resizing");
    }
    // A node that does not tell what its containers have cannot change it.
    let running = |s: &Ref<'_>| s.get(k::STATE).get(k::RUNNING).is_set();
    let first = old.get(k::STATUS).get(k::CONTAINER_STATUSES).items().find(running);
    if first.is_some_and(|s| !s.get(k::RESOURCES).is_set()) {
        errs.forbidden(&at, "Pod running on node without support for resize");
    }
    if !same_containers(errs, now, was, &at) {
        return;
    }
    let mut munged = now.to_doc();
    for list in LISTS {
        each_pair(&mut munged, was, list, |mut item, container| {
            if restarts(list, container) {
                resources_as_before(&mut item, container);
            }
        });
        for (i, container) in was.get(list).items().enumerate().filter(|(_, c)| restarts(list, *c)) {
            let at = at.child(list.name()).index(i).child("resources");
            for which in [k::LIMITS, k::REQUESTS] {
                let of = |c: Ref<'_>| c.get(k::RESOURCES).get(which).to_doc();
                let (now, was) = (of(now.get(list).item(i)), of(container));
                if was.root().entries().any(|(name, _)| !now.get(name).exists()) {
                    let detail = format!("resource {} cannot be removed", which.name());
                    errs.forbidden(&at.child(which.name()), &detail);
                }
            }
        }
    }
    nothing_else(errs, &munged, was, &at, "only cpu and memory resources are mutable");
}

/// Whether it runs as long as the pod: not an init container, or a sidecar.
fn restarts(list: Key, container: Ref<'_>) -> bool {
    list == k::CONTAINERS || container.get(k::RESTART_POLICY).str() == "Always"
}

fn same_containers(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) -> bool {
    let mut same = true;
    for list in LISTS {
        let (now, was, at, what) = (new.get(list), old.get(list), at.child(list.name()), list.name());
        if now.len() != was.len() {
            same = false;
            errs.forbidden(&at, &format!("{what} may not be added or removed on resize"));
        }
        for (i, (now, was)) in now.items().zip(was.items()).enumerate() {
            if now.get(k::NAME).str() != was.get(k::NAME).str() {
                same = false;
                let detail = format!("{what} may not be renamed or reordered on resize");
                errs.forbidden(&at.index(i).child("name"), &detail);
            }
        }
    }
    same
}

/// Puts back what a resize may change, so that all else can be compared.
fn resources_as_before(item: &mut Edit<'_>, old: Ref<'_>) {
    let policy = old.get(k::RESIZE_POLICY);
    item.set_opt(k::RESIZE_POLICY, policy.exists().then_some(policy));
    let asked = old.get(k::RESOURCES);
    for which in [k::LIMITS, k::REQUESTS] {
        for name in RESIZABLE {
            let was = asked.get(which).get(name);
            let now = item.read().get(k::RESOURCES).get(which).get(name);
            if was.exists() || now.exists() {
                item.reborrow().at(k::RESOURCES).at(which).set_opt(name, was.exists().then_some(was));
            }
        }
        let empty = item.read().get(k::RESOURCES).get(which).is_empty();
        if empty && !asked.get(which).exists() && item.read().get(k::RESOURCES).exists() {
            item.reborrow().at(k::RESOURCES).remove(which);
        }
    }
}

/// What a pod's status may become.
pub(crate) fn status(errs: &mut ErrorList, new: &Doc, old: &Doc) {
    let (now, was, at) = (new.get(k::STATUS), old.get(k::STATUS), Path::new("status"));
    for (i, condition) in now.get(k::CONDITIONS).items().enumerate() {
        let name = condition.get(k::TYPE).str();
        if !["PodScheduled", "Ready", "Initialized"].contains(&name) {
            let at = Path::new("metadata").child("conditions").index(i).child("Type");
            complain(errs, &at, name, validation::qualified_name(name));
        }
    }
    let nominated = now.get(k::NOMINATED_NODE_NAME).str();
    if !nominated.is_empty() && nominated != was.get(k::NOMINATED_NODE_NAME).str() {
        complain(errs, &at.child("nominatedNodeName"), nominated, validation::dns1123_subdomain(nominated));
    }
    unchanged(errs, now.get(k::QOS_CLASS), was.get(k::QOS_CLASS), &at.child("qosClass"));
    let spec = old.get(k::SPEC);
    let restarts = spec.get(k::RESTART_POLICY).str();
    for (list, policy) in [
        ("containerStatuses", restarts),
        ("initContainerStatuses", restarts),
        ("ephemeralContainerStatuses", "Never"),
    ] {
        let sidecar = |name: Ref<'_>| {
            list == "initContainerStatuses"
                && spec
                    .get(k::INIT_CONTAINERS)
                    .items()
                    .any(|c| c.get(k::NAME).same(name) && c.get(k::RESTART_POLICY).str() == "Always")
        };
        for (i, was) in was.get(list).items().enumerate() {
            let (name, ended) = (was.get(k::NAME), was.get(k::STATE).get(k::TERMINATED));
            let may = policy == "Always"
                || (policy == "OnFailure" && ended.get(k::EXIT_CODE).i64() != 0)
                || sidecar(name);
            let again = now
                .get(list)
                .items()
                .any(|s| s.get(k::NAME).same(name) && !s.get(k::STATE).get(k::TERMINATED).is_set());
            if ended.is_set() && !may && again {
                let at = at.child(list).index(i).child("state");
                errs.forbidden(&at, "may not be transitioned to non-terminated state");
            }
        }
    }
    for (list, what) in [("podIPs", k::POD_IPS), ("hostIPs", k::HOST_IPS)] {
        addresses(errs, now.get(what), &at.child(list));
    }
}

/// One address of each family at most.
fn addresses(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    let mut families = Vec::new();
    for (i, item) in list.items().enumerate() {
        let text = item.get(k::IP).str();
        complain(errs, &at.index(i), text, validation::ip(text));
        if seen.contains(&text) {
            errs.duplicate(&at.index(i), text);
        }
        seen.push(text);
        families.push(text.contains(':'));
    }
    if families.len() > 2 || (families.len() == 2 && families[0] == families[1]) {
        errs.invalid(at, list, "may specify no more than one IP for each IP family");
    }
}

#[cfg(test)]
mod tests {
    use crate::tests::update;
    use apimachinery::k;

    fn pod(spec: &str) -> String {
        format!("{{apiVersion: v1, kind: Pod, metadata: {{name: p, namespace: ns}}, {spec}}}")
    }

    /// Each row: a pod, what is replaced by what, and how the complaint begins; empty for none.
    fn table(subresource: &str, old: &str, rows: &[(&str, &str, &str)]) {
        for (from, to, wanted) in rows {
            let old = pod(old);
            assert!(old.contains(from), "{from}");
            let (_, errs) = update(&old, &old.replace(from, to), subresource);
            let errs = errs.trim_start_matches('[');
            assert!(errs.starts_with(wanted) && errs.is_empty() == wanted.is_empty(), "{to}: {errs}");
        }
    }

    #[test]
    fn ephemeral_containers_only_come() {
        let old = "spec: {volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: i}]}";
        let with = |list: &str| format!("containers: [{{name: c, image: i}}], ephemeralContainers: [{list}]");
        let containers = "containers: [{name: c, image: i}]";
        for (list, wanted) in [
            ("{name: d, image: i, targetContainerName: c, stdin: true, tty: true}", ""),
            ("{name: c, image: i}", "spec.ephemeralContainers[0].name: Duplicate value"),
            (
                "{name: d, image: i, targetContainerName: e}",
                "spec.ephemeralContainers[0].targetContainerName: Not found",
            ),
            (
                "{name: d, image: i, ports: [{containerPort: 1}]}",
                "spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container",
            ),
            (
                "{name: d, image: i, resources: {limits: {cpu: 1}}}",
                "spec.ephemeralContainers[0].resources: Forbidden",
            ),
            (
                "{name: d, image: i, readinessProbe: {tcpSocket: {port: 1}}}",
                "spec.ephemeralContainers[0].readinessProbe: Forbidden",
            ),
            (
                "{name: d, image: i, volumeMounts: [{name: v, mountPath: /v, subPath: a}]}",
                "spec.ephemeralContainers[0].volumeMounts[0].subPath: Forbidden",
            ),
        ] {
            table("ephemeralcontainers", old, &[(containers, &with(list), wanted)]);
        }
        // Whatever else the pod says is as it was.
        let (doc, errs) = update(
            &pod(old),
            &pod(&old
                .replace("image: i", "image: j")
                .replace("volumes:", "ephemeralContainers: [{name: d, image: i}], volumes:")),
            "ephemeralcontainers",
        );
        assert_eq!(
            (errs.as_str(), doc.get(k::SPEC).get(k::CONTAINERS).item(0).get(k::IMAGE).str()),
            ("", "i")
        );
        assert_eq!(
            (
                doc.get(k::METADATA).get(k::GENERATION).i64(),
                doc.get(k::SPEC).get(k::EPHEMERAL_CONTAINERS).len()
            ),
            (2, 1)
        );
    }

    #[test]
    fn what_came_to_debug_stays() {
        use super::ephemeral;
        use apimachinery::doc;
        use apimachinery::field::ErrorList;
        let of = |list: apimachinery::Doc| {
            let mut out = doc!({ "spec": {} });
            out.edit().at(k::SPEC).set(k::EPHEMERAL_CONTAINERS, list);
            out
        };
        let old = of(doc!([{ "name": "d", "image": "i" }]));
        for (new, wanted) in [
            (doc!([{ "name": "e" }, { "name": "d", "image": "i" }]), ""),
            (
                doc!([]),
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be removed\n",
            ),
            (
                doc!([{ "name": "d", "image": "j" }]),
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"d\" may not be changed\n",
            ),
        ] {
            let mut errs = ErrorList::new();
            ephemeral(&mut errs, &of(new), &old);
            assert_eq!(if errs.is_empty() { String::new() } else { errs.summary() }, wanted);
        }
    }

    #[test]
    fn a_resize_changes_cpu_and_memory_of_what_restarts() {
        let old = "spec: {initContainers: [{name: i, image: i, resources: {limits: {cpu: 7}}}, {name: s, image: i, restartPolicy: Always, resources: {requests: {cpu: 3}}}], containers: [{name: c, image: i, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 2}}}]}";
        table(
            "resize",
            old,
            &[
                ("{cpu: 1, memory: 1Gi}", "{cpu: 2, memory: 2Gi}", ""),
                ("limits: {cpu: 2}", "limits: {cpu: 3, memory: 4Gi}", ""),
                ("requests: {cpu: 3}", "requests: {cpu: 4}", ""),
                (
                    "image: i, resources: {requests: {cpu: 1,",
                    "image: j, resizePolicy: [{resourceName: cpu, restartPolicy: NotRequired}], resources: {requests: {cpu: 1,",
                    "",
                ),
                (
                    "limits: {cpu: 7}",
                    "limits: {cpu: 8}",
                    "spec: Forbidden: only cpu and memory resources are mutable",
                ),
                (
                    "{cpu: 1, memory: 1Gi}",
                    "{cpu: 1, memory: 1Gi, ephemeral-storage: 1Gi}",
                    "spec: Forbidden: only cpu and memory resources are mutable",
                ),
                (
                    "{cpu: 1, memory: 1Gi}",
                    "{cpu: 1}",
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                ),
                (
                    ", limits: {cpu: 2}",
                    "",
                    "spec.containers[0].resources.limits: Forbidden: resource limits cannot be removed",
                ),
                (
                    "name: c,",
                    "name: d,",
                    "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                ),
                (
                    "containers: [{name: c,",
                    "containers: [{name: d, image: i}, {name: c,",
                    "spec.containers: Forbidden: containers may not be added or removed on resize",
                ),
            ],
        );
        let best = "spec: {containers: [{name: c, image: i}]}";
        table(
            "resize",
            best,
            &[(
                "image: i",
                "image: i, resources: {requests: {cpu: 1}}",
                "spec: Invalid value: \"BestEffort\": Pod QOS Class may not change as a result of resizing",
            )],
        );
    }

    #[test]
    fn gated_pods_become_choosier_only() {
        let old = "spec: {schedulingGates: [{name: a}], nodeSelector: {a: b}, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: x, operator: Exists}]}]}}}, containers: [{name: c, image: i}]}";
        table(
            "",
            old,
            &[
                ("{a: b}", "{a: b, c: d}", ""),
                (
                    "{a: b}",
                    "{c: d}",
                    "spec.nodeSelector: Invalid value: {\"c\":\"d\"}: only additions to spec.nodeSelector are allowed",
                ),
                ("operator: Exists}]", "operator: Exists}, {key: z, operator: Exists}]", ""),
                (
                    "key: x",
                    "key: z",
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]: Invalid value",
                ),
                (
                    "matchExpressions: [{key: x, operator: Exists}]}",
                    "matchExpressions: [{key: x, operator: Exists}]}, {matchFields: [{key: metadata.name, operator: In, values: [n1]}]}",
                    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value",
                ),
                ("{name: a}", "{name: b}", "spec.schedulingGates: Forbidden: only deletion is allowed"),
            ],
        );
        let free = "spec: {schedulingGates: [{name: a}], containers: [{name: c, image: i}]}";
        let affinity = "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: x, operator: Exists}]}}]}}, ";
        table("", free, &[("containers:", &format!("{affinity}containers:"), "")]);
        let open = "spec: {containers: [{name: c, image: i}]}";
        table(
            "",
            open,
            &[(
                "containers:",
                &format!("{affinity}containers:"),
                "spec: Forbidden: pod updates may not change fields other than",
            )],
        );
    }

    #[test]
    fn a_status_ends_once() {
        let old =
            "spec: {restartPolicy: Never, containers: [{name: c, image: i}]}, status: {qosClass: BestEffort}";
        table(
            "status",
            old,
            &[
                (
                    "{qosClass: BestEffort}",
                    "{podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], conditions: [{type: example.com/x, status: Odd}]}",
                    "",
                ),
                (
                    "BestEffort",
                    "Burstable",
                    "status.qosClass: Invalid value: \"Burstable\": field is immutable",
                ),
                (
                    "{qosClass: BestEffort}",
                    "{podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}",
                    "status.podIPs: Invalid value",
                ),
                (
                    "{qosClass: BestEffort}",
                    "{nominatedNodeName: A}",
                    "status.nominatedNodeName: Invalid value",
                ),
                (
                    "{qosClass: BestEffort}",
                    "{conditions: [{type: 'a b'}]}",
                    "metadata.conditions[0].Type: Invalid value",
                ),
            ],
        );
        use apimachinery::doc;
        let of = |policy: &str, state: apimachinery::Doc| {
            let mut out = doc!({ "spec": { "restartPolicy": policy }, "status": { "containerStatuses": [{ "name": "c" }] } });
            out.edit().at(k::STATUS).list(k::CONTAINER_STATUSES).item(0).expect("one").set(k::STATE, state);
            out
        };
        for (policy, code, fine) in
            [("Never", 0, false), ("OnFailure", 0, false), ("OnFailure", 1, true), ("Always", 0, true)]
        {
            let mut errs = apimachinery::field::ErrorList::new();
            let old = of(policy, doc!({ "terminated": { "exitCode": code } }));
            super::status(&mut errs, &of(policy, doc!({ "running": {} })), &old);
            assert_eq!(errs.is_empty(), fine, "{policy} {code}");
        }
    }
}
