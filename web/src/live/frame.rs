//! How samples travel to a viewer: JSON, or compact binary frames for drawing (`?format=binary`).
//!
//! # JSON
//! `{"type":"samples","series":"strap-7/ecg","samples":[[ts,value],…]}`: `ts` in milliseconds with up to three
//! decimals, `value` a number, an array of numbers and nulls (several channels), or a text.
//!
//! # Binary
//! Series have numbers of their own on each connection. Before the first frame of a series, and again when its
//! channels have changed, a JSON message names it:
//! `{"type":"series","ref":1,"series":"imu-1/imu","kind":"imu","unit":"m/s2","channels":["ax","ay",…]}`.
//! A binary message is one frame, little endian, of one series:
//!
//! | offset | type | what |
//! |---|---|---|
//! | 0 | u8 | version of this layout: 1 |
//! | 1 | u8 | channels per sample, C (1..=16) |
//! | 2 | u16 | 0 |
//! | 4 | u32 | `ref` of the series |
//! | 8 | f64 | base time in **micro**seconds since 1970, a whole number |
//! | 16 | u32 | samples, N (1..=4096) |
//! | 20 | u32 | 0 |
//! | 24 | u32 × N | time of each sample: microseconds after the base |
//! | 24 + 4N | f32 × N × C | values, sample after sample; NaN where a channel is missing |
//!
//! Everything is aligned, so a browser lays `Uint32Array` and `Float32Array` over the message as it is. Within a
//! frame times ascend unless the device sent them otherwise. Text series have no binary form: their samples come as
//! JSON messages on the same socket. Values are for drawing; the API has them to the last digit.

use bytes::{BufMut, Bytes, BytesMut};
use store::{SampleTime, Values};

use crate::encode::{push_text, push_ts, push_value};

/// Version of the binary layout.
pub const BINARY_VERSION: u8 = 1;
/// Most samples in one message, JSON or binary: a backfill of a whole ring becomes several messages, so that live
/// samples of other series are not held up behind one huge one.
pub const MAX_SAMPLES_PER_MESSAGE: usize = 4096;
/// Bytes before the times of a binary frame.
const BINARY_HEADER: usize = 24;

