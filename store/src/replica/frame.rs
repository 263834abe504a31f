//! Frames: the blocks of one commit, as they stand in the log and travel to peers.
//!
//! ```text
//! frame  = version:u8 origin.node:u64 origin.start:u64 number:varint block-count:varint block* checksum:8
//! block  = partition:varint number:varint length:varint body
//! body   = samples: name-count:varint name* run*        (partition < 1024)
//!        | registry: operation*                         (partition = 1024)
//! name   = sensor:text attribute:text kind:text         (a series that the origin had not named before)
//! run    = series:16 tag:u8 count:varint stamp:u64 first-time:zigzag sample*
//!          tag 0: texts; 1..=16: that many channels. Sample i has the stamp `stamp + i` and the time that the
//!          delta of deltas before its value gives (the first sample has none).
//! sample = [delta of deltas:zigzag] (f64 per channel | text)
//! ```
//! Invariant: a block once sealed never changes; its bytes are the same in every log and on every link.

use super::super::codec::{Malformed, Reader, put_text, put_varint, put_zigzag, seal, unseal};
use crate::clock::{Stamp, author};
use crate::model::ids::{Attribute, NodeId, Origin, PARTITIONS, Partition, SensorId, SeriesId};
use crate::model::kind::Kind;
use crate::model::time::SampleTime;
use crate::model::value::{MAX_CHANNELS, ValueRef, Values};
use crate::registry::Operation;
use crate::ring::Samples;

/// Version of the layout above.
const VERSION: u8 = 1;
/// The partition of registry operations, which every node keeps.
pub const REGISTRY: Partition = Partition(PARTITIONS);

/// A series' names, said once by each origin before its first run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// Whose.
    pub sensor: SensorId,
    /// Which.
    pub attribute: Attribute,
    /// What it measures.
    pub kind: Kind,
}

/// Samples of one series that came in one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// Whose.
    pub series: SeriesId,
    /// Stamp of the first sample; the i-th has this plus i.
    pub stamp: Stamp,
    /// In the order in which they came.
    pub samples: Samples,
}

/// What one origin took in one commit for one partition.
#[derive(Debug, Clone, PartialEq)]
pub struct Block {
    /// Which partition.
    pub partition: Partition,
    /// Its place in the origin's blocks of that partition, from 1.
    pub number: u64,
    /// What.
    pub body: Body,
}

/// The content of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Samples, behind the names of their series where these are new.
    Samples {
        /// Series that the origin had not named before.
        names: Vec<Name>,
        /// The samples.
        runs: Vec<Run>,
    },
    /// Changes of descriptors and rooms.
    Registry(Vec<Operation>),
}

/// The blocks of one commit.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// Author.
    pub origin: Origin,
    /// Its place in the origin's log, from 1.
    pub number: u64,
    /// The blocks.
    pub blocks: Vec<Block>,
}

/// A run while samples still come.
#[derive(Debug)]
pub struct RunWriter {
    stamp: u64,
    tag: u8,
    count: u64,
    first: i64,
    last: i64,
    delta: i64,
    bytes: Vec<u8>,
}

impl RunWriter {
    /// An empty run whose first sample gets `stamp`; `channels` 0 means texts.
    pub fn new(stamp: u64, channels: usize) -> Self {
        debug_assert!(channels <= MAX_CHANNELS);
        Self { stamp, tag: channels as u8, count: 0, first: 0, last: 0, delta: 0, bytes: Vec::new() }
    }

    /// Channels of its samples; 0 means texts.
    pub fn channels(&self) -> usize {
        usize::from(self.tag)
    }

    /// The stamp that the next sample gets.
    pub fn next_stamp(&self) -> u64 {
        self.stamp + self.count
    }

    /// Appends a sample of the run's shape; returns the bytes it took.
    pub fn push(&mut self, time: SampleTime, value: ValueRef<'_>) -> usize {
        let before = self.bytes.len();
        if self.count == 0 {
            self.first = time.0;
        } else {
            let delta = time.0.wrapping_sub(self.last);
            put_zigzag(&mut self.bytes, delta.wrapping_sub(self.delta));
            self.delta = delta;
        }
        self.last = time.0;
        self.count += 1;
        match value {
            ValueRef::Numbers(numbers) => {
                numbers.iter().for_each(|number| self.bytes.extend_from_slice(&number.to_le_bytes()));
            }
            ValueRef::Text(text) => put_text(&mut self.bytes, text),
        }
        self.bytes.len() - before
    }

