//! Which state a read shows, and when it is gone: resource versions, pages and watches, in virtual time.
//! Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions.

use std::time::Duration;

use apimachinery::{Doc, doc, k};

use harness::{Answer, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const OTHERS: &str = "/api/v1/namespaces/default/secrets";

async fn put(server: &Server, name: &str) -> u64 {
    let made = server.post(MAPS, &doc!({ "metadata": { "name": name } })).await.ok();
    revision(&made)
}

fn revision(doc: &Doc) -> u64 {
    doc.root().find("metadata.resourceVersion").str().parse().unwrap()
}

fn names(list: &Doc) -> Vec<String> {
    list.get(k::ITEMS).items().map(|i| i.get(k::METADATA).get(k::NAME).str().to_owned()).collect()
}

async fn list(server: &Server, query: &str) -> Answer {
    server.get(&format!("{MAPS}?{query}")).await
}

/// Makes revisions, and lets the store forget all older ones.
async fn forget(server: &Server) {
    base::time::sleep(Duration::from_secs(301)).await;
    server.post(OTHERS, &doc!({ "metadata": { "generateName": "s-" } })).await.ok();
    base::time::sleep(Duration::from_secs(301)).await;
    server.post(OTHERS, &doc!({ "metadata": { "generateName": "s-" } })).await.ok();
}

#[test]
fn lists_show_the_state_that_is_asked_for() {
    base::sim::run(51, async {
        let server = Server::start().await;
        for name in ["a", "b", "c"] {
            put(&server, name).await;
        }
        let three = revision(&list(&server, "").await.ok());
        let four = put(&server, "d").await;
        for (query, shown, at) in [
            ("", "abcd", Some(four)),
            ("resourceVersion=0", "abcd", None),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", "abcd", None),
            // Any state is given whole.
            ("resourceVersion=0&limit=2", "abcd", None),
            ("limit=2", "ab", Some(four)),
            (&format!("resourceVersion={three}"), "abcd", None),
            (&format!("resourceVersion={three}&resourceVersionMatch=NotOlderThan"), "abcd", None),
            (&format!("resourceVersion={three}&resourceVersionMatch=NotOlderThan&limit=3"), "abc", None),
            (&format!("resourceVersion={three}&resourceVersionMatch=Exact"), "abc", Some(three)),
            // The oldest way to ask for pieces of one state.
            (&format!("resourceVersion={three}&limit=3"), "abc", Some(three)),
            (&format!("resourceVersion={three}&resourceVersionMatch=Exact&limit=1"), "a", Some(three)),
        ] {
            let got = list(&server, query).await.ok();
            assert_eq!(names(&got).concat(), shown, "{query}");
            assert!(at.is_none_or(|at| revision(&got) == at), "{query}: {} is not {at:?}", revision(&got));
            assert!(revision(&got) >= three, "{query}");
        }
        for (query, code, why) in [
            (
                "resourceVersionMatch=Exact",
                422,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            ("resourceVersion=0&resourceVersionMatch=Exact", 422, "is forbidden for resourceVersion \"0\""),
            (
                "resourceVersion=1&resourceVersionMatch=Sometimes",
                422,
                "supported values: \"Exact\", \"NotOlderThan\", \"\"",
            ),
            (
                "resourceVersion=1&resourceVersionMatch=Exact&continue=x",
                422,
                "is forbidden when continue is provided",
            ),
            ("sendInitialEvents=true", 422, "sendInitialEvents is forbidden for list"),
            ("resourceVersion=x", 400, "strconv.ParseUint: parsing \"x\": invalid syntax"),
            ("limit=x", 400, "strconv.ParseInt: parsing \"x\": invalid syntax"),
            ("continue=%21", 400, "invalid continue token: continue key is not valid"),
            ("continue=e30", 400, "server does not recognize this encoded version"),
            // {"v":"meta.k8s.io/v1","rv":0,"start":"a"}, and a start that climbs.
            (
                "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MCwic3RhcnQiOiJhIn0",
                400,
                "incorrect encoded start resourceVersion",
            ),
            (
                "continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9hXHUwMDAwIn0",
                400,
                "continue key is not valid",
            ),
        ] {
            let got = list(&server, query).await.fails(code);
            assert!(got.contains(why), "{query}: {got}");
        }
    });
}

#[test]
fn a_revision_that_has_not_come_is_waited_for_a_while() {
    base::sim::run(52, async {
        let server = Server::start().await;
        put(&server, "a").await;
        for uri in [
            format!("{MAPS}?resourceVersion=1000000"),
            format!("{MAPS}?resourceVersion=1000000&resourceVersionMatch=Exact"),
            format!("{MAPS}/a?resourceVersion=1000000"),
        ] {
            let answer = server.get(&uri).await;
            let details = answer.doc.get(k::DETAILS).to_doc();
            assert_eq!(
                details.get(k::CAUSES).item(0).get(k::REASON).str(),
                "ResourceVersionTooLarge",
                "{uri}"
            );
            assert_eq!(details.get(k::RETRY_AFTER_SECONDS).i64(), 1, "{uri}");
            assert_eq!(answer.doc.get(k::REASON).str(), "Timeout");
            assert!(answer.fails(504).starts_with("Timeout: Too large resource version: 1000000, current: "));
        }
        let now = revision(&list(&server, "").await.ok());
        server.get(&format!("{MAPS}/a?resourceVersion={now}")).await.ok();
        server.get(&format!("{MAPS}/a?resourceVersion=0")).await.ok();
    });
}

#[test]
fn pages_show_one_state_until_the_store_forgets_it() {
    base::sim::run(53, async {
        let server = Server::start().await;
        for i in 0..10 {
            put(&server, &format!("m{i}")).await;
        }
        let token = |doc: &Doc| doc.root().find("metadata.continue").str().to_owned();
        let first = list(&server, "limit=4").await.ok();
        assert_eq!(first.root().find("metadata.remainingItemCount").i64(), 6);
        // How many follow is not known of a selection.
        let some = list(&server, "limit=4&fieldSelector=metadata.name!%3Dm0").await.ok();
        assert!(!some.root().find("metadata.remainingItemCount").exists() && !token(&some).is_empty());
        put(&server, "m35").await;
        let second = list(&server, &format!("limit=4&continue={}", token(&first))).await.ok();
        assert_eq!(names(&second), ["m4", "m5", "m6", "m7"]);
        assert_eq!(revision(&second), revision(&first));
        assert_eq!(second.root().find("metadata.remainingItemCount").i64(), 2);
        let why = list(&server, &format!("continue={}&resourceVersion=5", token(&first))).await.fails(400);
        assert_eq!(why, "specifying resource version is not allowed when using continue");

        // Other kinds' changes are enough for the state to be forgotten.
        forget(&server).await;
        let gone = list(&server, &format!("limit=4&continue={}", token(&second))).await;
        assert_eq!((gone.code, gone.doc.get(k::REASON).str()), (410, "Expired"));
        let rest = token(&gone.doc);
        assert!(gone.fails(410).contains("use the continue token in this response"));
        let rest = list(&server, &format!("limit=1&continue={rest}")).await.ok();
        assert_eq!(names(&rest), ["m8"]);
        assert!(revision(&rest) > revision(&first));
        let last = list(&server, &format!("limit=4&continue={}", token(&rest))).await.ok();
        assert_eq!((names(&last), token(&last)), (vec!["m9".to_owned()], String::new()));
        let exact = format!("resourceVersion={}&resourceVersionMatch=Exact", revision(&first));
        let why = list(&server, &exact).await.fails(410);
        assert_eq!(why, "The resourceVersion for the provided list is too old.");
    });
}

/// The events of a watch as kind and name.
async fn watch(server: &Server, query: &str) -> Vec<(String, String)> {
    let events = server.get(&format!("{MAPS}?watch=true&timeoutSeconds=5&{query}")).await.ok();
    let one = |e: apimachinery::Ref<'_>| {
        let name = e.get(k::OBJECT).get(k::METADATA).get(k::NAME).str();
        let name = if name.is_empty() { e.get(k::OBJECT).get(k::REASON).str() } else { name };
        (e.get(k::TYPE).str().to_owned(), name.to_owned())
    };
    events.root().items().map(one).collect()
}

#[test]
fn watches_begin_where_they_are_told_to() {
    base::sim::run(54, async {
        let server = Server::start().await;
        let one = put(&server, "a").await;
        put(&server, "b").await;
        let is = |kind: &str, name: &str| (kind.to_owned(), name.to_owned());
        let (a, b) = (is("ADDED", "a"), is("ADDED", "b"));
        let end = is("BOOKMARK", "");
        for (query, expected) in [
            ("", vec![a.clone(), b.clone()]),
            ("resourceVersion=0", vec![a.clone(), b.clone()]),
            (&format!("resourceVersion={one}"), vec![b.clone()]),
            ("fieldSelector=metadata.name%3Db", vec![b.clone()]),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", vec![]),
            (
                "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
                vec![a.clone(), b.clone(), end.clone()],
            ),
            // One that has not come yet is silence, and an event where a state was asked for.
            ("resourceVersion=1000000", vec![]),
            (
                "resourceVersion=1000000&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true",
                vec![is("ERROR", "Timeout")],
            ),
        ] {
            assert_eq!(watch(&server, query).await, expected, "{query}");
        }
        // Of one object it means nothing, but for the oldest path.
        let alone = server.get(&format!("{MAPS}/a?watch=true")).await.ok();
        assert_eq!(alone.root().find("metadata.name").str(), "a");
        let old = "/api/v1/watch/namespaces/default/configmaps";
        let named =
            server.get(&format!("{old}/b?fieldSelector=metadata.name%3Db&timeoutSeconds=1")).await.ok();
        assert_eq!(named.root().len(), 1);
        assert_eq!(server.get(&format!("{old}?timeoutSeconds=1")).await.ok().root().len(), 2);
        assert_eq!(server.get(&format!("{old}/a?timeoutSeconds=1")).await.ok().root().len(), 1);
        let mixed = format!("{old}/a?fieldSelector=metadata.name%3Db");
        assert_eq!(
            server.get(&mixed).await.fails(400),
            "fieldSelector metadata.name doesn't match requested name"
        );
        for (query, why) in [
            (
                "resourceVersionMatch=NotOlderThan",
                "is forbidden for watch unless sendInitialEvents is provided",
            ),
            (
                "sendInitialEvents=true",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
        ] {
            let got = server.get(&format!("{MAPS}?watch=true&{query}")).await.fails(422);
            assert!(got.contains(why), "{query}: {got}");
        }
        server.get(&format!("{MAPS}?watch=true&resourceVersion=x")).await.fails(400);

        // What is out of reach is told as an event of a watch that began.
        forget(&server).await;
        put(&server, "c").await;
        assert_eq!(watch(&server, &format!("resourceVersion={one}")).await, [is("ERROR", "Expired")]);
    });
}

#[test]
fn a_limit_bounds_what_a_collections_delete_takes() {
    base::sim::run(57, async {
        let server = Server::start().await;
        for name in ["a", "b", "c"] {
            put(&server, name).await;
        }
        let gone = server.send("DELETE", &format!("{MAPS}?limit=2"), &[], Vec::new().into()).await.ok();
        assert_eq!(names(&gone), ["a", "b"]);
        assert!(!gone.root().find("metadata.continue").str().is_empty());
        assert_eq!(names(&list(&server, "").await.ok()), ["c"]);
    });
}
