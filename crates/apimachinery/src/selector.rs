//! Label and field selectors: which objects of a collection are meant.
//!
//! A selector is read once and asked often: matching allocates nothing and takes the labels as a look-up, so that
//! it does not matter how an object keeps them.
//! Upstream: k8s.io/apimachinery/pkg/labels and pkg/fields, and `LabelSelectorAsSelector` of pkg/apis/meta/v1.

use base::hash::Set;

use crate::doc::Ref;
use crate::{k, validation};

/// How a label must relate to the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operator {
    /// Is there and one of the values.
    In,
    /// Is missing or none of the values.
    NotIn,
    /// Is there.
    Exists,
    /// Is missing.
    DoesNotExist,
    /// Is there, a whole number, and greater than the one value.
    GreaterThan,
    /// Is there, a whole number, and less than the one value.
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it must relate to the values.
    pub operator: Operator,
    /// The values; empty for [`Operator::Exists`] and [`Operator::DoesNotExist`].
    pub values: Vec<String>,
}

/// Conditions on labels, all of which must hold; or a selector that nothing matches.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Selector {
    nothing: bool,
    requirements: Vec<Requirement>,
}

/// Why text or an object is no selector. The words are upstream's, as clients see them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SelectorError(String);

impl Requirement {
    /// Whether a label's value (`None` when missing) satisfies the condition.
    pub fn matches(&self, value: Option<&str>) -> bool {
        let one_of = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::In => value.is_some_and(one_of),
            Operator::NotIn => !value.is_some_and(one_of),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let number = |text: &str| text.parse::<i64>().ok();
                match (value.and_then(number), self.values.first().and_then(|v| number(v))) {
                    (Some(have), Some(want)) if self.operator == Operator::GreaterThan => have > want,
                    (Some(have), Some(want)) => have < want,
                    _ => false,
                }
            }
        }
    }

    fn new(key: &str, operator: Operator, values: Vec<String>) -> Result<Requirement, SelectorError> {
        check_key(key)?;
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return err(
                    "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty",
                );
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return err("values: Invalid value: values set must be empty for exists and does not exist");
            }
            Operator::GreaterThan | Operator::LessThan if values.len() != 1 => {
                return err("values: Invalid value: for 'Gt', 'Lt' operators, exactly one value is required");
            }
            Operator::GreaterThan | Operator::LessThan if values[0].parse::<i64>().is_err() => {
                return err(&format!(
                    "values[0]: Invalid value: {:?}: for 'Gt', 'Lt' operators, the value must be an integer",
                    values[0]
                ));
            }
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            check_value(i, key, value)?;
        }
        Ok(Requirement { key: key.to_owned(), operator, values })
    }
}

impl std::fmt::Display for Requirement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let all = || {
            let mut sorted: Vec<&str> = self.values.iter().map(String::as_str).collect();
            sorted.sort_unstable();
            sorted.join(",")
        };
        match self.operator {
            Operator::In if self.values.len() == 1 => write!(f, "{}={}", self.key, self.values[0]),
            Operator::NotIn if self.values.len() == 1 => write!(f, "{}!={}", self.key, self.values[0]),
            Operator::In => write!(f, "{} in ({})", self.key, all()),
            Operator::NotIn => write!(f, "{} notin ({})", self.key, all()),
            Operator::Exists => f.write_str(&self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::GreaterThan => write!(f, "{}>{}", self.key, all()),
            Operator::LessThan => write!(f, "{}<{}", self.key, all()),
        }
    }
}

impl Selector {
    /// Matches every object.
    pub fn everything() -> Selector {
        Selector::default()
    }

    /// Matches no object.
    pub fn nothing() -> Selector {
        Selector { nothing: true, requirements: Vec::new() }
    }

