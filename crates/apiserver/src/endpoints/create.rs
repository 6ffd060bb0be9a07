//! create. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/create.go.

use apimachinery::Status;
use apimachinery::call::Reply;

use super::{Request, decode};
use crate::registry::{change, render};

/// Makes an object.
///
/// # Errors
/// 400 for a body that is none, 409 when the name is taken, 422 for what validation finds, admission's refusals.
pub async fn create(request: Request) -> Result<Reply, Status> {
    let mut warnings = request.deprecation();
    let version = request.served();
    let expected = decode::Expected { kind: &request.kind.kind, gv: &version.gv, schema: version.schema };
    let mut doc = decode::object(&request.body, &expected, request.options.field_validation, &mut warnings)?;
    render::to_storage(&request.kind, version, &mut doc);
    let done = change::create(&request, doc).await?;
    warnings.extend(done.warnings);
    render::object(&request, 201, done.stored, warnings)
}
