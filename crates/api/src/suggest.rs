//! What was probably meant by a name that is not known.

/// For a kind or version that is not served: a sentence that names what was probably meant. `version` is
/// `apiVersion` without the group. `None` when nothing is near.
pub fn suggest(group: &str, version: &str, kind: &str) -> Option<String> {
    let kinds = crate::list::all();
    let exact = kinds.iter().find(|k| k.kind.eq_ignore_ascii_case(kind));
    let names: Vec<&str> = kinds.iter().map(|k| &*k.kind).collect();
    let meant = match exact {
        Some(found) => found,
        None => {
            let name = closest(kind, &names)?;
            kinds.iter().find(|k| k.kind == name)?
        }
    };
    let right = meant.versions.first()?;
    if right.gv.group == group && right.gv.version == version && meant.kind == kind {
        return None;
    }
    Some(format!("did you mean apiVersion {:?}, kind {:?}?", right.gv.to_string(), meant.kind))
}

/// The known word nearest to `word`, if it is near: a third of its letters may differ, or its first half (people
/// write `ObjectQuota` for `ResourceQuota`) when its last word, of capital letter and five more, is the same.
pub(crate) fn closest<'n>(word: &str, known: &[&'n str]) -> Option<&'n str> {
    let nearest = known.iter().map(|k| (distance(k, word), *k)).min()?;
    if nearest.0 <= word.len().max(3) / 3 {
        return Some(nearest.1);
    }
    let tail = &word[word.rfind(|c: char| c.is_ascii_uppercase())?..];
    let mut same = known.iter().filter(|k| tail.len() > 4 && k.ends_with(tail));
    same.next().copied().filter(|_| same.next().is_none())
}

/// How many letters must be added, removed or replaced; upper and lower case are the same.
fn distance(a: &str, b: &str) -> usize {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant() {
        let cases = [
            ("", "1", "ResourceQuota", Some("did you mean apiVersion \"v1\", kind \"ResourceQuota\"?")),
            ("", "v1", "ObjectQuota", Some("did you mean apiVersion \"v1\", kind \"ResourceQuota\"?")),
            ("", "v1", "Deploymant", Some("did you mean apiVersion \"apps/v1\", kind \"Deployment\"?")),
            ("apps", "v1", "deployment", Some("did you mean apiVersion \"apps/v1\", kind \"Deployment\"?")),
            ("", "v1", "Pod", None),
            ("", "v1", "Zeppelin", None),
        ];
        for (group, version, kind, wanted) in cases {
            assert_eq!(suggest(group, version, kind).as_deref(), wanted, "{group}/{version} {kind}");
        }
        assert_eq!(
            closest("persistentvolumesclaim", &["pods", "persistentvolumeclaims"]),
            Some("persistentvolumeclaims")
        );
    }
}
