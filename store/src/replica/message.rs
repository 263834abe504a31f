//! What replicas say to each other over a link. Encoded with `postcard`; the link puts a version before it.
//!
//! Variants are numbered by their order: new ones stand at the end, and say since which version there are any.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::fold::Fold;
use super::version::{BLOCKS, FRAMES};
use crate::clock::Stamp;
use crate::cluster::hello::{FOLDS, NEWS};
use crate::cluster::view::Load;
use crate::exchange::Posted;
use crate::model::ids::{NodeId, Origin, Partition};
use crate::passing::News;
use crate::presence::Signal;

/// The last block held of each origin in one partition.
pub type Entries = Vec<(Origin, u64)>;

/// One message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// First on every link, and again after a snapshot: of the receiver's frames the sender holds all up to `held`,
    /// and has made all up to `durable` durable. The receiver goes on behind `held`.
    Resume {
        /// Last frame held.
        held: u64,
        /// Last frame durable.
        durable: u64,
    },
    /// A frame of the sender. There is none for the receiver between `previous` and this one.
    Frame {
        /// Number of the frame before.
        previous: u64,
        /// The frame as it stands in the log.
        frame: Bytes,
    },
    /// Blocks that the receiver asked for, of any origin.
    Relay {
        /// A frame, or those of its blocks that were asked for.
        frame: Bytes,
    },
    /// All of the receiver's frames up to this one are durable here.
    Ack {
        /// The frame's number.
        frame: u64,
    },
    /// A frame is missing behind this one of the receiver's: go on from there.
    Rewind {
        /// Last frame held.
        after: u64,
    },
    /// The sender's frames behind the one that the receiver holds are no longer in its log. Up to `frame` it made these
    /// blocks: what the receiver lacks of them is in a snapshot.
    Behind {
        /// The last frame.
        frame: u64,
        /// The last block of each partition.
        blocks: Vec<(Partition, u64)>,
    },
    /// What the receiver asked for is no longer in the log; a snapshot of these partitions has it.
    Trimmed {
        /// Whose blocks.
        origin: Origin,
        /// Which.
        partitions: Vec<Partition>,
    },
    /// Hash over all that is durable here.
    Root(u64),
    /// The same for each partition: the roots differ.
    Digest(Vec<u64>),
    /// What is durable here of the partitions that differ.
    Vectors {
        /// Whether the receiver shall answer with its own.
        answer: bool,
        /// By partition.
        partitions: Vec<(Partition, Entries)>,
    },
    /// Send the blocks of `origin` from these numbers on.
    Want {
        /// Whose.
        origin: Origin,
        /// First block wanted in each partition.
        blocks: Vec<(Partition, u64)>,
    },
    /// Send all of these partitions as they stand on disk.
    WantSnapshot {
        /// Which.
        partitions: Vec<Partition>,
    },
    /// A piece of a snapshot.
    Part {
        /// Which read of the sender's disk it is from; later ones have higher numbers.
        read: u64,
        /// Its place in it, from 0.
        place: u64,
        /// What was read.
        piece: Piece,
    },
    /// The snapshot has been sent whole. It counts when all of its parts are there.
    SnapshotEnd {
        /// Which read.
        read: u64,
        /// How many parts it has.
        parts: u64,
        /// What it covers.
        coverage: Coverage,
    },
    /// Series that a scrub found different.
    Piece(Piece),
    /// Hashes of the rings of some series, taken while the partition stood at this version.
    Scrub {
        /// Which partition.
        partition: Partition,
        /// Hash of its entries.
        version: u64,
        /// Series, hash of its ring.
        series: Vec<(u128, u64)>,
    },
    /// Send the rings of these series, which differ.
    WantRings(Vec<u128>),
    /// What the sender says of itself.
    Load(Load),
    /// Sensors that have a device at the sender from now on, and those that no longer do. In version 1 only.
    Devices {
        /// Now online.
        came: Vec<String>,
        /// Online no more.
        gone: Vec<String>,
    },
    /// The sender says goodbye.
    Leaving,
    /// What changed in the sender's tables of what passes. Since version 2, in the place of `Devices`.
    News(News),
    /// From somebody in a room at the sender to somebody in it at the receiver. Since version 2.
    Signal(Signal),
    /// From the message broker of the sender to that of the receiver. Since version 2.
    Posted(Posted),
    /// A client came to the sender: wherever it was, it is no more. Since version 2.
    Claimed {
        /// Its id.
        client: Box<str>,
        /// When.
        at: Stamp,
    },
    /// The wills that clients had left with this run of a node, which was taken for dead, are published. Since version 2.
    Settled {
        /// The node.
        node: NodeId,
        /// Its run.
        start: u64,
        /// The ids of the clients.
        clients: Vec<Box<str>>,
    },
    /// These origins are closed, and all of theirs is durable at the sender. Since version 2.
    Closed {
        /// Which, and how far they came.
        fold: Fold,
        /// The sender has folded them; else it asks whether the receiver has the same.
        folded: bool,
    },
    /// The answer to [`Message::Closed`]: the receiver has all of that alike. Since version 2.
    Alike(Fold),
}

impl Message {
    /// The least version of the protocol that has this message: peers of an older one are not sent it.
    pub fn since(&self) -> u16 {
        match self {
            Self::News(_)
            | Self::Signal(_)
            | Self::Posted(_)
            | Self::Claimed { .. }
            | Self::Settled { .. } => NEWS,
            Self::Closed { .. } | Self::Alike(_) => FOLDS,
            _ => 1,
        }
    }
}

/// A piece of a snapshot: records as they stand in the tables of the sender.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// Records of `series`.
    pub series: Vec<Bytes>,
    /// Records of `descriptors`.
    pub descriptors: Vec<Bytes>,
    /// Records of `chunks`, with the series that each is of.
    pub chunks: Vec<(u128, Bytes)>,
    /// Frames of the log, reduced to the partitions of the snapshot.
    pub frames: Vec<Bytes>,
    /// Of a scrub: the receiver answers with the same series of its own.
    pub answer: bool,
}

/// What a snapshot covers: all blocks up to these numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// By partition.
    pub partitions: Vec<(Partition, Entries)>,
    /// By origin, the last of its frames held without gaps; only in a snapshot of all partitions.
    pub frames: Entries,
}

impl Coverage {
    /// Every entry, those of frames under [`FRAMES`].
    pub fn marks(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        let partitions = self.partitions.iter().filter(|(partition, _)| partition.0 < BLOCKS);
        let blocks = partitions.flat_map(|(partition, entries)| {
            entries.iter().map(|(origin, last)| (*partition, *origin, *last))
        });
        blocks.chain(self.frames.iter().map(|(origin, last)| (FRAMES, *origin, *last)))
    }
}
