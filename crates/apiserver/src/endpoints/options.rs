//! Whether a request's options make sense together, as upstream's validation of the option kinds has it.
//!
//! What was sent is looked at as text: the listener reads what it can and leaves the verdict to this file, since
//! strangers are told nothing.
//! Upstream: k8s.io/apimachinery/pkg/apis/meta/{v1,internalversion}/validation.

use apimachinery::Status;
use apimachinery::call::{Options, Rendering, Verb};
use apimachinery::field::{ErrorList, Path};

use super::{Request, patch};

/// The longest name of a field manager, in characters.
const MANAGER_MAX: usize = 128;

/// Refuses options that cannot be read or do not fit together.
///
/// # Errors
/// 400 for what is no number, 422 for the rest.
pub fn check(request: &Request) -> Result<(), Status> {
    let options = &request.options;
    if matches!(request.accept.rendering, Rendering::Table { .. }) {
        let included = values(options, "includeObject").first().copied().unwrap_or_default();
        if !matches!(included, "" | "None" | "Metadata" | "Object") {
            let why = "must be 'Metadata', 'Object', 'None', or empty";
            return Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {included:?}: {why}"
            )));
        }
    }
    let mut errs = ErrorList::new();
    let kind = match request.verb {
        Verb::List | Verb::Watch => "ListOptions",
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
        Verb::Get | Verb::Connect => return Ok(()),
    };
    match request.verb {
        Verb::List | Verb::DeleteCollection => {
            numbers(options, &["timeoutSeconds", "limit"])?;
            list(options, &mut errs);
        }
        Verb::Watch => {
            numbers(options, &["timeoutSeconds", "limit"])?;
            watch(options, &mut errs);
        }
        Verb::Delete => {}
        _ => field_validation(options, &mut errs),
    }
    if matches!(request.verb, Verb::Delete | Verb::DeleteCollection) {
        numbers(options, &["gracePeriodSeconds"])?;
    } else {
        manager(request, &mut errs);
    }
    dry_run(&given(options, "dryRun").collect::<Vec<_>>(), &mut errs);
    if errs.is_empty() { Ok(()) } else { Err(Status::invalid("meta.k8s.io", kind, "", errs)) }
}

/// What an option was set to, but for empty text.
pub(crate) fn values<'o>(options: &'o Options, name: &str) -> Vec<&'o str> {
    given(options, name).filter(|value| !value.is_empty()).collect()
}

fn given<'o>(options: &'o Options, name: &str) -> impl Iterator<Item = &'o str> {
    options.query.iter().filter(move |(n, _)| n == name).map(|(_, value)| value.as_str())
}

/// # Errors
/// 400 in Go's words.
pub(crate) fn numbers(options: &Options, names: &[&str]) -> Result<(), Status> {
    for name in names {
        let Some(value) = given(options, name).next() else { continue };
        let Err(err) = value.parse::<i64>() else { continue };
        return Err(Status::bad_request(format!("strconv.ParseInt: parsing {value:?}: {}", go_words(&err))));
    }
    Ok(())
}

/// # Errors
/// 400 in Go's words for what is no list of ports.
pub(crate) fn ports(options: &Options) -> Result<(), Status> {
    for port in given(options, "ports").flat_map(|ports| ports.split(',')) {
        if let Err(err) = port.parse::<u16>() {
            let why = go_words(&err);
            let why = format!("cannot convert to []int32: strconv.ParseUint: parsing {port:?}: {why}");
            return Err(Status::bad_request(why));
        }
    }
    Ok(())
}

fn go_words(err: &std::num::ParseIntError) -> &'static str {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    match err.kind() {
        PosOverflow | NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

fn list(options: &Options, errs: &mut ErrorList) {
    let at = Path::new("resourceVersionMatch");
    if let Some(matching) = options.resource_version_match.as_deref() {
        if options.resource_version.is_none() {
            errs.forbidden(&at, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if !options.continue_.is_empty() {
            errs.forbidden(&at, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            errs.not_supported(&at, matching, &["Exact", "NotOlderThan", ""]);
        }
        if matching == "Exact" && options.resource_version.as_deref() == Some("0") {
            errs.forbidden(&at, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if options.send_initial_events.is_some() {
        errs.forbidden(&Path::new("sendInitialEvents"), "sendInitialEvents is forbidden for list");
    }
}

fn watch(options: &Options, errs: &mut ErrorList) {
    let at = Path::new("resourceVersionMatch");
    let matching = options.resource_version_match.as_deref();
    if options.send_initial_events.is_some() && matching != Some("NotOlderThan") {
        errs.forbidden(&at, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    }
    let Some(matching) = matching else { return };
    if options.send_initial_events.is_none() {
        let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
        errs.forbidden(&at, why);
    }
    if matching != "NotOlderThan" {
        errs.not_supported(&at, matching, &["NotOlderThan"]);
    }
    if !options.continue_.is_empty() {
        errs.forbidden(&at, "resourceVersionMatch is forbidden when continue is provided");
    }
}

/// Also of `dryRun` in a body.
pub fn dry_run(values: &[&str], errs: &mut ErrorList) {
    if values.iter().any(|v| *v != "All") {
        let shown: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
        errs.not_supported_as(&Path::new("dryRun"), &format!("[{}]", shown.join(",")), &["All"]);
    }
}

fn field_validation(options: &Options, errs: &mut ErrorList) {
    for value in values(options, "fieldValidation") {
        if !matches!(value, "Ignore" | "Warn" | "Strict") {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errs.not_supported(&Path::new("fieldValidation"), value, &supported);
        }
    }
}

fn manager(request: &Request, errs: &mut ErrorList) {
    let at = Path::new("fieldManager");
    let name = &request.options.field_manager;
    if name.chars().count() > MANAGER_MAX {
        errs.too_long(&at, MANAGER_MAX);
    }
    if let Some((i, bad)) = name.char_indices().find(|(_, c)| c.is_control()) {
        let why =
            format!("invalid character {bad:?} (at position {i}): should only contain printable characters");
        errs.invalid(&at, name.as_str(), &why);
    }
    // Of a form that nobody understands something else is said.
    if request.verb == Verb::Patch && request.options.force.is_some() && patch::is_known(&request.body) {
        errs.forbidden(&Path::new("force"), "may not be specified for non-apply patch");
    }
}
