//! get. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/get.go.

use apimachinery::Status;
use apimachinery::call::Reply;

use super::Request;
use crate::registry::{render, store};

/// Answers with one object.
///
/// # Errors
/// 404 when there is none, 400 or 504 for an impossible resource version.
pub async fn get(request: &Request) -> Result<Reply, Status> {
    let api = &request.api;
    match store::parse_revision(request.options.resource_version.as_deref())? {
        None => {
            api.cacher.catch_up().await?;
        }
        Some(0) => {}
        Some(revision) => api.cacher.wait(revision).await?,
    }
    let item = store::cached(request, &request.target.namespace, &request.target.name)?;
    render::object(request, 200, item, request.deprecation())
}
