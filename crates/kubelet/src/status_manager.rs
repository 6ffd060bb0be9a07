//! Writes one pod's status to the API: the newest state only, one write at a time, nothing where nothing changed; and the
//! final delete, after the final status. Upstream: pkg/kubelet/status/status_manager.go.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::call::Stored;
use apimachinery::{Doc, Ref, k};
use base::backoff::Backoff;
use base::task::Task;
use client::{Client, DeleteOptions, PatchType, Resource};
use tokio::sync::watch;

use crate::status;

/// The first and the longest wait after a failed write.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MOST: Duration = Duration::from_secs(10);

/// What the API should have.
#[derive(Clone, Default)]
struct Wanted {
    status: Option<Arc<Doc>>,
    /// The object as a watch has shown it last.
    seen: Option<Arc<Stored>>,
    delete: bool,
}

/// The writer of one pod's status. It ends when dropped.
pub struct StatusWriter {
    wanted: watch::Sender<Wanted>,
    _task: Task<()>,
}

struct Writer {
    pods: Resource,
    name: String,
    uid: String,
    /// The status that the API has, as of `revision`.
    written: Doc,
    revision: u64,
}

impl StatusWriter {
    /// Starts with the status that the API has.
    pub fn start(client: &Client, pod: Ref<'_>) -> StatusWriter {
        let meta = pod.get(k::METADATA);
        let (wanted, changes) = watch::channel(Wanted::default());
        let writer = Writer {
            pods: client.namespaced(client::gvr::PODS, meta.get(k::NAMESPACE).str()),
            name: meta.get(k::NAME).str().to_owned(),
            uid: meta.get(k::UID).str().to_owned(),
            written: pod.get(k::STATUS).to_doc(),
            revision: meta.get(k::RESOURCE_VERSION).str().parse().unwrap_or(0),
        };
        StatusWriter { wanted, _task: base::task::spawn(writer.run(changes)) }
    }

    /// The status to be written.
    pub fn set(&self, status: Arc<Doc>) {
        self.wanted.send_modify(|w| w.status = Some(status));
    }

    /// The object as a watch shows it: what others wrote into the status is put right.
    pub fn seen(&self, object: Arc<Stored>) {
        self.wanted.send_modify(|w| w.seen = Some(object));
    }

    /// Takes the pod out of the API once its status is written.
    pub fn delete(&self) {
        self.wanted.send_modify(|w| w.delete = true);
    }
}

impl Writer {
    async fn run(mut self, mut changes: watch::Receiver<Wanted>) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MOST);
        while changes.changed().await.is_ok() {
            loop {
                let wanted = changes.borrow_and_update().clone();
                match self.write(wanted).await {
                    Ok(()) => break backoff.reset(),
                    // The pod is gone: nothing is left to write. When another of its name has come (a conflict about the
                    // uid), the worker hears of it and ends this writer.
                    Err(err) if err.is_not_found() => return,
                    Err(err) => {
                        tracing::debug!(pod = %self.name, error = %err, "pod status not written, will be tried again");
                        base::time::sleep(backoff.next_wait()).await;
                    }
                }
            }
        }
    }

    async fn write(&mut self, wanted: Wanted) -> Result<(), client::Error> {
        if let Some(seen) = wanted.seen
            && seen.revision > self.revision
        {
            self.take(&seen);
        }
        if let Some(status) = wanted.status
            && let Some(patch) = status::patch(&self.uid, self.written.root(), status.root())
        {
            let answer = self.pods.patch(&self.name, PatchType::Strategic, patch, "status").await?;
            self.take(&answer);
        }
        if wanted.delete {
            let how = DeleteOptions { grace: Some(0), ..DeleteOptions::uid(&self.uid) };
            self.pods.delete(&self.name, how).await?;
        }
        Ok(())
    }

    fn take(&mut self, object: &Stored) {
        let doc = object.doc();
        self.written = doc.get(k::STATUS).to_doc();
        self.revision = object.revision;
    }
}
