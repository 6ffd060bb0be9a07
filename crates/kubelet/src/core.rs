//! What all pods of a node share: configuration, client, doors, watches, tokens.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use apimachinery::schema::views::Pod;
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;
use base::watch;
use client::{Client, EventRecorder, EventType, ObjectRef, SharedCache};

use crate::admission::{self, Resources};
use crate::config::Config;
use crate::doors::Doors;
use crate::env;
use crate::fields::Facts;
use crate::kubelet::Workers;
use crate::objects::ObjectManager;
use crate::status::NodeFacts;
use crate::volumes::{Token, TokenRequest};
use crate::worker::{Resize, Role, Stage, State, container_specs, since};

/// What the workers of a node share.
pub(crate) struct Core {
    pub config: Config,
    pub client: Client,
    pub doors: Doors,
    pub recorder: EventRecorder,
    pub objects: ObjectManager,
    pub services: SharedCache,
    pub node: NodeFacts,
    pub allocatable: Resources,
    pub memory: i64,
    /// Whether pods' networks can be made.
    pub network: watch::Receiver<bool>,
    pub tokens: Mutex<BTreeMap<(String, TokenRequest), Held>>,
    /// All pods of the node.
    pub workers: Workers,
}

/// A token and when to ask for the next.
#[derive(Clone)]
pub(crate) struct Held {
    token: Token,
    refresh_at: Timestamp,
}

impl Core {
    /// Tells people about a pod, or a container of it.
    pub fn record(
        &self,
        pod: Ref<'_>,
        container: Option<&str>,
        warning: bool,
        reason: &str,
        message: String,
    ) {
        let mut about = ObjectRef::of(pod, "v1", "Pod");
        if let Some(name) = container {
            let list = match container_specs(pod).find(|(_, c)| c.get(k::NAME).str() == name) {
                Some((Role::Init | Role::Sidecar, _)) => "initContainers",
                Some((Role::Ephemeral, _)) => "ephemeralContainers",
                _ => "containers",
            };
            about = about.field(&format!("spec.{list}{{{name}}}"));
        }
        let kind = if warning { EventType::Warning } else { EventType::Normal };
        self.recorder.event(about, kind, reason, message);
    }

