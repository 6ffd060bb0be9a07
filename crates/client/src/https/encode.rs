//! A call as an HTTP request: method, path, query, headers. The server's `filters/request_info` reads it back.

use apimachinery::call::{
    Body, Call, FieldValidation, Media, Options, Rendering, ResourceTarget, Target, Verb,
};
use bytes::Bytes;

/// The method by verb; [`Verb::Connect`] brings its own.
pub fn method(call: &Call) -> &str {
    match call.verb {
        Verb::Get | Verb::List | Verb::Watch => "GET",
        Verb::Create => "POST",
        Verb::Update => "PUT",
        Verb::Patch => "PATCH",
        Verb::Delete | Verb::DeleteCollection => "DELETE",
        Verb::Connect if call.wire.method.is_empty() => "GET",
        Verb::Connect => &call.wire.method,
    }
}

/// Path and query.
pub fn uri(call: &Call) -> String {
    let mut out = match &call.target {
        Target::Path(path) => path.clone(),
        Target::Resource(target) => path(target),
    };
    let mut separator = if out.contains('?') { '&' } else { '?' };
    for (name, value) in query(&call.options, call.verb == Verb::Watch) {
        out.push(separator);
        separator = '&';
        escape(&name, &mut out);
        out.push('=');
        escape(&value, &mut out);
    }
    out
}

/// `Content-Type` and bytes.
pub fn body(body: Body) -> (Option<String>, Bytes) {
    match body {
        Body::Empty => (None, Bytes::new()),
        Body::Bytes { content_type, bytes } => (Some(content_type), bytes),
        Body::Doc { content_type, doc } => (Some(content_type.to_owned()), doc.to_json().into()),
    }
}

/// `Accept`.
pub fn accept(call: &Call) -> String {
    let media = match call.accept.media {
        Media::Json => "application/json",
        Media::Yaml => "application/yaml",
        Media::Protobuf => "application/vnd.kubernetes.protobuf",
    };
    match &call.accept.rendering {
        Rendering::Object => media.to_owned(),
        Rendering::Table { version, .. } => format!("{media};as=Table;v={version};g=meta.k8s.io"),
        Rendering::Metadata { version, .. } => {
            let list = if call.verb == Verb::List { "List" } else { "" };
            format!("{media};as=PartialObjectMetadata{list};v={version};g=meta.k8s.io")
        }
    }
}

fn path(target: &ResourceTarget) -> String {
    let gvr = &target.gvr;
    let mut out = if gvr.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", gvr.group) };
    let namespace = [("namespaces"), &target.namespace];
    let mut segments: Vec<&str> = vec![&gvr.version];
    if !target.namespace.is_empty() {
        segments.extend(namespace);
    }
    segments.push(&gvr.resource);
    segments.extend([target.name.as_str(), &target.subresource].into_iter().filter(|s| !s.is_empty()));
    for segment in segments {
        out.push('/');
        escape(segment, &mut out);
    }
    out.push_str(&target.rest);
    out
}

fn query(options: &Options, watch: bool) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            out.push((name.to_owned(), value));
        }
    };
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    let flag = |b: bool| b.then(|| "true".to_owned());
    add("watch", flag(watch));
    add("labelSelector", text(&options.label_selector));
    add("fieldSelector", text(&options.field_selector));
    add("resourceVersion", options.resource_version.clone());
    add("resourceVersionMatch", options.resource_version_match.clone());
    add("limit", (options.limit > 0).then(|| options.limit.to_string()));
    add("continue", text(&options.continue_));
    add("allowWatchBookmarks", flag(options.allow_watch_bookmarks));
    add("sendInitialEvents", options.send_initial_events.map(|b| b.to_string()));
    add("timeoutSeconds", options.timeout_seconds.map(|n| n.to_string()));
    add("dryRun", options.dry_run.then(|| "All".to_owned()));
    add("fieldManager", text(&options.field_manager));
    add(
        "fieldValidation",
        match options.field_validation {
            FieldValidation::Warn => None,
            FieldValidation::Ignore => Some("Ignore".to_owned()),
            FieldValidation::Strict => Some("Strict".to_owned()),
        },
    );
    add("force", options.force.map(|b| b.to_string()));
    add("pretty", flag(options.pretty));
    add("gracePeriodSeconds", options.grace_period_seconds.map(|n| n.to_string()));
    add("propagationPolicy", options.propagation_policy.clone());
    out.extend(options.query.iter().cloned());
    out
}

/// Percent-encodes all but unreserved characters. Source: RFC 3986.
fn escape(text: &str, out: &mut String) {
    use std::fmt::Write as _;
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string succeeds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::empty_call;
    use crate::gvr;

    #[test]
    fn calls_become_upstreams_urls() {
        let mut watch = empty_call(Verb::Watch, Target::resource(gvr::PODS, "ns", "", ""));
        watch.options.field_selector = "spec.nodeName=a b".into();
        assert_eq!(uri(&watch), "/api/v1/namespaces/ns/pods?watch=true&fieldSelector=spec.nodeName%3Da%20b");
        let status = empty_call(Verb::Update, Target::resource(gvr::DEPLOYMENTS, "ns", "web", "status"));
        assert_eq!(uri(&status), "/apis/apps/v1/namespaces/ns/deployments/web/status");
        let role = empty_call(Verb::Get, Target::resource(gvr::CLUSTER_ROLES, "", "system:node", ""));
        assert_eq!(uri(&role), "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:node");
        assert_eq!(uri(&empty_call(Verb::Get, Target::Path("/readyz?verbose".into()))), "/readyz?verbose");
    }
}
