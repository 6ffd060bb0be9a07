//! Typed decoding: what upstream's JSON decoder says to a document that is read into a built-in type.
//!
//! Two kinds of complaint: type errors, of which the first fails the request, and strict errors (unknown and duplicate
//! fields), of which all are collected and the caller decides by `fieldValidation`. Both come in the order of the text
//! and in upstream's words. Unknown fields are dropped either way. Names are matched by case.
//! Upstream: sigs.k8s.io/json, and the `UnmarshalJSON` methods of apimachinery's special types.
use super::normalise::normalise;
use super::{Go, Kind, TypeId};
use crate::codec::json::Parsed;
use crate::doc::{self, Doc, Ref};
use crate::{gotime, quantity};
use base64::Engine as _;
use std::fmt::Write as _;

/// How many strict errors are collected, as upstream.
const STRICT_MAX: usize = 100;

/// A document in normal form, and what strict decoding has against its text.
#[derive(Debug)]
pub struct Decoded {
    /// As upstream would write it.
    pub doc: Doc,
    /// `unknown field "spec.x"`, `duplicate field "spec.y"`; joined with ", " after `strict decoding error: ` by callers.
    pub strict: Vec<String>,
}

/// The text does not fit the type; worded as upstream (`json: cannot unmarshal string into Go struct field …`). Answers
/// put `<kind> in version "<version>" cannot be handled as a <kind>: ` before it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DecodeError {
    message: String,
}

/// Checks a parsed document against its type and brings it into normal form.
pub fn decode(parsed: &Parsed, ty: TypeId) -> Result<Decoded, DecodeError> {
    let strict = check(&parsed.doc, ty, &parsed.duplicates)?;
    Ok(Decoded { doc: normalise(parsed.doc.root(), ty), strict })
}

/// The checks alone: the strict errors, or the first type error.
pub fn check(doc: &Doc, ty: TypeId, duplicates: &[String]) -> Result<Vec<String>, DecodeError> {
    let mut checker = Checker { duplicates, ..Checker::default() };
    if doc.root().is_object() || !doc.root().is_set() {
        checker.structure(doc.root(), ty);
    } else {
        let name = format!("{}.{}", ty.package(), ty.short_name());
        checker.mismatch(doc.root(), &name);
    }
    match checker.error {
        Some(message) => Err(DecodeError { message }),
        None => Ok(checker.strict),
    }
}

#[derive(Default)]
struct Checker<'a> {
    duplicates: &'a [String],
    /// Path as strict errors write it: `spec.containers[0].name`.
    path: String,
    /// Field names alone, and the structs they belong to, as type errors write them.
    fields: Vec<(TypeId, &'static str)>,
    strict: Vec<String>,
    error: Option<String>,
}

