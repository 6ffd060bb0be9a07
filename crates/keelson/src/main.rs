//! Keelson: a complete Kubernetes in one binary.
//!
//! What it does is in the other rooms; here is what it is told (`cli`), and the ordered lists of what runs in the
//! two processes of a machine (`server`, `node`).

mod bench;
mod cli;
mod demo;
mod down;
mod host;
mod image;
mod install;
mod layout;
mod node;
mod peers;
mod resolve;
mod server;
mod status;
mod steps;
mod up;

use std::process::ExitCode;

// A request is thirty allocations; see docs/decisions.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<std::ffi::OsString> = std::env::args_os().skip(1).collect();
    // Verbs that must not meet a runtime or a log: a pod's shim, and programs inside containers.
    match arguments.first().and_then(|a| a.to_str()) {
        Some("shim") => runtime::shim_main(arguments.into_iter().skip(1)),
        Some("demo-app") => return demo::app::main(&arguments[1..]),
        _ => {}
    }
    base::task::abort_on_panic();
    match cli::run() {
        Ok(code) => code,
        Err(err) => {
            eprintln!("keelson: {err:#}");
            ExitCode::FAILURE
        }
    }
}