    /// Whether it has no samples.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Writes the run of `series`; nothing when it is empty.
    pub fn finish(&self, series: SeriesId, out: &mut Vec<u8>) {
        if self.is_empty() {
            return;
        }
        out.extend_from_slice(&series.0);
        out.push(self.tag);
        put_varint(out, self.count);
        out.extend_from_slice(&self.stamp.to_le_bytes());
        put_zigzag(out, self.first);
        out.extend_from_slice(&self.bytes);
    }
}

/// Collects the blocks of one commit.
#[derive(Debug)]
pub struct FrameWriter {
    header: Vec<u8>,
    blocks: Vec<u8>,
    count: u64,
}

impl FrameWriter {
    /// A frame without blocks.
    pub fn new(origin: Origin, number: u64) -> Self {
        let mut header = vec![VERSION];
        header.extend_from_slice(&origin.node.0.to_le_bytes());
        header.extend_from_slice(&origin.start.to_le_bytes());
        put_varint(&mut header, number);
        Self { header, blocks: Vec::new(), count: 0 }
    }

    /// Appends a block of samples: its names, then its runs as [`RunWriter::finish`] wrote them.
    pub fn samples(&mut self, partition: Partition, number: u64, names: &[Name], runs: &[u8]) {
        let mut head = Vec::new();
        put_varint(&mut head, names.len() as u64);
        for name in names {
            put_text(&mut head, name.sensor.as_str());
            put_text(&mut head, name.attribute.as_str());
            put_text(&mut head, name.kind.name());
        }
        self.block(partition, number, &head, runs);
    }

    /// Appends a block of registry operations.
    pub fn registry(&mut self, number: u64, operations: &[Operation]) {
        let mut body = Vec::new();
        operations.iter().for_each(|operation| operation.encode(&mut body));
        self.block(REGISTRY, number, &body, &[]);
    }

    fn block(&mut self, partition: Partition, number: u64, head: &[u8], rest: &[u8]) {
        put_varint(&mut self.blocks, u64::from(partition.0));
        put_varint(&mut self.blocks, number);
        put_varint(&mut self.blocks, (head.len() + rest.len()) as u64);
        self.blocks.extend_from_slice(head);
        self.blocks.extend_from_slice(rest);
        self.count += 1;
    }

    /// The frame's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        put_varint(&mut self.header, self.count);
        self.header.append(&mut self.blocks);
        seal(&mut self.header);
        self.header
    }
}

impl Frame {
    /// Reads a frame back.
    pub fn decode(record: &[u8]) -> Result<Self, Malformed> {
        Self::decode_if(record, |_| true)
    }

    /// Reads a frame back without the blocks of partitions that are not `wanted`.
    pub fn decode_if(record: &[u8], wanted: impl Fn(Partition) -> bool) -> Result<Self, Malformed> {
        let mut reader = Reader(unseal(record)?);
        let (origin, number) = frame_head(&mut reader)?;
        let count = reader.count(3, "a block count")?;
        let mut blocks = Vec::new();
        for _ in 0..count {
            blocks.extend(decode_block(&mut reader, origin, &wanted)?);
        }
        if !reader.is_empty() {
            return Err(reader.malformed("the end of the frame"));
        }
        Ok(Self { origin, number, blocks })
    }
}

/// The frame with only the blocks that `kept` names; their bytes stay as they are. `None` when none is left, or when
/// the record is no frame.
pub fn reduce(record: &[u8], kept: impl Fn(Partition, u64) -> bool) -> Option<Vec<u8>> {
    let content = unseal(record).ok()?;
    let mut reader = Reader(content);
    frame_head(&mut reader).ok()?;
    let head = content.len() - reader.0.len();
    let count = reader.count(3, "a block count").ok()?;
    let mut writer = FrameWriter { header: content[..head].to_vec(), blocks: Vec::new(), count: 0 };
    for _ in 0..count {
        let before = reader.0;
        let (partition, number, _) = block_head(&mut reader).ok()?;
        if kept(partition, number) {
            writer.blocks.extend_from_slice(&before[..before.len() - reader.0.len()]);
            writer.count += 1;
        }
    }
    (writer.count > 0).then(|| writer.finish())
}

