//! The schema text as data: what `import` writes and `codegen` reads. Every unknown word is an error.
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// All packages, in the order of their file names; types by qualified name (`core/v1.PodSpec`).
#[derive(Default)]
pub struct Schema {
    pub types: BTreeMap<String, TypeDef>,
    /// Names that need a key although no type has them as a field.
    pub extra_names: Vec<String>,
}

pub struct TypeDef {
    pub package: String,
    pub name: String,
    /// API group when the package registers kinds.
    pub group: Option<String>,
    /// Registered in its group and version under its own name.
    pub kind: bool,
    pub atomic: bool,
    pub body: Body,
}

pub enum Body {
    Struct(Vec<Field>),
    Alias { ty: Go, values: Vec<String>, closed: bool },
}

#[derive(Clone, Debug)]
pub struct Field {
    /// JSON name; empty when inlined.
    pub name: String,
    pub ty: Go,
    pub proto: u16,
    pub omitempty: bool,
    pub omitzero: bool,
    pub optional: bool,
    pub required: bool,
    pub proto_required: bool,
    pub discriminator: bool,
    pub map_atomic: bool,
    pub patch: Vec<String>,
    pub merge_key: Option<String>,
    pub list: Option<String>,
    pub list_keys: Vec<String>,
    pub default: Option<String>,
}

/// A Go type. `Word` is a scalar or one of the words of the import for special types.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Go {
    Word(&'static str),
    Pointer(Box<Go>),
    Slice(Box<Go>),
    Map(Box<Go>, Box<Go>),
    Named(String),
}

/// Scalars and special types, in the order of their numbers in the blob (`schema::Kind`).
pub const WORDS: &[&str] = &[
    "string",
    "bool",
    "int",
    "int32",
    "int64",
    "uint",
    "uint32",
    "uint64",
    "float32",
    "float64",
    "bytes",
    "quantity",
    "int-or-string",
    "time",
    "micro-time",
    "duration",
    "raw",
    "fields-v1",
    "any",
];

/// Reads every `*.txt` of the folder.
pub fn read(dir: &Path) -> Result<Schema> {
    let mut files: Vec<_> = std::fs::read_dir(dir)?.collect::<Result<_, _>>()?;
    files.sort_by_key(std::fs::DirEntry::file_name);
    let mut schema = Schema::default();
    for file in files.iter().filter(|f| f.path().is_file()) {
        let text = std::fs::read_to_string(file.path())?;
        parse(&text, &mut schema).with_context(|| file.path().display().to_string())?;
    }
    Ok(schema)
}

fn parse(text: &str, schema: &mut Schema) -> Result<()> {
    let (mut package, mut group, mut current) = (String::new(), None, None::<String>);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if line.starts_with("  ") {
            let field = field(line, &package).with_context(|| line.to_owned())?;
            let def =
                current.as_ref().and_then(|c| schema.types.get_mut(c)).context("field outside a type")?;
            if let Body::Struct(fields) = &mut def.body {
                fields.push(field);
            }
            continue;
        }
        let word = words.next();
        match (word, words.next()) {
            (None, _) => {}
            (Some("package"), Some(name)) => package = name.to_owned(),
            (Some("group"), Some(name)) => group = Some(name.trim_matches('"').to_owned()),
            (Some("name"), Some(name)) => schema.extra_names.push(name.to_owned()),
            (Some(word @ ("struct" | "kind" | "type")), Some(name)) => {
                let rest: Vec<&str> = words.collect();
                let mut def = TypeDef {
                    package: package.clone(),
                    name: name.to_owned(),
                    group: group.clone(),
                    kind: word == "kind" || rest.contains(&"kind"),
                    atomic: rest.contains(&"map=atomic"),
                    body: Body::Struct(Vec::new()),
                };
                if word == "type" {
                    def.body = alias(&rest, &package)?;
                }
                let full = format!("{package}.{name}");
                ensure!(schema.types.insert(full.clone(), def).is_none(), "{full} twice");
                current = Some(full);
            }
            _ => bail!("not understood: {line}"),
        }
    }
    Ok(())
}

fn alias(rest: &[&str], package: &str) -> Result<Body> {
    let ty = go(rest.first().context("type without a definition")?, package)?;
    let listed = |prefix| {
        rest.iter().find_map(|w| w.strip_prefix(prefix)).map(|v: &str| v.split(',').map(str::to_owned))
    };
    let (closed, open) = (listed("enum="), listed("values="));
    Ok(Body::Alias { ty, closed: closed.is_some(), values: closed.or(open).into_iter().flatten().collect() })
}

fn field(line: &str, package: &str) -> Result<Field> {
    let (line, default) = match line.split_once(" default=") {
        Some((line, default)) => (line, Some(default.to_owned())),
        None => (line, None),
    };
    let mut words = line.split_whitespace();
    let name = words.next().context("name")?;
    let ty = go(words.next().context("type")?, package)?;
    let proto = words.next().context("protobuf number")?;
    let mut f = Field {
        name: if name == "inline" { String::new() } else { name.to_owned() },
        ty,
        proto: if proto == "-" { 0 } else { proto.parse()? },
        omitempty: false,
        omitzero: false,
        optional: false,
        required: false,
        proto_required: false,
        discriminator: false,
        map_atomic: false,
        patch: Vec::new(),
        merge_key: None,
        list: None,
        list_keys: Vec::new(),
        default,
    };
    for word in words {
        match word.split_once('=') {
            None => match word {
                "omitempty" => f.omitempty = true,
                "omitzero" => f.omitzero = true,
                "optional" => f.optional = true,
                "required" => f.required = true,
                "proto-required" => f.proto_required = true,
                "discriminator" => f.discriminator = true,
                _ => bail!("unknown word {word}"),
            },
            Some(("patch", v)) => f.patch = v.split(',').map(str::to_owned).collect(),
            Some(("merge-key", v)) => f.merge_key = Some(v.to_owned()),
            Some(("map", v)) => f.map_atomic = v == "atomic",
            Some(("list", v)) => match v.strip_prefix("map(").and_then(|v| v.strip_suffix(')')) {
                Some(keys) => {
                    f.list = Some("map".into());
                    f.list_keys = keys.split(',').map(str::to_owned).collect();
                }
                None => f.list = Some(v.to_owned()),
            },
            Some(_) => bail!("unknown word {word}"),
        }
    }
    Ok(f)
}

fn go(text: &str, package: &str) -> Result<Go> {
    if let Some(elem) = text.strip_prefix('*') {
        return Ok(Go::Pointer(Box::new(go(elem, package)?)));
    }
    if let Some(elem) = text.strip_prefix("[]") {
        return Ok(Go::Slice(Box::new(go(elem, package)?)));
    }
    if let Some((key, elem)) = text.strip_prefix("map[").and_then(|t| t.split_once(']')) {
        return Ok(Go::Map(Box::new(go(key, package)?), Box::new(go(elem, package)?)));
    }
    if let Some(word) = WORDS.iter().find(|w| **w == text) {
        return Ok(Go::Word(word));
    }
    Ok(Go::Named(if text.contains('.') { text.to_owned() } else { format!("{package}.{text}") }))
}