    /// Reads the text form (`app=web,tier in (a, b),!old`); the empty text matches everything.
    ///
    /// # Errors
    /// When the text is not of that form or names an impossible label or value.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        let mut lexer = Lexer { rest: text };
        let mut requirements = Vec::new();
        if lexer.peek() == Token::End {
            return Ok(Selector::everything());
        }
        loop {
            requirements.push(lexer.requirement()?);
            match lexer.next() {
                Token::End => break,
                Token::Comma => {
                    if let Token::End = lexer.peek() {
                        return err("found '', expected: identifier after ','");
                    }
                }
                other => return err(&format!("found '{}', expected: ',' or 'end of string'", other.text())),
            }
        }
        requirements.sort_by(|a: &Requirement, b| a.key.cmp(&b.key));
        Ok(Selector { nothing: false, requirements })
    }

    /// Reads a `metav1.LabelSelector`. An absent one matches nothing, an empty one everything.
    ///
    /// # Errors
    /// For an unknown operator, or values that do not fit it.
    pub fn from_label_selector(selector: Ref<'_>) -> Result<Selector, SelectorError> {
        if !selector.is_set() {
            return Ok(Selector::nothing());
        }
        let mut out = Selector::from_map(selector.get(k::MATCH_LABELS))?;
        for expression in selector.get(k::MATCH_EXPRESSIONS).items() {
            let operator = match expression.get(k::OPERATOR).str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return err(&format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression.get(k::VALUES).items().map(|v| v.str().to_owned()).collect();
            out.requirements.push(Requirement::new(expression.get(k::KEY).str(), operator, values)?);
        }
        Ok(out)
    }

    /// Reads a plain map of labels, such as a Service's selector; an empty one matches everything.
    ///
    /// # Errors
    /// For an impossible label or value.
    pub fn from_map(labels: Ref<'_>) -> Result<Selector, SelectorError> {
        let mut requirements = Vec::new();
        for (key, value) in labels.entries() {
            requirements.push(Requirement::new(key, Operator::In, vec![value.str().to_owned()])?);
        }
        Ok(Selector { nothing: false, requirements })
    }

    /// Reads a selector of either form, as `spec.selector` of one kind or another has it; a missing one matches nothing.
    ///
    /// # Errors
    /// As the two forms.
    pub fn from_either(selector: Ref<'_>) -> Result<Selector, SelectorError> {
        if Selector::is_plain(selector) {
            Selector::from_map(selector)
        } else {
            Selector::from_label_selector(selector)
        }
    }

    /// Whether it is a plain map of labels, and not `matchLabels` and `matchExpressions`.
    pub fn is_plain(selector: Ref<'_>) -> bool {
        selector.is_object()
            && !selector.get(k::MATCH_LABELS).is_object()
            && !selector.get(k::MATCH_EXPRESSIONS).is_array()
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object with these labels (`metadata.labels`, absent for none) matches.
    pub fn matches(&self, labels: Ref<'_>) -> bool {
        self.matches_by(|key| labels.get(key).opt_str())
    }

    /// Whether an object matches whose labels are looked up by `label`.
    pub fn matches_by<'v>(&self, label: impl Fn(&str) -> Option<&'v str>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(label(&r.key)))
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if i > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

/// Conditions on selectable fields (`spec.nodeName=a,status.phase!=Failed`), all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct FieldSelector {
    terms: Vec<FieldTerm>,
}

/// One condition on one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// The field, with dots.
    pub field: String,
    /// Whether the field must equal the value, or must not.
    pub equal: bool,
    /// The value.
    pub value: String,
}

impl FieldSelector {
    /// Matches every object.
    pub fn everything() -> FieldSelector {
        FieldSelector::default()
    }

    /// The one condition `field=value`.
    pub fn equal(field: &str, value: &str) -> FieldSelector {
        FieldSelector { terms: vec![FieldTerm { field: field.into(), equal: true, value: value.into() }] }
    }

    /// Reads the text form. `\,`, `\=` and `\\` stand for themselves within a value.
    ///
    /// # Errors
    /// When a condition has no operator or an escape stands for nothing. Whether a kind has the field is for the
    /// kind to say.
    pub fn parse(text: &str) -> Result<FieldSelector, SelectorError> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let Some((field, equal, value)) = split_term(part) else {
                return err(&format!("invalid selector: '{text}'; can't understand '{part}'"));
            };
            terms.push(FieldTerm { field: field.to_owned(), equal, value: unescape(value)? });
        }
        Ok(FieldSelector { terms })
    }

    /// Whether every object matches.
    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    /// The conditions.
    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that `field` must have, if there is a condition that says so.
    pub fn requires(&self, field: &str) -> Option<&str> {
        self.terms.iter().find(|t| t.equal && t.field == field).map(|t| t.value.as_str())
    }

    /// Whether an object matches whose fields are looked up by `field` (`""` where unset).
    pub fn matches_by<'v>(&self, field: impl Fn(&str) -> &'v str) -> bool {
        self.terms.iter().all(|t| (field(&t.field) == t.value) == t.equal)
    }
}

