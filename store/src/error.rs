//! What can go wrong: one enum per operation. Messages name what was wrong and what was expected.

use std::path::PathBuf;
use std::sync::Arc;

use crate::model::ids::{Attribute, SensorId};
use crate::model::kind::Kind;

/// Why a store does not open. Each message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the data directory.
    #[error("{} is in use by another process; stop that one or choose another --data", path.display())]
    AlreadyOpen {
        /// The data file.
        path: PathBuf,
    },
    /// The file is not what we wrote.
    #[error(
        "{} is damaged: {what}; move the file aside and start again (replicas refill the node; a node alone starts empty)",
        path.display()
    )]
    Corrupt {
        /// The data file.
        path: PathBuf,
        /// The part of it, and how it is wrong.
        what: String,
    },
    /// A format of another release.
    #[error("{} has disk format {found}, this program reads {expected}; use the release that wrote it", path.display())]
    Format {
        /// The data file.
        path: PathBuf,
        /// Its format.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// The operating system said no.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// The database said no.
    #[error("{}: {source}", path.display())]
    Database {
        /// The data file.
        path: PathBuf,
        /// What it said.
        source: Box<redb::Error>,
    },
}

/// Why a store that was closed has stopped.
pub(crate) const CLOSED: &str = "it was closed";

/// The store has stopped: a commit failed (nothing after it is acknowledged), or it was closed.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store has stopped: {0}")]
pub struct Failed(pub(crate) Arc<str>);

/// Why an append did not take place.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AppendError {
    /// A batch does not belong into its series; nothing was appended.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store has stopped.
    #[error(transparent)]
    Failed(#[from] Failed),
    /// A batch with more or fewer times than values.
    #[error("a batch has {times} times and {values} values")]
    Uneven {
        /// How many times.
        times: usize,
        /// How many values.
        values: usize,
    },
    /// No batch at all.
    #[error("there is nothing to append")]
    Empty,
}

/// Why samples or a description are refused. Nothing has changed then.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// A description of another kind than the series has.
    #[error("{sensor}/{attribute} is of kind {}, not {}", held.name(), asked.name())]
    KindConflict {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What it is.
        held: Kind,
        /// What was asked for.
        asked: Kind,
    },
    /// A text for a series of numbers.
    #[error("{sensor}/{attribute} of kind {} takes numbers, not a text", kind.name())]
    NotNumber {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What it is.
        kind: Kind,
    },
    /// A number for a series of texts.
    #[error("{sensor}/{attribute} of kind {} takes texts, not numbers", kind.name())]
    NotText {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What it is.
        kind: Kind,
    },
    /// More channels than the kind has.
    #[error("{sensor}/{attribute} of kind {} has at most {} channels, not {channels}", kind.name(), kind.max_channels())]
    TooManyChannels {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What it is.
        kind: Kind,
        /// How many came.
        channels: usize,
    },
    /// The memory limit is reached.
    #[error(
        "{sensor}/{attribute} needs {needed} bytes of memory; {held} of {limit} are taken (--memory-limit)"
    )]
    TooManySeries {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// Bytes that the ring may come to take.
        needed: u64,
        /// Bytes promised to others.
        held: u64,
        /// The limit.
        limit: u64,
    },
    /// A `keep` outside of its bounds.
    #[error("keep of {sensor}/{attribute} is {keep}; expected 1 to {most}")]
    BadKeep {
        /// Whose.
        sensor: SensorId,
        /// Which.
        attribute: Attribute,
        /// What was asked for.
        keep: usize,
        /// The bound.
        most: usize,
    },
}

impl Refusal {
    /// The code in error bodies.
    pub fn code(&self) -> &'static str {
        match self {
            Self::KindConflict { .. } => "kind_conflict",
            Self::NotNumber { .. } => "value_not_a_number",
            Self::NotText { .. } => "value_not_a_text",
            Self::TooManyChannels { .. } => "too_many_channels",
            Self::TooManySeries { .. } => "too_many_series",
            Self::BadKeep { .. } => "bad_keep",
        }
    }
}
