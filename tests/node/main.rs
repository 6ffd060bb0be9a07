//! Whole nodes, as their users have them: the binary's own commands and stock kubectl, in network and mount namespaces
//! that end with the test. They know no crate of the product.
//!
//! They need root, `KEELSON_BINARY` (`cargo xtask test` sets it) or a build in the target directory, and kubectl;
//! without these they say so and pass.

mod api;
mod cluster;
mod conformance;
mod host;
mod images;
mod kills;
mod leaves;
mod node;
mod pods;
mod reboot;
mod seeds;
mod streams;
