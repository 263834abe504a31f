//! What MQTT devices publish: the payloads of `sensors/{sensor}/{attribute}` and `sensors/{sensor}`, read into rows.
//!
//! A payload is read whole or not at all. Members of objects may come in any order; unknown ones are skipped.

use super::rows::{Fault, Names, Rows};
use super::scan::Scanner;
use super::senml;

/// Topics under this are sensors'.
pub const PREFIX: &str = "sensors/";
/// Topics under these are written by the nodes alone: samples by room, and advice.
pub const RESERVED: [&str; 2] = ["rooms/", "advice/"];

/// Whether only nodes publish to `topic`.
pub fn is_reserved(topic: &str) -> bool {
    RESERVED.iter().any(|prefix| topic.starts_with(prefix))
}

/// Why clients may not publish to `topic`, if they may not.
pub fn reserved(topic: &str) -> Option<String> {
    let prefix = RESERVED.into_iter().find(|prefix| topic.starts_with(prefix))?;
    Some(format!("topic {topic:?}: what stands below {prefix} comes from the nodes; publish to sensors/"))
}

/// A topic of sensors, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// `sensors/{sensor}/{attribute}`.
    Series(&'a str, &'a str),
    /// `sensors/{sensor}`.
    Sensor(&'a str),
}

impl<'a> Target<'a> {
    /// Whose topic it is.
    pub fn sensor(self) -> &'a str {
        match self {
            Self::Series(sensor, _) | Self::Sensor(sensor) => sensor,
        }
    }

    /// Which attribute, when the topic says it.
    pub fn attribute(self) -> Option<&'a str> {
        match self {
            Self::Series(_, attribute) => Some(attribute),
            Self::Sensor(_) => None,
        }
    }

    /// Takes a topic apart. `None` when it has another form; names are not looked at.
    pub fn of(topic: &'a str) -> Option<Self> {
        let rest = topic.strip_prefix(PREFIX)?;
        match rest.split_once('/') {
            None => Some(Self::Sensor(rest)),
            Some((sensor, attribute)) if !attribute.contains('/') => Some(Self::Series(sensor, attribute)),
            Some(_) => None,
        }
    }
}

/// Reads what was published to `sensors/{sensor}/{attribute}`: `36.6` · `[0.1,9.8]` · `"pressed"` ·
/// `{"ts":…,"value":…}` · an array of such objects · `{"ts":…,"interval_ms":4,"values":[…]}`.
pub fn read_series(payload: &[u8], rows: &mut Rows) -> Result<(), Fault> {
    rows.clear();
    let mut scanner = Scanner::new(payload);
    match scanner.peek() {
        b'{' => read_object(&mut scanner, rows)?,
        b'[' if holds_objects(&scanner) => scanner.array(|scanner| read_object(scanner, rows))?,
        _ => read_value(&mut scanner, rows, Names::default(), None)?,
    }
    Ok(scanner.end()?)
}

/// Reads what was published to `sensors/{sensor}`: `{"ts":…,"values":{"temperature":21.5,…}}`, an array of these, or a
/// SenML pack. `now_ms` is what relative SenML times are relative to.
pub fn read_sensor(payload: &[u8], now_ms: f64, rows: &mut Rows) -> Result<(), Fault> {
    rows.clear();
    let mut scanner = Scanner::new(payload);
    match scanner.peek() {
        b'{' => read_record(&mut scanner, rows)?,
        _ if is_senml(&scanner) => senml::read_json(&mut scanner, now_ms, rows)?,
        _ => scanner.array(|scanner| read_record(scanner, rows))?,
    }
    Ok(scanner.end()?)
}

fn holds_objects(scanner: &Scanner<'_>) -> bool {
    let mut ahead = scanner.clone();
    ahead.eat(b'[') && ahead.peek() == b'{'
}

/// Whether an array is a SenML pack: its first object has no `values`.
fn is_senml(scanner: &Scanner<'_>) -> bool {
    let mut ahead = scanner.clone();
    if !ahead.eat(b'[') || ahead.peek() != b'{' {
        return false;
    }
    let mut has_values = false;
    let read = ahead.object(|scanner, name| {
        has_values |= name == "values";
        scanner.skip()
    });
    read.is_ok() && !has_values
}

