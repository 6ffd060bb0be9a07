//! Pods stay five minutes on a node that is lost, unless they say otherwise.
//! Upstream: plugin/pkg/admission/defaulttolerationseconds.

use apimachinery::call::BoxFuture;
use apimachinery::{Status, doc, k};

use super::{Attributes, Operation, Plugin};

/// The taint of nodes that have not said yet that they are ready.
pub(super) const NOT_READY: &str = "node.kubernetes.io/not-ready";
const SECONDS: i64 = 300;

/// The plugin.
pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
    fn name(&self) -> &'static str {
        "DefaultTolerationSeconds"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if attributes.operation == Operation::Delete || !attributes.is_core("pods", "") {
                return Ok(());
            }
            for taint in [NOT_READY, "node.kubernetes.io/unreachable"] {
                let mut all = attributes.object.get(k::SPEC).get(k::TOLERATIONS).items();
                let tolerated = all.any(|t| {
                    matches!(t.get(k::KEY).str(), "" | "*")
                        && t.get(k::KEY).str().is_empty()
                        && matches!(t.get(k::EFFECT).str(), "" | "NoExecute")
                        || t.get(k::KEY).str() == taint && matches!(t.get(k::EFFECT).str(), "" | "NoExecute")
                });
                if !tolerated {
                    let toleration = doc!({ "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS });
                    attributes.object.edit().at(k::SPEC).list(k::TOLERATIONS).push(toleration);
                }
            }
            Ok(())
        })
    }
}