fn err<T>(words: &str) -> Result<T, SelectorError> {
    Err(SelectorError(words.to_owned()))
}

/// Parts between commas that no backslash precedes.
fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut escaped) = (Vec::new(), 0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                parts.push(&text[start..i]);
                start = i + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    for (i, _) in part.char_indices() {
        for (operator, equal) in [("!=", false), ("==", true), ("=", true)] {
            if let Some(value) = part[i..].strip_prefix(operator) {
                return Some((&part[..i], equal, value));
            }
        }
    }
    None
}

fn unescape(value: &str) -> Result<String, SelectorError> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(c @ ('\\' | ',' | '=')) => out.push(c),
                other => {
                    return err(&format!(
                        "invalid field selector: invalid escape sequence: \\{}",
                        other.map(String::from).unwrap_or_default()
                    ));
                }
            },
            ',' | '=' => return err(&format!("invalid field selector: unescaped character in value: {c}")),
            c => out.push(c),
        }
    }
    Ok(out)
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    Comma,
    Open,
    Close,
    Not,
    Equal,
    NotEqual,
    Greater,
    Less,
    End,
}

impl<'t> Token<'t> {
    fn text(self) -> &'t str {
        match self {
            Token::Word(w) => w,
            Token::Comma => ",",
            Token::Open => "(",
            Token::Close => ")",
            Token::Not => "!",
            Token::Equal => "=",
            Token::NotEqual => "!=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::End => "",
        }
    }
}

struct Lexer<'t> {
    rest: &'t str,
}

impl<'t> Lexer<'t> {
    fn peek(&self) -> Token<'t> {
        Lexer { rest: self.rest }.next()
    }

    fn next(&mut self) -> Token<'t> {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        const SIGNS: &[(&str, Token<'static>)] = &[
            ("!=", Token::NotEqual),
            ("==", Token::Equal),
            ("=", Token::Equal),
            ("!", Token::Not),
            (",", Token::Comma),
            ("(", Token::Open),
            (")", Token::Close),
            (">", Token::Greater),
            ("<", Token::Less),
        ];
        if self.rest.is_empty() {
            return Token::End;
        }
        for (sign, token) in SIGNS {
            if let Some(rest) = self.rest.strip_prefix(sign) {
                self.rest = rest;
                return *token;
            }
        }
        let end = self
            .rest
            .find([' ', '\t', '\r', '\n', '=', '!', '(', ')', ',', '<', '>'])
            .unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Token::Word(word)
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == Token::Not;
        if negated {
            self.next();
        }
        let key = match self.next() {
            Token::Word(word) => word,
            other => {
                return err(&format!(
                    "found '{}', expected: !, identifier, or 'end of string'",
                    other.text()
                ));
            }
        };
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        let operator = match self.peek() {
            Token::End | Token::Comma => return Requirement::new(key, Operator::Exists, Vec::new()),
            Token::Word("in") => Operator::In,
            Token::Word("notin") => Operator::NotIn,
            Token::Equal => return self.single(key, Operator::In),
            Token::NotEqual => return self.single(key, Operator::NotIn),
            Token::Greater => return self.single(key, Operator::GreaterThan),
            Token::Less => return self.single(key, Operator::LessThan),
            other => {
                return err(&format!("found '{}', expected: in, notin, =, ==, !=, gt, lt", other.text()));
            }
        };
        self.next();
        let values = self.set()?;
        Requirement::new(key, operator, values)
    }

    fn single(&mut self, key: &str, operator: Operator) -> Result<Requirement, SelectorError> {
        self.next();
        let value = match self.peek() {
            Token::Word(word) => {
                self.next();
                word
            }
            Token::End | Token::Comma => "",
            other => return err(&format!("found '{}', expected: identifier", other.text())),
        };
        Requirement::new(key, operator, vec![value.to_owned()])
    }

    fn set(&mut self) -> Result<Vec<String>, SelectorError> {
        if self.next() != Token::Open {
            return err("found '', expected: '('");
        }
        let mut values: Vec<String> = Vec::new();
        let mut seen: Set<&str> = Set::default();
        loop {
            let value = match self.peek() {
                Token::Word(word) => {
                    self.next();
                    word
                }
                Token::Comma | Token::Close => "",
                other => return err(&format!("found '{}', expected: ',', ')' or identifier", other.text())),
            };
            if seen.insert(value) {
                values.push(value.to_owned());
            }
            match self.next() {
                Token::Comma => {}
                Token::Close => return Ok(values),
                other => return err(&format!("found '{}', expected: ',' or ')'", other.text())),
            }
        }
    }
}