/// `{"ts":…,"value":…}` or `{"ts":…,"interval_ms":…,"values":[…]}`.
fn read_object(scanner: &mut Scanner<'_>, rows: &mut Rows) -> Result<(), Fault> {
    let first = rows.len();
    let (mut ts, mut interval, mut one, mut many) = (None, None, false, false);
    scanner.object(|scanner, name| match name {
        "ts" => read_time(scanner, "ts").map(|time| ts = time),
        "interval_ms" => read_time(scanner, "interval_ms").map(|time| interval = time),
        "value" if !one && !many => {
            one = true;
            read_value(scanner, rows, Names::default(), None)
        }
        "values" if !one && !many => {
            many = true;
            scanner.array(|scanner| read_value(scanner, rows, Names::default(), None))
        }
        "value" | "values" => Err(Fault::Malformed("value or values stands there twice".into())),
        _ => Ok(scanner.skip()?),
    })?;
    if !one && !many {
        return Err(Fault::Malformed("an object without value or values".into()));
    }
    if many && ts.is_some() && interval.is_none() && rows.len() > first + 1 {
        return Err(Fault::NotATime("values with a ts need interval_ms".into()));
    }
    rows.set_times(first, ts, interval.unwrap_or_default());
    Ok(())
}

/// `{"ts":…,"values":{"temperature":21.5,…}}`.
fn read_record(scanner: &mut Scanner<'_>, rows: &mut Rows) -> Result<(), Fault> {
    let first = rows.len();
    let (mut ts, mut found) = (None, false);
    scanner.object(|scanner, name| match name {
        "ts" => read_time(scanner, "ts").map(|time| ts = time),
        "values" if !found => {
            found = true;
            scanner.object(|scanner, attribute| {
                let names = rows.names(None, Some(attribute));
                read_value(scanner, rows, names, None)
            })
        }
        "values" => Err(Fault::Malformed("values stands there twice".into())),
        _ => Ok(scanner.skip()?),
    })?;
    if !found {
        return Err(Fault::Malformed("an object without values".into()));
    }
    rows.set_times(first, ts, 0.0);
    Ok(())
}

/// A `ts` in milliseconds, or an interval; `null` is as good as left out.
fn read_time(scanner: &mut Scanner<'_>, what: &str) -> Result<Option<f64>, Fault> {
    match scanner.peek() {
        b'-' | b'0'..=b'9' => match scanner.number()? {
            number if number.is_finite() => Ok(Some(number)),
            _ => Err(Fault::NotATime(format!("{what} is beyond all times"))),
        },
        b'n' if scanner.word("null") => Ok(None),
        _ => {
            scanner.skip()?;
            Err(Fault::NotATime(format!("{what} is not a number of milliseconds")))
        }
    }
}

/// A number, a text, or an array of numbers and `null`.
fn read_value(
    scanner: &mut Scanner<'_>,
    rows: &mut Rows,
    names: Names,
    ts: Option<f64>,
) -> Result<(), Fault> {
    match scanner.peek() {
        b'"' => {
            let text = scanner.string()?;
            rows.push_text(names, ts, &text);
        }
        b'[' => {
            let start = rows.numbers().len();
            scanner.array(|scanner| {
                let number = match scanner.peek() {
                    b'n' if scanner.word("null") => f64::NAN,
                    b'"' | b'[' | b'{' | b't' | b'f' => {
                        scanner.skip()?;
                        return Err(Fault::NotAValue("an array of channels holds more than numbers".into()));
                    }
                    _ => finite(scanner.number()?)?,
                };
                rows.numbers().push(number);
                Ok(())
            })?;
            if rows.numbers().len() == start {
                return Err(Fault::NotAValue("a value without channels".into()));
            }
            rows.push_numbers(names, ts, start);
        }
        b'{' | b't' | b'f' | b'n' => {
            scanner.skip()?;
            return Err(Fault::NotAValue("a value is a number, a text or an array of numbers".into()));
        }
        _ => {
            let number = finite(scanner.number()?)?;
            rows.push_number(names, ts, number);
        }
    }
    Ok(())
}

