//! One question, one answer; pure.

use std::net::IpAddr;
use std::str::FromStr;

use domain::base::iana::{Class, Opcode, OptRcode, Rcode};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder};
use domain::base::{
    Message, MessageBuilder, Name, ParsedName, Question, Rtype, Serial, StaticCompressor, Ttl,
};
use domain::rdata::{A, Aaaa, Cname, Ptr, Soa, Srv, Txt, ZoneRecordData};

use crate::serve::QUESTION_BYTES_MAX;
use crate::zone::{Endpoint, Port, Service, Zone};

/// How long answers may be kept (CoreDNS' default in a cluster).
const TTL: Ttl = Ttl::from_secs(30);
/// The version of the specification, as `dns-version.<domain>` tells it.
const SPECIFICATION: &[u8] = b"1.1.0";
/// An OPT record without options, in bytes.
const OPT_BYTES: usize = 11;

type Query<'a> = Question<ParsedName<&'a [u8]>>;
type Data = ZoneRecordData<Vec<u8>, Name<Vec<u8>>>;

/// What is to be done with a question.
#[derive(Debug)]
pub enum Outcome {
    /// This message is the answer.
    Reply(Vec<u8>),
    /// Somebody else knows.
    Forward,
}

/// Answers what lies in the zone, and reverse look-ups of addresses in it. A message of more than `room` bytes is cut,
/// so that the client asks again over TCP.
pub fn answer(zone: &Zone, request: Message<&[u8]>, room: usize) -> Outcome {
    if request.header().opcode() != Opcode::QUERY {
        return Outcome::Reply(failed(request, Rcode::NOTIMP));
    }
    let edns = request.opt();
    if edns.as_ref().is_some_and(|edns| edns.version() > 0) {
        return Outcome::Reply(failed(request, Rcode::NOERROR));
    }
    let Ok(query) = request.sole_question() else { return Outcome::Reply(failed(request, Rcode::FORMERR)) };
    let name = query.qname().to_string().trim_end_matches('.').to_ascii_lowercase();
    let found = if let Some(address) = reverse_address(&name) {
        match zone.name_of(address) {
            Some(target) => Found::Records(ptr(&query, &target)),
            None => return Outcome::Forward,
        }
    } else if name == zone.domain {
        Found::Records(Vec::new())
    } else if let Some(below) = name.strip_suffix(&zone.domain).and_then(|n| n.strip_suffix('.')) {
        look_up(zone, &query, below)
    } else {
        return Outcome::Forward;
    };
    let (rcode, records) = match found {
        Found::Records(records) => (Rcode::NOERROR, records),
        Found::Nothing => (Rcode::NXDOMAIN, Vec::new()),
    };
    let mut reply = start(request, rcode);
    reply.header_mut().set_aa(true);
    reply.set_push_limit(room + 1 - edns.map_or(0, |_| OPT_BYTES));
    let name = query.qname();
    let mut pushed = records.into_iter().try_for_each(|data| reply.push((name, Class::IN, TTL, data)));
    let mut reply = reply.authority();
    if pushed.is_ok() && reply.counts().ancount() == 0 {
        pushed = soa(zone).map_or(Ok(()), |(name, data)| reply.push((name, Class::IN, TTL, data)));
    }
    let reply = if pushed.is_ok() { reply } else { reply.answer().tc_rewind_into().authority() };
    Outcome::Reply(finish(reply.additional(), request))
}

/// Who asks with EDNS is answered with it, versions that nobody knows included. Source: RFC 6891 section 6.1.
fn finish(mut reply: AdditionalBuilder<StaticCompressor<Vec<u8>>>, request: Message<&[u8]>) -> Vec<u8> {
    if let Some(edns) = request.opt() {
        reply.clear_push_limit();
        let added = reply.opt(|opt| {
            opt.set_udp_payload_size(QUESTION_BYTES_MAX as u16);
            opt.set_dnssec_ok(edns.dnssec_ok());
            if edns.version() > 0 {
                opt.set_rcode(OptRcode::BADVERS);
            }
            Ok(())
        });
        added.expect("memory is not bounded");
    }
    reply.finish().into_target()
}

/// The answer that says what went wrong and nothing else.
pub(crate) fn failed(request: Message<&[u8]>, rcode: Rcode) -> Vec<u8> {
    finish(start(request, rcode).additional(), request)
}

fn start(request: Message<&[u8]>, rcode: Rcode) -> AnswerBuilder<StaticCompressor<Vec<u8>>> {
    let builder = MessageBuilder::from_target(StaticCompressor::new(Vec::new()));
    let mut reply = builder.expect("memory is not bounded").start_error(&request, rcode);
    reply.header_mut().set_ra(true);
    reply
}

enum Found {
    /// The name exists; perhaps not with records of this type.
    Records(Vec<Data>),
    /// No such name.
    Nothing,
}

