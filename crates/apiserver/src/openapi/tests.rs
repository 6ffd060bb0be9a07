use std::collections::BTreeMap;
use std::path::Path as FilePath;

use apimachinery::call::{Accept, Body, Options, Target, Verb, Who, Wire};
use apimachinery::{Ref, schema};

use super::*;
use crate::Kinds;

fn table() -> Arc<Table> {
    Kinds::new(api::kinds()).table()
}

fn second() -> v2::Document {
    let (made, text) = (Made::new(&table()), descriptions::unpack());
    v2::document(&made.table, &made.served(), &Descriptions::of(&text))
}

/// Upstream's document; nothing where its folder is absent.
fn upstream() -> Option<Doc> {
    let here = FilePath::new(env!("CARGO_MANIFEST_DIR"));
    let text = here.ancestors().find_map(|a| std::fs::read(a.join("shared/upstream/swagger-1.36.json")).ok());
    if text.is_none() {
        eprintln!("NOT TESTED: upstream's OpenAPI document is absent, nothing was compared with it");
    }
    Some(json::parse(text?).expect("JSON").doc)
}

/// Groups that upstream no longer serves.
const LEGACY: &[&str] = &["extensions/v1beta1", "apps/v1beta1", "apps/v1beta2"];

/// Parts of upstream's definitions that are not here on purpose, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("description", "our own words"),
    ("x-kubernetes-unions", "no client reads it"),
    ("x-kubernetes-group-version-kind", "compared apart: only what is served"),
];

/// Parts of upstream's operations that are not here on purpose, and why.
const MEDIA_NOT_HERE: &[(&str, &str)] = &[
    ("application/cbor", "not served"),
    ("application/cbor-seq", "not served"),
    ("application/apply-patch+cbor", "not served"),
];

/// What the table has of release 1.37 and upstream's document of 1.36 says otherwise.
const NEWER: &[&str] = &[
    "apps.v1.Deployment.required",
    "apps.v1.DeploymentCondition.required",
    "apps.v1.ReplicaSet.required",
    "apps.v1.ReplicaSetCondition.required",
    "authentication.v1.TokenRequestSpec.properties.attestations",
    "core.v1.ClusterTrustBundleProjection.properties.user",
    "core.v1.ConfigMapVolumeSource.properties.defaultUser",
    "core.v1.DownwardAPIVolumeFile.properties.user",
    "core.v1.DownwardAPIVolumeSource.properties.defaultUser",
    "core.v1.EmptyDirVolumeSource.properties.mode",
    "core.v1.EvictionResponder",
    "core.v1.GRPCAction.properties.mode",
    "core.v1.HTTPGetAction.properties.protocol",
    "core.v1.KeyToPath.properties.user",
    "core.v1.NodeAllocatableMappedResources",
    "core.v1.NodeAllocatableOverheadResources",
    "core.v1.NodeAllocatableResourceClaimStatus",
    "core.v1.NodePodPreemptionPolicy",
    "core.v1.NodeSpec.properties.podPreemptionPolicy",
    "core.v1.PodCertificateProjection.properties.user",
    "core.v1.PodSpec.properties.evictionResponders",
    "core.v1.PodStatus.properties.nodeAllocatableResourceClaimStatuses",
    "core.v1.PodStatus.properties.volumeHealth",
    "core.v1.PodVolumeHealth",
    "core.v1.ProjectedVolumeSource.properties.defaultUser",
    "core.v1.SecretVolumeSource.properties.defaultUser",
    "core.v1.ServiceAccountTokenProjection.properties.user",
    "core.v1.VolumeHealthCondition",
    "core.v1.VolumeMount.properties.bindMountOptions",
];

