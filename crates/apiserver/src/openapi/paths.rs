//! Paths and operations, from the list of kinds, in no version of OpenAPI yet: `v2` and `v3` write them down.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/installer.go, and the operation names of its openapi package.

use std::collections::BTreeMap;

use api::{Kind, Scope, Sub, SubKind, Version};
use apimachinery::call::Verb;
use apimachinery::gvk::GroupVersion;
use apimachinery::schema::{Go, Kind as GoKind, TypeId, kind as kind_type, type_by_name};

use super::descriptions::Descriptions;
use crate::kinds::Table;

/// Media types of objects.
pub(super) const OBJECTS: &[&str] =
    &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const WATCHES: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const LOG: &[&str] =
    &["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
pub(super) const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

/// Query parameters of the verbs: name, type, and what they mean.
const QUERY: &[(&str, &str, &str)] = &[
    ("allowWatchBookmarks", "boolean", "Send bookmarks in a watch"),
    ("continue", "string", "Token from a list that was cut, for its next part"),
    ("dryRun", "string", "\"All\" to check everything and write nothing"),
    ("fieldManager", "string", "Name of who makes the change; at most 128 characters"),
    ("fieldSelector", "string", "Only objects with these fields"),
    ("fieldValidation", "string", "Ignore, Warn (the default) or Strict, for unknown and repeated fields"),
    ("force", "boolean", "Take fields over from other managers; apply only"),
    ("gracePeriodSeconds", "integer", "Seconds to end in; 0 at once, default per kind"),
    (
        "ignoreStoreReadErrorWithClusterBreakingPotential",
        "boolean",
        "Delete even what cannot be read; hurts, off by default",
    ),
    ("labelSelector", "string", "Only objects with these labels"),
    ("limit", "integer", "At most this many objects; the rest follows by continue"),
    ("orphanDependents", "boolean", "Old form of propagationPolicy; do not use both"),
    ("pretty", "string", "\"true\" for output that people read"),
    ("propagationPolicy", "string", "Orphan, Background or Foreground for what the object owns"),
    ("resourceVersion", "string", "At, or not older than, this version"),
    ("resourceVersionMatch", "string", "Exact or NotOlderThan, for resourceVersion"),
    ("sendInitialEvents", "boolean", "Begin a watch with the objects there are"),
    ("shardSelector", "string", "Only objects of this shard"),
    ("timeoutSeconds", "integer", "Seconds after which the call ends"),
    ("watch", "boolean", "Watch instead of listing"),
];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];
const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
];

/// A path with what can be done at it.
pub(super) struct Path {
    /// `/api/v1/namespaces/{namespace}/pods`.
    pub(super) path: String,
    /// Those of every operation.
    pub(super) parameters: Vec<Parameter>,
    /// At most one per method.
    pub(super) operations: Vec<Operation>,
}

/// What a method does at a path.
pub(super) struct Operation {
    /// `get`, in lower case.
    pub(super) method: &'static str,
    /// `readCoreV1NamespacedPod`.
    pub(super) id: String,
    /// `core_v1`.
    pub(super) tag: String,
    /// For people.
    pub(super) about: String,
    /// `x-kubernetes-action`, and the group, version and kind; nothing for what is no resource.
    pub(super) action: Option<(&'static str, GroupVersion, String)>,
    /// Media types of the body.
    pub(super) consumes: &'static [&'static str],
    /// Media types of the answer.
    pub(super) produces: &'static [&'static str],
    /// Its own parameters, which are in the query.
    pub(super) parameters: Vec<Parameter>,
    /// The body, and whether there must be one.
    pub(super) body: Option<(TypeId, bool)>,
    /// Codes of success with what they answer.
    pub(super) answers: &'static [(u16, &'static str)],
    /// What it answers.
    pub(super) answer: Answer,
}

/// What an operation answers.
#[derive(Clone, Copy)]
pub(super) enum Answer {
    /// An object.
    Object(TypeId),
    /// Text, or anything at all.
    Text,
}

/// A parameter that is not the body.
#[derive(Clone)]
pub(super) struct Parameter {
    /// Its name.
    pub(super) name: String,
    /// `path` or `query`.
    pub(super) place: &'static str,
    /// `string`, `boolean` or `integer`.
    pub(super) ty: &'static str,
    /// For people.
    pub(super) about: String,
    /// Means the same in every operation; a document may say it once.
    pub(super) shared: bool,
}

const OK: &[(u16, &str)] = &[(200, "OK")];
const CREATED: &[(u16, &str)] = &[(200, "OK"), (201, "Created"), (202, "Accepted")];
const CHANGED: &[(u16, &str)] = &[(200, "OK"), (201, "Created")];
const DELETED: &[(u16, &str)] = &[(200, "OK"), (202, "Accepted")];

