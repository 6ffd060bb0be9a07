//! `/finalize` of namespaces: the one way to change `spec.finalizers`.
//! Upstream: pkg/registry/core/namespace/storage.

use apimachinery::call::Reply;
use apimachinery::{Doc, Status, k};

use crate::endpoints::{Request, decode, update};
use crate::registry::change::{self, Change};
use crate::registry::render;

/// Replaces the finalizers of an object's spec; the object goes with the last.
///
/// # Errors
/// As updates.
pub async fn update(request: Request) -> Result<Reply, Status> {
    let mut warnings = request.deprecation();
    let version = request.served();
    let expected = decode::Expected { kind: &request.kind.kind, gv: &version.gv, schema: version.schema };
    let mut doc = decode::object(&request.body, &expected, request.options.field_validation, &mut warnings)?;
    update::place(&request, &mut doc)?;
    let name = request.target.name.clone();
    let transform = |old: &Doc, _: &mut Vec<String>| {
        change::check_preconditions(&request, &doc, old)?;
        let mut new = old.clone();
        let finalizers = doc.get(k::SPEC).get(k::FINALIZERS);
        new.edit().at(k::SPEC).set_opt(k::FINALIZERS, finalizers.is_set().then_some(finalizers));
        Ok(new)
    };
    let done = change::update(&request, Change::new(&name, transform)).await?;
    warnings.extend(done.warnings);
    render::object(&request, 200, done.stored, warnings)
}
