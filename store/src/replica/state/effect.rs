//! What follows from an event, and the words for it.

use bytes::Bytes;

use crate::model::ids::{NodeId, Origin, Partition};
use crate::replica::fold::Fold;
use crate::replica::frame::Block;
use crate::replica::message::{Coverage, Message};
use crate::replica::version::FRAMES;

/// How many copies make an acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Copies asked for; fewer do while fewer nodes are alive.
    pub ack_copies: u8,
    /// Below this nothing is acknowledged.
    pub min_copies: u8,
}

/// Blocks of a peer that were taken: to be joined into the rings and logged.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Author.
    pub origin: Origin,
    /// With it, all frames of the origin up to this one are held.
    pub frame: Option<u64>,
    /// Those that were not held yet.
    pub blocks: Vec<Block>,
    /// The frame that goes to the log; empty when nothing of it was new.
    pub bytes: Bytes,
}

impl Taken {
    /// What is held, once it is durable.
    pub fn marks(&self) -> impl Iterator<Item = (Partition, Origin, u64)> + '_ {
        let blocks = self.blocks.iter().map(|block| (block.partition, self.origin, block.number));
        blocks.chain(self.frame.map(|frame| (FRAMES, self.origin, frame)))
    }
}

/// What the host has to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Send a message.
    Send(NodeId, Message),
    /// Own frames up to this one are acknowledged, with so many copies.
    Settle {
        /// The frame.
        frame: u64,
        /// Nodes that have it on disk.
        copies: u8,
        /// Fewer than asked for, since peers are gone.
        fewer: bool,
    },
    /// Send the blocks of an origin from these numbers on as relays; say [`Message::Trimmed`] for what the log lacks.
    Serve {
        /// To whom.
        to: NodeId,
        /// Whose.
        origin: Origin,
        /// First block of each partition.
        blocks: Vec<(Partition, u64)>,
    },
    /// Send these partitions from one read transaction as [`Message::Part`]s, then [`Message::SnapshotEnd`], if it may
    /// begin: see [`Replica::begin_read`].
    Snapshot {
        /// To whom.
        to: NodeId,
        /// Which.
        partitions: Vec<Partition>,
    },
    /// Make all that came in the snapshot durable, then call [`Replica::adopted`].
    Adopt(Coverage),
    /// Make the fold durable, then call [`Replica::folded`]. The log still has blocks of what is folded: up to this
    /// moment they no longer count.
    Fold(Fold),
    /// The peer has more frames to get, or may go on: see [`Replica::next`].
    Stream(NodeId),
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Wants sent.
    pub wants: u64,
    /// Rewinds asked for.
    pub rewinds: u64,
    /// Snapshots asked for.
    pub snapshots: u64,
    /// Those given up when parts of them had come.
    pub broken_off: u64,
    /// Snapshots that others wait for, since one was joined here.
    pub put_off: u64,
    /// Folds made durable.
    pub folds: u64,
    /// Origins that they put away.
    pub origins_folded: u64,
    /// Folds of others that hold something else than this node.
    pub folds_missed: u64,
}
