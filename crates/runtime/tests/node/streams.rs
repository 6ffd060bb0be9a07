//! Commands' and containers' streams, terminals, and connections into a pod's network.

use std::time::Duration;

use runtime::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Node, PATIENCE, shell};

const ALL: StreamOptions = StreamOptions { stdin: true, stdout: true, stderr: true, tty: false };
const TTY: StreamOptions = StreamOptions { stderr: false, tty: true, ..ALL };

async fn in_time<T>(what: impl Future<Output = T>) -> T {
    base::time::timeout(PATIENCE, what).await.expect("it takes too long")
}

async fn read(from: &mut Option<Output>) -> String {
    let mut out = Vec::new();
    in_time(from.as_mut().expect("a stream").read_to_end(&mut out)).await.expect("read");
    String::from_utf8(out).expect("text")
}

/// Reads until `what` has come.
async fn read_until(from: &mut Option<Output>, what: &str) -> String {
    let (mut out, mut buffer) = (String::new(), [0; 1024]);
    while !out.contains(what) {
        let n = in_time(from.as_mut().expect("a stream").read(&mut buffer)).await.expect("read");
        assert!(n > 0, "it ended with {out:?}");
        out.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    out
}

fn command(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).to_vec()
}

fn processes(marker: &str) -> usize {
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let line = |e: std::fs::DirEntry| std::fs::read(e.path().join("cmdline")).unwrap_or_default();
    all.filter(|e| e.file_name().to_string_lossy().parse::<u32>().is_ok())
        .map(line)
        .filter(|line| String::from_utf8_lossy(line).contains(marker))
        .count()
}

#[tokio::test]
async fn a_command_has_streams_and_an_exit_code() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let id = node.start(&sandbox, shell("sleep 1000")).await;
    let mut s = node.engine().exec(&id, command("cat; echo err >&2; exit 3"), ALL).await.expect("exec");
    let mut stdin = s.stdin.take().expect("an input");
    // Far more than any pipe holds: whoever does not read holds the other up.
    let sent: Vec<u8> = (0..20_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let copy = sent.clone();
    let writing = base::task::spawn(async move { stdin.write_all(&copy).await });
    let mut got = Vec::new();
    in_time(s.stdout.as_mut().expect("a stream").read_to_end(&mut got)).await.expect("read");
    in_time(writing).await.expect("write");
    assert!(got == sent, "{} of {} bytes came back, or others", got.len(), sent.len());
    assert_eq!(read(&mut s.stderr).await, "err\n");
    assert_eq!(in_time(s.exit).await.expect("an exit code"), 3);

    // What is left behind and holds the output open keeps nobody waiting.
    let wants = StreamOptions { stdin: false, ..ALL };
    let mut s = node.engine().exec(&id, command("sleep 1000 & echo done"), wants).await.expect("exec");
    assert_eq!((s.stdin.is_none(), read(&mut s.stdout).await.as_str()), (true, "done\n"));
    let failed = node.engine().exec(&id, vec!["nonsense".into()], ALL).await.err().expect("no such program");
    assert!(failed.to_string().contains("executable file not found in $PATH"), "{failed}");
    node.engine().stop_container(&id, Duration::ZERO).await.expect("stop");
    let failed = node.engine().exec(&id, command("true"), ALL).await.err().expect("it has ended");
    assert!(matches!(failed, Error::State { .. }), "{failed}");
    node.finish().await;
}

#[tokio::test]
async fn a_terminal_is_the_containers_own() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let mut config = shell("sleep 1000");
    config.linux.security_context.run_as_user = Some(1234);
    let id = node.start(&sandbox, config).await;
    let script = "readlink /proc/self/fd/0; stat -c %u /dev/pts/0; echo $TERM; read line; stty size; echo got $line > /dev/stdout; exit 4";
    let mut s = node.engine().exec(&id, command(script), TTY).await.expect("exec");
    read_until(&mut s.stdout, "xterm\r\n").await;
    (s.resize.as_ref().expect("a terminal"))(132, 43);
    s.stdin.as_mut().expect("an input").write_all(b"hello\r").await.expect("write");
    let said = read(&mut s.stdout).await;
    assert_eq!(said, "hello\r\n43 132\r\ngot hello\r\n");
    assert_eq!(in_time(s.exit).await.expect("an exit code"), 4);
    node.finish().await;
}

