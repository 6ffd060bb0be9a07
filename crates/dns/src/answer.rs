//! One question, one answer; pure.

use std::net::IpAddr;
use std::str::FromStr;

use hickory_proto::op::{Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::zone::{Endpoint, Port, Service, Zone};

/// How long answers may be kept, in seconds (CoreDNS' default in a cluster).
const TTL_SECONDS: u32 = 30;
/// The version of the specification, as `dns-version.<domain>` tells it.
const SPECIFICATION: &str = "1.1.0";

/// What is to be done with a question.
#[derive(Debug)]
pub enum Outcome {
    /// This is the answer.
    Reply(Box<Message>),
    /// Somebody else knows.
    Forward,
}

/// Answers what lies in the zone, and reverse look-ups of addresses in it.
pub fn answer(zone: &Zone, request: &Message) -> Outcome {
    let mut reply = Message::response(request.metadata.id, request.metadata.op_code);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_queries(request.queries.iter().cloned());
    let fail = |mut reply: Message, code| {
        reply.metadata.response_code = code;
        Outcome::Reply(Box::new(reply))
    };
    if request.metadata.op_code != OpCode::Query {
        return fail(reply, ResponseCode::NotImp);
    }
    let [query] = request.queries.as_slice() else { return fail(reply, ResponseCode::FormErr) };
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let found = if let Some(address) = reverse_address(&name) {
        match zone.name_of(address) {
            Some(target) => Found::Records(ptr(query, &target)),
            None => return Outcome::Forward,
        }
    } else if name == zone.domain {
        Found::Records(Vec::new())
    } else if let Some(below) = name.strip_suffix(&zone.domain).and_then(|n| n.strip_suffix('.')) {
        look_up(zone, query, below)
    } else {
        return Outcome::Forward;
    };
    reply.metadata.authoritative = true;
    match found {
        Found::Records(records) if records.is_empty() => {
            reply.add_authority(soa(zone));
        }
        Found::Records(records) => {
            reply.add_answers(records);
        }
        Found::Nothing => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(soa(zone));
        }
    }
    Outcome::Reply(Box::new(reply))
}

enum Found {
    /// The name exists; perhaps not with records of this type.
    Records(Vec<Record>),
    /// No such name.
    Nothing,
}

fn look_up(zone: &Zone, query: &Query, below: &str) -> Found {
    let labels: Vec<&str> = below.split('.').collect();
    match labels.as_slice() {
        ["dns-version"] => Found::Records(txt(query)),
        ["svc"] | ["pod"] => Found::Records(Vec::new()),
        [namespace, "svc"] if zone.has_namespace(namespace) => Found::Records(Vec::new()),
        [name, namespace, "svc"] => service(zone, query, namespace, name),
        [port, protocol, name, namespace, "svc"] if port.starts_with('_') && protocol.starts_with('_') => {
            ports(zone, query, namespace, name, &port[1..], &protocol[1..])
        }
        [hostname, name, namespace, "svc"] => endpoint(zone, query, namespace, name, hostname),
        [address, _namespace, "pod"] => match dashed(address) {
            Some(ip) => Found::Records(addresses(query, &[ip])),
            None => Found::Nothing,
        },
        _ => Found::Nothing,
    }
}

fn service(zone: &Zone, query: &Query, namespace: &str, name: &str) -> Found {
    let Some(service) = zone.service(namespace, name) else { return Found::Nothing };
    if !service.external_name.is_empty() {
        let target = full(&service.external_name);
        return Found::Records(target.map(|t| record(query, RData::CNAME(CNAME(t)))).into_iter().collect());
    }
    if query.query_type() == RecordType::SRV {
        return Found::Records(srv(zone, query, namespace, name, service, |_| true));
    }
    if !service.headless {
        return Found::Records(addresses(query, &service.addresses));
    }
    let mut all: Vec<IpAddr> = zone.endpoints(namespace, name, service).iter().map(|e| e.address).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { Found::Nothing } else { Found::Records(addresses(query, &all)) }
}

