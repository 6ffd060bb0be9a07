//! `keelson image …`: the images of this machine. They work whether the cluster runs or not.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use clap::Subcommand;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use runtime::{ImageStore as _, Registries, Store};

use crate::layout::Layout;
use crate::resolve;

/// What to do with images.
#[derive(Subcommand)]
pub enum Command {
    /// Take images in from an archive (OCI layout or `docker save`).
    Import {
        /// The archive: tar, perhaps compressed with gzip or zstd.
        archive: PathBuf,
        /// The name under which to keep the image, in place of those in the archive.
        #[arg(long)]
        name: Option<String>,
    },
    /// Pull images from their registries.
    Pull {
        /// Names, as pods would write them.
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Show the images.
    Ls,
    /// Remove images by name or id.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
}

/// The world's registries, their hosts found as this machine finds names.
pub fn registries() -> Registries {
    Registries::new(Arc::new(|host| Box::pin(resolve::addresses(host))))
}

/// A bar for each layer that comes.
#[derive(Clone, Default)]
struct Bars {
    all: MultiProgress,
    layers: Arc<Mutex<BTreeMap<String, ProgressBar>>>,
}

impl Bars {
    fn at(&self, layer: &str, done: u64, all: u64) {
        let mut layers = self.layers.lock().expect("nobody panics holding it");
        let bar = layers.entry(layer.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template("  {msg} {wide_bar} {bytes:>10} of {total_bytes}");
            let short = layer.trim_start_matches("sha256:").chars().take(12).collect::<String>();
            let bar = ProgressBar::new(all).with_style(style.expect("the template is valid"));
            self.all.add(bar.with_message(short))
        });
        bar.set_position(done);
    }

    fn clear(&self) {
        std::mem::take(&mut *self.layers.lock().expect("nobody panics holding it"));
        // A terminal that cannot be cleared shows the bars a little longer.
        drop(self.all.clear());
    }
}

/// Does it.
///
/// # Errors
/// Whatever the store has to say.
pub async fn run(layout: &Layout, command: Command) -> anyhow::Result<()> {
    let store = Store::open(layout.runtime().join("images")).context("open the image store")?;
    match command {
        Command::Import { archive, name } => {
            let images = store
                .import(&archive, name.as_deref())
                .await
                .with_context(|| format!("import {}", archive.display()))?;
            for image in images {
                for name in &image.repo_tags {
                    println!("imported {name}");
                }
            }
        }
        Command::Pull { images } => {
            let bars = Bars::default();
            let telling = bars.clone();
            let registries =
                registries().with_progress(Arc::new(move |layer, done, all| telling.at(layer, done, all)));
            let store = store.with_registries(registries);
            for name in images {
                let image = store.pull(&name, &[]).await;
                bars.clear();
                println!("pulled {}", image?.repo_tags.join(", "));
            }
        }
        Command::Ls => {
            println!("{:<56} {:<14} {:>10}", "NAME", "ID", "SIZE");
            for image in store.list().await? {
                let id = image.id.trim_start_matches("sha256:");
                let size = format!("{:.1} MB", image.size as f64 / 1e6);
                for name in &image.repo_tags {
                    println!("{name:<56} {:<14} {size:>10}", &id[..id.len().min(12)]);
                }
            }
        }
        Command::Rm { images } => {
            for name in images {
                store.remove(&name).await.with_context(|| format!("remove {name}"))?;
                println!("removed {name}");
            }
        }
    }
    Ok(())
}
