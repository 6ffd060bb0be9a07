//! Times as the API writes them: RFC 3339 in UTC, whole seconds (`Time`) or six digits (`MicroTime`).
//!
//! Reading takes what Go's parser takes and words its errors alike. The zero time, year 1, is Go's "not set".
//! Upstream: apimachinery pkg/apis/meta/v1/{time,micro_time}.go, Go's time package.
use jiff::Timestamp;
use jiff::civil::DateTime;
use std::fmt::Write as _;

/// Layout of `Time`, as errors name it.
const SECONDS: &str = "2006-01-02T15:04:05Z07:00";
/// Layout of `MicroTime`.
const MICROS: &str = "2006-01-02T15:04:05.000000Z07:00";

/// Reads a `Time`. The error is worded as Go's.
pub fn parse(text: &str) -> Result<Timestamp, TimeError> {
    read(text, SECONDS)
}

/// Reads a `MicroTime`: exactly six digits of a second's fraction.
pub fn parse_micro(text: &str) -> Result<Timestamp, TimeError> {
    read(text, MICROS)
}

/// Whole seconds, as `Time` is written.
pub fn format(time: Timestamp) -> String {
    let mut out = String::with_capacity(20);
    civil(time, &mut out);
    out.push('Z');
    out
}

/// Six digits, as `MicroTime` is written.
pub fn format_micro(time: Timestamp) -> String {
    let mut out = String::with_capacity(27);
    let civil = civil(time, &mut out);
    write!(out, ".{:06}Z", civil.subsec_nanosecond() / 1000).expect("writing to a string succeeds");
    out
}

/// Go's zero time, which is written as null.
pub fn is_zero(time: Timestamp) -> bool {
    time.as_second() == -62_135_596_800 && time.subsec_nanosecond() == 0
}

/// A time by its seconds since 1970 and nanoseconds; nothing outside the years that [`parse`] reads, 0 to 9999.
pub fn from_unix(seconds: i64, nanos: i32) -> Option<Timestamp> {
    const YEAR_ZERO: i64 = -62_167_219_200;
    Timestamp::new(seconds, nanos).ok().filter(|t| t.as_second() >= YEAR_ZERO)
}

/// A duration in nanoseconds as Go writes it: `1h2m3.5s`, `20ms`, `0s`.
pub fn format_duration(nanos: i64) -> String {
    let (sign, n) = (if nanos < 0 { "-" } else { "" }, nanos.unsigned_abs());
    let part = |of: u64, unit: u64| {
        let digits = unit.ilog10() as usize;
        let fraction = format!("{:0digits$}", of % unit);
        let fraction = if digits == 0 { "" } else { fraction.trim_end_matches('0') };
        let point = if fraction.is_empty() { "" } else { "." };
        format!("{}{point}{fraction}", of / unit)
    };
    let (hours, minutes) = (n / 3_600_000_000_000, n / 60_000_000_000 % 60);
    let text = match n {
        0 => "0s".to_owned(),
        1..1_000 => format!("{n}ns"),
        1_000..1_000_000 => part(n, 1_000) + "µs",
        1_000_000..1_000_000_000 => part(n, 1_000_000) + "ms",
        _ => part(n % 60_000_000_000, 1_000_000_000) + "s",
    };
    match (hours, minutes) {
        (0, 0) => format!("{sign}{text}"),
        (0, _) => format!("{sign}{minutes}m{text}"),
        _ => format!("{sign}{hours}h{minutes}m{text}"),
    }
}

/// Reads a duration as Go writes it, in nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    const UNITS: [(&str, i128); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),
        ("μs", 1_000),
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0i128;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if number.len() > 30 || whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return None;
        }
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let unit = UNITS.iter().find(|(name, _)| *name == unit)?.1;
        let part = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<i128>().ok() };
        let fraction = &fraction[..fraction.len().min(15)];
        total += part(whole)?.checked_mul(unit)?;
        total += part(fraction)? * unit / 10i128.pow(fraction.len() as u32);
        total = Some(total).filter(|t| *t <= 1 << 63)?;
        rest = after;
    }
    i64::try_from(sign * total).ok()
}

