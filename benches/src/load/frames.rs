//! Frames of samples as devices send them, written once: from frame to frame only `seq` and `ts` change, and the values
//! turn over a few blocks, so that making a frame is hardly more than a copy.

use ingest::wire::message::to_cbor;
use store::SampleTime;
use tokio_tungstenite::tungstenite::Message;

use crate::samples;

/// Blocks of values that take turns.
const BLOCKS: usize = 16;

/// How frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Text frames.
    Json,
    /// Binary frames, with the subprotocol `sensorium.cbor`.
    Cbor,
}

/// Writes the frames of one series.
#[derive(Debug, Clone)]
pub struct Frames {
    encoding: Encoding,
    attribute: &'static str,
    /// Microseconds from a sample to the next.
    interval: i64,
    /// Samples a frame.
    count: usize,
    blocks: Vec<Vec<u8>>,
}

impl Frames {
    /// Frames of `count` values, `interval` microseconds apart.
    pub fn new(encoding: Encoding, attribute: &'static str, count: usize, interval: i64) -> Self {
        let block = |index: usize| {
            let first = (index * count) as i64;
            let values: Vec<f64> = (first..first + count as i64).map(samples::value).collect();
            match encoding {
                Encoding::Json => {
                    let texts: Vec<String> = values.iter().map(f64::to_string).collect();
                    format!("[{}]}}", texts.join(",")).into_bytes()
                }
                Encoding::Cbor => to_cbor(&values),
            }
        };
        Self { encoding, attribute, interval, count, blocks: (0..BLOCKS).map(block).collect() }
    }

    /// How they are written.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Samples a frame.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Microseconds that a frame spans.
    pub fn span(&self) -> i64 {
        self.interval * self.count as i64
    }

    /// Frame `seq`, its first sample at `start` plus the span of the frames before it.
    pub fn frame(&self, seq: u64, start: SampleTime) -> Message {
        let ts = SampleTime(start.0 + (seq as i64 - 1) * self.span());
        let (interval, attribute) = (SampleTime(self.interval), self.attribute);
        let block = &self.blocks[seq as usize % BLOCKS];
        match self.encoding {
            Encoding::Json => {
                let mut text = format!(
                    r#"{{"type":"samples","seq":{seq},"attribute":"{attribute}","ts":{ts},"interval_ms":{interval},"values":"#
                );
                text.push_str(std::str::from_utf8(block).expect("a block of JSON was made of text"));
                Message::text(text)
            }
            Encoding::Cbor => {
                let mut bytes = Vec::with_capacity(96 + block.len());
                bytes.push(0xA6);
                for (key, value) in [("type", "samples"), ("attribute", attribute)] {
                    push_text(&mut bytes, key);
                    push_text(&mut bytes, value);
                }
                push_text(&mut bytes, "seq");
                bytes.push(0x1B);
                bytes.extend(seq.to_be_bytes());
                for (key, value) in [("ts", ts), ("interval_ms", interval)] {
                    push_text(&mut bytes, key);
                    bytes.push(0xFB);
                    bytes.extend(value.millis().to_be_bytes());
                }
                push_text(&mut bytes, "values");
                bytes.extend(block);
                Message::binary(bytes)
            }
        }
    }
}

/// A CBOR text (RFC 8949, major type 3) of fewer than 24 bytes.
fn push_text(bytes: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() < 24, "{text}");
    bytes.push(0x60 | text.len() as u8);
    bytes.extend(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use ingest::wire::message::from_cbor;
    use serde_json::{Value, json};

    use super::*;

    /// JSON writes a whole number as it likes: 0 is 0.0.
    fn floats(value: Value) -> Value {
        match value {
            Value::Number(number) => json!(number.as_f64()),
            Value::Array(values) => values.into_iter().map(floats).collect(),
            Value::Object(fields) => fields.into_iter().map(|(key, value)| (key, floats(value))).collect(),
            other => other,
        }
    }

    #[test]
    fn both_encodings_say_what_the_protocol_says() {
        let start = SampleTime(samples::START);
        let expected = |seq: u64| {
            let first = (seq as i64 % BLOCKS as i64) * 10;
            let values: Vec<f64> = (first..first + 10).map(samples::value).collect();
            json!({"type": "samples", "seq": seq, "attribute": "ecg", "interval_ms": 0.1, "values": values,
                   "ts": 1_763_661_600_000.0 + (seq as f64 - 1.0)})
        };
        for seq in [1, 2, 17, 70_000] {
            let Message::Text(text) = Frames::new(Encoding::Json, "ecg", 10, 100).frame(seq, start) else {
                panic!("a text frame")
            };
            assert_eq!(floats(serde_json::from_str(&text).unwrap()), floats(expected(seq)));
            let Message::Binary(bytes) = Frames::new(Encoding::Cbor, "ecg", 10, 100).frame(seq, start) else {
                panic!("a binary frame")
            };
            assert_eq!(floats(from_cbor(&bytes).unwrap()), floats(expected(seq)));
        }
    }
}
