//! Acting as another user. Upstream: k8s.io/apiserver/pkg/endpoints/filters/impersonation.

use apimachinery::Status;
use apimachinery::call::{User, Wire};

use crate::authorization::{Attributes, Authorizer, authorize};

/// The user to act as, if the `Impersonate-*` headers name one, whom the caller may impersonate.
///
/// # Errors
/// 403 when the caller may not; 400 for groups or extra without a user.
pub fn effective(
    user: &User,
    wire: &Wire,
    authorizers: &[Box<dyn Authorizer>],
) -> Result<Option<User>, Status> {
    let all =
        |name: &'static str| wire.headers.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str());
    let prefixed =
        || wire.headers.iter().filter_map(|(n, v)| Some((n.strip_prefix("impersonate-extra-")?, v)));
    let Some(name) = all("impersonate-user").find(|v| !v.is_empty()) else {
        if prefixed().next().is_some()
            || all("impersonate-group").chain(all("impersonate-uid")).next().is_some()
        {
            return Err(Status::bad_request("requested [impersonation] without impersonating a user"));
        }
        return Ok(None);
    };
    let may = |group: &str, resource: &str, subresource: &str, namespace: &str, name: &str| {
        authorize(
            authorizers,
            &Attributes {
                group,
                version: "v1",
                resource,
                subresource,
                namespace,
                name,
                ..Attributes::of(user, "impersonate")
            },
        )
    };
    let mut out = User { name: name.to_owned(), ..User::default() };
    let service_account = name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
    match service_account {
        Some((namespace, name)) => {
            may("", "serviceaccounts", "", namespace, name)?;
            out.groups = vec!["system:serviceaccounts".into(), format!("system:serviceaccounts:{namespace}")];
        }
        None => may("", "users", "", "", name)?,
    }
    let groups: Vec<&str> = all("impersonate-group").collect();
    for group in &groups {
        may("", "groups", "", "", group)?;
    }
    if !groups.is_empty() {
        out.groups = groups.iter().map(|g| (*g).to_owned()).collect();
    }
    for uid in all("impersonate-uid") {
        may("authentication.k8s.io", "uids", "", "", uid)?;
        out.uid = uid.to_owned();
    }
    for (key, value) in prefixed() {
        may("authentication.k8s.io", "userextras", key, "", value)?;
        match out.extra.iter_mut().find(|(k, _)| k == key) {
            Some((_, values)) => values.push(value.clone()),
            None => out.extra.push((key.to_owned(), vec![value.clone()])),
        }
    }
    let everyone =
        if out.name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
    if !out.groups.iter().any(|g| g == everyone) {
        out.groups.push(everyone.to_owned());
    }
    Ok(Some(out))
}
