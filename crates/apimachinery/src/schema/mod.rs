//! The schema table: what every built-in type looks like, generated from `schema/*.txt` by `cargo xtask codegen`.
//!
//! Upstream: the struct tags and markers of k8s.io/api and k8s.io/apimachinery.

pub mod keys;
