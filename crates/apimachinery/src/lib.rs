//! What an object, a request and an answer are; no IO.

pub mod codec;
pub mod doc;
pub mod patch;
pub mod quantity;
pub mod schema;

pub use doc::{Doc, Edit, Key, Ref, Val};
pub use schema::keys::k;

#[doc(hidden)]
pub use serde_json as __serde_json;
