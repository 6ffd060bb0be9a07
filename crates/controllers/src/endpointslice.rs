//! EndpointSlice: for every Service with a selector, which pods answer for it and on which ports. What Endpoints and
//! mirrored slices share with it is here, too.
//! Upstream: pkg/controller/endpointslice, k8s.io/endpointslice.

use std::collections::BTreeMap;

use apimachinery::call::BoxFuture;
use apimachinery::schema::views::core_v1::{Pod, Service};
use apimachinery::selector::Selector;
use apimachinery::{Doc, Ref, doc, k};
use client::cache::Entering;
use client::gvr::{ENDPOINT_SLICES, PODS, SERVICES};
use client::{DeleteOptions, Error, ObjectKey};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};
use crate::objects::{self, Seen};

/// Endpoints in one slice. Upstream: `--max-endpoints-per-slice`.
const ENDPOINTS_MAX: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const CONTROLLER: &str = "endpointslice-controller.k8s.io";
/// The label of what belongs to a Service without an address of its own.
pub const HEADLESS: &str = "service.kubernetes.io/headless";

/// Slices, by the Service they belong to; a change wakes its key.
pub const SLICES: Read = Read {
    gvr: ENDPOINT_SLICES,
    indexes: &[("service", |slice| {
        let service = objects::labels(slice.root()).get(SERVICE_NAME).str();
        vec![format!("{}/{service}", objects::namespace(slice.root()))]
    })],
    wakes: Wakes::Through {
        index: "service",
        map: |_, namespace, value| {
            let service = value.split_once('/').map_or("", |(_, name)| name);
            if service.is_empty() { Vec::new() } else { vec![ObjectKey::new(namespace, service)] }
        },
    },
};

/// Services, by what they select.
pub const SELECTING: Read =
    Read { gvr: SERVICES, indexes: &[("selected-by", by_selector)], wakes: Wakes::Itself };

/// Pods, whose changes wake the Services that select them.
pub const SELECTED: Read = Read {
    gvr: PODS,
    indexes: &[("labels", |pod| vec![objects::labels_json(pod.root())])],
    wakes: Wakes::Through { index: "labels", map: services_of },
};

/// The declaration. Keys are Services.
pub const ENDPOINT_SLICE: Controller = Controller {
    name: "endpointslice-controller",
    component: "endpoint-slice-controller",
    workers: 5,
    reads: &[SELECTING, SLICES, SELECTED],
    writes: &[
        Rule { group: "", resources: &["services", "pods", "nodes"], verbs: &["get", "list", "watch"] },
        Rule { group: "", resources: &["services/finalizers"], verbs: &["update"] },
        Rule {
            group: "discovery.k8s.io",
            resources: &["endpointslices"],
            verbs: &["create", "delete", "get", "list", "update", "watch"],
        },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

/// Index: one pair of the selector, under which every pod that it selects finds the Service.
fn by_selector(service: &Entering<'_>) -> Vec<String> {
    let root = service.root();
    let pairs = root.get(k::SPEC).get(k::SELECTOR).entries();
    let first = pairs.map(|(key, value)| format!("{key}={}", value.str())).min();
    first.map(|pair| format!("{}/{pair}", objects::namespace(root))).into_iter().collect()
}

fn services_of(ctx: &Ctx, namespace: &str, labels: &str) -> Vec<ObjectKey> {
    let labels = apimachinery::codec::json::parse(labels).map(|p| p.doc).unwrap_or_default();
    let services = ctx.cache(&SERVICES);
    let mut out = Vec::new();
    for (key, value) in labels.root().entries() {
        for service in services.by_index("selected-by", &format!("{namespace}/{key}={}", value.str())) {
            if selector(service.doc().root()).matches(labels.root()) {
                out.push(ObjectKey::of(&service));
            }
        }
    }
    out
}

fn selector(service: Ref<'_>) -> Selector {
    let map = service.get(k::SPEC).get(k::SELECTOR);
    if map.is_empty() {
        Selector::nothing()
    } else {
        Selector::from_map(map).unwrap_or_else(|_| Selector::nothing())
    }
}

/// What is to be done about an owner's slices.
#[derive(Debug, Default)]
pub struct Plan {
    create: Vec<Doc>,
    update: Vec<Doc>,
    /// Indexes into the slices.
    delete: Vec<usize>,
}

/// What slices are made for.
pub struct Owner<'a> {
    /// The object: a Service, or Endpoints kept by hand.
    pub object: Ref<'a>,
    /// Its kind, of `v1`.
    pub kind: &'static str,
    /// The labels of its slices; see [`slice_labels`].
    pub labels: Doc,
    /// Annotations of its slices, where they follow the owner's.
    pub annotations: Option<Doc>,
    /// Endpoints in one slice.
    pub endpoints_max: usize,
}

/// The slices of a Service that the controller called `manager` keeps.
pub fn slices(ctx: &Ctx, key: &ObjectKey, manager: &str) -> Vec<Seen> {
    let index = format!("{}/{}", key.namespace, key.name);
    let slices = ctx.cache(&ENDPOINT_SLICES).by_index("service", &index);
    let is_ours = |s: &Seen| objects::labels(s.root()).get(MANAGED_BY).str() == manager;
    slices.into_iter().map(Seen::new).filter(is_ours).collect()
}

/// Whether its endpoints are the pods that it selects.
pub fn selects_pods(service: Ref<'_>) -> bool {
    let spec = service.get(k::SPEC);
    !spec.get(k::SELECTOR).is_empty() && spec.get(k::TYPE).str() != "ExternalName"
}

/// The pods that a Service selects.
pub fn pods(ctx: &Ctx, service: Ref<'_>) -> Vec<Doc> {
    let selector = selector(service);
    let pods = ctx.cache(&PODS).list_namespace(objects::namespace(service));
    pods.iter().map(|s| s.doc()).filter(|p| selector.matches(objects::labels(p.root()))).collect()
}

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    // What a deleted Service leaves behind is garbage collected.
    let Some(service) = ctx.cache(&SERVICES).get_key(key).map(|s| s.doc()) else { return Ok(Action::Done) };
    let service = service.root();
    if !selects_pods(service) || objects::is_deleting(service) {
        return Ok(Action::Done);
    }
    let slices = slices(ctx, key, CONTROLLER);
    execute(ctx, key, &slices, plan_service(service, &pods(ctx, service), &slices)).await?;
    Ok(Action::Done)
}

