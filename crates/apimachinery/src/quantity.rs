//! Quantities: decimal numbers with SI, binary or exponent suffixes (`500m`, `512Mi`, `12e6`), in Go's canonical forms.
//!
//! A number is a 128-bit mantissa and a power of ten, rounded up to nano as upstream does. Where we differ on purpose:
//! numerals of more than 38 digits are refused, sums beyond the mantissa saturate, values beyond `i64` saturate instead of
//! wrapping, and amounts beyond the last suffix print with an exponent instead of losing their suffix.
//! Upstream: apimachinery pkg/api/resource.
use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

/// How a quantity prints; it keeps the family of suffixes it was written with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `12M`
    DecimalSi,
    /// `12Mi`
    BinarySi,
    /// `12e6`
    DecimalExponent,
}

/// A number with a unit suffix. Compared by amount alone.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    mantissa: i128,
    /// Power of ten.
    scale: i32,
    format: Format,
}

/// Why a text is no quantity; worded as upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a number followed by a suffix.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number cannot be held.
    #[error("unable to parse numeric part of quantity")]
    Numeric,
    /// No such suffix.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i32 = -9;
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// The canonical form of a quantity's text, as upstream prints it after parsing. Some texts that are not in the shortest
/// form (`1.500`, `+5`) are kept by upstream, and so here.
pub fn canonical(text: &str) -> Result<Cow<'_, str>, QuantityError> {
    let (quantity, keep) = parse(text)?;
    Ok(if keep { Cow::Borrowed(text) } else { Cow::Owned(quantity.to_string()) })
}

// === impl Quantity ===

impl Quantity {
    /// Zero.
    pub const ZERO: Quantity = Quantity { mantissa: 0, scale: 0, format: Format::DecimalSi };

    /// Reads a quantity.
    pub fn parse(text: &str) -> Result<Quantity, QuantityError> {
        parse(text).map(|(quantity, _)| quantity)
    }

    /// A whole number.
    pub fn from_value(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: 0, format }
    }

    /// A number of thousandths.
    pub fn from_milli(value: i64, format: Format) -> Quantity {
        Quantity { mantissa: value.into(), scale: -3, format }
    }

    /// The family of suffixes.
    pub fn format(self) -> Format {
        self.format
    }

    /// Exactly zero.
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// -1, 0 or 1.
    pub fn signum(self) -> i32 {
        self.mantissa.signum() as i32
    }

    /// Rounded away from zero to a whole number; saturates.
    pub fn value(self) -> i64 {
        self.scaled_value(0)
    }

    /// In thousandths, rounded away from zero; saturates.
    pub fn milli_value(self) -> i64 {
        self.scaled_value(-3)
    }

    /// In units of 10^`scale`, rounded away from zero; saturates.
    pub fn scaled_value(self, scale: i32) -> i64 {
        let at = self.at_scale(scale).unwrap_or(if self.mantissa < 0 { i128::MIN } else { i128::MAX });
        i64::try_from(at).unwrap_or(if at < 0 { i64::MIN } else { i64::MAX })
    }

    /// The sum; zero takes the other's format.
    #[expect(clippy::should_implement_trait, reason = "it is not symmetric in the format")]
    pub fn add(self, other: Quantity) -> Quantity {
        let format = if self.is_zero() { other.format } else { self.format };
        if other.is_zero() || self.is_zero() {
            return Quantity { format, ..if self.is_zero() { other } else { self } };
        }
        let scale = self.scale.min(other.scale);
        let at =
            |q: Quantity| q.at_scale(scale).unwrap_or(if q.mantissa < 0 { i128::MIN } else { i128::MAX });
        Quantity { mantissa: at(self).saturating_add(at(other)), scale, format }
    }

    /// The difference; zero takes the other's format.
    #[expect(clippy::should_implement_trait, reason = "it is not symmetric in the format")]
    pub fn sub(self, other: Quantity) -> Quantity {
        self.add(other.negated())
    }

    /// With the other sign.
    pub fn negated(self) -> Quantity {
        Quantity { mantissa: -self.mantissa, ..self }
    }

    /// The mantissa at another scale, rounded away from zero; nothing when it does not fit.
    fn at_scale(self, scale: i32) -> Option<i128> {
        let shift = i64::from(self.scale) - i64::from(scale);
        let power = u32::try_from(shift.unsigned_abs()).ok().and_then(|p| 10i128.checked_pow(p));
        match (shift >= 0, power) {
            _ if self.mantissa == 0 => Some(0),
            (true, power) => self.mantissa.checked_mul(power?),
            (false, None) => Some(self.mantissa.signum()),
            (false, Some(power)) => {
                let rest = self.mantissa % power;
                Some(self.mantissa / power + if rest == 0 { 0 } else { rest.signum() })
            }
        }
    }

    /// Digits and a power of ten that is a multiple of three.
    fn write_decimal(self, f: &mut fmt::Formatter<'_>, format: Format) -> fmt::Result {
        let (mut mantissa, mut scale) = (self.mantissa, self.scale);
        while mantissa % 10 == 0 {
            (mantissa, scale) = (mantissa / 10, scale + 1);
        }
        let zeros = scale.rem_euclid(3);
        scale -= zeros;
        write!(f, "{mantissa}{}", &"00"[..zeros as usize])?;
        match DECIMAL.iter().find(|(_, exponent)| *exponent == scale) {
            Some((suffix, _)) if format == Format::DecimalSi => f.write_str(suffix),
            _ if scale == 0 => Ok(()),
            _ => write!(f, "e{scale}"),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0");
        }
        let exact = || self.at_scale(0).filter(|whole| self.scale >= 0 || is_whole(*self, *whole));
        match (self.format, exact()) {
            (Format::BinarySi, Some(mut whole)) if whole <= -1024 || whole >= 1024 => {
                let mut times = 0;
                while whole % 1024 == 0 && times + 1 < BINARY.len() {
                    (whole, times) = (whole / 1024, times + 1);
                }
                write!(f, "{whole}{}", BINARY[times])
            }
            (Format::BinarySi, _) => self.write_decimal(f, Format::DecimalSi),
            (format, _) => self.write_decimal(f, format),
        }
    }
}

