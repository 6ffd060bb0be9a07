//! `xtask codegen`: everything that is generated from the schema text, and from nothing else.
use crate::schema_text::{self, Body, Schema};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

mod blob;
mod descriptions;
mod keys;
mod views;

/// Writes the generated files: below `crates/apimachinery/src/schema`, and the descriptions beside their one reader.
/// With `check` only compares, and fails on a difference.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let crate_dir = root.join("crates/apimachinery");
    let schema = schema_text::read(&crate_dir.join("schema"))?;
    let names = names(&schema);
    let out = crate_dir.join("src/schema");
    let mut files: Vec<(PathBuf, Vec<u8>)> = vec![
        (out.join("keys.rs"), keys::generate(&names)?.into_bytes()),
        (out.join("schema.bin"), blob::generate(&schema, &names)?),
    ];
    let texts = descriptions::generate(&schema, &crate_dir.join("schema/descriptions"))?;
    files.push((root.join("crates/apiserver/src/openapi/descriptions.txt.gz"), texts));
    for (name, text) in views::generate(&schema)? {
        files.push((out.join("views").join(name), text.into_bytes()));
    }
    let mut stale = Vec::new();
    for (path, content) in files {
        let same = std::fs::read(&path).is_ok_and(|old| old == content);
        if !same && check {
            stale.push(path.display().to_string());
        } else if !same {
            std::fs::create_dir_all(path.parent().context("a file has a folder")?)?;
            std::fs::write(&path, content)?;
        }
    }
    if !stale.is_empty() {
        bail!("out of date, run `cargo xtask codegen`: {}", stale.join(", "));
    }
    Ok(())
}

/// Every distinct JSON field name, sorted: the index is the key's number.
fn names(schema: &Schema) -> Vec<String> {
    let mut names = schema.extra_names.clone();
    for def in schema.types.values() {
        if let Body::Struct(fields) = &def.body {
            names.extend(fields.iter().filter(|f| !f.name.is_empty()).map(|f| f.name.clone()));
        }
    }
    names.sort();
    names.dedup();
    names
}

/// `clusterIPs` as words: `cluster`, `ips`. Acronyms stay together, also in the plural.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().collect();
    let (mut out, mut word) = (Vec::new(), String::new());
    for (i, &c) in chars.iter().enumerate() {
        let plural =
            |j: usize| chars.get(j) == Some(&'s') && chars.get(j + 1).is_none_or(|n| n.is_uppercase());
        let after_lower = i > 0 && !chars[i - 1].is_uppercase();
        let starts_word = chars.get(i + 1).is_some_and(|n| n.is_lowercase()) && !plural(i + 1);
        if !c.is_alphanumeric() || c.is_uppercase() && (after_lower || starts_word) {
            out.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    out.push(word);
    out.retain(|w| !w.is_empty());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_files_are_current() {
        run(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), true).unwrap();
    }

    #[test]
    fn names_split_as_people_read_them() {
        let cases = [
            ("clusterIPs", "cluster_ips"),
            ("hostPID", "host_pid"),
            ("x509Cert", "x509_cert"),
            ("$patch", "patch"),
            ("setHostnameAsFQDN", "set_hostname_as_fqdn"),
            ("targetCPUUtilizationPercentage", "target_cpu_utilization_percentage"),
            ("podCIDRs", "pod_cidrs"),
            ("downwardAPI", "downward_api"),
            ("externalIPs", "external_ips"),
        ];
        for (name, want) in cases {
            assert_eq!(words(name).join("_"), want);
        }
    }
}
