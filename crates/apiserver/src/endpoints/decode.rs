//! A request's body as a document of the version in which the client speaks, in normal form.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/handlers/{create,update,rest}.go.

use apimachinery::call::{Body, FieldValidation};
use apimachinery::codec::json::{self, Parsed};
use apimachinery::codec::protobuf::{self, ProtoError};
use apimachinery::codec::yaml;
use apimachinery::gvk::GroupVersion;
use apimachinery::schema::{self, TypeId};
use apimachinery::{Doc, Status, doc, k};

/// The bodies that are understood.
const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// How much of a body that cannot be read is shown to its sender, in bytes.
const SHOWN_BYTES: usize = 30;

/// What a body should be.
pub struct Expected<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// Its group and version.
    pub gv: &'a GroupVersion,
    /// Its schema.
    pub schema: TypeId,
}

impl Expected<'_> {
    fn refuse(&self, why: &str) -> Status {
        let Expected { kind, gv, .. } = self;
        let version = &gv.version;
        Status::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {why}"))
    }
}

/// The media type of a content type header.
pub fn media_type(content_type: &str) -> &str {
    content_type.split(';').next().unwrap_or("").trim()
}

/// Reads a body without asking what it should be.
///
/// # Errors
/// 415 for other media types, 400 for text that is none of its kind.
pub fn parse(body: &Body, kind: &str) -> Result<Parsed, Status> {
    let unreadable = |e: &dyn std::fmt::Display, bytes: &[u8]| {
        let begins = beginning(bytes);
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): couldn't get version/kind; json parse error: {e} ({begins})"
        ))
    };
    match body {
        Body::Empty => Err(unreadable(&"unexpected end of JSON input", b"")),
        Body::Doc { doc, .. } => Ok(Parsed { doc: (**doc).clone(), duplicates: Vec::new() }),
        Body::Bytes { content_type, bytes } => match &*media_type(content_type).to_ascii_lowercase() {
            "" | "application/json" => json::parse(bytes.to_vec()).map_err(|e| unreadable(&e, bytes)),
            "application/yaml" => yaml::parse(bytes).map_err(|e| unreadable(&e, bytes)),
            protobuf::MEDIA_TYPE => enveloped(bytes, kind),
            _ => Err(Status::unsupported_media_type(ACCEPTED)),
        },
    }
}

/// How a body begins: as text where it may be JSON, else in hexadecimal digits. Upstream: `summarizeData`.
fn beginning(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if shown.len() < bytes.len() { " ..." } else { "" };
    match shown.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(shown)),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

/// Kinds that nobody knows come out empty but for their names: whoever expects another kind says so better.
fn enveloped(bytes: &[u8], kind: &str) -> Result<Parsed, Status> {
    protobuf::read(bytes).or_else(|err| match err {
        ProtoError::UnknownKind { api_version, kind } if !kind.is_empty() => {
            let doc = doc!({ "kind": kind, "apiVersion": api_version });
            Ok(Parsed { doc, duplicates: Vec::new() })
        }
        err => Err(Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): {err}"
        ))),
    })
}

/// Reads a body that should be an object of a certain kind.
///
/// # Errors
/// As [`parse`]; 400 for another kind or version, for values that do not fit, and with strict validation for unknown
/// and repeated fields, which are warnings otherwise.
pub fn object(
    body: &Body,
    expected: &Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Doc, Status> {
    let parsed = parse(body, expected.kind)?;
    normal(parsed, expected, validation, warnings)
}

/// Checks a parsed object and brings it into normal form; see [`object`].
///
/// # Errors
/// See [`object`].
pub fn normal(
    parsed: Parsed,
    expected: &Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Doc, Status> {
    normal_or(parsed, expected, validation, warnings, |why| expected.refuse(why))
}

/// As [`normal`], but values that do not fit are refused as `unfit` says.
///
/// # Errors
/// See [`object`].
pub fn normal_or(
    mut parsed: Parsed,
    expected: &Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
    unfit: impl Fn(&str) -> Status,
) -> Result<Doc, Status> {
    check_type(&mut parsed.doc, expected)?;
    let decoded = schema::decode::decode(&parsed, expected.schema).map_err(|e| unfit(&e.to_string()))?;
    match validation {
        FieldValidation::Strict if !decoded.strict.is_empty() => {
            return Err(unfit(&strictly(&decoded.strict)));
        }
        FieldValidation::Warn => warnings.extend(decoded.strict),
        _ => {}
    }
    Ok(decoded.doc)
}

/// What strict validation says.
pub fn strictly(faults: &[String]) -> String {
    format!("strict decoding error: {}", faults.join(", "))
}

/// Kind and apiVersion must be those of the resource; where unsaid they are filled in.
fn check_type(doc: &mut Doc, expected: &Expected<'_>) -> Result<(), Status> {
    if !doc.root().is_object() {
        return Ok(());
    }
    for key in [k::API_VERSION, k::KIND] {
        let given = doc.get(key);
        if given.is_set() && given.opt_str().is_none() {
            let what = given.kind().name();
            let right = if key == k::KIND { expected.kind.to_owned() } else { expected.gv.to_string() };
            return Err(Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {}): couldn't get version/kind; json parse error: json: cannot unmarshal \
                 {what} into Go struct field .{} of type string; did you mean {} {right:?}?",
                expected.kind,
                key.name(),
                key.name()
            )));
        }
    }
    let (kind, api_version) = (doc.get(k::KIND).str().to_owned(), doc.get(k::API_VERSION).str().to_owned());
    let wanted = expected.gv.to_string();
    if (kind.is_empty() || kind == expected.kind) && (api_version.is_empty() || api_version == wanted) {
        let mut root = doc.edit();
        root.set(k::KIND, expected.kind).set(k::API_VERSION, wanted);
        return Ok(());
    }
    let given = match GroupVersion::parse(&api_version) {
        Some(given) => given,
        None if api_version.is_empty() => expected.gv.clone(),
        None => return Err(Status::bad_request(format!("unexpected GroupVersion string: {api_version}"))),
    };
    let kind = if kind.is_empty() { expected.kind.to_owned() } else { kind };
    if schema::kind(&given.group, &given.version, &kind).is_none() {
        let hint =
            api::suggest(&given.group, &given.version, &kind).map_or_else(String::new, |s| format!("; {s}"));
        return Err(Status::bad_request(format!(
            "no kind {kind:?} is registered for version {:?} in this server{hint}",
            given.to_string()
        )));
    }
    if given != *expected.gv {
        return Err(Status::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({wanted})"
        )));
    }
    Err(Status::bad_request(format!(
        "{kind} in version {:?} cannot be handled as a {}: converting ({}.{kind}) to ({}.{}): unknown conversion",
        given.version, expected.kind, given.version, expected.gv.version, expected.kind
    )))
}