fn plan_service(service: Ref<'_>, pods: &[Doc], slices: &[Seen]) -> Plan {
    let families: Vec<&str> =
        match service.get(k::SPEC).get(k::IP_FAMILIES).items().map(Ref::str).collect::<Vec<_>>() {
            none if none.is_empty() => vec!["IPv4"],
            some => some,
        };
    let mut labels = slice_labels(service, CONTROLLER);
    if service.get(k::SPEC).get(k::CLUSTER_IP).str() == "None" {
        labels.edit().set(HEADLESS, "");
    }
    let owner =
        Owner { object: service, kind: "Service", labels, annotations: None, endpoints_max: ENDPOINTS_MAX };
    plan(&owner, wanted(service, pods, &families), slices)
}

/// Does what was planned.
///
/// # Errors
/// The API's.
pub async fn execute(ctx: &Ctx, key: &ObjectKey, slices: &[Seen], plan: Plan) -> Result<(), Error> {
    let resource = objects::resource(&ctx.client, &ENDPOINT_SLICES, &key.namespace);
    for slice in plan.create {
        match resource.create(slice).await {
            Ok(written) => ctx.wrote(key, &ENDPOINT_SLICES, &written),
            Err(err) if err.is_namespace_terminating() => return Ok(()),
            Err(err) => return Err(err),
        }
    }
    for slice in plan.update {
        ctx.wrote(key, &ENDPOINT_SLICES, &*resource.update(slice).await?);
    }
    for at in plan.delete {
        let slice = &slices[at];
        match resource.delete(slice.stored.name(), DeleteOptions::uid(objects::uid(slice.root()))).await {
            Ok(outcome) => ctx.deleted(key, &ENDPOINT_SLICES, &slice.stored, &outcome),
            Err(err) if err.is_not_found() => {}
            Err(err) => return Err(err),
        }
    }
    Ok(())
}

/// Endpoints wanted, by family and ports (as JSON), then by [`identity`].
pub type Wanted = BTreeMap<(String, String), BTreeMap<String, Doc>>;

/// What an endpoint is known by: its pod's uid, or its address.
pub fn identity(endpoint: Ref<'_>) -> String {
    let uid = endpoint.get(k::TARGET_REF).get(k::UID).str();
    if uid.is_empty() { endpoint.get(k::ADDRESSES).item(0).str() } else { uid }.to_owned()
}

