//! How an object is shown: as stored where that is what was asked for, else converted to another version, as metadata
//! alone, or as a table. Upstream: k8s.io/apiserver/pkg/endpoints/handlers/response.go.

use std::sync::Arc;

use api::{Column, Kind, Version};
use apimachinery::call::{List, Rendering, Reply, Stored, WatchEvent};
use apimachinery::schema::normalise::normalise;
use apimachinery::{Doc, Ref, Status, Val, doc, k};

use super::table;
use crate::endpoints::Request;

/// Turns stored objects into what a request wants to see.
#[derive(Clone)]
pub struct Renderer {
    kind: Arc<Kind>,
    version: usize,
    rendering: Rendering,
    /// A table's columns are told once in a watch.
    columns_told: bool,
}

/// A stored document as one of `version`.
pub fn convert(kind: &Kind, version: &Version, mut stored: Doc) -> Doc {
    if std::ptr::eq(version, kind.storage_version()) {
        return stored;
    }
    if let Some(convert) = version.from_storage {
        convert(&mut stored);
    }
    stored.edit().set(k::KIND, &*kind.kind).set(k::API_VERSION, version.gv.to_string());
    normalise(stored.root(), version.schema)
}

/// A document of `version`, decoded and defaulted, as one of the stored version.
pub fn to_storage(kind: &Kind, version: &Version, doc: &mut Doc) {
    (version.defaults)(doc);
    if let Some(convert) = version.to_storage {
        convert(doc);
    }
    if !std::ptr::eq(version, kind.storage_version()) {
        doc.edit().set(k::KIND, &*kind.kind).set(k::API_VERSION, kind.storage_version().gv.to_string());
    }
}

/// An object's metadata alone.
pub fn metadata(object: Ref<'_>, version: &str) -> Doc {
    let mut out = doc!({ "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}") });
    out.edit().set(k::METADATA, object.get(k::METADATA));
    out
}

/// The answer with one object.
///
/// # Errors
/// 406 when the metadata of a list is asked for.
pub fn object(
    request: &Request,
    code: u16,
    stored: Arc<Stored>,
    warnings: Vec<String>,
) -> Result<Reply, Status> {
    let renderer = Renderer::of(request);
    if renderer.is_plain() {
        return Ok(Reply::Object { code, object: stored, warnings });
    }
    if let Rendering::Metadata { list: true, .. } = renderer.rendering {
        let what = format!(
            "PartialObjectMetadataList, but the requested object is not a list ({})",
            internal(&request.kind)
        );
        return Err(not_this(&what));
    }
    Ok(Reply::Doc { code, doc: Box::new(renderer.doc(&stored)), warnings })
}

/// The answer with a part of an object that is an object of its own and has these columns.
pub fn part(request: &Request, columns: &[Column], doc: Doc) -> Reply {
    let doc = match &Renderer::of(request).rendering {
        Rendering::Object => doc,
        Rendering::Metadata { version, .. } => metadata(doc.root(), version),
        Rendering::Table { version, include } => {
            let revision = doc.get(k::METADATA).get(k::RESOURCE_VERSION).str().to_owned();
            let mut out =
                table::table(columns, version, include, std::iter::once(doc), |o| o, request.now, true);
            out.edit().at(k::METADATA).set(k::RESOURCE_VERSION, revision);
            out
        }
    };
    Reply::Doc { code: 200, doc: Box::new(doc), warnings: Vec::new() }
}