/// All paths, each under the name of its document in version 3: `api/v1`, `apis/apps/v1`, `version`.
pub(super) fn all(table: &Table, about: &Descriptions<'_>) -> BTreeMap<String, Vec<Path>> {
    let mut out: BTreeMap<String, Vec<Path>> = BTreeMap::new();
    for kind in table.all() {
        for version in &kind.versions {
            let of = Resource { kind, version, root: root(&version.gv), about };
            out.entry(of.root.clone()).or_default().extend(of.paths());
        }
    }
    for root in out.keys().cloned().collect::<Vec<_>>() {
        let path = meta(&root, "APIResourceList", "APIResources", "get available resources");
        out.entry(root.clone()).or_default().push(path);
        if let Some((group, _)) = root.strip_prefix("apis/").and_then(|r| r.rsplit_once('/')) {
            let group = format!("apis/{group}");
            out.entry(group.clone())
                .or_insert_with(|| vec![meta(&group, "APIGroup", "APIGroup", "get information of a group")]);
        }
    }
    let versions = meta("api", "APIVersions", "APIVersions", "get available API versions");
    out.insert("api".into(), vec![versions]);
    out.insert(
        "apis".into(),
        vec![meta("apis", "APIGroupList", "APIVersions", "get available API versions")],
    );
    for (root, tag, id, media, about) in OTHERS {
        let mut path = other(root, tag, id, media, about);
        if *root == "version" {
            path.operations[0].consumes = media;
        }
        out.insert((*root).to_owned(), vec![path]);
    }
    out
}

/// Paths that are no resources: document, tag, operation, media type, description.
const OTHERS: &[(&str, &str, &str, &[&str], &str)] = &[
    (
        ".well-known/openid-configuration",
        "WellKnown",
        "getServiceAccountIssuerOpenIDConfiguration",
        &["application/json"],
        "get how service account tokens are verified",
    ),
    (
        "openid/v1/jwks",
        "openid",
        "getServiceAccountIssuerOpenIDKeyset",
        &["application/jwk-set+json"],
        "get the keys that verify service account tokens",
    ),
    ("version", "version", "getCodeVersion", &["application/json"], "get the version of the server"),
];

/// `api/v1` or `apis/apps/v1`.
pub(super) fn root(gv: &GroupVersion) -> String {
    match gv.group.as_ref() {
        "" => format!("api/{}", gv.version),
        group => format!("apis/{group}/{}", gv.version),
    }
}

/// Discovery at `/<root>/`.
fn meta(root: &str, ty: &str, what: &str, about: &str) -> Path {
    let words: Vec<&str> = root.split('/').skip(1).collect();
    let (group, version) = match words.as_slice() {
        _ if root == "api" => ("core", ""),
        [] => ("", ""),
        [version] if root.starts_with("api/") => ("core", *version),
        [group] => (*group, ""),
        [group, version, ..] => (*group, *version),
    };
    let names = match group {
        "" => Names { id: String::new(), tag: root.to_owned() },
        _ => Names::new(group, version),
    };
    let ty = type_by_name(&format!("meta/v1.{ty}")).expect("a type of the table");
    let mut path = other(root, &names.tag, &format!("get{}{what}", names.id), OBJECTS, about);
    let operation = &mut path.operations[0];
    operation.consumes = OBJECTS;
    operation.answer = Answer::Object(ty);
    path
}

fn other(root: &str, tag: &str, id: &str, produces: &'static [&'static str], about: &str) -> Path {
    let operation = Operation {
        method: "get",
        id: id.to_owned(),
        tag: tag.to_owned(),
        about: about.to_owned(),
        action: None,
        consumes: &[],
        produces,
        parameters: Vec::new(),
        body: None,
        answers: OK,
        answer: Answer::Text,
    };
    Path { path: format!("/{root}/"), parameters: Vec::new(), operations: vec![operation] }
}

/// A group and version as operations are named after them.
struct Names {
    /// `RbacAuthorizationV1`.
    id: String,
    /// `rbacAuthorization_v1`.
    tag: String,
}

impl Names {
    fn new(group: &str, version: &str) -> Names {
        let group = if group.is_empty() { "core" } else { group };
        let words = group.strip_suffix(".k8s.io").unwrap_or(group).split('.');
        let group: String = words.map(title).collect();
        let mut tag = group[..1].to_lowercase() + &group[1..];
        if !version.is_empty() {
            tag = format!("{tag}_{version}");
        }
        Names { id: group + &title(version), tag }
    }
}

fn title(word: &str) -> String {
    word.get(..1).map_or_else(String::new, |first| first.to_uppercase() + &word[1..])
}

