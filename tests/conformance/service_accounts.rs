//! auth/service_accounts.go

use apimachinery::{Doc, Edit, doc, k};

use crate::cluster::{Cluster, play, pod, text, with};

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Whether the containers of a new pod, which asks for it or not, have the token of the account.
async fn mounts(c: &Cluster, account: &str, asks: Option<bool>) -> bool {
    let at = c.at("/api/v1", "pods");
    let name = format!("pod-{account}-{asks:?}").to_lowercase().replace(['(', ')'], "-");
    let name = name.trim_end_matches('-');
    let mut pod = with(pod(name, "mounts"), "spec.serviceAccountName", account);
    pod.edit().at(k::SPEC).set_opt(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN, asks);
    c.post(&at, &pod).await.ok();
    let pod = c.get(&format!("{at}/{name}")).await.ok();
    let mut containers = pod.root().find("spec.containers").items();
    let has = |container: apimachinery::Ref<'_>| {
        container.get(k::VOLUME_MOUNTS).items().any(|m| m.get(k::MOUNT_PATH).str() == MOUNT_PATH)
    };
    containers.any(has)
}

#[test]
fn a_pod_declines_its_token() {
    play(|c| async move {
        let at = c.at("/api/v1", "serviceaccounts");
        for (name, automount) in [("mount", Some(true)), ("nomount", Some(false)), ("unset", None)] {
            let mut account = doc!({ "metadata": { "name": name } });
            account.edit().set_opt(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN, automount);
            c.post(&at, &account).await.ok();
        }
        let mut found = Vec::new();
        for asks in [None, Some(true), Some(false)] {
            for account in ["unset", "mount", "nomount"] {
                found.push(mounts(&c, account, asks).await);
            }
        }
        assert_eq!(found, [true, true, false, true, true, true, false, false, false]);
    });
}

#[test]
fn every_namespace_has_the_root_certificate() {
    play(|c| async move {
        c.post("/api/v1/namespaces", &doc!({ "metadata": { "name": "another" } })).await.ok();
        let at = "/api/v1/namespaces/another/configmaps";
        let one = format!("{at}/kube-root-ca.crt");
        let made = c.until_one(at, "kube-root-ca.crt", "it is made", |_| true).await;
        assert!(!made.get(k::DATA).get("ca.crt").str().is_empty());

        c.delete(&one).await.ok();
        let uid = text(&made, "metadata.uid");
        let again = |map: &Doc| text(map, "metadata.uid") != uid && map.get(k::DATA).same(made.get(k::DATA));
        c.until_one(at, "kube-root-ca.crt", "it is made again", again).await;

        let modified = c.update(&one, |map| _ = map.at(k::DATA).set("ca.crt", "")).await;
        assert_eq!(modified.get(k::DATA).get("ca.crt").str(), "");
        let restored = |map: &Doc| map.get(k::DATA).same(made.get(k::DATA));
        c.until_one(at, "kube-root-ca.crt", "it is put right", restored).await;
    });
}

#[test]
fn a_service_account_lives() {
    play(|c| async move {
        let at = c.at("/api/v1", "serviceaccounts");
        let selected = "labelSelector=static%3Dtrue";
        let mut events = c.watch(&format!("{at}?{selected}")).await;
        let account = doc!({ "metadata": { "name": "account", "labels": { "static": "true" } } });
        c.post(&at, &account).await.ok();
        c.sees(&mut events, "ADDED", |account| text(account, "metadata.labels.static") == "true").await;
        let patch = doc!({ "automountServiceAccountToken": false });
        let patched = c.patch(&format!("{at}/account"), "strategic-merge", &patch).await.ok();
        let is_off =
            |account: &Doc| account.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).opt_bool() == Some(false);
        assert!(is_off(&patched));
        let found = c.list(&format!("/api/v1/serviceaccounts?{selected}")).await;
        assert!(found.len() == 1 && text(&found[0], "metadata.name") == "account" && is_off(&found[0]));
        c.delete(&format!("{at}?{selected}")).await.ok();
        c.sees(&mut events, "DELETED", |account| text(account, "metadata.name") == "account").await;
    });
}

#[test]
fn a_service_account_is_updated() {
    play(|c| async move {
        let at = c.at("/api/v1", "serviceaccounts");
        let made = c.post(&at, &doc!({ "metadata": { "name": "account" } })).await.ok();
        assert!(!made.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).exists());
        let set = |account: Edit<'_>| {
            let mut account = account;
            account.set(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN, true);
        };
        let updated = c.update(&format!("{at}/account"), set).await;
        assert_eq!(updated.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).opt_bool(), Some(true));
        let read = c.get(&format!("{at}/account")).await.ok();
        assert_eq!(read.get(k::AUTOMOUNT_SERVICE_ACCOUNT_TOKEN).opt_bool(), Some(true));
    });
}
