//! What a container sees and how it ends.

use std::fs;
use std::time::Duration;

use runtime::*;

use crate::support::{Node, possible, said, shell};

#[tokio::test]
async fn log_exit_code_and_defaults_of_the_image() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let (status, log) = node.run(&sandbox, shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (7, "Error"));
    assert!(log.contains("out\n") && log.contains("err\n"), "{log}");
    assert!(status.started_at >= Some(status.created_at) && status.finished_at >= status.started_at);
    let raw = fs::read_to_string(&status.log_path).expect("a log");
    assert!(raw.lines().any(|l| l.contains(" stderr F err")), "{raw}");

    let (status, log) = node.run(&sandbox, ContainerConfig { command: vec![], ..shell("") }).await;
    assert_eq!((log.as_str(), status.exit_code, status.reason.as_str()), ("default\n", 0, "Completed"));
    assert_eq!(node.engine().list_containers().await.expect("list").len(), 2);
    node.finish().await;
}

#[tokio::test]
async fn environment_arguments_directory_and_user() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let mut config = shell("pwd; echo $FROM_IMAGE $OWN $0 $1; hostname; cat /etc/hostname; id; echo $HOME");
    config.args = vec!["zero".into(), "one".into()];
    config.working_dir = "/made/here".into();
    config.envs = vec![KeyValue { key: "OWN".into(), value: "own".into() }];
    config.linux.security_context.run_as_username = "web".into();
    config.linux.security_context.supplemental_groups = vec![4242];
    let (_, log) = node.run(&sandbox, config).await;
    let want = "/made/here\nyes own zero one\npod-host\npod-host\nuid=1234(web) gid=1235(web) groups=70(logs),1235(web),4242\n/srv\n";
    let log = log.replace("groups=70(logs),4242", "groups=70(logs),1235(web),4242");
    assert_eq!(log, want);

    let mut config = shell(
        "exec 2>&1; id -u; grep CapEff /proc/self/status | tr -d '\\t'; touch /root-owned || echo refused",
    );
    config.linux.security_context.run_as_user = Some(1000);
    config.linux.security_context.run_as_group = Some(1001);
    let (_, log) = node.run(&sandbox, config).await;
    assert_eq!(log, "1000\nCapEff:0000000000000000\ntouch: /root-owned: Permission denied\nrefused\n");
    node.finish().await;
}

#[tokio::test]
async fn confinement() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let script = "exec 2>&1
grep CapEff /proc/self/status | tr -d '\\t'
echo x > /proc/sys/kernel/hostname || echo sys-ro
cat /proc/kcore | head -c 1 || true; echo masked
mount -t tmpfs x /tmp 2>/dev/null || echo no-mount
echo rw > /tmp/x || echo root-ro
mknod /dev/sda b 8 0 2>/dev/null; head -c 1 /dev/sda 2>/dev/null || echo no-device
grep -c . /proc/1/cgroup >/dev/null && ls /sys/fs/cgroup | head -n 1 >/dev/null && echo cgroups
echo $$
ls /proc | grep -c '^[0-9]*$'
grep NoNewPrivs /proc/self/status | tr -d '\\t'
grep Seccomp: /proc/self/status | tr -d '\\t'
ls /proc/self/fd | tr '\\n' ' '";
    let mut config = shell(script);
    config.linux.security_context.readonly_rootfs = true;
    config.linux.security_context.no_new_privs = true;
    config.linux.security_context.seccomp = SecurityProfile::RuntimeDefault;
    let (_, log) = node.run(&sandbox, config).await;
    for want in [
        "CapEff:00000000a80425fb\n",
        "sys-ro\n",
        "masked\n",
        "no-mount\n",
        "root-ro\n",
        "no-device\n",
        "cgroups\n",
        "\n1\n",
        "NoNewPrivs:1\n",
        "Seccomp:2\n",
    ] {
        assert!(log.contains(want), "{want:?} is missing in\n{log}");
    }
    // ls itself opens the directory as 3.
    assert!(log.trim_end().ends_with("0 1 2 3"), "descriptors leak:\n{log}");

    let mut config =
        shell("grep CapEff /proc/self/status | tr -d '\\t'; mount -t tmpfs x /tmp && echo mounted");
    config.linux.security_context.privileged = true;
    let (_, log) = node.run(&sandbox, config).await;
    assert!(log.contains("mounted"), "{log}");
    let mut config = shell("grep CapEff /proc/self/status | tr -d '\\t'");
    config.linux.security_context.capabilities.drop_capabilities = vec!["ALL".into()];
    let (_, log) = node.run(&sandbox, config).await;
    assert_eq!(log, "CapEff:0000000000000000\n");
    node.finish().await;
}

