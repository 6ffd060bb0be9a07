//! Version 2 in protobuf: a table of gnostic's messages, and one encoder that follows it.
//!
//! Source: github.com/google/gnostic/openapiv2/OpenAPIv2.proto.

use std::collections::BTreeMap;

use apimachinery::{Doc, Ref};

use super::v2::Document;

/// How a value is encoded.
enum Form {
    /// A string.
    Text,
    /// A truth value.
    Bool,
    /// A value of any kind, as YAML text, which JSON is.
    Any,
    /// Several values, one member each. A single value is a list of one.
    Each(&'static Form),
    /// An object.
    Message(&'static Message),
    /// A message with this one member.
    In(u32, &'static Form),
    /// An object with free keys: a message with an entry of name (1) and value (2) for each, in this member.
    Map(u32, &'static Form),
    /// What the value itself decides.
    By(fn(Ref<'_>) -> &'static Form),
}

struct Message {
    members: &'static [(&'static str, u32, Form)],
    /// Where keys that begin with `x-` go.
    extensions: u32,
}

static INFO: Message =
    Message { members: &[("title", 1, Form::Text), ("version", 2, Form::Text)], extensions: 7 };

static API_KEY: Message = Message {
    members: &[
        ("type", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("description", 4, Form::Text),
    ],
    extensions: 5,
};

static HEAD: Message = Message {
    members: &[
        ("swagger", 1, Form::Text),
        ("info", 2, Form::Message(&INFO)),
        ("security", 12, Form::Each(&Form::Map(1, &Form::In(1, &Form::Each(&Form::Text))))),
        ("securityDefinitions", 13, Form::Map(1, &Form::In(2, &Form::Message(&API_KEY)))),
    ],
    extensions: 16,
};

static SCHEMA: Message = Message {
    members: &[
        ("$ref", 1, Form::Text),
        ("format", 2, Form::Text),
        ("description", 4, Form::Text),
        ("default", 5, Form::Any),
        ("required", 19, Form::Each(&Form::Text)),
        ("enum", 20, Form::Each(&Form::Any)),
        ("additionalProperties", 21, Form::In(1, &Form::Message(&SCHEMA))),
        ("type", 22, Form::In(1, &Form::Each(&Form::Text))),
        ("items", 23, Form::In(1, &Form::Message(&SCHEMA))),
        ("allOf", 24, Form::Each(&Form::Message(&SCHEMA))),
        ("properties", 25, Form::Map(1, &Form::Message(&SCHEMA))),
    ],
    extensions: 31,
};

static BODY: Message = Message {
    members: &[
        ("description", 1, Form::Text),
        ("name", 2, Form::Text),
        ("in", 3, Form::Text),
        ("required", 4, Form::Bool),
        ("schema", 5, Form::Message(&SCHEMA)),
    ],
    extensions: 6,
};

static IN_QUERY: Message = Message {
    members: &[
        ("required", 1, Form::Bool),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 6, Form::Text),
        ("uniqueItems", 20, Form::Bool),
    ],
    extensions: 23,
};

static IN_PATH: Message = Message {
    members: &[
        ("required", 1, Form::Bool),
        ("in", 2, Form::Text),
        ("description", 3, Form::Text),
        ("name", 4, Form::Text),
        ("type", 5, Form::Text),
        ("uniqueItems", 19, Form::Bool),
    ],
    extensions: 22,
};

static REFERENCE: Message = Message { members: &[("$ref", 1, Form::Text)], extensions: 0 };

static BODY_PARAMETER: Form = Form::In(1, &Form::Message(&BODY));
static PATH_PARAMETER: Form = Form::In(2, &Form::In(4, &Form::Message(&IN_PATH)));
static QUERY_PARAMETER: Form = Form::In(2, &Form::In(3, &Form::Message(&IN_QUERY)));
static IN_FULL: Form = Form::In(1, &PARAMETER);
static BY_REFERENCE: Form = Form::In(2, &Form::Message(&REFERENCE));

/// A parameter that stands in full.
static PARAMETER: Form = Form::By(|value| match value.get("in").str() {
    "body" => &BODY_PARAMETER,
    "path" => &PATH_PARAMETER,
    _ => &QUERY_PARAMETER,
});

/// A parameter in full or by reference.
static PARAMETERS: Form =
    Form::Each(&Form::By(|value| if value.get("$ref").exists() { &BY_REFERENCE } else { &IN_FULL }));

static RESPONSE: Message = Message {
    members: &[("description", 1, Form::Text), ("schema", 2, Form::In(1, &Form::Message(&SCHEMA)))],
    extensions: 5,
};

static OPERATION: Message = Message {
    members: &[
        ("tags", 1, Form::Each(&Form::Text)),
        ("description", 3, Form::Text),
        ("operationId", 5, Form::Text),
        ("produces", 6, Form::Each(&Form::Text)),
        ("consumes", 7, Form::Each(&Form::Text)),
        ("parameters", 8, Form::By(|_| &PARAMETERS)),
        ("responses", 9, Form::Map(1, &Form::In(1, &Form::Message(&RESPONSE)))),
        ("schemes", 10, Form::Each(&Form::Text)),
    ],
    extensions: 13,
};

static PATH: Message = Message {
    members: &[
        ("get", 2, Form::Message(&OPERATION)),
        ("put", 3, Form::Message(&OPERATION)),
        ("post", 4, Form::Message(&OPERATION)),
        ("delete", 5, Form::Message(&OPERATION)),
        ("options", 6, Form::Message(&OPERATION)),
        ("head", 7, Form::Message(&OPERATION)),
        ("patch", 8, Form::Message(&OPERATION)),
        ("parameters", 9, Form::By(|_| &PARAMETERS)),
    ],
    extensions: 10,
};

/// The whole document as gnostic's `openapi.v2.Document`.
pub(super) fn encode(document: &Document) -> Vec<u8> {
    let mut out = message(&HEAD, document.head.root());
    member(8, &map(2, &Form::Message(&PATH), &document.paths), &mut out);
    member(9, &map(1, &Form::Message(&SCHEMA), &document.definitions), &mut out);
    member(10, &map(1, &PARAMETER, &document.parameters), &mut out);
    out
}

fn map(number: u32, form: &Form, parts: &BTreeMap<String, Doc>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in parts {
        member(number, &entry(name, form, value.root()), &mut out);
    }
    out
}

fn entry(name: &str, form: &Form, value: Ref<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    member(1, name.as_bytes(), &mut out);
    put(2, form, value, &mut out);
    out
}

fn message(of: &Message, value: Ref<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, form) in of.members {
        let value = value.get(*name);
        if value.exists() {
            put(*number, form, value, &mut out);
        }
    }
    for extension in value.fields().filter(|f| f.name().starts_with("x-")) {
        member(of.extensions, &entry(extension.name(), &Form::Any, extension), &mut out);
    }
    out
}

fn put(number: u32, form: &Form, value: Ref<'_>, out: &mut Vec<u8>) {
    match form {
        Form::Text => member(number, value.str().as_bytes(), out),
        Form::Bool => {
            varint(u64::from(number) << 3, out);
            out.push(u8::from(value.bool()));
        }
        Form::Any => {
            let mut any = Vec::new();
            member(2, &value.to_json(), &mut any);
            member(number, &any, out);
        }
        Form::Each(form) if value.is_array() => value.items().for_each(|item| put(number, form, item, out)),
        Form::Each(form) => put(number, form, value, out),
        Form::Message(of) => member(number, &message(of, value), out),
        Form::In(inner, form) => {
            let mut wrapped = Vec::new();
            put(*inner, form, value, &mut wrapped);
            member(number, &wrapped, out);
        }
        Form::Map(inner, form) => {
            let mut entries = Vec::new();
            for field in value.fields() {
                member(*inner, &entry(field.name(), form, field), &mut entries);
            }
            member(number, &entries, out);
        }
        Form::By(choose) => put(number, choose(value), value, out),
    }
}

fn member(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    varint(u64::from(number) << 3 | 2, out);
    varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
