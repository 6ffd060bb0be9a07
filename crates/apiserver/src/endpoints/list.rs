//! list: from the cache; later pages of a list, and exact revisions, from the store's history where the cache has
//! moved on. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/get.go, pkg/storage/etcd3/store.go.

use std::sync::Arc;

use apimachinery::call::{List, Reply, Stored};
use apimachinery::{Doc, Status, doc, k};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use storage::{Range, StoreError};

use super::Request;
use crate::cacher::{Item, Selection};
use crate::registry::{render, store};

/// How many objects are read at once from the store's history.
const PAGE: usize = 500;

/// Where a list goes on.
struct Place {
    revision: u64,
    /// The last key of the page before, without the kind's prefix.
    after: String,
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
    let page = page(request).await?;
    let token = page.last.map_or_else(String::new, |after| encode(&Place { revision: page.revision, after }));
    let kind = &request.kind;
    render::list(
        request,
        List {
            api_version: request.gv().to_string(),
            kind: kind.list_kind.to_string(),
            revision: page.revision,
            continue_: token,
            remaining: page.remaining,
            items: page.items,
            warnings: request.deprecation(),
        },
    )
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
    let cacher = &request.api.cacher;
    let asked = store::parse_revision(options.resource_version.as_deref())?;
    let exact = options.resource_version_match.as_deref() == Some("Exact");
    check(options.resource_version_match.as_deref(), asked, &options.continue_)?;
    let (revision, after) = if options.continue_.is_empty() {
        match asked {
            None => (cacher.catch_up().await?, String::new()),
            Some(0) => (cacher.reached(), String::new()),
            Some(revision) => {
                cacher.wait(revision).await?;
                (if exact { revision } else { cacher.reached() }, String::new())
            }
        }
    } else {
        let place = decode(&options.continue_)?;
        cacher.wait(place.revision).await?;
        (place.revision, place.after)
    };
    let historic = exact || !options.continue_.is_empty();
    let (items, last) = collection.list(&selection, &after);
    if historic && last > revision {
        return from_history(request, &selection, revision, &after).await;
    }
    // Without a revision asked for, what is shown is at least as new as was waited for.
    let revision = if historic { revision } else { revision.max(last) };
    let total = items.len();
    let limit = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let cut = limit > 0 && total > limit;
    let items: Vec<Arc<Item>> = if cut { items.into_iter().take(limit).collect() } else { items };
    let last = items.last().filter(|_| cut).map(|i| key_of(&i.stored));
    let remaining = (cut && selection.is_everything()).then(|| (total - limit) as u64);
    Ok(Page { items: items.iter().map(|i| i.stored.clone()).collect(), revision, last, remaining })
}

/// What the request selects.
///
/// # Errors
/// 400 for selectors that cannot be read.
pub fn selection(request: &Request) -> Result<Selection, Status> {
    let options = &request.options;
    let mut fields = options.field_selector.clone();
    // A collection's path may name one object: `…/pods/x?watch=true`.
    if !request.target.name.is_empty() {
        fields = [fields, format!("metadata.name={}", request.target.name)]
            .iter()
            .filter(|s| !s.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join(",");
    }
    Selection::new(
        &request.kind,
        request.version,
        &request.target.namespace,
        &options.label_selector,
        &fields,
    )
}

fn check(matching: Option<&str>, revision: Option<u64>, token: &str) -> Result<(), Status> {
    let refuse = |why: &str| Err(Status::bad_request(why));
    match matching {
        None => {}
        Some(_) if !token.is_empty() => {
            return refuse("resourceVersionMatch is forbidden when continue is provided");
        }
        Some(_) if revision.is_none() => {
            return refuse("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        Some("Exact") if revision == Some(0) => {
            return refuse("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"");
        }
        Some("Exact" | "NotOlderThan") => {}
        Some(other) => {
            return refuse(&format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\", \"\""
            ));
        }
    }
    if !token.is_empty() && revision.is_some_and(|r| r != 0) {
        return refuse("specifying resource version is not allowed when using continue");
    }
    Ok(())
}

fn key_of(stored: &Stored) -> String {
    if stored.namespace.is_empty() {
        stored.name.clone()
    } else {
        format!("{}/{}", stored.namespace, stored.name)
    }
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
    let mut range = Range::prefix(kind.keys(&selection.namespace)).at(revision).limit(PAGE);
    if !after.is_empty() {
        range = range.after(format!("{}{after}", kind.keys("")).as_bytes());
    }
    let mut items: Vec<Arc<Stored>> = Vec::new();
    loop {
        let page = match request.api.store.range(range.clone()).await {
            Ok(page) => page,
            Err(StoreError::Compacted { .. }) => return Err(expired(revision)),
            Err(error) => return Err(store::unreachable(&error)),
        };
        let last = page.kvs.last().map(|kv| kv.key.clone());
        for kv in &page.kvs {
            let Some(item) = Item::new(kind, &kv.value, kv.mod_revision).filter(|i| selection.matches(i))
            else {
                continue;
            };
            if limit > 0 && items.len() == limit {
                let last = items.last().map(|s| key_of(s));
                return Ok(Page { items, revision, last, remaining: None });
            }
            items.push(item.stored.clone());
        }
        match last {
            Some(last) if page.more => range = range.after(&last),
            _ => return Ok(Page { items, revision, last: None, remaining: None }),
        }
        base::task::yield_now().await;
    }
}

fn expired(revision: u64) -> Status {
    Status::expired(format!(
        "The provided continue parameter is too old to display a consistent list result: the revision {revision} has been compacted. \
         You can start a new list without the continue parameter."
    ))
}

fn encode(place: &Place) -> String {
    let token =
        doc!({ "v": "meta.k8s.io/v1", "rv": place.revision, "start": format!("{}\u{0}", place.after) });
    URL_SAFE_NO_PAD.encode(token.to_json())
}

fn decode(token: &str) -> Result<Place, Status> {
    let bad = || Status::bad_request("continue key is not valid: illegal base64 data or unknown version");
    let text = URL_SAFE_NO_PAD.decode(token.trim_end_matches('=')).map_err(|_| bad())?;
    let doc: Doc = apimachinery::codec::json::parse(text).map_err(|_| bad())?.doc;
    let revision = u64::try_from(doc.get("rv").i64()).ok().filter(|r| *r > 0).ok_or_else(bad)?;
    let after = doc.get("start").str().strip_suffix('\u{0}').ok_or_else(bad)?;
    if doc.get("v").str() != "meta.k8s.io/v1" || after.split('/').any(|part| part.is_empty() || part == "..")
    {
        return Err(bad());
    }
    Ok(Place { revision, after: after.to_owned() })
}

/// The `resourceVersion` of a document, 0 when it has none.
pub fn revision_of(doc: &Doc) -> u64 {
    doc.get(k::METADATA).get(k::RESOURCE_VERSION).str().parse().unwrap_or(0)
}
