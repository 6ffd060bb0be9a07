//! SupportedFields: refuses pods that ask for what no plugin here understands, and names the field. Upstream has none:
//! there every field has its plugin.

use apimachinery::{Ref, k};

use crate::cache::Snapshot;
use crate::framework::{Code, CycleState, Member, Pod, PreFilter, PreFiltered, Rejection};

/// The plugin.
pub const MEMBER: Member = Member { pre_filter: Some(&SupportedFields), ..Member::new("SupportedFields") };

struct SupportedFields;

impl PreFilter for SupportedFields {
    fn pre_filter(
        &self,
        _: &mut CycleState,
        pod: Pod<'_>,
        _: Snapshot<'_>,
    ) -> Result<PreFiltered, Rejection> {
        let fields = refused(pod.spec().0);
        if fields.is_empty() {
            return Ok(PreFiltered::Skip);
        }
        let why = format!("this scheduler does not support {}", fields.join(", "));
        Err(Rejection::new(Code::Unresolvable, why))
    }
}

/// The fields of a pod's specification that ask for what is not understood.
fn refused(spec: Ref<'_>) -> Vec<String> {
    let mut out = Vec::new();
    let affinity = spec.get(k::AFFINITY);
    for key in [k::POD_AFFINITY, k::POD_ANTI_AFFINITY] {
        if affinity.get(key).fields().any(|terms| !terms.is_empty()) {
            out.push(format!("spec.affinity.{}", key.name()));
        }
    }
    for key in [k::TOPOLOGY_SPREAD_CONSTRAINTS, k::RESOURCE_CLAIMS, k::SCHEDULING_GROUP, k::WORKLOAD_REF] {
        if !spec.get(key).is_empty() {
            out.push(format!("spec.{}", key.name()));
        }
    }
    for (i, volume) in spec.get(k::VOLUMES).items().enumerate() {
        for key in [k::PERSISTENT_VOLUME_CLAIM, k::EPHEMERAL] {
            if volume.get(key).is_set() {
                out.push(format!("spec.volumes[{i}].{}", key.name()));
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn fields_are_named() {
        let spec = doc!({
            "affinity": { "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [{}] },
                "podAffinity": {}, "nodeAffinity": {} },
            "topologySpreadConstraints": [{ "whenUnsatisfiable": "DoNotSchedule" }],
            "resourceClaims": [{ "name": "gpu" }],
            "volumes": [{ "name": "a", "emptyDir": {} }, { "name": "b", "persistentVolumeClaim": { "claimName": "c" } }],
        });
        assert_eq!(
            refused(spec.root()),
            [
                "spec.affinity.podAntiAffinity",
                "spec.topologySpreadConstraints",
                "spec.resourceClaims",
                "spec.volumes[1].persistentVolumeClaim"
            ]
        );
        assert!(refused(doc!({ "containers": [{}], "volumes": [{ "configMap": {} }] }).root()).is_empty());
    }
}
