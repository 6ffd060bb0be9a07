//! Each judge is shown an honest history, on which all are silent, and then false ones.

use std::sync::Arc;

use apimachinery::call::{Stored, WatchEvent};
use bytes::Bytes;
use client::gvr::CONFIG_MAPS;

use super::JUDGES;
use crate::history::Commit;
use crate::ledger::{Ledger, Pick, Selection};
use crate::record::{Attempt, End, Evidence, How, Read, Seen, Watched, What};

const X: &str = "/registry/configmaps/a/x";
const Y: &str = "/registry/configmaps/a/y";

fn body(name: &str, token: &str, revision: Option<u64>) -> Bytes {
    let revision = revision.map_or_else(String::new, |r| format!("\"resourceVersion\":\"{r}\","));
    format!(
        r#"{{"kind":"ConfigMap","metadata":{{"name":"{name}","uid":"u-{name}",{revision}"annotations":{{"token":"{token}"}}}}}}"#
    )
    .into()
}

fn seen(name: &str, token: &str, revision: u64) -> Arc<Stored> {
    let json = body(name, token, Some(revision));
    Arc::new(Stored::new(json, revision, "a", name))
}

fn everything() -> Selection {
    Selection::new(&CONFIG_MAPS, "a", Pick::All)
}

fn attempt(floor: u64, key: &str, token: &str, what: What, end: End) -> Attempt {
    Attempt { floor, key: key.into(), token: token.into(), what, end }
}

fn one(floor: u64, name: &str, object: Option<Arc<Stored>>) -> Read {
    Read { floor, how: How::Fresh, seen: Seen::One(everything().key("a", name), object) }
}

fn list(floor: u64, how: How, revisions: &[u64], items: Vec<Arc<Stored>>) -> Read {
    Read { floor, how, seen: Seen::List(everything(), revisions.to_vec(), items) }
}

fn watch(from: Option<u64>, heard: Vec<WatchEvent>) -> Watched {
    Watched { selection: everything(), from, heard }
}

fn bookmark(revision: u64) -> WatchEvent {
    WatchEvent::Bookmark { revision, initial: false }
}

/// x is made at 10 and changed at 12, y is made at 14, x goes at 16.
fn honest() -> Evidence {
    let put = |revision, key: &str, name, token| ((revision, key.to_owned()), Some(body(name, token, None)));
    let commits =
        [put(10, X, "x", "1"), put(12, X, "x", "2"), put(14, Y, "y", "3"), ((16, X.to_owned()), None)];
    let commit = |value| Commit { value, undone: None, at: base::time::instant() };
    let ledger = Ledger::new(commits.into_iter().map(|(at, value)| (at, commit(value))).collect());
    let gone = What::Delete { uid: "u-x".into() };
    let attempts = vec![
        attempt(9, X, "1", What::Create, End::Done(seen("x", "1", 10))),
        attempt(10, X, "2", What::Update { over: 10 }, End::Done(seen("x", "2", 12))),
        attempt(12, Y, "3", What::Create, End::Unknown),
        attempt(12, Y, "4", What::Create, End::Refused("AlreadyExists".into())),
        attempt(14, X, "5", gone, End::Gone),
    ];
    let reads = vec![
        one(10, "x", Some(seen("x", "1", 10))),
        one(16, "x", None),
        list(14, How::Fresh, &[14, 14], vec![seen("x", "2", 12), seen("y", "3", 14)]),
        list(16, How::Exact(11), &[11], vec![seen("x", "1", 10)]),
    ];
    let watches = vec![
        watch(
            Some(10),
            vec![
                WatchEvent::Modified(seen("x", "2", 12)),
                WatchEvent::Added(seen("y", "3", 14)),
                bookmark(15),
                WatchEvent::Deleted(seen("x", "2", 16)),
            ],
        ),
        watch(
            None,
            vec![
                WatchEvent::Added(seen("x", "2", 12)),
                WatchEvent::Bookmark { revision: 13, initial: true },
                WatchEvent::Added(seen("y", "3", 14)),
                bookmark(15),
            ],
        ),
    ];
    Evidence { attempts, reads, watches, ledger }
}

/// Who accuses, of a history that was honest before `lie`.
fn accusers(lie: impl FnOnce(&mut Evidence)) -> Vec<&'static str> {
    base::sim::run(1, async {
        let mut evidence = honest();
        lie(&mut evidence);
        JUDGES.iter().filter(|(_, judge)| !judge(&evidence).is_empty()).map(|(name, _)| *name).collect()
    })
}

#[test]
fn an_honest_history_passes() {
    assert_eq!(accusers(|_| ()), [""; 0]);
}

#[test]
fn ordered_accuses_what_goes_back() {
    assert!(accusers(|e| e.watches[0].heard.swap(0, 1)).contains(&"ordered"));
    assert_eq!(accusers(|e| e.watches[1].heard.push(bookmark(14))), ["ordered"]);
}

