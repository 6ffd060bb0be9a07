//! Two API servers over one etcd, each killed in turn: what one acknowledged the other reads at once, watches of both
//! see changes in order and agree on them, and nothing acknowledged is lost.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::call::{Options, Stored, WatchEvent};
use apimachinery::{doc, k};
use client::Resource;
use futures_util::StreamExt as _;

use crate::servers::{Server, etcd, run, share_keys};

/// How many writes through one server must come between two kills.
const WRITES: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(180);

/// Counts up in one ConfigMap through `own` for ever; reads every acknowledged value through `other`, if it is there.
async fn write(
    own: Resource,
    other: Resource,
    name: &'static str,
    told: base::watch::Sender<Vec<(u64, u64)>>,
) {
    let map = |n: u64| doc!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "n": n.to_string() } });
    let mut n = 0;
    loop {
        n += 1;
        let written = match n {
            1 => own.create(map(n)).await,
            _ => own.update(map(n)).await,
        };
        match written {
            Ok(written) => {
                let mut all = told.get();
                all.push((n, written.revision));
                told.send(all);
                if let Ok(read) = other.get(name).await {
                    assert!(
                        read.revision >= written.revision,
                        "{name}: {n} is not seen through the other server"
                    );
                }
            }
            // The server was killed; whether it has written n shows later.
            Err(error) => {
                assert!(!error.is_conflict() && !error.is_invalid(), "{error}");
                base::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

type Seen = Arc<Mutex<Vec<(String, u64, u64)>>>;

fn note(seen: &Seen, object: &Stored) {
    if let Ok(n) = object.doc().get(k::DATA).get("n").str().parse() {
        seen.lock().unwrap().push((object.name().to_string(), n, object.revision));
    }
}

/// Every change as (name, n, revision), resumed where it broke off. What came while its server was down, that server
/// does not tell of; then it is listed.
async fn watch(maps: Resource, from: u64, seen: Seen) {
    let mut at = from;
    loop {
        let options = Options { resource_version: Some(at.to_string()), ..Options::default() };
        let mut expired = false;
        match maps.watch(options).await {
            Ok(mut events) => {
                while let Some(event) = events.next().await {
                    match event {
                        Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                            assert!(object.revision > at, "{} after {at}", object.revision);
                            at = object.revision;
                            note(&seen, &object);
                        }
                        Ok(other) => panic!("nothing was deleted: {other:?}"),
                        // Too old a revision, or the server was killed.
                        Err(error) => expired = error.is_expired(),
                    }
                }
            }
            Err(error) => expired = error.is_expired(),
        }
        if expired && let Ok(list) = maps.list(Options::default()).await {
            assert!(list.revision >= at, "{} after {at}", list.revision);
            list.items.iter().filter(|item| item.revision > at).for_each(|item| note(&seen, item));
            at = list.revision;
        }
        base::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn more(told: &mut base::watch::Receiver<Vec<(u64, u64)>>) {
    let enough = told.get().len() + WRITES as usize;
    let wait = told.wait_for(|all| all.len() >= enough);
    base::time::timeout(PATIENCE, wait).await.expect("writes go on").unwrap();
}

#[test]
fn servers_over_one_etcd_are_killed_in_turn() {
    let dir = tempfile::tempdir().unwrap();
    let Some((_etcd, url)) = etcd(dir.path()) else { return };
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let first = Server::start("apiserver", &a, &["--etcd-servers", &url]);
    share_keys(&a, &b);
    let second = Server::start("apiserver", &b, &["--etcd-servers", &url]);
    let mut servers = [first, second];
    run(async {
        let maps = [servers[0].config_maps(), servers[1].config_maps()];
        let from = maps[0].list(Options::default()).await.unwrap().revision;
        let seen: [Seen; 2] = Default::default();
        let watches = [0, 1].map(|i| base::task::spawn(watch(maps[i].clone(), from, seen[i].clone())));
        let names = ["through-first", "through-second"];
        let (mut told, mut writers) = (Vec::new(), Vec::new());
        for i in 0..2 {
            let (tell, hear) = base::watch::channel(Vec::new());
            told.push(hear);
            writers.push(base::task::spawn(write(maps[i].clone(), maps[1 - i].clone(), names[i], tell)));
        }
        for i in [0, 1, 0, 1] {
            more(&mut told[i]).await;
            servers[i].process.kill();
            more(&mut told[1 - i]).await;
            servers[i].start_again();
            more(&mut told[i]).await;
        }
        drop(writers);
        let last = maps[0].list(Options::default()).await.unwrap();
        let end: BTreeMap<_, _> =
            last.items.iter().map(|item| (item.name().to_string(), item.revision)).collect();
        let newest = names.iter().map(|name| end[*name]).max().unwrap();
        for (seen, name) in seen.iter().zip(["first", "second"]) {
            let caught_up = async {
                while seen.lock().unwrap().iter().all(|(.., revision)| *revision < newest) {
                    base::task::yield_now().await;
                }
            };
            base::time::timeout(PATIENCE, caught_up)
                .await
                .unwrap_or_else(|_| panic!("the {name} watch goes on"));
        }
        drop(watches);
        // One of the two was always there to tell.
        let mut all = BTreeMap::new();
        for (name, n, revision) in seen.iter().flat_map(|seen| seen.lock().unwrap().clone()) {
            let before = all.insert(revision, (name.clone(), n));
            assert!(before.is_none_or(|before| before == (name, n)), "revision {revision} has two contents");
        }
        for (name, told) in names.iter().zip(&told) {
            for (n, revision) in told.get() {
                let found = all.get(&revision);
                assert_eq!(found, Some(&(name.to_string(), n)), "acknowledged at {revision}");
            }
        }
    });
}
