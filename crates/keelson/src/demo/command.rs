//! Where the demo runs: on this machine's cluster if one runs, else on one of its own, which it takes away.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use runtime::Store;

use crate::cli;
use crate::layout::Layout;
use crate::{down, status, steps, up};

/// Runs the demo.
///
/// # Errors
/// When a step does not show what it must, or the cluster does not start or go.
pub async fn run(layout: &Layout, cluster: &cli::Cluster) -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("containers and networks need root: run `sudo keelson demo`");
    }
    if up::running(layout)?.is_some() {
        println!("On the running cluster:\n");
        return super::run(on(layout, cluster)?).await;
    }
    // A cluster of its own, beside whatever data there is.
    let own = Layout {
        data: "/var/lib/keelson-demo".into(),
        run: "/run/keelson-demo".into(),
        kubelet: "/var/lib/keelson-demo/kubelet".into(),
        log: "/var/lib/keelson-demo/log".into(),
        cgroups: "/keelson-demo".into(),
    };
    refuse_beside(layout)?;
    clear(&own).await.context("take away what an earlier demo has left")?;
    println!("keelson {}: a cluster for this demo\n", apiserver::version::GIT_VERSION);
    let began = base::time::instant();
    let started = up::Running::start(&own, cluster, true).await;
    let (told, ended) = match started {
        Ok(mut running) => {
            steps::show("cluster", "ready", began.elapsed());
            println!();
            let told = match on(&own, cluster) {
                Ok(cluster) => super::run(cluster).await,
                Err(err) => Err(err),
            };
            println!("\nTaking the cluster away:\n");
            (told, running.end().await.context("end the cluster"))
        }
        // What has been made so far goes too.
        Err(err) => (Err(err), Ok(())),
    };
    let gone = down::take_away(&own, true).await.context("take the cluster away");
    told.and(ended)
        .and(gone)
        .with_context(|| format!("with its own cluster (logs in {})", own.log.display()))?;
    std::fs::remove_dir_all(&own.data).with_context(|| format!("remove {}", own.data.display()))
}

/// Two clusters on one machine would have the same interfaces and rules, and pods go on without their `up`.
fn refuse_beside(layout: &Layout) -> anyhow::Result<()> {
    let mut left = match std::fs::read_dir(layout.run.join("runtime")) {
        Ok(entries) => entries,
        Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(err).context("look for pods of this machine's cluster"),
    };
    if left.next().is_some() {
        bail!(
            "pods of this machine's cluster still run: start it again (`keelson up`) and the demo uses it, \
             or end them (`keelson down`)"
        );
    }
    Ok(())
}

/// A demo that was killed could not clean up.
async fn clear(own: &Layout) -> anyhow::Result<()> {
    if let Some(pid) = up::running(own)? {
        bail!("another demo runs already (process {pid})");
    }
    if !own.data.exists() {
        return Ok(());
    }
    down::take_away(own, false).await?;
    std::fs::remove_dir_all(&own.data).with_context(|| format!("remove {}", own.data.display()))
}

fn on(layout: &Layout, cluster: &cli::Cluster) -> anyhow::Result<super::Cluster> {
    Ok(super::Cluster {
        client: status::admin(layout)?,
        images: Arc::new(Store::open(layout.runtime().join("images"))?),
        exe: std::env::current_exe().context("find this program")?,
        node_address: cluster.address(),
    })
}
