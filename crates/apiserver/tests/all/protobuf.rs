//! Requests whose bodies are protobuf, as kubectl and client-go send them for built-in kinds.

use apimachinery::codec::protobuf::{self, MEDIA_TYPE, PREFIX};
use apimachinery::{Doc, doc};
use bytes::Bytes;

use harness::{Answer, Server};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn send(server: &Server, method: &str, uri: &str, media: &str, body: impl Into<Bytes>) -> Answer {
    server.send(method, uri, &[("content-type", media)], body.into()).await
}

fn encoded(doc: &Doc) -> Vec<u8> {
    protobuf::object(doc.root()).expect("a built-in kind")
}

#[test]
fn a_body_in_protobuf_is_the_same_object_as_in_json() {
    base::sim::run(30, async {
        let server = Server::start().await;
        let uri = "/apis/apps/v1/namespaces/default/deployments?dryRun=All";
        let container = doc!({ "name": "c", "image": "i", "resources": { "limits": { "cpu": "0.5" } } });
        let mut given = doc!({ "kind": "Deployment", "apiVersion": "apps/v1", "metadata": { "name": "d" } });
        given.edit().at("spec").set("selector", doc!({ "matchLabels": { "a": "b" } }));
        let mut template = doc!({ "metadata": { "labels": { "a": "b" } } });
        template.edit().at("spec").list("containers").push(container);
        given.edit().at("spec").set("template", template);
        let plain = server.post(uri, &given).await.ok();
        let same = send(&server, "POST", uri, MEDIA_TYPE, encoded(&given)).await.ok();
        assert_eq!(same.get("spec").to_json(), plain.get("spec").to_json());
        let limits = same.root().find("spec.template.spec.containers").item(0).find("resources.limits");
        assert_eq!(limits.get("cpu").str(), "500m");
    });
}

#[test]
fn what_is_no_protobuf_of_the_kind_is_refused() {
    base::sim::run(31, async {
        let server = Server::start().await;
        let refused =
            |bytes: Vec<u8>| async { send(&server, "POST", MAPS, MEDIA_TYPE, bytes).await.fails(400) };
        assert!(refused(b"{}".to_vec()).await.contains("expected prefix [107 56 115 0]"));
        assert!(
            refused([PREFIX, b"\x12\x7f"].concat())
                .await
                .contains("must be of type ConfigMap): unexpected EOF")
        );
        // An envelope without a kind, one of a kind that nobody knows, and one of another.
        assert!(refused(PREFIX.to_vec()).await.contains("no kind \"\" is registered"));
        let (head, _) = protobuf::envelope("example.com/v1", "Thing", 0);
        assert!(
            refused(head).await.contains("no kind \"Thing\" is registered for version \"example.com/v1\"")
        );
        let secret = encoded(&doc!({ "kind": "Secret", "apiVersion": "v1" }));
        assert!(refused(secret).await.contains("converting (v1.Secret) to (v1.ConfigMap)"));
        let message = send(&server, "POST", MAPS, "application/cbor", "x").await.fails(415);
        assert!(message.contains(MEDIA_TYPE), "{message}");
    });
}

#[test]
fn options_of_a_delete_come_in_protobuf() {
    base::sim::run(32, async {
        let server = Server::start().await;
        let map = doc!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "m" }, "data": { "x": "y" } });
        let made = send(&server, "POST", MAPS, MEDIA_TYPE, encoded(&map)).await.ok();
        let options = |uid: &str| {
            encoded(
                &doc!({ "kind": "DeleteOptions", "apiVersion": "apps/v1", "preconditions": { "uid": uid } }),
            )
        };
        let at = format!("{MAPS}/m");
        send(&server, "DELETE", &at, MEDIA_TYPE, options("another")).await.fails(409);
        server.get(&at).await.ok();
        let uid = made.root().find("metadata.uid").str().to_owned();
        send(&server, "DELETE", &at, MEDIA_TYPE, options(&uid)).await.ok();
        server.get(&at).await.fails(404);
    });
}