fn ports(zone: &Zone, query: &Query, namespace: &str, name: &str, port: &str, protocol: &str) -> Found {
    let Some(service) = zone.service(namespace, name) else { return Found::Nothing };
    let fits = |p: &Port| p.name == port && p.protocol == protocol;
    let exists = service.ports.iter().any(fits);
    if !exists {
        return Found::Nothing;
    }
    if query.query_type() != RecordType::SRV {
        return Found::Records(Vec::new());
    }
    Found::Records(srv(zone, query, namespace, name, service, fits))
}

fn srv(
    zone: &Zone,
    query: &Query,
    namespace: &str,
    name: &str,
    service: &Service,
    fits: impl Fn(&Port) -> bool,
) -> Vec<Record> {
    let base = format!("{name}.{namespace}.svc.{}", zone.domain);
    let make =
        |port: u16, target: &str| Some(record(query, RData::SRV(SRV::new(0, 100, port, full(target)?))));
    if !service.headless {
        return service.ports.iter().filter(|p| fits(p)).filter_map(|p| make(p.port, &base)).collect();
    }
    let of_endpoint = |endpoint: &&Endpoint| {
        let target = format!("{}.{base}", endpoint.hostname);
        endpoint.ports.iter().filter(|p| fits(p)).filter_map(|p| make(p.port, &target)).collect::<Vec<_>>()
    };
    zone.endpoints(namespace, name, service).iter().flat_map(of_endpoint).collect()
}

fn endpoint(zone: &Zone, query: &Query, namespace: &str, name: &str, hostname: &str) -> Found {
    let Some(service) = zone.service(namespace, name).filter(|s| s.headless) else { return Found::Nothing };
    let found = zone.endpoints(namespace, name, service);
    let found: Vec<IpAddr> = found.iter().filter(|e| e.hostname == hostname).map(|e| e.address).collect();
    if found.is_empty() { Found::Nothing } else { Found::Records(addresses(query, &found)) }
}

fn addresses(query: &Query, all: &[IpAddr]) -> Vec<Record> {
    let any = query.query_type() == RecordType::ANY;
    all.iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(v4) if any || query.query_type() == RecordType::A => Some(RData::A(A(*v4))),
            IpAddr::V6(v6) if any || query.query_type() == RecordType::AAAA => Some(RData::AAAA(AAAA(*v6))),
            _ => None,
        })
        .map(|data| record(query, data))
        .collect()
}

fn ptr(query: &Query, target: &str) -> Vec<Record> {
    if !matches!(query.query_type(), RecordType::PTR | RecordType::ANY) {
        return Vec::new();
    }
    full(target).map(|name| record(query, RData::PTR(PTR(name)))).into_iter().collect()
}

fn txt(query: &Query) -> Vec<Record> {
    if query.query_type() != RecordType::TXT {
        return Vec::new();
    }
    let text = hickory_proto::rr::rdata::TXT::new(vec![SPECIFICATION.to_owned()]);
    vec![record(query, RData::TXT(text))]
}

fn record(query: &Query, data: RData) -> Record {
    Record::from_rdata(query.name().clone(), TTL_SECONDS, data)
}

fn soa(zone: &Zone) -> Record {
    let name = full(&zone.domain).unwrap_or_else(Name::root);
    let of = |label: &str| full(&format!("{label}.{}", zone.domain)).unwrap_or_else(Name::root);
    let data = SOA::new(of("ns.dns"), of("hostmaster"), zone.serial, 7200, 1800, 86_400, TTL_SECONDS);
    let mut record = Record::from_rdata(name, TTL_SECONDS, RData::SOA(data));
    record.dns_class = DNSClass::IN;
    record
}

fn full(name: &str) -> Option<Name> {
    Name::from_str(&format!("{}.", name.trim_end_matches('.'))).ok()
}

/// `10-0-0-1` or `fd00--1` as an address.
fn dashed(text: &str) -> Option<IpAddr> {
    text.replace('-', ".").parse().ok().or_else(|| text.replace('-', ":").parse().ok())
}

