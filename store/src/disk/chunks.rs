//! Chunks: samples of one series at rest, in compressed columns.
//!
//! ```text
//! chunk   = version:u8 channels:u8 (0: texts) count:varint times stamps authors values checksum:8
//! times, stamps, each channel of numbers = length:varint pco-bytes
//! authors = (run-length:varint author:u32)*
//! texts   = text*
//! ```
//! The chunks of a series never overlap: a checkpoint rewrites those that its new samples fall into.

use std::fmt::Display;

use pco::ChunkConfig;
use pco::data_types::Number;

use crate::clock::Stamp;
use crate::codec::{Malformed, Reader, put_text, put_varint, seal, unseal};
use crate::model::time::SampleTime;
use crate::model::value::{MAX_CHANNELS, Values};
use crate::ring::{Samples, Stamps};

/// Most samples of a chunk.
pub(crate) const CHUNK_SAMPLES: usize = 256;
/// Version of the layout above.
const VERSION: u8 = 1;
/// Effort of `pco` (0..=12): past 4 a chunk of 256 samples hardly shrinks, and the time doubles.
const COMPRESSION_LEVEL: usize = 4;

/// Where a chunk on disk begins and ends, in microseconds, and how many samples it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Time of the first sample: its key.
    pub first: i64,
    /// Time of the last sample.
    pub last: i64,
    /// Samples.
    pub count: usize,
}

/// Writes a chunk. Samples ascend and have as many stamps.
pub(crate) fn encode(samples: &Samples, stamps: &[Stamp]) -> Vec<u8> {
    let count = samples.times.len();
    let mut out = vec![VERSION];
    out.push(match &samples.values {
        Values::Numbers { channels, .. } => *channels as u8,
        Values::Texts(_) => 0,
    });
    put_varint(&mut out, count as u64);
    put_column(&mut out, &samples.times.iter().map(|time| time.0).collect::<Vec<_>>());
    put_column(&mut out, &stamps.iter().map(|stamp| stamp.time).collect::<Vec<_>>());
    for run in stamps.chunk_by(|a, b| a.author == b.author) {
        put_varint(&mut out, run.len() as u64);
        out.extend_from_slice(&run[0].author.to_le_bytes());
    }
    match &samples.values {
        Values::Numbers { channels, flat } => (0..*channels).for_each(|channel| {
            put_column(&mut out, &flat.iter().skip(channel).step_by(*channels).copied().collect::<Vec<_>>());
        }),
        Values::Texts(texts) => texts.iter().for_each(|text| put_text(&mut out, text)),
    }
    seal(&mut out);
    out
}

fn put_column<T: Number>(out: &mut Vec<u8>, column: &[T]) {
    let config = ChunkConfig::default().with_compression_level(COMPRESSION_LEVEL);
    let bytes = pco::standalone::simple_compress(column, &config).expect(
        "pco refuses only bad settings and more than 2^24 numbers; these are constants and at most 256",
    );
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(&bytes);
}

/// Reads a chunk back.
pub(crate) fn decode(record: &[u8]) -> Result<(Samples, Stamps), Malformed> {
    let mut reader = Reader(unseal(record)?);
    if reader.byte("a chunk version")? != VERSION {
        return Err(reader.malformed("chunk version 1"));
    }
    let channels = usize::from(reader.byte("a channel count")?);
    let count = reader.varint("a sample count")? as usize;
    if channels > MAX_CHANNELS || count == 0 || count > CHUNK_SAMPLES {
        return Err(reader.malformed("1 to 256 samples of at most 16 channels"));
    }
    let times = column::<i64>(&mut reader, count, "a column of times")?.into_iter().map(SampleTime).collect();
    let stamp_times = column::<u64>(&mut reader, count, "a column of stamps")?;
    let mut stamps = Vec::with_capacity(count);
    while stamps.len() < count {
        let run = reader.varint("a run of authors")? as usize;
        let author = u32::from_le_bytes(reader.array("an author")?);
        if run == 0 || run > count - stamps.len() {
            return Err(reader.malformed("as many authors as samples"));
        }
        let from = stamps.len();
        stamps.extend(stamp_times[from..from + run].iter().map(|time| Stamp { time: *time, author }));
    }
    let values = if channels == 0 {
        let texts = (0..count).map(|_| reader.text("a text").map(Into::into)).collect::<Result<_, _>>()?;
        Values::Texts(texts)
    } else {
        let mut flat = vec![0.0; count * channels];
        for channel in 0..channels {
            let column = column::<f64>(&mut reader, count, "a column of numbers")?;
            flat.iter_mut()
                .skip(channel)
                .step_by(channels)
                .zip(column)
                .for_each(|(slot, number)| *slot = number);
        }
        Values::Numbers { channels, flat }
    };
    if !reader.is_empty() {
        return Err(reader.malformed("the end of the chunk"));
    }
    Ok((Samples { times, values }, Stamps::Each(stamps)))
}

fn column<T: Number + Display>(
    reader: &mut Reader<'_>,
    count: usize,
    expected: &'static str,
) -> Result<Vec<T>, Malformed> {
    let length = reader.count(1, expected)?;
    let bytes = reader.bytes(length, expected)?;
    match pco::standalone::simple_decompress::<T>(bytes) {
        Ok(column) if column.len() == count => Ok(column),
        _ => Err(reader.malformed(expected)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_chunk_comes_back(
            rows in prop::collection::vec((any::<i64>(), any::<u64>(), 0..3u32, any::<f64>()), 1..=256usize),
            channels in 0..4usize,
        ) {
            let values = if channels == 0 {
                Values::Texts(rows.iter().map(|row| row.3.to_string().into()).collect())
            } else {
                let flat = rows.iter().flat_map(|row| std::iter::repeat_n(row.3, channels)).collect();
                Values::Numbers { channels, flat }
            };
            let samples = Samples { times: rows.iter().map(|row| SampleTime(row.0)).collect(), values };
            let stamps: Vec<_> = rows.iter().map(|row| Stamp { time: row.1, author: row.2 }).collect();
            let (back, back_stamps) = decode(&encode(&samples, &stamps)).unwrap();
            prop_assert_eq!(back_stamps, Stamps::Each(stamps));
            prop_assert_eq!(back.times, samples.times);
            match (back.values, samples.values) {
                (Values::Numbers { flat: a, .. }, Values::Numbers { flat: b, .. }) => {
                    let bits = |flat: Vec<f64>| flat.into_iter().map(f64::to_bits).collect::<Vec<_>>();
                    prop_assert_eq!(bits(a), bits(b));
                }
                (a, b) => prop_assert_eq!(a, b),
            }
        }

        #[test]
        fn a_damaged_chunk_is_refused(at: usize, bit in 0..8u8) {
            let samples = Samples {
                times: (0..9).map(SampleTime).collect(),
                values: Values::Numbers { channels: 1, flat: vec![0.25; 9] },
            };
            let mut bytes = encode(&samples, &[Stamp { time: 1, author: 1 }; 9]);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes).is_err());
        }
    }
}