/// What makes the slices that are there those that are wanted.
pub fn plan(owner: &Owner<'_>, mut wanted: Wanted, slices: &[Seen]) -> Plan {
    let mut out = Plan::default();
    for (at, slice) in slices.iter().enumerate() {
        let ports = canonical(slice.root().get(k::PORTS));
        let group = (slice.root().get(k::ADDRESS_TYPE).str().to_owned(), ports);
        let mut new = slice.doc.clone();
        let mut kept = Doc::array();
        if let Some(group) = wanted.get_mut(&group) {
            for endpoint in slice.root().get(k::ENDPOINTS).items() {
                if let Some(now) = group.remove(&identity(endpoint)) {
                    kept.edit().push(now);
                }
            }
            while kept.root().len() < owner.endpoints_max
                && let Some((_, endpoint)) = group.pop_first()
            {
                kept.edit().push(endpoint);
            }
        }
        // A family's last, empty slice stays, so that clients see a Service without endpoints.
        if kept.root().is_empty()
            && !wanted.remove(&group).is_some_and(|g| g.is_empty() && is_placeholder(slice))
        {
            out.delete.push(at);
            continue;
        }
        new.edit().set(k::ENDPOINTS, kept);
        owner.mark(&mut new);
        let meta = |doc: &Doc, key| doc.get(k::METADATA).get(key).to_doc();
        let same = |key| meta(&new, key) == meta(&slice.doc, key);
        if !new.get(k::ENDPOINTS).same(slice.root().get(k::ENDPOINTS))
            || !same(k::LABELS)
            || !same(k::ANNOTATIONS)
        {
            out.update.push(new);
        }
    }
    for ((family, ports), mut endpoints) in wanted {
        // Existing slices took what fits.
        let mut first = !slices.iter().enumerate().any(|(at, s)| {
            !out.delete.contains(&at)
                && s.root().get(k::ADDRESS_TYPE).str() == family
                && same_ports(s, &ports)
        });
        while first || !endpoints.is_empty() {
            first = false;
            let mut slice = owner.new_slice(&family, &ports);
            let mut list = slice.edit().list(k::ENDPOINTS);
            for _ in 0..owner.endpoints_max {
                let Some((_, endpoint)) = endpoints.pop_first() else { break };
                list.push(endpoint);
            }
            out.create.push(slice);
        }
    }
    out
}

fn same_ports(slice: &Seen, ports: &str) -> bool {
    canonical(slice.root().get(k::PORTS)) == ports
}

/// A list of ports as JSON in one form only, `null` when empty.
pub fn canonical(ports: Ref<'_>) -> String {
    if ports.is_empty() {
        return "null".to_owned();
    }
    let mut out = Doc::array();
    for port in ports.items() {
        let mut one = doc!({ "name": port.get(k::NAME).str(), "protocol": port.get(k::PROTOCOL).opt_str().unwrap_or("TCP") });
        let app = port.get(k::APP_PROTOCOL);
        one.edit()
            .set(k::PORT, port.get(k::PORT).i64())
            .set_opt(k::APP_PROTOCOL, app.is_set().then_some(app));
        out.edit().push(one);
    }
    out.edit().sort_by(|a, b| a.get(k::NAME).str().cmp(b.get(k::NAME).str()));
    String::from_utf8(out.to_json()).expect("documents hold valid UTF-8")
}

fn is_placeholder(slice: &Seen) -> bool {
    slice.root().get(k::PORTS).is_empty()
}

fn wanted(service: Ref<'_>, pods: &[Doc], families: &[&str]) -> Wanted {
    let mut out = Wanted::new();
    for family in families {
        for pod in pods.iter().map(|p| Pod(p.root())) {
            let Some(endpoint) = endpoint(Service(service), pod, family) else { continue };
            let ports = canonical(ports(service, pod.0).root());
            let group = out.entry(((*family).to_owned(), ports)).or_default();
            group.insert(identity(endpoint.root()), endpoint);
        }
        if !out.keys().any(|(f, _)| f == family) {
            out.insert(((*family).to_owned(), "null".to_owned()), BTreeMap::new());
        }
    }
    out
}