fn is_whole(quantity: Quantity, whole: i128) -> bool {
    Quantity { mantissa: whole, scale: 0, ..quantity } == quantity
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        let signs = self.mantissa.signum().cmp(&other.mantissa.signum());
        if signs != Ordering::Equal || self.is_zero() {
            return signs;
        }
        let scale = self.scale.min(other.scale);
        match (self.at_scale(scale), other.at_scale(scale)) {
            (Some(a), Some(b)) => a.cmp(&b),
            // Only the one with the larger scale can fail to fit: it is the larger amount.
            (None, _) => {
                if self.mantissa > 0 {
                    Ordering::Greater
                } else {
                    Ordering::Less
                }
            }
            (_, None) => {
                if other.mantissa > 0 {
                    Ordering::Less
                } else {
                    Ordering::Greater
                }
            }
        }
    }
}

/// A text taken apart: its sign, digits before and after the point without leading zeros, and its suffix.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    suffix: &'a str,
}

fn split(text: &str) -> Result<Parts<'_>, QuantityError> {
    let (negative, rest) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |s: &str| s.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(s.len());
    let rest = rest.trim_start_matches('0');
    let (whole, rest) = rest.split_at(digits(rest));
    let (fraction, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    let exponent = suffix.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if digits(exponent) != exponent.len() {
        return Err(QuantityError::Format);
    }
    Ok(Parts { negative, whole: if whole.is_empty() { "0" } else { whole }, fraction, suffix })
}

/// Base (2 or 10), exponent and format of a suffix.
fn suffix(suffix: &str) -> Result<(i128, i32, Format), QuantityError> {
    if let Some((_, exponent)) = DECIMAL.iter().find(|(s, _)| *s == suffix) {
        return Ok((10, *exponent, Format::DecimalSi));
    }
    if let Some(i) = BINARY.iter().position(|s| *s == suffix) {
        return Ok((2, i as i32 * 10, Format::BinarySi));
    }
    let exponent = suffix.strip_prefix(['e', 'E']).and_then(|e| e.parse::<i32>().ok());
    exponent.map(|e| (10, e, Format::DecimalExponent)).ok_or(QuantityError::Suffix)
}

