//! A new node takes no pods until its conditions are known: whoever places pods may see it before the controller does.
//! Upstream: plugin/pkg/admission/nodetaint.

use apimachinery::call::BoxFuture;
use apimachinery::{Status, doc, k};

use super::default_toleration_seconds::NOT_READY;
use super::{Attributes, Operation, Plugin};

/// The plugin.
pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn name(&self) -> &'static str {
        "TaintNodesByCondition"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if attributes.operation != Operation::Create || !attributes.is_core("nodes", "") {
                return Ok(());
            }
            let mut all = attributes.object.get(k::SPEC).get(k::TAINTS).items();
            if !all.any(|t| t.get(k::KEY).str() == NOT_READY && t.get(k::EFFECT).str() == "NoSchedule") {
                let taint = doc!({ "key": NOT_READY, "effect": "NoSchedule" });
                attributes.object.edit().at(k::SPEC).list(k::TAINTS).push(taint);
            }
            Ok(())
        })
    }
}
