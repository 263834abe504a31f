//! The error codes of ingest, in one table: code, meaning, and what it comes to on each protocol.

use std::fmt::Write as _;

use store::{IdError, Refusal};

use crate::wire::rows::Fault;

/// A code and its meaning on each protocol.
#[derive(Debug, Clone, Copy)]
pub struct Code {
    /// As it stands in errors.
    pub code: &'static str,
    /// What was wrong.
    pub meaning: &'static str,
    /// HTTP status.
    pub http: u16,
    /// MQTT 5 reason code of the acknowledgement; 3.1.1 acknowledges, drops and counts.
    pub mqtt: u8,
    /// On a device's WebSocket.
    pub websocket: &'static str,
}

/// An `error` that uses the frame's number.
const FRAME: &str = "error with seq; the frame is refused whole";
/// An `error` for what is no frame of samples.
const LOOSE: &str = "error without seq; nothing is used";

/// Every code that ingest tells a sender.
pub const TABLE: &[Code] = &[
    row("bad_json", "a frame or payload is not the JSON that was expected", 400, 0x99, LOOSE),
    row("bad_cbor", "a frame is not the CBOR that was expected", 400, 0x99, LOOSE),
    row(
        "bad_frame",
        "a WebSocket frame is text where CBOR was agreed on, or binary where not",
        400,
        0x99,
        LOOSE,
    ),
    row("malformed", "a field is missing, or has another form than expected", 400, 0x99, FRAME),
    row("hello_expected", "samples came before a good hello", 400, 0x99, FRAME),
    row(
        "seq_gap",
        "a frame's seq is not one more than the last",
        409,
        0x99,
        "error with seq; no number is used",
    ),
    row("no_samples", "a frame or payload holds no samples", 422, 0x99, FRAME),
    row("too_many_samples", "a frame or payload holds more than 10 000 samples", 422, 0x99, FRAME),
    row("too_many_channels", "a value has more channels than its kind, or than 16", 422, 0x99, FRAME),
    row("value_not_a_number", "a value is no number where one is expected, or not finite", 422, 0x99, FRAME),
    row("value_not_a_text", "a value is no text where one is expected", 422, 0x99, FRAME),
    row("text_too_long", "a text is longer than 4096 bytes, or a name than 200 characters", 422, 0x99, FRAME),
    row("bad_time", "a ts or interval_ms is no time", 422, 0x99, FRAME),
    row("time_in_future", "a ts is more than 60 s ahead of the node's clock", 422, 0x99, FRAME),
    row("bad_id", "a sensor or attribute is no id", 422, 0x90, FRAME),
    row("bad_name", "a SenML name names no sensor or attribute", 422, 0x99, FRAME),
    row(
        "bad_topic",
        "a topic below sensors/ names no sensor or attribute; or only nodes publish to it (rooms/, advice/)",
        422,
        0x90,
        "does not occur",
    ),
    row("bad_keep", "a keep outside of 1 to 100 000 (texts 1000)", 422, 0x99, LOOSE),
    row("unknown_kind", "an attribute is described with a kind that there is not", 422, 0x99, LOOSE),
    row("kind_conflict", "an attribute is described with another kind than it has", 409, 0x99, LOOSE),
    row("too_many_series", "the memory limit is reached; held series go on", 503, 0x97, FRAME),
    row("store_failed", "the node cannot keep data now", 503, 0x83, "error with seq, then close 1011"),
    row("frame_too_large", "a frame is over max_frame_bytes", 413, 0x95, "close 1009"),
    row("silent", "nothing was heard for 60 s (no hello for 10 s)", 408, 0x8D, "close 1000"),
    row(
        "clock_stepped",
        "100 samples in a row were older than their ring",
        200,
        0x00,
        "notice; samples are taken",
    ),
];

const fn row(
    code: &'static str,
    meaning: &'static str,
    http: u16,
    mqtt: u8,
    websocket: &'static str,
) -> Code {
    Code { code, meaning, http, mqtt, websocket }
}

/// The row of `code`.
pub fn find(code: &str) -> Option<&'static Code> {
    TABLE.iter().find(|row| row.code == code)
}

/// The table as it stands in ARCHITECTURE.md.
pub fn markdown() -> String {
    let mut out = String::from("| code | meaning | HTTP | MQTT 5 | WebSocket |\n|---|---|---|---|---|\n");
    for Code { code, meaning, http, mqtt, websocket } in TABLE {
        // A String takes all that is written to it.
        let _ = writeln!(out, "| `{code}` | {meaning} | {http} | 0x{mqtt:02X} | {websocket} |");
    }
    out
}

/// Why samples or a description are refused: nothing of them was taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refused {
    /// One of the table.
    pub code: &'static str,
    /// What was wrong, with the value, and what was expected.
    pub message: String,
}

impl Refused {
    /// A refusal with a code of the table.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(find(code).is_some(), "{code} is missing from the table");
        Self { code, message: message.into() }
    }
}

impl From<Fault> for Refused {
    fn from(fault: Fault) -> Self {
        let code = match &fault {
            Fault::NotJson(_) | Fault::Unreadable(_) => "bad_json",
            Fault::NotCbor(_) => "bad_cbor",
            Fault::WrongFormat(_) => "bad_frame",
            Fault::NotAValue(_) | Fault::TooLarge => "value_not_a_number",
            Fault::NotATime(_) => "bad_time",
            Fault::Malformed(_) => "malformed",
            Fault::BadName(_) => "bad_name",
        };
        Self::new(code, fault.to_string())
    }
}

impl From<IdError> for Refused {
    fn from(error: IdError) -> Self {
        Self::new("bad_id", error.to_string())
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self::new(refusal.code(), refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_stand_in_the_architecture() {
        let text = include_str!("../../ARCHITECTURE.md");
        for (index, row) in TABLE.iter().enumerate() {
            assert!(TABLE[..index].iter().all(|other| other.code != row.code), "{} twice", row.code);
        }
        assert!(text.contains(&markdown()), "ARCHITECTURE.md should hold this table:\n{}", markdown());
    }
}
