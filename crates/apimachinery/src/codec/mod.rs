//! Bytes to documents and back.

pub mod json;
pub mod protobuf;
pub mod yaml;