/// The JSON messages for `times` and `values` of the series called `name` (`sensor/attribute`), in order.
pub fn json<'a>(name: &str, times: &'a [SampleTime], values: &'a Values) -> impl Iterator<Item = String> {
    let head = {
        let mut head = String::with_capacity(64 + name.len());
        head.push_str(r#"{"type":"samples","series":"#);
        push_text(&mut head, name);
        head.push_str(r#","samples":["#);
        head
    };
    pieces(times.len()).map(move |(start, end)| {
        let mut message = String::with_capacity(head.len() + (end - start) * 32);
        message.push_str(&head);
        for (index, time) in times[start..end].iter().enumerate() {
            message.push_str(if index == 0 { "[" } else { ",[" });
            push_ts(&mut message, *time);
            message.push(',');
            push_value(&mut message, values.get(start + index));
            message.push(']');
        }
        message.push_str("]}");
        message
    })
}

/// The binary frames for `times` and `values` of the series with number `reference`, in order; none for texts.
pub fn binary(reference: u32, times: &[SampleTime], values: &Values) -> Vec<Bytes> {
    let Values::Numbers { channels, flat } = values else { return Vec::new() };
    let mut frames = Vec::new();
    let mut start = 0;
    while start < times.len() {
        // The longest run from `start` whose times fit into 32 bits above its least.
        let (mut least, mut most, mut end) = (times[start].0, times[start].0, start);
        while end < times.len() && end - start < MAX_SAMPLES_PER_MESSAGE {
            let (low, high) = (least.min(times[end].0), most.max(times[end].0));
            if high - low > i64::from(u32::MAX) {
                break;
            }
            (least, most, end) = (low, high, end + 1);
        }
        let count = end - start;
        let mut frame = BytesMut::with_capacity(BINARY_HEADER + count * 4 * (1 + channels));
        frame.put_u8(BINARY_VERSION);
        frame.put_u8(*channels as u8);
        frame.put_u16_le(0);
        frame.put_u32_le(reference);
        frame.put_f64_le(least as f64);
        frame.put_u32_le(count as u32);
        frame.put_u32_le(0);
        for time in &times[start..end] {
            frame.put_u32_le((time.0 - least) as u32);
        }
        for value in &flat[start * channels..end * channels] {
            frame.put_f32_le(*value as f32);
        }
        frames.push(frame.freeze());
        start = end;
    }
    frames
}

/// Ranges of at most [`MAX_SAMPLES_PER_MESSAGE`] that cover `0..len`.
fn pieces(len: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..len)
        .step_by(MAX_SAMPLES_PER_MESSAGE)
        .map(move |start| (start, len.min(start + MAX_SAMPLES_PER_MESSAGE)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(micros: &[i64]) -> Vec<SampleTime> {
        micros.iter().copied().map(SampleTime).collect()
    }

    #[test]
    fn json_keeps_every_digit() {
        let values = Values::Numbers { channels: 2, flat: vec![0.1, f64::NAN, -7.0, 1e-9] };
        let messages: Vec<_> = json("a/b", &times(&[1_763_661_600_000_000, 2_778]), &values).collect();
        assert_eq!(
            messages,
            [r#"{"type":"samples","series":"a/b","samples":[[1763661600000,[0.1,null]],[2.778,[-7,1e-9]]]}"#]
        );
        let text = Values::Texts(vec!["he said \"hi\"\n".into()]);
        let messages: Vec<_> = json("a/b", &times(&[1000]), &text).collect();
        assert_eq!(messages, [r#"{"type":"samples","series":"a/b","samples":[[1,"he said \"hi\"\n"]]}"#]);
    }

    #[test]
    fn a_whole_ring_is_sent_in_pieces() {
        let count = 2 * MAX_SAMPLES_PER_MESSAGE + 1;
        let at: Vec<_> = (0..count as i64).map(SampleTime).collect();
        let values = Values::Numbers { channels: 1, flat: vec![1.0; count] };
        assert_eq!(json("a/b", &at, &values).count(), 3);
        let frames = binary(1, &at, &values);
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[2].len(), BINARY_HEADER + 8);
    }

    #[test]
    fn a_binary_frame_reads_back_by_its_documented_layout() {
        let base = 1_763_661_600_000_123_i64;
        let values = Values::Numbers { channels: 2, flat: vec![0.5, 1.5, f64::NAN, -3.25] };
        let frames = binary(9, &times(&[base, base + 4000]), &values);
        let frame = &frames[0];
        let u32_at = |at: usize| u32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        let f32_at = |at: usize| f32::from_le_bytes(frame[at..at + 4].try_into().unwrap());
        assert_eq!((frame[0], frame[1], u32_at(4), u32_at(16)), (1, 2, 9, 2));
        assert_eq!(f64::from_le_bytes(frame[8..16].try_into().unwrap()), base as f64);
        assert_eq!((u32_at(24), u32_at(28)), (0, 4000));
        assert_eq!((f32_at(32), f32_at(36), f32_at(44)), (0.5, 1.5, -3.25));
        assert!(f32_at(40).is_nan());
        assert_eq!(frame.len(), 48);
    }

    #[test]
    fn times_too_far_apart_for_one_frame_are_split_and_none_is_lost() {
        let day = 86_400_000_000_i64;
        let at = times(&[0, day, day + 5, -day, -day + 1]);
        let values = Values::Numbers { channels: 1, flat: vec![0.0, 1.0, 2.0, 3.0, 4.0] };
        let mut seen = Vec::new();
        for frame in binary(1, &at, &values) {
            let base = f64::from_le_bytes(frame[8..16].try_into().unwrap()) as i64;
            let count = u32::from_le_bytes(frame[16..20].try_into().unwrap()) as usize;
            for index in 0..count {
                let at = 24 + 4 * index;
                seen.push(base + i64::from(u32::from_le_bytes(frame[at..at + 4].try_into().unwrap())));
            }
        }
        assert_eq!(seen, [0, day, day + 5, -day, -day + 1]);
    }
}
