//! A container's environment. Pure: the ConfigMaps and Secrets it refers to were fetched before.
//!
//! Upstream: pkg/kubelet/kubelet_pods.go (`makeEnvironmentVariables`), pkg/kubelet/envvars, third_party/forked/golang/expansion.

use std::collections::BTreeMap;

use apimachinery::schema::views::Container;
use apimachinery::{Doc, Ref, k};

use crate::fields::{self, Facts};
use crate::objects::{ObjectKind, Objects};

/// What a container's environment, or its arguments, may be long after expansion, in bytes. Linux starts nothing with
/// more; each variable may name another twice, so that forty short ones would fill the memory.
pub const EXPANDED_BYTES_MAX: usize = 6 * 1024 * 1024;

/// The environment, in order. Services' variables come last and never replace others.
///
/// # Errors
/// A message that names what is missing.
pub fn make(
    container: Container<'_>,
    facts: Facts<'_>,
    objects: &Objects,
    services: &[(String, String)],
) -> Result<Vec<(String, String)>, String> {
    let mut vars: Vec<(String, String)> = Vec::new();
    let mut put = |name: String, value: String| match vars.iter_mut().find(|v| v.0 == name) {
        Some(var) => var.1 = value,
        None => vars.push((name, value)),
    };
    let mut known: BTreeMap<String, String> = services.iter().cloned().collect();
    let namespace = facts.pod.get(k::METADATA).get(k::NAMESPACE).str();
    for from in container.env_from().iter() {
        let config_map = from.config_map_ref();
        let (kind, name, optional) = if config_map.exists() {
            (ObjectKind::ConfigMap, config_map.name(), config_map.optional())
        } else {
            (ObjectKind::Secret, from.secret_ref().name(), from.secret_ref().optional())
        };
        let Some(object) = objects.get(kind, namespace, name) else {
            if optional == Some(true) {
                continue;
            }
            return Err(kind.missing(name));
        };
        for (key, value) in kind.data(&object) {
            if let Ok(value) = String::from_utf8(value) {
                let name = format!("{}{key}", from.prefix());
                known.insert(name.clone(), value.clone());
                put(name, value);
            }
        }
    }
    let mut left = EXPANDED_BYTES_MAX;
    for var in container.env().iter() {
        let source = var.value_from();
        let value = if source.exists() {
            match from_source(source.0, container, facts, objects)? {
                Some(value) => value,
                None => continue,
            }
        } else {
            expand(var.value(), &known, &mut left)?
        };
        known.insert(var.name().to_owned(), value.clone());
        put(var.name().to_owned(), value);
    }
    for (name, value) in services {
        if !vars.iter().any(|v| v.0 == *name) {
            vars.push((name.clone(), value.clone()));
        }
    }
    Ok(vars)
}

/// Nothing for what is optional and missing.
fn from_source(
    source: Ref<'_>,
    container: Container<'_>,
    facts: Facts<'_>,
    objects: &Objects,
) -> Result<Option<String>, String> {
    let field = source.get(k::FIELD_REF);
    if field.is_set() {
        return fields::field(facts, field.get(k::FIELD_PATH).str()).map(Some);
    }
    let resource = source.get(k::RESOURCE_FIELD_REF);
    if resource.is_set() {
        return fields::resource(facts, resource, container.name()).map(Some);
    }
    for (at, kind) in
        [(k::CONFIG_MAP_KEY_REF, ObjectKind::ConfigMap), (k::SECRET_KEY_REF, ObjectKind::Secret)]
    {
        let selector = source.get(at);
        if !selector.is_set() {
            continue;
        }
        let (name, key) = (selector.get(k::NAME).str(), selector.get(k::KEY).str());
        let optional = selector.get(k::OPTIONAL).bool();
        let namespace = facts.pod.get(k::METADATA).get(k::NAMESPACE).str();
        let Some(object) = objects.get(kind, namespace, name) else {
            return if optional { Ok(None) } else { Err(kind.missing(name)) };
        };
        let found = kind.data(&object).into_iter().find(|(have, _)| have == key);
        return match found {
            Some((_, value)) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {key} in {} {namespace}/{name}", kind.word())),
        };
    }
    Err("the variable's valueFrom has no source".into())
}

