//! The downward API: what a container may be told of its pod, as environment and as files. Pure.
//!
//! Upstream: pkg/fieldpath, pkg/api/v1/resource/helpers.go.

use std::net::IpAddr;

use apimachinery::quantity::{Format, Quantity};
use apimachinery::{Ref, k};

use crate::admission::Resources;

/// What fields refer to besides the object.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The API's object.
    pub pod: Ref<'a>,
    /// The pod's addresses.
    pub ips: &'a [IpAddr],
    /// The node's addresses.
    pub host_ips: &'a [IpAddr],
    /// Stands in for limits that are not set.
    pub allocatable: &'a Resources,
}

/// The value of a `fieldRef`.
///
/// # Errors
/// A message when the field is none of those that can be told.
pub fn field(facts: Facts<'_>, path: &str) -> Result<String, String> {
    let meta = facts.pod.get(k::METADATA);
    let spec = facts.pod.get(k::SPEC);
    let join = |ips: &[IpAddr]| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",");
    let first = |ips: &[IpAddr]| ips.first().map_or_else(String::new, IpAddr::to_string);
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let at = match map {
            "metadata.labels" => meta.get(k::LABELS),
            "metadata.annotations" => meta.get(k::ANNOTATIONS),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(at.get(key).str().to_owned());
    }
    Ok(match path {
        "metadata.name" => meta.get(k::NAME).str().to_owned(),
        "metadata.namespace" => meta.get(k::NAMESPACE).str().to_owned(),
        "metadata.uid" => meta.get(k::UID).str().to_owned(),
        "metadata.labels" => format_map(meta.get(k::LABELS)),
        "metadata.annotations" => format_map(meta.get(k::ANNOTATIONS)),
        "spec.nodeName" => spec.get(k::NODE_NAME).str().to_owned(),
        "spec.serviceAccountName" => spec.get(k::SERVICE_ACCOUNT_NAME).str().to_owned(),
        "status.podIP" => first(facts.ips),
        "status.podIPs" => join(facts.ips),
        "status.hostIP" => first(facts.host_ips),
        "status.hostIPs" => join(facts.host_ips),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `key="value"`, one a line, sorted by key.
fn format_map(map: Ref<'_>) -> String {
    let mut lines: Vec<(&str, &str)> = map.entries().map(|(name, value)| (name, value.str())).collect();
    lines.sort_unstable();
    lines.iter().map(|(name, value)| format!("{name}={}", quote(value))).collect::<Vec<_>>().join("\n")
}

/// As Go's `%q`.
fn quote(s: &str) -> String {
    let mut out = String::from("\"");
    for c in s.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() && u32::from(c) < 0x80 => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The value of a `resourceFieldRef`; `default_container` is meant where none is named.
///
/// # Errors
/// A message when container or resource are unknown.
pub fn resource(facts: Facts<'_>, selector: Ref<'_>, default_container: &str) -> Result<String, String> {
    let named = selector.get(k::CONTAINER_NAME).str();
    let wanted = if named.is_empty() { default_container } else { named };
    let spec = facts.pod.get(k::SPEC);
    let mut all = spec.get(k::CONTAINERS).items().chain(spec.get(k::INIT_CONTAINERS).items());
    let container = all
        .find(|c| c.get(k::NAME).str() == wanted)
        .ok_or_else(|| format!("container {wanted} not found"))?;
    let path = selector.get(k::RESOURCE).str();
    let (kind, name) =
        path.split_once('.').ok_or_else(|| format!("unsupported container resource : {path}"))?;
    let resources = container.get(k::RESOURCES);
    let set = |list: &str| Quantity::parse(resources.get(list).get(name).str()).ok();
    let value = match kind {
        "limits" => set("limits").or_else(|| facts.allocatable.get(name).copied()),
        "requests" => set("requests"),
        _ => return Err(format!("unsupported container resource : {path}")),
    };
    let value = value.unwrap_or(Quantity::from_value(0, Format::DecimalSi));
    let divisor = Quantity::parse(selector.get(k::DIVISOR).str()).ok().filter(|d| !d.is_zero());
    // CPU is counted in thousandths, everything else whole; both are rounded up.
    let (value, divisor) = if name == "cpu" {
        (value.milli_value(), divisor.map_or(1000, |d| d.milli_value()))
    } else {
        (value.value(), divisor.map_or(1, |d| d.value()))
    };
    Ok((value / divisor + i64::from(value % divisor > 0)).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn fields_and_resources() {
        let pod = doc!({ "metadata": { "name": "p", "labels": { "b": "2", "a": "x\"y" } }, "spec": { "nodeName": "n", "containers": [
            { "name": "c", "resources": { "limits": { "memory": "64Mi" }, "requests": { "cpu": "250m" } } }] } });
        let allocatable: Resources = [("cpu".to_owned(), Quantity::parse("4").unwrap())].into();
        let ips = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        let facts = Facts { pod: pod.root(), ips: &ips, host_ips: &[], allocatable: &allocatable };
        for (path, want) in [
            ("metadata.name", Ok("p")),
            ("metadata.labels", Ok("a=\"x\\\"y\"\nb=\"2\"")),
            ("metadata.labels['b']", Ok("2")),
            ("metadata.annotations['none']", Ok("")),
            ("status.podIP", Ok("10.0.0.1")),
            ("status.podIPs", Ok("10.0.0.1,fd00::1")),
            ("spec.nodeName", Ok("n")),
            ("spec.tolerations", Err("unsupported fieldPath: spec.tolerations")),
        ] {
            assert_eq!(field(facts, path).as_deref().map_err(String::as_str), want, "{path}");
        }
        for (path, divisor, want) in [
            ("limits.memory", "0", "67108864"),
            ("limits.memory", "1Mi", "64"),
            ("limits.cpu", "0", "4"),
            ("requests.cpu", "0", "1"),
            ("requests.cpu", "1m", "250"),
            ("requests.memory", "0", "0"),
        ] {
            let selector = doc!({ "resource": path, "divisor": divisor });
            assert_eq!(resource(facts, selector.root(), "c").unwrap(), want, "{path} {divisor}");
        }
    }
}
