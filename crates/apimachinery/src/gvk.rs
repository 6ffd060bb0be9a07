//! Groups, versions, kinds and resources. Upstream: k8s.io/apimachinery/pkg/runtime/schema.

use std::borrow::Cow;
use std::fmt;

/// A resource in its group: `deployments.apps`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupResource {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// The plural, in lower case.
    pub resource: Cow<'static, str>,
}

impl GroupResource {
    /// A built-in resource.
    pub const fn new(group: &'static str, resource: &'static str) -> GroupResource {
        GroupResource { group: Cow::Borrowed(group), resource: Cow::Borrowed(resource) }
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if self.group.is_empty() { Ok(()) } else { write!(f, ".{}", self.group) }
    }
}

/// A group and version: `apps/v1`, `v1`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct GroupVersion {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// Such as `v1beta1`.
    pub version: Cow<'static, str>,
}

impl GroupVersion {
    /// A built-in group and version.
    pub const fn new(group: &'static str, version: &'static str) -> GroupVersion {
        GroupVersion { group: Cow::Borrowed(group), version: Cow::Borrowed(version) }
    }

    /// Reads `group/version` or `version`.
    pub fn parse(text: &str) -> Option<GroupVersion> {
        let (group, version) = text.rsplit_once('/').unwrap_or(("", text));
        (!version.is_empty() && !group.contains('/'))
            .then(|| GroupVersion { group: group.to_owned().into(), version: version.to_owned().into() })
    }
}

impl fmt::Display for GroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        f.write_str(&self.version)
    }
}

/// A resource as a client addresses it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Gvr {
    /// Empty for the core group.
    pub group: Cow<'static, str>,
    /// Such as `v1`.
    pub version: Cow<'static, str>,
    /// The plural, in lower case.
    pub resource: Cow<'static, str>,
}

impl Gvr {
    /// A built-in resource: `Gvr::new("apps", "v1", "deployments")`.
    pub const fn new(group: &'static str, version: &'static str, resource: &'static str) -> Gvr {
        Gvr {
            group: Cow::Borrowed(group),
            version: Cow::Borrowed(version),
            resource: Cow::Borrowed(resource),
        }
    }

    /// Without the version.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }

    /// The group and version.
    pub fn group_version(&self) -> GroupVersion {
        GroupVersion { group: self.group.clone(), version: self.version.clone() }
    }
}

impl fmt::Display for Gvr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group_version(), self.resource)
    }
}
