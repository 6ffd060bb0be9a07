//! What the cluster hands out with a Service: cluster addresses and node ports. What is taken is known to storage
//! alone, never to a process: an address is an IPAddress object, the node ports are one record, and both are written
//! in the transaction of the object that takes them.
//! Upstream: pkg/registry/core/service/{ipallocator,portallocator}, pkg/registry/core/service/storage/alloc.go.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use api::Allocations;
use apimachinery::field::{ErrorList, Path};
use apimachinery::gvk::GroupResource;
use apimachinery::validation::{cidr_contains, parse_cidr};
use apimachinery::{Doc, Ref, Status, doc, k};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use storage::{Op, Range};

use super::store::{self, Writes};
use crate::cacher::Lister;
use crate::endpoints::Request;

const ADDRESSES: GroupResource = GroupResource::new("networking.k8s.io", "ipaddresses");
const RANGES: GroupResource = GroupResource::new("networking.k8s.io", "servicecidrs");
const PORTS_KEY: &str = "/registry/ranges/servicenodeports";
/// Addresses at the low end that are handed out only when asked for: at most this many, and a sixteenth of the range.
const STATIC_MAX: u128 = 256;
const STATIC_MIN: u128 = 16;

/// What there is to hand out.
#[derive(Clone, Debug)]
pub struct Pools {
    /// Ranges of cluster addresses, by family, the cluster's first family first. Those of ServiceCIDRs come after them.
    pub service_ranges: Vec<(IpAddr, u8)>,
    /// The first and the last node port.
    pub node_ports: (u16, u16),
}

impl Default for Pools {
    fn default() -> Self {
        Pools {
            service_ranges: vec![(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 0)), 16)],
            node_ports: (30_000, 32_767),
        }
    }
}

/// Puts addresses and ports into `new`, and says what must be written so that they are its own. What `old` had and
/// `new` has no more is given back.
///
/// # Errors
/// 422 for what is taken or outside of the range, 500 when nothing is left.
pub async fn allocate(request: &Request, new: &mut Doc, old: Option<&Doc>) -> Result<Writes, Status> {
    let strategy = request.kind.strategy;
    let Some(wanted) = strategy.allocates(new.root(), old.map(Doc::root)) else {
        return Ok(Writes::default());
    };
    let mut along = Writes::default();
    let mut errors = ErrorList::new();
    addresses(request, &wanted, new, old, &mut along, &mut errors)?;
    ports(request, &wanted, new, old, &mut along, &mut errors).await?;
    if errors.is_empty() {
        return Ok(along);
    }
    let kind = &request.kind;
    Err(Status::invalid(&kind.storage.group, &kind.kind, new.get(k::METADATA).get(k::NAME).str(), errors))
}

/// Gives back all that `old` has, as it goes.
///
/// # Errors
/// When storage fails.
pub async fn release(request: &Request, old: &Doc) -> Result<Writes, Status> {
    let mut along = Writes::default();
    if request.kind.strategy.allocates(old.root(), Some(old.root())).is_none() {
        return Ok(along);
    }
    for address in held_addresses(old.root()) {
        give_back(request, &address, &mut along);
    }
    let held = held_ports(old.root());
    if !held.is_empty() {
        let mut record = Record::load(request).await?;
        held.iter().for_each(|port| record.set(*port, false));
        record.save(&mut along);
    }
    Ok(along)
}

fn held_addresses(service: Ref<'_>) -> BTreeSet<String> {
    let spec = service.get(k::SPEC);
    let all = spec.get(k::CLUSTER_IPS).items().map(Ref::str).chain([spec.get(k::CLUSTER_IP).str()]);
    all.filter(|ip| ip.parse::<IpAddr>().is_ok()).map(str::to_owned).collect()
}

fn held_ports(service: Ref<'_>) -> BTreeSet<u16> {
    let spec = service.get(k::SPEC);
    let all = spec
        .get(k::PORTS)
        .items()
        .map(|p| p.get(k::NODE_PORT).i64())
        .chain([spec.get(k::HEALTH_CHECK_NODE_PORT).i64()]);
    all.filter_map(|port| u16::try_from(port).ok()).filter(|port| *port > 0).collect()
}

fn give_back(request: &Request, address: &str, along: &mut Writes) {
    if let (Some(kind), Some(item)) =
        (request.api.kinds.stored(&ADDRESSES), request.api.cacher.get(&ADDRESSES, "", address))
    {
        along.add(item.revision, Op::delete(kind.key("", address)));
    }
}

