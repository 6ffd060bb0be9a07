//! The node's file system. Upstream: pkg/volume/util/atomic_writer.go, pkg/volume/volume_linux.go.

use std::ffi::CString;
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::doors::{FileData, Files, Payload, Result};

/// What a volume's group may do with what it can only read, and with directories.
const GROUP_READS: u32 = 0o440;
const GROUP_DIR: u32 = 0o2110;
const SET_GROUP: u32 = 0o2000;

/// The host's own file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostFiles;

/// An operating system's refusal, with what was being done.
#[derive(Debug, thiserror::Error)]
#[error("{verb} {path}")]
struct FileError {
    verb: &'static str,
    path: String,
    #[source]
    source: std::io::Error,
}

fn at<E: Into<std::io::Error>>(
    verb: &'static str,
    path: &Path,
) -> impl FnOnce(E) -> Box<dyn std::error::Error + Send + Sync> {
    let path = path.display().to_string();
    move |err| Box::new(FileError { verb, path, source: err.into() })
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(at("set the mode of", path))
}

impl Files for HostFiles {
    fn make_dir(&self, path: &Path, mode: u32, gid: Option<u32>) -> Result<()> {
        if path.is_dir() {
            // What is there may have been changed by its owners.
            return Ok(());
        }
        fs::create_dir_all(path).map_err(at("create", path))?;
        own_dir(path, mode, gid)
    }

    fn make_tmpfs(&self, path: &Path, mode: u32, gid: Option<u32>, size: Option<u64>) -> Result<()> {
        if mounts_below(path)?.iter().any(|m| m == path) {
            return Ok(());
        }
        fs::create_dir_all(path).map_err(at("create", path))?;
        let options = size.map_or_else(String::new, |bytes| format!("size={bytes}"));
        let options = CString::new(options).expect("digits have no zero byte");
        mount("tmpfs", path, "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, &*options)
            .map_err(at("mount tmpfs on", path))?;
        own_dir(path, mode, gid)
    }

    fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        if fs::read(path).is_ok_and(|old| old == bytes) {
            return Ok(());
        }
        let above = path.parent().unwrap_or(path);
        fs::create_dir_all(above).map_err(at("create", above))?;
        let mut file = fs::File::create(path).map_err(at("create", path))?;
        file.write_all(bytes).map_err(at("write", path))?;
        set_mode(path, mode)
    }

    fn publish(&self, dir: &Path, payload: &Payload, gid: Option<u32>) -> Result<bool> {
        let data = dir.join("..data");
        let old = fs::read_link(&data).ok().map(|name| dir.join(name));
        if let Some(old) = &old
            && same(old, payload, gid)
        {
            return Ok(false);
        }
        let fresh = dir.join(format!("..{}", base::rand::uuid()));
        fs::create_dir(&fresh).map_err(at("create", &fresh))?;
        set_mode(&fresh, 0o755)?;
        for (path, file) in payload {
            put(&fresh, path, file, gid)?;
        }
        if let Some(gid) = gid {
            own_dir(&fresh, 0o755 | GROUP_DIR, Some(gid))?;
        }
        let swap = dir.join("..data_tmp");
        remove_one(&swap)?;
        symlink(fresh.file_name().expect("it was just named"), &swap).map_err(at("link", &swap))?;
        fs::rename(&swap, &data).map_err(at("rename", &swap))?;
        show(dir, payload)?;
        if let Some(old) = old {
            remove_one(&old)?;
        }
        Ok(true)
    }

    fn remove(&self, path: &Path) -> Result<()> {
        let mut mounts = mounts_below(path)?;
        // The deepest first.
        mounts.sort_by_key(|m| std::cmp::Reverse(m.components().count()));
        for point in mounts {
            unmount(&point, UnmountFlags::DETACH).map_err(at("unmount", &point))?;
        }
        remove_one(path)
    }

    fn read_end(&self, path: &Path, most: usize) -> Result<Option<Vec<u8>>> {
        let mut file = match fs::File::open(path) {
            Ok(file) => file,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(at("open", path)(err)),
        };
        let size = file.metadata().map_err(at("look at", path))?.len();
        let from = size.saturating_sub(most as u64);
        file.seek(SeekFrom::Start(from)).map_err(at("read", path))?;
        let mut out = Vec::new();
        file.take(most as u64).read_to_end(&mut out).map_err(at("read", path))?;
        Ok(Some(out))
    }

