//! The control plane's process: the store, the API server, controllers, scheduler; in this order.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apimachinery::Call;
use apimachinery::call::{BoxFuture, Reply, Transport, User};
use apiserver::authentication::Authenticator;
use apiserver::authentication::service_account::ServiceAccounts;
use apiserver::authentication::x509::X509;
use apiserver::authorization::node::Node;
use apiserver::authorization::rbac::Rbac;
use apiserver::registry::allocate::Pools;
use apiserver::server::{Handler, Server, TlsFiles, server_config};
use apiserver::tokens::Tokens;
use apiserver::tunnel::Tunnels;
use apiserver::{Api, Cacher, Kinds, Lister, LocalTransport};
use bootstrap::kubeconfig;
use bootstrap::pki::{Identity, Pki};
use client::Client;
use controllers::manager::Named;
use controllers::{Manager, Settings};
use storage::Store;
use storage::disk::RealDisk;
use storage::{Engine, Options};
use tokio::net::TcpListener;

use crate::cli::Cluster;
use crate::layout::Layout;
use crate::{host, steps};

/// How long requests under way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// The issuer of service-account tokens, as upstream's default.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// Runs until asked to end, or until a part of it fails.
///
/// # Errors
/// Whatever ended it.
pub async fn run(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    let start = base::time::instant();
    let pki = Pki::open(&layout.pki()).context("open the cluster's keys")?;
    let tls = certificates(&pki, layout, cluster)?;
    steps::step(start, "certificates", &layout.pki().display().to_string());

    let disk = Arc::new(RealDisk::new(layout.store()));
    let engine = Arc::new(Engine::open(disk, Options::default()).await.context("open the store")?);
    steps::step(start, "store", &layout.store().display().to_string());

    let api = api(&pki, cluster, engine.clone()).await?;
    let listener = TcpListener::bind(cluster.bind_address)
        .await
        .with_context(|| format!("listen on {}", cluster.bind_address))?;
    let (end, drain) = tokio::sync::watch::channel(false);
    let server =
        base::task::spawn(Server::new(listener, tls, Arc::new(Serve(api.clone())), drain).run(DRAIN));

    let transport: Arc<dyn Transport> = Arc::new(LocalTransport::new(api.clone()));
    let settings = settings(&api, &pki, cluster)?;
    let roles = controllers::roles(controllers::ALL, &settings.kinds);
    let own = Client::component(transport.clone(), User::new("system:apiserver", &["system:masters"]));
    let dns = cluster.service_address(10)?.first().copied();
    bootstrap::objects::ensure(&own, roles, dns).await.context("make the cluster's own objects")?;
    steps::step(
        start,
        "API server",
        &format!("https://{}:{}", cluster.address(), cluster.bind_address.port()),
    );

    let manager = Manager::start(transport.clone(), settings, controllers::ALL);
    let scheduler = Client::component(transport, User::new("system:kube-scheduler", &[]));
    let scheduler = base::task::spawn(scheduler::run(scheduler, scheduler::Config::default()));
    steps::step(start, "controllers", &format!("{} controllers and the scheduler", controllers::ALL.len()));
    steps::ready();

    let ended: anyhow::Result<()> = base::select! {
        asked = ended() => asked,
        failed = server => failed.context("serve the API").and_then(|()| anyhow::bail!("the API server ended")),
        never = scheduler => match never {},
    };
    end.send_replace(true);
    drop(manager);
    engine.close().await;
    ended
}

/// Until SIGTERM, SIGINT, or the end of `up`.
pub async fn ended() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    // Ctrl-C reaches the whole foreground group; `up` decides what it means.
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        base::select! {
            _ = terminate.recv() => return Ok(()),
            gone = host::parent_gone() => return gone.context("watch for the end of `up`"),
            _ = interrupt.recv() => {}
        }
    }
}

struct Serve(Arc<Api>);

impl Handler for Serve {
    fn handle(&self, call: Call) -> BoxFuture<'_, Reply> {
        Box::pin(apiserver::handle(&self.0, call))
    }
}

