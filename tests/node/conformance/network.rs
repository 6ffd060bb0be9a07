//! `network/dns.go`, `network/service.go`, `common/network/networking.go`: names, addresses and who answers there.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out_with_python, once, row, shell, with_python};

/// Answers every request on port 8080 with its pod's name.
const SERVER: &str = "mkdir /www; hostname > /www/index.html; exec httpd -f -p 8080 -h /www";
/// The node's own address.
const NODE_IP: &str = "192.0.2.2";

/// Runs a script in a pod of its own, to its end; what it says.
fn client(space: &Space<'_>, name: &str, script: &str) -> String {
    space.output(name, once(vec![with_python("c", script)]))
}

/// Tries a command until its output has a line, for as long as a Service may take to be known everywhere.
fn until(command: &str, part: &str) -> String {
    format!(
        "n=0; until {command} 2>&1 | tee /tmp/said | grep -q '{part}'; do n=$((n+1)); [ $n -lt 600 ] || {{ cat /tmp/said; exit 1; }}; \
         sleep 0.2; done; cat /tmp/said"
    )
}

fn lookup(name: &str) -> String {
    format!("lookup A {name}")
}

fn servers(space: &Space<'_>, replicas: u32) {
    let mut spec = json!({ "containers": [shell("c", SERVER)] });
    spec["containers"][0]["readinessProbe"] = json!({ "tcpSocket": { "port": 8080 }, "periodSeconds": 1 });
    spec["terminationGracePeriodSeconds"] = 1.into();
    space.create(
        "replicationcontrollers",
        "servers",
        json!({ "spec": { "replicas": replicas, "selector": { "app": "servers" },
        "template": { "metadata": { "labels": { "app": "servers" } }, "spec": spec } } }),
    );
    space.wait("replicationcontrollers", "servers", "to be ready", |rc| {
        rc["status"]["readyReplicas"] == replicas
    });
}

fn service(space: &Space<'_>, name: &str, mut spec: Value) -> Value {
    spec["selector"] = json!({ "app": "servers" });
    spec["ports"] = json!([{ "name": "http", "port": 80, "targetPort": 8080 }]);
    space.create("services", name, json!({ "spec": spec }))
}

/// The cluster's own names, by DNS and by /etc/hosts.
fn names_of_the_cluster(space: &Space<'_>) {
    for name in ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"] {
        let said = client(space, &name.replace('.', "-"), &until(&lookup(name), "10.96.0.1$"));
        assert_eq!(said, "A 10.96.0.1\n");
    }
    let mut spec = once(vec![shell("c", "cat /etc/hosts; hostname -f")]);
    spec["hostname"] = "dns-querier".into();
    spec["subdomain"] = "dns-test-service".into();
    let said = space.output("hosts", spec);
    let full = format!("dns-querier.dns-test-service.{}.svc.cluster.local", space.name);
    assert!(said.lines().any(|l| l.contains(&format!("{full}\tdns-querier"))), "{said}");
    assert!(said.lines().any(|l| l == full), "{said}");
}

