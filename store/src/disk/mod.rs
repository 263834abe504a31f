//! The disk tier: one redb file. The log takes every frame as it is committed; checkpoints turn what the log holds
//! into chunks, and trim it.
//!
//! Only [`commit`] opens write transactions. [`tables`] is the format, [`tally`] what of it counts as held.

pub(crate) mod backend;
pub(crate) mod checkpoint;
pub(crate) mod chunks;
pub(crate) mod commit;
pub(crate) mod export;
pub(crate) mod recover;
pub(crate) mod tables;
pub(crate) mod tally;
