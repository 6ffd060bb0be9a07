//! patch: JSON, merge and strategic merge. Server-side apply is refused.
//! Upstream: k8s.io/apiserver/pkg/endpoints/handlers/patch.go.

use std::borrow::Cow;

use apimachinery::call::{Body, FieldValidation, Reply};
use apimachinery::codec::json::{self, Parsed};
use apimachinery::codec::yaml;
use apimachinery::field::{ErrorList, Path};
use apimachinery::patch;
use apimachinery::{Doc, Status, k};

use super::{Request, decode};
use crate::registry::change::{self, Change};
use crate::registry::render;

/// How often a patch is applied anew to a changed object; upstream's number.
const TRIES_MAX: usize = 5;
/// The patches that are understood.
const ACCEPTED: &str =
    "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json";

/// The kinds of patches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// With lists merged by key.
    Strategic,
}

/// Changes an object, or its status, as the patch says.
///
/// # Errors
/// 415 for other patches, 400 and 422 for a patch that cannot be read or applied, and as [`super::update`].
pub async fn patch(request: Request) -> Result<Reply, Status> {
    let mut warnings = request.deprecation();
    let (form, patch) = read(&request)?;
    let name = request.target.name.clone();
    let version = request.served();
    let transform = |old: &Doc, warnings: &mut Vec<String>| {
        let shown = render::convert(&request.kind, version, old.clone());
        let expected = decode::Expected { kind: &request.kind.kind, gv: &version.gv, schema: version.schema };
        let validation = request.options.field_validation;
        let mut new = apply(form, &patch, &shown, &expected, validation, warnings)?;
        render::to_storage(&request.kind, version, &mut new);
        super::update::place(&request, &mut new)?;
        change::check_preconditions(&request, &new, old)?;
        Ok(new)
    };
    let done = change::update(&request, Change { tries: TRIES_MAX, ..Change::new(&name, transform) }).await?;
    warnings.extend(done.warnings);
    render::object(&request, 200, done.stored, warnings)
}

/// The request's patch.
///
/// # Errors
/// 415 for other media types, 400 for a body that cannot be read.
pub fn read(request: &Request) -> Result<(Form, Parsed), Status> {
    let (content_type, parsed): (&str, Cow<'_, Doc>) = match &request.body {
        Body::Empty => return Err(Status::bad_request("error decoding patch: unexpected end of JSON input")),
        Body::Doc { content_type, doc } => (content_type, Cow::Borrowed(&**doc)),
        Body::Bytes { content_type, bytes } => {
            let media = decode::media_type(content_type);
            let form = form(media)?;
            let read = if media.ends_with("+yaml") {
                yaml::parse(bytes).map_err(|e| e.to_string())
            } else {
                json::parse(bytes.to_vec()).map_err(|e| e.to_string())
            };
            let parsed = read.map_err(|e| Status::bad_request(format!("error decoding patch: {e}")))?;
            return Ok((form, parsed));
        }
    };
    Ok((form(content_type)?, Parsed { doc: parsed.into_owned(), duplicates: Vec::new() }))
}

/// Whether a request's patch is of a form that is understood.
pub fn is_known(body: &Body) -> bool {
    match body {
        Body::Empty => true,
        Body::Doc { content_type, .. } => form(content_type).is_ok(),
        Body::Bytes { content_type, .. } => form(decode::media_type(content_type)).is_ok(),
    }
}

fn form(media: &str) -> Result<Form, Status> {
    match media {
        "application/json-patch+json" => Ok(Form::Json),
        "application/merge-patch+json" => Ok(Form::Merge),
        "application/strategic-merge-patch+json" => Ok(Form::Strategic),
        "application/apply-patch+yaml" | "application/apply-patch+cbor" => {
            let mut status = Status::unsupported_media_type(ACCEPTED);
            status.message = format!(
                "server-side apply is not supported by this server: send one of {ACCEPTED} in place of {media:?} (kubectl apply --server-side=false)"
            );
            Err(status)
        }
        _ => Err(Status::unsupported_media_type(ACCEPTED)),
    }
}

/// Applies a patch to a document of the expected type; what comes out is in normal form.
///
/// # Errors
/// 400 and 422 in upstream's words, which do not name the object.
pub fn apply(
    form: Form,
    patch: &Parsed,
    shown: &Doc,
    expected: &decode::Expected<'_>,
    validation: FieldValidation,
    warnings: &mut Vec<String>,
) -> Result<Doc, Status> {
    let root = patch.doc.root();
    if form != Form::Json && !root.is_object() {
        return Err(Status::bad_request(format!(
            "error decoding patch: json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
            root.kind().name()
        )));
    }
    let doc = match form {
        Form::Merge => patch::merge::apply(shown, root),
        Form::Json => patch::json::apply(shown, root).map_err(|error| match &error {
            patch::json::JsonPatchError::Malformed(_) => Status::bad_request(error.to_string()),
            patch::json::JsonPatchError::TooMany(_) => Status::too_large(error.to_string()),
            patch::json::JsonPatchError::Failed(_) => unprocessable(&error),
        })?,
        Form::Strategic => patch::strategic::apply(shown.root(), root, expected.schema).map_err(|error| {
            match error.code() {
                422 => unprocessable(&error),
                400 => Status::bad_request(error.to_string()),
                _ => Status::unexplained(error.to_string()),
            }
        })?,
    };
    let unfit = |why: &str| {
        let mut errors = ErrorList::new();
        errors.invalid(&Path::new("patch"), String::from_utf8_lossy(&patch.doc.to_json()).as_ref(), why);
        Status::invalid("", "", "", errors)
    };
    if form == Form::Json && validation != FieldValidation::Ignore {
        let faults = faults(patch);
        if validation == FieldValidation::Strict && !faults.is_empty() {
            return Err(unfit(&decode::strictly(&faults)));
        }
        warnings.extend(faults);
    }
    let parsed = Parsed { doc, duplicates: patch.duplicates.clone() };
    decode::normal_or(parsed, expected, validation, warnings, unfit)
}

/// What strict decoding has against a JSON patch itself.
fn faults(patch: &Parsed) -> Vec<String> {
    let duplicate = patch.duplicates.iter().map(|at| format!("json patch duplicate field {at:?}"));
    let mut all: Vec<String> = duplicate.collect();
    for (i, step) in patch.doc.root().items().enumerate() {
        let unknown = step.fields().filter(|f| !matches!(f.name(), "op" | "path" | "from" | "value"));
        all.extend(unknown.map(|f| format!("json patch unknown field \"[{i}].{}\"", f.name())));
    }
    all
}

/// 422 in the words that upstream uses when a patch cannot be applied, and why.
fn unprocessable(why: &dyn std::fmt::Display) -> Status {
    let mut status = Status::invalid("", "", "", ErrorList::new());
    status.message = format!("the server rejected our request due to an error in our request: {why}");
    status
}

/// The name in a document's metadata.
pub fn name_of(doc: &Doc) -> &str {
    doc.get(k::METADATA).get(k::NAME).str()
}
