//! What a namespace's limit ranges say of pods and claims: what containers get that ask for nothing, and bounds for what
//! one container, pod or claim may ask for. Upstream: plugin/pkg/admission/limitranger.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::call::BoxFuture;
use apimachinery::call::Stored;
use apimachinery::gvk::GroupResource;
use apimachinery::quantity::Quantity;
use apimachinery::quota_usage::{self, Usage};
use apimachinery::schema::views::core_v1::Pod;
use apimachinery::{Doc, Ref, Status, k};

use super::{Attributes, Operation, Plugin};
use crate::cacher::Lister;

const RANGES: GroupResource = GroupResource::new("", "limitranges");
/// Where a pod is told what it was given.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// The plugin.
pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn name(&self) -> &'static str {
        "LimitRanger"
    }

    fn admit<'a>(&'a self, attributes: &'a mut Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            if attributes.resource().resource == "pods" {
                for range in ranges(attributes) {
                    fill(&mut attributes.object, range.kept());
                }
            }
            Ok(())
        })
    }

    fn validate<'a>(&'a self, attributes: &'a Attributes<'_>) -> BoxFuture<'a, Result<(), Status>> {
        Box::pin(async move {
            for range in ranges(attributes) {
                let wrong = check(attributes, range.kept());
                match wrong.as_slice() {
                    [] => {}
                    [one] => return Err(attributes.forbidden(one)),
                    all => return Err(attributes.forbidden(&format!("[{}]", all.join(", ")))),
                }
            }
            Ok(())
        })
    }
}

/// The limit ranges that matter to the request: none for deletions, for objects on their way out, and for changes that
/// cannot touch resources.
fn ranges(attributes: &Attributes<'_>) -> Vec<Arc<Stored>> {
    let supported = match attributes.operation {
        Operation::Create => {
            attributes.is_core("pods", "") || attributes.is_core("persistentvolumeclaims", "")
        }
        Operation::Update => {
            attributes.is_core("pods", "resize") || attributes.is_core("persistentvolumeclaims", "")
        }
        Operation::Delete | Operation::Connect => false,
    };
    let deleting = |old: &Doc| old.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set();
    if !supported || attributes.old.is_some_and(deleting) {
        return Vec::new();
    }
    attributes.request.api.cacher.list(&RANGES, attributes.namespace())
}

fn limits<'a>(range: &'a Doc) -> impl Iterator<Item = Ref<'a>> {
    range.get(k::SPEC).get(k::LIMITS).items()
}

/// Gives every container what it does not ask for, and tells so.
fn fill(pod: &mut Doc, range: &Doc) {
    let of = |which| {
        let containers = limits(range).filter(|l| l.get(k::TYPE).str() == "Container");
        containers.flat_map(move |l| l.get(which).entries()).collect::<BTreeMap<_, _>>()
    };
    let given = [(k::REQUESTS, of(k::DEFAULT_REQUEST), "request"), (k::LIMITS, of(k::DEFAULT), "limit")];
    let mut told = Vec::new();
    for (list, what) in [(k::CONTAINERS, "container"), (k::INIT_CONTAINERS, "init container")] {
        let Some(mut containers) = pod.edit().at(k::SPEC).existing(list) else { continue };
        containers.for_each(|mut container| {
            let name = container.read().get(k::NAME).str().to_owned();
            for (which, defaults, word) in &given {
                let asked = container.read().get(k::RESOURCES).get(*which).to_doc();
                let missing: Vec<_> = defaults.iter().filter(|(n, _)| !asked.get(n).exists()).collect();
                for (resource, amount) in &missing {
                    container.reborrow().at(k::RESOURCES).at(*which).set(resource, **amount);
                }
                if !missing.is_empty() {
                    let names: Vec<&str> = missing.iter().map(|(name, _)| **name).collect();
                    told.push(format!("{} {word} for {what} {name}", names.join(", ")));
                }
            }
        });
    }
    if !told.is_empty() {
        let text = format!("LimitRanger plugin set: {}", told.join("; "));
        pod.edit().at(k::METADATA).at(k::ANNOTATIONS).set(ANNOTATION, text);
    }
}

