//! Where a process answers while it lives, and the way to a store that is a process of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use storage::{
    Batch, BoxFuture, Range, RangeReply, Result, Store, StoreError, Txn, TxnReply, Watch, WatchSource,
};

/// Where a process answers, for as long as one does.
pub struct Seat<T>(base::watch::Sender<Option<Arc<Process<T>>>>);

/// A process that runs, for as long as it does.
pub struct Process<T> {
    /// What it answers with.
    pub answers: T,
    gone: base::watch::Receiver<bool>,
    // Told by the seat when the process ends.
    end: base::watch::Sender<bool>,
}

impl<T> Default for Seat<T> {
    fn default() -> Self {
        Seat(base::watch::Sender::new(None))
    }
}

impl<T> Seat<T> {
    /// A process answers from now on.
    pub fn serve(&self, answers: T) {
        let (end, gone) = base::watch::channel(false);
        self.0.send(Some(Arc::new(Process { answers, gone, end })));
    }

    /// The process is gone: what is under way breaks off.
    pub fn down(&self) {
        let process = self.0.get();
        self.0.send(None);
        if let Some(process) = process {
            process.end.send(true);
        }
    }

    /// The process, if one answers.
    pub fn get(&self) -> Option<Arc<Process<T>>> {
        self.0.get()
    }

    /// The process, once one answers.
    pub async fn wait(&self) -> Arc<Process<T>> {
        let mut seat = self.0.subscribe();
        let served = seat.wait_for(Option::is_some).await.expect("the sender is ours");
        served.expect("waited for it")
    }
}

impl<T> Process<T> {
    /// What `work` gives, unless the process ends before.
    pub async fn unless_gone<O>(&self, work: impl Future<Output = O>) -> Option<O> {
        let mut gone = self.gone.clone();
        base::select! {
            _ = gone.wait_for(|gone| *gone) => None,
            out = work => Some(out),
        }
    }
}

/// One API server's way to the store. In one process with it the way takes no time; else it delays, and can be cut.
pub struct Way {
    /// The longest time that each direction takes, in microseconds.
    delay_us: AtomicU64,
    cut: base::watch::Sender<bool>,
    /// The API server at this end is dead: nothing of it may reach the store any more.
    dead: AtomicBool,
}

impl Way {
    /// A way that takes up to `delay_most` in each direction.
    pub fn new(delay_most: Duration) -> Way {
        let delay_us = AtomicU64::new(u64::try_from(delay_most.as_micros()).unwrap_or(u64::MAX));
        Way { delay_us, cut: base::watch::Sender::new(false), dead: AtomicBool::new(false) }
    }

    /// Cuts the way or mends it.
    pub fn cut(&self, cut: bool) {
        self.cut.send(cut);
    }

    /// Ends it for good, with the API server at its end.
    pub fn end(&self) {
        self.dead.store(true, Ordering::Relaxed);
    }

    async fn travel(&self) -> Result<()> {
        let most = self.delay_us.load(Ordering::Relaxed);
        if most > 0 {
            base::time::sleep(Duration::from_micros(base::rand::below(most))).await;
        }
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        if self.cut.get() {
            // As long as it takes to notice.
            base::time::sleep(Duration::from_millis(base::rand::below(2000))).await;
            return Err(broken(io::ErrorKind::TimedOut));
        }
        Ok(())
    }

    /// As [`Way::travel`], but half of those who meet a cut wait until it is mended: they are late, and do not know.
    async fn travel_late(&self) -> Result<()> {
        if self.cut.get() && base::rand::below(2) == 0 {
            self.cut.subscribe().wait_for(|cut| !cut).await.expect("the sender is ours");
        }
        self.travel().await
    }
}

fn broken(kind: io::ErrorKind) -> StoreError {
    StoreError::Io { what: "call the store", source: kind.into() }
}

/// The store as an API server sees it: whichever process answers.
pub struct Remote {
    /// Where the store answers.
    pub seat: Arc<Seat<Arc<dyn Store>>>,
    /// The way there.
    pub way: Arc<Way>,
}

/// A call on the store, whichever it is.
type Ask<T> = Box<dyn FnOnce(Arc<dyn Store>) -> BoxFuture<'static, Result<T>> + Send>;

impl Remote {
    /// Asks the store; an answer may get lost after what was asked for was done.
    fn ask<T: Send + 'static>(&self, ask: Ask<T>) -> BoxFuture<'_, Result<T>> {
        Box::pin(async move {
            self.way.travel().await?;
            let process = self.seat.get().ok_or_else(|| broken(io::ErrorKind::ConnectionRefused))?;
            let done = process.unless_gone(ask(process.answers.clone())).await;
            let done = done.unwrap_or_else(|| Err(broken(io::ErrorKind::ConnectionReset)));
            self.way.travel().await?;
            done
        })
    }
}

impl Store for Remote {
    fn is_shared(&self) -> bool {
        false
    }
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnReply>> {
        self.ask(Box::new(|store| Box::pin(async move { store.txn(txn).await })))
    }
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeReply>> {
        self.ask(Box::new(|store| Box::pin(async move { store.range(range).await })))
    }
    fn watch(&self, prefix: Bytes, from_revision: u64) -> BoxFuture<'_, Result<Watch>> {
        let (seat, way) = (self.seat.clone(), self.way.clone());
        Box::pin(async move {
            let process = seat.get().ok_or_else(|| broken(io::ErrorKind::ConnectionRefused))?;
            let ask: Ask<Watch> =
                Box::new(move |store| Box::pin(async move { store.watch(prefix, from_revision).await }));
            let watch = self.ask(ask).await?;
            Ok(Watch::new(RemoteWatch { process, way, watch, arriving: None }))
        })
    }
    fn revision(&self) -> BoxFuture<'_, Result<u64>> {
        self.ask(Box::new(|store| Box::pin(async move { store.revision().await })))
    }
    fn compact(&self, revision: u64) -> BoxFuture<'_, Result<()>> {
        self.ask(Box::new(move |store| Box::pin(async move { store.compact(revision).await })))
    }
}

struct RemoteWatch {
    process: Arc<Process<Arc<dyn Store>>>,
    way: Arc<Way>,
    watch: Watch,
    // On its way: whoever drops the future loses nothing.
    arriving: Option<Batch>,
}

impl WatchSource for RemoteWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch>> {
        Box::pin(async move {
            if self.arriving.is_none() {
                let next = self.process.unless_gone(self.watch.next()).await;
                self.arriving = Some(next.unwrap_or_else(|| Err(broken(io::ErrorKind::ConnectionReset)))?);
            }
            self.way.travel_late().await?;
            Ok(self.arriving.take().expect("it was there before the way"))
        })
    }
}
