//! Which names, labels, ports and addresses are well formed. Every check returns its complaints in upstream's
//! words, none when the value is good.
//!
//! It knows forms only: not which field needs which.
//! Upstream: k8s.io/apimachinery/pkg/util/validation and pkg/api/validate/content.

use std::net::IpAddr;

const LABEL_FORM: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED_FORM: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn form(message: &str, form: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|e| format!("'{e}', ")).collect();
    let examples = examples.join(" or ");
    let eg = if examples.is_empty() { " (".to_owned() } else { format!(" (e.g. {examples}") };
    format!("{message}{eg}regex used for validation is '{form}')")
}

fn characters_max(most: usize) -> String {
    format!("must be no more than {most} characters")
}

fn bytes_max(most: usize) -> String {
    format!("must be no more than {most} bytes")
}

/// Whether `text` is not empty, all of `inner`, and starts and ends with `outer`.
fn framed(text: &str, outer: impl Fn(u8) -> bool, inner: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    outer(*first) && outer(*last) && bytes.iter().all(|b| inner(*b))
}

fn lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn label_shaped(text: &str) -> bool {
    framed(text, lower, |b| lower(b) || b == b'-')
}

fn subdomain_shaped(text: &str) -> bool {
    text.split('.').all(label_shaped)
}

