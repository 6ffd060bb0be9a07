//! `keelson status`: what runs here, and how it is.

use std::fs;
use std::sync::Arc;

use anyhow::Context as _;
use apimachinery::call::{Options, Who};
use apimachinery::schema::views::core_v1::{Node, Pod};
use client::{Client, HttpsTransport, Kubeconfig, gvr};

use crate::layout::Layout;
use crate::up;

/// Shows it.
///
/// # Errors
/// When the cluster runs and does not answer.
pub async fn status(layout: &Layout) -> anyhow::Result<()> {
    match up::running(layout)? {
        Some(pid) => println!("cluster        running (process {pid})"),
        None => {
            println!("cluster        not running; `keelson up` starts it");
            return certificates(layout);
        }
    }
    let client = admin(layout)?;
    let ready = client.get_path("/readyz").await.is_ok();
    println!("API server     {}", if ready { "ready" } else { "not ready" });
    for stored in client.resource(gvr::NODES).list(Options::default()).await?.items {
        let doc = stored.doc();
        let node = Node(doc.root());
        let ready =
            node.status().conditions().find(|c| c.type_() == "Ready").map_or("Unknown", |c| c.status());
        let version = node.status().node_info().kubelet_version();
        println!(
            "node           {:<24} {:<10} {version}",
            stored.name(),
            if ready == "True" { "Ready" } else { "NotReady" }
        );
    }
    let pods = client.resource(gvr::PODS).list(Options::default()).await?.items;
    let mut phases: std::collections::BTreeMap<String, usize> = std::collections::BTreeMap::new();
    for stored in &pods {
        *phases.entry(Pod(stored.doc().root()).status().phase().to_owned()).or_default() += 1;
    }
    let phases: Vec<String> = phases.iter().map(|(phase, n)| format!("{n} {phase}")).collect();
    println!("pods           {}", if phases.is_empty() { "none".to_owned() } else { phases.join(", ") });
    certificates(layout)?;
    println!("kubeconfig     {}", layout.admin_kubeconfig().display());
    Ok(())
}

/// A client with the administrator's kubeconfig.
///
/// # Errors
/// When the file is missing or makes no sense.
pub fn admin(layout: &Layout) -> anyhow::Result<Client> {
    connect(layout, "admin")
}

/// A client with the kubeconfig of a user or component.
///
/// # Errors
/// When the file is missing or makes no sense.
pub fn connect(layout: &Layout, who: &str) -> anyhow::Result<Client> {
    let config =
        Kubeconfig::load(&layout.kubeconfig(who)).with_context(|| format!("read the {who} kubeconfig"))?;
    // Who calls, the connection shows.
    Ok(Client::new(Arc::new(HttpsTransport::new(&config)?), Who::Anonymous))
}

fn certificates(layout: &Layout) -> anyhow::Result<()> {
    let Ok(files) = fs::read_dir(layout.pki()) else { return Ok(()) };
    let mut all: Vec<_> =
        files.flatten().map(|f| f.path()).filter(|p| p.extension().is_some_and(|e| e == "crt")).collect();
    all.sort();
    for path in all {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let until = bootstrap::pki::not_after(&text).map_or("unreadable".to_owned(), |t| {
            let days = (t.as_second() - base::time::now().as_second()) / 86_400;
            format!("{days} days left")
        });
        println!("certificate    {name:<24} {until}");
    }
    Ok(())
}
