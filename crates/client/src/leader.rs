//! Leadership over a Lease: of several processes with the same work, the one that holds it does it.
//!
//! With the embedded store the lock on its data directory *is* the leadership; then the Lease only tells people who
//! leads ([`announce`]). Upstream: client-go tools/leaderelection, whose times these are.

use std::time::Duration;

use apimachinery::{doc, gotime, k};
use base::time::Instant;

use crate::api::{Client, Error, Resource};
use crate::gvr::LEASES;

/// How long after its last change a Lease binds the others.
const LEASE: Duration = Duration::from_secs(15);
/// How long the holder goes on without having renewed it.
const RENEW_MAX: Duration = Duration::from_secs(10);
/// How often it is tried to take or renew it.
const RETRY: Duration = Duration::from_secs(2);

/// Says in the Lease `namespace/name` that `identity` leads. Writes nothing when the Lease says so already.
///
/// # Errors
/// When the Lease can be neither read nor written.
pub async fn announce(client: &Client, namespace: &str, name: &str, identity: &str) -> Result<(), Error> {
    let mut candidate = Candidate::new(client, namespace, name, identity);
    while !candidate.attempt(true).await? {}
    Ok(())
}

/// One of those who want to lead.
#[derive(Clone)]
pub struct Candidate {
    leases: Resource,
    name: String,
    identity: String,
    /// The Lease's revision as last seen, and since when: other machines' clocks do not matter.
    seen: Option<(u64, Instant)>,
}

impl Candidate {
    /// Wants the Lease `namespace/name` for `identity`, which nobody else has.
    pub fn new(client: &Client, namespace: &str, name: &str, identity: &str) -> Candidate {
        let leases = client.namespaced(LEASES, namespace);
        Candidate { leases, name: name.to_owned(), identity: identity.to_owned(), seen: None }
    }

    /// Waits until the Lease is ours.
    pub async fn acquire(&mut self) {
        loop {
            match self.attempt(false).await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => tracing::warn!(lease = self.name, %error, "cannot try to lead"),
            }
            base::time::sleep(RETRY.mul_f64(1.0 + 0.2 * base::rand::fraction())).await;
        }
    }

    /// Renews the Lease until it is lost: taken by another, or not renewed in time.
    pub async fn keep(&mut self) {
        let mut renewed = base::time::instant();
        loop {
            base::time::sleep(RETRY).await;
            let left = RENEW_MAX.saturating_sub(renewed.elapsed());
            match base::time::timeout(left, self.attempt(false)).await {
                Ok(Ok(true)) => renewed = base::time::instant(),
                Ok(Ok(false)) | Err(_) => return,
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "cannot renew the lease"),
            }
        }
    }

    /// Gives the Lease up, so that the next need not wait for its end.
    pub async fn release(&mut self) {
        let done = async {
            let mut lease = self.leases.get(&self.name).await?.doc();
            if lease.get(k::SPEC).get(k::HOLDER_IDENTITY).str() == self.identity {
                lease.edit().at(k::SPEC).remove(k::HOLDER_IDENTITY);
                self.leases.update(lease).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(lease = self.name, %error, "the lease could not be given up");
        }
    }

    /// Takes or renews the Lease if it is ours, nobody's or out of date, or if we `may` in any case; whether it is
    /// ours now.
    async fn attempt(&mut self, may: bool) -> Result<bool, Error> {
        let now = gotime::format_micro(base::time::now());
        let outcome = match self.leases.get(&self.name).await {
            Ok(found) => {
                if self.seen.is_none_or(|(revision, _)| revision != found.revision) {
                    self.seen = Some((found.revision, base::time::instant()));
                }
                let stale = self.seen.is_some_and(|(_, since)| since.elapsed() > LEASE);
                let mut lease = found.doc();
                let spec = lease.get(k::SPEC);
                let (holder, transitions) =
                    (spec.get(k::HOLDER_IDENTITY).str(), spec.get(k::LEASE_TRANSITIONS).i64());
                let ours = holder == self.identity;
                if ours && may {
                    return Ok(true);
                }
                if !(ours || may || stale || holder.is_empty()) {
                    return Ok(false);
                }
                let mut spec = lease.edit().at(k::SPEC);
                spec.set(k::RENEW_TIME, &now);
                if !ours {
                    spec.set(k::HOLDER_IDENTITY, &self.identity)
                        .set(k::ACQUIRE_TIME, &now)
                        .set(k::LEASE_TRANSITIONS, transitions + 1);
                }
                self.leases.update(lease).await
            }
            Err(err) if err.is_not_found() => {
                let lease = doc!({
                    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                    "metadata": { "name": self.name, "namespace": self.leases.namespace() },
                    "spec": { "holderIdentity": self.identity, "leaseDurationSeconds": LEASE.as_secs() as i64,
                        "acquireTime": now, "renewTime": now, "leaseTransitions": 0 },
                });
                self.leases.create(lease).await
            }
            Err(err) => return Err(err),
        };
        match outcome {
            Ok(_) => Ok(true),
            Err(err) if err.is_conflict() || err.is_already_exists() => Ok(false),
            Err(err) => Err(err),
        }
    }
}