fn qualified_shaped(text: &str) -> bool {
    framed(text, |b| b.is_ascii_alphanumeric(), |b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// A label as in RFC 1123, lower case, at most 63 characters.
pub fn dns1123_label(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 63 {
        errs.push(characters_max(63));
    }
    if !label_shaped(text) {
        errs.push(if subdomain_shaped(text) {
            "must not contain dots".into()
        } else {
            let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
                           end with an alphanumeric character";
            form(message, LABEL_FORM, &["my-name", "123-abc"])
        });
    }
    errs
}

/// A subdomain as in RFC 1123, lower case, at most 253 characters.
pub fn dns1123_subdomain(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 253 {
        errs.push(characters_max(253));
    }
    if !subdomain_shaped(text) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
                       and end with an alphanumeric character";
        errs.push(form(message, &format!("{LABEL_FORM}(\\.{LABEL_FORM})*"), &["example.com"]));
    }
    errs
}

/// A label as in RFC 1035: like RFC 1123's, but starting with a letter.
pub fn dns1035_label(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 63 {
        errs.push(characters_max(63));
    }
    if !label_shaped(text) || text.as_bytes()[0].is_ascii_digit() {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
                       character, and end with an alphanumeric character";
        errs.push(form(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    errs
}

/// A label's or annotation's key: a name of at most 63 bytes, with a DNS subdomain and `/` before it or not.
pub fn qualified_name(text: &str) -> Vec<String> {
    const MESSAGE: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    const EXAMPLES: &[&str] = &["MyName", "my.name", "123-abc"];
    let mut errs = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts[..] {
        [name] => name,
        [prefix, name] => {
            if prefix.is_empty() {
                errs.push("prefix part must be non-empty".into());
            } else {
                errs.extend(dns1123_subdomain(prefix).iter().map(|e| format!("prefix part {e}")));
            }
            name
        }
        _ => {
            let message = form(MESSAGE, QUALIFIED_FORM, EXAMPLES);
            return vec![format!(
                "a valid label key {message} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errs.push("name part must be non-empty".into());
    } else if name.len() > 63 {
        errs.push(format!("name part {}", bytes_max(63)));
    }
    if !qualified_shaped(name) {
        errs.push(format!("name part {}", form(MESSAGE, QUALIFIED_FORM, EXAMPLES)));
    }
    errs
}

/// A label's value: empty or a name of at most 63 bytes.
pub fn label_value(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 63 {
        errs.push(bytes_max(63));
    }
    if !text.is_empty() && !qualified_shaped(text) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
                       and end with an alphanumeric character";
        errs.push(form(message, &format!("({QUALIFIED_FORM})?"), &["MyValue", "my_value", "12345"]));
    }
    errs
}

/// A name that is one segment of a path: what the RBAC kinds and custom paths take.
pub fn path_segment(text: &str) -> Vec<String> {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => ["/", "%"]
            .iter()
            .filter(|c| text.contains(**c))
            .map(|c| format!("may not contain '{c}'"))
            .collect(),
    }
}

/// The number of a port that can be used: 1 to 65535.
pub fn port_number(port: i64) -> Vec<String> {
    in_range(port, 1, 65_535)
}

/// A number between two others.
pub fn in_range(n: i64, low: i64, high: i64) -> Vec<String> {
    if (low..=high).contains(&n) {
        Vec::new()
    } else {
        vec![format!("must be between {low} and {high}, inclusive")]
    }
}

/// The name of a port (an IANA service name, lower case): at most 15 characters with a letter among them.
pub fn port_name(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 15 {
        errs.push(characters_max(15));
    }
    if text.is_empty() || !text.bytes().all(|b| lower(b) || b == b'-') {
        errs.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".into());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        errs.push("must contain at least one letter (a-z)".into());
    }
    if text.contains("--") {
        errs.push("must not contain consecutive hyphens".into());
    }
    if text.starts_with('-') || text.ends_with('-') {
        errs.push("must not begin or end with a hyphen".into());
    }
    errs
}

/// An environment variable's name: any printable ASCII without `=`.
pub fn env_var_name(text: &str) -> Vec<String> {
    if text.is_empty() {
        return vec!["environment variable name must be non-empty".into()];
    }
    if text.bytes().any(|b| b == b'=' || !(b' '..=b'~').contains(&b)) {
        return vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".into()];
    }
    Vec::new()
}

/// A key of a ConfigMap or Secret: also a file's name.
pub fn config_map_key(text: &str) -> Vec<String> {
    let mut errs = Vec::new();
    if text.len() > 253 {
        errs.push(characters_max(253));
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        let message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        errs.push(form(message, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." => errs.push("must not be '.'".into()),
        ".." => errs.push("must not be '..'".into()),
        _ if text.starts_with("..") => errs.push("must not start with '..'".into()),
        _ => {}
    }
    errs
}

/// A percentage such as `25%`.
pub fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or("");
    if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    vec![form(
        "a valid percent string must be a numeric string followed by an ending '%'",
        "[0-9]+%",
        &["1%", "93%"],
    )]
}

/// An HTTP header's name.
pub fn http_header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![form(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// An IPv4 or IPv6 address. Octets with leading zeros are none.
pub fn ip(text: &str) -> Vec<String> {
    if text.parse::<IpAddr>().is_ok() {
        Vec::new()
    } else {
        vec!["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)".into()]
    }
}

/// An address that others can reach and that is nobody's own: of endpoints and external addresses. Upstream:
/// ValidateNonSpecialIP.
pub fn non_special_ip(text: &str) -> Vec<String> {
    let Ok(ip) = text.parse::<IpAddr>() else { return ip(text) };
    let first = |ip: std::net::Ipv6Addr| ip.segments()[0];
    let (local, local_many) = match ip {
        IpAddr::V4(ip) => (ip.is_link_local(), ip.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(ip) => (first(ip) & 0xffc0 == 0xfe80, first(ip) & 0xff0f == 0xff02),
    };
    let complaints = [
        (ip.is_unspecified(), format!("may not be unspecified ({text})")),
        (ip.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)".to_owned()),
        (local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)".to_owned()),
        (local_many, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)".to_owned()),
    ];
    complaints.into_iter().filter(|(is, _)| *is).map(|(_, why)| why).collect()
}

/// A network such as `10.96.0.0/12`: its address and the length of its prefix.
pub fn parse_cidr(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let digits = length.len() <= 3 && length.bytes().all(|b| b.is_ascii_digit());
    let length: u8 = if digits { length.parse().ok()? } else { return None };
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

/// Whether an address lies in a network, given as [`parse_cidr`] gives it.
pub fn cidr_contains((start, length): (IpAddr, u8), address: IpAddr) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128u32),
    };
    let ((start, bits), (address, same)) = (number(start), number(address));
    let rest = bits.saturating_sub(u32::from(length));
    bits == same && (rest == 128 || start >> rest == address >> rest)
}

/// A network in CIDR notation.
pub fn cidr(text: &str) -> Vec<String> {
    if parse_cidr(text).is_some() {
        return Vec::new();
    }
    vec!["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".into()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_nobody_s_are_told() {
        let table = [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.169.254", "link-local range"),
            ("fe80::1", "link-local range"),
            ("224.0.0.1", "link-local multicast"),
            ("ff02::1", "link-local multicast"),
            ("0.0.0.0", "unspecified"),
            ("x", "must be a valid IP address"),
        ];
        for (ip, why) in table {
            assert!(non_special_ip(ip).concat().contains(why), "{ip}");
        }
        assert!(non_special_ip("10.0.0.1").is_empty() && non_special_ip("fd00::1").is_empty());
    }

    #[test]
    fn good_names_pass() {
        for good in ["a", "0", "my-name", "123-abc"] {
            assert!(dns1123_label(good).is_empty(), "{good}");
        }
        for good in ["example.com", "a.b.c", "a-b.0"] {
            assert!(dns1123_subdomain(good).is_empty(), "{good}");
        }
        for good in ["app", "example.com/My_Name", "a.b"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        assert!(port_name("http-alt").is_empty() && label_value("").is_empty() && percent("25%").is_empty());
        assert!(env_var_name("A b").is_empty() && config_map_key(".dockerconfigjson").is_empty());
    }

    #[test]
    fn bad_names_are_explained_in_upstream_s_words() {
        let cases: &[(Vec<String>, &str)] = &[
            (
                dns1123_label("My"),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            (dns1123_label("a.b"), "must not contain dots"),
            (
                dns1123_subdomain("a_b"),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            (qualified_name("/a"), "prefix part must be non-empty"),
            (
                qualified_name("a b"),
                "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
            (port_number(0), "must be between 1 and 65535, inclusive"),
            (port_name("a--b"), "must not contain consecutive hyphens"),
            (config_map_key("..a"), "must not start with '..'"),
            (path_segment("a/b"), "may not contain '/'"),
            (ip("010.0.0.1"), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"),
            (
                percent("25"),
                "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')",
            ),
        ];
        for (found, wanted) in cases {
            assert_eq!(found, &[(*wanted).to_owned()]);
        }
        assert_eq!(dns1035_label("1a").len(), 1);
        assert_eq!(dns1123_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(label_value(&"a".repeat(64)), ["must be no more than 63 bytes"]);
        assert_eq!(
            (parse_cidr("10.0.0.0/33"), parse_cidr("10.0.0.0/+8"), parse_cidr("10.0.0.0")),
            (None, None, None)
        );
    }
}
