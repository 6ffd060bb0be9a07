//! Development tasks: `import` and `codegen` make the schema table, `tidy` and `size` watch the shape of the tree.
//!
//! Nothing here is part of the product; every task reads and writes files of this checkout only.
use anyhow::{Result, bail};
use std::path::PathBuf;

mod codegen;
mod conformance;
mod import;
mod run;
mod schema_text;
mod size;
mod source;
mod tidy;

const USAGE: &str = "cargo xtask <task>
  import --api <git dir> --apimachinery <git dir>   schema text from upstream's Go structs (development time only)
  codegen [--check]                                 schema blob, keys and views from the schema text
  tidy [--update]                                   dependency direction, lengths, lost files; see tidy-allow.txt
  size                                              hand-written lines against the budget
  conformance                                       rows of the conformance list that tests prove
  build [--profile NAME]                            the static binary; release if nothing is said
  demo                                              build, then show what a cluster does (needs root)
  test                                              all tests (with nextest where it is installed; some need root)";

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
    match args.first().map(String::as_str) {
        Some("import") => import::run(&root, &option(&args, "--api")?, &option(&args, "--apimachinery")?),
        Some("codegen") => codegen::run(&root, args.iter().any(|a| a == "--check")),
        Some("tidy") => tidy::run(&root, args.iter().any(|a| a == "--update")),
        Some("size") => size::run(&root),
        Some("conformance") => conformance::run(&root),
        Some("build") => {
            let profile = option(&args, "--profile").unwrap_or_else(|_| "release".to_owned());
            println!("{}", run::build(&root, &profile)?.display());
            Ok(())
        }
        Some("demo") => run::demo(&root),
        Some("test") => run::test(&root),
        _ => bail!("{USAGE}"),
    }
}

fn option(args: &[String], name: &str) -> Result<String> {
    match args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)) {
        Some(value) => Ok(value.clone()),
        None => bail!("{name} is missing\n{USAGE}"),
    }
}
