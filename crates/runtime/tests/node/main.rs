//! The embedded engine on this machine's kernel: real shims, real containers. Needs root; without it, or
//! without a static busybox to make an image of, the tests say so and pass.

mod containers;
mod hostile;
mod images;
mod recovery;
mod support;