fn addresses(
    request: &Request,
    wanted: &Allocations,
    new: &mut Doc,
    old: Option<&Doc>,
    along: &mut Writes,
    errors: &mut ErrorList,
) -> Result<(), Status> {
    let held = old.map(|o| held_addresses(o.root())).unwrap_or_default();
    let mut given: Vec<String> = Vec::new();
    for (i, (family, asked)) in families(request, wanted, new, errors).iter().enumerate() {
        if held.contains(asked) {
            given.push(asked.clone());
            continue;
        }
        if let Some(address) = choose(request, i, family, asked, &given, errors)? {
            take(request, &address, new, along)?;
            given.push(address);
        }
    }
    for address in held.iter().filter(|a| !given.contains(a)) {
        give_back(request, address, along);
    }
    if let Some(first) = given.first().cloned() {
        let mut spec = new.edit().at(k::SPEC);
        spec.set(k::CLUSTER_IP, first);
        let families: Vec<&str> = given.iter().filter_map(|ip| ip.parse().ok()).map(family_of).collect();
        spec.set(k::IP_FAMILIES, families);
        spec.set(k::CLUSTER_IPS, given);
    }
    let spec = new.get(k::SPEC);
    if spec.get(k::TYPE).str() != "ExternalName" {
        let policy = if spec.get(k::IP_FAMILIES).len() > 1 { "PreferDualStack" } else { "SingleStack" };
        let first = request.api.pools.service_ranges.first().map_or("IPv4", |(start, _)| family_of(*start));
        let mut spec = new.edit().at(k::SPEC);
        spec.set_default(k::IP_FAMILIES, vec![first]).set_default(k::IP_FAMILY_POLICY, policy);
    }
    Ok(())
}

/// The address at `index` of a Service: the one asked for if it can be had, else a free one. Without either there is
/// an error in `errors`.
fn choose(
    request: &Request,
    index: usize,
    family: &str,
    asked: &str,
    given: &[String],
    errors: &mut ErrorList,
) -> Result<Option<String>, Status> {
    let spec = Path::new("spec");
    let ip: Option<IpAddr> = asked.parse().ok();
    let fits = |start: &IpAddr| match ip {
        Some(ip) => ip.is_ipv6() == start.is_ipv6(),
        None => family.is_empty() || family_of(*start) == family,
    };
    let ranges: Vec<(IpAddr, u8)> = ranges(request).into_iter().filter(|(start, _)| fits(start)).collect();
    if ranges.is_empty() {
        errors.invalid(&spec.child("ipFamilies").index(index), family, "not configured on this cluster");
        return Ok(None);
    }
    if asked.is_empty() {
        let free = ranges.iter().find_map(|range| pick(request, *range, given));
        let free = free.ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
        return Ok(Some(free.to_string()));
    }
    let why = match ip {
        None => "must be a valid IP address".to_owned(),
        Some(ip) if !ranges.iter().any(|range| cidr_contains(*range, ip)) => {
            format!("failed to allocate IP {asked}: the provided network does not match the current range")
        }
        Some(ip) if request.api.cacher.get(&ADDRESSES, "", &ip.to_string()).is_some() => {
            format!("failed to allocate IP {asked}: provided IP is already allocated")
        }
        Some(ip) => return Ok(Some(ip.to_string())),
    };
    errors.invalid(&spec.child("clusterIPs").index(index), asked, &why);
    Ok(None)
}

/// The ranges of the cluster's flags, then those of the ServiceCIDRs that are ready and stay.
fn ranges(request: &Request) -> Vec<(IpAddr, u8)> {
    let mut out = request.api.pools.service_ranges.clone();
    for item in request.api.cacher.list(&RANGES, "") {
        let object = item.kept();
        let ready = |c: Ref<'_>| (c.get(k::TYPE).str(), c.get(k::STATUS).str()) == ("Ready", "True");
        if !object.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set()
            && object.get(k::STATUS).get(k::CONDITIONS).items().any(ready)
        {
            let own = object.get(k::SPEC).get(k::CIDRS).items().filter_map(|cidr| parse_cidr(cidr.str()));
            out.extend(own.filter(|range| !request.api.pools.service_ranges.contains(range)));
        }
    }
    out
}

fn family_of(ip: IpAddr) -> &'static str {
    if ip.is_ipv6() { "IPv6" } else { "IPv4" }
}