/// The answer with a list.
///
/// # Errors
/// 406 when the metadata of one object is asked for.
pub fn list(request: &Request, mut list: List) -> Result<Reply, Status> {
    let renderer = Renderer::of(request);
    let (kind, version) = (&*request.kind, request.served());
    let mut meta = doc!({ "resourceVersion": list.revision.to_string() });
    meta.edit()
        .set_opt(k::CONTINUE, (!list.continue_.is_empty()).then_some(&list.continue_))
        .set_opt(k::REMAINING_ITEM_COUNT, list.remaining);
    let mut out = match &renderer.rendering {
        Rendering::Object => {
            if !renderer.is_plain() {
                list.items = list
                    .items
                    .iter()
                    .map(|stored| {
                        let json = convert(kind, version, stored.doc()).to_json().into();
                        Arc::new(Stored::at(json, stored.revision, stored.key().clone()))
                    })
                    .collect();
            }
            return Ok(Reply::List(list));
        }
        Rendering::Table { version: shape, include } => {
            let objects = list.items.iter().map(|s| s.doc());
            table::table(
                &kind.columns,
                shape,
                include,
                objects,
                |o| convert(kind, version, o),
                request.now,
                true,
            )
        }
        Rendering::Metadata { list: false, .. } => {
            let what =
                format!("PartialObjectMetadata, but the requested object is a list ({}List)", internal(kind));
            return Err(not_this(&what));
        }
        Rendering::Metadata { version, .. } => {
            let mut out = doc!({ "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {}, "items": [] });
            for stored in &list.items {
                out.edit().list(k::ITEMS).push(metadata(stored.doc().root(), version));
            }
            out
        }
    };
    out.edit().set(k::METADATA, meta);
    Ok(Reply::Doc { code: 200, doc: Box::new(out), warnings: list.warnings })
}

/// The object that tells a watch's progress.
pub fn bookmark(revision: u64, initial: bool, api_version: &str, kind: &str) -> Doc {
    let mut bookmark = doc!({ "kind": kind, "apiVersion": api_version, "metadata": { "resourceVersion": revision.to_string() } });
    if initial {
        bookmark.edit().at(k::METADATA).at(k::ANNOTATIONS).set("k8s.io/initial-events-end", "true");
    }
    bookmark
}

fn not_this(asked: &str) -> Status {
    Status::not_acceptable("").message_only(format!("you requested {asked}"))
}

/// What upstream's Go calls the kind inside.
fn internal(kind: &Kind) -> String {
    let group = kind.storage.group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("*{group}.{}", kind.kind)
}

// === impl Renderer ===

impl Renderer {
    /// For what this request wants to see.
    pub fn of(request: &Request) -> Renderer {
        let mut rendering = request.accept.rendering.clone();
        let included = request.options.query.iter().find(|(name, _)| name == "includeObject");
        if let (Rendering::Table { include, .. }, Some((_, value))) = (&mut rendering, included) {
            include.clone_from(value);
        }
        Renderer { kind: request.kind.clone(), version: request.version, rendering, columns_told: false }
    }

    /// Whether objects are shown as they are stored.
    fn is_plain(&self) -> bool {
        self.rendering == Rendering::Object && self.version == self.kind.stored
    }

    fn doc(&self, stored: &Stored) -> Doc {
        self.doc_with_columns(stored, true)
    }

    fn doc_with_columns(&self, stored: &Stored, columns: bool) -> Doc {
        match &self.rendering {
            Rendering::Object => convert(&self.kind, &self.kind.versions[self.version], stored.doc()),
            Rendering::Metadata { version, .. } => metadata(stored.doc().root(), version),
            Rendering::Table { version, include } => {
                let object = stored.doc();
                let revision = stored.revision.to_string();
                let mut out = table::table(
                    &self.kind.columns,
                    version,
                    include,
                    std::iter::once(object),
                    |object| convert(&self.kind, &self.kind.versions[self.version], object),
                    base::time::now(),
                    columns,
                );
                out.edit().at(k::METADATA).set(k::RESOURCE_VERSION, revision);
                out
            }
        }
    }

    /// An event as this request wants to see it.
    pub fn event(&mut self, event: WatchEvent) -> WatchEvent {
        if self.is_plain() {
            return event;
        }
        let (kind, stored) = match &event {
            WatchEvent::Added(stored) => ("ADDED", stored.clone()),
            WatchEvent::Modified(stored) => ("MODIFIED", stored.clone()),
            WatchEvent::Deleted(stored) => ("DELETED", stored.clone()),
            // In another form, progress is told in that form, too.
            WatchEvent::Bookmark { revision, initial } if self.rendering != Rendering::Object => {
                let json = bookmark(*revision, *initial, "", "").to_json().into();
                ("BOOKMARK", Arc::new(Stored::new(json, *revision, "", "")))
            }
            WatchEvent::Bookmark { .. } | WatchEvent::Error(_) | WatchEvent::Rendered { .. } => return event,
        };
        let doc = self.doc_with_columns(&stored, !self.columns_told);
        self.columns_told = true;
        WatchEvent::Rendered { kind, doc: Arc::new(doc) }
    }
}

/// What an answer without an object says. Upstream: rest.go of registry, `Status` of success.
pub fn success(kind: &Kind, name: &str, uid: &str) -> Reply {
    let mut doc = doc!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" });
    let mut details = doc.edit().at(k::DETAILS);
    details.set(k::NAME, name);
    details.set_opt(
        k::GROUP,
        (!kind.storage.group.is_empty()).then_some(Val::Str(kind.storage.group.as_ref().into())),
    );
    details.set(k::KIND, &*kind.storage.resource).set(k::UID, uid);
    Reply::Doc { code: 200, doc: Box::new(doc), warnings: Vec::new() }
}
