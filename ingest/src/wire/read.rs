//! What devices write on their WebSocket, read into rows: JSON and CBOR by one visitor, without an object for every
//! sample.
//!
//! Invariant: whatever comes, the answer is a frame or an error that names what was wrong; where the frame's `seq` can
//! still be read, the error carries it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::message::Hello;
use super::rows::{Fault, Rows};

/// How a connection's frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON text.
    Json,
    /// CBOR (RFC 8949).
    Cbor,
}

/// A frame of a device.
#[derive(Debug, Clone, PartialEq)]
pub enum FromDevice {
    /// Who it is.
    Hello(Box<Hello>),
    /// Measurements; they stand in the rows. The names are those of rows without their own.
    Samples {
        /// The frame's number.
        seq: u64,
        /// Whose.
        sensor: Option<String>,
        /// Of what.
        attribute: Option<String>,
    },
    /// The answer to a command.
    Reply {
        /// The command's.
        id: String,
    },
}

/// A frame that cannot be taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Unreadable {
    /// Its number, when it is a frame of samples and that much could be read.
    pub seq: Option<u64>,
    /// Why.
    pub fault: Fault,
}

/// Reads a frame; samples go to `rows`, which is cleared first.
pub fn read(format: Format, bytes: &[u8], rows: &mut Rows) -> Result<FromDevice, Unreadable> {
    rows.clear();
    let mut fault = None;
    let seed = Frame { rows, fault: &mut fault };
    let read = match format {
        Format::Json => {
            let mut json = serde_json::Deserializer::from_slice(bytes);
            seed.deserialize(&mut json)
                .and_then(|fields| json.end().map(|()| fields))
                .map_err(|error| error.to_string())
        }
        Format::Cbor => {
            let mut cbor = cbor4ii::serde::Deserializer::new(cbor4ii::core::utils::SliceReader::new(bytes));
            seed.deserialize(&mut cbor).map_err(|error| error.to_string())
        }
    };
    let fields = match read {
        Ok(fields) => fields,
        Err(error) => {
            // What little can be read says whom the error is for.
            let envelope = decode::<Envelope>(format, bytes).unwrap_or_default();
            let seq = envelope.seq.filter(|_| envelope.kind.as_deref() == Some("samples"));
            let unreadable = || match format {
                Format::Json => Fault::Unreadable(format!("not a JSON frame: {error}")),
                Format::Cbor => Fault::NotCbor(format!("not a CBOR frame: {error}")),
            };
            return Err(Unreadable { seq, fault: fault.unwrap_or_else(unreadable) });
        }
    };
    let malformed = |seq, what: String| Err(Unreadable { seq, fault: Fault::Malformed(what) });
    match fields.kind.as_deref() {
        Some("samples") => {
            let Some(seq) = fields.seq else {
                return malformed(None, "a samples frame without seq; expected a whole number from 1".into());
            };
            fields.complete(rows).map_err(|fault| Unreadable { seq: Some(seq), fault })?;
            Ok(FromDevice::Samples { seq, sensor: fields.sensor, attribute: fields.attribute })
        }
        Some("hello") => match decode::<Hello>(format, bytes) {
            Ok(hello) => Ok(FromDevice::Hello(Box::new(hello))),
            Err(error) => malformed(None, format!("hello: {error}")),
        },
        Some("reply") => match fields.id {
            Some(id) => Ok(FromDevice::Reply { id }),
            None => malformed(None, "a reply without id".into()),
        },
        Some(kind) => malformed(None, format!("type {kind:?}; expected hello, samples or reply")),
        None => malformed(None, "a frame without type; expected hello, samples or reply".into()),
    }
}

fn decode<'a, T: Deserialize<'a>>(format: Format, bytes: &'a [u8]) -> Result<T, String> {
    match format {
        Format::Json => serde_json::from_slice(bytes).map_err(|error| error.to_string()),
        Format::Cbor => super::message::from_cbor(bytes),
    }
}

/// The least that tells whose frame it was.
#[derive(Default, Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: Option<String>,
    seq: Option<u64>,
}

#[derive(Default)]
struct Fields {
    kind: Option<String>,
    id: Option<String>,
    seq: Option<u64>,
    sensor: Option<String>,
    attribute: Option<String>,
    ts: Option<f64>,
    interval_ms: Option<f64>,
    /// How many of the rows stand in `values`.
    spaced: Option<usize>,
    listed: bool,
}