#[tokio::test]
async fn commands_end_with_who_started_them() {
    let Some((mut node, sandbox)) = Node::with_sandbox().await else { return };
    let id = node.start(&sandbox, shell("sleep 1000")).await;
    let marker = format!("{}", 1_000_000_000 + base::rand::u64() % 1_000_000_000);
    let sleeping = command(&format!("echo here; sleep {marker}; true"));
    let mut s = node.engine().exec(&id, sleeping.clone(), ALL).await.expect("exec");
    read_until(&mut s.stdout, "here").await;
    assert!(processes(&marker) > 0);
    drop(s);
    let gone = async {
        while processes(&marker) > 0 {
            base::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time(gone).await;
    // The kernel's own way to say that a terminal is gone does the same.
    let mut s = node.engine().exec(&id, sleeping, TTY).await.expect("exec");
    read_until(&mut s.stdout, "here").await;
    node.engine = None;
    drop(s);
    node.open().await;
    in_time(async {
        while processes(&marker) > 0 {
            base::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    node.finish().await;
}

#[tokio::test]
async fn attached_to_a_running_container() {
    let Some((mut node, sandbox)) = Node::with_sandbox().await else { return };
    let script = "while read line; do echo said $line; echo err >&2; done; echo end";
    let kept = ContainerConfig { stdin: true, ..shell(script) };
    let id = node.start(&sandbox, kept).await;
    for turn in ["one", "two"] {
        let mut s = node.engine().attach(&id, ALL).await.expect("attach");
        let mut other = node.engine().attach(&id, ALL).await.expect("attach");
        s.stdin.as_mut().expect("an input").write_all(format!("{turn}\n").as_bytes()).await.expect("write");
        read_until(&mut s.stdout, &format!("said {turn}\n")).await;
        read_until(&mut s.stderr, "err\n").await;
        read_until(&mut other.stdout, &format!("said {turn}\n")).await;
        // The engine's end is no end of the input: it stays open.
        node.engine = None;
        node.open().await;
    }
    node.logged(&id, "said two").await;
    assert_eq!(node.engine().container_status(&id).await.expect("status").state, ContainerState::Running);

    let once = ContainerConfig { stdin: true, stdin_once: true, ..shell(script) };
    let id = node.start(&sandbox, once).await;
    let mut s = node.engine().attach(&id, ALL).await.expect("attach");
    s.stdin.take().expect("an input").write_all(b"one\n").await.expect("write");
    assert_eq!(read(&mut s.stdout).await, "said one\nend\n");
    assert_eq!(node.ended(&id).await.exit_code, 0);

    let tty = ContainerConfig {
        stdin: true,
        tty: true,
        ..shell("read line; echo got $line; stty size; read line")
    };
    let id = node.start(&sandbox, tty).await;
    let mut s = node.engine().attach(&id, TTY).await.expect("attach");
    (s.resize.as_ref().expect("a terminal"))(80, 24);
    s.stdin.as_mut().expect("an input").write_all(b"hi\r").await.expect("write");
    read_until(&mut s.stdout, "got hi\r\n24 80\r\n").await;
    s.stdin.as_mut().expect("an input").write_all(b"\x04").await.expect("write");
    assert!(read(&mut s.stdout).await.is_empty());
    let status = node.ended(&id).await;
    assert!(crate::support::said(&status).contains("got hi"));
    node.finish().await;
}

#[tokio::test]
async fn a_slow_listener_holds_the_container_up_and_loses_nothing() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let script = "read line; dd if=/dev/zero bs=1000 count=5000 2>/dev/null | tr '\\0' x; echo; echo end";
    let id = node.start(&sandbox, ContainerConfig { stdin: true, ..shell(script) }).await;
    let mut s = node.engine().attach(&id, ALL).await.expect("attach");
    s.stdin.as_mut().expect("an input").write_all(b"go\n").await.expect("write");
    // It cannot have ended: nobody has read.
    let gone = node.engine().attach(&id, ALL).await.expect("attach");
    drop(gone);
    assert_eq!(node.engine().container_status(&id).await.expect("status").state, ContainerState::Running);
    assert_eq!(read(&mut s.stdout).await.len(), 5_000_000 + "\nend\n".len());
    assert_eq!(node.ended(&id).await.exit_code, 0);
    node.finish().await;
}

#[tokio::test]
async fn connections_are_made_inside_the_pods_network() {
    let Some((node, sandbox)) = Node::with_sandbox().await else { return };
    let script = "mkdir /www; echo here > /www/x; exec httpd -f -p 127.0.0.1:8080 -h /www";
    let id = node.start(&sandbox, shell(script)).await;
    let both = |port| vec![([127, 0, 0, 1], port).into(), (std::net::Ipv6Addr::LOCALHOST, port).into()];
    let connect = async {
        loop {
            match node.engine().connect(&sandbox, both(8080)).await {
                Ok(stream) => break stream,
                // It is on its way.
                Err(_) => base::time::sleep(Duration::from_millis(5)).await,
            }
        }
    };
    let mut stream = in_time(connect).await;
    stream.write_all(b"GET /x HTTP/1.0\r\n\r\n").await.expect("write");
    let mut said = String::new();
    in_time(stream.read_to_string(&mut said)).await.expect("read");
    assert!(said.ends_with("\r\n\r\nhere\n"), "{said}");
    node.engine().stop_container(&id, Duration::ZERO).await.expect("stop");
    let refused = node.engine().connect(&sandbox, both(9)).await.expect_err("nobody listens");
    assert!(refused.to_string().contains("dial [::1]:9"), "{refused}");
    node.finish().await;
}
