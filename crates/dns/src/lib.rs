//! The cluster's DNS: names for Services, headless endpoints and pods; everything else is forwarded.
//!
//! One server on each node, on the pod network's gateway address, behind the Service `kube-dns`.
//! Source: the Kubernetes DNS-based service discovery specification 1.1.0.

mod answer;
mod forward;
mod run;

mod serve;
mod zone;

pub use answer::{Outcome, answer};
pub use forward::Forwarder;

pub use run::{Config, DnsError, run};
pub use zone::{Endpoint, Port, Service, Zone};
