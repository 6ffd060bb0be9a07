//! What Linux is asked for: cgroups, mounts, capabilities, system call filters, users.
//!
//! Each file does one thing to the calling process or to a path; none of them knows the shim, its protocol, or
//! images. Upstream: runc's libcontainer.

pub mod caps;
pub mod cgroups;
pub mod cgroups_v1;
pub mod cgroups_v2;
pub mod descriptors;
pub mod mounts;
pub mod namespaces;
pub mod process;
pub mod rootfs;
pub mod seccomp;
pub mod seccomp_profile;
pub mod terminal;
pub mod user;

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

use crate::Error;

/// Writes a file so that readers see the old text or the new, never a part. `durable`: it also outlives a power
/// cut once this has returned.
///
/// # Errors
/// When the file or its directory cannot be written.
pub fn write_atomically(path: &Path, bytes: &[u8], durable: bool) -> Result<(), Error> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(bytes)?;
        if durable {
            file.sync_all()?;
        }
        fs::rename(&new, path)?;
        match path.parent() {
            Some(dir) if durable => File::open(dir)?.sync_all(),
            _ => Ok(()),
        }
    };
    write().map_err(Error::io(format!("write {}", path.display())))
}
