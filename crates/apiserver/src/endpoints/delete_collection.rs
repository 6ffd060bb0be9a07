//! deletecollection: every selected object, one by one. Upstream: `DeleteCollection` of
//! k8s.io/apiserver/pkg/registry/generic/registry/store.go.

use std::sync::Arc;

use apimachinery::Status;
use apimachinery::call::{List, Reply};

use super::{Request, list};
use crate::registry::{remove, render, store};

/// Deletes the selected objects; answers with them as they were.
///
/// # Errors
/// As [`list::list`], and the first object's that could not be deleted.
pub async fn delete_collection(mut request: Request) -> Result<Reply, Status> {
    let options = remove::Options::read(&mut request)?;
    request.api.cacher.catch_up().await?;
    let selection = list::selection(&request)?;
    let (items, revision) = store::collection(&request)?.list(&selection, "");
    for item in &items {
        let name = item.stored.name.clone();
        request.target.namespace.clone_from(&item.stored.namespace);
        match remove::delete(&request, &name, &options).await {
            Err(status) if !status.is_not_found() => return Err(status),
            _ => {}
        }
    }
    render::list(
        &request,
        List {
            api_version: request.gv().to_string(),
            kind: request.kind.list_kind.to_string(),
            revision,
            continue_: String::new(),
            remaining: None,
            items: items.iter().map(|i| Arc::clone(&i.stored)).collect(),
            warnings: request.deprecation(),
        },
    )
}
