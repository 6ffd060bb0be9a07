//! The way of components to the API servers: it delays, loses, and breaks off when a server dies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use apimachinery::Call;
use apimachinery::call::{BoxFuture, Reply, Transport, TransportError, Watch, WatchEvent};
use apiserver::LocalTransport;
use futures_util::StreamExt;

use crate::seat::{Process, Seat};

/// The network of the cluster.
pub struct Net {
    /// Where each server answers.
    servers: Vec<Seat<LocalTransport>>,
    /// How long each way takes at most, in microseconds.
    delay_us: AtomicU64,
    /// How many of a thousand calls get lost on each way.
    lost: AtomicU64,
}

/// A component's way to the servers: to one of them until that fails it, then to the next.
pub struct Link {
    net: Arc<Net>,
    at: AtomicUsize,
}

impl Net {
    /// A network with so many servers, none of which answers yet.
    pub fn new(servers: usize) -> Net {
        let servers = (0..servers).map(|_| Seat::default()).collect();
        Net { servers, delay_us: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }

    /// How the network is from now on.
    pub fn set(&self, delay_most: Duration, lost_per_mille: u64) {
        self.delay_us.store(u64::try_from(delay_most.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.lost.store(lost_per_mille, Ordering::Relaxed);
    }

    /// Where a server answers.
    pub fn server(&self, server: usize) -> &Seat<LocalTransport> {
        &self.servers[server]
    }

    /// A component's way to the servers, which begins with this one.
    pub fn link(self: &Arc<Self>, first: usize) -> Arc<dyn Transport> {
        Arc::new(Link { net: self.clone(), at: AtomicUsize::new(first) })
    }

    async fn travel(&self) -> Result<(), TransportError> {
        base::time::sleep(Duration::from_micros(base::rand::below(
            self.delay_us.load(Ordering::Relaxed).max(1),
        )))
        .await;
        if base::rand::below(1000) < self.lost.load(Ordering::Relaxed) {
            return Err(broken(io::ErrorKind::ConnectionReset));
        }
        Ok(())
    }
}

fn broken(kind: io::ErrorKind) -> TransportError {
    TransportError::Io { context: "call the API server".into(), source: kind.into() }
}

impl Link {
    async fn carry(&self, call: Call) -> Result<Reply, TransportError> {
        let at = self.at.load(Ordering::Relaxed);
        let reply = self.carry_to(at, call).await;
        if reply.is_err() {
            self.at.store((at + 1) % self.net.servers.len(), Ordering::Relaxed);
        }
        reply
    }

    async fn carry_to(&self, server: usize, call: Call) -> Result<Reply, TransportError> {
        self.net.travel().await?;
        let process =
            self.net.servers[server].get().ok_or_else(|| broken(io::ErrorKind::ConnectionRefused))?;
        let reply = process.unless_gone(process.answers.call(call)).await;
        let reply = reply.ok_or_else(|| broken(io::ErrorKind::ConnectionReset))??;
        self.net.travel().await?;
        Ok(match reply {
            Reply::Watch(watch) => Reply::Watch(self.wrap(watch, process)),
            reply => reply,
        })
    }

    /// Events travel one after another; one that is lost breaks the watch off.
    fn wrap(&self, watch: Watch, process: Arc<Process<LocalTransport>>) -> Watch {
        let Watch { api_version, kind, events } = watch;
        let net = self.net.clone();
        let events =
            futures_util::stream::unfold((events, process, net), |(mut events, process, net)| async move {
                let some: Vec<WatchEvent> = process.unless_gone(events.next()).await??;
                net.travel().await.ok()?;
                Some((some, (events, process, net)))
            });
        Watch { api_version, kind, events: Box::pin(events) }
    }
}

impl Transport for Link {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(self.carry(call))
    }
}
