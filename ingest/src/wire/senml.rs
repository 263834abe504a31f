//! SenML packs (RFC 8428): base fields resolved, times made absolute, names split into sensor and attribute.
//!
//! Records come one by one as [`Record`], from JSON here, and [`Pack`] resolves them, whatever they were encoded in.

use std::borrow::Cow;

use super::rows::{Fault, Rows};
use super::scan::Scanner;

/// Times below this many seconds are relative to now (RFC 8428, section 4.5.3).
const RELATIVE_BELOW: f64 = 268_435_456.0;
/// The version of SenML that is read (RFC 8428, section 4.4).
const VERSION: f64 = 10.0;

/// A SenML record, unresolved. Units are not looked at: a sensor's description says them.
#[derive(Debug, Default)]
pub struct Record<'a> {
    /// Base name.
    pub bn: Option<Cow<'a, str>>,
    /// Base time, seconds.
    pub bt: Option<f64>,
    /// Base value.
    pub bv: Option<f64>,
    /// Base version.
    pub bver: Option<f64>,
    /// Another base field (unit, sum).
    pub other_base: bool,
    /// Name.
    pub n: Option<Cow<'a, str>>,
    /// Time, seconds.
    pub t: Option<f64>,
    /// Number.
    pub v: Option<f64>,
    /// Text.
    pub vs: Option<Cow<'a, str>>,
    /// Truth.
    pub vb: Option<bool>,
    /// Whether it has `vd` (octets), which no attribute takes.
    pub data: bool,
    /// Whether it has `s` (sum), which no attribute takes.
    pub sum: bool,
}

/// The base fields in force.
#[derive(Debug, Default)]
pub struct Pack {
    name: String,
    time: f64,
    value: f64,
    full_name: String,
}

impl Pack {
    /// Resolves the next record of the pack into a row, or none when it only sets base fields.
    pub fn resolve(&mut self, record: Record<'_>, now_ms: f64, rows: &mut Rows) -> Result<(), Fault> {
        if record.bver.is_some_and(|version| version > VERSION) {
            return Err(Fault::Malformed(format!("SenML version above {VERSION}")));
        }
        let sets_base = record.bn.is_some()
            || record.bt.is_some()
            || record.bv.is_some()
            || record.bver.is_some()
            || record.other_base;
        if let Some(name) = record.bn {
            self.name = name.into_owned();
        }
        self.time = record.bt.unwrap_or(self.time);
        self.value = record.bv.unwrap_or(self.value);
        if record.sum {
            return Err(Fault::NotAValue("SenML sums (s) are not taken; send values (v)".into()));
        }
        if record.data {
            return Err(Fault::NotAValue("SenML data values (vd) are not taken".into()));
        }
        let values = usize::from(record.v.is_some())
            + usize::from(record.vs.is_some())
            + usize::from(record.vb.is_some());
        if values == 0 && sets_base && record.n.is_none() && record.t.is_none() {
            return Ok(());
        }
        // A base value makes a value of a record that has none (RFC 8428, section 4.1).
        let based = values == 0 && self.value != 0.0;
        if values > 1 || (values == 0 && !based) {
            return Err(Fault::NotAValue("a SenML record has one of v, vs and vb".into()));
        }
        let ts = self.time_of(record.t, now_ms)?;
        self.full_name.clear();
        self.full_name.push_str(&self.name);
        self.full_name.push_str(record.n.as_deref().unwrap_or_default());
        let (sensor, attribute) = split_name(&self.full_name)?;
        let names = rows.names(sensor, Some(attribute));
        match (record.vs, record.vb) {
            (Some(text), _) => rows.push_text(names, ts, &text),
            (None, Some(truth)) => rows.push_number(names, ts, f64::from(u8::from(truth))),
            (None, None) => {
                let number = self.value + record.v.unwrap_or_default();
                if !number.is_finite() {
                    return Err(Fault::TooLarge);
                }
                rows.push_number(names, ts, number);
            }
        }
        Ok(())
    }

    /// Milliseconds; `None` for "roughly now", which is what a time of 0 says.
    fn time_of(&self, t: Option<f64>, now_ms: f64) -> Result<Option<f64>, Fault> {
        let t = t.unwrap_or_default();
        let seconds = self.time + t;
        if !seconds.is_finite() {
            return Err(Fault::NotATime("SenML time is beyond all times".into()));
        }
        // Milliseconds are added, not seconds: it keeps the microseconds of both.
        let ms = self.time * 1000.0 + t * 1000.0;
        Ok(match seconds {
            0.0 => None,
            seconds if seconds < RELATIVE_BELOW => Some(now_ms + ms),
            _ => Some(ms),
        })
    }
}

/// Sensor and attribute of a SenML name: split at the last `/`, else at the last `:`; without either there is no
/// sensor in it.
pub fn split_name(name: &str) -> Result<(Option<&str>, &str), Fault> {
    let (sensor, attribute) = match name.rsplit_once('/').or_else(|| name.rsplit_once(':')) {
        Some((sensor, attribute)) => (Some(sensor), attribute),
        None => (None, name),
    };
    if attribute.is_empty() || sensor == Some("") {
        return Err(Fault::BadName(format!("SenML name {name:?} names no sensor or no attribute")));
    }
    Ok((sensor, attribute))
}

/// Reads a pack of JSON records, and nothing behind it.
pub fn read_json(scanner: &mut Scanner<'_>, now_ms: f64, rows: &mut Rows) -> Result<(), Fault> {
    let mut pack = Pack::default();
    scanner.array(|scanner| {
        let record = read_record(scanner)?;
        pack.resolve(record, now_ms, rows)
    })
}

