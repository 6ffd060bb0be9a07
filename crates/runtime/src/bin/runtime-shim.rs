//! A shim and nothing else, for tests of this crate: the product's binary is its own shim.

fn main() {
    runtime::shim_main(std::env::args_os().skip(1))
}
