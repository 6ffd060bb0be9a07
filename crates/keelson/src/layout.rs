//! Where things are on the machine.

use std::path::{Path, PathBuf};

/// The directories of one cluster's part on this machine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// What outlives a reboot.
    pub data: PathBuf,
    /// What does not.
    pub run: PathBuf,
    /// The kubelet's directory, which drivers expect at `/var/lib/kubelet`.
    pub kubelet: PathBuf,
    /// Logs of pods and containers, which collectors expect below `/var/log`.
    pub log: PathBuf,
    /// The control group above those of all pods.
    pub cgroups: String,
}

impl Default for Layout {
    fn default() -> Self {
        Layout {
            data: "/var/lib/keelson".into(),
            run: "/run/keelson".into(),
            kubelet: "/var/lib/kubelet".into(),
            log: "/var/log".into(),
            cgroups: "/keelson".into(),
        }
    }
}

impl Layout {
    /// Keys and certificates.
    pub fn pki(&self) -> PathBuf {
        self.data.join("pki")
    }

    /// The embedded store.
    pub fn store(&self) -> PathBuf {
        self.data.join("store")
    }

    /// The kubeconfig of a user or component.
    pub fn kubeconfig(&self, who: &str) -> PathBuf {
        self.data.join(format!("{who}.kubeconfig"))
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.kubeconfig("admin")
    }

    /// Containers and images.
    pub fn runtime(&self) -> PathBuf {
        self.data.join("runtime")
    }

    /// The pod network's memory.
    pub fn network(&self) -> PathBuf {
        self.data.join("network")
    }

    /// What a component writes to its standard error.
    pub fn component_log(&self, component: &str) -> PathBuf {
        self.data.join("log").join(format!("{component}.log"))
    }

    /// Locked by the running `up`, with its process id in it.
    pub fn lock(&self) -> PathBuf {
        self.run.join("up.lock")
    }

    /// The arguments that give another process the same layout.
    pub fn arguments(&self) -> Vec<std::ffi::OsString> {
        let pairs: [(&str, &Path); 5] = [
            ("--data-dir", &self.data),
            ("--run-dir", &self.run),
            ("--kubelet-dir", &self.kubelet),
            ("--log-dir", &self.log),
            ("--cgroup-root", Path::new(&self.cgroups)),
        ];
        pairs.iter().flat_map(|(flag, path)| [(*flag).into(), path.as_os_str().to_owned()]).collect()
    }
}