/// All keys, certificates and kubeconfigs of this machine; made where missing or due.
fn certificates(pki: &Pki, layout: &Layout, cluster: &Cluster) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let domain = &cluster.cluster_domain;
    let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        .map(str::to_owned)
        .to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(cluster.node());
    let mut addresses = cluster.service_address(1)?;
    addresses.extend([cluster.address(), "127.0.0.1".parse()?, "::1".parse()?]);
    addresses.sort_unstable();
    addresses.dedup();
    pki.server(&names, &addresses)?;
    let node = format!("system:node:{}", cluster.node());
    let identities = [
        Identity { file: "admin", user: "kubernetes-admin", groups: &["system:masters"] },
        Identity { file: "node", user: &node, groups: &["system:nodes"] },
        Identity { file: "proxy", user: "system:kube-proxy", groups: &[] },
        Identity { file: "dns", user: "system:kube-dns", groups: &[] },
    ];
    let port = cluster.bind_address.port();
    for who in &identities {
        let pair = pki.client(who)?;
        // The machine's own components need no name or route; people may carry their file elsewhere.
        let address = if who.file == "admin" { cluster.address() } else { "127.0.0.1".parse()? };
        let server = format!("https://{}", std::net::SocketAddr::new(address, port));
        kubeconfig::write(&layout.kubeconfig(who.file), &server, pki.ca_certificate(), who.file, &pair)?;
    }
    let files = TlsFiles { certificate: pki.path("apiserver.crt"), key: pki.path("apiserver.key") };
    Ok(server_config(&files)?)
}

async fn api(pki: &Pki, cluster: &Cluster, store: Arc<dyn Store>) -> anyhow::Result<Arc<Api>> {
    let kinds = api::kinds();
    let cacher = Arc::new(Cacher::start(store.clone(), &kinds).await.context("read the store")?);
    let lister: Arc<dyn Lister> = cacher.clone();
    let tokens = Arc::new(Tokens::new(&pki.service_account_key()?, ISSUER)?);
    let accounts = Arc::new(ServiceAccounts::new(tokens.clone(), lister.clone()));
    let rbac = Arc::new(Rbac::new(lister.clone()));
    let tunnels = Tunnels::default();
    let url = format!("https://{}:{}", cluster.address(), cluster.bind_address.port());
    let x509: Box<dyn Authenticator> = Box::new(X509::new(pki.ca_certificate())?);
    Ok(Arc::new(Api {
        kinds: Kinds::new(kinds),
        store,
        cacher,
        authentication: vec![x509, Box::new(accounts.clone())],
        authorization: vec![Box::new(Node::new(lister.clone())), Box::new(rbac.clone())],
        admission: apiserver::admission::plugins(),
        audit: vec![Box::new(apiserver::filters::audit::Log)],
        flow: apiserver::filters::flow::Flow::default(),
        paths: apiserver::paths::handlers(tokens.clone(), tunnels.clone(), url),
        connect: apiserver::connect::connectors(tokens, accounts, rbac, tunnels),
        pools: Pools { service_ranges: cluster.service_ranges()?, ..Pools::default() },
    }))
}

fn settings(api: &Api, pki: &Pki, cluster: &Cluster) -> anyhow::Result<Settings> {
    let table = api.kinds.table();
    let stored = table.all().iter().filter(|kind| kind.class != api::Class::Virtual);
    let kinds = stored.map(|kind| {
        let gv = &kind.versions[kind.stored].gv;
        let gvr = apimachinery::Gvr {
            group: gv.group.clone(),
            version: gv.version.clone(),
            resource: kind.storage.resource.clone(),
        };
        Named { gvr, kind: kind.kind.to_string(), namespaced: kind.is_namespaced() }
    });
    Ok(Settings {
        root_ca: pki.ca_certificate().to_owned(),
        cluster_cidrs: cluster.cluster_cidr.clone(),
        api_addresses: vec![cluster.address()],
        api_port: cluster.bind_address.port(),
        service_ips: cluster.service_address(1)?,
        kinds: kinds.collect(),
    })
}