    /// What fields refer to.
    pub fn facts<'a>(&'a self, pod: &'a Doc, ips: &'a [IpAddr]) -> Facts<'a> {
        let ips = if ips.is_empty() && Pod(pod.root()).spec().host_network() { &self.node.ips } else { ips };
        Facts { pod: pod.root(), ips, host_ips: &self.node.ips, allocatable: &self.allocatable }
    }

    /// Variables that tell a pod of Services.
    pub async fn service_variables(&self, pod: Pod<'_>) -> Vec<(String, String)> {
        let (namespace, links) =
            (pod.metadata().namespace().to_owned(), pod.spec().enable_service_links() != Some(false));
        self.services.wait_synced().await;
        let mut found = Vec::new();
        found.extend(self.services.get("default", "kubernetes"));
        if links {
            let here = self.services.list_namespace(&namespace);
            found.extend(
                here.into_iter().filter(|s| !(s.namespace() == "default" && s.name() == "kubernetes")),
            );
        }
        let services: Vec<Doc> = found.iter().map(|s| s.doc()).collect();
        env::service_variables(&services)
    }

    /// The tokens that a pod's volumes need, and when the first of them wants to be asked for anew.
    ///
    /// # Errors
    /// The API server's refusal, in words.
    pub async fn tokens(
        &self,
        pod: Ref<'_>,
        wanted: Vec<TokenRequest>,
    ) -> Result<(Vec<(TokenRequest, Token)>, Option<Timestamp>), String> {
        let uid = pod.get(k::METADATA).get(k::UID).str();
        let (mut out, mut next) = (Vec::new(), None::<Timestamp>);
        for request in wanted {
            let key = (uid.to_owned(), request.clone());
            let held = self.tokens.lock().expect("nobody panics holding it").get(&key).cloned();
            let held = match held.filter(|h| h.refresh_at > base::time::now()) {
                Some(held) => held,
                None => {
                    let held = self.request_token(pod, &request).await.map_err(|err| {
                        let account = pod.get(k::SPEC).get(k::SERVICE_ACCOUNT_NAME).str();
                        format!(
                            "failed to fetch token: cannot fetch token for service account {account:?}: {err}"
                        )
                    })?;
                    self.tokens.lock().expect("nobody panics holding it").insert(key, held.clone());
                    held
                }
            };
            next = Some(next.map_or(held.refresh_at, |n| n.min(held.refresh_at)));
            out.push((request, held.token));
        }
        Ok((out, next))
    }

    async fn request_token(&self, pod: Ref<'_>, request: &TokenRequest) -> Result<Held, client::Error> {
        let meta = pod.get(k::METADATA);
        let account = pod.get(k::SPEC).get(k::SERVICE_ACCOUNT_NAME).str();
        let mut body = doc!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {
            "expirationSeconds": request.expiration_seconds,
            "boundObjectRef": { "apiVersion": "v1", "kind": "Pod", "name": meta.get(k::NAME).str(), "uid": meta.get(k::UID).str() } } });
        if !request.audience.is_empty() {
            body.edit().at(k::SPEC).list(k::AUDIENCES).push(&request.audience);
        }
        let accounts = self.client.namespaced(client::gvr::SERVICE_ACCOUNTS, meta.get(k::NAMESPACE).str());
        let asked = base::time::now();
        let answer = accounts.create_subresource(account, "token", body).await?;
        let status = answer.get(k::STATUS);
        let expires = gotime::parse(status.get(k::EXPIRATION_TIMESTAMP).str()).ok();
        let life = expires.map_or(Duration::from_secs(3600), |at| since(asked, at));
        // At 80 % of its life, as upstream does.
        Ok(Held {
            token: Token { value: status.get(k::TOKEN).str().to_owned() },
            refresh_at: asked + life.mul_f64(0.8),
        })
    }

    /// Whether the node has room for what a pod wants.
    pub fn room(&self, state: &State) -> Option<Resize> {
        let uid = state.object().metadata().uid();
        let mut others = self.workers.states();
        others.retain(|s| s.stage != Stage::Done && s.object().metadata().uid() != uid);
        let others: Vec<Arc<Doc>> = others.iter().map(|s| s.allocated_pod()).collect();
        let others: Vec<Ref<'_>> = others.iter().map(|pod| pod.root()).collect();
        admission::room(state.pod.root(), &self.allocatable, &others)
    }

    /// Whether the engine is one that the pod's RuntimeClass asks for.
    ///
    /// # Errors
    /// In upstream's and containerd's words.
    pub async fn runtime_class(&self, pod: Pod<'_>) -> Result<(), String> {
        let Some(name) = pod.spec().runtime_class_name().filter(|name| !name.is_empty()) else {
            return Ok(());
        };
        let found = self.client.resource(client::gvr::RUNTIME_CLASSES).get(name).await;
        let class = match found {
            Ok(class) => class.doc(),
            Err(err) if err.is_not_found() => return Err(format!("RuntimeClass {name:?} not found")),
            Err(err) => return Err(format!("failed to get RuntimeClass {name:?}: {err}")),
        };
        let handler = class.get(k::HANDLER).str();
        if handler.is_empty() || handler == self.node.runtime {
            return Ok(());
        }
        Err(format!("failed to get sandbox runtime: no runtime for {handler:?} is configured"))
    }

    /// Forgets what was kept for a pod.
    pub fn forget(&self, uid: &str) {
        self.objects.release(uid);
        self.tokens.lock().expect("nobody panics holding it").retain(|(owner, _), _| owner != uid);
    }

    /// Waits until pods' networks can be made.
    pub async fn network_ready(&self) {
        // The sender lives in the main loop, which outlives all workers; if not, this worker ends too.
        self.network.clone().wait_for(|ready| *ready).await.ok();
    }
}

pub(crate) type SharedCore = Arc<Core>;
