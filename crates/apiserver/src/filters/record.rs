//! One request from its arrival to its end: what audit is told and what is measured of it. Dropping it is its end,
//! whatever the reason, so that what lasts (a watch, a connection taken over) keeps it.

use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use apimachinery::call::{
    BoxFuture, ByteStream, Raw, RawBody, Reply, Target, UpgradeReply, User, Verb, Watch, Wire,
};
use apimachinery::{Call, Status};
use base::time::{Instant, Timestamp};
use futures_util::StreamExt;

use super::audit::{self, Annotations, Event, Stage};
use super::request_info;
use crate::Api;
use crate::authorization::{Attributes, Decision};
use crate::metrics::Asked;

/// A request on its way.
pub struct Record {
    api: Arc<Api>,
    /// As audit is told of it, if anybody listens.
    told: Option<Box<Told>>,
    verb: Verb,
    /// The kind, its version and the subresource, where there are such.
    known: Option<(Arc<Kind>, usize, String)>,
    scope: &'static str,
    dry_run: bool,
    began: Instant,
    user: Arc<User>,
    impersonator: Option<Arc<User>>,
    /// What is noted of it.
    pub annotations: Annotations,
    code: u16,
    lasts: bool,
}

/// What audit is told besides.
struct Told {
    /// The call without its body.
    call: Call,
    id: String,
    received: Timestamp,
}

impl Told {
    fn of(call: &Call) -> Told {
        let wire = Wire {
            method: call.wire.method.clone(),
            uri: call.wire.uri.clone(),
            peer: call.wire.peer,
            user_agent: call.wire.user_agent.clone(),
            ..Wire::default()
        };
        let told = Call {
            who: Default::default(),
            verb: call.verb,
            target: call.target.clone(),
            options: apimachinery::call::Options {
                dry_run: call.options.dry_run,
                field_selector: call.options.field_selector.clone(),
                label_selector: call.options.label_selector.clone(),
                ..Default::default()
            },
            accept: Default::default(),
            body: Default::default(),
            wire,
        };
        Told { call: told, id: audit::id(call), received: base::time::now() }
    }
}

impl Record {
    /// A request has come.
    pub fn new(api: &Arc<Api>, call: &Call) -> Record {
        api.metrics.begun(call.verb.is_mutating());
        let (known, scope) = match &call.target {
            Target::Path(_) => (None, ""),
            Target::Resource(t) => (
                // Names that nothing serves are the client's: they must not become series.
                api.kinds.served(&t.gvr).and_then(|(kind, version)| {
                    let served = t.subresource.is_empty() || kind.sub(&t.subresource).is_some();
                    served.then(|| (kind, version, t.subresource.clone()))
                }),
                match (t.name.as_str(), t.namespace.as_str()) {
                    ("", "") => "cluster",
                    ("", _) => "namespace",
                    _ => "resource",
                },
            ),
        };
        let listens = api.audit.iter().any(|sink| sink.listens());
        Record {
            api: api.clone(),
            told: listens.then(|| Box::new(Told::of(call))),
            verb: call.verb,
            known,
            scope,
            dry_run: call.options.dry_run,
            began: base::time::instant(),
            user: crate::authentication::anonymous(),
            impersonator: None,
            annotations: Annotations::default(),
            code: 0,
            lasts: false,
        }
    }

    /// The caller is known.
    pub fn known(&mut self, user: &Arc<User>) {
        self.user = user.clone();
        self.tell(Stage::RequestReceived);
    }

    /// The caller acts as another user.
    pub fn acts_as(&mut self, user: &Arc<User>) {
        self.impersonator = Some(std::mem::replace(&mut self.user, user.clone()));
    }

    /// Whether it may go on, and why.
    pub fn decided(&self, decision: &Decision) {
        if self.told.is_none() {
            return;
        }
        let (word, why) = match decision {
            Decision::Allow(why) => ("allow", why),
            Decision::Deny(why) | Decision::NoOpinion(why) => ("forbid", why),
        };
        self.annotations.note("authorization.k8s.io/decision", word.to_owned());
        self.annotations.note("authorization.k8s.io/reason", why.clone());
    }

