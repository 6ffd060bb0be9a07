//! An HTTP request's head as a [`Call`]: whose resource, which verb, which options.
//!
//! Upstream: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

use std::borrow::Cow;

use apimachinery::call::{
    Accept, Body, FieldValidation, Media, Options, Rendering, ResourceTarget, Target, Verb, Who, Wire,
};
use apimachinery::codec::{protobuf, yaml};
use apimachinery::{Call, Gvr, Status, gotime};
use http::request::Parts;

/// Headers that hold credentials, or belong to the connection and not to the request.
const NOT_PASSED_ON: &[&str] =
    &["authorization", "connection", "upgrade", "host", "content-length", "transfer-encoding"];
/// Headers that are read of every request.
const IMPERSONATE: &str = "impersonate-";
/// The forms of an answer, for those who take none of them.
pub(crate) const ACCEPTED: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// The same of a watch.
pub(super) const ACCEPTED_STREAMS: &str =
    "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
/// How many segments a path usually has at most.
const SEGMENTS_USUAL: usize = 8;
/// Subresources that any method may address; what happens is theirs to say.
const CONNECT: &[&str] = &["proxy", "exec", "attach", "portforward", "log"];

/// The call that a request's head describes; what is wrong with it stands in [`Wire::fault`]. Credentials, peer,
/// upgrade and body are the listener's to add.
pub fn call(parts: &Parts) -> Call {
    let options = options(query(parts.uri.query().unwrap_or("")));
    let target = target(parts.uri.path());
    let verb = verb(parts, &target, &options);
    let header =
        |name| parts.headers.get(name).and_then(|v: &http::HeaderValue| v.to_str().ok()).unwrap_or("");
    // What connects, and what is no resource, answers in a form of its own.
    let plain = matches!(target, Target::Path(_)) || verb == Some(Verb::Connect);
    let passed_on = |name: &str| match plain {
        true => !NOT_PASSED_ON.contains(&name),
        false => name.starts_with(IMPERSONATE),
    };
    let headers = parts
        .headers
        .iter()
        .filter(|(name, _)| passed_on(name.as_str()))
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect();
    let discovery = matches!(&target, Target::Path(path) if path.starts_with("/api"));
    let accept =
        if plain && !discovery { Ok(Accept::default()) } else { accept(header(http::header::ACCEPT)) };
    let (accept, mut fault) = match accept {
        Ok(accept) => (accept, None),
        // A form that discovery alone has, which looks for it itself.
        Err(_) if discovery && header(http::header::ACCEPT).contains("as=APIGroupDiscoveryList") => {
            (Accept::default(), None)
        }
        Err(status) => (Accept::default(), Some(status)),
    };
    if !matches!(verb, Some(Verb::Watch | Verb::Connect)) {
        fault = unreadable_timeout(&options).or(fault);
    }
    let verb = verb.unwrap_or_else(|| {
        fault = Some(Status::method_not_allowed());
        Verb::Connect
    });
    let wire = Wire {
        method: parts.method.as_str().to_owned(),
        uri: parts.uri.path_and_query().map_or_else(String::new, |uri| uri.as_str().to_owned()),
        user_agent: header(http::header::USER_AGENT).to_owned(),
        headers,
        fault,
        ..Wire::default()
    };
    Call { who: Who::Anonymous, verb, target, options, accept, body: Body::Empty, wire }
}

/// Whether a person reads the answer: asked for, or by a browser or a shell tool.
pub(super) fn wants_pretty(parts: &Parts) -> bool {
    let query = parts.uri.query().unwrap_or("");
    let asked = self::query(query).into_iter().find(|(name, _)| name == "pretty").map(|(_, value)| value);
    if let Some(value) = asked.filter(|value| !value.is_empty()) {
        return matches!(&*value, "1" | "t" | "T" | "true" | "True" | "TRUE");
    }
    let agent = parts.headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("");
    ["curl", "Wget", "Mozilla/5.0"].iter().any(|reader| agent.starts_with(reader))
}

