//! The clients against nodes that fail: whatever happens to connections, everything is acknowledged in the end, and what
//! is sent again is what was sent.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test that calls them")]

mod broker;
mod node;
mod program;
mod reconnects;
mod replays;
