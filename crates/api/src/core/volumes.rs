//! Which volumes a pod may name and which mounts of them make sense.
//! Upstream: pkg/apis/core/validation ValidateVolumes, ValidateVolumeMounts.

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, k, validation};

use crate::core::{pod_validation, resources};
use crate::rules::{complain, none_or_one_of, required};

const HOST_PATH_TYPES: &[&str] =
    &["", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"];

/// The volumes of a pod.
pub(crate) fn volumes(errs: &mut ErrorList, list: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, volume) in list.items().enumerate() {
        let at = at.index(i);
        let name = volume.get(k::NAME).str();
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else {
            complain(errs, &at.child("name"), name, validation::dns1123_label(name));
        }
        if !name.is_empty() && seen.contains(&name) {
            errs.duplicate(&at.child("name"), name);
        }
        seen.push(name);
        let mut sources: Vec<Ref<'_>> =
            volume.fields().filter(|f| f.key() != Some(k::NAME) && f.is_set()).collect();
        sources.sort_by_key(|source| source.key() != Some(k::EMPTY_DIR));
        match sources[..] {
            [] => errs.required(&at, "must specify a volume type"),
            [source] => volume_source(errs, source, &at.child(source.name())),
            [_, second, ..] => {
                errs.forbidden(&at.child(second.name()), "may not specify more than 1 volume type")
            }
        }
    }
}

fn volume_source(errs: &mut ErrorList, source: Ref<'_>, at: &Path) {
    match source.key() {
        Some(k::CONFIG_MAP) => {
            required(errs, source.get(k::NAME), &at.child("name"));
            files(errs, source, at);
        }
        Some(k::SECRET) => {
            required(errs, source.get(k::SECRET_NAME), &at.child("secretName"));
            files(errs, source, at);
        }
        Some(k::EMPTY_DIR) => {
            let limit = source.get(k::SIZE_LIMIT);
            if limit.is_set() {
                resources::amount(errs, "memory", limit, &at.child("sizeLimit"));
            }
        }
        Some(k::HOST_PATH) => {
            if required(errs, source.get(k::PATH), &at.child("path")) {
                no_backsteps(errs, source.get(k::PATH).str(), &at.child("path"));
            }
            none_or_one_of(errs, source.get(k::TYPE), &at.child("type"), HOST_PATH_TYPES);
        }
        Some(k::PERSISTENT_VOLUME_CLAIM) => {
            required(errs, source.get(k::CLAIM_NAME), &at.child("claimName"));
        }
        Some(k::NFS) => {
            required(errs, source.get(k::SERVER), &at.child("server"));
            required(errs, source.get(k::PATH), &at.child("path"));
        }
        Some(k::DOWNWARD_API) => downward(errs, source, at),
        Some(k::PROJECTED) => projected(errs, source, at),
        _ => {}
    }
}

/// `defaultMode` and `items` of sources that are files.
fn files(errs: &mut ErrorList, source: Ref<'_>, at: &Path) {
    mode(errs, source.get(k::DEFAULT_MODE), &at.child("defaultMode"));
    for (i, item) in source.get(k::ITEMS).items().enumerate() {
        let at = at.child("items").index(i);
        required(errs, item.get(k::KEY), &at.child("key"));
        if required(errs, item.get(k::PATH), &at.child("path")) {
            local_path(errs, item.get(k::PATH).str(), &at.child("path"));
        }
        mode(errs, item.get(k::MODE), &at.child("mode"));
    }
}