fn endpoint(service: Service<'_>, pod: Pod<'_>, family: &str) -> Option<Doc> {
    let ip = pod_ip(pod, family)?;
    let ready = objects::is_ready(pod.0);
    let terminating = objects::is_deleting(pod.0);
    let always = service.spec().publish_not_ready_addresses();
    let mut out = doc!({ "addresses": [ip], "conditions": { "ready": always || (ready && !terminating), "serving": ready,
        "terminating": terminating } });
    place(&mut out, service.0, pod.0);
    Some(out)
}

/// The address of a pod that has not ended, of a family.
pub fn pod_ip<'a>(pod: Pod<'a>, family: &str) -> Option<&'a str> {
    if matches!(pod.status().phase(), "Failed" | "Succeeded") {
        return None;
    }
    let ips = pod.0.get(k::STATUS).get(k::POD_IPS).items().map(|ip| ip.get(k::IP).str());
    ips.into_iter().find(|ip| !ip.is_empty() && ip.contains('.') == (family == "IPv4"))
}

/// Says of an endpoint which pod it is, where, and what DNS calls it in the Service.
pub fn place(endpoint: &mut Doc, service: Ref<'_>, pod: Ref<'_>) {
    let spec = pod.get(k::SPEC);
    let hostname = spec.get(k::HOSTNAME).str();
    let named = !hostname.is_empty() && spec.get(k::SUBDOMAIN).str() == objects::name(service);
    let node = spec.get(k::NODE_NAME).str();
    endpoint
        .edit()
        .set_opt(k::HOSTNAME, named.then_some(hostname))
        .set(
            k::TARGET_REF,
            doc!({ "kind": "Pod", "namespace": objects::namespace(pod), "name": objects::name(pod),
                "uid": objects::uid(pod) }),
        )
        .set_opt(k::NODE_NAME, (!node.is_empty()).then_some(node));
}

/// The Service's ports as this pod has them; a named port that the pod lacks is left out.
pub fn ports(service: Ref<'_>, pod: Ref<'_>) -> Doc {
    let mut out = Doc::array();
    for port in service.get(k::SPEC).get(k::PORTS).items() {
        let protocol = port.get(k::PROTOCOL).opt_str().unwrap_or("TCP");
        let Some(number) = target_port(port, protocol, pod) else { continue };
        let mut one = doc!({ "name": port.get(k::NAME).str(), "port": number, "protocol": protocol });
        let app = port.get(k::APP_PROTOCOL);
        one.edit().set_opt(k::APP_PROTOCOL, app.is_set().then_some(app));
        out.edit().push(one);
    }
    out
}

fn target_port(port: Ref<'_>, protocol: &str, pod: Ref<'_>) -> Option<i64> {
    let target = port.get(k::TARGET_PORT);
    let Some(name) = target.opt_str() else {
        return Some(target.opt_i64().filter(|n| *n != 0).unwrap_or_else(|| port.get(k::PORT).i64()));
    };
    let spec = pod.get(k::SPEC);
    let sidecars =
        spec.get(k::INIT_CONTAINERS).items().filter(|c| c.get(k::RESTART_POLICY).str() == "Always");
    let all = spec.get(k::CONTAINERS).items().chain(sidecars).flat_map(|c| c.get(k::PORTS).items());
    let is = |p: &Ref<'_>| {
        p.get(k::NAME).str() == name && p.get(k::PROTOCOL).opt_str().unwrap_or("TCP") == protocol
    };
    all.into_iter().find(is).map(|p| p.get(k::CONTAINER_PORT).i64())
}

/// The owner's labels, and those that say whose slices they are and which controller's.
pub fn slice_labels(owner: Ref<'_>, manager: &str) -> Doc {
    let mut out = Doc::object();
    let mut edit = out.edit();
    for (name, value) in objects::labels(owner).entries() {
        if ![SERVICE_NAME, MANAGED_BY, HEADLESS].contains(&name) {
            edit.set(name, value);
        }
    }
    edit.set(MANAGED_BY, manager).set(SERVICE_NAME, objects::name(owner));
    out
}

// === impl Owner ===

