//! `kill -9` of everything but the pods, of the server alone and of the node alone, during writes, twenty times: nothing
//! acknowledged is lost, no pod notices, no line of a log is missing.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api::Proxy;
use crate::host::Host;
use crate::node::{Node, PATIENCE, TIMEOUT, WEB};

const KILLS: usize = 20;
/// How many writes must be acknowledged between the first start and the next kill; more after each.
const WRITES: usize = 8;
const CHURN: &str = "/apis/apps/v1/namespaces/default/deployments/churn";
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// How long a pod may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// Between two requests to a pod, so that this test does not take the machine for itself.
const PACE: Duration = Duration::from_millis(5);
/// The two pods of [`WEB`] answer; `numbers` counts in its log; those of `churn` come and go.
const PODS: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: numbers, labels: {app: numbers}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, 'n=0; while :; do for i in 0 1 2 3 4 5 6 7 8 9; do echo $n; n=$((n+1)); done; sleep 0.05; done']
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: churn}
spec:
  replicas: 0
  selector: {matchLabels: {app: churn}}
  template:
    metadata: {labels: {app: churn}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: churn, image: wardviaene/k8s-demo}]
"#;

/// What was written, as far as the server acknowledged it.
#[derive(Default)]
struct Written {
    /// Of each object the value acknowledged last (none: deleted), and those that may be there instead.
    objects: BTreeMap<String, (Option<u64>, Vec<Option<u64>>)>,
    acknowledged: usize,
    /// The revision of the last write.
    revision: u64,
}

#[test]
fn nothing_is_lost_and_no_pod_notices_when_everything_is_killed() {
    let Some(mut node) = Node::with_busybox() else { return };
    let host = Host::count(&node);
    node.import_image();
    node.up();
    node.create(WEB);
    node.create(PODS);
    node.kubectl_ok(&["rollout", "status", "deployment/web", TIMEOUT]);
    node.kubectl_ok(&["wait", "pod/numbers", "--for=condition=Ready", TIMEOUT]);
    let before = containers(&node);
    assert_eq!(before.len(), 3);
    let service = node.get(&["service", "web"])["spec"]["clusterIP"].as_str().expect("an address").to_owned();
    let pods: Vec<SocketAddr> = before
        .iter()
        .filter(|(name, _)| name.starts_with("web-"))
        .map(|(_, (ip, ..))| format!("{ip}:3000").parse().expect("an address"))
        .collect();
    let service: SocketAddr = format!("{service}:80").parse().expect("an address");

    // That its pods are ready does not say that the Service's rules know it.
    until_served(&node, service);
    let proxy = Proxy::start(&node);
    let (written, acknowledged) = (Mutex::new(Written::default()), Condvar::new());
    let (end, answers) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let place = node.place();
        let (written, acknowledged, proxy, end, answers) = (&written, &acknowledged, &proxy, &end, &answers);
        scope.spawn(move || write(proxy, written, acknowledged, end));
        let asking: Vec<_> = pods
            .iter()
            .map(|pod| (*pod, true))
            .chain([(service, false)])
            .map(|(to, keep)| scope.spawn(move || ask(place, to, keep, answers, end)))
            .collect();
        // Whatever fails: the others must end, or the scope never does.
        let all_killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..KILLS {
                kill_during_writes(&mut node, round, proxy, written, acknowledged);
            }
            node.up();
        }));
        end.store(true, Ordering::Relaxed);
        for asked in asking {
            asked.join().expect("a pod answers all the time");
        }
        if let Err(panic) = all_killed {
            std::panic::resume_unwind(panic);
        }
    });

    proxy.wait_ready();
    nothing_is_lost(&proxy, &written.into_inner().expect("the writer did not panic"));
    node.kubectl_ok(&["wait", "deployment/web", "--for=condition=Available", TIMEOUT]);
    node.kubectl_ok(&["wait", "node/n1", "--for=condition=Ready", TIMEOUT]);
    assert_eq!(containers(&node), before);
    no_line_is_lost(&node);
    what_came_and_went_is_whole(&node, before.len());
    let answers = answers.load(Ordering::Relaxed);
    assert!(answers > 1000, "only {answers} requests were answered");
    eprintln!("{answers} requests answered through {KILLS} kills");
    drop(proxy);
    node.down();
    Host::count(&node).assert_as(&host, "after many kills and `down`");
}