fn query(name: &str) -> Parameter {
    let (name, ty, about) = QUERY.iter().find(|(n, ..)| *n == name).expect("a parameter of the table");
    // Old clients look for these two in the operation itself to learn whether the server knows them.
    let shared = !matches!(*name, "dryRun" | "fieldValidation");
    Parameter { name: (*name).into(), place: "query", ty, about: (*about).into(), shared }
}

/// A served version of a kind.
struct Resource<'a> {
    kind: &'a Kind,
    version: &'a Version,
    root: String,
    about: &'a Descriptions<'a>,
}

impl Resource<'_> {
    fn paths(&self) -> Vec<Path> {
        let kind = self.kind;
        let plural = &kind.storage.resource;
        let base = match kind.scope {
            Scope::Namespaced => format!("/{}/namespaces/{{namespace}}/{plural}", self.root),
            Scope::Cluster => format!("/{}/{plural}", self.root),
        };
        let one = format!("{base}/{{name}}");
        let mut out = Vec::new();
        let own = |verb| self.operation(verb, "", &self.version.gv, &kind.kind, self.version.schema);
        let mut add = |path: &str, verbs: &[Verb]| {
            let has = verbs.iter().filter(|v| kind.verbs.contains(v));
            out.extend(self.path(path, &kind.kind, has.filter_map(|v| own(*v)).collect()));
        };
        add(&base, &[Verb::List, Verb::Create, Verb::DeleteCollection]);
        add(&one, &[Verb::Get, Verb::Update, Verb::Patch, Verb::Delete]);
        if kind.scope == Scope::Namespaced && kind.verbs.contains(&Verb::List) {
            let mut list = own(Verb::List).expect("listed kinds have a list type");
            list.id = format!("list{}{}ForAllNamespaces", self.names().id, kind.kind);
            out.extend(self.path(&format!("/{}/{plural}", self.root), &kind.kind, vec![list]));
        }
        for sub in &kind.subresources {
            out.extend(self.subresource(&format!("{one}/{}", sub.name), sub));
        }
        out
    }

    fn names(&self) -> Names {
        Names::new(&self.version.gv.group, &self.version.gv.version)
    }

    fn path(&self, path: &str, name_of: &str, operations: Vec<Operation>) -> Option<Path> {
        let place = |name: &str, about: String, shared| Parameter {
            name: name.to_owned(),
            place: "path",
            ty: "string",
            about,
            shared,
        };
        let mut parameters = Vec::new();
        if path.contains("{name}") {
            parameters.push(place("name", format!("name of the {name_of}"), false));
        }
        if path.contains("{namespace}") {
            parameters.push(place("namespace", "Namespace of the object".into(), true));
        }
        if path.contains("{path}") {
            parameters.push(place("path", "What follows in the path of the request".into(), false));
        }
        if operations.iter().any(|o| o.action.as_ref().is_some_and(|(action, ..)| *action != "connect")) {
            parameters.push(query("pretty"));
        }
        (!operations.is_empty()).then(|| Path { path: path.to_owned(), parameters, operations })
    }

    fn subresource(&self, path: &str, sub: &Sub) -> Vec<Path> {
        let (kind, own) = (&self.kind.kind, &self.version.gv);
        let name = match sub.does {
            SubKind::Log => "PodLogOptions".to_owned(),
            SubKind::Exec | SubKind::Attach | SubKind::PortForward | SubKind::Proxy => {
                return self.connect(path, sub);
            }
            _ if sub.kind.is_empty() => kind.to_string(),
            _ => sub.kind.to_owned(),
        };
        let gv = sub.group_version(own);
        let Some(ty) = kind_type(&gv.group, &gv.version, &name) else { return Vec::new() };
        let log = sub.does == SubKind::Log;
        let gvk_kind = if log { kind.as_ref() } else { name.as_str() };
        let verbs = [Verb::Get, Verb::Create, Verb::Update, Verb::Patch];
        let has = verbs.iter().filter(|v| sub.verbs.contains(v));
        let mut operations: Vec<_> =
            has.filter_map(|v| self.operation(*v, sub.name, gv, gvk_kind, ty)).collect();
        for operation in operations.iter_mut().filter(|_| log) {
            operation.produces = LOG;
            operation.answer = Answer::Text;
            operation.parameters = self.options(ty);
        }
        self.path(path, gvk_kind, operations).into_iter().collect()
    }

    /// Subresources that hand over the connection.
    fn connect(&self, path: &str, sub: &Sub) -> Vec<Path> {
        let (kind, gv) = (&self.kind.kind, &self.version.gv);
        let options = match sub.does {
            SubKind::Exec => "PodExecOptions".to_owned(),
            SubKind::Attach => "PodAttachOptions".to_owned(),
            SubKind::PortForward => "PodPortForwardOptions".to_owned(),
            _ => format!("{kind}ProxyOptions"),
        };
        let Some(ty) = kind_type(&gv.group, &gv.version, &options) else { return Vec::new() };
        let proxy = sub.does == SubKind::Proxy;
        let methods: &[&str] = if proxy {
            &["get", "put", "post", "delete", "options", "head", "patch"]
        } else {
            &["get", "post"]
        };
        let at = |path: &str, end: &str| {
            let operations = methods.iter().map(|method| Operation {
                method,
                id: format!(
                    "connect{}{}{}{kind}{}{end}",
                    self.names().id,
                    title(method),
                    self.place(),
                    title(sub.name)
                ),
                tag: self.names().tag,
                about: format!("connect {} requests to {} of {kind}", method.to_uppercase(), sub.name),
                // Clients look for their options at any path that patches their kind: proxies have none of them.
                action: Some(("connect", gv.clone(), options.clone())),
                consumes: ANY,
                produces: ANY,
                parameters: self.options(ty),
                body: None,
                answers: OK,
                answer: Answer::Text,
            });
            self.path(path, &options, operations.collect())
        };
        let mut out: Vec<Path> = at(path, "").into_iter().collect();
        if proxy {
            out.extend(at(&format!("{path}/{{path}}"), "WithPath"));
        }
        out
    }

    /// The fields of an options kind as parameters.
    fn options(&self, ty: TypeId) -> Vec<Parameter> {
        fn plain(go: Go) -> &'static str {
            match go.kind() {
                GoKind::Pointer | GoKind::Slice => plain(go.elem()),
                GoKind::Bool => "boolean",
                GoKind::String | GoKind::Time => "string",
                _ => "integer",
            }
        }
        let fields = ty.fields().filter(|f| !matches!(f.name(), "kind" | "apiVersion"));
        let parameter = |field: apimachinery::schema::Field| Parameter {
            name: field.name().to_owned(),
            place: "query",
            ty: plain(field.ty()),
            about: self.about.get(ty.name(), field.name()).to_owned(),
            shared: false,
        };
        // Upstream leaves out what it cannot say in one word.
        fields.filter(|f| f.ty().pointee().kind() != GoKind::Time).map(parameter).collect()
    }

    fn place(&self) -> &'static str {
        if self.kind.scope == Scope::Namespaced { "Namespaced" } else { "" }
    }

    fn operation(
        &self,
        verb: Verb,
        sub: &str,
        gv: &GroupVersion,
        kind: &str,
        ty: TypeId,
    ) -> Option<Operation> {
        let own = &self.kind.kind;
        let (method, action, word, parameters, answers) = match verb {
            Verb::Get => ("get", "get", "read", &[][..], OK),
            Verb::List => ("get", "list", "list", LIST, OK),
            Verb::Create => ("post", "post", "create", WRITE, CREATED),
            Verb::Update => ("put", "put", "replace", WRITE, CHANGED),
            Verb::Patch => ("patch", "patch", "patch", PATCH, CHANGED),
            Verb::Delete => ("delete", "delete", "delete", DELETE, DELETED),
            Verb::DeleteCollection => ("delete", "deletecollection", "delete", DELETE_COLLECTION, OK),
            Verb::Watch | Verb::Connect => return None,
        };
        let meta = |name: &str| type_by_name(&format!("meta/v1.{name}")).expect("a type of the table");
        let list = || kind_type(&gv.group, &gv.version, &self.kind.list_kind);
        let collection = if verb == Verb::DeleteCollection { "Collection" } else { "" };
        let names = self.names();
        let what = if sub.is_empty() { own.to_string() } else { format!("{sub} of the specified {own}") };
        Some(Operation {
            method,
            id: format!("{word}{}{collection}{}{own}{}", names.id, self.place(), title(sub)),
            tag: names.tag,
            about: format!("{word} {what}"),
            action: Some((action, gv.clone(), kind.to_owned())),
            consumes: if verb == Verb::Patch { PATCHES } else { ANY },
            produces: if verb == Verb::List { WATCHES } else { OBJECTS },
            parameters: parameters.iter().map(|name| query(name)).collect(),
            body: match verb {
                Verb::Create | Verb::Update => Some((ty, true)),
                Verb::Patch => Some((meta("Patch"), true)),
                Verb::Delete | Verb::DeleteCollection => Some((meta("DeleteOptions"), false)),
                _ => None,
            },
            answers,
            answer: Answer::Object(match verb {
                Verb::List => list()?,
                Verb::Delete | Verb::DeleteCollection => meta("Status"),
                _ => ty,
            }),
        })
    }
}
