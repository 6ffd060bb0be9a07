//! Event: what happened to an object, as components report it; `v1` and `events.k8s.io/v1` are two views of one
//! storage. Upstream: pkg/registry/core/event, pkg/apis/events/v1/conversion.go.

use std::borrow::Cow;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Doc, Key, Ref, gotime, k};
use base::time::Timestamp;

use crate::kind::*;
use crate::print::{NAME, age_of, duration};

/// Events, kept for an hour.
pub(crate) fn kind() -> Kind {
    let new = Version {
        to_storage: Some(to_core),
        from_storage: Some(from_core),
        field_aliases: ALIASES,
        ..v("events.k8s.io", "v1", "Event")
    };
    Kind {
        short: names(&["ev"]),
        class: Class::Lazy,
        ttl_seconds: 3600,
        columns: Cow::Borrowed(COLUMNS),
        fields: Cow::Borrowed(FIELDS),
        strategy: &Event,
        versions: vec![v("", "v1", "Event"), new],
        ..Kind::new("", "v1", "events", "Event")
    }
}

const FIELDS: &[SelectableField] = &[
    SelectableField::path("involvedObject.kind"),
    SelectableField::path("involvedObject.namespace"),
    SelectableField::path("involvedObject.name"),
    SelectableField::path("involvedObject.uid"),
    SelectableField::path("involvedObject.apiVersion"),
    SelectableField::path("involvedObject.resourceVersion"),
    SelectableField::path("involvedObject.fieldPath"),
    SelectableField::path("reason"),
    SelectableField::path("reportingComponent"),
    SelectableField::code("source", |event| {
        let component = event.get(k::SOURCE).get(k::COMPONENT).str();
        Cow::Borrowed(if component.is_empty() { event.get(k::REPORTING_COMPONENT).str() } else { component })
    }),
    SelectableField::path("type"),
];

const ALIASES: &[(&str, &str)] = &[
    ("regarding.kind", "involvedObject.kind"),
    ("regarding.namespace", "involvedObject.namespace"),
    ("regarding.name", "involvedObject.name"),
    ("regarding.uid", "involvedObject.uid"),
    ("regarding.apiVersion", "involvedObject.apiVersion"),
    ("regarding.resourceVersion", "involvedObject.resourceVersion"),
    ("regarding.fieldPath", "involvedObject.fieldPath"),
    ("reportingController", "reportingComponent"),
];

/// Fields that have other names in `events.k8s.io/v1`: (there, in core).
const RENAMED: &[(Key, Key)] = &[
    (k::REGARDING, k::INVOLVED_OBJECT),
    (k::NOTE, k::MESSAGE),
    (k::REPORTING_CONTROLLER, k::REPORTING_COMPONENT),
    (k::DEPRECATED_SOURCE, k::SOURCE),
    (k::DEPRECATED_FIRST_TIMESTAMP, k::FIRST_TIMESTAMP),
    (k::DEPRECATED_LAST_TIMESTAMP, k::LAST_TIMESTAMP),
    (k::DEPRECATED_COUNT, k::COUNT),
];

fn rename(doc: &mut Doc, from: Key, to: Key) {
    let value = doc.get(from).to_doc();
    if doc.get(from).exists() {
        doc.edit().set(to, value).remove(from);
    }
}

fn to_core(doc: &mut Doc) {
    for (there, core) in RENAMED {
        rename(doc, *there, *core);
    }
}

fn from_core(doc: &mut Doc) {
    for (there, core) in RENAMED {
        rename(doc, *core, *there);
    }
}