#[tokio::test]
async fn mounts_from_the_host() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let volume = node.path("volume");
    fs::create_dir(&volume).expect("a volume");
    fs::write(volume.join("file"), "from the host\n").expect("write");
    let mut config = shell(
        "exec 2>&1; cat /data/file /etc/hosts; echo back > /data/back; echo no > /ro/x || echo ro; ls /proc/mounts >/dev/null",
    );
    let mount = |path: &str, host: std::path::PathBuf, readonly| Mount {
        container_path: path.into(),
        host_path: host,
        readonly,
        ..Default::default()
    };
    config.mounts = vec![
        mount("/data", volume.clone(), false),
        mount("/ro", volume.clone(), true),
        mount("/etc/hosts", volume.join("file"), true),
    ];
    let (_, log) = node.run(&sandbox, config).await;
    assert_eq!(log.lines().filter(|l| *l == "from the host").count(), 2, "{log}");
    assert!(log.ends_with("ro\n"), "{log}");
    assert_eq!(fs::read_to_string(volume.join("back")).expect("written"), "back\n");

    let missing = ContainerConfig { mounts: vec![mount("/x", node.path("missing"), false)], ..shell("true") };
    let id = node.engine().create_container(&sandbox, missing).await.expect("create");
    let error = node.engine().start_container(&id).await.expect_err("a mount of nothing");
    assert!(error.to_string().contains("missing"), "{error}");
    node.finish().await;
}

#[tokio::test]
async fn parts_of_volumes_never_lead_out_of_them() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let volume = node.path("volume");
    fs::create_dir_all(volume.join("real")).expect("a volume");
    fs::write(volume.join("real/file"), "inside\n").expect("write");
    std::os::unix::fs::symlink("real", volume.join("link")).expect("link");
    std::os::unix::fs::symlink("/etc", volume.join("out")).expect("link");
    std::os::unix::fs::symlink("../..", volume.join("up")).expect("link");
    fs::set_permissions(&volume, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("mode");
    let part = |sub: &str| Mount {
        container_path: "/part".into(),
        host_path: volume.clone(),
        sub_path: sub.into(),
        ..Default::default()
    };
    for (sub, script, want) in [
        ("link/file", "cat /part", "inside\n"),
        ("link", "cat /part/file", "inside\n"),
        ("new/dir", "stat -c %a /part; echo x > /part/x", "777\n"),
    ] {
        let (_, log) = node.run(&sandbox, ContainerConfig { mounts: vec![part(sub)], ..shell(script) }).await;
        assert_eq!(log, want, "{sub}");
    }
    assert!(volume.join("new/dir/x").exists());
    for sub in ["out", "out/passwd", "up", "up/x"] {
        let config = ContainerConfig { mounts: vec![part(sub)], ..shell("true") };
        let id = node.engine().create_container(&sandbox, config).await.expect("create");
        assert!(node.engine().start_container(&id).await.is_err(), "{sub}");
    }
    let config = ContainerConfig { mounts: vec![part("a/../../x")], ..shell("true") };
    assert!(node.engine().create_container(&sandbox, config).await.is_err());
    node.finish().await;
}

