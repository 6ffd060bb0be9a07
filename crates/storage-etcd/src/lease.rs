//! Times to live: keys of about the same one share a lease, since each lease costs etcd a write and memory.
//! Upstream: k8s.io/apiserver/pkg/storage/etcd3/lease_manager.go, whose window and limit these are.

use std::collections::BTreeMap;
use std::time::Duration;

use base::time::Instant;

use crate::connection::{Connections, Failure};
use crate::proto::{LeaseGrantRequest, LeaseGrantResponse};

/// The most keys of one lease.
const KEYS_MAX: usize = 1000;
/// For how long a lease takes further keys: this part of its time to live, at most a minute.
const WINDOW: f64 = 0.05;
const WINDOW_MAX: Duration = Duration::from_secs(60);

/// The leases that still take keys, by time to live in seconds.
#[derive(Default)]
pub struct Leases(tokio::sync::Mutex<BTreeMap<i64, Lease>>);

struct Lease {
    id: i64,
    until: Instant,
    keys: usize,
}

impl Leases {
    /// A lease that ends not before `ttl` from now, and at most a window later.
    pub async fn get(&self, connections: &Connections, ttl: Duration) -> Result<i64, Failure> {
        let seconds = ttl.as_secs_f64().ceil().max(1.0) as i64;
        let mut leases = self.0.lock().await;
        let now = base::time::instant();
        leases.retain(|_, lease| lease.until > now && lease.keys < KEYS_MAX);
        if let Some(lease) = leases.get_mut(&seconds) {
            lease.keys += 1;
            return Ok(lease.id);
        }
        let window = Duration::from_secs(ttl.mul_f64(WINDOW).min(WINDOW_MAX).as_secs());
        let question = LeaseGrantRequest { ttl: seconds + window.as_secs() as i64 };
        // A lease without keys does no harm: it ends by itself.
        let granted: LeaseGrantResponse =
            connections.unary("/etcdserverpb.Lease/LeaseGrant", &question, true).await?;
        leases.insert(seconds, Lease { id: granted.id, until: now + window, keys: 1 });
        Ok(granted.id)
    }
}
