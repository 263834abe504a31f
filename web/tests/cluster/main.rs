//! Several nodes as real processes: they find each other, are killed, hung, wiped, restarted and cut off under load, and at
//! the end every acknowledged sample is looked for on every node.
//!
//! `SENSORIUM_SLOW=1` fails them more often and for longer; `SENSORIUM_SEED` repeats the order of failures. The tests run
//! one at a time: each needs the machine for itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod catch_up;
mod common;
mod delay;
mod demo;
mod divided;
mod failures;
mod mqtt;
mod network;
mod people;
mod refusals;
mod relay;
mod rooms;
mod space;
mod together;
mod unwatched;