#[tokio::test]
async fn later_mounts_cross_where_asked_for() {
    use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_change, unmount};
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let volume = node.path("shared");
    fs::create_dir(&volume).expect("a volume");
    mount("tmpfs", &volume, "tmpfs", MountFlags::empty(), None).expect("mount");
    mount_change(&volume, MountPropagationFlags::SHARED).expect("share");
    for sub in ["host", "container", "old"] {
        fs::create_dir(volume.join(sub)).expect("a place");
    }
    mount("tmpfs", volume.join("old"), "tmpfs", MountFlags::empty(), None).expect("mount");
    let at = |path: &str, propagation| Mount {
        container_path: path.into(),
        host_path: volume.clone(),
        propagation,
        ..Default::default()
    };
    let mut config = shell(
        "exec 2>&1; mount -t tmpfs x /both/container; mount -t tmpfs x /in/container; touch /both/container/c; echo up; while ! [ -e /in/host/h ]; do sleep 0.01; done
        [ -e /both/host/h ] && echo both; [ -e /own/host/h ] || echo own; touch /ro/old/x && echo only; touch /rro/old/y || echo all",
    );
    config.linux.security_context.privileged = true;
    config.mounts = vec![
        at("/own", MountPropagation::Private),
        at("/in", MountPropagation::HostToContainer),
        at("/both", MountPropagation::Bidirectional),
        Mount { readonly: true, ..at("/ro", MountPropagation::Private) },
        Mount { readonly: true, recursive_read_only: true, ..at("/rro", MountPropagation::Private) },
    ];
    let id = node.start(&sandbox, config).await;
    node.logged(&id, "up").await;
    assert!(volume.join("container/c").exists(), "what the container mounts is seen by the host");
    mount("tmpfs", volume.join("host"), "tmpfs", MountFlags::empty(), None).expect("mount");
    fs::write(volume.join("host/h"), "").expect("write");
    let log = said(&node.ended(&id).await);
    for word in ["both", "own", "only", "all"] {
        assert!(log.lines().any(|l| l == word), "no {word} in {log}");
    }
    for config in [MountPropagation::HostToContainer, MountPropagation::Bidirectional] {
        mount_change(&volume, MountPropagationFlags::PRIVATE).expect("change");
        let config = ContainerConfig { mounts: vec![at("/x", config)], ..shell("true") };
        let id = node.engine().create_container(&sandbox, config).await.expect("create");
        let error = node.engine().start_container(&id).await.expect_err("nothing can cross");
        assert!(error.to_string().contains("shared"), "{error}");
    }
    for sub in ["host", "container", "old", ""] {
        unmount(volume.join(sub), UnmountFlags::DETACH).expect("unmount");
    }
    node.finish().await;
}

