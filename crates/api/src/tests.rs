//! What becomes of documents: defaults, complaints, changes, rows. Tables of YAML and what is expected.

use apimachinery::call::User;
use apimachinery::codec::yaml;
use apimachinery::{Doc, GroupVersion, doc, k};
use base::time::Timestamp;
use expect_test::{Expect, expect};

use crate::kind::*;
use crate::{generic, kinds};

const NOW: &str = "2026-01-01T01:00:00Z";

fn gv_of(doc: &Doc) -> GroupVersion {
    GroupVersion::parse(doc.get(k::API_VERSION).str()).expect("an apiVersion")
}

/// The stored form of a document as a client sends it, with the kind that takes it.
fn stored(text: &str) -> (std::sync::Arc<Kind>, GroupVersion, Doc) {
    let parsed = yaml::parse(text.as_bytes()).unwrap();
    let (gv, name) = (gv_of(&parsed.doc), parsed.doc.get(k::KIND).str().to_owned());
    let kind = kinds()
        .into_iter()
        .find(|kind| kind.kind == name.as_str() && kind.version(&gv).is_some())
        .expect("a kind");
    let version = kind.version(&gv).unwrap();
    let decoded = apimachinery::schema::decode::decode(&parsed, version.schema).unwrap();
    assert!(decoded.strict.is_empty(), "{:?}", decoded.strict);
    let mut doc = decoded.doc;
    (version.defaults)(&mut doc);
    if let Some(convert) = version.to_storage {
        convert(&mut doc);
    }
    doc.edit().set(k::API_VERSION, kind.storage_version().gv.to_string());
    (kind, gv, doc)
}

