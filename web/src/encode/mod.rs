//! Samples as text: JSON, CSV and `SenML`, with every digit. A number is written in the fewest digits that read back
//! to the same bits; a time is exact to the microsecond.
//!
//! Answers may be tens of megabytes, so each format is an iterator of chunks that hyper pulls as the client reads.

mod csv;
mod json;
mod senml;

use std::fmt::Write as _;
use std::io;

use bytes::Bytes;
use serde::Serialize;
use store::{SampleTime, ValueRef, Values};

pub use csv::csv;
pub use json::json;
pub use senml::senml;

/// A chunk is closed once it is this long, in bytes.
const CHUNK_BYTES: usize = 32 * 1024;

/// What an answer is about: the samples and how they are described.
#[derive(Debug)]
pub struct Table {
    /// Whose samples.
    pub sensor: String,
    /// Of what.
    pub attribute: String,
    /// Kind of the attribute.
    pub kind: &'static str,
    /// Unit of the first channel.
    pub unit: String,
    /// Names of the channels; empty for texts.
    pub channels: Vec<String>,
    /// Units of the channels.
    pub units: Vec<String>,
    /// Ascending.
    pub times: Vec<SampleTime>,
    /// One for each time.
    pub values: Values,
}

/// Turns a row writer into chunks: `head`, then each row (with its index) as `row` writes it, then `tail`.
fn chunks(
    rows: usize,
    head: String,
    tail: &'static str,
    mut row: impl FnMut(&mut String, usize),
) -> impl Iterator<Item = Bytes> {
    let mut next = 0;
    let mut open = Some(head);
    std::iter::from_fn(move || {
        let mut text = open.take()?;
        while next < rows && text.len() < CHUNK_BYTES {
            row(&mut text, next);
            next += 1;
        }
        if next < rows {
            open = Some(String::with_capacity(CHUNK_BYTES + 1024));
        } else {
            text.push_str(tail);
        }
        Some(Bytes::from(text))
    })
}

/// `number` in the fewest digits that read back to the same bits, without the `.0` of a whole number; `null` when
/// it is missing (NaN).
pub fn push_number(out: &mut String, number: f64) {
    push_json(out, &number);
    if out.ends_with(".0") {
        out.truncate(out.len() - 2);
    }
}

/// Appends `value` as JSON without a string of its own.
fn push_json<T: Serialize + ?Sized>(out: &mut String, value: &T) {
    struct Tail<'a>(&'a mut String);

    impl io::Write for Tail<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let text = std::str::from_utf8(bytes).map_err(io::Error::other)?;
            self.0.push_str(text);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    serde_json::to_writer(Tail(out), value)
        .expect("serde_json writes numbers and strings in whole characters");
}

/// A time as the contract's `ts`: milliseconds with up to three decimals.
pub fn push_ts(out: &mut String, time: SampleTime) {
    write!(out, "{time}").expect("writing to a String cannot fail");
}

/// `text` as a JSON string.
pub fn push_text(out: &mut String, text: &str) {
    push_json(out, text);
}

/// A value as JSON: a number, an array of numbers and nulls, or a text.
pub fn push_value(out: &mut String, value: ValueRef<'_>) {
    match value {
        ValueRef::Numbers([number]) => push_number(out, *number),
        ValueRef::Numbers(numbers) => {
            for (index, number) in numbers.iter().enumerate() {
                out.push(if index == 0 { '[' } else { ',' });
                push_number(out, *number);
            }
            out.push(']');
        }
        ValueRef::Text(text) => push_text(out, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(write: impl FnOnce(&mut String)) -> String {
        let mut out = String::new();
        write(&mut out);
        out
    }

    #[test]
    fn numbers_are_short_and_read_back_to_the_same_bits() {
        for (number, text) in
            [(72.0, "72"), (-0.145, "-0.145"), (0.1 + 0.2, "0.30000000000000004"), (0.0, "0")]
        {
            assert_eq!(shown(|out| push_number(out, number)), text);
        }
        for number in [f64::MIN_POSITIVE, f64::MAX, 1e16, 1e-7, 123_456_789.123_456_79, -0.0, 5e-324] {
            let text = shown(|out| push_number(out, number));
            assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits(), "{text}");
            assert!(serde_json::from_str::<f64>(&text).is_ok(), "{text} is JSON");
        }
        assert_eq!(shown(|out| push_number(out, f64::NAN)), "null");
    }

    #[test]
    fn texts_are_escaped_as_json_whatever_they_hold() {
        for text in ["plain", "\"quoted\" \\ \n \u{1}", "Grüße 🫀", ""] {
            let json = shown(|out| push_text(out, text));
            assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }

    #[test]
    fn chunks_hold_every_row_once_and_stay_small() {
        let parts: Vec<_> = chunks(20_000, "head".into(), "tail", |out, row| {
            write!(out, " {row}").unwrap();
        })
        .collect();
        assert!(parts.len() > 2 && parts.iter().all(|part| part.len() < CHUNK_BYTES + 64));
        let text = String::from_utf8(parts.concat()).unwrap();
        let rows: Vec<usize> = text
            .strip_prefix("head ")
            .and_then(|rest| rest.strip_suffix("tail"))
            .map(|rows| rows.split(' ').map(|row| row.parse().unwrap()).collect())
            .unwrap();
        assert!(rows.into_iter().eq(0..20_000));
        assert_eq!(chunks(0, "a".into(), "b", |_, _| {}).collect::<Vec<_>>(), ["ab"]);
    }
}