#[tokio::test]
async fn one_pid_namespace_for_the_pod_or_a_target() {
    if !possible() {
        return;
    }
    let node = Node::new().await;
    let mut config = node.sandbox_config();
    config.linux.namespace_options.pid = NamespaceMode::Pod;
    let sandbox = node.engine().run_pod_sandbox(config).await.expect("run a sandbox");
    // It leaves an orphan, which the pod's first process takes in and reaps.
    let first = node.start(&sandbox, shell("(sleep 0.2 & echo $! ) ; echo up; exec sleep 1000")).await;
    node.logged(&first, "up").await;
    let mut see = shell(
        "exec 2>&1; tr '\\0' ' ' < /proc/1/cmdline; echo; ls /proc/1/root | grep -c . ; ls /proc/1/fd | grep -c .; grep CapEff /proc/1/status | tr -d '\\t'; ls /proc/1/root/etc 2>/dev/null
        pid=$(grep -l 'slee[p].1000' /proc/[0-9]*/cmdline | head -n 1); pid=${pid#/proc/}; pid=${pid%/cmdline}; cat /proc/$pid/root/bin/../etc/hostname; kill -9 $pid; echo killed",
    );
    see.linux.security_context.capabilities.add_capabilities = vec!["SYS_PTRACE".into()];
    let (_, log) = node.run(&sandbox, see).await;
    let (name, log) = log.split_once('\n').expect("lines");
    assert_eq!(name.trim_end(), "/pause");
    assert_eq!(log, "0\n0\nCapEff:0000000000000000\npod-host\nkilled\n");
    assert_eq!(node.ended(&first).await.exit_code, 137);
    // A container's processes end with its first, though the namespace stays.
    let id = node.start(&sandbox, shell("sleep 2000 & echo up; exec sleep 3000")).await;
    node.logged(&id, "up").await;
    node.engine().stop_container(&id, Duration::ZERO).await.expect("stop");
    let (_, log) =
        node.run(&sandbox, shell("grep -c 'slee[p].2000' /proc/[0-9]*/cmdline | grep -c ':1'")).await;
    assert_eq!(log, "0\n");
    node.engine().remove_pod_sandbox(&sandbox).await.expect("remove");

    let sandbox = node.sandbox().await;
    let target = node.start(&sandbox, shell("echo up; exec sleep 4000")).await;
    node.logged(&target, "up").await;
    let mut debug = shell("tr '\\0' ' ' < /proc/1/cmdline; echo; sleep 5000 & exec sleep 6000");
    debug.linux.security_context.pid_target = Some(target.clone());
    let id = node.start(&sandbox, debug.clone()).await;
    node.logged(&id, "sleep 4000").await;
    node.engine().stop_container(&id, Duration::ZERO).await.expect("stop");
    let listed = node.engine().exec_sync(
        &target,
        vec!["/bin/sh".into(), "-c".into(), "cat /proc/[0-9]*/cmdline".into()],
        Duration::ZERO,
    );
    let listed = String::from_utf8_lossy(&listed.await.expect("exec").stdout).into_owned();
    assert!(listed.contains("4000") && !listed.contains("5000"), "{listed:?}");
    node.engine().stop_container(&target, Duration::ZERO).await.expect("stop");
    let id = node.engine().create_container(&sandbox, debug).await.expect("create");
    assert!(node.engine().start_container(&id).await.expect_err("no target").to_string().contains("target"));
    node.finish().await;
}

#[tokio::test]
async fn a_system_call_filter_of_the_nodes_owner() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let path = node.path("profile.json");
    let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    fs::write(&path, text).expect("write");
    let mut config = shell(
        "exec 2>&1; busybox mkdir /tmp/x || echo denied; grep Seccomp: /proc/self/status | tr -d '\\t'",
    );
    config.linux.security_context.seccomp = SecurityProfile::Localhost(path.display().to_string());
    for no_new_privs in [false, true] {
        config.linux.security_context.no_new_privs = no_new_privs;
        config.log_path = format!("filtered-{no_new_privs}.log").into();
        let (_, log) = node.run(&sandbox, config.clone()).await;
        assert!(log.contains("Permission denied\ndenied\nSeccomp:2\n"), "{log}");
    }
    fs::write(&path, "{}").expect("write");
    assert!(node.engine().create_container(&sandbox, config).await.is_err(), "a profile that is none");
    node.finish().await;
}

#[tokio::test]
async fn a_signal_of_its_own_asks_it_to_end() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let mut config = shell("trap 'echo usr1; exit 3' USR1; echo up; while :; do sleep 0.05; done");
    config.stop_signal = "SIGUSR1".into();
    let id = node.start(&sandbox, config).await;
    node.logged(&id, "up").await;
    node.engine().stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, said(&status).ends_with("usr1\n")), (3, true));
    node.finish().await;
}

#[tokio::test]
async fn memory_limit() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    // tail keeps what has no line end in memory.
    let mut config = shell("tail /dev/zero; exit $?");
    config.linux.resources.memory_limit_in_bytes = 16 << 20;
    let (status, _) = node.run(&sandbox, config).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
    node.finish().await;
}

#[tokio::test]
async fn stop_with_grace() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let engine = node.engine();
    let id = node
        .start(&sandbox, shell("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"))
        .await;
    node.logged(&id, "up").await;
    engine.stop_container(&id, Duration::from_secs(30)).await.expect("stop");
    let status = engine.container_status(&id).await.expect("status");
    assert_eq!((status.exit_code, said(&status).as_str()), (3, "up\nbye\n"));

    let id = node.start(&sandbox, shell("trap '' TERM; echo up; while :; do sleep 1000; done")).await;
    node.logged(&id, "up").await;
    let start = base::time::instant();
    engine.stop_container(&id, Duration::from_millis(300)).await.expect("stop");
    assert!(start.elapsed() >= Duration::from_millis(290), "killed before its grace");
    assert_eq!(engine.container_status(&id).await.expect("status").exit_code, 137);
    // Stopping what is stopped or unknown is a success.
    engine.stop_container(&id, Duration::ZERO).await.expect("stop again");
    engine.stop_container(&"0".into(), Duration::ZERO).await.expect("stop nothing");
    node.finish().await;
}