/// `1.0.0.10.in-addr.arpa` as an address. Source: RFC 1035 section 3.5, RFC 3596 section 2.5.
fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(v4) = name.strip_suffix(".in-addr.arpa") {
        let parts: Vec<&str> = v4.split('.').rev().collect();
        return parts.join(".").parse().ok();
    }
    let nibbles: Vec<&str> = name.strip_suffix(".ip6.arpa")?.split('.').rev().collect();
    let text: Vec<String> = nibbles.chunks(4).map(<[&str]>::concat).collect();
    text.join(":").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> Zone {
        let port = |n: u16| Port { name: "http".into(), protocol: "tcp".into(), port: n };
        let mut zone = Zone::new("cluster.local");
        let web = Service {
            addresses: vec!["10.96.0.7".parse().expect("an address")],
            ports: vec![port(80)],
            ..Service::default()
        };
        zone.set_service("a", "web", Some(web));
        zone.set_service(
            "a",
            "db",
            Some(Service { headless: true, ports: vec![port(5432)], ..Service::default() }),
        );
        let outside = Service { external_name: "example.org".into(), ..Service::default() };
        zone.set_service("a", "out", Some(outside));
        let endpoint = |ip: &str, name: &str| Endpoint {
            address: ip.parse().expect("an address"),
            hostname: name.into(),
            ports: vec![port(5432)],
        };
        let endpoints =
            vec![(endpoint("10.244.0.9", "db-0"), true), (endpoint("10.244.0.10", "db-1"), false)];
        zone.set_slice("a", "db", "db-x", endpoints);
        zone
    }

    fn ask(name: &str, kind: RecordType) -> String {
        let mut request = Message::query();
        request.add_query(Query::query(Name::from_str(name).expect("a name"), kind));
        match answer(&zone(), &request) {
            Outcome::Forward => "forward".into(),
            Outcome::Reply(m) if m.metadata.response_code != ResponseCode::NoError => {
                m.metadata.response_code.to_string()
            }
            Outcome::Reply(m) => m.answers.iter().map(|r| r.data.to_string()).collect::<Vec<_>>().join(" "),
        }
    }

    #[test]
    fn names_mean_what_the_specification_says() {
        use RecordType::{A, AAAA, PTR, SRV, TXT};
        let table = [
            ("web.a.svc.cluster.local.", A, "10.96.0.7"),
            ("WEB.a.svc.Cluster.local.", A, "10.96.0.7"),
            ("web.a.svc.cluster.local.", AAAA, ""),
            ("a.svc.cluster.local.", A, ""),
            ("no.a.svc.cluster.local.", A, "Non-Existent Domain"),
            ("web.b.svc.cluster.local.", A, "Non-Existent Domain"),
            ("_http._tcp.web.a.svc.cluster.local.", SRV, "0 100 80 web.a.svc.cluster.local."),
            ("_http._udp.web.a.svc.cluster.local.", SRV, "Non-Existent Domain"),
            ("db.a.svc.cluster.local.", A, "10.244.0.9"),
            ("db-0.db.a.svc.cluster.local.", A, "10.244.0.9"),
            ("db-1.db.a.svc.cluster.local.", A, "Non-Existent Domain"),
            ("_http._tcp.db.a.svc.cluster.local.", SRV, "0 100 5432 db-0.db.a.svc.cluster.local."),
            ("10-244-0-9.a.pod.cluster.local.", A, "10.244.0.9"),
            ("out.a.svc.cluster.local.", A, "example.org."),
            ("7.0.96.10.in-addr.arpa.", PTR, "web.a.svc.cluster.local."),
            ("9.0.244.10.in-addr.arpa.", PTR, "db-0.db.a.svc.cluster.local."),
            ("1.1.1.1.in-addr.arpa.", PTR, "forward"),
            ("dns-version.cluster.local.", TXT, "1.1.0"),
            ("example.org.", A, "forward"),
            ("notcluster.local.", A, "forward"),
        ];
        for (name, kind, expected) in table {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }
}
