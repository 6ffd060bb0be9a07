//! `xtask import`: reads upstream's Go struct definitions and writes the schema text.
//!
//! It takes structure only (names, types, tags, markers), never prose, and knows just as much Go as gofmt-ed API
//! types need: one field or constant a line, no anonymous structs. Whatever it does not understand is an error.
//! Upstream: staging/src/k8s.io/api, staging/src/k8s.io/apimachinery/pkg/apis/meta.
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Go types that the schema text has words of its own for.
const BUILTIN: &[(&str, &str)] = &[
    ("resource.Quantity", "quantity"),
    ("util/intstr.IntOrString", "int-or-string"),
    ("meta/v1.Time", "time"),
    ("meta/v1.MicroTime", "micro-time"),
    ("meta/v1.Duration", "duration"),
    ("meta/v1.FieldsV1", "fields-v1"),
    ("runtime.RawExtension", "raw"),
    ("runtime.Object", "raw"),
];

/// Writes one text file per upstream package below `crates/apimachinery/schema`.
pub fn run(root: &Path, api: &str, apimachinery: &str) -> Result<()> {
    let out = root.join("crates/apimachinery/schema");
    std::fs::create_dir_all(&out)?;
    let meta = ["types", "watch", "group_version"].map(|f| format!("pkg/apis/meta/v1/{f}.go"));
    let mut packages = vec![
        package("types", apimachinery, &["pkg/types/uid.go".into(), "pkg/types/nodename.go".into()], None)?,
        package("meta/v1", apimachinery, &meta, Some(""))?,
    ];
    for path in git(api, &["ls-tree", "-r", "--name-only", "HEAD"])?.lines() {
        if let Some(name) = path.strip_suffix("/types.go").filter(|n| n.matches('/').count() == 1) {
            let register = git(api, &["show", &format!("HEAD:{name}/register.go")])?;
            let group = register.lines().find_map(|l| l.strip_prefix("const GroupName = "));
            let group = group.with_context(|| format!("{name}: no GroupName"))?.trim_matches('"').to_owned();
            packages.push(package(name, api, &[path.to_owned()], Some(&group))?);
        }
    }
    for (name, text) in packages {
        std::fs::write(out.join(format!("{}.txt", name.replace('/', "_"))), text)?;
    }
    Ok(())
}

fn git(dir: &str, args: &[&str]) -> Result<String> {
    let out = Command::new("git").arg("-C").arg(dir).args(args).output()?;
    ensure!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}

fn package(name: &str, dir: &str, files: &[String], group: Option<&str>) -> Result<(String, String)> {
    let mut p = Parser { package: name.to_owned(), ..Parser::default() };
    for file in files {
        p.file(&git(dir, &["show", &format!("HEAD:{file}")])?).with_context(|| format!("{name}: {file}"))?;
    }
    let mut text = format!("package {name}\n");
    if let Some(group) = group {
        writeln!(text, "group {group:?}")?;
    }
    for item in &p.items {
        text.push_str(&p.render(item)?);
    }
    Ok((name.to_owned(), text))
}

#[derive(Default)]
struct Parser {
    package: String,
    imports: BTreeMap<String, String>,
    items: Vec<Item>,
    /// Typed string constants by type name.
    constants: BTreeMap<String, Vec<String>>,
}

struct Item {
    name: String,
    markers: Vec<String>,
    body: Body,
}

enum Body {
    Alias(String),
    Struct(Vec<String>),
}

impl Parser {
    fn file(&mut self, text: &str) -> Result<()> {
        let mut markers = Vec::new();
        let mut lines = without_block_comments(text);
        lines.reverse();
        let (mut in_import, mut in_const) = (false, false);
        while let Some(raw) = lines.pop() {
            let line = raw.trim();
            if let Some(marker) =
                line.strip_prefix("//").map(str::trim_start).and_then(|l| l.strip_prefix('+'))
            {
                markers.push(marker.to_owned());
            } else if line.starts_with("import (") {
                in_import = true;
            } else if line.starts_with("const (") {
                in_const = true;
            } else if line == ")" {
                (in_import, in_const) = (false, false);
            } else if in_import || line.starts_with("import ") {
                self.import(line.trim_start_matches("import "));
            } else if in_const || line.starts_with("const ") {
                self.constant(line.trim_start_matches("const "));
            } else if let Some(def) = raw.strip_prefix("type ") {
                let item = self.item(def, std::mem::take(&mut markers), &mut lines)?;
                self.items.extend(item);
            } else if !line.is_empty() && !line.starts_with("//") {
                markers.clear();
            }
        }
        Ok(())
    }

