//! Links of a page that came through a proxy: those to the page's own server lead through the proxy again.
//!
//! Upstream: k8s.io/apimachinery/pkg/util/proxy/transport.go.

/// Elements and their attributes that hold links.
const LINKS: &[(&str, &[&str])] = &[
    ("a", &["href"]),
    ("applet", &["codebase"]),
    ("area", &["href"]),
    ("audio", &["src"]),
    ("base", &["href"]),
    ("blockquote", &["cite"]),
    ("body", &["background"]),
    ("button", &["formaction"]),
    ("command", &["icon"]),
    ("del", &["cite"]),
    ("embed", &["src"]),
    ("form", &["action"]),
    ("frame", &["longdesc", "src"]),
    ("head", &["profile"]),
    ("html", &["manifest"]),
    ("iframe", &["longdesc", "src"]),
    ("img", &["longdesc", "src", "usemap"]),
    ("input", &["src", "usemap", "formaction"]),
    ("ins", &["cite"]),
    ("link", &["href"]),
    ("object", &["classid", "codebase", "data", "usemap"]),
    ("q", &["cite"]),
    ("script", &["src"]),
    ("source", &["src"]),
    ("video", &["poster", "src"]),
];
/// Elements whose text holds no elements.
const PLAIN: [&str; 4] = ["script", "style", "textarea", "title"];

/// A link as it is to be: an absolute path, or a URL of one of the `hosts`, gets `prefix` before its path.
pub fn rewrite(link: &str, hosts: &[&str], prefix: &str) -> String {
    let path = match link.split_once("://") {
        Some(("http" | "https", rest)) => {
            let (host, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            if !hosts.contains(&host) {
                return link.to_owned();
            }
            if path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
        }
        _ if link.starts_with('/') && !link.starts_with("//") => link.to_owned(),
        _ => return link.to_owned(),
    };
    if path.starts_with(prefix) { path } else { format!("{prefix}{path}") }
}

/// A page with its links rewritten.
pub fn page(text: &str, rewritten: impl Fn(&str) -> String) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('<') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if rest.starts_with("<!--") {
            let end = rest.find("-->").map_or(rest.len(), |end| end + 3);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
            continue;
        }
        if !rest[1..].starts_with(|c: char| c.is_ascii_alphabetic() || "/!?".contains(c)) {
            out.push('<');
            rest = &rest[1..];
            continue;
        }
        let name: String = rest[1..]
            .chars()
            .take_while(char::is_ascii_alphanumeric)
            .collect::<String>()
            .to_ascii_lowercase();
        let end = tag_end(rest);
        let links = LINKS.iter().find(|(element, _)| *element == name).map_or(&[][..], |(_, links)| links);
        if links.is_empty() {
            out.push_str(&rest[..end]);
        } else {
            tag(&rest[..end], links, &rewritten, &mut out);
        }
        rest = &rest[end..];
        if PLAIN.contains(&name.as_str()) {
            let closing = format!("</{name}");
            let lower = rest.to_ascii_lowercase();
            let end = lower.find(&closing).unwrap_or(rest.len());
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

/// Where a tag ends; what stands in quotes ends nothing.
fn tag_end(text: &str) -> usize {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '>') => return at + 1,
            (None, '"' | '\'') => quote = Some(c),
            (Some(q), c) if q == c => quote = None,
            _ => {}
        }
    }
    text.len()
}

fn tag(text: &str, links: &[&str], rewritten: &impl Fn(&str) -> String, out: &mut String) {
    let mut rest = text;
    while let Some(at) = rest.find('=') {
        let (before, value) = rest.split_at(at + 1);
        out.push_str(before);
        let name =
            before[..at].trim_end().rsplit(|c: char| c.is_whitespace() || c == '"' || c == '\'').next();
        let is_link = name.is_some_and(|n| links.contains(&n.to_ascii_lowercase().as_str()));
        let space = value.len() - value.trim_start().len();
        out.push_str(&value[..space]);
        let value = &value[space..];
        let (quote, inner) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let end = value[1..].find(quote).map_or(value.len(), |end| end + 1);
                (Some(quote), &value[1..end])
            }
            _ => (None, &value[..value.find(|c: char| c.is_whitespace() || c == '>').unwrap_or(value.len())]),
        };
        out.extend(quote);
        if is_link {
            // What the page wrote as `&amp;` it means as `&`; no other character of a link needs it.
            out.push_str(&rewritten(&inner.replace("&amp;", "&")).replace('&', "&amp;"));
        } else {
            out.push_str(inner);
        }
        rest = &value[inner.len() + usize::from(quote.is_some())..];
    }
    out.push_str(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_the_server_lead_through_the_proxy() {
        let of = |link| rewrite(link, &["10.0.0.1:80", "api:6443"], "/api/proxy");
        for (link, want) in [
            ("/a?b=c#d", "/api/proxy/a?b=c#d"),
            ("/", "/api/proxy/"),
            ("http://10.0.0.1:80/x/", "/api/proxy/x/"),
            ("http://10.0.0.1:80", "/api/proxy/"),
            ("https://api:6443/api/proxy/x", "/api/proxy/x"),
            ("http://elsewhere/x", "http://elsewhere/x"),
            ("//elsewhere/x", "//elsewhere/x"),
            ("x/y", "x/y"),
            ("#z", "#z"),
            ("mailto:a@b", "mailto:a@b"),
        ] {
            assert_eq!(of(link), want);
        }
    }

    #[test]
    fn a_page_keeps_all_but_its_links() {
        let text = r#"<!-- <a href="/no"> --><A class=x HREF="/a&amp;b" title='<a href="/no">'>/no</a><img src=/i alt='/no'><script src='/s'>"<a href=/no>"</script><p data-href="/no">1 < 2<form action = "/f"/>"#;
        let want = r#"<!-- <a href="/no"> --><A class=x HREF="/P/a&amp;b" title='<a href="/no">'>/no</a><img src=/P/i alt='/no'><script src='/P/s'>"<a href=/no>"</script><p data-href="/no">1 < 2<form action = "/P/f"/>"#;
        assert_eq!(page(text, |link| rewrite(link, &[], "/P")), want);
        for odd in ["<", "<a", "<a href", "<a href=", "<a href=\"/x", "<!--", "<script>"] {
            assert!(page(odd, str::to_owned).starts_with(odd), "{odd}");
        }
    }
}
