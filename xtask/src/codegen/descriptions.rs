//! `descriptions.txt.gz`: what every described type and field means, with the rules of the text applied.
//!
//! The text (`crates/apimachinery/schema/descriptions/*.txt`) says each thing once. A field without words of its own
//! takes, in this order: those of the struct it is inlined from, those of the type that its type is said to equal
//! (`Type = Other`), those of the same type in the packages that its package is `like`, those under `*`.
use crate::schema_text::{Body, Go, Schema};
use anyhow::{Context, Result, bail, ensure};
use flate2::{Compression, GzBuilder};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::blob::structure;

/// As `kubectl explain` shows it, a description is a phrase, not a text.
const LENGTH_MAX: usize = 100;

#[derive(Default)]
struct Text {
    types: BTreeMap<String, About>,
    /// Packages whose types describe those of the same name in a package.
    like: BTreeMap<String, Vec<String>>,
    anywhere: BTreeMap<String, String>,
}

#[derive(Default)]
struct About {
    equals: Option<String>,
    description: String,
    fields: BTreeMap<String, String>,
}

/// The resolved text, compressed: a line `type\tdescription` for each type, then `\tfield\tdescription` for its fields.
pub fn generate(schema: &Schema, dir: &Path) -> Result<Vec<u8>> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut text = Text::default();
    for file in files {
        let content = std::fs::read_to_string(file.path())?;
        text.parse(&content).with_context(|| file.path().display().to_string())?;
    }
    text.check(schema)?;
    // No time and no name in the header: the same text gives the same bytes.
    let mut out = GzBuilder::new().write(Vec::new(), Compression::best());
    out.write_all(text.resolved(schema)?.as_bytes())?;
    Ok(out.finish()?)
}

impl Text {
    fn parse(&mut self, content: &str) -> Result<()> {
        let (mut package, mut current) = (String::new(), None::<String>);
        for line in content.lines().filter(|l| !l.trim().is_empty() && !l.starts_with('#')) {
            let (name, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
            let rest = rest.trim();
            ensure!(rest.len() <= LENGTH_MAX, "too long: {line}");
            match name {
                "package" => package = rest.to_owned(),
                "like" => {
                    let like = rest.split(' ').map(str::to_owned).collect();
                    self.like.insert(package.clone(), like);
                }
                "*" => current = None,
                _ if line.starts_with("  ") => {
                    ensure!(!rest.is_empty(), "no description: {line}");
                    let fields = match &current {
                        Some(ty) => &mut self.types.get_mut(ty).context("made when it was named")?.fields,
                        None => &mut self.anywhere,
                    };
                    ensure!(fields.insert(name.to_owned(), rest.to_owned()).is_none(), "twice: {line}");
                }
                _ => {
                    let mut about = About { description: rest.to_owned(), ..About::default() };
                    if let Some(rest) = rest.strip_prefix("= ") {
                        let (other, description) = rest.split_once(' ').unwrap_or((rest, ""));
                        about.equals = Some(qualified(&package, other));
                        about.description = description.trim().to_owned();
                    }
                    let ty = qualified(&package, name);
                    ensure!(self.types.insert(ty.clone(), about).is_none(), "twice: {line}");
                    current = Some(ty);
                }
            }
        }
        Ok(())
    }

    /// Everything that is named must exist.
    fn check(&self, schema: &Schema) -> Result<()> {
        let (mut all, mut faults) = (BTreeSet::new(), Vec::new());
        for name in schema.types.keys() {
            all.extend(structure(schema, name)?.into_iter().flatten().map(|f| f.name.as_str()));
        }
        let unknown = |name: &&String| !all.contains(name.as_str());
        faults.extend(self.anywhere.keys().filter(unknown).map(|name| format!("* {name}")));
        for (ty, about) in &self.types {
            let Some(Some(fields)) = schema.types.get(ty).map(|_| structure(schema, ty)).transpose()? else {
                faults.push(ty.clone());
                continue;
            };
            let unknown = |name: &&String| !fields.iter().any(|f| f.name == **name);
            faults.extend(about.fields.keys().filter(unknown).map(|name| format!("{ty} {name}")));
            faults.extend(about.equals.clone().filter(|other| !self.types.contains_key(other)));
        }
        let unknown = |other: &&String| !schema.types.values().any(|t| t.package == **other);
        faults.extend(self.like.values().flatten().filter(unknown).cloned());
        ensure!(faults.is_empty(), "described, but not in the schema: {}", faults.join(", "));
        Ok(())
    }

    fn resolved(&self, schema: &Schema) -> Result<String> {
        let mut out = String::new();
        for (ty, def) in &schema.types {
            if !matches!(def.body, Body::Struct(_)) {
                continue;
            }
            let mut fields = Vec::new();
            self.fields(schema, ty, &mut fields)?;
            let mut description = self.of_type(ty).to_owned();
            let listed = ty.strip_suffix("List").filter(|one| def.kind && schema.types.contains_key(*one));
            if let (true, Some(one)) = (description.is_empty(), listed) {
                description = format!("A list of {} objects", one.rsplit('.').next().unwrap_or(one));
            }
            writeln!(out, "{ty}\t{description}")?;
            for (name, text) in fields {
                writeln!(out, "\t{name}\t{text}")?;
            }
        }
        Ok(out)
    }

    /// The described fields of a struct, inlined ones included, in Go's order.
    fn fields(&self, schema: &Schema, ty: &str, out: &mut Vec<(String, String)>) -> Result<()> {
        for field in structure(schema, ty)?.context("a struct")? {
            match &field.ty {
                Go::Named(inner) if field.name.is_empty() => self.fields(schema, inner, out)?,
                _ if field.name.is_empty() => bail!("only a struct can be inlined"),
                _ => {
                    let text = self.of_field(ty, &field.name).or_else(|| self.anywhere.get(&field.name));
                    out.extend(text.map(|text| (field.name.clone(), text.clone())));
                }
            }
        }
        Ok(())
    }

    fn of_field(&self, ty: &str, field: &str) -> Option<&String> {
        let about = self.types.get(ty);
        about
            .and_then(|a| a.fields.get(field))
            .or_else(|| self.of_field(about?.equals.as_deref()?, field))
            .or_else(|| self.likes(ty).find_map(|other| self.of_field(&other, field)))
    }

    fn of_type(&self, ty: &str) -> &str {
        match self.types.get(ty) {
            Some(about) if !about.description.is_empty() => &about.description,
            _ => self.likes(ty).map(|other| self.of_type(&other)).find(|d| !d.is_empty()).unwrap_or(""),
        }
    }

    /// The types of the same name in the packages that this type's package is like.
    fn likes(&self, ty: &str) -> impl Iterator<Item = String> {
        let (package, name) = ty.rsplit_once('.').unwrap_or(("", ty));
        self.like.get(package).into_iter().flatten().map(move |other| format!("{other}.{name}"))
    }
}

fn qualified(package: &str, name: &str) -> String {
    if name.contains('.') { name.to_owned() } else { format!("{package}.{name}") }
}
