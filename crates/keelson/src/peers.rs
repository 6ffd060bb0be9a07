//! What servers over one etcd settle among themselves: who runs the controllers, and where all of them are.
//!
//! The addresses lie in etcd under keys that expire (upstream: pkg/controlplane/reconcilers/lease.go, whose keys,
//! values and times these are); each server keeps the endpoints of `kubernetes` at what lies there.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::{Transport, User};
use apimachinery::doc;
use client::Client;
use client::leader::Candidate;
use controllers::{Manager, Settings};
use storage::{Op, Range, Store, StoreError, Txn, Want};

const MASTERS: &str = "/registry/masterleases/";
/// How long after its last sign of life a server is counted, and how often it gives one.
const MASTER_TTL: Duration = Duration::from_secs(15);
const EVERY: Duration = Duration::from_secs(10);

fn key(address: IpAddr) -> String {
    format!("{MASTERS}{address}")
}

/// Says that `address` serves; gives where others do, this one included.
async fn sign(store: &dyn Store, address: IpAddr) -> Result<Vec<IpAddr>, StoreError> {
    let value = doc!({
        "kind": "Endpoints", "apiVersion": "v1", "metadata": { "name": "", "creationTimestamp": null },
        "subsets": [{ "addresses": [{ "ip": address.to_string() }] }],
    });
    let put = Op::Put { key: key(address).into(), value: value.to_json().into(), ttl: Some(MASTER_TTL) };
    store.txn(Txn::of(vec![put])).await?;
    let found = store.range(Range::prefix(MASTERS).want(Want::Keys)).await?;
    let address = |key: &[u8]| std::str::from_utf8(&key[MASTERS.len()..]).ok()?.parse().ok();
    let mut all: Vec<IpAddr> = found.kvs.iter().filter_map(|kv| address(&kv.key)).collect();
    all.sort_unstable();
    Ok(all)
}

/// Gives signs of life, and keeps the endpoints of `kubernetes` at all servers that do.
pub async fn endpoints(store: Arc<dyn Store>, transport: Arc<dyn Transport>, settings: Settings) {
    let Some(&address) = settings.api_addresses.first() else { return };
    let (mut known, mut manager) = (Vec::new(), None);
    loop {
        match sign(&*store, address).await {
            Ok(all) if all != known => {
                known.clone_from(&all);
                // The old one ends before the new one begins.
                drop(manager.take());
                let settings = Settings { api_addresses: all, ..settings.clone() };
                manager = Some(Manager::start(transport.clone(), settings, controllers::EACH_SERVER));
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "this server's sign of life could not be written"),
        }
        base::time::sleep(EVERY).await;
    }
}

/// This server goes: nobody is to be sent here any more.
pub async fn leave(store: &dyn Store, address: IpAddr) {
    if let Err(error) = store.txn(Txn::of(vec![Op::delete(key(address))])).await {
        tracing::warn!(%error, "this server's sign of life could not be removed; it expires");
    }
}

/// Runs the controllers and the scheduler while this server leads; ends when it led and does no more.
pub async fn lead(candidate: &mut Candidate, transport: Arc<dyn Transport>, settings: Settings) {
    candidate.acquire().await;
    tracing::info!("this server leads");
    let _manager = Manager::start(transport.clone(), settings, controllers::LED);
    base::select! {
        () = candidate.keep() => tracing::warn!("another server leads"),
        never = scheduler::run(scheduler_client(transport), scheduler::Config::default()) => match never {},
    }
}

/// The scheduler's own.
pub fn scheduler_client(transport: Arc<dyn Transport>) -> Client {
    Client::component(transport, User::new("system:kube-scheduler", &[]))
}
