use super::*;
use crate::codec::json;
use crate::doc::{Doc, Ref};
use crate::schema::{self, Go, Kind, TypeId, decode as typed, normalise::normalise};

fn pretty(doc: &Doc) -> String {
    let mut out = Vec::new();
    json::write_pretty(doc.root(), 0, &mut out);
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn type_of(root: Ref<'_>) -> Option<TypeId> {
    write::type_of(root.get("apiVersion").str(), root.get("kind").str())
}

fn hex(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Upstream's own pairs of JSON and protobuf. A pair with fields that this table does not know is read only.
#[test]
fn filled_objects_are_upstreams_byte_for_byte() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/upstream/api-golden");
    let Ok(files) = std::fs::read_dir(folder) else {
        eprintln!("NOT TESTED: {folder} is absent, no filled object was read");
        return;
    };
    let (mut seen, mut partly, mut unknown) = (0, Vec::new(), Vec::new());
    for file in files.map(|f| f.expect("a readable folder").path()) {
        if file.extension().is_none_or(|e| e != "pb") {
            continue;
        }
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let bytes = std::fs::read(&file).expect("a readable file");
        let text = std::fs::read(file.with_extension("json")).expect("JSON beside it");
        let parsed = json::parse(text).expect("JSON");
        let root = parsed.doc.root();
        // Its envelope names no kind.
        let event = (name == "core.v1.WatchEvent").then(|| schema::kind("", "v1", "WatchEvent")).flatten();
        let Some(ty) = event.or_else(|| type_of(root)) else {
            unknown.push(name);
            continue;
        };
        let from_json = typed::decode(&parsed, ty).unwrap_or_else(|e| panic!("{name}: {e}"));
        let opened = decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let got = match event {
            Some(ty) => to_doc(opened.raw, ty).map(|doc| Parsed { doc, duplicates: Vec::new() }),
            None => read(&bytes),
        };
        let got = got.unwrap_or_else(|e| panic!("{name}: {e}"));
        let from_proto = typed::decode(&got, ty).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(from_proto.strict, Vec::<String>::new(), "{name}");
        assert_eq!(pretty(&from_proto.doc), pretty(&from_json.doc), "{name}");
        if !from_json.strict.is_empty() {
            partly.push(name);
            continue;
        }
        let raw = from_doc(from_json.doc.root(), ty);
        let (mut written, tail) = envelope(opened.api_version, opened.kind, raw.len());
        written.extend_from_slice(&raw);
        written.extend_from_slice(&tail);
        assert_eq!(hex(&written), hex(&bytes), "{name}");
        seen += 1;
    }
    eprintln!("{seen} filled objects; read only: {partly:?}; kinds not known: {unknown:?}");
    assert!(seen > 70, "only {seen} filled objects in {folder}");
}

/// What an empty object becomes in protobuf, zeros and all, reads as the empty object.
#[test]
fn explicit_zeros_of_every_kind_read_as_unset() {
    for (group, version, kind, ty) in schema::kinds() {
        let empty = normalise(Doc::object().root(), ty);
        let raw = from_doc(empty.root(), ty);
        let back = to_doc(&raw, ty).unwrap_or_else(|e| panic!("{group}/{version} {kind}: {e}"));
        let back = Parsed { doc: back, duplicates: Vec::new() };
        let back = typed::decode(&back, ty).unwrap_or_else(|e| panic!("{group}/{version} {kind}: {e}"));
        assert_eq!(pretty(&back.doc), pretty(&empty), "{group}/{version} {kind}");
    }
}

/// An object with every field of the type set, to a certain depth.
fn filled(ty: TypeId, depth: usize) -> Doc {
    let mut doc = Doc::object();
    for member in ty.members().filter(|m| m.proto() > 0) {
        match member.ty().struct_type().filter(|_| member.inline()) {
            Some(inner) => {
                for (name, value) in filled(inner, depth).root().entries() {
                    doc.edit().set(name, value);
                }
            }
            None => {
                doc.edit().set(member.key(), value(member.ty(), depth));
            }
        }
    }
    doc
}

fn value(ty: Go, depth: usize) -> Doc {
    let mut out = Doc::object();
    match ty.kind() {
        Kind::Pointer => return value(ty.elem(), depth),
        Kind::Struct => {
            return ty.struct_type().filter(|_| depth > 0).map_or(out, |inner| filled(inner, depth - 1));
        }
        Kind::Slice => {
            let mut out = Doc::array();
            out.edit().push(value(ty.elem(), depth)).push(value(ty.elem(), depth));
            return out;
        }
        Kind::Map => drop(out.edit().set("b/c", value(ty.elem(), depth)).set("a", value(ty.elem(), depth))),
        Kind::Raw | Kind::FieldsV1 | Kind::Any => drop(out.edit().set("f:x", Doc::object())),
        Kind::String => return Doc::scalar("tëxt \"\n"),
        Kind::Bool => return Doc::scalar(true),
        Kind::Bytes => return Doc::scalar("AAEC/w=="),
        Kind::Quantity => return Doc::scalar("1500m"),
        Kind::IntOrString => return Doc::scalar("25%"),
        Kind::Time => return Doc::scalar("1969-12-31T23:59:59Z"),
        Kind::MicroTime => return Doc::scalar("1969-12-31T23:59:59.999999Z"),
        Kind::Duration => return Doc::scalar("1m30s"),
        Kind::Float32 | Kind::Float64 => return Doc::scalar(0.5),
        Kind::Uint | Kind::Uint32 | Kind::Uint64 => return Doc::scalar(7),
        Kind::Int | Kind::Int32 | Kind::Int64 => return Doc::scalar(-7),
    }
    out
}

#[test]
fn every_field_of_every_kind_comes_back() {
    for (group, version, kind, ty) in schema::kinds() {
        let want = normalise(filled(ty, 7).root(), ty);
        let back = to_doc(&from_doc(want.root(), ty), ty)
            .unwrap_or_else(|e| panic!("{group}/{version} {kind}: {e}"));
        assert_eq!(pretty(&normalise(back.root(), ty)), pretty(&want), "{group}/{version} {kind}");
    }
}

#[test]
fn what_is_no_message_is_refused() {
    let config_map = |raw: &[u8]| {
        let (mut bytes, tail) = envelope("v1", "ConfigMap", raw.len());
        bytes.extend_from_slice(raw);
        bytes.extend_from_slice(&tail);
        read(&bytes).map(|p| pretty(&p.doc).replace(['\n', ' '], ""))
    };
    let start = r#"{"kind":"ConfigMap","apiVersion":"v1""#;
    let cases: &[(&[u8], Result<String, ProtoError>)] = &[
        (b"", Ok(format!("{start}}}"))),
        // data {"a": "1"}, an unknown field 99, {"a": "2"}, and a group.
        (
            b"\x12\x06\x0a\x01a\x12\x011\x98\x06\x05\x12\x06\x0a\x01a\x12\x012\x9b\x06\x08\x01\x9c\x06",
            Ok(format!(r#"{start},"data":{{"a":"2"}}}}"#)),
        ),
        // metadata in two parts.
        (
            b"\x0a\x03\x0a\x01n\x0a\x03\x1a\x01m",
            Ok(format!(r#"{start},"metadata":{{"name":"n","namespace":"m"}}}}"#)),
        ),
        (b"\x12", Err(ProtoError::Truncated)),
        (b"\x12\x7f", Err(ProtoError::Truncated)),
        (b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\x7f", Err(ProtoError::Truncated)),
        (b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", Err(ProtoError::Overflow)),
        (b"\x00\x00", Err(ProtoError::Tag(0))),
        (b"\x0c", Err(ProtoError::Tag(12))),
        (b"\x0b", Err(ProtoError::Truncated)),
        (b"\x0f", Err(ProtoError::Tag(15))),
        (b"\x08\x01", Err(ProtoError::Form("ObjectMeta"))),
        (b"\x12\x03\x0a\x01\xff", Err(ProtoError::Text("data"))),
        (b"\x20\x01", Ok(format!(r#"{start},"immutable":true}}"#))),
        (b"\x22\x00", Err(ProtoError::Form("immutable"))),
        // creationTimestamp in the year 292277026596.
        (
            b"\x0a\x0c\x42\x0a\x08\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            Err(ProtoError::Value("creationTimestamp")),
        ),
    ];
    for (raw, want) in cases {
        let got = config_map(raw);
        match (want, &got) {
            (Err(ProtoError::Form("ObjectMeta")), Err(ProtoError::Form(_))) => {}
            _ => assert_eq!(&got, want, "{}", hex(raw)),
        }
    }
    assert_eq!(read(b"{}").map(|_| ()), Err(ProtoError::NoEnvelope));
    let unknown = envelope("example.com/v1", "Thing", 0).0;
    assert!(matches!(read(&unknown), Err(ProtoError::UnknownKind { .. })));
}

#[test]
fn envelopes_within_envelopes_have_an_end() {
    let wrap = |inner: &[u8]| {
        let mut raw = Vec::new();
        wire::put_message(2, &mut raw, |out| wire::put_bytes(1, inner, out));
        let (mut out, tail) = envelope("v1", "List", raw.len());
        out.extend_from_slice(&raw);
        out.extend_from_slice(&tail);
        out
    };
    let pod = object(crate::doc!({ "kind": "Pod", "apiVersion": "v1", "metadata": { "name": "a" } }).root());
    let mut bytes = pod.expect("a known kind");
    let mut got = Vec::new();
    for _ in 0..12 {
        bytes = wrap(&bytes);
        got.push(read(&bytes).map(|_| ()));
    }
    assert_eq!(got[7], Ok(()));
    assert_eq!(got[8], Err(ProtoError::TooDeep));
    // The enveloped object is normalised: none of its explicit zeros is seen.
    let one = read(&wrap(&object(crate::doc!({ "kind": "Pod", "apiVersion": "v1" }).root()).expect("known")));
    let one = one.expect("a list").doc;
    let want = r#"{"kind":"Pod","apiVersion":"v1","metadata":{},"spec":{"containers":null},"status":{}}"#;
    assert_eq!(String::from_utf8(one.root().find("items").item(0).to_json()).expect("UTF-8"), want);
    let deep = format!("{}1{}", "[".repeat(505), "]".repeat(505));
    let deep = [&wrap(deep.as_bytes()), &wrap(format!("{}1{}", "[".repeat(511), "]".repeat(511)).as_bytes())]
        .map(|b| read(b).map(|_| ()));
    assert_eq!(deep, [Ok(()), Err(ProtoError::TooDeep)]);
}

#[test]
fn lists_and_watch_frames_are_upstreams() {
    let item = crate::doc!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "name": "a" } });
    let meta = crate::doc!({ "resourceVersion": "7" });
    let items = [&item, &item].map(std::borrow::Cow::Borrowed);
    let listed = list("v1", "ConfigMapList", meta.root(), items.into_iter()).expect("a known kind");
    let mut whole = crate::doc!({ "kind": "ConfigMapList", "apiVersion": "v1" });
    whole.edit().set("metadata", &meta).set("items", vec![&item, &item]);
    assert_eq!(hex(&listed), hex(&object(whole.root()).expect("a known kind")));
    assert_eq!(list("v1", "ConfigMap", meta.root(), std::iter::empty()), None);
    assert_eq!(watch_frame("ADDED", b"k8s\0x"), b"\0\0\0\x10\x0a\x05ADDED\x12\x07\x0a\x05k8s\0x");
}
