//! delete. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/delete.go.

use apimachinery::Status;
use apimachinery::call::Reply;

use super::Request;
use crate::registry::remove;

/// Deletes an object, or begins to.
///
/// # Errors
/// 404, 409 for preconditions that do not hold, 422 for options that cannot be, admission's refusals.
pub async fn delete(mut request: Request) -> Result<Reply, Status> {
    let options = remove::Options::read(&mut request)?;
    let name = request.target.name.clone();
    remove::delete(&request, &name, &options).await
}
