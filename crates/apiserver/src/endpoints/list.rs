//! list: from the cache; later pages of a list, and exact revisions, from the store's history where the cache has
//! moved on. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/get.go, pkg/storage/etcd3/store.go.

use std::sync::Arc;

use apimachinery::call::{List, Reply, Stored};
use apimachinery::{Doc, Status, doc};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::{Range, StoreError, Want};

use super::Request;
use crate::cacher::{Selection, item};
use crate::registry::{render, store};

/// How many objects are read at once from the store's history.
const PAGE: usize = 500;

/// Where a list goes on.
struct Place {
    /// `None`: the newest state, since the one that the list began with is gone.
    revision: Option<u64>,
    /// The last key of the page before, without the kind's prefix.
    after: String,
}

/// Which state a list shows.
#[derive(Clone, Copy)]
enum State {
    /// The one that the cache has, which is at least this old.
    Cached(u64),
    /// That of this revision and no other.
    Exactly(u64),
}

/// One page.
struct Page {
    items: Vec<Arc<Stored>>,
    revision: u64,
    /// The last key, when more follows.
    last: Option<String>,
    remaining: Option<u64>,
}

/// Answers with the selected objects.
///
/// # Errors
/// 400 for selectors or options that cannot be, 410 for a revision that is gone.
pub async fn list(request: &Request) -> Result<Reply, Status> {
    render::list(request, found(request).await?)
}

/// The selected objects as they are stored.
///
/// # Errors
/// As [`list`].
pub async fn found(request: &Request) -> Result<List, Status> {
    let page = page(request).await?;
    let token = page.last.map_or_else(String::new, |after| encode(page.revision as i64, &after));
    let kind = &request.kind;
    Ok(List {
        api_version: request.gv().to_string(),
        kind: kind.list_kind.to_string(),
        revision: page.revision,
        continue_: token,
        remaining: page.remaining,
        items: page.items,
        warnings: request.deprecation(),
    })
}

/// All selected objects, as of now.
///
/// # Errors
/// As [`list`].
pub async fn all(request: &Request) -> Result<Vec<Arc<Stored>>, Status> {
    Ok(page(request).await?.items)
}

async fn page(request: &Request) -> Result<Page, Status> {
    let options = &request.options;
    let selection = selection(request)?;
    let collection = store::collection(request)?;
    let (state, after) = begin(request).await?;
    // Whoever takes any state is given all of it, as upstream: clients' first lists rely on it.
    let any = options.resource_version.as_deref() == Some("0") && options.continue_.is_empty();
    let limit = match usize::try_from(options.limit) {
        Ok(limit) if limit > 0 && !any => limit,
        _ => usize::MAX,
    };
    let (mut items, mut more) = (Vec::new(), 0);
    let last = collection.each(&selection, &after, |few| {
        let (wanted, rest) = few.split_at(few.len().min(limit - items.len()));
        Stored::hold(wanted, &mut items);
        more += rest.len();
    });
    let revision = match state {
        // What is shown is at least as new as was waited for.
        State::Cached(revision) => revision.max(last),
        State::Exactly(revision) => {
            still_known(request, revision, &after).await?;
            if last > revision {
                return from_history(request, &selection, revision, &after).await;
            }
            revision
        }
    };
    let last = items.last().filter(|_| more > 0).map(|stored| stored.key().to_string());
    let remaining = (more > 0 && selection.is_everything()).then_some(more as u64);
    Ok(Page { items, revision, last, remaining })
}

/// Which state is asked for, once the cache has it, and after which key. Upstream's table:
/// https://kubernetes.io/docs/reference/using-api/api-concepts/#semantics-for-get-and-list.
async fn begin(request: &Request) -> Result<(State, String), Status> {
    let options = &request.options;
    let cacher = &request.api.cacher;
    let asked = store::parse_revision(options.resource_version.as_deref())?;
    if !options.continue_.is_empty() {
        let place = decode(&options.continue_)?;
        if asked.is_some_and(|r| r != 0) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(Status::bad_request(why));
        }
        let Some(revision) = place.revision else {
            return Ok((State::Cached(cacher.catch_up().await?), place.after));
        };
        cacher.wait(revision).await?;
        return Ok((State::Exactly(revision), place.after));
    }
    let state = match (asked, options.resource_version_match.as_deref()) {
        (None, _) => State::Cached(cacher.catch_up().await?),
        (Some(0), _) => State::Cached(cacher.reached()),
        (Some(revision), matching) => {
            cacher.wait(revision).await?;
            // The oldest clients mean exactly this revision when they ask for pieces of it.
            match matching.is_none() && options.limit > 0 || matching == Some("Exact") {
                true => State::Exactly(revision),
                false => State::Cached(cacher.reached()),
            }
        }
    };
    Ok((state, String::new()))
}