/// Starts the cluster (it runs in the first round), waits for writes, and kills it or one of its two processes: every
/// fourth time while it still starts, and while pods come and go.
fn kill_during_writes(
    node: &mut Node,
    round: usize,
    proxy: &Proxy,
    written: &Mutex<Written>,
    acknowledged: &Condvar,
) {
    match round {
        0 => {}
        _ if round % 4 == 3 => node.up_until("API server"),
        _ => node.up(),
    }
    proxy.wait_ready();
    let replicas = json!({ "spec": { "replicas": round % 3 } });
    let scaled = proxy.request("PATCH", CHURN, Some(("application/merge-patch+json", &replicas)));
    assert!(matches!(scaled, Some((200, _))), "{scaled:?}");
    let guard = written.lock().expect("the writer did not panic");
    // More each time, so that the end comes at different moments of the pods' lives.
    let enough = guard.acknowledged + WRITES * (round + 1);
    let (guard, waited) = acknowledged
        .wait_timeout_while(guard, PATIENCE, |w| w.acknowledged < enough)
        .expect("the writer did not panic");
    assert!(!waited.timed_out(), "no write was acknowledged after kill {round}");
    drop(guard);
    match round % 4 {
        1 => node.kill_one("server"),
        2 => node.kill_one("node"),
        _ => node.kill(),
    }
}

/// Creates, changes and deletes objects, and notes what was acknowledged.
fn write(proxy: &Proxy, written: &Mutex<Written>, acknowledged: &Condvar, end: &AtomicBool) {
    for n in 0_u64.. {
        if end.load(Ordering::Relaxed) {
            return;
        }
        let name = format!("w{n}");
        let path = format!("{CONFIG_MAPS}/{name}");
        let object = |value: u64| json!({ "metadata": { "name": name }, "data": { "n": value.to_string() } });
        let note = |value: Option<u64>, answer: Option<(u16, Value)>| {
            let mut written = written.lock().expect("nobody panics holding it");
            let entry = written.objects.entry(name.clone()).or_default();
            let Some((200 | 201, answer)) = answer else {
                entry.1.push(value);
                return false;
            };
            *entry = (value, Vec::new());
            if value.is_some() {
                let revision = answer["metadata"]["resourceVersion"].as_str().and_then(|r| r.parse().ok());
                let revision: u64 = revision.expect("an object has a revision");
                assert!(revision > written.revision, "revision {revision} after {}", written.revision);
                written.revision = revision;
            }
            written.acknowledged += 1;
            acknowledged.notify_all();
            true
        };
        if !note(Some(1), proxy.request("POST", CONFIG_MAPS, Some(("application/json", &object(1))))) {
            // Nobody is there; the next try is soon enough.
            std::thread::sleep(PACE);
            continue;
        }
        if n % 2 == 0 {
            let patch = ("application/merge-patch+json", &object(2));
            note(Some(2), proxy.request("PATCH", &path, Some(patch)));
        }
        if n % 5 == 0 {
            note(None, proxy.request("DELETE", &path, None));
        }
    }
}