/// The ConfigMaps and Secrets that a container's environment refers to.
pub fn references(container: Ref<'_>) -> Vec<(ObjectKind, String)> {
    let mut out = Vec::new();
    let mut note = |kind, object: Ref<'_>| {
        if object.is_set() {
            out.push((kind, object.get(k::NAME).str().to_owned()));
        }
    };
    for from in container.get(k::ENV_FROM).items() {
        note(ObjectKind::ConfigMap, from.get(k::CONFIG_MAP_REF));
        note(ObjectKind::Secret, from.get(k::SECRET_REF));
    }
    for var in container.get(k::ENV).items() {
        note(ObjectKind::ConfigMap, var.get(k::VALUE_FROM).get(k::CONFIG_MAP_KEY_REF));
        note(ObjectKind::Secret, var.get(k::VALUE_FROM).get(k::SECRET_KEY_REF));
    }
    out
}

/// Puts values in place of `$(NAME)`. Unknown names stay as they are, `$$` is a dollar. The result's length is taken
/// off `left`.
///
/// # Errors
/// When there is not as much left.
pub fn expand(text: &str, known: &BTreeMap<String, String>, left: &mut usize) -> Result<String, String> {
    expand_with(text, left, |name| Ok(known.get(name).cloned().unwrap_or_else(|| format!("$({name})"))))
}

/// As [`expand`], of a short text.
///
/// # Errors
/// With the first name that is unknown or empty.
pub fn expand_known(text: &str, known: &BTreeMap<String, String>) -> Result<String, String> {
    let mut left = EXPANDED_BYTES_MAX;
    expand_with(text, &mut left, |name| {
        let value = known.get(name).filter(|value| !value.is_empty());
        value.cloned().ok_or_else(|| format!("missing value for {name}"))
    })
}

fn expand_with(
    text: &str,
    left: &mut usize,
    value: impl Fn(&str) -> Result<String, String>,
) -> Result<String, String> {
    let too_long = || format!("arguments or environment are longer than {EXPANDED_BYTES_MAX} bytes");
    let mut out = String::new();
    let mut rest = text;
    // Looked for once: without it, each open bracket would be followed to the end.
    let mut closes = text.contains(')');
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let inside = after.strip_prefix('(').filter(|_| closes);
        let end = inside.and_then(|inside| inside.find(')'));
        closes &= inside.is_none() || end.is_some();
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
        } else if let (Some(inside), Some(end)) = (inside, end) {
            out.push_str(&value(&inside[..end])?);
            rest = &inside[end + 1..];
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > *left {
            return Err(too_long());
        }
    }
    out.push_str(rest);
    *left = left.checked_sub(out.len()).ok_or_else(too_long)?;
    Ok(out)
}

/// The variables that tell of Services, Docker links' way. `services` are those of the pod's namespace, and `kubernetes`.
pub fn service_variables(services: &[Doc]) -> Vec<(String, String)> {
    let mut out = Vec::new();
    for service in services {
        let spec = service.get(k::SPEC);
        let ip = spec.get(k::CLUSTER_IP).str();
        let ports = spec.get(k::PORTS);
        let Some(first) = ports.items().next() else { continue };
        if ip.is_empty() || ip == "None" {
            continue;
        }
        let prefix = upper(service.get(k::METADATA).get(k::NAME).str());
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        out.push((format!("{prefix}_SERVICE_HOST"), ip.to_owned()));
        out.push((format!("{prefix}_SERVICE_PORT"), first.get(k::PORT).i64().to_string()));
        for port in ports.items().filter(|p| !p.get(k::NAME).str().is_empty()) {
            let name = upper(port.get(k::NAME).str());
            out.push((format!("{prefix}_SERVICE_PORT_{name}"), port.get(k::PORT).i64().to_string()));
        }
        for (i, port) in ports.items().enumerate() {
            let number = port.get(k::PORT).i64();
            let protocol = port.get(k::PROTOCOL).opt_str().unwrap_or("TCP");
            let url = format!("{}://{host}:{number}", protocol.to_lowercase());
            if i == 0 {
                out.push((format!("{prefix}_PORT"), url.clone()));
            }
            let each = format!("{prefix}_PORT_{number}_{}", protocol.to_uppercase());
            out.push((each.clone(), url));
            out.push((format!("{each}_PROTO"), protocol.to_lowercase()));
            out.push((format!("{each}_PORT"), number.to_string()));
            out.push((format!("{each}_ADDR"), ip.to_owned()));
        }
    }
    out
}