    fn import(&mut self, line: &str) {
        let Some((alias, path)) = line.trim_end_matches('"').split_once('"') else { return };
        let path = path.trim_start_matches("k8s.io/apimachinery/pkg/").trim_start_matches("k8s.io/api/");
        let path = path.trim_start_matches("apis/").trim_start_matches("api/");
        let last = path.rsplit('/').next().unwrap_or(path);
        let alias = if alias.trim().is_empty() { last } else { alias.trim() };
        self.imports.insert(alias.to_owned(), path.to_owned());
    }

    /// `Name Type = "value"` or `Name = Type("value")`.
    fn constant(&mut self, line: &str) {
        let Some((left, right)) = line.split_once(" = ") else { return };
        let mut words = left.split_whitespace().skip(1);
        let (ty, value) = match (words.next(), right.split_once("(\"")) {
            (Some(ty), _) => (ty, right),
            (None, Some((ty, _))) => (ty, right),
            _ => return,
        };
        let Some((_, rest)) = value.split_once('"') else { return };
        let Some((value, _)) = rest.split_once('"') else { return };
        let known = self.constants.entry(ty.to_owned()).or_default();
        if !value.contains(char::is_whitespace) && !value.is_empty() && !known.iter().any(|k| k == value) {
            known.push(value.to_owned());
        }
    }

    fn item(&self, def: &str, markers: Vec<String>, lines: &mut Vec<String>) -> Result<Option<Item>> {
        let (name, rest) = def.split_once(' ').context("type without a definition")?;
        let rest = rest.trim_start_matches("= ").split("//").next().unwrap_or("").trim();
        if rest.starts_with("interface {") || rest.starts_with("watch.") {
            return Ok(None);
        }
        if rest != "struct {" {
            let body = if rest == "struct {}" || rest == "struct{}" {
                Body::Struct(Vec::new())
            } else {
                Body::Alias(self.go_type(rest)?)
            };
            return Ok(Some(Item { name: name.to_owned(), markers, body }));
        }
        let (mut fields, mut field_markers) = (Vec::new(), Vec::new());
        while let Some(line) = lines.pop() {
            let line = line.trim();
            if line == "}" {
                break;
            }
            if let Some(comment) = line.strip_prefix("//") {
                field_markers.extend(comment.trim_start().strip_prefix('+').map(str::to_owned));
            } else if line.contains("json:") {
                fields.extend(self.field(line, &field_markers).with_context(|| format!("{name}: {line}"))?);
                field_markers.clear();
            } else if !line.is_empty() {
                field_markers.clear();
            }
        }
        Ok(Some(Item { name: name.to_owned(), markers, body: Body::Struct(fields) }))
    }

    /// One line of schema text for one line of a Go struct.
    fn field(&self, line: &str, markers: &[String]) -> Result<Option<String>> {
        let (decl, tags) = line.split_once('`').context("field without tags")?;
        let json = tag(tags, "json").context("field without a json tag")?;
        let words: Vec<&str> = decl.split_whitespace().collect();
        let (go_name, ty) = match words[..] {
            [ty] => (ty.rsplit('.').next().unwrap_or(ty), ty),
            [name, ty] => (name, ty),
            _ => bail!("a field is a name and a type"),
        };
        let mut parts = json.split(',');
        let name = parts.next().unwrap_or("");
        if name == "-" {
            return Ok(None);
        }
        let flags: Vec<&str> = parts.collect();
        let inline = name.is_empty() && words.len() == 1 || flags.contains(&"inline");
        let mut out = if inline { "inline".to_owned() } else { name.to_owned() };
        if !inline && name.is_empty() {
            out = go_name.to_owned();
        }
        write!(out, " {}", self.go_type(ty)?)?;
        let proto = tag(tags, "protobuf").unwrap_or("");
        write!(out, " {}", proto.split(',').nth(1).unwrap_or("-"))?;
        for flag in flags.iter().filter(|f| f.starts_with("omit")) {
            write!(out, " {flag}")?;
        }
        if proto.split(',').nth(2) == Some("req") {
            out.push_str(" proto-required");
        }
        out.push_str(&field_markers(tags, markers)?);
        Ok(Some(out))
    }