impl Checker<'_> {
    fn structure(&mut self, from: Ref<'_>, ty: TypeId) {
        for child in from.fields() {
            let before = self.enter(child.name());
            match child.key().and_then(|k| ty.field(k)) {
                Some(field) => {
                    self.fields.push((ty, field.name()));
                    self.value(child, field.ty());
                    self.fields.pop();
                }
                None => self.complain("unknown"),
            }
            self.path.truncate(before);
        }
    }

    fn value(&mut self, from: Ref<'_>, ty: Go) {
        let ty = ty.pointee();
        if !from.is_set() {
            return;
        }
        match (ty.kind(), from.kind()) {
            (Kind::Struct, doc::Kind::Object) => {
                if let Some(inner) = ty.struct_type() {
                    self.structure(from, inner);
                }
            }
            (Kind::Map, doc::Kind::Object) => {
                for (name, value) in from.entries() {
                    let before = self.enter(name);
                    self.value(value, ty.elem());
                    self.path.truncate(before);
                }
            }
            (Kind::Slice, doc::Kind::Array) => {
                for (i, item) in from.items().enumerate() {
                    let before = self.path.len();
                    write!(self.path, "[{i}]").expect("writing to a string succeeds");
                    self.value(item, ty.elem());
                    self.path.truncate(before);
                }
            }
            (Kind::Raw | Kind::FieldsV1 | Kind::Any, _)
            | (Kind::String, doc::Kind::String)
            | (Kind::Bool, doc::Kind::Bool) => {}
            (Kind::Int32 | Kind::Int | Kind::Int64, doc::Kind::Number) => self.integer(from, ty),
            (kind, _) => self.special(from, ty, kind),
        }
    }

    /// Types that read themselves, and every mismatch.
    fn special(&mut self, from: Ref<'_>, ty: Go, kind: Kind) {
        let problem = match (kind, from.opt_str()) {
            (Kind::Bytes, Some(text)) => base64_bytes(text).err(),
            (Kind::Time, Some(text)) => gotime::parse(text).err().map(|e| e.to_string()),
            (Kind::MicroTime, Some(text)) => gotime::parse_micro(text).err().map(|e| e.to_string()),
            (Kind::Duration, Some(_)) | (Kind::IntOrString, Some(_)) => None,
            (Kind::Time | Kind::MicroTime | Kind::Duration, None) => Some(plain_mismatch(from, "string")),
            (Kind::IntOrString, None) => match from.number().map(str::parse::<i32>) {
                Some(Ok(_)) => None,
                _ => Some(plain_mismatch(from, "int32")),
            },
            (Kind::Quantity, text) => {
                let text = text.or(from.number()).map(str::to_owned);
                let text = text.unwrap_or_else(|| String::from_utf8_lossy(&from.to_json()).into_owned());
                quantity::Quantity::parse(text.trim()).err().map(|e| e.to_string())
            }
            _ => return self.mismatch(from, &ty.go_name()),
        };
        if let Some(problem) = problem {
            self.error.get_or_insert(problem);
        }
    }

    fn integer(&mut self, from: Ref<'_>, ty: Go) {
        let text = from.number().unwrap_or("");
        let fits = text.parse::<i64>().is_ok_and(|n| ty.kind() != Kind::Int32 || i32::try_from(n).is_ok());
        if !fits {
            self.unmarshal(&format!("number {text}"), &ty.go_name());
        }
    }

    fn mismatch(&mut self, from: Ref<'_>, wanted: &str) {
        self.unmarshal(from.kind().name(), wanted);
    }

    fn unmarshal(&mut self, found: &str, wanted: &str) {
        let place = match self.fields.last() {
            None => "value".to_owned(),
            Some((ty, _)) => {
                let names: Vec<&str> = self.fields.iter().map(|(_, name)| *name).collect();
                format!("struct field {}.{}", ty.short_name(), names.join("."))
            }
        };
        self.error.get_or_insert_with(|| {
            format!("json: cannot unmarshal {found} into Go {place} of type {wanted}")
        });
    }

    /// Extends the path by a name and reports it if the text repeats it. Returns the length to go back to.
    fn enter(&mut self, name: &str) -> usize {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        if self.duplicates.contains(&self.path) {
            self.complain("duplicate");
        }
        before
    }

    fn complain(&mut self, what: &str) {
        let message = format!("{what} field {:?}", self.path);
        if self.strict.len() < STRICT_MAX && !self.strict.contains(&message) {
            self.strict.push(message);
        }
    }
}

/// The complaint of a type that reads itself: it does not know which field it is.
fn plain_mismatch(from: Ref<'_>, wanted: &str) -> String {
    let found = match from.number() {
        Some(text) if wanted == "int32" => format!("number {text}"),
        _ => from.kind().name().to_owned(),
    };
    format!("json: cannot unmarshal {found} into Go value of type {wanted}")
}

