//! The samples of one frame: of one attribute, kept until a node has acknowledged them, and written alike each time.

use std::sync::Arc;

use ingest::wire::message::{Sample, Samples, ToNode, Value, to_cbor};
use serde::Serialize;

/// From so many evenly spaced samples on, a frame says the interval instead of every time.
const EVEN_FROM: usize = 3;

/// Consecutive samples of one attribute; never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// Of what.
    pub attribute: Arc<str>,
    /// Times in microseconds since 1970, ascending, with their values.
    pub samples: Vec<(i64, Value)>,
}

/// One sample of an MQTT payload.
#[derive(Serialize)]
struct Stamped<'a> {
    ts: f64,
    value: &'a Value,
}

/// Milliseconds as the protocols say them. A double holds microseconds exactly until the year 2255.
pub fn milliseconds(us: i64) -> f64 {
    us as f64 / 1000.0
}

impl Batch {
    /// The time of the first sample.
    pub fn first(&self) -> i64 {
        self.samples.first().map_or(0, |(time, _)| *time)
    }

    /// The time of the last sample.
    pub fn last(&self) -> i64 {
        self.samples.last().map_or(0, |(time, _)| *time)
    }

    /// How many samples.
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    /// Whether there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// The `samples` frame in JSON.
    pub fn to_json(&self, seq: u64) -> String {
        self.frame(seq, |frame| {
            serde_json::to_string(frame).expect("numbers, texts and lists of them are always written")
        })
    }

    /// The `samples` frame in CBOR.
    pub fn to_cbor(&self, seq: u64) -> Vec<u8> {
        self.frame(seq, |frame| to_cbor(frame))
    }

    /// The payload for `sensors/{sensor}/{attribute}`: an array of `{"ts","value"}`.
    pub fn to_payload(&self) -> Vec<u8> {
        let stamped: Vec<_> =
            self.samples.iter().map(|(time, value)| Stamped { ts: milliseconds(*time), value }).collect();
        serde_json::to_vec(&stamped).expect("numbers, texts and lists of them are always written")
    }

    fn frame<T>(&self, seq: u64, write: impl FnOnce(&ToNode<'_>) -> T) -> T {
        if let Some(interval) = self.interval() {
            let values: Vec<Value> = self.samples.iter().map(|(_, value)| value.clone()).collect();
            return write(&ToNode::Samples(Samples {
                seq,
                attribute: Some(&self.attribute),
                ts: Some(milliseconds(self.first())),
                interval_ms: Some(milliseconds(interval)),
                values: Some(&values),
                ..Samples::default()
            }));
        }
        let samples: Vec<Sample<'_>> = self
            .samples
            .iter()
            .map(|(time, value)| Sample {
                sensor: None,
                attribute: &self.attribute,
                ts: Some(milliseconds(*time)),
                value,
            })
            .collect();
        write(&ToNode::Samples(Samples { seq, samples: Some(&samples), ..Samples::default() }))
    }

    /// The interval in microseconds, when it is the same between all samples.
    fn interval(&self) -> Option<i64> {
        if self.samples.len() < EVEN_FROM {
            return None;
        }
        let interval = self.samples[1].0 - self.samples[0].0;
        self.samples.windows(2).all(|pair| pair[1].0 - pair[0].0 == interval).then_some(interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(times: &[i64]) -> Batch {
        let samples = times.iter().map(|time| (*time, Value::Number(*time as f64 / 7.0))).collect();
        Batch { attribute: "ecg".into(), samples }
    }

    #[test]
    fn even_samples_say_their_interval_and_others_every_time() {
        let even = batch(&[1_763_661_600_000_000, 1_763_661_600_004_000, 1_763_661_600_008_000]).to_json(2);
        assert!(
            even.contains(r#""seq":2,"attribute":"ecg","ts":1763661600000.0,"interval_ms":4.0,"values":["#)
        );
        let uneven = batch(&[0, 2778, 5556, 8333]).to_json(1);
        assert!(uneven.contains(r#"{"attribute":"ecg","ts":8.333,"value":1190.4285714285713}"#), "{uneven}");
    }

    #[test]
    fn a_payload_is_an_array_of_stamped_values() {
        let text = Batch { attribute: "button".into(), samples: vec![(1001, Value::Text("pressed".into()))] };
        assert_eq!(text.to_payload(), br#"[{"ts":1.001,"value":"pressed"}]"#);
    }

    #[test]
    fn every_microsecond_of_our_time_survives_as_milliseconds() {
        for us in (0..5000).map(|step| 1_763_661_600_000_000 + step * 7_919) {
            assert_eq!((milliseconds(us) * 1000.0).round() as i64, us);
        }
    }
}
