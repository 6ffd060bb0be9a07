//! What a pod means that does not say it: once per type, for pods and every template of them.
//! Upstream: pkg/apis/core/v1/defaults.go.

use apimachinery::{Doc, Edit, Key, k};

use crate::rules;

/// File mode of projected files: 0644.
const MODE: i64 = 0o644;

/// The defaults of a `PodSpec`.
pub(crate) fn pod_spec(mut spec: Edit<'_>) {
    each(&mut spec, k::VOLUMES, volume);
    for list in [k::CONTAINERS, k::INIT_CONTAINERS, k::EPHEMERAL_CONTAINERS] {
        each(&mut spec, list, container);
    }
    spec.set_default(k::DNS_POLICY, "ClusterFirst");
    spec.set_default(k::RESTART_POLICY, "Always");
    spec.set_default(k::SECURITY_CONTEXT, Doc::object());
    spec.set_default(k::TERMINATION_GRACE_PERIOD_SECONDS, 30);
    spec.set_default(k::SCHEDULER_NAME, "default-scheduler");
    mirror_service_account(&mut spec);
}

/// The defaults of a whole pod, beyond those of its spec.
pub(crate) fn pod(doc: &mut Doc) {
    rules::first_of(&mut doc.edit(), (k::STATUS, k::POD_IP, k::POD_IPS), Some(k::IP));
    let mut spec = doc.edit().at(k::SPEC);
    pod_spec(spec.reborrow());
    for list in [k::CONTAINERS, k::INIT_CONTAINERS] {
        each(&mut spec, list, requests_from_limits);
    }
    spec.set_default(k::ENABLE_SERVICE_LINKS, true);
    if spec.read().get(k::HOST_NETWORK).bool() {
        host_ports(&mut spec);
    }
}

/// Template metadata needs nothing; its spec is a pod's.
pub(crate) fn template(spec: Edit<'_>) {
    pod_spec(spec.at(k::TEMPLATE).at(k::SPEC));
}

/// Ports of a pod on the host's network are the host's. Templates say nothing of it.
fn host_ports(spec: &mut Edit<'_>) {
    for list in [k::CONTAINERS, k::INIT_CONTAINERS] {
        each(spec, list, |mut container| {
            each(&mut container, k::PORTS, |mut port| {
                if port.read().get(k::HOST_PORT).i64() == 0 {
                    let number = port.read().get(k::CONTAINER_PORT).i64();
                    port.set(k::HOST_PORT, number);
                }
            });
        });
    }
}

/// Calls `change` for every item of a list, if there is the list.
pub(crate) fn each(at: &mut Edit<'_>, list: Key, change: impl FnMut(Edit<'_>)) {
    if let Some(mut list) = at.reborrow().existing(list) {
        list.for_each(change);
    }
}

fn existing(at: &mut Edit<'_>, key: Key, change: impl FnOnce(Edit<'_>)) {
    if at.read().get(key).is_object()
        && let Some(found) = at.reborrow().existing(key)
    {
        change(found);
    }
}

/// An empty string is as good as none for fields that Go leaves out when empty.
fn text(at: &mut Edit<'_>, key: Key, value: &str) {
    if at.read().get(key).str().is_empty() {
        at.set(key, value);
    }
}

fn number(at: &mut Edit<'_>, key: Key, value: i64) {
    if at.read().get(key).i64() == 0 {
        at.set(key, value);
    }
}

fn mirror_service_account(spec: &mut Edit<'_>) {
    let (new, old) =
        (spec.read().get(k::SERVICE_ACCOUNT_NAME).str(), spec.read().get(k::SERVICE_ACCOUNT).str());
    let name = if new.is_empty() { old } else { new }.to_owned();
    if !name.is_empty() {
        spec.set(k::SERVICE_ACCOUNT_NAME, &name).set(k::SERVICE_ACCOUNT, &name);
    }
}

