//! Streams, as people use them: stock kubectl's exec, attach, run, cp and port-forward, over SPDY and WebSocket.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::node::{Node, TIMEOUT, line, text};

/// Where several versions of kubectl are, on machines that have them: up to 1.30 they speak SPDY, then WebSocket.
const VERSIONS: &str = "/usr/lib/google-cloud-sdk/bin";
/// A pod with one server on all addresses and one on its own loopback.
const WEB: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"busybox:1","imagePullPolicy":"Never","ports":[{"containerPort":8080}],
    "command":["sh","-c","mkdir /www; echo hello > /www/index.html; httpd -p 127.0.0.1:8081 -h /www; exec httpd -f -p 8080 -h /www"],
    "readinessProbe":{"httpGet":{"path":"/","port":8080},"periodSeconds":1}}]}}"#;
/// A pod that says what it is told.
const ECHO: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"echo"},"spec":{"terminationGracePeriodSeconds":0,
    "containers":[{"name":"c","image":"busybox:1","imagePullPolicy":"Never","stdin":true,"stdinOnce":true,
    "command":["sh","-c","while read line; do echo got $line; done; echo over"]}],"restartPolicy":"Never"}}"#;

/// A client and the protocol that it is made to speak.
struct Client<'a> {
    node: &'a Node,
    program: PathBuf,
    websocket: bool,
}

impl Client<'_> {
    /// One for each protocol.
    fn all(node: &Node) -> Vec<Client<'_>> {
        let version = |name: &str| Path::new(VERSIONS).join(name);
        let usual =
            |name: &str| if version(name).exists() { version(name) } else { PathBuf::from("kubectl") };
        vec![
            Client { node, program: usual("kubectl.1.27"), websocket: false },
            Client { node, program: usual("kubectl.1.33"), websocket: false },
            Client { node, program: usual("kubectl.1.33"), websocket: true },
        ]
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.node.command(&self.program);
        for protocol in ["KUBECTL_REMOTE_COMMAND_WEBSOCKETS", "KUBECTL_PORT_FORWARD_WEBSOCKETS"] {
            command.env(protocol, self.websocket.to_string());
        }
        command.args(arguments);
        command
    }

    /// Runs to the end with `input`.
    fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut command = self.command(arguments);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().expect("kubectl");
        let mut stdin = child.stdin.take().expect("it is piped");
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A command may end before it has read everything.
                drop(stdin.write_all(input));
            });
            child.wait_with_output().expect("kubectl")
        })
    }

    /// Runs to the end; must succeed. Gives what it says.
    fn ok(&self, arguments: &[&str], input: &[u8]) -> String {
        let out = self.run(arguments, input);
        assert!(out.status.success(), "kubectl {arguments:?}: {}{}", text(&out.stdout), text(&out.stderr));
        text(&out.stdout)
    }

    fn name(&self) -> String {
        let program = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        format!("{program}-{}", if self.websocket { "websocket" } else { "spdy" })
    }
}

fn started() -> Option<Node> {
    let mut node = Node::with_busybox()?;
    node.up();
    Some(node)
}

fn create(node: &Node, name: &str, pod: &str) {
    node.create(pod);
    node.kubectl_ok(&["wait", "--for=condition=Ready", TIMEOUT, &format!("pod/{name}")]);
}

