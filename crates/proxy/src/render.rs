//! From Services to tables, pure.
//!
//! A packet's way: `services` (a verdict map from address, protocol and port) names a chain for the *number* of
//! endpoints the front has; that chain draws a number below it, looks up address, protocol, port and number in
//! the one map `endpoints`, and sends the packet there. So the chains are as many as there are different
//! numbers of endpoints, and a Service costs elements only. Node ports have the address 0 in the maps.
//!
//! The source is translated only where the answer would not come back through this node: to an endpoint from
//! itself, from localhost, and from elsewhere to elsewhere.
//!
//! Upstream: pkg/proxy/nftables/proxier.go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use network::IpNet;
use network::nft::{
    Base, Chain, ChainKind, Dynamic, Expr, Family, Hook, Key, PayloadBase, Reg, RejectWith, Set, Table, Type,
    Value, ValueType, Verdict, ct, meta,
};

use crate::model::{Endpoint, Local, Protocol, ServicePort};

/// The desired rules, and what is needed to clean up after connections that outlive them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// One table of each family.
    pub tables: Vec<Table>,
    /// The UDP fronts and who answers them.
    pub udp: BTreeMap<Front, BTreeSet<(IpAddr, u16)>>,
}

/// Where a Service is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Front {
    /// The address; unspecified for a node port.
    pub address: IpAddr,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port.
    pub port: u16,
}

/// Buckets of clients inside the cluster begin here, where outside ones see fewer endpoints.
const INSIDE_BUCKETS: u32 = 1 << 16;
/// Clients with affinity remembered at one time.
const AFFINITY_MAX: u32 = 65_536;
/// Upstream's default `timeoutSeconds`; every rule sets its own.
const AFFINITY_TIMEOUT_MS: u64 = 10_800_000;
const DESTINATION_NAT: i32 = -100;
const SOURCE_NAT: i32 = 100;
const ROUTE_LOCAL: u32 = 2;

const SERVICES: &str = "services";
const NODE_PORTS: &str = "node-ports";
const INSIDE: &str = "services-inside";
const NODE_PORTS_INSIDE: &str = "node-ports-inside";
const ENDPOINTS: &str = "endpoints";
const AFFINITY: &str = "affinity";
const ENDPOINT_IDS: &str = "endpoint-ids";
const ENDPOINTS_BY_ID: &str = "endpoints-by-id";
const HAIRPIN: &str = "hairpin";
const REJECT: &str = "reject";

/// The rules that do what `services` say.
pub fn render(services: &[ServicePort], local: &Local) -> Rules {
    let mut rules = Rules { tables: Vec::new(), udp: BTreeMap::new() };
    for ipv6 in [false, true] {
        let ours = |address: &IpAddr| address.is_ipv6() == ipv6;
        let used = local.pod_cidrs.iter().any(|c| c.is_ipv6() == ipv6)
            || services.iter().any(|s| s.cluster_ips.iter().any(ours));
        if !used {
            // A family that nobody uses costs its packets nothing, and may be missing from the kernel.
            rules.tables.push(Table::new(family(ipv6), table_name(&local.prefix)));
            continue;
        }
        let mut build = Build::new(ipv6, local);
        for service in services {
            build.service(service, &mut rules.udp);
        }
        rules.tables.push(build.finish());
    }
    rules
}

/// The tables' names alone, for teardown.
pub fn empty_tables(prefix: &str) -> Vec<Table> {
    [false, true].map(|ipv6| Table::new(family(ipv6), table_name(prefix))).to_vec()
}

fn family(ipv6: bool) -> Family {
    if ipv6 { Family::Ip6 } else { Family::Ip }
}

fn table_name(prefix: &str) -> String {
    format!("{prefix}-proxy")
}

/// Which chain serves a front: all fronts with these facts in common share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Balancer {
    endpoints: u32,
    node_port: bool,
    inside: bool,
    affinity_seconds: Option<u32>,
}

impl Balancer {
    fn chain(&self) -> String {
        let place = if self.node_port { "node-port" } else { "address" };
        let inside = if self.inside { "-inside" } else { "" };
        let affinity = self.affinity_seconds.map_or(String::new(), |s| format!("-affinity-{s}"));
        format!("{place}-{}{inside}{affinity}", self.endpoints)
    }
}

struct Build {
    ipv6: bool,
    table: Table,
    balancers: BTreeSet<Balancer>,
    pods: Vec<IpNet>,
}

