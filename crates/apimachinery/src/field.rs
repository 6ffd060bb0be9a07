//! Validation errors with the fields they concern. Validation collects all of them, never only the first.
//! Upstream: k8s.io/apimachinery/pkg/util/validation/field.

use crate::status::Cause;

/// Where a field is: `spec.containers[0].name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path of one name.
    pub fn new(name: &str) -> Path {
        Path(name.to_owned())
    }

    /// The field `name` below.
    #[must_use]
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path([&self.0, ".", name].concat()) }
    }

    /// The item `index` of the list here.
    #[must_use]
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// The entry `key` of the map here.
    #[must_use]
    pub fn key(&self, key: &str) -> Path {
        Path([&self.0, "[", key, "]"].concat())
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// One validation error.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    reason: &'static str,
    field: String,
    message: String,
}

/// Validation errors in the order found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ErrorList(Vec<Error>);

impl ErrorList {
    /// None yet.
    pub fn new() -> ErrorList {
        ErrorList::default()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds those of `other`.
    pub fn extend(&mut self, other: ErrorList) {
        self.0.extend(other.0);
    }

    fn add(&mut self, reason: &'static str, at: &Path, message: String) {
        self.0.push(Error { reason, field: at.to_string(), message });
    }

    /// A value that must be there is not. `detail` may be empty.
    pub fn required(&mut self, at: &Path, detail: &str) {
        self.add("FieldValueRequired", at, with("Required value", detail));
    }

    /// A value that breaks a rule. Strings are quoted as Go's `%q`.
    pub fn invalid(&mut self, at: &Path, value: impl Shown, detail: &str) {
        self.add("FieldValueInvalid", at, with(&format!("Invalid value: {}", value.shown()), detail));
    }

    /// A value that is none of those supported, which are shown in the order given.
    pub fn not_supported(&mut self, at: &Path, value: &str, supported: &[&str]) {
        self.not_supported_as(at, &format!("{value:?}"), supported);
    }

    /// The same for a value that is no string, in JSON.
    pub fn not_supported_as(&mut self, at: &Path, shown: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let message = format!("Unsupported value: {shown}: supported values: {}", supported.join(", "));
        self.add("FieldValueNotSupported", at, message);
    }

    /// A value that occurs twice where it must not.
    pub fn duplicate(&mut self, at: &Path, value: impl Shown) {
        self.add("FieldValueDuplicate", at, format!("Duplicate value: {}", value.shown()));
    }

    /// A field that may not be set (so).
    pub fn forbidden(&mut self, at: &Path, detail: &str) {
        self.add("FieldValueForbidden", at, with("Forbidden", detail));
    }

    /// Something referred to that does not exist.
    pub fn not_found(&mut self, at: &Path, value: impl Shown) {
        self.add("FieldValueNotFound", at, format!("Not found: {}", value.shown()));
    }

    /// A value longer than `most` bytes.
    pub fn too_long(&mut self, at: &Path, most: usize) {
        self.add("FieldValueTooLong", at, format!("Too long: may not be more than {most} bytes"));
    }

    /// More than `most` items.
    pub fn too_many(&mut self, at: &Path, actual: usize, most: usize) {
        self.add("FieldValueTooMany", at, format!("Too many: {actual}: must have at most {most} items"));
    }

    /// A failure that is not the user's.
    pub fn internal(&mut self, at: &Path, detail: &str) {
        self.add("InternalError", at, with("Internal error", detail));
    }

    /// As the message of a `Status` says it: one alone, or several in brackets.
    pub fn summary(&self) -> String {
        let mut all: Vec<String> = Vec::new();
        for e in &self.0 {
            let text = format!("{}: {}", e.field, e.message);
            if !all.contains(&text) {
                all.push(text);
            }
        }
        if all.len() == 1 { all.remove(0) } else { format!("[{}]", all.join(", ")) }
    }

    /// As the causes of a `Status`.
    pub fn causes(&self) -> Vec<Cause> {
        let cause =
            |e: &Error| Cause { reason: e.reason.into(), message: e.message.clone(), field: e.field.clone() };
        self.0.iter().map(cause).collect()
    }
}

fn with(head: &str, detail: &str) -> String {
    if detail.is_empty() { head.to_owned() } else { format!("{head}: {detail}") }
}

/// How a wrong value is shown.
pub trait Shown {
    /// As Go's `%q` or `%v`.
    fn shown(&self) -> String;
}

impl Shown for &str {
    fn shown(&self) -> String {
        format!("{self:?}")
    }
}
impl Shown for i64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for bool {
    fn shown(&self) -> String {
        self.to_string()
    }
}
impl Shown for crate::doc::Ref<'_> {
    fn shown(&self) -> String {
        if self.exists() { String::from_utf8_lossy(&self.to_json()).into_owned() } else { "\"\"".into() }
    }
}
