//! Quantities against whole numbers of nano units.

use apimachinery::quantity::{Format, Quantity, canonical};

use crate::dice::Dice;
use crate::{Verdict, check, make};

const SUFFIXES: [(&str, i128, i128); 18] = [
    ("", 1, 1),
    ("n", 1, 1_000_000_000),
    ("u", 1, 1_000_000),
    ("m", 1, 1_000),
    ("k", 1_000, 1),
    ("M", 1_000_000, 1),
    ("G", 1_000_000_000, 1),
    ("T", 1_000_000_000_000, 1),
    ("Ki", 1 << 10, 1),
    ("Mi", 1 << 20, 1),
    ("Gi", 1 << 30, 1),
    ("Ti", 1 << 40, 1),
    ("e0", 1, 1),
    ("e3", 1_000, 1),
    ("E2", 100, 1),
    ("e-2", 1, 100),
    ("E-9", 1, 1_000_000_000),
    ("e+4", 10_000, 1),
];
const NANO: i128 = 1_000_000_000;

/// `n / d`, away from zero.
fn up(n: i128, d: i128) -> i128 {
    n / d + if n % d == 0 { 0 } else { n.signum() }
}

/// A text and its amount in nano units.
fn throw(dice: &mut Dice) -> (String, i128) {
    let sign = dice.pick(&["", "-", "+"]);
    let bits = dice.below(34);
    let whole = dice.below(1 << bits);
    let zeros = "0".repeat(dice.upto(3));
    let digits = dice.upto(8);
    let fraction: String = (0..digits).map(|_| char::from(b'0' + dice.below(10) as u8)).collect();
    let dot = if digits > 0 || dice.rarely(9) { "." } else { "" };
    let (suffix, times, parts) = dice.pick(&SUFFIXES);
    let n: i128 = format!("{whole}{fraction}").parse().expect("digits");
    let mut nano = up(n * times * NANO, parts * 10i128.pow(digits as u32));
    if suffix.ends_with('i') {
        nano = nano.min(i128::from(i64::MAX) * NANO);
    }
    (format!("{sign}{zeros}{whole}{dot}{fraction}{suffix}"), if sign == "-" { -nano } else { nano })
}

fn small(n: i128) -> i64 {
    i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX })
}

pub fn run(dice: &mut Dice) -> Verdict {
    if dice.rarely(4) {
        let pieces =
            ["1", "0", ".", "-", "+", "e", "E", "i", "K", "M", "m", "n", "99999999999999999999", "ä", " "];
        let n = dice.upto(8);
        let text: String =
            if dice.rarely(4) { make::text(dice) } else { (0..n).map(|_| dice.pick(&pieces)).collect() };
        dice.say("text", text.as_bytes());
        return Quantity::parse(&text).map_or(Ok(()), |q| printed(&text, q));
    }
    let ((a, a_nano), (b, b_nano)) = (throw(dice), throw(dice));
    dice.say("texts", format!("{a} {b}").as_bytes());
    let parse = |text: &str| Quantity::parse(text).map_err(|e| format!("{text}: {e}"));
    let (left, right) = (parse(&a)?, parse(&b)?);
    printed(&a, left)?;
    let is = |what: &str, got: Quantity, nano: i128| {
        let parts = (got.scaled_value(-9), got.milli_value(), got.value(), got.signum());
        let want = (small(nano), small(up(nano, NANO / 1000)), small(up(nano, NANO)), nano.signum() as i32);
        check(parts == want, || format!("{what}: {parts:?}, not {want:?}"))
    };
    is(&a, left, a_nano)?;
    is("the sum", left.add(right), a_nano + b_nano)?;
    is("the difference", left.sub(right), a_nano - b_nano)?;
    is("the negated", left.negated(), -a_nano)?;
    check(left.cmp(&right) == a_nano.cmp(&b_nano), || format!("{:?}", left.cmp(&right)))?;
    for format in [Format::DecimalSi, Format::BinarySi, Format::DecimalExponent] {
        // Binary amounts end at the greatest number, with either sign.
        let whole = small(up(a_nano, NANO)).max(-i64::MAX);
        printed("a number", Quantity::from_value(whole, format))?;
        is("a whole number", Quantity::from_value(whole, format), i128::from(whole) * NANO)?;
    }
    Ok(())
}

/// What is printed is the same amount, and prints so again. Binary amounts that print without a suffix are read as
/// decimal ones, as upstream's are.
fn printed(text: &str, quantity: Quantity) -> Verdict {
    let settled = |shown: &str| quantity.format() != Format::BinarySi || shown.ends_with('i');
    let shown = quantity.to_string();
    let again = Quantity::parse(&shown).map_err(|e| format!("{text} printed as {shown}: {e}"))?;
    check(again == quantity && (again.to_string() == shown || !settled(&shown)), || {
        format!("{text} printed as {shown}, then {again}")
    })?;
    if let Ok(kept) = canonical(text) {
        let again = canonical(&kept).map_err(|e| format!("{kept}: {e}"))?;
        let amount = Quantity::parse(&kept).map_err(|e| format!("{kept}: {e}"))?;
        check(amount == quantity && (again == kept || !settled(&kept)), || {
            format!("{text} is kept as {kept}, then {again}")
        })?;
    }
    Ok(())
}
