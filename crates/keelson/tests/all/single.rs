//! One server on its own directory: its own files and the user's, errors that say what to do, a drain.

use std::process::Stdio;

use apimachinery::call::{Options, WatchEvent};
use apimachinery::doc;
use futures_util::StreamExt as _;

use crate::servers::{Server, command, free, run};

/// What a server that cannot start says.
fn refused(mut command: std::process::Command) -> String {
    let out = command.stdout(Stdio::null()).output().unwrap();
    assert!(!out.status.success());
    String::from_utf8(out.stderr).unwrap()
}

#[test]
fn what_is_in_the_way_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let server = Server::start("apiserver", &data, &[]);
    let said = refused(command("apiserver", &data, free()));
    let process = format!("in use by process {}", server.process.child.id());
    assert!(said.contains(&process) && said.contains("another --data-dir"), "{said}");
    let said = refused(command("apiserver", &dir.path().join("other"), server.port));
    assert!(said.contains("--bind-address") && said.contains("in use"), "{said}");
    let mut wrong = command("apiserver", &dir.path().join("third"), free());
    wrong.args(["--tls-cert-file", "/nowhere.crt", "--tls-private-key-file", "/nowhere.key"]);
    let said = refused(wrong);
    assert!(said.contains("/nowhere.crt") && said.contains("No such file"), "{said}");
    let mut plain = command("apiserver", &dir.path().join("third"), free());
    plain.args(["--etcd-servers", "https://127.0.0.1:1"]);
    let said = refused(plain);
    assert!(said.contains("certificate authority"), "{said}");
}

#[test]
fn the_users_own_certificate_is_shown_and_believed() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files =
        ["--tls-cert-file", certificate.to_str().unwrap(), "--tls-private-key-file", key.to_str().unwrap()];
    let server = Server::start("apiserver", &dir.path().join("data"), &files);
    let config = std::fs::read_to_string(server.data.join("admin.kubeconfig")).unwrap();
    assert!(config.contains("certificate-authority-data"));
    run(async {
        server.config_maps().list(Options::default()).await.expect("the certificate is believed");
    });
}

#[test]
fn a_drain_ends_watches_and_keeps_what_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut server = Server::start("server", &dir.path().join("data"), &[]);
    run(async {
        let maps = server.config_maps();
        let from = maps.list(Options::default()).await.unwrap().revision;
        let options = Options { resource_version: Some(from.to_string()), ..Options::default() };
        let mut events = maps.watch(options).await.unwrap();
        let writer = base::task::spawn({
            let maps = maps.clone();
            async move {
                let mut written = 0;
                loop {
                    let name = format!("map-{written}");
                    let map = doc!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } });
                    match maps.create(map).await {
                        Ok(_) => written += 1,
                        Err(_) => return written,
                    }
                }
            }
        });
        let first = events.next().await.expect("an event").expect("of the watch");
        assert!(matches!(first, WatchEvent::Added(_)));
        let begin = base::time::instant();
        server.process.terminate();
        while let Some(event) = events.next().await {
            event.expect("it ends in order");
        }
        assert!(server.process.child.wait().unwrap().success());
        assert!(begin.elapsed() < std::time::Duration::from_secs(4), "nothing was cut off");
        let written: usize = writer.await;
        server.start_again();
        let found = server.config_maps().list(Options::default()).await.unwrap();
        let found = found.items.iter().filter(|item| item.name().starts_with("map-")).count();
        assert!(found == written || found == written + 1, "{written} acknowledged, {found} found");
    });
}