fn nothing_is_lost(proxy: &Proxy, written: &Written) {
    let (status, list) = proxy.request("GET", CONFIG_MAPS, None).expect("a list");
    assert_eq!(status, 200);
    let items = list["items"].as_array().expect("items");
    let value = |item: &Value| item["data"]["n"].as_str().and_then(|n| n.parse::<u64>().ok());
    let there: BTreeMap<&str, Option<u64>> =
        items.iter().filter_map(|i| Some((i["metadata"]["name"].as_str()?, value(i)))).collect();
    assert!(written.acknowledged >= KILLS * WRITES);
    let wrong: Vec<String> = written
        .objects
        .iter()
        .filter_map(|(name, (acknowledged, perhaps))| {
            let is = there.get(name.as_str()).copied().flatten();
            let right = is == *acknowledged || perhaps.contains(&is);
            (!right).then(|| format!("{name} is {is:?}; acknowledged {acknowledged:?}, perhaps {perhaps:?}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} of {} objects: {}", wrong.len(), written.objects.len(), wrong.join("\n"));
}

/// The log of the pod that counts has every number once and in order, in its file and as kubectl shows it, and goes on.
fn no_line_is_lost(node: &Node) {
    let logs = ["logs", "--follow", "numbers"];
    let last = |line: &str| line.parse::<u64>().expect("a number");
    let now = last(&node.follow(&[&logs[..], &["--tail=1"]].concat(), |_| true));
    node.follow(&logs, |line| last(line) > now + 100);
    let shown = node.kubectl_ok(&["logs", "numbers"]);
    let pod = node.get(&["pod", "numbers"]);
    let uid = pod["metadata"]["uid"].as_str().expect("a uid");
    let path = node.path(&format!("log/pods/default_numbers_{uid}/c/0.log"));
    let file = std::fs::read_to_string(path).expect("the log");
    // A time, the stream, whether the line is whole, and the line.
    let in_file: Vec<&str> =
        file.lines().map(|line| line.split_once(" stdout F ").expect("a whole line").1).collect();
    for (what, lines) in [("kubectl", shown.lines().collect()), ("the file", in_file)] {
        assert!(lines.len() as u64 > now + 100, "{what}: {} lines", lines.len());
        let wrong = lines.iter().enumerate().find(|(n, line)| **line != n.to_string());
        assert_eq!(wrong, None, "{what}: a line and what it says");
    }
}

/// The deployment whose pods came and went has what it asks for, and nothing else of it runs.
fn what_came_and_went_is_whole(node: &Node, others: usize) {
    node.kubectl_ok(&["scale", "deployment/churn", "--replicas=3"]);
    node.kubectl_ok(&["rollout", "status", "deployment/churn", TIMEOUT]);
    node.kubectl_ok(&["scale", "deployment/churn", "--replicas=0"]);
    node.kubectl_ok(&["wait", "--for=delete", "pods", "--selector=app=churn", TIMEOUT]);
    let running = Host::count(node);
    assert_eq!(running.shims(), others, "{running:#?}");
}

/// Of each pod: address, container, since when it runs, how often it was started again.
fn containers(node: &Node) -> BTreeMap<String, (String, String, String, u64)> {
    let pods = node.get(&["pods", "--selector=app in (web, numbers)"]);
    let one = |pod: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = &pod["status"]["containerStatuses"][0];
        let started = text(&status["state"]["running"]["startedAt"]);
        let restarts = status["restartCount"].as_u64().expect("a count");
        assert_eq!(restarts, 0, "{pod}");
        assert!(!started.is_empty(), "{pod}");
        let seen = (text(&pod["status"]["podIP"]), text(&status["containerID"]), started, restarts);
        (text(&pod["metadata"]["name"]), seen)
    };
    pods["items"].as_array().expect("items").iter().map(one).collect()
}

/// Waits until an address answers.
fn until_served(node: &Node, to: SocketAddr) {
    let until = base::time::instant() + PATIENCE;
    let trying = || {
        node.enter_network();
        while let Err(err) = TcpStream::connect_timeout(&to, ANSWER_MAX) {
            assert!(base::time::instant() < until, "{to} is not served: {err}");
            std::thread::yield_now();
        }
    };
    std::thread::scope(|scope| scope.spawn(trying).join().expect("the Service is served"));
}

/// Asks a pod again and again until the `end`: over one connection if `keep`, else over a new one each time.
fn ask(place: u32, to: SocketAddr, keep: bool, answers: &AtomicU64, end: &AtomicBool) {
    let net = std::fs::File::open(format!("/proc/{place}/ns/net")).expect("the namespace");
    nix::sched::setns(net, nix::sched::CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
    let connect = || {
        let stream =
            TcpStream::connect_timeout(&to, ANSWER_MAX).unwrap_or_else(|e| panic!("connect to {to}: {e}"));
        stream.set_read_timeout(Some(ANSWER_MAX)).expect("a limit");
        BufReader::new(stream)
    };
    let mut stream = connect();
    while !end.load(Ordering::Relaxed) {
        let answer = get(&mut stream).unwrap_or_else(|e| panic!("ask {to}: {e}"));
        assert!(answer.starts_with("Hello World!"), "{to} answered {answer}");
        answers.fetch_add(1, Ordering::Relaxed);
        std::thread::sleep(PACE);
        if !keep {
            stream = connect();
        }
    }
}

/// One request over a connection that stays open.
fn get(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(std::io::Error::other("the connection was closed"));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(std::io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