/// What is asked for, by one container, pod or claim.
#[derive(PartialEq)]
struct Asked {
    requests: Usage,
    limits: Usage,
}

impl Asked {
    fn of(resources: Ref<'_>) -> Asked {
        Asked {
            requests: quota_usage::amounts(resources.get(k::REQUESTS)),
            limits: quota_usage::amounts(resources.get(k::LIMITS)),
        }
    }

    fn of_pod(pod: &Doc) -> Asked {
        let sum = |which| quota_usage::pod_total(Pod(pod.root()), which, &Usage::new());
        Asked { requests: sum(k::REQUESTS), limits: sum(k::LIMITS) }
    }

    /// What was so before is not held against a change.
    fn is_unchanged(&self, old: Option<&Asked>, resource: &str) -> bool {
        old.is_some_and(|old| {
            self.requests.get(resource) == old.requests.get(resource)
                && self.limits.get(resource) == old.limits.get(resource)
        })
    }
}

/// Everything that breaks a limit range.
fn check(attributes: &Attributes<'_>, range: &Doc) -> Vec<String> {
    let (new, old) = (&attributes.object, attributes.old);
    let mut wrong = Vec::new();
    let mut bounds = |limit: Ref<'_>, asked: &Asked, old: Option<&Asked>| {
        bounds(limit, asked, old, &mut wrong);
    };
    let pods = attributes.resource().resource == "pods";
    for limit in limits(range) {
        match limit.get(k::TYPE).str() {
            "Container" if pods => {
                for list in [k::CONTAINERS, k::INIT_CONTAINERS] {
                    for container in new.get(k::SPEC).get(list).items() {
                        let name = container.get(k::NAME);
                        let before = old.and_then(|old| {
                            old.get(k::SPEC).get(list).items().find(|c| c.get(k::NAME).same(name))
                        });
                        let before = before.map(|c| Asked::of(c.get(k::RESOURCES)));
                        bounds(limit, &Asked::of(container.get(k::RESOURCES)), before.as_ref());
                    }
                }
            }
            "Pod" if pods => bounds(limit, &Asked::of_pod(new), old.map(Asked::of_pod).as_ref()),
            "PersistentVolumeClaim" if !pods => {
                let of = |claim: &Doc| {
                    let asked = Asked::of(claim.get(k::SPEC).get(k::RESOURCES));
                    // A claim has no limits: its request is what it gets.
                    Asked { limits: asked.requests.clone(), ..asked }
                };
                bounds(limit, &of(new), old.map(of).as_ref());
            }
            _ => {}
        }
    }
    let mut seen = std::collections::BTreeSet::new();
    wrong.retain(|why| seen.insert(why.clone()));
    wrong
}

fn bounds(limit: Ref<'_>, asked: &Asked, old: Option<&Asked>, wrong: &mut Vec<String>) {
    let ty = limit.get(k::TYPE).str();
    let rules: [(_, Rule); 3] = [(k::MIN, least), (k::MAX, most), (k::MAX_LIMIT_REQUEST_RATIO, ratio)];
    for (which, rule) in rules {
        if ty == "PersistentVolumeClaim" && which == k::MAX_LIMIT_REQUEST_RATIO {
            continue;
        }
        for (name, bound) in quota_usage::amounts(limit.get(which)) {
            if asked.is_unchanged(old, &name) {
                continue;
            }
            wrong.extend(rule(&name, ty, bound, asked.requests.get(&name), asked.limits.get(&name)));
        }
    }
}

/// A complaint about a resource's request and limit, if they break a bound.
type Rule = fn(&str, &str, Quantity, Option<&Quantity>, Option<&Quantity>) -> Option<String>;