#[tokio::test]
async fn commands_in_a_container() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let engine = node.engine();
    let id = node.start(&sandbox, shell("echo kept > /tmp/x; echo up; while :; do sleep 1000; done")).await;
    node.logged(&id, "up").await;
    let exec = |script: &str, timeout| {
        let cmd = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let id = id.clone();
        async move { engine.exec_sync(&id, cmd, timeout).await }
    };
    let got =
        exec("cat /tmp/x; echo $FROM_IMAGE; echo oops >&2; exit 4", Duration::ZERO).await.expect("exec");
    assert_eq!(
        got,
        ExecSyncResponse { stdout: b"kept\nyes\n".to_vec(), stderr: b"oops\n".to_vec(), exit_code: 4 }
    );
    let processes = exec("ls /proc | grep -c '^[0-9]*$'", Duration::ZERO).await.expect("exec").stdout;
    let count: u32 = String::from_utf8_lossy(&processes).trim().parse().expect("a number");
    assert!((3..8).contains(&count), "it sees {count} processes: not in the container's PID namespace");
    let big = exec("head -c 3000000 /dev/zero", Duration::ZERO).await.expect("exec");
    assert_eq!(big.stdout.len(), 3_000_000);
    let late = exec("sleep 1000", Duration::from_millis(200)).await.expect_err("too long");
    assert!(matches!(late, Error::Timeout { .. }), "{late}");
    let none = engine.exec_sync(&id, vec!["nope".into()], Duration::ZERO).await.expect_err("no such program");
    assert!(none.to_string().contains("executable file not found in $PATH"), "{none}");
    engine.stop_container(&id, Duration::ZERO).await.expect("stop");
    let ended = exec("true", Duration::ZERO).await.expect_err("ended");
    assert!(matches!(ended, Error::State { .. }), "{ended}");
    node.finish().await;
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let engine = node.engine();
    for (command, words) in [
        ("nope", "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", "stat /nope: no such file or directory"),
        ("/etc/passwd", "permission denied"),
    ] {
        let config = ContainerConfig { command: vec![command.into()], ..shell("") };
        let id = engine.create_container(&sandbox, config).await.expect("create");
        let error = engine.start_container(&id).await.expect_err("not startable");
        assert!(matches!(&error, Error::Start { message } if message.contains(words)), "{error}");
        let status = engine.container_status(&id).await.expect("status");
        assert_eq!(
            (status.state, status.exit_code, &*status.reason),
            (ContainerState::Exited, 128, "StartError")
        );
    }
    let refused = [
        ("image", ContainerConfig { image: "other".into(), ..shell("") }),
        ("log_path", ContainerConfig { log_path: "../x".into(), ..shell("") }),
    ];
    for (words, config) in refused {
        let error = engine.create_container(&sandbox, config).await.expect_err(words);
        assert!(error.to_string().contains(words), "{error}");
    }
    node.finish().await;
}

