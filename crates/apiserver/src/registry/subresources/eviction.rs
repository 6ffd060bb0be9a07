//! `/eviction` of pods: a deletion that asks first whether the pod can be spared. What spares pods are disruption
//! budgets; while there are none, every pod goes. Upstream: pkg/registry/core/pod/storage/eviction.go.

use apimachinery::call::Reply;
use apimachinery::gvk::GroupVersion;
use apimachinery::{Doc, Status, doc, k};

use crate::admission::{self, Attributes, Operation};
use crate::endpoints::{Request, decode};
use crate::registry::remove::{self, Options};
use crate::registry::store;

/// The versions of an Eviction.
static VERSIONS: [GroupVersion; 2] =
    [GroupVersion::new("policy", "v1"), GroupVersion::new("policy", "v1beta1")];

/// Deletes a pod as its eviction says.
///
/// # Errors
/// 400 for a body that is no Eviction or one of another pod, 404, 409 for preconditions that do not hold, admission's
/// refusals.
pub async fn create(mut request: Request) -> Result<Reply, Status> {
    let (eviction, mut warnings) = read(&request)?;
    let name = request.target.name.clone();
    if eviction.get(k::METADATA).get(k::NAME).str() != name {
        return Err(Status::bad_request("name in URL does not match name in Eviction object"));
    }
    let asked = eviction.get(k::DELETE_OPTIONS);
    request.options.dry_run |= !asked.get(k::DRY_RUN).is_empty();
    let options = Options::of(asked)?;
    request.api.cacher.catch_up().await?;
    let pod = store::cached(&request, &request.target.namespace, &name)?.doc();
    // Not an older eviction: the pod that is meant, which plugins may want to see.
    let mut attributes = Attributes::new(&request, Operation::Create, eviction, Some(&pod), &name);
    admission::admit(&request.api, &mut attributes).await?;
    admission::validate(&request.api, &attributes).await?;
    warnings.append(&mut attributes.warnings);
    remove::delete(&request, &name, &options).await?;
    let doc =
        doc!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 });
    Ok(Reply::Doc { code: 201, doc: Box::new(doc), warnings })
}

fn read(request: &Request) -> Result<(Doc, Vec<String>), Status> {
    let parsed = decode::parse(&request.body, "Eviction")?;
    let said = GroupVersion::parse(parsed.doc.get(k::API_VERSION).str());
    let gv = VERSIONS.iter().find(|gv| Some(*gv) == said.as_ref()).unwrap_or(&VERSIONS[0]);
    let schema =
        apimachinery::schema::kind("policy", &gv.version, "Eviction").ok_or_else(Status::unknown_path)?;
    let expected = decode::Expected { kind: "Eviction", gv, schema };
    let mut warnings = Vec::new();
    let doc = decode::normal(parsed, &expected, request.options.field_validation, &mut warnings)?;
    Ok((doc, warnings))
}