#[test]
fn operations_are_upstreams() {
    let Some(upstream) = upstream() else { return };
    let ours = second();
    let mut faults = Vec::new();
    for (path, item) in &ours.paths {
        if LEGACY.iter().any(|gv| path.starts_with(&format!("/apis/{gv}"))) || path == "/apis/extensions/" {
            continue;
        }
        let theirs = upstream.get("paths").get(path.as_str());
        for operation in item.root().fields().filter(|o| o.is_object()) {
            let (ours, theirs) = (operation, theirs.get(operation.name()));
            let connects = ours.get("x-kubernetes-action").str() == "connect";
            for name in ["x-kubernetes-action", "x-kubernetes-group-version-kind", "operationId", "tags"] {
                if connects && name == "x-kubernetes-group-version-kind" {
                    assert!(ours.get(name).get("kind").str().ends_with("Options"), "{path}");
                } else if !ours.get(name).same(theirs.get(name)) {
                    let shown = |r: Ref<'_>| String::from_utf8_lossy(&r.to_json()).into_owned();
                    faults.push(format!(
                        "{path} {} {name}: {} and not {}",
                        operation.name(),
                        shown(ours.get(name)),
                        shown(theirs.get(name))
                    ));
                }
            }
            for name in ["consumes", "produces"] {
                let all = |r: Ref<'_>| -> BTreeSet<String> {
                    let all = r.get(name).items().map(|m| m.str().to_owned());
                    all.filter(|m| !MEDIA_NOT_HERE.iter().any(|(not, _)| not == m)).collect()
                };
                if all(ours) != all(theirs) {
                    faults.push(format!("{path} {} {name}", operation.name()));
                }
            }
            let (a, b) =
                (parameters(item.root(), ours), parameters(upstream.get("paths").get(path.as_str()), theirs));
            if a != b {
                faults.push(format!("{path} {} parameters: {a:?} and not {b:?}", operation.name()));
            }
        }
        for operation in theirs.fields().filter(|o| o.is_object() && !item.get(o.name()).exists()) {
            faults.push(format!("{path} {} is missing", operation.name()));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Names of an operation's parameters. Both documents name shared ones after the parameter.
fn parameters(item: Ref<'_>, operation: Ref<'_>) -> BTreeSet<String> {
    let all = item.get("parameters").items().chain(operation.get("parameters").items());
    all.map(|p| match p.get("$ref").opt_str() {
        Some(place) => {
            let name = place.rsplit('/').next().unwrap_or_default();
            // Upstream adds a hash of eight characters.
            let cut = name.len().checked_sub(9).filter(|at| name.as_bytes()[*at] == b'-');
            cut.map_or(name, |at| &name[..at]).to_owned()
        }
        None => p.get("name").str().to_owned(),
    })
    .collect()
}

#[test]
fn definitions_are_upstreams() {
    let Some(upstream) = upstream() else { return };
    let ours = second();
    let (mut faults, mut compared) = (Vec::new(), 0);
    for (name, schema) in &ours.definitions {
        let theirs = upstream.get("definitions").get(name.as_str());
        if LEGACY.iter().any(|gv| name.starts_with(&format!("io.k8s.api.{}.", gv.replace('/', ".")))) {
            continue;
        }
        compared += 1;
        if !theirs.exists() {
            faults.push(format!("{name} is not upstream's"));
            continue;
        }
        differ(name, schema.root(), theirs, &mut faults);
        let gvks = |r: Ref<'_>| -> BTreeSet<Vec<u8>> {
            r.get("x-kubernetes-group-version-kind").items().map(|gvk| sorted(gvk)).collect()
        };
        let everywhere = name.ends_with(".DeleteOptions") || name.ends_with(".WatchEvent");
        if everywhere != (gvks(schema.root()) != gvks(theirs)) {
            faults.push(format!("{name} x-kubernetes-group-version-kind"));
        }
    }
    let newer = |fault: &String| {
        let words = fault.strip_prefix("io.k8s.api.").unwrap_or(fault);
        NEWER.iter().any(|part| words.strip_prefix(part).is_some_and(|rest| rest.starts_with([' ', '.'])))
    };
    faults.retain(|fault| !newer(fault));
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    assert!(compared > 200, "only {compared} definitions were compared");
}

fn sorted(object: Ref<'_>) -> Vec<u8> {
    let all: BTreeMap<&str, Vec<u8>> = object.fields().map(|f| (f.name(), f.to_json())).collect();
    format!("{all:?}").into_bytes()
}

fn differ(at: &str, ours: Ref<'_>, theirs: Ref<'_>, faults: &mut Vec<String>) {
    if ours.is_object() && theirs.is_object() {
        let names: BTreeSet<&str> = ours.fields().chain(theirs.fields()).map(|f| f.name()).collect();
        for name in names {
            // Below `properties` everything is a field's name.
            if at.ends_with(".properties") || !NOT_HERE.iter().any(|(not, _)| *not == name) {
                differ(&format!("{at}.{name}"), ours.get(name), theirs.get(name), faults);
            }
        }
        return;
    }
    let set = |r: Ref<'_>| -> BTreeSet<Vec<u8>> { r.items().map(Ref::to_json).collect() };
    let same = if at.ends_with(".required") { set(ours) == set(theirs) } else { ours.same(theirs) };
    if !same {
        let side = match (ours.exists(), theirs.exists()) {
            (true, true) => "differs",
            (true, false) => "is ours only",
            _ => "is theirs only",
        };
        faults.push(format!("{at} {side}"));
    }
}

#[test]
fn everything_that_is_served_is_described() {
    let document = second();
    let (mut faults, mut lengths) = (Vec::new(), Vec::new());
    let mut see = |at: String, about: Ref<'_>| match about.opt_str() {
        Some(text) => lengths.push(text.len()),
        None => faults.push(at),
    };
    for (name, schema) in &document.definitions {
        if schema.get("x-kubernetes-group-version-kind").exists() {
            see(name.clone(), schema.get("description"));
        }
        for field in schema.get("properties").fields() {
            see(format!("{name} {}", field.name()), field.get("description"));
        }
    }
    for (name, parameter) in &document.parameters {
        see(format!("parameter {name}"), parameter.get("description"));
    }
    for (path, item) in &document.paths {
        for parameter in item.root().fields().flat_map(|o| o.get("parameters").items().collect::<Vec<_>>()) {
            if matches!(parameter.get("in").str(), "path" | "query") {
                see(format!("{path} {}", parameter.get("name").str()), parameter.get("description"));
            }
        }
    }
    assert!(faults.is_empty(), "no description in schema/descriptions:\n{}", faults.join("\n"));
    lengths.sort_unstable();
    let median = lengths[lengths.len() / 2];
    assert!(median < 60, "half of the descriptions are over {median} characters long");
}

