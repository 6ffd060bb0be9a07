//! Bytes to documents and back.

pub mod json;
pub mod yaml;
