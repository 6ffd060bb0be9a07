//! The control plane's process: the store, the API server, controllers, scheduler; in this order.

use std::path::PathBuf;
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
use client::leader::{self, Candidate};
use controllers::manager::Named;
use controllers::{Manager, Settings};
use storage::disk::RealDisk;
use storage::{Engine, Options, Store, StoreError};
use storage_etcd::Etcd;
use tokio::net::TcpListener;

use crate::cli::{Cluster, Serving};
use crate::layout::Layout;
use crate::{host, peers, steps};

/// How long requests under way may take after the end was asked for.
const DRAIN: Duration = Duration::from_secs(5);
/// The issuer of service-account tokens, as upstream's default.
const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";
/// The Lease, in `kube-system`, of who runs controllers and scheduler.
const LEASE: &str = "kube-controller-manager";

/// Runs until asked to end, or until a part of it fails; `whole` with controllers and scheduler.
///
/// # Errors
/// Whatever ended it.
pub async fn run(layout: &Layout, serving: &Serving, whole: bool) -> anyhow::Result<()> {
    let cluster = &serving.cluster;
    let start = base::time::instant();
    let told = |name: &str, what: &str| match serving.child {
        true => steps::step(start, name, what),
        false => steps::show(name, what, start.elapsed()),
    };
    let pki = Pki::open(&layout.pki()).with_context(|| {
        format!("open the cluster's keys in {} (--data-dir says where)", layout.pki().display())
    })?;
    let trust = Trust::read(&pki, serving)?;
    let tls = certificates(&pki, layout, serving, &trust)?;
    told("certificates", &layout.pki().display().to_string());

    let (kept, place) = Kept::open(layout, cluster).await?;
    told("store", &place);

    let api = api(&pki, &trust, cluster, kept.store()).await?;
    let listener = TcpListener::bind(cluster.bind_address).await.with_context(|| {
        format!("listen on {}: end what listens there, or choose with --bind-address", cluster.bind_address)
    })?;
    let (end, drain) = tokio::sync::watch::channel(false);
    let mut server =
        base::task::spawn(Server::new(listener, tls, Arc::new(Serve(api.clone())), drain).run(DRAIN));

    let transport: Arc<dyn Transport> = Arc::new(LocalTransport::new(api.clone()));
    let settings = settings(&api, &trust, cluster)?;
    let roles = controllers::roles(controllers::ALL, &settings.kinds);
    let own = Client::component(transport.clone(), User::new("system:apiserver", &["system:masters"]));
    let dns = cluster.service_address(10)?.first().copied();
    bootstrap::objects::ensure(&own, roles, dns).await.context("make the cluster's own objects")?;
    told("API server", &url(cluster));

    let identity = format!("{}_{}", cluster.node(), base::rand::uuid());
    let mut candidate = Candidate::new(&own, "kube-system", LEASE, &identity);
    if whole && kept.etcd().is_none() {
        leader::announce(&own, "kube-system", LEASE, &cluster.node()).await.context("tell who leads")?;
    }
    let mut work = base::task::spawn(work(kept.etcd(), transport, settings, whole, candidate.clone()));
    if whole {
        told("controllers", &format!("{} controllers and the scheduler", controllers::ALL.len()));
    }
    match serving.child {
        true => steps::ready(),
        false => println!(
            "\nReady in {} ms.\n\n  export KUBECONFIG={}",
            start.elapsed().as_millis(),
            layout.admin_kubeconfig().display()
        ),
    }

    let ended: anyhow::Result<()> = base::select! {
        asked = ended(serving.child) => asked,
        failed = &mut server => failed.context("serve the API").and_then(|()| anyhow::bail!("the API server ended")),
        never = &mut work => match never {},
    };
    drop(work);
    if kept.etcd().is_some() {
        candidate.release().await;
        peers::leave(&*kept.store(), cluster.address()).await;
    }
    end.send_replace(true);
    if ended.is_ok() {
        server.await.context("end the API server")?;
    }
    kept.close().await;
    ended
}

