//! A file system in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

use kubelet::doors::{Files, Payload, Result};

/// Every pod's directory lies below this.
const PODS: &str = "/var/lib/kubelet/pods";

/// Directories are entries without bytes.
#[derive(Default)]
pub struct SimFiles(Mutex<BTreeMap<PathBuf, Option<Vec<u8>>>>);

impl SimFiles {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Option<Vec<u8>>>> {
        self.0.lock().expect("nobody panics holding it")
    }

    /// What lies below the pods' directory.
    pub fn pod_files(&self) -> Vec<PathBuf> {
        self.lock()
            .keys()
            .filter(|path| path.starts_with(PODS) && *path != Path::new(PODS))
            .cloned()
            .collect()
    }
}

impl Files for SimFiles {
    fn make_dir(&self, path: &Path, _: u32, _: Option<u32>) -> Result<()> {
        self.lock().entry(path.to_owned()).or_insert(None);
        Ok(())
    }
    fn make_tmpfs(&self, path: &Path, mode: u32, gid: Option<u32>, _: Option<u64>) -> Result<()> {
        self.make_dir(path, mode, gid)
    }
    fn write(&self, path: &Path, bytes: &[u8], _: u32) -> Result<()> {
        self.lock().insert(path.to_owned(), Some(bytes.to_owned()));
        Ok(())
    }
    fn publish(&self, dir: &Path, payload: &Payload, _: Option<u32>) -> Result<bool> {
        let mut all = self.lock();
        let new: BTreeMap<PathBuf, Option<Vec<u8>>> =
            payload.iter().map(|(name, file)| (dir.join(name), Some(file.bytes.clone()))).collect();
        let old: BTreeMap<PathBuf, Option<Vec<u8>>> = all
            .iter()
            .filter(|(path, _)| path.starts_with(dir))
            .map(|(p, b)| (p.clone(), b.clone()))
            .collect();
        all.retain(|path, _| !path.starts_with(dir));
        let changed = old != new;
        all.extend(new);
        Ok(changed)
    }
    fn remove(&self, path: &Path) -> Result<()> {
        self.lock().retain(|at, _| !at.starts_with(path));
        Ok(())
    }
    fn read_end(&self, path: &Path, most: usize) -> Result<Option<Vec<u8>>> {
        let found = self.lock().get(path).cloned().flatten();
        Ok(found.map(|bytes| bytes[bytes.len().saturating_sub(most)..].to_vec()))
    }
    fn link(&self, path: &Path, _: &Path) -> Result<()> {
        self.lock().insert(path.to_owned(), Some(Vec::new()));
        Ok(())
    }
    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let all = self.lock();
        let names = all.keys().filter(|at| at.parent() == Some(path)).filter_map(|at| at.file_name());
        Ok(names.map(|name| name.to_string_lossy().into_owned()).collect())
    }
    fn usage(&self, _: &Path) -> u64 {
        0
    }
    fn sub_path(&self, _: &Path, _: &Path) -> Result<()> {
        Ok(())
    }
    fn host_path(&self, _: &Path, _: &str) -> Result<()> {
        Ok(())
    }
}
