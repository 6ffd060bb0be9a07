//! `/binding` of pods, and the old `bindings` resource: a pod is given its node, once.
//! Upstream: `BindingREST` of pkg/registry/core/pod/storage.

use api::SubKind;
use apimachinery::call::Reply;
use apimachinery::field::{ErrorList, Path};
use apimachinery::gvk::{GroupResource, GroupVersion};
use apimachinery::{Doc, Status, doc, gotime, k};

use crate::endpoints::{Request, decode};
use crate::registry::change::{self, Change};

const PODS: GroupResource = GroupResource::new("", "pods");

/// Binds through the resource `bindings`, whose name is the pod's.
///
/// # Errors
/// 405 for other kinds without storage, and as [`create`].
pub async fn create_for(mut request: Request) -> Result<Reply, Status> {
    if request.kind.storage != GroupResource::new("", "bindings") {
        return Err(Status::method_not_supported(&request.kind.storage, request.verb.as_str()));
    }
    let parsed = decode::parse(&request.body, "Binding")?;
    request.target.name = parsed.doc.get(k::METADATA).get(k::NAME).str().to_owned();
    request.target.subresource = "binding".into();
    request.kind = request.api.kinds.stored(&PODS).ok_or_else(Status::unknown_path)?;
    request.version = request.kind.stored;
    create(request).await
}

/// Gives a pod its node.
///
/// # Errors
/// 404, 409 for a pod that has one or is being deleted, 422 for what is no binding to a node.
pub async fn create(request: Request) -> Result<Reply, Status> {
    let binding = read(&request)?;
    let name = request.target.name.clone();
    let node = binding.get(k::TARGET).get(k::NAME).str().to_owned();
    let transform = |old: &Doc, _: &mut Vec<String>| {
        change::check_preconditions(&request, &binding, old)?;
        bind(&name, &node, &binding, old, &gotime::format(request.now))
    };
    let done = change::update(&request, Change::new(&name, transform)).await;
    match done {
        Err(status) if status.code == 409 => Err(status),
        Err(status) => Err(status),
        Ok(_) => {
            let doc = doc!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
            Ok(Reply::Doc { code: 201, doc: Box::new(doc), warnings: Vec::new() })
        }
    }
}

fn read(request: &Request) -> Result<Doc, Status> {
    debug_assert!(request.sub().is_some_and(|s| s.does == SubKind::Binding));
    let v1 = GroupVersion::new("", "v1");
    let schema = apimachinery::schema::kind("", "v1", "Binding").ok_or_else(Status::unknown_path)?;
    let expected = decode::Expected { kind: "Binding", gv: &v1, schema };
    let binding =
        decode::object(&request.body, &expected, request.options.field_validation, &mut Vec::new())?;
    let given = binding.get(k::METADATA).get(k::NAME).str();
    if !given.is_empty() && given != request.target.name {
        let why = format!("name in URL does not match name in Binding object: {given}");
        return Err(Status::bad_request(why));
    }
    let mut errors = ErrorList::new();
    let target = binding.get(k::TARGET);
    let at = Path::new("target");
    if !matches!(target.get(k::KIND).str(), "" | "Node") {
        errors.not_supported(&at.child("kind"), target.get(k::KIND).str(), &["Node", "<empty>"]);
    }
    if target.get(k::NAME).str().is_empty() {
        errors.required(&at.child("name"), "");
    }
    if errors.is_empty() { Ok(binding) } else { Err(Status::invalid("", "Binding", given, errors)) }
}

fn bind(name: &str, node: &str, binding: &Doc, old: &Doc, now: &str) -> Result<Doc, Status> {
    let spec = old.get(k::SPEC);
    let conflict = |why: String| Status::conflict(&GroupResource::new("", "pods/binding"), name, &why);
    if old.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set() {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let bound = spec.get(k::NODE_NAME).str();
    if !bound.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {bound:?}")));
    }
    if !spec.get(k::SCHEDULING_GATES).is_empty() {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut new = old.clone();
    new.edit().at(k::SPEC).set(k::NODE_NAME, node);
    for (key, value) in binding.get(k::METADATA).get(k::ANNOTATIONS).entries() {
        new.edit().at(k::METADATA).at(k::ANNOTATIONS).set(key, value);
    }
    let scheduled =
        doc!({ "type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": now });
    let mut conditions = new.edit().at(k::STATUS).list(k::CONDITIONS);
    conditions.retain(|c| c.get(k::TYPE).str() != "PodScheduled");
    conditions.push(scheduled);
    Ok(new)
}
