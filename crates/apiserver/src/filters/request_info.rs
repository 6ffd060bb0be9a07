//! What a call asks for, in the words that authorizers, audit and flow control use.
//! Upstream: k8s.io/apiserver/pkg/endpoints/request/requestinfo.go.

use apimachinery::Call;
use apimachinery::call::{Target, User, Verb};

use crate::authorization::Attributes;

/// The call as a question to the authorizers.
pub fn attributes<'a>(call: &'a Call, user: &'a User) -> Attributes<'a> {
    match &call.target {
        Target::Resource(target) => Attributes {
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
            name: if target.name.is_empty() { selected_name(call) } else { &target.name },
            label_selector: if selects(call.verb) { &call.options.label_selector } else { "" },
            field_selector: if selects(call.verb) { &call.options.field_selector } else { "" },
            ..Attributes::of(user, resource_verb(call))
        },
        Target::Path(path) => Attributes { path, ..Attributes::of(user, method_verb(&call.wire.method)) },
    }
}

/// The one name that a collection's field selector allows: whoever may read only that object may list and watch
/// it so. Names have nothing to escape, and an escaped comma begins no condition: `x!=a\,metadata.name=b` selects
/// every other name as well.
fn selected_name(call: &Call) -> &str {
    if !selects(call.verb) {
        return "";
    }
    if call.options.field_selector.contains('\\') {
        return "";
    }
    let terms = call.options.field_selector.split(',').map(str::trim);
    let mut names =
        terms.filter_map(|term| Some(term.strip_prefix("metadata.name=")?.trim_start_matches('=')));
    names.next_back().filter(|name| !name.contains(['/', '\\', '%', '='])).unwrap_or_default()
}

/// Whether a verb looks at selectors; elsewhere they narrow nothing.
fn selects(verb: Verb) -> bool {
    matches!(verb, Verb::List | Verb::Watch | Verb::DeleteCollection)
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
        "" | "GET" | "HEAD" => "get",
        _ => "",
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

#[cfg(test)]
mod tests {
    use apimachinery::Gvr;
    use apimachinery::call::{Accept, Body, Options, Who, Wire};

    use super::*;

    #[test]
    fn a_selector_by_name_asks_for_that_name() {
        let table = [
            (Verb::Watch, "metadata.name=x", "x"),
            (Verb::List, "spec.nodeName=n,metadata.name==x", "x"),
            (Verb::List, "metadata.name!=x", ""),
            (Verb::List, "type!=a\\,metadata.name=x", ""),
            (Verb::List, "", ""),
            (Verb::Create, "metadata.name=x", ""),
        ];
        for (verb, field_selector, expected) in table {
            let target = Target::resource(Gvr::new("", "v1", "configmaps"), "ns", "", "");
            let options = Options { field_selector: field_selector.into(), ..Options::default() };
            let (who, accept, body, wire) = (Who::Anonymous, Accept::default(), Body::Empty, Wire::default());
            let call = Call { who, verb, target, options, accept, body, wire };
            assert_eq!(attributes(&call, &User::default()).name, expected, "{verb:?} {field_selector}");
        }
    }
}