/// Decodes as Go's standard encoding: line breaks are skipped, padding is required, stray bits at the end are not minded.
pub(super) fn base64_bytes(text: &str) -> Result<Vec<u8>, String> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical);
    const ENGINE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, CONFIG);
    let clean: std::borrow::Cow<'_, [u8]> = if text.contains(['\r', '\n']) {
        text.bytes().filter(|b| !matches!(b, b'\r' | b'\n')).collect::<Vec<u8>>().into()
    } else {
        text.as_bytes().into()
    };
    ENGINE.decode(&clean).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) => at,
            base64::DecodeError::InvalidLastSymbol { .. }
            | base64::DecodeError::InvalidLength(_)
            | base64::DecodeError::InvalidPadding => clean.len() / 4 * 4,
        };
        format!("illegal base64 data at input byte {at}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::json;
    use crate::schema;

    fn decoded(group: &str, version: &str, kind: &str, text: &str) -> Result<Decoded, DecodeError> {
        let ty = schema::kind(group, version, kind).expect("a known kind");
        decode(&json::parse(text).expect("JSON"), ty)
    }

    fn pod(text: &str) -> (String, Vec<String>) {
        let pod = decoded("", "v1", "Pod", text).expect("a pod");
        (String::from_utf8(pod.doc.to_json()).expect("JSON is UTF-8"), pod.strict)
    }

    #[test]
    fn empties_are_kept_where_go_writes_them_and_only_there() {
        let (json, strict) = pod(
            r#"{"status":null,"spec":{"containers":[{"image":"","name":"a","command":[],"env":null,
            "resources":{"limits":{"memory":"0.5Gi","cpu":0.5}}}],"nodeSelector":{},"priority":0,"hostNetwork":false,
            "securityContext":{}},"metadata":{"labels":{"b":"2","a":null},"name":"x","creationTimestamp":null}}"#,
        );
        let want = r#"{"metadata":{"name":"x","labels":{"a":"","b":"2"}},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"500m","memory":"512Mi"}}}],"securityContext":{},"priority":0},"status":{}}"#;
        assert_eq!((json.as_str(), strict), (want, vec![]));
        let deployment = decoded(
            "apps",
            "v1",
            "Deployment",
            r#"{"metadata":{"creationTimestamp":"2024-01-01T01:00:00+01:00"}}"#,
        );
        let want = r#"{"metadata":{"creationTimestamp":"2024-01-01T00:00:00Z"},"spec":{"selector":null,"template":{"metadata":{},"spec":{"containers":null}},"strategy":{}},"status":{}}"#;
        assert_eq!(String::from_utf8(deployment.expect("valid").doc.to_json()).expect("UTF-8"), want);
        let event = decoded("", "v1", "Event", "{}").expect("valid").doc;
        assert_eq!(
            String::from_utf8(event.to_json()).expect("UTF-8"),
            r#"{"metadata":{},"involvedObject":{},"source":{},"firstTimestamp":null,"lastTimestamp":null,"eventTime":null,"reportingComponent":"","reportingInstance":""}"#
        );
    }

    #[test]
    fn strict_errors_come_in_the_order_of_the_text() {
        let (json, strict) = pod(
            r#"{"spec":{"x":{"y":1,"y":2},"containers":[{"name":"a","name":"b","Image":"c"}],"nodeName":"n"},
            "metadata":{"labels":{"a":"1","a":"2"}},"foo":1,"foo":2}"#,
        );
        let want = [
            "unknown field \"spec.x\"",
            "duplicate field \"spec.containers[0].name\"",
            "unknown field \"spec.containers[0].Image\"",
            "duplicate field \"metadata.labels.a\"",
            "duplicate field \"foo\"",
            "unknown field \"foo\"",
        ];
        assert_eq!(strict, want);
        assert!(
            json.starts_with(r#"{"metadata":{"labels":{"a":"2"}},"spec":{"containers":[{"name":"b""#),
            "{json}"
        );
    }

    #[test]
    fn type_errors_are_worded_as_gos() {
        let into = "json: cannot unmarshal";
        let cases = [
            (
                r#"{"spec":{"replicas":"3"}}"#,
                format!("{into} string into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                r#"{"spec":{"replicas":3000000000}}"#,
                format!(
                    "{into} number 3000000000 into Go struct field DeploymentSpec.spec.replicas of type int32"
                ),
            ),
            (
                r#"{"spec":{"replicas":1.5}}"#,
                format!("{into} number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32"),
            ),
            (
                r#"{"metadata":{"labels":{"a":true}}}"#,
                format!("{into} bool into Go struct field ObjectMeta.metadata.labels of type string"),
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":"a"}}}}"#,
                format!(
                    "{into} string into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container"
                ),
            ),
            (
                r#"{"spec":{"template":{"spec":{"containers":[{"env":[{"value":1}]}]}}}}"#,
                format!(
                    "{into} number into Go struct field EnvVar.spec.template.spec.containers.env.value of type string"
                ),
            ),
            (
                r#"{"spec":{"template":{"spec":{"restartPolicy":1}}}}"#,
                format!(
                    "{into} number into Go struct field PodSpec.spec.template.spec.restartPolicy of type v1.RestartPolicy"
                ),
            ),
            (
                r#"{"spec":[]}"#,
                format!("{into} array into Go struct field Deployment.spec of type v1.DeploymentSpec"),
            ),
            (
                r#"{"spec":{"strategy":{"rollingUpdate":{"maxSurge":1.5}}}}"#,
                format!("{into} number 1.5 into Go value of type int32"),
            ),
            (
                r#"{"metadata":{"creationTimestamp":"x"}}"#,
                r#"parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006""#.to_owned(),
            ),
            (
                r#"{"spec":{"template":{"spec":{"overhead":{"cpu":"1x"}}}}}"#,
                quantity::QuantityError::Format.to_string(),
            ),
            ("[]", format!("{into} array into Go value of type v1.Deployment")),
        ];
        for (text, want) in cases {
            assert_eq!(
                decoded("apps", "v1", "Deployment", text).map(|_| ()).map_err(|e| e.to_string()),
                Err(want),
                "{text}"
            );
        }
        let secret = decoded("", "v1", "Secret", r#"{"data":{"a":"YWJj","b":"YWJ!"}}"#);
        assert_eq!(
            secret.map(|_| ()).map_err(|e| e.to_string()),
            Err("illegal base64 data at input byte 3".to_owned())
        );
    }

    #[test]
    fn an_empty_object_of_every_kind_is_stable() {
        for (group, version, kind, ty) in schema::kinds() {
            let once = normalise(Doc::object().root(), ty);
            let again = normalise(once.root(), ty);
            assert_eq!(pretty(&once), pretty(&again), "{group}/{version} {kind}");
            assert_eq!(check(&once, ty, &[]), Ok(vec![]), "{group}/{version} {kind}");
        }
    }

    /// What an older release's filled object has that this one does not know is dropped on both sides.
    #[test]
    fn filled_objects_come_back_as_they_were() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/upstream/api-golden");
        let Ok(files) = std::fs::read_dir(folder) else {
            eprintln!("NOT TESTED: {folder} is absent, no filled object was read");
            return;
        };
        let (mut seen, mut unknown) = (0, Vec::new());
        for file in files
            .map(|f| f.expect("a readable folder").path())
            .filter(|f| f.extension().is_some_and(|e| e == "json"))
        {
            let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
            let text = std::fs::read(&file).expect("a readable file");
            let parsed = json::parse(text).expect("JSON");
            let root = parsed.doc.root();
            let (group, version) =
                root.get("apiVersion").str().rsplit_once('/').unwrap_or(("", root.get("apiVersion").str()));
            let Some(ty) = schema::kind(group, version, root.get("kind").str()) else {
                unknown.push(name);
                continue;
            };
            let decoded = decode(&parsed, ty).unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut expected = parsed.doc.clone();
            for error in &decoded.strict {
                let path = error.trim_start_matches("unknown field ").trim_matches('"');
                remove(&mut expected, path);
            }
            let (got, want) = (pretty(&decoded.doc), pretty(&expected));
            assert_eq!(got, want, "{name}, without {:?}", decoded.strict);
            seen += 1;
        }
        eprintln!("{seen} filled objects read; kinds not known: {unknown:?}");
        assert!(seen > 80, "only {seen} filled objects in {folder}");
    }

    fn pretty(doc: &Doc) -> String {
        let mut out = Vec::new();
        json::write_pretty(doc.root(), 0, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    fn remove(doc: &mut Doc, path: &str) {
        let path = path.replace('[', ".[");
        let (parents, last) = path.rsplit_once('.').unwrap_or(("", &path));
        let mut at = doc.edit();
        for step in parents.split('.').filter(|s| !s.is_empty()) {
            let index = step.strip_prefix('[').and_then(|s| s.strip_suffix(']'));
            at = match index {
                Some(index) => at.item(index.parse().expect("an index")).expect("an item"),
                None => at.existing(step).expect("an entry"),
            };
        }
        assert!(at.remove(last), "{path}");
    }
}
