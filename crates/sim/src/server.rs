//! One life of a server's process: cache, API, the cluster's own objects, over a store that may live elsewhere.

use std::sync::Arc;

use apimachinery::Gvr;
use apimachinery::call::{Transport, User};
use apiserver::authentication::service_account::ServiceAccounts;
use apiserver::authorization::node::Node;
use apiserver::authorization::rbac::Rbac;
use apiserver::filters::flow::Flow;
use apiserver::registry::allocate::Pools;
use apiserver::tokens::Tokens;
use apiserver::tunnel::Tunnels;
use apiserver::{Api, Cacher, Kinds, Lister, LocalTransport};
use base::task::Task;
use bytes::Bytes;
use client::Client;
use controllers::Settings;
use controllers::manager::Named;
use storage::sim::SimDisk;
use storage::{Engine, Options, Store};

use crate::history::{History, Witness};

/// A key for service-account tokens that guards nothing.
const TOKEN_KEY: &str = "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgcvVXHKDQ7T/fjdrR
JVZof0mj1jG2Q53QvMXTiAU1Y0KhRANCAAQZF5xjR+FE5HwI32Hw5Jng/t7LWlaP
KQedyMoBRNNdxu91gKxAXCNeYKk3e1gjfTUoHOMiy8cBRepH7uZuvRf1
-----END PRIVATE KEY-----
";

/// Where clients outside would reach it.
const URL: &str = "https://192.0.2.100:6443";

/// All kinds that controllers look after.
pub fn kinds() -> Vec<Named> {
    let all = api::kinds();
    let stored = all.iter().filter(|kind| kind.class != api::Class::Virtual);
    let named = stored.map(|kind| {
        let gv = &kind.storage_version().gv;
        let gvr = Gvr {
            group: gv.group.clone(),
            version: gv.version.clone(),
            resource: kind.storage.resource.clone(),
        };
        Named { gvr, kind: kind.kind.to_string(), namespaced: kind.is_namespaced() }
    });
    named.collect()
}

/// What the controllers are told.
pub fn settings() -> Settings {
    Settings {
        root_ca: "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n".into(),
        cluster_cidrs: vec!["10.244.0.0/16".into()],
        service_cidrs: vec!["10.96.0.0/16".into()],
        api_addresses: vec![[192, 0, 2, 100].into()],
        api_port: 6443,
        service_ips: vec![[10, 96, 0, 1].into()],
        kinds: kinds(),
    }
}

/// Opens the store on `disk` as it is, and has all that it shows noted for as long as the task lives.
///
/// # Errors
/// The store's.
pub async fn open(disk: SimDisk, history: Arc<History>) -> storage::Result<(Arc<dyn Store>, Task<()>)> {
    let options = Options { segment_bytes: 512 << 10, ..Options::default() };
    let engine: Arc<dyn Store> = Arc::new(Engine::open(Arc::new(disk), options).await?);
    let from = history.begin(&*engine).await?;
    let watch = engine.watch(Bytes::new(), from).await?;
    let follow = base::task::spawn(history.clone().follow(watch));
    Ok((Arc::new(Witness { store: engine, history }), follow))
}

/// Serves a store.
///
/// # Errors
/// What kept it from coming up, in words.
pub async fn start(store: Arc<dyn Store>) -> anyhow::Result<LocalTransport> {
    let all = api::kinds();
    let cacher = Arc::new(Cacher::start(store.clone(), &all).await?);
    let lister: Arc<dyn Lister> = cacher.clone();
    let tokens = Arc::new(Tokens::new(TOKEN_KEY, "https://kubernetes.default.svc.cluster.local")?);
    let accounts = Arc::new(ServiceAccounts::new(tokens.clone(), lister.clone()));
    let rbac = Arc::new(Rbac::new(lister.clone()));
    let tunnels = Tunnels::default();
    let api = LocalTransport::new(Arc::new(Api {
        kinds: Kinds::new(all),
        store,
        cacher,
        authentication: Vec::new(),
        authorization: vec![Box::new(Node::new(lister)), Box::new(rbac.clone())],
        admission: apiserver::admission::plugins(),
        audit: Vec::new(),
        metrics: Default::default(),
        flow: Flow::default(),
        paths: apiserver::paths::handlers(tokens.clone(), tunnels.clone(), URL.to_owned()),
        connect: apiserver::connect::connectors(tokens, accounts, rbac, tunnels),
        pools: Pools::default(),
    }));
    let transport: Arc<dyn Transport> = Arc::new(api.clone());
    let own = Client::component(transport, User::new("system:apiserver", &["system:masters"]));
    let roles = controllers::roles(controllers::ALL, &kinds());
    bootstrap::objects::ensure(&own, roles, None).await?;
    Ok(api)
}
