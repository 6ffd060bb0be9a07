//! Development tasks: `import` and `codegen` make the schema table, `tidy` and `size` watch the shape of the tree.
//!
//! Nothing here is part of the product; every task reads and writes files of this checkout only.
use anyhow::{Result, bail};
use std::path::PathBuf;

mod codegen;
mod import;
mod schema_text;

const USAGE: &str = "cargo xtask <task>
  import --api <git dir> --apimachinery <git dir>   schema text from upstream's Go structs (development time only)
  codegen [--check]                                 schema blob, keys and views from the schema text";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    match args.first().map(String::as_str) {
        Some("import") => import::run(&root, &option(&args, "--api")?, &option(&args, "--apimachinery")?),
        Some("codegen") => codegen::run(&root, args.iter().any(|a| a == "--check")),
        _ => bail!("{USAGE}"),
    }
}

fn option(args: &[String], name: &str) -> Result<String> {
    match args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)) {
        Some(value) => Ok(value.clone()),
        None => bail!("{name} is missing\n{USAGE}"),
    }
}