/// The addresses wanted; a second one where the policy of families and the cluster have it.
fn families(
    request: &Request,
    wanted: &Allocations,
    new: &Doc,
    errors: &mut ErrorList,
) -> Vec<(api::kind::Name, String)> {
    let mut all = wanted.cluster_ips.clone();
    let policy = new.get(k::SPEC).get(k::IP_FAMILY_POLICY).str();
    if all.len() != 1 || !matches!(policy, "PreferDualStack" | "RequireDualStack") {
        return all;
    }
    let ranges = ranges(request);
    let first = match &*all[0].0 {
        "" => ranges.first().map_or("IPv4", |(start, _)| family_of(*start)).to_owned(),
        family => family.to_owned(),
    };
    match ranges.iter().map(|(start, _)| family_of(*start)).find(|family| *family != first) {
        Some(second) => all.push((second.into(), String::new())),
        None if policy == "RequireDualStack" => {
            errors.invalid(
                &Path::new("spec").child("ipFamilyPolicy"),
                policy,
                "this cluster is not configured for dual-stack services",
            );
        }
        None => {}
    }
    all[0].0 = first.into();
    all
}

/// Adds the IPAddress object that says whose an address is.
fn take(request: &Request, address: &str, service: &Doc, along: &mut Writes) -> Result<(), Status> {
    let Some(kind) = request.api.kinds.stored(&ADDRESSES) else {
        return Err(Status::internal(
            "the kind IPAddress is not served, so that no cluster address can be taken",
        ));
    };
    let family = if address.contains(':') { "IPv6" } else { "IPv4" };
    let meta = service.get(k::METADATA);
    let object = doc!({ "kind": "IPAddress", "apiVersion": kind.storage_version().gv.to_string(),
        "metadata": { "name": address, "uid": base::rand::uuid(), "creationTimestamp": apimachinery::gotime::format(request.now),
            "labels": { "ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io" } },
        "spec": { "parentRef": { "group": "", "resource": "services",
            "namespace": meta.get(k::NAMESPACE).str(), "name": meta.get(k::NAME).str() } } });
    along.add(0, Op::put(kind.key("", address), store::encode(&kind, &object)));
    Ok(())
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => u128::from(ip),
    }
}

fn bits(start: IpAddr, prefix: u8) -> u32 {
    u32::from(if start.is_ipv6() { 128u8 } else { 32 }.saturating_sub(prefix))
}

/// A free address: from a random place in the upper part on, then in the lower part.
fn pick(request: &Request, (start, prefix): (IpAddr, u8), given: &[String]) -> Option<IpAddr> {
    // Neither the network's own address nor, with IPv4, its broadcast address.
    let size = 1u128
        .checked_shl(bits(start, prefix))
        .unwrap_or(u128::MAX)
        .saturating_sub(if start.is_ipv6() { 1 } else { 2 });
    let low = (size / 16).clamp(STATIC_MIN, STATIC_MAX).min(size);
    let address = |offset: u128| {
        let n = number(start) + 1 + offset;
        match start {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(n as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(n)),
        }
    };
    let free = |ip: &IpAddr| {
        let text = ip.to_string();
        !given.contains(&text) && request.api.cacher.get(&ADDRESSES, "", &text).is_none()
    };
    let upper = u64::try_from(size - low).unwrap_or(u64::MAX);
    let from = u128::from(base::rand::below(upper));
    let upper = u128::from(upper);
    (0..upper)
        .map(|i| address(low + (from + i) % upper))
        .find(free)
        .or_else(|| (0..low).map(address).find(free))
}

async fn ports(
    request: &Request,
    wanted: &Allocations,
    new: &mut Doc,
    old: Option<&Doc>,
    along: &mut Writes,
    errors: &mut ErrorList,
) -> Result<(), Status> {
    let held = old.map(|o| held_ports(o.root())).unwrap_or_default();
    if wanted.node_ports.is_empty() && wanted.health_check_node_port.is_none() && held.is_empty() {
        return Ok(());
    }
    let mut record = Record::load(request).await?;
    let mut given: BTreeSet<u16> = BTreeSet::new();
    // Those asked for first, so that none of them is drawn for another.
    for (index, _, asked) in wanted.node_ports.iter().filter(|(.., asked)| *asked != 0) {
        let at = Path::new("spec").child("ports").index(*index).child("nodePort");
        record.take(*asked, &held, &mut given, &at, errors);
    }
    let health_at = Path::new("spec").child("healthCheckNodePort");
    if let Some(asked) = wanted.health_check_node_port.filter(|p| *p != 0) {
        record.take(asked, &held, &mut given, &health_at, errors);
    }
    let mut drawn: Vec<(i64, String, u16)> = Vec::new();
    for (index, protocol, _) in wanted.node_ports.iter().filter(|(.., asked)| *asked == 0) {
        let number = new.get(k::SPEC).get(k::PORTS).item(*index).get(k::PORT).i64();
        // The same port for TCP and UDP is one node port.
        let twin = drawn.iter().find(|(n, p, _)| *n == number && p != protocol).map(|(.., port)| *port);
        let port = match twin.or_else(|| record.draw(&given)) {
            Some(port) => port,
            None => return Err(Status::internal("failed to allocate a nodePort: range is full")),
        };
        record.set(port, true);
        given.insert(port);
        drawn.push((number, protocol.clone(), port));
        if let Some(mut entry) = new.edit().at(k::SPEC).list(k::PORTS).item(*index) {
            entry.set(k::NODE_PORT, port);
        }
    }
    if wanted.health_check_node_port == Some(0) {
        let port = record
            .draw(&given)
            .ok_or_else(|| Status::internal("failed to allocate a nodePort: range is full"))?;
        record.set(port, true);
        given.insert(port);
        new.edit().at(k::SPEC).set(k::HEALTH_CHECK_NODE_PORT, port);
    }
    held.iter().filter(|port| !given.contains(port)).for_each(|port| record.set(*port, false));
    record.save(along);
    Ok(())
}

