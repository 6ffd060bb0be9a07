//! `/scale`: how many replicas are wanted and how many there are, in one shape for all kinds that have them.
//! Upstream: pkg/registry/apps/*/storage, `ScaleREST`.

use api::ScalePaths;
use apimachinery::call::{Reply, Verb};
use apimachinery::field::{ErrorList, Path};
use apimachinery::gvk::GroupVersion;
use apimachinery::selector::Selector;
use apimachinery::{Doc, Status, doc, k};

use crate::endpoints::{Request, decode, patch};
use crate::registry::change::{self, Change};
use crate::registry::{render, store};

/// Answers for an object's `/scale`.
///
/// # Errors
/// As gets and updates.
pub async fn serve(request: Request, verb: Verb, paths: ScalePaths) -> Result<Reply, Status> {
    let gv = request
        .sub()
        .map(|s| s.group_version(request.gv()).clone())
        .unwrap_or_else(|| GroupVersion::new("autoscaling", "v1"));
    let stored = match verb {
        Verb::Get => {
            request.api.cacher.catch_up().await?;
            store::cached(&request, &request.target.namespace, &request.target.name)?
        }
        _ => change(&request, verb, &gv, paths).await?,
    };
    let doc = show(&stored.doc(), &gv, paths);
    Ok(render::part(&request, api::print::SCALE, doc))
}

async fn change(
    request: &Request,
    verb: Verb,
    gv: &GroupVersion,
    paths: ScalePaths,
) -> Result<std::sync::Arc<apimachinery::call::Stored>, Status> {
    let schema =
        apimachinery::schema::kind(&gv.group, &gv.version, "Scale").ok_or_else(Status::unknown_path)?;
    let expected = decode::Expected { kind: "Scale", gv, schema };
    let validation = request.options.field_validation;
    let (put, patched) = match verb {
        Verb::Update => {
            let scale = decode::object(&request.body, &expected, validation, &mut Vec::new())?;
            crate::endpoints::update::place(request, &mut scale.clone())?;
            (Some(scale), None)
        }
        _ => (None, Some(patch::read(request)?)),
    };
    let transform = |old: &Doc, warnings: &mut Vec<String>| {
        let scale = match (&put, &patched) {
            (Some(scale), _) => scale.clone(),
            (None, Some((form, patch))) => {
                let shown = show(old, gv, paths);
                patch::apply(*form, patch, &shown, &expected, validation, warnings)?
            }
            (None, None) => return Err(Status::bad_request("nothing was sent")),
        };
        change::check_preconditions(request, &scale, old)?;
        let replicas = scale.get(k::SPEC).get(k::REPLICAS).i64();
        if replicas < 0 {
            let mut errors = ErrorList::new();
            errors.invalid(
                &Path::new("spec").child("replicas"),
                replicas,
                "must be greater than or equal to 0",
            );
            return Err(Status::invalid(&gv.group, "Scale", &request.target.name, errors));
        }
        let mut new = old.clone();
        let (last, above) = split(paths.spec_replicas);
        let at = above.iter().fold(new.edit(), |at, name| at.at(*name));
        let mut at = at;
        at.set(last, replicas);
        Ok(new)
    };
    Ok(change::update(request, Change::new(&request.target.name, transform)).await?.stored)
}

fn split(path: &str) -> (&str, Vec<&str>) {
    let mut parts: Vec<&str> = path.split('.').collect();
    let last = parts.pop().unwrap_or_default();
    (last, parts)
}

/// An object's scale.
fn show(object: &Doc, gv: &GroupVersion, paths: ScalePaths) -> Doc {
    let meta = object.get(k::METADATA);
    let mut out =
        doc!({ "kind": "Scale", "apiVersion": gv.to_string(), "metadata": {}, "spec": {}, "status": {} });
    let mut to = out.edit().at(k::METADATA);
    for key in [k::NAME, k::NAMESPACE, k::UID, k::RESOURCE_VERSION, k::CREATION_TIMESTAMP] {
        to.set_opt(key, meta.get(key).is_set().then(|| meta.get(key)));
    }
    let wanted = object.root().find(paths.spec_replicas).i64();
    out.edit().at(k::SPEC).set_opt(k::REPLICAS, (wanted != 0).then_some(wanted));
    let selector = object.root().find(paths.selector);
    let mut status = out.edit().at(k::STATUS);
    status.set(k::REPLICAS, object.root().find(paths.status_replicas).i64());
    if paths.selector.is_empty() {
        return out;
    }
    let text = Selector::from_either(selector).map(|s| s.to_string()).unwrap_or_default();
    if gv.group == "autoscaling" {
        status.set_opt(k::SELECTOR, (!text.is_empty()).then_some(text));
    } else {
        // The old shape has the labels as a map and the text beside it.
        let labels = if Selector::is_plain(selector) { selector } else { selector.get(k::MATCH_LABELS) };
        status.set_opt(k::SELECTOR, labels.is_set().then_some(labels));
        status.set_opt("targetSelector", (!text.is_empty()).then_some(text));
    }
    out
}