/// Services and their endpoints, whole names and parts of them; addresses, ports, and the way back.
fn names_of_services(space: &Space<'_>) {
    servers(space, 1);
    let plain = service(space, "plain", json!({}));
    service(space, "headless", json!({ "clusterIP": "None" }));
    let ip = plain["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let pods = space.cluster.ask("GET", &format!("{}?labelSelector=app%3Dservers", space.path("pods")), None);
    let pod_ip = pods["items"][0]["status"]["podIP"].as_str().expect("an address").to_owned();
    let ns = &space.name;
    let mut script = Vec::new();
    for suffix in ["", &format!(".{ns}"), &format!(".{ns}.svc"), &format!(".{ns}.svc.cluster.local")] {
        script.push(until(&lookup(&format!("plain{suffix}")), &format!("{ip}$")));
        script.push(until(&lookup(&format!("headless{suffix}")), &format!("{pod_ip}$")));
        if !suffix.is_empty() {
            let srv = |service: &str| format!("lookup SRV _http._tcp.{service}{suffix}");
            script.push(until(&srv("plain"), &format!("SRV 80 plain.{ns}.svc.cluster.local")));
            script.push(until(&srv("headless"), &format!("SRV 8080 .*headless.{ns}.svc.cluster.local")));
        }
    }
    script.push(until(&format!("lookup PTR {ip}"), &format!("PTR plain.{ns}.svc.cluster.local")));
    client(space, "client", &format!("set -e; {}", script.join("; ")));
}

/// A pod's hostname below a headless Service's name.
fn names_of_pods(space: &Space<'_>) {
    let selector = json!({ "name": "querier" });
    space.create(
        "services",
        "sub",
        json!({ "spec": { "clusterIP": "None", "selector": selector, "ports": [{ "port": 80 }] } }),
    );
    let mut spec = once(vec![shell("c", "sleep 1000")]);
    spec["hostname"] = "host".into();
    spec["subdomain"] = "sub".into();
    space.pod("querier", spec);
    let ip = space.ready("querier")["status"]["podIP"].as_str().expect("an address").to_owned();
    let full = format!("host.sub.{}.svc.cluster.local", space.name);
    let below = format!("sub.{}.svc.cluster.local", space.name);
    let both = [full.as_str(), below.as_str()].map(|name| until(&lookup(name), &format!("{ip}$")));
    client(space, "client", &format!("set -e; {}", both.join("; ")));
    space.delete("pods", "querier", Some(0));
}

/// A Service that is another name; then a third; then a Service with an address.
fn external_names(space: &Space<'_>) {
    let ns = &space.name;
    let external = |name: &str| json!({ "spec": { "type": "ExternalName", "externalName": name } });
    space.create("services", "e", external("foo.example.com"));
    let cname = |to: &str| until(&format!("lookup CNAME e.{ns}.svc.cluster.local"), to);
    client(space, "first", &cname("CNAME foo.example.com"));
    space.patch("services", "e", external("bar.example.com"));
    client(space, "second", &cname("CNAME bar.example.com"));
    let with_address =
        json!({ "spec": { "type": "ClusterIP", "externalName": null, "ports": [{ "port": 80 }] } });
    let changed = space.patch("services", "e", with_address);
    let ip = changed["spec"]["clusterIP"].as_str().expect("an address");
    client(space, "third", &until(&lookup(&format!("e.{ns}.svc.cluster.local")), &format!("{ip}$")));
}

/// Name servers and search paths that a pod brings itself.
fn own_resolver(space: &Space<'_>) {
    let mut spec = once(vec![shell("c", "cat /etc/resolv.conf")]);
    spec["dnsPolicy"] = "None".into();
    spec["dnsConfig"] = json!({ "nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"], "options": [{ "name": "ndots", "value": "2" }] });
    let said = space.output("p", spec);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["nameserver 1.1.1.1", "options ndots:2", "search resolv.conf.local"]);
}

fn fetch(from: &str, times: u32) -> String {
    format!("fetch http://{from} {times}")
}

/// Where a NodePort Service is reached: its name and address, and the node's address, from a pod.
fn is_reached(space: &Space<'_>, pod: &str, service: &Value) {
    let (ip, port) = (
        service["spec"]["clusterIP"].as_str().expect("an address"),
        &service["spec"]["ports"][0]["nodePort"],
    );
    let name = service["metadata"]["name"].as_str().expect("a name");
    let mut places = vec![format!("{name}:80"), format!("{ip}:80")];
    if port.is_u64() {
        places.push(format!("{NODE_IP}:{port}"));
    }
    let all: Vec<String> = places.iter().map(|place| until(&fetch(place, 1), "servers-")).collect();
    client(space, pod, &format!("set -e; {}", all.join("; ")));
}