/// Author and number of a frame, and the partition and number of each of its blocks.
pub type Outline = (Origin, u64, Vec<(Partition, u64)>);

/// What a frame holds, without the content of its blocks.
pub fn outline(record: &[u8]) -> Result<Outline, Malformed> {
    let mut reader = Reader(unseal(record)?);
    let (origin, number) = frame_head(&mut reader)?;
    let count = reader.count(3, "a block count")?;
    let places =
        (0..count).map(|_| block_head(&mut reader).map(|(partition, number, _)| (partition, number)));
    Ok((origin, number, places.collect::<Result<_, _>>()?))
}

fn frame_head(reader: &mut Reader<'_>) -> Result<(Origin, u64), Malformed> {
    if reader.byte("a frame version")? != VERSION {
        return Err(reader.malformed("frame version 1"));
    }
    let node = NodeId(reader.word("an origin's node")?);
    let origin = Origin { node, start: reader.word("an origin's start")? };
    Ok((origin, reader.varint("a frame number")?))
}

fn block_head<'a>(reader: &mut Reader<'a>) -> Result<(Partition, u64, Reader<'a>), Malformed> {
    let partition = match reader.varint("a partition")? {
        partition if partition <= u64::from(PARTITIONS) => Partition(partition as u16),
        _ => return Err(reader.malformed("a partition of at most 1024")),
    };
    let number = reader.varint("a block number")?;
    let length = reader.count(1, "a block length")?;
    Ok((partition, number, Reader(reader.bytes(length, "a block")?)))
}

fn decode_block(
    reader: &mut Reader<'_>,
    origin: Origin,
    wanted: impl Fn(Partition) -> bool,
) -> Result<Option<Block>, Malformed> {
    let (partition, number, mut body) = block_head(reader)?;
    if !wanted(partition) {
        return Ok(None);
    }
    let body = if partition == REGISTRY {
        let mut operations = Vec::new();
        while !body.is_empty() {
            operations.push(Operation::decode(&mut body)?);
        }
        Body::Registry(operations)
    } else {
        let count = body.count(6, "a name count")?;
        let names = (0..count).map(|_| decode_name(&mut body)).collect::<Result<_, _>>()?;
        let mut runs = Vec::new();
        while !body.is_empty() {
            runs.push(decode_run(&mut body, author(origin))?);
        }
        Body::Samples { names, runs }
    };
    Ok(Some(Block { partition, number, body }))
}

fn decode_name(reader: &mut Reader<'_>) -> Result<Name, Malformed> {
    let sensor = SensorId::new(reader.text("a sensor")?).map_err(|_| reader.malformed("a sensor id"))?;
    let attribute =
        Attribute::new(reader.text("an attribute")?).map_err(|_| reader.malformed("an attribute id"))?;
    let kind = Kind::parse(reader.text("a kind")?).ok_or(reader.malformed("a known kind"))?;
    Ok(Name { sensor, attribute, kind })
}