/// Which node ports are taken, as storage knows it: upstream's `RangeAllocation`.
struct Record {
    first: u16,
    last: u16,
    revision: u64,
    taken: BTreeSet<u16>,
    changed: bool,
}

impl Record {
    async fn load(request: &Request) -> Result<Record, Status> {
        let (first, last) = request.api.pools.node_ports;
        let reply =
            request.api.store.range(Range::key(PORTS_KEY)).await.map_err(|e| store::unreachable(&e))?;
        let mut record = Record { first, last, revision: 0, taken: BTreeSet::new(), changed: false };
        let Some(kv) = reply.kvs.first() else { return Ok(record) };
        record.revision = kv.mod_revision;
        let doc = apimachinery::codec::json::parse(kv.value.to_vec()).map_err(Status::internal)?.doc;
        let bits = STANDARD.decode(doc.get(k::DATA).str()).map_err(Status::internal)?;
        // One big number, most significant byte first, as upstream keeps it.
        for (i, byte) in bits.iter().rev().enumerate() {
            for bit in (0..8).filter(|bit| byte >> bit & 1 == 1) {
                record.taken.insert(first.saturating_add((i * 8 + bit) as u16));
            }
        }
        Ok(record)
    }

    fn set(&mut self, port: u16, taken: bool) {
        if port >= self.first && port <= self.last {
            self.changed |= if taken { self.taken.insert(port) } else { self.taken.remove(&port) };
        }
    }

    fn take(
        &mut self,
        port: u16,
        held: &BTreeSet<u16>,
        given: &mut BTreeSet<u16>,
        at: &Path,
        errors: &mut ErrorList,
    ) {
        let ours = held.contains(&port) || given.contains(&port);
        if !ours && (port < self.first || port > self.last) {
            let detail = format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.first, self.last
            );
            return errors.invalid(at, i64::from(port), &detail);
        }
        if !ours && self.taken.contains(&port) {
            return errors.invalid(at, i64::from(port), "provided port is already allocated");
        }
        self.set(port, true);
        given.insert(port);
    }

    fn draw(&self, given: &BTreeSet<u16>) -> Option<u16> {
        let size = u32::from(self.last - self.first) + 1;
        let from = base::rand::below(u64::from(size)) as u32;
        let port = |i: u32| self.first + ((from + i) % size) as u16;
        (0..size).map(port).find(|p| !self.taken.contains(p) && !given.contains(p))
    }

    fn save(self, along: &mut Writes) {
        if !self.changed {
            return;
        }
        let mut bits = vec![0u8; usize::from(self.last - self.first) / 8 + 1];
        let len = bits.len();
        for port in &self.taken {
            let at = usize::from(port - self.first);
            bits[len - 1 - at / 8] |= 1 << (at % 8);
        }
        let record = doc!({ "kind": "RangeAllocation", "apiVersion": "v1", "metadata": {},
            "range": format!("{}-{}", self.first, self.last), "data": STANDARD.encode(bits) });
        along.add(self.revision, Op::put(PORTS_KEY, record.to_json()));
    }
}

/// The first address of a range after the network's own: the `kubernetes` Service's.
pub fn first_address((start, _): (IpAddr, u8)) -> IpAddr {
    match start {
        IpAddr::V4(ip) => IpAddr::V4(Ipv4Addr::from(u32::from(ip) + 1)),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from(u128::from(ip) + 1)),
    }
}
