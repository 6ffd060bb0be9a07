//! What the engine refuses before it makes anything: what makes no sense, and what is not built.

use std::path::{Component, Path};

use crate::linux::{caps, namespaces};
use crate::{ContainerConfig, Error, NamespaceMode, PodSandboxConfig, Result};

/// The kernel's limit.
const HOSTNAME_BYTES_MAX: usize = 64;

/// Checks a sandbox's configuration.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`], with the member.
pub fn sandbox(config: &PodSandboxConfig) -> Result<()> {
    let options = &config.linux.namespace_options;
    if options.network == NamespaceMode::Container {
        return invalid("linux.namespace_options.network", "a container cannot have its own");
    }
    if options.ipc == NamespaceMode::Container {
        return unsupported("linux.namespace_options.ipc", "CONTAINER");
    }
    if config.hostname.len() > HOSTNAME_BYTES_MAX || config.hostname.contains(['/', '\0', '\n']) {
        return invalid("hostname", "longer than 64 bytes, or not a name");
    }
    if !config.log_directory.is_absolute() {
        return invalid("log_directory", "must be absolute");
    }
    let group = &config.linux.cgroup_parent;
    if group.trim_matches('/').is_empty() || !plain(Path::new(group)) {
        return invalid("linux.cgroup_parent", "must name a group of the pod's own");
    }
    for name in config.linux.sysctls.keys() {
        if !namespaces::sysctl_is_namespaced(name, &config.linux) {
            return invalid("linux.sysctls", &format!("{name} is not in a namespace of the pod's own"));
        }
    }
    Ok(())
}

/// Checks a container's configuration.
///
/// # Errors
/// [`Error::Invalid`] or [`Error::Unsupported`], with the member.
pub fn container(config: &ContainerConfig) -> Result<()> {
    if config.log_path.is_absolute() || !plain(&config.log_path) {
        return invalid("log_path", "must stay below the sandbox's log directory");
    }
    for mount in &config.mounts {
        if mount.sub_path.is_absolute() || !plain(&mount.sub_path) {
            return invalid("mounts.sub_path", "must be relative, without ..");
        }
        if !mount.container_path.is_absolute() || !plain(&mount.container_path) {
            return invalid("mounts.container_path", "must be absolute, without ..");
        }
        if mount.container_path.parent().is_none() {
            return invalid("mounts.container_path", "must not be the root");
        }
        if mount.container_path.starts_with("/proc") {
            // What hides and protects parts of it could be walked around.
            return invalid("mounts.container_path", "must not be in /proc");
        }
        if !mount.host_path.is_absolute() {
            return invalid("mounts.host_path", "must be absolute");
        }
    }
    let context = &config.linux.security_context;
    if context.run_as_user.is_some() && !context.run_as_username.is_empty() {
        return invalid("security_context.run_as_username", "not together with run_as_user");
    }
    let c = &context.capabilities;
    if let Err(name) = caps::effective(&c.add_capabilities, &c.drop_capabilities, false) {
        return invalid("security_context.capabilities", &format!("unknown capability {name:?}"));
    }
    if config.envs.iter().any(|e| e.key.is_empty() || e.key.contains(['=', '\0']) || e.value.contains('\0')) {
        return invalid("envs", "a name must not be empty or hold =, nothing may hold NUL");
    }
    Ok(())
}

fn plain(path: &Path) -> bool {
    path.components().all(|c| !matches!(c, Component::ParentDir))
}

fn invalid(field: &'static str, message: &str) -> Result<()> {
    Err(Error::Invalid { field, message: message.to_owned() })
}

fn unsupported(field: &'static str, value: &str) -> Result<()> {
    Err(Error::Unsupported { field, value: value.to_owned() })
}
