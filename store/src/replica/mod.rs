//! How blocks are made, named and counted. No tokio, no redb, no clock read in here.

pub mod fold;
pub mod frame;
pub mod message;
pub mod state;
pub mod version;
