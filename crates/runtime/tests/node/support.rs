//! A node for one test: its own directories, control groups and image, and a check that nothing is left.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use runtime::*;

/// How long anything may take before a test fails.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// An engine in directories of its own.
pub struct Node {
    pub dir: tempfile::TempDir,
    pub engine: Option<Embedded>,
    cgroup_root: String,
}

/// Whether these tests can run here; says why not.
pub fn possible() -> bool {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: needs root");
        return false;
    }
    if !Path::new("/bin/busybox").exists() {
        let install = Command::new("apt-get").args(["install", "-y", "-qq", "busybox-static"]).output();
        if !install.is_ok_and(|o| o.status.success()) {
            eprintln!("SKIPPED: no /bin/busybox, and `apt-get install busybox-static` failed");
            return false;
        }
    }
    true
}

impl Node {
    /// A node with the image `busybox`.
    pub async fn new() -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let cgroup_root = format!("/keelson-test-{:016x}", base::rand::u64());
        let mut node = Node { dir, engine: None, cgroup_root };
        node.open().await;
        let archive = node.path("image.tar");
        fs::write(&archive, docker_archive(&[&busybox_layer()], "busybox:latest", RUN_CONFIG))
            .expect("write the archive");
        node.engine().images().import(&archive, None).await.expect("import the image");
        node
    }

    /// The same with a sandbox; `None` where these tests cannot run.
    pub async fn with_sandbox() -> Option<(Node, SandboxId)> {
        if !possible() {
            return None;
        }
        let node = Node::new().await;
        let sandbox = node.sandbox().await;
        Some((node, sandbox))
    }

    /// Opens the engine (again).
    pub async fn open(&mut self) {
        let options = Options {
            shim_exe: env!("CARGO_BIN_EXE_runtime-shim").into(),
            shim_args: Vec::new(),
            cgroup_root: self.cgroup_root.clone(),
            ..Options::default()
        };
        self.engine = Some(Embedded::open(self.path("root"), self.path("run"), options).await.expect("open"));
    }

    pub fn engine(&self) -> &Embedded {
        self.engine.as_ref().expect("it is open")
    }

    pub fn path(&self, sub: &str) -> PathBuf {
        self.dir.path().join(sub)
    }

    pub fn sandbox_config(&self) -> PodSandboxConfig {
        PodSandboxConfig {
            metadata: PodSandboxMetadata {
                name: "pod".into(),
                uid: "u".into(),
                namespace: "default".into(),
                attempt: 0,
            },
            hostname: "pod-host".into(),
            log_directory: self.path("logs/pod"),
            linux: LinuxPodSandboxConfig { cgroup_parent: "/kubepods/podu".into(), ..Default::default() },
            ..Default::default()
        }
    }

    /// Where a sandbox's network namespace is pinned.
    pub fn pin(&self, sandbox: &SandboxId) -> PathBuf {
        self.path("run").join(&sandbox.as_str()[..16]).join("netns")
    }

    pub async fn sandbox(&self) -> SandboxId {
        self.engine().run_pod_sandbox(self.sandbox_config()).await.expect("run a sandbox")
    }

    /// Makes and starts a container.
    pub async fn start(&self, sandbox: &SandboxId, config: ContainerConfig) -> ContainerId {
        let id = self.engine().create_container(sandbox, config).await.expect("create");
        self.engine().start_container(&id).await.expect("start");
        id
    }

    /// Runs a container to its end and gives its status and what it said on either output.
    pub async fn run(&self, sandbox: &SandboxId, config: ContainerConfig) -> (ContainerStatus, String) {
        let id = self.start(sandbox, config).await;
        let status = self.ended(&id).await;
        let log = said(&status);
        (status, log)
    }

    /// Waits until a container has ended.
    pub async fn ended(&self, id: &ContainerId) -> ContainerStatus {
        let mut events = self.engine().events();
        let wait = async {
            loop {
                let status = self.engine().container_status(id).await.expect("status");
                if status.state == ContainerState::Exited {
                    return status;
                }
                events.next().await.expect("the engine lives");
            }
        };
        base::time::timeout(PATIENCE, wait).await.expect("the container does not end")
    }

    /// Waits until a container's log holds `text`.
    pub async fn logged(&self, id: &ContainerId, text: &str) {
        let status = self.engine().container_status(id).await.expect("status");
        let wait = async {
            while !fs::read_to_string(&status.log_path).unwrap_or_default().contains(text) {
                base::time::sleep(Duration::from_millis(5)).await;
            }
        };
        base::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{text:?} is never logged"));
    }

    /// Takes everything away and fails if anything is left.
    pub async fn finish(mut self) {
        self.engine().tear_down().await.expect("tear down");
        self.engine = None;
        let dir = self.dir.path().to_str().expect("text").to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&dir), "mounts left:\n{mounts}");
        let left = |d: &Path| fs::read_dir(d).map(|e| e.flatten().map(|e| e.path()).collect::<Vec<_>>());
        for sub in ["run", "root/sandboxes", "root/images/pins", "root/images/tmp"] {
            let rest = left(&self.path(sub)).expect("list");
            assert!(rest.is_empty(), "left: {rest:?}");
        }
        let find = Command::new("find")
            .args(["/sys/fs/cgroup", "-name", self.cgroup_root.trim_start_matches('/')])
            .output()
            .expect("find");
        assert!(find.stdout.is_empty(), "groups left: {}", String::from_utf8_lossy(&find.stdout));
        let gone = async {
            while !shims(&dir).is_empty() {
                // The shim has answered; only its very end is waited for.
                base::time::sleep(Duration::from_millis(5)).await;
            }
        };
        base::time::timeout(PATIENCE, gone).await.expect("a shim stays");
    }
}

