//! The engine's end of a shim's socket: many calls at a time, changes as they come.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use base::task::{self, Task};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};

use crate::shim::protocol::{
    Call, ContainerRecord, Failure, Message, Reply, Request, State, encode, lengths,
};

/// How many requests wait to be written.
const REQUESTS_WAITING_MAX: usize = 64;

/// Who is told what a shim says unasked. Called in the order in which the shim said it.
pub trait Listener: Send + Sync + 'static {
    /// All the shim knows, before any change is told.
    fn attached(&self, state: State);
    /// A container changed.
    fn changed(&self, record: ContainerRecord);
    /// The shim is gone.
    fn lost(&self);
}

/// Why a call failed.
#[derive(Debug)]
pub enum CallError {
    /// The shim said no.
    Failed(Failure),
    /// The shim is gone.
    Gone,
}

/// A connection to a shim. Dropping it leaves the shim as it is.
pub struct Client {
    requests: mpsc::Sender<Vec<u8>>,
    waiting: Arc<Mutex<Waiting>>,
    next_id: AtomicU64,
    _reader: Task<()>,
    _writer: Task<()>,
}

type Answer = Result<(Reply, Vec<u8>), Failure>;

/// Calls without an answer; `None` once no answer can come.
struct Waiting(Option<BTreeMap<u64, oneshot::Sender<Answer>>>);

impl Client {
    /// Connects to a shim's socket.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(socket: &Path, listener: Arc<dyn Listener>) -> io::Result<Client> {
        let (read, mut write) = UnixStream::connect(socket).await?.into_split();
        let waiting = Arc::new(Mutex::new(Waiting(Some(BTreeMap::new()))));
        let (requests, mut queue) = mpsc::channel::<Vec<u8>>(REQUESTS_WAITING_MAX);
        let reader = task::spawn({
            let waiting = Arc::clone(&waiting);
            async move {
                if let Err(e) = read_all(read, &waiting, &*listener).await
                    && e.kind() != io::ErrorKind::UnexpectedEof
                {
                    tracing::warn!(error = %e, "shim connection broke");
                }
                lock(&waiting).0 = None;
                listener.lost();
            }
        });
        let writer = task::spawn(async move {
            while let Some(frame) = queue.recv().await {
                // A broken connection shows on the reading side, which ends all calls.
                if write.write_all(&frame).await.is_err() {
                    return;
                }
            }
        });
        Ok(Client { requests, waiting, next_id: AtomicU64::new(1), _reader: reader, _writer: writer })
    }

    /// Asks and waits for the answer, with the raw bytes that came with it.
    ///
    /// # Errors
    /// The shim's own, or that it is gone.
    pub async fn call(&self, call: Call) -> Result<(Reply, Vec<u8>), CallError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        match &mut lock(&self.waiting).0 {
            Some(waiting) => waiting.insert(id, answer),
            None => return Err(CallError::Gone),
        };
        let mut frame = Vec::new();
        encode(&Request { id, call }, &[], &mut frame);
        self.requests.send(frame).await.map_err(|_| CallError::Gone)?;
        answered.await.map_err(|_| CallError::Gone)?.map_err(CallError::Failed)
    }
}

async fn read_all(
    mut read: OwnedReadHalf,
    waiting: &Mutex<Waiting>,
    listener: &dyn Listener,
) -> io::Result<()> {
    loop {
        let mut head = [0; 8];
        read.read_exact(&mut head).await?;
        let (json, raw) = lengths(head).ok_or_else(|| io::Error::other("a frame is too large"))?;
        let mut body = vec![0; json + raw];
        read.read_exact(&mut body).await?;
        let message: Message = serde_json::from_slice(&body[..json])?;
        match message {
            Message::Changed(record) => listener.changed(*record),
            Message::Reply { id, result } => {
                let raw = body.split_off(json);
                let result = result.map(|mut reply| {
                    // Taken in here, so that no change that follows is overwritten by it.
                    if let Reply::Hello { state, .. } = &mut reply {
                        listener.attached((**state).clone());
                    }
                    (reply, raw)
                });
                let waiter = lock(waiting).0.as_mut().and_then(|w| w.remove(&id));
                if let Some(waiter) = waiter {
                    // The caller may have given up.
                    waiter.send(result).ok();
                }
            }
        }
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().expect("nothing panics while it holds this lock")
}