#[test]
fn unique_accuses_what_is_told_twice() {
    let lie = |e: &mut Evidence| {
        let again = e.watches[0].heard[1].clone();
        e.watches[0].heard.insert(2, again);
    };
    assert_eq!(accusers(lie), ["unique", "reliable"]);
}

#[test]
fn atomic_accuses_what_is_no_state() {
    let parts = |e: &mut Evidence| {
        e.reads[2] = list(14, How::Fresh, &[14], vec![seen("x", "1", 10), seen("y", "3", 14)]);
    };
    assert_eq!(accusers(parts), ["atomic"]);
    assert_eq!(accusers(|e| e.reads[2] = list(14, How::Fresh, &[14], vec![seen("x", "2", 12)])), ["atomic"]);
    let pages = |e: &mut Evidence| {
        e.reads[2] = list(12, How::Fresh, &[14, 15], vec![seen("x", "2", 12), seen("y", "3", 14)]);
    };
    assert_eq!(accusers(pages), ["atomic"]);
    assert_eq!(accusers(|e| drop(e.watches[1].heard.remove(0))), ["atomic"]);
}

#[test]
fn reliable_accuses_gaps_and_forgeries() {
    assert_eq!(accusers(|e| drop(e.watches[0].heard.remove(1))), ["reliable"]);
    assert_eq!(accusers(|e| drop(e.watches[1].heard.remove(2))), ["reliable"]);
    assert_eq!(accusers(|e| e.watches[1].heard[2] = WatchEvent::Modified(seen("y", "3", 14))), ["reliable"]);
    assert_eq!(accusers(|e| e.watches[1].heard[2] = WatchEvent::Added(seen("y", "9", 14))), ["reliable"]);
    // What goes is told as it was.
    assert_eq!(accusers(|e| e.watches[0].heard[3] = WatchEvent::Deleted(seen("x", "1", 16))), ["reliable"]);
}

#[test]
fn resumable_accuses_a_wrong_beginning() {
    assert_eq!(accusers(|e| drop(e.watches[0].heard.remove(0))), ["resumable"]);
    assert_eq!(accusers(|e| e.watches[0].from = Some(12)), ["resumable"]);
    let undone = |e: &mut Evidence| {
        let commit = |value, undone| Commit { value, undone, at: base::time::instant() };
        let y = Some(body("y", "3", None));
        e.ledger = Ledger::new([((14, Y.to_owned()), commit(y, Some(20)))].into());
        (e.attempts, e.reads) = (e.attempts.drain(2..3).collect(), Vec::new());
        e.watches = vec![watch(Some(14), vec![bookmark(21)])];
    };
    assert_eq!(accusers(undone), ["resumable"]);
}

#[test]
fn bookmarkable_accuses_what_comes_after_its_bookmark() {
    let lie = |e: &mut Evidence| e.watches[0].heard.insert(0, bookmark(12));
    assert!(accusers(lie).contains(&"bookmarkable"));
}

#[test]
fn linearizable_accuses_lost_and_stale_states() {
    type Lie = Box<dyn FnOnce(&mut Evidence)>;
    let done = |token, revision| End::Done(seen("x", token, revision));
    let lies: [(&str, Lie); 12] = [
        ("not committed", Box::new(move |e| e.attempts[0].end = done("1", 11))),
        ("committed otherwise", Box::new(move |e| e.attempts[0].end = done("7", 10))),
        ("before it was asked for", Box::new(|e| e.attempts[2].floor = 14)),
        ("an old state acknowledged", Box::new(|e| e.attempts[1].floor = 12)),
        ("refused, but done", Box::new(|e| e.attempts[2].end = End::Refused("Conflict".into()))),
        ("done by nobody", Box::new(|e| drop(e.attempts.remove(2)))),
        ("a lost update", Box::new(|e| e.attempts[1].what = What::Update { over: 9 })),
        (
            "a lost patch",
            Box::new(|e| {
                let commit = |value| Commit { value, undone: None, at: base::time::instant() };
                let old = br#"{"metadata":{"name":"x","annotations":{"token":"1","by-1":"1"}}}"#;
                let steps = [
                    ((10, X.to_owned()), Some(Bytes::from_static(old))),
                    ((12, X.to_owned()), Some(body("x", "2", None))),
                ];
                e.ledger = Ledger::new(steps.into_iter().map(|(at, value)| (at, commit(value))).collect());
                e.attempts[1].what = What::Patch { annotation: "by-2".into() };
            }),
        ),
        ("refused without a cause", Box::new(|e| e.attempts[3].key = "/registry/configmaps/a/z".into())),
        (
            "deleted twice",
            Box::new(|e| {
                let (key, what) = (X.to_owned(), e.attempts[4].what.clone());
                e.attempts.push(Attempt { floor: 14, key, token: "6".into(), what, end: End::Gone });
            }),
        ),
        ("a stale object", Box::new(|e| e.reads[0].floor = 12)),
        ("a stale list", Box::new(|e| e.reads[2].floor = 15)),
    ];
    for (name, lie) in lies {
        assert!(accusers(lie).contains(&"linearizable"), "{name}");
    }
}
