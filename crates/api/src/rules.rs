//! The checks that many kinds share: labels, selectors, numbers, unchangeable fields.
//! Upstream: k8s.io/apimachinery/pkg/{apis/meta/v1,api}/validation.

use apimachinery::field::{ErrorList, Path, Shown};
use apimachinery::{Doc, Edit, Key, Ref, k, validation};

/// Adds every complaint about `value`.
pub(crate) fn complain(errs: &mut ErrorList, at: &Path, value: &str, complaints: Vec<String>) {
    for complaint in complaints {
        errs.invalid(at, value, &complaint);
    }
}

/// A map of labels.
pub(crate) fn labels(errs: &mut ErrorList, map: Ref<'_>, at: &Path) {
    for (key, value) in map.entries() {
        complain(errs, at, key, validation::qualified_name(key));
        complain(errs, at, value.str(), validation::label_value(value.str()));
    }
}

/// A label selector of the `matchLabels` and `matchExpressions` form.
pub(crate) fn label_selector(errs: &mut ErrorList, selector: Ref<'_>, at: &Path) {
    labels(errs, selector.get(k::MATCH_LABELS), &at.child("matchLabels"));
    for (i, term) in selector.get(k::MATCH_EXPRESSIONS).items().enumerate() {
        let at = at.child("matchExpressions").index(i);
        let values = term.get(k::VALUES);
        match term.get(k::OPERATOR).str() {
            "In" | "NotIn" if values.is_empty() => {
                errs.required(&at.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                errs.forbidden(
                    &at.child("values"),
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errs.invalid(&at.child("operator"), other, "not a valid selector operator"),
        }
        let key = term.get(k::KEY).str();
        complain(errs, &at.child("key"), key, validation::qualified_name(key));
        for (i, value) in values.items().enumerate() {
            complain(errs, &at.child("values").index(i), value.str(), validation::label_value(value.str()));
        }
    }
}

/// A number that is not below zero.
pub(crate) fn not_negative(errs: &mut ErrorList, number: Ref<'_>, at: &Path) {
    if number.i64() < 0 {
        errs.invalid(at, number.i64(), "must be greater than or equal to 0");
    }
}

/// A string out of a set; an empty one is missing.
pub(crate) fn one_of(errs: &mut ErrorList, value: Ref<'_>, at: &Path, allowed: &[&str]) {
    match value.str() {
        "" => errs.required(at, ""),
        other if !allowed.contains(&other) => errs.not_supported(at, other, allowed),
        _ => {}
    }
}

/// A string out of a set, or nothing.
pub(crate) fn none_or_one_of(errs: &mut ErrorList, value: Ref<'_>, at: &Path, allowed: &[&str]) {
    if !value.str().is_empty() {
        one_of(errs, value, at, allowed);
    }
}

/// A string that must be there.
pub(crate) fn required(errs: &mut ErrorList, value: Ref<'_>, at: &Path) -> bool {
    if value.str().is_empty() {
        errs.required(at, "");
    }
    !value.str().is_empty()
}

/// A field that stays as it was made.
pub(crate) fn unchanged(errs: &mut ErrorList, new: Ref<'_>, old: Ref<'_>, at: &Path) {
    if !same_or_empty(new, old) {
        let scalar = new.opt_str().map_or_else(|| new.shown(), |s| s.shown());
        errs.invalid(at, Text(scalar), "field is immutable");
    }
}

/// The same, where nothing, null and the empty list or map are one.
pub(crate) fn same_or_empty(a: Ref<'_>, b: Ref<'_>) -> bool {
    let nothing = |r: Ref<'_>| !r.is_set() || (r.is_empty() && (r.is_array() || r.is_object()));
    a.same(b) || (nothing(a) && nothing(b))
}

/// A field that is older than the list beside it: the list has it alone where it is missing or begins with another, and
/// where the field is missing it is the list's first. `inner` is the key in the list's items, where they are objects.
pub(crate) fn first_of(doc: &mut Edit<'_>, (part, one, list): (Key, Key, Key), inner: Option<Key>) {
    let read = doc.read().get(part);
    let first = read.get(list).item(0);
    let first = inner.map_or(first, |key| first.get(key)).str().to_owned();
    let said = read.get(one).str().to_owned();
    if said == first {
        return;
    }
    let mut at = doc.reborrow().at(part);
    if said.is_empty() {
        at.set(one, first);
        return;
    }
    at.remove(list);
    let mut items = at.list(list);
    match inner {
        Some(key) => {
            let mut item = Doc::object();
            item.edit().set(key, said);
            items.push(item);
        }
        None => {
            items.push(said);
        }
    }
}

/// A value that is shown already.
pub(crate) struct Text(pub String);

impl Shown for Text {
    fn shown(&self) -> String {
        self.0.clone()
    }
}

/// A whole number or percentage, as rollouts take it.
pub(crate) fn int_or_percent(errs: &mut ErrorList, value: Ref<'_>, at: &Path) {
    match value.opt_str() {
        Some(text) => complain(errs, at, text, validation::percent(text)),
        None => not_negative(errs, value, at),
    }
}

/// The number of a percentage or whole number; percentages as they are.
pub(crate) fn int_or_percent_value(value: Ref<'_>) -> i64 {
    match value.opt_str() {
        Some(text) => text.trim_end_matches('%').parse().unwrap_or(0),
        None => value.i64(),
    }
}
