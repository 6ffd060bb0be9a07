//! LimitRange: bounds and defaults for what one pod or container asks for.
//! Upstream: pkg/registry/core/limitrange, ValidateLimitRange.

use std::borrow::Cow;
use std::collections::BTreeSet;

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
    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate(&self, _op: &Op<'_>, new: &Doc, _old: Option<&Doc>, errs: &mut ErrorList) {
        let mut seen: Vec<&str> = Vec::new();
        for (i, item) in new.get(k::SPEC).get(k::LIMITS).items().enumerate() {
            let at = Path::new("spec").child("limits").index(i);
            let ty = item.get(k::TYPE).str();
            if required(errs, item.get(k::TYPE), &at.child("type")) {
                let mut complaints = validation::qualified_name(ty);
                let standard = ["Pod", "Container", "PersistentVolumeClaim"].contains(&ty);
                if complaints.is_empty() && !ty.contains('/') && !standard {
                    complaints.push("must be a standard limit type or fully qualified".into());
                }
                complain(errs, &at.child("type"), ty, complaints);
            }
            if seen.contains(&ty) {
                errs.duplicate(&at.child("type"), ty);
            }
            seen.push(ty);
            one(errs, item, &at);
        }
    }
}

/// Of any two, the lower must not be above the higher: which, and the words for both; the complaint stands at the
/// third and shows the fourth.
const ORDER: &[(&str, &str, &str, &str, &str)] = &[
    ("min", "max", "min", "min", "min value {} is greater than max value {}"),
    (
        "min",
        "defaultRequest",
        "defaultRequest",
        "defaultRequest",
        "min value {} is greater than default request value {}",
    ),
    (
        "defaultRequest",
        "max",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than max value {}",
    ),
    (
        "defaultRequest",
        "default",
        "defaultRequest",
        "defaultRequest",
        "default request value {} is greater than default limit value {}",
    ),
    ("min", "default", "default", "min", "min value {} is greater than default value {}"),
    ("default", "max", "default", "max", "default value {} is greater than max value {}"),
];

fn one(errs: &mut ErrorList, item: Ref<'_>, at: &Path) {
    let ty = item.get(k::TYPE).str();
    let name = match ty {
        "Pod" | "Container" => resources::container_name,
        _ => resources::name,
    };
    let mut names = BTreeSet::new();
    for field in ["max", "min", "default", "defaultRequest", "maxLimitRequestRatio"] {
        let map = item.get(field);
        if ty == "Pod" && field.starts_with("default") {
            if !map.is_empty() {
                errs.forbidden(&at.child(field), "may not be specified when `type` is 'Pod'");
            }
            continue;
        }
        for (resource, amount) in map.entries() {
            name(errs, resource, &at.child(field).key(resource));
            resources::amount(errs, resource, amount, &at.child(field).key(resource));
            names.insert(resource);
        }
    }
    let bounds = [item.get(k::MIN), item.get(k::MAX)];
    if ty == "PersistentVolumeClaim" && !bounds.iter().any(|b| b.get("storage").exists()) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errs.required(&at.child("limits"), detail);
    }
    for resource in names {
        let of = |field: &str| Quantity::parse(&resources::text(item.get(field).get(resource))).ok();
        for (low, high, place, shown, words) in ORDER {
            let (Some(a), Some(b)) = (of(low), of(high)) else { continue };
            if a > b {
                let detail = words.replacen("{}", &a.to_string(), 1).replacen("{}", &b.to_string(), 1);
                let shown = resources::text(item.get(*shown).get(resource));
                errs.invalid(&at.child(place).key(resource), &*shown, &detail);
            }
        }
        if let Some(ratio) = of("maxLimitRequestRatio") {
            let at = at.child("maxLimitRequestRatio").key(resource);
            ratios(errs, ratio, of("min").zip(of("max")), &at);
        }
        if let (false, Some(a), Some(b)) =
            (resources::is_overcommitted(resource), of("default"), of("defaultRequest"))
            && a != b
        {
            let detail = format!("default value {a} must equal to defaultRequest value {b} in {resource}");
            errs.invalid(&at.child("defaultRequest").key(resource), &*b.to_string(), &detail);
        }
    }
}

fn ratios(errs: &mut ErrorList, ratio: Quantity, bounds: Option<(Quantity, Quantity)>, at: &Path) {
    let shown = ratio.to_string();
    let milli = i128::from(ratio.milli_value());
    if milli < 1000 {
        errs.invalid(at, &*shown, &format!("ratio {shown} is less than 1"));
    }
    let Some((min, max)) = bounds else { return };
    let (min, max) = (i128::from(min.milli_value()), i128::from(max.milli_value()));
    if milli * min > max * 1000 {
        #[expect(clippy::cast_precision_loss, reason = "shown with six decimals")]
        let widest = max as f64 / min as f64;
        errs.invalid(at, &*shown, &format!("ratio {shown} is greater than max/min = {widest:.6}"));
    }
}
