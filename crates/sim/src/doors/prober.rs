//! Requests to containers that pretend to run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::BoxFuture;
use kubelet::doors::{GrpcRequest, HttpAnswer, HttpRequest, Prober};

use super::{SimNetwork, SimRuntime, pause};

/// Answers for whatever container is ready at an address.
pub struct SimProber {
    /// Which containers are ready.
    pub runtime: Arc<SimRuntime>,
    /// Whose an address is.
    pub network: Arc<SimNetwork>,
}

impl SimProber {
    async fn ask(&self, address: SocketAddr) -> Result<(), String> {
        pause(5).await;
        match self.network.owner(address.ip()).filter(|sandbox| self.runtime.is_ready(sandbox)) {
            Some(_) => Ok(()),
            None => Err(format!("dial tcp {address}: connect: connection refused")),
        }
    }
}

impl Prober for SimProber {
    fn http_get(&self, request: HttpRequest, _: Duration) -> BoxFuture<'_, Result<HttpAnswer, String>> {
        Box::pin(async move {
            self.ask(request.address).await.map(|()| HttpAnswer { code: 200, ..HttpAnswer::default() })
        })
    }
    fn grpc(&self, request: GrpcRequest, _: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move { self.ask(request.address).await })
    }
    fn tcp(&self, address: SocketAddr, _: Duration) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(self.ask(address))
    }
}
