//! LimitRange: bounds and defaults for what one pod or container asks for.
//! Upstream: pkg/registry/core/limitrange, ValidateLimitRange.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::quantity::Quantity;
use apimachinery::{Doc, Ref, k, validation};

use crate::core::{pod_defaults, resources};
use crate::kind::*;
use crate::print::{CREATED_AT, NAME};
use crate::rules::{complain, required};

/// Limit ranges.
pub(crate) fn kind() -> Kind {
    Kind {
        short: names(&["limits"]),
        columns: Cow::Owned(vec![NAME, CREATED_AT]),
        strategy: &LimitRange,
        ..Kind::new("", "v1", "limitranges", "LimitRange").defaults(defaults)
    }
}

fn defaults(doc: &mut Doc) {
    pod_defaults::each(&mut doc.edit().at(k::SPEC), k::LIMITS, |mut item| {
        if item.read().get(k::TYPE).str() != "Container" {
            return;
        }
        for (from, to) in
            [(k::MAX, k::DEFAULT), (k::DEFAULT, k::DEFAULT_REQUEST), (k::MIN, k::DEFAULT_REQUEST)]
        {
            let source = item.read().get(from).to_doc();
            let mut target = item.reborrow().at(to);
            for (name, amount) in source.root().entries() {
                target.set_default(name, amount);
            }
        }
    });
}

struct LimitRange;

impl Strategy for LimitRange {
    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        let mut seen: Vec<&str> = Vec::new();
        for (i, item) in new.get(k::SPEC).get(k::LIMITS).items().enumerate() {
            let at = Path::new("spec").child("limits").index(i);
            let ty = item.get(k::TYPE).str();
            if required(errs, item.get(k::TYPE), &at.child("type")) {
                complain(errs, &at.child("type"), ty, validation::qualified_name(ty));
            }
            if seen.contains(&ty) {
                errs.duplicate(&at.child("type"), ty);
            }
            seen.push(ty);
            one(errs, item, &at);
        }
    }
}

fn one(errs: &mut ErrorList, item: Ref<'_>, at: &Path) {
    let pod = item.get(k::TYPE).str() == "Pod";
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let map = item.get(field);
        if pod && field.starts_with("default") && !map.is_empty() {
            errs.forbidden(&at.child(field), "may not be specified when `type` is 'Pod'");
        }
        for (name, amount) in map.entries() {
            resources::amount(errs, name, amount, &at.child(field).key(name));
        }
    }
    // Of any two, the lower must not be above the higher.
    let order = [
        ("min", "max"),
        ("min", "defaultRequest"),
        ("min", "default"),
        ("defaultRequest", "default"),
        ("defaultRequest", "max"),
        ("default", "max"),
    ];
    for (low, high) in order {
        for (name, amount) in item.get(low).entries() {
            let (a, b) = (resources::text(amount), resources::text(item.get(high).get(name)));
            let (Ok(x), Ok(y)) = (Quantity::parse(&a), Quantity::parse(&b)) else { continue };
            if x.sub(y).signum() > 0 {
                let words = |f: &str| match f {
                    "defaultRequest" => "default request".to_owned(),
                    other => other.to_owned(),
                };
                let detail = format!("{} value {a} is greater than {} value {b}", words(low), words(high));
                errs.invalid(&at.child(low).key(name), &*a, &detail);
            }
        }
    }
}
