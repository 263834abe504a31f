//! Simulated devices for Sensorium.
//!
//! | module | what lives there | what it must not know |
//! |---|---|---|
//! | [`signals`] | plausible measurements, a pure function of their seed | sockets, the clock of the machine |
//! | [`fleet`] | scenarios of many devices, run in real time | how a frame is written |
//! | [`replay`] | recordings in CSV, sent as if they were measured | how a frame is written |
//! | [`client`] | what a device keeps until it is acknowledged; WebSocket and MQTT | where samples come from |
//! | [`batch`], [`tally`], [`acks`], [`pulse`] | one frame's samples; what was counted; the log of acknowledgements; silences | |
//! | [`demo`] | real node processes, viewers, failures, and the checker of what was promised | the inside of a node |
//!
//! A sample is *sent* once and *acked* once, whatever happens to connections in between; what is sent again after a
//! reconnect has the same times and values.

pub mod acks;
pub mod batch;
pub mod client;
pub mod demo;
pub mod duration;
pub mod fleet;
pub mod pulse;
pub mod replay;
pub mod signals;
pub mod tally;

/// Longest id of a sensor or attribute.
const MAX_ID: usize = 128;

/// Whether `text` may name a sensor or an attribute: `^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$`.
pub fn is_id(text: &str) -> bool {
    text.len() <= MAX_ID
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c))
}

/// Microseconds since 1970 by this machine's clock.
pub fn now_us() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
