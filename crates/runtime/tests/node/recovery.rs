//! The engine goes away and comes back; a shim dies.

use std::fs;

use runtime::*;

use crate::support::{Node, possible, said, shell, shims};

#[tokio::test]
async fn a_new_engine_finds_everything() {
    let Some((mut node, sandbox)) = Node::with_sandbox().await else { return };
    let gate = node.path("gate");
    fs::create_dir(&gate).expect("a directory");
    let mount = Mount { container_path: "/gate".into(), host_path: gate.clone(), ..Default::default() };
    let waits = |code: u8, file: &str| ContainerConfig {
        mounts: vec![mount.clone()],
        ..shell(&format!(
            "echo up; while [ ! -e /gate/{file} ]; do sleep 0.02; done; touch /gate/{file}-seen; echo after; exit {code}"
        ))
    };
    let (ends_alone, goes_on) = (waits(5, "a"), waits(6, "b"));
    let ends_alone = node.start(&sandbox, ends_alone).await;
    let goes_on = node.start(&sandbox, goes_on).await;
    let before = node.engine().list_containers().await.expect("list");

    // As kill -9 would: connections end, nothing is said.
    node.engine = None;
    let netns = node.pin(&sandbox);
    rustix::mount::unmount(&netns, rustix::mount::UnmountFlags::DETACH).expect("unpin");
    fs::write(gate.join("a"), "").expect("write");
    let ended = async {
        while !gate.join("a-seen").exists() {
            base::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    base::time::timeout(crate::support::PATIENCE, ended).await.expect("it does not end");
    node.open().await;

    let status = node.ended(&ends_alone).await;
    assert_eq!((status.exit_code, said(&status).as_str()), (5, "up\nafter\n"));
    let now = node.engine().container_status(&goes_on).await.expect("status");
    let then = before.iter().find(|s| s.id == goes_on).expect("it was there");
    assert_eq!(&now, then);
    let sandboxes = node.engine().list_pod_sandboxes().await.expect("list");
    assert_eq!((sandboxes.len(), sandboxes[0].state), (1, PodSandboxState::Ready));
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(mounts.contains(netns.to_str().expect("text")), "its network is not pinned again");
    fs::write(gate.join("b"), "").expect("write");
    assert_eq!(node.ended(&goes_on).await.exit_code, 6);
    node.run(&sandbox, shell("true")).await;
    node.finish().await;
}

#[tokio::test]
async fn a_dead_shim_takes_its_containers_along() {
    if !possible() {
        return;
    }
    let mut node = Node::new().await;
    let dir = node.dir.path().to_str().expect("text").to_owned();
    for while_open in [true, false] {
        let sandbox = node.sandbox().await;
        let id = node.start(&sandbox, shell("echo up; while :; do sleep 1000; done")).await;
        if !while_open {
            node.engine = None;
        }
        for pid in shims(&dir) {
            let pid = rustix::process::Pid::from_raw(pid).expect("a process");
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill the shim");
        }
        if !while_open {
            node.open().await;
        }
        let status = node.ended(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        let status = node.engine().pod_sandbox_status(&sandbox).await.expect("status");
        assert_eq!(status.state, PodSandboxState::NotReady);
        node.engine().remove_container(&id).await.expect("remove");
        node.engine().remove_pod_sandbox(&sandbox).await.expect("remove");
    }
    node.finish().await;
}

#[tokio::test]
async fn events_tell_a_containers_life() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let mut events = node.engine().events();
    let (status, _) = node.run(&sandbox, shell("true")).await;
    node.engine().remove_container(&status.id).await.expect("remove");
    let mut seen = Vec::new();
    while seen.len() < 4 {
        match events.next().await.expect("the engine lives") {
            RuntimeEvent::Container(e) => {
                assert_eq!((&e.container_id, e.pod_uid.as_str()), (&status.id, "u"));
                seen.push(e.event_type);
            }
            other => panic!("{other:?}"),
        }
    }
    use ContainerEventType::*;
    assert_eq!(seen, [Created, Started, Stopped, Deleted]);
    node.finish().await;
}

/// Not a check but a figure: `cargo nextest run -p runtime --run-ignored only --no-capture`.
#[tokio::test]
#[ignore = "measures"]
async fn start_times() {
    let node = Node::new().await;
    let mut sandboxes = Vec::new();
    let start = base::time::instant();
    let sandbox = node.sandbox().await;
    sandboxes.push(start.elapsed());
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = base::time::instant();
        let id = node.engine().create_container(&sandbox, shell("true")).await.expect("create");
        let created = start.elapsed();
        node.engine().start_container(&id).await.expect("start");
        times.push((start.elapsed(), created));
        node.ended(&id).await;
        node.engine().remove_container(&id).await.expect("remove");
    }
    for i in 0..10 {
        let mut config = node.sandbox_config();
        config.linux.cgroup_parent = format!("/kubepods/pod{i}");
        let start = base::time::instant();
        node.engine().run_pod_sandbox(config).await.expect("run");
        sandboxes.push(start.elapsed());
    }
    for pid in shims(node.dir.path().to_str().expect("text")).into_iter().take(2) {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("memory");
        println!("shim {}", rollup.lines().find(|l| l.starts_with("Pss:")).unwrap_or_default());
    }
    let first = (sandboxes[0], times[0]);
    times.sort();
    sandboxes.sort();
    println!("sandbox: first {:?}, median {:?}", first.0, sandboxes[5]);
    println!("create and start (of which create): first {:?}, median {:?}", first.1, times[25]);
    node.finish().await;
}