fn civil(time: Timestamp, out: &mut String) -> DateTime {
    let at = time.to_zoned(jiff::tz::TimeZone::UTC).datetime();
    let mut two = |number: i8, behind: &str| {
        let number = number.unsigned_abs();
        out.extend([b'0' + number / 10, b'0' + number % 10].map(char::from));
        out.push_str(behind);
    };
    let year = at.year();
    two((year / 100) as i8, "");
    two((year % 100) as i8, "-");
    two(at.month(), "-");
    two(at.day(), "T");
    two(at.hour(), ":");
    two(at.minute(), ":");
    two(at.second(), "");
    at
}

/// Why a text is no time, in Go's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {text:?}{}", self.why())]
pub struct TimeError {
    text: String,
    layout: &'static str,
    reason: Reason,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Reason {
    /// What is left of the text, and the part of the layout it should begin with.
    Mismatch(String, &'static str),
    Extra(String),
    OutOfRange(&'static str),
}

impl TimeError {
    fn why(&self) -> String {
        match &self.reason {
            Reason::Mismatch(rest, element) => {
                format!(" as {:?}: cannot parse {rest:?} as {element:?}", self.layout)
            }
            Reason::Extra(rest) => format!(": extra text: {rest:?}"),
            Reason::OutOfRange(what) => format!(": {what} out of range"),
        }
    }
}

fn read(text: &str, layout: &'static str) -> Result<Timestamp, TimeError> {
    let fail = |reason| TimeError { text: text.to_owned(), layout, reason };
    let mut scan = Scan { rest: text };
    let mut fields = [0; 6];
    let elements =
        [("2006", 4, "-"), ("01", 2, "-"), ("02", 2, "T"), ("15", 2, ":"), ("04", 2, ":"), ("05", 2, "")];
    for (value, (element, digits, then)) in fields.iter_mut().zip(elements) {
        *value = scan.number(element, digits).map_err(fail)?;
        scan.literal(then).map_err(fail)?;
    }
    let nanos = scan.fraction(layout == MICROS).map_err(fail)?;
    let offset = scan.offset().map_err(fail)?;
    if !scan.rest.is_empty() {
        return Err(fail(Reason::Extra(scan.rest.to_owned())));
    }
    let [year, month, day, hour, minute, second] = fields;
    for (value, low, high, name) in
        [(month, 1, 12, "month"), (hour, 0, 23, "hour"), (minute, 0, 59, "minute"), (second, 0, 59, "second")]
    {
        if value < low || value > high {
            return Err(fail(Reason::OutOfRange(name)));
        }
    }
    let at =
        DateTime::new(year as i16, month as i8, day as i8, hour as i8, minute as i8, second as i8, nanos)
            .map_err(|_| fail(Reason::OutOfRange("day")))?;
    let utc = at.to_zoned(jiff::tz::TimeZone::UTC).map(|z| z.timestamp());
    let shifted = utc.and_then(|t| t.checked_sub(jiff::SignedDuration::from_secs(offset.into())));
    shifted.map_err(|_| fail(Reason::OutOfRange("year")))
}

struct Scan<'a> {
    rest: &'a str,
}

impl Scan<'_> {
    fn mismatch(&self, element: &'static str) -> Reason {
        Reason::Mismatch(self.rest.to_owned(), element)
    }

    fn number(&mut self, element: &'static str, digits: usize) -> Result<i32, Reason> {
        let head = self.rest.get(..digits).filter(|h| h.bytes().all(|b| b.is_ascii_digit()));
        let value = head.and_then(|h| h.parse().ok()).ok_or_else(|| self.mismatch(element))?;
        self.rest = &self.rest[digits..];
        Ok(value)
    }

    fn literal(&mut self, literal: &'static str) -> Result<(), Reason> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.mismatch(literal))?;
        Ok(())
    }

    /// Digits after a point or comma: any number of them, or exactly six. Beyond nanoseconds they are dropped.
    fn fraction(&mut self, exactly_six: bool) -> Result<i32, Reason> {
        let digits = match self.rest.strip_prefix(['.', ',']) {
            Some(rest) => rest.bytes().take_while(u8::is_ascii_digit).count(),
            None => 0,
        };
        if exactly_six && digits != 6 {
            return Err(self.mismatch(".000000"));
        }
        if digits == 0 {
            return Ok(0);
        }
        let kept = &self.rest[1..=digits.min(9)];
        let nanos = kept.parse::<i32>().map_err(|_| self.mismatch("05"))? * 10i32.pow(9 - kept.len() as u32);
        self.rest = &self.rest[1 + digits..];
        Ok(nanos)
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Result<i32, Reason> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(0);
        }
        let bad = self.mismatch("Z07:00");
        let sign = match self.rest.as_bytes().first() {
            Some(b'+') => 1,
            Some(b'-') => -1,
            _ => return Err(bad),
        };
        let mut inner = Scan { rest: &self.rest[1..] };
        let parts = (inner.number("", 2), inner.literal(":"), inner.number("", 2));
        let (Ok(hours), Ok(()), Ok(minutes)) = parts else { return Err(bad) };
        if hours > 24 || minutes > 60 {
            return Err(Reason::OutOfRange("time zone offset hour"));
        }
        self.rest = &self.rest[6..];
        Ok(sign * (hours * 3600 + minutes * 60))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_out_in_utc_and_whole_seconds() {
        let cases = [
            ("2024-02-29T12:00:00Z", "2024-02-29T12:00:00Z"),
            ("2024-02-29T12:00:00.999Z", "2024-02-29T12:00:00Z"),
            ("2024-01-01T00:30:00+01:00", "2023-12-31T23:30:00Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ];
        for (text, want) in cases {
            assert_eq!(format(parse(text).expect(text)), want);
        }
        let micro = parse_micro("2024-01-01T00:00:00.123456Z").expect("six digits");
        assert_eq!(format_micro(micro), "2024-01-01T00:00:00.123456Z");
        assert!(is_zero(parse("0001-01-01T00:00:00Z").expect("valid")));
    }

    #[test]
    fn durations_are_gos() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (20_000_000, "20ms"),
            (3_500_000_000, "3.5s"),
            (60_000_000_000, "1m0s"),
            (-3_723_000_000_001, "-1h2m3.000000001s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
            (i64::MAX, "2562047h47m16.854775807s"),
        ] {
            assert_eq!(format_duration(nanos), text);
            assert_eq!(parse_duration(text), Some(nanos), "{text}");
        }
        assert_eq!((parse_duration("1.5h"), parse_duration("+0")), (Some(5_400_000_000_000), Some(0)));
        for text in ["", "1", "s", "-", ".s", "1x", "9999999h", "1..s", "1s2"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert_eq!((from_unix(-62_167_219_201, 0), from_unix(i64::MAX, 0)), (None, None));
    }

    #[test]
    fn errors_are_worded_as_gos() {
        let seconds = "as \"2006-01-02T15:04:05Z07:00\"";
        let cases = [
            ("", format!("parsing time \"\" {seconds}: cannot parse \"\" as \"2006\"")),
            (
                "yesterday",
                format!("parsing time \"yesterday\" {seconds}: cannot parse \"yesterday\" as \"2006\""),
            ),
            ("2024-01-01", format!("parsing time \"2024-01-01\" {seconds}: cannot parse \"\" as \"T\"")),
            (
                "2024-01-01T00:00:00",
                format!("parsing time \"2024-01-01T00:00:00\" {seconds}: cannot parse \"\" as \"Z07:00\""),
            ),
            ("2024-01-01T00:00:00ZZ", "parsing time \"2024-01-01T00:00:00ZZ\": extra text: \"Z\"".to_owned()),
            ("2023-02-29T00:00:00Z", "parsing time \"2023-02-29T00:00:00Z\": day out of range".to_owned()),
        ];
        for (text, want) in cases {
            assert_eq!(parse(text).map_err(|e| e.to_string()), Err(want));
        }
    }
}