#[test]
fn commands_with_streams_exit_codes_and_a_terminal() {
    let Some(mut node) = started() else { return };
    create(&node, "web", WEB);
    let much: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for client in Client::all(&node) {
        let out = client.run(&["exec", "web", "--", "sh", "-c", "echo out; echo err >&2; exit 3"], b"");
        assert_eq!((out.status.code(), text(&out.stdout).as_str()), (Some(3), "out\n"), "{}", client.name());
        assert_eq!(text(&out.stderr), "err\ncommand terminated with exit code 3\n");
        let out = client.run(&["exec", "-i", "web", "--", "cat"], &much);
        assert!(out.status.success() && out.stdout == much, "{}: {} bytes", client.name(), out.stdout.len());
        // What it has not read is no trouble when it ends.
        assert_eq!(client.ok(&["exec", "-i", "web", "--", "head", "-c", "3"], &much), text(&much[..3]));
        let failed = client.run(&["exec", "web", "--", "nonsense"], b"");
        assert!(
            text(&failed.stderr).contains("executable file not found in $PATH"),
            "{}",
            text(&failed.stderr)
        );
        let failed = client.run(&["exec", "web", "-c", "other", "--", "true"], b"");
        assert!(text(&failed.stderr).contains("container other is not valid for pod web"));

        let command = format!("stty cols 101 rows 33; {} exec -it web -- sh", client.program.display());
        let mut script = node.command("script");
        script.args(["-qec", &command, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        script.env("KUBECTL_REMOTE_COMMAND_WEBSOCKETS", client.websocket.to_string());
        let mut child = script.spawn().expect("script");
        let mut out = child.stdout.take().expect("it is piped");
        let mut stdin = child.stdin.take().expect("it is piped");
        // The shell's question where the cursor is says that it reads.
        let (mut said, mut byte) = (Vec::new(), [0]);
        while !said.ends_with(b"# ") && !said.ends_with(b"\x1b[6n") {
            assert_eq!(out.read(&mut byte).expect("read"), 1, "{}", text(&said));
            said.push(byte[0]);
        }
        // The size may come after the shell: the window is told of on a stream of its own.
        let sized = b"n=0; until [ \"$(stty size)\" = '33 101' ] || [ $n = 600 ]; do sleep 0.1; n=$((n+1)); done; stty size; tty; exit 5\n";
        stdin.write_all(sized).expect("write");
        out.read_to_end(&mut said).expect("read");
        drop(stdin);
        assert_eq!(child.wait().expect("script").code(), Some(5), "{}", text(&said));
        assert!(text(&said).contains("33 101\r\n/dev/pts/"), "{}", text(&said));
    }
    node.down();
}

#[test]
fn proxies_of_pods_services_and_nodes() {
    let Some(mut node) = started() else { return };
    create(&node, "web", WEB);
    let script = r#"mkdir -p /www/sub /www/cgi-bin; echo '<a href="/sub/x">x</a>' > /www/page.html
        printf '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n"; echo $REQUEST_METHOD $QUERY_STRING; cat' > /www/cgi-bin/ask
        chmod +x /www/cgi-bin/ask"#;
    node.kubectl_ok(&["exec", "web", "--", "sh", "-c", script]);
    node.kubectl_ok(&["label", "pod", "web", "app=web"]);
    node.kubectl_ok(&["expose", "pod", "web", "--port=80", "--target-port=8080"]);
    let service = "services/http:web:80";
    node.watch(&["endpoints", "web"], |line| line.contains(":8080"));
    let at = |path: &str| format!("/api/v1/namespaces/default/{path}");
    let get = |path: &str| node.kubectl_ok(&["get", "--raw", &at(path)]);
    for what in ["pods/web", "pods/web:8080", "pods/http:web:8080", service, "services/web:80"] {
        assert_eq!(get(&format!("{what}/proxy/")), "hello\n", "{what}");
        // The redirect to the path with its slash is followed.
        assert_eq!(get(&format!("{what}/proxy")), "hello\n", "{what}");
        let link = format!("<a href=\"{}\">x</a>\n", at(&format!("{what}/proxy/sub/x")));
        assert_eq!(get(&format!("{what}/proxy/page.html")), link);
        // kubectl adds how long it waits.
        let said = get(&format!("{what}/proxy/cgi-bin/ask?a=b&c=d"));
        assert!(said.starts_with("GET a=b&c=d"), "{said}");
    }
    let body = node.path("body");
    std::fs::write(&body, "sent").expect("write");
    let sent =
        ["create", "--raw", &at(&format!("{service}/proxy/cgi-bin/ask?q")), "-f", &body.to_string_lossy()];
    let said = node.kubectl_ok(&sent);
    assert!(said.starts_with("POST q") && said.ends_with("\nsent"), "{said}");
    for (path, words) in [
        ("pods/web:9/proxy/", "error trying to reach service: dial"),
        ("services/web:81/proxy/", "no service port 81 found for service \"web\""),
        ("services/web:http/proxy/", "no endpoints available for service"),
        ("services/ftp:web:80/proxy/", "invalid service request \"ftp:web:80\""),
        ("pods/none/proxy/", "pods \"none\" not found"),
    ] {
        let said = node.kubectl_refused(&["get", "--raw", &at(path)]);
        assert!(said.contains(words), "{path}: {said}");
    }
    assert_eq!(node.kubectl_ok(&["get", "--raw", "/api/v1/nodes/n1/proxy/healthz"]), "ok");
    assert!(node.kubectl_ok(&["get", "--raw", "/api/v1/nodes/n1:10250/proxy/pods"]).contains("\"PodList\""));
    node.down();
}

#[test]
fn attached_copied_and_forwarded() {
    let Some(mut node) = started() else { return };
    create(&node, "web", WEB);
    for (i, client) in Client::all(&node).into_iter().enumerate() {
        create(&node, "echo", ECHO);
        let out = client.ok(&["attach", "-i", "echo"], b"one\ntwo\n");
        assert_eq!(out, "got one\ngot two\nover\n", "{}", client.name());
        node.kubectl_ok(&["delete", "pod", "echo"]);
        let run = [
            "run",
            "once",
            "-q",
            "-i",
            "--rm",
            "--restart=Never",
            "--image=busybox:1",
            "--image-pull-policy=Never",
            "--command",
        ];
        let said = client.ok(&[&run[..], &["--", "sh", "-c", "read line; echo got $line"]].concat(), b"me\n");
        assert_eq!(said, "got me\n", "{}", client.name());

        let (from, back) = (node.path(&format!("from{i}")), node.path(&format!("back{i}")));
        std::fs::create_dir(&from).expect("a directory");
        std::fs::write(from.join("file"), vec![b'x'; 3_000_000]).expect("write");
        let there = format!("web:/tmp/there{i}");
        client.ok(&["cp", &from.to_string_lossy(), &there], b"");
        client.ok(&["cp", &there, &back.to_string_lossy()], b"");
        assert_eq!(std::fs::read(back.join("file")).expect("it came back").len(), 3_000_000);

        for port in ["8080", "8081"] {
            let mut command = client.command(&["port-forward", "pod/web", &format!(":{port}")]);
            let mut child = command.stdout(Stdio::piped()).spawn().expect("kubectl");
            let mut out = child.stdout.take().expect("it is piped");
            let first = line(&mut out, &mut String::new()).expect("where it listens");
            let local = first.split_whitespace().nth(2).expect("an address");
            for _ in 0..3 {
                let got = node.ok("busybox", &["wget", "-q", "-O", "-", &format!("http://{local}/")]);
                assert_eq!(got, "hello\n", "{} {port}", client.name());
            }
            child.kill().and_then(|()| child.wait()).expect("end kubectl");
        }
    }
    node.down();
}
