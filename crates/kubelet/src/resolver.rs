//! A pod's names: host name, `/etc/hosts`, `/etc/resolv.conf`. Pure.
//!
//! Upstream: pkg/kubelet/network/dns, pkg/kubelet/kubelet_pods.go (`managedHostsFileContent`).

use std::net::IpAddr;

use apimachinery::schema::views::{Pod, PodSpec};

/// Upstream's limits (`MaxDNSNameservers`, `MaxDNSSearchPaths`).
const NAMESERVERS_MAX: usize = 3;
const SEARCHES_MAX: usize = 32;
/// A host name's length in the kernel.
const HOSTNAME_MAX: usize = 63;

/// The host name, and the full one for pods with a subdomain.
pub fn hostname(pod: Pod<'_>, domain: &str) -> (String, Option<String>) {
    let (meta, spec) = (pod.metadata(), pod.spec());
    if let Some(name) = spec.hostname_override().filter(|name| !name.is_empty()) {
        return (name.to_owned(), None);
    }
    let mut name = if spec.hostname().is_empty() { meta.name() } else { spec.hostname() }.to_owned();
    if name.len() > HOSTNAME_MAX {
        name.truncate(HOSTNAME_MAX);
        name.truncate(name.trim_end_matches(['-', '.']).len());
    }
    let full = (!spec.subdomain().is_empty())
        .then(|| format!("{name}.{}.{}.svc.{domain}", spec.subdomain(), meta.namespace()));
    match full {
        Some(full) if spec.set_hostname_as_fqdn() == Some(true) => (full.clone(), Some(full)),
        full => (name, full),
    }
}

/// The pod's `/etc/hosts`.
pub fn hosts(pod: Pod<'_>, ips: &[IpAddr], domain: &str, host: &str) -> String {
    let spec = pod.spec();
    let mut out = if spec.host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{host}")
    } else {
        let mut out = String::from(
            "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
             fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
        );
        let (name, full) = hostname(pod, domain);
        let names = full.filter(|full| *full != name).map_or(name.clone(), |full| format!("{full}\t{name}"));
        ips.iter().for_each(|ip| out.push_str(&format!("{ip}\t{names}\n")));
        out
    };
    if !spec.host_aliases().is_empty() {
        out.push_str("\n# Entries added by HostAliases.\n");
        for alias in spec.host_aliases().iter() {
            let names: Vec<&str> = alias.hostnames().iter().collect();
            out.push_str(&format!("{}\t{}\n", alias.ip(), names.join("\t")));
        }
    }
    out
}

/// Name servers, search path and options.
#[derive(Default)]
struct Dns {
    servers: Vec<String>,
    searches: Vec<String>,
    options: Vec<String>,
}

/// The pod's `/etc/resolv.conf`.
pub fn resolv_conf(
    spec: PodSpec<'_>,
    namespace: &str,
    cluster_dns: &[IpAddr],
    domain: &str,
    host: &str,
) -> String {
    let mut dns = match spec.dns_policy() {
        "None" => Dns::default(),
        "Default" => parse(host),
        "ClusterFirst" if spec.host_network() => parse(host),
        _ if cluster_dns.is_empty() => parse(host),
        _ => {
            let mut searches =
                vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_owned()];
            searches.extend(parse(host).searches);
            Dns {
                servers: cluster_dns.iter().map(IpAddr::to_string).collect(),
                searches,
                options: vec!["ndots:5".to_owned()],
            }
        }
    };
    let own = spec.dns_config();
    dns.servers.extend(own.nameservers().iter().map(str::to_owned));
    dns.searches.extend(own.searches().iter().map(str::to_owned));
    for option in own.options().iter() {
        let name = option.name();
        dns.options.retain(|o| o.split(':').next() != Some(name));
        dns.options.push(option.value().map_or_else(|| name.to_owned(), |value| format!("{name}:{value}")));
    }
    let unique = |list: Vec<String>, most: usize| {
        let mut out: Vec<String> = Vec::new();
        for item in list {
            if !out.contains(&item) && out.len() < most {
                out.push(item);
            }
        }
        out
    };
    let mut out = String::new();
    let searches = unique(dns.searches, SEARCHES_MAX);
    if !searches.is_empty() {
        out.push_str(&format!("search {}\n", searches.join(" ")));
    }
    unique(dns.servers, NAMESERVERS_MAX).iter().for_each(|s| out.push_str(&format!("nameserver {s}\n")));
    if !dns.options.is_empty() {
        out.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    out
}

fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let first = words.next();
        let rest = words.map(str::to_owned);
        match first {
            Some("nameserver") => dns.servers.extend(rest.take(1)),
            Some("search" | "domain") => dns.searches = rest.filter(|s| s != ".").collect(),
            Some("options") => dns.options = rest.collect(),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::{Doc, doc};

    fn resolv(spec: Doc) -> String {
        let host = "nameserver 192.0.2.53\nsearch example.org .\noptions timeout:2\n";
        resolv_conf(PodSpec(spec.root()), "ns", &["10.96.0.10".parse().unwrap()], "cluster.local", host)
    }

    #[test]
    fn policies() {
        let cluster = "search ns.svc.cluster.local svc.cluster.local cluster.local example.org\nnameserver 10.96.0.10\noptions ndots:5\n";
        let host = "search example.org\nnameserver 192.0.2.53\noptions timeout:2\n";
        assert_eq!(resolv(doc!({ "dnsPolicy": "ClusterFirst" })), cluster);
        assert_eq!(resolv(doc!({ "dnsPolicy": "ClusterFirst", "hostNetwork": true })), host);
        assert_eq!(resolv(doc!({ "dnsPolicy": "ClusterFirstWithHostNet", "hostNetwork": true })), cluster);
        assert_eq!(resolv(doc!({ "dnsPolicy": "Default" })), host);
        let own = doc!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["1.1.1.1"], "searches": ["a.b"],
            "options": [{ "name": "ndots", "value": "2" }, { "name": "edns0" }] } });
        assert_eq!(resolv(own), "search a.b\nnameserver 1.1.1.1\noptions ndots:2 edns0\n");
    }

    #[test]
    fn names() {
        let pod = doc!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "hostname": "h", "subdomain": "s",
            "hostAliases": [{ "ip": "1.2.3.4", "hostnames": ["a", "b"] }] } });
        let text = hosts(Pod(pod.root()), &["10.0.0.2".parse().unwrap()], "cluster.local", "");
        assert!(text.contains("10.0.0.2\th.s.ns.svc.cluster.local\th\n"), "{text}");
        assert!(text.ends_with("\n# Entries added by HostAliases.\n1.2.3.4\ta\tb\n"), "{text}");
        let long = doc!({ "metadata": { "name": format!("{}-{}", "a".repeat(62), "b") } });
        assert_eq!(hostname(Pod(long.root()), "d").0, "a".repeat(62));
    }
}