/// What the control plane does besides serving.
async fn work(
    etcd: Option<Arc<dyn Store>>,
    transport: Arc<dyn Transport>,
    settings: Settings,
    whole: bool,
    mut candidate: Candidate,
) -> std::convert::Infallible {
    let Some(store) = etcd else {
        let controllers = if whole { controllers::ALL } else { controllers::EACH_SERVER };
        let _manager = Manager::start(transport.clone(), settings, controllers);
        if whole {
            scheduler::run(peers::scheduler_client(transport), scheduler::Config::default()).await;
        }
        return std::future::pending().await;
    };
    let _endpoints = base::task::spawn(peers::endpoints(store, transport.clone(), settings.clone()));
    if whole {
        loop {
            peers::lead(&mut candidate, transport.clone(), settings.clone()).await;
        }
    }
    std::future::pending().await
}

/// Where the state is.
enum Kept {
    Here(Arc<Engine>),
    Etcd(Arc<Etcd>),
}

impl Kept {
    /// Opens it; says where it is.
    async fn open(layout: &Layout, cluster: &Cluster) -> anyhow::Result<(Kept, String)> {
        let flags = &cluster.etcd;
        if flags.etcd_servers.is_empty() {
            let place = layout.store().display().to_string();
            let disk = Arc::new(RealDisk::new(layout.store()));
            let engine = Engine::open(disk, Options::default()).await;
            let hint = match &engine {
                Err(StoreError::Locked { .. }) => ": end that process, or choose another --data-dir",
                _ => "",
            };
            let engine = engine.with_context(|| format!("open the store in {place}{hint}"))?;
            return Ok((Kept::Here(Arc::new(engine)), place));
        }
        let config = storage_etcd::Config {
            endpoints: flags.etcd_servers.clone(),
            ca: flags.etcd_cafile.clone(),
            certificate: flags.etcd_certfile.clone(),
            key: flags.etcd_keyfile.clone(),
        };
        let place = flags.etcd_servers.join(", ");
        let etcd = Etcd::open(&config).await.with_context(|| format!("open the store in etcd at {place}"))?;
        Ok((Kept::Etcd(etcd), place))
    }

    fn store(&self) -> Arc<dyn Store> {
        match self {
            Kept::Here(engine) => engine.clone(),
            Kept::Etcd(etcd) => etcd.clone(),
        }
    }

    /// The store, if other servers may share it.
    fn etcd(&self) -> Option<Arc<dyn Store>> {
        matches!(self, Kept::Etcd(_)).then(|| self.store())
    }

    async fn close(&self) {
        if let Kept::Here(engine) = self {
            engine.close().await;
        }
    }
}

/// Whom servers and clients of this cluster believe.
struct Trust {
    /// For clients: what signed the API server's certificate, or that certificate itself.
    servers: String,
    /// For the API server: the authorities of client certificates.
    clients: String,
    /// What the listener shows.
    files: TlsFiles,
}

impl Trust {
    fn read(pki: &Pki, serving: &Serving) -> anyhow::Result<Trust> {
        let with_own = |file: &Option<PathBuf>| -> anyhow::Result<String> {
            let own = pki.ca_certificate();
            let Some(file) = file else { return Ok(own.to_owned()) };
            let more = std::fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
            Ok(format!("{}\n{more}", own.trim_end()))
        };
        let files = match (&serving.tls_cert_file, &serving.tls_private_key_file) {
            (Some(certificate), Some(key)) => TlsFiles { certificate: certificate.clone(), key: key.clone() },
            _ => TlsFiles { certificate: pki.path("apiserver.crt"), key: pki.path("apiserver.key") },
        };
        Ok(Trust {
            servers: with_own(&serving.tls_cert_file)?,
            clients: with_own(&serving.client_ca_file)?,
            files,
        })
    }
}

