//! What tables show: ages, plain values and the columns that many kinds share.
//! Upstream: pkg/printers/internalversion, k8s.io/apimachinery/pkg/util/duration.

use apimachinery::selector::Selector;
use apimachinery::{Key, Ref, k};
use base::time::Timestamp;

use crate::kind::{Cell, Column, Name, Show};

/// The object's name.
pub(crate) const NAME: Column = Column {
    name: Name::Borrowed("Name"),
    ty: "string",
    format: "name",
    description: Name::Borrowed("The object's name, unique in its namespace."),
    priority: 0,
    show: Show::Path(Name::Borrowed("metadata.name")),
};

/// Time since it was made.
pub(crate) const AGE: Column = Column::code("Age", "string", "Time since the object was made.", |o, now| {
    age_of(o.get(k::METADATA).get(k::CREATION_TIMESTAMP).str(), now)
});

/// When it was made, as upstream shows some kinds.
pub(crate) const CREATED_AT: Column =
    Column::code("Created At", "date", "When the object was made.", |o, _| {
        plain(o.get(k::METADATA).get(k::CREATION_TIMESTAMP))
    });

/// What kinds without columns of their own show.
pub(crate) const NAME_AGE: &[Column] = &[NAME, AGE];

/// Of every kind's Scale.
pub const SCALE: &[Column] = &[
    NAME,
    Column::code("Desired", "integer", "How many pods there should be.", |o, _| {
        Cell::Int(o.get(k::SPEC).get(k::REPLICAS).i64())
    }),
    Column::code("Available", "integer", "How many there are.", |o, _| {
        Cell::Int(o.get(k::STATUS).get(k::REPLICAS).i64())
    }),
    AGE,
];

/// The age of an RFC 3339 time; `<unknown>` without one.
pub(crate) fn age_of(time: &str, now: Timestamp) -> Cell {
    match time.parse::<Timestamp>() {
        Ok(then) => Cell::Text(duration(now.as_second() - then.as_second()).into()),
        Err(_) => Cell::Text("<unknown>".into()),
    }
}

/// The value as it is.
pub(crate) fn plain(at: Ref<'_>) -> Cell {
    if let Some(n) = at.opt_i64() {
        return Cell::Int(n);
    }
    if let Some(b) = at.opt_bool() {
        return Cell::Bool(b);
    }
    match at.opt_str() {
        Some(text) => Cell::from(text),
        None if at.is_set() => Cell::from(String::from_utf8_lossy(&at.to_json()).into_owned()),
        None => Cell::Text("".into()),
    }
}

/// The text or, when it is empty, `<none>`.
pub(crate) fn or_none(text: &str) -> Cell {
    Cell::from(if text.is_empty() { "<none>" } else { text })
}

/// A map of labels as `a=b,c=d`.
pub(crate) fn label_map(labels: Ref<'_>) -> Cell {
    let mut all: Vec<String> =
        labels.entries().map(|(key, value)| format!("{key}={}", value.str())).collect();
    all.sort_unstable();
    or_none(&all.join(","))
}

/// A label selector as text.
fn label_selector(selector: Ref<'_>) -> Cell {
    let mut all: Vec<String> = selector
        .get(k::MATCH_LABELS)
        .entries()
        .map(|(key, value)| format!("{key}={}", value.str()))
        .collect();
    for term in selector.get(k::MATCH_EXPRESSIONS).items() {
        let key = term.get(k::KEY).str();
        let mut values: Vec<&str> = term.get(k::VALUES).items().map(Ref::str).collect();
        values.sort_unstable();
        all.push(match term.get(k::OPERATOR).str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "DoesNotExist" => format!("!{key}"),
            _ => key.to_owned(),
        });
    }
    all.sort_unstable();
    or_none(&all.join(","))
}

/// A selector of either form as text.
pub(crate) fn selector(selector: Ref<'_>) -> Cell {
    if Selector::is_plain(selector) { label_map(selector) } else { label_selector(selector) }
}

/// The images of the containers of `template`.
pub(crate) fn container_images(template: Ref<'_>) -> Cell {
    each(template, k::IMAGE)
}

/// The names of the containers of `template`.
pub(crate) fn container_names(template: Ref<'_>) -> Cell {
    each(template, k::NAME)
}

fn each(template: Ref<'_>, key: Key) -> Cell {
    let containers = template.get(k::SPEC).get(k::CONTAINERS);
    let all: Vec<&str> = containers.items().map(|c| c.get(key).str()).collect();
    Cell::from(all.join(","))
}

/// Seconds as people read them: two significant parts at most, such as `5m30s`, `26h`, `3d4h`.
pub fn duration(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let s = seconds.max(0);
    let (m, h, d) = (s / 60, s / 3600, s / 86_400);
    let two = |major: i64, unit: char, minor: i64, small: char| {
        if minor == 0 { format!("{major}{unit}") } else { format!("{major}{unit}{minor}{small}") }
    };
    match () {
        () if s < 120 => format!("{s}s"),
        () if m < 10 => two(m, 'm', s % 60, 's'),
        () if m < 180 => format!("{m}m"),
        () if h < 8 => two(h, 'h', m % 60, 'm'),
        () if h < 48 => format!("{h}h"),
        () if h < 192 => two(d, 'd', h % 24, 'h'),
        () if d < 730 => format!("{d}d"),
        () if d < 8 * 365 => two(d / 365, 'y', d % 365, 'd'),
        () => format!("{}y", d / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_upstream_prints_them() {
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            assert_eq!(duration(seconds), text, "{seconds}");
        }
    }
}
