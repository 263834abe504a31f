//! The parts of a cluster that nodes meet through, several nodes in one process, over loopback.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]

mod discover;
mod link;
mod member;