/// The quantity, and whether upstream keeps its text as the canonical form.
fn parse(text: &str) -> Result<(Quantity, bool), QuantityError> {
    if text.is_empty() {
        return Err(QuantityError::Format);
    }
    let parts = split(text)?;
    let (base, exponent, mut format) = suffix(parts.suffix)?;
    let number = format!("{}{}", parts.whole, parts.fraction);
    let mut mantissa: i128 = number.parse().map_err(|_| QuantityError::Numeric)?;
    let fraction = i32::try_from(parts.fraction.len()).map_err(|_| QuantityError::Numeric)?;
    let mut scale = -fraction;
    if base == 2 {
        mantissa = mantissa.checked_mul(1 << exponent).ok_or(QuantityError::Numeric)?;
    } else {
        scale = scale.saturating_add(exponent);
    }
    let keep = keeps_text(&parts, &number, exponent, scale, format);
    if scale < NANO {
        let rounded = Quantity { mantissa, scale, format }.at_scale(NANO);
        (mantissa, scale) = (rounded.ok_or(QuantityError::Numeric)?, NANO);
    }
    let mut quantity = Quantity { mantissa, scale, format };
    if format == Format::BinarySi {
        let most = Quantity::from_value(i64::MAX, format);
        if quantity > most {
            quantity = most;
        }
        if !quantity.is_zero() && quantity < Quantity::from_value(1, format) {
            format = Format::DecimalSi;
        }
    }
    let mantissa = if parts.negative { -quantity.mantissa } else { quantity.mantissa };
    Ok((Quantity { mantissa, format, ..quantity }, keep))
}

/// Upstream's fast path takes a text for canonical when it looks so; that is visible, so it is reproduced.
fn keeps_text(parts: &Parts<'_>, number: &str, exponent: i32, scale: i32, format: Format) -> bool {
    let Ok(value) = number.parse::<i64>() else { return false };
    if format == Format::BinarySi {
        let precision = 15 - parts.whole.len() as i32 - exponent * 3 / 10 - 1;
        let fits = value.checked_mul(1 << exponent).is_some();
        return precision >= 0 && parts.fraction.is_empty() && fits && value & 7 != 0;
    }
    number.len() <= 18
        && scale >= NANO
        && scale % 3 == 0
        && !number.ends_with("000")
        && !number.starts_with('0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms_are_upstreams() {
        let cases = [
            ("0", "0"),
            ("00", "0"),
            ("0m", "0"),
            ("0.5Gi", "512Mi"),
            ("1024Ki", "1Mi"),
            ("1Ki", "1Ki"),
            ("0.5Ki", "512"),
            ("1.5Ki", "1536"),
            ("0.1Ki", "102400m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("100M", "100M"),
            ("1000k", "1M"),
            ("12e6", "12e6"),
            ("1e3", "1e3"),
            ("100e1", "1e3"),
            ("1E", "1E"),
            ("1.500", "1.500"),
            ("+5", "+5"),
            ("-1.5", "-1500m"),
            ("0.0000000001", "1n"),
            ("1.1Mi", "1153433600m"),
            ("5n", "5n"),
            ("1e-3", "1e-3"),
            ("1e-4", "100e-6"),
            ("16Ei", "9223372036854775807"),
            (".5", "500m"),
            ("5.", "5."),
            ("1025Ki", "1025Ki"),
            ("8Gi", "8Gi"),
            ("1000Mi", "1000Mi"),
            ("0.000001Ki", "1024u"),
            ("1000E", "1e21"),
            ("-0.5Gi", "-512Mi"),
            ("9223372036854775807", "9223372036854775807"),
        ];
        for (text, want) in cases {
            assert_eq!(canonical(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_as_upstream_words_it() {
        let cases = [
            ("", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("1Gi ", QuantityError::Format),
            ("1GiB", QuantityError::Format),
            ("1e", QuantityError::Suffix),
            ("1mm", QuantityError::Suffix),
            ("1K", QuantityError::Suffix),
        ];
        for (text, want) in cases {
            assert_eq!(Quantity::parse(text).err(), Some(want), "{text}");
        }
    }

    #[test]
    fn values_round_away_from_zero() {
        let q = |s: &str| Quantity::parse(s).expect("a quantity");
        assert_eq!((q("100m").value(), q("-100m").value(), q("1.1Ki").milli_value()), (1, -1, 1_126_400));
        assert_eq!((q("1E").milli_value(), q("1n").milli_value()), (i64::MAX, 1));
        assert_eq!(q("1Gi").add(q("1G")).to_string(), "2073741824");
        assert_eq!(q("1Gi").sub(q("512Mi")).to_string(), "512Mi");
        assert_eq!(q("0").add(q("1Ki")).to_string(), "1Ki");
        assert_eq!(q("1").cmp(&q("1000m")), Ordering::Equal);
        assert!(q("1e30") > q("1n") && q("-1e30") < q("-1n"));
    }
}
