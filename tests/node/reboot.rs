//! A reboot: of the node only its disk is left. Sandboxes are made anew, what should run runs again, the rest stays ended.

use serde_json::Value;

use crate::host::Host;
use crate::node::{Node, TIMEOUT, WEB, kill_process, wait_gone};

/// One that has ended.
const DONE: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: done}
spec:
  restartPolicy: Never
  containers: [{name: done, image: wardviaene/k8s-demo, command: [/keelson, --version]}]
"#;

#[test]
fn a_reboot_rebuilds_what_should_run() {
    let Some(mut node) = Node::new() else { return };
    let host = Host::count(&node);
    node.import_image();
    node.up();
    node.create(WEB);
    node.create(DONE);
    node.kubectl_ok(&["rollout", "status", "deployment/web", TIMEOUT]);
    node.kubectl_ok(&["wait", "pod/done", "--for=jsonpath={.status.phase}=Succeeded", TIMEOUT]);
    let before = containers(&node);
    let log = node.kubectl_ok(&["logs", "done"]);

    node.kill();
    lose_all_but_the_disk(&node);
    node.up();
    // What the API still says is from before: new runs are what counts.
    for (pod, id, _) in &before {
        let again = "--for=jsonpath={.status.containerStatuses[0].restartCount}=1";
        node.kubectl_ok(&["wait", &format!("pod/{pod}"), again, TIMEOUT]);
        node.kubectl_ok(&["wait", &format!("pod/{pod}"), "--for=condition=Ready", TIMEOUT]);
        assert!(containers(&node).iter().all(|(_, now, _)| now != id), "a container of before");
    }
    let after = containers(&node);
    let names = |all: &[(String, String, u64)]| all.iter().map(|(name, ..)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "the pods are the same");
    assert!(after.iter().all(|(_, _, restarts)| *restarts == 1), "{after:?}");
    let done = node.get(&["pod", "done"]);
    assert_eq!(
        (&done["status"]["phase"], &done["status"]["containerStatuses"][0]["restartCount"]),
        (&"Succeeded".into(), &0.into())
    );
    assert_eq!(node.kubectl_ok(&["logs", "done"]), log, "the log of what had ended is there");
    node.kubectl_ok(&["rollout", "restart", "deployment/web"]);
    node.kubectl_ok(&["rollout", "status", "deployment/web", TIMEOUT]);
    node.down();
    Host::count(&node).assert_as(&host, "after a reboot and `down`");
}

/// Of each pod that serves: its name, its container, how often that was started again.
fn containers(node: &Node) -> Vec<(String, String, u64)> {
    let pods = node.get(&["pods", "--selector=app=web"]);
    let one = |pod: &Value| {
        let status = &pod["status"]["containerStatuses"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&pod["metadata"]["name"]),
            text(&status["containerID"]),
            status["restartCount"].as_u64().unwrap_or(0),
        )
    };
    pods["items"].as_array().expect("items").iter().map(one).collect()
}

/// Ends all processes, and takes away what the kernel has of the node and what is in memory only.
fn lose_all_but_the_disk(node: &Node) {
    for process in Host::count(node).process_ids() {
        kill_process(process);
        wait_gone(process);
    }
    let (run, own) = (node.path("run"), node.path(""));
    let own = own.to_string_lossy();
    let script = format!(
        "for m in $(cut -d' ' -f5 /proc/self/mountinfo | grep '^{own}' | sort -r); do umount -l $m; done
         ip link del keelson0; nft flush ruleset
         find /sys/fs/cgroup/ -depth -type d -path '*{}*' -exec rmdir {{}} \\;
         rm -rf {}",
        node.cgroups,
        run.display()
    );
    node.ok("sh", &["-c", &script]);
}