const COLUMNS: &[Column] = &[
    Column::code("Last Seen", "string", "Time since it happened last.", last_seen),
    Column::path("Type", "string", "Normal or Warning.", "type"),
    Column::path("Reason", "string", "What happened, in one word.", "reason"),
    Column::code("Object", "string", "What it happened to.", |event, _| {
        let about = event.get(k::INVOLVED_OBJECT);
        let (kind, name) = (about.get(k::KIND).str().to_lowercase(), about.get(k::NAME).str());
        Cell::from(if name.is_empty() { kind } else { format!("{kind}/{name}") })
    }),
    Column::code("Subobject", "string", "Which part of it.", |event, _| {
        Cell::from(event.get(k::INVOLVED_OBJECT).get(k::FIELD_PATH).str())
    })
    .wide(),
    Column::code("Source", "string", "Who reports it.", |event, _| Cell::from(source(event))).wide(),
    Column::code("Message", "string", "What happened, in words.", |event, _| {
        Cell::from(event.get(k::MESSAGE).str().trim())
    }),
    Column::code("First Seen", "string", "Time since it happened first.", |event, now| {
        age_of(first(event), now)
    })
    .wide(),
    Column::code("Count", "string", "How often it happened.", |event, _| {
        Cell::from(count(event).to_string())
    })
    .wide(),
    Column { priority: 1, ..NAME },
];

fn first(event: Ref<'_>) -> &str {
    let first = event.get(k::FIRST_TIMESTAMP).str();
    if first.is_empty() { event.get(k::EVENT_TIME).str() } else { first }
}

fn last_seen(event: Ref<'_>, now: Timestamp) -> Cell {
    let series = event.get(k::SERIES).get(k::LAST_OBSERVED_TIME).str();
    let last = event.get(k::LAST_TIMESTAMP).str();
    let at = [series, last, first(event)].into_iter().find(|t| !t.is_empty()).unwrap_or("");
    match at.parse::<Timestamp>() {
        Ok(then) => Cell::from(duration(now.as_second() - then.as_second())),
        Err(_) => Cell::from("<unknown>"),
    }
}

fn count(event: Ref<'_>) -> i64 {
    let series = event.get(k::SERIES);
    if series.is_set() { series.get(k::COUNT).i64() } else { event.get(k::COUNT).i64().max(1) }
}

fn source(event: Ref<'_>) -> String {
    let (source, reporter) = (event.get(k::SOURCE), event.get(k::REPORTING_COMPONENT).str());
    let component = source.get(k::COMPONENT).str();
    let who = if component.is_empty() { reporter } else { component };
    let host = source.get(k::HOST).str();
    if host.is_empty() { who.to_owned() } else { format!("{who}, {host}") }
}

struct Event;

impl Strategy for Event {
    fn validate(&self, op: &Op<'_>, new: &Doc, old: Option<&Doc>, errs: &mut ErrorList) {
        let (space, about) = (new.get(k::METADATA).get(k::NAMESPACE).str(), new.get(k::INVOLVED_OBJECT));
        let named = about.get(k::NAMESPACE).str();
        let at = Path::new("involvedObject").child("namespace");
        if !named.is_empty() && named != space {
            errs.invalid(&at, named, "does not match event.namespace");
        } else if named.is_empty() && space != "default" && space != "kube-system" {
            errs.invalid(&at, named, "not allowed for namespaced events of cluster-scoped objects");
        }
        if op.gv.group != "events.k8s.io" {
            return;
        }
        if old.is_none() {
            for (field, value) in [
                ("reportingController", k::REPORTING_COMPONENT),
                ("reportingInstance", k::REPORTING_INSTANCE),
            ] {
                if new.get(value).str().is_empty() {
                    errs.required(&Path::new(field), "");
                }
            }
            for (field, key) in [("action", k::ACTION), ("reason", k::REASON)] {
                if new.get(key).str().is_empty() {
                    errs.required(&Path::new(field), "");
                }
            }
            if gotime::parse_micro(new.get(k::EVENT_TIME).str()).is_err() {
                errs.required(&Path::new("eventTime"), "");
            }
            crate::rules::one_of(errs, new.get(k::TYPE), &Path::new("type"), &["Normal", "Warning"]);
        }
        if new.get(k::MESSAGE).str().len() > 1024 {
            errs.invalid(&Path::new("message"), "", "can have at most 1024 characters");
        }
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }
}