    fn go_type(&self, ty: &str) -> Result<String> {
        if let Some(elem) = ty.strip_prefix('*') {
            return Ok(format!("*{}", self.go_type(elem)?));
        }
        if ty == "[]byte" {
            return Ok("bytes".into());
        }
        if let Some(elem) = ty.strip_prefix("[]") {
            return Ok(format!("[]{}", self.go_type(elem)?));
        }
        if let Some((key, elem)) = ty.strip_prefix("map[").and_then(|t| t.split_once(']')) {
            return Ok(format!("map[{}]{}", self.go_type(key)?, self.go_type(elem)?));
        }
        let full = match ty {
            "interface{}" | "any" => return Ok("any".into()),
            "string" | "bool" | "int" | "int32" | "int64" | "uint" | "uint32" | "uint64" | "float32"
            | "float64" => {
                return Ok(ty.to_owned());
            }
            _ => match ty.split_once('.') {
                Some((alias, name)) => {
                    let path = self.imports.get(alias).with_context(|| format!("import {alias}"))?;
                    format!("{path}.{name}")
                }
                None => format!("{}.{ty}", self.package),
            },
        };
        if let Some((_, word)) = BUILTIN.iter().find(|(go, _)| *go == full) {
            return Ok((*word).to_owned());
        }
        ensure!(!full.starts_with("runtime.") && !full.starts_with("resource."), "no word for {full}");
        Ok(full.strip_prefix(&format!("{}.", self.package)).unwrap_or(&full).to_owned())
    }

    fn render(&self, item: &Item) -> Result<String> {
        let mut out = String::new();
        let enumerated = item.markers.iter().any(|m| m == "enum");
        let object =
            |m: &String| m.starts_with("k8s:deepcopy-gen:interfaces=") && m.ends_with("runtime.Object");
        let object = item.markers.iter().any(object);
        match &item.body {
            Body::Alias(ty) => {
                write!(out, "\ntype {} {ty}", item.name)?;
                let values = self.constants.get(&item.name).filter(|_| ty == "string");
                match values {
                    Some(values) if enumerated => write!(out, " enum={}", values.join(","))?,
                    Some(values) => write!(out, " values={}", values.join(","))?,
                    None if object => out.push_str(" kind"),
                    None => {}
                }
                out.push('\n');
            }
            Body::Struct(fields) => {
                // ObjectReference says it is an object, but has no type of its own and is registered nowhere.
                let typed = |field: &String| field.starts_with("inline") && field.contains("TypeMeta");
                let kind = object && (item.name == "WatchEvent" || fields.iter().any(typed));
                let word = if kind { "kind" } else { "struct" };
                write!(out, "\n{word} {}", item.name)?;
                for marker in &item.markers {
                    match marker.split_once('=') {
                        Some(("structType" | "mapType", value)) => write!(out, " map={value}")?,
                        _ if marker == "union" => out.push_str(" union"),
                        _ => {}
                    }
                }
                out.push('\n');
                for field in fields {
                    writeln!(out, "  {field}")?;
                }
            }
        }
        Ok(out)
    }
}

/// The words of a field line that come from its markers and its patch tags. The default is last: it may hold blanks.
fn field_markers(tags: &str, markers: &[String]) -> Result<String> {
    let (mut out, mut list, mut keys, mut default) = (String::new(), "", Vec::new(), "");
    for marker in markers {
        let (name, value) = marker.split_once('=').unwrap_or((marker.as_str(), ""));
        match name {
            "optional" | "required" if !out.contains(name) => write!(out, " {name}")?,
            "k8s:optional" | "k8s:required" if !out.contains(&name[4..]) => write!(out, " {}", &name[4..])?,
            "listType" => list = value,
            "listMapKey" => keys.push(value),
            "mapType" | "structType" => write!(out, " map={value}")?,
            "default" => default = value,
            "unionDiscriminator" => out.push_str(" discriminator"),
            _ => {}
        }
    }
    if let Some(strategy) = tag(tags, "patchStrategy") {
        write!(out, " patch={strategy}")?;
    }
    if let Some(key) = tag(tags, "patchMergeKey") {
        write!(out, " merge-key={key}")?;
    }
    match (list, keys.is_empty()) {
        ("", _) => {}
        ("map", false) => write!(out, " list=map({})", keys.join(","))?,
        _ => write!(out, " list={list}")?,
    }
    if !default.is_empty() {
        write!(out, " default={default}")?;
    }
    Ok(out)
}

fn tag<'a>(tags: &'a str, name: &str) -> Option<&'a str> {
    let (before, rest) = tags.split_once(&format!("{name}:\""))?;
    let whole = before.is_empty() || before.ends_with([' ', '`']);
    rest.split_once('"').map(|(value, _)| value).filter(|_| whole)
}

fn without_block_comments(text: &str) -> Vec<String> {
    let (mut out, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        if line.trim_start().starts_with("/*") {
            inside = true;
        }
        if !inside {
            out.push(line.to_owned());
        }
        if line.contains("*/") && inside {
            inside = false;
        }
    }
    out
}