/// A revision that the store has forgotten is gone for everybody, whether the kind's objects have changed since or not.
async fn still_known(request: &Request, revision: u64, after: &str) -> Result<(), Status> {
    let one = Range::key(request.kind.keys("")).at(revision).want(Want::Count);
    match request.api.store.range(one).await {
        Ok(_) => Ok(()),
        Err(StoreError::Compacted { .. }) => Err(expired(after)),
        Err(error) => Err(store::unreachable(&error)),
    }
}

/// What the request selects.
///
/// # Errors
/// 400 for selectors that cannot be read.
pub fn selection(request: &Request) -> Result<Selection, Status> {
    let (options, name) = (&request.options, &request.target.name);
    // The oldest way to watch may name one object: `/api/v1/watch/namespaces/a/pods/x`.
    let by_name = format!("metadata.name={name}");
    let alone = !name.is_empty() && options.field_selector.is_empty();
    let fields = if alone { &by_name } else { &options.field_selector };
    let (kind, namespace) = (&request.kind, &request.target.namespace);
    let out = Selection::new(kind, request.version, namespace, &options.label_selector, fields)?;
    if !name.is_empty() && out.name() != Some(name) {
        return Err(Status::bad_request("fieldSelector metadata.name doesn't match requested name"));
    }
    Ok(out)
}

/// A page of the state at a revision that the cache has left behind.
async fn from_history(
    request: &Request,
    selection: &Selection,
    revision: u64,
    after: &str,
) -> Result<Page, Status> {
    let kind = &request.kind;
    let limit = usize::try_from(request.options.limit).unwrap_or(usize::MAX);
    let prefix = kind.keys("");
    let mut range = Range::prefix(kind.keys(&selection.namespace)).at(revision).limit(PAGE);
    if !after.is_empty() {
        range = range.after(format!("{prefix}{after}").as_bytes());
    }
    let mut items: Vec<Arc<Stored>> = Vec::new();
    let shared = request.api.store.is_shared();
    loop {
        let page = match request.api.store.range(range.clone()).await {
            Ok(page) => page,
            Err(StoreError::Compacted { .. }) => return Err(expired(after)),
            Err(error) => return Err(store::unreachable(&error)),
        };
        let last = page.kvs.last().map(|kv| kv.key.clone());
        for (seen, kv) in (0..).zip(&page.kvs) {
            let Some(key) = std::str::from_utf8(&kv.key).ok().and_then(|key| key.strip_prefix(&prefix))
            else {
                continue;
            };
            let item = item::cached(kind, key, &kv.value, kv.mod_revision, shared);
            let Some(item) = item.filter(|i| selection.matches(i)) else { continue };
            if limit > 0 && items.len() == limit {
                let last = items.last().map(|s| s.key().to_string());
                let remaining = selection.is_everything().then(|| page.count - seen);
                return Ok(Page { items, revision, last, remaining });
            }
            items.push(Arc::new(item));
        }
        match last {
            Some(last) if page.more => range = range.after(&last),
            _ => return Ok(Page { items, revision, last: None, remaining: None }),
        }
        base::task::yield_now().await;
    }
}

/// 410; a list that had begun may go on after its last key, in the newest state.
fn expired(after: &str) -> Status {
    if after.is_empty() {
        return Status::expired("The resourceVersion for the provided list is too old.");
    }
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of the \
         results. Continuing with the provided token results in an inconsistent list - objects that were created, \
         modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.details.continue_ = encode(-1, after);
    status
}

/// A token; -1 is the newest state.
fn encode(revision: i64, after: &str) -> String {
    let token = doc!({ "v": "meta.k8s.io/v1", "rv": revision, "start": format!("{after}\u{0}") });
    URL_SAFE_NO_PAD.encode(token.to_json())
}

fn decode(token: &str) -> Result<Place, Status> {
    let bad =
        |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid{why}"));
    let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|e| bad(&format!(": {e}")))?;
    let doc: Doc = apimachinery::codec::json::parse(text).map_err(|e| bad(&format!(": {e}")))?.doc;
    let version = doc.get("v").str();
    if version != "meta.k8s.io/v1" {
        return Err(bad(&format!(": server does not recognize this encoded version {version}")));
    }
    let revision = match doc.get("rv").i64() {
        0 => {
            return Err(bad(": incorrect encoded start resourceVersion (version meta.k8s.io/v1)"));
        }
        revision => u64::try_from(revision).ok(),
    };
    let start = doc.get("start").str();
    if start.is_empty() {
        return Err(bad(": encoded start key empty (version meta.k8s.io/v1)"));
    }
    let after = start.strip_suffix('\u{0}').ok_or_else(|| bad(&format!(": {start}")))?;
    if after.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(bad(&format!(": {start}")));
    }
    Ok(Place { revision, after: after.to_owned() })
}