/// Until SIGTERM; for a child of `up` also until the end of `up`, for others until SIGINT.
pub async fn ended(child: bool) -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    // Ctrl-C reaches the whole foreground group; above a child, `up` decides what it means.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let parent_gone = async {
        match child {
            true => host::parent_gone().await,
            false => std::future::pending().await,
        }
    };
    let mut parent_gone = std::pin::pin!(parent_gone);
    loop {
        base::select! {
            _ = terminate.recv() => return Ok(()),
            gone = &mut parent_gone => return gone.context("watch for the end of `up`"),
            _ = interrupt.recv() => if !child { return Ok(()) },
        }
    }
}

struct Serve(Arc<Api>);

impl Handler for Serve {
    fn handle(&self, call: Box<Call>) -> BoxFuture<'_, Reply> {
        Box::pin(apiserver::handle(&self.0, call))
    }
}

/// All keys, certificates and kubeconfigs of this machine; made where missing or due.
fn certificates(
    pki: &Pki,
    layout: &Layout,
    serving: &Serving,
    trust: &Trust,
) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let cluster = &serving.cluster;
    let domain = &cluster.cluster_domain;
    let mut names: Vec<String> = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "localhost"]
        .map(str::to_owned)
        .to_vec();
    names.push(format!("kubernetes.default.svc.{domain}"));
    names.push(cluster.node());
    let mut addresses = cluster.service_address(1)?;
    addresses.extend([cluster.address(), cluster.api_address(), "127.0.0.1".parse()?, "::1".parse()?]);
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
        let local = who.file != "admin" && cluster.bind_address.ip().is_unspecified();
        let address = if local { "127.0.0.1".parse()? } else { cluster.api_address() };
        let server = format!("https://{}", std::net::SocketAddr::new(address, port));
        kubeconfig::write(&layout.kubeconfig(who.file), &server, &trust.servers, who.file, &pair)?;
    }
    server_config(&trust.files).with_context(|| format!("serve with {}", trust.files.certificate.display()))
}

/// Where clients reach the API server.
fn url(cluster: &Cluster) -> String {
    format!("https://{}", std::net::SocketAddr::new(cluster.api_address(), cluster.bind_address.port()))
}

async fn api(pki: &Pki, trust: &Trust, cluster: &Cluster, store: Arc<dyn Store>) -> anyhow::Result<Arc<Api>> {
    let kinds = api::kinds();
    let cacher = Arc::new(Cacher::start(store.clone(), &kinds).await.context("read the store")?);
    let lister: Arc<dyn Lister> = cacher.clone();
    let tokens = Arc::new(Tokens::new(&pki.service_account_key()?, ISSUER)?);
    let accounts = Arc::new(ServiceAccounts::new(tokens.clone(), lister.clone()));
    let rbac = Arc::new(Rbac::new(lister.clone()));
    let tunnels = Tunnels::default();
    let x509: Box<dyn Authenticator> = Box::new(X509::new(&trust.clients).context("read --client-ca-file")?);
    Ok(Arc::new(Api {
        kinds: Kinds::new(kinds),
        store,
        cacher,
        authentication: vec![x509, Box::new(accounts.clone())],
        authorization: vec![Box::new(Node::new(lister.clone())), Box::new(rbac.clone())],
        admission: apiserver::admission::plugins(),
        audit: vec![Box::new(apiserver::filters::audit::Log)],
        metrics: Default::default(),
        flow: apiserver::filters::flow::Flow::default(),
        paths: apiserver::paths::handlers(tokens.clone(), tunnels.clone(), url(cluster)),
        connect: apiserver::connect::connectors(tokens, accounts, rbac, tunnels),
        pools: Pools { service_ranges: cluster.service_ranges()?, ..Pools::default() },
    }))
}

fn settings(api: &Api, trust: &Trust, cluster: &Cluster) -> anyhow::Result<Settings> {
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
        root_ca: trust.servers.clone(),
        cluster_cidrs: cluster.cluster_cidr.clone(),
        service_cidrs: cluster.service_cidr.clone(),
        api_addresses: vec![cluster.address()],
        api_port: cluster.bind_address.port(),
        service_ips: cluster.service_address(1)?,
        kinds: kinds.collect(),
    })
}
