//! The node's process: containers, the kubelet, the pod network, Services and DNS.

pub mod network;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use apimachinery::call::Who;
use apimachinery::schema::views::core_v1::Node;
use client::reflector::{self, Selection};
use client::{Client, HttpsTransport, Kubeconfig, gvr};
use kubelet::Kubelet;
use kubelet::host::HostMachine;
use proxy::Proxy;
use proxy::model::Local;
use runtime::{Embedded, Options, Runtime as _};

use crate::cli::Cluster;
use crate::layout::Layout;
use crate::{server, status, steps};

/// The container engine's options: this program is its own shim.
pub fn runtime_options(layout: &Layout) -> Options {
    let registries = Some(crate::image::registries());
    Options { cgroup_root: layout.cgroups.clone(), registries, ..Options::default() }
}

/// Runs until asked to end, or until a part of it fails.
///
/// # Errors
/// Whatever ended it.
pub async fn run(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    base::select! {
        asked = server::ended(true) => asked,
        failed = work(layout, cluster) => failed,
    }
}

async fn work(layout: &Layout, cluster: &Cluster) -> anyhow::Result<()> {
    let start = base::time::instant();
    let engine = Embedded::open(layout.runtime(), layout.run.join("runtime"), runtime_options(layout))
        .await
        .context("open the container engine")?;
    steps::step(start, "containers", &layout.runtime().display().to_string());

    let door = Arc::new(network::Door::new(layout, cluster)?);
    let mut network_ready = door.ready();
    let machine = HostMachine { root_dir: layout.kubelet.clone(), cpu_milli: None, memory: None };
    crate::up::make_dir(&layout.kubelet, 0o750)?;
    let doors = kubelet::host::doors(Arc::new(engine.clone()), engine.images(), door, machine);
    let kubeconfig = Kubeconfig::load(&layout.kubeconfig("node")).context("read the node's kubeconfig")?;
    let transport = HttpsTransport::new(&kubeconfig)?;
    // Who calls, the connection shows.
    let client = Client::new(Arc::new(transport.clone()), Who::Anonymous);
    let kubelet = Kubelet::start(kubelet_config(layout, cluster)?, client.clone(), doors).await;
    let name = cluster.node();
    let tunnel = base::task::spawn({
        let (server, name) = (kubelet.server(), name.clone());
        async move { kubelet::server::tunnel::keep(transport, &name, server).await }
    });
    let kubelet = base::task::spawn(kubelet.run_pods());

    let rest = base::task::spawn({
        let (layout, cluster) = (layout.clone(), cluster.clone());
        async move {
            let ready = network_ready.wait_for(Option::is_some).await.context("the kubelet ended")?.clone();
            let ready = ready.context("waited for")?;
            serve(&layout, &cluster, ready, &client, start).await
        }
    });

    base::select! {
        () = kubelet => anyhow::bail!("the kubelet ended"),
        () = tunnel => anyhow::bail!("the tunnel to the API server ended"),
        failed = rest => failed,
    }
}

/// What pods need besides containers, once the node has its ranges: Services and names. Says when all is ready.
async fn serve(
    layout: &Layout,
    cluster: &Cluster,
    network: network::Ready,
    client: &Client,
    start: base::time::Instant,
) -> anyhow::Result<()> {
    let ranges: Vec<String> = network.pod_cidrs.iter().map(ToString::to_string).collect();
    steps::step(start, "pod network", &ranges.join(", "));
    let proxy = services(layout, cluster, &network)?;
    let mut applied = proxy.applied();
    let mut proxy = base::task::spawn(proxy.run());
    let dns = dns::Config {
        domain: cluster.cluster_domain.clone(),
        addresses: network.gateways,
        node: cluster.node(),
        resolv_conf: "/etc/resolv.conf".into(),
    };
    let (answering, answers) = tokio::sync::oneshot::channel();
    let dns = dns::run(status::connect(layout, "dns")?, dns, move || {
        // Nobody waits any more: the process is ending.
        answering.send(()).unwrap_or(())
    });
    let mut dns = base::task::spawn(dns);
    let ready = async {
        applied.wait_for(|n| *n > 0).await.context("the proxy ended")?;
        answers.await.context("the DNS ended")?;
        steps::step(start, "services", "addresses and names");
        node_ready(client, &cluster.node()).await;
        steps::step(start, "node", &format!("{} is Ready", cluster.node()));
        steps::ready();
        anyhow::Ok(())
    };
    base::select! {
        failed = &mut proxy => return failed.map(|never| match never {}).context("serve Services"),
        failed = &mut dns => return failed.context("serve DNS"),
        ready = ready => ready?,
    }
    base::select! {
        failed = proxy => failed.map(|never| match never {}).context("serve Services"),
        failed = dns => failed.context("serve DNS"),
    }
}

/// Until the API says that the node is Ready.
async fn node_ready(client: &Client, name: &str) {
    let selection = Selection { fields: format!("metadata.name={name}"), ..Selection::default() };
    let (nodes, _keep) = reflector::start(client.resource(gvr::NODES), selection, Vec::new());
    let ready = |doc: &apimachinery::Doc| {
        let conditions = Node(doc.root()).status().conditions();
        conditions.find(|c| c.type_() == "Ready").is_some_and(|c| c.status() == "True")
    };
    nodes.wait_until(|nodes| nodes.get("", name).is_some_and(|stored| ready(&stored.doc()))).await;
}

fn kubelet_config(layout: &Layout, cluster: &Cluster) -> anyhow::Result<kubelet::Config> {
    let mut config = kubelet::Config::new(&cluster.node());
    config.node_ips = vec![cluster.address()];
    config.root_dir.clone_from(&layout.kubelet);
    config.pod_logs_dir = layout.log.join("pods");
    config.container_logs_dir = layout.log.join("containers");
    config.cluster_dns = cluster.service_address(10)?;
    config.cluster_domain.clone_from(&cluster.cluster_domain);
    config.restart_wait_most = Duration::from_secs(cluster.max_container_restart_period);
    config.version = apiserver::version::GIT_VERSION.to_owned();
    Ok(config)
}

fn services(layout: &Layout, cluster: &Cluster, ready: &network::Ready) -> anyhow::Result<Proxy> {
    let client = status::connect(layout, "proxy")?;
    let local = Local { prefix: network::prefix(), pod_cidrs: ready.pod_cidrs.clone() };
    Ok(Proxy::new(&client, proxy::Config { node_name: cluster.node(), local, netns: None }))
}
