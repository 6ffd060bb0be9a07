//! Bytes to documents and back.

pub mod json;
pub mod protobuf;
pub mod spdy;
pub mod websocket;
pub mod yaml;
