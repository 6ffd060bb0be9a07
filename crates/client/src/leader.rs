//! Leadership over the Lease object, in the shape that the embedded engine needs: the lock on its data directory *is* the
//! leadership, so the Lease only tells people who leads, and is written when that changes.
//! Upstream: client-go tools/leaderelection.

use apimachinery::{doc, gotime, k};

use crate::api::{Client, Error};
use crate::gvr::LEASES;

/// Says in the Lease `namespace/name` that `identity` leads. Writes nothing when the Lease says so already.
///
/// # Errors
/// When the Lease can be neither read nor written.
pub async fn announce(client: &Client, namespace: &str, name: &str, identity: &str) -> Result<(), Error> {
    let leases = client.namespaced(LEASES, namespace);
    loop {
        let now = gotime::format_micro(base::time::now());
        let outcome = match leases.get(name).await {
            Ok(found) => {
                let mut lease = found.doc();
                let spec = lease.get(k::SPEC);
                if spec.get(k::HOLDER_IDENTITY).str() == identity {
                    return Ok(());
                }
                let transitions = spec.get(k::LEASE_TRANSITIONS).i64() + 1;
                lease
                    .edit()
                    .at(k::SPEC)
                    .set(k::HOLDER_IDENTITY, identity)
                    .set(k::ACQUIRE_TIME, &now)
                    .set(k::RENEW_TIME, &now)
                    .set(k::LEASE_TRANSITIONS, transitions);
                leases.update(lease).await
            }
            Err(err) if err.is_not_found() => {
                let lease = doc!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": name, "namespace": namespace },
                    "spec": { "holderIdentity": identity, "leaseDurationSeconds": 15, "acquireTime": now,
                        "renewTime": now, "leaseTransitions": 0 },
                });
                leases.create(lease).await
            }
            Err(err) => return Err(err),
        };
        match outcome {
            Err(err) if err.is_conflict() || err.is_already_exists() => {}
            other => return other.map(drop),
        }
    }
}
