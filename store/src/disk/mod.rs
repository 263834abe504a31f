//! The disk tier: one redb file, and a journal before it. The log takes every frame as it is committed, small ones by way
//! of the journal; checkpoints turn what the log holds into chunks, and trim it.
//!
//! Only [`commit`] opens write transactions and writes the journal. [`tables`] is the format, [`tally`] what of it counts as
//! held.

pub(crate) mod backend;
pub(crate) mod checkpoint;
pub(crate) mod chunks;
pub(crate) mod commit;
pub(crate) mod export;
pub(crate) mod journal;
pub(crate) mod recover;
pub(crate) mod tables;
pub(crate) mod tally;