#[test]
fn enums_and_defaults_are_in_version_3_alone() {
    let text = descriptions::unpack();
    let about = Descriptions::of(&text);
    let find = |dialect| {
        let mut definitions = definitions::Definitions::new(dialect, &about, &[]);
        definitions.reference(schema::type_by_name("core/v1.Container").expect("a known type"));
        definitions.finish()
    };
    let (second, third) = (find(definitions::Dialect::V2), find(definitions::Dialect::V3));
    let port = |all: &BTreeMap<String, Doc>| {
        all["io.k8s.api.core.v1.ContainerPort"].get("properties").get("protocol").to_doc()
    };
    assert!(!port(&second).get("enum").exists() && !port(&second).get("default").exists());
    let protocol = port(&third);
    assert_eq!(protocol.get("enum").items().map(Ref::str).collect::<Vec<_>>(), ["SCTP", "TCP", "UDP"]);
    assert_eq!(protocol.get("default").str(), "TCP");
    let resources = third["io.k8s.api.core.v1.Container"].get("properties").get("resources");
    assert_eq!(resources.get("allOf").items().count(), 1);
    assert!(!resources.get("$ref").exists());
}

/// The members of a message: number and bytes.
fn members(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        value
    }
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = varint(&mut bytes);
        let taken = if tag & 7 == 2 { value as usize } else { 0 };
        out.push((tag >> 3, &bytes[..taken]));
        bytes = &bytes[taken..];
    }
    out
}

fn only(bytes: &[u8], number: u64) -> Vec<&[u8]> {
    members(bytes).into_iter().filter(|(n, _)| *n == number).map(|(_, b)| b).collect()
}

#[test]
fn the_protobuf_form_says_the_same() {
    let document = second();
    let bytes = protobuf::encode(&document);
    assert_eq!(only(&bytes, 1), [b"2.0"]);
    let named = |of: &[u8], number| -> BTreeMap<String, Vec<u8>> {
        let entry = |b: &[u8]| {
            let name = String::from_utf8(only(b, 1)[0].to_vec()).expect("a name");
            (name, only(b, 2)[0].to_vec())
        };
        only(of, number).into_iter().map(entry).collect()
    };
    let paths = named(only(&bytes, 8)[0], 2);
    assert!(paths.keys().eq(document.paths.keys()));
    let definitions = named(only(&bytes, 9)[0], 1);
    assert!(definitions.keys().eq(document.definitions.keys()));
    assert!(named(only(&bytes, 10)[0], 1).keys().eq(document.parameters.keys()));
    // containers: a list of references, merged by name.
    let properties = named(only(&definitions["io.k8s.api.core.v1.PodSpec"], 25)[0], 1);
    let containers = &properties["containers"];
    assert_eq!(only(only(containers, 22)[0], 1), [b"array"]);
    assert_eq!(only(only(only(containers, 23)[0], 1)[0], 1), [b"#/definitions/io.k8s.api.core.v1.Container"]);
    let extensions = named(containers, 31);
    assert_eq!(only(&extensions["x-kubernetes-patch-merge-key"], 2), [b"\"name\""]);
    // dryRun stands in the operation itself: a query parameter in full.
    let patch = only(&paths["/api/v1/namespaces/{namespace}/pods/{name}"], 8)[0].to_vec();
    let names: Vec<&[u8]> = only(&patch, 8)
        .into_iter()
        .flat_map(|item| only(item, 1))
        .flat_map(|parameter| only(parameter, 2))
        .flat_map(|other| only(other, 3))
        .flat_map(|query| only(query, 4))
        .collect();
    assert_eq!(names, [&b"dryRun"[..], b"fieldValidation"]);
}

