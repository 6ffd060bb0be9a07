//! What a call asks for, in the words that authorizers, audit and flow control use.
//! Upstream: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

use apimachinery::Call;
use apimachinery::call::{Target, User, Verb};

use crate::authorization::Attributes;

/// The call as a question to the authorizers.
pub fn attributes<'a>(call: &'a Call, user: &'a User) -> Attributes<'a> {
    match &call.target {
        Target::Resource(target) => Attributes {
            user,
            verb: resource_verb(call),
            group: &target.gvr.group,
            version: &target.gvr.version,
            resource: &target.gvr.resource,
            subresource: &target.subresource,
            // A namespace is its own namespace, so that roles in it can speak of it.
            namespace: if target.gvr.resource == "namespaces" && target.gvr.group.is_empty() {
                &target.name
            } else {
                &target.namespace
            },
            name: &target.name,
            path: "",
        },
        Target::Path(path) => Attributes {
            user,
            verb: method_verb(&call.wire.method),
            group: "",
            version: "",
            resource: "",
            subresource: "",
            namespace: "",
            name: "",
            path,
        },
    }
}

/// What connects is authorised by its method, as upstream.
fn resource_verb(call: &Call) -> &'static str {
    if call.verb != Verb::Connect {
        return call.verb.as_str();
    }
    match call.wire.method.as_str() {
        "POST" => "create",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "get",
    }
}

fn method_verb(method: &str) -> &'static str {
    match method {
        "POST" => "post",
        "PUT" => "put",
        "PATCH" => "patch",
        "DELETE" => "delete",
        "HEAD" => "head",
        "OPTIONS" => "options",
        _ => "get",
    }
}
