//! What every component talks to the API server with: the client, its HTTPS transport, caches kept fresh by
//! watches, work queues, the own-write fence, and events.
//!
//! It knows no kind beyond Event and Lease. Inside the server's process the transport hands out the cacher's
//! own objects, so nothing is encoded or copied. Upstream: k8s.io/client-go.

pub mod api;
pub mod cache;
pub mod events;
pub mod fence;
pub mod gvr;
pub mod https;
pub mod leader;
pub mod queue;
pub mod reflector;

pub use api::{Client, DeleteOptions, Deleted, Error, PatchType, Propagation, Resource};
pub use cache::{Change, ObjectKey, SharedCache};
pub use events::{EventRecorder, EventType, ObjectRef};
pub use fence::Fence;
pub use https::{Dialer, HttpsTransport, Kubeconfig, Stream};
pub use queue::WorkQueue;
