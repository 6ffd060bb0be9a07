//! API servers over one store: for an hour clients of either write, read and watch while faults strike; what they saw is
//! then held against what was committed. Once the faults have ceased, every server must answer with the present state.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use apimachinery::call::Options;
use apimachinery::{Doc, doc, k};
use base::task::Task;
use client::Client;
use client::gvr::{CONFIG_MAPS, LEASES, NAMESPACES, PODS, RESOURCE_QUOTAS, SERVICE_ACCOUNTS, SERVICES};
use controllers::Controller;

use crate::Outcome;
use crate::api_clients::{Person, Watcher, list_fresh};
use crate::checkers;
use crate::faults::{self, Storm, Tally};
use crate::ledger::{Ledger, Pick, Selection};
use crate::record::Record;
use crate::story::{IP_ADDRESSES, Told, at, insist, wait_for};
use crate::world::{Shape, World};

/// The namespaces of what clients write; in the first there is a quota.
pub const SPACES: [&str; 2] = ["a", "b"];
/// Where leases may be lost with the last second.
pub const HEARTBEATS: &str = "kube-node-lease";
/// How many pods the quota allows.
const PODS_MOST: i64 = 4;
/// The controllers without which there are neither pods nor quotas.
static CONTROLLERS: LazyLock<Vec<Controller>> = LazyLock::new(|| {
    let names = ["namespace-controller", "service-account-controller", "resourcequota-controller"];
    controllers::ALL.iter().filter(|c| names.contains(&c.name)).copied().collect()
});
const SERVERS: usize = 2;
/// How many clients begin at each server.
const PEOPLE: usize = 3;
const WATCHERS: usize = 3;
/// How long it lasts, and the longest wait between two faults.
const LASTS: Duration = Duration::from_secs(3600);
const PEACE: Duration = Duration::from_secs(90);

/// Plays the story once.
pub async fn play() -> Outcome {
    let shape = Shape { servers: SERVERS, apart: true, controllers: &CONTROLLERS, nodes: 0 };
    let world = Arc::new(World::of(shape));
    world.net.set(faults::CALM.0, faults::CALM.1);
    let tally = Tally::new(faults::API);
    let record = Arc::new(Record::default());
    if let Err(what) = told(&world, &record, &tally).await {
        world.history.accuse(what);
    }
    let evidence = record.evidence(Ledger::new(world.history.commits()));
    for (name, judge) in checkers::JUDGES {
        // The first few tell what is wrong; what follows from it does not.
        for what in judge(&evidence).into_iter().take(3) {
            world.history.accuse(format!("{name}: {what}"));
        }
    }
    let (lines, broken) = (world.history.lines(), world.history.broken());
    Outcome { lines, faults: tally.counts(), saw: evidence.counts(), broken }
}

async fn told(world: &Arc<World>, record: &Arc<Record>, tally: &Tally) -> Told {
    set_up(&world.admin()).await?;
    let end = base::time::instant() + LASTS;
    let storm = Storm { faults: faults::API, peace_most: PEACE, end };
    let storms = [(); 2].map(|()| base::task::spawn(storm.rage(world.clone(), tally.clone())));
    let mut lives: Vec<Task<()>> = Vec::new();
    for server in 0..SERVERS {
        for number in 0..PEOPLE {
            let person = Person::new(server * PEOPLE + number, world.admin_at(server), record.clone());
            lives.push(base::task::spawn(person.live(end)));
        }
        for _ in 0..WATCHERS {
            let watcher = Watcher::new(world.admin_at(server), record.clone());
            lives.push(base::task::spawn(watcher.live(end)));
        }
    }
    for life in lives.into_iter().chain(storms) {
        life.await;
    }
    for server in 0..SERVERS {
        present(world, record, server).await?;
    }
    all_adds_up(&world.admin()).await
}

/// Namespaces with their service accounts, and a quota that counts.
async fn set_up(admin: &Client) -> Told {
    for space in SPACES {
        let namespace = doc!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": space } });
        let namespaces = admin.resource(NAMESPACES);
        insist("make a namespace", || namespaces.create(namespace.clone())).await?;
        let accounts = admin.namespaced(SERVICE_ACCOUNTS, space);
        wait_for(accounts, "a service account", |all| !all.is_empty()).await?;
    }
    let quota = doc!({ "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "few" }, "spec": {
        "hard": { "pods": PODS_MOST, "requests.cpu": "400m" } } });
    let quotas = admin.namespaced(RESOURCE_QUOTAS, SPACES[0]);
    insist("make a quota", || quotas.create(quota.clone())).await?;
    wait_for(quotas, "the quota counts", |all| all.iter().any(|q| at(q, "status.hard").len() == 2)).await
}

/// Lists everything fresh from one server, which must answer now.
async fn present(world: &World, record: &Record, server: usize) -> Told {
    for gvr in [CONFIG_MAPS, LEASES, SERVICES, PODS] {
        let selection = Selection::new(&gvr, "", Pick::All);
        let client = world.admin_at(server);
        insist("list from a healed server", || list_fresh(&client, record, &selection)).await?;
    }
    Ok(())
}

/// The quota counts what there is, and the addresses that are taken are those that Services have.
async fn all_adds_up(admin: &Client) -> Told {
    let pods =
        admin.namespaced(PODS, SPACES[0]).list(Options::default()).await.map_err(|err| err.to_string())?;
    let count = pods.items.len().to_string();
    wait_for(admin.namespaced(RESOURCE_QUOTAS, SPACES[0]), "the quota counts the pods", |all| {
        all.iter().any(|q| at(q, "status.used").get("pods").str() == count)
    })
    .await?;
    let services = admin.resource(SERVICES).list(Options::default()).await.map_err(|err| err.to_string())?;
    let docs: Vec<Doc> = services.items.iter().map(|s| s.doc()).collect();
    let mut held: Vec<String> =
        docs.iter().map(|s| s.get(k::SPEC).get(k::CLUSTER_IP).str().to_owned()).collect();
    let addresses = admin.resource(IP_ADDRESSES).list(Options::default()).await;
    let mut taken: Vec<String> =
        addresses.map_err(|err| err.to_string())?.items.iter().map(|a| a.name().to_owned()).collect();
    held.sort();
    taken.sort();
    if held == taken { Ok(()) } else { Err(format!("Services have {held:?}, taken are {taken:?}")) }
}
