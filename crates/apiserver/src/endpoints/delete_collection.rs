//! deletecollection: every selected object, one by one. Upstream: `DeleteCollection` of
//! k8s.io/apiserver/pkg/registry/generic/registry/store.go.

use apimachinery::Status;
use apimachinery::call::Reply;

use super::{Request, list};
use crate::registry::{remove, render};

/// Deletes the selected objects, of which `limit` allows so many; answers with them as they were, and where to go on.
///
/// # Errors
/// As [`list::list`], and the first object's that could not be deleted.
pub async fn delete_collection(mut request: Request) -> Result<Reply, Status> {
    let options = remove::Options::read(&mut request)?;
    let list = list::found(&request).await?;
    for item in &list.items {
        request.target.namespace.clone_from(&item.namespace);
        match remove::delete(&request, &item.name, &options).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    render::list(&request, list)
}