impl Build {
    fn new(ipv6: bool, local: &Local) -> Build {
        let mut table = Table::new(family(ipv6), table_name(&local.prefix));
        let address = if ipv6 { Type::Ipv6 } else { Type::Ipv4 };
        let (front, endpoint) = ([address, Type::Protocol, Type::Port], [address, Type::Port]);
        let mut set = |name: &str, key: &[&[Type]], value: ValueType| {
            table.sets.insert(name.to_owned(), Set::new(key.concat(), value));
        };
        set(SERVICES, &[&front], ValueType::Verdict);
        set(INSIDE, &[&front], ValueType::Verdict);
        set(NODE_PORTS, &[&front[1..]], ValueType::Verdict);
        set(NODE_PORTS_INSIDE, &[&front[1..]], ValueType::Verdict);
        set(ENDPOINTS, &[&front, &[Type::Mark]], ValueType::Data(endpoint.to_vec()));
        set(AFFINITY, &[&[address], &front], ValueType::Data(vec![Type::Mark]));
        set(ENDPOINT_IDS, &[&front, &[Type::Mark]], ValueType::Data(vec![Type::Mark]));
        set(ENDPOINTS_BY_ID, &[&front, &[Type::Mark]], ValueType::Data(endpoint.to_vec()));
        set(HAIRPIN, &[&[address, address]], ValueType::Nothing);
        let affinity = table.sets.get_mut(AFFINITY).expect("made above");
        affinity.dynamic = Some(Dynamic { size: AFFINITY_MAX, timeout_ms: AFFINITY_TIMEOUT_MS });
        let pods = local.pod_cidrs.iter().copied().filter(|c| c.is_ipv6() == ipv6).collect();
        Build { ipv6, table, balancers: BTreeSet::new(), pods }
    }

    fn service(&mut self, service: &ServicePort, udp: &mut BTreeMap<Front, BTreeSet<(IpAddr, u16)>>) {
        let ipv6 = self.ipv6;
        let ours = |address: &&IpAddr| address.is_ipv6() == ipv6;
        // Sorted, so that the order in which endpoints came makes no difference.
        let choice = |local: bool| -> BTreeSet<(IpAddr, u16)> {
            let some = |terminating: bool| -> BTreeSet<_> {
                let fits = |e: &&Endpoint| {
                    e.address.is_ipv6() == ipv6 && (e.local || !local) && e.terminating == terminating
                };
                service.endpoints.iter().filter(fits).map(|e| (e.address, e.port)).collect()
            };
            let ready = some(false);
            if ready.is_empty() { some(true) } else { ready }
        };
        let (everywhere, here) = (choice(false), choice(true));
        let front = |address, port| Front { address, protocol: service.protocol, port };
        let internal: Vec<Front> =
            service.cluster_ips.iter().filter(ours).map(|a| front(*a, service.port)).collect();
        let mut external: Vec<Front> =
            service.external_ips.iter().filter(ours).map(|a| front(*a, service.port)).collect();
        if !service.cluster_ips.iter().any(|a| ours(&a)) {
            // Without an address of this family the Service does not exist in it.
            return;
        }
        external.extend(service.node_port.map(|port| front(unspecified(self.ipv6), port)));

        for address in everywhere.union(&here).map(|(address, _)| *address) {
            if self.pods.iter().any(|c| c.contains(address)) {
                let pair = Key::default().address(address).address(address).build();
                self.insert(HAIRPIN, pair, Value::Nothing);
            }
        }
        let choose = |local: bool| if local { &here } else { &everywhere };
        let nobody = everywhere.is_empty();
        for front in internal {
            self.front(front, false, choose(service.internal_local), nobody, service.affinity_seconds);
        }
        for front in &external {
            self.front(*front, false, choose(service.external_local), nobody, service.affinity_seconds);
            if service.external_local && !nobody {
                self.front(*front, true, &everywhere, nobody, service.affinity_seconds);
            }
        }
        if service.protocol == Protocol::Udp {
            let fronts = service.cluster_ips.iter().filter(ours).map(|a| front(*a, service.port));
            for front in fronts.chain(external) {
                udp.insert(front, everywhere.union(&here).copied().collect());
            }
        }
    }