impl Fields {
    /// Gives `values` their times, now that all fields are known.
    fn complete(&self, rows: &mut Rows) -> Result<(), Fault> {
        match (self.spaced, self.listed) {
            (Some(_), true) => Err(Fault::Malformed("both samples and values; expected one of them".into())),
            (None, false) => Err(Fault::Malformed("a samples frame without samples or values".into())),
            (None, true) => Ok(()),
            (Some(_), false) if self.attribute.is_none() => {
                Err(Fault::Malformed("values without attribute".into()))
            }
            (Some(count), false) => {
                let interval_ms = match (self.ts, self.interval_ms) {
                    (Some(_), None) if count > 1 => {
                        return Err(Fault::Malformed(
                            "several values with ts, but without interval_ms".into(),
                        ));
                    }
                    (_, Some(interval)) if interval.is_nan() || interval <= 0.0 => {
                        return Err(Fault::NotATime(format!("interval_ms {interval}; expected more than 0")));
                    }
                    (_, interval) => interval.unwrap_or(0.0),
                };
                rows.set_times(0, self.ts, interval_ms);
                Ok(())
            }
        }
    }
}

struct Frame<'r> {
    rows: &'r mut Rows,
    fault: &'r mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Frame<'_> {
    type Value = Fields;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Fields, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Frame<'_> {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a type")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Fields::default();
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "type" => fields.kind = Some(map.next_value()?),
                "id" => fields.id = Some(map.next_value()?),
                "seq" => fields.seq = Some(map.next_value()?),
                "sensor" => fields.sensor = map.next_value_seed(Text("sensor"))?,
                "attribute" => fields.attribute = map.next_value_seed(Text("attribute"))?,
                "ts" => fields.ts = map.next_value_seed(Time(self.fault, "ts"))?,
                "interval_ms" => fields.interval_ms = map.next_value_seed(Time(self.fault, "interval_ms"))?,
                "values" => {
                    let before = self.rows.len();
                    map.next_value_seed(List { rows: self.rows, fault: self.fault, of: Of::Values })?;
                    fields.spaced = Some(self.rows.len() - before);
                }
                "samples" => {
                    map.next_value_seed(List { rows: self.rows, fault: self.fault, of: Of::Samples })?;
                    fields.listed = true;
                }
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(fields)
    }
}

/// A key, borrowed where the format allows.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
            fn visit_str<E>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

/// Stops the reading with a fault that the sender is told.
fn stop<T, E: serde::de::Error>(fault: &mut Option<Fault>, what: Fault) -> Result<T, E> {
    let message = what.to_string();
    fault.get_or_insert(what);
    Err(E::custom(message))
}

/// A name, which may be null.
struct Text(&'static str);

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Visitor<'_> for Text {
    type Value = Option<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a text", self.0)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(text.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }
}

/// A number of milliseconds, which may be null.
struct Time<'r>(&'r mut Option<Fault>, &'static str);

impl<'de> DeserializeSeed<'de> for Time<'_> {
    type Value = Option<f64>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Time<'_> {
    fn not_a_time<E: serde::de::Error>(self, what: &str) -> Result<Option<f64>, E> {
        let Self(fault, name) = self;
        stop(fault, Fault::NotATime(format!("{name} is {what}; expected a number of milliseconds")))
    }
}

impl Visitor<'_> for Time<'_> {
    type Value = Option<f64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} as a number of milliseconds", self.1)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Self::Value, E> {
        if number.is_finite() { Ok(Some(number)) } else { self.not_a_time("not finite") }
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number as f64))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        self.not_a_time(&format!("{:?}", shorten(text)))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.not_a_time(&value.to_string())
    }
}

#[derive(Clone, Copy)]
enum Of {
    Values,
    Samples,
}

/// The list `values` or `samples`.
struct List<'r> {
    rows: &'r mut Rows,
    fault: &'r mut Option<Fault>,
    of: Of,
}

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self { rows, fault, of } = self;
        loop {
            match of {
                Of::Samples => match list.next_element_seed(Sample { rows, fault })? {
                    Some(()) => {}
                    None => return Ok(()),
                },
                Of::Values => match list.next_element_seed(Value { rows, fault })? {
                    Some(cell) => cell.push(rows, (None, None), None),
                    None => return Ok(()),
                },
            }
        }
    }
}

