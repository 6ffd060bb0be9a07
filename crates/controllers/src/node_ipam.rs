//! Node IPAM: each Node gets a part of every pod range, a /24 (or /64 of IPv6). What is handed out is read from the Nodes
//! themselves, so that nothing is remembered that a crash could lose. Upstream: pkg/controller/nodeipam, range allocator.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use apimachinery::call::BoxFuture;
use apimachinery::{doc, k};
use client::gvr::NODES;
use client::{Error, ObjectKey, ObjectRef, PatchType};

use crate::manager::{Action, Controller, Ctx, Read, Rule, Wakes, nothing};

/// Bits of a node's part. Upstream: `--node-cidr-mask-size-ipv4`, `-ipv6`.
const BITS_V4: u8 = 24;
const BITS_V6: u8 = 64;

/// The declaration. One worker: parts are handed out one after another.
pub const NODE_IPAM: Controller = Controller {
    name: "node-ipam-controller",
    component: "cidrAllocator",
    workers: 1,
    reads: &[Read { gvr: NODES, indexes: &[], wakes: Wakes::Itself }],
    writes: &[
        Rule { group: "", resources: &["nodes"], verbs: &["get", "list", "patch", "update"] },
        Rule { group: "", resources: &["nodes/status"], verbs: &["patch"] },
    ],
    every_kind: None,
    reconcile: |ctx, key| -> BoxFuture<'static, _> { Box::pin(async move { reconcile(&ctx, &key).await }) },
    begin: nothing,
};

async fn reconcile(ctx: &Ctx, key: &ObjectKey) -> Result<Action, Error> {
    let nodes = ctx.cache(&NODES);
    let Some(node) = nodes.get_key(key).map(|s| s.doc()) else { return Ok(Action::Done) };
    if !node.get(k::SPEC).get(k::POD_CIDRS).is_empty() || ctx.settings.cluster_cidrs.is_empty() {
        return Ok(Action::Done);
    }
    // The fence of this key says nothing of other nodes' writes; one worker and this wait do.
    let taken: BTreeSet<String> = nodes
        .list()
        .iter()
        .flat_map(|n| {
            n.doc().get(k::SPEC).get(k::POD_CIDRS).items().map(|c| c.str().to_owned()).collect::<Vec<_>>()
        })
        .collect();
    let parts: Option<Vec<String>> =
        ctx.settings.cluster_cidrs.iter().map(|range| free_part(range, &taken)).collect();
    let Some(parts) = parts else {
        let about = ObjectRef::of(node.root(), "v1", "Node");
        ctx.events.normal(
            about,
            "CIDRNotAvailable",
            format!("Node {} status is now: CIDRNotAvailable", key.name),
        );
        return Ok(Action::After(std::time::Duration::from_secs(60)));
    };
    let patch = doc!({ "spec": { "podCIDR": parts[0], "podCIDRs": parts } });
    let written = ctx.client.resource(NODES).patch(&key.name, PatchType::Strategic, patch, "").await;
    match written {
        // Seen before the next node is given a part.
        Ok(written) => nodes.wait_for_revision(written.revision).await,
        Err(err) if err.is_not_found() => {}
        Err(err) => return Err(err),
    }
    Ok(Action::Done)
}

/// The first part of `range` that is not taken; `None` when all are, or when `range` is none.
fn free_part(range: &str, taken: &BTreeSet<String>) -> Option<String> {
    let (base, bits) = range.split_once('/')?;
    let bits: u8 = bits.parse().ok()?;
    let (base, width, part): (u128, u8, u8) = match base.parse().ok()? {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32, BITS_V4.max(bits)),
        IpAddr::V6(ip) => (u128::from(ip), 128, BITS_V6.max(bits)),
    };
    let step = 1u128.checked_shl(u32::from(width - part))?;
    let count = 1u128.checked_shl(u32::from(part - bits))?;
    // No cluster has more nodes than this; an IPv6 range could have more parts than time.
    (0..count.min(1 << 16)).map(|i| text(base + i * step, width, part)).find(|part| !taken.contains(part))
}

fn text(at: u128, width: u8, bits: u8) -> String {
    match width {
        32 => format!("{}/{bits}", Ipv4Addr::from(u32::try_from(at).unwrap_or(u32::MAX))),
        _ => format!("{}/{bits}", Ipv6Addr::from(at)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_handed_out_in_order_until_none_is_left() {
        let taken = |all: &[&str]| all.iter().map(|s| (*s).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(free_part("10.244.0.0/16", &taken(&[])).as_deref(), Some("10.244.0.0/24"));
        let two = taken(&["10.244.0.0/24", "10.244.2.0/24"]);
        assert_eq!(free_part("10.244.0.0/16", &two).as_deref(), Some("10.244.1.0/24"));
        assert_eq!(free_part("10.244.0.0/24", &two), None);
        assert_eq!(free_part("fd00::/48", &taken(&["fd00::/64"])).as_deref(), Some("fd00:0:0:1::/64"));
        assert_eq!(free_part("nonsense", &two), None);
    }
}