/// What a path addresses.
pub fn target(path: &str) -> Target {
    // Nothing has an empty name; what is proxied to may be asked for anything.
    if path.contains("//") && path.split_once("//").is_some_and(|(before, _)| !before.contains("/proxy")) {
        return Target::Path(path.to_owned());
    }
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let decoded: Vec<Cow<'_, str>>;
    let mut words: Vec<&str> = Vec::with_capacity(SEGMENTS_USUAL);
    if path.contains('%') {
        decoded = segments.map(|segment| decode(segment, false)).collect();
        words.extend(decoded.iter().map(|word| &**word));
    } else {
        words.extend(segments);
    }
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Target::Path(path.to_owned()),
    };
    // The oldest way to watch: /api/v1/watch/...; the verb says so too.
    let rest = if rest[0] == "watch" && rest.len() > 1 { &rest[1..] } else { rest };
    let (namespace, rest) = match rest {
        // A namespace's own subresources, and the namespace itself.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize"] => ("", rest),
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        _ => ("", rest),
    };
    let tail = rest.get(3..).unwrap_or_default();
    let rest_path = if rest.len() < 3 { "" } else { after(path, words.len() - tail.len()) };
    // `namespaces/x` is in the namespace x for authorization; handlers see the object's own scope.
    Target::Resource(ResourceTarget {
        gvr: Gvr {
            group: group.to_owned().into(),
            version: version.to_owned().into(),
            resource: rest[0].to_owned().into(),
        },
        namespace: namespace.to_owned(),
        name: rest.get(1).copied().unwrap_or_default().to_owned(),
        subresource: rest.get(2).copied().unwrap_or_default().to_owned(),
        rest: rest_path.to_owned(),
    })
}

/// What follows so many segments of a path, just as it was sent.
fn after(path: &str, segments: usize) -> &str {
    let mut rest = path;
    for _ in 0..segments {
        rest = rest.trim_start_matches('/');
        rest = &rest[rest.find('/').unwrap_or(rest.len())..];
    }
    rest
}

/// `None` for methods that mean nothing.
fn verb(parts: &Parts, target: &Target, options: &Options) -> Option<Verb> {
    let method = &parts.method;
    let Target::Resource(resource) = target else {
        return Some(match *method {
            http::Method::POST => Verb::Create,
            http::Method::PUT => Verb::Update,
            http::Method::PATCH => Verb::Patch,
            http::Method::DELETE => Verb::Delete,
            _ => Verb::Get,
        });
    };
    if CONNECT.contains(&resource.subresource.as_str()) {
        return Some(Verb::Connect);
    }
    let one = !resource.name.is_empty();
    // Of one object the option means nothing, as upstream; the old path does.
    let asked = || options.query.iter().any(|(name, value)| name == "watch" && truth(value));
    let at = |place| parts.uri.path().split('/').nth(place) == Some("watch");
    let wants_watch = (!one && asked())
        || parts.uri.path().contains("/watch/") && (at(3) || parts.uri.path().starts_with("/apis/") && at(4));
    match *method {
        http::Method::GET if wants_watch => Some(Verb::Watch),
        http::Method::GET if one => Some(Verb::Get),
        http::Method::GET => Some(Verb::List),
        http::Method::POST => Some(Verb::Create),
        http::Method::PUT => Some(Verb::Update),
        http::Method::PATCH => Some(Verb::Patch),
        http::Method::DELETE if one => Some(Verb::Delete),
        http::Method::DELETE => Some(Verb::DeleteCollection),
        _ => None,
    }
}

/// Decodes `%41` and, in queries, `+`.
fn decode(text: &str, plus: bool) -> Cow<'_, str> {
    if !text.bytes().any(|c| c == b'%' || plus && c == b'+') {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|c| char::from(*c).to_digit(16));
        match bytes[i] {
            b'%' if let (Some(hi), Some(lo)) = (hex(i + 1), hex(i + 2)) => {
                out.push((hi * 16 + lo) as u8);
                i += 2;
            }
            b'+' if plus => out.push(b' '),
            c => out.push(c),
        }
        i += 1;
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|part| !part.is_empty())
        .map(|part| part.split_once('=').unwrap_or((part, "")))
        .map(|(name, value)| (decode(name, true).into_owned(), decode(value, true).into_owned()))
        .collect()
}

/// What can be read of the options; see [`crate::endpoints`] for what is said of the rest.
fn options(query: Vec<(String, String)>) -> Options {
    let mut out = Options::default();
    for (name, value) in &query {
        match name.as_str() {
            "labelSelector" => out.label_selector.clone_from(value),
            "fieldSelector" => out.field_selector.clone_from(value),
            "resourceVersion" => out.resource_version = (!value.is_empty()).then(|| value.clone()),
            "resourceVersionMatch" => out.resource_version_match = (!value.is_empty()).then(|| value.clone()),
            // Clients say 0 for "none"; negative limits mean the same.
            "limit" => out.limit = value.parse().unwrap_or(0),
            "continue" => out.continue_.clone_from(value),
            "allowWatchBookmarks" => out.allow_watch_bookmarks = truth(value),
            "sendInitialEvents" => out.send_initial_events = Some(truth(value)),
            "timeoutSeconds" => out.timeout_seconds = value.parse().ok(),
            "dryRun" => out.dry_run = true,
            "fieldManager" => out.field_manager.clone_from(value),
            "fieldValidation" => out.field_validation = field_validation(value),
            "force" => out.force = Some(truth(value)),
            "pretty" => out.pretty = truth(value),
            "gracePeriodSeconds" => out.grace_period_seconds = value.parse().ok(),
            "propagationPolicy" => out.propagation_policy = (!value.is_empty()).then(|| value.clone()),
            "orphanDependents" => out.orphan_dependents = (!value.is_empty()).then(|| truth(value)),
            _ => {}
        }
    }
    out.query = query;
    out
}