fn container(mut c: Edit<'_>) {
    let latest = tag_of(c.read().get(k::IMAGE).str()) == "latest";
    text(&mut c, k::IMAGE_PULL_POLICY, if latest { "Always" } else { "IfNotPresent" });
    text(&mut c, k::TERMINATION_MESSAGE_PATH, "/dev/termination-log");
    text(&mut c, k::TERMINATION_MESSAGE_POLICY, "File");
    c.set_default(k::RESOURCES, Doc::object());
    each(&mut c, k::PORTS, |mut port| text(&mut port, k::PROTOCOL, "TCP"));
    each(&mut c, k::ENV, |mut var| {
        existing(&mut var, k::VALUE_FROM, |mut from| existing(&mut from, k::FIELD_REF, field_ref))
    });
    for name in [k::LIVENESS_PROBE, k::READINESS_PROBE, k::STARTUP_PROBE] {
        existing(&mut c, name, probe);
    }
    existing(&mut c, k::LIFECYCLE, |mut lifecycle| {
        for hook in [k::POST_START, k::PRE_STOP] {
            existing(&mut lifecycle, hook, |mut hook| existing(&mut hook, k::HTTP_GET, http_get));
        }
    });
}

/// The tag an image's name has, `latest` for none; empty with a digest.
pub(crate) fn tag_of(image: &str) -> &str {
    let (name, digest) = image.split_once('@').map_or((image, false), |(name, _)| (name, true));
    match name.rsplit_once(':') {
        Some((_, tag)) if !tag.contains('/') => tag,
        _ if digest => "",
        _ => "latest",
    }
}

fn probe(mut p: Edit<'_>) {
    number(&mut p, k::TIMEOUT_SECONDS, 1);
    number(&mut p, k::PERIOD_SECONDS, 10);
    number(&mut p, k::SUCCESS_THRESHOLD, 1);
    number(&mut p, k::FAILURE_THRESHOLD, 3);
    existing(&mut p, k::HTTP_GET, http_get);
    existing(&mut p, k::GRPC, |mut grpc| {
        grpc.set_default(k::SERVICE, "");
    });
}

fn http_get(mut get: Edit<'_>) {
    text(&mut get, k::PATH, "/");
    text(&mut get, k::SCHEME, "HTTP");
}

fn field_ref(mut field: Edit<'_>) {
    text(&mut field, k::API_VERSION, "v1");
}

fn volume(mut v: Edit<'_>) {
    let has_source = v.read().fields().any(|f| f.key() != Some(k::NAME) && f.is_set());
    if !has_source {
        v.set(k::EMPTY_DIR, Doc::object());
    }
    for source in [k::SECRET, k::CONFIG_MAP] {
        existing(&mut v, source, |mut s| {
            s.set_default(k::DEFAULT_MODE, MODE);
        });
    }
    existing(&mut v, k::HOST_PATH, |mut s| {
        s.set_default(k::TYPE, "");
    });
    existing(&mut v, k::DOWNWARD_API, |mut s| {
        s.set_default(k::DEFAULT_MODE, MODE);
        downward_items(&mut s);
    });
    existing(&mut v, k::PROJECTED, |mut s| {
        s.set_default(k::DEFAULT_MODE, MODE);
        each(&mut s, k::SOURCES, |mut source| {
            existing(&mut source, k::DOWNWARD_API, |mut d| downward_items(&mut d));
            existing(&mut source, k::SERVICE_ACCOUNT_TOKEN, |mut token| {
                token.set_default(k::EXPIRATION_SECONDS, 3600);
            });
        });
    });
    existing(&mut v, k::IMAGE, |mut image| {
        let latest = tag_of(image.read().get(k::REFERENCE).str()) == "latest";
        text(&mut image, k::PULL_POLICY, if latest { "Always" } else { "IfNotPresent" });
    });
    existing(&mut v, k::EPHEMERAL, |mut e| {
        existing(&mut e, k::VOLUME_CLAIM_TEMPLATE, |template| {
            template.at(k::SPEC).set_default(k::VOLUME_MODE, "Filesystem");
        });
    });
}

fn downward_items(source: &mut Edit<'_>) {
    each(source, k::ITEMS, |mut item| existing(&mut item, k::FIELD_REF, field_ref));
}

fn requests_from_limits(container: Edit<'_>) {
    let limits = container.read().get(k::RESOURCES).get(k::LIMITS).to_doc();
    if !limits.root().is_object() {
        return;
    }
    let mut requests = container.at(k::RESOURCES).at(k::REQUESTS);
    for (name, limit) in limits.root().entries() {
        requests.set_default(name, limit);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (image, tag) in [
            ("a", "latest"),
            ("a:1", "1"),
            ("r:5000/a", "latest"),
            ("r:5000/a:2", "2"),
            ("a@sha256:0", ""),
            ("a:3@sha256:0", "3"),
        ] {
            assert_eq!(tag_of(image), tag, "{image}");
        }
    }
}