/// One of `samples`.
struct Sample<'r> {
    rows: &'r mut Rows,
    fault: &'r mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Sample<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Sample<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sample: an object with attribute, ts and value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { rows, fault } = self;
        let (mut sensor, mut attribute, mut ts, mut value) = (None, None, None, None);
        while let Some(Key(key)) = map.next_key()? {
            match &*key {
                "sensor" => sensor = Some(map.next_value::<Key<'de>>()?.0),
                "attribute" => attribute = Some(map.next_value::<Key<'de>>()?.0),
                "ts" => ts = map.next_value_seed(Time(fault, "ts"))?,
                "value" => value = Some(map.next_value_seed(Value { rows, fault })?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        match value {
            Some(cell) => cell.push(rows, (sensor.as_deref(), attribute.as_deref()), ts),
            None => return stop(fault, Fault::Malformed("a sample without value".into())),
        }
        Ok(())
    }
}

/// A value: a number, a text, or an array of numbers and nulls, which goes to the rows' numbers at once.
struct Value<'r> {
    rows: &'r mut Rows,
    fault: &'r mut Option<Fault>,
}

enum Cell {
    Number(f64),
    Numbers(usize),
    Text(String),
}

impl Cell {
    fn push(self, rows: &mut Rows, (sensor, attribute): (Option<&str>, Option<&str>), ts: Option<f64>) {
        let names = rows.names(sensor, attribute);
        match self {
            Self::Number(number) => rows.push_number(names, ts, number),
            Self::Numbers(start) => rows.push_numbers(names, ts, start),
            Self::Text(text) => rows.push_text(names, ts, &text),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Cell, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn not_a_value<E: serde::de::Error, T>(self, what: &str) -> Result<T, E> {
        let expected = "expected a number, a text, or an array of numbers and nulls";
        stop(self.fault, Fault::NotAValue(format!("a value is {what}; {expected}")))
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text, or an array of numbers and nulls")
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Cell, E> {
        if number.is_finite() { Ok(Cell::Number(number)) } else { self.not_a_value(&number.to_string()) }
    }

    fn visit_u64<E>(self, number: u64) -> Result<Cell, E> {
        Ok(Cell::Number(number as f64))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell::Number(number as f64))
    }

    fn visit_str<E>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Cell, E> {
        self.not_a_value(&value.to_string())
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Cell, E> {
        self.not_a_value("null")
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Cell, E> {
        self.not_a_value("null")
    }

    fn visit_map<A: MapAccess<'de>>(self, _: A) -> Result<Cell, A::Error> {
        self.not_a_value("an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Cell, A::Error> {
        let Self { rows, fault } = self;
        let start = rows.numbers().len();
        while let Some(channel) = list.next_element_seed(Channel { fault })? {
            rows.numbers().push(channel);
        }
        if rows.numbers().len() == start {
            return stop(
                fault,
                Fault::NotAValue("a value is an empty array; expected 1 to 16 channels".into()),
            );
        }
        Ok(Cell::Numbers(start))
    }
}

/// A channel: a number, or null, which is NaN.
struct Channel<'r> {
    fault: &'r mut Option<Fault>,
}

impl<'de> DeserializeSeed<'de> for Channel<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<f64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Channel<'_> {
    fn not_a_number<E: serde::de::Error>(self, what: &str) -> Result<f64, E> {
        stop(self.fault, Fault::NotAValue(format!("a channel is {what}; expected a number or null")))
    }
}

impl Visitor<'_> for Channel<'_> {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or null")
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<f64, E> {
        if number.is_finite() { Ok(number) } else { self.not_a_number(&number.to_string()) }
    }

    fn visit_u64<E>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_unit<E>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_none<E>(self) -> Result<f64, E> {
        Ok(f64::NAN)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<f64, E> {
        self.not_a_number(&format!("{:?}", shorten(text)))
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<f64, E> {
        self.not_a_number(&value.to_string())
    }
}

/// The beginning of a text, for messages.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::to_cbor;
    use crate::wire::rows::{Stated, StatedValue};
    use proptest::prelude::*;

    fn json(text: &str) -> (Result<FromDevice, Unreadable>, Rows) {
        let mut rows = Rows::default();
        (read(Format::Json, text.as_bytes(), &mut rows), rows)
    }

    /// The same frame in CBOR.
    fn cbor(text: &str) -> (Result<FromDevice, Unreadable>, Rows) {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        // cbor4ii writes `()`, as which serde_json gives null, as an empty array; devices write null.
        let bytes =
            to_cbor(&value).iter().map(|byte| if *byte == 0x80 { 0xf6 } else { *byte }).collect::<Vec<_>>();
        let mut rows = Rows::default();
        (read(Format::Cbor, &bytes, &mut rows), rows)
    }

    #[test]
    fn both_forms_of_samples_are_read_in_both_formats() {
        let listed = r#"{"type":"samples","seq":1,"samples":[{"attribute":"heartrate","ts":1763661600000,"value":72},
            {"value":[0.1,null,-3],"ts":1763661600000.5,"attribute":"imu","sensor":"other"},{"attribute":"b","value":"on"}]}"#;
        for (frame, rows) in [json(listed), cbor(listed)] {
            assert_eq!(frame, Ok(FromDevice::Samples { seq: 1, sensor: None, attribute: None }));
            let stated: Vec<Stated<'_>> = rows.iter().collect();
            assert_eq!(stated[0].ts, Some(1_763_661_600_000.0));
            assert_eq!(stated[0].value, StatedValue::Numbers(&[72.0]));
            assert_eq!((stated[1].sensor, stated[1].attribute), (Some("other"), Some("imu")));
            assert!(matches!(stated[1].value, StatedValue::Numbers([a, b, -3.0]) if *a == 0.1 && b.is_nan()));
            assert_eq!((stated[2].ts, stated[2].value), (None, StatedValue::Text("on")));
        }
        let spaced = r#"{"type":"samples","values":[0.11,0.12,[1,2]],"seq":2,"interval_ms":4,"ts":10,"attribute":"ecg"}"#;
        for (frame, rows) in [json(spaced), cbor(spaced)] {
            let attribute = Some("ecg".to_owned());
            assert_eq!(frame, Ok(FromDevice::Samples { seq: 2, sensor: None, attribute }));
            assert_eq!(
                rows.iter().map(|row| row.ts).collect::<Vec<_>>(),
                [Some(10.0), Some(14.0), Some(18.0)]
            );
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_the_frame_it_was_in() {
        for (frame, seq, said) in [
            ("nonsense", None, "not a JSON frame"),
            ("{}", None, "without type"),
            (r#"{"type":"dance"}"#, None, "\"dance\""),
            (r#"{"type":"samples","samples":[]}"#, None, "without seq"),
            (r#"{"type":"samples","seq":4}"#, Some(4), "without samples or values"),
            (r#"{"type":"samples","seq":4,"samples":[{"attribute":"a"}]}"#, Some(4), "without value"),
            (r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","value":true}]}"#, Some(4), "is true"),
            (r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","value":null}]}"#, Some(4), "is null"),
            (
                r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","value":[]}]}"#,
                Some(4),
                "empty array",
            ),
            (r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","value":{}}]}"#, Some(4), "an object"),
            (r#"{"seq":4,"samples":[{"attribute":"a","value":["x"]}],"type":"samples"}"#, Some(4), "\"x\""),
            (
                r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","value":1e999}]}"#,
                Some(4),
                "number out of range",
            ),
            (
                r#"{"type":"samples","seq":4,"samples":[{"attribute":"a","ts":"noon","value":1}]}"#,
                Some(4),
                "\"noon\"",
            ),
            (
                r#"{"type":"samples","seq":4,"attribute":"a","ts":1,"values":[1,2]}"#,
                Some(4),
                "without interval_ms",
            ),
            (
                r#"{"type":"samples","seq":4,"attribute":"a","ts":1,"interval_ms":0,"values":[1,2]}"#,
                Some(4),
                "more than 0",
            ),
            (r#"{"type":"samples","seq":4,"values":[1]}"#, Some(4), "without attribute"),
            (r#"{"type":"hello"}"#, None, "sensor"),
        ] {
            let error = json(frame).0.expect_err(frame);
            assert_eq!(error.seq, seq, "{frame}");
            assert!(error.fault.to_string().contains(said), "{frame}: {}", error.fault);
        }
        let infinite = serde_json::json!({"type":"samples","seq":4,"attribute":"a","values":[1.0]});
        let mut bytes = to_cbor(&infinite);
        let at = bytes.windows(9).position(|window| window[0] == 0xfb).expect("a double");
        bytes[at + 1..at + 9].copy_from_slice(&f64::NAN.to_be_bytes());
        let error = read(Format::Cbor, &bytes, &mut Rows::default()).expect_err("NaN");
        assert_eq!(error.seq, Some(4));
        assert!(matches!(error.fault, Fault::NotAValue(_)), "{:?}", error.fault);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn noise_is_refused_without_a_panic(bytes: Vec<u8>, text: String) {
            let mut rows = Rows::default();
            let _ = read(Format::Cbor, &bytes, &mut rows);
            prop_assert!(read(Format::Json, text.as_bytes(), &mut rows).is_err());
        }
    }
}
