//! kube-rs: typed objects, patches, its watcher with both ways to begin, and its reflector.

use std::collections::BTreeMap;
use std::pin::pin;
use std::time::Duration;

use ::kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use ::kube::config::{Config, KubeConfigOptions, Kubeconfig};
use ::kube::runtime::watcher::{self, Event, watcher};
use ::kube::{Api, Client, Error};
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use serde_json::json;

use crate::server::Server;

const NS: &str = "kube-rs";
/// How long one event may take.
const WAIT_MAX: Duration = Duration::from_secs(60);

async fn client(server: &Server) -> Result<Client> {
    let file = Kubeconfig::read_from(server.kubeconfig())?;
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("n".into(), value.into())])),
        ..ConfigMap::default()
    }
}

#[tokio::test]
async fn kube_lists_watches_and_writes() -> Result<()> {
    let server = Server::start()?;
    let client = client(&server).await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": NS } }))?;
    namespaces.create(&PostParams::default(), &namespace).await?;

    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NS);
    for initial in [watcher::Config::default().streaming_lists(), watcher::Config::default()] {
        life_of_a_config_map(&maps, initial).await?;
    }
    deployments(&client).await?;
    namespaces.delete(NS, &DeleteParams::default()).await?;
    Ok(())
}

async fn life_of_a_config_map(maps: &Api<ConfigMap>, how: watcher::Config) -> Result<()> {
    maps.create(&PostParams::default(), &config_map("before", "0")).await?;
    let mut events = pin!(watcher(maps.clone(), how.fields("metadata.name!=kube-root-ca.crt")));
    let mut seen = Vec::new();
    let (none, mut changed) = (BTreeMap::new(), false);
    while seen.last().is_none_or(|last: &String| last != "gone a") {
        let event = tokio::time::timeout(WAIT_MAX, events.next()).await.context("an event in time")?;
        match event.context("the watch goes on")?? {
            Event::Init => seen.push("init".into()),
            Event::InitApply(map) => seen.push(format!("have {}", name(&map))),
            Event::Apply(map) => {
                seen.push(format!("{} {:?}", name(&map), map.data.as_ref().unwrap_or(&none)))
            }
            Event::Delete(map) => seen.push(format!("gone {}", name(&map))),
            Event::InitDone => seen.push("done".into()),
        }
        if seen.last().is_some_and(|last| last == "done") && !changed {
            changed = true;
            change(maps).await?;
        }
    }
    let expected = [
        "init",
        "have before",
        "done",
        r#"a {"n": "1"}"#,
        r#"a {"n": "2"}"#,
        r#"a {"m": "3", "n": "2"}"#,
        "gone a",
    ];
    ensure!(seen == expected, "{seen:?}");
    maps.delete("before", &DeleteParams::default()).await?;
    Ok(())
}

fn name(map: &ConfigMap) -> &str {
    map.metadata.name.as_deref().unwrap_or_default()
}

async fn change(maps: &Api<ConfigMap>) -> Result<()> {
    let made = maps.create(&PostParams::default(), &config_map("a", "1")).await?;
    let mut next = config_map("a", "2");
    next.metadata.resource_version.clone_from(&made.metadata.resource_version);
    maps.replace("a", &PostParams::default(), &next).await?;
    match maps.replace("a", &PostParams::default(), &next).await {
        Err(Error::Api(status)) => ensure!(status.code == 409 && status.reason == "Conflict", "{status:?}"),
        other => anyhow::bail!("a stale object was taken: {other:?}"),
    }
    let patch = Patch::Strategic(json!({ "data": { "m": "3" } }));
    maps.patch("a", &PatchParams::default(), &patch).await?;
    maps.delete("a", &DeleteParams::default()).await?;
    ensure!(maps.get_opt("a").await?.is_none(), "it is gone");
    Ok(())
}

async fn deployments(client: &Client) -> Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NS);
    let web: Deployment = serde_json::from_value(json!({
        "metadata": { "name": "web" },
        "spec": { "replicas": 1, "selector": { "matchLabels": { "app": "web" } }, "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "web", "image": "web" }] } } } }))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    ensure!(deployments.create(&dry, &web).await?.metadata.uid.is_some(), "a dry run shows what would be");
    ensure!(deployments.get_opt("web").await?.is_none(), "a dry run leaves nothing");
    deployments.create(&PostParams::default(), &web).await?;
    let scale = deployments.get_scale("web").await?;
    ensure!(scale.spec.and_then(|s| s.replicas) == Some(1), "one wanted");
    let more = Patch::Merge(json!({ "spec": { "replicas": 2 } }));
    deployments.patch_scale("web", &PatchParams::default(), &more).await?;
    let mut events = pin!(watcher(deployments.clone(), watcher::Config::default()));
    loop {
        let event = tokio::time::timeout(WAIT_MAX, events.next()).await.context("the set in time")?;
        let (Event::Apply(found) | Event::InitApply(found)) = event.context("the watch goes on")?? else {
            continue;
        };
        if found.status.and_then(|s| s.replicas) == Some(2) {
            break;
        }
    }
    let mut names = Vec::new();
    let mut page = ListParams::default().limit(1);
    loop {
        let pods = Api::<k8s_openapi::api::core::v1::Pod>::namespaced(client.clone(), NS).list(&page).await?;
        names.extend(pods.items.into_iter().filter_map(|pod| pod.metadata.name));
        match pods.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = ListParams::default().limit(1).continue_token(&token),
            None => break,
        }
    }
    ensure!(names.len() == 2 && names.iter().all(|n| n.starts_with("web-")), "{names:?}");
    Ok(())
}