impl Owner<'_> {
    fn mark(&self, slice: &mut Doc) {
        let mut meta = slice.edit().at(k::METADATA);
        meta.set(k::LABELS, &self.labels);
        if let Some(annotations) = &self.annotations {
            meta.set_opt(k::ANNOTATIONS, (!annotations.root().is_empty()).then_some(annotations));
        }
    }

    fn new_slice(&self, family: &str, ports: &str) -> Doc {
        let mut out = doc!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "generateName": format!("{}-", objects::name(self.object)),
                "namespace": objects::namespace(self.object) },
            "addressType": family, "endpoints": [],
        });
        self.mark(&mut out);
        let reference = objects::owner_reference(self.object, "v1", self.kind);
        out.edit().at(k::METADATA).list(k::OWNER_REFERENCES).push(reference);
        let ports = apimachinery::codec::json::parse(ports).map(|p| p.doc).unwrap_or_default();
        // As upstream writes a slice without ports.
        out.edit().set(k::PORTS, &ports);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::call::Stored;
    use std::sync::Arc;

    fn service() -> Doc {
        doc!({ "metadata": { "name": "web", "namespace": "ns", "uid": "s", "labels": { "x": "y" } },
            "spec": { "clusterIP": "10.0.0.9", "selector": { "app": "web" }, "ipFamilies": ["IPv4"],
                "ports": [{ "name": "", "port": 3000, "protocol": "TCP", "targetPort": "nodejs-port" }] } })
    }

    fn pod(name: &str, ready: &str) -> Doc {
        doc!({ "metadata": { "name": name, "namespace": "ns", "uid": name }, "spec": { "nodeName": "n", "containers": [
            { "name": "c", "ports": [{ "name": "nodejs-port", "containerPort": 3001 }] }] },
            "status": { "phase": "Running", "podIPs": [{ "ip": "10.1.0.1" }],
                "conditions": [{ "type": "Ready", "status": ready }] } })
    }

    fn seen(mut doc: Doc, name: &str) -> Seen {
        doc.edit().at(k::METADATA).set(k::NAME, name);
        let json = doc.to_json().into();
        Seen::new(Arc::new(Stored::new(json, 1, "ns", name)))
    }

    #[test]
    fn pods_become_endpoints_with_their_ports() {
        let made = plan_service(service().root(), &[pod("a", "True"), pod("b", "False")], &[]);
        assert_eq!((made.create.len(), made.update.len(), made.delete.len()), (1, 0, 0));
        let slice = &made.create[0];
        assert_eq!(slice.get(k::PORTS).to_doc(), doc!([{ "name": "", "port": 3001, "protocol": "TCP" }]));
        let ready: Vec<bool> = slice.get(k::ENDPOINTS).items().map(|e| e.root_ready()).collect();
        assert_eq!(ready, [true, false]);
        assert_eq!(
            objects::labels(slice.root()).to_doc(),
            doc!({ "x": "y", MANAGED_BY: CONTROLLER, SERVICE_NAME: "web" })
        );
    }

    trait RootReady {
        fn root_ready(self) -> bool;
    }

    impl RootReady for Ref<'_> {
        fn root_ready(self) -> bool {
            self.get(k::CONDITIONS).get(k::READY).bool()
        }
    }

    #[test]
    fn what_is_right_is_left_alone_and_what_changes_is_updated() {
        let first = plan_service(service().root(), &[pod("a", "True")], &[]);
        let slices = [seen(first.create[0].clone(), "web-1")];
        let same = plan_service(service().root(), &[pod("a", "True")], &slices);
        assert!(same.create.is_empty() && same.update.is_empty() && same.delete.is_empty(), "{same:?}");
        let two = plan_service(service().root(), &[pod("a", "True"), pod("b", "True")], &slices);
        assert_eq!(two.update.len(), 1);
        assert_eq!(two.update[0].get(k::ENDPOINTS).len(), 2);
        let none = plan_service(service().root(), &[], &slices);
        assert_eq!((none.create.len(), none.delete.len()), (1, 1), "a placeholder takes its place");
        let placeholder = [seen(none.create[0].clone(), "web-2")];
        let still = plan_service(service().root(), &[], &placeholder);
        assert!(still.create.is_empty() && still.update.is_empty() && still.delete.is_empty(), "{still:?}");
    }

    #[test]
    fn a_slice_holds_a_hundred() {
        let pods: Vec<Doc> = (0..150).map(|i| pod(&format!("p{i:03}"), "True")).collect();
        let made = plan_service(service().root(), &pods, &[]);
        let sizes: Vec<usize> = made.create.iter().map(|s| s.get(k::ENDPOINTS).len()).collect();
        assert_eq!(sizes, [100, 50]);
    }
}
