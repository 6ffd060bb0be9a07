//! `keelson demo`: the seeds' story told by a real cluster, with stock objects over the API, and what runs inside its
//! containers.
//!
//! It knows the API as any client does and nothing of how the cluster works; it starts none (the command does).

pub mod app;
pub mod command;
mod http;
mod image;
mod say;
mod seen;
mod story;
mod traffic;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use client::{Client, gvr};

pub use image::write_image;

use say::Say;
use seen::Seen;

/// The namespace of the seeds.
pub const NAMESPACE: &str = "myspace";
/// The name that the seeds' manifests have for the image.
pub const IMAGE: &str = "wardviaene/k8s-demo";

/// The cluster that the demo runs on.
pub struct Cluster {
    /// A client that may do everything in the demo's namespace, and make and delete that.
    pub client: Client,
    /// The node's images.
    pub images: Arc<dyn runtime::ImageStore>,
    /// A static build of this program.
    pub exe: PathBuf,
    /// An address of the node, for its node ports.
    pub node_address: IpAddr,
}

/// Tells the story, printing each step, and cleans up whatever happened.
///
/// # Errors
/// When a step does not show what it must, after what was seen last has been printed.
pub async fn run(cluster: Cluster) -> anyhow::Result<()> {
    match cluster.client.resource(gvr::NAMESPACES).get(NAMESPACE).await {
        Err(err) if err.is_not_found() => {}
        Err(err) => return Err(err).context("ask whether the demo's namespace is free"),
        Ok(_) => bail!(
            "there is a namespace {NAMESPACE} already, which the demo would delete in the end: \
             delete it first (kubectl delete namespace {NAMESPACE})"
        ),
    }
    let seen = Seen::start(&cluster.client).await?;
    let mut say = Say::new();
    let interrupted = tokio::signal::ctrl_c();
    let told = base::select! {
        told = story::tell(&cluster, &seen, &mut say) => told,
        _ = interrupted => Err(anyhow::anyhow!("interrupted")),
    };
    if let Err(err) = &told {
        say.failed();
        say.list("failed:", &[format!("{err:#}")]);
        say.list("what there was:", &seen.state());
        say.list("what had happened:", &seen.story());
    }
    let cleaned = story::clean_up(&cluster, &seen, &mut say).await;
    if cleaned.is_err() {
        say.failed();
        say.list("what is left:", &seen.state());
    }
    match told {
        Ok(()) => cleaned.context("clean up"),
        Err(_) => bail!("the demo did not come to its end"),
    }
}