    fn link(&self, path: &Path, target: &Path) -> Result<()> {
        let above = path.parent().unwrap_or(path);
        fs::create_dir_all(above).map_err(at("create", above))?;
        remove_one(path)?;
        symlink(target, path).map_err(at("link", path))
    }

    fn list(&self, path: &Path) -> Result<Vec<String>> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(err) if err.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(err) => return Err(at("list", path)(err)),
        };
        let mut names: Vec<String> =
            entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        Ok(names)
    }

    fn usage(&self, path: &Path) -> u64 {
        runtime::disk_usage(path)
    }

    fn sub_path(&self, base: &Path, path: &Path) -> Result<()> {
        runtime::beneath(base, path).map(drop).map_err(at("open", &base.join(path)))
    }

    fn host_path(&self, path: &Path, kind: &str) -> Result<()> {
        let is = |want: bool, what: &str| -> Result<()> {
            if want {
                Ok(())
            } else {
                Err(format!("hostPath type check failed: {} is not a {what}", path.display()).into())
            }
        };
        let file_type = fs::metadata(path).ok().map(|found| found.file_type());
        let has = |test: fn(&fs::FileType) -> bool| file_type.as_ref().is_some_and(test);
        match kind {
            "Socket" => is(has(FileTypeExt::is_socket), "socket file"),
            "CharDevice" => is(has(FileTypeExt::is_char_device), "character device"),
            "BlockDevice" => is(has(FileTypeExt::is_block_device), "block device"),
            "DirectoryOrCreate" if !path.exists() => fs::create_dir_all(path).map_err(at("create", path)),
            "FileOrCreate" if !path.exists() => fs::File::create(path).map(drop).map_err(at("create", path)),
            "Directory" | "DirectoryOrCreate" => is(path.is_dir(), "directory"),
            "File" | "FileOrCreate" => is(path.is_file(), "file"),
            // Unchecked: as other engines do, a directory is made where nothing is.
            _ if !path.exists() => fs::create_dir_all(path).map_err(at("create", path)),
            _ => Ok(()),
        }
    }
}

fn own_dir(path: &Path, mode: u32, gid: Option<u32>) -> Result<()> {
    if let Some(gid) = gid {
        chown(path, None, Some(gid)).map_err(at("change the group of", path))?;
    }
    set_mode(path, if gid.is_some() { mode | SET_GROUP } else { mode })
}

fn mode_with(file: &FileData, gid: Option<u32>) -> u32 {
    if gid.is_some() { file.mode | GROUP_READS } else { file.mode }
}

fn put(dir: &Path, path: &str, file: &FileData, gid: Option<u32>) -> Result<()> {
    let full = dir.join(path);
    let above = full.parent().expect("it is below the volume");
    let mut made = above.to_path_buf();
    let mut new = Vec::new();
    while made != dir && !made.exists() {
        new.push(made.clone());
        made.pop();
    }
    fs::create_dir_all(above).map_err(at("create", above))?;
    for dir in new {
        own_dir(&dir, if gid.is_some() { 0o755 | GROUP_DIR } else { 0o755 }, gid)?;
    }
    fs::write(&full, &file.bytes).map_err(at("write", &full))?;
    chown(&full, file.uid, gid).map_err(at("change the owner of", &full))?;
    set_mode(&full, mode_with(file, gid))
}

/// Whether `dir` holds exactly these files.
fn same(dir: &Path, payload: &Payload, gid: Option<u32>) -> bool {
    let equal = |(path, file): (&String, &FileData)| {
        let full = dir.join(path);
        fs::read(&full).is_ok_and(|bytes| bytes == file.bytes)
            && fs::metadata(&full).is_ok_and(|m| m.permissions().mode() & 0o7777 == mode_with(file, gid))
    };
    payload.iter().all(equal) && count(dir) == payload.len()
}

fn count(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|e| if e.path().is_dir() { count(&e.path()) } else { 1 }).sum()
}

