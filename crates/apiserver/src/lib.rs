//! The API server: from a [`Call`](apimachinery::Call) to a [`Reply`](apimachinery::Reply), and the listener
//! around that.
//!
//! [`handler`] is the way of every request. No type parameter for the store, the kind or the object runs through
//! this room; what a kind is, `api` says. Components outside never touch storage: they call.
//! Upstream: k8s.io/apiserver, pkg/controlplane.

pub mod admission;
pub mod authentication;
pub mod authorization;
pub mod cacher;
pub mod connect;
pub mod discovery;
pub mod endpoints;
pub mod filters;
pub mod handler;
pub mod kinds;
pub mod metrics;
pub mod openapi;
pub mod paths;
pub mod registry;
pub mod server;
pub mod tokens;
pub mod tunnel;
pub mod version;

use std::sync::Arc;

use apimachinery::Call;
use apimachinery::call::{BoxFuture, Reply, Transport, TransportError};
use storage::Store;

pub use cacher::{Cacher, Lister};
pub use endpoints::Request;
pub use handler::handle;
pub use kinds::Kinds;

/// Everything that a request meets on its way, in explicit, ordered lists.
pub struct Api {
    /// What is served.
    pub kinds: Kinds,
    /// Where objects are.
    pub store: Arc<dyn Store>,
    /// Where they are read from.
    pub cacher: Arc<Cacher>,
    /// Who asks.
    pub authentication: Vec<Box<dyn authentication::Authenticator>>,
    /// Who may do what.
    pub authorization: Vec<Box<dyn authorization::Authorizer>>,
    /// What changes or refuses an object on its way in; [`admission::plugins`] is the usual list.
    pub admission: Vec<Box<dyn admission::Plugin>>,
    /// What is told of every request.
    pub audit: Vec<Box<dyn filters::audit::Sink>>,
    /// What is measured.
    pub metrics: metrics::Metrics,
    /// How many requests may be under way.
    pub flow: filters::flow::Flow,
    /// Paths that are no resources.
    pub paths: Vec<Box<dyn PathHandler>>,
    /// Resources and subresources with code of their own: reviews, tokens, logs.
    pub connect: Vec<Box<dyn Connect>>,
    /// What the cluster hands out.
    pub pools: registry::allocate::Pools,
}

/// A path, or a tree of paths, that is no resource: discovery, OpenAPI, health, metrics.
pub trait PathHandler: Send + Sync {
    /// Whether a path is its own. `path` has no query.
    fn serves(&self, path: &str) -> bool;

    /// The answer. The call has been authenticated and authorised.
    fn answer<'a>(&'a self, api: &'a Arc<Api>, path: &'a str, call: &'a Call) -> BoxFuture<'a, Reply>;
}

/// A resource or subresource with code of its own: virtual kinds (reviews) and what connects (log, token, exec).
pub trait Connect: Send + Sync {
    /// Whether it serves this kind's subresource of that name; empty for the resource itself.
    fn serves(&self, kind: &api::Kind, subresource: &str) -> bool;

    /// The answer. The request has been authenticated and authorised, and what connects has been admitted; what is
    /// created to ask something admits what it reads (`connect::asked`).
    fn answer(&self, request: Request) -> BoxFuture<'static, Reply>;
}

/// The way to the API for callers in the same process: the whole line, without encoding.
#[derive(Clone)]
pub struct LocalTransport(Arc<Api>);

impl LocalTransport {
    /// A transport to `api`.
    pub fn new(api: Arc<Api>) -> LocalTransport {
        LocalTransport(api)
    }

    /// The server it leads to.
    pub fn api(&self) -> &Arc<Api> {
        &self.0
    }
}

impl Transport for LocalTransport {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(async move { Ok(handle(&self.0, call).await) })
    }
}