    /// Adds a front. Without endpoints it refuses, or drops where other nodes have some (`nobody` is false).
    fn front(
        &mut self,
        front: Front,
        inside: bool,
        endpoints: &BTreeSet<(IpAddr, u16)>,
        nobody: bool,
        affinity_seconds: Option<u32>,
    ) {
        let node_port = front.address.is_unspecified();
        let count = endpoints.len() as u32;
        let verdict = if nobody {
            Verdict::Goto(REJECT.to_owned())
        } else if endpoints.is_empty() {
            Verdict::Drop
        } else {
            let balancer = Balancer { endpoints: count, node_port, inside, affinity_seconds };
            self.balancers.insert(balancer);
            Verdict::Goto(balancer.chain())
        };
        let map = match (node_port, inside) {
            (false, false) => SERVICES,
            (false, true) => INSIDE,
            (true, false) => NODE_PORTS,
            (true, true) => NODE_PORTS_INSIDE,
        };
        let transport = |key: Key| key.protocol(front.protocol.number()).port(front.port);
        let key = || transport(Key::default().address(front.address));
        let short = if node_port { transport(Key::default()) } else { key() };
        self.insert(map, short.build(), Value::Verdict(verdict));
        let first = if inside { INSIDE_BUCKETS } else { 0 };
        let mut ids = BTreeSet::new();
        for (bucket, (address, port)) in (first..).zip(endpoints) {
            let endpoint = Key::default().address(*address).port(*port).build();
            if affinity_seconds.is_some() {
                // Unlike its bucket, an endpoint's id stays when others come and go.
                let mut id = endpoint
                    .iter()
                    .fold(0x811c_9dc5_u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
                while !ids.insert(id) {
                    id = id.wrapping_add(1);
                }
                let id_value = Value::Data(Key::default().mark(id).build());
                self.insert(ENDPOINT_IDS, key().mark(bucket).build(), id_value);
                self.insert(ENDPOINTS_BY_ID, key().mark(id).build(), Value::Data(endpoint.clone()));
            }
            self.insert(ENDPOINTS, key().mark(bucket).build(), Value::Data(endpoint));
        }
    }

    fn insert(&mut self, set: &str, key: Vec<u8>, value: Value) {
        self.table.sets.get_mut(set).expect("made at the beginning").elements.insert(key, value);
    }

    fn finish(mut self) -> Table {
        let jump = |chain: &str| vec![Expr::Verdict(Verdict::Jump(chain.to_owned()))];
        let from_pods = |c: &IpNet| [Expr::source_in(*c, false), jump(INSIDE)].concat();
        let mut prerouting: Vec<_> = self.pods.iter().map(from_pods).collect();
        prerouting.push(jump(SERVICES));
        self.base("prerouting", Hook::Prerouting, DESTINATION_NAT, prerouting);
        self.base("output", Hook::Output, DESTINATION_NAT, vec![jump(INSIDE), jump(SERVICES)]);
        self.base("postrouting", Hook::Postrouting, SOURCE_NAT, self.masquerade());
        self.chain(SERVICES, self.dispatch(SERVICES, NODE_PORTS));
        self.chain(INSIDE, self.dispatch(INSIDE, NODE_PORTS_INSIDE));
        self.chain(REJECT, reject(self.ipv6));
        for balancer in std::mem::take(&mut self.balancers) {
            let rules = match balancer.affinity_seconds {
                None => vec![self.balance(&balancer)],
                Some(seconds) => self.balance_with_affinity(&balancer, seconds),
            };
            self.chain(&balancer.chain(), rules);
        }
        self.table
    }

    fn chain(&mut self, name: &str, rules: Vec<Vec<Expr>>) {
        self.table.chains.insert(name.to_owned(), Chain { base: None, rules });
    }

    fn base(&mut self, name: &str, hook: Hook, priority: i32, rules: Vec<Vec<Expr>>) {
        let base = Base { kind: ChainKind::Nat, hook, priority, drop: false };
        self.table.chains.insert(name.to_owned(), Chain { base: Some(base), rules });
    }

    /// How many registers an address takes.
    fn words(&self) -> u8 {
        if self.ipv6 { 4 } else { 1 }
    }

    /// Asks the two maps that name a chain for a front.
    fn dispatch(&self, services: &str, node_ports: &str) -> Vec<Vec<Expr>> {
        let words = self.words();
        let mut by_address = vec![Expr::destination(self.ipv6, Reg(0))];
        by_address.extend(transport(words));
        by_address.push(Expr::VerdictMap { key: Reg(0), map: services.to_owned() });
        let mut by_port = Vec::new();
        if self.ipv6 {
            // There is no way out of the machine for packets from ::1.
            by_port.extend(Expr::destination_in(loopback6(), true));
        }
        by_port.push(Expr::DestinationKind { to: Reg(0) });
        by_port.push(Expr::Compare { from: Reg(0), not: false, value: ROUTE_LOCAL.to_ne_bytes().to_vec() });
        by_port.extend(transport(0));
        by_port.push(Expr::VerdictMap { key: Reg(0), map: node_ports.to_owned() });
        vec![by_address, by_port]
    }

    /// Registers: front, drawn number; endpoint.
    fn balance(&self, balancer: &Balancer) -> Vec<Expr> {
        let words = self.words();
        let mut rule = self.front_key(balancer, 0);
        rule.push(draw(balancer, words + 2));
        rule.push(Expr::Map { key: Reg(0), map: ENDPOINTS.to_owned(), to: Reg(words + 3) });
        rule.push(self.dnat(words + 3));
        rule
    }

    /// Registers: client, front, the endpoint's id, endpoint. The first rule keeps a client's endpoint as long as
    /// the front has it; the second picks one and remembers it; the third serves when no more clients can be
    /// remembered. (`nft` 1.0.6 cannot print keys made of another map's value, and aborts; the kernel takes them.)
    fn balance_with_affinity(&self, balancer: &Balancer, seconds: u32) -> Vec<Vec<Expr>> {
        let words = self.words();
        let (id, endpoint) = (Reg(2 * words + 2), 2 * words + 3);
        let mut client = vec![Expr::source(self.ipv6, Reg(0))];
        client.extend(self.front_key(balancer, words));
        let find = |map: &str, to| Expr::Map { key: Reg(words), map: map.to_owned(), to };
        let (map, timeout_ms) = (AFFINITY.to_owned(), u64::from(seconds) * 1000);
        let remember = || Expr::Update { map: map.clone(), key: Reg(0), value: id, timeout_ms };
        let keep = vec![
            Expr::Map { key: Reg(0), map: map.clone(), to: id },
            find(ENDPOINTS_BY_ID, Reg(endpoint)),
            remember(),
            self.dnat(endpoint),
        ];
        let pick = vec![
            draw(balancer, id.0),
            find(ENDPOINT_IDS, id),
            Expr::Forget { map: map.clone(), key: Reg(0), value: id },
            remember(),
            find(ENDPOINTS_BY_ID, Reg(endpoint)),
            self.dnat(endpoint),
        ];
        vec![[client.clone(), keep].concat(), [client, pick].concat(), self.balance(balancer)]
    }

    /// Loads address, protocol and port as they are in `endpoints`, from register `at` on.
    fn front_key(&self, balancer: &Balancer, at: u8) -> Vec<Expr> {
        let address = if balancer.node_port {
            Expr::Load { to: Reg(at), value: vec![0; usize::from(self.words()) * 4] }
        } else {
            Expr::destination(self.ipv6, Reg(at))
        };
        let mut key = vec![address];
        key.extend(transport(at + self.words()));
        key
    }

    fn dnat(&self, endpoint: u8) -> Expr {
        Expr::Dnat { ipv6: self.ipv6, address: Reg(endpoint), port: Reg(endpoint + self.words()) }
    }

    fn masquerade(&self) -> Vec<Vec<Expr>> {
        let translated = || {
            vec![
                Expr::Ct { to: Reg(0), key: ct::STATUS },
                Expr::Mask { reg: Reg(0), mask: ct::STATUS_DNAT.to_ne_bytes().to_vec() },
                Expr::Compare { from: Reg(0), not: true, value: vec![0; 4] },
            ]
        };
        let mut hairpin = translated();
        hairpin.push(Expr::source(self.ipv6, Reg(0)));
        hairpin.push(Expr::destination(self.ipv6, Reg(self.words())));
        hairpin.push(Expr::InSet { key: Reg(0), set: HAIRPIN.to_owned(), not: false });
        let mut rules = vec![hairpin];
        if !self.ipv6 {
            rules.push([translated(), Expr::source_in(loopback4(), false)].concat());
        }
        let mut passing = translated();
        for cidr in &self.pods {
            passing.extend(Expr::source_in(*cidr, true));
            passing.extend(Expr::destination_in(*cidr, true));
        }
        let mut lo = b"lo".to_vec();
        lo.resize(16, 0);
        passing.push(Expr::Meta { to: Reg(0), key: meta::OIFNAME });
        passing.push(Expr::Compare { from: Reg(0), not: true, value: lo });
        rules.push(passing);
        for rule in &mut rules {
            rule.push(Expr::Masquerade);
        }
        rules
    }
}

/// Loads protocol and destination port.
fn transport(at: u8) -> [Expr; 2] {
    [
        Expr::Meta { to: Reg(at), key: meta::L4PROTO },
        Expr::Payload { to: Reg(at + 1), base: PayloadBase::Transport, offset: 2, len: 2 },
    ]
}

fn draw(balancer: &Balancer, at: u8) -> Expr {
    let offset = if balancer.inside { INSIDE_BUCKETS } else { 0 };
    Expr::Random { to: Reg(at), modulus: balancer.endpoints, offset }
}

/// A TCP client sees its connection refused, others an unreachable port.
fn reject(ipv6: bool) -> Vec<Vec<Expr>> {
    let unreachable = RejectWith::Unreachable(if ipv6 { 4 } else { 3 });
    vec![
        vec![
            Expr::Meta { to: Reg(0), key: meta::L4PROTO },
            Expr::Compare { from: Reg(0), not: false, value: vec![Protocol::Tcp.number()] },
            Expr::Reject(RejectWith::TcpReset),
        ],
        vec![Expr::Reject(unreachable)],
    ]
}

fn unspecified(ipv6: bool) -> IpAddr {
    if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() }
}

