//! SchedulingGates: a pod waits until nobody holds it any more. Upstream: plugins/schedulinggates.

use apimachinery::k;

use crate::framework::{Code, Member, Pod, PreEnqueue, Rejection, Verdict};

/// The plugin.
pub const MEMBER: Member = Member { pre_enqueue: Some(&SchedulingGates), ..Member::new("SchedulingGates") };

struct SchedulingGates;

impl PreEnqueue for SchedulingGates {
    fn pre_enqueue(&self, pod: Pod<'_>) -> Verdict {
        let gates: Vec<&str> =
            pod.spec().0.get(k::SCHEDULING_GATES).items().map(|g| g.get(k::NAME).str()).collect();
        if gates.is_empty() {
            return Ok(());
        }
        let why = format!("waiting for scheduling gates: [{}]", gates.join(" "));
        Err(Rejection::new(Code::Unresolvable, why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::info::PodInfo;
    use apimachinery::doc;

    #[test]
    fn gates_are_named() {
        let ask = |spec| {
            let doc = doc!({ "spec": spec });
            let info = PodInfo::of(&doc);
            SchedulingGates.pre_enqueue(Pod { info: &info, doc: &doc }).err().map(|r| r.reasons)
        };
        assert_eq!(ask(apimachinery::__serde_json::json!({})), None);
        let gated =
            apimachinery::__serde_json::json!({ "schedulingGates": [{ "name": "a" }, { "name": "b" }] });
        assert_eq!(ask(gated), Some(vec!["waiting for scheduling gates: [a b]".to_owned()]));
    }
}
