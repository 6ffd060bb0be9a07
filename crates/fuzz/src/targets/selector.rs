//! Selectors: they print what they read, and choose what a plain model chooses.

use apimachinery::selector::{FieldSelector, Selector};
use serde_json::{Value, json};

use super::doc;
use crate::dice::Dice;
use crate::{Verdict, check, make};

const KEYS: [&str; 5] = ["a", "b", "example.com/c", "in", "notin"];
const VALUES: [&str; 7] = ["", "x", "y", "5", "007", "in", "x.y_z"];
const TOKENS: [&str; 24] = [
    "a", "b", "in", "notin", "x", "5", "!", "=", "==", "!=", "<", ">", "(", ")", ",", " ", "a/b", "-", ".",
    "\\", "\t", "ä", "\u{a0}", "'",
];

/// One condition: key, operator, values.
struct Term(&'static str, &'static str, Vec<&'static str>);

impl Term {
    fn throw(dice: &mut Dice) -> Term {
        let op = dice.pick(&["=", "==", "!=", "in", "notin", "", "!", ">", "<"]);
        let n = match op {
            "in" | "notin" => 1 + dice.upto(3),
            "" | "!" => 0,
            _ => 1,
        };
        let of = if matches!(op, ">" | "<") { &VALUES[3..5] } else { &VALUES[..] };
        let values = (0..n).map(|_| dice.pick(of)).collect();
        Term(dice.pick(&KEYS), op, values)
    }

    fn text(&self, dice: &mut Dice) -> String {
        let space = dice.pick(&["", " "]);
        let Term(key, op, values) = self;
        match *op {
            "" => format!("{space}{key}"),
            "!" => format!("!{space}{key}"),
            "in" | "notin" => format!("{key} {op}{space}({})", values.join(",")),
            op => format!("{key}{space}{op}{space}{}", values.first().copied().unwrap_or("")),
        }
    }

    fn holds(&self, labels: &Value) -> bool {
        let Term(key, op, values) = self;
        let have = labels.get(key).and_then(Value::as_str);
        let one = values.is_empty() && have == Some("") || values.iter().any(|v| have == Some(v));
        let number = |text: &str| text.parse::<i64>().ok();
        let order = have.and_then(number).zip(values.first().and_then(|v| number(v)));
        match *op {
            "" => have.is_some(),
            "!" => have.is_none(),
            "!=" | "notin" => !one,
            ">" => order.is_some_and(|(have, want)| have > want),
            "<" => order.is_some_and(|(have, want)| have < want),
            _ => one,
        }
    }
}

fn printed(selector: &Selector) -> Verdict {
    let text = selector.to_string();
    let again = Selector::parse(&text).map_err(|e| format!("{text}: {e}"))?;
    // Sets print in order.
    check(again.to_string() == text, || format!("{text} became {again}"))
}

pub fn run(dice: &mut Dice) -> Verdict {
    match dice.below(4) {
        0 | 1 => of_labels(dice),
        2 => of_fields(dice),
        _ => {
            let n = dice.upto(12);
            let text: String = (0..n).map(|_| dice.pick(&TOKENS)).collect();
            dice.say("text", text.as_bytes());
            drop(FieldSelector::parse(&text));
            Selector::parse(&text).map_or(Ok(()), |selector| printed(&selector))
        }
    }
}

fn of_labels(dice: &mut Dice) -> Verdict {
    let terms: Vec<Term> = (0..dice.upto(4)).map(|_| Term::throw(dice)).collect();
    let texts: Vec<String> = terms.iter().map(|t| t.text(dice)).collect();
    let text = texts.join(",");
    dice.say("selector", text.as_bytes());
    let mut labels = json!({});
    for _ in 0..dice.upto(4) {
        labels[dice.pick(&KEYS)] = Value::from(dice.pick(&VALUES));
    }
    dice.say("labels", labels.to_string().as_bytes());
    let selector = Selector::parse(&text).map_err(|e| e.to_string())?;
    printed(&selector)?;
    let want = terms.iter().all(|t| t.holds(&labels));
    check(selector.matches(doc(&labels).root()) == want, || format!("{want} by the model"))?;
    // The same as an object, as far as objects have these operators.
    let named = |op: &str| match op {
        "=" | "==" | "in" => Some("In"),
        "!=" | "notin" => Some("NotIn"),
        "" => Some("Exists"),
        "!" => Some("DoesNotExist"),
        _ => None,
    };
    let expression = |t: &Term| {
        let values = if t.2.is_empty() && !t.1.is_empty() && t.1 != "!" { vec![""] } else { t.2.clone() };
        Some(json!({ "key": t.0, "operator": named(t.1)?, "values": values }))
    };
    let Some(expressions) = terms.iter().map(expression).collect::<Option<Vec<_>>>() else { return Ok(()) };
    let object = doc(&json!({ "matchExpressions": expressions }));
    let selector = Selector::from_label_selector(object.root()).map_err(|e| e.to_string())?;
    check(selector.matches(doc(&labels).root()) == want, || format!("{want} by the model, as an object"))
}

fn of_fields(dice: &mut Dice) -> Verdict {
    let fields = ["metadata.name", "spec.nodeName", "a"];
    let terms: Vec<(&str, &str, String)> = (0..dice.upto(4))
        .map(|_| (dice.pick(&fields), dice.pick(&["=", "==", "!="]), make::text(dice)))
        .collect();
    let escape = |text: &str| text.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
    let text: Vec<String> = terms.iter().map(|(f, op, v)| format!("{f}{op}{}", escape(v))).collect();
    dice.say("selector", text.join(",").as_bytes());
    let values: Vec<String> = fields
        .iter()
        .map(|f| match terms.iter().find(|t| t.0 == *f) {
            Some(term) if dice.rarely(2) => term.2.clone(),
            _ => make::text(dice),
        })
        .collect();
    let have = |field: &str| fields.iter().position(|f| *f == field).map_or("", |i| values[i].as_str());
    let selector = FieldSelector::parse(&text.join(",")).map_err(|e| e.to_string())?;
    let want = terms.iter().all(|(f, op, v)| (have(f) == v) == (*op != "!="));
    check(selector.matches_by(have) == want, || format!("{want} by the model"))
}
