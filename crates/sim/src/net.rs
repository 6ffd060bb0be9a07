//! The way of components to the API server: it delays, loses, and breaks off when the server dies.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use apimachinery::Call;
use apimachinery::call::{BoxFuture, Reply, Transport, TransportError, Watch, WatchEvent};
use apiserver::{Api, LocalTransport};
use futures_util::StreamExt;

/// The network of the cluster.
pub struct Net {
    server: base::watch::Sender<Option<Arc<Process>>>,
    /// How long each way takes at most, in microseconds.
    delay_us: AtomicU64,
    /// How many of a thousand calls get lost on each way.
    lost: AtomicU64,
}

/// A server that runs, for as long as it does.
struct Process {
    api: LocalTransport,
    gone: base::watch::Receiver<bool>,
    // Never read: told by `serve`'s caller through the other end.
    end: base::watch::Sender<bool>,
}

/// A component's way to the server.
pub struct Link(Arc<Net>);

impl Default for Net {
    fn default() -> Self {
        Net { server: base::watch::Sender::new(None), delay_us: AtomicU64::new(0), lost: AtomicU64::new(0) }
    }
}

impl Net {
    /// How the network is from now on.
    pub fn set(&self, delay_most: Duration, lost_per_mille: u64) {
        self.delay_us.store(u64::try_from(delay_most.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.lost.store(lost_per_mille, Ordering::Relaxed);
    }

    /// A server answers from now on.
    pub fn serve(&self, api: LocalTransport) {
        let (end, gone) = base::watch::channel(false);
        self.server.send(Some(Arc::new(Process { api, gone, end })));
    }

    /// The server is gone: calls under way and watches break off.
    pub fn down(&self) {
        let process = self.server.get();
        self.server.send(None);
        if let Some(process) = process {
            process.end.send(true);
        }
    }

    /// A component's way to the server.
    pub fn link(self: &Arc<Self>) -> Arc<dyn Transport> {
        Arc::new(Link(self.clone()))
    }

    /// The server itself, once it answers.
    pub async fn api(&self) -> Arc<Api> {
        let mut server = self.server.subscribe();
        let served = server.wait_for(Option::is_some).await.expect("the sender is ours");
        served.expect("waited for it").api.api().clone()
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
        self.0.travel().await?;
        let process = self.0.server.get().ok_or_else(|| broken(io::ErrorKind::ConnectionRefused))?;
        let mut gone = process.gone.clone();
        let reply = base::select! {
            _ = gone.wait_for(|gone| *gone) => return Err(broken(io::ErrorKind::ConnectionReset)),
            reply = process.api.call(call) => reply?,
        };
        self.0.travel().await?;
        Ok(match reply {
            Reply::Watch(watch) => Reply::Watch(self.wrap(watch, gone)),
            reply => reply,
        })
    }

    /// Events travel one after another; one that is lost breaks the watch off.
    fn wrap(&self, watch: Watch, gone: base::watch::Receiver<bool>) -> Watch {
        let Watch { api_version, kind, events } = watch;
        let net = self.0.clone();
        let events =
            futures_util::stream::unfold((events, gone, net), |(mut events, mut gone, net)| async move {
                let event: WatchEvent = base::select! {
                    _ = gone.wait_for(|gone| *gone) => return None,
                    event = events.next() => event?,
                };
                net.travel().await.ok()?;
                Some((event, (events, gone, net)))
            });
        Watch { api_version, kind, events: Box::pin(events) }
    }
}

impl Transport for Link {
    fn call(&self, call: Call) -> BoxFuture<'_, Result<Reply, TransportError>> {
        Box::pin(self.carry(call))
    }
}