fn loopback4() -> IpNet {
    IpNet::new(Ipv4Addr::LOCALHOST.into(), 8).expect("8 fits IPv4")
}

fn loopback6() -> IpNet {
    IpNet::new(Ipv6Addr::LOCALHOST.into(), 128).expect("128 fits IPv6")
}

#[cfg(test)]
mod tests {
    use network::nft::Batch;

    use super::*;

    fn service(n: u8, endpoints: u8) -> ServicePort {
        let endpoint =
            |e| Endpoint { address: [10, 42, n, e].into(), port: 8080, local: e == 2, terminating: false };
        ServicePort {
            cluster_ips: vec![[10, 96, 0, n].into()],
            port: 80,
            endpoints: (2..2 + endpoints).map(endpoint).collect(),
            ..ServicePort::default()
        }
    }

    fn local() -> Local {
        Local { prefix: "keelson".into(), pod_cidrs: vec!["10.42.1.0/24".parse().unwrap()] }
    }

    fn chains(services: &[ServicePort]) -> Vec<String> {
        let table = render(services, &local()).tables.swap_remove(0);
        let fixed = ["prerouting", "output", "postrouting", SERVICES, INSIDE, REJECT];
        table.chains.into_keys().filter(|c| !fixed.contains(&c.as_str())).collect()
    }

