//! What an object, a request and an answer are; no IO.

pub mod call;
pub mod codec;
pub mod doc;
pub mod field;
pub mod gotime;
pub mod gvk;
pub mod meta;
pub mod patch;
pub mod quantity;
pub mod quota_usage;
pub mod schema;
pub mod selector;
pub mod status;
pub mod stored;
pub mod validation;

pub use call::{Call, Reply, Transport};
pub use doc::{Doc, Edit, Key, Ref, Val};
pub use gvk::{GroupResource, GroupVersion, Gvr};
pub use schema::keys::k;
pub use status::Status;

#[doc(hidden)]
pub use serde_json as __serde_json;