/// The links by which containers see the files.
fn show(dir: &Path, payload: &Payload) -> Result<()> {
    let mut wanted: Vec<&str> = payload.keys().filter_map(|path| path.split('/').next()).collect();
    wanted.dedup();
    for name in &wanted {
        let link = dir.join(name);
        if fs::symlink_metadata(&link).is_err() {
            symlink(Path::new("..data").join(name), &link).map_err(at("link", &link))?;
        }
    }
    for entry in fs::read_dir(dir).map_err(at("list", dir))?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with("..") && !wanted.contains(&&*name) {
            remove_one(&entry.path())?;
        }
    }
    Ok(())
}

fn remove_one(path: &Path) -> Result<()> {
    let done = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(err) => Err(err),
    };
    match done {
        Err(err) if err.kind() != ErrorKind::NotFound => Err(at("remove", path)(err)),
        _ => Ok(()),
    }
}

/// Mount points at or below a path. Source: proc_pid_mountinfo(5), whose paths escape spaces in octal.
fn mounts_below(path: &Path) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(at("read", table))?;
    let points = text.lines().filter_map(|line| line.split(' ').nth(4));
    let points =
        points.map(|p| PathBuf::from(p.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")));
    Ok(points.filter(|p| p.starts_with(path)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str, mode: u32) -> FileData {
        FileData { bytes: text.into(), mode, uid: None }
    }

    #[test]
    fn a_volume_changes_all_at_once() {
        let temp = std::env::temp_dir().join(format!("kubelet-files-{}", base::rand::uuid()));
        let dir = temp.join("v");
        let files = HostFiles;
        files.make_dir(&dir, 0o777, None).unwrap();
        let first: Payload =
            [("a".to_owned(), file("1", 0o400)), ("d/b".to_owned(), file("2", 0o644))].into();
        assert!(files.publish(&dir, &first, None).unwrap());
        assert!(!files.publish(&dir, &first, None).unwrap(), "unchanged contents change nothing");
        assert_eq!(fs::read_to_string(dir.join("d/b")).unwrap(), "2");
        assert_eq!(fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o400);
        assert_eq!(fs::read_link(dir.join("a")).unwrap(), Path::new("..data/a"));
        let second: Payload = [("a".to_owned(), file("3", 0o644))].into();
        assert!(files.publish(&dir, &second, Some(7)).unwrap());
        assert_eq!(fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join("d").exists());
        assert_eq!(files.list(&dir).unwrap().len(), 3, "a, ..data and one directory");
        files.write(&temp.join("x/log"), b"0123456789", 0o666).unwrap();
        assert_eq!(files.read_end(&temp.join("x/log"), 4).unwrap().unwrap(), b"6789");
        assert!(files.read_end(&temp.join("none"), 4).unwrap().is_none());
        files.remove(&temp).unwrap();
        files.remove(&temp).unwrap();
        assert!(!temp.exists());
    }

    #[test]
    fn paths_of_the_host_are_what_they_should_be() {
        let dir = std::env::temp_dir().join(format!("kubelet-host-{}", base::rand::uuid()));
        fs::create_dir_all(&dir).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.join("s")).unwrap();
        for (path, kind, fine) in [
            (dir.join("s"), "Socket", true),
            (dir.clone(), "Socket", false),
            ("/dev/null".into(), "CharDevice", true),
            ("/dev/null".into(), "BlockDevice", false),
            ("/dev/null".into(), "File", false),
            (dir.join("none"), "Directory", false),
            (dir.join("made"), "DirectoryOrCreate", true),
            (dir.join("made"), "Directory", true),
            (dir.join("f"), "FileOrCreate", true),
        ] {
            assert_eq!(HostFiles.host_path(&path, kind).is_ok(), fine, "{} {kind}", path.display());
        }
        HostFiles.remove(&dir).unwrap();
    }

    #[test]
    fn memory_volumes_come_and_go() {
        let dir = std::env::temp_dir().join(format!("kubelet-tmpfs-{}", base::rand::uuid()));
        let files = HostFiles;
        if !rustix::process::geteuid().is_root() {
            return;
        }
        files.make_tmpfs(&dir.join("m"), 0o777, None, Some(1 << 20)).unwrap();
        files.make_tmpfs(&dir.join("m"), 0o777, None, Some(1 << 20)).unwrap();
        assert_eq!(mounts_below(&dir).unwrap().len(), 1);
        files.remove(&dir).unwrap();
        assert!(!dir.exists() && mounts_below(&dir).unwrap().is_empty());
    }
}
