//! Fields of pods that no row of the conformance list asks for, on a node as users have it.

use serde_json::{Value, json};

use crate::cluster::{Row, Space, carry_out, once, row, shell, with_volumes};

fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// One list of processes, whose first takes in orphans; a container added later sees it too.
fn shared_processes(space: &Space<'_>) {
    let mut spec = once(vec![shell("a", "exec sleep 1001"), shell("b", "exec sleep 1002")]);
    spec["shareProcessNamespace"] = true.into();
    space.pod("p", spec);
    space.ready("p");
    // Ready says that they run, not that the shell has made way for the program.
    let look = "until grep -q ^sleep.1001 /proc/[0-9]*/cmdline && grep -q ^sleep.1002 /proc/[0-9]*/cmdline; do sleep 0.1; done; for p in /proc/[0-9]*; do line=$(tr '\\0' ' ' < $p/cmdline); echo $line; [ \"$line\" != 'sleep 1001 ' ] || kill -9 ${p#/proc/}; done";
    let debug = json!({ "spec": { "ephemeralContainers": [shell("debug", look)] } });
    let path = format!("{}/p/ephemeralcontainers", space.path("pods"));
    space.cluster.ask("PATCH", &path, Some(("application/strategic-merge-patch+json", &debug)));
    space.wait("pods", "p", "to be looked into", |p| {
        p["status"]["ephemeralContainerStatuses"][0]["state"].get("terminated").is_some()
    });
    let said = space.log("p", "debug");
    let lines: Vec<&str> = said.lines().map(str::trim_end).collect();
    assert_eq!(lines[0], "/pause");
    assert!(lines.contains(&"sleep 1001") && lines.contains(&"sleep 1002"), "{said}");
    space.wait("pods", "p", "to lose one that was killed", |p| {
        let all = p["status"]["containerStatuses"].as_array().expect("statuses");
        all.iter().any(|c| c["state"].get("terminated").is_some())
    });
}

/// More of everything without a restart, too much refused in words, and a restart where that is asked for.
fn resize(space: &Space<'_>) {
    let mut container = shell("c", "exec sleep 1000");
    container["resources"] =
        json!({ "requests": { "cpu": "50m", "memory": "16Mi" }, "limits": { "memory": "32Mi" } });
    container["resizePolicy"] = json!([{ "resourceName": "memory", "restartPolicy": "RestartContainer" }]);
    space.pod("p", json!({ "terminationGracePeriodSeconds": 1, "containers": [container] }));
    space.ready("p");
    let change = |list: &str, name: &str, amount: &str| {
        let patch =
            json!({ "spec": { "containers": [{ "name": "c", "resources": { list: { name: amount } } }] } });
        let path = format!("{}/p/resize", space.path("pods"));
        space.cluster.ask("PATCH", &path, Some(("application/strategic-merge-patch+json", &patch)));
    };
    change("requests", "cpu", "70m");
    let given = |p: &Value, cpu: &str| {
        status(p)["resources"]["requests"]["cpu"] == cpu && status(p)["allocatedResources"]["cpu"] == cpu
    };
    let pod = space.wait("pods", "p", "to have more", |p| given(p, "70m"));
    assert_eq!(status(&pod)["restartCount"], 0);
    change("limits", "memory", "48Mi");
    space.wait("pods", "p", "to be restarted", |p| {
        status(p)["restartCount"] == 1 && status(p)["resources"]["limits"]["memory"] == "48Mi"
    });
    change("requests", "cpu", "9000");
    let pod = space.wait("pods", "p", "to hear that this cannot be", |p| {
        let all = p["status"]["conditions"].as_array().expect("conditions");
        all.iter().any(|c| c["type"] == "PodResizePending" && c["reason"] == "Infeasible")
    });
    assert!(given(&pod, "70m"), "{pod:#}");
}

/// What fills the disk beyond its limit is ended, and says so.
fn eviction(space: &Space<'_>) {
    let script = "dd if=/dev/zero of=/v/d/file bs=1M count=3 2>/dev/null; exec sleep 1000";
    let volume = json!({ "name": "d", "emptyDir": { "sizeLimit": "1Mi" } });
    space.pod("p", with_volumes(once(vec![shell("c", script)]), &[volume]));
    let pod = space.ended("p");
    assert_eq!(pod["status"]["reason"], "Evicted");
    assert_eq!(pod["status"]["message"], "Usage of EmptyDir volume \"d\" exceeds the limit \"1Mi\". ");
}

/// A sidecar is ready before the others start, is started again, and ends after them without holding them up.
fn sidecars(space: &Space<'_>) {
    let serve = "trap 'echo bye; exit 0' TERM; mkdir /www; touch /www/index.html; httpd -p 8080 -h /www; while :; do sleep 0.05; done";
    let mut sidecar = shell("side", serve);
    sidecar["restartPolicy"] = "Always".into();
    sidecar["startupProbe"] =
        json!({ "httpGet": { "port": 8080 }, "periodSeconds": 1, "failureThreshold": 30 });
    let mut spec = once(vec![shell("c", "wget -q -O /dev/null http://127.0.0.1:8080/x; echo served $?")]);
    spec["terminationGracePeriodSeconds"] = 60.into();
    spec["initContainers"] = json!([sidecar]);
    assert!(space.output("p", spec).contains("served 1"), "404, so somebody answers");
    assert!(space.log("p", "side").contains("bye"));
}

/// A container's own rules for its exit codes.
fn restart_rules(space: &Space<'_>) {
    let mut spec = with_volumes(
        once(vec![shell("c", "echo x >> /v/d/runs; [ $(wc -l < /v/d/runs) -ge 2 ] || exit 42")]),
        &[json!({ "name": "d", "emptyDir": {} })],
    );
    let container = &mut spec["containers"][0];
    container["restartPolicy"] = "Never".into();
    container["restartPolicyRules"] =
        json!([{ "action": "Restart", "exitCodes": { "operator": "In", "values": [42] } }]);
    space.pod("p", spec);
    let pod = space.ended("p");
    assert_eq!((&pod["status"]["phase"], &status(&pod)["restartCount"]), (&json!("Succeeded"), &json!(1)));
}

#[test]
fn less_usual_fields() {
    let rows: [Row<'_>; 5] = [
        row("shared processes", shared_processes),
        row("resize", resize),
        row("eviction", eviction),
        row("sidecars", sidecars),
        row("restart rules", restart_rules),
    ];
    carry_out(&rows);
}