    /// A fault in the server ended it.
    pub fn panicked(&mut self) {
        self.code = 500;
        self.tell(Stage::Panic);
    }

    /// The answer is made; what lasts ends later.
    pub fn answered(mut self, reply: Reply) -> Reply {
        self.code = audit::code(&reply);
        let lasts = match &reply {
            Reply::Watch(_) | Reply::Upgrade(_) => true,
            Reply::Raw(Raw { body: RawBody::Stream(_), .. }) => true,
            _ => return reply,
        };
        self.lasts = lasts;
        self.tell(Stage::ResponseStarted);
        self.api.metrics.lasting(&self.asked(), 1);
        match reply {
            Reply::Watch(watch) => {
                let events = watch.events.map(move |event| {
                    self.keep();
                    event
                });
                Reply::Watch(Watch { events: Box::pin(events), ..watch })
            }
            Reply::Raw(Raw { body: RawBody::Stream(pieces), code, content_type, headers }) => {
                let pieces = pieces.map(move |piece| {
                    self.keep();
                    piece
                });
                Reply::Raw(Raw { code, content_type, headers, body: RawBody::Stream(Box::pin(pieces)) })
            }
            Reply::Upgrade(taker) => Reply::Upgrade(Box::new(Taken { taker, record: self })),
            other => other,
        }
    }

    /// A closure that calls this owns the record until it is dropped itself.
    fn keep(&self) {}

    fn asked(&self) -> Asked<'_> {
        let verb = match self.verb {
            // As upstream, which measures what connects by itself and methods in capitals otherwise.
            Verb::Connect if !self.scope.is_empty() => "CONNECT",
            Verb::List => "LIST",
            Verb::Watch => "WATCH",
            Verb::Get => "GET",
            Verb::Create => "POST",
            Verb::Update => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
            Verb::DeleteCollection => "DELETECOLLECTION",
            Verb::Connect => "other",
        };
        let (group, version, resource, subresource, scope) = match &self.known {
            Some((kind, version, subresource)) => {
                let gv = &kind.versions[*version].gv;
                (&*gv.group, &*gv.version, &*kind.storage.resource, subresource.as_str(), self.scope)
            }
            None => Default::default(),
        };
        Asked {
            verb,
            group,
            version,
            resource,
            subresource,
            scope,
            dry_run: self.dry_run,
            code: self.code,
            took: base::time::instant().saturating_duration_since(self.began).max(Duration::ZERO),
        }
    }

    fn tell(&self, stage: Stage) {
        if self.api.audit.is_empty() {
            return;
        }
        self.api.metrics.audited();
        let Some(told) = &self.told else { return };
        let Told { call, id, received } = &**told;
        let request: Attributes<'_> = request_info::attributes(call, &self.user);
        let annotations = self.annotations.all();
        let event = Event {
            id,
            stage,
            request: &request,
            impersonator: self.impersonator.as_deref(),
            uri: &call.wire.uri,
            user_agent: &call.wire.user_agent,
            peer: call.wire.peer,
            received: *received,
            code: self.code,
            annotations: &annotations,
        };
        for sink in &self.api.audit {
            sink.told(&event);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.tell(Stage::ResponseComplete);
        let asked = self.asked();
        if self.lasts {
            self.api.metrics.lasting(&asked, -1);
        }
        self.api.metrics.ended(&asked, self.verb.is_mutating());
    }
}

/// A connection that is taken over, and the request that it was.
struct Taken {
    taker: Box<dyn UpgradeReply>,
    record: Record,
}

impl UpgradeReply for Taken {
    fn headers(&self) -> Vec<(String, String)> {
        self.taker.headers()
    }

    fn run(self: Box<Self>, stream: Box<dyn ByteStream>) -> BoxFuture<'static, ()> {
        let Taken { taker, record } = *self;
        Box::pin(async move {
            taker.run(stream).await;
            drop(record);
        })
    }
}

/// The answer to a request that a fault in the server ended.
pub fn faulty() -> Status {
    Status::internal("the request could not be served because of a fault in the server")
}