/// What is said of a limit in time that is none. Upstream: apiserver/pkg/endpoints/filters/request_deadline.go.
fn unreadable_timeout(options: &Options) -> Option<Status> {
    let (_, text) = options.query.iter().find(|(name, _)| name == "timeout")?;
    if text.is_empty() || gotime::parse_duration(text).is_some() {
        return None;
    }
    let number = text.trim_start_matches(['+', '-']);
    let unit = number.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let why = match unit {
        "" if !number.is_empty() => "missing unit in duration".to_owned(),
        unit if unit.len() < number.len() && gotime::parse_duration(&format!("1{unit}")).is_none() => {
            format!("unknown unit {unit:?} in duration")
        }
        _ => "invalid duration".to_owned(),
    };
    Some(Status::bad_request(format!("invalid timeout specified in the request URL - time: {why} {text:?}")))
}

/// Upstream: `Convert_Slice_string_To_bool`, for which a name alone is true.
fn truth(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "false" | "0")
}

fn field_validation(value: &str) -> FieldValidation {
    match value {
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        _ => FieldValidation::Warn,
    }
}

/// The best of the accepted forms that can be made. Upstream: content negotiation in endpoints/handlers.
fn accept(header: &str) -> Result<Accept, Status> {
    // What most ask for is known at sight.
    if matches!(header.trim(), "" | "*/*" | "application/json") {
        return Ok(Accept::default());
    }
    let mut wanted: Vec<&str> = header.split(',').collect();
    if wanted.len() > 1 {
        wanted.sort_by_key(|form| (std::cmp::Reverse(worth(form)), form.matches('*').count()));
    }
    let mut forms = wanted.into_iter().filter_map(one_form);
    let first = forms.next().ok_or_else(|| Status::not_acceptable(ACCEPTED))?;
    let object_too = forms.any(|form| form.rendering == Rendering::Object);
    Ok(Accept { object_too, ..first })
}

/// Whether a client that is to get `accept` would take the same as JSON.
pub(super) fn takes_json(parts: &Parts, accept: &Accept) -> bool {
    let header = parts.headers.get(http::header::ACCEPT).and_then(|v| v.to_str().ok()).unwrap_or("");
    let forms = header.split(',').filter_map(one_form);
    forms.into_iter().any(|form| form.media == Media::Json && form.rendering == accept.rendering)
}