/// After a failed test: what it started must not stay on the machine.
impl Drop for Node {
    fn drop(&mut self) {
        if self.engine.is_none() && !std::thread::panicking() {
            return;
        }
        for pid in shims(self.dir.path().to_str().unwrap_or_default())
            .into_iter()
            .filter_map(rustix::process::Pid::from_raw)
        {
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
        }
        if let Ok(groups) = Cgroups::detect(&self.cgroup_root) {
            groups.kill("/").and_then(|()| groups.remove_root()).ok();
        }
        for run in fs::read_dir(self.path("run")).into_iter().flatten().flatten() {
            for mount in ["netns", "shm"] {
                rustix::mount::unmount(run.path().join(mount), rustix::mount::UnmountFlags::DETACH).ok();
            }
        }
    }
}

/// Process ids of shims that serve a directory.
pub fn shims(dir: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    all.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains("runtime-shim") && line.contains(dir)
        })
        .collect()
}

/// What a container said, without times, streams and tags.
pub fn said(status: &ContainerStatus) -> String {
    let log = fs::read_to_string(&status.log_path).expect("a log");
    log.lines().filter_map(|l| l.splitn(4, ' ').nth(3)).map(|l| format!("{l}\n")).collect()
}

/// A container that runs a shell script.
pub fn shell(script: &str) -> ContainerConfig {
    ContainerConfig {
        name: "c".into(),
        image: "busybox".into(),
        command: vec!["/bin/sh".into(), "-c".into(), script.into()],
        log_path: format!("c-{:016x}/0.log", base::rand::u64()).into(),
        ..Default::default()
    }
}

const RUN_CONFIG: &str =
    r#"{"Env":["PATH=/bin","FROM_IMAGE=yes"],"Cmd":["/bin/sh","-c","echo default"],"WorkingDir":"/work"}"#;

/// A layer with busybox, its applets that the tests use, and users.
pub fn busybox_layer() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let busybox = fs::read("/bin/busybox").expect("busybox");
    add(&mut tar, "bin/busybox", 0o755, &busybox);
    for applet in [
        "sh", "echo", "cat", "id", "sleep", "ls", "dd", "mount", "touch", "readlink", "hostname", "head",
        "tail", "mknod", "env", "grep", "tr", "kill", "stat", "stty", "httpd", "mkdir",
    ] {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox").expect("add a link");
    }
    add(&mut tar, "etc/passwd", 0o644, b"root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235::/srv:/bin/sh\n");
    add(&mut tar, "etc/group", 0o644, b"root:x:0:\nweb:x:1235:\nlogs:x:70:web\n");
    add(&mut tar, "tmp/.keep", 0o644, b"");
    tar.into_inner().expect("a layer")
}

pub fn add(tar: &mut tar::Builder<Vec<u8>>, name: &str, mode: u32, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, name, bytes).expect("add a file");
}

/// A `docker save` archive.
pub fn docker_archive(layers: &[&[u8]], name: &str, run: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let diff_ids: Vec<_> = layers.iter().map(|l| format!("{:?}", digest(l))).collect();
    let config = format!(
        r#"{{"architecture":"{}","os":"linux","config":{run},"rootfs":{{"type":"layers","diff_ids":[{}]}}}}"#,
        architecture(),
        diff_ids.join(",")
    );
    let files: Vec<_> = (0..layers.len()).map(|i| format!("\"{i}/layer.tar\"")).collect();
    for (i, layer) in layers.iter().enumerate() {
        add(&mut tar, &format!("{i}/layer.tar"), 0o644, layer);
    }
    add(&mut tar, "config.json", 0o644, config.as_bytes());
    let manifest =
        format!(r#"[{{"Config":"config.json","RepoTags":["{name}"],"Layers":[{}]}}]"#, files.join(","));
    add(&mut tar, "manifest.json", 0o644, manifest.as_bytes());
    tar.into_inner().expect("an archive")
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    format!("sha256:{hex}")
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).expect("compress");
    out.finish().expect("compress")
}