fn node_port(space: &Space<'_>) {
    servers(space, 2);
    let service = service(space, "web", json!({ "type": "NodePort" }));
    is_reached(space, "client", &service);
}

/// From one type to another and back, with what each has and has not.
fn types_change(space: &Space<'_>) {
    servers(space, 2);
    let cname =
        |name: &str, to: &str| until(&format!("lookup CNAME {name}.{}.svc.cluster.local", space.name), to);
    let external = json!({ "spec": { "type": "ExternalName", "externalName": "plain.example.com", "clusterIP": null, "clusterIPs": null } });
    for kind in ["ClusterIP", "NodePort"] {
        let name = kind.to_lowercase();
        let made = service(space, &name, json!({ "type": kind }));
        assert!(made["spec"]["clusterIP"].is_string());
        is_reached(space, &format!("{name}-client"), &made);
        let now = space.patch("services", &name, external.clone());
        assert_eq!(now["spec"].get("clusterIP"), None, "{now}");
        assert!(now["spec"]["ports"][0].get("nodePort").is_none_or(|p| p == 0), "{now}");
        client(space, &format!("{name}-external"), &cname(&name, "CNAME plain.example.com"));

        let name = format!("to-{name}");
        space.create(
            "services",
            &name,
            json!({ "spec": { "type": "ExternalName", "externalName": "plain.example.com" } }),
        );
        let ports = json!([{ "name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080 }]);
        let spec =
            json!({ "type": kind, "externalName": null, "selector": { "app": "servers" }, "ports": ports });
        let now = space.patch("services", &name, json!({ "spec": spec }));
        assert!(now["spec"]["clusterIP"].is_string(), "{now}");
        assert_eq!(now["spec"]["ports"][0]["nodePort"].is_u64(), kind == "NodePort", "{now}");
        is_reached(space, &format!("{name}-client"), &now);
    }
}

/// Who answers so many requests from one client.
fn answerers(space: &Space<'_>, pod: &str, place: &str) -> BTreeSet<String> {
    let script = format!("{}; {}", until(&fetch(place, 1), "servers-"), fetch(place, 15));
    client(space, pod, &script).lines().map(str::to_owned).collect()
}

/// With affinity one client always meets the same pod, without it all three.
fn affinity(kind: &str, space: &Space<'_>) {
    servers(space, 3);
    let made = service(space, "web", json!({ "type": kind, "sessionAffinity": "ClientIP" }));
    is_reached(space, "reach", &made);
    let place = match made["spec"]["ports"][0]["nodePort"].as_u64() {
        Some(port) => format!("{NODE_IP}:{port}"),
        None => format!("{}:80", made["spec"]["clusterIP"].as_str().expect("an address")),
    };
    assert_eq!(answerers(space, "sticky", &place).len(), 1);
    let set =
        |affinity: &str| space.patch("services", "web", json!({ "spec": { "sessionAffinity": affinity } }));
    set("None");
    // The rules follow within a moment: then all of them are met.
    let all = format!(
        "n=0; while [ $n -lt 600 ]; do {} | sort -u > /tmp/all; [ $(wc -l < /tmp/all) = 3 ] && exit; n=$((n+1)); done; exit 1",
        fetch(&place, 20)
    );
    client(space, "loose", &all);
    set("ClientIP");
    let one = all.replace("= 3", "= 1");
    client(space, "sticky-again", &one);
}

#[test]
fn names_and_services() {
    let mut rows: Vec<Row<'_>> = vec![
        row("names of the cluster", names_of_the_cluster),
        row("names of services", names_of_services),
        row("names of pods", names_of_pods),
        row("external names", external_names),
        row("own resolver", own_resolver),
        row("node port", node_port),
        row("types change", types_change),
    ];
    for kind in ["ClusterIP", "NodePort"] {
        rows.push(row("affinity", move |space| affinity(kind, space)));
    }
    carry_out_with_python(&rows);
}
