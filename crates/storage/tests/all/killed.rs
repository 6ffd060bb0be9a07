//! A real process killed in the middle of its writes, again and again: everything it acknowledged is there.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use storage::disk::RealDisk;
use storage::{Engine, Options, Range, Store};

/// How often the child is killed: in turns after some writes, during a rewrite of the log, and when a new segment
/// has begun.
const KILLS: u64 = 15;

/// Examples are built with the tests, beside them.
fn child() -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.join("examples/writer")
}

/// The files of the log: whether one is being rewritten, and the highest segment.
fn files(data: &Path) -> (bool, Option<String>) {
    let names: Vec<String> = std::fs::read_dir(data)
        .map(|dir| dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
        .unwrap_or_default();
    let last = names.iter().filter(|name| name.starts_with("log-")).max().cloned();
    (names.iter().any(|name| name == "rewrite"), last)
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let mut highest = 0;
    let mut acked: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for kill in 0..KILLS {
        let mut child = Command::new(child()).arg(&data).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = highest;
        let enough = 50 + kill * 97;
        let (mut read, mut killed) = (0, false);
        let mut segment = None;
        // After the kill, what was acknowledged before is still in the pipe.
        for line in lines {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let (n, revision): (u64, u64) = (words[1].parse().unwrap(), words[2].parse().unwrap());
            assert!(revision > before, "revision {revision} was used before the kill at {before}");
            highest = highest.max(revision);
            acked.insert(words[0].to_owned(), (n, revision));
            read += 1;
            if killed || read < enough {
                continue;
            }
            let (rewriting, last) = files(&data);
            let begun = segment.as_ref().is_some_and(|before| *before != last);
            killed = [true, rewriting, begun][(kill % 3) as usize];
            segment.get_or_insert(last);
            if killed {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(killed, "the child ended by itself");
        // One of its own, so that an engine dropped without close is gone with it.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let engine = Engine::open(Arc::new(RealDisk::new(&data)), Options::default()).await.unwrap();
            for (key, (n, revision)) in &acked {
                let kv =
                    engine.range(Range::key(key.clone())).await.unwrap().kvs.pop().expect("the key is there");
                let found: u64 =
                    std::str::from_utf8(&kv.value).unwrap().split(' ').next().unwrap().parse().unwrap();
                // The write after the last acknowledged one may have been done too.
                assert!(found == *n || found == n + 1, "{key}: acknowledged {n}, found {found}");
                assert!(kv.mod_revision >= *revision);
            }
            highest = highest.max(engine.revision().await.unwrap());
            if kill % 2 == 0 {
                engine.close().await;
            }
        });
    }
    assert_eq!(acked.len(), 8);
}