/// How much a form is wanted, in thousandths. Source: RFC 9110 section 12.4.2.
fn worth(form: &str) -> u32 {
    let mut parameters = form.split(';').skip(1).map(str::trim);
    let weight = parameters.find_map(|p| p.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
    (f32::clamp(weight, 0.0, 1.0) * 1000.0) as u32
}

fn one_form(form: &str) -> Option<Accept> {
    let mut parts = form.split(';').map(str::trim);
    let media = match parts.next()? {
        "application/json" | "*/*" | "application/*" => Media::Json,
        yaml::MEDIA_TYPE => Media::Yaml,
        protobuf::MEDIA_TYPE => Media::Protobuf,
        _ => return None,
    };
    let (mut rendering, mut version, mut group) = ("", "v1", "");
    for parameter in parts {
        match parameter.split_once('=') {
            Some(("as", value)) => rendering = value,
            Some(("v", value)) => version = value,
            Some(("g", value)) => group = value,
            _ => {}
        }
    }
    let version = version.to_owned();
    let rendering = match (rendering, group, version.as_str()) {
        ("", ..) => Rendering::Object,
        // A table's cells have no form in protobuf.
        ("Table", "meta.k8s.io", "v1" | "v1beta1") if media != Media::Protobuf => {
            Rendering::Table { version, include: String::new() }
        }
        ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1" | "v1beta1") => {
            Rendering::Metadata { version, list: rendering.ends_with("List") }
        }
        _ => return None,
    };
    Some(Accept { media, rendering, object_too: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, uri: &str) -> (Verb, Target) {
        let request = http::Request::builder().method(method).uri(uri).body(()).expect("a request");
        let call = call(&request.into_parts().0);
        (call.verb, call.target)
    }

    #[test]
    fn paths_name_resources() {
        let pods = || Gvr::new("", "v1", "pods");
        let check = |method, uri, verb, target| assert_eq!(of(method, uri), (verb, target), "{method} {uri}");
        check("GET", "/api/v1/pods", Verb::List, Target::resource(pods(), "", "", ""));
        check("GET", "/api/v1/pods?watch=true", Verb::Watch, Target::resource(pods(), "", "", ""));
        let one = Target::resource(pods(), "a", "b", "");
        check("GET", "/api/v1/namespaces/a/pods/b?watch=true", Verb::Get, one.clone());
        check("GET", "/api/v1/watch/namespaces/a/pods/b", Verb::Watch, one);
        check("GET", "/api/v1/watch/namespaces/a/pods", Verb::Watch, Target::resource(pods(), "a", "", ""));
        check("POST", "/api/v1/namespaces/a/pods", Verb::Create, Target::resource(pods(), "a", "", ""));
        check(
            "PATCH",
            "/api/v1/namespaces/a/pods/b/status",
            Verb::Patch,
            Target::resource(pods(), "a", "b", "status"),
        );
        check(
            "GET",
            "/api/v1/namespaces/a/pods/b/log",
            Verb::Connect,
            Target::resource(pods(), "a", "b", "log"),
        );
        check(
            "DELETE",
            "/api/v1/namespaces/a",
            Verb::Delete,
            Target::resource(Gvr::new("", "v1", "namespaces"), "", "a", ""),
        );
        check(
            "PUT",
            "/api/v1/namespaces/a/finalize",
            Verb::Update,
            Target::resource(Gvr::new("", "v1", "namespaces"), "", "a", "finalize"),
        );
        check(
            "DELETE",
            "/apis/apps/v1/namespaces/a/deployments",
            Verb::DeleteCollection,
            Target::resource(Gvr::new("apps", "v1", "deployments"), "a", "", ""),
        );
        check("GET", "/apis/apps/v1", Verb::Get, Target::Path("/apis/apps/v1".into()));
    }

    #[test]
    fn a_proxy_keeps_its_path() {
        let (verb, target) = of("POST", "/api/v1/namespaces/a/services/https:b:80/proxy/x%20y/z?q=1");
        let Target::Resource(target) = target else { panic!("a resource") };
        assert_eq!(
            (verb, target.name.as_str(), target.rest.as_str()),
            (Verb::Connect, "https:b:80", "/x%20y/z")
        );
        for (uri, rest) in [
            ("/api/v1/namespaces/proxy/pods/proxy/proxy/a/proxy/", "/a/proxy/"),
            ("/api/v1/nodes/n/proxy/", "/"),
            ("/api/v1/nodes/n/proxy", ""),
        ] {
            let (_, Target::Resource(target)) = of("GET", uri) else { panic!("a resource") };
            assert_eq!(target.rest, rest, "{uri}");
        }
    }

    #[test]
    fn the_first_form_that_can_be_made_is_taken() {
        let table = accept(
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
        );
        assert!(matches!(table.expect("one of them").rendering, Rendering::Table { .. }));
        let request = http::Request::builder()
            .uri("/api/v1/pods")
            .header("accept", "application/vnd.kubernetes.protobuf;stream=watch, */*")
            .body(());
        let parts = request.expect("a request").into_parts().0;
        let call = call(&parts);
        assert_eq!((call.accept.media, takes_json(&parts, &call.accept)), (Media::Protobuf, true));
        let metadata =
            Accept { rendering: Rendering::Metadata { version: "v1".into(), list: false }, ..call.accept };
        assert!(!takes_json(&parts, &metadata));
        let best = accept("*/*,application/json;q=0.9,application/yaml, text/html").expect("one of them");
        assert_eq!(best.media, Media::Yaml);
        assert_eq!(accept("application/cbor, text/plain").expect_err("nobody makes it").code, 406);
    }

    #[test]
    fn options_are_read() {
        let read = |text: &str| options(query(text));
        let o = read("labelSelector=app%3Dx%2Cb&limit=-1&dryRun=All&gracePeriodSeconds=0");
        assert_eq!(
            (o.label_selector.as_str(), o.limit, o.dry_run, o.grace_period_seconds),
            ("app=x,b", 0, true, Some(0))
        );
        // What makes no sense changes nothing until it is refused.
        let o = read("dryRun=maybe&timeoutSeconds=soon&watch");
        assert_eq!((o.dry_run, o.timeout_seconds), (true, None));
    }
}