fn decode_run(reader: &mut Reader<'_>, author: u32) -> Result<Run, Malformed> {
    let series = SeriesId(reader.array("a series id")?);
    let channels = usize::from(reader.byte("a run's tag")?);
    if channels > MAX_CHANNELS {
        return Err(reader.malformed("at most 16 channels"));
    }
    let count = reader.count(1.max(8 * channels), "a sample count")?;
    let stamp = Stamp { time: reader.word("a stamp")?, author };
    if stamp.time.checked_add(count as u64).is_none() {
        return Err(reader.malformed("a stamp that leaves room for its run"));
    }
    let (mut time, mut delta) = (reader.zigzag("a time")?, 0i64);
    let mut times = Vec::with_capacity(count);
    let mut flat = Vec::with_capacity(count * channels);
    let mut texts = Vec::new();
    for index in 0..count {
        if index > 0 {
            delta = delta.wrapping_add(reader.zigzag("a delta")?);
            time = time.wrapping_add(delta);
        }
        times.push(SampleTime(time));
        for _ in 0..channels {
            flat.push(reader.float("a number")?);
        }
        if channels == 0 {
            texts.push(reader.text("a text")?.into());
        }
    }
    let values = if channels == 0 { Values::Texts(texts) } else { Values::Numbers { channels, flat } };
    Ok(Run { series, stamp, samples: Samples { times, values } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ORIGIN: Origin = Origin { node: NodeId(7), start: 0x1_0000_0009 };

    fn example(times: &[i64], channels: usize) -> (Frame, Vec<u8>) {
        let (sensor, attribute) = (SensorId::new("s").unwrap(), Attribute::new("a").unwrap());
        let series = SeriesId::of(&sensor, &attribute);
        let mut run = RunWriter::new(100, channels);
        let mut flat = Vec::new();
        let mut texts: Vec<Box<str>> = Vec::new();
        for (index, time) in times.iter().enumerate() {
            let numbers: Vec<f64> =
                (0..channels).map(|channel| (index * 10 + channel) as f64 / 3.0).collect();
            let text = format!("text {index}");
            let value = if channels == 0 { ValueRef::Text(&text) } else { ValueRef::Numbers(&numbers) };
            run.push(SampleTime(*time), value);
            flat.extend(numbers);
            texts.push(text.into());
        }
        let values = if channels == 0 { Values::Texts(texts) } else { Values::Numbers { channels, flat } };
        let samples = Samples { times: times.iter().copied().map(SampleTime).collect(), values };
        let names = vec![Name { sensor, attribute, kind: Kind::Number }];
        let mut runs = Vec::new();
        run.finish(series, &mut runs);
        let mut writer = FrameWriter::new(ORIGIN, 5);
        writer.samples(Partition(9), 3, &names, &runs);
        let run = Run { series, stamp: Stamp { time: 100, author: 9 }, samples };
        let block =
            Block { partition: Partition(9), number: 3, body: Body::Samples { names, runs: vec![run] } };
        (Frame { origin: ORIGIN, number: 5, blocks: vec![block] }, writer.finish())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_frame_comes_back(times in prop::collection::vec(any::<i64>(), 1..50), channels in 0..=16usize) {
            let (frame, bytes) = example(&times, channels);
            prop_assert_eq!(Frame::decode(&bytes), Ok(frame));
        }

        #[test]
        fn a_frame_is_reduced_to_some_blocks(kept in prop::collection::btree_set(0..20u16, 0..20)) {
            let mut whole = FrameWriter::new(ORIGIN, 700);
            let mut part = FrameWriter::new(ORIGIN, 700);
            for partition in 0..20u16 {
                whole.samples(Partition(partition), u64::from(partition) + 3, &[], &[]);
                if kept.contains(&partition) {
                    part.samples(Partition(partition), u64::from(partition) + 3, &[], &[]);
                }
            }
            let whole = whole.finish();
            let reduced = reduce(&whole, |partition, number| {
                kept.contains(&partition.0) && number == u64::from(partition.0) + 3
            });
            prop_assert_eq!(reduced, (!kept.is_empty()).then(|| part.finish()));
            let (origin, number, places) = outline(&whole).unwrap();
            prop_assert_eq!((origin, number, places.len()), (ORIGIN, 700, 20));
            prop_assert_eq!(places[4], (Partition(4), 7));
        }

        #[test]
        fn a_damaged_frame_is_refused(at in 0..1000usize, bit in 0..8u8) {
            let (_, mut bytes) = example(&[1, 2, 3], 2);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(Frame::decode(&bytes).is_err());
        }

        #[test]
        fn noise_behind_a_right_checksum_never_panics(mut bytes: Vec<u8>) {
            bytes.insert(0, VERSION);
            seal(&mut bytes);
            let _ = Frame::decode(&bytes);
        }
    }

    #[test]
    fn regular_samples_take_nine_bytes() {
        let times: Vec<i64> = (0..1000).map(|index| 1_763_661_600_000_000 + index * 4000).collect();
        let (_, bytes) = example(&times, 1);
        assert!(bytes.len() < 9 * 1000 + 100, "{}", bytes.len());
    }
}