fn least(
    name: &str,
    ty: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("minimum {name} usage per {ty} is {bound}");
    match (request, limit) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{start}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

fn most(
    name: &str,
    ty: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("maximum {name} usage per {ty} is {bound}");
    let word = if ty == "PersistentVolumeClaim" { "request" } else { "limit" };
    match (request, limit) {
        (_, None) => Some(format!("{start}.  No {word} is specified")),
        (_, Some(limit)) if *limit > bound => Some(format!("{start}, but {word} is {limit}")),
        (Some(request), _) if *request > bound => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

fn ratio(
    name: &str,
    ty: &str,
    bound: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {ty} is {bound}, but");
    let Some(request) = request.filter(|r| !r.is_zero()) else {
        return Some(format!("{start} no request is specified or request is 0"));
    };
    let Some(limit) = limit.filter(|l| !l.is_zero()) else {
        return Some(format!("{start} no limit is specified or limit is 0"));
    };
    let milli = |q: Quantity| i128::from(q.milli_value());
    let (request, limit) = (milli(*request), milli(*limit));
    #[expect(clippy::cast_precision_loss, reason = "shown with six decimals")]
    let shown = limit as f64 / request as f64;
    (limit * 1000 > request * milli(bound)).then(|| format!("{start} provided ratio is {shown:.6}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    fn asked(request: &str, limit: &str) -> Asked {
        let of = |text: &str| {
            if text.is_empty() {
                Usage::new()
            } else {
                Usage::from([("cpu".into(), Quantity::parse(text).unwrap())])
            }
        };
        Asked { requests: of(request), limits: of(limit) }
    }

    #[test]
    fn bounds_are_kept_in_upstreams_words() {
        let range = doc!({ "type": "Container", "min": { "cpu": "100m" }, "max": { "cpu": "1" }, "maxLimitRequestRatio": { "cpu": "2" } });
        for (request, limit, wanted) in [
            ("0.5", "1", vec![]),
            ("50m", "100m", vec!["minimum cpu usage per Container is 100m, but request is 50m"]),
            (
                "600m",
                "1500m",
                vec![
                    "maximum cpu usage per Container is 1, but limit is 1500m",
                    "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
                ],
            ),
            (
                "",
                "",
                vec![
                    "minimum cpu usage per Container is 100m.  No request is specified",
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
                ],
            ),
            (
                "1",
                "",
                vec![
                    "maximum cpu usage per Container is 1.  No limit is specified",
                    "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
                ],
            ),
        ] {
            let mut wrong = Vec::new();
            bounds(range.root(), &asked(request, limit), None, &mut wrong);
            assert_eq!(wrong, wanted, "{request} {limit}");
            wrong.clear();
            bounds(range.root(), &asked(request, limit), Some(&asked(request, limit)), &mut wrong);
            assert!(wrong.is_empty(), "what was so before is left alone");
        }
        let claim = doc!({ "type": "PersistentVolumeClaim", "max": { "cpu": "1" }, "maxLimitRequestRatio": { "cpu": "1" } });
        let mut wrong = Vec::new();
        bounds(claim.root(), &asked("2", "2"), None, &mut wrong);
        assert_eq!(wrong, ["maximum cpu usage per PersistentVolumeClaim is 1, but request is 2"]);
    }

    #[test]
    fn containers_get_what_they_do_not_ask_for() {
        let range = doc!({ "spec": { "limits": [{ "type": "Container", "default": { "memory": "1Gi", "cpu": "1" },
            "defaultRequest": { "cpu": "100m" } }, { "type": "Pod", "max": { "cpu": "9" } }] } });
        let mut pod = doc!({ "metadata": { "name": "p" }, "spec": { "initContainers": [{ "name": "i" }],
            "containers": [{ "name": "c", "resources": { "requests": { "cpu": "2" }, "limits": { "cpu": "3" } } }] } });
        fill(&mut pod, &range);
        assert_eq!(
            pod.get(k::METADATA).get(k::ANNOTATIONS).get(ANNOTATION).str(),
            "LimitRanger plugin set: memory limit for container c; cpu request for init container i; cpu, memory limit for init container i"
        );
        let resources =
            |list: apimachinery::Key| pod.get(k::SPEC).get(list).item(0).get(k::RESOURCES).to_doc();
        assert_eq!(
            resources(k::CONTAINERS),
            doc!({ "requests": { "cpu": "2" }, "limits": { "cpu": "3", "memory": "1Gi" } })
        );
        assert_eq!(
            resources(k::INIT_CONTAINERS),
            doc!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "1", "memory": "1Gi" } })
        );
    }
}