fn upper(name: &str) -> String {
    name.to_uppercase().replace(['-', '.'], "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn expansion() {
        let known: BTreeMap<String, String> = [("A".to_owned(), "1".to_owned())].into();
        for (text, want) in [
            ("$(A)", "1"),
            ("x$(A)y$(B)", "x1y$(B)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$", "$"),
            ("$A", "$A"),
            ("$(A", "$(A"),
            ("a$$", "a$"),
        ] {
            assert_eq!(expand(text, &known, &mut 100).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn an_environment_that_doubles_is_refused() {
        let mut container = doc!({ "name": "c", "env": [{ "name": "V0", "value": "x" }] });
        for i in 1..40 {
            let value = format!("$(V{0})$(V{0})", i - 1);
            container.edit().list("env").push(doc!({ "name": format!("V{i}"), "value": value }));
        }
        let pod = doc!({ "metadata": { "name": "p", "namespace": "n" } });
        let facts = Facts { pod: pod.root(), ips: &[], host_ips: &[], allocatable: &BTreeMap::new() };
        let made = make(Container(container.root()), facts, &Objects::default(), &[]);
        assert_eq!(made.unwrap_err(), "arguments or environment are longer than 6291456 bytes");
        let open = "$(".repeat(500_000);
        assert_eq!(expand(&open, &BTreeMap::new(), &mut 2_000_000).unwrap(), open);
    }

    #[test]
    fn order_and_references() {
        let pod = doc!({ "metadata": { "name": "p", "namespace": "n" } });
        let container = doc!({ "name": "c",
            "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "m" } }, { "secretRef": { "name": "gone", "optional": true } }],
            "env": [{ "name": "X", "value": "$(P_a)-$(K_SERVICE_HOST)" }, { "name": "N", "valueFrom": { "fieldRef": { "fieldPath": "metadata.name" } } },
                { "name": "S", "valueFrom": { "secretKeyRef": { "name": "s", "key": "pw" } } }, { "name": "P_a", "value": "over" }] });
        let mut objects = Objects::default();
        objects.put(ObjectKind::ConfigMap, "n", "m", doc!({ "data": { "a": "1" } }));
        objects.put(ObjectKind::Secret, "n", "s", doc!({ "data": { "pw": "c2VjcmV0" } }));
        let facts = Facts { pod: pod.root(), ips: &[], host_ips: &[], allocatable: &BTreeMap::new() };
        let services = [("K_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())];
        let got = make(Container(container.root()), facts, &objects, &services).unwrap();
        let words: Vec<String> = got.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(words, ["P_a=over", "X=1-10.96.0.1", "N=p", "S=secret", "K_SERVICE_HOST=10.96.0.1"]);
        let empty = Objects::default();
        assert_eq!(
            make(Container(container.root()), facts, &empty, &[]).unwrap_err(),
            "configmap \"m\" not found"
        );
        assert_eq!(references(container.root()).len(), 3);
    }

    #[test]
    fn services_as_docker_links() {
        let service = doc!({ "metadata": { "name": "my-db" }, "spec": { "clusterIP": "10.0.0.5", "ports": [{ "name": "sql", "port": 5432, "protocol": "TCP" }] } });
        let headless =
            doc!({ "metadata": { "name": "h" }, "spec": { "clusterIP": "None", "ports": [{ "port": 1 }] } });
        let got = service_variables(&[service, headless]);
        let words: Vec<String> = got.iter().map(|(n, v)| format!("{n}={v}")).collect();
        assert_eq!(
            words,
            [
                "MY_DB_SERVICE_HOST=10.0.0.5",
                "MY_DB_SERVICE_PORT=5432",
                "MY_DB_SERVICE_PORT_SQL=5432",
                "MY_DB_PORT=tcp://10.0.0.5:5432",
                "MY_DB_PORT_5432_TCP=tcp://10.0.0.5:5432",
                "MY_DB_PORT_5432_TCP_PROTO=tcp",
                "MY_DB_PORT_5432_TCP_PORT=5432",
                "MY_DB_PORT_5432_TCP_ADDR=10.0.0.5"
            ]
        );
    }
}