fn read_record<'a>(scanner: &mut Scanner<'a>) -> Result<Record<'a>, Fault> {
    let mut record = Record::default();
    scanner.object(|scanner, label| {
        match label {
            "bn" => record.bn = Some(scanner.string()?),
            "bt" => record.bt = Some(number(scanner, label)?),
            "bv" => record.bv = Some(number(scanner, label)?),
            "bver" => record.bver = Some(number(scanner, label)?),
            "bu" | "bs" => {
                record.other_base = true;
                scanner.skip()?;
            }
            "n" => record.n = Some(scanner.string()?),
            "t" => record.t = Some(number(scanner, label)?),
            "v" => record.v = Some(number(scanner, label)?),
            "vs" => record.vs = Some(scanner.string()?),
            "vb" if scanner.word("true") => record.vb = Some(true),
            "vb" if scanner.word("false") => record.vb = Some(false),
            "vb" => return Err(Fault::NotAValue("vb is neither true nor false".into())),
            "vd" => {
                record.data = true;
                scanner.skip()?;
            }
            "s" => {
                record.sum = true;
                scanner.skip()?;
            }
            // Labels that end in _ must be understood (RFC 8428, section 4.4).
            label if label.ends_with('_') => {
                return Err(Fault::Malformed(format!("SenML field {label:?} must be understood and is not")));
            }
            _ => scanner.skip()?,
        }
        Ok(())
    })?;
    Ok(record)
}

fn number(scanner: &mut Scanner<'_>, label: &str) -> Result<f64, Fault> {
    match scanner.peek() {
        b'-' | b'0'..=b'9' => match scanner.number()? {
            number if number.is_finite() => Ok(number),
            _ => Err(Fault::TooLarge),
        },
        _ => {
            scanner.skip()?;
            Err(Fault::NotAValue(format!("SenML field {label} is not a number")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::rows::StatedValue;
    use super::*;

    type Flat = (Option<String>, String, Option<f64>, String);

    fn read(pack: &str) -> Result<Vec<Flat>, Fault> {
        let mut rows = Rows::default();
        let mut scanner = Scanner::new(pack.as_bytes());
        read_json(&mut scanner, 1_000_000.0, &mut rows)?;
        Ok(rows
            .iter()
            .map(|row| {
                let value = match row.value {
                    StatedValue::Numbers(numbers) => format!("{numbers:?}"),
                    StatedValue::Text(text) => text.to_owned(),
                };
                (row.sensor.map(str::to_owned), row.attribute.unwrap().to_owned(), row.ts, value)
            })
            .collect())
    }

    fn row(sensor: Option<&str>, attribute: &str, ts: Option<f64>, value: &str) -> Flat {
        (sensor.map(str::to_owned), attribute.to_owned(), ts, value.to_owned())
    }

    /// RFC 8428, sections 5.1.2 and 5.1.3.
    #[test]
    fn the_examples_of_the_standard_are_resolved() {
        let sensor = Some("urn:dev:ow:10e2073a0108006");
        assert_eq!(
            read(
                r#"[{"bn":"urn:dev:ow:10e2073a0108006:","bt":1.276020076001e+09,"bu":"A","bver":5,
                    "n":"voltage","u":"V","v":120.1},{"n":"current","t":-5,"v":1.2},{"n":"current","v":1.7}]"#
            ),
            Ok(vec![
                row(sensor, "voltage", Some(1_276_020_076_001.0), "[120.1]"),
                row(sensor, "current", Some(1_276_020_071_001.0), "[1.2]"),
                row(sensor, "current", Some(1_276_020_076_001.0), "[1.7]"),
            ])
        );
    }

    #[test]
    fn base_values_relative_times_texts_and_truths() {
        assert_eq!(
            read(
                r#"[{"bn":"s1/","bv":20},{"n":"t","v":1.5},{"n":"t","t":-2,"v":0},{"n":"door","vs":"open"},
                    {"n":"on","vb":true},{"bn":"","n":"plain","v":1},{"n":"a:b","t":0}]"#
            ),
            Ok(vec![
                row(Some("s1"), "t", None, "[21.5]"),
                row(Some("s1"), "t", Some(998_000.0), "[20.0]"),
                row(Some("s1"), "door", None, "open"),
                row(Some("s1"), "on", None, "[1.0]"),
                row(None, "plain", None, "[21.0]"),
                row(Some("a"), "b", None, "[20.0]"),
            ])
        );
    }

    #[test]
    fn what_cannot_be_kept_is_refused() {
        for (pack, what) in [
            (r#"[{"n":"a","s":5}]"#, "sums"),
            (r#"[{"n":"a","v":5,"s":5}]"#, "sums"),
            (r#"[{"n":"a","vd":"AA"}]"#, "vd"),
            (r#"[{"n":"a"}]"#, "one of"),
            (r#"[{"n":"a","v":1,"vs":"x"}]"#, "one of"),
            (r#"[{"n":"a","v":"1"}]"#, "not a number"),
            (r#"[{"n":"a","vb":1}]"#, "neither"),
            (r#"[{"v":1}]"#, "names no"),
            (r#"[{"n":"a/","v":1}]"#, "names no"),
            (r#"[{"n":"/a","v":1}]"#, "names no"),
            (r#"[{"bver":11,"n":"a","v":1}]"#, "version"),
            (r#"[{"n":"a","v":1,"x_":2}]"#, "understood"),
            (r#"[{"n":"a","v":1e999}]"#, "range"),
            (r#"[{"bv":1e308,"n":"a","v":1e308}]"#, "range"),
            (r#"[{"n":"a","v":1}"#, "expected"),
        ] {
            let error = read(pack).expect_err(pack).to_string();
            assert!(error.contains(what), "{pack}: {error}");
        }
    }
}
