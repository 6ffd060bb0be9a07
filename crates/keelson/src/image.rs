//! `keelson image …`: the images of this machine. They work whether the cluster runs or not.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Subcommand;
use runtime::{ImageStore as _, Store};

use crate::layout::Layout;

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
    /// Show the images.
    Ls,
    /// Remove images by name or id.
    Rm {
        /// Names or ids.
        #[arg(required = true)]
        images: Vec<String>,
    },
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
