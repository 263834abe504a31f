//! The disk format: tables of the redb file, their keys and records. ARCHITECTURE.md describes it in words.
//!
//! Every record but those of `meta` and `versions` ends in a checksum (see [`crate::codec::seal`]).

use redb::TableDefinition;

use crate::model::ids::{Partition, RoomId, SeriesId};
use crate::registry::retained::Number;

/// The format that this program writes and reads.
pub(crate) const FORMAT: u64 = 3;
/// The formats before, which are rewritten. In 1 the log is keyed by (origin's node, origin's start, frame number), and
/// holds own frames only. In 2 there are neither rooms nor retained messages: a program that wrote it would not
/// understand them.
pub(crate) const FORMATS_BEFORE: [u64; 2] = [1, 2];
/// Name of the file in the data directory.
pub(crate) const FILE: &str = "sensorium.redb";

/// Settings of the file: `format`, `node`, `partitions`; `commit`: the last one whose frames were trimmed; `run`: whose
/// records of the journal go on where the log ends.
pub(crate) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// (commit, place) → frame. An own frame has the number of its commit and stands first; behind it stand the frames of
/// others that were taken since the commit before.
pub(crate) const LOG: TableDefinition<'static, LogKey, &[u8]> = TableDefinition::new("frames");
/// The log of format 1.
pub(crate) const LOG_BEFORE: TableDefinition<'static, (u64, u64, u64), &[u8]> = TableDefinition::new("log");
/// (partition, series, first time) → chunk.
pub(crate) const CHUNKS: TableDefinition<'static, ChunkKey, &[u8]> = TableDefinition::new("chunks");
/// Series → names and kind.
pub(crate) const SERIES: TableDefinition<'static, u128, &[u8]> = TableDefinition::new("series");
/// Sensor, [`room_key`] or [`topic_key`] → registry operations that make its descriptor, the room, or its retained message.
pub(crate) const DESCRIPTORS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("descriptors");
/// (partition, origin's node, origin's start) → last block of the trimmed part of the log. What the log still holds
/// comes on top, so that a commit need not touch this table. Partition 1025 stands for the origin's frames themselves.
pub(crate) const VERSIONS: TableDefinition<'static, (u16, u64, u64), u64> = TableDefinition::new("versions");
/// (origin's node, origin's start) → commit. Blocks of this origin that the log has up to this commit are joined, but
/// count no more: the origin is folded (see [`crate::replica::fold`]). Gone when the log is trimmed behind it.
pub(crate) const FOLDED: TableDefinition<'static, (u64, u64), u64> = TableDefinition::new("folded");

/// Commit, and place in it: see [`place`].
pub(crate) type LogKey = (u64, u32);
pub(crate) type ChunkKey = (u16, u128, i64);

/// The place of an own frame.
pub(crate) const OWN: u32 = place(0, true);

/// The place of the frame `index` of a commit. `whole`: with it all frames of its origin up to it are held.
pub(crate) const fn place(index: u32, whole: bool) -> u32 {
    index * 2 + whole as u32
}

/// Whether a place is that of a whole frame.
pub(crate) fn is_whole(place: u32) -> bool {
    place % 2 == 1
}

/// The key of a room among the descriptors: no sensor can be called so.
pub(crate) fn room_key(room: &RoomId) -> String {
    format!("room/{room}")
}

/// The key of a topic among the descriptors, by its number.
pub(crate) fn topic_key(topic: Number) -> String {
    format!("retained/{topic:x}")
}

pub(crate) fn series_key(series: SeriesId) -> u128 {
    u128::from_be_bytes(series.0)
}

pub(crate) fn chunk_key(partition: Partition, series: SeriesId, first: i64) -> ChunkKey {
    (partition.0, series_key(series), first)
}