fn check_key(key: &str) -> Result<(), SelectorError> {
    match validation::qualified_name(key).as_slice() {
        [] => Ok(()),
        complaints => err(&format!("key: Invalid value: {key:?}: {}", complaints.join("; "))),
    }
}

fn check_value(index: usize, key: &str, value: &str) -> Result<(), SelectorError> {
    match validation::label_value(value).as_slice() {
        [] => Ok(()),
        complaints => {
            err(&format!("values[{index}][{key}]: Invalid value: {value:?}: {}", complaints.join("; ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doc;

    #[test]
    fn label_selectors_match_as_upstreams() {
        let labels = doc!({ "app": "web", "tier": "front", "n": "5", "empty": "" });
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (api, web)", true),
            ("app notin (web)", false),
            ("!app", false),
            ("!missing", true),
            ("missing", false),
            ("app", true),
            ("missing!=x", true),
            ("n>4", true),
            ("n<5", false),
            ("empty=", true),
            ("empty in (,x)", true),
            ("app=", false),
            (" app = web , n ", true),
            ("x notin (a,b)", true),
        ];
        for (text, expected) in cases {
            let selector = Selector::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(selector.matches(labels.root()), expected, "{text}");
            let again = Selector::parse(&selector.to_string()).expect("the display form can be read");
            assert_eq!(again, selector, "{text}");
        }
        for bad in [
            "app=web,",
            ",app",
            "app in",
            "app in (a",
            "app=(a)",
            "=a",
            "a b",
            "app=!x",
            "-a=b",
            "a=-b",
            "n>x",
            "a/b/c=d",
        ] {
            assert!(Selector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_label_selector_object_is_read() {
        let selector = doc!({ "matchLabels": { "app": "web" }, "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["x"] }] });
        let selector = Selector::from_label_selector(selector.root()).expect("well-formed");
        assert_eq!(selector.to_string(), "app=web,tier!=x");
        assert!(Selector::from_label_selector(Ref::absent()).expect("absent").nothing);
        assert!(Selector::from_label_selector(doc!({}).root()).expect("empty").is_everything());
        let bad = doc!({ "matchExpressions": [{ "key": "a", "operator": "Is" }] });
        assert_eq!(
            Selector::from_label_selector(bad.root()).unwrap_err().to_string(),
            "\"Is\" is not a valid label selector operator"
        );
    }

    #[test]
    fn a_long_list_of_values_is_read_in_one_go() {
        let values: Vec<String> = (0..100_000).map(|i| format!("v{i}")).collect();
        let text = format!("a in ({0},{0})", values.join(","));
        // It would take minutes if each value were looked for among those before it.
        let selector = Selector::parse(&text).expect("well-formed");
        assert_eq!(selector.requirements()[0].values.len(), values.len());
    }

    #[test]
    fn field_selectors_match_and_unescape() {
        let selector =
            FieldSelector::parse(r"spec.nodeName=a,status.phase!=Failed,x==b\,c").expect("well-formed");
        let look = |phase: &'static str| {
            move |f: &str| match f {
                "spec.nodeName" => "a",
                "status.phase" => phase,
                _ => "b,c",
            }
        };
        assert!(selector.matches_by(look("Running")));
        assert!(!selector.matches_by(look("Failed")));
        assert_eq!(selector.requires("spec.nodeName"), Some("a"));
        assert_eq!(selector.requires("status.phase"), None);
        assert!(FieldSelector::parse("novalue").is_err());
        assert!(FieldSelector::parse(r"a=\x").is_err());
        assert!(FieldSelector::parse("").expect("empty").is_everything());
    }
}