fn look_up(zone: &Zone, query: &Query<'_>, below: &str) -> Found {
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

fn service(zone: &Zone, query: &Query<'_>, namespace: &str, name: &str) -> Found {
    let Some(service) = zone.service(namespace, name) else { return Found::Nothing };
    if !service.external_name.is_empty() {
        let target = full(&service.external_name);
        return Found::Records(target.map(|t| Cname::new(t).into()).into_iter().collect());
    }
    if query.qtype() == Rtype::SRV {
        return Found::Records(srv(zone, namespace, name, service, |_| true));
    }
    if !service.headless {
        return Found::Records(addresses(query, &service.addresses));
    }
    let mut all: Vec<IpAddr> = zone.endpoints(namespace, name, service).iter().map(|e| e.address).collect();
    all.sort_unstable();
    all.dedup();
    if all.is_empty() { Found::Nothing } else { Found::Records(addresses(query, &all)) }
}

fn ports(zone: &Zone, query: &Query<'_>, namespace: &str, name: &str, port: &str, protocol: &str) -> Found {
    let Some(service) = zone.service(namespace, name) else { return Found::Nothing };
    let fits = |p: &Port| p.name == port && p.protocol == protocol;
    let exists = service.ports.iter().any(fits);
    if !exists {
        return Found::Nothing;
    }
    if query.qtype() != Rtype::SRV {
        return Found::Records(Vec::new());
    }
    Found::Records(srv(zone, namespace, name, service, fits))
}

fn srv(
    zone: &Zone,
    namespace: &str,
    name: &str,
    service: &Service,
    fits: impl Fn(&Port) -> bool,
) -> Vec<Data> {
    let base = format!("{name}.{namespace}.svc.{}", zone.domain);
    let make = |port: u16, target: &str| Some(Srv::new(0, 100, port, full(target)?).into());
    if !service.headless {
        return service.ports.iter().filter(|p| fits(p)).filter_map(|p| make(p.port, &base)).collect();
    }
    let of_endpoint = |endpoint: &&Endpoint| {
        let target = format!("{}.{base}", endpoint.hostname);
        endpoint.ports.iter().filter(|p| fits(p)).filter_map(|p| make(p.port, &target)).collect::<Vec<_>>()
    };
    zone.endpoints(namespace, name, service).iter().flat_map(of_endpoint).collect()
}

fn endpoint(zone: &Zone, query: &Query<'_>, namespace: &str, name: &str, hostname: &str) -> Found {
    let Some(service) = zone.service(namespace, name).filter(|s| s.headless) else { return Found::Nothing };
    let found = zone.endpoints(namespace, name, service);
    let found: Vec<IpAddr> = found.iter().filter(|e| e.hostname == hostname).map(|e| e.address).collect();
    if found.is_empty() { Found::Nothing } else { Found::Records(addresses(query, &found)) }
}

fn addresses(query: &Query<'_>, all: &[IpAddr]) -> Vec<Data> {
    let any = query.qtype() == Rtype::ANY;
    all.iter()
        .filter_map(|ip| match ip {
            IpAddr::V4(v4) if any || query.qtype() == Rtype::A => Some(A::new(*v4).into()),
            IpAddr::V6(v6) if any || query.qtype() == Rtype::AAAA => Some(Aaaa::new(*v6).into()),
            _ => None,
        })
        .collect()
}

fn ptr(query: &Query<'_>, target: &str) -> Vec<Data> {
    if !matches!(query.qtype(), Rtype::PTR | Rtype::ANY) {
        return Vec::new();
    }
    full(target).map(|name| Ptr::new(name).into()).into_iter().collect()
}

fn txt(query: &Query) -> Vec<Data> {
    if query.qtype() != Rtype::TXT {
        return Vec::new();
    }
    Txt::build_from_slice(SPECIFICATION).map(Into::into).into_iter().collect()
}

fn soa(zone: &Zone) -> Option<(Name<Vec<u8>>, Data)> {
    let of = |label: &str| full(&format!("{label}.{}", zone.domain));
    let (refresh, retry, expire) = (Ttl::from_secs(7200), Ttl::from_secs(1800), Ttl::from_secs(86_400));
    let data = Soa::new(of("ns.dns")?, of("hostmaster")?, Serial(zone.serial), refresh, retry, expire, TTL);
    Some((full(&zone.domain)?, data.into()))
}

fn full(name: &str) -> Option<Name<Vec<u8>>> {
    Name::from_str(name).ok()
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

    fn asked(name: &str, kind: Rtype) -> Vec<u8> {
        let mut request = MessageBuilder::new_vec().question();
        request.push((Name::vec_from_str(name).expect("a name"), kind)).expect("room");
        request.finish()
    }

    fn ask(name: &str, kind: Rtype) -> String {
        let request = asked(name, kind);
        let request = Message::from_slice(&request).expect("a message").for_slice_ref();
        let Outcome::Reply(reply) = answer(&zone(), request, 512) else { return "forward".into() };
        let reply = Message::from_octets(reply).expect("a message");
        let counts = reply.header_counts();
        assert_eq!(
            counts.nscount(),
            u16::from(counts.ancount() == 0),
            "where nothing is, the zone says how long"
        );
        if reply.header().rcode() != Rcode::NOERROR {
            return reply.header().rcode().to_string();
        }
        let answers = reply.answer().expect("answers").limit_to_in::<ZoneRecordData<_, _>>();
        let data = answers.map(|record| record.expect("a record").data().to_string());
        data.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn what_does_not_fit_is_asked_again() {
        let request = asked("web.a.svc.cluster.local.", Rtype::A);
        let request = Message::from_slice(&request).expect("a message").for_slice_ref();
        let Outcome::Reply(whole) = answer(&zone(), request, 512) else { panic!("it is ours") };
        for (room, cut) in [(whole.len(), false), (whole.len() - 1, true)] {
            let Outcome::Reply(reply) = answer(&zone(), request, room) else { panic!("it is ours") };
            let reply = Message::from_octets(reply).expect("a message");
            let found =
                (reply.header().tc(), reply.header_counts().qdcount(), reply.header_counts().ancount());
            assert_eq!(found, (cut, 1, u16::from(!cut)));
        }
    }

    #[test]
    fn edns_is_answered_with_edns() {
        let ask = |version: u8, name: &str, room: usize| {
            let mut request = MessageBuilder::new_vec().question();
            request.push((Name::vec_from_str(name).expect("a name"), Rtype::A)).expect("room");
            let mut request = request.additional();
            let opt = request.opt(|opt| {
                opt.set_version(version);
                opt.set_dnssec_ok(true);
                Ok(())
            });
            opt.expect("room");
            let request = request.finish();
            let request = Message::from_slice(&request).expect("a message").for_slice_ref();
            match answer(&zone(), request, room) {
                Outcome::Reply(reply) => Message::from_octets(reply).expect("a message"),
                Outcome::Forward => panic!("it is ours"),
            }
        };
        let whole = ask(0, "web.a.svc.cluster.local.", 512);
        let (fits, cut) = (whole.as_slice().len(), whole.as_slice().len() - 1);
        for (version, name, room, rcode, tc, answers) in [
            (0, "web.a.svc.cluster.local.", fits, OptRcode::NOERROR, false, 1),
            (0, "web.a.svc.cluster.local.", cut, OptRcode::NOERROR, true, 0),
            (0, "no.a.svc.cluster.local.", 512, OptRcode::NXDOMAIN, false, 0),
            (1, "web.a.svc.cluster.local.", 512, OptRcode::BADVERS, false, 0),
            (1, "example.org.", 512, OptRcode::BADVERS, false, 0),
        ] {
            let reply = ask(version, name, room);
            let opt = reply.opt().expect("asked with one");
            assert!(reply.as_slice().len() <= room, "{name}");
            assert_eq!((opt.version(), opt.dnssec_ok(), opt.udp_payload_size()), (0, true, 4096), "{name}");
            let counts = reply.header_counts();
            let found = (opt.rcode(reply.header()), reply.header().tc(), counts.ancount(), counts.arcount());
            assert_eq!(found, (rcode, tc, answers, 1), "{name}");
        }
    }

    #[test]
    fn names_mean_what_the_specification_says() {
        const A: Rtype = Rtype::A;
        const SRV: Rtype = Rtype::SRV;
        const PTR: Rtype = Rtype::PTR;
        let table = [
            ("web.a.svc.cluster.local.", A, "10.96.0.7"),
            ("WEB.a.svc.Cluster.local.", A, "10.96.0.7"),
            ("web.a.svc.cluster.local.", Rtype::AAAA, ""),
            ("a.svc.cluster.local.", A, ""),
            ("no.a.svc.cluster.local.", A, "NXDOMAIN"),
            ("web.b.svc.cluster.local.", A, "NXDOMAIN"),
            ("_http._tcp.web.a.svc.cluster.local.", SRV, "0 100 80 web.a.svc.cluster.local"),
            ("_http._udp.web.a.svc.cluster.local.", SRV, "NXDOMAIN"),
            ("db.a.svc.cluster.local.", A, "10.244.0.9"),
            ("db-0.db.a.svc.cluster.local.", A, "10.244.0.9"),
            ("db-1.db.a.svc.cluster.local.", A, "NXDOMAIN"),
            ("_http._tcp.db.a.svc.cluster.local.", SRV, "0 100 5432 db-0.db.a.svc.cluster.local"),
            ("10-244-0-9.a.pod.cluster.local.", A, "10.244.0.9"),
            ("out.a.svc.cluster.local.", A, "example.org."),
            ("7.0.96.10.in-addr.arpa.", PTR, "web.a.svc.cluster.local."),
            ("9.0.244.10.in-addr.arpa.", PTR, "db-0.db.a.svc.cluster.local."),
            ("1.1.1.1.in-addr.arpa.", PTR, "forward"),
            ("dns-version.cluster.local.", Rtype::TXT, "\"1.1.0\""),
            ("example.org.", A, "forward"),
            ("notcluster.local.", A, "forward"),
        ];
        for (name, kind, expected) in table {
            assert_eq!(ask(name, kind), expected, "{name} {kind}");
        }
    }
}
