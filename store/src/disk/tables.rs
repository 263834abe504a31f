//! The disk format: tables of the redb file, their keys and records. ARCHITECTURE.md describes it in words.
//!
//! Every record but those of `meta` and `versions` ends in a checksum (see [`crate::codec::seal`]).

use redb::TableDefinition;

use crate::model::ids::{Origin, Partition, SeriesId};

/// The format that this program writes and reads.
pub(crate) const FORMAT: u64 = 1;
/// Name of the file in the data directory.
pub(crate) const FILE: &str = "sensorium.redb";

/// Settings of the file: `format`, `node`, `partitions`.
pub(crate) const META: TableDefinition<'static, &str, u64> = TableDefinition::new("meta");
/// (origin's node, origin's start, frame number) → frame.
pub(crate) const LOG: TableDefinition<'static, LogKey, &[u8]> = TableDefinition::new("log");
/// (partition, series, first time) → chunk.
pub(crate) const CHUNKS: TableDefinition<'static, ChunkKey, &[u8]> = TableDefinition::new("chunks");
/// Series → names and kind.
pub(crate) const SERIES: TableDefinition<'static, u128, &[u8]> = TableDefinition::new("series");
/// Sensor → registry operations that make its descriptor.
pub(crate) const DESCRIPTORS: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("descriptors");
/// (partition, origin's node, origin's start) → last block of the trimmed part of the log. What the log still holds
/// comes on top, so that a commit need not touch this table.
pub(crate) const VERSIONS: TableDefinition<'static, (u16, u64, u64), u64> = TableDefinition::new("versions");

pub(crate) type LogKey = (u64, u64, u64);
pub(crate) type ChunkKey = (u16, u128, i64);

pub(crate) fn log_key(origin: Origin, number: u64) -> LogKey {
    (origin.node.0, origin.start, number)
}

pub(crate) fn series_key(series: SeriesId) -> u128 {
    u128::from_be_bytes(series.0)
}

pub(crate) fn chunk_key(partition: Partition, series: SeriesId, first: i64) -> ChunkKey {
    (partition.0, series_key(series), first)
}