    #[test]
    fn chains_follow_from_numbers_of_endpoints_not_from_services() {
        let many: Vec<_> = (1..100).map(|n| service(n, 1 + n % 2)).collect();
        assert_eq!(chains(&many), ["address-1", "address-2"]);
        let affinity = ServicePort { affinity_seconds: Some(60), node_port: Some(30000), ..service(1, 3) };
        assert_eq!(chains(&[affinity]), ["address-3-affinity-60", "node-port-3-affinity-60"]);
        let external = ServicePort { external_local: true, node_port: Some(30000), ..service(1, 3) };
        assert_eq!(chains(&[external]), ["address-3", "node-port-1", "node-port-3-inside"]);
    }

    #[test]
    fn endpoints_on_their_way_out_serve_only_when_no_other_is_left() {
        let count = |service: &ServicePort| {
            render(std::slice::from_ref(service), &local()).tables[0].sets[ENDPOINTS].elements.len()
        };
        let mut service = service(1, 3);
        service.endpoints[0].terminating = true;
        assert_eq!(count(&service), 2);
        service.endpoints.iter_mut().for_each(|e| e.terminating = true);
        assert_eq!(count(&service), 3);
    }

    #[test]
    fn fronts_without_endpoints_refuse_or_drop() {
        let verdict = |service: ServicePort| {
            let table = render(&[service], &local()).tables.swap_remove(0);
            let Some(Value::Verdict(verdict)) = table.sets[SERVICES].elements.values().next().cloned() else {
                panic!("one front")
            };
            verdict
        };
        assert_eq!(verdict(service(1, 0)), Verdict::Goto(REJECT.into()));
        let mut elsewhere = ServicePort { internal_local: true, ..service(1, 1) };
        elsewhere.endpoints[0].local = false;
        assert_eq!(verdict(elsewhere), Verdict::Drop);
    }

    #[test]
    fn the_order_of_endpoints_makes_no_difference_and_one_change_is_small() {
        let mut services: Vec<_> = (1..200).map(|n| service(n, 3)).collect();
        let before = render(&services, &local());
        services[7].endpoints.reverse();
        services.reverse();
        assert_eq!(render(&services, &local()), before);
        services[100].endpoints.pop();
        let mut batch = Batch::new();
        render(&services, &local()).tables[0].change_from(&before.tables[0], &mut batch);
        // A chain for two endpoints with its rule; elements out of and into `endpoints` and `services`.
        assert!(batch.size().0 <= 8 && batch.size().1 < 2000, "{:?}", batch.size());
    }
}
