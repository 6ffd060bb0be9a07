//! Which kind or version was probably meant.

/// For a kind or `apiVersion` that is not served: a sentence that names what was probably meant. `version` is
/// `apiVersion` without the group.
pub fn suggest(group: &str, version: &str, kind: &str) -> Option<String> {
    let kinds = crate::kinds();
    let known = kinds.iter().find(|k| k.kind.eq_ignore_ascii_case(kind));
    let meant = match known {
        Some(found) => found,
        None => {
            kinds
                .iter()
                .map(|k| (distance(&k.kind, kind), k))
                .filter(|(d, k)| *d <= k.kind.len() / 2)
                .min_by_key(|(d, _)| *d)?
                .1
        }
    };
    let right = meant.versions.first()?;
    if right.gv.group == group && right.gv.version == version && meant.kind == kind {
        return None;
    }
    Some(format!("did you mean kind {:?} in apiVersion {:?}?", meant.kind, right.gv.to_string()))
}

/// How many letters must be added, removed or replaced; upper and lower case are the same.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.to_lowercase(), b.to_lowercase());
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let cost = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