fn finite(number: f64) -> Result<f64, Fault> {
    if number.is_finite() { Ok(number) } else { Err(Fault::TooLarge) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rows::StatedValue;
    use super::*;

    type Flat = (Option<f64>, Vec<f64>, String);

    fn series(payload: &str) -> Result<Vec<Flat>, Fault> {
        let mut rows = Rows::default();
        read_series(payload.as_bytes(), &mut rows)?;
        Ok(rows
            .iter()
            .map(|stated| match stated.value {
                StatedValue::Numbers(numbers) => (stated.ts, numbers.to_vec(), String::new()),
                StatedValue::Text(text) => (stated.ts, Vec::new(), text.to_owned()),
            })
            .collect())
    }

    #[test]
    fn every_form_of_the_contract_is_read() {
        let number = |ts, number: f64| (ts, vec![number], String::new());
        for (payload, expected) in [
            ("36.6", vec![number(None, 36.6)]),
            (" [0.1, 9.8] ", vec![(None, vec![0.1, 9.8], String::new())]),
            (r#""pressed""#, vec![(None, vec![], "pressed".into())]),
            (r#"{"ts":5.25,"value":1e2}"#, vec![number(Some(5.25), 100.0)]),
            (r#"{"value":[1,2],"ts":5}"#, vec![(Some(5.0), vec![1.0, 2.0], String::new())]),
            (
                r#"[{"ts":1,"value":2},{"value":"x","extra":{"a":[1]}}]"#,
                vec![number(Some(1.0), 2.0), (None, vec![], "x".into())],
            ),
            (
                r#"{"values":[1,[2],3],"interval_ms":4,"ts":100}"#,
                vec![number(Some(100.0), 1.0), number(Some(104.0), 2.0), number(Some(108.0), 3.0)],
            ),
            (r#"{"values":[1,2]}"#, vec![number(None, 1.0), number(None, 2.0)]),
            (r#"{"ts":7,"values":[1]}"#, vec![number(Some(7.0), 1.0)]),
        ] {
            assert_eq!(series(payload), Ok(expected), "{payload}");
        }
        let nulls = series(r#"{"ts":1,"value":[1,null]}"#).unwrap();
        assert!(nulls[0].1[1].is_nan());
    }

    #[test]
    fn what_is_not_a_sample_is_told_apart() {
        let kind = |payload: &str| match series(payload).expect_err(payload) {
            Fault::NotJson(_) => "json",
            Fault::NotAValue(_) => "value",
            Fault::TooLarge => "large",
            Fault::NotATime(_) => "time",
            Fault::Malformed(_) => "malformed",
            _ => "another",
        };
        for (payload, expected) in [
            ("", "json"),
            ("NaN", "json"),
            ("-Infinity", "json"),
            ("not json", "json"),
            ("1 2", "json"),
            (r#"{"ts":1,"value":2"#, "json"),
            ("\"a\u{1}\"", "json"),
            ("1e999", "large"),
            (r#"{"value":[1,-1e999]}"#, "large"),
            ("true", "value"),
            ("null", "value"),
            ("[]", "value"),
            ("[1,[2]]", "value"),
            (r#"[1,"x"]"#, "value"),
            (r#"{"value":{}}"#, "value"),
            (r#"{"ts":"now","value":1}"#, "time"),
            (r#"{"ts":1e999,"value":1}"#, "time"),
            (r#"{"ts":1,"values":[1,2]}"#, "time"),
            (r#"{"ts":1}"#, "malformed"),
            (r#"{"value":1,"value":2}"#, "malformed"),
        ] {
            assert_eq!(kind(payload), expected, "{payload}");
        }
        let mut rows = Rows::default();
        assert!(matches!(read_series(b"\"\xff\"", &mut rows), Err(Fault::NotJson(_))));
    }

    #[test]
    fn a_sensors_payload_names_its_attributes() {
        let mut rows = Rows::default();
        let record =
            r#"[{"ts":9,"values":{"temperature":21.5,"imu":[1,2],"door":"open"}},{"values":{"t":1}}]"#;
        read_sensor(record.as_bytes(), 0.0, &mut rows).unwrap();
        let read: Vec<_> = rows.iter().map(|row| (row.attribute.unwrap(), row.ts)).collect();
        assert_eq!(read, [("temperature", Some(9.0)), ("imu", Some(9.0)), ("door", Some(9.0)), ("t", None),]);
        assert!(read_sensor(br#"{"ts":1}"#, 0.0, &mut rows).is_err());
        assert!(read_sensor(br#"{"values":[1]}"#, 0.0, &mut rows).is_err());
        assert!(read_sensor(b"5", 0.0, &mut rows).is_err());
    }

    #[test]
    fn topics_are_taken_apart() {
        assert_eq!(Target::of("sensors/a/b"), Some(Target::Series("a", "b")));
        assert_eq!(Target::of("sensors/a"), Some(Target::Sensor("a")));
        assert_eq!(Target::of("sensors/a/b/c"), None);
        assert_eq!(Target::of("sensor/a/b"), None);
        assert_eq!(Target::of("sensors/"), Some(Target::Sensor("")));
    }

    proptest! {
        #[test]
        fn any_payload_is_judged(payload in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut rows = Rows::default();
            let _ = read_series(&payload, &mut rows);
            let _ = read_sensor(&payload, 0.0, &mut rows);
        }

        #[test]
        fn anything_like_a_payload_is_judged(
            payload in r#"(\{|\}|\[|\]|:|,|"(ts|value|values|n|bn|v|interval_ms)"|1|-2\.5|null| ){0,20}"#,
        ) {
            let mut rows = Rows::default();
            let _ = read_series(payload.as_bytes(), &mut rows);
            let _ = read_sensor(payload.as_bytes(), 0.0, &mut rows);
        }
    }
}
