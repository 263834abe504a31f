//! Every bound of ingest, with what happens at it. How long names are is the store's ([`store::MAX_LABEL_CHARS`] for
//! sensors, channels and units; beyond, `text_too_long`).

use std::time::Duration;

/// Largest WebSocket frame, in bytes; a larger one closes the connection with 1009.
pub const MAX_FRAME_BYTES: usize = 1 << 20;
/// Frames up to this size are read whole before they are refused, so that the sender can be told why.
pub const MAX_READ_BYTES: usize = 4 << 20;
/// Most samples of a frame or payload; more are refused (`too_many_samples`).
pub const MAX_SAMPLES: usize = 10_000;
/// How far ahead of this node's clock a sample may be, in microseconds; beyond, `time_in_future`.
pub const MAX_AHEAD_US: i64 = 60_000_000;
/// Most attributes of a `hello`; beyond, `malformed`.
pub const MAX_ATTRIBUTES: usize = 256;
/// Frames of a connection that may wait for the disk; then it is not read until one is kept.
pub const MAX_OUTSTANDING: usize = 1024;
/// Most WebSocket connections of devices; one more is answered 503.
pub const MAX_CONNECTIONS: usize = 50_000;
/// Series that a connection keeps at hand; beyond, it looks them up anew.
pub const MAX_PLACES: usize = 1024;
/// Samples in a row that are older than their ring before the device is told (`clock_stepped`).
pub const LATE_IN_A_ROW: usize = 100;
/// A device that has not said a good `hello` by then is closed.
pub const HELLO_WITHIN: Duration = Duration::from_secs(10);
/// A device that says nothing for so long is closed.
pub const SILENCE: Duration = Duration::from_secs(60);
/// A device that does not read its acknowledgements for so long is cut off.
pub const SEND_WITHIN: Duration = Duration::from_secs(30);
/// When the node stops, acknowledgements that a client still waits for are waited for no longer than this.
pub const DRAIN_WITHIN: Duration = Duration::from_secs(1);