fn ask(path: &str, headers: &[(&str, &str)]) -> (u16, BTreeMap<String, String>, Bytes) {
    ask_of(&OpenApi::default(), &table(), path, headers)
}

fn ask_of(
    openapi: &OpenApi,
    table: &Arc<Table>,
    path: &str,
    headers: &[(&str, &str)],
) -> (u16, BTreeMap<String, String>, Bytes) {
    let (path, hash) = path.split_once("?hash=").map_or((path, None), |(path, hash)| (path, Some(hash)));
    let mut options = Options::default();
    options.query.extend(hash.map(|hash| ("hash".to_owned(), hash.to_owned())));
    let call = Call {
        who: Who::Anonymous,
        verb: Verb::Get,
        target: Target::Path(path.into()),
        options,
        accept: Accept::default(),
        body: Body::Empty,
        wire: Wire {
            headers: headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
            ..Wire::default()
        },
    };
    match openapi.respond(table, path, &call) {
        Reply::Raw(Raw { code, content_type, mut headers, body: RawBody::Bytes(body) }) => {
            headers.push(("content-type".into(), content_type));
            (code, headers.into_iter().collect(), body)
        }
        Reply::Doc { code, doc, .. } => (code, BTreeMap::new(), doc.to_json().into()),
        Reply::Status(status) => (status.code, BTreeMap::new(), Bytes::new()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn answers_follow_what_clients_say() {
    let (code, headers, plain) = ask(V2, &[("accept", "application/json")]);
    assert_eq!((code, headers["content-type"].as_str()), (200, JSON));
    let (_, packed_headers, packed) = ask(V2, &[("accept-encoding", "deflate, gzip;q=0.8")]);
    assert_eq!(packed_headers["content-encoding"], "gzip");
    assert_eq!(packed_headers["etag"], headers["etag"]);
    let mut unpacked = Vec::new();
    GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).expect("gzip");
    assert_eq!(unpacked, plain);
    assert!(packed.len() < plain.len() / 5, "{} of {}", packed.len(), plain.len());
    json::parse(plain.to_vec()).expect("JSON");
    let (code, _, body) = ask(V2, &[("if-none-match", &headers["etag"])]);
    assert_eq!((code, body.len()), (304, 0));
    let (_, headers, body) = ask(V2, &[("accept", PROTOBUF_ASKED)]);
    assert_eq!(headers["content-type"], PROTOBUF, "kubectl cannot read an @");
    assert!(body.starts_with(b"\x0a\x032.0\x12"));
    assert_eq!(ask(V2, &[("accept", "text/html")]).0, 406);
    assert_eq!(ask("/openapi/v3/apis/nothing/v1", &[]).0, 404);
}

#[test]
fn every_version_has_a_document_with_an_address_of_its_own() {
    let (openapi, table) = (OpenApi::default(), table());
    let ask = |path: &str| ask_of(&openapi, &table, path, &[]);
    let (_, _, index) = ask(V3);
    let index = json::parse(index.to_vec()).expect("JSON").doc;
    let address = |path: &str| index.get("paths").get(path).get("serverRelativeURL").str().to_owned();
    for kind in api::kinds() {
        for version in &kind.versions {
            let root = paths::root(&version.gv);
            let (code, headers, body) = ask(&address(&root));
            assert_eq!(code, 200);
            assert!(headers["cache-control"].contains("immutable"), "{headers:?}");
            let doc = json::parse(body.to_vec()).expect("JSON").doc;
            let schema = doc.get("components").get("schemas").get(definitions::name(version.schema).as_str());
            assert!(schema.exists(), "{root} {}", kind.kind);
        }
    }
    let (code, headers, _) = ask("/openapi/v3/apis/apps/v1?hash=OLD");
    assert_eq!((code, headers["location"].as_str()), (301, address("apis/apps/v1").as_str()));
}
