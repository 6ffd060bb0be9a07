//! deletecollection: every selected object. Upstream: `DeleteCollection` of
//! k8s.io/apiserver/pkg/registry/generic/registry/store.go.

use apimachinery::Status;
use apimachinery::call::Reply;
use futures_util::future::join_all;

use super::{Request, list};
use crate::registry::{remove, render};

/// How many objects are deleted at once: what is written together is synced together.
const AT_ONCE: usize = 64;

/// Deletes the selected objects, of which `limit` allows so many; answers with them as they were, and where to go on.
///
/// # Errors
/// As [`list::list`], and the first object's that could not be deleted.
pub async fn delete_collection(mut request: Request) -> Result<Reply, Status> {
    let options = remove::Options::read(&mut request)?;
    let list = list::found(&request).await?;
    for some in list.items.chunks(AT_ONCE) {
        // All are of the request's namespace, without which this verb is not served.
        let deletions: Vec<_> = some.iter().map(|o| remove::delete(&request, o.name(), &options)).collect();
        for done in join_all(deletions).await {
            match done {
                Err(status) if !status.is_not_found() => return Err(status),
                _ => {}
            }
        }
    }
    render::list(&request, list)
}
