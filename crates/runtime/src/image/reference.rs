//! Image names: `[domain/]path[:tag][@digest]`, normalised as Docker does.
//!
//! Upstream: github.com/distribution/reference.

use std::fmt;

use crate::Error;

/// The longest name (domain and path) that is one.
const NAME_LENGTH_MAX: usize = 255;
/// The longest tag that is one.
const TAG_LENGTH_MAX: usize = 128;

/// A normalised image name. Displays in full: `docker.io/library/busybox:latest`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Domain and path, such as `docker.io/library/busybox`.
    pub name: String,
    /// The tag; `latest` where neither tag nor digest was said.
    pub tag: Option<String>,
    /// The digest, `sha256:…`.
    pub digest: Option<String>,
}

impl Reference {
    /// Reads and normalises a name.
    ///
    /// # Errors
    /// [`Error::Reference`] for text that is no image name.
    pub fn parse(text: &str) -> Result<Reference, Error> {
        let err = |message| Error::Reference { name: text.to_owned(), message };
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, d)) if is_digest(d) => (rest, Some(d.to_owned())),
            Some(_) => return Err(err("invalid digest")),
        };
        let last = rest.rfind('/').map_or(0, |i| i + 1);
        let (name, tag) = match rest[last..].find(':') {
            None => (rest, None),
            Some(i) => (&rest[..last + i], Some(&rest[last + i + 1..])),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(err("invalid tag format"));
        }
        let (domain, path) = split_domain(name);
        if !is_domain(domain) {
            return Err(err("invalid domain"));
        }
        if path.is_empty() || !path.split('/').all(is_path_component) {
            let upper = path.bytes().any(|b| b.is_ascii_uppercase());
            return Err(err(if upper {
                "repository name must be lowercase"
            } else {
                "invalid reference format"
            }));
        }
        let name = match domain {
            "docker.io" if !path.contains('/') => format!("docker.io/library/{path}"),
            _ => format!("{domain}/{path}"),
        };
        if name.len() > NAME_LENGTH_MAX {
            return Err(err("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (Some(t), _) => Some(t.to_owned()),
            (None, Some(_)) => None,
            (None, None) => Some("latest".to_owned()),
        };
        Ok(Reference { name, tag, digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// Whether `text` is a digest of the one algorithm that is understood: `sha256:` and 64 lower-case hex digits.
pub fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(is_hex64)
}

/// Whether `text` is 64 lower-case hexadecimal digits.
pub fn is_hex64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn split_domain(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == "index.docker.io" { "docker.io" } else { first }, rest)
        }
        _ => ("docker.io", name),
    }
}

fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.rsplit_once(':') {
        Some((h, p)) if !p.ends_with(']') => (h, Some(p)),
        _ => (domain, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()));
    if let Some(v6) = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        return port_ok && v6.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') && !v6.is_empty();
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    port_ok && host.split('.').all(label)
}

fn is_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= TAG_LENGTH_MAX
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

/// Lower-case letters and digits, joined by one of `.`, `_`, `__` or any number of `-`.
fn is_path_component(component: &str) -> bool {
    let alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let joint = |s: &str| matches!(s, "." | "_" | "__") || s.bytes().all(|b| b == b'-');
    component.bytes().next().is_some_and(alnum)
        && component.bytes().last().is_some_and(alnum)
        && component
            .split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            .all(|between| between.is_empty() || joint(between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_normalised_as_docker_does() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (given, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("wardviaene/k8s-demo", "docker.io/wardviaene/k8s-demo:latest"),
            ("docker.io/wardviaene/k8s-demo:latest", "docker.io/wardviaene/k8s-demo:latest"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a/b:v1.0", "localhost:5000/a/b:v1.0"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("[::1]:5000/a", "[::1]:5000/a:latest"),
            ("a--b/c__d.e_f", "docker.io/a--b/c__d.e_f:latest"),
        ] {
            assert_eq!(Reference::parse(given).expect(given).to_string(), want);
        }
        let by_digest = Reference::parse(&format!("busybox@{digest}")).expect("a name with a digest");
        assert_eq!(by_digest.to_string(), format!("docker.io/library/busybox@{digest}"));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for bad in [
            "",
            "Busybox",
            "a:",
            "a:-x",
            "a@sha256:12",
            "a//b",
            "-a",
            "a..b",
            "a/../b",
            "x.y:z/a",
            "a b",
            "a___b",
        ] {
            assert!(Reference::parse(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
