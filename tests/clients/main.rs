//! Clients that others have written, against a server of their own: Python's `kubernetes`, npm's
//! `@kubernetes/client-node`, kube-rs, and k8s-pb's types over plain HTTP. Each lists, watches and writes as its users do.
//!
//! They need `KEELSON_BINARY` (`cargo xtask test` sets it). A client that cannot be installed is skipped, loudly.

mod kube;
mod protobuf;
mod scripts;
mod server;
