//! update: the object, or a part of it, as a whole. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/update.go.

use apimachinery::call::Reply;
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Status, k};

use super::{Request, decode};
use crate::registry::change::{self, Change};
use crate::registry::render;

/// Replaces an object, or its status.
///
/// # Errors
/// 400 for a body that is none, 404, 409 when the object has changed since it was read, 422 for what validation
/// finds, admission's refusals.
pub async fn update(request: Request) -> Result<Reply, Status> {
    let mut warnings = request.deprecation();
    let version = request.served();
    let expected = decode::Expected { kind: &request.kind.kind, gv: &version.gv, schema: version.schema };
    let mut doc = decode::object(&request.body, &expected, request.options.field_validation, &mut warnings)?;
    render::to_storage(&request.kind, version, &mut doc);
    place(&request, &mut doc)?;
    let name = request.target.name.clone();
    let creates = request.kind.strategy.allow_create_on_update() && request.target.subresource.is_empty();
    let done = change::update(
        &request,
        Change::new(&name, |old, _| {
            change::check_preconditions(&request, &doc, old)?;
            require_revision(&request, &doc)?;
            Ok(doc.clone())
        }),
    )
    .await;
    let (code, done) = match done {
        Err(status) if status.is_not_found() && creates => {
            if !doc.get(k::METADATA).get(k::UID).str().is_empty() {
                return Err(Status::conflict(
                    &request.kind.storage,
                    &name,
                    "Precondition failed: UID in precondition, but the object does not exist",
                ));
            }
            doc.edit().at(k::METADATA).remove(k::RESOURCE_VERSION);
            (201, change::create(&request, doc).await?)
        }
        done => (200, done?),
    };
    warnings.extend(done.warnings);
    render::object(&request, code, done.stored, warnings)
}

/// Name and namespace in the body must be those of the path.
///
/// # Errors
/// 400 otherwise.
pub fn place(request: &Request, doc: &mut Doc) -> Result<(), Status> {
    let target = &request.target;
    let meta = doc.get(k::METADATA);
    let (name, namespace) = (meta.get(k::NAME).str(), meta.get(k::NAMESPACE).str());
    if name.is_empty() {
        let why = "was undeterminable: name must be provided";
        return Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) {why}",
            target.name
        )));
    }
    if name != target.name {
        let why =
            format!("the name of the object ({name}) does not match the name on the URL ({})", target.name);
        return Err(Status::bad_request(why));
    }
    if !namespace.is_empty() && namespace != target.namespace {
        return Err(Status::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            target.namespace
        )));
    }
    if request.kind.is_namespaced() {
        doc.edit().at(k::METADATA).set(k::NAMESPACE, &target.namespace);
    }
    Ok(())
}

fn require_revision(request: &Request, doc: &Doc) -> Result<(), Status> {
    let unsaid = matches!(doc.get(k::METADATA).get(k::RESOURCE_VERSION).str(), "" | "0");
    if !unsaid || request.kind.strategy.allow_unconditional_update() {
        return Ok(());
    }
    let mut errors = ErrorList::new();
    errors.invalid(&Path::new("metadata").child("resourceVersion"), 0i64, "must be specified for an update");
    let kind = &request.kind;
    Err(Status::invalid(&kind.storage.group, &kind.kind, &request.target.name, errors))
}