fn with_op<R>(action: Action, subresource: &str, gv: &GroupVersion, f: impl FnOnce(&Op<'_>) -> R) -> R {
    let user = User::new("tester", &[]);
    f(&Op { action, subresource, gv, dry_run: false, user: &user, now: NOW.parse().unwrap() })
}

pub(crate) fn created(text: &str) -> (std::sync::Arc<Kind>, Doc, String) {
    let (kind, gv, mut doc) = stored(text);
    if kind.is_namespaced() {
        doc.edit().at(k::METADATA).set_default(k::NAMESPACE, "ns");
    }
    let errs = with_op(Action::Create, "", &gv, |op| {
        generic::before_create(&kind, op, &mut doc, "u1");
        generic::validate(&kind, op, &doc, None)
    });
    let text = if errs.is_empty() { String::new() } else { errs.summary() };
    (kind, doc, text)
}

/// A new object as it is stored, without its metadata, a field of the spec on each line.
fn makes(text: &str, wanted: Expect) {
    let (_, doc, errs) = created(text);
    assert_eq!(errs, "");
    let mut out = String::new();
    for (name, value) in doc.root().entries().filter(|(name, _)| *name != "metadata") {
        let inner: Vec<_> = if name == "spec" { value.entries().collect() } else { vec![("", value)] };
        for (field, value) in inner {
            let dot = if field.is_empty() { "" } else { "." };
            out.push_str(&format!("{name}{dot}{field}: {}\n", String::from_utf8(value.to_json()).unwrap()));
        }
    }
    wanted.assert_eq(&out);
}

/// The complaints about a new object, one a line.
fn refuses(text: &str, wanted: Expect) {
    let (.., errs) = created(text);
    wanted
        .assert_eq(&errs.trim_matches(['[', ']']).replace(", spec.", "\nspec.").replace(", data", "\ndata"));
}

/// The complaints about a change.
pub(crate) fn update(old: &str, new: &str, subresource: &str) -> (Doc, String) {
    let (kind, old, errs) = created(old);
    assert_eq!(errs, "");
    let (_, gv, mut new) = stored(new);
    let errs = with_op(Action::Update, subresource, &gv, |op| {
        generic::before_update(&kind, op, &mut new, &old);
        generic::validate(&kind, op, &new, Some(&old))
    });
    (new, if errs.is_empty() { String::new() } else { errs.summary() })
}

#[test]
fn what_is_noted_beside_a_status_is_no_new_generation() {
    for kind in kinds().into_iter().filter(|k| k.sub("status").is_some() && k.class != Class::Virtual) {
        let gv = kind.storage_version().gv.clone();
        let old = doc!({ "apiVersion": gv.to_string(), "kind": kind.kind, "metadata": { "name": "a", "generation": 3 } });
        let mut new = old.clone();
        new.edit().at(k::METADATA).at(k::ANNOTATIONS).set("noted", "here");
        with_op(Action::Update, "status", &gv, |op| generic::before_update(&kind, op, &mut new, &old));
        assert_eq!(new.get(k::METADATA).get(k::GENERATION).i64(), 3, "{}", kind.kind);
    }
}

/// A table row of an object given as it is stored.
fn row(text: &str, wanted: Expect) {
    let doc = yaml::parse(text.as_bytes()).unwrap().doc;
    let (gv, name) = (gv_of(&doc), doc.get(k::KIND).str().to_owned());
    let kind = kinds()
        .into_iter()
        .find(|kind| kind.kind == name.as_str() && kind.version(&gv).is_some())
        .expect("a kind");
    let now: Timestamp = NOW.parse().unwrap();
    let cells: Vec<String> = kind
        .columns
        .iter()
        .map(|column| match column.cell(doc.root(), now) {
            Cell::Text(text) => text.into_owned(),
            Cell::Int(n) => n.to_string(),
            Cell::Bool(b) => b.to_string(),
            Cell::Null => "null".into(),
        })
        .collect();
    wanted.assert_eq(&cells.join(" | "));
}

const POD: &str =
    "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: 'i:1'}]}}";
const DEPLOYMENT: &str = "{apiVersion: extensions/v1beta1, kind: Deployment, metadata: {name: d}, spec: {template: {metadata: {labels: {app: a}}, \
     spec: {containers: [{name: c, image: i, ports: [{name: http, containerPort: 3000}], resources: {requests: {cpu: 200m, memory: 0.5Gi}, limits: {cpu: 400m, memory: 1Gi}}}]}}}}";

#[test]
fn defaults_of_a_pod() {
    makes(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {serviceAccount: sa, volumes: [{name: v}, {name: s, secret: {secretName: x}}, {name: t, projected: {sources: [{serviceAccountToken: {path: token}}]}}], containers: [{name: c, image: 'r:5000/i', resources: {limits: {cpu: '1', memory: 0.5Gi}}, env: [{name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}], ports: [{containerPort: 80}], readinessProbe: {httpGet: {port: 80}}}]}}",
        expect![[r#"
            kind: "Pod"
            apiVersion: "v1"
            spec.volumes: [{"name":"v","emptyDir":{}},{"name":"s","secret":{"secretName":"x","defaultMode":420}},{"name":"t","projected":{"sources":[{"serviceAccountToken":{"expirationSeconds":3600,"path":"token"}}],"defaultMode":420}}]
            spec.containers: [{"name":"c","image":"r:5000/i","ports":[{"containerPort":80,"protocol":"TCP"}],"env":[{"name":"NAME","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"resources":{"limits":{"cpu":"1","memory":"512Mi"},"requests":{"cpu":"1","memory":"512Mi"}},"readinessProbe":{"httpGet":{"path":"/","port":80,"scheme":"HTTP"},"timeoutSeconds":1,"periodSeconds":10,"successThreshold":1,"failureThreshold":3},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}]
            spec.restartPolicy: "Always"
            spec.terminationGracePeriodSeconds: 30
            spec.dnsPolicy: "ClusterFirst"
            spec.serviceAccountName: "sa"
            spec.serviceAccount: "sa"
            spec.securityContext: {}
            spec.schedulerName: "default-scheduler"
            spec.enableServiceLinks: true
            status: {"phase":"Pending","qosClass":"Guaranteed"}
        "#]],
    );
}

#[test]
fn defaults_of_an_old_deployment() {
    makes(
        DEPLOYMENT,
        expect![[r#"
            kind: "Deployment"
            apiVersion: "apps/v1"
            spec.replicas: 1
            spec.selector: {"matchLabels":{"app":"a"}}
            spec.template: {"metadata":{"labels":{"app":"a"}},"spec":{"containers":[{"name":"c","image":"i","ports":[{"name":"http","containerPort":3000,"protocol":"TCP"}],"resources":{"limits":{"cpu":"400m","memory":"1Gi"},"requests":{"cpu":"200m","memory":"512Mi"}},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File","imagePullPolicy":"Always"}],"restartPolicy":"Always","terminationGracePeriodSeconds":30,"dnsPolicy":"ClusterFirst","securityContext":{},"schedulerName":"default-scheduler"}}
            spec.strategy: {"type":"RollingUpdate","rollingUpdate":{"maxUnavailable":1,"maxSurge":1}}
            spec.revisionHistoryLimit: 2147483647
            spec.progressDeadlineSeconds: 2147483647
            status: {}
        "#]],
    );
}

#[test]
fn defaults_of_a_service_and_a_secret() {
    makes(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: NodePort, selector: {app: a}, ports: [{port: 3000, targetPort: http}]}}",
        expect![[r#"
            kind: "Service"
            apiVersion: "v1"
            spec.ports: [{"protocol":"TCP","port":3000,"targetPort":"http"}]
            spec.selector: {"app":"a"}
            spec.type: "NodePort"
            spec.sessionAffinity: "None"
            spec.externalTrafficPolicy: "Cluster"
            spec.ipFamilyPolicy: "SingleStack"
            spec.internalTrafficPolicy: "Cluster"
            status: {"loadBalancer":{}}
        "#]],
    );
    makes(
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: YQ==}, stringData: {a: b}}",
        expect![[r#"
            kind: "Secret"
            apiVersion: "v1"
            data: {"a":"Yg=="}
            type: "Opaque"
        "#]],
    );
    makes(
        "{apiVersion: v1, kind: Namespace, metadata: {name: team}}",
        expect![[r#"
            kind: "Namespace"
            apiVersion: "v1"
            spec.finalizers: ["kubernetes"]
            status: {"phase":"Active"}
        "#]],
    );
}

#[test]
fn complaints_about_pods() {
    refuses(
        "{apiVersion: v1, kind: Pod, metadata: {name: P_}, spec: {containers: []}}",
        expect![[r#"
        metadata.name: Invalid value: "P_": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
        spec.containers: Required value"#]],
    );
    refuses(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {restartPolicy: Sometimes, containers: [{name: C, volumeMounts: [{name: v, mountPath: /x}], ports: [{containerPort: 99999}, {containerPort: 80, name: a--b}], env: [{name: ''}, {name: X, valueFrom: {}}], resources: {requests: {cpu: '2', what: 1}, limits: {cpu: 1, what: 1}}, livenessProbe: {successThreshold: 2}}, {name: c, image: i, imagePullPolicy: Perhaps}, {name: c, image: i}]}}",
        expect![[r#"
            spec.containers[0].name: Invalid value: "C": a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')
            spec.containers[0].image: Required value
            spec.containers[0].ports[0].containerPort: Invalid value: 99999: must be between 1 and 65535, inclusive
            spec.containers[0].ports[1].name: Invalid value: "a--b": must not contain consecutive hyphens
            spec.containers[0].env[0].name: Required value
            spec.containers[0].env[1].valueFrom: Invalid value: "": must specify one of: `configMapKeyRef`, `fieldRef`, `fileKeyRef`, `resourceFieldRef` or `secretKeyRef`
            spec.containers[0].volumeMounts[0].name: Not found: "v"
            spec.containers[0].resources.limits[what]: Invalid value: "what": must be a standard resource type or fully qualified
            spec.containers[0].resources.limits[what]: Invalid value: "what": must be a standard resource for containers
            spec.containers[0].resources.requests[what]: Invalid value: "what": must be a standard resource type or fully qualified
            spec.containers[0].resources.requests[what]: Invalid value: "what": must be a standard resource for containers
            spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1
            spec.containers[0].livenessProbe: Required value: must specify a handler type
            spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1
            spec.containers[1].imagePullPolicy: Unsupported value: "Perhaps": supported values: "Always", "IfNotPresent", "Never"
            spec.containers[2].name: Duplicate value: "c"
            spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never""#]],
    );
    refuses(
        "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {tolerations: [{operator: Exists, value: x}], volumes: [{name: v, emptyDir: {}, hostPath: {path: /}}, {name: v, configMap: {items: [{key: a, path: ../b}]}}], containers: [{name: c, image: i}]}}",
        expect![[r#"
            spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type
            spec.volumes[1].name: Duplicate value: "v"
            spec.volumes[1].configMap.name: Required value
            spec.volumes[1].configMap.items[0].path: Invalid value: "../b": must not contain '..'
            spec.tolerations[0].operator: Invalid value: {"operator":"Exists","value":"x"}: value must be empty when `operator` is 'Exists'"#]],
    );
}

#[test]
fn complaints_about_others() {
    refuses(
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, spec: {hard: {configmaps: '10', persistentvolumesclaim: '4', pods: '-1', services.loadbalancers: 0.5}}}",
        expect![[r#"
            spec.hard[persistentvolumesclaim]: Invalid value: "persistentvolumesclaim": must be a standard resource for quotas; did you mean "persistentvolumeclaims"?
            spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0
            spec.hard[services.loadbalancers]: Invalid value: "500m": must be an integer"#]],
    );
    refuses(
        "{apiVersion: v1, kind: Service, metadata: {name: 1s}, spec: {type: ClusterIP, externalTrafficPolicy: Local, ports: [{port: 0, nodePort: 30000}, {port: 1, name: a}]}}",
        expect![[r#"
            metadata.name: Invalid value: "1s": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
            spec.ports[0].name: Required value
            spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive
            spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'
            spec.externalTrafficPolicy: Invalid value: "Local": may only be set for externally-accessible services"#]],
    );
    refuses(
        "{apiVersion: v1, kind: Secret, metadata: {name: s}, type: kubernetes.io/tls, data: {tls.crt: ''}}",
        expect!["data[tls.key]: Required value"],
    );
    refuses(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 0, maxUnavailable: 0%}}, selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: c}}, spec: {restartPolicy: Never, containers: [{name: c, image: i}]}}}}",
        expect![[r#"
            spec.template.metadata.labels: Invalid value: {"a":"c"}: `selector` does not match template `labels`
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0"#]],
    );
    refuses(
        "{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: 'a/b'}, roleRef: {kind: Role, name: r}, subjects: [{kind: ServiceAccount, name: s}]}",
        expect![[
            r#"metadata.name: Invalid value: "a/b": may not contain '/', roleRef.kind: Unsupported value: "Role": supported values: "ClusterRole", subjects[0].namespace: Required value"#
        ]],
    );
    refuses(
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, labels: {'a b': c}, finalizers: ['x y']}, data: {'a/b': c}}",
        expect![[r#"
            metadata.labels: Invalid value: "a b": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.finalizers: Invalid value: "x y": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), metadata.finalizers[0]: Invalid value: "x y": name is neither a standard finalizer name nor is it fully qualified
            data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"#]],
    );
}

#[test]
fn bounds_make_sense() {
    refuses(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Container, min: {cpu: 2, foo: 1}, max: {cpu: 1}, default: {cpu: 3}, defaultRequest: {cpu: 4}, maxLimitRequestRatio: {cpu: 0.5}}, {type: Pod, default: {cpu: 1}, min: {memory: 1Mi}, max: {memory: 2Mi}, maxLimitRequestRatio: {memory: 3}}, {type: PersistentVolumeClaim}, {type: Container, default: {example.com/gpu: 1}, defaultRequest: {example.com/gpu: 2}}, {type: Foo}]}}",
        expect![[r#"
            spec.limits[0].min[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.limits[0].min[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.limits[0].defaultRequest[foo]: Invalid value: "foo": must be a standard resource type or fully qualified
            spec.limits[0].defaultRequest[foo]: Invalid value: "foo": must be a standard resource for containers
            spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1
            spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than max value 1
            spec.limits[0].defaultRequest[cpu]: Invalid value: "4": default request value 4 is greater than default limit value 3
            spec.limits[0].default[cpu]: Invalid value: "1": default value 3 is greater than max value 1
            spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1
            spec.limits[1].default: Forbidden: may not be specified when `type` is 'Pod'
            spec.limits[1].maxLimitRequestRatio[memory]: Invalid value: "3": ratio 3 is greater than max/min = 2.000000
            spec.limits[2].limits: Required value: either minimum or maximum storage value is required, but neither was provided
            spec.limits[3].type: Duplicate value: "Container"
            spec.limits[3].defaultRequest[example.com/gpu]: Invalid value: "2": default request value 2 is greater than default limit value 1
            spec.limits[3].defaultRequest[example.com/gpu]: Invalid value: "2": default value 1 must equal to defaultRequest value 2 in example.com/gpu
            spec.limits[4].type: Invalid value: "Foo": must be a standard limit type or fully qualified"#]],
    );
    let (_, doc, errs) = created(
        "{apiVersion: v1, kind: LimitRange, metadata: {name: l}, spec: {limits: [{type: Container, max: {cpu: 2, memory: 1Gi}, min: {cpu: 1, ephemeral-storage: 1Gi}}]}}",
    );
    assert_eq!(errs, "");
    let item = doc.get(k::SPEC).get(k::LIMITS).item(0);
    expect![[r#"{"cpu":"2","memory":"1Gi"}{"cpu":"2","ephemeral-storage":"1Gi","memory":"1Gi"}"#]].assert_eq(
        &String::from_utf8([item.get(k::DEFAULT).to_json(), item.get(k::DEFAULT_REQUEST).to_json()].concat())
            .unwrap(),
    );
}

#[test]
fn complaints_about_the_cluster_s_own() {
    refuses(
        "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.0.0.0/24, 10.0.1.0/24], taints: [{key: a, effect: NoSchedule}, {key: a, effect: NoSchedule}]}, status: {capacity: {pods: 0.5}}}",
        expect![[r#"
            spec.taints[1]: Duplicate value: {"key":"a","effect":"NoSchedule"}
            spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each IP family, status.capacity.pods: Invalid value: "500m": must be an integer, status.allocatable.pods: Invalid value: "500m": must be an integer"#]],
    );
    let old =
        "{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.0.0/24, providerID: a}}";
    let (_, doc, _) = created(old);
    assert_eq!(doc.get(k::SPEC).get(k::POD_CIDRS).item(0).str(), "10.0.0.0/24");
    let (_, errs) =
        update(old, &old.replace("10.0.0", "10.0.1").replace("providerID: a", "providerID: b"), "");
    expect![[r#"[spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid, spec.providerID: Forbidden: node updates may not change providerID except from "" to valid]"#]].assert_eq(&errs);
    let (_, errs) = update(old, &old.replace("spec:", "status: {addresses: [{type: InternalIP, address: 1.1.1.1}, {type: InternalIP, address: 1.1.1.1}]}, spec:"), "status");
    expect![[r#"status.addresses[1]: Duplicate value: {"type":"InternalIP","address":"1.1.1.1"}"#]]
        .assert_eq(&errs);
    for (name, rest, wanted) in [
        (
            "system-x",
            "1",
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: system-x is not a known system priority class"
            ],
        ),
        (
            "system-node-critical",
            "1",
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: value of system-node-critical PriorityClass must be 2000001000"
            ],
        ),
        (
            "system-node-critical",
            "2000001000, globalDefault: true",
            expect![
                "metadata.name: Forbidden: priority class names with 'system-' prefix are reserved for system use only. error: globalDefault of system-node-critical PriorityClass must be false"
            ],
        ),
        ("system-node-critical", "2000001000", expect![""]),
        (
            "mine",
            "1000000001",
            expect!["value: Forbidden: maximum allowed value of a user defined priority is 1000000000"],
        ),
    ] {
        let class = format!(
            "{{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {{name: {name}}}, value: {rest}}}"
        );
        wanted.assert_eq(&created(&class).2);
    }
}

#[test]
fn complaints_about_less_usual_fields_of_pods() {
    refuses(
        "{apiVersion: v1, kind: Pod, metadata: {name: p, annotations: {kubernetes.io/config.mirror: x, controller.kubernetes.io/pod-deletion-cost: '1.5'}}, spec: {restartPolicy: Never, securityContext: {appArmorProfile: {type: Localhost}, seccompProfile: {type: RuntimeDefault, localhostProfile: a}}, topologySpreadConstraints: [{maxSkew: 1, topologyKey: z, whenUnsatisfiable: ScheduleAnyway, minDomains: 1, matchLabelKeys: [a]}], volumes: [{name: v, emptyDir: {}}], containers: [{name: c, image: i, resizePolicy: [{resourceName: cpu, restartPolicy: RestartContainer}, {resourceName: cpu, restartPolicy: NotRequired}, {resourceName: pods, restartPolicy: NotRequired}], readinessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 5}, resources: {limits: {hugepages-2Mi: 2Mi, pods: 1, requests.example.com/a: 1}}, volumeMounts: [{name: v, mountPath: /v, mountPropagation: Bidirectional, recursiveReadOnly: Enabled}]}]}}",
        expect![[r#"
            metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": must set spec.nodeName if mirror pod annotation is set, metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "1.5": must be a 32bit integer
            spec.containers[0].volumeMounts[0].mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers
            spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when readOnly is true
            spec.containers[0].volumeMounts[0].recursiveReadOnly: Forbidden: may only be specified when mountPropagation is None or not specified
            spec.containers[0].resources.limits[pods]: Invalid value: "pods": must be a standard resource for containers
            spec.containers[0].resources.limits[requests.example.com/a]: Invalid value: "requests.example.com/a": doesn't follow extended resource name standard
            spec.containers[0].resources.requests[pods]: Invalid value: "pods": must be a standard resource for containers
            spec.containers[0].resources.requests[requests.example.com/a]: Invalid value: "requests.example.com/a": doesn't follow extended resource name standard
            spec.containers[0].resources: Forbidden: HugePages require cpu or memory
            spec.containers[0].resizePolicy: Invalid value: "RestartContainer": must be 'NotRequired' when `restartPolicy` is 'Never'
            spec.containers[0].resizePolicy[1]: Duplicate value: "cpu"
            spec.containers[0].resizePolicy: Unsupported value: "pods": supported values: "cpu", "memory"
            spec.containers[0].readinessProbe.terminationGracePeriodSeconds: Invalid value: 5: must not be set for readinessProbes
            spec.securityContext.seccompProfile.localhostProfile: Invalid value: "a": can only be set when seccomp type is Localhost
            spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost
            spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway
            spec.topologySpreadConstraints[0].matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"#]],
    );
    let old = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {nodeName: n1, containers: [{name: c, image: i}]}}";
    let (_, errs) =
        update(old, &old.replace("name: p}", "name: p, annotations: {kubernetes.io/config.mirror: x}}"), "");
    expect![[r#"metadata.annotations[kubernetes.io/config.mirror]: Invalid value: "x": may not add mirror pod annotation"#]].assert_eq(&errs);
    let (doc, errs) = update(old, &old.replace("spec:", "status: {podIP: 10.0.0.1}, spec:"), "status");
    assert_eq!(
        (errs.as_str(), doc.get(k::STATUS).get(k::POD_IPS).item(0).get(k::IP).str()),
        ("", "10.0.0.1")
    );
    let (doc, errs) =
        update(old, &old.replace("spec:", "status: {podIPs: [{ip: 10.0.0.1}]}, spec:"), "status");
    assert_eq!((errs.as_str(), doc.get(k::STATUS).get(k::POD_IP).str()), ("", "10.0.0.1"));
}

#[test]
fn kinds_that_make_pods_share_their_template() {
    let spec = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}";
    let of = |gv: &str, kind: &str, spec: &str| {
        format!("{{apiVersion: {gv}, kind: {kind}, metadata: {{name: x}}, spec: {{{spec}}}}}")
    };
    for (gv, kind, selector, labels) in [
        ("v1", "ReplicationController", r#"{"a":"b"}"#, r#"{"a":"b"}"#),
        ("extensions/v1beta1", "ReplicaSet", r#"{"matchLabels":{"a":"b"}}"#, r#"{"a":"b"}"#),
        ("extensions/v1beta1", "Deployment", r#"{"matchLabels":{"a":"b"}}"#, r#"{"a":"b"}"#),
    ] {
        let (_, doc, errs) = created(&of(gv, kind, spec));
        let json = |path: &str| String::from_utf8(doc.root().find(path).to_json()).unwrap();
        assert_eq!(
            (errs.as_str(), json("spec.selector").as_str(), json("metadata.labels").as_str()),
            ("", selector, labels),
            "{gv} {kind}"
        );
        assert_eq!(
            (json("spec.replicas").as_str(), json("spec.template.spec.dnsPolicy").as_str()),
            ("1", r#""ClusterFirst""#)
        );
    }
    refuses(
        &of("apps/v1beta2", "ReplicaSet", spec),
        expect![[r#"
            spec.selector: Required value
            spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`"#]],
    );
    refuses(
        &of("v1", "ReplicationController", "replicas: -1, selector: {a: c}"),
        expect![[r#"
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.template: Required value"#]],
    );
    let odd = "minReadySeconds: -1, selector: {a: c}, template: {metadata: {labels: {a: b}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 5, ephemeralContainers: [{name: d, image: i}], containers: [{name: c, image: i}]}}";
    refuses(
        &of("v1", "ReplicationController", odd),
        expect![[r#"
            spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0
            spec.template.metadata.labels: Invalid value: {"a":"b"}: `selector` does not match template `labels`
            spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template
            spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"
            spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not Supported"#]],
    );
    refuses(
        "{apiVersion: v1, kind: PodTemplate, metadata: {name: x}, template: {metadata: {labels: {a: 'b c'}}, spec: {containers: [{name: c}]}}}",
        expect![[
            r#"template.labels: Invalid value: "b c": a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?'), template.spec.containers[0].image: Required value"#
        ]],
    );
    // Selectors may change through the oldest versions, and a controller's always.
    for (gv, kind, changes) in [
        ("v1", "ReplicationController", true),
        ("apps/v1", "ReplicaSet", false),
        ("apps/v1beta2", "ReplicaSet", false),
        ("extensions/v1beta1", "ReplicaSet", true),
        ("apps/v1beta1", "Deployment", true),
    ] {
        let selector = if gv == "v1" { "selector: {a: b}" } else { "selector: {matchLabels: {a: b}}" };
        let old = of(gv, kind, &format!("{selector}, {spec}"));
        let (_, errs) = update(&old, &old.replace("a: b", "a: d"), "");
        assert_eq!(errs.is_empty(), changes, "{gv} {kind}: {errs}");
        let (found, gv, _) = stored(&old);
        let left = found.strategy.default_propagation(&gv) == "Orphan";
        assert_eq!(left, gv.to_string() != "apps/v1", "{gv}");
    }
}

#[test]
fn counts_of_a_status_add_up() {
    for (gv, kind, selector) in [
        ("v1", "ReplicationController", "{a: b}"),
        ("apps/v1", "ReplicaSet", "{matchLabels: {a: b}}"),
        ("apps/v1", "Deployment", "{matchLabels: {a: b}}"),
    ] {
        let old = format!(
            "{{apiVersion: {gv}, kind: {kind}, metadata: {{name: x}}, spec: {{selector: {selector}, template: {{metadata: {{labels: {{a: b}}}}, spec: {{containers: [{{name: c, image: i}}]}}}}}}}}"
        );
        let new = old.replace("spec: {selector", "status: {replicas: 1, readyReplicas: 1, availableReplicas: 2, observedGeneration: -1}, spec: {selector");
        let (_, errs) = update(&old, &new, "status");
        for part in [
            "status.observedGeneration: Invalid value: -1: must be greater than or equal to 0",
            "status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
            "status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
        ] {
            assert!(errs.contains(part), "{kind}: {errs}");
        }
    }
}

#[test]
fn a_pod_s_image_changes_and_little_else() {
    let (doc, errs) = update(POD, &POD.replace("i:1", "i:2"), "");
    assert_eq!((errs.as_str(), doc.get(k::METADATA).get(k::GENERATION).i64()), ("", 2));
    let (_, errs) = update(POD, &POD.replace("containers:", "hostNetwork: true, containers:"), "");
    assert!(
        errs.contains("spec: Forbidden: pod updates may not change fields other than")
            && errs.ends_with("changed: hostNetwork"),
        "{errs}"
    );
    let (_, errs) = update(POD, &POD.replace("name: c", "name: d"), "");
    assert!(errs.contains("changed: containers"), "{errs}");
}

#[test]
fn status_and_spec_are_written_apart() {
    let grown = DEPLOYMENT.replace("spec: {template", "status: {replicas: 3}, spec: {replicas: 3, template");
    let (doc, errs) = update(DEPLOYMENT, &grown, "");
    assert_eq!(
        (
            errs.as_str(),
            doc.get(k::SPEC).get(k::REPLICAS).i64(),
            doc.get(k::STATUS).get(k::REPLICAS).exists()
        ),
        ("", 3, false)
    );
    assert_eq!(doc.get(k::METADATA).get(k::GENERATION).i64(), 2);
    let (doc, errs) = update(DEPLOYMENT, &grown, "status");
    assert_eq!(
        (errs.as_str(), doc.get(k::SPEC).get(k::REPLICAS).i64(), doc.get(k::STATUS).get(k::REPLICAS).i64()),
        ("", 1, 3)
    );
    assert_eq!(doc.get(k::METADATA).get(k::GENERATION).i64(), 1);
    let apps = DEPLOYMENT.replace("extensions/v1beta1", "apps/v1");
    let apps = apps.replace("spec: {template", "spec: {selector: {matchLabels: {app: a}}, template");
    let (_, errs) = update(&apps, &apps.replace("app: a", "app: b"), "");
    assert!(errs.contains("spec.selector: Invalid value:") && errs.contains("field is immutable"), "{errs}");
}

#[test]
fn services_keep_what_they_were_given() {
    let service =
        |spec: &str| format!("{{apiVersion: v1, kind: Service, metadata: {{name: s}}, spec: {{{spec}}}}}");
    let old = service("type: NodePort, clusterIP: 10.0.0.5, ports: [{port: 80, nodePort: 30080}]");
    let (doc, errs) = update(&old, &service("type: NodePort, ports: [{port: 80}]"), "");
    assert_eq!((errs.as_str(), doc.get(k::SPEC).get(k::CLUSTER_IP).str()), ("", "10.0.0.5"));
    assert_eq!(doc.get(k::SPEC).get(k::PORTS).item(0).get(k::NODE_PORT).i64(), 30080);
    let (doc, errs) = update(
        &old,
        &service("type: ClusterIP, externalTrafficPolicy: Cluster, ports: [{port: 80, nodePort: 30080}]"),
        "",
    );
    assert_eq!(
        (errs.as_str(), doc.get(k::SPEC).get(k::PORTS).item(0).get(k::NODE_PORT).exists()),
        ("", false)
    );
    let (doc, errs) = update(&old, &service("type: ExternalName, externalName: example.com"), "");
    assert_eq!((errs.as_str(), doc.get(k::SPEC).get(k::CLUSTER_IP).exists()), ("", false));
    let (_, errs) = update(&old, &service("type: NodePort, clusterIP: 10.0.0.6, ports: [{port: 80}]"), "");
    assert!(
        errs.contains("spec.clusterIPs[0]: Invalid value: [\"10.0.0.6\"]: may not change once set"),
        "{errs}"
    );
    let kind = kinds().into_iter().find(|kind| kind.kind == "Service").unwrap();
    let (_, doc, _) = created(
        &service("type: NodePort, ports: [{port: 80}, {port: 81, name: b, nodePort: 30081}]")
            .replace("{port: 80}", "{port: 80, name: a}"),
    );
    let wanted = Allocations {
        cluster_ips: vec![("".into(), String::new())],
        node_ports: vec![(0, "TCP".into(), 0), (1, "TCP".into(), 30081)],
        health_check_node_port: None,
    };
    assert_eq!(kind.strategy.allocates(doc.root(), None), Some(wanted));
}

#[test]
fn events_have_two_faces() {
    let text = "{apiVersion: events.k8s.io/v1, kind: Event, metadata: {name: e, namespace: ns}, regarding: {kind: Pod, name: p, namespace: ns}, note: hello, reason: R, action: A, type: Normal, eventTime: '2026-01-01T00:59:00.000000Z', reportingController: c, reportingInstance: i}";
    let (kind, doc, errs) = created(text);
    assert_eq!(errs, "");
    assert_eq!((doc.get(k::MESSAGE).str(), doc.get(k::INVOLVED_OBJECT).get(k::NAME).str()), ("hello", "p"));
    let mut back = doc.clone();
    (kind.versions[1].from_storage.unwrap())(&mut back);
    assert_eq!((back.get(k::NOTE).str(), back.get(k::MESSAGE).exists()), ("hello", false));
    assert_eq!(kind.field(doc.root(), "involvedObject.name").as_deref(), Some("p"));
}

#[test]
fn rows() {
    let pod = |status: &str| {
        format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{name: p, creationTimestamp: '2026-01-01T00:55:00Z'}}, spec: {{nodeName: n1, initContainers: [{{name: i}}], containers: [{{name: c}}, {{name: d}}]}}, status: {status}}}"
        )
    };
    row(
        &pod("{phase: Pending, initContainerStatuses: [{name: i, state: {running: {}}}]}"),
        expect!["p | 0/2 | Init:0/1 | 0 | 5m | <none> | n1 | <none> | <none>"],
    );
    row(
        &pod(
            "{phase: Running, podIPs: [{ip: 10.1.1.1}], initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, ready: true, state: {running: {}}}, {name: d, restartCount: 3, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {exitCode: 1, finishedAt: '2026-01-01T00:59:00Z'}}}]}",
        ),
        expect!["p | 1/2 | CrashLoopBackOff | 3 (60s ago) | 5m | 10.1.1.1 | n1 | <none> | <none>"],
    );
    row(
        &pod(
            "{phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]}",
        ),
        expect!["p | 0/2 | ContainerCreating | 0 | 5m | <none> | n1 | <none> | <none>"],
    );
    row(&pod("{phase: Succeeded, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, state: {terminated: {exitCode: 0, reason: Completed}}}]}").replace("name: p,", "name: p, deletionTimestamp: '2026-01-01T00:59:00Z',"), expect!["p | 0/2 | Completed | 0 | 5m | <none> | n1 | <none> | <none>"]);
    row(
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d, creationTimestamp: '2025-12-31T01:00:00Z'}, spec: {replicas: 3, selector: {matchLabels: {a: b}}, template: {spec: {containers: [{name: c, image: i}]}}}, status: {readyReplicas: 2, updatedReplicas: 3, availableReplicas: 2}}",
        expect!["d | 2/3 | 3 | 2 | 24h | c | i | a=b"],
    );
    row(
        "{apiVersion: v1, kind: ReplicationController, metadata: {name: r}, spec: {replicas: 3, selector: {b: c, a: b}, template: {spec: {containers: [{name: c, image: i}, {name: d, image: j}]}}}, status: {replicas: 2, readyReplicas: 1}}",
        expect!["r | 3 | 2 | 1 | <unknown> | c,d | i,j | a=b,b=c"],
    );
    row(
        "{apiVersion: v1, kind: PodTemplate, metadata: {name: t}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: i}]}}}",
        expect!["t | c | i | a=b"],
    );
    row(
        "{apiVersion: v1, kind: Service, metadata: {name: s}, spec: {type: LoadBalancer, clusterIP: 10.0.0.1, ports: [{port: 80, nodePort: 30080, protocol: TCP}]}}",
        expect!["s | LoadBalancer | 10.0.0.1 | <pending> | 80:30080/TCP | <unknown> | <none>"],
    );
    row(
        "{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {node-role.kubernetes.io/control-plane: ''}}, spec: {unschedulable: true}, status: {conditions: [{type: Ready, status: 'True'}], addresses: [{type: InternalIP, address: 10.0.0.2}], nodeInfo: {kubeletVersion: v1.37.0}}}",
        expect![
            "n1 | Ready,SchedulingDisabled | control-plane | <unknown> | v1.37.0 | 10.0.0.2 | <none> | <unknown> | <unknown> | <unknown>"
        ],
    );
    row(
        "{apiVersion: v1, kind: ResourceQuota, metadata: {name: q}, status: {hard: {requests.cpu: '1', limits.cpu: '2', pods: '5'}, used: {pods: '1', limits.cpu: 400m}}}",
        expect!["q | pods: 1/5, requests.cpu: 0/1 | limits.cpu: 400m/2 | <unknown>"],
    );
    row(
        "{apiVersion: v1, kind: Event, metadata: {name: e}, type: Warning, reason: BackOff, involvedObject: {kind: Pod, name: p}, message: 'again ', count: 4, firstTimestamp: '2026-01-01T00:50:00Z', lastTimestamp: '2026-01-01T00:59:30Z', source: {component: kubelet, host: n1}}",
        expect!["30s | Warning | BackOff | pod/p |  | kubelet, n1 | again | 10m | 4 | e"],
    );
}

#[test]
fn deletion_of_a_pod_takes_its_grace() {
    let (kind, mut doc, _) = created(POD);
    let grace = |doc: &Doc, asked| {
        with_op(Action::Delete, "", &GroupVersion::new("", "v1"), |op| {
            kind.strategy.graceful_delete(op, asked, doc.root())
        })
    };
    assert_eq!(grace(&doc, None), Some(0));
    doc.edit().at(k::SPEC).set(k::NODE_NAME, "n");
    assert_eq!(
        (grace(&doc, None), grace(&doc, Some(5)), grace(&doc, Some(-1))),
        (Some(30), Some(5), Some(1))
    );
    doc.edit().at(k::STATUS).set(k::PHASE, "Failed");
    assert_eq!(grace(&doc, None), Some(0));
}

#[test]
fn every_kind_holds_together() {
    let mut keys = std::collections::BTreeSet::new();
    for kind in kinds() {
        assert!(
            kind.class == Class::Virtual || keys.insert(kind.key_prefix.clone()),
            "{} is kept twice",
            kind.key_prefix
        );
        assert!(kind.stored < kind.versions.len());
        let scale = kind.sub("scale").map(|s| s.group_version(&kind.versions[0].gv).to_string());
        assert!(scale.is_none_or(|gv| gv == "autoscaling/v1"));
        for version in &kind.versions {
            // Defaults work on anything, and once is enough.
            let mut doc = apimachinery::doc!({ "metadata": { "name": "x" }, "spec": null });
            (version.defaults)(&mut doc);
            let once = doc.clone();
            (version.defaults)(&mut doc);
            assert_eq!(doc, once, "{} {}", kind.kind, version.gv);
        }
    }
}

#[test]
fn metadata_of_the_system_s_own_stays() {
    let (doc, errs) = update(
        POD,
        &POD.replace(
            "name: p",
            "name: p, generation: 7, creationTimestamp: '2020-01-01T00:00:00Z', labels: {a: b}",
        ),
        "status",
    );
    let meta = doc.get(k::METADATA);
    assert_eq!(
        (errs.as_str(), meta.get(k::UID).str(), meta.get(k::CREATION_TIMESTAMP).str()),
        ("", "u1", NOW)
    );
    assert_eq!((meta.get(k::GENERATION).i64(), meta.get(k::LABELS).get("a").str()), (1, "b"));
    let (_, errs) = update(POD, &POD.replace("name: p", "name: q"), "");
    assert_eq!(errs, "metadata.name: Invalid value: \"q\": field is immutable");
    let owned = POD.replace("name: p", "name: p, ownerReferences: [{apiVersion: a/b/c, kind: K, name: x, controller: true}, {apiVersion: v1, kind: K, name: z, uid: u, controller: true}]");
    refuses(
        &owned,
        expect![[
            r#"metadata.ownerReferences.apiVersion: Invalid value: "a/b/c": version must not be empty, metadata.ownerReferences.uid: Invalid value: "": must not be empty, metadata.ownerReferences: Invalid value: [{"apiVersion":"a/b/c","kind":"K","name":"x","uid":"","controller":true},{"apiVersion":"v1","kind":"K","name":"z","uid":"u","controller":true}]: Only one reference can have Controller set to true. Found "true" in references for K/x and K/z"#
        ]],
    );
}

#[test]
fn the_seeds_are_taken_as_written() {
    let seeds = [
        include_str!("../../../examples/seeds/resourcequota.yml"),
        include_str!("../../../examples/seeds/defaults.yaml"),
        include_str!("../../../examples/seeds/helloworld-no-quotas.yaml"),
        include_str!("../../../examples/seeds/helloworld-with-quotas.yaml"),
        include_str!("../../../examples/seeds/helloworld-elb-tls-service.yaml"),
    ];
    let mut taken = Vec::new();
    for part in seeds.iter().flat_map(|seed| seed.split("\n---")).filter(|part| part.contains("kind:")) {
        let (kind, _, errs) = created(part);
        assert_eq!(errs, "", "{part}");
        taken.push(kind.kind.to_string());
    }
    expect!["Namespace ResourceQuota ResourceQuota LimitRange Deployment Deployment Service"]
        .assert_eq(&taken.join(" "));
}

#[test]
fn ingress_classes() {
    let class = |spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {{name: c}}, spec: {{{spec}}}}}"
        )
    };
    let full =
        class("controller: example.com/lb, parameters: {apiGroup: example.com, kind: LB, name: settings}");
    makes(
        &full,
        expect![[r#"
            kind: "IngressClass"
            apiVersion: "networking.k8s.io/v1"
            spec.controller: "example.com/lb"
            spec.parameters: {"apiGroup":"example.com","kind":"LB","name":"settings","scope":"Cluster"}
        "#]],
    );
    row(&full, expect!["c | example.com/lb | LB.example.com/settings | <unknown>"]);
    refuses(
        &class("controller: lb, parameters: {kind: a/b, name: x, scope: Namespace}"),
        expect![[r#"
        spec.controller: Invalid value: "lb": must be a domain-prefixed path (such as "acme.io/foo")
        spec.parameters.kind: Invalid value: "a/b": may not contain '/'
        spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"#]],
    );
    let (_, errs) = update(&class("controller: example.com/lb"), &class("controller: example.com/other"), "");
    expect![[r#"spec.controller: Invalid value: "example.com/other": field is immutable"#]].assert_eq(&errs);
}

#[test]
fn ingresses() {
    let ingress = |spec: &str| {
        format!(
            "{{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {{name: i}}, spec: {{{spec}}}}}"
        )
    };
    let backend = "backend: {service: {name: web, port: {number: 80}}}";
    row(
        &ingress(&format!(
            "tls: [{{}}], rules: [{{host: a.b, http: {{paths: [{{pathType: Exact, path: /, {backend}}}]}}}}]"
        )),
        expect!["i | <none> | a.b |  | 80, 443 | <unknown>"],
    );
    refuses(
        &ingress(""),
        expect![[r#"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified"#]],
    );
    refuses(
        &ingress(&format!(
            "rules: [{{host: 1.2.3.4, http: {{paths: [{{path: a//b, pathType: Prefix, {backend}}}, {{path: /, {backend}}}, \
             {{pathType: Exact, path: /, backend: {{service: {{name: W, port: {{name: a, number: 1}}}}}}}}]}}}}, \
             {{host: 'a.*', http: {{}}}}]"
        )),
        expect![[r#"
            spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must be an absolute path
            spec.rules[0].http.paths[0].path: Invalid value: "a//b": must not contain '//'
            spec.rules[0].http.paths[1].pathType: Required value: pathType must be specified
            spec.rules[0].http.paths[2].backend.service.name: Invalid value: "W": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')
            spec.rules[0].http.paths[2].backend: Invalid value: "": cannot set both port name & port number
            spec.rules[1].host: Invalid value: "a.*": a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', regex used for validation is '\*\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
            spec.rules[1].http.paths: Required value"#]],
    );
}