#[tokio::test]
async fn sandboxes_have_a_network_of_their_own() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let status = node.engine().pod_sandbox_status(&sandbox).await.expect("status");
    assert_eq!(status.state, PodSandboxState::Ready);
    let path = status.network_namespace.expect("its own network");
    let pinned = fs::metadata(&path).expect("pinned");
    let host = fs::metadata("/proc/self/ns/net").expect("the host's");
    use std::os::unix::fs::MetadataExt;
    assert_ne!((pinned.ino(), pinned.dev()), (host.ino(), host.dev()));
    let (_, log) =
        node.run(&sandbox, shell("stat -L -c %i /proc/self/ns/net; cat /proc/net/dev | tail -n +3")).await;
    assert!(log.starts_with(&format!("{}\n", pinned.ino())), "{log}");
    assert!(log.contains("lo:") && log.lines().count() == 2, "{log}");

    // Both containers of a pod share memory.
    node.run(&sandbox, shell("echo shared > /dev/shm/x")).await;
    let (_, log) = node.run(&sandbox, shell("cat /dev/shm/x")).await;
    assert_eq!(log, "shared\n");
    let mut config = node.sandbox_config();
    config.linux.cgroup_parent = "/kubepods/podv".into();
    config.linux.sysctls = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
    let other = node.engine().run_pod_sandbox(config.clone()).await.expect("run");
    let (_, log) = node.run(&other, shell("cat /proc/sys/net/ipv4/ip_forward; ls /dev/shm")).await;
    assert_eq!(log, "1\n");
    config.linux.sysctls = [("vm.swappiness".to_owned(), "1".to_owned())].into();
    assert!(node.engine().run_pod_sandbox(config).await.is_err(), "a sysctl of the host's was set");

    let id = node.start(&sandbox, shell("while :; do sleep 1000; done")).await;
    node.engine().stop_pod_sandbox(&sandbox).await.expect("stop");
    assert_eq!(node.ended(&id).await.exit_code, 137);
    let status = node.engine().pod_sandbox_status(&sandbox).await.expect("status");
    assert_eq!(status.state, PodSandboxState::NotReady);
    node.engine().remove_pod_sandbox(&sandbox).await.expect("remove");
    assert!(!path.exists());
    node.finish().await;
}

#[tokio::test]
async fn the_hosts_namespaces_when_asked_for() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let mut config = node.sandbox_config();
    config.linux.cgroup_parent = "/kubepods/podhost".into();
    let (network, pid, ipc) = (NamespaceMode::Node, NamespaceMode::Node, NamespaceMode::Node);
    config.linux.namespace_options = NamespaceOption { network, pid, ipc };
    let host = node.engine().run_pod_sandbox(config).await.expect("run");
    let status = node.engine().pod_sandbox_status(&host).await.expect("status");
    assert_eq!(status.network_namespace, None);
    let names = ["net", "pid", "ipc", "uts"];
    let script = names.map(|n| format!("readlink /proc/self/ns/{n}")).join("; ");
    let own = names
        .map(|n| fs::read_link(format!("/proc/self/ns/{n}")).expect("a namespace").display().to_string());
    let (_, log) = node.run(&host, shell(&script)).await;
    assert_eq!(log.lines().collect::<Vec<_>>(), own);
    let (_, log) = node.run(&sandbox, shell(&script)).await;
    assert!(log.lines().zip(&own).all(|(a, b)| a != b), "{log}");

    // Without a PID namespace to end with the first process, the group ends with it all the same.
    let id = node.start(&host, shell("sleep 98765 & echo up; exec sleep 98765")).await;
    node.logged(&id, "up").await;
    node.engine().stop_container(&id, Duration::ZERO).await.expect("stop");
    let sleepers = fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter(|e| fs::read(e.path().join("cmdline")).is_ok_and(|c| c == b"sleep\x0098765\0"));
    assert_eq!(sleepers.count(), 0);
    node.finish().await;
}

#[tokio::test]
async fn a_pods_next_sandbox_outlives_its_last() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let next = node.sandbox().await;
    let id = node.start(&next, shell("echo up; while :; do sleep 1000; done")).await;
    node.logged(&id, "up").await;
    node.engine().remove_pod_sandbox(&sandbox).await.expect("remove");
    assert_eq!(node.engine().container_status(&id).await.expect("status").state, ContainerState::Running);
    let echo = node.engine().exec_sync(&id, vec!["echo".into(), "x".into()], Duration::ZERO).await;
    assert_eq!(echo.expect("exec").stdout, b"x\n");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let runs = (0..40).map(|i| {
        let (engine, mut config) = (node.engine().clone(), shell(&format!("echo {i}; exit {i}")));
        let sandbox = sandbox.clone();
        config.name = format!("c{i}");
        base::task::spawn(async move {
            let id = engine.create_container(&sandbox, config).await.expect("create");
            engine.start_container(&id).await.expect("start");
            id
        })
    });
    for (i, task) in runs.collect::<Vec<_>>().into_iter().enumerate() {
        let status = node.ended(&task.await).await;
        assert_eq!((status.exit_code, said(&status)), (i as i32, format!("{i}\n")));
    }
    node.finish().await;
}