fn mode(errs: &mut ErrorList, mode: Ref<'_>, at: &Path) {
    if mode.is_set() && !(0..=0o777).contains(&mode.i64()) {
        errs.invalid(at, mode.i64(), "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn downward(errs: &mut ErrorList, source: Ref<'_>, at: &Path) {
    mode(errs, source.get(k::DEFAULT_MODE), &at.child("defaultMode"));
    for (i, item) in source.get(k::ITEMS).items().enumerate() {
        let at = at.child("items").index(i);
        if required(errs, item.get(k::PATH), &at.child("path")) {
            local_path(errs, item.get(k::PATH).str(), &at.child("path"));
        }
        match (item.get(k::FIELD_REF).is_set(), item.get(k::RESOURCE_FIELD_REF).is_set()) {
            (true, true) => errs.invalid(
                &at,
                "resource",
                "fieldRef and resourceFieldRef can not be specified simultaneously",
            ),
            (false, false) => errs.required(&at, "one of fieldRef and resourceFieldRef is required"),
            (true, false) => pod_validation::field_ref(
                errs,
                item.get(k::FIELD_REF),
                &at.child("fieldRef"),
                &[
                    "metadata.annotations",
                    "metadata.labels",
                    "metadata.name",
                    "metadata.namespace",
                    "metadata.uid",
                ],
            ),
            (false, true) => {
                required(
                    errs,
                    item.get(k::RESOURCE_FIELD_REF).get(k::RESOURCE),
                    &at.child("resourceFieldRef").child("resource"),
                );
            }
        }
        mode(errs, item.get(k::MODE), &at.child("mode"));
    }
}

fn projected(errs: &mut ErrorList, source: Ref<'_>, at: &Path) {
    mode(errs, source.get(k::DEFAULT_MODE), &at.child("defaultMode"));
    for (i, part) in source.get(k::SOURCES).items().enumerate() {
        let at = at.child("sources").index(i);
        let given: Vec<Ref<'_>> = part.fields().filter(|f| f.is_set()).collect();
        if given.len() > 1 {
            errs.forbidden(&at.child(given[1].name()), "may not specify more than 1 volume type");
        }
        for one in given {
            let at = at.child(one.name());
            match one.key() {
                Some(k::SECRET | k::CONFIG_MAP) => {
                    required(errs, one.get(k::NAME), &at.child("name"));
                    files(errs, one, &at);
                }
                Some(k::DOWNWARD_API) => downward(errs, one, &at),
                Some(k::SERVICE_ACCOUNT_TOKEN) => token(errs, one, &at),
                _ => {}
            }
        }
    }
}

fn token(errs: &mut ErrorList, token: Ref<'_>, at: &Path) {
    let seconds = token.get(k::EXPIRATION_SECONDS).i64();
    if seconds < 600 {
        errs.invalid(
            &at.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 10 minutes",
        );
    }
    if seconds > 1 << 32 {
        errs.invalid(
            &at.child("expirationSeconds"),
            seconds,
            "may not specify a duration larger than 2^32 seconds",
        );
    }
    if required(errs, token.get(k::PATH), &at.child("path")) {
        local_path(errs, token.get(k::PATH).str(), &at.child("path"));
    }
}

/// A path below some directory, without ways out of it.
fn local_path(errs: &mut ErrorList, path: &str, at: &Path) {
    if path.starts_with('/') {
        errs.invalid(at, path, "must be a relative path");
    }
    no_backsteps(errs, path, at);
    if path.starts_with("..") && !path.starts_with("../") && path != ".." {
        errs.invalid(at, path, "must not start with '..'");
    }
}

fn no_backsteps(errs: &mut ErrorList, path: &str, at: &Path) {
    if path.split('/').any(|part| part == "..") {
        errs.invalid(at, path, "must not contain '..'");
    }
}

/// A container's mounts, all of volumes that the pod has.
pub(crate) fn mounts(errs: &mut ErrorList, container: Ref<'_>, volumes: Ref<'_>, at: &Path) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, mount) in container.get(k::VOLUME_MOUNTS).items().enumerate() {
        let at = at.child("volumeMounts").index(i);
        let (name, path) = (mount.get(k::NAME).str(), mount.get(k::MOUNT_PATH).str());
        if name.is_empty() {
            errs.required(&at.child("name"), "");
        } else if !volumes.items().any(|v| v.get(k::NAME).str() == name) {
            errs.not_found(&at.child("name"), name);
        }
        if path.is_empty() {
            errs.required(&at.child("mountPath"), "");
        } else if seen.contains(&path) {
            errs.invalid(&at.child("mountPath"), path, "must be unique");
        }
        seen.push(path);
        let (plain, expression) = (mount.get(k::SUB_PATH).str(), mount.get(k::SUB_PATH_EXPR).str());
        for (which, sub) in [("subPath", plain), ("subPathExpr", expression)] {
            if !sub.is_empty() {
                local_path(errs, sub, &at.child(which));
            }
        }
        if !plain.is_empty() && !expression.is_empty() {
            errs.invalid(
                &at.child("subPathExpr"),
                expression,
                "subPathExpr and subPath are mutually exclusive",
            );
        }
        mount_rules(errs, container, mount, &at);
        none_or_one_of(
            errs,
            mount.get(k::MOUNT_PROPAGATION),
            &at.child("mountPropagation"),
            &["Bidirectional", "HostToContainer", "None"],
        );
    }
}

fn mount_rules(errs: &mut ErrorList, container: Ref<'_>, mount: Ref<'_>, at: &Path) {
    let propagation = mount.get(k::MOUNT_PROPAGATION).str();
    if propagation == "Bidirectional" && !container.get(k::SECURITY_CONTEXT).get(k::PRIVILEGED).bool() {
        let detail = "Bidirectional mount propagation is available only to privileged containers";
        errs.forbidden(&at.child("mountPropagation"), detail);
    }
    let (recursive, at) = (mount.get(k::RECURSIVE_READ_ONLY), at.child("recursiveReadOnly"));
    none_or_one_of(errs, recursive, &at, &["Disabled", "Enabled", "IfPossible"]);
    if ["Enabled", "IfPossible"].contains(&recursive.str()) {
        if !mount.get(k::READ_ONLY).bool() {
            errs.forbidden(&at, "may only be specified when readOnly is true");
        }
        if !["", "None"].contains(&propagation) {
            errs.forbidden(&at, "may only be specified when mountPropagation is None or not specified");
        }
    }
}
